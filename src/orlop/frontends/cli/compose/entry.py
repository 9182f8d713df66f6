"""`orlop compose [OPTIONS] COMMAND`: its own options, and which word leads to which command of a project."""

from __future__ import annotations

import sys

from ..command import Command, Invocation, warn
from ..flags import BOOL, EXIT_USAGE, INT, LIST, STRING, BadValue, Flag, Kind, suggest
from ..main import run_command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ....spec.paths import Paths
    from ..commands import Row
    from ..flags import Options

_ANSI = ("never", "always", "auto")
_PROGRESS = ("auto", "tty", "plain", "json", "quiet")


def _word_of(flag: str, words: tuple[str, ...]) -> Kind:
    """The kind of a flag that takes one of a few words."""

    def parse(text: str) -> str:
        if text not in words:
            raise BadValue(f"invalid value for --{flag}: {text[:60]!r}", f"known are {', '.join(words)}")
        return text

    return Kind("string", parse)


# fmt: off
GLOBAL_FLAGS = (
    Flag("all-resources", "", BOOL, "Include all resources, even those not used by services", default=False),
    Flag("ansi", "", _word_of("ansi", _ANSI),
         'Control when to print ANSI control characters ("never"|"always"|"auto")', default="auto"),
    Flag("compatibility", "", BOOL, "Name containers and images with _, as docker-compose 1 does", default=False),
    Flag("dry-run", "", BOOL, "Say what would be done, and do nothing", default=False),
    Flag("env-file", "", LIST, "Specify an alternate environment file"),
    Flag("file", "f", LIST, "Compose configuration files"),
    Flag("parallel", "", INT, "Control max parallelism, -1 for unlimited", default=-1),
    Flag("profile", "", LIST, "Specify a profile to enable"),
    Flag("progress", "", _word_of("progress", _PROGRESS),
         "Set type of progress output (auto, tty, plain, json, quiet)", default="auto"),
    Flag("project-directory", "", STRING, "Specify an alternate working directory", default=""),
    Flag("project-name", "p", STRING, "Project name", default=""),
)
ROWS: dict[str, Row] = {
    "attach": ("compose.inside", "ATTACH", "Attach local standard input, output, and error streams to a container"),
    "build": ("compose.images", "BUILD", "Build or rebuild services"),
    "commit": ("compose.inside", "COMMIT", "Create a new image from a service container's changes"),
    "config": ("compose.config", "CONFIG", "Parse, resolve and render compose file in canonical format"),
    "cp": ("compose.inside", "CP", "Copy files/folders between a service container and the local filesystem"),
    "create": ("compose.up", "CREATE", "Creates containers for a service"),
    "down": ("compose.down", "DOWN", "Stop and remove containers, networks"),
    "events": ("compose.show", "EVENTS", "Receive real time events from containers"),
    "exec": ("compose.inside", "EXEC", "Execute a command in a running container"),
    "export": ("compose.inside", "EXPORT", "Export a service container's filesystem as a tar archive"),
    "images": ("compose.show", "IMAGES", "List images used by the created containers"),
    "kill": ("compose.down", "KILL", "Force stop service containers"),
    "logs": ("compose.logs", "LOGS", "View output from containers"),
    "ls": ("compose.show", "LS", "List running compose projects"),
    "pause": ("compose.down", "PAUSE", "Pause services"),
    "port": ("compose.show", "PORT", "Print the public port for a port binding"),
    "ps": ("compose.show", "PS", "List containers"),
    "pull": ("compose.images", "PULL", "Pull service images"),
    "push": ("compose.images", "PUSH", "Push service images"),
    "restart": ("compose.down", "RESTART", "Restart service containers"),
    "rm": ("compose.down", "RM", "Removes stopped service containers"),
    "run": ("compose.inside", "RUN", "Run a one-off command on a service"),
    "scale": ("compose.up", "SCALE", "Scale services"),
    "start": ("compose.down", "START", "Start services"),
    "stats": ("compose.inside", "STATS", "Display a live stream of container(s) resource usage statistics"),
    "stop": ("compose.down", "STOP", "Stop services"),
    "top": ("compose.show", "TOP", "Display the running processes"),
    "unpause": ("compose.down", "UNPAUSE", "Unpause services"),
    "up": ("compose.up", "UP", "Create and start containers"),
    "version": ("compose.show", "VERSION", "Show the version of this implementation of Compose"),
    "volumes": ("compose.show", "VOLUMES", "List volumes"),
    "wait": ("compose.down", "WAIT", "Block until containers of all (or specified) services stop"),
    "watch": ("compose.watch", "WATCH", "Watch build context for service and rebuild/refresh containers on change"),
}
# fmt: on
# docker compose's commands that are not there.
NOT_YET = frozenset(("alpha", "bridge", "publish"))
# What these would do depends on what a container does then: nothing is said of it beforehand.
_NOT_DRY = frozenset("attach commit cp exec export run watch".split())


def _compose(invocation: Invocation) -> int:
    if not invocation.arguments:
        run_command(COMPOSE, "orlop compose", ["--help"], debug=False)
        return 0
    word, *rest = invocation.arguments
    row = ROWS.get(word)
    if row is None:
        if word in NOT_YET:
            warn(f"orlop: unsupported command: orlop compose {word}")
            warn("Next: docker compose has this command, Orlop does not have it yet")
            return EXIT_USAGE
        warn(f"orlop: unknown command: orlop compose {word}")
        if hint := suggest(word, ROWS):
            warn(f"Next: {hint}")
        return EXIT_USAGE
    if invocation.options["dry-run"] and word in _NOT_DRY:
        warn(f"orlop: --dry-run can't say what compose {word} would do")
        warn("Next: leave --dry-run away, or use it with up, down or the verbs for what is there")
        return EXIT_USAGE
    from .. import commands
    from .context import Compose

    def make(options: Options, arguments: list[str], paths: Paths) -> Invocation:
        return Compose(invocation.options, options, arguments, paths)

    sys.stdout.flush()
    return run_command(commands.load(row), f"orlop compose {word}", rest, debug=False, make=make)


def _commands() -> str:
    return "\n".join(f"  {word:<10}{summary}" for word, (_, _, summary) in sorted(ROWS.items()))


COMPOSE = Command(
    _compose,
    f"Define and run applications of several containers\n\nCommands:\n{_commands()}",
    "[OPTIONS] COMMAND",
    flags=GLOBAL_FLAGS,
    arguments=(0, None),
    interspersed=False,
)
