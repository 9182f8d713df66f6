"""From logical lines to instructions and stages. Variables stay as they are written: `compile` replaces them."""

from __future__ import annotations

import re

from orlop.image.changes import duration_ns, retries
from orlop.image.expand import pairs, split
from orlop.spec.health import Healthcheck as HealthcheckConfig

from . import instructions as kinds
from .fields import Flags, command_and_flags, first_word, json_or_words, json_words, words
from .lines import RECIPES, TEMPLATES, Heredoc, Line, language_of, parse_heredoc, read_lines
from .source import Source, suggestion

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Parse = Callable[["_Line"], kinds.Instruction]

STAGES_MAX = 2000
_STAGE_NAME = re.compile(r"[a-z][a-z0-9_.-]*")
_HEALTH_DURATIONS = {
    "interval": "interval",
    "timeout": "timeout",
    "start-period": "start_period",
    "start-interval": "start_interval",
}


def parse(
    data: bytes | str, name: str = "Dockerfile", compose: Callable[[Source, str], Source] | None = None
) -> kinds.Dockerfile:
    """Return the Dockerfile that this text is. compose: makes one of a text in another language.

    Raises DockerfileError, and Invalid for what is no text at all.
    """
    source = Source.decode(data.encode(errors="surrogatepass") if isinstance(data, str) else data, name)
    language = language_of(source)
    if compose is not None and language in (TEMPLATES, RECIPES):
        source = compose(source, language)
    read = read_lines(source)
    global_args: list[kinds.Arg] = []
    stages: list[tuple[kinds.From, list[kinds.Instruction]]] = []
    for line in read.lines:
        instruction = parse_line(source, line, read.directives.escape)
        if isinstance(instruction, kinds.From):
            stages.append((instruction, []))
        elif stages:
            stages[-1][1].append(instruction)
        elif isinstance(instruction, kinds.Arg):
            global_args.append(instruction)
        else:
            source.wrong(
                line.lines, "no build stage in current context", hint="begin with FROM; only ARG may precede it"
            )
    if not stages:
        last = read.lines[-1].lines
        source.wrong(last, "no build stage in current context", hint="add FROM")
    if len(stages) > STAGES_MAX:
        source.wrong(stages[STAGES_MAX][0].lines, f"it has more than {STAGES_MAX} stages")
    return kinds.Dockerfile(
        source=source,
        directives=read.directives,
        global_args=tuple(global_args),
        stages=tuple(
            kinds.Stage(index=index, base=base, instructions=tuple(following))
            for index, (base, following) in enumerate(stages)
        ),
    )


def parse_line(source: Source, line: Line, escape: str) -> kinds.Instruction:
    """Return the instruction that a line is. Raises DockerfileError."""
    parser = _PARSERS.get(line.word.upper())
    if parser is None:
        cause = f"unknown instruction: {line.word[:80]}{suggestion(line.word, list(_PARSERS))}"
        source.unparsed(line.lines, cause, hint="instructions are " + ", ".join(sorted(_PARSERS)))
    try:
        return parser(_Line(line, escape))
    except ValueError as wrong:
        return source.unparsed(line.lines, str(wrong))


def parse_trigger(trigger: str, source: Source) -> kinds.Instruction:
    """Return the instruction of an image's ONBUILD. source: what the image is called. Raises DockerfileError."""
    inner = Source(source.name, trigger)
    lines = read_lines(inner).lines
    if len(lines) != 1:
        inner.wrong(lines[-1].lines, "an ONBUILD trigger is one instruction")
    instruction = parse_line(inner, lines[0], "\\")
    if isinstance(instruction, kinds.From | kinds.Maintainer | kinds.OnBuild):
        inner.unparsed(lines[0].lines, f"{instruction.name} isn't allowed as an ONBUILD trigger")
    return instruction


