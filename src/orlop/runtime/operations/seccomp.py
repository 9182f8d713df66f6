"""The seccomp filter as the last operation, or the last but the capabilities."""

import errno
import os

from ...linux import capability, seccomp
from .. import channel
from . import Operation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from . import Init


class LoadFilter(Operation):
    """Load a compiled filter. privileged: without no_new_privs, which takes CAP_SYS_ADMIN (seccomp(2))."""

    program: bytes
    flags: int = 0
    privileged: bool = False
    subject = "seccomp"

    def describe(self) -> str:
        return f"filter system calls with a program of {len(self.program) // 8} instructions"

    def call(self) -> str:
        return "seccomp(SECCOMP_SET_MODE_FILTER)"

    def act(self, init: "Init") -> None:
        if self.privileged:
            _, permitted, inheritable = capability.get_sets()
            capability.set_sets(permitted, permitted, inheritable)
        listener = seccomp.load(self.program, self.flags)
        if listener is not None:
            # Nothing but these two calls: see orlop.runtime.notify. The listener is close-on-exec.
            os.write(init.caller.fileno(), channel.LISTENER + b"%d" % listener)
            if os.read(init.caller.fileno(), 1) != channel.TAKEN:
                raise BrokenPipeError(errno.EPIPE, "the caller gave up")
