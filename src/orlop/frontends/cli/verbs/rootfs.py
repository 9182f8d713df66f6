"""`orlop rootfs from-binaries`: a root file system from programs of this host. Needs no engine."""

from __future__ import annotations

import os

from ..command import Command, Invocation, for_output, write_line
from ..flags import BOOL, EXIT_USAGE, LIST, Flag, UsageError


def _from_binaries(invocation: Invocation) -> int:
    programs = invocation.options["with"]
    if not programs:
        raise UsageError("no program is named", "write --with sh, for instance", EXIT_USAGE)
    from ....image.closure import from_binaries

    (directory,) = invocation.arguments
    copied = from_binaries(programs, os.path.abspath(directory))
    if invocation.options["quiet"]:
        return 0
    for path in copied:
        write_line(for_output(path))
    return 0


FROM_BINARIES = Command(
    _from_binaries,
    "Copy programs and all that they need into a directory",
    "[OPTIONS] --with PROGRAM [--with PROGRAM...] DIRECTORY",
    flags=(
        Flag("quiet", "q", BOOL, "Do not print what was copied", default=False),
        Flag("with", "", LIST, "A program: its name, or its path"),
    ),
    arguments=(1, 1),
)
