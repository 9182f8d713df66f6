"""What happens, told in docker's words: `publish` is called by whoever did something, `read` by whoever wants to know.

An event is the JSON object of docker's API (events.Message). It is told after the fact, and telling it never fails and
never waits: the verb that it is about is done. The end of a run ("die") is told by `died`, once for each run.
"""

from __future__ import annotations

import select
import time

from ..spec import jsonio
from ..spec.container import CONFIG, SECRET
from ..spec.errors import Invalid, OrlopError, Unavailable
from ..supervise.logread import parse_time
from . import caller
from .journal import BY, RUN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

    from ..image.image import Image
    from ..spec.task import ExitRecord
    from .containers.record import ContainerRecord
    from .engine import Engine
    from .journal import Event

    Filters = Mapping[str, Sequence[str]]

_ENDS = ("kill", "stop")
CONTAINER, IMAGE, VOLUME, NETWORK, BUILDER, DAEMON = "container", "image", "volume", "network", "builder", "daemon"

# docker's table of what can happen to what (moby api/types/events); an exec's actions are followed by ": command".
ACTIONS: dict[str, frozenset[str]] = {
    CONTAINER: frozenset(
        "attach checkpoint commit copy create destroy detach die exec_create exec_detach exec_die exec_start "
        "export extract-to-dir archive-path egress_denied health_status kill log.trim oom pause prune rename resize "
        "restart restore start stop top unpause update".split()
    ),
    IMAGE: frozenset(
        "create delete import interrupted load partial prune pull push read_error save tag untag whole".split()
    ),
    VOLUME: frozenset("create destroy mount prune rollback unmount".split()),
    NETWORK: frozenset("connect create destroy disconnect prune remove update".split()),
    BUILDER: frozenset(("prune",)),
    DAEMON: frozenset(("reload",)),
    SECRET: frozenset(("create", "remove", "update")),
    CONFIG: frozenset(("create", "remove", "update")),
}
FILTERS = frozenset(
    "config container daemon event image label network node plugin scope secret service type volume".split()
)
_POLL_MS_MAX = 24 * 3600 * 1000  # it looks again
_COMMAND_LENGTH_MAX = 1024
_ATTRIBUTES_LENGTH_MAX = 32 * 1024  # of all of an event; a label may be as large as a request


def publish(
    engine: Engine, kind: str, action: str, object_id: str, attributes: Mapping[str, str] | None = None
) -> None:
    """Tell everybody that something happened, and keep it for those who ask later.

    kind: CONTAINER, IMAGE, VOLUME or NETWORK. action: of ACTIONS[kind]. object_id: the whole id of a container or
    network, the reference or digest of an image, the name of a volume. attributes: docker's for this action; for a
    container, `publish_container` adds its name, image and labels.
    """
    engine.journal.append(_event(kind, action, object_id, attributes or {}))


def publish_container(
    engine: Engine, record: ContainerRecord, action: str, attributes: Mapping[str, str] | None = None
) -> None:
    """Tell what happened to a container; attributes: what the action has beside the container's own."""
    engine.rows.touched(record.id)
    event = _event(CONTAINER, action, record.id, {**_attributes(record), **(attributes or {})})
    asker = caller.describe() if action in _ENDS else ""
    engine.journal.append({**event, BY: asker} if asker else event)
    if action == "destroy":
        engine.journal.forget(record.id)


def publish_mounts(engine: Engine, record: ContainerRecord, action: str) -> None:
    """Tell that the volumes of a container were mounted, or unmounted. action: "mount" or "unmount"."""
    for point in record.mounts:
        if point.type == VOLUME:
            attributes = {"container": record.id, "driver": point.driver}
            if action == "mount":
                access = "false" if point.read_only else "true"
                attributes |= {"destination": point.destination, "propagation": "", "read/write": access}
            publish(engine, VOLUME, action, point.name, attributes)


def publish_networks(engine: Engine, record: ContainerRecord, action: str) -> None:
    """Tell that a run of a container has its places in its networks, or has given them back.

    action: "connect" or "disconnect".
    """
    from .networks import attach

    names = [wish.network for wish in attach.wishes(record)] or [attach.mode(record)]
    for name in names:
        try:
            network = engine.networks.store.find(name)
        except OrlopError:
            continue  # removed meanwhile, or another container's, which told of its own
        attributes = {"container": record.id, "name": network.name, "type": network.driver}
        publish(engine, NETWORK, action, network.id, attributes)


