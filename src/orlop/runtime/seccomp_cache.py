"""Compiled seccomp programs, kept in a directory, so that a profile is compiled once on a machine.

A program is named after everything that it depends on: the profile, the machine, and the generation of the compiler.

    <directory>/<BLAKE2b of profile, machine and generation>      mode 0600                        (writer: any process)
        magic, the name once more (32 bytes), BLAKE2b of the program (32 bytes), the program

Entries are written beside their place and renamed into it. What is read is believed only when it is a file of our own
that nobody else may write, of the right form and digest, under its own name; else it is compiled again. The kernel
checks every program that it loads, so none that slipped through could do more than fail the start.
Nothing here can fail a start: a directory that can't be read or written means no cache.

A hit costs 0.6 ms where docker's default profile takes 4 to 5 ms, the compiler's import included, which a hit does not
need (docs/adr/0011-compiled-seccomp-programs-are-kept.md). By the profile's document (`compiler`) it costs 0.1 ms and
saves its readers half a millisecond more: what is the same text is not read again.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..spec.runtime import Seccomp
    from .planning.process import FilterCompiler

# To be raised whenever the same profile gives another program; tests/unit/test_seccomp_cache.py tells when.
GENERATION = 2

_MAGIC = b"orlop seccomp program\n"
_HASH_BYTES = 32
_INSTRUCTION_BYTES, _INSTRUCTIONS_MAX = 8, 4096  # linux/filter.h: struct sock_filter, BPF_MAXINSNS
_ENTRY_BYTES_MAX = len(_MAGIC) + 2 * _HASH_BYTES + _INSTRUCTIONS_MAX * _INSTRUCTION_BYTES


class ProgramCache:
    """Compiles like `seccomp.compile`, remembering what it did."""

    __slots__ = ("_directory",)

    def __init__(self, directory: str) -> None:
        """directory: an absolute path; it need not exist, and is made with mode 0700."""
        self._directory = directory

    def compile(self, profile: Seccomp, machine: str) -> bytes:
        """Return the program of a profile for a machine. Raises what `seccomp.compile` raises."""
        key = name_of(profile, machine)
        found = self._read(key)
        if found is None:
            from . import seccomp

            found = seccomp.compile(profile, machine)
            self._write(key, found)
        return found

    def compiler(self, document: object, machine: str) -> FilterCompiler:
        """Return what compiles the profile of a spec that was parsed and not read yet, for a machine.

        Where its program is kept, the profile's rules are taken out of the document: to read them takes as long as all
        else in it. Those that ask somebody (SCMP_ACT_NOTIFY) stay, which say that the filter has a listener.
        """
        linux = document.get("linux") if isinstance(document, dict) else None
        profile = linux.get("seccomp") if isinstance(linux, dict) else None
        if not isinstance(profile, dict):
            return self.compile
        rules = profile.get("syscalls")
        if not isinstance(rules, list) or not all(isinstance(rule, dict) for rule in rules):
            return self.compile
        key = _digest(f"{GENERATION}\n{machine}\ndocument {profile!r}".encode("utf-8", "surrogatepass"))
        found = self._read(key)
        if found is not None:
            profile["syscalls"] = [rule for rule in rules if rule.get("action") == "SCMP_ACT_NOTIFY"]
            return lambda _profile, _machine: found

        def compile(profile: Seccomp, machine: str) -> bytes:
            from . import seccomp

            program = seccomp.compile(profile, machine)
            self._write(key, program)
            return program

        return compile

    def _read(self, key: bytes) -> bytes | None:
        try:
            fd = os.open(f"{self._directory}/{key.hex()}", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            found = os.fstat(fd)
            if found.st_uid != os.geteuid() or found.st_mode & 0o022:
                return None
            return _program(key, os.read(fd, _ENTRY_BYTES_MAX + 1))
        except OSError:
            return None
        finally:
            os.close(fd)

    def _write(self, key: bytes, program: bytes) -> None:
        path = f"{self._directory}/{key.hex()}"
        beside = f"{path}.{os.getpid()}"
        try:
            os.makedirs(self._directory, mode=0o700, exist_ok=True)
            fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError:
            return
        try:
            # A short write leaves an entry whose digest is wrong: it is as if it were not there.
            os.write(fd, _MAGIC + key + _digest(program) + program)
            os.rename(beside, path)
        except OSError:
            _remove(beside)
        finally:
            os.close(fd)


def name_of(profile: Seccomp, machine: str) -> bytes:
    """Return what the program of a profile for a machine is kept under."""
    return _digest(f"{GENERATION}\n{machine}\n{profile!r}".encode("utf-8", "surrogatepass"))


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass


def _program(key: bytes, entry: bytes) -> bytes | None:
    """Return the program of an entry, or None when it is not whole or not of this name."""
    head = len(_MAGIC) + 2 * _HASH_BYTES
    program = entry[head:]
    if len(entry) > _ENTRY_BYTES_MAX or entry[:head] != _MAGIC + key + _digest(program):
        return None
    return program if program and not len(program) % _INSTRUCTION_BYTES else None


def _digest(data: bytes) -> bytes:
    # The module behind hashlib, which would load OpenSSL for it: 3 ms. Of SHA-256's the name differs between versions.
    from _blake2 import blake2b

    return blake2b(data, digest_size=_HASH_BYTES).digest()
