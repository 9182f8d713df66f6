"""Routes of containers."""

from __future__ import annotations

import select
import socket

from ...engine import events, images
from ...engine.containers import changes, ends, freezing, lifecycle, listing, processes, pruning, state, streams, usage
from ...engine.containers.lifecycle import Client
from ...engine.containers.watch import EXITED, REMOVED
from ...engine.rootfs import difference
from ...spec import attach, jsonio
from ...spec.container import UpdateRequest
from ...spec.errors import Invalid, NotFound, OrlopError, Unavailable
from . import creation, hijack, older, websocket
from .door import Door, Status
from .words import console_size, detach_keys, moment_ns, prune_filters, terminal_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...engine.containers.record import ContainerRecord
    from ...spec.container import ContainerRequest

START_BODY_BYTES_MAX = 7  # docker's daemon lets an empty object through
OWN_MAC_UNTIL = (1, 44)
_MAC_WARNING = (
    "The container-wide MacAddress field is now deprecated. It should be specified in EndpointsConfig instead."
)
_NEXT_EXIT = "next-exit"
# Failures of these are in docker's words; of others ("set net.x to y", "limit ...") the cause alone says too little.
_WORDS_OF_DOCKER = ("start", "create", "connect", "use")
_CONDITIONS = {"": EXITED, "not-running": EXITED, _NEXT_EXIT: EXITED, "removed": REMOVED}


def create(door: Door) -> None:
    body = door.json()
    if not body:
        raise Status(400, "config cannot be empty in order to create a container")
    request = door.admit(creation.container(body, door.query.get("name", ""), door.query.get("platform", "")))
    try:
        record, warnings = lifecycle.create(door.engine, request)
    except NotFound as wrong:
        if wrong.subject in (f"image {request.image}", f"image {request.image}:latest"):
            # Docker's clients pull when they read this.
            raise Status(404, _missing_image(door, request, wrong)) from None
        raise Status(400, wrong.cause) from None  # they do at any other 404, too
    if creation.Reader(body, "Config").raw("MacAddress") and door.version >= OWN_MAC_UNTIL:
        warnings = (*warnings, _MAC_WARNING)
    if request.terminal and (
        size := console_size(creation.Reader(body, "Config").part("HostConfig").raw("ConsoleSize"))
    ):
        door.context.plan_size(record.id, size)
    door.answer_json(201, {"Id": record.id, "Warnings": list(warnings)})


def _missing_image(door: Door, request: ContainerRequest, wrong: NotFound) -> str:
    """Return docker's text for an image that is not there, or not for the platform that is asked for."""
    try:
        images.find(door.engine, request.image)
    except OrlopError:
        return wrong.cause
    return (
        f"image with reference {request.image} was found but does not provide the specified platform"
        f" ({request.platform})"
    )


def list_all(door: Door) -> None:
    limit = door.number("limit")
    everything = door.flag("all") or (limit is not None and limit > 0)
    most = limit if limit is not None and limit > 0 else None
    if door.flag("size"):
        door.answer_json(200, listing.summaries(door.engine, everything, door.filters(), size=True)[:most])
        return
    door.answer_written(listing.summaries_json(door.engine, everything, door.filters(), most))


def inspect(door: Door) -> None:
    found = listing.details(door.engine, door.parts["id"], size=door.flag("size"))
    if door.version < older.CONTAINER_SINCE:
        found = older.container(found, door.version, door.engine.records.find(str(found["Id"])).request)
    door.answer_json(200, found)


def start(door: Door) -> None:
    length = door.length
    if length is None or length > START_BODY_BYTES_MAX:
        cause = "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24"
        raise Status(400, cause)
    record = door.engine.records.find(door.parts["id"])
    if door.engine.observe(record.id).state == state.RUNNING:
        door.answer(304)
        return
    waiting = door.context.promised(record.id)
    ours, theirs = hijack.pair() if waiting else (None, None)
    try:
        lifecycle.start(door.engine, record.id, Client(theirs, door.context.planned_size(record.id)))
    except BaseException as wrong:
        if isinstance(wrong, (Invalid, Unavailable)) and wrong.verb not in _WORDS_OF_DOCKER:
            wrong.cause = str(wrong)
        if ours is not None:
            ours.close()
        for promise in waiting:
            promise.keep(-1)
        raise
    finally:
        if theirs is not None:
            hijack.of_descriptor(theirs).close()  # the monitor has its own
    if ours is not None:
        waiting[0].keep(ours.detach())
    for promise in waiting[1:]:
        promise.keep(_attached_late(door, record))
    door.answer(204)


def _attached_late(door: Door, record: ContainerRecord) -> int:
    try:
        return streams.attach(door.engine, record.id)[1]
    except OrlopError:
        return -1  # it has ended already


def stop(door: Door) -> None:
    record = door.engine.records.find(door.parts["id"])
    if not door.engine.observe(record.id).is_up:
        door.answer(304)
        return
    ends.stop(door.engine, record.id, door.number("t"), door.query.get("signal", ""))
    door.answer(204)


