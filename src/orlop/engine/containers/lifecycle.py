"""The verbs of containers: plan, create, start, run, remove. How they end lies in ends, what they say in streams.

Each verb is a straight line whose steps push their undo; a failure leaves what was there before. A container whose
start failed stays created and tells why, as docker's does.
"""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack

from ...snapshot import lent
from ...spec import errors, jsonio
from ...spec.digest import Digest
from ...spec.errors import Conflict, Invalid, NotFound, OrlopError
from ...spec.image import ContainerConfig
from ...spec.platform import Platform
from ...spec.runtime import Mount
from ...spec.task import SPEC_FILE, HealthCheck, JoinedNamespace, StartTask, TaskStatus
from .. import compile, events, host, images, secrets, strict
from ..compile import config, health, logging, security
from ..compile.namespaces import CONTAINER, modes_of
from ..images.notes import notes as image_notes
from ..networks import attach, links, reach
from ..networks import requests as network_requests
from ..rootfs import mounted
from ..supervision import dependencies, orders, waiting
from ..userns import kept
from ..volumes import preparation, shared
from . import ends, files, names, removal, state
from .record import ContainerRecord, disk_trouble_told, timestamp, write_durably

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...image.image import Image
    from ...spec.container import ContainerRequest
    from ...spec.runtime import Box
    from ..compile import Compiled
    from ..engine import Engine

EXIT_CODE_FAILED_START = 128  # docker's code of a start that failed for another reason than the command


class Client:
    """Who asked for a start. stream: one end of an attach stream, or None; the caller's. size: of its terminal.

    wait: who decides when the command is executed; None: at once.
    """

    __slots__ = ("size", "stream", "wait")

    def __init__(self, stream: int | None = None, size: Box | None = None, wait: waiting.Wait | None = None) -> None:
        self.stream = stream
        self.size = size
        self.wait = wait


def plan(engine: Engine, request: ContainerRequest) -> tuple[ContainerRecord, Compiled]:
    """Return the container that the request would make; nothing is made."""
    request = strict.applied(engine, request)
    image = _source(engine, request)
    record = _decide(engine, request, image, names.new_id(), request.name or "not_yet_named")
    return record, _compile(engine, record)


def create(engine: Engine, request: ContainerRequest) -> tuple[ContainerRecord, tuple[str, ...]]:
    """Make a container; return its record and the warnings.

    Raises NotFound for the image, Conflict for a name in use, Invalid and Unsupported for the request.
    """
    effective = strict.applied(engine, request)
    with strict.told(effective):
        return _create(engine, effective)


def _create(engine: Engine, request: ContainerRequest) -> tuple[ContainerRecord, tuple[str, ...]]:
    orders.check(request, config.subject_of(request))
    for mode in (request.pid, request.ipc):
        if mode.startswith(CONTAINER) and mode != CONTAINER:
            engine.records.find(mode.removeprefix(CONTAINER))  # docker's too: of the network it is asked at the start
    notes = network_requests.check(engine, request, config.subject_of(request))
    image = _source(engine, request)
    container_id = names.new_id()
    with ExitStack() as held, engine.records.reserved(request.name, container_id) as name, ExitStack() as undo:
        dependencies.check(engine, request, name)
        record = _decide(engine, request, image, container_id, name)
        maps = held.enter_context(engine.id_ranges.hold(engine, request, container_id, record.subject))
        record = record.replace(uid_mappings=maps[0], gid_mappings=maps[1])
        held.enter_context(engine.volumes.held(preparation.volume_names(record.mounts)))
        secrets.check(engine, record)
        compiled = _compile(engine, record)
        undo.enter_context(disk_trouble_told("create", record.subject))
        if image is not None:
            lease = held.enter_context(engine.store.leases.hold())
            lease.add(*(layer.chain_id for layer in image.layers))  # no collection between the layers and the snapshot
        parent = _unpacked(engine, image, record)
        directory = engine.records.path(container_id)
        os.mkdir(directory, 0o700)
        undo.callback(shutil.rmtree, directory, ignore_errors=True)
        if image is not None:
            engine.snapshots.prepare(container_id, parent)
            undo.callback(engine.snapshots.remove, container_id)
        decided = record
        notes += preparation.notes(record)
        record, trees = preparation.prepare(engine, record, undo)
        if trees or record != decided:
            compiled = _compile(engine, record, trees)
        spec, durable = jsonio.dump(compiled.spec.to_json()), not request.auto_remove
        write_durably(f"{directory}/{SPEC_FILE}", spec, last=False, durable=durable)
        engine.records.save(record)
        undo.pop_all()
    events.publish_container(engine, record, "create")
    return record, (*compiled.warnings, *notes, *image_notes(engine, image, request))


