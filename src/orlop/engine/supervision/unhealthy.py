"""Why a container's health checks fail: what is checked, what the last failure said, and what to do about its kind."""

from __future__ import annotations

import shlex

from ...supervise.health import EXIT_CODE_NONE, TIMEOUT_S_DEFAULT
from ..compile.health import COMMAND, HTTP, SHELL_DEFAULT, TCP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...spec.task import Health, HealthResult
    from ..containers.record import ContainerRecord

_LENGTH_MAX = 300
_NOT_EXECUTABLE, _NOT_FOUND = 126, 127
_LISTENS = "see on which port it listens, and when: orlop logs {name}; a slow start needs --health-start-period"
_REFUSED, _TOO_SLOW = "Connection refused", "Health check exceeded timeout"


class Cause:
    """facts: what the checks have told. remedy: the next step, "" when nothing is known."""

    __slots__ = ("facts", "remedy")

    def __init__(self, facts: tuple[str, ...] = (), remedy: str = "") -> None:
        self.facts = facts
        self.remedy = remedy


def because(record: ContainerRecord, checked: Health) -> Cause:
    """Return what the failed checks of a container tell of the cause."""
    failed = [result for result in checked.log if result.exit_code]
    if not failed:
        return Cause()
    last = failed[-1]
    said = next((line.strip() for line in last.output.splitlines() if line.strip()), "")
    meaning, remedy = _kind(record, last, said)
    facts = (
        f"its check is {_shown(record)}",
        f"the last of {max(checked.failing_streak, 1)} failed checks said: {said[:_LENGTH_MAX] or 'nothing'}",
        meaning,
    )
    return Cause(facts, remedy)


def _kind(record: ContainerRecord, last: HealthResult, said: str) -> tuple[str, str]:
    """Return what a failure means, and the next step."""
    name, check = record.name, record.config.health
    kind = check.test[0] if check is not None and check.test else ""
    if _TOO_SLOW in said:
        timeout_s = (check.timeout if check is not None else 0) / 1e9 or TIMEOUT_S_DEFAULT
        remedy = f"see what it is busy with: orlop top {name}; or give checks more time: --health-timeout"
        return f"it did not end within its timeout of {timeout_s:g} s", remedy
    if kind in (HTTP, TCP):
        if _REFUSED in said:
            remedy = _LISTENS.format(name=name)
            return "nothing in the container listens there", remedy
        return "the program that listens there does not answer as it should", f"see: orlop logs {name}"
    if last.exit_code == _NOT_FOUND:
        remedy = "add it to the image, or check with --health-http or --health-tcp, which need nothing in it"
        return "the image does not have the program that the check calls (exit status 127)", remedy
    if last.exit_code == _NOT_EXECUTABLE:
        return "the check's program can't be executed (exit status 126)", "see its permissions in the image: chmod +x"
    if last.exit_code == EXIT_CODE_NONE:
        return "the check could not be made", f"try it by hand: orlop exec {name} {_command(record)}"
    if _REFUSED in said:
        remedy = _LISTENS.format(name=name)
        return f"nothing listens where the check asks (exit status {last.exit_code})", remedy
    meaning = f"the check's own answer: it ended with exit status {last.exit_code}"
    return meaning, f"try it by hand: orlop exec {name} {_command(record)}"


def _shown(record: ContainerRecord) -> str:
    check = record.config.health
    if check is None or len(check.test) < 2:
        return "not known any more"
    if check.test[0] in (HTTP, TCP):
        return f"a connection to {check.test[1][:_LENGTH_MAX]} ({check.test[0]}), made from outside"
    words = shlex.join(check.test[1:]) if check.test[0] == COMMAND else check.test[1]
    return f"the command: {words[:_LENGTH_MAX]}"


def _command(record: ContainerRecord) -> str:
    """Return the check as words of a shell, so that it can be pasted."""
    check = record.config.health
    if check is None or len(check.test) < 2:
        return "COMMAND"
    if check.test[0] == COMMAND:
        return shlex.join(check.test[1:])
    return shlex.join((*(record.config.shell_form or SHELL_DEFAULT), check.test[1]))
