"""The verbs of images. Those that fetch, send or remove are imported where they are called: http and tar cost 50 ms."""

from .listing import find, history, import_archive, inspect, summaries

__all__ = ["find", "history", "import_archive", "inspect", "summaries"]
