"""Images described in Python: a `build.py` that begins with `# syntax=orlop/python` (docs/dockerfile.md).

    # syntax=orlop/python
    from orlop.recipe import Cache, arg, stage

    made = stage("debian:12", name="made")
    for tool in ("gcc", "make"):
        made.run(f"apt-get install -y {tool}", mounts=[Cache("/var/cache/apt")])
    made.copy("src/", to="/src/")
    final = stage("scratch")
    final.copy("/src/app", to="/app", source=made)
    final.cmd(["/app"])

What stages are told becomes instructions of a Dockerfile, each of the line that said it: the last stage is the image,
what it does not need is not built. Texts mean themselves; a `$` that the builder shall replace stands in `Expanded`.
The engine executes the file in a container without network, with no files but this module and the standard library:
so this module imports nothing of ours. A recipe knows the build's arguments (`arg`) and the context's files (`read`).
"""

from __future__ import annotations

import builtins
import json
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import NoReturn, TypedDict, Unpack

    Words = Sequence[str]

    class CopyOptions(TypedDict, total=False):
        """The flags of COPY."""

        chown: str
        chmod: str
        link: bool
        parents: bool
        exclude: Iterable[str]

    class AddOptions(TypedDict, total=False):
        """The flags of ADD."""

        chown: str
        chmod: str
        checksum: str
        link: bool
        keep_git_dir: bool
        unpack: bool
        exclude: Iterable[str]


__all__ = ["Bind", "Cache", "Expanded", "Mount", "Secret", "Ssh", "Stage", "Tmpfs", "arg", "read", "stage"]

# What a build.py may import: nothing that tells of the time, of chance, or of the machine.
MODULES = frozenset(
    "__future__ abc base64 bisect collections colorsys configparser contextlib copy csv dataclasses enum fnmatch "
    "fractions functools hashlib heapq html io itertools json math numbers operator orlop posixpath re shlex string "
    "statistics struct textwrap tomllib types typing unicodedata".split()
)
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:=@%+,~*?")


class Expanded(str):
    """A text whose `$NAME` and `${NAME}` the builder replaces."""

    __slots__ = ()


class Mount:
    """One mount of a `run`."""

    def __init__(self, kind: str, fields: Mapping[str, str | int | bool | Stage | None]) -> None:
        given = [("type", kind), *((name, value) for name, value in fields.items() if value not in (None, "", False))]
        self._text = ",".join(f"{name}={_field(value)}" for name, value in given)

    def __str__(self) -> str:
        return self._text


class Bind(Mount):
    """A part of another tree. What is written to it (rw) is thrown away."""

    def __init__(self, target: str, *, source: str = "", tree: Stage | str = "", rw: bool = False) -> None:
        super().__init__("bind", {"target": target, "source": source, "from": tree, "rw": rw})


class Cache(Mount):
    """A directory that stays between builds."""

    def __init__(
        self,
        target: str,
        *,
        id: str = "",
        sharing: str = "",
        tree: Stage | str = "",
        source: str = "",
        readonly: bool = False,
    ) -> None:
        fields = {"target": target, "id": id, "sharing": sharing, "from": tree, "source": source, "ro": readonly}
        super().__init__("cache", fields)


class Tmpfs(Mount):
    """Memory."""

    def __init__(self, target: str, *, size: str = "") -> None:
        super().__init__("tmpfs", {"target": target, "size": size})


class Secret(Mount):
    """A secret of --secret, as a file or a variable."""

    def __init__(self, id: str, *, target: str = "", env: str = "", required: bool = False) -> None:
        super().__init__("secret", {"id": id, "target": target, "env": env, "required": required})


class Ssh(Mount):
    """An SSH agent of --ssh."""

    def __init__(self, id: str = "", *, target: str = "", required: bool = False) -> None:
        super().__init__("ssh", {"id": id, "target": target, "required": required})


