"""The listeners of scoped sockets: opened and closed as the engine's list of them changes.

$ORLOP_RUN/sockets/<name>.sock       (writer: engine)
"""

from __future__ import annotations

import os
import socket
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...engine.engine import Engine
    from ...engine.sockets.record import SocketRecord
    from ..docker.serve import DockerDoors
    from ..http import Exchange

BACKLOG = 128


class ScopedDoors:
    """Keeps the doors of an engine's scoped sockets. `tick` is called now and then: some expire."""

    def __init__(self, engine: Engine, doors: DockerDoors) -> None:
        self._engine = engine
        self._doors = doors
        self._directory = f"{engine.paths.run}/sockets"
        self._guard = threading.Lock()
        self._open: dict[str, SocketRecord] = {}
        engine.sockets.changed = self.look
        self.look()

    @property
    def busy(self) -> bool:
        """Whether anybody may come: the engine stays."""
        return bool(self._open)

    def tick(self) -> None:
        """Close what has expired."""
        if self._open and set(self._open) != set(self._engine.sockets.live()):
            self.look()

    def look(self) -> None:
        """Let the doors be those that the engine has."""
        with self._guard:
            live = self._engine.sockets.live()
            for name, record in list(self._open.items()):
                if live.get(name) != record:
                    self._close(name)
            for name, record in live.items():
                if name not in self._open:
                    try:
                        self._listen(record)
                    except OSError as wrong:
                        self._engine.log.write(f"the scoped socket {name} can't be opened: {wrong}")

    def close(self) -> None:
        """Close all of them. They are opened again by the next engine."""
        with self._guard:
            for name in list(self._open):
                self._close(name)

    def _close(self, name: str) -> None:
        del self._open[name]
        try:
            os.unlink(f"{self._directory}/{name}.sock")
        except FileNotFoundError:
            pass
        self._doors.close_one(f"scoped {name}")

    def _listen(self, record: SocketRecord) -> None:
        os.makedirs(self._directory, 0o700, exist_ok=True)
        place = f"{self._directory}/{record.name}.sock"
        try:
            os.unlink(place)  # of an engine that was killed
        except FileNotFoundError:
            pass
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(place)
            os.chmod(place, 0o666 if record.uids else 0o600)  # who may connect is checked (SO_PEERCRED)
            listener.listen(BACKLOG)
        except OSError:
            listener.close()
            raise
        self._open[record.name] = record
        self._doors.open(f"scoped {record.name}", listener, setting=lambda: self._setting(record), uids=record.uids)

    def _setting(self, record: SocketRecord) -> tuple[type[Exchange], object]:
        from .door import ScopedContext, ScopedDoor
        from .gate import Gate

        return ScopedDoor, ScopedContext(self._doors.context(), Gate(self._engine, record), self._engine.sockets)
