"""Secrets and configs of one machine, and their files in containers.

    $ORLOP_ROOT/secrets/<name>/record.json data         mode 0600 in 0700 directories          (writer: engine)
                                           data.<n>     the same of version n: sealed (sealing)
    $ORLOP_ROOT/configs/<name>/record.json data         the same, not sealed
    <tmpfs>/<container id>/<number>                     what is bind-mounted into a container   (writer: engine)
                           environment                  NAME=VALUE of those that are variables, each with a NUL behind
    $ORLOP_ROOT/containers/<id>/granted -> that directory

Invariants:
1. What a container sees lies on a tmpfs (checked by its file system's type, or the start fails): never on a disk,
   never in a layer, so no commit, export or image has it; never in a record or a bundle, so no inspect shows it. It is
   in the environment of the container's processes where somebody asks for that, and nowhere else.
2. It is written anew at every start by an engine, and goes with the container. A restart by the monitor finds it.
   A new version is what later starts get; who runs keeps what it was given.
3. On the disk a secret is sealed. Its record is replaced last, so a version is whole or was never there.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import shutil
import threading

from ..linux import mount
from ..linux.path import read_file
from ..spec import jsonio
from ..spec.container import CONFIG, SECRET, DataRecord
from ..spec.errors import Conflict, Invalid, NotFound, OrlopError, Unavailable
from ..spec.task import ENVIRONMENT, GRANTED
from . import events
from .containers import names
from .containers.record import disk_trouble_told, timestamp, write_durably
from .sealing import OVERHEAD_BYTES, Key, is_sealed
from .userns import kept

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..spec.container import DataRequest, GrantRequest
    from .containers.record import ContainerRecord
    from .engine import Engine

BYTES_MAX = {SECRET: 500 * 1024, CONFIG: 1000 * 1024}  # docker's: swarm's limits
NAME_LENGTH_MAX = 64
_FILTERS = ("id", "label", "name")
SHARED_MEMORY = "/dev/shm"
VARIABLE_BYTES_MAX = 100 * 1024  # the kernel takes 128 KiB, its name counted (MAX_ARG_STRLEN)
_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")


class Data:
    """All secrets, or all configs, of an engine. kind: SECRET or CONFIG."""

    def __init__(self, root: str, kind: str) -> None:
        self.kind = kind
        self._root = f"{root}/{kind}s"
        self._key = Key(root) if kind == SECRET else None
        self._guard = threading.Lock()

    @property
    def makes_its_key(self) -> bool:
        """Whether the key is ours to make, and to renew."""
        return self._key is not None and self._key.is_ours

    def make(self, record: DataRecord, data: bytes) -> None:
        """Keep a new one. Raises Conflict, OSError."""
        new = f"{self._root}/.new-{record.id}"
        if self._key is not None and not self.all():
            self._key.make()
        with self._guard:  # from the sealing on: a renewed key is that of all that is there
            try:
                os.makedirs(new, 0o700)
                write_durably(f"{new}/{_file(record)}", self._kept(record, data), last=False)
                write_durably(f"{new}/record.json", jsonio.dump(record.to_json()))
                if os.path.lexists(f"{self._root}/{record.name}"):
                    cause = f"a {self.kind} of the name {record.name} exists already"
                    raise Conflict("create", f"{self.kind} {record.name}", cause, hint="choose another name")
                os.rename(new, f"{self._root}/{record.name}")
            finally:
                shutil.rmtree(new, ignore_errors=True)

    def replace(self, record: DataRecord, data: bytes) -> None:
        """Keep the next version of one. Raises OSError."""
        place = f"{self._root}/{record.name}"
        with self._guard:
            write_durably(f"{place}/{_file(record)}", self._kept(record, data), last=False)
            write_durably(f"{place}/record.json", jsonio.dump(record.to_json()))
        _drop_versions(place, record)

    def _kept(self, record: DataRecord, data: bytes) -> bytes:
        return data if self._key is None else self._key.seal(data, _about(self.kind, record))

    def find(self, reference: str) -> DataRecord:
        """Return one by its name, its id, or the beginning of exactly one id. Raises NotFound, Unavailable."""
        every = self.all()
        found = [one for one in every if reference in (one.name, one.id)]
        found = found or [one for one in every if len(reference) > 3 and one.id.startswith(reference)]
        if not found and reference in self._names():
            path = f"{self._root}/{reference}/record.json"
            cause = f"what is written of it can't be read: {path}"
            raise Unavailable("find", f"{self.kind} {reference}", cause, hint="put that file back from a copy")
        if len(found) != 1:
            shown = reference[:NAME_LENGTH_MAX]
            hint = f"list them with: orlop {self.kind} ls"
            cause = f"no such {self.kind}: {shown}"
            raise NotFound("find", f"{self.kind} {shown}", cause, hint=hint, code="E0111")
        return found[0]

    def all(self) -> list[DataRecord]:
        """Return all of them by name. One that can't be read hides no other."""
        found = []
        for name in self._names():
            try:
                text = read_file(f"{self._root}/{name}/record.json", jsonio.DOCUMENT_BYTES_MAX)
                found.append(DataRecord.from_json(jsonio.parse_object(text, name), name))
            except (OSError, OrlopError):
                continue
        return found

    def _data(self, record: DataRecord) -> bytes:
        """Return what its file holds. Raises OSError."""
        return read_file(f"{self._root}/{record.name}/{_file(record)}", BYTES_MAX[self.kind] + OVERHEAD_BYTES)

    def _names(self) -> list[str]:
        try:
            return sorted(name for name in os.listdir(self._root) if _is_name(name))
        except FileNotFoundError:
            return []

    def read(self, record: DataRecord) -> bytes:
        """Return the data of one. Raises NotFound, and what `Key.open` raises."""
        subject = f"{self.kind} {record.name}"
        try:
            data = self._data(record)
        except FileNotFoundError:
            newer = self.find(record.id)
            if newer.version == record.version:
                raise NotFound("read", subject, f"no such {self.kind}: {record.name}", code="E0111") from None
            return self.read(newer)
        except OSError as wrong:
            cause = wrong.strerror or str(wrong)
            raise Unavailable("read", subject, cause, hint="make it anew", code="E1905") from None
        return data if self._key is None else self._key.open(data, _about(self.kind, record), subject)

    def rekey(self, earlier: str = "") -> int:
        """Seal all under a new key, or under the one that is provided what an earlier one has sealed; return how many.

        A renewal that was cut short goes on. Raises OSError, and what `Key.open` raises: nothing is lost then.
        """
        if self._key is None:
            return 0
        with self._guard:
            if earlier:
                self._key.make()
            elif self._key.is_ours:
                self._key.renew()
            records = self.all()
            if unread := set(self._names()).difference(record.name for record in records):
                cause = f"{min(unread)} can't be read, so it would be lost"
                raise Unavailable("renew", "the key of secrets", cause, hint="remove it, or put its record back")
            done = sum(self._reseal(self._key, record, earlier) for record in records)
            if self._key.is_renewed:
                self._key.end_renewal()
        return done

    def _reseal(self, key: Key, record: DataRecord, earlier: str) -> bool:
        place, about = f"{self._root}/{record.name}/{_file(record)}", _about(self.kind, record)
        sealed = self._data(record)
        if key.has_sealed(sealed):
            return False
        write_durably(place, key.seal(key.open(sealed, about, f"{self.kind} {record.name}", earlier), about))
        return True

    def go_on(self) -> None:
        """End a renewal of the key that was cut short, if one was. Raises what `rekey` raises."""
        if self._key is not None and self._key.is_renewed:
            self.rekey()

    def remove(self, record: DataRecord) -> None:
        """Forget one. Raises OSError."""
        gone = f"{self._root}/.gone-{record.id}"
        os.rename(f"{self._root}/{record.name}", gone)
        shutil.rmtree(gone, ignore_errors=True)

    def sweep(self) -> None:
        """Remove what an engine that was killed left half made or half removed."""
        try:
            left = [name for name in os.listdir(self._root) if name.startswith((".new-", ".gone-"))]
        except FileNotFoundError:
            return
        for name in left:
            shutil.rmtree(f"{self._root}/{name}", ignore_errors=True)

    def settle(self, record: DataRecord) -> None:
        """Remove versions that are no more; seal one that was kept before secrets were sealed.

        Raises OSError, and what `Key.seal` raises.
        """
        _drop_versions(f"{self._root}/{record.name}", record)
        if self._key is None:
            return
        place = f"{self._root}/{record.name}/{_file(record)}"
        data = self._data(record)
        if not is_sealed(data):
            self._key.make()
            write_durably(place, self._key.seal(data, _about(self.kind, record)))


