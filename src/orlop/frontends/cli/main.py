"""The command line's entry: global flags, the way to a command, and the one place where errors become text and status.

What a failure prints, on standard error: `orlop: ` and the error (object and cause), then `Next: `, the next step and
the error's code.
A wrong command line prints docker's text, the usage line and where to read on.

Everything that only some commands or failures need is imported where they need it: `orlop ps` as a whole process
has a budget (tests/unit/test_cli_imports.py pins what it loads).
"""

from __future__ import annotations

import os
import sys

from ... import __version__, frozen
from ...spec.errors import OrlopError
from . import commands
from .command import Command, Invocation, visible, warn
from .flags import BOOL, EXIT_FLAGS, EXIT_USAGE, BadValue, Flag, Options, UsageError, parse, quote, suggest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ...spec.paths import Paths

EXIT_OUTPUT_CLOSED = 128 + 13  # as if killed by SIGPIPE
EXIT_INTERRUPTED = 128 + 2

GLOBAL_FLAGS = (
    Flag("debug", "D", BOOL, "Show where an error comes from", default=False),
    Flag("help", "", BOOL, "Print usage", default=False),
    Flag("version", "v", BOOL, "Print version information and quit", default=False),
)
_NOT_YET = frozenset(("host", "H", "context", "c", "config", "log-level", "l", "tls", "tlscacert", "tlscert", "tlskey"))


def entry() -> None:
    """Run the command line of this process and end the process with its status."""
    _open_missing_descriptors()
    _use_utf8()
    status = main(sys.argv[1:])
    # What a failure imports beside is no part of a verb's order.
    frozen.freeze(next((word for word in sys.argv[1:2] if not status and commands.find("", word)), ""))
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        status = EXIT_OUTPUT_CLOSED
    except OSError as wrong:
        warn(f"orlop: cannot write the output: {wrong.strerror}")
        status = status or EXIT_USAGE
    try:
        sys.stderr.flush()
    except OSError:
        pass
    os._exit(status)  # everything is written; tearing the interpreter down costs 2 ms


def _open_missing_descriptors() -> None:
    # With `<&-` or `>&-` the next socket would become standard input or output.
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or open(os.devnull, "w")
    sys.stderr = sys.stderr or open(os.devnull, "w")


def _use_utf8() -> None:
    # A label can hold any JSON string, lone surrogates too: no output may fail on it.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def main(words: list[str]) -> int:
    """Run one command line (without the program's name) and return the exit status."""
    options = Options(GLOBAL_FLAGS)
    try:
        options, rest = parse(words, GLOBAL_FLAGS, interspersed=False, refused=_NOT_YET)
        return _run(options, rest)
    except UsageError as wrong:
        _explain_usage(wrong, "Usage:  orlop [OPTIONS] COMMAND [ARG...]", "orlop")
        return wrong.code or EXIT_FLAGS
    except BrokenPipeError:
        return EXIT_OUTPUT_CLOSED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except Exception:
        if options["debug"]:
            raise
        return _confess()


def _run(options: Options, rest: list[str]) -> int:
    if options["version"]:
        sys.stdout.write(f"Orlop version {__version__}\n")
        return 0
    asked = options["help"]
    if rest and rest[0] == "help":
        asked, rest = True, rest[1:]
    if not rest:
        from . import help

        sys.stdout.write(help.of_program(GLOBAL_FLAGS))
        return 0
    first = commands.GROUP_ALIASES.get(rest[0], rest[0])
    group, rest = (first, rest[1:]) if first in commands.GROUPS else ("", rest)
    if group and (not rest or rest[0] in ("--help", "-h")):
        from . import help

        (sys.stdout if asked or rest else sys.stderr).write(help.of_group(group))  # unasked for, as docker's
        return 0
    if group == "config" and "=" in rest[0]:
        rest = ["set", *rest]
    row = commands.find(group, rest[0])
    if row is None:
        return _unknown(group, rest[0])
    name = f"orlop {group} {rest[0]}" if group else f"orlop {rest[0]}"
    command = commands.load(row)
    return run_command(command, name, ["--help"] if asked else rest[1:], options["debug"])


def run_command(
    command: Command,
    name: str,
    words: list[str],
    debug: bool,
    make: Callable[[Options, list[str], Paths], Invocation] = Invocation,
) -> int:
    """Parse the words of a command, carry it out and return the exit status; its errors are printed.

    name: how it was called ("orlop container ls"). make: what the command's action gets.
    """
    try:
        _check_encoding(words)
        options, arguments = command.parse(words)
        if options["help"]:
            from . import help

            sys.stdout.write(help.of_command(name, command))
            return 0
        command.check_arguments(name, arguments, options)
        from ...spec.paths import from_environment

        paths = from_environment(os.environ, os.geteuid())
        return command.action(make(options, arguments, paths))
    except UsageError as wrong:
        from . import help

        _explain_usage(wrong, help.usage_line(name, command), name)
        return command.exit_failure if wrong.code is None else wrong.code
    except BadValue as wrong:  # of a text that the command itself takes apart
        _explain_usage(UsageError(str(wrong), wrong.hint, shows_usage=False), "", name)
        return command.exit_failure
    except OrlopError as error:
        if debug:
            _print_traceback()
        explain(error)
        return _status(error, command)
    except BrokenPipeError:
        raise
    except OSError as wrong:
        if debug:
            _print_traceback()
        warn(f"orlop: {wrong.strerror}: {wrong.filename}" if wrong.filename else f"orlop: {wrong.strerror or wrong}")
        return command.exit_failure


def _check_encoding(words: list[str]) -> None:
    # Requests are JSON, which has no way to say a byte that is not UTF-8; docker replaces it silently.
    for word in words:
        if not word.isascii() and any("\ud800" <= c <= "\udfff" for c in word):
            raise UsageError(f"argument {quote(word)} is not UTF-8", "give it in UTF-8", shows_usage=False)


def _status(error: OrlopError, command: Command) -> int:
    # 126 and 127 (the container's command can't be executed) pass only where docker passes them.
    if error.kind == "command" and command.passes_command_status:
        return error.exit_code
    return command.exit_failure


def explain(error: OrlopError) -> None:
    """Print an error's two lines: what failed and why; the next step and the code that `orlop explain` explains."""
    from ...spec import catalog

    code = catalog.code_of(error)
    warn(f"orlop: {error}")
    warn(f"Next: {error.hint} ({code})" if error.hint else f"Next: orlop explain {code}")


def _explain_usage(wrong: UsageError, usage: str, name: str) -> None:
    warn(str(wrong))
    if wrong.hint:
        warn(f"Next: {wrong.hint}")
    if wrong.shows_usage:
        warn(f"\n{usage}\n\nRun '{name} --help' for more information")


def _unknown(group: str, word: str) -> int:
    where = f"orlop {group}" if group else "orlop"
    if (f"{group}.{word}" if group else word) in commands.NOT_YET:
        warn(f"orlop: unsupported command: {where} {word}")
        warn("Next: docker has this command, Orlop does not have it yet")
    else:
        rows = commands.GROUPS[group][1] if group else {**commands.COMMON, **commands.COMMANDS, **commands.GROUPS}
        warn(f"orlop: unknown command: {where} {word}")
        if hint := suggest(word, rows):
            warn(f"Next: {hint}")
    warn(f"\nRun '{where} --help' for more information")
    return EXIT_USAGE


def _confess() -> int:
    _print_traceback()
    warn("orlop: this is a defect of Orlop, not of your input")
    warn("Next: report the lines above")
    return 125


def _print_traceback() -> None:
    import traceback

    sys.stderr.write(visible(traceback.format_exc()))
