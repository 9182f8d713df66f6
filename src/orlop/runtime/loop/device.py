"""The loop device of a file: the one that it has, or a free one, which goes when nobody uses it (LO_FLAGS_AUTOCLEAR).

Source: loop(4), linux/loop.h; drivers/block/loop.c. LOOP_CONFIGURE since 5.8.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct

CONTROL = "/dev/loop-control"
_BLOCKS = "/sys/block"
_LOOP_CONFIGURE = 0x4C0A
_LOOP_GET_STATUS64 = 0x4C05
_LOOP_CTL_GET_FREE = 0x4C82
_AUTOCLEAR, _DIRECT_IO = 4, 16
# struct loop_info64: lo_device, lo_inode, lo_rdevice, lo_offset, lo_sizelimit; lo_number, ..., lo_flags; names
_INFO = struct.Struct("=5Q4I64s64s32s2Q")
_CONFIG = struct.Struct(f"=2I{_INFO.size}s8Q")
_TRIES = 100  # another process may take the free device before us


def attached(image: int, name: str) -> tuple[int, str] | None:
    """Return (descriptor, path) of the device that an open file has; while the descriptor is open, it stays."""
    info = os.fstat(image)
    wanted = (_device_number(info.st_dev), info.st_ino)
    for block in os.listdir(_BLOCKS):
        if not block.startswith("loop"):
            continue
        try:
            with open(f"{_BLOCKS}/{block}/loop/backing_file", "rb") as file:
                if not file.read().rstrip(b"\n").endswith(os.fsencode(f"/{name}")):
                    continue
            device = os.open(f"/dev/{block}", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            continue  # it has no file, or goes just now
        try:
            status = _INFO.unpack(fcntl.ioctl(device, _LOOP_GET_STATUS64, bytes(_INFO.size)))
            if status[:2] == wanted:
                return device, f"/dev/{block}"
        except OSError:
            pass  # ENXIO: it goes just now
        os.close(device)
    return None


def attach(file: str) -> tuple[int, str]:
    """Give a file a device; return (descriptor, path). The device keeps what is opened here, and a lock on it."""
    control = os.open(CONTROL, os.O_RDWR | os.O_CLOEXEC)
    image = os.open(file, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        for _ in range(_TRIES):
            path = f"/dev/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}"
            device = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                _configure(device, image)
                return device, path
            except OSError as taken:
                os.close(device)
                if taken.errno != errno.EBUSY:
                    taken.filename = path
                    raise
        raise OSError(errno.EBUSY, "no loop device stays free", CONTROL)
    finally:
        os.close(image)
        os.close(control)


def _configure(device: int, image: int) -> None:
    # Without the page cache between: what the file system has cached would lie there twice. A hint (lo_can_use_dio).
    info = _INFO.pack(0, 0, 0, 0, 0, 0, 0, 0, _AUTOCLEAR | _DIRECT_IO, b"", b"", b"", 0, 0)
    fcntl.ioctl(device, _LOOP_CONFIGURE, _CONFIG.pack(image, 0, info, *[0] * 8))


def _device_number(device: int) -> int:
    """Return a device's number as the kernel hands it out in 64 bits (huge_encode_dev)."""
    major, minor = os.major(device), os.minor(device)
    return minor & 0xFF | major << 8 | (minor & ~0xFF) << 12
