"""Routes of containers and execs. What means the same in docker's words is docker's handler, under podman's names."""

from __future__ import annotations

import select
import time

from ...engine import events
from ...engine.containers import ends, lifecycle, listing, processes, pruning, streams, usage
from ...engine.containers.names import is_id
from ...engine.containers.state import EXITED as EXITED_STATE
from ...engine.containers.watch import EXITED, REMOVED
from ...engine.images.filters import moment
from ...engine.rootfs import difference
from ...spec import attach, jsonio
from ...spec.container import UpdateRequest
from ...spec.errors import NotFound, OrlopError
from ...spec.runtime import Box
from ..cli.podman import waiting
from ..cli.podman.waiting import NO_CODE
from ..docker import archives, execs, hijack
from ..docker import containers as docker
from ..docker.creation import Reader
from ..docker.door import Door, Status
from ..docker.words import prune_filters, terminal_size
from . import creation, shapes
from .filters import chosen, is_before, others
from .images import compare

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from ...engine.containers.record import ContainerRecord
    from ...engine.containers.state import Task
    from ..docker.door import Handler

JSON = {"Content-Type": "application/json"}
TEXT = {"Content-Type": "text/plain; charset=us-ascii"}
_CONDITIONS = {"": EXITED, "stopped": EXITED, "exited": EXITED, "removing": REMOVED}
_FILTERS: dict[str, Callable[[tuple[ContainerRecord, Task, object], str], bool]] = {
    "pod": lambda row, value: False,
    "restart-policy": lambda row, value: (row[0].request.restart_policy or "no") == value,
    "until": lambda row, value: is_before(row[0].created_at, value),
}
_INTERVAL_S, _INTERVAL_S_MIN = 0.25, 0.05
_NEVER = "0001-01-01T00:00:00Z"
_GO_DIRECTORY = 1 << 31


def named(handler: Handler, **names: str) -> Handler:
    """Return docker's handler for a request that calls some words of its query otherwise: docker's name=podman's."""

    def under(door: Door) -> None:
        for ours, theirs in names.items():
            if theirs in door.query:
                door.query[ours] = door.query[theirs]
        handler(door)

    return under


def create(door: Door) -> None:
    body = door.json()
    if not body:
        raise Status(400, "a container's specification is needed")
    record, warnings = lifecycle.create(door.engine, door.admit(creation.container(door.engine, body)))
    door.answer_json(201, {"Id": record.id, "Warnings": list(warnings)})


def list_all(door: Door) -> None:
    limit = _last(door)
    everything = door.flag("all") or limit is not None
    filters = door.filters()
    if "status" in filters:
        filters["status"] = tuple({"stopped": "exited", "configured": "created"}.get(s, s) for s in filters["status"])
    size, namespaces = door.flag("size"), door.flag("namespace")
    found = chosen(listing.chosen(door.engine, everything, others(filters, _FILTERS)), filters, _FILTERS)[:limit]
    told = []
    for record, task, _ in found:
        one = shapes.summary(door.engine, record, task, listing.sizes(door.engine, record) if size else {})
        told.append(one | ({"Namespaces": shapes.namespaces(task)} if namespaces else {}))
    door.answer_json(200, told)


def _last(door: Door) -> int | None:
    """Return how many containers are wanted, None for as many as there are: its client writes -1."""
    text = door.query.get("last") or door.query.get("limit") or "-1"
    try:
        number = int(text) if len(text) < 10 and text.isascii() else int("no")
    except ValueError:
        raise Status(400, f"invalid value for last: {text[:60]!r}") from None
    return number if number > 0 else None


def inspect(door: Door) -> None:
    door.answer_json(200, shapes.details(door.engine, door.parts["id"], door.major, size=door.flag("size")))


def exists(door: Door) -> None:
    door.engine.records.find(door.parts["id"])
    door.answer(204)


def remove(door: Door) -> None:
    """Remove a container. An answer of 200 names what was removed, and what could not be."""
    reference = door.parts["id"]
    try:
        record = door.engine.records.find(reference)
    except NotFound:
        if not door.flag("ignore"):
            raise
        door.answer_json(200, [])
        return
    force = door.flag("force")
    timeout = door.number("timeout")
    if force and timeout is not None and door.engine.observe(record.id).is_up:
        ends.stop(door.engine, record.id, timeout, "")
    try:
        lifecycle.remove(door.engine, record.id, force, volumes=door.flag("volumes") or door.flag("v"))
    except NotFound:
        if not force:
            raise
    door.answer_json(200, [{"Id": record.id, "RawInput": reference}])


