"""Programs of ours without an interpreter or a library: machine code that a module holds, as an executable when asked.

A package that has one holds its sources, `<machine>.S`, and what `as` makes of them; its contract test compares them.
"""

import os

from . import frozen

# elf(5): a header of 64 bytes, two program headers of 56 each, the code.
_MACHINES = {"x86_64": 62, "aarch64": 183}
_HEADERS_BYTES = 64 + 2 * 56
_ADDRESS = 0x400000
_PAGE_BYTES_MAX = 0x10000  # of AArch64
_PT_LOAD, _PT_GNU_STACK = 1, 0x6474E551
_READ, _WRITE, _EXECUTE = 4, 2, 1


class Program:
    """One program for each machine, as uname(2) calls machines."""

    __slots__ = ("_code", "file")

    def __init__(self, code: "dict[str, str]", file: str = "") -> None:
        """code: by machine, in hexadecimal. file: its name in the cache, "" if it lies in none.

        What lies in a cache is not looked into, so a file's name is numbered anew with its code.
        """
        self._code = code
        self.file = file

    def machines(self) -> "tuple[str, ...]":
        """Return the machines that there is a program for."""
        return tuple(self._code)

    def image(self, machine: str = "") -> bytes:
        """Return the program, of this machine if none is named, as an ELF file. Raises KeyError where there is none."""
        machine = machine or os.uname().machine
        return elf(machine, bytes.fromhex(self._code[machine]))

    def keep(self) -> None:
        """Put it where the script looks for it, if it is not there. Where it can't, nothing is lost."""
        if os.uname().machine in self._code:
            frozen.keep(self.file, self.image)


def elf(machine: str, code: bytes) -> bytes:
    """Return code that needs nothing but its own pages and a stack as an executable. Raises KeyError."""
    size = _HEADERS_BYTES + len(code)
    identity = b"\x7fELF" + bytes((2, 1, 1)) + bytes(9)  # 64 bits, little endian, version 1
    header = identity + b"".join(
        (
            _words(2, 2, _MACHINES[machine]),  # ET_EXEC
            _words(4, 1),
            _words(8, _ADDRESS + _HEADERS_BYTES, 64, 0),
            _words(4, 0),
            _words(2, 64, 56, 2, 0, 0, 0),
        )
    )
    load = _words(4, _PT_LOAD, _READ | _EXECUTE) + _words(8, 0, _ADDRESS, _ADDRESS, size, size, _PAGE_BYTES_MAX)
    stack = _words(4, _PT_GNU_STACK, _READ | _WRITE) + _words(8, 0, 0, 0, 0, 0, 16)
    return header + load + stack + code


def _words(width: int, *values: int) -> bytes:
    return b"".join(value.to_bytes(width, "little") for value in values)
