"""Raw system calls of every ABI of x86-64, made by a child under a seccomp filter.

The i386 ABI is entered with `int $0x80` from 64-bit code, x32 by the bit in the number: no compiler, no 32-bit libc.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from collections.abc import Callable, Sequence

from orlop.linux import abi, seccomp, syscalls

Call = tuple[str, int, Sequence[int]]  # architecture, number, arguments

PR_SET_NO_NEW_PRIVS = 38

# push rbx; push rbp; mov eax, edi; mov r8, rsi; ebx, ecx, edx, esi, edi, ebp from the array at r8; int 0x80; pop; ret
_INT80 = bytes.fromhex("5355 89f8 4989f0 418b18 418b4804 418b5008 418b700c 418b7810 418b6814 cd80 5d5b c3")
# mov eax, edi; mov r9, rsi; rdi, rsi, rdx, r10, r8, r9 from the array at r9; syscall; ret
_SYSCALL = bytes.fromhex("89f8 4989f1 498b39 498b7108 498b5110 4d8b5118 4d8b4120 4d8b4928 0f05 c3")


class Caller:
    """Makes system calls from code of its own, so that libc's errno and checks do not stand between."""

    def __init__(self) -> None:
        self._pages = [self._page(code) for code in (_INT80, _SYSCALL)]  # the functions live in them
        self._int80, self._syscall = [self._function(page) for page in self._pages]

    @staticmethod
    def _page(code: bytes) -> mmap.mmap:
        page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        page.write(code)
        return page

    @staticmethod
    def _function(page: mmap.mmap) -> Callable[[int, int], int]:
        address = ctypes.addressof(ctypes.c_char.from_buffer(page))
        return ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_uint, ctypes.c_void_p)(address)

    def call(self, architecture: str, number: int, args: Sequence[int]) -> int:
        """Return what the kernel put into the result register: a negative errno for a failure."""
        padded = [*args, *[0] * (6 - len(args))]
        if architecture == "i386":
            array = (ctypes.c_uint32 * 6)(*padded)
            return ctypes.c_int32(self._int80(number, ctypes.addressof(array))).value
        wide = (ctypes.c_uint64 * 6)(*padded)
        return self._syscall(number, ctypes.addressof(wide))


def call(name: str, *args: int, architecture: str = "x86_64") -> Call:
    """Return a call by name."""
    return architecture, syscalls.numbers(architecture)[name], args


def results(program: bytes, calls: Sequence[Call], flags: int = 0, unprivileged: bool = True) -> list[int]:
    """Make the calls in a child under the filter. Return their results, negative errnos for failures.

    A child that is killed returns no more results than it had, and then minus the signal's number, times 10000.
    unprivileged: with no_new_privs; else the filter needs CAP_SYS_ADMIN.
    """
    reader, writer = os.pipe()
    caller = Caller()
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            if unprivileged:
                abi.libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
            seccomp.load(program, flags)
            for one in calls:
                os.write(writer, struct.pack("<q", caller.call(*one)))
            os._exit(0)
        finally:
            os._exit(99)
    os.close(writer)
    with open(reader, "rb") as file:
        data = file.read()
    _, status = os.waitpid(pid, 0)
    found = [value for (value,) in struct.iter_unpack("<q", data)]
    if os.WIFSIGNALED(status):
        found.append(-10000 * os.WTERMSIG(status))
    else:
        assert os.waitstatus_to_exitcode(status) == 0, "the child could not load the filter"
    return found
