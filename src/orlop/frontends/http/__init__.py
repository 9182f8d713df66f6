"""HTTP/1.1 for the doors that speak it, in bounded threads, on the standard library. See `Server` and `Exchange`."""

from .exchange import Exchange
from .head import Refused
from .server import Server

__all__ = ["Exchange", "Refused", "Server"]
