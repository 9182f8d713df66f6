"""Routes of execs: created first, started later, on a connection of their own."""

from __future__ import annotations

from ...engine.containers import execs, names, state
from ...engine.containers.lifecycle import Client
from ...spec.errors import Conflict, NotFound
from ...spec.runtime import Box
from . import creation, hijack
from .context import PlannedExec
from .door import Door
from .words import detach_keys, size_frame

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def create(door: Door) -> None:
    record = door.engine.records.find(door.parts["id"])
    state.step(door.engine.observe(record.id), "exec", record)
    request, keys = creation.execution(door.json(), record.subject)
    exec_id = names.new_id()
    door.context.plan_exec(exec_id, PlannedExec(record.id, request, keys))
    door.answer_json(201, {"Id": exec_id})


def start(door: Door) -> None:
    exec_id = door.parts["id"]
    planned = door.context.planned_exec(exec_id)
    fields = creation.Reader(door.json(), "the request")
    record = door.engine.records.load(planned.container_id)
    if planned.started:
        raise Conflict("start", f"exec {exec_id}", f"exec {exec_id} was started already", hint="create another one")
    planned.started = True
    size = _size(fields.raw("ConsoleSize"))
    if fields.boolean("Detach"):
        planned.pid = execs.start(door.engine, record.id, planned.request, Client(None, size), exec_id)[1]
        door.answer(200)
        return
    wanted = hijack.Attached(
        stdin=planned.request.open_stdin,
        stdout=True,
        stderr=True,
        terminal=planned.request.terminal,
        detach_keys=detach_keys(planned.detach_keys),
    )
    ours, theirs = hijack.pair()
    with ours:
        with hijack.of_descriptor(theirs):
            planned.pid = execs.start(door.engine, record.id, planned.request, Client(theirs, size), exec_id)[1]
        client, ahead = door.hijack(hijack.RAW if wanted.terminal else hijack.MULTIPLEXED)
        hijack.relay(client, ours, wanted, ahead)
    hijack.close(client)


def inspect(door: Door) -> None:
    exec_id = door.parts["id"]
    planned = door.context.planned_exec(exec_id)
    ended = None
    if planned.started:
        try:
            ended = execs.ended(door.engine, door.engine.records.load(planned.container_id), exec_id)
        except NotFound:
            raise NotFound("find", f"exec {exec_id}", f"No such exec instance: {exec_id}") from None
    request = planned.request
    found: dict[str, Any] = {
        "ID": exec_id,
        "Running": planned.started and ended is None,
        "ExitCode": ended.exit_code if ended is not None else None,
        "ProcessConfig": {
            "tty": request.terminal,
            "entrypoint": request.args[0],
            "arguments": list(request.args[1:]),
            "privileged": request.privileged,
            "user": request.user,
        },
        "OpenStdin": request.open_stdin,
        "OpenStderr": True,
        "OpenStdout": True,
        "CanRemove": ended is not None,
        "ContainerID": planned.container_id,
        "DetachKeys": planned.detach_keys,
        "Pid": planned.pid if ended is None else 0,
    }
    door.answer_json(200, found)


def _size(value: object) -> Box | None:
    if isinstance(value, list) and len(value) == 2 and all(isinstance(one, int) and 0 < one < 65536 for one in value):
        return Box(height=value[0], width=value[1])
    return None


def resize(door: Door) -> None:
    planned = door.context.planned_exec(door.parts["id"])
    frame = size_frame(door)
    with hijack.of_descriptor(execs.attach(door.engine, planned.container_id, door.parts["id"])) as monitor:
        monitor.sendall(frame)
    door.answer(200)


ROUTES = (
    ("POST", "/containers/{id}/exec", create),
    ("POST", "/exec/{id}/start", start),
    ("POST", "/exec/{id}/resize", resize),
    ("GET", "/exec/{id}/json", inspect),
)
