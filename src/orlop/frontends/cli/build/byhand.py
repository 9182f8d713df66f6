"""Building by hand, as buildah does: `orlop image from`, then add, copy, run and config step by step, then commit.

A working container is an image with a name of its own, localhost/working/NAME: each step is a build that stands on it
and gives its result the name. So nothing but the store knows of it, it survives everything that images survive, and
`history` shows what was done.
"""

from __future__ import annotations

import os
import sys

from ....build.request import BuildRequest
from ....spec.errors import Conflict, Invalid, NotFound, OrlopError
from ..command import Command, Invocation, for_output, write, write_line
from ..flags import BOOL, LIST, STRING, Flag, Kind, UsageError
from .workmount import discard, reference, require, settled, working

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ...native.client import Engine

SCRATCH = "scratch"
SUFFIX = "working-container"
_REMOTE = ("http://", "https://", "git@", "git://", "ssh://")
_WORD_CONFIG = {"user": "USER", "workingdir": "WORKDIR", "stop-signal": "STOPSIGNAL", "author": "MAINTAINER"}
_PAIR_CONFIG = {"env": "ENV", "label": "LABEL"}
_LIST_CONFIG = {"port": "EXPOSE", "volume": "VOLUME", "onbuild": "ONBUILD"}


# -- what a working container is ------------------------------------------------------------------------------------


def _step(engine: Engine, name: str, instruction: str, context: str = "", **more: Any) -> None:
    """Make one step on a working container; what a command writes comes out as it is."""
    before = working(engine).get(name)
    base = more.pop("base", reference(name))
    request = BuildRequest(
        context=context,
        dockerfile=name,
        dockerfile_text=f"FROM {base}\n{instruction}\n",
        ignore_text="",
        tags=(reference(name),),
        no_cache=True,
        **more,
    )
    for message in engine.messages("build.solve", {"request": request.to_json()}):
        if isinstance(message, dict) and "log" in message and instruction.startswith("RUN"):
            stream = sys.stderr if message.get("stream") == 2 else sys.stdout
            stream.write(for_output(str(message["log"])))
            stream.flush()
    if before is not None:
        _drop(engine, before)


def _drop(engine: Engine, image: str) -> None:
    """Remove what a step stood on, when it has no name of its own."""
    try:
        found: Any = engine.call("images.inspect", {"image": image})
        if not found.get("RepoTags"):
            engine.call("images.remove", {"image": image, "force": False, "prune": True})
    except OrlopError:
        pass  # a container or a younger image needs it: it goes with them


def _line(text: str) -> str:
    if "\n" in text or "\r" in text:
        raise Invalid("configure", text[:40], "it has more than one line", hint="build with a Dockerfile instead")
    return text


def _quoted(text: str) -> str:
    """Return a text as one word of a Dockerfile, with nothing in it replaced."""
    return '"' + "".join(f"\\{one}" if one in '"\\$' else one for one in _line(text)) + '"'


def _words(words: list[str]) -> str:
    from json import dumps

    return dumps(words)


# -- verbs ----------------------------------------------------------------------------------------------------------


def _from(invocation: Invocation) -> int:
    (image,) = invocation.arguments
    with invocation.connect() as engine:
        taken = working(engine)
        name = invocation.options["name"] or _free_name(image, taken)
        if name in taken:
            raise Conflict(
                "build", name, f"the name {name} is in use by a working container", hint="choose another --name"
            )
        _step(engine, name, "", base=image, pull=invocation.options["pull"])
    write_line(name)
    return 0


def _free_name(image: str, taken: dict[str, str]) -> str:
    base = f"{image.rpartition('/')[2].partition('@')[0].partition(':')[0].lower()}-{SUFFIX}"
    name, number = base, 0
    while name in taken:
        number += 1
        name = f"{base}-{number}"
    return name


def _copy(invocation: Invocation) -> int:
    return _place(invocation, "COPY")


def _add(invocation: Invocation) -> int:
    return _place(invocation, "ADD")