class Stage:
    """One stage. Its verbs are the instructions, in the order in which they are called."""

    def __init__(self, number: int, name: str) -> None:
        self.reference = name or str(number)  # what others call it
        self._lines: list[tuple[str, int]] = []

    def run(
        self,
        command: str | Words,
        *,
        mounts: Iterable[Mount] = (),
        network: str = "",
        security: str = "",
        devices: Iterable[str] = (),
    ) -> Stage:
        """Execute a command: of the shell, or, as a list, without one. A text of several lines is one script."""
        flags = [("mount", str(mount)) for mount in mounts]
        flags += [("network", network), ("security", security), *(("device", one) for one in devices)]
        if isinstance(command, str) and "\n" in command:
            return self._add("RUN", flags, *_heredoc(command))
        return self._add("RUN", flags, _command(command))

    def copy(self, *sources: str, to: str, source: Stage | str = "", **options: Unpack[CopyOptions]) -> Stage:
        """Copy files of the context, or of another stage or image (source)."""
        return self._add("COPY", [("from", _field(source) if source else ""), *_flags(options)], _paths((*sources, to)))

    def add(self, *sources: str, to: str, **options: Unpack[AddOptions]) -> Stage:
        """Copy files, unpacked archives, URLs and repositories."""
        return self._add("ADD", _flags(options), _paths((*sources, to)))

    def file(self, path: str, text: str, *, chown: str = "", chmod: str = "") -> Stage:
        """Write a file with this text, which ends with a new line."""
        first, *rest = _heredoc(text, raw=not isinstance(text, Expanded))
        return self._add("COPY", [("chown", chown), ("chmod", chmod)], f"{first} {_word(path)}", *rest)

    def env(self, values: Mapping[str, str] | None = None, **more: str) -> Stage:
        """Set variables of what runs here and of the image."""
        return self._pairs("ENV", {**(values or {}), **more})

    def label(self, values: Mapping[str, str] | None = None, **more: str) -> Stage:
        """Label the image."""
        return self._pairs("LABEL", {**(values or {}), **more})

    def arg(self, name: str, default: str | None = None) -> str:
        """Have commands see a build argument; return its value, "" where there is none."""
        self._add("ARG", [], name if default is None else f"{name}={_word(default)}")
        return _recipe.arguments.get(name, default or "")

    def workdir(self, path: str) -> Stage:
        return self._add("WORKDIR", [], _escaped(path))

    def user(self, user: str) -> Stage:
        return self._add("USER", [], _escaped(user))

    def expose(self, *ports: str | int) -> Stage:
        return self._add("EXPOSE", [], " ".join(_word(str(port)) for port in ports))

    def volume(self, *paths: str) -> Stage:
        return self._add("VOLUME", [], json.dumps([_escaped(path) for path in paths]))

    def stopsignal(self, signal: str) -> Stage:
        return self._add("STOPSIGNAL", [], _escaped(signal))

    def shell(self, command: Words) -> Stage:
        """Set what executes the texts of `run`, `cmd` and `entrypoint`."""
        return self._add("SHELL", [], json.dumps(list(command)))

    def cmd(self, command: str | Words) -> Stage:
        return self._add("CMD", [], _command(command))

    def entrypoint(self, command: str | Words) -> Stage:
        return self._add("ENTRYPOINT", [], _command(command))

    def healthcheck(
        self,
        command: str | Words | None,
        *,
        interval: str = "",
        timeout: str = "",
        start_period: str = "",
        start_interval: str = "",
        retries: int | None = None,
    ) -> Stage:
        """Say how the image's health is looked at; None is not at all."""
        if command is None:
            return self._add("HEALTHCHECK", [], "NONE")
        flags = [("interval", interval), ("timeout", timeout), ("start-period", start_period)]
        flags += [("start-interval", start_interval), ("retries", "" if retries is None else str(retries))]
        return self._add("HEALTHCHECK", flags, f"CMD {_command(command)}")

    def onbuild(self, instruction: str) -> Stage:
        """Have an instruction of a Dockerfile be done by who builds on the image."""
        return self._add("ONBUILD", [], _one_line(instruction))

    def _pairs(self, word: str, values: Mapping[str, str]) -> Stage:
        return self._add(word, [], " ".join(f"{_word(name)}={_word(value)}" for name, value in values.items()))

    def _add(self, word: str, flags: Sequence[tuple[str, str | bool]], text: str, *more: str) -> Stage:
        if not text:
            raise ValueError(f"{word} needs something")
        given = [f"--{name}" if value is True else f"--{name}={_flag(str(value))}" for name, value in flags if value]
        line = _caller()
        self._lines += [(_one_line(" ".join([word, *given, text])), line), *((part, line) for part in more)]
        return self


class _Recipe:
    """All that one build.py says. answers: the descriptor that the engine reads."""

    def __init__(self) -> None:
        self.answers = 1
        self.arguments: dict[str, str] = {}
        self.files: dict[str, str | None] = {}
        self.script = ""
        self.head: list[tuple[str, int]] = []
        self.stages: list[tuple[list[tuple[str, int]], Stage]] = []

    def lines(self) -> list[tuple[str, int]]:
        """Return the lines of the Dockerfile, each with the line that said it."""
        found = list(self.head)
        for first, one in self.stages:
            found += [*first, *one._lines]
        return found


_recipe = _Recipe()


def stage(base: Stage | str, *, name: str = "", platform: str = "") -> Stage:
    """Begin a stage on an image, on another stage, or on "scratch"."""
    made = Stage(len(_recipe.stages), name)
    if isinstance(base, Stage) and base.reference.isdecimal():
        raise ValueError("a stage that others stand on needs a name: stage(..., name=...)")
    flag = f"--platform={_flag(platform)} " if platform else ""
    text = f"FROM {flag}{_field(base)}{f' AS {name}' if name else ''}"
    _recipe.stages.append(([(_one_line(text), _caller())], made))
    return made


def arg(name: str, default: str = "") -> str:
    """Return a build argument (--build-arg), or a platform's: TARGETARCH and its like."""
    if name not in _recipe.arguments or not name.startswith(("TARGET", "BUILD")):
        _recipe.head.append((f"ARG {name}={_word(default)}" if default else f"ARG {name}", _caller()))
    return _recipe.arguments.get(name, default)


