"""`orlop doctor`: what this machine can do for the user, feature by feature, why not more, and the next step."""

from __future__ import annotations

import os

from ..command import Command, Invocation, for_output, warn, write
from ..flags import BOOL, EXIT_USAGE, STRING, Flag
from ..table import render

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ....engine.doctor.checks import Finding

EXIT_IMPOSSIBLE = 1


def _doctor(invocation: Invocation) -> int:
    from ....engine.doctor import checks, facts

    wanted = invocation.options["format"]
    if wanted not in ("", "table", "json"):
        warn(f'orlop: invalid --format: "{for_output(wanted[:40])}"')
        warn("Next: write --format json, or leave it out")
        return EXIT_USAGE
    seen = facts.look(dict(os.environ), invocation.options["user"])
    found = checks.findings(seen)
    if invocation.options["fix"]:
        return _fix(found, seen.may_fix, seen.user)
    if wanted == "json":
        from ....spec import jsonio

        write(jsonio.dump([finding.to_json() for finding in found]).decode() + "\n")
    else:
        write(for_output(_table(found)))
    stopped = [finding for finding in found if finding.needed and finding.state == checks.IMPOSSIBLE]
    return EXIT_IMPOSSIBLE if stopped else 0


def _table(found: list[Finding]) -> str:
    rows = [("FEATURE", "STATE", "WHY"), *((each.feature, each.state, each.why) for each in found)]
    steps = [f"Next, for {each.feature}: {each.next}" for each in found if each.next]
    return render(rows) + "".join(f"{line}\n" for line in ["", *steps] if steps)


def _fix(found: list[Finding], is_root: bool, user: str) -> int:
    from ....engine.doctor import fixes

    commands = fixes.proposed(found)
    if not commands:
        write("There is nothing that could be put right from here.\n")
        return 0
    if not is_root:
        write("".join(f"{' '.join(command)}\n" for command in commands))
        warn("orlop: these are root's to run")
        warn(f"Next: sudo orlop doctor --fix --user {user}")
        return EXIT_IMPOSSIBLE
    return EXIT_IMPOSSIBLE if fixes.apply(commands, lambda line: write(f"{line}\n")) else 0


DOCTOR = Command(
    _doctor,
    "Say what this machine can do, and what to do about the rest",
    "[OPTIONS]",
    flags=(
        Flag("fix", "", BOOL, "Put right what can be put right; others than root are told what to run", default=False),
        Flag("format", "", STRING, 'Format the output: "table" or "json"', default=""),
        Flag("user", "", STRING, "Look on behalf of this user (as root)", default=""),
    ),
)
