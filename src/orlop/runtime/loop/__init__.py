"""Files that hold a file system, mounted by a loop device that goes with the last mount.

One file never has two devices: two mounts of it are one super block of the kernel's, or they would destroy each other's
work. Whoever mounts one locks the file (flock) until it is mounted.
"""

from __future__ import annotations

import fcntl
import os

from ...linux import mount
from . import device

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def mount_file(path: str, fstype: str, options: Iterable[tuple[str, str | int | None]] = ()) -> int:
    """Return a detached mount of the file system in a file; the device goes with the last mount of it.

    options: as for `mount.new_filesystem`; of a file that is mounted already, the ones that it was mounted with hold.
    Raises OSError: of device.CONTROL or of a device where loop devices are not there or not ours to use.
    """
    lock = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        opened, name = device.attached(lock, os.path.basename(path)) or device.attach(path)
        try:
            return mount.new_filesystem(fstype, options, source=name)
        finally:
            os.close(opened)
    finally:
        os.close(lock)
