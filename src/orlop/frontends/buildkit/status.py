"""What a build tells (build.journal), as the messages of BuildKit's Status stream.

Source: moby/buildkit, api/services/control/control.proto: StatusResponse, Vertex, VertexLog, VertexWarning.
"""

from __future__ import annotations

import hashlib
import threading
import time

from ...spec import protobuf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from ...spec.protobuf import Message

LOOK_S = 1.0  # how often a reader looks whether it is still wanted
MESSAGES_MAX = 100_000  # of one build, kept for a client that asks late


def _moment(ns: int) -> Message:
    """google.protobuf.Timestamp."""
    return ((1, ns // 10**9), (2, ns % 10**9))


class Progress:
    """One build's messages, kept until it is forgotten; any number may read them from the beginning."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._changed = threading.Condition()
        self._messages: list[bytes] = []
        self._over = False
        self._began: dict[int, int] = {}

    def tell(self, message: dict[str, Any]) -> None:
        """Take one message of the build."""
        made = self._translated(message)
        if made:
            with self._changed:
                if len(self._messages) < MESSAGES_MAX:
                    self._messages.append(protobuf.encode(made))
                self._changed.notify_all()

    def end(self) -> None:
        """There is no more to come."""
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def read(self, is_unwanted: Callable[[], bool] = lambda: False) -> Iterator[bytes]:
        """Yield every message until the build's end, or until nobody wants them any more."""
        at = 0
        while True:
            with self._changed:
                while len(self._messages) <= at and not self._over and not is_unwanted():
                    self._changed.wait(LOOK_S)
                found = self._messages[at:]
                if not found:
                    return
            yield from found
            at += len(found)

    def _digest(self, number: int) -> str:
        return f"sha256:{hashlib.sha256(f'{self._name} {number}'.encode()).hexdigest()}"

    def _translated(self, message: dict[str, Any]) -> Message:
        now = time.time_ns()
        number = int(message.get("step", 0))
        if "state" in message:
            return ((1, self._vertex(message, number, now)),)
        if "log" in message:
            text = str(message["log"]).encode(errors="surrogateescape")
            return ((3, ((1, self._digest(number)), (2, _moment(now)), (3, int(message["stream"])), (4, text))),)
        if "pull" in message:
            return self._pulled(message["pull"], number, now)
        if "warning" in message:
            return self._warning(message["warning"], now)
        return ()

    def _vertex(self, message: dict[str, Any], number: int, now: int) -> Message:
        state = message["state"]
        began = self._began.setdefault(number, now)
        fields: list[tuple[int, Any]] = [(1, self._digest(number)), (3, str(message["name"]))]
        if state == "cached":
            fields.append((4, True))
        fields.append((5, _moment(began)))
        if state != "started":
            fields.append((6, _moment(now)))
        if message.get("error"):
            fields.append((7, str(message["error"])))
        return tuple(fields)

    def _pulled(self, pull: Any, number: int, now: int) -> Message:
        if not isinstance(pull, dict) or not pull.get("id"):
            return ()
        detail = pull.get("progressDetail") or {}
        fields: list[tuple[int, Any]] = [
            (1, str(pull["id"])),
            (2, self._digest(number)),
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
        vertex: Message = (
            (1, self._digest(0)),
            (3, "[internal] load build definition from Dockerfile"),
            (5, _moment(now)),
            (6, _moment(now)),
        )
        told: Message = ((1, self._digest(0)), (2, 1), (3, text.encode()), (5, str(facts.get("url", ""))))
        return ((1, vertex), (4, told))
