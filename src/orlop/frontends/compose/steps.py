"""The steps of a plan, done: services side by side where nothing orders them, containers of a service one by one.

The order of starts and what must be healthy before is the engine's to hold (supervision.dependencies); here nothing is
started before what it depends on has been. A container is made anew under another name first, so that the one there
was stays when that fails.
"""

from __future__ import annotations

import io
import secrets
import socket
import tarfile
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

from ...spec.container import ContainerRequest, ExecRequest
from ...spec.errors import Conflict, NotFound, OrlopError, Unavailable
from ...spec.mount import MountRequest
from ..native.client import Engine
from . import plan as plans
from . import request
from .observed import Container
from .plan import Plan, Step
from .project import Project, Resource, Service

Connect = Callable[[], Engine]
Tell = Callable[[str, str, str], None]
"""kind of object ("Container"), its name, what happens to it ("Creating")."""
PARALLEL_MAX = 16


class Steps:
    """Does steps for one project. tell is called from several threads, one at a time.

    renew_volumes: a container made anew does not get the nameless volumes of the one before. timeout_s: of stops.
    """

    def __init__(
        self,
        connect: Connect,
        project: Project,
        tell: Tell,
        *,
        start: bool = True,
        renew_volumes: bool = False,
        timeout_s: int | None = None,
        parallel_max: int = PARALLEL_MAX,
    ) -> None:
        self._connect = connect
        self._project = project
        self._lock = threading.Lock()
        self._tell = tell
        self._start = start
        self._renew_volumes = renew_volumes
        self._timeout_s = timeout_s
        self._parallel_max = parallel_max

    def apply(self, plan: Plan) -> None:
        """Do a whole plan. Raises the first error, after what had begun has ended."""
        with self._connect() as engine:
            for resource, inside in plan.diverged:
                self.each(inside, self.stop)
                self.tell("Network", resource.name, "Removing")
                engine.call("networks.remove", {"network": resource.name})
            for resource in (*plan.networks, *(resource for resource, _ in plan.diverged)):
                self._create("Network", "networks.create", request.network(self._project, resource), resource, engine)
            for resource in plan.volumes:
                self._create("Volume", "volumes.create", request.volume(self._project, resource), resource, engine)
        if plan.removed_orphans:
            self.each(plan.orphans, self._remove_orphan)
        self.keep_data([self._project.service(name) for name in plan.services])
        services = {name: self._project.service(name) for name in plan.services}
        needed = {name: set(service.depends_on) & set(services) for name, service in services.items()}
        self._in_order(needed, lambda name: self._service(services[name], plan.services[name]))

    def each(self, containers: Iterable[Container], act: Callable[[Engine, Container], None]) -> None:
        """Do something to several containers side by side, each on a connection of its own. Raises the first error."""

        def one(container: Container) -> None:
            with self._connect() as engine:
                act(engine, container)

        with ThreadPoolExecutor(self._parallel_max) as pool:
            _raise_first(list(pool.map(lambda container: _caught(one, container), containers)))

    def ordered(
        self, containers: Iterable[Container], act: Callable[[Engine, Container], None], *, reverse: bool
    ) -> None:
        """Do something to containers in the order of their services' dependencies, or against it."""
        by_service: dict[str, list[Container]] = {}
        for container in containers:
            by_service.setdefault(container.service, []).append(container)
        known = {**self._project.services, **self._project.others}
        needed = {name: set(known[name].depends_on if name in known else ()) & set(by_service) for name in by_service}
        if reverse:
            needed = {name: {other for other in needed if name in needed[other]} for name in needed}
        self._in_order(needed, lambda name: self.each(by_service[name], act))

    def _in_order(self, needed: dict[str, set[str]], act: Callable[[str], None]) -> None:
        """Call act for each name once all names that it needs are done; after an error nothing new begins."""
        done: set[str] = set()
        running: dict[Future[None], str] = {}
        errors: list[OrlopError] = []
        with ThreadPoolExecutor(self._parallel_max) as pool:
            while (len(done) < len(needed) and not errors) or running:
                begun = {*done, *running.values()}
                for name in [name for name in needed if name not in begun and needed[name] <= done and not errors]:
                    running[pool.submit(act, name)] = name
                if not running:
                    break
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    done.add(running.pop(future))
                    try:
                        future.result()
                    except OrlopError as error:
                        errors.append(error)
        _raise_first(list(errors))

    def keep_data(self, services: Sequence[Service]) -> None:
        """Give the engine the secrets and configs of these services that it does not have yet."""
        with self._connect() as engine:
            for kind in ("secrets", "configs"):
                for name, resource in request.stored(self._project, services, kind).items():
                    try:
                        engine.call(
                            f"{kind}.create", {"request": request.data(self._project, kind, name, resource).to_json()}
                        )
                    except Conflict:
                        continue  # its name says its content: it is there already

    # -- what is made ------------------------------------------------------------------------------------------------

    def _create(self, kind: str, verb: str, wanted: Any, resource: Resource, engine: Engine) -> None:
        self.tell(kind, resource.name, "Creating")
        engine.call(verb, {"request": wanted.to_json()})
        self.tell(kind, resource.name, "Created")

    def _service(self, service: Service, steps: list[Step]) -> None:
        with self._connect() as engine:
            for step in steps:
                _ACTIONS[step.action](self, engine, service, step)

    def _create_container(self, engine: Engine, service: Service, step: Step) -> None:
        assert step.wanted is not None
        self.tell("Container", step.name, "Creating")
        container = self.create(engine, service, step.wanted)
        self.tell("Container", step.name, "Created")
        if self._start:
            self.start(engine, service, container, step.name)

    def _recreate(self, engine: Engine, service: Service, step: Step) -> None:
        assert step.wanted is not None and step.existing is not None
        old = step.existing
        self.tell("Container", step.name, "Recreate")
        wanted = step.wanted.replace(name=f"{secrets.token_hex(6)}_{step.name}")
        if not self._renew_volumes:
            wanted = with_nameless_volumes(engine, old.id, wanted)
        new = self.create(engine, service, wanted)
        try:
            self.stop(engine, old, told=False)
            engine.call("containers.remove", {"container": old.id, "force": True, "volumes": False})
            engine.call("containers.rename", {"container": new, "name": step.name})
        except BaseException:
            engine.call("containers.remove", {"container": new, "force": True, "volumes": False})
            raise
        self.tell("Container", step.name, "Recreated")
        if self._start:
            self.start(engine, service, new, step.name)

    def create(self, engine: Engine, service: Service, wanted: ContainerRequest) -> str:
        """Make a container without starting it; return its id."""
        result = engine.call("containers.create", {"request": wanted.to_json()})
        if not isinstance(result, dict):
            raise Unavailable("read", "the engine's reply", "it names no container")
        return str(result["id"])

    def _start_step(self, engine: Engine, service: Service, step: Step) -> None:
        assert step.existing is not None
        self.start(engine, service, step.existing.id, step.name)

    def start(self, engine: Engine, service: Service, container: str, name: str) -> None:
        """Start a container and run its post_start hooks."""
        self.tell("Container", name, "Starting")
        engine.call("containers.start", {"container": container, "attached": False, "console_size": None})
        run_hooks(engine, service, container, "post_start")
        self.tell("Container", name, "Started")

    def _restart(self, engine: Engine, service: Service, step: Step) -> None:
        assert step.existing is not None
        self.tell("Container", step.name, "Restarting")
        engine.call("containers.restart", {"container": step.existing.id, "timeout_s": self._timeout_s, "signal": ""})
        self.tell("Container", step.name, "Started")

    # -- what is ended -----------------------------------------------------------------------------------------------

    def stop(self, engine: Engine, container: Container, *, told: bool = True) -> None:
        """Run the pre_stop hooks of a container that runs, and stop it."""
        if not container.runs:
            return
        if told:
            self.tell("Container", container.name, "Stopping")
        service = self._project.services.get(container.service) or self._project.others.get(container.service)
        if service is not None and container.state == "running":
            run_hooks(engine, service, container.id, "pre_stop")
        try:
            engine.call("containers.stop", {"container": container.id, "timeout_s": self._timeout_s, "signal": ""})
        except NotFound:  # it removed itself, or somebody else did
            return
        if told:
            self.tell("Container", container.name, "Stopped")

    def remove(self, engine: Engine, container: Container, *, volumes: bool = False, force: bool = True) -> None:
        """Remove a container; one that is gone already is no error."""
        self.tell("Container", container.name, "Removing")
        try:
            engine.call("containers.remove", {"container": container.id, "force": force, "volumes": volumes})
        except NotFound:
            pass
        self.tell("Container", container.name, "Removed")

    def _remove_orphan(self, engine: Engine, container: Container) -> None:
        self.stop(engine, container)
        self.remove(engine, container)

    def _remove_step(self, engine: Engine, service: Service, step: Step) -> None:
        assert step.existing is not None
        self._remove_orphan(engine, step.existing)

    def _keep(self, engine: Engine, service: Service, step: Step) -> None:
        self.tell("Container", step.name, "Running" if step.existing is not None and step.existing.runs else "Created")

    def tell(self, kind: str, name: str, what: str) -> None:
        with self._lock:
            self._tell(kind, name, what)


