"""`orlop diff`, `export` and `commit`: what a container changed, all that it has, an image of it."""

from __future__ import annotations

import os
import sys

from ....spec.container import CommitRequest
from ....spec.errors import NotFound, Unavailable
from .. import archives
from ..command import Command, Invocation, for_output, write, write_line
from ..flags import BOOL, EXIT_USAGE, LIST, STRING, Flag, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...native.client import Engine


def _diff(invocation: Invocation) -> int:
    with invocation.connect() as engine:
        found = engine.call("containers.changes", {"container": invocation.arguments[0]})
    changes = [change for change in found if isinstance(change, dict)] if isinstance(found, list) else []
    write("".join(f"{change.get('kind')} {for_output(str(change.get('path')))}\n" for change in changes))
    return 0


def _export(invocation: Invocation) -> int:
    output: str = invocation.options["output"]
    if not output and sys.stdout.isatty():
        raise UsageError(
            "cowardly refusing to save to a terminal. Use the -o flag or redirect",
            "write: orlop export -o FILE CONTAINER",
            EXIT_USAGE,
            shows_usage=False,
        )
    with invocation.connect() as engine:
        if output:
            _export_to_file(engine, invocation.arguments[0], output)
        else:
            sys.stdout.flush()
            _fetch(engine, invocation.arguments[0], 1)
    return 0


def _export_to_file(engine: Engine, container: str, output: str) -> None:
    """Write the archive beside its place and move it there when it is whole."""
    directory = os.path.dirname(output)
    if directory and not os.path.isdir(directory):
        cause = f'invalid output path: directory "{directory}" does not exist'
        raise NotFound("export to", output, cause, hint=f"make it with: mkdir -p {directory}")
    archives.write_whole(output, lambda fd: _fetch(engine, container, fd))


def _fetch(engine: Engine, container: str, fd: int) -> None:
    archives.fetch(engine, "containers.export", {"container": container}, fd)


def _commit(invocation: Invocation) -> int:
    options = invocation.options
    container, name = (*invocation.arguments, "")[:2]
    request = CommitRequest(
        container=container,
        name=name,
        author=options["author"],
        message=options["message"],
        changes=options["change"],
        pause=options["pause"],
    )
    with invocation.connect() as engine:
        result = engine.call("containers.commit", {"request": request.to_json()})
    if not isinstance(result, dict) or not isinstance(result.get("id"), str):
        raise Unavailable("read", "the engine's reply", "it names no image", code="E1905")
    write_line(result["id"])
    return 0


DIFF = Command(
    _diff,
    "Inspect changes to files or directories on a container's filesystem",
    "CONTAINER",
    arguments=(1, 1),
    aliases=("container diff", "diff"),
)
EXPORT = Command(
    _export,
    "Export a container's filesystem as a tar archive",
    "[OPTIONS] CONTAINER",
    flags=(Flag("output", "o", STRING, "Write to a file, instead of STDOUT", default=""),),
    arguments=(1, 1),
    aliases=("container export", "export"),
)
COMMIT = Command(
    _commit,
    "Create a new image from a container's changes",
    "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
    flags=(
        Flag("author", "a", STRING, 'Author (e.g., "John Hannibal Smith <hannibal@a-team.com>")', default=""),
        Flag("change", "c", LIST, "Apply Dockerfile instruction to the created image"),
        Flag("message", "m", STRING, "Commit message", default=""),
        Flag("pause", "p", BOOL, "Pause container during commit", default=True),
    ),
    arguments=(1, 2),
    aliases=("container commit", "commit"),
)
