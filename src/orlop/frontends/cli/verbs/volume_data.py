"""`orlop volume mv`, `clone`, `snapshot`, `rollback`, `diff`, `export`, `import`, `du`, `who`: not docker's."""

from __future__ import annotations

import os
import sys
from _socket import AF_UNIX, SHUT_WR, SOCK_STREAM, socketpair

from ....spec.errors import Invalid, NotFound
from .. import archives, listing
from ..command import Command, Invocation, for_output, write_line
from ..flags import EXIT_USAGE, STRING, Flag, UsageError
from ..units import size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ID_LENGTH = 12


def _mv(invocation: Invocation) -> int:
    return _pair(invocation, "volumes.rename")


def _clone(invocation: Invocation) -> int:
    return _pair(invocation, "volumes.clone")


def _pair(invocation: Invocation, verb: str) -> int:
    volume, name = invocation.arguments
    with invocation.connect() as engine:
        engine.call(verb, {"volume": volume, "name": name})
    write_line(for_output(name))
    return 0


def _snapshot(invocation: Invocation) -> int:
    volume, name = (*invocation.arguments, "")[:2]
    with invocation.connect() as engine:
        made = engine.call("volumes.snapshot", {"volume": volume, "snapshot": name})
    write_line(for_output(str(made.get("name")) if isinstance(made, dict) else name))
    return 0


def _rollback(invocation: Invocation) -> int:
    volume, snapshot = invocation.arguments
    with invocation.connect() as engine:
        engine.call("volumes.rollback", {"volume": volume, "snapshot": snapshot})
    write_line(for_output(volume))
    return 0


def _diff(invocation: Invocation) -> int:
    volume, since = invocation.arguments
    with invocation.connect() as engine:
        found = engine.call("volumes.changes", {"volume": volume, "snapshot": since})
    for change in found if isinstance(found, list) else ():
        if isinstance(change, dict):
            write_line(for_output(f"{change.get('kind')} {change.get('path')}"))
    return 0


def _export(invocation: Invocation) -> int:
    output: str = invocation.options["output"]
    if not output and sys.stdout.isatty():
        text = "cowardly refusing to save to a terminal. Use the -o flag or redirect"
        raise UsageError(text, "write: orlop volume export -o FILE VOLUME", EXIT_USAGE, shows_usage=False)
    if not output:
        sys.stdout.flush()
        _fetch(invocation, 1)
        return 0
    archives.write_whole(output, lambda fd: _fetch(invocation, fd))
    return 0


def _fetch(invocation: Invocation, fd: int) -> None:
    with invocation.connect() as engine:
        archives.fetch(engine, "volumes.export", {"volume": invocation.arguments[0]}, fd)


def _import(invocation: Invocation) -> int:
    return import_archive(invocation)


def import_archive(invocation: Invocation, *, into: bool = False) -> int:
    """Carry the archive that the arguments name to a new volume, or into one that is there."""
    volume, source = (*invocation.arguments, "-")[:2]
    try:
        fd = 0 if source == "-" else os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as wrong:
        cause = (wrong.strerror or str(wrong)).lower()
        raise Invalid("import", source, cause, hint="name a tar archive, or - for standard input") from None
    if os.isatty(fd):
        raise Invalid("import", "standard input", "it is a terminal", hint="name a file, or redirect one")
    ours, theirs = socketpair(AF_UNIX, SOCK_STREAM)
    with invocation.connect() as engine:
        try:
            try:
                engine.send("volumes.import", {"volume": volume, "into": into}, [theirs.fileno()])
            finally:
                theirs.close()
            try:
                while data := os.read(fd, archives.STREAM_BYTES):
                    ours.sendall(data)
                ours.shutdown(SHUT_WR)
            except (BrokenPipeError, ConnectionResetError):
                pass  # it has refused, or read enough: the reply says which
            engine.receive()
        finally:
            ours.close()
    write_line(for_output(volume))
    return 0


def _usage(invocation: Invocation) -> list[dict[str, Any]]:
    with invocation.connect() as engine:
        found = engine.call("volumes.usage", {})
    volumes = [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []
    wanted = invocation.arguments
    known = {str(item.get("name")) for item in volumes}
    for name in wanted:
        if name not in known:
            cause = f"get {name}: no such volume"
            raise NotFound("find", f"volume {name}", cause, hint="list the volumes with: orlop volume ls", code="E0901")
    return [item for item in volumes if not wanted or item.get("name") in wanted]


def _du(invocation: Invocation) -> int:
    rows = []
    for item in _usage(invocation):
        rows.append((str(item.get("name")), str(len(item.get("users", []))), size(item.get("size_bytes", 0), 3)))
    listing.print_table(("VOLUME NAME", "LINKS", "SIZE"), rows)
    return 0


def _who(invocation: Invocation) -> int:
    rows = []
    for item in _usage(invocation):
        for user in item.get("users", []):
            access = "rw" if user.get("rw") else "ro"
            identity = str(user.get("id", ""))[:ID_LENGTH]
            shown = (identity, str(user.get("name")), str(user.get("state")), str(user.get("destination")), access)
            rows.append((str(item.get("name")), *shown))
    listing.print_table(("VOLUME NAME", "CONTAINER ID", "NAME", "STATE", "DESTINATION", "ACCESS"), rows)
    return 0


MV = Command(_mv, "Rename a volume, also while containers use it", "VOLUME NEW_NAME", arguments=(2, 2))
CLONE = Command(_clone, "Make a volume with the content of another", "VOLUME NEW_VOLUME", arguments=(2, 2))
SNAPSHOT = Command(_snapshot, "Keep what a volume holds now", "VOLUME [SNAPSHOT]", arguments=(1, 2))
ROLLBACK = Command(_rollback, "Give a volume what a snapshot of it holds", "VOLUME SNAPSHOT", arguments=(2, 2))
DIFF = Command(_diff, "Show what changed in a volume since a snapshot of it", "VOLUME SNAPSHOT", arguments=(2, 2))
EXPORT = Command(
    _export,
    "Export the contents of a volume as a tar archive",
    "[OPTIONS] VOLUME",
    flags=(Flag("output", "o", STRING, "Write to a file, instead of STDOUT", default=""),),
    arguments=(1, 1),
)
IMPORT = Command(_import, "Make a volume of a tar archive", "VOLUME [file|-]", arguments=(1, 2))
DU = Command(_du, "Show how much volumes occupy", "[VOLUME...]", arguments=(0, None))
WHO = Command(_who, "Show which containers mount volumes", "[VOLUME...]", arguments=(0, None))
