"""The command: found as a shell would find it, and explained when the kernel refuses to execute it.

Everything here runs in init, inside the container's root and with the process's own rights. The texts are those that
docker's and runc's users know and that their tools match on: 127 for "not found", 126 for "found, but".
"""

from __future__ import annotations

import errno
import os
import stat

from ..linux import abi
from ..spec.errors import CommandFailed

NOT_FOUND = 127
NOT_EXECUTABLE = 126

# Rows of orlop.spec.catalog for errors that have no further cause.
_CODES = {
    errno.ENOENT: "E0301",
    errno.ENOTDIR: "E0301",
    errno.EACCES: "E0303",
    errno.ENOEXEC: "E0310",
    errno.E2BIG: "E0311",
}  # fmt: skip
_HEAD_BYTES = 4096
_ELF_HEADER_BYTES = 64
_PT_INTERP = 3
# include/uapi/linux/elf-em.h
_MACHINES = {
    3: "i386", 8: "mips", 20: "ppc", 21: "ppc64", 22: "s390x", 40: "arm", 62: "x86_64", 183: "aarch64",
    243: "riscv64", 258: "loongarch64",
}  # fmt: skip
_RUNNABLE = {"x86_64": ("x86_64", "i386"), "aarch64": ("aarch64", "arm")}


def lookup(name: str, search_path: str) -> str:
    """Return the path of a command; name with a slash is a path, else it is looked for in search_path.

    Raises CommandFailed 127 when it does not exist, 126 when it is a directory or not executable.
    """
    if "/" in name:
        _check(name)
        return name
    for directory in search_path.split(":") if name else ():
        candidate = f"{directory or '.'}/{name}"
        if _is_program(candidate):
            return candidate
    raise _failed(
        f'exec: "{name}": executable file not found in $PATH',
        NOT_FOUND,
        f"install {name} in the image, or give its path; PATH is {search_path or 'empty'}",
        "E0301",
    )


def _is_program(name: str) -> bool:
    try:
        mode = os.stat(name).st_mode
    except OSError:
        return False
    return not stat.S_ISDIR(mode) and bool(mode & 0o111) and os.access(name, os.X_OK, effective_ids=True)


def _check(name: str) -> None:
    try:
        info = os.stat(name)
    except OSError as failure:
        code = NOT_FOUND if isinstance(failure, FileNotFoundError | NotADirectoryError) else NOT_EXECUTABLE
        closed = _closed_directory(name) if isinstance(failure, PermissionError) else ""
        cause = f" (the directory {closed} may not be searched by this user)" if closed else ""
        hint = f"give everybody the right to (chmod o+x {closed}), or run it as another user" if closed else ""
        row = "E0314" if closed else _CODES.get(failure.errno or 0, "")
        raise _failed(f'exec: "{name}": stat {name}: {abi.strerror(failure.errno)}{cause}', code, hint, row) from None
    if stat.S_ISDIR(info.st_mode):
        raise _failed(f'exec: "{name}": is a directory', NOT_EXECUTABLE, "name a program in it", "E0302")
    if not info.st_mode & 0o111 or not os.access(name, os.X_OK, effective_ids=True):
        hint, row = _permission_hint(name, info.st_mode)
        raise _failed(f'exec: "{name}": permission denied', NOT_EXECUTABLE, hint, row)


def _closed_directory(name: str) -> str:
    """Return the first directory on the way to a program that the process may not search, "" for none."""
    at = name.find("/", 1)
    while at > 0:
        if not os.access(name[:at], os.X_OK, effective_ids=True):
            return name[:at]
        at = name.find("/", at + 1)
    return ""


def _permission_hint(name: str, mode: int) -> tuple[str, str]:
    """Return the next step and the error's code."""
    if not mode & 0o111:
        return f"make it executable (chmod +x {name})", "E0303"
    if os.statvfs(name).f_flag & os.ST_NOEXEC:
        return "mount its file system without noexec", "E0304"
    return "run it as a user who may execute it", "E0303"


def refused(name: str, args: tuple[bytes, ...], number: int) -> CommandFailed:
    """Return the error of an execve of `name` that failed with an errno, with the cause where it can be found."""
    text = f'exec: "{name}": {abi.strerror(number)}'
    cause = hint = ""
    row = _CODES.get(number, "")
    if number == errno.E2BIG:
        cause = f"the arguments and the environment have {sum(len(arg) for arg in args)} bytes and more"
        hint = "pass large values in a file"
    elif number in (errno.ENOENT, errno.ENOEXEC, errno.EACCES, errno.ELOOP):
        try:
            cause, hint, row = _diagnosed(name, number)
        except OSError:
            pass  # a seccomp filter may forbid the look; the errno stands
    code = NOT_FOUND if number in (errno.ENOENT, errno.ENOTDIR) else NOT_EXECUTABLE
    return _failed(text + (f" ({cause})" if cause else ""), code, hint, row)


