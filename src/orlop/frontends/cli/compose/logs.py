"""`orlop compose logs`: what the containers of a project wrote, in the order of their services."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from ..containers.logs import tail_lines
from ..flags import BOOL, INT, STRING, Flag
from ..units import moment_ns
from . import output
from .context import Compose, command, containers_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...compose.observed import Container


def _logs(invocation: Compose) -> int:
    options = invocation.options
    project, name = invocation.project_or_name()
    with invocation.connect() as engine:
        containers = containers_of(engine, project, name, invocation.arguments)
    if options["index"]:
        containers = [one for one in containers if one.number == options["index"]]
    wanted = {
        "follow": options["follow"],
        "tail": tail_lines(options["tail"]),
        "since_ns": moment_ns("--since", options["since"]),
        "until_ns": moment_ns("--until", options["until"]),
        "timestamps": options["timestamps"],
    }
    names = [output.short_name(name, one) for one in containers]
    prefix, color, ansi = not options["no-log-prefix"], not options["no-color"], invocation.compose["ansi"]
    lines = output.Lines(names, prefix=prefix, color=color, ansi=ansi)

    def copy(container: Container) -> None:
        shown = output.short_name(name, container)
        with invocation.connect() as engine:
            output.copy(engine, container.id, wanted, lambda line: lines.write(shown, line))

    # Without --follow one after the other: who pipes it somewhere gets the same text each time.
    with ThreadPoolExecutor(max(len(containers), 1) if options["follow"] else 1) as pool:
        list(pool.map(copy, containers))
    return 0


LOGS = command(
    _logs,
    "View output from containers",
    "[OPTIONS] [SERVICE...]",
    flags=(
        Flag("follow", "f", BOOL, "Follow log output", default=False),
        Flag("index", "", INT, "index of the container if service has multiple replicas", default=0),
        Flag("no-color", "", BOOL, "Produce monochrome output", default=False),
        Flag("no-log-prefix", "", BOOL, "Don't print prefix in logs", default=False),
        Flag("since", "", STRING, 'Show logs since a time ("2026-01-31T12:00:00Z") or a while ago ("42m")', default=""),
        Flag("tail", "n", STRING, "Number of lines to show from the end of the logs for each container", default="all"),
        Flag("timestamps", "t", BOOL, "Show timestamps", default=False),
        Flag("until", "", STRING, 'Show logs before a time ("2026-01-31T12:00:00Z") or a while ago', default=""),
    ),
    arguments=(0, None),
)
