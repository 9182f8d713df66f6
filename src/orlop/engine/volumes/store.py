"""Volumes on disk. Writer: the engine, and only it.

    <root>/<name>/volume.json    VolumeRecord
                  _data/         what is mounted
                  disk.ext4      what is mounted instead, of a volume with a size where no quotas are (`quota`)
           .new-*                on its way in or being filled; .gone-* on its way out

Invariants:
1. A volume appears whole and durable, by one rename, and is replaced by one exchange; volume.json never changes
   afterwards.
2. Who uses a volume is computed from the records of the containers, never stored (`Users`).
3. A volume that a creation under way wants is held: it can't be removed meanwhile, though no record names it yet.
4. No name of a volume begins with a dot, so what lies on the way never looks like one.
"""

import os
import stat
import threading
from contextlib import contextmanager, nullcontext

from ...linux import abi, path
from ...snapshot import removal
from ...snapshot.drivers import DISK
from ...spec import jsonio
from ...spec.errors import Conflict, Internal, Invalid, NotFound, Unavailable
from ...spec.record import Record
from ..containers.record import write_durably
from . import quota

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

FEW = 8  # volumes: more are made durable together, and removed in the background
RECORD_FILE = "volume.json"
DATA = "_data"
LOCAL = "local"
NAME_BYTES_MAX = 255  # NAME_MAX of every file system that matters
RECORD_BYTES_MAX = 4 * 1024 * 1024
ANONYMOUS_LABEL = "com.docker.volume.anonymous"
SNAPSHOT_LABEL = "io.orlop.snapshot-of"
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # fcntl.h, linux/fs.h
_NEW, _GONE = ".new-", ".gone-"
_FIRST = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
_REST = _FIRST | frozenset("_.-")


class VolumeRecord(Record):
    """volume.json. created_at: RFC 3339 in UTC. options: of the local driver.

    maker: the id of the container whose creation made it, "" for `volume create`.
    """

    name: str
    driver: str = LOCAL
    created_at: str
    labels: dict[str, str] = {}
    options: dict[str, str] = {}
    maker: str = ""

    @property
    def subject(self) -> str:
        """What errors call it."""
        return f"volume {self.name}"

    @property
    def is_anonymous(self) -> bool:
        return ANONYMOUS_LABEL in self.labels


def check_name(name: str, verb: str = "create") -> str:
    """Return the name. Raises Invalid, with docker's texts, for what is none: it becomes a directory's name."""
    if len(name) == 1 and name in _FIRST:
        cause = f"{verb} {name}: volume name is too short, names should be at least two alphanumeric characters"
        raise Invalid(verb, f"volume {name}", cause, hint="choose a longer name")
    if not name or name[0] not in _FIRST or not _REST.issuperset(name):
        shown = name[:100]
        cause = (
            f'{verb} {shown}: "{shown}" includes invalid characters for a local volume name, only '
            '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path'
        )
        raise Invalid(verb, f"volume {shown}", cause, hint="use letters, digits, dots, hyphens and underscores")
    if len(name) > NAME_BYTES_MAX:
        shown = f"{name[:60]}..."
        cause = f"{verb} {shown}: file name too long"
        raise Invalid(verb, f"volume {shown}", cause, hint=f"use at most {NAME_BYTES_MAX} characters")
    return name


