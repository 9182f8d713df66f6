"""Small images that stand for well-known ones where there is no network: hello-world, busybox.

They are archives of root file systems, the same bytes each time. What is in them is of this machine: a program of two
system calls that says hello, and busybox as it is installed.
"""

from __future__ import annotations

import os
import struct
import subprocess

from orlop import assembled
from orlop.spec.errors import Invalid, Unsupported
from orlop.spec.tar import DIRTYPE, LNKTYPE, Member
from orlop.spec.tar.writer import END_OF_ARCHIVE, encode, padding

from .elf import BrokenElf, read

HELLO = b"""
Hello from Docker!
This message shows that your installation appears to be working correctly.
(It is not Docker's own image but one that stands for it: `orlop bootstrap` made it.)

"""
APPLETS_S_MAX = 10
_PASSWD = b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"
_GROUP = b"root:x:0:\nnogroup:x:65534:\n"


def hello_world(machine: str) -> bytes:
    """Return an archive with nothing in it but /hello, for a machine as uname(2) calls it. Raises Unsupported."""
    return _file(b"hello", hello(machine), 0o755) + END_OF_ARCHIVE


def hello(machine: str) -> bytes:
    """Return a program, without a library, that writes HELLO and ends with 0. Raises Unsupported."""
    size = len(HELLO)
    if machine == "x86_64":
        code = bytes.fromhex("b801000000bf01000000488d3510000000ba")  # write(1, message, size)
        code += struct.pack("<I", size) + bytes.fromhex("0f05b83c00000031ff0f05")  # exit(0)
        code = code[:13] + struct.pack("<i", len(code) - 17) + code[17:]  # rsi: from the next instruction on
    elif machine == "aarch64":
        words = [_movz(8, 64), _movz(0, 1), _adr(1, 6 * 4), _movz(2, size), _SVC, _movz(8, 93), _movz(0, 0), _SVC]
        code = struct.pack(f"<{len(words)}I", *words)
    else:
        raise Unsupported(
            "make", "image hello-world", f"there is no program for a {machine}", hint="build one yourself"
        )
    return assembled.elf(machine, code + HELLO)


def busybox(program: str) -> bytes:
    """Return an archive with a busybox and a name for each of its applets.

    Raises Invalid for a program that can't be read or needs libraries.
    """
    hint = "install busybox-static, or name a busybox that needs no library"
    try:
        found = read(program)
        if found is None or found.interpreter:
            raise Invalid(
                "read", program, "it is no program, or needs libraries that the image would not have", hint=hint
            )
        with open(program, "rb") as file:
            data = file.read()
        words = ["busybox", "--list"]  # by another name it is one of its applets
        listed = subprocess.run(
            words, executable=program, capture_output=True, check=True, timeout=APPLETS_S_MAX
        ).stdout
    except (OSError, BrokenElf, subprocess.SubprocessError) as wrong:
        raise Invalid("read", program, str(wrong), hint=hint) from None
    folders = ("bin", "dev", "etc", "home", "proc", "root", "sys", "tmp", "usr", "usr/bin", "var")
    parts = [_directory(name, 0o1777 if name == "tmp" else 0o755) for name in folders]
    parts += [
        _file(b"etc/passwd", _PASSWD, 0o644),
        _file(b"etc/group", _GROUP, 0o644),
        _file(b"bin/busybox", data, 0o755),
    ]
    for applet in sorted(set(listed.split()) - {b"busybox"}):
        if b"/" not in applet:
            parts.append(encode(Member(b"bin/" + applet, LNKTYPE, 0o755, linkname=b"bin/busybox")))
    parts.append(encode(Member(b"usr/bin/env", LNKTYPE, 0o755, linkname=b"bin/busybox")))
    return b"".join(parts) + END_OF_ARCHIVE


def _directory(name: str, mode: int) -> bytes:
    return encode(Member(os.fsencode(name) + b"/", DIRTYPE, mode))


def _file(name: bytes, data: bytes, mode: int) -> bytes:
    return encode(Member(name, mode=mode, size=len(data))) + data + padding(len(data))


# Arm Architecture Reference Manual, C6.2: MOVZ, ADR, SVC.
_SVC = 0xD4000001


def _movz(register: int, value: int) -> int:
    return 0xD2800000 | value << 5 | register


def _adr(register: int, words_bytes: int) -> int:
    return 0x10000000 | words_bytes >> 2 << 5 | register
