"""`orlop stop`, `kill`, `rm`, `wait`: the same verb for several containers, at the same time."""

from __future__ import annotations

from ....spec.errors import NotFound, OrlopError
from ..command import Command, Invocation, for_output, write_line
from ..flags import BOOL, EXIT_USAGE, INT, STRING, Flag
from ..main import explain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PARALLEL_MAX = 50


def _stop(invocation: Invocation) -> int:
    options = invocation.options
    timeout = options["timeout"] if "timeout" in options.given else options["time"]
    return _each(invocation, "containers.stop", {"timeout_s": timeout, "signal": options["signal"]})


def _kill(invocation: Invocation) -> int:
    return _each(invocation, "containers.kill", {"signal": invocation.options["signal"]})


def _rm(invocation: Invocation) -> int:
    force: bool = invocation.options["force"]
    return _each(invocation, "containers.remove", {"force": force}, forgives_missing=force)


def _wait(invocation: Invocation) -> int:
    def show(_: str, result: object) -> str:
        code = result.get("exit_code") if isinstance(result, dict) else None
        return str(code if isinstance(code, int) else 255)

    return _each(invocation, "containers.wait", {"condition": "exited"}, show=show)


def _each(
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
                yield container, engine.receive()[0]
            except OrlopError as error:
                yield container, error
            finally:
                engine.close()


STOP = Command(
    _stop,
    "Stop one or more running containers",
    "[OPTIONS] CONTAINER [CONTAINER...]",
    flags=(
        Flag("signal", "s", STRING, "Signal to send to the container", default=""),
        Flag("timeout", "t", INT, "Seconds to wait before killing the container"),
        Flag("time", "", INT, "The old name of --timeout", hidden=True),
    ),
    arguments=(1, None),
    aliases=("container stop", "stop"),
)
KILL = Command(
    _kill,
    "Kill one or more running containers",
    "[OPTIONS] CONTAINER [CONTAINER...]",
    flags=(Flag("signal", "s", STRING, "Signal to send to the container", default=""),),
    arguments=(1, None),
    aliases=("container kill", "kill"),
)
RM = Command(
    _rm,
    "Remove one or more containers",
    "[OPTIONS] CONTAINER [CONTAINER...]",
    flags=(
        Flag("force", "f", BOOL, "Force the removal of a running container (uses SIGKILL)", default=False),
        # There are no anonymous volumes yet, so none is left behind either way.
        Flag("volumes", "v", BOOL, "Remove anonymous volumes associated with the container", default=False),
    ),
    arguments=(1, None),
    aliases=("container rm", "container remove", "rm"),
    refused=frozenset(("link", "l")),
)
WAIT = Command(
    _wait,
    "Block until one or more containers stop, then print their exit codes",
    "CONTAINER [CONTAINER...]",
    arguments=(1, None),
    aliases=("container wait", "wait"),
)
