"""libseccomp as an oracle: what it makes of rules, through ctypes."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence

import pytest

from devtools import peers

# seccomp.h: SCMP_ARCH_*, enum scmp_compare
ARCHITECTURES = {
    "x86_64": 0xC000003E,
    "i386": 0x40000003,
    "x32": 0x4000003E,
    "aarch64": 0xC00000B7,
    "arm": 0x40000028,
    "riscv64": 0xC00000F3,
}
_OPERATORS = {"NE": 1, "LT": 2, "LE": 3, "EQ": 4, "GE": 5, "GT": 6, "MASKED_EQ": 7}

Condition = tuple[int, str, int, int]  # as orlop.linux.bpf makes them
NamedRule = tuple[str, int, Sequence[Condition]]  # name, action, conditions


class _Comparison(ctypes.Structure):
    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


class Library:
    """The library of this machine. Skips the test where there is none: it comes with runc."""

    def __init__(self) -> None:
        unpacked = peers.DIRECTORY.glob("usr/lib/*/libseccomp.so.2")
        for name in ("libseccomp.so.2", *map(str, unpacked)):
            try:
                self._library = ctypes.CDLL(name)
                break
            except OSError:
                continue
        else:
            pytest.skip("needs: runc")
        self._library.seccomp_init.restype = ctypes.c_void_p

    def number(self, architecture: str, name: str) -> int:
        """Return a number; a pseudo number below -1 for a call that the architecture lacks, -1 for an unknown name."""
        resolve = self._library.seccomp_syscall_resolve_name_arch
        return int(resolve(ctypes.c_uint32(ARCHITECTURES[architecture]), name.encode()))

    def program(self, default: int, rules: Sequence[NamedRule], architectures: Sequence[str]) -> bytes | int:
        """Return the program that runc would load (without its own stub), or the negative errno of a refusal."""
        context = ctypes.c_void_p(self._library.seccomp_init(ctypes.c_uint32(default)))
        try:
            for architecture in architectures:
                self._library.seccomp_arch_add(context, ctypes.c_uint32(ARCHITECTURES[architecture]))
            for name, action, conditions in rules:
                refused = self._add(context, name, action, conditions)
                if refused:
                    return refused
            fd = os.memfd_create("program")
            try:
                assert self._library.seccomp_export_bpf(context, fd) == 0
                return os.pread(fd, 1 << 20, 0)
            finally:
                os.close(fd)
        finally:
            self._library.seccomp_release(context)

    def _add(self, context: ctypes.c_void_p, name: str, action: int, conditions: Sequence[Condition]) -> int:
        array = (_Comparison * 6)(
            *(
                _Comparison(index, _OPERATORS[op], mask if op == "MASKED_EQ" else value, value)
                for index, op, value, mask in conditions
            )
        )
        add = self._library.seccomp_rule_add_array
        return int(add(context, ctypes.c_uint32(action), self.number("x86_64", name), len(conditions), array))
