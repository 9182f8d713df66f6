"""Scoped sockets: which there are, what each may do, and what was done through it.

    $ORLOP_ROOT/sockets/<name>/socket.json             what it may do                          (writer: engine)
                               audit.jsonl[.1]         one line for each request               (writer: engine)

This room keeps the facts. Who listens (frontends.scoped) is told when they change, and asks `Sockets.live` again.
"""

from __future__ import annotations

import os
import shutil
import threading
import time

from ...linux.path import read_file
from ...spec import jsonio
from ...spec.errors import Conflict, Invalid, NotFound, OrlopError, Unavailable
from ..containers.record import timestamp, write_durably
from .record import SocketRecord

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from .record import SocketRequest

AUDIT_BYTES_MAX = 8 * 1024 * 1024  # of each of the two files
SOCKETS_MAX = 256
NAME_LENGTH_MAX = 48  # the socket's path has at most 107 bytes
TTL_S_MAX = 10 * 365 * 86400

# What can be allowed: docker's nouns, and what is done with them.
RIGHTS: Mapping[str, frozenset[str]] = {
    "containers": frozenset(
        "attach changes copy-from copy-to create events exec export inspect kill list logs pause prune remove rename"
        " resize restart start stats stop top update wait".split()
    ),
    "images": frozenset("build commit history inspect list load prune pull push remove save search tag".split()),
    "networks": frozenset("connect create disconnect inspect list prune remove".split()),
    "volumes": frozenset("create inspect list prune remove".split()),
    "system": frozenset("auth df info metrics".split()),
}
_SHORT = {
    "read": {
        "containers": "changes events inspect list logs stats top wait",
        "images": "history inspect list",
        "networks": "inspect list",
        "volumes": "inspect list",
        "system": "info",
    }
}
_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
# A queue (FIFO) in its place keeps nobody waiting.
_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class Sockets:
    """All scoped sockets of an engine. changed: called after each change, for whoever listens on them."""

    def __init__(self, root: str) -> None:
        self._root = f"{root}/sockets"
        self._guard = threading.Lock()
        self.changed: Callable[[], None] = lambda: None

    def create(self, request: SocketRequest) -> SocketRecord:
        """Keep a new one. Raises Invalid, Conflict, Unavailable."""
        subject = f"socket {request.name[:60]}"
        _check(request, subject)
        now = time.time_ns()
        record = SocketRecord(
            name=request.name,
            rights=rights_of(request.allow, subject),
            labels=request.labels,
            created_at=timestamp(now),
            expires_at_ns=now + request.ttl_s * 10**9 if request.ttl_s else 0,
            reveal=request.reveal,
            uids=request.uids,
        )
        with self._guard:
            if len(list(self._names())) >= SOCKETS_MAX:
                raise Unavailable("create", subject, f"there are {SOCKETS_MAX} already", hint="remove one")
            self._keep(record, subject)
        self.changed()
        return record

    def _keep(self, record: SocketRecord, subject: str) -> None:
        directory = self._directory(record.name)
        try:
            os.makedirs(directory, 0o700)
            write_durably(f"{directory}/socket.json", jsonio.dump(record.to_json()))
        except FileExistsError:
            raise Conflict("create", subject, "there is one of that name", hint="remove it: orlop socket rm") from None
        except OSError as wrong:
            shutil.rmtree(directory, ignore_errors=True)
            raise Unavailable("create", subject, wrong.strerror or str(wrong)) from None

    def remove(self, name: str) -> None:
        """Forget one, and what was done through it. Raises NotFound, Unavailable."""
        subject = f"socket {name[:60]}"
        with self._guard:
            if not _is_name(name) or not os.path.isdir(self._directory(name)):
                raise NotFound("remove", subject, f"No such socket: {name[:60]}")
            gone = f"{self._root}/.gone-{name}-{os.getpid()}-{time.monotonic_ns()}"
            try:
                os.rename(self._directory(name), gone)
                shutil.rmtree(gone)
            except OSError as wrong:
                raise Unavailable("remove", subject, wrong.strerror or str(wrong)) from None
        self.changed()

    def all(self) -> list[SocketRecord]:
        """Return all, by name; one whose file can't be read is left out: it allows nothing."""
        found = []
        for name in self._names():
            try:
                text = read_file(f"{self._directory(name)}/socket.json", jsonio.DOCUMENT_BYTES_MAX)
                found.append(SocketRecord.from_json(jsonio.parse_object(text, name), name))
            except (OSError, OrlopError):
                continue
        return found

    def live(self) -> dict[str, SocketRecord]:
        """Return by name those that have not expired."""
        now = time.time_ns()
        return {one.name: one for one in self.all() if not one.expires_at_ns or one.expires_at_ns > now}

    def audit(self, name: str, line: Mapping[str, object]) -> None:
        """Write down a request before anything is done for it. Raises Unavailable: what can't be told is not done."""
        path = f"{self._directory(name)}/audit.jsonl"
        data = jsonio.dump({"time": timestamp(), **line}) + b"\n"
        try:
            with self._guard:
                fd = os.open(path, _APPEND, 0o600)
                try:
                    full = os.fstat(fd).st_size + len(data) > AUDIT_BYTES_MAX
                    if os.write(fd, data) != len(data):
                        raise OSError(28, "No space left on device")
                finally:
                    os.close(fd)
                if full:
                    os.rename(path, f"{path}.1")
        except OSError as wrong:
            raise Unavailable("audit", f"socket {name}", wrong.strerror or str(wrong)) from None

    def audited(self, name: str) -> Iterator[dict[str, object]]:
        """Yield what was done through one, the oldest first. Raises NotFound at once."""
        if not _is_name(name) or not os.path.isdir(self._directory(name)):
            raise NotFound("read", f"the audit of socket {name[:60]}", f"No such socket: {name[:60]}")
        return self._lines(name)

    def _lines(self, name: str) -> Iterator[dict[str, object]]:
        for suffix in (".1", ""):
            try:
                lines = read_file(f"{self._directory(name)}/audit.jsonl{suffix}", 2 * AUDIT_BYTES_MAX).splitlines()
            except OSError:
                continue  # there is none yet, or it is none of ours
            for line in lines:
                try:
                    yield jsonio.parse_object(line, "a line of the audit")
                except Invalid:
                    continue  # the last one of an engine that was killed

    def _names(self) -> Iterator[str]:
        try:
            yield from sorted(name for name in os.listdir(self._root) if _is_name(name))
        except FileNotFoundError:
            return

    def _directory(self, name: str) -> str:
        return f"{self._root}/{name}"


