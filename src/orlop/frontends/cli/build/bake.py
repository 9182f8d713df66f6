"""`orlop bake`: the targets of a bake file, each built as `orlop build` would build it.

What does not need each other is built at the same time. The first failure lets what is on its way end, and begins
nothing more.
"""

from __future__ import annotations

import os
import threading
from secrets import token_hex

from ....spec import jsonio
from ....spec.errors import Denied, Invalid, NotFound, OrlopError, Unavailable
from ..command import Command, Invocation, warn, write
from ..flags import BOOL, LIST, STRING, Flag, Kind, Options, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ....build.bake.document import Document
    from ....build.bake.targets import Plan

    Target = dict[str, Any]

FILE_BYTES_MAX = 4 * 1024 * 1024
METADATA_BYTES_MAX = 4 * 1024 * 1024
THREADS_MAX = 8  # targets at the same time
DEFAULT_FILES = (
    "compose.yaml",
    "compose.yml",
    "docker-compose.yml",
    "docker-compose.yaml",
    "docker-bake.json",
    "docker-bake.hcl",
    "docker-bake.override.json",
    "docker-bake.override.hcl",
)
LINKS = "localhost/bake"  # names of images that one target takes from another, while the bake goes on
_REMOTE = ("http://", "https://", "git://", "git@", "ssh://")
_CURRENT = "cwd://"
_PASSED = {"tags": "tag", "platforms": "platform", "secret": "secret", "ssh": "ssh", "ulimits": "ulimit"}
_PASSED |= {"cache-from": "cache-from", "cache-to": "cache-to", "output": "output", "attest": "attest"}
_PASSED |= {"no-cache-filter": "no-cache-filter", "annotations": "annotation"}
_TEXTS = ("target", "network", "shm-size", "call")


def _bake(invocation: Invocation) -> int:
    from ....build.bake.targets import listed, plan

    options = invocation.options
    document = _document(options)
    if options["list"]:
        return _list(document, options["list"], listed(document))
    made = plan(document, invocation.arguments, _overrides(options))
    if options["print"]:
        write(made.to_text())
        return 0
    _check_entitlements(made, options["allow"])
    baking = _Baking(invocation, made)
    status = baking.run()
    if options["metadata-file"] and not status:
        _write_metadata(options["metadata-file"], baking.metadata)
    return status


# -- what is read ---------------------------------------------------------------------------------------------------


def _document(options: Options) -> Document:
    from ....build.bake.document import Document
    from ....spec.platform import Platform

    names = list(options["file"]) or [name for name in DEFAULT_FILES if os.path.exists(name)]
    if not names:
        cause = f"couldn't find a bake definition: none of {', '.join(DEFAULT_FILES)} is here"
        raise NotFound("bake", ".", cause, hint="name one: orlop bake -f FILE")
    environment = {**os.environ, **dict(_variable(text) for text in options["var"])}
    built_in = {"BAKE_CMD_CONTEXT": _CURRENT, "BAKE_LOCAL_PLATFORM": str(Platform.of_machine(os.uname().machine))}
    return Document([_file(name, environment) for name in names], environment, built_in)


def _file(name: str, environment: dict[str, str]) -> tuple[str, str]:
    """Return a file's name and text; a compose file's as the bake file that it stands for."""
    if not name.endswith((".yaml", ".yml")):
        return name, _read(name)
    from .composefile import bake_text

    return f"{name}.json", bake_text(name, environment)


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UsageError(f'invalid variable "{text}"', "write --var NAME=VALUE")
    return name, value


def _read(name: str) -> str:
    try:
        with open(0 if name == "-" else name, "rb", closefd=name != "-") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as wrong:
        raise NotFound("read", name, f"{name}: {wrong.strerror}") from None
    if len(data) > FILE_BYTES_MAX:
        raise Invalid("read", name, f"it has more than {FILE_BYTES_MAX} bytes", code="E0212")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Invalid("read", name, "it is not UTF-8") from None


def _overrides(options: Options) -> list[str]:
    """Return --set and what the shorthands mean."""
    shorthands = {
        "push": "*.push=true",
        "load": "*.load=true",
        "no-cache": "*.no-cache=true",
        "pull": "*.pull=true",
    }
    given = [override for name, override in shorthands.items() if options[name]]
    attestations = [
        f"*.attest+=type={name},{_attested(options[name])}" for name in ("sbom", "provenance") if options[name]
    ]
    return [*options["set"], *given, *attestations]


def _attested(text: str) -> str:
    """Return what --sbom or --provenance says as attributes: a switch, or attributes already."""
    if text.lower() in ("1", "t", "true"):
        return "disabled=false"
    return "disabled=true" if text.lower() in ("0", "f", "false") else text


