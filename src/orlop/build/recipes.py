"""A `build.py` becomes a Dockerfile: executed in a container that knows nothing but its arguments (orlop.recipe).

The container has the machine's Python and its standard library, read-only, no network, no capabilities, no files of the
context: the recipe is executed anew with each file that it turned out to want. So the same recipe, arguments and files
say the same Dockerfile, on every machine and at every time; what can't be known that way is not there to be imported.
"""

from __future__ import annotations

import os
import threading

from orlop.engine.steps import run as steps
from orlop.engine.steps.workspace import open_workspace
from orlop.image.closure import Closure
from orlop.spec import attach as frames
from orlop.spec import jsonio
from orlop.spec.container import ContainerRequest, UlimitRequest
from orlop.spec.errors import Invalid, Unavailable
from orlop.spec.runtime import Mount

from .dockerfile.source import Source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .solver.solve import Solver

    Read = Callable[[str], bytes | None]

ANSWER_BYTES_MAX = 32 * 1024 * 1024
TOLD_BYTES_MAX = 64 * 1024  # of what a recipe prints
FILES_MAX = 100
SECONDS_MAX = 60.0
LINES_MAX = 200_000
_MEMORY_BYTES, _CPU_S = 1 << 30, 30
_RECIPE, _GIVEN, _MODULE = "/recipe", "/given", "/lib/recipe/orlop/recipe.py"
_RUN = f"import orlop.recipe; orlop.recipe.main({_RECIPE!r}, {_GIVEN!r})"
_ENV = ("PYTHONPATH=/lib/recipe", "PYTHONHASHSEED=0", "LC_ALL=C.UTF-8", "TZ=UTC")
_BIND = ("bind", "rprivate", "ro", "nosuid", "nodev")


def composed(solver: Solver, source: Source, read: Read, arguments: Mapping[str, str]) -> Source:
    """Return the Dockerfile that a recipe says. Raises DockerfileError, Invalid, Unavailable."""
    files: dict[str, str | None] = {}
    while True:
        answer = _executed(solver, source, {"arguments": dict(arguments), "files": files})
        if "wrong" in answer:
            line = answer.get("line")
            number = line if isinstance(line, int) and 0 < line <= len(source.lines) else 1
            source.wrong(
                (number, number), str(answer["wrong"])[:1000], hint="docs/dockerfile.md has what a recipe knows"
            )
        if "wanted" not in answer:
            return _read(source, answer.get("lines"))
        name = str(answer["wanted"])
        if name in files or len(files) == FILES_MAX:
            raise Invalid("read", source.name, f"it wants more than {FILES_MAX} files", hint="read fewer")
        files[name] = _text(read, name)


def _read(source: Source, answer: object) -> Source:
    """Return what a recipe says, a place of it for each line. What comes from there is not to be trusted."""
    lines = answer if isinstance(answer, list) else [None]
    if len(lines) > LINES_MAX:
        raise Invalid("read", source.name, f"it says more than {LINES_MAX} lines")
    texts, places = [], []
    for entry in lines:
        match entry:
            case [str(text), int(number)] if "\n" not in text and "\0" not in text and number >= 0:
                texts.append(text)
                places.append((source.name, number or 1))
            case _:
                raise Invalid("read", source.name, "what it says is no Dockerfile")
    if not texts:
        source.wrong((1, 1), "it says nothing", hint="begin a stage: stage('debian:12')")
    made = Source(source.name, "\n".join(texts))
    made.places = tuple(places)
    return made


def _text(read: Read, name: str) -> str | None:
    """Return a file of the context, None where it is not. Raises Invalid."""
    if not name or "\0" in name or name.startswith("/") or ".." in name.split("/"):
        raise Invalid(
            "read", name[:100] or "a file", "it is no name of a file of the context", hint="name one below it"
        )
    data = read(name)
    try:
        return data.decode() if data is not None else None
    except UnicodeDecodeError:
        raise Invalid("read", name[:100], "it is not UTF-8", hint="a recipe reads texts") from None


def _executed(solver: Solver, source: Source, given: dict[str, object]) -> dict[str, object]:
    directory = solver.scratch()
    for name, data in (("recipe", source.text.encode()), ("given", jsonio.dump(given))):
        with open(f"{directory}/{name}", "xb") as file:
            file.write(data)
    out: dict[int, bytearray] = {frames.STDOUT: bytearray(), frames.STDERR: bytearray()}
    bounds = {frames.STDOUT: ANSWER_BYTES_MAX, frames.STDERR: TOLD_BYTES_MAX}

    def take(kind: int, data: bytes) -> None:
        out[kind] += data[: bounds[kind] - len(out[kind])]

    space = open_workspace(solver.engine, ())
    ended = os.eventfd(0, os.EFD_CLOEXEC)
    timer = threading.Timer(SECONDS_MAX, os.eventfd_write, (ended, 1))
    timer.start()
    try:
        code = steps.run(solver.engine, space, _command(directory), take, ended)
    except Unavailable as wrong:
        if timer.is_alive():
            raise
        raise Invalid("read", source.name, f"it took longer than {SECONDS_MAX:.0f} s") from wrong
    finally:
        timer.cancel()
        timer.join()
        os.close(ended)
        space.discard()
    if code or not out[frames.STDOUT]:
        told = bytes(out[frames.STDERR]).decode(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
        hint = f"it has {_CPU_S} s of processor time and {_MEMORY_BYTES >> 20} MiB of memory"
        raise Invalid("read", source.name, f"it ended with status {code}: {told[0][:300]}", hint=hint)
    return jsonio.parse_object(bytes(out[frames.STDOUT]), source.name)


def _command(directory: str) -> steps.Command:
    """Return what executes a recipe: the Python that executes us, and nothing else of the machine."""
    import sys

    program = os.path.realpath(sys.executable)
    closure = Closure(faithful=False)
    closure.add_program(program)
    library = os.path.dirname(os.path.realpath(os.__file__))
    module = f"{os.path.dirname(os.path.dirname(os.path.realpath(__file__)))}/recipe.py"
    places = {name: os.path.realpath(name) for name in sorted(closure.names)} | {library: library, _MODULE: module}
    places |= {_RECIPE: f"{directory}/recipe", _GIVEN: f"{directory}/given"}
    command = steps.Command((program, "-P", "-s", "-S", "-B", "-X", "utf8", "-c", _RUN), _ENV)
    command.mounts = tuple(
        Mount(destination=place, type="bind", source=source, options=_BIND) for place, source in places.items()
    )
    command.request = ContainerRequest(
        network="none",
        cap_drop=("ALL",),
        ulimits=(
            UlimitRequest(name="as", soft=_MEMORY_BYTES, hard=_MEMORY_BYTES),
            UlimitRequest(name="cpu", soft=_CPU_S, hard=_CPU_S),
            UlimitRequest(name="fsize", soft=0, hard=0),
        ),
    )
    return command
