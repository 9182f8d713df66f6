"""`orlop why`: why a container ended, or why it does not run."""

from __future__ import annotations

from ....spec.errors import OrlopError, Unavailable
from ..command import Command, Invocation, for_output, write
from ..flags import EXIT_USAGE, STRING, Flag
from ..main import explain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _why(invocation: Invocation) -> int:
    status = 0
    with invocation.connect() as engine:
        answers = []
        for container in invocation.arguments:
            try:
                answers.append(_answer(engine.call("containers.why", {"container": container})))
            except OrlopError as error:
                explain(error)
                status = EXIT_USAGE
    template: str = invocation.options["format"]
    if template:
        _print_formatted(answers, template)
    else:
        write(for_output("\n".join(_text(found) for found in answers)))
    return status


def _answer(result: object) -> dict[str, Any]:
    if not isinstance(result, dict):
        raise Unavailable("read", "the engine's reply", "it is no answer")
    return result


def _print_formatted(answers: list[dict[str, Any]], template: str) -> None:
    import json

    from ..template import Template

    if template == "json":
        for found in answers:
            write(for_output(json.dumps(found) + "\n"))
        return
    compiled = Template(template)
    for found in answers:
        write(for_output(compiled.render(found) + "\n"))


def _text(found: dict[str, Any]) -> str:
    lines = [f"{found['name']} ({found['state']}): {found['summary']}"]
    lines += [f"  {fact}" for fact in found["facts"]]
    if found["verdict"] not in ("running", "completed", "never-started") and found["last_output"]:
        lines += ["  its last output:", *(f"    {line}" for line in found["last_output"])]
    if found["remedy"]:
        lines.append(f"Next: {found['remedy']}")
    return "\n".join(lines) + "\n"


WHY = Command(
    _why,
    "Tell why a container ended, or why it does not run",
    "CONTAINER [CONTAINER...]",
    flags=(Flag("format", "", STRING, 'Format the output: "json", or a Go template', default=""),),
    arguments=(1, None),
    aliases=("container why", "why"),
)