def _place(invocation: Invocation, instruction: str) -> int:
    name, *paths = invocation.arguments
    *sources, destination = paths if len(paths) > 1 else [*paths, "."]
    if len(sources) > 1 and not destination.endswith("/"):
        destination += "/"
    options = invocation.options
    flags = [f"--{flag}={_line(options[flag])}" for flag in ("chown", "chmod") if options[flag]]
    stage = options["from"] if instruction == "COPY" else ""
    flags += [f"--from={_line(stage)}"] if stage else []
    with invocation.connect() as engine:
        require(engine, name)
        with settled(engine, invocation.paths, name):
            for source in sources:
                context, path = ("", source) if stage or source.startswith(_REMOTE) else _split(source)
                words = _words([_escaped(path) if context else path, destination])
                _step(engine, name, " ".join([instruction, *flags, words]), context)
        write_line(require(engine, name))
    return 0


def _split(source: str) -> tuple[str, str]:
    """Return the folder that a source is in, and the source in it: a build reads nothing outside of its context."""
    path = os.path.abspath(source)
    if not os.path.lexists(path):
        raise NotFound("copy", source, f"{source}: no such file or directory", code="E0407")
    if os.path.isdir(path):
        return path, "."
    return os.path.dirname(path), os.path.basename(path)


def _escaped(path: str) -> str:
    """Return a path as a pattern that matches only it."""
    return "".join(f"\\{one}" if one in "*?[\\$" else one for one in path)


def _run(invocation: Invocation) -> int:
    name, *words = invocation.arguments
    words = words[words[:1] == ["--"] :]
    if not words:
        raise UsageError("command must be specified", "orlop image run NAME -- COMMAND")
    options = invocation.options
    if options["isolation"]:
        from .build import check_isolation

        check_isolation("image run", options["isolation"])
    flags = [f"--mount={_line(mount)}" for mount in options["mount"]]
    flags += [f"--network={options['network']}"] if options["network"] else []
    with invocation.connect() as engine:
        require(engine, name)
        with settled(engine, invocation.paths, name):
            _step(engine, name, " ".join(["RUN", *flags, _words(words)]), os.getcwd())
    return 0


def _config(invocation: Invocation) -> int:
    (name,) = invocation.arguments
    lines = list(_instructions(invocation.options))
    if not lines:
        raise UsageError("nothing to configure", "give a flag such as --cmd, --env or --label")
    with invocation.connect() as engine:
        require(engine, name)
        with settled(engine, invocation.paths, name):
            _step(engine, name, "\n".join(lines))
    return 0


def _instructions(options: Any) -> Any:
    """Yield the instructions that flags of buildah config mean."""
    from shlex import split

    for flag, word in _PAIR_CONFIG.items():
        for pair in options[flag]:
            key, equals, value = pair.partition("=")
            if not equals and flag == "env":
                value = os.environ.get(key, "")
            yield f"{word} {_quoted(key)}={_quoted(value)}"
    for flag, word in _WORD_CONFIG.items():
        if options[flag]:
            yield f"{word} {_line(options[flag]) if flag in ('author',) else _quoted(options[flag])}"
    for flag, word in _LIST_CONFIG.items():
        for value in options[flag]:
            yield f"{word} {_words([value]) if flag == 'volume' else _line(value)}"
    if options["shell"]:
        yield f"SHELL {_words(split(options['shell']))}"
    if options["entrypoint"]:
        yield f"ENTRYPOINT {_line(options['entrypoint'])}"
    if options["cmd"]:
        given = options["cmd"]
        yield f"CMD {_line(given) if given.startswith('[') else _words(split(given))}"


def _commit(invocation: Invocation) -> int:
    name, *target = invocation.arguments
    with invocation.connect() as engine:
        require(engine, name)
        with settled(engine, invocation.paths, name):
            image = require(engine, name)
            if invocation.options["squash"]:
                made: Any = engine.call("images.flatten", {"image": image})
                image = made["id"]
            for each in target:
                engine.call("images.tag", {"image": image, "name": each})
            if invocation.options["rm"]:
                engine.call("images.remove", {"image": reference(name), "force": False, "prune": False})
    write_line(image)
    return 0


def _containers(invocation: Invocation) -> int:
    with invocation.connect() as engine:
        found = working(engine)
    if not invocation.options["quiet"]:
        width = max([len("CONTAINER NAME"), *map(len, found)])
        write(f"{'CONTAINER NAME':{width}}  IMAGE ID\n")
        write("".join(f"{name:{width}}  {found[name].removeprefix('sha256:')[:12]}\n" for name in sorted(found)))
    else:
        write("".join(f"{name}\n" for name in sorted(found)))
    return 0


