"""linux.seccomp.flags -> flags for seccomp(2). Apart from the compiler, which a cached program does not need."""

from ..linux import seccomp as kernel
from ..spec.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..spec.runtime import Seccomp


def load_flags(seccomp: "Seccomp") -> int:
    """Return the flags for `orlop.linux.seccomp.load`. Raises Invalid for a flag that the kernel does not have."""
    flags = 0
    for index, name in enumerate(seccomp.flags):
        if name not in kernel.FLAGS or name == "SECCOMP_FILTER_FLAG_NEW_LISTENER":
            raise _invalid(f"flags[{index}]", f"{name[:60]!r} is no seccomp flag")
        flags |= kernel.FLAGS[name]
    if any(block.action == "SCMP_ACT_NOTIFY" for block in seccomp.syscalls):
        flags |= kernel.SECCOMP_FILTER_FLAG_NEW_LISTENER
        if flags & kernel.SECCOMP_FILTER_FLAG_TSYNC:
            flags |= kernel.SECCOMP_FILTER_FLAG_TSYNC_ESRCH  # else the result could be a thread or a descriptor
    elif flags & kernel.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV:
        raise _invalid("flags", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV needs a rule with SCMP_ACT_NOTIFY")
    return flags


def _invalid(field: str, cause: str) -> Invalid:
    return Invalid("compile", "the seccomp profile", f"{field}: {cause}", hint=f"correct {field} and try again")