def _is_name(name: str) -> bool:
    return 0 < len(name) <= NAME_LENGTH_MAX and _NAME.issuperset(name) and name[0].isalnum()


def _check(request: SocketRequest, subject: str) -> None:
    if not _is_name(request.name):
        cause = f"its name is not 1 to {NAME_LENGTH_MAX} of [a-zA-Z0-9_.-], beginning with a letter or digit"
        raise Invalid("create", subject, cause, hint="choose another name")
    if not 0 <= request.ttl_s <= TTL_S_MAX:
        raise Invalid("create", subject, f"its time to live is not 0 to {TTL_S_MAX} seconds", hint="write --ttl 1h")
    if any(not key for key in request.labels):
        raise Invalid("create", subject, "a label has no name", hint="write --where label=name=value")
    if any(not 0 <= uid < 2**32 - 1 for uid in request.uids):
        raise Invalid("create", subject, "a user id is out of range", hint="write --uid 1000")


def rights_of(allow: tuple[str, ...], subject: str) -> tuple[str, ...]:
    """Return the rights that words like "containers:list,inspect" or "images:*" give. Raises Invalid."""
    found: set[str] = set()
    for words in allow:
        noun, colon, verbs = words.partition(":")
        known = RIGHTS.get(noun)
        if known is None or not colon:
            hint = f"write NOUN:VERB,VERB with a noun of {', '.join(sorted(RIGHTS))}"
            raise Invalid("create", subject, f"{words[:60]!r} allows nothing that there is", hint=hint)
        for verb in verbs.split(","):
            if verb == "*":
                found |= {f"{noun}:{one}" for one in known}
            elif verb in _SHORT:
                found |= {f"{noun}:{one}" for one in _SHORT[verb][noun].split()}
            elif verb in known:
                found.add(f"{noun}:{verb}")
            else:
                hint = f"known are {', '.join(sorted(known))}, read and *"
                raise Invalid("create", subject, f"{noun} have no verb {verb[:40]!r}", hint=hint)
    if not found:
        raise Invalid("create", subject, "it would allow nothing", hint="write --allow containers:list,inspect")
    return tuple(sorted(found))
