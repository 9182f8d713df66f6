"""`orlop compose down` and the verbs for containers that are there: stop, start, restart, kill, rm, pause, wait."""

from __future__ import annotations

import sys

from ....spec.errors import Conflict, NotFound, OrlopError
from ...compose import observed
from ...compose.document import Map, Place
from ...compose.project import Project
from ...compose.request import NETWORK, PROJECT, VOLUME
from ..command import warn, write_line
from ..flags import BOOL, EXIT_USAGE, INT, STRING, BadValue, Flag, Kind
from .context import Compose, Progress, command, containers_of, only_says

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ...compose.observed import Container
    from ...compose.steps import Steps
    from ...native.client import Engine


def _of_name(name: str) -> Project:
    """A project of which only the name is known."""
    return Project(name=name, directory="", files=[], variables={}, document=Map(Place("", 0, 0)))


def _begin(invocation: Compose) -> tuple[Project, Steps, Progress]:
    found, name = invocation.project_or_name()
    project = found or _of_name(name)
    options = invocation.options
    timeout_s = options["timeout"] if "timeout" in options.given else None
    progress = Progress(invocation)
    return project, invocation.steps(project, progress, timeout_s=timeout_s), progress


def _down(invocation: Compose) -> int:
    options = invocation.options
    project, steps, progress = _begin(invocation)
    with invocation.connect() as engine:
        known = {*project.services, *project.others}
        everything = observed.containers(engine, project.name, oneoff=True)
    own = [one for one in everything if one.service in known or not known]
    orphans = [one for one in everything if one not in own]
    if invocation.arguments:
        own = [one for one in own if project.service(one.service).name in invocation.arguments]
        orphans = []
    ended = own + (orphans if options["remove-orphans"] else [])
    if only_says(invocation, "remove container", [one.name for one in ended]):
        return 0

    def end(engine: Engine, container: Container) -> None:
        steps.stop(engine, container)
        steps.remove(engine, container, volumes=options["volumes"])

    steps.ordered(ended, end, reverse=True)
    if orphans and not options["remove-orphans"]:
        names = ", ".join(one.name for one in orphans)
        warn(f"WARNING: Found orphan containers ({names}) for this project: remove them with --remove-orphans")
    if not invocation.arguments:
        _remove_resources(invocation, project, progress)
    return 0


def _remove_resources(invocation: Compose, project: Project, progress: Progress) -> None:
    options = invocation.options
    with invocation.connect() as engine:
        for name, labels in observed.network_names(engine).items():
            if labels.get(PROJECT) == project.name and NETWORK in labels:
                _remove(engine, "Network", name, "networks.remove", {"network": name}, progress)
        for kind in ("secrets", "configs"):
            for name in observed.data_names(engine, kind, project.name):
                engine.call(f"{kind}.remove", {"name": name})
        if options["volumes"]:
            for name, labels in observed.volume_names(engine).items():
                if labels.get(PROJECT) == project.name and VOLUME in labels:
                    _remove(engine, "Volume", name, "volumes.remove", {"volume": name, "force": False}, progress)
        for image in _images(project, options["rmi"]):
            _remove(engine, "Image", image, "images.remove", {"image": image, "force": False, "prune": True}, progress)


def _images(project: Project, which: str) -> list[str]:
    """Return the images that --rmi means: all, or those without a name of their own."""
    services = [*project.services.values(), *project.others.values()]
    if which == "local":
        services = [one for one in services if "build" in one.config and "image" not in one.config]
    return list(dict.fromkeys(one.image for one in services)) if which else []


def _remove(engine: Engine, kind: str, name: str, verb: str, args: dict[str, object], progress: Progress) -> None:
    progress(kind, name, "Removing")
    try:
        engine.call(verb, args)
    except NotFound:
        pass
    except Conflict as error:
        progress(kind, name, "Resource is still in use")
        if kind != "Network":
            warn(f"orlop: {error}")
        return
    progress(kind, name, "Removed")


def _stop(invocation: Compose) -> int:
    project, steps, _ = _begin(invocation)
    containers = _containers(invocation, project)
    if not only_says(invocation, "stop container", [one.name for one in containers if one.runs]):
        steps.ordered(containers, steps.stop, reverse=True)
    return 0


def _containers(invocation: Compose, project: Project, services: Sequence[str] = ()) -> list[Container]:
    """Return the containers of these services, of those that the command names for none."""
    named = services or invocation.arguments
    with invocation.connect() as engine:
        return containers_of(engine, project if project.services else None, project.name, named)


def _start(invocation: Compose) -> int:
    project = invocation.project()
    steps = invocation.steps(project, Progress(invocation))
    containers = _containers(invocation, project)
    for service in invocation.arguments or list(project.services):
        if not any(one.service == service for one in containers) and project.service(service).scale:
            raise NotFound(
                "start", f"service {service}", f'service "{service}" has no container to start',
                hint="make it: orlop compose up -d",
            )  # fmt: skip

    def start(engine: Engine, container: Container) -> None:
        steps.start(engine, project.service(container.service), container.id, container.name)

    known = {*project.services, *project.others}
    started = [one for one in containers if not one.runs and one.service in known]
    if not only_says(invocation, "start container", [one.name for one in started]):
        steps.ordered(started, start, reverse=False)
    return 0


def _restart(invocation: Compose) -> int:
    options = invocation.options
    timeout_s = options["timeout"] if "timeout" in options.given else None
    project, steps, progress = _begin(invocation)
    services = list(invocation.arguments)
    if services and not options["no-deps"]:
        services = list(project.dependents(services, restarted=True))
    containers = _containers(invocation, project, services)
    if only_says(invocation, "restart container", [one.name for one in containers]):
        return 0

    def restart(engine: Engine, container: Container) -> None:
        progress("Container", container.name, "Restarting")
        engine.call("containers.restart", {"container": container.id, "timeout_s": timeout_s, "signal": ""})
        progress("Container", container.name, "Started")

    steps.ordered(containers, restart, reverse=False)
    return 0


