"""Some 120 requests of libpod's API: the statuses and the documents of podman 4.3.1's own service, and ours.

podman_requests.txt holds the requests, podman_recorded.json what podman answered, podman_differences.txt what differs
and why; a difference that is gone is to be removed there. Compared are the status, the names of fields and their types,
and the values that say something: truth values, states, causes. To record again: start `podman system service -t 0
unix://SOCKET` with a root and a network namespace of its own, and run this file with RECORD_PODMAN=SOCKET.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import quote

from bench.workspace import Workspace
from support.docker_http import Answer, Api
from support.engine import Environment

HERE = Path(__file__).parent
SPEAKING = frozenset("State Status Type Action Driver driver cause Err ErrorCode RawInput Scope Kind Running".split())
HEADERS = ("libpod-api-version", "api-version")
# What a map has for keys is no field's name: of these only the kinds of values are compared.
MAPS = frozenset("Labels labels Annotations Options options graphOptions graphStatus Data Sysctls".split())


def requests() -> list[str]:
    return (HERE / "podman_requests.txt").read_text().split("\n\n", 1)[1].splitlines()


def ask(api: Api, line: str, archive: bytes) -> Answer:
    method, path, *body = line.split(" ", 2)
    text = body[0] if body else ""
    data = archive if text == "@box" else b"s3cret" if text == "@data" else text.encode() if text else None
    return api(method, quote(path, safe="/:?=&,"), data)


def told(answer: Answer) -> dict[str, Any]:
    """Return what of an answer is compared."""
    headers = [name for name in HEADERS if name in answer.headers]
    return {"status": answer.status, "headers": headers, "body": _body(answer)}


def _body(answer: Answer) -> Any:
    try:
        documents = [json.loads(line) for line in answer.body.splitlines()]
    except ValueError:
        return "bytes" if answer.body else None
    return shape(documents[-1] if documents else None)


def shape(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        if key in MAPS:
            return "map"
        return {name: shape(one, name) for name, one in sorted(value.items())}
    if value is None:
        return None
    if isinstance(value, list):
        return [shape(value[0], key)] if value else []
    if key in SPEAKING or isinstance(value, bool):
        return value
    return "number" if isinstance(value, (int, float)) else type(value).__name__


def differences(theirs: Any, ours: Any, where: str) -> Iterator[tuple[str, str]]:
    """Yield (where, what) of each place at which they differ. Empty and absent are the same to Go's clients."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for name in sorted({*theirs, *ours}):
            yield from differences(theirs.get(name), ours.get(name), f"{where}.{name}")
    elif isinstance(theirs, list) and isinstance(ours, list):
        if theirs and ours:
            yield from differences(theirs[0], ours[0], f"{where}[]")
        elif theirs != ours:
            yield where, f"{ours} for {theirs}"
    elif (theirs or None) != (ours or None):
        yield where, f"{str(ours)[:60]} for {str(theirs)[:60]}"


def accepted() -> list[tuple[str, str, str]]:
    lines = (HERE / "podman_differences.txt").read_text().splitlines()
    rules = [line.split(" | ", 2) for line in lines if line and not line.startswith("#")]
    return [(request, where, reason) for request, where, reason in rules]


def test_the_answers_are_podmans_but_for_what_is_written_down(orlop: Environment) -> None:
    """Red: without the dialect's words (cause), without a field of shapes.py, with docker's answer of a route."""
    with Workspace() as work:
        archive = work.archive().read_bytes()
    if place := os.environ.get("RECORD_PODMAN"):
        api = Api(Path(place), "v4.3.1/libpod")
        found = [[line, told(ask(api, line, archive))] for line in requests()]
        (HERE / "podman_recorded.json").write_text(json.dumps(found, indent=1) + "\n")
    recorded = json.loads((HERE / "podman_recorded.json").read_text())
    assert [line for line, _ in recorded] == requests() and len(recorded) >= 60
    orlop("ps")  # it starts the engine
    api = Api(orlop.run / "docker.sock", "v4.3.1/libpod")
    rules = accepted()
    used: set[tuple[str, str, str]] = set()
    wrong: list[str] = []
    for line, theirs in recorded:
        ours = told(ask(api, line, archive))
        for where, what in differences(theirs, ours, "answer"):
            fitting = [rule for rule in rules if fnmatchcase(line, rule[0]) and fnmatchcase(where, rule[1])]
            used.update(fitting)
            if not fitting:
                wrong.append(f"{line[:90]} | {where} | {what}")
    assert not wrong, "\n".join(wrong)
    gone = {rule for rule in set(rules) - used if not rule[2].startswith("depends on the machine")}
    assert not gone, "these are gone: remove them from podman_differences.txt"
