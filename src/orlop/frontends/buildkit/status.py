"""What a build tells (build.journal), as the messages of BuildKit's Status stream.

Source: moby/buildkit, api/services/control/control.proto: StatusResponse, Vertex, VertexLog, VertexWarning.
"""

from __future__ import annotations

import collections
import hashlib
import threading
import time

from ...spec import protobuf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from ...spec.protobuf import Message

LOOK_S = 1.0  # how often one who waits looks whether it is still wanted
OUTPUT_BYTES_MAX = 8 << 20  # of the steps' output: kept for a client that asks late, and ahead of one that reads
READ_MESSAGES = 100  # at once


def _moment(ns: int) -> Message:
    """google.protobuf.Timestamp."""
    return ((1, ns // 10**9), (2, ns % 10**9))


class Progress:
    """One build's messages, kept until it is forgotten; any number may read them from the beginning.

    Of the output of steps only the end is kept once everybody has read it; a build waits for readers that are behind.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self.definition = "[internal] load build definition from Dockerfile"  # the step that warnings are of
        self._changed = threading.Condition()
        self._messages: dict[int, bytes] = {}
        self._told = 0
        self._output: collections.deque[int] = collections.deque()  # those of them that may be forgotten
        self._output_bytes = 0
        self._places: dict[object, int] = {}  # of each reader: what it reads next
        self._over = False
        self._began: dict[str, int] = {}

    def tell(self, message: dict[str, Any]) -> None:
        """Take one message of the build."""
        made = self._translated(message)
        if not made:
            return
        data = protobuf.encode(made)
        with self._changed:
            self._messages[self._told] = data
            if "log" in message:
                self._output.append(self._told)
                self._output_bytes += len(data)
            self._told += 1
            self._changed.notify_all()
            while self._output_bytes > OUTPUT_BYTES_MAX:
                if min(self._places.values(), default=self._told) > self._output[0]:
                    self._output_bytes -= len(self._messages.pop(self._output.popleft()))
                else:
                    self._changed.wait(LOOK_S)

    def end(self) -> None:
        """There is no more to come."""
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def wait_for_readers(self, is_unwanted: Callable[[], bool]) -> None:
        """Wait until those who read have all of it: a client leaves off three seconds after its build was answered."""
        with self._changed:
            while self._places and not is_unwanted():
                self._changed.wait(LOOK_S)

    def read(self, is_unwanted: Callable[[], bool] = lambda: False) -> Iterator[bytes]:
        """Yield every message until the build's end, or until nobody wants them any more."""
        reader = object()
        at = 0
        try:
            while True:
                with self._changed:
                    self._places[reader] = at
                    self._changed.notify_all()
                    while self._told <= at and not self._over and not is_unwanted():
                        self._changed.wait(LOOK_S)
                    end = min(self._told, at + READ_MESSAGES)
                    found = [self._messages[number] for number in range(at, end) if number in self._messages]
                if at == end:
                    return
                yield from found
                at = end
        finally:
            with self._changed:
                self._places.pop(reader, None)
                self._changed.notify_all()

    def _digest(self, number: int, name: str = "") -> str:
        """Return what a step is known by: its number, of those without one their name."""
        known = str(number) if number else f"0 {name}"
        return f"sha256:{hashlib.sha256(f'{self._name} {known}'.encode()).hexdigest()}"

    def _translated(self, message: dict[str, Any]) -> Message:
        now = time.time_ns()
        digest = self._digest(int(message.get("step", 0)), str(message.get("name", "")))
        if "state" in message:
            return ((1, self._vertex(message, digest, now)),)
        if "log" in message:
            text = str(message["log"]).encode(errors="surrogateescape")
            return ((3, ((1, digest), (2, _moment(now)), (3, int(message["stream"])), (4, text))),)
        if "pull" in message:
            return self._pulled(message["pull"], digest, now)
        if "status" in message:
            done = str(message["status"])
            return ((2, ((1, done), (2, digest), (6, _moment(now)), (7, _moment(now)), (8, _moment(now)))),)
        if "warning" in message:
            return self._warning(message["warning"], now)
        return ()

    def _vertex(self, message: dict[str, Any], digest: str, now: int) -> Message:
        state = message["state"]
        began = self._began.setdefault(digest, now)
        fields: list[tuple[int, Any]] = [(1, digest), (3, str(message["name"]))]
        if state == "cached":
            fields.append((4, True))
        fields.append((5, _moment(began)))
        if state != "started":
            fields.append((6, _moment(now)))
        if message.get("error"):
            fields.append((7, str(message["error"])))
        return tuple(fields)

    def _pulled(self, pull: Any, digest: str, now: int) -> Message:
        if not isinstance(pull, dict) or not pull.get("id"):
            return ()
        detail = pull.get("progressDetail") or {}
        fields: list[tuple[int, Any]] = [
            (1, str(pull["id"])),
            (2, digest),
            (3, f"{pull['id']} {pull.get('status', '')}"),
            (4, int(detail.get("current") or 0)),
            (5, int(detail.get("total") or 0)),
            (6, _moment(now)),
            (7, _moment(now)),
        ]
        if str(pull.get("status", "")).endswith(("complete", "exists")):
            fields.append((8, _moment(now)))
        return ((2, tuple(fields)),)

    def _warning(self, warning: Any, now: int) -> Message:
        facts = warning if isinstance(warning, dict) else {}
        name = facts.get("rule_name") or facts.get("ruleName") or facts.get("rule") or ""
        text = ": ".join(filter(None, (str(name), str(facts.get("detail") or facts.get("description") or ""))))
        digest = self._digest(0, self.definition)
        began = self._began.setdefault(digest, now)
        vertex: Message = ((1, digest), (3, self.definition), (5, _moment(began)), (6, _moment(now)))
        told: Message = ((1, digest), (2, 1), (3, text.encode()), (5, str(facts.get("url", ""))))
        return ((1, vertex), (4, told))
