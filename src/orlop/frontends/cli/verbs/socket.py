"""`orlop socket create ls rm audit`: sockets that speak docker's API with less power."""

from __future__ import annotations

import sys

from ....spec import jsonio
from .. import listing
from ..command import Command, Invocation, for_output, write, write_line
from ..flags import BOOL, EXIT_USAGE, LIST, Flag, Kind, UsageError, parse_int
from ..values import DURATION
from . import several

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


_UID = Kind("int", parse_int, repeatable=True)


def _create(invocation: Invocation) -> int:
    options = invocation.options
    ttl_ns: int = options["ttl"]
    request = {
        "name": invocation.arguments[0],
        "allow": list(options["allow"]),
        "labels": _labels(options["where"]),
        "ttlS": -(-ttl_ns // 10**9),
        "reveal": options["reveal-env"],
        "uids": list(options["uid"]),
    }
    with invocation.connect() as engine:
        found = engine.call("sockets.create", {"request": request})
    write_line(str(found["path"]) if isinstance(found, dict) else "")
    return 0


def _labels(wishes: tuple[str, ...]) -> dict[str, str]:
    labels = {}
    for wish in wishes:
        key, _, rest = wish.partition("=")
        name, _, value = rest.partition("=")
        if key != "label" or not name:
            raise UsageError(f"--where {wish}: it is not label=NAME or label=NAME=VALUE", "write it so", EXIT_USAGE)
        labels[name] = value
    return labels


def _ls(invocation: Invocation) -> int:
    with invocation.connect() as engine:
        found = engine.call("sockets.list")
    items = [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
    if invocation.options["quiet"]:
        write("".join(f"{for_output(str(one['name']))}\n" for one in items))
        return 0
    listing.print_table(("NAME", "ALLOWS", "WHERE", "EXPIRES", "PATH"), [_row(one) for one in items])
    return 0


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    labels = one.get("labels") or {}
    where = ",".join(f"{key}={value}" if value else key for key, value in labels.items())
    expires = int(one.get("expiresAtNs") or 0)
    return (str(one["name"]), _told(one["rights"]), where or "-", _moment(expires, bool(one["live"])), str(one["path"]))


def _told(rights: list[str]) -> str:
    nouns: dict[str, list[str]] = {}
    for right in rights:
        noun, _, verb = right.partition(":")
        nouns.setdefault(noun, []).append(verb)
    return " ".join(f"{noun}:{','.join(verbs)}" for noun, verbs in nouns.items())


def _moment(expires_ns: int, live: bool) -> str:
    if not expires_ns:
        return "never"
    import time

    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(expires_ns // 10**9)) + ("" if live else " (expired)")


def _rm(invocation: Invocation) -> int:
    return several.remove(invocation, "sockets.remove", "socket")


def _audit(invocation: Invocation) -> int:
    with invocation.connect() as engine:
        found = engine.call("sockets.audit", {"socket": invocation.arguments[0]})
    for line in found if isinstance(found, list) else ():
        sys.stdout.write(for_output(jsonio.dump(line).decode()) + "\n")
    return 0


CREATE = Command(
    _create,
    "Open a socket that speaks docker's API with less power",
    "[OPTIONS] NAME",
    arguments=(1, 1),
    flags=(
        Flag("allow", "", LIST, "What it allows: containers:list,inspect, images:*, volumes:read ..."),
        Flag("reveal-env", "", BOOL, "Show environments as they are", default=False),
        Flag("ttl", "", DURATION, "Close it after this time", default=0),
        Flag("uid", "", _UID, "A user who may connect beside the engine's own and root"),
        Flag("where", "", LIST, "What it sees, and what all it makes has: label=NAME=VALUE"),
    ),
)
LS = Command(
    _ls,
    "List scoped sockets",
    "[OPTIONS]",
    flags=(Flag("quiet", "q", BOOL, "Only display names", default=False),),
)
RM = Command(_rm, "Close and remove scoped sockets", "SOCKET [SOCKET...]", arguments=(1, None))
AUDIT = Command(
    _audit, "Print what was asked of a scoped socket, a line of JSON for each request", "SOCKET", arguments=(1, 1)
)
