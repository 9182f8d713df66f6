"""`orlop stop`, `kill`, `rm`, `wait`, `pause`, `restart` ...: the same verb for several containers, at the same time.

`rename` and `container prune` beside them.
"""

from __future__ import annotations

import sys

from ....spec.errors import Invalid, NotFound, OrlopError
from .. import listing
from ..command import Command, Invocation, for_output, write_line
from ..flags import BOOL, EXIT_USAGE, INT, LIST, STRING, STRINGS, Flag
from ..main import explain
from ..units import moment_ns, size
from ..values import FILTER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ...native.client import Engine

PARALLEL_MAX = 50
_ID_LENGTH_MAX = 1024
_REPEATABLE = ("containers.wait", "containers.stop")  # what has ended stays ended
WARNING_PRUNE = "WARNING! This will remove all stopped containers."


def _stop(invocation: Invocation) -> int:
    options = invocation.options
    timeout = options["timeout"] if "timeout" in options.given else options["time"]
    args = {"timeout_s": timeout, "signal": options["signal"]}
    return each(chosen(invocation), "containers.stop", args, forgives_missing=options["ignore"])


def _restart(invocation: Invocation) -> int:
    options = invocation.options
    timeout = options["timeout"] if "timeout" in options.given else options["time"]
    args = {"timeout_s": timeout, "signal": options["signal"]}
    return each(chosen(invocation, ended=True), "containers.restart", args)


def _pause(invocation: Invocation) -> int:
    return each(chosen(invocation), "containers.pause", {})


def _unpause(invocation: Invocation) -> int:
    return each(chosen(invocation, status="paused"), "containers.unpause", {})


def _rename(invocation: Invocation) -> int:
    old, new = invocation.arguments
    with invocation.connect() as engine:
        engine.call("containers.rename", {"container": old, "name": new.strip()})
    return 0


def _prune(invocation: Invocation) -> int:
    options = invocation.options
    args = prune_filters(options["filter"])
    if not options["force"] and not confirmed(WARNING_PRUNE):
        return 0
    with invocation.connect() as engine:
        found = engine.call("containers.prune", args)
    result = found if isinstance(found, dict) else {}
    deleted = [str(container) for container in result.get("deleted", [])]
    if deleted:
        write_line("Deleted Containers:\n" + "\n".join(deleted) + "\n")
    write_line(f"Total reclaimed space: {size(result.get('reclaimed', 0))}")
    return 0


def prune_filters(given: tuple[tuple[str, str], ...]) -> dict[str, object]:
    """Return the arguments of `containers.prune`. Raises Invalid for a filter that docker does not know either."""
    args: dict[str, object] = {"until_ns": None, "labels": [], "without_labels": []}
    for key, value in given:
        name = key.removesuffix("!")
        if key == "until":
            if args["until_ns"] is not None:
                raise Invalid("prune", "containers", "more than one until filter specified", hint="give one")
            args["until_ns"] = moment_ns("--filter until", value)
        elif name == "label":
            labels = args["labels" if key == name else "without_labels"]
            assert isinstance(labels, list)
            labels.append(value)
        elif key:
            raise Invalid(
                "prune",
                "containers",
                f"invalid filter '{key[:60]}'",
                hint="known are label, label!, until",
                code="E0210",
            )
    return args


def confirmed(warning: str) -> bool:
    """Ask on the terminal; only "y" is yes."""
    sys.stdout.write(f"{warning}\nAre you sure you want to continue? [y/N] ")
    sys.stdout.flush()
    return sys.stdin.readline().strip().lower() == "y"


def _kill(invocation: Invocation) -> int:
    return each(chosen(invocation), "containers.kill", {"signal": invocation.options["signal"]})


def _rm(invocation: Invocation) -> int:
    force: bool = invocation.options["force"]
    return each(
        chosen(invocation, ended=True),
        "containers.remove",
        {"force": force, "volumes": invocation.options["volumes"]},
        forgives_missing=force or invocation.options["ignore"],
    )


def _wait(invocation: Invocation) -> int:
    if invocation.options["condition"]:
        from ..podman import waiting

        return waiting.wait(invocation)

    def show(_: str, result: object) -> str:
        code = result.get("exit_code") if isinstance(result, dict) else None
        return str(code if isinstance(code, int) else 255)

    return each(
        invocation,
        "containers.wait",
        {"condition": "exited"},
        show=show,
        forgives_missing=invocation.options["ignore"],
    )


def chosen(invocation: Invocation, *, ended: bool = False, status: str = "") -> Invocation:
    """Return the invocation with the containers of podman's --all, --filter and --cidfile as arguments too.

    ended: --all means those too that do not run. status: those of it that are so.
    """
    options = invocation.options
    names = [*invocation.arguments, *(_read_id(path) for path in options["cidfile"])]
    if options["all"] or options["filter"]:
        filters = listing.filters_of(options["filter"] + ((("status", status),) if status else ()))
        with invocation.connect() as engine:
            found = engine.call("containers.list", {"all": ended, "filters": filters, "size": False})
        names += [str(one.get("Id", "")) for one in found if isinstance(one, dict)] if isinstance(found, list) else []
    return Invocation(options, names, invocation.paths)


def _read_id(path: str) -> str:
    """Return what --cidfile of a run has written. Raises Invalid."""
    try:
        with open(path, encoding="ascii") as file:
            return file.read(_ID_LENGTH_MAX).strip()
    except (OSError, ValueError) as wrong:
        hint = "name a file that --cidfile has written"
        raise Invalid("read", f"container ID file {path}", str(wrong), hint=hint) from None