def _list(document: Document, what: str, targets: list[tuple[str, str]]) -> int:
    if what not in ("targets", "variables"):
        raise UsageError(f'invalid list type "{what}"', "targets or variables")
    rows = [("TARGET", "DESCRIPTION"), *targets]
    if what == "variables":
        from ....build.bake.functions import shown

        rows = [("VARIABLE", "VALUE")]
        rows += [(name, shown(document.variable(name))) for name in sorted(document.variables)]
    width = max(len(name) for name, _ in rows)
    write("".join(f"{name:{width}}  {text}".rstrip() + "\n" for name, text in rows))
    return 0


def _check_entitlements(made: Plan, allowed: tuple[str, ...]) -> None:
    """Refuse what the file wants and the command line does not grant: files come from others."""
    for name, target in made.targets.items():
        missing = [
            wanted
            for wanted in target.get("entitlements", ())
            if {wanted, wanted.partition("=")[0]}.isdisjoint(allowed)
        ]
        if missing:
            cause = f"additional privileges requested: {', '.join(missing)}"
            hint = "grant them: " + " ".join(f"--allow {wanted}" for wanted in missing)
            raise Denied("bake", f"target {name}", cause, hint=hint, code="E1414")


# -- what is built --------------------------------------------------------------------------------------------------


class _Baking:
    """All targets of a bake, each as soon as those are built that it takes from."""

    def __init__(self, invocation: Invocation, made: Plan) -> None:
        self._invocation = invocation
        self._targets = made.targets
        self._prefix = f"{LINKS}-{token_hex(6)}"
        self._linked = {name for target in made.targets.values() for name in _links(target).values()}
        self._waiting = {name: set(_links(target).values()) for name, target in made.targets.items()}
        self._changed = threading.Condition()
        self._names: dict[str, str] = {}
        self._running = 0
        self._status = 0
        self._failure: BaseException | None = None
        self.metadata: dict[str, object] = {}

    def run(self) -> int:
        """Build; return the status. Raises what the first failing target raised."""
        options = self._invocation.options
        alone = len(self._targets) == 1 or options["check"] or options["call"]
        threads = [
            threading.Thread(target=self._work, args=(not alone,), daemon=True)
            for _ in range(1 if alone else min(THREADS_MAX, len(self._targets)))
        ]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            _forget(self._invocation, [name for name in self._names.values() if name])
        if self._failure is not None:
            raise self._failure
        return self._status

    def _work(self, titled: bool) -> None:
        while (name := self._next()) is not None:
            extra = f"{self._prefix}/{name.lower()}" if name in self._linked else ""
            status, failure = 0, None
            try:
                status = self._build(name, extra, titled)
            except BaseException as wrong:  # of this thread: `run` raises it
                failure = wrong
            with self._changed:
                self._running -= 1
                self._names[name] = extra
                self._failure = self._failure or failure
                self._status = self._status or status
                for waits in self._waiting.values():
                    waits.discard(name)
                self._changed.notify_all()

    def _next(self) -> str | None:
        """Return a target that can be built now, None when there is nothing more to do."""
        with self._changed:
            while True:
                if self._failure is not None or self._status or not self._waiting:
                    return None
                for name, waits in self._waiting.items():
                    if not waits:
                        del self._waiting[name]
                        self._running += 1
                        return name
                if not self._running:
                    raise Invalid("bake", ", ".join(self._waiting), "these targets wait for each other")
                self._changed.wait()

    def _build(self, name: str, extra: str, titled: bool) -> int:
        from .build import BUILD

        target = self._targets[name]
        descriptor = -1
        if "dockerfile-inline" in target:
            descriptor = os.memfd_create("Dockerfile", os.MFD_CLOEXEC)
            os.write(descriptor, target["dockerfile-inline"].encode())
        metadata = os.memfd_create("metadata", os.MFD_CLOEXEC)
        try:
            words, context = arguments_of(target, self._names, descriptor)
            words += ["--tag", extra] if extra else []
            words += _common(self._invocation.options)
            words += ["--title", f"[{name}]"] if titled else []
            words += ["--metadata-file", f"/proc/self/fd/{metadata}"]
            options, arguments = BUILD.parse([*words, "--", context])
            if not titled:
                warn(f"[{name}]")
            status = BUILD.action(Invocation(options, arguments, self._invocation.paths))
            if told := os.pread(metadata, METADATA_BYTES_MAX, 0):
                self.metadata[name] = jsonio.parse(told, f"the metadata of {name}")
            return status
        finally:
            os.close(metadata)
            if descriptor >= 0:
                os.close(descriptor)


