"""Programs of ours without an interpreter: against the assembler, and as what a test executes, also in an emulator."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from orlop.assembled import Program
from orlop.linux import abi
from support.engine import CHECKOUT, COMMAND

_TOOLS = {"x86_64": "", "aarch64": "aarch64-linux-gnu-"}
Peer = Callable[[str], Path]


def text(source: Path, peer: Peer, scratch: Path) -> bytes:
    """Return the machine code that `as` makes of a source, which is called after its machine."""
    tools = _TOOLS[source.stem]
    assembler = peer(f"{tools}as")
    objcopy = assembler.with_name(f"{tools}objcopy")
    subprocess.run([assembler, "-o", scratch / "object", source], check=True)
    subprocess.run([objcopy, "-O", "binary", "-j", ".text", scratch / "object", scratch / "code"], check=True)
    return (scratch / "code").read_bytes()


def words(program: Program, machine: str, peer: Peer, path: Path) -> list[str]:
    """Write a program to a path; return the words that execute it: by itself, or another machine's in an emulator."""
    path.write_bytes(program.image(machine))
    path.chmod(0o755)
    return [str(path)] if machine == abi.MACHINE else [str(peer(f"qemu-{machine}-static")), str(path)]


def interpreter(reader: str, place: Path) -> str:
    """Return the path of a program that executes this Python, which finds its own words in sys.argv."""
    (place / "reader.py").write_text(reader)
    path = place / "interpreter"
    path.write_text(f'#!/bin/sh\nexec python3 {place}/reader.py "$0" "$@"\n')
    path.chmod(0o755)
    return str(path)


def clone(place: Path) -> Path:
    """Return a clone of ours that has not run yet, below a path that a shell would take apart."""
    made = place / "a clone's; $HOME"
    made.mkdir()
    shutil.copy(COMMAND, made / "orlop")
    (made / "orlop-runtime").symlink_to("orlop")
    (made / "src").symlink_to(CHECKOUT / "src")
    return made
