"""A helper that stays in the old namespaces: who has left them can neither map ids nor keep a namespace by a file."""

from __future__ import annotations

import json
import os

from ....linux import mount, process
from ....spec.errors import OrlopError, Unavailable, from_json
from .program import refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ....spec.runtime import IdMapping
    from .idmaps import IdMaps

_ERROR_BYTES_MAX = 16 * 1024


class Helper:
    """A child that does things on request, for this process: `map_ids` and `keep`. It ends with its maker.

    keeps: (name below /proc/PID/ns, file) of the namespaces to keep.
    """

    def __init__(self, maps: IdMaps, keeps: Sequence[tuple[str, str]]) -> None:
        import socket

        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        maker = os.getpid()
        self._pid, pidfd = process.clone3(0)
        if self._pid:
            os.close(pidfd)
            theirs.close()
            return
        try:
            self._ours.close()
            while wanted := theirs.recv(1):
                theirs.send(_answer(lambda: _map(maker, maps) if wanted == b"M" else _keep(maker, keeps)))
        finally:
            os._exit(0)

    def map_ids(self) -> None:
        """Write the maps. Raises OrlopError."""
        self._ask(b"M")

    def keep(self) -> None:
        """Bind the namespaces to their files. Raises OrlopError."""
        self._ask(b"K")

    def release(self) -> None:
        """Let go of it, in a child of its maker: it ends with the last who holds it."""
        self._ours.close()

    def close(self) -> None:
        """Have it end, and reap it."""
        self._ours.close()
        os.waitpid(self._pid, 0)

    def _ask(self, what: bytes) -> None:
        self._ours.send(what)
        answer = self._ours.recv(_ERROR_BYTES_MAX)
        if answer != b"{}":
            raise (
                from_json(json.loads(answer)) if answer else Unavailable("make", "the namespaces", "a helper has died")
            )


def _answer(do: Callable[[], None]) -> bytes:
    try:
        do()
    except OrlopError as failure:
        return json.dumps(failure.to_json()).encode()[:_ERROR_BYTES_MAX]
    return b"{}"


def _map(pid: int, maps: IdMaps) -> None:
    """Write the maps ourselves, as who may; else through newuidmap(1) and newgidmap(1), which read /etc/subuid."""
    if maps.deny:
        _write(f"/proc/{pid}/setgroups", "deny")
    for program, name, rows in (("newuidmap", "uid_map", maps.uids), ("newgidmap", "gid_map", maps.gids)):
        if not rows:
            continue
        text = "".join(f"{row.container_id} {row.host_id} {row.size}\n" for row in rows)
        try:
            _write(f"/proc/{pid}/{name}", text)
        except OrlopError:
            if len(rows) == 1 and rows[0].size == 1:
                raise
            _have_mapped(program, pid, rows)


def _have_mapped(program: str, pid: int, rows: Sequence[IdMapping]) -> None:
    numbers = [str(number) for row in rows for number in (row.container_id, row.host_id, row.size)]
    try:
        status = os.spawnvp(os.P_WAIT, program, [program, str(pid), *numbers])
    except OSError as failure:
        raise refused("run", program, failure) from None
    if status == 127:
        raise Unavailable("run", program, "it is not there", hint="install Debian's package uidmap")
    if status:
        raise Unavailable("map", "ids", f"{program} does not map these", hint="see /etc/subuid and /etc/subgid")


def _write(path: str, text: str) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)
    except OSError as failure:
        raise refused("write", f"{path}: {text.strip()[:80]}", failure) from None


def _keep(pid: int, keeps: Sequence[tuple[str, str]]) -> None:
    for name, file in keeps:
        try:
            mount.mount(f"/proc/{pid}/ns/{name}", file, flags=mount.MS_BIND)
        except OSError as failure:
            hint = "the file must be there; a mount namespace's must lie on a mount that is not shared"
            raise refused("keep", f"the namespace {name} at {file}", failure, hint) from None


def signal_with_parent(number: int) -> None:
    """Have a signal come to this process when its parent dies. prctl(2), PR_SET_PDEATHSIG."""
    process.prctl(process.PR_SET_PDEATHSIG, number)
