"""crypt(3): passwords against the hashes of /etc/shadow and htpasswd. Python's own module is gone from 3.13."""

from __future__ import annotations

import ctypes
import os

# Larger than libxcrypt's struct crypt_data (32 KiB) and glibc's old one (128 KiB); zero is "not initialized".
_DATA_BYTES = 256 * 1024
_SALT_BYTES = 192  # CRYPT_GENSALT_OUTPUT_SIZE


def crypt(password: bytes, setting: bytes) -> bytes | None:
    """Return the hash of a password with the method, cost and salt of setting (another hash); None for a bad setting.

    Raises OSError when this machine has no libcrypt.
    """
    library = ctypes.CDLL("libcrypt.so.1")
    library.crypt_r.restype = ctypes.c_char_p
    library.crypt_r.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)
    data = ctypes.create_string_buffer(_DATA_BYTES)
    hashed: bytes | None = library.crypt_r(password, setting, data)
    return None if hashed is None or hashed.startswith(b"*") else hashed  # crypt(5), "failure tokens"


def salt(method: bytes, cost: int) -> bytes:
    """Return a new setting for `crypt`: method is a prefix as `$2b$`, cost what crypt(5) calls its CPU time cost.

    Raises OSError when this machine's libcrypt does not know the method.
    """
    library = ctypes.CDLL("libcrypt.so.1", use_errno=True)
    library.crypt_gensalt_rn.restype = ctypes.c_char_p
    library.crypt_gensalt_rn.argtypes = (
        ctypes.c_char_p,
        ctypes.c_ulong,
        ctypes.c_char_p,
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.c_int,
    )
    setting = ctypes.create_string_buffer(_SALT_BYTES)
    # No bytes of ours: libxcrypt asks the kernel for random ones (crypt_gensalt(3)).
    made: bytes | None = library.crypt_gensalt_rn(method, cost, None, 0, setting, _SALT_BYTES)
    if made is None:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "crypt_gensalt")
    return made
