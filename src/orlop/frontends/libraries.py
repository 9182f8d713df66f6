"""Libraries of others that a door needs: YAML, HTTP/2. What runs as root on the way to a container needs none.

From a clone the interpreter runs without site directories (-S). Those that are added here come last: the interpreter's
own, and the environment that the checkout's `./dev` has made; whoever may write there may write our source too.
"""

from __future__ import annotations

import os
import sys

from ..spec.errors import Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeVar

    Library = TypeVar("Library")


def load(take: Callable[[], Library], subject: str, hint: str) -> Library:
    """Return what `take` imports, after looking in more places where it does not find it.

    subject: what needs it, for the error ("compose files"). Raises Unavailable.
    """
    try:
        return take()
    except ImportError:
        for directory in _site_directories():
            if directory not in sys.path:
                sys.path.append(directory)
    try:
        return take()
    except ImportError as missing:
        cause = f"the Python library {missing.name} is not installed"
        raise Unavailable("work with", subject, cause, hint=hint) from None


def _site_directories() -> Iterator[str]:
    import site

    yield from site.getsitepackages()
    checkout = os.path.abspath(os.path.join(os.path.dirname(__file__), *[".."] * 3))
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    yield f"{checkout}/.venv/lib/{version}/site-packages"