def publish_image(engine: Engine, image: Image, action: str, name: str = "") -> None:
    """Tell what happened to an image; name: the one that it is about, "" for its id. Its labels are told too."""
    labels = dict(image.config.config.labels)
    if sum(map(len, (*labels, *labels.values()))) > _ATTRIBUTES_LENGTH_MAX:
        labels = {}
    publish(engine, IMAGE, action, str(image.id), {**labels, "name": name or str(image.id)})


def died(engine: Engine, record: ContainerRecord, ended: ExitRecord) -> bool:
    """Tell that a run ended, once for each run: every other call, of this engine or the next, tells nothing.

    Whoever sees an end calls this: the watcher, a stop that waited for it, the next start, a reconcile that finds it.
    One that the kernel killed for its memory is told as "oom" first. Returns whether it was told now.
    """
    started, finished = _ns(ended.started_at), _ns(ended.finished_at)
    duration_s = max(0, finished - started) // 10**9
    attributes = {**_attributes(record), "exitCode": str(ended.exit_code), "execDuration": str(duration_s)}
    event = _event(CONTAINER, "die", record.id, attributes)
    oom = _event(CONTAINER, "oom", record.id, _attributes(record)) if ended.oom_killed else None
    is_news = engine.journal.append_end(event, record.id, ended.started_at, finished, before=oom)
    if is_news:
        publish_networks(engine, record, "disconnect")
        publish_mounts(engine, record, "unmount")
    return is_news


def exec_told(engine: Engine, record: ContainerRecord, exec_id: str, args: Sequence[str], *actions: str) -> None:
    """Tell what was done for a command in a container: "exec_create", "exec_start", also where it can't be executed."""
    command = " ".join(args)[:_COMMAND_LENGTH_MAX]
    for action in actions:
        publish_container(engine, record, f"{action}: {command}", {"execID": exec_id})


def exec_died(engine: Engine, record: ContainerRecord, exec_id: str, ended: ExitRecord) -> None:
    """Tell that a command in a container ended, once, as `died` does."""
    attributes = {**_attributes(record), "execID": exec_id, "exitCode": str(ended.exit_code)}
    event = _event(CONTAINER, "exec_die", record.id, attributes)
    if engine.journal.append_end(event, exec_id, ended.started_at, _ns(ended.finished_at)):
        engine.journal.forget(exec_id)


def read(engine: Engine, filters: Filters, since_ns: int | None, until_ns: int | None, hangup: int) -> Iterator[bytes]:
    """Return the events as lines of JSON: those from since_ns on, then those that come, until until_ns.

    None: only those that come; for ever. hangup: the client's connection, whose end ends this too. A client that is
    too slow gets what is kept for it and then a line {"error": ...}. Raises Invalid for a filter that does not exist.
    """
    stream = _lines(engine, _test(filters), (since_ns, until_ns), hangup)
    try:
        next(stream)  # it listens from here on, and a caller that never begins to read gives the subscription back
    except OSError as wrong:
        hint = "look at the open files of the engine and at ORLOP_ROOT"
        raise Unavailable("read", "the events", wrong.strerror or str(wrong), hint=hint) from None
    return stream


