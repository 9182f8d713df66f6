"""Help texts in docker's layout. Imported only when help, or a usage line, is to be printed."""

from __future__ import annotations

import os

from .commands import COMMANDS, COMMON, GROUPS, Row
from .flags import Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .command import Command

COLUMNS_DEFAULT = 80
COLUMNS_TEXT_MIN = 24
_DEFAULT = "default "  # a text that says it in its own words
SLOP = 5  # a line may be this much longer when the text then ends with it


def usage_line(name: str, command: Command) -> str:
    return f"Usage:  {name} {command.usage}".rstrip()


def of_command(name: str, command: Command) -> str:
    """Return the help of one command. name is how it was called ("orlop container ls")."""
    parts = [usage_line(name, command), command.summary]
    if command.aliases:
        parts.append("Aliases:\n  " + ", ".join(f"orlop {alias}" for alias in command.aliases))
    if any(flag.name != "help" for flag in command.flags):
        parts.append("Options:\n" + of_flags(command.flags, columns()))
    return "\n\n".join(parts) + "\n"


def of_group(name: str) -> str:
    """Return the help of a group of commands ("container")."""
    summary, rows = GROUPS[name]
    return (
        f"Usage:  orlop {name} COMMAND\n\n{summary}\n\nCommands:\n{_rows(rows)}\n\n"
        f"Run 'orlop {name} COMMAND --help' for more information on a command.\n"
    )


def of_program(flags: tuple[Flag, ...]) -> str:
    """Return the help of the program; flags are the global ones."""
    groups = {word: ("", "", summary) for word, (summary, _) in GROUPS.items()}
    return (
        "Usage:  orlop [OPTIONS] COMMAND\n\nRun containers without a root daemon\n\n"
        f"Common Commands:\n{_rows(COMMON)}\n\nManagement Commands:\n{_rows(groups)}\n\n"
        f"Commands:\n{_rows(COMMANDS)}\n\n"
        f"Global Options:\n{of_flags(flags, columns())}\n\n"
        "Run 'orlop COMMAND --help' for more information on a command.\n"
    )


def of_flags(flags: tuple[Flag, ...], width: int) -> str:
    """Return the table of flags: sorted, wrapped to width columns, --help only where nothing else stands."""
    shown = sorted((flag for flag in flags if not flag.hidden and flag.name != "help"), key=lambda flag: flag.name)
    heads = [_head(flag) for flag in shown]
    left = max(map(len, heads), default=0) + 3
    lines = [head.ljust(left) + wrap(_text(flag), left, width) for head, flag in zip(heads, shown, strict=True)]
    return "\n".join(lines)


def wrap(text: str, indent: int, width: int) -> str:
    """Break the text at blanks into lines between indent and width; the first line is taken to be indented already."""
    room = width - indent - SLOP
    lines = []
    while text:
        line, text = _cut(text, room) if room > COLUMNS_TEXT_MIN - SLOP else (text, "")
        lines += line.split("\n")
    return ("\n" + " " * indent).join(lines)


def columns() -> int:
    try:
        return os.get_terminal_size(1).columns - 1
    except OSError:
        return COLUMNS_DEFAULT - 1


def _cut(text: str, room: int) -> tuple[str, str]:
    """Return the next line and the rest. A break in the text itself counts only when it is the last one in reach."""
    if len(text) < room + SLOP:
        return text, ""
    newline = text.rfind("\n", 0, room)
    end = max(text.rfind(" ", 0, room), newline)
    if end <= 0:
        return text, ""
    if 0 < newline < end:
        end = newline
    return text[:end], text[end + 1 :]


def _head(flag: Flag) -> str:
    short = f"  -{flag.short}, " if flag.short else "      "
    return f"{short}--{flag.name} {flag.kind.name}".rstrip()


def _text(flag: Flag) -> str:
    if flag.default in (None, False, "", 0, ()) or isinstance(flag.default, bytes) or _DEFAULT in flag.help:
        return flag.help
    default = f'"{flag.default}"' if isinstance(flag.default, str) else str(flag.default).lower()
    return f"{flag.help} (default {default})"


def _rows(rows: dict[str, Row]) -> str:
    left = max(map(len, rows)) + 3
    return "\n".join(f"  {word.ljust(left)}{summary}" for word, (_, _, summary) in sorted(rows.items()))
