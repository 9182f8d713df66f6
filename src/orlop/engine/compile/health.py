"""Health checks: the request's over the image's, by docker's rules; and what the monitor gets. Pure."""

from __future__ import annotations

from ...spec import signals
from ...spec.errors import Invalid
from ...spec.health import Healthcheck
from ...spec.runtime import Process
from ...spec.task import HealthCheck
from ...supervise.health import ACTIONS, EXEC, NONE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...spec.container import ContainerRequest
    from ...spec.image import ContainerConfig
    from ...spec.runtime import Spec
    from ..containers.record import ContainerRecord

SHELL_DEFAULT = ("/bin/sh", "-c")
OFF, COMMAND, SHELL, HTTP, TCP = "NONE", "CMD", "CMD-SHELL", "HTTP", "TCP"
STOP_TIMEOUT_S_DEFAULT = 10
_EXEC = f"{EXEC}:"
_DURATION_NS_MIN = 1_000_000


def merge(request: ContainerRequest, image: ContainerConfig, subject: str) -> Healthcheck | None:
    """Return the check of a container, None for none. What the request leaves open is the image's.

    Raises Invalid with docker's texts.
    """
    asked, base = request.health or Healthcheck(), image.healthcheck or Healthcheck()
    _check(asked, subject)
    if request.health_on_failure not in ACTIONS and not request.health_on_failure.removeprefix(_EXEC).strip():
        raise Invalid("create", subject, "exec: names no command", hint="write exec:COMMAND")
    if request.health_on_failure not in ACTIONS and not request.health_on_failure.startswith(_EXEC):
        cause = f"there is no action {request.health_on_failure[:60]!r} on failure"
        raise Invalid("create", subject, cause, hint=f"known are {', '.join(ACTIONS)} and exec:COMMAND", code="E1105")
    test = asked.test or base.test
    if not test or test[0] == OFF:
        if request.health_on_failure != NONE:
            hint = "add --health-cmd, --health-http or --health-tcp"
            raise Invalid("create", subject, "an action on failure needs a health check", hint=hint, code="E1105")
        return Healthcheck(test=test) if test else None
    merged = Healthcheck(
        test=test,
        interval=asked.interval or base.interval,
        timeout=asked.timeout or base.timeout,
        start_period=asked.start_period or base.start_period,
        start_interval=asked.start_interval or base.start_interval,
        retries=asked.retries or base.retries,
    )
    if test[0] in (HTTP, TCP):
        _place(test, subject)
    elif test[0] not in (COMMAND, SHELL) or len(test) < 2:
        hint = f"write one of {OFF}, {COMMAND}, {SHELL}, {HTTP}, {TCP} and what it takes"
        raise Invalid("create", subject, f"Unknown type {test[0][:60]!r} in the health check", hint=hint, code="E1105")
    return merged


def task(record: ContainerRecord, spec: Spec, environment: tuple[str, ...]) -> HealthCheck | None:
    """Return what a monitor is to do for a container's health, None for nothing."""
    check = record.config.health
    if check is None or not check.test or check.test[0] == OFF:
        return None
    timeout_s = record.config.stop_timeout_s
    shell = record.config.shell_form or SHELL_DEFAULT
    on_failure, _, command = record.request.health_on_failure.partition(":")
    common = HealthCheck(
        interval_ns=check.interval,
        timeout_ns=check.timeout,
        start_period_ns=check.start_period,
        start_interval_ns=check.start_interval,
        retries=check.retries,
        on_failure=on_failure,
        action=_process(record, spec, environment, (*shell, command)) if on_failure == EXEC else None,
        stop_signal=signals.parse(record.config.stop_signal, record.subject),
        stop_timeout_s=STOP_TIMEOUT_S_DEFAULT if timeout_s is None else max(timeout_s, 0),
    )
    if check.test[0] in (HTTP, TCP):
        host, port, path = _place(check.test, record.subject)
        return common.replace(host=host, port=port, path=path)
    args = check.test[1:] if check.test[0] == COMMAND else (*shell, check.test[1])
    return common.replace(process=_process(record, spec, environment, args))


def _process(record: ContainerRecord, spec: Spec, environment: tuple[str, ...], args: tuple[str, ...]) -> Process:
    base = spec.process
    return Process(
        cwd=record.config.working_dir or "/",
        env=environment,
        args=args,
        capabilities=base.capabilities if base is not None else None,
        no_new_privileges=base.no_new_privileges if base is not None else False,
        apparmor_profile=base.apparmor_profile if base is not None else "",
    )


def _check(asked: Healthcheck, subject: str) -> None:
    for name, value in (
        ("Interval", asked.interval),
        ("Timeout", asked.timeout),
        ("StartPeriod", asked.start_period),
        ("StartInterval", asked.start_interval),
    ):
        if value and value < _DURATION_NS_MIN:
            cause = f"{name} in Healthcheck cannot be less than 1ms"
            raise Invalid("create", subject, cause, hint="write a duration such as 30s", code="E1105")
    if asked.retries < 0:
        raise Invalid(
            "create",
            subject,
            "Retries in Healthcheck cannot be negative",
            hint="write a number from 1 on",
            code="E1105",
        )


def _place(test: tuple[str, ...], subject: str) -> tuple[str, int, str]:
    """Return address, port and path of an HTTP or TCP check: "[ADDRESS]:PORT[/path]". Raises Invalid."""
    text = test[1] if len(test) == 2 else ""
    address, slash, rest = text.partition("/")
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    path = f"/{rest}" if slash or test[0] == HTTP else ""
    right = port.isascii() and port.isdecimal() and len(port) <= 5 and 0 < int(port) <= 65535
    clean = path.isprintable() and " " not in path and not (path and test[0] == TCP)
    if not colon or not right or not clean or not _is_address(host):
        shown = ":8080/path" if test[0] == HTTP else ":5432"
        cause = f"the health check {text[:100]!r} is no place to connect to"
        raise Invalid("create", subject, cause, hint=f"write {shown}, or an address before the colon", code="E1105")
    return host, int(port), path


def _is_address(text: str) -> bool:
    return all(char in "0123456789abcdefABCDEF.:" for char in text)
