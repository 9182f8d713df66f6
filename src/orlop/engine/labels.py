"""The label filter that containers, images, volumes and networks have in common."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


def has_label(labels: Mapping[str, str], wanted: str) -> bool:
    """Tell whether labels have what a filter names: NAME, or NAME=value."""
    name, equals, value = wanted.partition("=")
    return name in labels and (not equals or labels[name] == value)