class Volumes:
    """The volumes below one directory. Reading takes no lock; making and removing take a short one."""

    def __init__(self, directory: str) -> None:
        """directory: $ORLOP_ROOT/volumes; it exists, mode 0700, and no other engine works on it."""
        self.directory = directory
        self._lock = threading.Lock()
        self._held: dict[str, int] = {}  # names -> creations that want them
        self._filling: dict[str, threading.Lock] = {}
        self._sweep()

    def path(self, name: str) -> str:
        """Return the directory of a volume."""
        return f"{self.directory}/{name}"

    def data(self, name: str) -> str:
        """Return what is mounted of a volume without options, but for one that has a disk."""
        return f"{self.directory}/{name}/{DATA}"

    def disk(self, name: str) -> str:
        """Return the file that holds the file system of a volume with a size, "" where there is none."""
        path = f"{self.directory}/{name}/{DISK}"
        return path if os.path.exists(path) else ""

    @contextmanager
    def contents(self, name: str) -> "Iterator[str]":
        """Hold the directory of what a volume without options holds: a path of this process.

        Raises Unavailable, OSError.
        """
        if path := self.disk(name):
            with _mounted(path, name) as root:
                yield root
        else:
            yield self.data(name)

    def load(self, name: str, verb: str = "get") -> VolumeRecord:
        """Return a volume's record. Raises NotFound with docker's text; Internal for a damaged file."""
        try:
            check_name(name)
            record = _read(f"{self.directory}/{name}/{RECORD_FILE}")
            return record if record.name == name else record.replace(name=name)  # a rename that was cut short
        except (FileNotFoundError, NotADirectoryError, Invalid):
            shown = name if len(name) <= 100 else f"{name[:100]}..."
            cause = f"{verb} {shown}: no such volume"
            raise NotFound(
                "find", f"volume {shown}", cause, hint="list the volumes with: orlop volume ls", code="E0901"
            ) from None

    def find(self, name: str) -> VolumeRecord | None:
        """Return a volume's record, None when there is none. Raises Internal for a damaged file."""
        try:
            return self.load(name)
        except NotFound:
            return None

    def all(self) -> "Iterator[VolumeRecord]":
        """Yield every volume that can be read, in no order. A damaged one never hides the others."""
        for name in os.listdir(self.directory):
            if name[0] in _FIRST:
                try:
                    yield self.load(name)
                except (NotFound, Internal):
                    continue

    def make(self, record: VolumeRecord, fill: "Callable[[int], None] | None" = None, *, durable: bool = True) -> bool:
        """Make a volume; tell whether it was made now: False when there is one of that name.

        fill: puts the first content into the directory of a descriptor, before anybody sees the volume.
        durable: False for one of many, after which comes a `sync`.
        Raises Invalid and Unsupported for a size that can't be, OSError.
        """
        temporary = self._prepared(record, fill, durable)
        with self._lock:
            try:
                os.rename(temporary, self.path(record.name))
            except OSError:
                self.discard(temporary)
                if os.path.isdir(self.path(record.name)):
                    return False
                raise
        if durable:
            path.fsync_directory(self.directory)
        return True

    def sync(self) -> None:
        """Make durable what was made without: all at once, as each volume by itself takes three writes of the disk."""
        _fill(self.directory, lambda _: None)

    def _prepared(self, record: VolumeRecord, fill: "Callable[[int], None] | None", durable: bool = True) -> str:
        """Return the directory, on its way in, of a whole volume."""
        temporary = self.reserve()
        os.mkdir(f"{temporary}/{DATA}")
        try:
            if size := record.options.get("size"):
                size_bytes = quota.parse_size(size, record.subject)
                quota.bound_volume(temporary, DATA, size_bytes, record.subject)
            os.chmod(f"{temporary}/{DATA}", 0o755)  # docker's; the directory above it is ours alone
            if fill is not None:
                disk = f"{temporary}/{DISK}"
                with (
                    _mounted(disk, record.name) if os.path.exists(disk) else nullcontext(f"{temporary}/{DATA}") as place
                ):
                    _fill(place, fill)
            write_durably(f"{temporary}/{RECORD_FILE}", jsonio.dump(record.to_json()), durable=durable)
        except BaseException:
            self.discard(temporary)
            raise
        return temporary

    def replace(self, record: VolumeRecord, fill: "Callable[[int], None]", may: "Callable[[], bool]") -> None:
        """Put another content in the place of a volume's, by one exchange of directories.

        fill: as for `make`. may: asked under the lock whether nobody new uses it. Raises Conflict, NotFound, OSError.
        """
        temporary = self._prepared(record, fill)
        try:
            with self._lock:
                if record.name in self._held or not may():
                    cause = "a container that wants it is being created"
                    raise Conflict("change", record.subject, cause, hint="try it again", code="E0902")
                _exchange(temporary, self.path(record.name))
            path.fsync_directory(self.directory)
        finally:
            self.discard(temporary)

    def remove(self, name: str, is_used: "Iterable[str]", *, holders: int = 0) -> None:
        """Remove a volume that nobody uses. is_used: ids of containers that do, looked up under the lock.

        holders: how many creations may hold it; 1 for the one that gives up what it made.

        Raises Conflict with docker's text, NotFound, OSError.
        """
        with self._lock:
            users = sorted(is_used)
            if users or self._held.get(name, 0) > holders:
                cause = f"remove {name}: volume is in use - [{', '.join(users)}]"
                hint = "remove these containers first" if users else "a container that wants it is being created"
                raise Conflict("remove", f"volume {name}", cause, hint=hint, code="E0902")
            gone = f"{self.directory}/{_GONE}{os.urandom(8).hex()}"
            try:
                os.rename(self.path(name), gone)
            except FileNotFoundError:
                self.load(name)
                raise
        path.fsync_directory(self.directory)
        self.discard(gone)

    def remove_unused(self, names: "Iterable[str]", used: "Callable[[], set[str]]") -> list[str]:
        """Remove those of these volumes that nobody uses; return them. used: the names that are, asked under the lock.

        All at once for the readers. Of many, the directories go in the background: a file system takes a millisecond
        for each, nobody sees them, and a next engine sweeps what this one has left. Raises OSError.
        """
        gone = []
        place = f"{self.directory}/{_GONE}{os.urandom(8).hex()}"
        os.mkdir(place, 0o700)
        with self._lock:
            taken = used()
            for name in names:
                if name not in taken and name not in self._held:
                    try:
                        os.rename(self.path(name), f"{place}/{name}")
                    except FileNotFoundError:
                        continue
                    gone.append(name)
        if gone:
            path.fsync_directory(self.directory)
        for name in gone:
            quota.release(f"{place}/{name}")
        if len(gone) > FEW:
            threading.Thread(target=self._discard_later, args=(place,), name="removed volumes", daemon=True).start()
        else:
            self._discard_later(place)
        return gone

    def _discard_later(self, place: str) -> None:
        try:
            self.discard(place)
        except OSError:
            pass  # something immutable or busy: nobody sees it, and the next engine tries again

    def rename(self, old: str, new: str, others: "Callable[[], Iterable[str]]") -> None:
        """Give a volume another name, which is free. others: asked under the lock who uses it now that the caller does
        not know of. Raises NotFound, Conflict, OSError.
        """
        record = self.load(old)
        with self._lock:
            if old in self._held or sorted(others()):
                cause = "a container that wants it is being created"
                raise Conflict("rename", f"volume {old}", cause, hint="try it again", code="E0902")
            if new in self._held or os.path.lexists(self.path(new)):
                hint = "choose another name"
                raise Conflict("rename", f"volume {old}", f"there is a volume {new}", hint=hint)
            # The directory's name is the volume's name: this moment decides, and the record may follow.
            os.rename(self.path(old), self.path(new))
        write_durably(f"{self.path(new)}/{RECORD_FILE}", jsonio.dump(record.replace(name=new).to_json()))
        path.fsync_directory(self.directory)

    def relabel(self, record: VolumeRecord) -> None:
        """Write down a volume's labels. Raises OSError."""
        write_durably(f"{self.path(record.name)}/{RECORD_FILE}", jsonio.dump(record.to_json()))

    @contextmanager
    def held(self, names: "Iterable[str]") -> "Iterator[None]":
        """Keep these volumes, which may not exist yet, from being removed."""
        wanted = set(names)
        with self._lock:
            for name in wanted:
                self._held[name] = self._held.get(name, 0) + 1
        try:
            yield
        finally:
            with self._lock:
                for name in wanted:
                    self._held[name] -= 1
                    if not self._held[name]:
                        del self._held[name]

    @contextmanager
    def filling(self, name: str) -> "Iterator[None]":
        """Let nobody else fill this volume meanwhile. The caller holds it (`held`)."""
        with self._lock:
            lock = self._filling.setdefault(name, threading.Lock())
        with lock:
            yield

    def reserve(self) -> str:
        """Return a new directory, ours alone, that is swept when we die."""
        path = f"{self.directory}/{_NEW}{os.urandom(8).hex()}"
        os.mkdir(path, 0o700)
        return path

    def discard(self, path: str) -> None:
        """Remove a directory that lies on the way, whatever a container has left in it. Raises OSError."""
        quota.release(path)
        directory = os.open(self.directory, removal.DIRECTORY_FLAGS)
        try:
            trash_name = f"{_GONE}{os.urandom(8).hex()}"
            os.mkdir(trash_name, 0o700, dir_fd=directory)
            trash = os.open(trash_name, removal.DIRECTORY_FLAGS, dir_fd=directory)
            try:
                removal.remove(directory, os.path.basename(path), trash)
            finally:
                os.close(trash)
            os.rmdir(trash_name, dir_fd=directory)
        finally:
            os.close(directory)

    def _sweep(self) -> None:
        for name in os.listdir(self.directory):
            if name.startswith((_NEW, _GONE)):
                try:
                    self.discard(self.path(name))
                except OSError:
                    continue  # something immutable or busy: it stays where it hinders nobody