def _rm(invocation: Invocation) -> int:
    status = 0
    with invocation.connect() as engine:
        names = invocation.arguments or (sorted(working(engine)) if invocation.options["all"] else [])
        if not names:
            raise UsageError("container ID must be specified", "name one, or give --all")
        for name in names:
            try:
                image = require(engine, name)
                discard(engine, invocation.paths, name)
                engine.call("images.remove", {"image": reference(name), "force": False, "prune": False})
                _drop(engine, image)
                write_line(name)
            except OrlopError as wrong:
                sys.stderr.write(f"orlop: {wrong}\n")
                status = 1
    return status


def _flag(name: str, help: str, kind: Kind = STRING, short: str = "", default: object = "") -> Flag:
    return Flag(name, short, kind, help, default=default)


_OWNER = (
    _flag("chown", "Set the user and group of what is copied"),
    _flag("chmod", "Set the permissions of what is copied"),
)
FROM = Command(
    _from,
    "Make a working container from an image, or from scratch",
    "[OPTIONS] IMAGE",
    flags=(
        _flag("name", "Name of the working container"),
        _flag("pull", "Pull the image even if it is there", BOOL, default=False),
    ),
    arguments=(1, 1),
    aliases=("image from", "buildah from"),
)
ADD = Command(
    _add,
    "Add files, folders, unpacked archives or URLs to a working container",
    "[OPTIONS] NAME SOURCE... [DESTINATION]",
    flags=_OWNER,
    arguments=(2, None),
    aliases=("image add", "buildah add"),
)
COPY = Command(
    _copy,
    "Copy files and folders into a working container",
    "[OPTIONS] NAME SOURCE... [DESTINATION]",
    flags=(*_OWNER, _flag("from", "Copy from this image instead")),
    arguments=(2, None),
    aliases=("image copy", "buildah copy"),
)
RUN = Command(
    _run,
    "Run a command in a working container",
    "[OPTIONS] NAME COMMAND [ARG...]",
    flags=(
        _flag("isolation", "oci, rootless or chroot: whichever it is, a step has the isolation of a container"),
        _flag("mount", "Mount something while it runs, as RUN --mount has it", LIST),
        _flag("network", "Network of the command (default, none)"),
    ),
    arguments=(2, None),
    interspersed=False,
    aliases=("image run", "buildah run"),
)
CONFIG = Command(
    _config,
    "Change the configuration of a working container",
    "[OPTIONS] NAME",
    flags=(
        _flag("author", "Who made the image"),
        _flag("cmd", "Default command: words, or a JSON array"),
        _flag("entrypoint", "Entry point: a JSON array, or a command for the shell"),
        _flag("env", "Set an environment variable", LIST, "e"),
        _flag("label", "Set a label", LIST, "l"),
        _flag("onbuild", "Add an instruction for builds that stand on the image", LIST),
        _flag("port", "Expose a port", LIST, "p"),
        _flag("shell", "Shell of commands in shell form"),
        _flag("stop-signal", "Signal that stops a container"),
        _flag("user", "User of containers", STRING, "u"),
        _flag("volume", "Add a volume", LIST, "v"),
        _flag("workingdir", "Working directory"),
    ),
    arguments=(1, 1),
    aliases=("image config", "buildah config"),
)
COMMIT = Command(
    _commit,
    "Give the image of a working container a name",
    "[OPTIONS] NAME [IMAGE...]",
    flags=(
        _flag("rm", "Remove the working container", BOOL, default=False),
        _flag("squash", "Make one layer of all", BOOL, default=False),
    ),
    arguments=(1, None),
    aliases=("image commit", "buildah commit"),
)
CONTAINERS = Command(
    _containers,
    "List working containers",
    "[OPTIONS]",
    flags=(_flag("quiet", "Only names", BOOL, "q", default=False),),
    aliases=("buildah containers",),
)
RM = Command(
    _rm,
    "Remove working containers",
    "[OPTIONS] [NAME...]",
    flags=(_flag("all", "Remove all of them", BOOL, "a", default=False),),
    arguments=(0, None),
    aliases=("buildah rm",),
)
