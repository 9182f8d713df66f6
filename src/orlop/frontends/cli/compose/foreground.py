"""`orlop compose up` in the foreground: the containers' output, until they have ended or somebody presses Ctrl-C.

The first SIGINT or SIGTERM stops the project, another one kills it; the containers' own ends change nothing unless the
flags say so.
"""

from __future__ import annotations

import os
import queue
import signal
import threading
from contextlib import ExitStack, contextmanager

from ....linux import tty
from ....spec.errors import OrlopError
from ...compose import observed
from ..command import warn
from . import output
from .context import Compose, Progress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ...compose.observed import Container
    from ...compose.project import Project, Service

EXIT_INTERRUPTED = 130
_SIGNAL, _END, _LOG_END, _KEY = "signal", "end", "log end", "key"
_MENU = "d: detach   w: watch"


def follow(invocation: Compose, project: Project, services: Sequence[Service], began_ns: int) -> int:
    """Show what the containers write from `began_ns` on; return the exit status."""
    names = {service.name for service in services}
    with invocation.connect() as engine:
        containers = [one for one in observed.containers(engine, project.name) if one.service in names]
    session = _Session(invocation, project, containers, began_ns)
    before = {number: signal.signal(number, session.noted) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with ExitStack() as stack:
            if _wants_menu(invocation):
                stack.enter_context(session.menu())
            return session.run()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wants_menu(invocation: Compose) -> bool:
    options = invocation.options
    variable = os.environ.get("COMPOSE_MENU", "").lower() in ("1", "true")
    return (options["menu"] if "menu" in options.given else variable) and os.isatty(0) and os.isatty(1)


class _Session:
    def __init__(self, invocation: Compose, project: Project, containers: list[Container], began_ns: int) -> None:
        self.invocation = invocation
        self.options = invocation.options
        self.project = project
        self.containers = containers
        self.began_ns = began_ns
        self.is_watching = False
        # SimpleQueue.put may be called from a signal handler (reentrant).
        self.events: queue.SimpleQueue[tuple[str, int, Container | None]] = queue.SimpleQueue()
        shown = [output.short_name(project.name, one) for one in containers]
        prefix, color = not self.options["no-log-prefix"], not self.options["no-color"]
        self.lines = output.Lines(shown, prefix=prefix, color=color, ansi=invocation.compose["ansi"])

    def noted(self, number: int, _frame: object) -> None:
        self.events.put((_SIGNAL, number, None))

    @contextmanager
    def menu(self) -> Iterator[None]:
        """Take single keys from the terminal, which is what it was afterwards."""
        before = tty.set_keys(0)
        threading.Thread(target=self._read_keys, daemon=True).start()
        warn(_MENU)
        try:
            yield
        finally:
            tty.restore(0, before)

    def _read_keys(self) -> None:
        while key := os.read(0, 1):
            self.events.put((_KEY, key[0], None))

    def _pressed(self, key: int) -> bool:
        """Do what a key asks for; return whether that is to leave the project alone."""
        if key == ord("w") and not self.is_watching:
            self._watch()
        return key == ord("d")

    def _watch(self) -> None:
        from .watch import watch_beside

        try:
            watch_beside(self.invocation, self.project)
        except OrlopError as error:
            warn(f"orlop: {error}")
            return
        self.is_watching = True
        warn("Watch enabled")

    def run(self) -> int:
        for one in self.containers:
            threading.Thread(target=self._copy, args=(one,), daemon=True).start()
            threading.Thread(target=self._await, args=(one,), daemon=True).start()
        if self.options["watch"]:
            self._watch()
        waited = {one.id for one in self.containers}
        copied = set(waited)
        codes: dict[str, int] = {}
        while waited or copied:
            what, number, container = self.events.get()
            if what == _SIGNAL:
                return self._interrupted()
            if what == _KEY:
                if self._pressed(number):
                    return 0
                continue
            assert container is not None
            if what == _LOG_END:
                copied.discard(container.id)
                continue
            waited.discard(container.id)
            codes[container.service] = number
            self._say_end(container, number)
            if self._ends_all(container, number):
                self._stop()
                return self._status(container, number)
        return codes.get(self.options["exit-code-from"], 0)

    def _ends_all(self, container: Container, code: int) -> bool:
        if self.options["exit-code-from"]:
            return True
        return self.options["abort-on-container-exit"] or bool(self.options["abort-on-container-failure"] and code)

    def _status(self, container: Container, code: int) -> int:
        """Return the status of the service that was asked for, else that of the container that ended first."""
        wanted = self.options["exit-code-from"]
        if not wanted or wanted == container.service:
            return code
        with self.invocation.connect() as engine:
            for one in self.containers:
                if one.service == wanted:
                    found = engine.call("containers.wait", {"container": one.id, "condition": "exited"})
                    return int(found["exit_code"]) if isinstance(found, dict) else 1
        return code

    def _say_end(self, container: Container, code: int) -> None:
        name = output.short_name(self.project.name, container)
        warn(f"{name} exited with code {code}")

    def _copy(self, container: Container) -> None:
        shown = output.short_name(self.project.name, container)
        if self._is_shown(container):
            wanted = {
                "follow": True,
                "tail": None,
                "since_ns": self.began_ns,
                "until_ns": None,
                "timestamps": self.options["timestamps"],
            }
            try:
                with self.invocation.connect() as engine:
                    output.copy(engine, container.id, wanted, lambda line: self.lines.write(shown, line))
            except (OrlopError, OSError) as error:
                warn(f"orlop: the output of {shown} is not shown any more: {error}")
        self.events.put((_LOG_END, 0, container))

    def _is_shown(self, container: Container) -> bool:
        chosen, hidden = self.options["attach"], self.options["no-attach"]
        if not chosen and not self.options["attach-dependencies"]:
            chosen = self.invocation.arguments  # docker compose: not what only they need
        if container.service in hidden or (chosen and container.service not in chosen):
            return False
        return bool(self.project.service(container.service).get("attach", True))

    def _await(self, container: Container) -> None:
        code = 0
        try:
            with self.invocation.connect() as engine:
                found = engine.call("containers.wait", {"container": container.id, "condition": "exited"})
            code = int(found["exit_code"]) if isinstance(found, dict) else 0
        except (OrlopError, OSError):
            pass  # gone: removed by somebody else
        self.events.put((_END, code, container))

    def _interrupted(self) -> int:
        warn("\nGracefully Stopping... press Ctrl+C again to force")
        # A second signal ends what the first began; a third ends us.
        stopping = threading.Thread(target=self._stop, daemon=True)
        stopping.start()
        while stopping.is_alive():
            try:
                what, _, _ = self.events.get(timeout=0.1)
            except queue.Empty:
                continue
            if what == _SIGNAL:
                signal.signal(signal.SIGINT, signal.SIG_DFL)
                self._kill()
        return EXIT_INTERRUPTED

    def _stop(self) -> None:
        given = self.options.given
        timeout_s = self.options["timeout"] if "timeout" in given else None
        steps = self.invocation.steps(self.project, Progress(self.invocation), timeout_s=timeout_s)
        try:
            steps.ordered(self._running(), lambda engine, one: steps.stop(engine, one), reverse=True)
        except OrlopError as error:
            warn(f"orlop: {error}")

    def _running(self) -> list[Container]:
        ids = {one.id for one in self.containers}
        with self.invocation.connect() as engine:
            return [one for one in observed.containers(engine, self.project.name) if one.id in ids and one.runs]

    def _kill(self) -> None:
        with self.invocation.connect() as engine:
            for one in self._running():
                try:
                    engine.call("containers.kill", {"container": one.id, "signal": "KILL"})
                except OrlopError as error:
                    os.write(2, f"orlop: {error}\n".encode())
