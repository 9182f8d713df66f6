"""What was built: one directory for each build, with its steps and their whole output. Writer: the build itself.

$ORLOP_ROOT/build/builds/<id>/build.json   BuildRecord, written when it ends
                              <n>.log      what step n wrote; <n>.log.zst where it is long
"""

import os
import shutil

from orlop.linux.path import read_file
from orlop.spec import jsonio
from orlop.spec.errors import Invalid, NotFound
from orlop.spec.record import Record

from .journal import PACKED_SUFFIX

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from orlop.engine.engine import Engine

RECORD_FILE = "build.json"
BUILDS_KEPT = 50
RECORD_BYTES_MAX = 16 * 1024 * 1024
_HEX = frozenset("0123456789abcdef")


class MountRecord(Record):
    """One mount of a step's command (graph's mounts). chain: of the tree that is mounted; data: of a script, base64."""

    kind: str
    target: str = ""
    id: str = ""
    chain: str = ""
    path: str = "/"
    data: str = ""
    env: str = ""
    read_only: bool = False
    sharing: str = ""
    mode: int = 0
    uid: int = 0
    gid: int = 0
    size_bytes: int = 0


class StepRecord(Record):
    """One step. place: stage and number in the Dockerfile; state: done, cached or failed. log_bytes: of its output.

    base, after: ChainIDs of its tree before and after, "" where there is none. env, cwd, user, network: of its command.
    """

    number: int
    name: str
    place: str = ""
    state: str = ""
    seconds: float = 0.0
    key: str = ""
    log_bytes: int = 0
    base: str = ""
    after: str = ""
    env: tuple[str, ...] = ()
    cwd: str = ""
    user: str = ""
    network: str = ""
    mounts: tuple[MountRecord, ...] = ()


class BuildRecord(Record):
    """build.json. name: what is built: context, Dockerfile and target. image: its ID, "" for a build that failed.

    kept: the snapshot in which a step failed, while it is kept.
    """

    id: str
    name: str
    title: str
    created: str
    state: str
    seconds: float = 0.0
    error: str = ""
    image: str = ""
    kept: str = ""
    failed_step: int = 0
    steps: tuple[StepRecord, ...] = ()


def directory(engine: "Engine") -> str:
    """Return where builds lie."""
    return f"{engine.paths.root}/build/builds"


def begin(engine: "Engine") -> str:
    """Make the directory of a new build and return its path. Its name is the build's id."""
    path = f"{directory(engine)}/{os.urandom(6).hex()}"
    os.makedirs(path, 0o700)
    return path


def save(path: str, record: BuildRecord) -> None:
    """Write build.json."""
    temporary = f"{path}/{RECORD_FILE}.tmp"
    with open(temporary, "wb") as file:
        file.write(jsonio.dump(record.to_json()))
    os.rename(temporary, f"{path}/{RECORD_FILE}")


def records(engine: "Engine") -> "Iterator[BuildRecord]":
    """Yield the builds that ended, the newest first."""
    try:
        names = os.listdir(directory(engine))
    except FileNotFoundError:
        return
    found = []
    for name in names:
        record = _read(f"{directory(engine)}/{name}/{RECORD_FILE}")
        if record is not None:
            found.append(record)
    yield from sorted(found, key=lambda record: record.created, reverse=True)


def find(engine: "Engine", reference: str) -> BuildRecord:
    """Return the build that a user means by the beginning of its id, the newest for "". Raises NotFound, Invalid."""
    if not _HEX.issuperset(reference):
        raise _missing(reference)
    found = [record for record in records(engine) if record.id.startswith(reference)]
    if not found:
        raise _missing(reference)
    if reference and len(found) > 1:
        raise Invalid("find", f"build {reference}", "several builds begin so", hint="give more of its id")
    return found[0]


def trim(engine: "Engine", keep: int = BUILDS_KEPT) -> None:
    """Remove all builds but the newest, and what their failed steps left."""
    for record in list(records(engine))[keep:]:
        remove(engine, record)


def remove(engine: "Engine", record: BuildRecord) -> None:
    """Remove a build's record, logs and kept tree."""
    if record.kept:
        try:
            engine.snapshots.remove(record.kept)
        except NotFound:
            pass
    shutil.rmtree(f"{directory(engine)}/{record.id}", ignore_errors=True)


def inputs_before(engine: "Engine", name: str, builds: int = 5) -> dict[str, dict[str, str]]:
    """Return what each place of this Dockerfile was made from the last time: place -> inputs."""
    found: dict[str, dict[str, str]] = {}
    seen = 0
    for record in records(engine):
        if record.name != name:
            continue
        for step in record.steps:
            if step.key and step.place not in found and (inputs := engine.step_cache.inputs(step.key)):
                found[step.place] = inputs
        seen += 1
        if seen == builds:
            break
    return found


def log_path(engine: "Engine", reference: str, step: int) -> str:
    """Return the file that has a step's whole output, compressed when it ends in journal.PACKED_SUFFIX.

    step 0 is the one that failed, or the last. Raises NotFound.
    """
    record = find(engine, reference)
    number = step or record.failed_step or max((one.number for one in record.steps), default=0)
    path = f"{directory(engine)}/{record.id}/{number}.log"
    for one in (path, path + PACKED_SUFFIX):
        if os.path.exists(one):
            return one
    cause = f"step {number} wrote nothing"
    raise NotFound("read", f"build {record.id}", cause, hint=f"see its steps with: orlop builder ls {record.id}")


def _read(path: str) -> BuildRecord | None:
    try:
        data = read_file(path, RECORD_BYTES_MAX)
        return BuildRecord.from_json(jsonio.parse(data, path, bytes_max=RECORD_BYTES_MAX), path)
    except (OSError, Invalid):
        return None


def _missing(reference: str) -> NotFound:
    return NotFound(
        "find",
        f"build {reference[:60]}",
        f"there is no build {reference[:60]}",
        hint="list them with: orlop builder ls",
    )