def _file(record: DataRecord) -> str:
    return "data" if record.version == 1 else f"data.{record.version}"


def _about(kind: str, record: DataRecord) -> bytes:
    return f"{kind} {record.id} {record.version}".encode()


def _drop_versions(place: str, record: DataRecord) -> None:
    """Remove the data of versions that are no more, and of one that was not finished."""
    for name in os.listdir(place):
        if name.startswith("data") and name != _file(record):
            os.unlink(f"{place}/{name}")


def create(engine: Engine, kind: str, request: DataRequest) -> str:
    """Make a secret or config, or the next version of it; return its id. No error holds the data.

    Raises Invalid, Conflict, Unavailable.
    """
    subject = f"{kind} {request.name[:NAME_LENGTH_MAX]}"
    if not _is_name(request.name):
        cause = f"its name is not 1 to {NAME_LENGTH_MAX} of [a-zA-Z0-9_.-], beginning with a letter or digit"
        raise Invalid("create", subject, cause, hint="choose another name")
    try:
        data = base64.b64decode(request.data, validate=True)
    except (binascii.Error, ValueError):
        raise Invalid("create", subject, "its data is not base64") from None
    if not 0 < len(data) <= BYTES_MAX[kind]:
        raise Invalid("create", subject, f"it has {len(data)} bytes, 1 to {BYTES_MAX[kind]} are possible")
    kept, now = of_kind(engine, kind), timestamp()
    if request.updates and (earlier := next((one for one in kept.all() if one.name == request.name), None)):
        labels = request.labels or earlier.labels
        record = earlier.replace(version=earlier.version + 1, updated_at=now, labels=labels)
        with disk_trouble_told("update", subject):
            kept.replace(record, data)
        events.publish(engine, kind, "update", record.id, {"name": record.name})
        return record.id
    record = DataRecord(id=names.new_id(), name=request.name, created_at=now, labels=request.labels)
    with disk_trouble_told("create", subject):
        kept.make(record, data)
    events.publish(engine, kind, "create", record.id, {"name": record.name})
    return record.id


