"""The other side of `orlop.linux.bpf`: check, run and read the programs that seccomp(2) takes.

`check` holds a program to the kernel's rules (seccomp_check_filter in kernel/seccomp.c), `simulate` runs it as the
kernel would, `disassemble` writes it in the syntax of bpf_asm (tools/bpf). The language is the part that filters are
made of: ours, and what libseccomp and runc generate.
"""

from __future__ import annotations

import errno

from . import bpf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .bpf import Instruction

_JUMPS = {bpf.JMP_JEQ_K: "jeq", bpf.JMP_JGT_K: "jgt", bpf.JMP_JGE_K: "jge", bpf.JMP_JSET_K: "jset"}
_U32 = 0xFFFFFFFF

ACTION_NAMES = {
    bpf.SECCOMP_RET_KILL_PROCESS: "KILL_PROCESS",
    bpf.SECCOMP_RET_KILL_THREAD: "KILL_THREAD",
    bpf.SECCOMP_RET_TRAP: "TRAP",
    bpf.SECCOMP_RET_ERRNO: "ERRNO",
    bpf.SECCOMP_RET_USER_NOTIF: "USER_NOTIF",
    bpf.SECCOMP_RET_TRACE: "TRACE",
    bpf.SECCOMP_RET_LOG: "LOG",
    bpf.SECCOMP_RET_ALLOW: "ALLOW",
}


def check(program: bytes) -> list[Instruction]:
    """Return the instructions (code, jt, jf, k) of a program that the kernel would accept.

    Raises OSError with EINVAL, as the kernel does, for anything else.
    """
    count, rest = divmod(len(program), bpf.INSTRUCTION_BYTES)
    if rest or not 0 < count <= bpf.BPF_MAXINSNS:
        raise _invalid(f"a program has 1 to {bpf.BPF_MAXINSNS} instructions of 8 bytes, this one {len(program)} bytes")
    instructions = []
    for place in range(count):
        word = int.from_bytes(program[place * 8 : place * 8 + 8], "little")
        code, jt, jf, k = word & 0xFFFF, word >> 16 & 0xFF, word >> 24 & 0xFF, word >> 32
        if code == bpf.LD_W_ABS:
            if k % 4 or k >= bpf.SECCOMP_DATA_BYTES:
                raise _invalid(f"instruction {place} loads from offset {k} of struct seccomp_data")
        elif code == bpf.JMP_JA:
            if place + 1 + k >= count:
                raise _invalid(f"instruction {place} jumps out of the program")
        elif code in _JUMPS:
            if place + 1 + max(jt, jf) >= count:
                raise _invalid(f"instruction {place} jumps out of the program")
        elif code not in (bpf.RET_K, bpf.ALU_AND_K):
            raise _invalid(f"instruction {place} has code {code:#x}, which no filter of ours has")
        instructions.append((code, jt, jf, k))
    if instructions[-1][0] != bpf.RET_K:
        raise _invalid("the last instruction is no return")
    return instructions


def simulate(program: bytes, architecture: str, number: int, args: Sequence[int] = (), ip: int = 0) -> int:
    """Return the SECCOMP_RET_* value, data included, that the program gives to one system call.

    number: as in seccomp_data.nr, -1 as 0xFFFFFFFF; args: up to six unsigned 64-bit values.
    Raises OSError for a program that `check` refuses.
    """
    padded = [*args, *[0] * (bpf.ARGUMENTS - len(args))]
    data = b"".join(
        value.to_bytes(size, "little")
        for value, size in ((number, 4), (bpf.AUDIT_ARCH[architecture], 4), (ip, 8), *((arg, 8) for arg in padded))
    )
    return run(check(program), data)


def run(instructions: Sequence[Instruction], data: bytes) -> int:
    """Return what checked instructions give for the 64 bytes of a struct seccomp_data."""
    accumulator = 0
    place = 0
    while True:
        code, jt, jf, k = instructions[place]
        place += 1
        if code == bpf.RET_K:
            return k
        if code == bpf.LD_W_ABS:
            accumulator = int.from_bytes(data[k : k + 4], "little")
        elif code == bpf.ALU_AND_K:
            accumulator &= k
        elif code == bpf.JMP_JA:
            place += k
        else:
            place += jt if _holds(code, accumulator, k) else jf


def _holds(code: int, accumulator: int, k: int) -> bool:
    if code == bpf.JMP_JEQ_K:
        return accumulator == k
    if code == bpf.JMP_JGT_K:
        return accumulator > k
    if code == bpf.JMP_JGE_K:
        return accumulator >= k
    return accumulator & k != 0


def disassemble(program: bytes) -> list[str]:
    """Return one line an instruction: `l4: jge #0x1f4, l10, l5`. Raises OSError for a program that `check` refuses."""
    return [f"l{place}: {_text(place, *instruction)}" for place, instruction in enumerate(check(program))]


def action_name(action: int) -> str:
    """Return "ALLOW", "ERRNO(EPERM)", "TRACE(7)": the kernel's name of a SECCOMP_RET_* value without its prefix."""
    full, data = action & bpf.SECCOMP_RET_ACTION_FULL, action & bpf.SECCOMP_RET_DATA
    name = ACTION_NAMES.get(full, f"{full:#x}")
    if full == bpf.SECCOMP_RET_ERRNO:
        return f"{name}({errno.errorcode.get(data, data)})"
    return f"{name}({data})" if data else name


def _text(place: int, code: int, jt: int, jf: int, k: int) -> str:
    if code == bpf.RET_K:
        return f"ret {action_name(k)}"
    if code == bpf.LD_W_ABS:
        return f"ld {_word(k)}"
    if code == bpf.ALU_AND_K:
        return f"and #{k:#x}"
    if code == bpf.JMP_JA:
        return f"ja l{place + 1 + k}"
    return f"{_JUMPS[code]} #{k:#x}, l{place + 1 + jt}, l{place + 1 + jf}"


def _word(offset: int) -> str:
    if offset < 16:
        return ("nr", "arch", "ip.low", "ip.high")[offset // 4]
    index, half = divmod(offset - 16, 8)
    return f"args[{index}].{'high' if half else 'low'}"


def _invalid(cause: str) -> OSError:
    return OSError(errno.EINVAL, f"seccomp filter: {cause}")
