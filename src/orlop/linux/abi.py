"""Raw system calls through libc's syscall(2), for the calls that Python and glibc do not wrap.

Why ctypes is safe here: every argument is an integer, a bytes object, a ctypes structure or None; buffers live in the
caller's frame until the call has returned; no callback and no thread-local of libc but errno is involved.
"""

from __future__ import annotations

import os

from . import ffi

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctypes import _NamedFuncPointer

libc = ffi.CDLL(None, use_errno=True)
# The same library with the GIL held during the call: the only safe way to clone (orlop.linux.process).
libc_gil = ffi.PyDLL(None, use_errno=True)

MACHINE = os.uname().machine

# name: (x86_64, aarch64). Calls from 424 on have one number on every architecture (asm-generic/unistd.h).
_NUMBERS = {
    "add_key": (248, 217),
    "bpf": (321, 280),
    "capget": (125, 90),
    "capset": (126, 91),
    "execveat": (322, 281),
    "finit_module": (313, 273),
    "fstatfs": (138, 44),
    "ioprio_set": (251, 30),
    "keyctl": (250, 219),
    "mount": (165, 40),
    "personality": (135, 92),
    "pivot_root": (155, 41),
    "prctl": (157, 167),
    "rt_sigaction": (13, 134),
    "rt_sigtimedwait": (128, 137),
    "sched_setattr": (314, 274),
    "seccomp": (317, 277),
    "setdomainname": (171, 162),
    "set_mempolicy": (238, 237),
    "setns": (308, 268),
    "reboot": (169, 142),
    "renameat2": (316, 276),
    "statx": (332, 291),
    "syncfs": (306, 267),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "clone3": (435, 435),
    "close_range": (436, 436),
    "openat2": (437, 437),
    "pidfd_getfd": (438, 438),
    "quotactl_fd": (443, 443),
    "mount_setattr": (442, 442),
    "landlock_create_ruleset": (444, 444),
    "landlock_add_rule": (445, 445),
    "landlock_restrict_self": (446, 446),
}
_COLUMN = {"x86_64": 0, "aarch64": 1, "arm64": 1}.get(MACHINE, 1)
NUMBERS = {name: numbers[_COLUMN] for name, numbers in _NUMBERS.items()}


def _with_arguments(count: int) -> _NamedFuncPointer:
    """Return syscall(2) for so many arguments: c_void_p takes 64-bit integers, bytes, None and references."""
    function = libc["syscall"]
    function.restype = ffi.c_long
    function.argtypes = [ffi.c_long, *[ffi.c_void_p] * count]
    return function


_SYSCALL = [_with_arguments(count) for count in range(7)]


def syscall(name: str, *args: object, subject: object = None) -> int:
    """Make one system call and return its result.

    args: int (passed as 64 bits), bytes, None (a null pointer) or a structure by `ffi.byref`.
    subject: what the call is about, the `filename` of the OSError that a failure raises.
    """
    result: int = _SYSCALL[len(args)](NUMBERS[name], *args)
    if result < 0:
        raise error(name, ffi.get_errno(), subject)
    return result


def error(call: str, errno: int, subject: object = None, detail: str = "") -> OSError:
    """Return the OSError of a failed call: its text names the call, its filename the object."""
    text = f"{call}: {os.strerror(errno)}" + (f" ({detail})" if detail else "")
    return OSError(errno, text, subject) if subject is not None else OSError(errno, text)


def strerror(errno: int | None) -> str:
    """Return the error's text in lower case, as Go programs print it and as a clause in a sentence needs it."""
    text = os.strerror(errno or 0)
    return text[:1].lower() + text[1:]