def remove(engine: Engine, kind: str, reference: str) -> str:
    """Remove one that no container has; return its name. Raises NotFound, Conflict."""
    data = of_kind(engine, kind)
    record = data.find(reference)
    users = [
        one.name
        for one in engine.records.all()
        if any(grant.source in (record.name, record.id) for grant in _grants(one, kind))
    ]
    if users:
        cause = f"{kind} {record.name} is in use by: {', '.join(users[:5])}"
        raise Conflict("remove", f"{kind} {record.name}", cause, hint="remove these containers first")
    with disk_trouble_told("remove", f"{kind} {record.name}"):
        data.remove(record)
    events.publish(engine, kind, "remove", record.id, {"name": record.name})
    return record.name


def rekey(engine: Engine, earlier: str) -> int:
    """Renew the key that secrets are sealed with; return how many were sealed anew.

    earlier: the file of a key that some are sealed with; "" where the key is ours to make.
    Raises Invalid for a key that somebody provides and none that was before it, Unavailable, and what opening raises.
    """
    if not engine.secrets.makes_its_key and not earlier:
        hint = "provide the new key, start the engine again, and name the old one: orlop secret rekey --from FILE"
        raise Invalid("renew", "the key of secrets", "it is not ours: whoever starts the engine provides it", hint=hint)
    with disk_trouble_told("renew", "the key of secrets"):
        return engine.secrets.rekey(earlier)