def restart(door: Door) -> None:
    lifecycle.restart(door.engine, door.parts["id"], door.number("t"), door.query.get("signal", ""))
    door.answer(204)


def kill(door: Door) -> None:
    try:
        ends.kill(door.engine, door.parts["id"], door.query.get("signal", ""))
    except OrlopError as wrong:
        wrong.cause = f"cannot kill container: {door.parts['id']}: {wrong.cause}"
        raise
    door.answer(204)


def pause(door: Door) -> None:
    freezing.pause(door.engine, door.parts["id"])
    door.answer(204)


def unpause(door: Door) -> None:
    freezing.unpause(door.engine, door.parts["id"])
    door.answer(204)


def rename(door: Door) -> None:
    changes.rename(door.engine, door.parts["id"], door.query.get("name", ""))
    door.answer(204)


def remove(door: Door) -> None:
    if door.flag("link"):  # never the container itself
        unlink(door)
        return
    lifecycle.remove(door.engine, door.parts["id"], door.flag("force"), volumes=door.flag("v"))
    door.answer(204)


def unlink(door: Door) -> None:
    """`docker rm --link CONTAINER/ALIAS`."""
    if not door.flag("link"):
        raise Status(404, f"No such container: {door.parts['id'][:200]}/{door.parts['alias'][:200]}")
    changes.unlink(door.engine, door.parts["id"], door.parts.get("alias", ""))
    door.answer(204)


def update(door: Door) -> None:
    body = door.json()
    fields = {name: value for name, value in creation.resources(creation.Reader(body, "UpdateConfig")).items() if value}
    pids = creation.Reader(body, "UpdateConfig").number_or_none("PidsLimit")
    if pids is not None and pids != 0:
        fields["pids_max"] = max(pids, 0)
    policy = creation.Reader(body, "UpdateConfig").part("RestartPolicy")
    if policy.text("Name"):
        fields["restart_policy"] = policy.text("Name")
        fields["restart_retries_max"] = policy.number("MaximumRetryCount")
    warnings = changes.update(door.engine, door.parts["id"], UpdateRequest(**fields))
    door.answer_json(200, {"Warnings": list(warnings)})


def resize(door: Door) -> None:
    streams.resize(door.engine, door.parts["id"], *terminal_size(door))
    door.answer(200)


def wait(door: Door) -> None:
    condition = door.query.get("condition", "")
    if condition not in _CONDITIONS:
        raise Status(400, f'invalid condition: "{condition[:60]}"')
    record = door.engine.records.find(door.parts["id"])
    # The headers leave before the wait: docker's client starts the container only once it has them.
    waiting = _awaited(door, record, condition)
    next(waiting)
    door.stream(200, {"Content-Type": "application/json"}, waiting)


def _awaited(door: Door, record: ContainerRecord, condition: str) -> Iterator[bytes]:
    """Yield nothing once it is known to wait, then the answer."""
    watcher = door.engine.watcher
    waiter = watcher.subscribe(record.id, _CONDITIONS[condition])
    try:
        yield b""
        task = door.engine.observe(record.id)
        if condition in ("", "not-running") and not task.is_up:
            code: int | None = ends.wait(door.engine, record.id, EXITED, door.hangup)
        else:
            poll = select.poll()
            poll.register(waiter.fd, select.POLLIN)
            poll.register(door.hangup, select.POLLRDHUP)
            code = waiter.exit_code if waiter.fd in dict(poll.poll()) else None
        if code is not None:
            yield jsonio.dump({"StatusCode": code})
    finally:
        watcher.unsubscribe(waiter)


def logs(door: Door) -> None:
    out, err = door.flag("stdout"), door.flag("stderr")
    if not (out or err):
        raise Status(400, "Bad parameters: you must choose at least one stream")
    record = door.engine.records.find(door.parts["id"])
    tail = door.query.get("tail", "all")
    wanted = streams.LogRequest(
        follow=door.flag("follow"),
        tail=int(tail) if tail.isascii() and tail.isdecimal() and len(tail) <= 18 else None,
        since_ns=moment_ns(door.query.get("since", ""), "since"),
        until_ns=moment_ns(door.query.get("until", ""), "until"),
        timestamps=door.flag("timestamps"),
        details=door.flag("details"),
    )
    pieces = streams.logs(door.engine, record.id, wanted, door.hangup)
    client = hijack.Attached(stdin=False, stdout=out, stderr=err, terminal=record.request.terminal)
    door.stream(200, client.headers(door.version), chosen(pieces, client))


def chosen(pieces: Iterator[bytes], wanted: hijack.Attached) -> Iterator[bytes]:
    """Yield of a log's attach frames what the client wants, each line in a frame of its own: many clients read so."""
    decoder = attach.Decoder()
    for piece in pieces:
        out = bytearray()
        for kind, payload in decoder.feed(piece):
            if (kind == attach.STDOUT and wanted.stdout) or (kind == attach.STDERR and wanted.stderr):
                out += wanted.told_by_line(kind, payload)
        yield bytes(out)