def _lines(
    engine: Engine, test: Callable[[Event], bool], period: tuple[int | None, int | None], hangup: int
) -> Iterator[bytes]:
    """Yield nothing once it listens, then the lines."""
    since_ns, until_ns = period

    def is_wanted(event: Event) -> bool:
        moment = event["timeNano"]
        return (since_ns or 0) <= moment and (until_ns is None or moment <= until_ns) and test(event)

    subscription = engine.journal.subscribe()
    try:
        yield b""
        if since_ns is not None:
            yield from (_line(event) for event in subscription.replay() if is_wanted(event))
        poll = select.poll()
        poll.register(subscription.fd, select.POLLIN)
        poll.register(hangup, select.POLLRDHUP)
        while True:
            overtaken = subscription.overtaken
            events = subscription.take()
            if wanted := b"".join(_line(event) for event in events if is_wanted(event)):
                yield wanted
            if overtaken:
                yield _overtaken()
                return
            left_ns = None if until_ns is None else until_ns - time.time_ns()
            if left_ns is not None and left_ns <= 0:
                return
            left_ms = None if left_ns is None else min(left_ns // 10**6 + 1, _POLL_MS_MAX)
            ready = {fd for fd, _ in poll.poll(left_ms)}
            if hangup in ready:
                return
    finally:
        engine.journal.unsubscribe(subscription)


def _overtaken() -> bytes:
    cause = "they came faster than they were read, and the rest is lost"
    error = Unavailable("read", "the events", cause, hint="read on from here with --since")
    return jsonio.dump({"error": error.to_json()}) + b"\n"


def _line(event: Event) -> bytes:
    if RUN in event or BY in event:
        event = {key: value for key, value in event.items() if key not in (RUN, BY)}
    return jsonio.dump(event) + b"\n"


def _event(kind: str, action: str, object_id: str, attributes: Mapping[str, str]) -> Event:
    assert action.partition(":")[0] in ACTIONS[kind], f"{kind} has no action {action}"
    now = time.time_ns()
    event: dict[str, Any] = {}
    if kind in (CONTAINER, IMAGE):  # docker's old names of the same facts, which its clients still read
        event = {"status": action, "id": object_id}
        if kind == CONTAINER:
            event["from"] = attributes.get("image", "")
    return {
        **event,
        "Type": kind,
        "Action": action,
        "Actor": {"ID": object_id, "Attributes": dict(sorted(attributes.items()))},
        "scope": "local",
        "time": now // 10**9,
        "timeNano": now,
    }


def _attributes(record: ContainerRecord) -> dict[str, str]:
    labels = record.config.labels
    if sum(len(key) + len(value) for key, value in labels.items()) > _ATTRIBUTES_LENGTH_MAX:
        labels = {}
    return {**labels, "image": record.request.image or record.request.rootfs, "name": record.name}


def _ns(text: str) -> int:
    try:
        return parse_time(text)
    except ValueError:
        return 0


def _test(filters: Filters) -> Callable[[Event], bool]:
    """Return docker's test (moby daemon/events/filter.go): one value of each key has to fit, and every label."""
    for key in filters:
        if key not in FILTERS:
            hint = f"known are {', '.join(sorted(FILTERS))}"
            raise Invalid("read", "the events", f"invalid filter '{key[:60]}'", hint=hint, code="E0210")
    tests = [(_TESTS[key], key, values) for key, values in filters.items() if values]
    return lambda event: all(test(event, key, values) for test, key, values in tests)


def _fits_name(event: Event, key: str, values: Sequence[str]) -> bool:
    actor = event["Actor"]
    names = (actor["ID"], str(actor["Attributes"].get("name", "")))
    return any(name.startswith(value) for name in names for value in values)


def _fits_image(event: Event, key: str, values: Sequence[str]) -> bool:
    actor = event["Actor"]
    image = str(actor["Attributes"].get("name" if event["Type"] == IMAGE else "image", ""))
    names = {actor["ID"], image, _without_tag(actor["ID"]), _without_tag(image)}
    return not names.isdisjoint(values)


def _fits_action(event: Event, key: str, values: Sequence[str]) -> bool:
    action = event["Action"]
    # "exec_start" stands for "exec_start: command", "health_status" for "health_status: healthy".
    return any(action == value or action.startswith(f"{value}:") for value in values)


def _fits_labels(event: Event, key: str, values: Sequence[str]) -> bool:
    attributes = event["Actor"]["Attributes"]
    pairs = (value.partition("=") for value in values)
    return all(name in attributes and (not equals or attributes[name] == value) for name, equals, value in pairs)


def _without_tag(reference: str) -> str:
    name, _, tag = reference.rpartition(":")
    return name if name and "/" not in tag else reference


_TESTS: dict[str, Callable[[Event, str, Sequence[str]], bool]] = {
    **dict.fromkeys(("config", "container", "daemon", "network", "node", "plugin", "secret", "service"), _fits_name),
    "volume": _fits_name,
    "image": _fits_image,
    "event": _fits_action,
    "label": _fits_labels,
    "scope": lambda event, key, values: event.get("scope") in values,
    "type": lambda event, key, values: event["Type"] in values,
}