def wait(door: Door) -> None:
    conditions = door.every("condition") or [""]
    known = {*_CONDITIONS, *waiting.STATES, *waiting.HEALTH}
    if unknown := set(conditions) - known:
        raise Status(400, f"a container is never {min(unknown)[:60]!r}: known are {', '.join(sorted(known - {''}))}")
    reference = door.parts["id"]
    try:
        record_id = door.engine.records.find(reference).id
        if set(conditions) <= set(_CONDITIONS):
            door.stream(200, TEXT, _waited(door, record_id, _CONDITIONS[conditions[0]]))
        else:
            door.stream(200, TEXT, _seen(door, record_id, conditions))
    except NotFound:  # `run --rm`: it has ended, and is gone, before its client asked
        code = _told_end(door, reference)
        if code is None:
            raise
        door.answer(200, TEXT, b"%d\n" % code)


def _waited(door: Door, record_id: str, condition: str) -> Iterator[bytes]:
    try:
        code = ends.wait(door.engine, record_id, condition, door.hangup)
    except NotFound:
        code = _told_end(door, record_id)
    if code is not None:
        yield b"%d\n" % code


def _seen(door: Door, record_id: str, conditions: list[str]) -> Iterator[bytes]:
    """Look until a container is in one of the states, or gone; nothing is told when the client has left meanwhile."""
    pause_s = _pause_s(door.query.get("interval", ""))
    left = select.poll()
    left.register(door.hangup, select.POLLIN | select.POLLRDHUP)
    code: int | None = NO_CODE
    while True:
        try:
            state = listing.details(door.engine, record_id, size=False)["State"]
        except NotFound:
            code = _told_end(door, record_id)
            break
        assert isinstance(state, dict)
        if waiting.is_met(state, conditions):
            code = int(state["ExitCode"]) if state["Status"] == EXITED_STATE else NO_CODE
            break
        if left.poll(pause_s * 1000):
            return
    yield b"%d\n" % (NO_CODE if code is None else code)


def _pause_s(text: str) -> float:
    try:
        return max(_INTERVAL_S_MIN, waiting.seconds(text)) if text else _INTERVAL_S
    except OrlopError as wrong:
        raise Status(400, wrong.cause) from None


def _told_end(door: Door, reference: str) -> int | None:
    """Return the exit code with which a container ended that is gone, as the events tell it; None if they do not."""
    if not is_id(reference):
        return None
    chosen = {"type": ("container",), "event": ("die",), "container": (reference,)}
    found = b"".join(events.read(door.engine, chosen, 0, time.time_ns(), door.hangup)).splitlines()
    for line in reversed(found):
        event: dict[str, Any] = jsonio.parse_object(line, "an event")
        return int(event["Actor"]["Attributes"]["exitCode"])
    return None


def resize(door: Door) -> None:
    """Give a container's terminal a size: its client tells it before the start, and it is kept until then."""
    record = door.engine.records.find(door.parts["id"])
    rows, columns = terminal_size(door)
    if door.engine.observe(record.id).lives:
        streams.resize(door.engine, record.id, rows, columns)
    elif rows and columns:
        door.context.plan_size(record.id, Box(height=rows, width=columns))
    door.answer(200)


def logs(door: Door) -> None:
    """Answer with frames, also what a terminal said: its client knows no other way."""
    client = hijack.Attached(stdin=False, stdout=door.flag("stdout"), stderr=door.flag("stderr"), terminal=False)
    if not (client.stdout or client.stderr):
        raise Status(400, "Bad parameters: you must choose at least one stream")
    record = door.engine.records.find(door.parts["id"])
    tail = door.query.get("tail", "-1")
    wanted = streams.LogRequest(
        follow=door.flag("follow"),
        tail=int(tail) if tail.isascii() and tail.isdecimal() and len(tail) <= 18 else None,
        since_ns=_moment_ns(door.query.get("since", "")),
        until_ns=_moment_ns(door.query.get("until", "")),
        timestamps=door.flag("timestamps"),
    )
    pieces = streams.logs(door.engine, record.id, wanted, door.hangup)
    door.stream(200, {}, docker.chosen(pieces, client))


def _moment_ns(text: str) -> int | None:
    return None if text in ("", "0", _NEVER) else int(moment(text) * 1e9)


def top(door: Door) -> None:
    if door.flag("stream"):
        raise Status(501, "top is told once: leave stream away")
    words = [word for word in ",".join(door.every("ps_args")).split(",") if word]
    if words and words[0].startswith("-"):
        door.answer_json(200, processes.top(door.engine, door.parts["id"], words))
        return
    from .top import top as of_columns

    door.answer_json(200, of_columns(door.engine, door.parts["id"], words))


