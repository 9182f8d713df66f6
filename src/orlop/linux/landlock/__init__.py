"""Landlock: a process gives up rights over files, TCP ports, sockets and signals, for good. landlock(7).

Needs no privilege but no_new_privs. Kernel: 5.13, and what was added by the version that `version` returns.
"""

from __future__ import annotations

import os

from .. import abi, ffi

# uapi/linux/landlock.h
ACCESS_FS_EXECUTE = 1 << 0
ACCESS_FS_WRITE_FILE = 1 << 1
ACCESS_FS_READ_FILE = 1 << 2
ACCESS_FS_READ_DIR = 1 << 3
ACCESS_FS_TRUNCATE = 1 << 14
# All that version 3 knows; what came later (ioctl on devices) is not restricted.
ACCESS_FS_ALL = (1 << 15) - 1
# What a rule for a file that is no directory may name.
ACCESS_FS_OF_FILES = ACCESS_FS_EXECUTE | ACCESS_FS_WRITE_FILE | ACCESS_FS_READ_FILE | ACCESS_FS_TRUNCATE
ACCESS_NET_BIND_TCP = 1 << 0
ACCESS_NET_CONNECT_TCP = 1 << 1
SCOPE_ABSTRACT_UNIX_SOCKET = 1 << 0
SCOPE_SIGNAL = 1 << 1
# The version that brought what: a file that may only be read can be truncated before 3.
VERSION_TRUNCATE, VERSION_TCP, VERSION_SCOPE = 3, 4, 6

_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH, _RULE_NET_PORT = 1, 2


class _RulesetAttr(ffi.Structure):
    _fields_ = [(name, ffi.c_uint64) for name in ("handled_access_fs", "handled_access_net", "scoped")]


class _NetPortAttr(ffi.Structure):
    _fields_ = [(name, ffi.c_uint64) for name in ("allowed_access", "port")]


def version() -> int:
    """Return the version of Landlock that this kernel has, 0 for none, or none that is active."""
    try:
        return abi.syscall("landlock_create_ruleset", None, 0, _CREATE_RULESET_VERSION)
    except OSError:
        return 0


def create_ruleset(access_fs: int, access_net: int, scoped: int) -> int:
    """Return a descriptor of a ruleset, close-on-exec: everything that is named here is denied but for its rules."""
    attr = _RulesetAttr(access_fs, access_net, scoped)
    return abi.syscall("landlock_create_ruleset", ffi.byref(attr), ffi.sizeof(attr), 0)


def allow_beneath(ruleset: int, access: int, fd: int) -> None:
    """Allow accesses to a file, or to all that lies in a directory."""
    # struct landlock_path_beneath_attr is packed: eight bytes and four.
    attr = access.to_bytes(8, "little") + fd.to_bytes(4, "little")
    abi.syscall("landlock_add_rule", ruleset, _RULE_PATH_BENEATH, attr, 0)


def allow_port(ruleset: int, access: int, port: int) -> None:
    """Allow binding to or connecting to a TCP port."""
    attr = _NetPortAttr(access, port)
    abi.syscall("landlock_add_rule", ruleset, _RULE_NET_PORT, ffi.byref(attr), 0)


def restrict_self(ruleset: int) -> None:
    """Have the calling thread, and all that it starts, obey a ruleset, which is closed. Needs no_new_privs."""
    abi.syscall("landlock_restrict_self", ruleset, 0)
    os.close(ruleset)
