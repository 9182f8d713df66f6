"""`orlop compose up`, `create`, `scale`: make what is there as the files say."""

from __future__ import annotations

import time

from ....spec.errors import Invalid, Unavailable
from ...compose import observed
from ...compose import plan as plans
from ...compose.plan import Plan, Wishes
from ...compose.project import Project, Service
from ..command import warn, write
from ..flags import BOOL, EXIT_USAGE, INT, LIST, STRING, Flag, Options, UsageError
from . import images
from .context import Compose, Progress, command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_WAIT_POLL_S = 0.1


def _up(invocation: Compose) -> int:
    options = invocation.options
    _check(options)
    project = invocation.project(invocation.arguments)
    services = project.chosen(invocation.arguments, with_dependencies=not options["no-deps"])
    wishes = _wishes(options, project, start=not options["no-start"])
    if options["plan"] or invocation.compose["dry-run"]:
        return _print_plan(invocation, project, services, wishes, invocation.arguments)
    began_ns = time.time_ns()
    _bring_up(invocation, project, services, wishes, invocation.arguments)
    if options["no-start"]:
        return 0
    if options["wait"]:
        _wait_until_ready(invocation, project, services, options["wait-timeout"])
        return 0
    if options["detach"]:
        return 0
    from .foreground import follow

    return follow(invocation, project, services, began_ns)


def _create(invocation: Compose) -> int:
    project = invocation.project(invocation.arguments)
    services = project.chosen(invocation.arguments, with_dependencies=True)
    wishes = _wishes(invocation.options, project, start=False)
    if invocation.compose["dry-run"]:
        return _print_plan(invocation, project, services, wishes, invocation.arguments)
    _bring_up(invocation, project, services, wishes, invocation.arguments)
    return 0


def _scale(invocation: Compose) -> int:
    project = invocation.project()
    numbers = _numbers(invocation.arguments, project)
    services = project.chosen(numbers, with_dependencies=not invocation.options["no-deps"])
    wishes = Wishes(recreate=False, scale=numbers)
    if invocation.compose["dry-run"]:
        return _print_plan(invocation, project, services, wishes, numbers)
    _bring_up(invocation, project, services, wishes, numbers)
    return 0


def _wishes(options: Options, project: Project, *, start: bool) -> Wishes:
    return Wishes(
        force_recreate=options["force-recreate"],
        recreate=not options["no-recreate"],
        recreate_dependencies="always-recreate-deps" in options.given and options["always-recreate-deps"],
        start=start,
        orphans=options["remove-orphans"],
        scale=_numbers(options["scale"], project),
    )


def _numbers(texts: list[str] | tuple[str, ...], project: Project) -> dict[str, int]:
    """Return SERVICE=N as numbers. Raises Invalid, NotFound."""
    numbers = {}
    for text in texts:
        name, equals, number = text.partition("=")
        if not equals or not number.isdecimal() or len(number) > 5:
            raise Invalid("scale", text, "invalid scale specifier", hint="write SERVICE=NUMBER, such as web=3")
        service = project.service(name)
        if int(number) > 1 and service.get("container_name"):
            raise Invalid("scale", name, "its container_name allows one container", hint="leave container_name away")
        numbers[name] = int(number)
    return numbers


def _check(options: Options) -> None:
    for one, other in (("force-recreate", "no-recreate"), ("build", "no-build"), ("detach", "watch")):
        if options[one] and options[other]:
            raise _conflict(f"--{one}", f"--{other}")
    for one in ("abort-on-container-exit", "abort-on-container-failure", "exit-code-from"):
        if options[one] and (options["detach"] or options["wait"]):
            raise _conflict(f"--{one}", "--detach or --wait")


def _conflict(one: str, other: str) -> UsageError:
    return UsageError(f"{one} and {other} are incompatible", "leave one of them away", EXIT_USAGE, shows_usage=False)


def _bring_up(
    invocation: Compose, project: Project, services: list[Service], wishes: Wishes, named: Iterable[str]
) -> None:
    options = invocation.options
    given = options.given
    making = images.Making(
        policy=options["pull"] if "pull" in given else "",
        build="build" in given and options["build"],
        may_build=not ("no-build" in given and options["no-build"]),
        quiet="quiet-pull" in given and options["quiet-pull"],
    )
    images.ensure(invocation, project, services, making)
    with invocation.connect() as engine:
        plan = plans.make(engine, project, services, wishes, set(named))
    _warn_of_orphans(plan)
    steps = invocation.steps(
        project,
        Progress(invocation),
        start=wishes.start,
        renew_volumes="renew-anon-volumes" in given and options["renew-anon-volumes"],
        timeout_s=options["timeout"] if "timeout" in given else None,
    )
    steps.apply(plan)


def _warn_of_orphans(plan: Plan) -> None:
    if plan.orphans and not plan.removed_orphans:
        names = ", ".join(one.name for one in plan.orphans)
        warn(f"WARNING: Found orphan containers ({names}) for this project: remove them with --remove-orphans")


