"""The orders to monitors: the file `restart` of a container, which says what is wanted of it. Writer: the engine.

The policy is the request's; that somebody stopped the container is known here and nowhere else. A container that never
had a policy has no such file.
"""

from __future__ import annotations

import os

from ...linux import process
from ...linux.path import read_file
from ...spec.errors import Invalid
from ...supervise import restart
from ...supervise.restart import ALWAYS, NO, ON_FAILURE, POLICIES, RESTART_FILE, Order
from ..containers import state
from ..containers.record import write_durably

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...spec.container import ContainerRequest
    from ..containers.record import ContainerRecord
    from ..engine import Engine

RETRIES_MAX = 2**31 - 1  # docker's is an int of 32 bits on some machines


def check(request: ContainerRequest, subject: str) -> None:
    """Raise Invalid, with docker's texts, for a policy that does not exist or contradicts the rest of the request."""
    policy, retries_max = request.restart_policy, request.restart_retries_max
    hint = f"write --restart {NO}, {ON_FAILURE}[:N], {ALWAYS} or {restart.UNLESS_STOPPED}"
    if policy and policy not in POLICIES:
        raise Invalid(
            "create", subject, f"invalid restart policy: unknown policy '{policy[:60]}'", hint=hint, code="E1101"
        )
    if not 0 <= retries_max <= RETRIES_MAX:
        cause = "invalid restart policy: maximum retry count must be an integer that is not negative"
        raise Invalid("create", subject, cause, hint=hint, code="E1101")
    if retries_max and policy != ON_FAILURE:
        cause = "invalid restart policy: maximum retry count can only be used with 'on-failure'"
        raise Invalid("create", subject, cause, hint=hint, code="E1101")
    if request.auto_remove and policy not in ("", NO):
        cause = "can't create 'AutoRemove' container with restart policy"
        raise Invalid("create", subject, cause, hint="leave --rm or --restart away", code="E1107")


def read(engine: Engine, container_id: str) -> Order | None:
    """Return what is wanted of a container, None when it never had a policy."""
    try:
        return restart.decode(read_file(f"{engine.records.path(container_id)}/{RESTART_FILE}", restart.LINE_BYTES_MAX))
    except OSError:
        return None


def to_run(engine: Engine, record: ContainerRecord) -> None:
    """Say, before a start, that the container is to run. Raises OSError."""
    before = read(engine, record.id)
    if before is not None or _policy(record) != NO:
        _write(engine, record, stopped=False)


def to_stop(engine: Engine, record: ContainerRecord) -> None:
    """Say that no run is to follow, and wake the monitor that may wait for the next one. Raises OSError."""
    if read(engine, record.id) is not None:
        _write(engine, record, stopped=True)
        _wake(engine, record.id)


def renew(engine: Engine, record: ContainerRecord) -> None:
    """Make a changed policy of a record known to its monitor (`update --restart`). Raises OSError."""
    before = read(engine, record.id)
    task = state.observe(engine.records.path(record.id), engine.boot_id)
    if before is not None or task.is_up:
        _write(engine, record, stopped=before is not None and before.stopped)
        _wake(engine, record.id)


def take_back(engine: Engine, record: ContainerRecord, before: Order | None) -> None:
    """Undo `to_run`: its start failed. Raises OSError."""
    if before is None:
        try:
            os.unlink(f"{engine.records.path(record.id)}/{RESTART_FILE}")
        except FileNotFoundError:
            pass
    else:
        _write(engine, record, before.stopped)


def _policy(record: ContainerRecord) -> str:
    return record.request.restart_policy or NO


def _write(engine: Engine, record: ContainerRecord, stopped: bool) -> None:
    order = Order(_policy(record), record.request.restart_retries_max, stopped)
    write_durably(f"{engine.records.path(record.id)}/{RESTART_FILE}", order.encode())


def _wake(engine: Engine, container_id: str) -> None:
    task = state.observe(engine.records.path(container_id), engine.boot_id)
    monitor = state.open_monitor(task.status, engine.boot_id) if task.status is not None else None
    if monitor is None:
        return
    try:
        process.pidfd_send_signal(monitor, restart.WAKE)
    except ProcessLookupError:
        pass  # it has ended: nothing follows
    finally:
        os.close(monitor)
