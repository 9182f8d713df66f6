"""The environment of a process: the flags --env and --env-file, and files of lines NAME=value."""

from __future__ import annotations

import os

from ....spec.errors import Invalid
from ..values import of_caller

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..flags import Options

ENV_FILE_BYTES_MAX = 1 << 20


def environment(options: Options) -> tuple[str, ...]:
    """Return the variables of --env-file, then those of -e, which are stronger."""
    form = options["env-file-format"]
    return (*(line for path in options["env-file"] for line in read_env_file(path, form)), *options["env"])


def read_env_file(path: str, form: str = "") -> list[str]:
    """Return the variables of one file. Raises Invalid.

    form: as docker, Compose or a shell reads it. "": as docker, NAME=value or NAME in each line, # begins a comment,
    with a warning where Compose would read something else.
    """
    data = _read("env file", path)
    if form in ("", "docker"):
        lines = _lines(f"env file {path}", data)
        found = [_of_environment(line) for line in lines if "=" in line or line in os.environ]
        if not form:
            from . import envfiles

            envfiles.warn_if_they_differ(path, data, found, os.environ)
        return found
    from . import envfiles

    if form not in envfiles.FORMATS:
        hint = f"use one of {', '.join(envfiles.FORMATS)}"
        raise Invalid("read", f"env file {path}", f"there is no format {form[:60]!r}", hint=hint)
    return (envfiles.as_compose if form == envfiles.COMPOSE else envfiles.as_shell)(path, data, os.environ)


def _of_environment(line: str) -> str:
    return line if "=" in line else f"{line}={of_caller(line)}"


def read_lines(what: str, path: str) -> list[str]:
    """Return the lines of a file of NAME=value or NAME, without comments. what: the kind of file, for errors.

    Raises Invalid.
    """
    return _lines(f"{what} {path}", _read(what, path))


def _read(what: str, path: str) -> bytes:
    subject = f"{what} {path}"
    try:
        with open(path, "rb") as file:
            data = file.read(ENV_FILE_BYTES_MAX + 1)
    except OSError as wrong:
        hint = "name a file with one NAME=value in each line"
        raise Invalid("read", subject, reason(wrong), hint=hint) from None
    if len(data) > ENV_FILE_BYTES_MAX:
        raise Invalid("read", subject, f"it is larger than {ENV_FILE_BYTES_MAX} bytes", hint="name a smaller file")
    return data


def _lines(subject: str, data: bytes) -> list[str]:
    lines = (
        _checked_line(subject, number, raw)
        for number, raw in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1)
    )
    return [line for line in lines if line]


def _checked_line(subject: str, number: int, raw: bytes) -> str:
    """Return a line without its indentation, "" for a comment."""
    try:
        line = raw.decode().removesuffix("\r").lstrip()
    except UnicodeDecodeError:
        raise Invalid("read", subject, f"line {number} is not UTF-8", hint="save the file as UTF-8") from None
    if not line or line.startswith("#"):
        return ""
    name = line.partition("=")[0]
    if not name or name != "".join(name.split()) or "\0" in line:
        cause = f"variable '{name}' contains whitespaces" if name else f"no variable name on line '{line}'"
        raise Invalid("read", subject, cause, hint=f"correct line {number}: NAME=value")
    return line


def reason(wrong: OSError) -> str:
    """Return the kernel's words, as docker's client writes them."""
    return (wrong.strerror or str(wrong)).lower()
