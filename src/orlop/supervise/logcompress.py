"""Rotated log files, compressed: written by a child of the monitor, read by whoever reads the log.

The gzip header's file name is the inode number of the file that was compressed: a reader that follows the log and has
that one open knows by it that it has read it.
Source: RFC 1952.
"""

import os
import zlib

BLOCK_BYTES = 256 * 1024
_MAGIC = b"\x1f\x8b\x08"
_FNAME = 0x08
_NAME_BYTES_MAX = 20
_HEADER_BYTES = 10


def compress(directory_fd: int, source: str, target: str) -> None:
    """Replace a file by a compressed one, which appears whole and with the same time. Raises OSError."""
    temporary = f".{target}"
    with (
        open(os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory_fd), "rb", 0) as plain,
        open(_create(directory_fd, temporary), "wb", BLOCK_BYTES) as out,
    ):
        info = os.fstat(plain.fileno())
        out.write(_MAGIC + bytes((_FNAME, 0, 0, 0, 0, 0, 255)) + b"%d\0" % info.st_ino)
        packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        checksum = size = 0
        while data := plain.read(BLOCK_BYTES):
            checksum = zlib.crc32(data, checksum)
            size += len(data)
            out.write(packer.compress(data))
        out.write(packer.flush() + checksum.to_bytes(4, "little") + (size & 0xFFFFFFFF).to_bytes(4, "little"))
        out.flush()
        os.utime(out.fileno(), ns=(info.st_mtime_ns, info.st_mtime_ns))
    os.rename(temporary, target, src_dir_fd=directory_fd, dst_dir_fd=directory_fd)
    os.unlink(source, dir_fd=directory_fd)


def identity(fd: int) -> int:
    """Return the inode number of the file that was compressed; the file's own when it does not say."""
    head = os.pread(fd, _HEADER_BYTES + _NAME_BYTES_MAX + 1, 0)
    name, end, _ = head[_HEADER_BYTES:].partition(b"\0")
    if head.startswith(_MAGIC) and head[3] == _FNAME and end and name.isdigit():
        return int(name)
    return os.fstat(fd).st_ino


def decompress(fd: int, directory: str) -> int:
    """Return a descriptor of a nameless file with the content; fd stays the caller's.

    What is damaged ends the content. Raises OSError.
    """
    out = os.open(directory, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
    unpacker = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    position = 0
    try:
        while data := os.pread(fd, BLOCK_BYTES, position):
            position += len(data)
            while data:
                os.write(out, unpacker.decompress(data, BLOCK_BYTES))
                data = unpacker.unconsumed_tail
    except zlib.error:
        pass
    except BaseException:
        os.close(out)
        raise
    return out


def _create(directory_fd: int, name: str) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(name, flags, 0o600, dir_fd=directory_fd)
