"""What file systems keep of an inode beside its mode: flags, and projects with their quotas.

A directory with a project and FS_XFLAG_PROJINHERIT hands it on to everything that is made in it; the project's
quota, on ext4 and xfs that keep it, bounds what all of that occupies together.
Source: ioctl_iflags(2), linux/fs.h (struct fsxattr), linux/quota.h (struct if_dqblk), quotactl_fd(2), since 5.14.
"""

from __future__ import annotations

import ctypes
import fcntl
import struct

from . import abi

_FS_IOC_FSGETXATTR = 0x801C581F
_FS_IOC_FSSETXATTR = 0x401C5820
_FSXATTR = struct.Struct("IIIII8x")  # xflags, extsize, nextents, projid, cowextsize
_FS_XFLAG_PROJINHERIT = 0x200

_FS_IOC_GETFLAGS = 0x80086601
_FS_IOC_SETFLAGS = 0x40086602
_FS_TOPDIR_FL = 0x00020000

_Q_GETQUOTA = 0x800007
_Q_SETQUOTA = 0x800008
_PRJQUOTA = 2
_QIF_BLIMITS = 1
_DQBLK = struct.Struct("QQQQQQQQI4x")  # hard and soft limit of blocks, bytes in use, ... ; which are valid
BLOCK_BYTES = 1024  # QIF_DQBLKSIZE


def spread_subdirectories(fd: int) -> None:
    """Tell ext4 to place each subdirectory of a directory as if they had nothing to do with each other (FS_TOPDIR_FL).

    Advice: where the file system has no such flag, or does not let us, nothing happens.
    """
    flags = bytearray(8)
    try:
        fcntl.ioctl(fd, _FS_IOC_GETFLAGS, flags)
        fcntl.ioctl(fd, _FS_IOC_SETFLAGS, struct.pack("l", struct.unpack("l", flags)[0] | _FS_TOPDIR_FL))
    except OSError:
        pass


def project(fd: int) -> int:
    """Return the project of a directory, 0 for none. Raises OSError ENOTTY where the file system has no such thing."""
    return int(_FSXATTR.unpack(fcntl.ioctl(fd, _FS_IOC_FSGETXATTR, bytes(_FSXATTR.size)))[3])


def set_project(fd: int, identity: int) -> None:
    """Give a directory a project, which all that is made in it inherits. Raises OSError."""
    flags, extsize, nextents, _, cowextsize = _FSXATTR.unpack(fcntl.ioctl(fd, _FS_IOC_FSGETXATTR, bytes(_FSXATTR.size)))
    wanted = _FSXATTR.pack(flags | _FS_XFLAG_PROJINHERIT, extsize, nextents, identity, cowextsize)
    fcntl.ioctl(fd, _FS_IOC_FSSETXATTR, wanted)


def set_limit(fd: int, identity: int, limit_bytes: int) -> None:
    """Bound what a project occupies on the file system of fd; 0 is no bound. Raises OSError where none are kept."""
    blocks = -(-limit_bytes // BLOCK_BYTES)
    _quotactl(fd, _Q_SETQUOTA, identity, _DQBLK.pack(blocks, blocks, 0, 0, 0, 0, 0, 0, _QIF_BLIMITS))


def limit(fd: int, identity: int) -> tuple[int, int]:
    """Return (limit, in use) of a project in bytes. Raises OSError ESRCH where no quotas are kept."""
    found = _DQBLK.unpack(_quotactl(fd, _Q_GETQUOTA, identity, bytes(_DQBLK.size)))
    return found[0] * BLOCK_BYTES, found[2]


def _quotactl(fd: int, command: int, identity: int, data: bytes) -> bytes:
    buffer = ctypes.create_string_buffer(data, len(data))
    abi.syscall("quotactl_fd", fd, command << 8 | _PRJQUOTA, identity, ctypes.byref(buffer))
    return buffer.raw
