"""The filters of `images` and `image prune`: docker's names, docker's errors.

Source: docker's manual, "docker image ls", "docker image prune".
"""

from __future__ import annotations

import fnmatch
import re
import time

from ...snapshot import lent
from ...spec.errors import Invalid, NotFound
from ...spec.reference import Reference
from ..labels import has_label

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ...image.image import Image
    from ..engine import Engine

    Test = Callable[[Image], bool]

LISTED = ("before", "dangling", "label", "partial", "reference", "since", "until")
PRUNED = ("dangling", "label", "label!", "until")
_SECONDS = re.compile(r"-?[0-9]{1,12}(?:\.[0-9]{1,30})?")
_PART = re.compile(r"([0-9]{1,12}(?:\.[0-9]{0,30})?)(ns|us|ms|s|m|h)")
_DURATION = re.compile(rf"(?:{_PART.pattern})+")
_UNITS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_TRUE, _FALSE = ("1", "true", "True", "TRUE", "t", "T"), ("0", "false", "False", "FALSE", "f", "F")


def lists(engine: Engine, filters: Mapping[str, tuple[str, ...]]) -> Test:
    """Return which images a listing shows. Raises Invalid for an unknown filter or value, NotFound for an image."""
    _check(filters, LISTED)
    tests: list[Test] = []
    for value in filters.get("dangling", ()):
        tests.append(_dangling(value))
    for key, later in (("before", False), ("since", True)):
        for value in filters.get(key, ()):
            tests.append(_aside(engine, value, later))
    for value in filters.get("partial", ()):
        tests.append(_partial(engine, _truth("partial", value)))
    for value in filters.get("until", ()):
        tests.append(_until(value))
    tests += [_label(value) for value in filters.get("label", ())]
    if patterns := filters.get("reference", ()):
        tests.append(lambda image: any(matches(name, one) for name in image.names for one in patterns))
    return lambda image: all(test(image) for test in tests)


def prunes(filters: Mapping[str, tuple[str, ...]]) -> Test:
    """Return which images a prune may take. Raises Invalid."""
    _check(filters, PRUNED)
    tests = [_until(value) for value in filters.get("until", ())]
    tests += [_label(value) for value in filters.get("label", ())]
    for value in filters.get("label!", ()):
        tests.append(lambda image, value=value: not _label(value)(image))  # type: ignore[misc]
    for value in filters.get("dangling", ()):
        _truth("dangling", value)
    return lambda image: all(test(image) for test in tests)


def matches(name: str, pattern: str) -> bool:
    """Say whether a familiar name fits a pattern, with or without its tag (Go's path.Match: no * across a slash)."""
    repository = name.partition("@")[0]
    head, colon, tag = repository.rpartition(":")
    untagged = head if colon and "/" not in tag else repository
    return any(_match(one, pattern) for one in (name, untagged, _full(name)))


def _full(name: str) -> str:
    try:
        return str(Reference.parse(name))
    except Invalid:
        return name


def _match(text: str, pattern: str) -> bool:
    parts, wanted = text.split("/"), pattern.split("/")
    return len(parts) == len(wanted) and all(map(fnmatch.fnmatchcase, parts, wanted))


def _check(filters: Mapping[str, tuple[str, ...]], known: tuple[str, ...]) -> None:
    for key in filters:
        if key not in known:
            raise Invalid(
                "filter", "images", f"invalid filter '{key[:60]}'", hint=f"known are {', '.join(known)}", code="E0210"
            )


def _truth(key: str, value: str) -> bool:
    if value not in (*_TRUE, *_FALSE):
        raise Invalid(
            "filter", "images", f"invalid filter '{key}={value[:60]}'", hint="write true or false", code="E0210"
        )
    return value in _TRUE


def _partial(engine: Engine, wanted: bool) -> Test:
    def test(image: Image) -> bool:
        return (image.chain_id is not None and lent.is_partial(engine.snapshots, image.chain_id)) is wanted

    return test


def _dangling(value: str) -> Test:
    wanted = _truth("dangling", value)
    return lambda image: (not image.names) is wanted


def _aside(engine: Engine, name: str, later: bool) -> Test:
    try:
        pivot = engine.images.resolve(name)
    except NotFound:
        raise
    return lambda image: image.created > pivot.created if later else image.created < pivot.created


def _label(value: str) -> Test:
    return lambda image: has_label(image.config.config.labels, value)


def _until(value: str) -> Test:
    limit = moment(value)

    def test(image: Image) -> bool:
        created = _epoch(image.created)
        return created is not None and created < limit

    return test


def moment(value: str) -> float:
    """Return the time that a filter names: seconds since 1970, RFC 3339, or a duration before now ("24h", "1h30m")."""
    text = value.strip()
    if _SECONDS.fullmatch(text):
        return float(text)
    if text and _DURATION.fullmatch(text):
        parts = _PART.findall(text)
        return time.time() - sum(float(number) * _UNITS[unit] for number, unit in parts)
    epoch = _epoch(text)
    if epoch is None:
        raise Invalid(
            "filter", "images", f"invalid filter 'until={value[:60]}'", hint="write 24h, or a date", code="E0210"
        )
    return epoch


def _epoch(text: str) -> float | None:
    import datetime

    head, _, fraction = text.partition(".")
    zone = fraction.lstrip("0123456789")
    try:
        found = datetime.datetime.fromisoformat(head + zone)
    except ValueError:
        return None
    return found.timestamp() if found.tzinfo else found.replace(tzinfo=datetime.UTC).timestamp()
