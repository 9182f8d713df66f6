"""Routes of execs: created first, started later, on a connection of their own."""

from __future__ import annotations

import base64

from ...engine import events
from ...engine.containers import execs, names, state
from ...engine.containers.lifecycle import Client
from ...spec import attach
from ...spec.errors import CommandFailed, Conflict, NotFound, OrlopError
from . import creation, hijack
from .context import ExecWishes, PlannedExec
from .door import Door, Status
from .words import console_size, detach_keys, terminal_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ...spec.runtime import Box

    Failed = Callable[[OrlopError, bool], bytes]

EXIT_CODE_FAILED = 126
_FAILED = "OCI runtime exec failed: exec failed: unable to start container process"  # what docker's users look for
BEGUN_S_MAX = 10.0  # docker's own patience with a resize (moby, daemon/resize.go)


def create(door: Door) -> None:
    record = door.engine.records.find(door.parts["id"])
    state.step(door.engine.observe(record.id), "exec", record)
    fields = creation.Reader(door.json(), "the request")
    request = door.admit(creation.execution(fields, record.subject))
    exec_id = names.new_id()
    door.context.plan_exec(exec_id, PlannedExec(record.id, request, _wishes(fields)))
    events.exec_told(door.engine, record, exec_id, request.args, "exec_create")
    door.answer_json(201, {"Id": exec_id})


def _wishes(fields: creation.Reader) -> ExecWishes:
    keys = fields.text("DetachKeys")
    detach_keys(keys)  # wrong ones are told now, not at the start
    return ExecWishes(
        stdout=fields.boolean("AttachStdout"),
        stderr=fields.boolean("AttachStderr"),
        detach_keys=keys,
        size=console_size(fields.raw("ConsoleSize")),
    )


def start(door: Door) -> None:
    fields = creation.Reader(door.json(), "the request")
    framed = not fields.boolean("Tty")
    run(door, fields.boolean("Detach"), console_size(fields.raw("ConsoleSize")), framed=framed)


def run(
    door: Door, detach: bool, size: Box | None, failed: Failed | None = None, *, framed: bool | None = None
) -> None:
    """Start the exec of the path, at a terminal of that size, and carry what it says unless it is detached.

    failed: what a client reads of a start that failed, when it has its connection already. framed: whether what is said
    comes in frames; None is as it fits to its terminal. Without them nobody could tell standard error, so docker leaves
    it away.
    """
    exec_id = door.parts["id"]
    planned = door.context.planned_exec(exec_id)
    record = door.engine.records.load(planned.container_id)
    if planned.started:
        raise Conflict("start", f"exec {exec_id}", f"exec {exec_id} was started already", hint="create another one")
    state.step(door.engine.observe(record.id), "exec", record)
    planned.started = True
    size = size or planned.wishes.size
    if detach:
        try:
            _start(door, exec_id, planned, Client(None, size))
        except CommandFailed as wrong:
            raise Status(400, _why(wrong)) from None
        door.answer(200)
        return
    wanted = hijack.Attached(
        stdin=planned.request.open_stdin,
        stdout=planned.wishes.stdout,
        stderr=planned.wishes.stderr,
        terminal=planned.request.terminal,
        detach_keys=detach_keys(planned.wishes.detach_keys),
    )
    if framed is not None:
        wanted.framed = framed
        wanted.stderr = wanted.stderr and framed
    client, ahead = door.hijack(wanted.headers(door.version, upgrades=bool(door.upgrade)))
    ours, theirs = hijack.pair()
    with ours:
        try:
            with hijack.of_descriptor(theirs):
                _start(door, exec_id, planned, Client(theirs, size))
        except OrlopError as wrong:
            hijack.await_head_read(client)
            client.sendall((failed or _failed)(wrong, not wanted.framed))
        else:
            if hijack.relay(client, ours, wanted, ahead):
                events.publish_container(door.engine, record, "exec_detach", {"execID": exec_id})
    hijack.close(client)


def _failed(wrong: OrlopError, terminal: bool) -> bytes:
    """As docker's daemon: the connection is no HTTP any more, so the error is output."""
    text = f"{_why(wrong)}\r\n".encode()
    return text if terminal else attach.frame(attach.STDOUT, text)


def _why(wrong: OrlopError) -> str:
    return f"{_FAILED}: {wrong.cause}: unknown" if wrong.cause.startswith("exec: ") else wrong.cause


def _start(door: Door, exec_id: str, planned: PlannedExec, client: Client) -> None:
    try:
        planned.pid = execs.start(door.engine, planned.container_id, planned.request, client, exec_id)[1]
    except OrlopError as wrong:
        planned.failed_code = wrong.exit_code if isinstance(wrong, CommandFailed) else EXIT_CODE_FAILED
        raise
    finally:
        planned.begun.set()


def inspect(door: Door) -> None:
    exec_id = door.parts["id"]
    planned = door.context.planned_exec(exec_id)
    ended = None
    if planned.started:
        try:
            ended = execs.ended(door.engine, door.engine.records.load(planned.container_id), exec_id)
        except NotFound:
            raise NotFound("find", f"exec {exec_id}", f"No such exec instance: {exec_id}") from None
    code = planned.failed_code if ended is None or planned.failed_code is not None else ended.exit_code
    request, wishes = planned.request, planned.wishes
    found: dict[str, Any] = {
        "ID": exec_id,
        "Running": planned.started and code is None,
        "ExitCode": code,
        "ProcessConfig": {
            "tty": request.terminal,
            "entrypoint": request.args[0],
            "arguments": list(request.args[1:]),
            "privileged": request.privileged,
            **({"user": request.user} if request.user else {}),
        },
        "OpenStdin": request.open_stdin,
        "OpenStderr": wishes.stderr,
        "OpenStdout": wishes.stdout,
        "CanRemove": False,
        "ContainerID": planned.container_id,
        "DetachKeys": base64.b64encode(detach_keys(wishes.detach_keys)).decode() if wishes.detach_keys else "",
        "Pid": planned.pid if code is None else 0,
    }
    door.answer_json(200, found)


def resize(door: Door) -> None:
    planned = door.context.planned_exec(door.parts["id"])
    frame = attach.frame(attach.RESIZE, attach.size(*terminal_size(door)))
    if planned.started:  # its client has the connection before the process is there
        planned.begun.wait(BEGUN_S_MAX)
    with hijack.of_descriptor(execs.attach(door.engine, planned.container_id, door.parts["id"])) as monitor:
        monitor.sendall(frame)
    door.answer(200)


ROUTES = (
    ("POST", "/containers/{id}/exec", create),
    ("POST", "/exec/{id}/start", start),
    ("POST", "/exec/{id}/resize", resize),
    ("GET", "/exec/{id}/json", inspect),
)