def _kill(invocation: Compose) -> int:
    project, steps, progress = _begin(invocation)
    known = {*project.services, *project.others}
    with_orphans = invocation.options["remove-orphans"] or not known
    killed = [one for one in _containers(invocation, project) if one.runs and (with_orphans or one.service in known)]

    def kill(engine: Engine, container: Container) -> None:
        progress("Container", container.name, "Killing")
        engine.call("containers.kill", {"container": container.id, "signal": invocation.options["signal"]})
        progress("Container", container.name, "Killed")

    if not only_says(invocation, "kill container", [one.name for one in killed]):
        steps.each(killed, kill)
    return 0


def _simple(verb: str, state: str, before: str, after: str) -> Callable[[Compose], int]:
    """A verb for containers in one state."""

    def act(invocation: Compose) -> int:
        project, steps, progress = _begin(invocation)
        containers = [one for one in _containers(invocation, project) if one.state == state]

        def one(engine: Engine, container: Container) -> None:
            progress("Container", container.name, before)
            engine.call(verb, {"container": container.id})
            progress("Container", container.name, after)

        word = verb.rpartition(".")[2]
        if not only_says(invocation, f"{word} container", [container.name for container in containers]):
            steps.each(containers, one)
        return 0

    return act


def _rm(invocation: Compose) -> int:
    options = invocation.options
    project, steps, _ = _begin(invocation)
    containers = _containers(invocation, project)
    ended = [one for one in containers if options["stop"] or not one.runs]
    if not ended:
        warn("No stopped containers")
        return 0
    if only_says(invocation, "remove container", [one.name for one in ended]):
        return 0
    if not options["force"]:
        sys.stderr.write(f"? Going to remove {', '.join(one.name for one in ended)} [yN] ")
        sys.stderr.flush()
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            return 0

    def end(engine: Engine, container: Container) -> None:
        steps.stop(engine, container)
        steps.remove(engine, container, volumes=options["volumes"])

    steps.ordered(ended, end, reverse=True)
    return 0


def _wait(invocation: Compose) -> int:
    found, name = invocation.project_or_name()
    status = 0
    with invocation.connect() as engine:
        containers = containers_of(engine, found, name, invocation.arguments)
        if not containers:
            raise NotFound("wait for", f"project {name}", "no containers", hint="start some: orlop compose up -d")
        for one in containers:
            try:
                result = engine.call("containers.wait", {"container": one.id, "condition": "exited"})
            except OrlopError as error:
                warn(f"orlop: {error}")
                return EXIT_USAGE
            status = int(result["exit_code"]) if isinstance(result, dict) else 1
            write_line(f'container "{one.name}" exited with status code {status}')
    if invocation.options["down-project"]:
        inner = Compose(invocation.compose, DOWN.parse([])[0], [], invocation.paths)
        DOWN.action(inner)
    return status


def _parse_rmi(text: str) -> str:
    if text not in ("all", "local"):
        raise BadValue(f"invalid value for --rmi: {text!r}", "write all, or local")
    return text


_TIMEOUT = Flag("timeout", "t", INT, "Specify a shutdown timeout in seconds")
_SERVICES = "[OPTIONS] [SERVICE...]"
DOWN = command(
    _down,
    "Stop and remove containers, networks",
    _SERVICES,
    flags=(
        Flag("remove-orphans", "", BOOL, "Remove containers for services not defined in the files", default=False),
        Flag("rmi", "", Kind("string", _parse_rmi), 'Remove images used by services ("local"|"all")', default=""),
        _TIMEOUT,
        Flag("volumes", "v", BOOL, "Remove named volumes of the files and nameless ones", default=False),
    ),
    arguments=(0, None),
)
STOP = command(_stop, "Stop services", _SERVICES, flags=(_TIMEOUT,), arguments=(0, None))
START = command(_start, "Start services", "[SERVICE...]", arguments=(0, None))
RESTART = command(
    _restart,
    "Restart service containers",
    _SERVICES,
    flags=(_TIMEOUT, Flag("no-deps", "", BOOL, "Don't restart dependent services", default=False)),
    arguments=(0, None),
)
KILL = command(
    _kill,
    "Force stop service containers",
    _SERVICES,
    flags=(
        Flag("remove-orphans", "", BOOL, "Kill containers of services not defined in the files, too", default=False),
        Flag("signal", "s", STRING, "SIGNAL to send to the container", default="SIGKILL"),
    ),
    arguments=(0, None),
)
PAUSE = command(
    _simple("containers.pause", "running", "Pausing", "Paused"), "Pause services", "[SERVICE...]", arguments=(0, None)
)
UNPAUSE = command(
    _simple("containers.unpause", "paused", "Unpausing", "Unpaused"),
    "Unpause services",
    "[SERVICE...]",
    arguments=(0, None),
)
RM = command(
    _rm,
    "Removes stopped service containers",
    _SERVICES,
    flags=(
        Flag("force", "f", BOOL, "Don't ask to confirm removal", default=False),
        Flag("stop", "s", BOOL, "Stop the containers, if required, before removing", default=False),
        Flag("volumes", "v", BOOL, "Remove any nameless volumes attached to containers", default=False),
    ),
    arguments=(0, None),
)
WAIT = command(
    _wait,
    "Block until containers of all (or specified) services stop",
    "SERVICE [SERVICE...] [OPTIONS]",
    flags=(Flag("down-project", "", BOOL, "Drops project when the first container stops", default=False),),
    arguments=(1, None),
)
