"""A start with an attacker between every two steps: two names are exchanged right after the nth path is resolved.

Whoever resolves a path twice, or by name after a check, is caught by one n or another, and always by the same. A swap
that comes while a container starts is what a second container does that shares a volume or the image with the first.

`weakened` takes the guards out, so that a test can prove that it would see what they prevent.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from orlop.linux import mount, path
from orlop.runtime.operations import Init, Operation, Outside
from orlop.runtime.operations.masks import MaskedPaths
from orlop.runtime.plan import Plan
from orlop.spec.runtime import Mount, Spec

from . import launcher
from .pace import SLOW

STEPS_MAX = 400
TIMEOUT_S = 110.0 * SLOW
_OUTPUT_BYTES_MAX = 65536
_RENAME_EXCHANGE = 2


class Attempt:
    """One start. step: after which resolution the names were exchanged. error: what stopped the start, else ""."""

    def __init__(self, told: dict[str, Any]) -> None:
        self.step: int = told["step"]
        self.error: str = told["error"]
        self.output: str = told["output"]

    def __repr__(self) -> str:
        return f"after resolution {self.step}: {self.error or 'started'} {self.output!r}"


def attempts(spec: Spec, root: Path, pair: tuple[Path, Path], *, weakened: bool = False) -> list[Attempt]:
    """Start a container once for each path that its start resolves; the pair is exchanged back between."""
    request = {"spec": spec.to_json(), "root": str(root), "pair": [str(path) for path in pair], "weakened": weakened}
    with tempfile.TemporaryDirectory(prefix="orlop-interleave-") as scratch:
        asked, told = Path(scratch, "request"), Path(scratch, "report")
        asked.write_text(json.dumps(request))
        code = 'import sys; sys.path[:0] = sys.argv[1].split(":")\nfrom support import interleave; interleave.drive()'
        argv = [sys.executable, "-c", code, launcher.IMPORTS, str(asked), str(told)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        assert done.returncode == 0 and told.exists(), done.stderr
        return [Attempt(row) for row in json.loads(told.read_text())]


def drive() -> None:
    """The child's side: it has one thread, as clone3 wants."""
    from orlop.runtime import host, plan

    request = json.loads(Path(sys.argv[2]).read_text())
    if request["weakened"]:
        _weaken()
    spec = Spec.from_json(request["spec"])
    compiled = plan.compile(spec, host.facts())
    rows = []
    for step in range(1, STEPS_MAX):
        exchange = Exchange(request["pair"][0], request["pair"][1], step)
        compiled_with = compiled.replace(operations=(exchange.carrier, *compiled.operations))
        with exchange:
            rows.append({"step": step, **_attempt(compiled_with, request["root"])})
        if not exchange.happened:
            break  # no start resolves more paths than that: this one was undisturbed
    else:
        raise AssertionError(f"a start resolves more than {STEPS_MAX} paths")
    Path(sys.argv[3]).write_text(json.dumps(rows))


def _attempt(compiled: Plan, root: str) -> dict[str, str]:
    from orlop.linux import process
    from orlop.runtime import launch, rootfs
    from orlop.spec.errors import OrlopError

    output = os.memfd_create("output")
    fd = rootfs.open_rootfs([Mount(type="bind", source=root)])
    error = ""
    try:
        null = os.open("/dev/null", os.O_RDONLY)
        created = launch.create(compiled, fd, (null, output, output))
        os.close(null)
        created.start()
        if created.console is not None:
            launcher.copy_console(created.console, output)
            os.close(created.console)
        process.wait_pidfd(created.pidfd)
        os.close(created.pidfd)
    except OrlopError as failure:
        error = str(failure)
    finally:
        os.close(fd)
    os.lseek(output, 0, os.SEEK_SET)
    text = os.read(output, _OUTPUT_BYTES_MAX).decode(errors="replace")
    os.close(output)
    return {"error": error, "output": text}


class Carrier(Operation):
    """Stands first in the plan and brings a descriptor into init, which closes what it does not know."""

    descriptor: int
    subject = "test"

    def prepare(self, outside: Outside) -> None:
        outside.keep(self, os.dup(self.descriptor))

    def act(self, init: Init) -> None:
        Exchange.inside = init.source(self)


class Exchange:
    """While this context lasts, the nth resolution in init is followed by renameat2(2) of the two names.

    A process outside does it: whoever has something mounted at a name can't rename it, and an attacker has not.
    """

    inside = -1  # init's end of the connection to that process

    def __init__(self, one: str, other: str, step: int) -> None:
        self.names = os.fsencode(one), os.fsencode(other)
        self.step = step
        self.happened = False
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.carrier = Carrier(descriptor=self._ours.fileno())

    def __enter__(self) -> None:
        self._inode = os.lstat(self.names[0]).st_ino
        self._attacker = os.fork()
        if self._attacker == 0:
            self._ours.close()
            while self._theirs.recv(1):
                self._exchange()
                self._theirs.send(b".")
            os._exit(0)
        self._theirs.close()
        self._openat2 = path.openat2
        caller, count = os.getpid(), 0

        def openat2(*arguments: Any, **named: Any) -> int:
            nonlocal count
            fd = self._openat2(*arguments, **named)
            if os.getpid() != caller:
                count += 1
                if count == self.step:
                    os.write(Exchange.inside, b".")
                    os.read(Exchange.inside, 1)
            return fd

        path.openat2 = openat2

    def __exit__(self, *_: object) -> None:
        path.openat2 = self._openat2
        self._ours.close()
        os.waitpid(self._attacker, 0)
        self.happened = os.lstat(self.names[0]).st_ino != self._inode
        if self.happened:
            self._exchange()

    def _exchange(self) -> None:
        if _libc.renameat2(-1, self.names[0], -1, self.names[1], _RENAME_EXCHANGE):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), os.fsdecode(self.names[0]))


_libc = ctypes.CDLL(None, use_errno=True)


# -- without the guards ---------------------------------------------------------------------------------------------


def _weaken() -> None:
    """Resolve as runtimes did before openat2: by name, links followed from the root of whoever resolves."""

    def openat2(dirfd: int, path: str, flags: int, mode: int = 0, resolve: int = 0) -> int:
        return os.open(path.lstrip("/") or ".", flags | os.O_CLOEXEC, mode, dir_fd=dirfd)

    def place(self: Init, path: str) -> tuple[int, str]:
        return self.root, path

    def procfs(self: Init) -> int:
        return os.open("proc", os.O_PATH | os.O_CLOEXEC, dir_fd=self.root)

    real = Init.source

    def source(self: Init, operation: Operation, name: str = "") -> int:
        if not isinstance(operation, MaskedPaths):
            return real(self, operation, name)
        null = openat2(self.root, "dev/null", os.O_PATH)
        tree = mount.clone_tree(null)
        os.close(null)
        return tree

    path.openat2 = openat2
    for method in (place, procfs, source):
        setattr(Init, method.__name__, method)
