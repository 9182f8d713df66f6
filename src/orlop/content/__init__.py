"""The content store. `Store` is its door."""

from .store import Ingest, Store

__all__ = ["Ingest", "Store"]