def start(engine: Engine, reference: str, client: Client, restarts: int = 0, *, way: tuple[str, ...] = ()) -> None:
    """Start a container's process. One that runs, or that its monitor is about to restart, is left as it is.

    What it depends on is started first. restarts: how often a restart policy had it started before, when this is one
    more time. way: the names of those that are started because they depend on it, or on what does.
    Raises NotFound, CommandFailed (126, 127) when the command can't be executed, or what else made it fail; with
    auto_remove the container is gone then.
    """
    record = engine.records.find(reference)
    try:
        if (wait := engine.waits.get(record.id)) and wait.decide(goes=client.stream is None and client.size is None):
            return
        if record.request.depends_on and not engine.observe(record.id).is_up:
            dependencies.ensure(engine, record, way)
        _start_once(engine, record, client, restarts)
    except OrlopError:
        if record.request.auto_remove and not engine.observe(record.id).is_up:
            _discard_failed(engine, record)
        raise


def init(engine: Engine, reference: str) -> None:
    """Make a container's process without executing its command, which waits for `start`.

    Raises NotFound, Conflict where it is made already, and what a start raises.
    """

    def start(record: ContainerRecord, wait: waiting.Wait) -> None:
        if record.request.depends_on:
            dependencies.ensure(engine, record, ())
        _start_once(engine, record, Client(wait=wait), 0)

    waiting.init(engine, reference, start)


def _start_once(engine: Engine, record: ContainerRecord, client: Client, restarts: int) -> None:
    with engine.locks.hold(record.id):
        record = engine.records.load(record.id)
        task = engine.observe(record.id)
        state.step(task, "start", record)
        if task.is_up:
            if client.stream is not None:
                hint = f"attach to it with: orlop attach {record.name}"
                raise Conflict("start", record.subject, "it is running already", hint=hint, code="E1002")
            return
        if task.exit is not None and task.status is not None:
            events.died(engine, record, task.exit)  # nobody may have dealt with the last run's end yet
        if client.stream is not None:
            events.publish_container(engine, record, "attach")
        try:
            with disk_trouble_told("start", record.subject), strict.told(record.request):
                _start(engine, record, client, restarts)
        except OrlopError as wrong:
            _note_failure(engine, record, wrong)
            raise
        if record.start_error:
            engine.records.save(record.replace(start_error="", start_error_code="", start_exit_code=0))
        events.publish_mounts(engine, record, "mount")
        events.publish_networks(engine, record, "connect")
        events.publish_container(engine, record, "start")
        ends.watch_started(engine, record)


def run(engine: Engine, request: ContainerRequest, client: Client) -> tuple[ContainerRecord, tuple[str, ...]]:
    """Create a container and start it. With auto_remove it is gone again when the start fails."""
    record, warnings = create(engine, request)
    start(engine, record.id, client)
    return record, (*warnings, *reach.notes(engine, record))


def restart(engine: Engine, reference: str, timeout_s: int | None, signal: str) -> None:
    """Stop a container, as `ends.stop` does, and start it again. One that does not run is started."""
    record = engine.records.find(reference)
    engine.restarting.add(record.id)
    try:
        ends.stop(engine, record.id, timeout_s, signal)
        start(engine, record.id, Client())
    except OrlopError:
        if record.request.auto_remove:
            _discard_failed(engine, record)
        raise
    finally:
        engine.restarting.discard(record.id)
    events.publish_container(engine, record, "restart")


def remove(engine: Engine, reference: str, force: bool, *, volumes: bool = False) -> None:
    """Remove a container; one that runs only by force. volumes: those that nobody named go with it.

    Raises NotFound, Conflict, Unavailable.
    """
    record = engine.records.find(reference)
    while True:
        task = engine.observe(record.id)
        if force and task.is_up:
            ends.kill_and_wait(engine, record)
        try:
            removal.discard(engine, record, volumes=volumes)
            return
        except NotFound:
            if force and record.request.auto_remove:
                return  # its own --rm was faster, and whoever asked wanted it gone
            raise
        except Conflict:
            if not force:
                raise
            # somebody has started it since


def _source(engine: Engine, request: ContainerRequest) -> Image | None:
    """Return the image, None with a root directory of the host's. Raises Invalid, NotFound."""
    if bool(request.image) == bool(request.rootfs):
        cause = "it names both an image and a root directory" if request.image else "it names no image"
        raise Invalid("create", "a container", cause, hint="name an image, or a directory with --rootfs")
    if request.image:
        return _for_platform(images.find(engine, request.image), request)
    subject = f"a container of {request.rootfs}"
    if not request.rootfs.startswith("/"):
        raise Invalid(
            "create", subject, "the root directory is not an absolute path", hint="write it from /", code="E0406"
        )
    if not os.path.isdir(request.rootfs):
        cause = "it is not a directory" if os.path.lexists(request.rootfs) else "there is no such directory"
        hint = "make one with: orlop rootfs from-binaries --with sh DIR"
        raise Invalid("create", subject, cause, hint=hint)
    return None


