"""What builds of a dead engine have left, removed when the next one opens. Their cache stays.

$ORLOP_RUN/build-*                   secrets and scripts of steps
$ORLOP_ROOT/build/builds/<id>/       without its record: a build that did not end
$ORLOP_ROOT/build/passing-*          what was on its way to a client
snapshots/active/                    trees of steps: what belongs to no container, is not mounted, and was not kept
"""

from __future__ import annotations

import os
import shutil

from ...spec.errors import OrlopError
from ..images import mounts
from .workspace import KEPT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..engine import Engine

RUN_PREFIX = "build-"
PASSING_PREFIX = "passing-"
RECORD_FILE = "build.json"


def sweep(engine: Engine) -> None:
    """Remove them. What can't be removed is said in the log, and tried again by the next engine."""
    for name in os.listdir(engine.paths.run):
        if name.startswith(RUN_PREFIX):
            shutil.rmtree(f"{engine.paths.run}/{name}", ignore_errors=True)
    place = f"{engine.paths.root}/build"
    for name in os.listdir(place) if os.path.isdir(place) else ():
        if name.startswith(PASSING_PREFIX):
            shutil.rmtree(f"{place}/{name}", ignore_errors=True)
    builds = f"{place}/builds"
    ended = set()
    for name in os.listdir(builds) if os.path.isdir(builds) else ():
        if os.path.exists(f"{builds}/{name}/{RECORD_FILE}"):
            ended.add(name)
        else:
            shutil.rmtree(f"{builds}/{name}", ignore_errors=True)
    engine.step_cache.sweep()
    containers = set(engine.records.ids())
    for key in engine.snapshots.keys():  # noqa: SIM118  # it is no dict
        if key.startswith(mounts.PREFIX):
            wanted = os.path.exists(f"{engine.snapshots.directory(key)}/mountpoint")
        elif key.startswith(KEPT):
            wanted = key.removeprefix(KEPT) in ended
        else:
            wanted = key.partition("-")[0] in containers
        if not wanted:
            try:
                engine.snapshots.remove(key)
            except OrlopError as wrong:
                engine.log.write(f"the tree {key} of a build stays: {wrong}")
