"""Filters that podman's lists know and docker's do not: taken out of the request's, and looked at here.

Source: podman-ps(1), podman-images(1), podman-volume-ls(1), podman-network-ls(1), of podman 4.3 and 5.4.
"""

from __future__ import annotations

from ...engine.containers.inspect import unix_time
from ...engine.images.filters import moment
from ..docker.door import Status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import TypeVar

    T = TypeVar("T")
    Filters = dict[str, tuple[str, ...]]
    Tests = Mapping[str, Callable[[T, str], bool]]


def chosen(found: Iterable[T], filters: Mapping[str, tuple[str, ...]], tests: Tests[T]) -> list[T]:
    """Return what fits one value of each key that the tests know."""
    asked = [(tests[key], values) for key, values in filters.items() if key in tests and values]
    return [one for one in found if all(any(test(one, value) for value in values) for test, values in asked)]


def others(filters: Filters, tests: Mapping[str, object]) -> Filters:
    """Return the filters that docker's lists look at."""
    return {key: values for key, values in filters.items() if key not in tests}


def is_before(made: object, value: str) -> bool:
    """Tell whether something was made before the moment of `until`. made: RFC 3339. Raises Invalid."""
    return unix_time(str(made or "")) < moment(value)


def truth(key: str, value: str) -> bool:
    """Return what a filter that is true or false asks for. Raises Status."""
    if value not in ("true", "false", "1", "0"):
        raise Status(400, f"invalid filter '{key}={value[:60]}': write true or false")
    return value in ("true", "1")
