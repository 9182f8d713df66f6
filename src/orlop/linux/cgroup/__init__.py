"""Control groups: `detect` the layout, then one `Cgroup` spans every hierarchy. v2 is the design, v1 one file beside.

Standard library only; raises OSError with the control file as filename; decides nothing.
"""

from .layout import Layout, detect
from .settings import Setting
from .tree import Cgroup

__all__ = ["Cgroup", "Layout", "Setting", "detect"]
