"""Process life: the spawner that forks, the monitor that stays, the log, the clients."""

from .client import Spawner

__all__ = ["Spawner"]
