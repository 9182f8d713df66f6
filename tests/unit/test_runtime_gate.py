"""The gate lets one caller through; whoever stands in its queue then is told that it came too late."""

import secrets
import threading
from pathlib import Path
from typing import Any

from orlop.runtime import gate
from orlop.runtime.channel import Channel, pair
from orlop.runtime.cli.create import AwaitStart
from orlop.spec.errors import Conflict


class Standing:
    """An init at the gate: what `prepare` kept and `act` asks for."""

    def __init__(self) -> None:
        self.kept = -1
        self.caller, self.other = pair()

    def keep(self, _: AwaitStart, fd: int) -> None:
        self.kept = fd

    def source(self, _: AwaitStart) -> int:
        return self.kept


def test_of_two_in_the_queue_one_comes_through(tmp_path: Path) -> None:
    name = f"gate-{secrets.token_hex(8)}"  # /proc/net/unix shows everybody's
    operation: Any = AwaitStart(directory=str(tmp_path), name=name)
    init = Standing()
    operation.prepare(init)
    ends: list[object] = []

    def enter() -> None:
        try:
            ends.append(gate.enter(str(tmp_path), name))
        except Conflict as late:
            ends.append(late.cause)

    callers = [threading.Thread(target=enter) for _ in range(2)]
    for caller in callers:
        caller.start()
    while _connected(name) < 2:
        pass
    operation.act(init)
    assert isinstance(init.caller, Channel)
    init.caller.close()  # as execve does
    init.other.close()
    for caller in callers:
        caller.join(20)
    assert sorted(ends, key=str) == [None, "cannot start a container that has stopped"]


def _connected(name: str) -> int:
    """Return how many stand in the queue: a connection is a socket of its own with the listener's path (unix(7))."""
    return sum(line.endswith(name) for line in Path("/proc/net/unix").read_text().splitlines()) - 1
