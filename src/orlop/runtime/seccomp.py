"""linux.seccomp of an OCI spec -> a program for seccomp(2), and the same in words.

What a profile means is what runc makes of it with libseccomp, as far as that is defined; `orlop.linux.bpf` has the
rules of precedence. Beyond them, and also as in runc:
- The machine's own architecture is always covered; architectures that this machine can't execute are left out, and
  calls of an architecture that is not covered kill the process.
- A name that no covered architecture has is skipped (`unknown_names` lists them): profiles are older and younger than
  kernels, and a call that is not there needs no rule.
- Two conditions on one argument of one rule are alternatives, not both needed (runc issue 2735).
- Where the default action is a refusal, calls younger than the youngest that the profile names get ENOSYS.
- On i386 a rule for a socket or System V IPC call covers socketcall(2) and ipc(2) too. They hide their arguments
  behind a pointer: a rule that allows by the first argument allows the whole call there (so does moby's default
  profile, which leaves AF_ALG that door: CVE-2026-31431), one that allows by another does not count, one that
  refuses refuses it whole. Where such rules meet, the refusal wins.
Stricter than runc, as the specification demands: errnoRet beside an action that returns no errno is an error. And
flags that are not given are not set: SPEC_ALLOW, runc's default, would undo what an administrator asked for by
booting with spec_store_bypass_disable=seccomp, and nothing else since Linux 5.16.
"""

from __future__ import annotations

import errno

from ..linux import bpf, syscalls
from ..spec.errors import Invalid, Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..spec.runtime import Seccomp, Syscall, SyscallArg

# The architectures that a machine executes, its own first.
_EXECUTES = {
    "x86_64": ("x86_64", "i386", "x32"),
    "i386": ("i386",),
    "aarch64": ("aarch64", "arm"),
    "arm": ("arm",),
    "riscv64": ("riscv64",),
}
# What uname(2) says -> a name of orlop.linux.syscalls, where they differ.
_MACHINES = {"i686": "i386", "i586": "i386", "arm64": "aarch64", "armv7l": "arm", "armv6l": "arm", "armv8l": "arm"}

# config-linux.md: architectures. None: this program has no table for it, and no machine that it runs on executes it.
ARCHITECTURES = {
    "SCMP_ARCH_X86_64": "x86_64",
    "SCMP_ARCH_X86": "i386",
    "SCMP_ARCH_X32": "x32",
    "SCMP_ARCH_AARCH64": "aarch64",
    "SCMP_ARCH_ARM": "arm",
    "SCMP_ARCH_RISCV64": "riscv64",
} | dict.fromkeys(
    [
        f"SCMP_ARCH_{name}"
        for name in (
            "MIPS MIPS64 MIPS64N32 MIPSEL MIPSEL64 MIPSEL64N32 PPC PPC64 PPC64LE S390 S390X PARISC PARISC64 LOONGARCH64"
            " M68K SH SHEB"
        ).split()
    ]
)
_ACTIONS = {
    "SCMP_ACT_KILL": bpf.SECCOMP_RET_KILL_THREAD,
    "SCMP_ACT_KILL_THREAD": bpf.SECCOMP_RET_KILL_THREAD,
    "SCMP_ACT_KILL_PROCESS": bpf.SECCOMP_RET_KILL_PROCESS,
    "SCMP_ACT_TRAP": bpf.SECCOMP_RET_TRAP,
    "SCMP_ACT_ERRNO": bpf.SECCOMP_RET_ERRNO,
    "SCMP_ACT_TRACE": bpf.SECCOMP_RET_TRACE,
    "SCMP_ACT_ALLOW": bpf.SECCOMP_RET_ALLOW,
    "SCMP_ACT_LOG": bpf.SECCOMP_RET_LOG,
    "SCMP_ACT_NOTIFY": bpf.SECCOMP_RET_USER_NOTIF,
}
_WITH_ERRNO = (bpf.SECCOMP_RET_ERRNO, bpf.SECCOMP_RET_TRACE)
# The call takes place: no refusal that a C library could mistake for the presence of a call.
PERMISSIVE = (bpf.SECCOMP_RET_ALLOW, bpf.SECCOMP_RET_LOG, bpf.SECCOMP_RET_TRACE)
_OPERATORS = {f"SCMP_CMP_{name}": name for name in bpf.OPERATORS}
_MAX_ERRNO = 4095  # linux/err.h
_VALUE_MAX = 2**64 - 1