_ACTIONS: dict[str, Callable[[Steps, Engine, Service, Step], None]] = {
    plans.CREATE: Steps._create_container,
    plans.RECREATE: Steps._recreate,
    plans.START: Steps._start_step,
    plans.RESTART: Steps._restart,
    plans.REMOVE: Steps._remove_step,
    plans.KEEP: Steps._keep,
}


def hook_request(hook: Any) -> ExecRequest:
    """Return what a hook (post_start, pre_stop, develop.watch's exec) asks for."""
    return ExecRequest(
        args=tuple(hook.get("command") or ()),
        env=tuple(f"{name}={value or ''}" for name, value in hook.get("environment", {}).items()),
        user=hook.get("user", ""),
        working_dir=hook.get("working_dir", ""),
        privileged=hook.get("privileged", False),
    )


def run_hooks(engine: Engine, service: Service, container: str, key: str) -> None:
    """Run the hooks of a service in a container, one after the other. Raises Unavailable for one that fails."""
    for hook in service.get(key, ()):
        wanted = hook_request(hook)
        args: dict[str, object] = {"container": container, "request": wanted.to_json(), "attached": False}
        started = engine.call("containers.exec", args | {"console_size": None})
        code = _exec_code(engine, str(started["exec_id"])) if isinstance(started, dict) else 255
        if code:
            subject = f"{key} hook of service {service.name}"
            raise Unavailable("run", subject, f"{' '.join(wanted.args)[:80]} ended with status {code}")


