"""Libraries of others that a door needs: YAML, HTTP/2. What runs as root on the way to a container needs none.

From a clone the interpreter runs without site directories (-S). Those that are added here come last: the interpreter's
own, and the environment that the checkout's `./dev` has made; whoever may write there may write our source too.
"""

from __future__ import annotations

import importlib
import os
import sys

from ..spec.errors import Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any


def load(module: str, verb: str, subject: str, hint: str) -> Any:
    """Return a module of another project. verb, subject: what needs it, for the error. Raises Unavailable."""
    try:
        return importlib.import_module(module)
    except ImportError:
        for directory in _site_directories():
            if directory not in sys.path:
                sys.path.append(directory)
    try:
        return importlib.import_module(module)
    except ImportError:
        cause = f"the Python library {module} is not installed"
        raise Unavailable(verb, subject, cause, hint=hint) from None


def _site_directories() -> Iterator[str]:
    import site

    yield from site.getsitepackages()
    checkout = os.path.abspath(os.path.join(os.path.dirname(__file__), *[".."] * 3))
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    yield f"{checkout}/.venv/lib/{version}/site-packages"
