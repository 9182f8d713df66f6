"""What file systems keep of an inode beside its mode: flags, projects with their quotas, blocks that it shares.

A directory with a project and FS_XFLAG_PROJINHERIT hands it on to everything that is made in it; the project's
quota, on ext4 and xfs that keep it, bounds what all of that occupies together.
Source: ioctl_iflags(2), linux/fs.h (struct fsxattr), linux/quota.h (struct if_dqblk), quotactl_fd(2), since 5.14;
linux/btrfs.h.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
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


# -- blocks in common -----------------------------------------------------------------------------------------------

_BTRFS_QUOTA_CTL, _BTRFS_QUOTA_CTL_ENABLE = 0xC0109428, 1
_BTRFS_QGROUP_LIMIT = 0x8030942B  # of the group of the descriptor's own subvolume: 0
_BTRFS_QGROUP_LIMIT_MAX_RFER, _BTRFS_QGROUP_LIMIT_MAX_EXCL = 1, 2
_FICLONE = 0x40049409
_BTRFS_SNAP_CREATE, _BTRFS_SUBVOL_CREATE, _BTRFS_SNAP_DESTROY = 0x50009401, 0x5000940E, 0x5000940F
_BTRFS_VOL_ARGS = struct.Struct("q4088s")  # a descriptor, a name: struct btrfs_ioctl_vol_args
_BTRFS_FIRST_FREE_OBJECTID = 256  # the inode of each subvolume's root


def share_blocks(target: int, source: int) -> None:
    """Give a new file the content of another without copying it (FICLONE, ioctl_ficlonerange(2)). Raises OSError."""
    fcntl.ioctl(target, _FICLONE, source)


def make_subvolume(directory: int, name: str) -> None:
    """Make an empty subvolume of btrfs. Raises OSError ENOTTY or EINVAL on any other file system."""
    fcntl.ioctl(directory, _BTRFS_SUBVOL_CREATE, bytearray(_BTRFS_VOL_ARGS.pack(0, os.fsencode(name))))


def snapshot_subvolume(source: int, directory: int, name: str) -> None:
    """Make a writable snapshot of the subvolume that `source` is the root of. Raises OSError."""
    fcntl.ioctl(directory, _BTRFS_SNAP_CREATE, bytearray(_BTRFS_VOL_ARGS.pack(source, os.fsencode(name))))


def destroy_subvolume(directory: int, name: str) -> None:
    """Remove a subvolume with all that is in it.

    Raises OSError: EINVAL for another directory, ENOTEMPTY where it has subvolumes in it, EPERM for an ordinary user of
    a file system without user_subvol_rm_allowed.
    """
    fcntl.ioctl(directory, _BTRFS_SNAP_DESTROY, bytearray(_BTRFS_VOL_ARGS.pack(0, os.fsencode(name))))


def limit_subvolume(fd: int, limit_bytes: int, *, exclusive: bool = False) -> None:
    """Bound what a subvolume refers to; from now on btrfs counts that, for each of the file system. Raises OSError.

    exclusive: what it alone refers to, not what it shares with the subvolume that it is a snapshot of.
    """
    fcntl.ioctl(fd, _BTRFS_QUOTA_CTL, bytearray(struct.pack("QQ", _BTRFS_QUOTA_CTL_ENABLE, 0)))
    which = _BTRFS_QGROUP_LIMIT_MAX_EXCL if exclusive else _BTRFS_QGROUP_LIMIT_MAX_RFER
    fcntl.ioctl(fd, _BTRFS_QGROUP_LIMIT, struct.pack("QQQQQQ", 0, which, limit_bytes, limit_bytes, 0, 0))


def is_subvolume(info: os.stat_result) -> bool:
    """Tell whether a directory can be the root of a subvolume: of btrfs, it is then."""
    return info.st_ino == _BTRFS_FIRST_FREE_OBJECTID
