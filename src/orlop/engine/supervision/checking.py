"""One health check on demand, beside those that a container's monitor makes. What it says changes nothing."""

from __future__ import annotations

import select
import socket
import time

from ...spec import attach, jsonio
from ...spec.container import ExecRequest
from ...spec.errors import CommandFailed, Conflict, Unsupported
from ...spec.task import ExitRecord
from ...supervise.health import EXIT_CODE_NONE, HEALTHY, OUTPUT_BYTES_MAX, TIMEOUT_S_DEFAULT, UNHEALTHY
from ..containers import execs, state
from ..containers.lifecycle import Client
from ..containers.record import timestamp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..engine import Engine

_SHELL = ("/bin/sh", "-c")
READ_BYTES = 64 * 1024


def check_now(engine: Engine, reference: str, hangup: int) -> dict[str, object]:
    """Make a container's check once; return docker's State.Health of this one result. hangup: the client's connection.

    Raises NotFound, Conflict for a container that does not run or has no check, Unsupported for a check from outside.
    """
    record = engine.records.find(reference)
    state.step(engine.observe(record.id), "exec", record)
    health = record.config.health
    kind, *words = (health.test if health is not None else ()) or ("NONE",)
    if kind == "NONE":
        raise Conflict("check", record.subject, "it has no defined healthcheck", hint="make it with --health-cmd")
    if kind not in ("CMD", "CMD-SHELL"):
        cause = f"its check {kind} is made by its monitor only"
        raise Unsupported("check", record.subject, cause, hint=f"read what it said: orlop inspect {record.name}")
    args = (*_SHELL, *words) if kind == "CMD-SHELL" else tuple(words)
    timeout_s = health.timeout / 1e9 if health is not None and health.timeout else TIMEOUT_S_DEFAULT
    started = timestamp()
    ours, theirs = socket.socketpair()
    with ours:
        try:
            with theirs:
                request = ExecRequest(args=args, ends_with_client=True)
                execs.start(engine, record.id, request, Client(theirs.fileno()))
            code, output = _read(ours, time.monotonic() + timeout_s, hangup)
        except CommandFailed as wrong:
            code, output = wrong.exit_code, wrong.cause
    ended = timestamp()
    result = {"Start": started, "End": ended, "ExitCode": code, "Output": output}
    failed = code != 0
    return {"Status": UNHEALTHY if failed else HEALTHY, "FailingStreak": int(failed), "Log": [result]}


def _read(stream: socket.socket, deadline: float, hangup: int) -> tuple[int, str]:
    """Return the exit code and the beginning of what it said. Its end is the stream's: leaving early ends it."""
    decoder, output = attach.Decoder(), bytearray()
    poll = select.poll()
    poll.register(stream, select.POLLIN)
    poll.register(hangup, select.POLLRDHUP)
    while (left_s := deadline - time.monotonic()) > 0:
        ready = dict(poll.poll(left_s * 1000))
        if hangup in ready:
            return EXIT_CODE_NONE, "whoever asked for it has gone"
        if not ready:
            break
        data = stream.recv(READ_BYTES)
        if not data:
            return EXIT_CODE_NONE, "its monitor has gone"
        for kind, payload in decoder.feed(data):
            if kind == attach.EXIT:
                record = ExitRecord.from_json(jsonio.parse(payload, "an exit record"), "an exit record")
                return record.exit_code, output[:OUTPUT_BYTES_MAX].decode(errors="replace")
            if kind in (attach.STDOUT, attach.STDERR) and len(output) < OUTPUT_BYTES_MAX:
                output += payload
    return EXIT_CODE_NONE, "Health check exceeded timeout"
