"""eBPF for cgroups: an assembler for the few instructions that a filter needs, and the bpf(2) calls around them.

Invariant: a cgroup is never without a filter while one replaces another; several attached programs must all agree
(BPF_F_ALLOW_MULTI), so for a moment the stricter of both rules holds.

Source: bpf(2); Documentation/bpf/standardization/instruction-set.rst; include/uapi/linux/bpf.h.
"""

from __future__ import annotations

import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

PROG_LOAD, PROG_ATTACH, PROG_DETACH, PROG_GET_FD_BY_ID, PROG_QUERY = 5, 8, 9, 13, 16
PROG_TYPE_CGROUP_DEVICE = 15
CGROUP_DEVICE = 6  # enum bpf_attach_type
F_ALLOW_MULTI = 2
PROGRAMS_MAX = 64  # BPF_CGROUP_MAX_PROGS

R0, R1, R2, R3, R4, R5 = range(6)


def _instruction(opcode: int, dst: int = 0, src: int = 0, offset: int = 0, immediate: int = 0) -> bytes:
    # The immediate is a signed field; 32-bit operations read it as the unsigned number meant here.
    return struct.pack("<BBhI", opcode, dst | src << 4, offset, immediate & 0xFFFFFFFF)


def load_word(dst: int, src: int, offset: int) -> bytes:
    """dst = *(u32 *)(src + offset)"""
    return _instruction(0x61, dst, src, offset)


def move(dst: int, src: int) -> bytes:
    """w_dst = w_src"""
    return _instruction(0xBC, dst, src)


def move_immediate(dst: int, value: int) -> bytes:
    """w_dst = value"""
    return _instruction(0xB4, dst, immediate=value)


def and_immediate(dst: int, value: int) -> bytes:
    """w_dst &= value"""
    return _instruction(0x54, dst, immediate=value)


def shift_right(dst: int, bits: int) -> bytes:
    """w_dst >>= bits"""
    return _instruction(0x74, dst, immediate=bits)


def jump_if_equal(dst: int, value: int, skip: int) -> bytes:
    """if w_dst == value: skip that many instructions (32-bit compare, since 5.1)"""
    return _instruction(0x16, dst, offset=skip, immediate=value)


def jump_if_not_equal(dst: int, value: int, skip: int) -> bytes:
    """if w_dst != value: skip that many instructions"""
    return _instruction(0x56, dst, offset=skip, immediate=value)


def exit_with(value: int) -> bytes:
    """return value: two instructions"""
    return move_immediate(R0, value) + _instruction(0x95)


def load(program: bytes, prog_type: int, name: str = "") -> int:
    """Return a descriptor of the verified program. Raises OSError: EPERM without CAP_BPF, EINVAL, E2BIG."""
    from .. import ffi

    instructions = ffi.create_string_buffer(program, len(program))
    licence = ffi.create_string_buffer(b"Apache-2.0")
    attr = struct.pack(
        "=IIQQIIQII16sII",
        *(prog_type, len(program) // 8, ffi.addressof(instructions), ffi.addressof(licence)),
        *(0, 0, 0, 0, 0, name.encode()[:15], 0, 0),
    )
    return _bpf(PROG_LOAD, bytearray(attr), "program")


def replace(target_fd: int, program_fd: int, attach_type: int) -> None:
    """Attach the program to a cgroup and detach whatever was attached to that very cgroup before."""
    earlier = attached(target_fd, attach_type)
    _bpf(PROG_ATTACH, bytearray(struct.pack("=IIII", target_fd, program_fd, attach_type, F_ALLOW_MULTI)), "attach")
    for program_id in earlier:
        old = _bpf(PROG_GET_FD_BY_ID, bytearray(struct.pack("=III", program_id, 0, 0)), f"program {program_id}")
        try:
            _bpf(PROG_DETACH, bytearray(struct.pack("=IIII", target_fd, old, attach_type, 0)), f"program {program_id}")
        finally:
            os.close(old)


def attached(target_fd: int, attach_type: int) -> Sequence[int]:
    """Return the ids of the programs attached to this cgroup, without those of its parents."""
    from .. import ffi

    ids = (ffi.c_uint32 * PROGRAMS_MAX)()
    attr = bytearray(struct.pack("=IIIIQI", target_fd, attach_type, 0, 0, ffi.addressof(ids), PROGRAMS_MAX))
    _bpf(PROG_QUERY, attr, "query")
    (count,) = struct.unpack_from("=I", attr, 24)
    return ids[:count]


def _bpf(command: int, attr: bytearray, subject: str) -> int:
    """bpf(2). The attribute block is padded: the kernel takes any size whose unknown tail is zero."""
    from .. import abi, ffi  # not at the top: cgroup v1 needs none of this

    block = (ffi.c_char * len(attr)).from_buffer(attr)
    return abi.syscall("bpf", command, ffi.byref(block), len(attr), subject=subject)