def compile(seccomp: Seccomp, machine: str) -> bytes:
    """Return the program of a profile for a machine (uname -m).

    Raises Invalid with the field for what contradicts the specification or itself, Unsupported for a machine without
    a table of system calls and for a profile that is longer than the kernel takes.
    """
    architectures = covered(seccomp, machine)
    default = default_action(seccomp)
    checked = blocks(seccomp)
    sections = [_section(architecture, checked, default) for architecture in architectures]
    try:
        return bpf.assemble(sections, default)
    except OSError as wrong:
        if wrong.errno == errno.EEXIST:
            raise _contradiction(str(wrong.filename), architectures) from None
        hint = "name fewer calls with conditions on arguments"
        raise Unsupported("compile", "the seccomp profile", str(wrong.strerror), hint=hint) from None


def unknown_names(seccomp: Seccomp, machine: str) -> tuple[str, ...]:
    """Return the names that no architecture of the filter has, sorted: the rules for them are skipped."""
    architectures = covered(seccomp, machine)
    known = [syscalls.numbers(architecture) for architecture in architectures]
    names = {name for block in seccomp.syscalls for name in block.names}
    if "i386" in architectures:
        names -= syscalls.MULTIPLEXED.keys()
    return tuple(sorted(name for name in names if not any(name in table for table in known)))


def covered(seccomp: Seccomp, machine: str) -> list[str]:
    """Return the architectures of the filter (names of orlop.linux.syscalls), the machine's own first.

    Raises Unsupported, Invalid.
    """
    native = _MACHINES.get(machine, machine)
    if native not in _EXECUTES:
        cause = f"there is no table of system calls for machine {machine!r}"
        raise Unsupported("compile", "the seccomp profile", cause, hint="run without a profile: seccomp=unconfined")
    wanted = {native}
    for index, name in enumerate(seccomp.architectures):
        if name not in ARCHITECTURES:
            raise _invalid(f"architectures[{index}]", f"{name[:60]!r} is no architecture (SCMP_ARCH_...)")
        wanted.add(ARCHITECTURES[name] or native)
    return [architecture for architecture in _EXECUTES[native] if architecture in wanted]


def default_action(seccomp: Seccomp) -> int:
    """Return the SECCOMP_RET_* value for calls that no rule names. Raises Invalid."""
    default = _action("default", seccomp.default_action, seccomp.default_errno_ret)
    if default == bpf.SECCOMP_RET_USER_NOTIF:
        # The answer to the very first call, that which hands over the listener, would be waited for by nobody.
        raise _invalid("defaultAction", "SCMP_ACT_NOTIFY can't be the default")
    return default


def blocks(seccomp: Seccomp) -> list[Block]:
    """Return the entries of syscalls. Raises Invalid with the field of the first that is wrong."""
    return [Block(f"syscalls[{index}]", block) for index, block in enumerate(seccomp.syscalls)]


def _action(field: str, name: str, errno_ret: int | None) -> int:
    """Return the SECCOMP_RET_* value. field: "default", or the path of a block."""
    action_field, errno_field = (
        ("defaultAction", "defaultErrnoRet") if field == "default" else (f"{field}.action", f"{field}.errnoRet")
    )
    action = _ACTIONS.get(name)
    if action is None:
        raise _invalid(action_field, f"{name[:60]!r} is no action (SCMP_ACT_...)")
    if action not in _WITH_ERRNO:
        if errno_ret is not None:
            raise _invalid(errno_field, f"{name} returns no errno")
        return action
    value = errno.EPERM if errno_ret is None else errno_ret
    # The data of a TRACE is the tracer's business; an errno above MAX_ERRNO would be cut by the kernel.
    most = _MAX_ERRNO if action == bpf.SECCOMP_RET_ERRNO else bpf.SECCOMP_RET_DATA
    if not 0 <= value <= most:
        raise _invalid(errno_field, f"{value} is not in 0 to {most}")
    return action | value


