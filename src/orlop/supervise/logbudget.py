"""How much the logs of all containers of an engine may take together. Held by the monitors, when one of them rotates.

    containers/<id>/log.json         never removed here: its own limit bounds it
                    log.json.N[.gz]  the oldest of all goes first

A file that another monitor renames meanwhile may be gone or a newer one by then: it is looked at again before it goes.
"""

import os

from ..spec.task import LOG_FILE

_ROTATED = LOG_FILE + "."


def enforce(directory_fd: int, budget_bytes: int) -> int:
    """Remove rotated files until all logs fit into the budget; return how many bytes that freed. Raises nothing.

    directory_fd: of one container, beside which the others lie.
    """
    total = 0
    rotated: list[tuple[int, str, int, int]] = []
    try:
        above = os.open("..", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory_fd)
    except OSError:
        return 0
    freed = 0
    try:
        for container in os.listdir(above):
            for name, info in _logs(above, container):
                total += info.st_size
                if name != LOG_FILE:
                    rotated.append((info.st_mtime_ns, f"{container}/{name}", info.st_ino, info.st_size))
        rotated.sort()
        for _, path, inode, size in rotated:
            if total - freed <= budget_bytes:
                break
            if os.stat(path, dir_fd=above, follow_symlinks=False).st_ino == inode:
                os.unlink(path, dir_fd=above)
                freed += size
    except OSError:
        pass  # a container went, or a file: the next rotation looks again
    finally:
        os.close(above)
    return freed


def _logs(above: int, container: str) -> list[tuple[str, os.stat_result]]:
    try:
        fd = os.open(container, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
    except OSError:
        return []
    try:
        names = [name for name in os.listdir(fd) if name == LOG_FILE or name.startswith(_ROTATED)]
        return [(name, os.stat(name, dir_fd=fd, follow_symlinks=False)) for name in names]
    except OSError:
        return []
    finally:
        os.close(fd)
