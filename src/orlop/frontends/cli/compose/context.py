"""What a command of `orlop compose` gets: its own options, Compose's options, and the project that both mean."""

from __future__ import annotations

import json
import os
import sys

from ....spec.errors import NotFound
from ...compose import loading, observed, project, request
from ...compose import plan as plans
from ...compose.observed import Container
from ...compose.plan import Wishes
from ...compose.project import Project, Service
from ...compose.steps import PARALLEL_MAX, Steps
from ..command import Command, Invocation, visible, warn, write
from ..flags import Options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ....spec.paths import Paths
    from ...native.client import Engine


class Compose(Invocation):
    """compose: the options before the command's word."""

    __slots__ = ("_told", "compose")

    def __init__(self, compose: Options, options: Options, arguments: list[str], paths: Paths) -> None:
        super().__init__(options, arguments, paths)
        self.compose = compose
        self._told = False

    def load(self, *, interpolates: bool = True, absolute: bool = True) -> loading.Loaded:
        """Read the project's files, with their variables replaced and their paths made absolute, or as written."""
        sources = loading.Sources(
            files=self.compose["file"],
            directory=self.compose["project-directory"],
            env_files=self.compose["env-file"],
            warn=lambda text: warn(f"WARNING: {text}"),
        )
        sources.interpolates, sources.absolute = interpolates, absolute
        return loading.load(sources)

    def project(self, enabled: Iterable[str] = (), *, absolute: bool = True, is_checked: bool = True) -> Project:
        """Read the project's files. enabled: services whose profiles are on because they are named."""
        loaded = self.load(absolute=absolute)
        variable = loaded.variables.get("COMPOSE_COMPATIBILITY", "").lower()
        wishes = project.Wishes(
            name=self.compose["project-name"],
            profiles=tuple(self.compose["profile"]),
            enabled=tuple(enabled),
            separator="_" if self.compose["compatibility"] or variable in ("1", "true") else "-",
            is_checked=is_checked,
        )
        made = project.make(loaded, wishes)
        if (keys := request.without_effect(made)) and not self._told:
            warn(f"WARNING: only a cluster knows what these mean: {', '.join(keys)}")
        self._told = True
        return made

    def project_or_name(self) -> tuple[Project | None, str]:
        """Return the project and its name; a name alone does where only what there is matters."""
        name = self.compose["project-name"] or os.environ.get("COMPOSE_PROJECT_NAME", "")
        try:
            found = self.project()
        except NotFound:
            if not name or self.compose["file"]:
                raise
            return None, name
        return found, found.name

    def steps(self, found: Project, tell: Callable[[str, str, str], None], **options: object) -> Steps:
        parallel = self.compose["parallel"]
        return Steps(self.connect, found, tell, parallel_max=parallel if parallel > 0 else PARALLEL_MAX, **options)  # type: ignore[arg-type]

    def run(self, words: Sequence[str]) -> int:
        """Carry out another command of ours ("exec", "web-1", "ls") in this process; return its status."""
        from .. import commands
        from ..main import run_command

        group = words[0] if words[0] in commands.GROUPS else ""
        row = commands.find(group, words[1] if group else words[0])
        assert row is not None
        name = f"orlop {' '.join(words[: 2 if group else 1])}"
        return run_command(commands.load(row), name, list(words[2 if group else 1 :]), debug=False)


class Progress:
    """What happens to containers, networks and volumes, a line each on standard error; quiet tells nothing."""

    def __init__(self, invocation: Compose) -> None:
        self.form: str = invocation.compose["progress"]

    def __call__(self, kind: str, name: str, what: str) -> None:
        if self.form == "quiet":
            return
        line = f" {kind} {visible(name)}  {what}"
        if self.form == "json":
            line = json.dumps({"id": f"{kind} {name}", "text": what})
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


def bring_up(invocation: Compose, found: Project, services: list[Service], wishes: Wishes, named: set[str]) -> None:
    """Make what is there of these services as the files say, and tell each step. named: as for plan.make."""
    with invocation.connect() as engine:
        plan = plans.make(engine, found, services, wishes, named)
    invocation.steps(found, Progress(invocation), start=wishes.start).apply(plan)


def containers_of(
    engine: Engine, found: Project | None, name: str, services: Sequence[str], *, oneoff: bool = False
) -> list[Container]:
    """Return the containers of these services, of all for none. Raises NotFound for a service that is not there."""
    existing = observed.containers(engine, name, oneoff=oneoff)
    if not services:
        return existing
    known = {one.service for one in existing}
    for service in services:
        if found is not None:
            found.service(service)
        elif service not in known:
            raise NotFound("find", f"service {service}", f"no such service: {service}")
    return [one for one in existing if one.service in services]


def one_container(engine: Engine, found: Project, service: Service, index: int, *, running: bool) -> Container:
    """Return the container with that number of a service, the first for 0. Raises NotFound."""
    own = [one for one in observed.containers(engine, found.name) if one.service == service.name]
    own = [one for one in own if (not index or one.number == index) and (one.runs or not running)]
    if not own:
        state = "running" if running else "there"
        cause = (
            f'service "{service.name}" is not running'
            if running
            else f'no container found for service "{service.name}"'
        )
        raise NotFound("find", f"a container of {service.name}", cause, hint=f"make it {state}: orlop compose up -d")
    return own[0]


def only_says(invocation: Compose, act: str, names: Iterable[str]) -> bool:
    """With --dry-run: print what would be done to each of these, and return True: it is not done."""
    if not invocation.compose["dry-run"]:
        return False
    write("".join(f"{act} {name}\n" for name in names))
    return True


def command(action: Callable[[Compose], int], summary: str, usage: str, **facts: object) -> Command:
    """Return the row of a command of Compose."""

    def act(invocation: Invocation) -> int:
        assert isinstance(invocation, Compose)
        return action(invocation)

    return Command(act, summary, usage, **facts)  # type: ignore[arg-type]
