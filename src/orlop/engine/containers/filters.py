"""Which containers a list shows: docker's filters (`ps --filter`, the filters of /containers/json).

A container must fit one value of each key, and every label. Names and ids are regular expressions, as docker's are;
an expression that could take for ever is refused, because a list waits for nobody.
"""

from __future__ import annotations

from ...spec.errors import Invalid
from .. import labels
from ..networks import listing as network_listing
from ..networks import ports
from ..supervision import health

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..engine import Engine
    from .record import ContainerRecord
    from .state import Task

    Filters = Mapping[str, Sequence[str]]
    Test = Callable[[ContainerRecord, Task], bool]
    Maker = Callable[[Engine, str], Test]

STATES = frozenset("created restarting running removing paused exited dead".split())
HEALTHS = frozenset("starting healthy unhealthy none".split())
EXPRESSION_LENGTH_MAX = 256
REPEATS_MAX = 2  # of no fixed number: the time of a match grows with the length to that power
_ANY_STATE = ("status", "exited", "before", "since")  # these look at containers that do not run too
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-/")


def looks_at_all(filters: Filters) -> bool:
    """Tell whether the filters ask for containers that do not run too."""
    return any(filters.get(key) for key in _ANY_STATE)


def compile(engine: Engine, filters: Filters) -> Test:
    """Return the test that a container has to pass. Raises Invalid for a filter or value that there is not."""
    tests = [_of_key(engine, key, values) for key, values in filters.items() if values]
    return lambda record, task: all(test(record, task) for test in tests)


def has_label(record: ContainerRecord, value: str) -> bool:
    """Tell whether a container has the label: NAME, or NAME=value."""
    return labels.has_label(record.config.labels, value)


def _of_key(engine: Engine, key: str, values: Sequence[str]) -> Test:
    maker = _MAKERS.get(key)
    if maker is None:
        hint = f"known are {', '.join(sorted(_MAKERS))}"
        raise Invalid("list", "containers", f"invalid filter '{key[:60]}'", hint=hint, code="E0210")
    tests = [maker(engine, value) for value in values]
    combine = all if key == "label" else any
    return lambda record, task: combine(test(record, task) for test in tests)


def _invalid(key: str, value: str, hint: str) -> Invalid:
    return Invalid("list", "containers", f"invalid filter '{key}={value[:60]}'", hint=hint, code="E0210")


def _status(engine: Engine, value: str) -> Test:
    if value not in STATES:
        raise _invalid("status", value, f"known are {', '.join(sorted(STATES))}")
    return lambda record, task: task.state == value


def _exited(engine: Engine, value: str) -> Test:
    if not (value.isascii() and value.removeprefix("-").isdecimal() and len(value) < 12):
        raise _invalid("exited", value, "give an exit code")
    code = int(value)
    return lambda record, task: task.exit is not None and task.status is not None and task.exit.exit_code == code


def _health(engine: Engine, value: str) -> Test:
    if value not in HEALTHS:
        raise _invalid("health", value, f"known are {', '.join(sorted(HEALTHS))}")
    return lambda record, task: (health.status(engine, record, task) or "none") == value


def _is_task(engine: Engine, value: str) -> Test:
    if value.lower() not in ("true", "false", "1", "0"):
        raise _invalid("is-task", value, "write true or false")
    return lambda record, task: value.lower() in ("false", "0")  # those of Swarm, which there are none of


def _name(engine: Engine, value: str) -> Test:
    fits = expression("name", value)
    return lambda record, task: fits(record.name) or fits(f"/{record.name}")


def _id(engine: Engine, value: str) -> Test:
    fits = expression("id", value)
    return lambda record, task: fits(record.id)


