"""Whether a cgroup is frozen, for who wants to know no more: `linux.cgroup` is eight modules."""

import errno
import os


def is_frozen(file: str) -> bool:
    """Return what a cgroup's `cgroup.freeze` or `freezer.self_freezing` says, by its path. One that is gone was not.

    The cgroup itself was asked to freeze then, whether or not all stand still yet. Raises OSError.
    """
    try:
        fd = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        return os.read(fd, 8).strip() == b"1"
    except OSError as error:
        if error.errno == errno.ENODEV:  # removed since
            return False
        raise
    finally:
        os.close(fd)
