"""What hides and protects paths, after CRIU has made it again.

Of several bind mounts of one file system CRIU 4.1 restores the attributes of the first: the second masked file can be
written, and executes. They are set once more, while nothing of the container's runs yet.
"""

import errno
import os

from ...linux import mount, process
from ...linux import path as linux_path
from ...spec.errors import Unavailable
from ...spec.runtime import Spec
from ..operations.masks import HIDDEN


def protect(spec: Spec, pid: int) -> None:
    """Give the masked and the read-only paths of the restored process `pid` their attributes again.

    The caller has one thread; it is in that process's mount namespace for the time of it. Raises Unavailable for a path
    that is there and that nothing covers.
    """
    rows = [(path, HIDDEN, False) for path in spec.linux.masked_paths]
    rows += [(path, mount.MOUNT_ATTR_RDONLY, True) for path in spec.linux.readonly_paths]
    if not rows:
        return
    home = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        inside = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        try:
            process.setns(inside, process.CLONE_NEWNS)
            try:
                for path, attributes, recursive in rows:
                    _set(path, attributes, recursive)
            finally:
                process.setns(home, process.CLONE_NEWNS)
        finally:
            os.close(inside)
    except OSError as failure:
        raise Unavailable("protect", f"process {pid}", failure.strerror or str(failure)) from None
    finally:
        os.close(home)


def _set(path: str, attributes: int, recursive: bool) -> None:
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        target = linux_path.open_in_root(root, os.path.normpath(path), os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return
    finally:
        os.close(root)
    try:
        mount.mount_setattr(target, set_=attributes, recursive=recursive)
    except OSError as failure:
        cause = "CRIU mounted nothing there" if failure.errno == errno.EINVAL else failure.strerror or str(failure)
        raise Unavailable("protect", path, cause) from None
    finally:
        os.close(target)
