"""`orlop compose watch`: what `develop.watch` of the services asks for when files change.

inotify says that something changed, a look at the whole tree says what: so nothing is missed when events are lost or
directories come and go. The specification is compose-spec's develop.md.
"""

from __future__ import annotations

import os
import select
import stat
import threading
import time

from ....build.ignore import Matcher
from ....linux import inotify
from ....spec.container import ExecRequest
from ....spec.errors import Conflict, Invalid, NotFound, OrlopError
from ...compose import observed
from ...compose.plan import Wishes
from ...compose.steps import hook_request, put_files
from ..command import warn
from ..flags import BOOL, Flag
from . import images
from .context import Compose, bring_up, command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ...compose.project import Project, Service

SETTLE_S = 0.1  # an editor's save is several events
SYNC_BYTES_MAX = 64 << 20
Seen = dict[str, tuple[int, int, int]]


class _Trigger:
    """One entry of develop.watch, with what its tree looked like at the last look."""

    def __init__(self, service: Service, rule: dict[str, Any]) -> None:
        self.service = service
        self.rule = rule
        self.root = str(rule["path"])
        self.ignored = Matcher(rule.get("ignore", ()))
        self.included = Matcher(rule["include"]) if rule.get("include") else None
        if "sync" in rule["action"] and not rule.get("target"):
            subject = f"services.{service.name}.develop.watch"
            raise Invalid("watch", subject, f"{rule['action']} needs a target", hint="add target: /PATH")
        self.seen: Seen = {}
        self.directories: list[str] = []
        self.seen = self._look()

    def changes(self) -> tuple[list[str], list[str]]:
        """Return the files that are new or changed since the last call, and those that are gone."""
        now = self._look()
        changed = [path for path, facts in now.items() if self.seen.get(path) != facts]
        gone = [path for path in self.seen if path not in now]
        self.seen = now
        return changed, gone

    def target(self, path: str) -> str:
        """Return where a file of the host lies in the container."""
        inside = os.path.relpath(path, self.root)
        return self.rule["target"] if inside == "." else os.path.join(self.rule["target"], inside)

    def _look(self) -> Seen:
        self.directories = [os.path.dirname(self.root)] if os.path.isfile(self.root) else []
        if os.path.isfile(self.root):
            found = os.stat(self.root)
            return {self.root: (found.st_mtime_ns, found.st_size, found.st_ino)}
        seen: Seen = {}
        for directory, names, files in os.walk(self.root):
            self.directories.append(directory)
            names[:] = [name for name in names if not self._is_ignored(os.path.join(directory, name))]
            for path in (os.path.join(directory, name) for name in files):
                if self._is_ignored(path) or not self._is_included(path):
                    continue
                try:
                    found = os.lstat(path)
                except FileNotFoundError:
                    continue
                if stat.S_ISREG(found.st_mode):
                    seen[path] = (found.st_mtime_ns, found.st_size, found.st_ino)
        return seen

    def _is_ignored(self, path: str) -> bool:
        return bool(self.ignored.excludes(os.path.relpath(path, self.root)))

    def _is_included(self, path: str) -> bool:
        return self.included is None or self.included.excludes(os.path.relpath(path, self.root))