class _Line:
    """A line, its flags, and what every record of an instruction is made with."""

    __slots__ = ("common", "escape", "flags", "line", "rest")

    def __init__(self, line: Line, escape: str) -> None:
        self.line = line
        self.escape = escape
        self.rest = line.rest
        self.flags = Flags(line.flags)
        self.common: dict[str, Any] = {
            "word": line.word,
            "original": line.original,
            "lines": line.lines,
            "comments": line.comments,
            "empty_continuation": line.empty_continuation,
            "heredocs": line.heredocs,
        }

    @property
    def name(self) -> str:
        return self.line.word.upper()

    def one(self) -> str:
        """Return the single argument of an instruction without flags."""
        if not self.rest:
            raise ValueError(f"{self.name} requires exactly one argument")
        self.flags.done()
        return self.rest


def _from(line: _Line) -> kinds.From:
    given = words(line.rest)
    platform = line.flags.text("platform")
    line.flags.done()
    if len(given) == 3 and given[1].lower() == "as":
        stage = given[2].lower()
        if not _STAGE_NAME.fullmatch(stage):
            raise ValueError(
                f'invalid name for build stage: "{given[2]}", name can\'t start with a number or contain symbols'
            )
        return kinds.From(
            image=given[0],
            platform=platform,
            stage=stage,
            stage_as_written=given[2],
            keyword=given[1],
            **line.common,
        )
    if len(given) != 1:
        raise ValueError("FROM requires either one or three arguments")
    return kinds.From(image=given[0], platform=platform, **line.common)


def _arg(line: _Line) -> kinds.Arg:
    line.flags.done()
    arguments: list[tuple[str, str | None]] = []
    for word in split(line.rest, line.escape):
        name, equals, value = word.partition("=")
        if not name:
            raise ValueError("ARG names can not be blank")
        arguments.append((name, value if equals else None))
    if not arguments:
        raise ValueError("ARG requires at least one argument")
    return kinds.Arg(arguments=tuple(arguments), **line.common)


def _env(line: _Line) -> kinds.Env:
    line.flags.done()
    found, legacy = pairs("ENV", line.rest, line.escape)
    return kinds.Env(pairs=found, legacy=legacy, **line.common)


def _label(line: _Line) -> kinds.Label:
    line.flags.done()
    found, legacy = pairs("LABEL", line.rest, line.escape)
    return kinds.Label(pairs=found, legacy=legacy, **line.common)


def _command(line: _Line) -> dict[str, Any]:
    found = json_words(line.rest)
    shell = (line.rest,) if line.rest else ()
    return {"words": shell if found is None else found, "is_json": found is not None, **line.common}


def _cmd(line: _Line) -> kinds.Cmd:
    line.flags.done()
    return kinds.Cmd(**_command(line))


def _entrypoint(line: _Line) -> kinds.Entrypoint:
    line.flags.done()
    return kinds.Entrypoint(**_command(line))


def _shell(line: _Line) -> kinds.Shell:
    line.flags.done()
    shell = kinds.Shell(**_command(line))
    if not shell.words:
        raise ValueError("SHELL requires at least one argument")
    if not shell.is_json:
        raise ValueError("SHELL requires the arguments to be in JSON form")
    return shell


def _run(line: _Line) -> kinds.Run:
    mounts, devices = line.flags.texts("mount"), line.flags.texts("device")
    network, security = line.flags.text("network"), line.flags.text("security")
    line.flags.done()
    if network not in ("", "default", "none", "host"):
        raise ValueError(f'invalid network mode: "{network}"{suggestion(network, ["default", "none", "host"])}')
    if security not in ("", "sandbox", "insecure"):
        raise ValueError(f'security "{security}" is not valid{suggestion(security, ["sandbox", "insecure"])}')
    run = kinds.Run(mounts=mounts, devices=devices, network=network, security=security, **_command(line))
    if not run.words or run.words == ("",):
        raise ValueError("RUN requires at least one argument")
    return run


def _sources(line: _Line) -> dict[str, Any]:
    given = json_or_words(line.rest)
    if len(given) < 2:
        raise ValueError(
            f"{line.name} requires at least two arguments, but only one was provided. "
            "Destination could not be determined."
        )
    *sources, destination = given
    documents: tuple[Heredoc, ...] = line.line.heredocs
    if documents and parse_heredoc(destination):
        raise ValueError(f"{line.name} cannot accept a heredoc as a destination")
    if documents:
        sources = [source for source in sources if not parse_heredoc(source)]
    return {
        "sources": tuple(sources),
        "destination": destination,
        "chown": line.flags.text("chown"),
        "chmod": line.flags.text("chmod"),
        "link": bool(line.flags.boolean("link")),
        "exclude": line.flags.texts("exclude"),
        **line.common,
    }