def stats(door: Door) -> None:
    references = [door.engine.records.find(name).id for name in door.every("containers") if name]
    stream = door.flag("stream", default=True)
    pieces = usage.read(door.engine, references, door.flag("all"), stream, door.hangup)
    door.stream(200, JSON, (_sampled(piece) for piece in pieces))


def _sampled(line: bytes) -> bytes:
    found = jsonio.parse(line, "a sample")
    assert isinstance(found, list)
    return jsonio.dump({"Error": None, "Stats": [_sample(one) for one in found]}) + b"\n"


def _sample(one: dict[str, Any]) -> dict[str, object]:
    """Return podman's ContainerStats of docker's."""
    cpu, before, memory = one["cpu_stats"], one["precpu_stats"], one["memory_stats"]
    total = cpu.get("cpu_usage", {}).get("total_usage", 0)
    spent = total - before.get("cpu_usage", {}).get("total_usage", 0)
    passed = cpu.get("system_cpu_usage", 0) - before.get("system_cpu_usage", 0)
    share = 100.0 * cpu.get("online_cpus", 1) * spent / passed if passed > 0 and spent > 0 else 0.0
    used, limit = memory.get("usage", 0), memory.get("limit", 0)
    blocks = one["blkio_stats"].get("io_service_bytes_recursive") or []
    return {
        "AvgCPU": share,
        "ContainerID": one["id"],
        "Name": one["name"].removeprefix("/"),
        "PerCPU": cpu.get("cpu_usage", {}).get("percpu_usage"),
        "CPU": share,
        "CPUNano": total,
        "CPUSystemNano": cpu.get("cpu_usage", {}).get("usage_in_kernelmode", 0),
        "SystemNano": time.time_ns(),
        "MemUsage": used,
        "MemLimit": limit,
        "MemPerc": 100.0 * used / limit if limit else 0.0,
        "NetInput": sum(counts["rx_bytes"] for counts in one["networks"].values()),
        "NetOutput": sum(counts["tx_bytes"] for counts in one["networks"].values()),
        "BlockInput": sum(entry["value"] for entry in blocks if entry["op"] == "read"),
        "BlockOutput": sum(entry["value"] for entry in blocks if entry["op"] == "write"),
        "PIDs": one["pids_stats"].get("current", 0),
        "UpTime": total,
        "Duration": total,
    }


def changed(door: Door) -> None:
    """Compare a container with its image, or an image with another: its client asks for both here."""
    kind = door.query.get("difftype") or "all"
    if kind == "image" or (kind == "all" and not _is_container(door)):
        compare(door, door.parts["id"])
        return
    if door.query.get("parent") or kind not in ("all", "container"):
        raise Status(501, "a container is compared with its image only")
    kinds = {"C": 0, "A": 1, "D": 2}
    found = difference.changes(door.engine, door.parts["id"])
    door.answer_json(200, [{"Path": one["path"], "Kind": kinds[one["kind"]]} for one in found])


def _is_container(door: Door) -> bool:
    try:
        door.engine.records.find(door.parts["id"])
    except NotFound:
        return False
    return True


def init(door: Door) -> None:
    lifecycle.init(door.engine, door.parts["id"])
    door.answer(204)


def mount(door: Door) -> None:
    from ...engine.rootfs import mounted

    door.answer_json(200, mounted.mount(door.engine, door.parts["id"]))


def unmount(door: Door) -> None:
    from ...engine.rootfs import mounted

    mounted.unmount(door.engine, door.parts["id"])
    door.answer(204)


def list_mounted(door: Door) -> None:
    from ...engine.rootfs import mounted

    door.answer_json(200, mounted.listed(door.engine))


def prune(door: Door) -> None:
    filters = prune_filters(door)
    sizes = {
        record.id: listing.sizes(door.engine, record)["SizeRw"]
        for record, task, _ in listing.chosen(door.engine, True, {})
        if not task.is_up
    }
    ids, _ = pruning.prune(door.engine, *filters)
    door.answer_json(200, [{"Id": one, "Err": None, "Size": sizes.get(one, 0)} for one in ids])


def update(door: Door) -> None:
    """Change limits and the restart policy: what else podman 5 changes so is refused by the field's name."""
    body = door.json()
    if strange := {name for name, value in body.items() if value} - creation.CGROUP_FIELDS:
        raise Status(501, f"{min(strange)[:60]} of a container is not changed: limits and the restart policy are")
    fields = creation.updated(Reader(body, "the request"))
    from ...engine.containers import changes

    record = door.engine.records.find(door.parts["id"])
    given = {name: value for name, value in fields.items() if value}
    pids = Reader(body, "the request").part("pids").number_or_none("limit")
    policy, retries = door.query.get("restartPolicy", ""), door.number("restartRetries")
    request = UpdateRequest(
        **given,
        pids_max=pids,
        restart_policy={"never": "no"}.get(policy, policy) or None,
        restart_retries_max=retries,
    )
    changes.update(door.engine, record.id, request)
    door.answer(201, TEXT, record.id.encode())


