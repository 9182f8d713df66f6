"""Orlop: a container platform. `orlop.connect()` is the library's door; see docs/sdk.md, docs/ARCHITECTURE.md.

Importing this package imports nothing else: the library comes when one of its names is used.
"""

__version__ = "0.1.0"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .frontends.sdk.blocking import Container, Engine
    from .frontends.sdk.door import connect, connect_async
    from .frontends.sdk.operations import AsyncContainer, AsyncEngine
    from .frontends.sdk.values import CommandError, Completed, Options, Output
    from .spec.errors import (
        CommandFailed,
        Conflict,
        Denied,
        Invalid,
        NotFound,
        OrlopError,
        Unavailable,
        Unsupported,
    )

__all__ = [
    "AsyncContainer",
    "AsyncEngine",
    "CommandError",
    "CommandFailed",
    "Completed",
    "Conflict",
    "Container",
    "Denied",
    "Engine",
    "Invalid",
    "NotFound",
    "Options",
    "OrlopError",
    "Output",
    "Unavailable",
    "Unsupported",
    "connect",
    "connect_async",
]

_PLACES = {
    "frontends.sdk.blocking": ("Container", "Engine"),
    "frontends.sdk.door": ("connect", "connect_async"),
    "frontends.sdk.operations": ("AsyncContainer", "AsyncEngine"),
    "frontends.sdk.values": ("CommandError", "Completed", "Options", "Output"),
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    place = next((place for place, names in _PLACES.items() if name in names), "spec.errors")
    module = __import__(f"{__name__}.{place}", fromlist=[name])
    value: object = getattr(module, name)
    globals()[name] = value
    return value
