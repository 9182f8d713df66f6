"""Scoped sockets: record, what is asked for and kept; store, which there are and what was done through them."""

from .store import Sockets as Sockets