class Block:
    """One entry of syscalls, checked.

    action: a SECCOMP_RET_* value. alternatives: the conditions of one rule each; without conditions it always holds.
    multiplexed: what i386 calls the names through as well.
    """

    __slots__ = ("action", "alternatives", "multiplexed", "names")

    def __init__(self, path: str, block: Syscall) -> None:
        if not block.names or "" in block.names:
            raise _invalid(f"{path}.names", "a name is missing")
        self.names = block.names
        self.action = _action(path, block.action, block.errno_ret)
        if self.action == bpf.SECCOMP_RET_USER_NOTIF and "write" in block.names:
            # The listener's descriptor must be reported before anybody can answer for it (runc refuses it as well).
            raise _invalid(f"{path}.names", "SCMP_ACT_NOTIFY can't be used for write")
        conditions = sorted(_condition(f"{path}.args[{index}]", arg) for index, arg in enumerate(block.args))
        one_each = len({test[0] for test in conditions}) == len(conditions)
        self.alternatives = [conditions] if one_each else [[test] for test in conditions]
        self.multiplexed = [syscalls.MULTIPLEXED[name] for name in block.names if name in syscalls.MULTIPLEXED]

    def rules(self, architecture: str) -> list[bpf.Rule]:
        """Return what the block means to one architecture."""
        table = syscalls.numbers(architecture)
        numbers = [table[name] for name in self.names if name in table]
        return [bpf.Rule(numbers, self.action, conditions) for conditions in self.alternatives] if numbers else []


def _multiplexed(blocks: Sequence[Block], default: int) -> list[bpf.Rule]:
    """Return what the blocks mean to i386's socketcall and ipc: one rule for each call that goes through them."""
    found: dict[tuple[str, int], tuple[int, int]] = {}  # multiplexer and its first argument -> rank, action
    for block in blocks:
        if block.action == default:
            continue
        for conditions in block.alternatives:
            if not conditions:
                rank = 0
            elif block.action & bpf.SECCOMP_RET_ACTION_FULL not in PERMISSIVE:
                rank = 1
            elif conditions[-1][0] == 0:
                rank = 2
            else:
                continue  # a condition on what is behind the pointer: it can't be seen to hold
            for call in block.multiplexed:
                if call not in found or rank < found[call][0]:
                    found[call] = rank, block.action
    table = syscalls.numbers("i386")
    return [
        bpf.Rule([table[name]], action, [bpf.condition(0, bpf.EQ, place)])
        for (name, place), (_, action) in found.items()
    ]


def _condition(path: str, arg: SyscallArg) -> bpf.Condition:
    op = _OPERATORS.get(arg.op)
    if op is None:
        raise _invalid(f"{path}.op", f"{arg.op[:60]!r} is no operator (SCMP_CMP_...)")
    if not 0 <= arg.index < bpf.ARGUMENTS:
        raise _invalid(f"{path}.index", f"{arg.index} is not in 0 to {bpf.ARGUMENTS - 1}")
    for field, value in (("value", arg.value), ("valueTwo", arg.value_two)):
        if not 0 <= value <= _VALUE_MAX:
            raise _invalid(f"{path}.{field}", f"{value} is no unsigned number of 64 bits")
    if op == bpf.MASKED_EQ:  # value is the mask (runtime-spec, from scmp_arg_cmp)
        return bpf.condition(arg.index, op, arg.value_two, arg.value)
    return bpf.condition(arg.index, op, arg.value)


def _section(architecture: str, blocks: Sequence[Block], default: int) -> bpf.Section:
    rules = [rule for block in blocks for rule in block.rules(architecture)]
    if architecture == "i386":
        rules += _multiplexed(blocks, default)
    return bpf.Section(architecture, rules, newest(architecture, blocks, default))


def newest(architecture: str, blocks: Sequence[Block], default: int) -> int | None:
    """Return the number above which calls get ENOSYS instead of the default action, None where they don't."""
    if default & bpf.SECCOMP_RET_ACTION_FULL in PERMISSIVE:
        return None
    table = syscalls.numbers(architecture)
    numbers = [table[name] for block in blocks for name in block.names if name in table]
    if architecture == "arm":
        # The private calls of arm lie far above all others; runc counts them, and so never gives ENOSYS there.
        numbers = [number for number in numbers if number < syscalls.ARM_PRIVATE_BASE]
    return max(numbers, default=None)


def _contradiction(number: str, architectures: Sequence[str]) -> Invalid:
    names = {syscalls.names(architecture).get(int(number), "") for architecture in architectures} - {""}
    cause = f"syscalls: two rules for {' or '.join(sorted(names))} have the same conditions and different actions"
    return Invalid("compile", "the seccomp profile", cause, hint="remove one of them")


def _invalid(field: str, cause: str) -> Invalid:
    return Invalid("compile", "the seccomp profile", f"{field}: {cause}", hint=f"correct {field} and try again")