def expression(key: str, value: str) -> Callable[[str], bool]:
    """Return the search for a regular expression. Raises Invalid for one that is none, or may take too long."""
    if _PLAIN.issuperset(value):
        return lambda text: value in text
    import re  # 10 ms, for those who need it

    if len(value) > EXPRESSION_LENGTH_MAX:
        raise _invalid(key, value, f"an expression has at most {EXPRESSION_LENGTH_MAX} characters")
    if "[" in value and any(pair in value for pair in ("[[", "--", "&&", "~~", "||")):
        raise _invalid(key, value, "sets inside of sets are another thing to every program")
    try:
        found = re.compile(value)
    except (re.error, OverflowError, RecursionError):
        raise _invalid(key, value, "it is not a regular expression") from None
    if sum(value.count(sign) for sign in "*+{") > REPEATS_MAX or "(?" in value or _has_reference(value):
        raise _invalid(key, value, f"use at most {REPEATS_MAX} repetitions, and no (? and no \\1")
    if _repeats_group(value):
        raise _invalid(key, value, "don't repeat a group")
    return lambda text: found.search(text) is not None


def _has_reference(value: str) -> bool:
    return any(value[at] == "\\" and value[at + 1 : at + 2].isdigit() for at in range(len(value)))


def _repeats_group(value: str) -> bool:
    return any(f"){sign}" in value for sign in "*+{")


def _beside(comparison: Callable[[str, str], bool]) -> Maker:
    def make(engine: Engine, value: str) -> Test:
        moment = engine.records.find(value).created_at
        return lambda record, task: comparison(record.created_at, moment)

    return make


def _ancestor(engine: Engine, value: str) -> Test:
    """An image, by name or id; and containers of images that were built on it, whose layers begin with its own."""
    digest = value.removeprefix("sha256:")

    def test(record: ContainerRecord, task: Task) -> bool:
        image = record.request.image
        is_named = value in (image, record.image_id) or image == f"{value}:latest"
        return is_named or (len(digest) >= 4 and record.image_id.removeprefix("sha256:").startswith(digest))

    return test


def _volume(engine: Engine, value: str) -> Test:
    return lambda record, task: any(value in (point.name or point.source, point.destination) for point in record.mounts)


def _network(engine: Engine, value: str) -> Test:
    def test(record: ContainerRecord, task: Task) -> bool:
        names = network_listing.names_of(record)
        return value in names or any(network_listing.id_of(engine, name).startswith(value) for name in names)

    return test if value else lambda record, task: False


def _range_of(key: str, value: str) -> tuple[int, int, str]:
    try:
        return ports.parse_exposed(value)
    except ValueError:
        raise _invalid(key, value, "write a port or a range: 80, 53/udp, 8000-8080/tcp") from None


def _expose(engine: Engine, value: str) -> Test:
    first, last, protocol = _range_of("expose", value)

    def test(record: ContainerRecord, task: Task) -> bool:
        found = [ports.parse_exposed(text) for text in record.config.exposed_ports]
        found += [(port.first, port.last, port.protocol) for port in record.request.ports]
        return any(low <= last and first <= high and protocol == own for low, high, own in found)

    return test


def _publish(engine: Engine, value: str) -> Test:
    """A port of the machine that leads to the container, while it runs."""
    first, last, protocol = _range_of("publish", value)

    def test(record: ContainerRecord, task: Task) -> bool:
        held = engine.networks.attachments.get(record.id)
        return any(
            port.host_first <= last and first < port.host_first + port.count and port.protocol == protocol
            for port in (held.ports if held is not None else ())
        )

    return test


_MAKERS: dict[str, Maker] = {
    "ancestor": _ancestor,
    "before": _beside(lambda own, moment: own < moment),
    "exited": _exited,
    "expose": _expose,
    "health": _health,
    "id": _id,
    "is-task": _is_task,
    "isolation": lambda engine, value: lambda record, task: value == "default",
    "label": lambda engine, value: lambda record, task: has_label(record, value),
    "name": _name,
    "network": _network,
    "publish": _publish,
    "since": _beside(lambda own, moment: own > moment),
    "status": _status,
    "volume": _volume,
}
