"""All guards, and what the table of attacks says of them. See `model`."""

from .containers import GUARDS as _CONTAINERS
from .images import GUARDS as _IMAGES
from .model import DOORS, Guard, doors_seen, rows
from .parsers import GUARDS as _PARSERS
from .services import GUARDS as _SERVICES
from .table import ELSEWHERE, NEVER_RED, NOT_APPLICABLE, doors_of, missing

GUARDS: tuple[Guard, ...] = (*_CONTAINERS, *_IMAGES, *_SERVICES, *_PARSERS)
__all__ = [
    "DOORS",
    "ELSEWHERE",
    "GUARDS",
    "NEVER_RED",
    "NOT_APPLICABLE",
    "Guard",
    "doors_of",
    "doors_seen",
    "missing",
    "rows",
]