def _diagnosed(name: str, number: int) -> tuple[str, str, str]:
    """Return the cause and the next step, "" where there is none, and the error's code."""
    if number == errno.EACCES:
        if os.statvfs(name).f_flag & os.ST_NOEXEC:
            return "it lies on a file system mounted noexec", "mount it with exec", "E0304"
        interpreter = _interpreter(name)
        if interpreter:
            return f"its interpreter {interpreter} is not executable", "", "E0307"
        return "", "", _CODES[number]
    head = _head(name)
    if head.startswith(b"#!"):
        return _script(head)
    if head.startswith(b"\x7fELF"):
        return _elf(name, head)
    if number == errno.ENOEXEC:
        if not head:
            return "the file is empty", "", "E0310"
        cause = 'it is neither a program for this machine nor a script with a "#!" line'
        return cause, 'begin it with "#!/bin/sh"', "E0310"
    return "", "", _CODES.get(number, "")


def _script(head: bytes) -> tuple[str, str, str]:
    line = head.split(b"\n", 1)[0]
    if line.endswith(b"\r"):
        return 'its "#!" line ends with CR LF', "save it with Unix line ends", "E0305"
    words = line[2:].split(None, 1)
    if not words:
        return 'its "#!" line names no interpreter', 'begin it with "#!/bin/sh"', "E0310"
    interpreter = words[0].decode(errors="replace")
    if not os.path.exists(interpreter):
        cause = f"its interpreter {interpreter} does not exist in the container"
        return cause, "install it or change the first line", "E0306"
    return f"its interpreter {interpreter} can't be executed", "", "E0307"


def _elf(name: str, head: bytes) -> tuple[str, str, str]:
    order = "little" if head[5:6] == b"\x01" else "big"
    number = int.from_bytes(head[18:20], order)  # type: ignore[arg-type]
    machine = _MACHINES.get(number, f"machine {number}")
    if machine not in _RUNNABLE.get(abi.MACHINE, (abi.MACHINE,)):
        return (
            f"it is a program for {machine}, this machine is {abi.MACHINE}",
            f"use an image for {abi.MACHINE}, or install qemu-user-static with binfmt_misc",
            "E0308",
        )
    loader = _interpreter(name)
    if loader and not os.path.exists(loader):
        cause = f"its loader {loader} does not exist in the container"
        return cause, "install its C library, or link it statically", "E0309"
    return "", "", ""


def _interpreter(name: str) -> str:
    """Return what an ELF program's PT_INTERP or a script's first line names; "" for neither or a malformed file."""
    head = _head(name)
    if head.startswith(b"#!"):
        words = head.split(b"\n", 1)[0][2:].split(None, 1)
        return words[0].decode(errors="replace") if words else ""
    if len(head) < _ELF_HEADER_BYTES or head[:6] not in (b"\x7fELF\x02\x01", b"\x7fELF\x01\x01"):
        return ""
    wide = head[4] == 2
    table, size, count = (head[32:40], head[54:56], head[56:58]) if wide else (head[28:32], head[42:44], head[44:46])
    start, step = int.from_bytes(table, "little"), int.from_bytes(size, "little")
    for index in range(int.from_bytes(count, "little")):
        entry = head[start + index * step : start + (index + 1) * step]
        if len(entry) == step and int.from_bytes(entry[:4], "little") == _PT_INTERP:
            at, length = (entry[8:16], entry[32:40]) if wide else (entry[4:8], entry[16:20])
            begin = int.from_bytes(at, "little")
            return head[begin : begin + int.from_bytes(length, "little")].rstrip(b"\0").decode(errors="replace")
    return ""


def _head(name: str) -> bytes:
    # O_NONBLOCK: what stands there may be anything, also a FIFO.
    fd = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return os.read(fd, _HEAD_BYTES)
    finally:
        os.close(fd)


def _failed(cause: str, exit_code: int, hint: str, code: str) -> CommandFailed:
    return CommandFailed("start", "the container's process", cause, hint=hint, exit_code=exit_code, code=code)
