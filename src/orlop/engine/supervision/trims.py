"""Telling that output was removed from a container's log, for its size or for that of all logs: the event log.trim.

The monitor that removed it leaves a note (supervise.logbudget.Trims), which whoever is the engine takes away.
"""

from __future__ import annotations

import os
import stat

from ...linux.path import read_file
from ...spec.errors import OrlopError
from ...spec.task import TRIMMED_DIRECTORY
from .. import events

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..engine import Engine

ACTION = "log.trim"
_NOTE_BYTES_MAX = 32


def attend(engine: Engine) -> None:
    """Tell what earlier engines did not, and from now on what is noted. Raises OSError."""
    directory = f"{engine.paths.root}/{TRIMMED_DIRECTORY}"
    if os.path.lexists(directory) and not stat.S_ISDIR(os.lstat(directory).st_mode):
        # What lies in it is removed, so a link is not followed; and no engine stays away for its sake.
        engine.log.write(f"{directory} is no directory: what is removed from logs is not told of")
        return
    os.makedirs(directory, 0o700, exist_ok=True)
    engine.notices.attend(directory, lambda: take(engine, directory))
    take(engine, directory)


def take(engine: Engine, directory: str) -> None:
    """Tell of every note that is there, and remove it."""
    for container_id in os.listdir(directory):
        try:
            _take(engine, f"{directory}/{container_id}", container_id)
        except (OSError, OrlopError, ValueError):
            continue  # of a container that has gone, or none of ours


def _take(engine: Engine, path: str, container_id: str) -> None:
    try:
        size = int(read_file(path, _NOTE_BYTES_MAX))
    finally:
        os.unlink(path)
    events.publish_container(engine, engine.records.load(container_id), ACTION, {"bytes": str(size)})
