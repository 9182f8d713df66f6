"""A program that executes the interpreter from where nobody can write it, so that it need not start twice for that.

Our command is found by a script, which can't seal anything, and an interpreter that seals itself has to begin anew:
10 ms. This program takes the interpreter that its argument names from a mount of its own, an overlay without an upper
directory, which can't be made writable (0.3 ms, and the interpreter's pages stay shared; runc does the same since 1.2).
Where it may not mount, it copies the interpreter into a memfd and seals that (3 ms). Either is executed with the
remaining arguments. What goes wrong leads to the plain interpreter, which looks whether it is sealed
(orlop.runtime.cli.sealed), and then does it itself: safety does not depend on this.

Its source stands in `<machine>.S` beside this file, what `as` makes of it below (tests/contract/test_sealer.py).
The script finds it at `.cache/sealer`, where the first run without it puts it.
"""

from ... import frozen
from ...linux import abi
from .. import reaper

_CODE = {
    "x86_64": (
        "488b04244c8d6c24104c8d74c4104883f8020f82ca0100004881ec00010000498b75004531ff31c98a040e84c0741888040c3c2f440f44f9"
        "ffc181f9f000000072e6e9da0000004585ff0f84d100000042c7443c012f64657642c6043c3a42c6443c0500b8ae010000488d3d98010000"
        "be010000000f054885c00f88a10000004989c4b8af0100004c89e7be01000000488d15790100004989e24531c00f054885c0787db8af0100"
        "004c89e7be0600000031d24531d24531c00f054885c07861b8b00100004c89e7be01000000ba010000000f054885c078484989c4b8b50100"
        "004c89e7498b75004a8d743e01488d15fc00000041ba180000000f054885c078204989c4b8420100004c89e7488d35130100004c89ea4d89"
        "f241b8001000000f05b802000000498b7d00be000008000f054885c00f88970000004889c3b83f010000488d3dd0000000be130000000f05"
        "4885c07918b83f010000488d3db8000000be030000000f054885c078644989c4b8280000004c89e74889de31d241ba000000400f054885c0"
        "784775e4b85b0000004c89e7be6d0100000f05b8480000004c89e7be09040000ba0f0000000f054885c0781db8420100004c89e7488d3563"
        "0000004c89ea4d89f241b8001000000f05b83b000000498b7d004c89ee4c89f20f05b83c000000bf7f0000000f0566900000080000000000"
        "000000000000000008000000000000006f7665726c6179006c6f776572646972006f726c6f702d72756e74696d6500"
    ),
    "aarch64": (
        "e90340f9f3430091740e098b3f0900f1a30d0054ff0304d1ea0300916b0240f9170080d20c0080d26d696c380d0100344d692c38bfbd0071"
        "9701979a8c0500919fc103f123ffff542f000014d70500b44a01178bab0c00106c0140f94c0100f9c83580d2600c0010210080d2010000d4"
        "a004f8b7f60300aae83580d2210080d2c20b0010e3030091040080d2010000d4a003f8b7e83580d2e00316aac10080d2020080d2030080d2"
        "040080d2010000d4a002f8b7083680d2e00316aa210080d2220080d2010000d4e001f8b7a83680d2610240f92100178b21040091a2070010"
        "030380d2010000d4e000f8b7282380d2e1080050e20313aae30314aa040082d2010000d4080780d2600c8092610240f90201a0d2010000d4"
        "c004f8b7f50300aae82280d2e0060030610280d2010000d4c000f8b6e82280d240060030610080d2010000d46003f8b7f60300aae80880d2"
        "e00316aae10315aa020080d20300a8d2010000d46002f8b720ffffb5880680d2e00316aaa12d80d2010000d4280380d2e00316aa218180d2"
        "e20180d2010000d40001f8b7282380d2e00316aa81030050e20313aae30314aa040082d2010000d4a81b80d2600240f9e10313aae20314aa"
        "010000d4a80b80d2e00f80d2010000d40000080000000000000000000000000008000000000000003a2f6465760000006f7665726c617900"
        "6c6f776572646972006f726c6f702d72756e74696d6500"
    ),
}
FILE = "sealer-2"  # to be numbered anew with the code: what lies in a cache is not looked into


def machines() -> tuple[str, ...]:
    """Return the machines that there is a program for."""
    return tuple(_CODE)


def program(machine: str = abi.MACHINE) -> bytes:
    """Return the program as an ELF file. Raises KeyError for a machine that it does not exist for."""
    return reaper.elf(machine, bytes.fromhex(_CODE[machine]))


def keep() -> None:
    """Put the program where the script looks for it. Where it can't, nothing is lost."""
    if abi.MACHINE in _CODE:
        frozen.keep(FILE, program)
