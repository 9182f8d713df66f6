"""Snapshots: file systems from layers. `Snapshots` is the door."""

from .record import Usage
from .snapshots import Snapshots

__all__ = ["Snapshots", "Usage"]
