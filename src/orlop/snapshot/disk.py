"""A directory of bounded size where the file system below keeps no quotas: an ext4 in a sparse file, mounted by a loop
device whenever somebody wants it, and in nobody's mount table of the host (I4).

The file takes what is written to it, and gives back what is removed (`discard`). What ext4 needs for itself comes on
top of the size, so that a user finds what he asked for. Where the machine's disk is full before the bound is reached, a
write fails late, as on a disk that breaks: the size bounds, it does not reserve.
"""

from __future__ import annotations

import os
from contextlib import contextmanager

from orlop.runtime.rootfs import open_disk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PROGRAM = "mkfs.ext4"
SIZE_BYTES_MIN = 1 << 20
_SEARCHED = ("/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/bin")
_BLOCK_BYTES, _SMALL_BLOCK_BYTES = 4096, 1024
_BYTES_PER_INODE, _INODE_BYTES = 8192, 256
_GROUP_OWN_BLOCKS = 4  # of as many blocks as one block has bits: two bitmaps, a descriptor, copies of the super block
_SMALL_BYTES = 8 << 20  # of so little a file system has no journal, unless its blocks are small
_JOURNALS_MIB = ((_SMALL_BYTES, 1), (1 << 30, 4), (16 << 30, 16))
_JOURNAL_MIB_MAX = 64
_OWN_BYTES = 128 << 10  # super block, root directory, rounding
_OUTPUT_BYTES_MAX = 16 * 1024


class NoDisk(Exception):
    """Why a file system in a file can't be had here: a sentence, and what to do."""

    def __init__(self, cause: str, hint: str) -> None:
        super().__init__(cause)
        self.cause = cause
        self.hint = hint


def make(path: str, size_bytes: int, fill: Callable[[str], None]) -> None:
    """Make a file system of this size in a new file. fill: is given its empty root, at a path of ours, mounted.

    Raises NoDisk where that can't be, then nothing stays; OSError.
    """
    program = next((f"{place}/{PROGRAM}" for place in _SEARCHED if os.access(f"{place}/{PROGRAM}", os.X_OK)), "")
    if not program:
        raise NoDisk(f"there is no {PROGRAM} on this machine", "install e2fsprogs")
    size_bytes = max(size_bytes, SIZE_BYTES_MIN)
    block = _SMALL_BLOCK_BYTES if size_bytes < _SMALL_BYTES else _BLOCK_BYTES
    journal = next((mib for bound, mib in _JOURNALS_MIB if size_bytes < bound), _JOURNAL_MIB_MAX)
    inodes = -(-size_bytes // _BYTES_PER_INODE)
    whole = size_bytes + (journal << 20) + inodes * _INODE_BYTES + _OWN_BYTES
    whole += (whole // (block * block * 8) + 1) * _GROUP_OWN_BLOCKS * block
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.truncate(fd, -(-whole // _BLOCK_BYTES) * _BLOCK_BYTES)
        _format(program, path, (block, inodes, journal))
        with mounted(path) as root:
            os.rmdir(f"{root}/lost+found")  # e2fsck makes it when it needs it
            fill(root)
        os.fsync(fd)
    except BaseException:
        os.unlink(path)
        raise
    finally:
        os.close(fd)


@contextmanager
def mounted(path: str) -> Iterator[str]:
    """Hold the root of the file system in a file, at a path of this process. Raises NoDisk, OSError."""
    fd = open_root(path)
    try:
        yield f"/proc/self/fd/{fd}/."  # so that it is no link to who follows none
    finally:
        os.close(fd)


def open_root(path: str) -> int:
    """Return a detached mount of the file system in a file. Raises NoDisk where loop devices can't be had, OSError."""
    try:
        return open_disk(path)
    except OSError as wrong:
        if not str(wrong.filename or "").startswith("/dev/loop"):
            raise
        cause = f"no loop device can be used: {wrong.filename}: {wrong.strerror}"
        raise NoDisk(cause, "load the module (modprobe loop), as root; in a container it needs the devices") from None


def _format(program: str, path: str, sizes: tuple[int, int, int]) -> None:
    """Make the file system. sizes: bytes of a block, inodes, MiB of the journal."""
    block, inodes, journal = map(str, sizes)
    layout = ["-b", block, "-I", str(_INODE_BYTES), "-N", inodes, "-J", f"size={journal}"]
    sparse = ["-m", "0", "-O", "^resize_inode", "-E", "nodiscard,lazy_itable_init=1,lazy_journal_init=1"]
    argv = [program, "-q", "-F", *layout, *sparse, path]
    said, says = os.pipe2(os.O_CLOEXEC)
    try:
        null = (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDWR, 0)
        actions = [null, (os.POSIX_SPAWN_DUP2, 0, 1), (os.POSIX_SPAWN_DUP2, says, 2)]
        pid = os.posix_spawn(program, argv, {"PATH": ":".join(_SEARCHED), "LC_ALL": "C"}, file_actions=actions)
    finally:
        os.close(says)
    with os.fdopen(said, "rb") as output:
        words = output.read(_OUTPUT_BYTES_MAX).decode(errors="replace").strip()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        cause = f"{PROGRAM} failed ({code}): {words.rpartition(chr(10))[2][:300]}"
        raise NoDisk(cause, "try it by hand on a file beside ORLOP_ROOT")
