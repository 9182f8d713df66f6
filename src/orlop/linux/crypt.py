"""crypt(3): passwords against the hashes of /etc/shadow and htpasswd. Python's own module is gone from 3.13."""

from __future__ import annotations

import ctypes

# Larger than libxcrypt's struct crypt_data (32 KiB) and glibc's old one (128 KiB); zero is "not initialized".
_DATA_BYTES = 256 * 1024


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
