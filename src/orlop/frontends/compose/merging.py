"""One canonical document over another: what later files say is stronger.

Mappings are merged key by key, lists appended, everything else replaced; but commands are replaced whole, and what is
unique in a service (a port, a mount's target, a secret) replaces its like. Source: compose-spec, 13-merge.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .document import Map

_REPLACED = frozenset(("command", "entrypoint", "test", "exec"))
_UNIQUE: dict[str, Callable[[Any], object]] = {
    "ports": lambda one: (one.get("host_ip"), one["target"], one.get("published"), one.get("protocol")),
    "volumes": lambda one: one["target"],
    "secrets": lambda one: one.get("target") or one["source"],
    "configs": lambda one: one.get("target") or one["source"],
    "env_file": lambda one: one["path"],
    "devices": lambda one: one["target"],
}


def merge(base: Map, over: Map) -> Map:
    """Return `over` over `base`; its !reset keys are taken away, its !override keys replace. Neither is changed."""
    made = base.like(dict(base))
    for key in over.reset:
        made.pop(key, None)
    for key, value in over.items():
        old = made.get(key)
        if value is None and old is not None:
            continue
        new = value if old is None or key in over.override else _merged(key, old, value)
        made.put(key, new, over.places.get(key, over.place))
    return made


def _merged(key: str, old: Any, new: Any) -> Any:
    if isinstance(old, Map) and isinstance(new, Map):
        return merge(old, new)
    if isinstance(old, list) and isinstance(new, list) and key not in _REPLACED:
        unique = _UNIQUE.get(key, _itself)
        found = {(unique if isinstance(item, Map) else _itself)(item): item for item in (*old, *new)}
        return list(found.values())
    return new


def _itself(item: Any) -> object:
    return item if isinstance(item, str | int) else id(item)