def _exec_code(engine: Engine, exec_id: str) -> int:
    import time

    while True:
        found = engine.call("containers.exec_inspect", {"exec": exec_id})
        if not isinstance(found, dict):
            return 255
        if not found["Running"]:
            return int(found["ExitCode"] or 0)
        time.sleep(0.02)


def put_files(engine: Engine, container: str, files: list[tuple[str, bytes, int, int, int]]) -> None:
    """Write files (path, bytes, uid, gid, mode) into a container; missing directories above them are made."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for path, data, uid, gid, mode in files:
            entry = _entry(path.strip("/"), tarfile.REGTYPE, mode, len(data))
            entry.uid, entry.gid = uid, gid
            tar.addfile(entry, io.BytesIO(data))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        args: dict[str, object] = {"container": container, "path": "/", "owned_by_user": False}
        engine.send("containers.put_archive", args, [theirs.fileno()])
        theirs.close()
        try:
            ours.sendall(archive.getvalue())
            ours.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the engine says why
        engine.receive()


def _entry(name: str, kind: bytes, mode: int, size: int = 0) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.size = kind, mode, size
    return entry


def with_nameless_volumes(engine: Engine, container: str, wanted: ContainerRequest) -> ContainerRequest:
    """Return the request with the volumes without a name of the container that it takes the place of."""
    found = engine.call("containers.inspect", {"container": container, "size": False})
    mounts = found["Mounts"] if isinstance(found, dict) else []
    taken = {one.target for one in wanted.binds if one.source} | {one.target for one in wanted.mounts if one.source}
    taken |= {one.target for one in wanted.tmpfs}
    kept = {
        one["Destination"]: one["Name"]
        for one in mounts
        if one["Type"] == "volume" and one["Destination"] not in taken and len(one["Name"]) == 64
    }
    return wanted.replace(
        binds=tuple(one for one in wanted.binds if one.target not in kept),
        mounts=(
            *(one for one in wanted.mounts if one.target not in kept),
            *(MountRequest(type="volume", source=name, target=target) for target, name in kept.items()),
        ),
    )


def _caught(act: Callable[[Container], None], container: Container) -> OrlopError | None:
    try:
        act(container)
    except OrlopError as error:
        return error
    return None


def _raise_first(errors: list[OrlopError | None]) -> None:
    for error in errors:
        if error is not None:
            raise error
