"""`orlop.connect` and `orlop.connect_async`: the ways into the library."""

from __future__ import annotations

from .blocking import Engine
from .operations import AsyncEngine
from .transport import Blocking, Looping, paths_of


def connect(*, root: str = "", run: str = "", tied: bool = False) -> Engine:
    """Return the synchronous client of an engine, which is started with the first call when none runs.

    root, run: its directories, else ORLOP_ROOT and ORLOP_RUN, else the user's. tied: the engine removes what is made
    through this client when this process has ended, however it ends.
    """
    return Engine(Blocking(paths_of(root, run)), tied=tied)


def connect_async(*, root: str = "", run: str = "", tied: bool = False) -> AsyncEngine:
    """Return the asynchronous client of an engine, as `connect`. It belongs to the event loop that uses it first."""
    return AsyncEngine(Looping(paths_of(root, run)), tied=tied)