def _read(name: str) -> VolumeRecord:
    hint = f"repair {name} or remove its directory"
    try:
        data = path.read_file(name, RECORD_BYTES_MAX)
        return VolumeRecord.from_json(jsonio.parse(data, name, bytes_max=RECORD_BYTES_MAX), name)
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as wrong:
        raise Internal("read", name, wrong.strerror or str(wrong), hint=hint) from None
    except Invalid as wrong:
        raise Internal("read", name, wrong.cause, hint=hint) from None


@contextmanager
def _mounted(path: str, name: str) -> "Iterator[str]":
    from ...snapshot.disk import NoDisk, mounted

    try:
        with mounted(path) as root:
            yield root
    except NoDisk as wrong:
        raise Unavailable("mount", f"volume {name}", wrong.cause, hint=wrong.hint) from None


def _fill(path: str, fill: "Callable[[int], None]") -> None:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fill(directory)
        abi.syscall("syncfs", directory, subject=path)
    finally:
        os.close(directory)


def _exchange(one: str, two: str) -> None:
    """Give each of two directories the other's name (renameat2(2), RENAME_EXCHANGE). Raises OSError."""
    names = os.fsencode(one), os.fsencode(two)
    abi.syscall("renameat2", _AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE, subject=two)


def is_empty(path: str) -> bool:
    """Tell whether a directory has no entries. Raises OSError."""
    if not stat.S_ISDIR(os.lstat(path).st_mode):
        return False
    with os.scandir(path) as entries:
        return next(entries, None) is None
