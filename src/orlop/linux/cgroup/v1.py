"""What cgroup v1 needs and v2 does by itself.

Source: Documentation/admin-guide/cgroup-v1/cpusets.rst, freezer-subsystem.rst, memory.rst.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .directory import Directory


def inherit_cpuset(parent: Directory, child: Directory) -> None:
    """Copy the parent's cpus and memory nodes into a child that has none: no process may enter it before."""
    for file in ("cpuset.cpus", "cpuset.mems"):
        if not child.read(file).strip() and (value := parent.read(file).strip()):
            child.write(file, value)
