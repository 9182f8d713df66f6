"""RUN for another platform than this machine's: possible where the kernel has an emulator for it, an error before it.

Source: kernel, Documentation/admin-guide/binfmt-misc.rst; elf(5), e_machine.
"""

from __future__ import annotations

import os

from orlop.spec.errors import Unsupported

from .solve import chain_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from orlop.spec.platform import Platform

    from .. import graph
    from .solve import Solver

BINFMT = "/proc/sys/fs/binfmt_misc"
ENTRY_BYTES_MAX = 4096
MACHINE_AT, HEADER_BYTES_MIN = 18, 20  # of e_machine in an ELF header
_MACHINES = {  # GOARCH: e_machine, and its byte order
    "386": (3, "little"),
    "amd64": (62, "little"),
    "arm": (40, "little"),
    "arm64": (183, "little"),
    "loong64": (258, "little"),
    "mips64": (8, "big"),
    "mips64le": (8, "little"),
    "ppc64le": (21, "little"),
    "riscv64": (243, "little"),
    "s390x": (22, "big"),
}
_NATIVE = {("amd64", "386"), ("arm64", "arm")}  # what kernels of the first run of the second


def check(solver: Solver, step: graph.Run) -> None:
    """Raise Unsupported for a command of a platform whose programs nothing here executes."""
    image = solver.solved[chain_of(step)[0]].image
    if image is None:
        return  # built from nothing: what it is for is known when it is executed
    own, wanted = solver.engine.images.platform, image.config.platform
    if wanted.os == own.os and (own.architecture, wanted.architecture) in _NATIVE:
        return
    if own.runs(wanted) or is_emulated(wanted):
        return
    cause = f"it is a command of {wanted}, and this machine ({own}) executes none of those"
    hint = "build the stage FROM --platform=$BUILDPLATFORM, or install an emulator: apt-get install qemu-user-static"
    raise Unsupported("run", step.origin.text or "a step", cause, hint=hint)


def is_emulated(platform: Platform, directory: str = BINFMT) -> bool:
    """Tell whether the kernel hands programs of a platform to an emulator that containers reach (flag F)."""
    machine = _MACHINES.get(platform.architecture)
    if machine is None or platform.os != "linux":
        return False
    try:
        names = os.listdir(directory)
    except OSError:
        return False
    return any(_fits(f"{directory}/{name}", machine) for name in names if name not in ("register", "status"))


def _fits(path: str, machine: tuple[int, str]) -> bool:
    number, order = machine
    try:
        with open(path, encoding="ascii") as file:
            lines = file.read(ENTRY_BYTES_MAX).splitlines()
    except (OSError, UnicodeDecodeError):
        return False
    fields = dict(line.partition(" ")[::2] for line in lines)
    try:
        magic = bytes.fromhex(fields.get("magic", ""))
    except ValueError:
        return False
    if lines[:1] != ["enabled"] or "F" not in fields.get("flags:", "") or fields.get("offset", "0") != "0":
        return False
    head = magic[MACHINE_AT:HEADER_BYTES_MIN]
    return magic.startswith(b"\x7fELF") and head == number.to_bytes(2, "little" if order == "little" else "big")
