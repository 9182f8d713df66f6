"""`orlop explain` and the output of `--dry-run`: the steps of a start in words, each with its kernel call."""

from __future__ import annotations

from ....spec.errors import Unavailable
from ..command import Command, Invocation, for_output, write


def print_steps(steps: object) -> None:
    """Print the engine's steps below a heading for each subject, in the order in which they are done."""
    if not isinstance(steps, list):
        raise Unavailable("read", "the engine's reply", "it is not a list of steps")
    subject = None
    lines: list[str] = []
    for step in steps:
        found = step if isinstance(step, dict) else {}
        if found.get("subject") != subject:
            subject = found.get("subject")
            lines.append(f"{'' if not lines else chr(10)}{subject}")
        lines.append(f"  {found.get('words', '')}")
        if found.get("call"):
            lines.append(f"      {found['call']}")
    write(for_output("\n".join(lines) + "\n"))


def _explain(invocation: Invocation) -> int:
    with invocation.connect() as engine:
        for at, container in enumerate(invocation.arguments):
            steps = engine.call("containers.explain", {"container": container})
            if at:
                write("\n")
            if len(invocation.arguments) > 1:
                write(for_output(f"{container}:\n"))
            print_steps(steps)
    return 0


EXPLAIN = Command(
    _explain,
    "Say in words how a container is isolated, and by which kernel calls",
    "CONTAINER [CONTAINER...]",
    arguments=(1, None),
    aliases=("container explain", "explain"),
)