def read(path: str) -> str:
    """Return a text file of the context. Raises FileNotFoundError."""
    if path not in _recipe.files:
        _answer({"wanted": path})
    text = _recipe.files[path]
    if text is None:
        raise FileNotFoundError(f"there is no file {path} in the context")
    return text


# -- texts ------------------------------------------------------------------------------------------------------------


def _caller() -> int:
    """Return the line of the build.py that is being executed."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename != _recipe.script:
        frame = frame.f_back  # type: ignore[assignment]
    return frame.f_lineno if frame is not None else 0


def _one_line(text: str) -> str:
    if "\n" in text or "\r" in text or "\0" in text:
        raise ValueError(f"a line break has no place in {text[:60]!r}")
    return text


def _escaped(text: str) -> str:
    """Return a text that the builder's expansion leaves as it is."""
    return str(text) if isinstance(text, Expanded) else text.replace("\\", "\\\\").replace("$", "\\$")


def _word(text: str) -> str:
    """Return a text as one word of an instruction."""
    if text and _PLAIN.issuperset(text) and not text.startswith("<<"):
        return text
    return '"' + _escaped(text).replace('"', '\\"') + '"'


def _flag(text: str) -> str:
    """Return a text as a flag's value: backslashes and quotation marks are taken off a flag once."""
    return text if _PLAIN.issuperset(text) else "".join(f"\\{one}" if one in "\\'\" \t" else one for one in text)


def _flags(options: Mapping[str, object]) -> list[tuple[str, str | bool]]:
    """Return what the options of COPY and ADD are called there. Raises TypeError for one that is none."""
    found: list[tuple[str, str | bool]] = []
    for name, value in options.items():
        if name == "exclude" and not isinstance(value, str) and hasattr(value, "__iter__"):
            found += [("exclude", str(one)) for one in value]
        elif isinstance(value, str | bool):
            found.append((name.replace("_", "-"), ("true" if value else "false") if name == "unpack" else value))
        else:
            raise TypeError(f"{name}={value!r} is neither a text nor true or false")
    return found


def _field(value: str | int | bool | Stage | None) -> str:
    if isinstance(value, Stage):
        return value.reference
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def _paths(paths: Sequence[str]) -> str:
    if all(path and _PLAIN.issuperset(path) for path in paths):
        return " ".join(paths)
    return json.dumps([_escaped(path) for path in paths])


def _command(command: str | Words) -> str:
    if not isinstance(command, str):
        return json.dumps(list(command))
    if command.lstrip().startswith(("[", "<<", "--")):
        raise ValueError(f"{command[:60]!r} would be read as something else: give a list")
    return _one_line(command.rstrip("\\"))


def _heredoc(text: str, *, raw: bool = False) -> tuple[str, ...]:
    """Return a here-document's first word and its lines. raw: nothing in it is replaced."""
    lines = text.removesuffix("\n").split("\n")
    word = "EOF"
    while word in lines:
        word += "_"
    return (f'<<"{word}"' if raw else f"<<{word}", *lines, word)


# -- in the engine's container ----------------------------------------------------------------------------------------


def _answer(told: Mapping[str, object]) -> NoReturn:
    data = memoryview(json.dumps(told).encode())
    while data:
        data = data[os.write(_recipe.answers, data) :]
    os._exit(0)


def _guarded(import_module: Callable[..., object]) -> Callable[..., object]:
    def guarded(name: str, globals: Mapping[str, object] | None = None, *more: object, **named: object) -> object:
        is_recipe = globals is not None and globals.get("__file__") == _recipe.script
        if is_recipe and name.partition(".")[0] not in MODULES:
            raise ImportError(
                f"{name} is not there: a recipe knows the build's arguments and the context's files alone"
            )
        return import_module(name, globals, *more, **named)

    return guarded


def _refused(*_: object, **__: object) -> NoReturn:
    raise PermissionError("a recipe opens no files: orlop.recipe.read returns one of the context")


def main(script: str, given: str) -> NoReturn:
    """Execute a build.py and answer with its lines, the file that it wants, or what is wrong with it.

    given: a file with {arguments, files}. What is refused here keeps the answer the same; the container keeps it in.
    """
    import runpy
    import traceback

    with open(given) as file:
        told = json.load(file)
    _recipe.script, _recipe.arguments, _recipe.files = script, told["arguments"], told["files"]
    _recipe.answers = os.dup(1)
    os.dup2(2, 1)  # what a recipe prints is not the answer
    builtins.__import__ = _guarded(builtins.__import__)  # type: ignore[assignment]
    builtins.open = _refused
    try:
        runpy.run_path(script, run_name="__main__")
    except BaseException as wrong:
        lines = [one.lineno for one in traceback.extract_tb(wrong.__traceback__) if one.filename == script]
        line = lines[-1] if lines else getattr(wrong, "lineno", None)
        cause = "".join(traceback.format_exception_only(wrong)).strip().splitlines()[-1]
        _answer({"wrong": cause, "line": line or 1})
    _answer({"lines": _recipe.lines()})