def inspect(engine: Engine, kind: str, reference: str) -> dict[str, object]:
    """Return docker's object of one; of a config with its data."""
    data = of_kind(engine, kind)
    return _object(data, data.find(reference), whole=kind == CONFIG)


def listed(engine: Engine, kind: str, filters: Mapping[str, Sequence[str]]) -> list[dict[str, object]]:
    """Return docker's objects of those that all filters let pass, by name. Raises Invalid for an unknown filter.

    filters: id and name are beginnings, label is KEY or KEY=VALUE, as in docker's list of a swarm's.
    """
    for key in filters:
        if key not in _FILTERS:
            hint = f"known are {', '.join(_FILTERS)}"
            raise Invalid("list", f"{kind}s", f"invalid filter '{key[:60]}'", hint=hint, code="E0210")
    data = of_kind(engine, kind)
    return [_object(data, record, whole=False) for record in data.all() if _passes(record, filters)]


def _passes(record: DataRecord, filters: Mapping[str, Sequence[str]]) -> bool:
    labels = {*record.labels, *(f"{key}={value}" for key, value in record.labels.items())}
    wanted = filters.get("label", ())
    beginnings = ((record.id, filters.get("id", ())), (record.name, filters.get("name", ())))
    return labels.issuperset(wanted) and all(not texts or value.startswith(tuple(texts)) for value, texts in beginnings)


def _object(data: Data, record: DataRecord, *, whole: bool) -> dict[str, object]:
    spec: dict[str, object] = {"Name": record.name, "Labels": dict(record.labels)}
    if whole:
        spec["Data"] = base64.b64encode(data.read(record)).decode()
    moments = {"CreatedAt": record.created_at, "UpdatedAt": record.updated_at or record.created_at}
    return {"ID": record.id, "Version": {"Index": record.version}, **moments, "Spec": spec}


def of_kind(engine: Engine, kind: str) -> Data:
    """Return the secrets or the configs of an engine."""
    return engine.secrets if kind == SECRET else engine.configs


def _is_name(name: str) -> bool:
    return 0 < len(name) <= NAME_LENGTH_MAX and _NAME.issuperset(name) and name[0].isalnum()


# -- in containers ----------------------------------------------------------------------------------------------------


def check(engine: Engine, record: ContainerRecord) -> None:
    """Raise NotFound for a grant of what there is not, Invalid for one that can't be."""
    for kind in (SECRET, CONFIG):
        for grant in _grants(record, kind):
            of_kind(engine, kind).find(grant.source)
            if not (0 <= grant.uid < 2**32 - 1 and 0 <= grant.gid < 2**32 - 1 and 0 <= grant.mode <= 0o777):
                cause = f"{kind} {grant.source}: its owner or mode is out of range"
                raise Invalid("create", record.subject, cause, hint="write uid=1000,gid=1000,mode=0400")
            if "=" in grant.env or "\0" in grant.env:
                cause = f"{kind} {grant.source}: {grant.env[:60]!r} is no name of a variable"
                raise Invalid("create", record.subject, cause, hint="write type=env,target=NAME")


