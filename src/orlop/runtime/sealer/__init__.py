"""A program that executes the interpreter from sealed memory, so that the interpreter need not start twice for it.

Our command is found by a script, which can't seal anything, and an interpreter that seals itself has to begin anew:
10 ms. This program does the same in 1 ms: it copies the interpreter that its argument names into a memfd, seals that,
and executes it with the remaining arguments. What goes wrong leads to the plain interpreter, which looks whether it is
sealed (orlop.runtime.cli.sealed), and then does it itself: safety does not depend on this.

Its source stands in `<machine>.S` beside this file, what `as` makes of it below (tests/contract/test_sealer.py).
The script finds it at `.cache/sealer`, where the first run without it puts it.
"""

import os

from ...linux import abi
from .. import reaper

_CODE = {
    "x86_64": (
        "488b04244c8d6c24104c8d74c4104883f8020f82c1000000b802000000498b7d00be000008000f054885c00f88970000004889c3b83f0100"
        "00488d3da5000000be130000000f054885c07918b83f010000488d3d8d000000be030000000f054885c078644989c4b8280000004c89e748"
        "89de31d241ba000000400f054885c0784775e4b85b0000004c89e7be6d0100000f05b8480000004c89e7be09040000ba0f0000000f054885"
        "c0781db8420100004c89e7488d35380000004c89ea4d89f241b8001000000f05b83b000000498b7d004c89ee4c89f20f05b83c000000bf7f"
        "0000000f056f726c6f702d72756e74696d6500"
    ),
    "aarch64": (
        "e90340f9f3430091740e098b3f0900f123060054080780d2600c8092610240f90201a0d2010000d4c004f8b7f50300aae82280d260050010"
        "610280d2010000d4c000f8b6e82280d2c0040010610080d2010000d46003f8b7f60300aae80880d2e00316aae10315aa020080d20300a8d2"
        "010000d46002f8b720ffffb5880680d2e00316aaa12d80d2010000d4280380d2e00316aa218180d2e20180d2010000d40001f8b7282380d2"
        "e00316aa01020030e20313aae30314aa040082d2010000d4a81b80d2600240f9e10313aae20314aa010000d4a80b80d2e00f80d2010000d4"
        "6f726c6f702d72756e74696d6500"
    ),
}
FILE = "sealer-1"  # to be numbered anew with the code: what lies in a cache is not looked into
_CACHE = "pycache"


def machines() -> tuple[str, ...]:
    """Return the machines that there is a program for."""
    return tuple(_CODE)


def program(machine: str = abi.MACHINE) -> bytes:
    """Return the program as an ELF file. Raises KeyError for a machine that it does not exist for."""
    return reaper.elf(machine, bytes.fromhex(_CODE[machine]))


def keep(pycache: str | None) -> None:
    """Put the program where the script looks for it: beside the compiled modules. Where it can't, nothing is lost."""
    if pycache is None or os.path.basename(pycache) != _CACHE or abi.MACHINE not in _CODE:
        return
    place = os.path.join(os.path.dirname(pycache), FILE)
    beside = f"{place}.{os.getpid()}"
    try:
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o755)
        try:
            os.write(fd, program())
        finally:
            os.close(fd)
        os.rename(beside, place)
    except OSError:
        pass
