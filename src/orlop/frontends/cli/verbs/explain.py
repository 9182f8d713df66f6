"""`orlop explain`: of a container, and for `--dry-run`, the steps of a start with their kernel calls; of an error's
code, what it means.
"""

from __future__ import annotations

from ....spec.errors import NotFound, Unavailable
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


def _is_code(word: str) -> bool:
    return len(word) == 5 and word[0] in "Ee" and word[1:].isascii() and word[1:].isdecimal()


def _explain(invocation: Invocation) -> int:
    if all(map(_is_code, invocation.arguments)):
        return _explain_codes(invocation)
    return _explain_containers(invocation)


def _explain_codes(invocation: Invocation) -> int:
    from ....spec import catalog

    for at, code in enumerate(invocation.arguments):
        entry = catalog.find(code)
        if entry is None:
            cause = f"there is no error {code.upper()}"
            raise NotFound("explain", f"error {code}", cause, hint="errors show their codes in parentheses")
        write(f"{chr(10) if at else ''}{entry.code}  {entry.title}\n\n{entry.meaning}\n\nNext: {entry.remedy}\n")
    return 0


def _explain_containers(invocation: Invocation) -> int:
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
    "Say in words how a container is isolated, by which kernel calls; or what an error's code means",
    "CONTAINER|CODE [CONTAINER|CODE...]",
    arguments=(1, None),
    aliases=("container explain", "explain"),
)
