"""What a command is, and what it gets: its row of facts, the parsed command line, the way to the engine."""

from __future__ import annotations

import os
import sys

from .flags import EXIT_USAGE, HELP, Flag, Options, UsageError, escape, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from ...spec.paths import Paths
    from ..native.client import Engine

    Action = Callable[["Invocation"], int]


class Command:
    """The facts of one command.

    action: does it and returns the exit status. usage: what follows the name ("[OPTIONS] IMAGE").
    arguments: the fewest and the most arguments; None is no limit. instead: flags that each save the first of them.
    interspersed: flags may follow arguments.
    aliases: all full names without the program's. refused: flags of docker's that are not there yet.
    exit_failure: the status when the engine refuses. passes_command_status: but 126 and 127 when the container's own
    command can't be executed.
    """

    __slots__ = (
        "action", "aliases", "arguments", "exit_failure", "flags", "instead", "interspersed", "passes_command_status",
        "refused", "summary", "usage",
    )  # fmt: skip

    def __init__(
        self,
        action: Action,
        summary: str,
        usage: str,
        *,
        flags: Sequence[Flag] = (),
        arguments: tuple[int, int | None] = (0, 0),
        instead: str = "",
        interspersed: bool = True,
        aliases: tuple[str, ...] = (),
        refused: Collection[str] = (),
        exit_failure: int = EXIT_USAGE,
        passes_command_status: bool = False,
    ) -> None:
        self.action = action
        self.summary = summary
        self.usage = usage
        self.flags = (*flags, *(() if any(flag.name == HELP.name for flag in flags) else (HELP,)))
        self.arguments = arguments
        self.instead = instead
        self.interspersed = interspersed
        self.aliases = aliases
        self.refused = refused
        self.exit_failure = exit_failure
        self.passes_command_status = passes_command_status

    def parse(self, words: Sequence[str]) -> tuple[Options, list[str]]:
        return parse(words, self.flags, interspersed=self.interspersed, refused=self.refused)

    def check_arguments(self, name: str, arguments: Sequence[str], options: Options) -> None:
        """Raise UsageError, in docker's words, when there are too few or too many."""
        fewest, most = self.arguments
        if options.given.intersection(self.instead.split()):
            fewest -= 1
        if len(arguments) >= fewest and (most is None or len(arguments) <= most):
            return
        if most == 0:
            wanted = "accepts no arguments"
        elif fewest == most:
            wanted = f"requires {_counted(fewest)}"
        elif len(arguments) < fewest:
            wanted = f"requires at least {_counted(fewest)}"
        else:
            wanted = f"requires at most {_counted(most or 0)}"
        raise UsageError(f"orlop: '{name}' {wanted}", code=EXIT_USAGE)


class Invocation:
    """One command line that was understood."""

    __slots__ = ("arguments", "options", "paths")

    def __init__(self, options: Options, arguments: list[str], paths: Paths) -> None:
        self.options = options
        self.arguments = arguments
        self.paths = paths

    def connect(self, *, start: bool = True) -> Engine:
        """Return a connection to the engine, which is started when none runs."""
        from ..native.client import connect

        return connect(self.paths, start=start)


def write(text: str) -> None:
    """Print text to standard output as it is."""
    sys.stdout.write(text)


def write_line(text: str) -> None:
    """Print one line at once: somebody may wait for it."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def warn(text: str) -> None:
    """Print one line to standard error, safe to show on a terminal."""
    sys.stderr.write(f"{visible(text) if os.isatty(2) else text}\n")


def visible(text: str) -> str:
    """Return the text with everything escaped that could steer a terminal (SEC-78); line breaks and tabs stay.

    Unprintable is what Unicode calls control, format (bidirectional overrides), surrogate, private or unassigned.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else escape(c) for c in text)


def for_output(text: str) -> str:
    """Return the text as standard output may show it: `visible` on a terminal, unchanged for a program."""
    return visible(text) if sys.stdout.isatty() else text


def _counted(number: int) -> str:
    return f"{number} argument" if number == 1 else f"{number} arguments"