def _for_platform(image: Image, request: ContainerRequest) -> Image:
    """Return the image, if it is for the platform that was asked for. Raises NotFound with docker's text, Invalid."""
    if not request.platform:
        return image
    wanted = Platform.parse(request.platform)
    config = image.config
    own = Platform(os=config.os, architecture=config.architecture, variant=config.variant).normalized()
    if (own.os, own.architecture) == (wanted.os, wanted.architecture) and wanted.variant in ("", own.variant):
        return image
    cause = f"image with reference {request.image} was found but does not provide the specified platform ({wanted})"
    raise NotFound(
        "find", f"image {request.image}", cause, hint=f"pull it: orlop pull --platform {wanted}", code="E0806"
    )


def _decide(
    engine: Engine, request: ContainerRequest, image: Image | None, container_id: str, name: str
) -> ContainerRecord:
    base = image.config.config if image is not None else ContainerConfig()
    logging.check(request, f"container {name}")
    runs_as = request.replace(user=engine.id_ranges.user(engine, request, f"container {name}"))
    chain = image.chain_id if image is not None else None
    return ContainerRecord(
        id=container_id,
        name=name,
        created_at=timestamp(),
        request=request,
        config=config.merge(runs_as, base, container_id, engine.host.hostname),
        image_id=str(image.id) if image is not None else "",
        snapshot_parent=str(chain) if chain is not None else "",
        mounts=preparation.decide(engine, request, image, container_id, f"container {name}"),
        joined=_named(engine, request),
    )


def _named(engine: Engine, request: ContainerRequest) -> dict[str, str]:
    """Return the ids of containers whose namespaces are asked for by name; who is not there is told at the start."""
    found = {}
    for mode in (request.network, *modes_of(request).values()):
        if mode.startswith(CONTAINER):
            reference = mode.removeprefix(CONTAINER)
            try:
                found[reference] = engine.records.find(reference).id
            except OrlopError:
                continue
    return found


def _compile(engine: Engine, record: ContainerRecord, trees: Mapping[str, Mount] | None = None) -> Compiled:
    devices = host.devices(record.request, record.subject)
    return compile.container(record, engine.records.path(record.id), engine.host, devices, trees)


def _with_ids(engine: Engine, mounts: tuple[Mount, ...], record: ContainerRecord) -> tuple[Mount, ...]:
    """Return mounts that show their files with the container's ids, where these are not their owners on disk."""
    if kept.on_disk(record, engine.host.runtime) is not None:
        return mounts
    return tuple(mount.replace(uid_mappings=record.uid_mappings, gid_mappings=record.gid_mappings) for mount in mounts)


def _unpacked(engine: Engine, image: Image | None, record: ContainerRecord) -> Digest | None:
    if image is None:
        return None
    shift, chain_id = kept.on_disk(record, engine.host.runtime), image.chain_id
    _serve(engine, chain_id)
    if shift is None and chain_id is not None and lent.can_run(engine.snapshots, chain_id):
        return chain_id
    return engine.snapshots.unpack(engine.images.layer_openers(image), shift)


def _serve(engine: Engine, chain_id: Digest | None) -> None:
    """Have a layer served that is here in part, if nobody does it any more."""
    if chain_id is not None and lent.is_partial(engine.snapshots, chain_id):
        from ..lazy import verb

        verb.ensure(engine, chain_id)