# -- archives ---------------------------------------------------------------------------------------------------------


def _stat_header(door: Door) -> dict[str, str]:
    """Return podman's header: docker's, and whether it is a directory, and the place that it leads to, link or not."""
    path = archives.asked_path(door)
    found = archives.path_stat(door, path)
    target = str(found["linkTarget"])
    if target:
        try:
            found |= {"mode": archives.path_stat(door, target)["mode"]}
        except OrlopError:
            pass  # it leads to nothing
    mode = found["mode"]
    assert isinstance(mode, int)
    found |= {"isDir": bool(mode & _GO_DIRECTORY), "linkTarget": target or _absolute(door, path)}
    return archives.stat_header(found)


def _absolute(door: Door, path: str) -> str:
    from posixpath import normpath

    base = door.engine.records.find(door.parts["id"]).config.working_dir or "/"
    return normpath(path if path.startswith("/") else f"{base}/{path}")


def stat(door: Door) -> None:
    door.answer(200, _stat_header(door))


def read(door: Door) -> None:
    if door.query.get("rename"):
        raise Status(501, "names of an archive are not changed on the way: leave rename away")
    archives.send(door, _stat_header(door))


def write(door: Door) -> None:
    if door.query.get("rename"):
        raise Status(501, "names of an archive are not changed on the way: leave rename away")
    archives.write(door)


# -- execs ------------------------------------------------------------------------------------------------------------


def start_exec(door: Door) -> None:
    fields = Reader(door.json(), "the request")
    height, width = fields.number("h"), fields.number("w")
    size = Box(height=height, width=width) if 0 < height < 65536 and 0 < width < 65536 else None
    execs.run(door, fields.boolean("Detach"), size, _exec_failed)


def _exec_failed(wrong: OrlopError, terminal: bool) -> bytes:
    """As podman's service: an error is what its client finds among the errors, with its own word ahead."""
    text = f"Error: {wrong.cause}\r\n".encode()
    return text if terminal else attach.frame(attach.STDERR, text)


def check_health(door: Door) -> None:
    from ...engine.supervision.checking import check_now

    door.answer_json(200, check_now(door.engine, door.parts["id"], door.hangup))


_C = "/libpod/containers/{id}"
ROUTES = (
    ("POST", "/libpod/containers/create", create),
    ("GET", "/libpod/containers/json", list_all),
    ("GET", "/libpod/containers/stats", stats),
    ("GET", "/libpod/containers/showmounted", list_mounted),
    ("POST", "/libpod/containers/prune", prune),
    ("GET", f"{_C}/json", inspect),
    ("GET", f"{_C}/exists", exists),
    ("POST", f"{_C}/start", docker.start),
    ("POST", f"{_C}/stop", named(docker.stop, t="timeout")),
    ("POST", f"{_C}/restart", named(docker.restart, t="timeout")),
    ("POST", f"{_C}/kill", docker.kill),
    ("POST", f"{_C}/pause", docker.pause),
    ("POST", f"{_C}/unpause", docker.unpause),
    ("POST", f"{_C}/rename", docker.rename),
    ("POST", f"{_C}/init", init),
    ("POST", f"{_C}/mount", mount),
    ("POST", f"{_C}/unmount", unmount),
    ("POST", f"{_C}/update", update),
    ("POST", f"{_C}/resize", resize),
    ("POST", f"{_C}/wait", wait),
    ("POST", f"{_C}/attach", docker.attach_to),
    ("GET", f"{_C}/logs", logs),
    ("GET", f"{_C}/top", top),
    ("GET", f"{_C}/stats", docker.stats),  # of one alone it is docker's object, in podman's answer too
    ("GET", "/libpod/containers/{id*}/changes", changed),  # of an image's name, too
    ("GET", f"{_C}/export", archives.export),
    ("HEAD", f"{_C}/archive", stat),
    ("GET", f"{_C}/archive", read),
    ("PUT", f"{_C}/archive", named(write, noOverwriteDirNonDir="nooverwritedirnondir")),
    ("POST", f"{_C}/exec", execs.create),
    ("GET", f"{_C}/healthcheck", check_health),
    ("DELETE", _C, remove),
    ("POST", "/libpod/exec/{id}/start", start_exec),
    ("POST", "/libpod/exec/{id}/resize", execs.resize),
    ("GET", "/libpod/exec/{id}/json", execs.inspect),
)
