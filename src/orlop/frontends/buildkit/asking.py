"""What a build asks of its client while it goes on: secrets, and SSH agents as sockets below the run directory."""

from __future__ import annotations

import os
import shutil
import threading
from contextlib import ExitStack

from ...build.solver.agent import forwarded
from ...engine.steps.sweep import RUN_PREFIX

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from ...engine.engine import Engine
    from .session import Session


class Asking:
    """One session's (`build.settings.Asked`). Its sockets go when it is left, or with the next engine."""

    def __init__(self, engine: Engine, session: Session) -> None:
        self._session = session
        self._directory = f"{engine.paths.run}/{RUN_PREFIX}{os.urandom(8).hex()}"
        self._held = ExitStack()
        self._guard = threading.Lock()
        self._agents: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.close()

    def secret(self, name: str) -> bytes | None:
        return self._session.secret(name)

    def agent(self, name: str) -> str | None:
        if not self._session.has_agent(name):
            return None
        with self._guard:
            if name not in self._agents:
                if not self._agents:
                    os.mkdir(self._directory, 0o700)
                    self._held.callback(shutil.rmtree, self._directory, ignore_errors=True)
                place = f"{self._directory}/agent{len(self._agents)}"
                owner = (os.geteuid(), os.getegid())
                self._held.enter_context(forwarded(lambda: self._session.agent(name), place, owner, 0o600))
                self._agents[name] = place
            return self._agents[name]
