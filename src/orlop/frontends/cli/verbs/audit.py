"""`orlop audit`: whether a container is secure, isolated, integrated, manageable and transparent, with the facts."""

from __future__ import annotations

from ..command import Command, Invocation, for_output, warn, write
from ..flags import EXIT_USAGE, STRING, Flag
from ..table import render

EXIT_FAILED = 1


def _audit(invocation: Invocation) -> int:
    wanted = invocation.options["format"]
    if wanted not in ("", "table", "json"):
        warn(f'orlop: invalid --format: "{for_output(wanted[:40])}"')
        warn("Next: write --format json, or leave it out")
        return EXIT_USAGE
    with invocation.connect() as engine:
        told = [engine.call("containers.audit", {"container": name}) for name in invocation.arguments]
    found = [one for one in told if isinstance(one, dict)]
    if wanted == "json":
        from ....spec import jsonio

        write(jsonio.dump(found).decode() + "\n")
    else:
        write(for_output("\n".join(map(_text, found))))
    return 0 if all(all(one["properties"].values()) for one in found) else EXIT_FAILED


def _text(told: dict[str, object]) -> str:
    properties, facts = told.get("properties"), told.get("facts")
    assert isinstance(properties, dict)
    assert isinstance(facts, list)
    rows = [("PROPERTY", "FACT", "PASSED", "WHY")]
    for name, passed in properties.items():
        rows.append((name, "", _word(passed), ""))
        rows += [("", fact["fact"], _word(fact["passed"]), fact["why"]) for fact in facts if fact["property"] == name]
    steps = [f"Next, for {fact['fact']}: {fact['next']}\n" for fact in facts if fact.get("next")]
    return f"{told.get('container')}:\n" + render(rows) + "".join(["\n", *steps] if steps else [])


def _word(passed: object) -> str:
    return "pass" if passed else "fail"


AUDIT = Command(
    _audit,
    "Say whether a container is secure, isolated, integrated, manageable and transparent, with the facts",
    "[OPTIONS] CONTAINER [CONTAINER...]",
    arguments=(1, None),
    flags=(Flag("format", "", STRING, 'Format the output: "table" or "json"', default=""),),
)
