"""System call names and numbers of every architecture a filter may meet, whatever this machine is.

An architecture is named as uname(2) names its machine, plus the two second ABIs of x86-64: "i386" and "x32". The
numbers of x32 carry `X32_SYSCALL_BIT`, as they do in seccomp_data.nr. Names are the kernel's own (asm/unistd.h).
A table is split out of its text when it is first asked for: about 50 microseconds each.
"""

from __future__ import annotations

X32_SYSCALL_BIT = 0x40000000
ARM_PRIVATE_BASE = 0x0F0000  # __ARM_NR_BASE: set_tls and the like, far above the ordinary calls

ARCHITECTURES = ("x86_64", "i386", "x32", "aarch64", "arm", "riscv64")

# i386 reaches these calls a second way as well: socketcall(n, pointer) (linux/net.h) and ipc(n, ...) (linux/ipc.h), n
# being the place in the list plus one. A filter sees n, not the arguments behind the pointer.
SOCKETCALLS = (
    "socket", "bind", "connect", "listen", "accept", "getsockname", "getpeername", "socketpair", "send", "recv",
    "sendto", "recvfrom", "shutdown", "setsockopt", "getsockopt", "sendmsg", "recvmsg", "accept4", "recvmmsg",
    "sendmmsg",
)  # fmt: skip
IPC_CALLS = {
    "semop": 1, "semget": 2, "semctl": 3, "semtimedop": 4,
    "msgsnd": 11, "msgrcv": 12, "msgget": 13, "msgctl": 14,
    "shmat": 21, "shmdt": 22, "shmget": 23, "shmctl": 24,
}  # fmt: skip
# name -> (the multiplexer's name, its first argument)
MULTIPLEXED = {name: ("socketcall", place) for place, name in enumerate(SOCKETCALLS, 1)} | {
    name: ("ipc", place) for name, place in IPC_CALLS.items()
}


class _Tables(dict[str, dict[str, int]]):
    """The tables that were asked for so far."""

    def __missing__(self, architecture: str) -> dict[str, int]:
        self[architecture] = table = _read(architecture)
        return table


_tables = _Tables()


def numbers(architecture: str) -> dict[str, int]:
    """Return name -> number of one architecture: one shared object, not to be changed.

    Raises KeyError for an architecture that is not in ARCHITECTURES.
    """
    return _tables[architecture]


def names(architecture: str) -> dict[int, str]:
    """Return number -> name of one architecture. Raises KeyError for an architecture not in ARCHITECTURES."""
    return {number: name for name, number in numbers(architecture).items()}


def _read(architecture: str) -> dict[str, int]:
    from . import table

    if architecture == "x32":
        merged = numbers("x86_64") | _split(table.X32)
        absent = table.X32_ABSENT.split()
        return {name: number | X32_SYSCALL_BIT for name, number in merged.items() if name not in absent}
    if architecture == "riscv64":
        generic = {name: number for name, number in numbers("aarch64").items() if name != table.RISCV64_ABSENT}
        return generic | _split(table.RISCV64)
    texts = {"x86_64": table.X86_64, "i386": table.I386, "aarch64": table.AARCH64, "arm": table.ARM}
    return _split(texts[architecture]) | _split(table.COMMON)


def _split(text: str) -> dict[str, int]:
    table = {}
    counter = 0
    for word in text.split():
        if word.isdigit():
            counter = int(word)
        else:
            table[word] = counter
            counter += 1
    return table
