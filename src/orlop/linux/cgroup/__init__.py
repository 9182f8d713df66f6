"""Control groups: `detect` the layout, then one `Cgroup` spans every hierarchy. v2 is the design, v1 one file beside.

Standard library only; raises OSError with the control file as filename; decides nothing.
"""

from .counters import Events, Stats
from .directory import split_path
from .layout import Layout, below, detect, usable
from .settings import Setting
from .tree import Cgroup

__all__ = ["Cgroup", "Events", "Layout", "Setting", "Stats", "below", "detect", "split_path", "usable"]