def materialise(engine: Engine, record: ContainerRecord) -> None:
    """Write the files of a container that is about to start. Raises NotFound, Unavailable, OSError."""
    grants = [(kind, grant) for kind in (SECRET, CONFIG) for grant in _grants(record, kind)]
    if not grants:
        return
    place = f"{_memory(engine)}/{record.id}"
    shutil.rmtree(place, ignore_errors=True)
    os.mkdir(place, 0o700)
    shift = kept.on_disk(record, engine.host.runtime)
    variables = b""
    for number, (kind, grant) in enumerate(grants):
        data = of_kind(engine, kind)
        if grant.env:
            variables += _variable(grant, data.read(data.find(grant.source)), record)
            continue
        fd = os.open(f"{place}/{number}", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "wb", buffering=0) as file:
            file.write(data.read(data.find(grant.source)))
            os.fchown(fd, *(shift.seen(grant.uid, grant.gid) if shift else (grant.uid, grant.gid)))
            os.fchmod(fd, grant.mode)
    if variables:
        with open(f"{place}/{ENVIRONMENT}", "xb", buffering=0, opener=_privately) as file:
            file.write(variables)
    link = f"{engine.records.path(record.id)}/{GRANTED}"
    if os.path.lexists(link):
        os.unlink(link)
    os.symlink(place, link)


def _variable(grant: GrantRequest, data: bytes, record: ContainerRecord) -> bytes:
    """Return a secret as an entry of an environment. Raises Invalid for one that can't be; no error holds the data."""
    if b"\0" in data or len(data) > VARIABLE_BYTES_MAX:
        cause = f"secret {grant.source} is no variable: it has a NUL, or more than {VARIABLE_BYTES_MAX} bytes"
        raise Invalid("start", record.subject, cause, hint="have it as a file: leave type=env away")
    return grant.env.encode(errors="surrogateescape") + b"=" + data + b"\0"


def _privately(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def withdraw(engine: Engine, container_id: str) -> None:
    """Remove the files of a container that goes."""
    for base in _bases(engine):
        shutil.rmtree(f"{base}/{container_id}", ignore_errors=True)
        try:
            os.rmdir(base)  # stays while another container has files there
        except OSError:
            pass


def sweep(engine: Engine) -> None:
    """Remove what a dead engine left half made, and the files of containers that are gone."""
    for data in (engine.secrets, engine.configs):
        data.sweep()
        try:
            data.go_on()
        except (OSError, OrlopError) as wrong:
            engine.log.write(f"the key of {data.kind}s is not renewed yet: {wrong}")
        for record in data.all():
            try:
                data.settle(record)
            except (OSError, OrlopError) as wrong:
                engine.log.write(f"{data.kind} {record.name} is not sealed, or has older versions still: {wrong}")
    known = set(engine.records.ids())
    for base in _bases(engine):
        try:
            left = set(os.listdir(base)) - known
        except OSError:
            continue
        for container_id in left:
            withdraw(engine, container_id)


def _grants(record: ContainerRecord, kind: str) -> tuple[GrantRequest, ...]:
    return record.request.secrets if kind == SECRET else record.request.configs


def _bases(engine: Engine) -> tuple[str, str]:
    # ORLOP_RUN is on a tmpfs where it is /run or the user's runtime directory; elsewhere shared memory has a place.
    mark = hashlib.sha256(engine.paths.run.encode(errors="surrogateescape"), usedforsecurity=False).hexdigest()[:16]
    return f"{engine.paths.run}/granted", f"{SHARED_MEMORY}/orlop-{os.geteuid()}-{mark}"


def _memory(engine: Engine) -> str:
    """Return a directory of ours alone on a tmpfs. Raises Unavailable."""
    for base in _bases(engine):
        try:
            os.makedirs(base, 0o700, exist_ok=True)
            fd = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            found = os.fstat(fd)
            private = found.st_uid == os.geteuid() and not found.st_mode & 0o077
            if private and mount.filesystem_magic(fd) == mount.TMPFS_MAGIC:
                return base
        finally:
            os.close(fd)
        try:
            os.rmdir(base)
        except OSError:
            pass
    cause = f"neither {engine.paths.run} nor {SHARED_MEMORY} is a tmpfs: secrets are never written to a disk"
    raise Unavailable("keep", "secrets in memory", cause, hint="mount a tmpfs on one of them")
