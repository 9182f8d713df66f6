"""`--init`: process 1 is a program of ours, and the container's program its child."""

import os

from ...linux import abi, executable
from ...spec.errors import Unsupported
from .. import reaper
from . import Operation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from . import Init, Outside


class BecomeReaper(Operation):
    """Execute the reaper, from sealed memory: the container can reach it as /proc/1/exe (CVE-2019-5736)."""

    subject = "process"

    def describe(self) -> str:
        return "put a program of ours before it, which reaps orphans and forwards signals"

    def call(self) -> str:
        return "memfd_create, execveat(AT_EMPTY_PATH)"

    def prepare(self, outside: "Outside") -> None:
        from ..reaper.program import PROGRAM

        if abi.MACHINE not in PROGRAM.machines():
            cause = f"there is none for {abi.MACHINE}"
            raise Unsupported("start", "an init process", cause, hint="use an image that has an init of its own")
        outside.keep(self, executable.sealed(PROGRAM.image(), reaper.NAME))

    def act(self, init: "Init") -> None:
        init.reaper = init.source(self)


def arguments(program: str, args: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """Return the arguments of a reaper for a program and what it is called with."""
    return (reaper.NAME.encode(), os.fsencode(program), *args)
