"""Snapshots: file systems from layers. `Snapshots` is the door."""

from .drivers import VARIABLE as STORAGE_DRIVER
from .drivers import of as driver_of
from .record import Usage
from .snapshots import Snapshots

__all__ = ["STORAGE_DRIVER", "Snapshots", "Usage", "driver_of"]