class Watcher:
    """Watches the files of a project's services and carries out their rules until it is closed."""

    def __init__(
        self, invocation: Compose, project: Project, services: list[Service], *, quiet: bool = False, prune: bool = True
    ) -> None:
        self._quiet, self._prune = quiet, prune
        self._invocation = invocation
        self._project = project
        self._triggers = [
            _Trigger(service, rule) for service in services for rule in service.get("develop", {}).get("watch", ())
        ]
        if not self._triggers:
            cause = "none of the selected services is configured for watch, consider setting a 'develop' section"
            raise Invalid("watch", f"project {project.name}", cause)
        self._fd = inotify.init()
        self._watched: set[str] = set()
        self._watch()

    def run(self) -> None:
        """Carry out what changes ask for, for ever."""
        for trigger in self._triggers:
            if trigger.rule.get("initial_sync"):
                self._sync(trigger, list(trigger.seen), [])
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        while True:
            poll.poll()
            time.sleep(SETTLE_S)
            inotify.read_events(self._fd)
            for trigger in self._triggers:
                changed, gone = trigger.changes()
                if changed or gone:
                    try:
                        self._act(trigger, changed, gone)
                    except OrlopError as error:
                        warn(f"orlop: {error}")
            self._watch()

    def _watch(self) -> None:
        mask = inotify.IN_MODIFY | inotify.IN_MOVED_TO | inotify.IN_CREATE | inotify.IN_DELETE
        for directory in {one for trigger in self._triggers for one in trigger.directories} - self._watched:
            try:
                inotify.add_watch(self._fd, directory, mask)
                self._watched.add(directory)
            except FileNotFoundError:
                continue

    def _act(self, trigger: _Trigger, changed: list[str], gone: list[str]) -> None:
        action = trigger.rule["action"]
        name = trigger.service.name
        if action == "rebuild":
            warn(f"Rebuilding service {name} after changes were detected...")
            self._rebuild(trigger.service)
            return
        if action.startswith("sync"):
            warn(f"Syncing service {name} after {len(changed) + len(gone)} changes were detected")
            self._sync(trigger, changed, gone)
        if action.endswith("restart"):
            self._restart(trigger.service)
        if action.endswith("exec"):
            self._exec(trigger.service, hook_request(trigger.rule.get("exec", {})))

    def _sync(self, trigger: _Trigger, changed: list[str], gone: list[str]) -> None:
        files, size = [], 0
        for path in changed:
            try:
                with open(path, "rb") as file:
                    data = file.read(SYNC_BYTES_MAX + 1)
                    mode = os.fstat(file.fileno()).st_mode & 0o777
            except FileNotFoundError:
                continue
            size += len(data)
            files.append((trigger.target(path), data, 0, 0, mode))
        if size > SYNC_BYTES_MAX:
            warn(f"orlop: {size} bytes are too many to synchronise; ignore what need not go, or rebuild")
            return
        if files:
            with self._invocation.connect() as engine:
                for one in self._containers(trigger.service):
                    put_files(engine, one, files)
        if gone:
            self._exec(trigger.service, ExecRequest(args=("rm", "-rf", "--", *map(trigger.target, gone))))

    def _rebuild(self, service: Service) -> None:
        with self._invocation.connect() as engine:
            before = observed.image_id(engine, service.image)
        if "build" in service.config:
            images.build_service(self._invocation, self._project, service, ["--quiet"] if self._quiet else [])
        bring_up(self._invocation, self._project, [service], Wishes(), {service.name})
        if self._prune and before:
            self._forget(before)

    def _forget(self, image: str) -> None:
        """Remove what an image was before, if nothing has its name or uses it any more."""
        with self._invocation.connect() as engine:
            try:
                found = engine.call("images.inspect", {"image": image})
                if isinstance(found, dict) and not found["RepoTags"]:
                    engine.call("images.remove", {"image": image, "force": False, "prune": True})
            except (NotFound, Conflict):
                return

    def _restart(self, service: Service) -> None:
        with self._invocation.connect() as engine:
            for one in self._containers(service):
                engine.call("containers.restart", {"container": one, "timeout_s": None, "signal": ""})

    def _exec(self, service: Service, wanted: ExecRequest) -> None:
        with self._invocation.connect() as engine:
            for one in self._containers(service):
                args: dict[str, object] = {"container": one, "request": wanted.to_json(), "attached": False}
                engine.call("containers.exec", args | {"console_size": None})

    def _containers(self, service: Service) -> list[str]:
        with self._invocation.connect() as engine:
            found = observed.containers(engine, self._project.name)
        return [one.id for one in found if one.service == service.name and one.runs]


def watch_beside(invocation: Compose, project: Project) -> None:
    """Watch in a thread of its own, while `up` shows what the containers write."""
    watcher = Watcher(invocation, project, list(project.services.values()))
    threading.Thread(target=watcher.run, daemon=True).start()


def _watch(invocation: Compose) -> int:
    options = invocation.options
    project = invocation.project(invocation.arguments)
    services = project.chosen(invocation.arguments)
    watcher = Watcher(invocation, project, services, quiet=options["quiet"], prune=options["prune"])
    if not options["no-up"]:
        images.ensure(invocation, project, services)
        bring_up(invocation, project, services, Wishes(), set(invocation.arguments))
    warn("Watch enabled")
    watcher.run()
    return 0


WATCH = command(
    _watch,
    "Watch build context for service and rebuild/refresh containers on change",
    "[SERVICE...]",
    flags=(
        Flag("no-up", "", BOOL, "Do not build & start services before watching", default=False),
        Flag("prune", "", BOOL, "Prune dangling images on rebuild", default=True),
        Flag("quiet", "", BOOL, "Hide build output", default=False),
    ),
    arguments=(0, None),
)