def _start(engine: Engine, record: ContainerRecord, client: Client, restarts: int) -> None:
    _serve(engine, Digest(record.snapshot_parent) if record.snapshot_parent else None)
    directory, runtime_directory = engine.records.path(record.id), engine.task_directory(record.id)
    with ExitStack() as undo, attach.prepare(engine, record) as joined, ExitStack() as held:
        undo.callback(attach.release, engine, record.id)
        engine.profiles.ensure(security.profile(record.request, engine.host, record.subject), record.subject)
        preparation.make_sources(record)
        files.write(engine, record, joined.attachment)
        secrets.materialise(engine, record)
        shutil.rmtree(runtime_directory, ignore_errors=True)
        os.mkdir(runtime_directory, 0o700)
        undo.callback(shutil.rmtree, runtime_directory, ignore_errors=True)
        trees = shared.trees(engine, record, held)
        linked = _write_links(engine, record)
        message = StartTask(
            id=record.id,
            directory=directory,
            runtime_directory=runtime_directory,
            rootfs=_with_ids(engine, rootfs_mounts(engine, record), record),
            user=record.config.user,
            groups=record.request.group_add,
            open_stdin=record.request.open_stdin,
            stdin_once=record.request.stdin_once,
            attached=client.stream is not None,
            console_size=client.size,
            joined=_joined(engine, record),
            has_network=joined.fd >= 0,
            trees=tuple(trees),
            restarts=restarts,
            removed_at_end=record.request.auto_remove,
            timeout_s=record.request.timeout_s,
            waits=client.wait is not None,
            health=_health_check(engine, record, linked),
            log=logging.options(record, engine.host.hostname, logging.budget_bytes(os.environ)),
        )
        ordered = orders.read(engine, record.id)
        orders.to_run(engine, record)
        undo.callback(orders.take_back, engine, record, ordered)
        network = joined.fd if joined.fd >= 0 else None
        gate = waiting.gate(engine, record.id, client.wait) if client.wait is not None else None
        started = engine.spawner.request(message, client.stream, network, tuple(trees.values()), gate)
        if client.wait is not None and not client.wait.goes:
            raise waiting.Undone
        if started.error is not None:
            raise errors.from_json(started.error)
        joined.started()
        undo.pop_all()


def _write_links(engine: Engine, record: ContainerRecord) -> tuple[str, ...]:
    """Put what a container's links say into its environment, now that their addresses are known; return it."""
    if not record.request.links:
        return ()
    linked = links.environment(engine, record, starting=True)
    directory = engine.records.path(record.id)
    spec = engine.records.spec(record.id)
    if spec.process is not None:
        env = config.environment(record.config, record.request.terminal, linked=linked)
        spec = spec.replace(process=spec.process.replace(env=env))
        write_durably(f"{directory}/{SPEC_FILE}", jsonio.dump(spec.to_json()), last=False)
    return linked


def _health_check(engine: Engine, record: ContainerRecord, linked: tuple[str, ...]) -> HealthCheck | None:
    if record.config.health is None:
        return None
    env = config.environment(record.config, terminal=False, linked=linked)
    return health.task(record, engine.records.spec(record.id), env)


def rootfs_mounts(engine: Engine, record: ContainerRecord) -> tuple[Mount, ...]:
    """Return what makes the container's root file system, for `rootfs.open_rootfs`."""
    if record.request.rootfs:
        return (Mount(type="bind", source=record.request.rootfs, options=("rbind", "rprivate")),)
    return tuple(mounted.source(engine, record.id)) or engine.snapshots.mounts(record.id)


def _joined(engine: Engine, record: ContainerRecord) -> tuple[JoinedNamespace, ...]:
    """Return the namespaces of other containers that a container joins. Raises NotFound, Conflict in docker's words."""
    lenders = {}
    for kind, mode in modes_of(record.request).items():
        if kind != "ipc" and mode.startswith(CONTAINER):
            lenders[kind] = _lender(engine, record, kind if kind == "time" else kind.upper(), mode)
    if record.uid_mappings and record.request.userns.startswith(CONTAINER):
        lenders["user"] = _lender(engine, record, "user", record.request.userns)
    if record.request.ipc.startswith(CONTAINER):
        lenders["ipc"] = shared.ipc_lender(engine, record)
    return tuple(
        JoinedNamespace(type=kind, container=other.subject, pid=status.pid, pid_start_time=status.pid_start_time)
        for kind, (other, status) in lenders.items()
    )


def _lender(engine: Engine, record: ContainerRecord, kind: str, mode: str) -> tuple[ContainerRecord, TaskStatus]:
    other = engine.records.lender(record, mode.removeprefix(CONTAINER))
    task = engine.observe(other.id)
    if not task.lives or task.status is None:
        cause = f"cannot join {kind} namespace of a non running container: {other.id}"
        raise Conflict("start", record.subject, cause, hint=f"start it first: orlop start {other.name}")
    return other, task.status


def _discard_failed(engine: Engine, record: ContainerRecord) -> None:
    try:
        removal.discard(engine, record)
    except OrlopError as wrong:
        engine.log.write(f"container {record.id}, whose start failed, is not removed: {wrong}")


def _note_failure(engine: Engine, record: ContainerRecord, wrong: OrlopError) -> None:
    from ...spec import catalog  # a long table, for failures only

    code = wrong.exit_code if isinstance(wrong, errors.CommandFailed) else EXIT_CODE_FAILED_START
    try:
        row = catalog.code_of(wrong)
        engine.records.save(record.replace(start_error=wrong.cause, start_error_code=row, start_exit_code=code))
    except OSError as unwritten:
        engine.log.write(f"container {record.id}: its failed start can't be noted: {unwritten}")
