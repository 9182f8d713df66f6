"""A static program of x86-64 that makes given system calls and writes their results: it runs in any root file system.

Assembled here, so that no compiler and no libc is needed; the results are 8 bytes each, little endian.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from .filtered import Call

_BASE = 0x400000
_HEADERS = 64 + 56
_CODE = bytes.fromhex(
    "4c8d2500000000"  # lea r12, [table]                  (displacement filled in)
    "41bd00000000"  # mov r13d, count                     (filled in)
    "418b0424"  # next: mov eax, [r12]
    "41837c240400"  # cmp dword [r12+4], 0
    "7523"  # jne i386
    "498b7c2408"  # mov rdi, [r12+8]
    "498b742410"  # mov rsi, [r12+16]
    "498b542418"  # mov rdx, [r12+24]
    "4d8b542420"  # mov r10, [r12+32]
    "4d8b442428"  # mov r8, [r12+40]
    "4d8b4c2430"  # mov r9, [r12+48]
    "0f05"  # syscall
    "eb24"  # jmp store
    "90"
    "418b5c2408"  # i386: mov ebx, [r12+8]
    "418b4c2410"  # mov ecx, [r12+16]
    "418b542418"  # mov edx, [r12+24]
    "418b742420"  # mov esi, [r12+32]
    "418b7c2428"  # mov edi, [r12+40]
    "418b6c2430"  # mov ebp, [r12+48]
    "cd80"  # int 0x80
    "4863c0"  # movsxd rax, eax
    "50"  # store: push rax
    "b801000000"  # mov eax, 1                            write(1, rsp, 8)
    "bf01000000"  # mov edi, 1
    "4889e6"  # mov rsi, rsp
    "ba08000000"  # mov edx, 8
    "0f05"  # syscall
    "58"  # pop rax
    "4983c438"  # add r12, 56
    "41ffcd"  # dec r13d
    "7500"  # jnz next                                    (filled in)
    "b8e7000000"  # mov eax, 231                          exit_group(0)
    "31ff"  # xor edi, edi
    "0f05"  # syscall
)


def program(calls: Sequence[Call]) -> bytes:
    """Return the ELF file that makes these calls. It needs write and exit_group itself."""
    code = bytearray(_CODE)
    struct.pack_into("<i", code, 3, len(code) - 7)
    struct.pack_into("<I", code, 9, len(calls))
    jump = code.index(bytes.fromhex("7500"))
    code[jump + 1] = 0x100 - (jump + 2 - 13)
    table = b"".join(
        struct.pack("<II6Q", number, architecture == "i386", *args, *[0] * (6 - len(args)))
        for architecture, number, args in calls
    )
    body = bytes(code) + table
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\2\1\1", 2, 62, 1, _BASE + _HEADERS, 64, 0, 0, 64, 56, 1, 0, 0, 0,
    )  # fmt: skip
    size = _HEADERS + len(body)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x1000)
    return header + segment + body


def results(output: bytes) -> list[int]:
    """Return what a program wrote."""
    return [value for (value,) in struct.iter_unpack("<q", output)]