def attach_to(door: Door) -> None:
    record = door.engine.records.find(door.parts["id"])
    _attach(door, record, _wanted(door, record))


def attach_websocket(door: Door) -> None:
    record = door.engine.records.find(door.parts["id"])
    wanted = _wanted(door, record)
    wanted.upgrade = websocket.check(door)
    wanted.codec = websocket.Codec()
    _attach(door, record, wanted)


def _wanted(door: Door, record: ContainerRecord) -> hijack.Attached:
    return hijack.Attached(
        stdin=door.flag("stdin") and record.request.open_stdin,
        stdout=door.flag("stdout"),
        stderr=door.flag("stderr"),
        terminal=record.request.terminal,
        detach_keys=detach_keys(door.query.get("detachKeys", "")),
    )


def _attach(door: Door, record: ContainerRecord, wanted: hijack.Attached) -> None:
    running = door.engine.observe(record.id).lives
    if door.flag("stream") and not running:
        promise = door.context.promise(record.id)
        try:
            client, ahead = door.hijack(wanted.headers(door.version, upgrades=bool(door.upgrade)))
            _carry(door, record, client, hijack.await_start(client, promise), wanted, ahead)
        finally:
            door.context.forget(promise)
        return
    stream = streams.attach(door.engine, record.id)[1] if door.flag("stream") else -1
    client, ahead = door.hijack(wanted.headers(door.version, upgrades=bool(door.upgrade)))
    try:
        if door.flag("logs"):
            hijack.await_head_read(client)
            for piece in chosen(streams.logs(door.engine, record.id, streams.LogRequest(), door.hangup), wanted):
                client.sendall(piece)
    finally:
        _carry(door, record, client, stream, wanted, ahead)


def _carry(
    door: Door, record: ContainerRecord, client: socket.socket, stream: int, wanted: hijack.Attached, ahead: bytes
) -> None:
    if stream >= 0:
        with hijack.of_descriptor(stream) as monitor:
            if hijack.relay(client, monitor, wanted, ahead):
                events.publish_container(door.engine, record, "detach")
    hijack.close(client)


def top(door: Door) -> None:
    options = door.query.get("ps_args", "").split()
    door.answer_json(200, processes.top(door.engine, door.parts["id"], options))


def stats(door: Door) -> None:
    record = door.engine.records.find(door.parts["id"])
    stream, at_once = door.flag("stream", default=True), door.flag("one-shot")
    if stream and at_once:
        raise Status(400, "cannot have stream=true and one-shot=true")
    pieces = usage.read(door.engine, (record.id,), True, stream, door.hangup, at_once=at_once)
    door.stream(200, {"Content-Type": "application/json"}, map(_only_one, pieces))


def _only_one(line: bytes) -> bytes:
    """Return the one object of a line that is a list: who asks here asks for one container."""
    found = jsonio.parse(line, "a sample")
    one = found[0] if isinstance(found, list) and found else None
    return jsonio.dump(older.sample(one)) + b"\n" if isinstance(one, dict) else b""


def changed(door: Door) -> None:
    kinds = {"C": 0, "A": 1, "D": 2}
    found = difference.changes(door.engine, door.parts["id"])
    door.answer_json(200, [{"Path": one["path"], "Kind": kinds[one["kind"]]} for one in found] or None)


def prune(door: Door) -> None:
    ids, freed = pruning.prune(door.engine, *prune_filters(door))
    door.answer_json(200, {"ContainersDeleted": ids or None, "SpaceReclaimed": freed})


ROUTES = (
    ("POST", "/containers/create", create),
    ("GET", "/containers/json", list_all),
    ("POST", "/containers/prune", prune),
    ("GET", "/containers/{id}/json", inspect),
    ("POST", "/containers/{id}/start", start),
    ("POST", "/containers/{id}/stop", stop),
    ("POST", "/containers/{id}/restart", restart),
    ("POST", "/containers/{id}/kill", kill),
    ("POST", "/containers/{id}/pause", pause),
    ("POST", "/containers/{id}/unpause", unpause),
    ("POST", "/containers/{id}/rename", rename),
    ("POST", "/containers/{id}/update", update),
    ("POST", "/containers/{id}/resize", resize),
    ("POST", "/containers/{id}/wait", wait),
    ("POST", "/containers/{id}/attach", attach_to),
    ("GET", "/containers/{id}/attach/ws", attach_websocket),
    ("GET", "/containers/{id}/logs", logs),
    ("GET", "/containers/{id}/top", top),
    ("GET", "/containers/{id}/stats", stats),
    ("GET", "/containers/{id}/changes", changed),
    ("DELETE", "/containers/{id}", remove),
    ("DELETE", "/containers/{id}/{alias}", unlink),
)