def _links(target: Target) -> dict[str, str]:
    from ....build.bake.targets import LINK

    contexts = target.get("contexts", {})
    return {name: value.removeprefix(LINK) for name, value in contexts.items() if value.startswith(LINK)}


def arguments_of(target: Target, names: dict[str, str], inline: int = -1) -> tuple[list[str], str]:
    """Return the flags of the `orlop build` that builds a target, and its context.

    names: of the images that other targets became. inline: a descriptor of its Dockerfile.
    """
    context = target["context"].removeprefix(_CURRENT) or "."
    words = []
    if inline >= 0:
        words += ["--file", f"/proc/self/fd/{inline}"]
    elif "dockerfile" in target:
        remote = context.startswith(_REMOTE) or context == "-"
        words += ["--file", target["dockerfile"] if remote else os.path.join(context, target["dockerfile"])]
    links = _links(target)
    for name, value in target.get("contexts", {}).items():
        value = f"docker-image://{names[links[name]]}" if name in links else value.removeprefix(_CURRENT)
        words += ["--build-context", f"{name}={value}"]
    words += [word for name, value in target.get("args", {}).items() for word in ("--build-arg", f"{name}={value}")]
    words += [word for name, value in target.get("labels", {}).items() for word in ("--label", f"{name}={value}")]
    words += [
        word for name, value in target.get("extra-hosts", {}).items() for word in ("--add-host", f"{name}:{value}")
    ]
    for attribute, flag in _PASSED.items():
        words += [word for value in target.get(attribute, ()) for word in (f"--{flag}", value)]
    words += [word for name in _TEXTS if target.get(name) for word in (f"--{name}", target[name])]
    words += [f"--{name}" for name in ("pull", "no-cache") if target.get(name)]
    words += [word for wanted in target.get("entitlements", ()) for word in ("--allow", wanted)]
    return words, context


def _common(options: Options) -> list[str]:
    words = ["--progress", options["progress"]] if options["progress"] else []
    words += ["--check"] if options["check"] else []
    words += ["--call", options["call"]] if options["call"] else []
    return words


def _write_metadata(path: str, metadata: dict[str, object]) -> None:
    """Write what became of all targets, by their names, as buildx does. Raises Unavailable."""
    try:
        with open(path, "wb") as file:
            file.write(jsonio.dump(metadata))
    except OSError as wrong:
        raise Unavailable("write", path, wrong.strerror or str(wrong)) from None


def _forget(invocation: Invocation, names: list[str]) -> None:
    """Take the names away that only the bake needed."""
    if not names:
        return
    with invocation.connect() as engine:
        for name in names:
            try:
                engine.call("images.remove", {"image": name, "force": False, "prune": False})
            except OrlopError as wrong:
                warn(f"WARNING: image {name} is left: {wrong.cause}")


def _flag(name: str, help: str, kind: Kind = STRING, short: str = "", default: object = "") -> Flag:
    return Flag(name, short, kind, help, default=default)


BAKE = Command(
    _bake,
    "Build from a file",
    "[OPTIONS] [TARGET...]",
    flags=(
        _flag("allow", "Allow build to access specified resources", LIST),
        _flag("call", 'Set method for evaluating build ("check", "outline", "targets")'),
        _flag("check", 'Shorthand for "--call=check"', BOOL, default=False),
        _flag("file", "Build definition file", LIST, "f"),
        _flag("list", 'List targets or variables ("targets", "variables")'),
        _flag("load", 'Shorthand for "--set=*.output=type=docker"', BOOL, default=False),
        _flag("metadata-file", "Write build result metadata to a file"),
        _flag("no-cache", "Do not use cache when building the image", BOOL, default=False),
        _flag("print", "Print the options without building", BOOL, default=False),
        _flag("progress", 'Set type of progress output ("auto", "plain", "tty", "quiet", "rawjson")'),
        _flag("provenance", 'Shorthand for "--set=*.attest=type=provenance"'),
        _flag("pull", "Always attempt to pull all referenced images", BOOL, default=False),
        _flag("push", 'Shorthand for "--set=*.output=type=registry"', BOOL, default=False),
        _flag("sbom", 'Shorthand for "--set=*.attest=type=sbom"'),
        _flag("set", 'Override target value ("targetpattern.key=value")', LIST),
        _flag("var", 'Set a variable value ("name=value")', LIST),
    ),
    refused=("builder",),
    arguments=(0, None),
    aliases=("bake", "buildx bake"),
)
