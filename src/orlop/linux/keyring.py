"""Keys that the kernel keeps for a user: in memory, never on a disk, readable by the user's own processes alone.

They lie in the user's persistent keyring, which outlives the session (an ssh login, say) and expires three days after
its last use; without one, in the user keyring, which is gone with the user's last process.
Source: keyctl(2), add_key(2), persistent-keyring(7), user-keyring(7).
"""

from __future__ import annotations

import ctypes
import errno
import os

from . import abi

KEY_SPEC_PROCESS_KEYRING, KEY_SPEC_USER_KEYRING = -2, -4
KEYCTL_UNLINK, KEYCTL_SEARCH, KEYCTL_READ, KEYCTL_GET_PERSISTENT = 9, 10, 11, 22
VALUE_BYTES_MAX = 32767  # of a key of type "user"
_TYPE = b"user"


def put(description: str, value: bytes) -> None:
    """Keep a value under a description; an earlier one is replaced. Raises OSError (EDQUOT, ENOSYS, EPERM...)."""
    name = os.fsencode(description)
    abi.syscall("add_key", _TYPE, name, value, len(value), _keyring(), subject=description)


def get(description: str) -> bytes | None:
    """Return the value that is kept under a description, None when there is none. Raises OSError."""
    key = _find(_keyring(), description)
    if key is None:
        return None
    room = ctypes.create_string_buffer(VALUE_BYTES_MAX)
    size = abi.syscall("keyctl", KEYCTL_READ, key, ctypes.addressof(room), len(room), subject=description)
    return room.raw[:size]


def remove(description: str) -> bool:
    """Forget what is kept under a description; tell whether there was something. Raises OSError."""
    keyring = _keyring()
    key = _find(keyring, description)
    if key is None:
        return False
    abi.syscall("keyctl", KEYCTL_UNLINK, key, keyring, subject=description)
    return True


def _keyring() -> int:
    """Return the keyring, possessed by this process: only then its keys can be read."""
    try:
        return abi.syscall("keyctl", KEYCTL_GET_PERSISTENT, -1, KEY_SPEC_PROCESS_KEYRING, subject="persistent keyring")
    except OSError as wrong:
        if wrong.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise
    return KEY_SPEC_USER_KEYRING


def _find(keyring: int, description: str) -> int | None:
    try:
        return abi.syscall("keyctl", KEYCTL_SEARCH, keyring, _TYPE, os.fsencode(description), 0, subject=description)
    except OSError as wrong:
        if wrong.errno in (errno.ENOKEY, errno.EKEYEXPIRED, errno.EKEYREVOKED):
            return None
        raise
