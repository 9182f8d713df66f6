"""The flags of run and create that say how a container's health is checked."""

from __future__ import annotations

from ...spec.health import Healthcheck
from .flags import BOOL, EXIT_FLAGS, INT, STRING, Flag, Options, UsageError
from .values import DURATION, json_words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HEALTH_FLAGS = (
    Flag("health-cmd", "", STRING, "Command to run to check health", default=""),
    Flag("health-http", "", STRING, "Check health by a request from outside the container: :PORT/PATH", default=""),
    Flag("health-interval", "", DURATION, "Time between running the check", default=0),
    Flag(
        "health-on-failure",
        "",
        STRING,
        "Action when it is unhealthy: none, kill, restart, stop or exec:COMMAND",
        default="none",
    ),
    Flag("health-retries", "", INT, "Consecutive failures needed to report unhealthy", default=0),
    Flag("health-start-interval", "", DURATION, "Time between running the check during the start period", default=0),
    Flag("health-startup-interval", "", DURATION, "podman's --health-start-interval", default=0, hidden=True),
    Flag("health-start-period", "", DURATION, "Time to initialize before counting retries towards unstable", default=0),
    Flag("health-tcp", "", STRING, "Check health by a connection from outside the container: :PORT", default=""),
    Flag("health-timeout", "", DURATION, "Maximum time to allow one check to run", default=0),
    Flag("no-healthcheck", "", BOOL, "Disable any container-specified HEALTHCHECK", default=False),
)
_NAMES = tuple(flag.name for flag in HEALTH_FLAGS if flag.name not in ("no-healthcheck", "health-on-failure"))


def fields(options: Options) -> dict[str, Any]:
    """Return the fields of a ContainerRequest that the flags fill. Raises UsageError for a contradiction."""
    given = [name for name in _NAMES if name in options.given]
    if options["no-healthcheck"]:
        if given:
            raise _wrong("--no-healthcheck conflicts with --health-* options", "leave one of them away")
        return {"health": Healthcheck(test=("NONE",))}
    for name in ("health-interval", "health-timeout", "health-start-period", "health-start-interval", "health-retries"):
        if options[name] < 0:
            raise _wrong(f"--{name} cannot be negative", "write 30s, or a number from 1 on")
    tests = [
        test
        for name, test in (
            ("health-cmd", _command(options["health-cmd"])),
            ("health-http", ("HTTP", options["health-http"])),
            ("health-tcp", ("TCP", options["health-tcp"])),
        )
        if options[name]
    ]
    if len(tests) > 1:
        raise _wrong("--health-cmd, --health-http and --health-tcp exclude each other", "choose one of them")
    health = Healthcheck(
        test=tests[0] if tests else (),
        interval=options["health-interval"],
        timeout=options["health-timeout"],
        start_period=options["health-start-period"],
        start_interval=options["health-start-interval"] or options["health-startup-interval"],
        retries=options["health-retries"],
    )
    return {"health": health if given else None, "health_on_failure": options["health-on-failure"]}


def _command(text: str) -> tuple[str, ...]:
    """Return the test of a --health-cmd: for a shell, or podman's array of JSON, with or without the kind in front."""
    words = json_words(text)
    if words is None:
        return ("CMD-SHELL", text)
    return words if words[0] in ("CMD", "CMD-SHELL", "NONE") else ("CMD", *words)


def _wrong(message: str, hint: str) -> UsageError:
    return UsageError(message, hint, EXIT_FLAGS, shows_usage=False)