def each(
    invocation: Invocation,
    verb: str,
    args: dict[str, object],
    *,
    show: Callable[[str, object], str] = lambda name, _: name,
    forgives_missing: bool = False,
) -> int:
    """Do the verb for every argument, print a line for each that worked and the error of each that did not."""
    status = 0
    for container, result in _results(invocation, verb, args):
        if isinstance(result, OrlopError):
            explain(result)
            status = status if forgives_missing and isinstance(result, NotFound) else EXIT_USAGE
        else:
            write_line(for_output(show(container, result)))
    return status


def _results(invocation: Invocation, verb: str, args: dict[str, object]) -> Iterator[tuple[str, object]]:
    """Yield each container with its result or error, in order; up to PARALLEL_MAX are asked for at once."""
    names = invocation.arguments
    for start in range(0, len(names), PARALLEL_MAX):
        batch = names[start : start + PARALLEL_MAX]
        # A connection carries one request at a time, so each container has one of its own.
        engines = [invocation.connect() for _ in batch]
        for container, engine in zip(batch, engines, strict=True):
            engine.send(verb, {"container": container, **args})
        for container, engine in zip(batch, engines, strict=True):
            try:
                yield container, _reply(invocation, engine, verb, {"container": container, **args})
            except OrlopError as error:
                yield container, error
            finally:
                engine.close()


def _reply(invocation: Invocation, engine: Engine, verb: str, args: dict[str, object]) -> object:
    """Return the reply to a request that was sent. One that may be repeated is, when the engine dies over it."""
    from ...native.client import Lost, Unsent

    try:
        return engine.receive()[0]
    except Lost as lost:
        if verb not in _REPEATABLE and not isinstance(lost, Unsent):
            raise
    with invocation.connect() as successor:
        return successor.call(verb, args)


_CHOICE = (
    Flag("all", "a", BOOL, "All containers for which that makes sense", default=False),
    Flag("cidfile", "", LIST, "The container whose ID is in this file"),
    Flag("filter", "", FILTER, "The containers that a list with this filter shows"),
)
_CHOICES = "all cidfile filter"
_IGNORE = Flag("ignore", "i", BOOL, "Do not fail for a container that does not exist", default=False)
_END_FLAGS = (
    *_CHOICE,
    Flag("signal", "s", STRING, "Signal to send to the container", default=""),
    Flag("timeout", "t", INT, "Seconds to wait before killing the container"),
    Flag("time", "", INT, "The old name of --timeout", hidden=True),
)

STOP = Command(
    _stop,
    "Stop one or more running containers",
    "[OPTIONS] CONTAINER [CONTAINER...]",
    flags=(*_END_FLAGS, _IGNORE),
    arguments=(1, None),
    instead=_CHOICES,
    aliases=("container stop", "stop"),
)
KILL = Command(
    _kill,
    "Kill one or more running containers",
    "[OPTIONS] CONTAINER [CONTAINER...]",
    flags=(*_CHOICE, Flag("signal", "s", STRING, "Signal to send to the container", default="")),
    arguments=(1, None),
    instead=_CHOICES,
    aliases=("container kill", "kill"),
)
RM = Command(
    _rm,
    "Remove one or more containers",
    "[OPTIONS] CONTAINER [CONTAINER...]",
    flags=(
        Flag("force", "f", BOOL, "Force the removal of a running container (uses SIGKILL)", default=False),
        Flag("volumes", "v", BOOL, "Remove anonymous volumes associated with the container", default=False),
        *_CHOICE,
        _IGNORE,
    ),
    arguments=(1, None),
    instead=_CHOICES,
    aliases=("container rm", "container remove", "rm"),
    refused=frozenset(("link", "l")),
)
WAIT = Command(
    _wait,
    "Block until one or more containers stop, then print their exit codes",
    "[OPTIONS] CONTAINER [CONTAINER...]",
    flags=(
        Flag("condition", "", STRINGS, "Wait for one of these states instead: running, healthy, exited ..."),
        Flag("ignore", "", BOOL, "Ignore containers that are not there", default=False),
        Flag("interval", "i", STRING, "Between two looks, with --condition", default="250ms"),
    ),
    arguments=(1, None),
    aliases=("container wait", "wait"),
)
RESTART = Command(
    _restart,
    "Restart one or more containers",
    "[OPTIONS] CONTAINER [CONTAINER...]",
    flags=_END_FLAGS,
    arguments=(1, None),
    instead=_CHOICES,
    aliases=("container restart", "restart"),
)
PAUSE = Command(
    _pause,
    "Pause all processes within one or more containers",
    "[OPTIONS] CONTAINER [CONTAINER...]",
    flags=_CHOICE,
    arguments=(1, None),
    instead=_CHOICES,
    aliases=("container pause", "pause"),
)
UNPAUSE = Command(
    _unpause,
    "Unpause all processes within one or more containers",
    "[OPTIONS] CONTAINER [CONTAINER...]",
    flags=_CHOICE,
    arguments=(1, None),
    instead=_CHOICES,
    aliases=("container unpause", "unpause"),
)
RENAME = Command(
    _rename,
    "Rename a container",
    "CONTAINER NEW_NAME",
    arguments=(2, 2),
    aliases=("container rename", "rename"),
)
PRUNE = Command(
    _prune,
    "Remove all stopped containers",
    "[OPTIONS]",
    flags=(
        Flag("filter", "", FILTER, 'Provide filter values (e.g. "until=<timestamp>")'),
        Flag("force", "f", BOOL, "Do not prompt for confirmation", default=False),
    ),
)