def _print_plan(
    invocation: Compose, project: Project, services: list[Service], wishes: Wishes, named: Iterable[str]
) -> int:
    with invocation.connect() as engine:
        plan = plans.make(engine, project, services, wishes, set(named))
    lines = plan.lines()
    write("".join(f"{line}\n" for line in lines) or "nothing to do: everything is as the files say\n")
    return 0


def _wait_until_ready(invocation: Compose, project: Project, services: list[Service], timeout_s: int) -> None:
    """Return when every container runs, healthy where it has a check. Raises Unavailable."""
    deadline = time.monotonic() + timeout_s if timeout_s else None
    names = {service.name for service in services}
    with invocation.connect() as engine:
        while True:
            waiting = []
            for one in observed.containers(engine, project.name):
                if one.service not in names:
                    continue
                state = _state(engine.call("containers.inspect", {"container": one.id, "size": False}))
                if state == "unhealthy" or state == "exited":
                    raise Unavailable(
                        "wait for", f"container {one.name}", f"it is {state}", hint=f"orlop why {one.name}"
                    )
                if state not in ("running", "healthy", "completed"):
                    waiting.append(one.name)
            if not waiting:
                return
            if deadline is not None and time.monotonic() > deadline:
                raise Unavailable("wait for", f"container {waiting[0]}", f"it was not ready within {timeout_s} s")
            time.sleep(_WAIT_POLL_S)


def _state(inspected: object) -> str:
    state = inspected["State"] if isinstance(inspected, dict) else {}
    if state.get("Status") == "exited" and state.get("ExitCode") == 0:
        return "completed"
    return str((state.get("Health") or {}).get("Status") or state.get("Status", ""))


# fmt: off
_MAKING = (
    Flag("build", "", BOOL, "Build images before starting containers", default=False),
    Flag("force-recreate", "", BOOL, "Recreate containers even if nothing changed", default=False),
    Flag("no-build", "", BOOL, "Don't build an image, even if it's policy", default=False),
    Flag("no-recreate", "", BOOL, "If containers already exist, don't recreate them", default=False),
    Flag("pull", "", STRING, 'Pull image before running ("always"|"missing"|"never"|"build")', default="policy"),
    Flag("quiet-pull", "", BOOL, "Pull without printing progress information", default=False),
    Flag("remove-orphans", "", BOOL, "Remove containers for services not defined in the files", default=False),
    Flag("scale", "", LIST, "Scale SERVICE to NUM instances"),
    Flag("timeout", "t", INT, "Use this timeout in seconds for container shutdown"),
    Flag("yes", "y", BOOL, "Assume yes to every question", default=False, hidden=True),
)
UP = command(
    _up, "Create and start containers", "[OPTIONS] [SERVICE...]",
    flags=(
        *_MAKING,
        Flag("abort-on-container-exit", "", BOOL, "Stop all containers if any container was stopped", default=False),
        Flag("abort-on-container-failure", "", BOOL, "Stop all containers if any exited with failure", default=False),
        Flag("always-recreate-deps", "", BOOL, "Recreate dependent containers", default=False),
        Flag("attach", "", LIST, "Restrict attaching to the specified services"),
        Flag("attach-dependencies", "", BOOL, "Attach to log output of dependent services too", default=False),
        Flag("detach", "d", BOOL, "Detached mode: run containers in the background", default=False),
        Flag("exit-code-from", "", STRING, "Return the exit code of the selected service container", default=""),
        Flag("menu", "", BOOL, "Enable interactive shortcuts when running attached", default=False),
        Flag("no-attach", "", LIST, "Do not attach to the specified services"),
        Flag("no-color", "", BOOL, "Produce monochrome output", default=False),
        Flag("no-deps", "", BOOL, "Don't start linked services", default=False),
        Flag("no-log-prefix", "", BOOL, "Don't print prefix in logs", default=False),
        Flag("no-start", "", BOOL, "Don't start the services after creating them", default=False),
        Flag("plan", "", BOOL, "Print what would change and why, and do nothing", default=False),
        Flag("renew-anon-volumes", "V", BOOL, "Don't take over data of nameless volumes", default=False),
        Flag("timestamps", "", BOOL, "Show timestamps", default=False),
        Flag("wait", "", BOOL, "Wait for services to be running|healthy", default=False),
        Flag("wait-timeout", "", INT, "Maximum duration in seconds to wait for that", default=0),
        Flag("watch", "w", BOOL, "Watch source code and rebuild/refresh containers on change", default=False),
    ),
    arguments=(0, None),
)
CREATE = command(_create, "Creates containers for a service", "[OPTIONS] [SERVICE...]", flags=_MAKING,
                 arguments=(0, None))
SCALE = command(
    _scale, "Scale services", "[OPTIONS] SERVICE=REPLICAS...",
    flags=(
        Flag("no-deps", "", BOOL, "Don't start linked services", default=False),
        Flag("timeout", "t", INT, "Use this timeout in seconds for container shutdown"),
    ),
    arguments=(1, None),
)
# fmt: on
