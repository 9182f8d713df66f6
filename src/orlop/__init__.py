"""Orlop: a container platform. See docs/ARCHITECTURE.md."""

__version__ = "0.1.0"
