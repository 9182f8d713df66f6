"""A seccomp profile in words, for `explain`: what it allows and refuses on one machine, one sentence a line."""

from __future__ import annotations

import errno

from ..linux import bpf, syscalls
from . import seccomp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..spec.runtime import Seccomp
    from .seccomp import Block

_WORDS = {
    bpf.SECCOMP_RET_ALLOW: "allowed",
    bpf.SECCOMP_RET_LOG: "allowed and logged",
    bpf.SECCOMP_RET_TRACE: "left to the tracer",
    bpf.SECCOMP_RET_USER_NOTIF: "answered by the listener",
    bpf.SECCOMP_RET_TRAP: "answered with SIGSYS",
    bpf.SECCOMP_RET_KILL_THREAD: "deadly for the thread",
    bpf.SECCOMP_RET_KILL_PROCESS: "deadly for the process",
}
_COMPARED = {
    bpf.NE: "is not",
    bpf.LT: "is less than",
    bpf.LE: "is at most",
    bpf.EQ: "is",
    bpf.GE: "is at least",
    bpf.GT: "is greater than",
}
_U32 = 0xFFFFFFFF
_EXCEPTIONS_MAX = 8  # more values than this are not told by what they leave out


def describe(profile: Seccomp, machine: str) -> list[str]:
    """Return what the profile does on this machine. Raises what `seccomp.compile` raises, but for its length."""
    architectures = seccomp.covered(profile, machine)
    default = seccomp.default_action(profile)
    blocks = [block for block in seccomp.blocks(profile) if block.action != default]
    lines = [f"system calls that no rule names are {_action(default)}"]
    lines += [f"{line}, whatever their arguments" for line in _always(blocks)]
    lines += _sometimes(blocks)
    number = seccomp.newest(architectures[0], seccomp.blocks(profile), default)
    if number is not None:
        name = syscalls.names(architectures[0])[number]
        enosys = _action(bpf.SECCOMP_RET_ERRNO | errno.ENOSYS)
        lines.append(f"calls younger than {name} (numbers above {number}) are {enosys}")
    lines.append(
        f"all of this for {_series(architectures, 'and')}; calls of another architecture are deadly for the process"
    )
    skipped = seccomp.unknown_names(profile, machine)
    if skipped:
        lines.append(f"skipped, because none of these architectures has them: {', '.join(skipped)}")
    return lines


def _always(blocks: Sequence[Block]) -> list[str]:
    """Return one line for each action: the calls that get it without conditions."""
    names: dict[int, set[str]] = {}
    settled: set[str] = set()
    for block in blocks:
        if [] in block.alternatives:
            names.setdefault(block.action, set()).update(set(block.names) - settled)
            settled.update(block.names)
    return [f"{_action(action)}: {', '.join(sorted(found))}" for action, found in names.items() if found]


def _sometimes(blocks: Sequence[Block]) -> list[str]:
    """Return one line for each call and action with conditions, in the order of the profile."""
    settled = {name for block in blocks if [] in block.alternatives for name in block.names}
    alternatives: dict[tuple[str, int], list[list[bpf.Condition]]] = {}
    for block in blocks:
        for name in block.names:
            if name not in settled:
                alternatives.setdefault((name, block.action), []).extend(block.alternatives)
    return [f"{name} is {_action(action)} {_when(tests)}" for (name, action), tests in alternatives.items()]


def _when(alternatives: list[list[bpf.Condition]]) -> str:
    """Return "if argument 0 is 1 or 2", or "unless ..." where that is shorter."""
    single = [tests[0] for tests in alternatives if len(tests) == 1]
    if len(single) == len(alternatives) and len({test[0] for test in single}) == 1:
        index = single[0][0]
        excepted = _excepted(single) if len(single) > _EXCEPTIONS_MAX else None
        if excepted:
            return (
                f"unless argument {index} is {_series([hex(value) for value in excepted], 'or')} (compared in 32 bits)"
            )
        values = [_value(value) for _, op, value, _ in single if op == bpf.EQ]
        told = [_comparison(op, value, mask) for _, op, value, mask in single if op != bpf.EQ]
        if values:
            told.append(f"is {_series(values, 'or')}")
        return f"if argument {index} {_series(told, 'or')}"
    told = [
        " and ".join(f"argument {index} {_comparison(op, value, mask)}" for index, op, value, mask in tests)
        for tests in alternatives
    ]
    return "if " + ", or if ".join(told)


def _excepted(tests: Sequence[bpf.Condition]) -> list[int] | None:
    """Return the 32-bit values that none of the tests of one argument lets through, None when they are many."""
    left = [(0, 0)]  # masks and values: what no test so far has let through
    for _, op, value, mask in tests:
        mask = mask & _U32 if op == bpf.EQ else mask
        if op not in (bpf.EQ, bpf.MASKED_EQ) or (value | mask) > _U32 or len(left) > 64:
            return None
        left = [rest for cube in left for rest in _without(cube, mask, value)]
    if len(left) > _EXCEPTIONS_MAX or any(mask != _U32 for mask, _ in left):
        return None
    return sorted(value for _, value in left)


def _without(cube: tuple[int, int], mask: int, value: int) -> list[tuple[int, int]]:
    """Return the part of a set of values (those with these bits under this mask) that differs from value under mask."""
    fixed, bits = cube
    if (bits ^ value) & fixed & mask:
        return [cube]
    rest = []
    for bit in (1 << place for place in range(32)):
        if mask & bit and not fixed & bit:
            rest.append((fixed | bit, bits | ~value & bit))
            fixed, bits = fixed | bit, bits | value & bit
    return rest


def _comparison(op: str, value: int, mask: int) -> str:
    if op == bpf.MASKED_EQ:
        return f"has none of the bits {mask:#x}" if not value else f"has the bits {value:#x} under the mask {mask:#x}"
    return f"{_COMPARED[op]} {_value(value)}"


def _action(action: int) -> str:
    full, data = action & bpf.SECCOMP_RET_ACTION_FULL, action & bpf.SECCOMP_RET_DATA
    if full == bpf.SECCOMP_RET_ERRNO:
        return f"refused with {errno.errorcode.get(data, f'errno {data}')}"
    return _WORDS[full]


def _value(value: int) -> str:
    return str(value) if value < 256 else hex(value)


def _series(parts: Sequence[str], conjunction: str) -> str:
    """Return "a, b or c"."""
    if len(parts) < 2:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} {conjunction} {parts[-1]}"