def _copy(line: _Line) -> kinds.Copy:
    source_stage = line.flags.text("from")
    parents = bool(line.flags.boolean("parents"))
    fields = _sources(line)
    line.flags.done()
    return kinds.Copy(source_stage=source_stage, parents=parents, **fields)


def _add(line: _Line) -> kinds.Add:
    fields = _sources(line)
    fields |= {
        "checksum": line.flags.text("checksum"),
        "keep_git_dir": line.flags.boolean("keep-git-dir"),
        "unpack": line.flags.boolean("unpack"),
    }
    line.flags.done()
    return kinds.Add(**fields)


def _expose(line: _Line) -> kinds.Expose:
    line.flags.done()
    ports = words(line.rest)
    if not ports:
        raise ValueError("EXPOSE requires at least one argument")
    return kinds.Expose(ports=ports, **line.common)


def _volume(line: _Line) -> kinds.Volume:
    line.flags.done()
    paths = json_or_words(line.rest)
    if not paths:
        raise ValueError("VOLUME requires at least one argument")
    if not all(path.strip() for path in paths):
        raise ValueError("VOLUME specified can not be an empty string")
    return kinds.Volume(paths=tuple(path.strip() for path in paths), **line.common)


def _user(line: _Line) -> kinds.User:
    return kinds.User(user=line.one(), **line.common)


def _workdir(line: _Line) -> kinds.Workdir:
    return kinds.Workdir(path=line.one(), **line.common)


def _stopsignal(line: _Line) -> kinds.StopSignal:
    return kinds.StopSignal(signal=line.one(), **line.common)


def _maintainer(line: _Line) -> kinds.Maintainer:
    return kinds.Maintainer(maintainer=line.one(), **line.common)


def _healthcheck(line: _Line) -> kinds.Healthcheck:
    kind, rest = first_word(line.rest)
    if not kind:
        raise ValueError("HEALTHCHECK requires at least one argument")
    if kind.upper() == "NONE":
        line.flags.done()
        if rest:
            raise ValueError("HEALTHCHECK NONE takes no arguments")
        return kinds.Healthcheck(health=HealthcheckConfig(test=("NONE",)), **line.common)
    given = {field: line.flags.text(flag) for flag, field in _HEALTH_DURATIONS.items()}
    tries = line.flags.text("retries")
    line.flags.done()
    if kind.upper() != "CMD":
        raise ValueError(f'Unknown type "{kind.upper()}" in HEALTHCHECK (try CMD)')
    found = json_words(rest)
    if found == () or not rest:
        raise ValueError("Missing command after HEALTHCHECK CMD")
    durations = {field: duration_ns(field.replace("_", "-"), text) for field, text in given.items() if text}
    test = ("CMD-SHELL", rest) if found is None else ("CMD", *found)
    return kinds.Healthcheck(health=HealthcheckConfig(test=test, retries=retries(tries), **durations), **line.common)


def _onbuild(line: _Line) -> kinds.OnBuild:
    line.flags.done()
    word, _, _ = command_and_flags(line.rest)
    if not word:
        raise ValueError("ONBUILD requires at least one argument")
    if word.upper() == "ONBUILD":
        raise ValueError("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if word.upper() in ("MAINTAINER", "FROM"):
        raise ValueError(f"{word.upper()} isn't allowed as an ONBUILD trigger")
    documents = "".join(f"\n{heredoc.content}{heredoc.name}" for heredoc in line.line.heredocs)
    return kinds.OnBuild(trigger=line.rest + documents, **line.common)


_PARSERS: dict[str, Parse] = {
    "ADD": _add,
    "ARG": _arg,
    "CMD": _cmd,
    "COPY": _copy,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "FROM": _from,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "MAINTAINER": _maintainer,
    "ONBUILD": _onbuild,
    "RUN": _run,
    "SHELL": _shell,
    "STOPSIGNAL": _stopsignal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
