"""`orlop events`: what happens, as it happens, and what happened before."""

from __future__ import annotations

import time

from ....spec import errors, jsonio
from ....spec.errors import Unavailable
from .. import listing
from ..command import Command, Invocation, for_output, write_line
from ..flags import STRING, Flag
from ..units import moment_ns
from ..values import FILTER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable, Iterator
    from typing import Any

RECEIVE_BYTES = 64 * 1024
LINE_BYTES_MAX = 1 << 20
_JSON_NAMES = {"Status": "status", "Scope": "scope", "Time": "time", "TimeNano": "timeNano"}


def _events(invocation: Invocation) -> int:
    options = invocation.options
    show = _formatter(options["format"])
    filters = listing.filters_of(options["filter"])
    args: dict[str, object] = {
        "since_ns": moment_ns("--since", options["since"]),
        "until_ns": moment_ns("--until", options["until"]),
        "filters": filters,
    }
    with invocation.connect() as engine:
        engine.call("engine.events", args)
        for event in received(engine.stream):
            if "error" in event:
                raise errors.from_json(event["error"])
            write_line(for_output(show(event)))
    if not options["until"]:
        raise Unavailable("read", "the events", "the engine ended", hint="ask again with --since")
    return 0


def received(stream: socket) -> Iterator[dict[str, Any]]:
    rest = b""
    while data := stream.recv(RECEIVE_BYTES):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            yield jsonio.parse_object(line, "an event", bytes_max=LINE_BYTES_MAX)
        if len(rest) > LINE_BYTES_MAX:
            raise Unavailable("read", "the events", f"one has more than {LINE_BYTES_MAX} bytes")
    if rest:
        raise Unavailable("read", "the events", "the engine ended in the middle of one", hint="ask again with --since")


def _formatter(form: str) -> Callable[[dict[str, Any]], str]:
    if not form:
        return _text
    from ..template import Row, Template
    from ..template.values import to_json

    template = Template("{{json .}}" if form == "json" else form)

    def show(event: dict[str, Any]) -> str:
        if form == "json":
            return to_json(event)
        # docker's struct: the names of its fields, those of its JSON beside them.
        named = {name: event.get(key, "") for name, key in _JSON_NAMES.items()}
        fields = {"ID": event.get("id", ""), "From": event.get("from", ""), **named}
        known = ("Type", "Action", "Actor")
        return template.render(Row("events.Message", {**fields, **{name: event.get(name, "") for name in known}}))

    return show


def _text(event: dict[str, Any]) -> str:
    """Return docker's line: the moment, the type, the action, the object, its attributes in order."""
    actor = event.get("Actor", {})
    attributes = actor.get("Attributes", {})
    line = f"{_local(event.get('timeNano', 0))} {event.get('Type')} {event.get('Action')} {actor.get('ID')}"
    if not attributes:
        return line
    return f"{line} ({', '.join(f'{key}={value}' for key, value in sorted(attributes.items()))})"


def _local(moment: int) -> str:
    seconds, nanoseconds = divmod(moment, 10**9)
    local = time.localtime(seconds)
    zone = time.strftime("%z", local)
    zone = "Z" if local.tm_gmtoff == 0 else f"{zone[:3]}:{zone[3:]}"
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', local)}.{nanoseconds:09d}{zone}"


EVENTS = Command(
    _events,
    "Get real time events from the server",
    "[OPTIONS]",
    flags=(
        Flag("filter", "f", FILTER, "Filter output based on conditions provided"),
        Flag(
            "format",
            "",
            STRING,
            "Format output using a custom template:\n"
            "'json':             Print in JSON format\n"
            "'TEMPLATE':         Print output using the given Go template.\n"
            "Refer to https://docs.docker.com/go/formatting/ for more information about formatting output with "
            "templates",
            default="",
        ),
        Flag("since", "", STRING, "Show all events created since timestamp", default=""),
        Flag("until", "", STRING, "Stream events until this timestamp", default=""),
    ),
    aliases=("system events", "events"),
)
