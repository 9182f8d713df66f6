"""How much the logs of all containers of an engine may take together. Held by the monitors, when one of them rotates.

    containers/<id>/log.json         never removed here: its own limit bounds it
                    log.json.N[.gz]  the oldest of all goes first
    trimmed/<id>                     how many bytes of that log are gone that no engine has told of (engine: log.trim)

A file that another monitor renames meanwhile may be gone or a newer one by then: it is looked at again before it goes.
"""

import os
import time

from ..spec.task import LOG_FILE, TRIMMED_DIRECTORY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

TELL_S = 5.0  # between two notes of one monitor
_NOTE = ".trimmed"
_ROTATED = LOG_FILE + "."


class Trims:
    """What went of logs, until it is told: in a note, which the engine takes away.

    While a note is there nothing is told again, but counted: there is one for a container, however long no engine is.
    """

    __slots__ = ("_directory", "_due", "_told_at")

    def __init__(self, directory_fd: int) -> None:
        """directory_fd: of the monitor's own container, borrowed."""
        self._directory = directory_fd
        self._due: dict[str, int] = {}
        self._told_at = -TELL_S

    def add(self, container: str, size: int) -> None:
        """Count what went of a container's log; "" is the monitor's own."""
        if size:
            name = container or os.path.basename(os.readlink(f"/proc/self/fd/{self._directory}"))
            self._due[name] = self._due.get(name, 0) + size

    def tell(self, *, last: bool = False) -> None:
        """Leave notes, now and then. last: whatever the time is. Raises nothing."""
        if not self._due or not (last or time.monotonic() - self._told_at >= TELL_S):
            return
        self._told_at = time.monotonic()
        for name, size in list(self._due.items()):
            try:
                self._leave(name, size)
            except FileExistsError:
                continue
            except OSError:
                pass  # a full disk, or no engine's container: then nobody hears of it
            del self._due[name]

    def _leave(self, name: str, size: int) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(_NOTE, flags, 0o600, dir_fd=self._directory)
        try:
            os.write(fd, str(size).encode())
            place = f"../../{TRIMMED_DIRECTORY}/{name}"
            os.link(_NOTE, place, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        finally:
            os.close(fd)
            os.unlink(_NOTE, dir_fd=self._directory)


def enforce(directory_fd: int, budget_bytes: int, told: "Callable[[str, int], object]") -> int:
    """Remove rotated files until all logs fit into the budget; return how many bytes that freed. Raises nothing.

    directory_fd: of one container, beside which the others lie. told: called with each file's container and size.
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
                told(path.partition("/")[0], size)
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
