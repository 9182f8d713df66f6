"""The engine's attributes: what the verbs work on. The verbs themselves lie in the modules named after their nouns.

Whoever opens an engine holds the locks of its two directories: there is one engine for one ORLOP_RUN and for one
ORLOP_ROOT, and one writer for each of their files. What it needs to know after a kill -9 it finds by looking
(reconcile).
"""

from __future__ import annotations

import functools
import os
import threading
from contextlib import ExitStack, contextmanager

from ..content import Store
from ..image import Images
from ..linux import process
from ..linux.cgroup import Cgroup
from ..snapshot import STORAGE_DRIVER, Snapshots, lent
from ..snapshot.unpack import open_tree
from ..spec.container import CONFIG, SECRET
from ..spec.digest import Digest
from ..spec.errors import Unavailable
from ..supervise import Spawner
from . import host, reconcile, secrets
from .apparmor import Profiles
from .containers import ends, execs, state
from .containers.record import CGROUP, ContainerRecord, Records
from .containers.watch import Run, Watcher
from .journal import Journal
from .log import Log
from .networks import attach, egress
from .networks import names as resolver_names
from .networks.host import Networks
from .owners import Owners
from .secrets import Data
from .sockets import Sockets
from .steps.cache import StepCache
from .supervision import trims
from .supervision.boot import Boot
from .supervision.notices import Notices
from .supervision.rows import Rows
from .userns.ranges import Ranges
from .volumes.store import Volumes

USERNS_DEFAULT = "ORLOP_USERNS"  # of containers that name no --userns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..snapshot.drivers import Writable
    from ..spec.paths import Paths
    from ..spec.task import TaskStatus
    from .images.registries import Registries
    from .supervision.waiting import Wait


class Locks:
    """A lock for each container, held by the verbs that change what it is: start and remove. Never two at once."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._held: dict[str, tuple[threading.Lock, int]] = {}
        self.giving_way: dict[str, Callable[[], object]] = {}  # whose holder lets go of it when it is asked to

    @contextmanager
    def hold(self, container_id: str) -> Iterator[None]:
        """Hold the lock of a container."""
        give_way = self.giving_way.get(container_id)
        if give_way is not None:
            give_way()
        with self._guard:
            lock, users = self._held.get(container_id, (threading.Lock(), 0))
            self._held[container_id] = (lock, users + 1)
        try:
            with lock:
                yield
        finally:
            with self._guard:
                lock, users = self._held.pop(container_id)
                if users > 1:
                    self._held[container_id] = (lock, users - 1)


class Engine:
    """Everything that the verbs share. Made by `open_engine`."""

    def __init__(self, paths: Paths, log: Log) -> None:
        self.paths = paths
        self.log = log
        self.boot_id = process.boot_id()
        self.host = host.look()
        self.journal = Journal(f"{paths.root}/events.jsonl", log)
        self.records = Records(_directory(f"{paths.root}/containers"))
        self.tasks = _directory(f"{paths.run}/tasks")
        self.store = Store(f"{paths.root}/content")
        self.images = Images(self.store)
        self.snapshots = Snapshots(f"{paths.root}/snapshots", os.environ.get(STORAGE_DRIVER, ""))
        self.step_cache = StepCache(f"{paths.root}/build/cache")
        self.store.leases.keepers.append(functools.partial(self.step_cache.keep, self.snapshots.chain))
        self.store.awaited = functools.partial(_awaited, self)
        self.store.recipes.open_tree = functools.partial(open_tree, self.snapshots.root)
        self.volumes = Volumes(_directory(f"{paths.root}/volumes"))
        self.networks = Networks(paths.root, paths.run, self.boot_id)
        if not self.host.runtime.initial_user_namespace:
            from .rootless.uplink import Uplink

            uplink = Uplink(paths.run)
            self.networks.uplink, self.networks.uplink_process = uplink.ensure, uplink.process
        self.networks.resolver_lost = functools.partial(resolver_names.tell_everybody, self)
        self.networks.attempted = functools.partial(egress.told, self)
        self.locks = Locks()
        self.profiles = Profiles()
        self.id_ranges = Ranges(os.environ.get(USERNS_DEFAULT, ""))
        self.sockets = Sockets(paths.root)
        self.owners = Owners(self)
        self.secrets, self.configs = Data(paths.root, SECRET), Data(paths.root, CONFIG)
        self.waits: dict[str, Wait] = {}  # whose command waits, once `init` has made the container
        self.restarting: set[str] = set()  # whose end is the first half of a restart: --rm does not mean it
        self._registries: Registries | None = None
        self._reaching = threading.Lock()
        self.making_host = threading.Lock()
        self.host_checked_at = float("-inf")  # monotonic; guarded by making_host
        self.spawner = Spawner()
        self.networks.bequeath = self.spawner.bequeath
        self.watcher = Watcher(self._settle, log)
        self.notices = Notices(functools.partial(ends.look, self), log)
        self.boot = Boot(self)
        self.rows = Rows(self)
        self.health: dict[str, str] = {}  # container id: what its checks said at the last look
        self.awaiting: dict[str, str] = {}  # container id: the run whose successor its monitor is to start

    @property
    def registries(self) -> Registries:
        """The way to registries. Made when first wanted: http and TLS take 60 ms to import."""
        with self._reaching:
            if self._registries is None:
                from .images.registries import Registries

                self._registries = Registries(self.paths.root, self.store)
            return self._registries

    def observe(self, container_id: str) -> state.Task:
        """Return the state of a container now. A run that nobody watches yet is watched from now on."""
        task = state.observe(self.records.path(container_id), self.boot_id)
        if task.state == state.RUNNING and task.status is not None:
            ends.watch(self, container_id, task)
            if self.cgroup(container_id, task.status).is_frozen():
                return state.Task(state.PAUSED, task.status)
        return task

    def _settle(self, run: Run) -> None:
        self.rows.touched(run.container_id)
        if run.exec_id:
            execs.settle(self, run)
        else:
            ends.settle(self, run)

    def layer(self, record: ContainerRecord) -> Writable:
        """Return a container's layer for who looks into its trees; what is still coming of its image is waited for.

        Raises NotFound, Unavailable.
        """
        if record.snapshot_parent and lent.is_partial(self.snapshots, Digest(record.snapshot_parent)):
            from .lazy import verb

            verb.await_whole(self, Digest(record.snapshot_parent))
        return self.snapshots.writable(record.id)

    def cgroup(self, container_id: str, status: TaskStatus) -> Cgroup:
        """Return the cgroup that a container runs in."""
        return Cgroup(self.host.runtime.layout, status.cgroup or f"{CGROUP}/{container_id}")

    def task_directory(self, container_id: str) -> str:
        """Return where the container's monitor listens."""
        return f"{self.tasks}/{container_id}"

    def close(self) -> None:
        """Let go of everything. Containers run on. A step that fails keeps no other from being done."""
        with ExitStack() as steps:  # the last one first
            steps.callback(self._prune_cgroup)
            steps.callback(self.journal.close)
            steps.callback(self._leave_networks)
            for part in (self.snapshots, self.spawner, self.watcher, self.notices, self.boot, self.owners, self.rows):
                steps.callback(part.close)
            for wait in tuple(self.waits.values()):
                steps.callback(wait.decide, goes=False)

    def _leave_networks(self) -> None:
        try:
            attach.release_ended(self)
            self.networks.leave()
        except OSError as wrong:
            self.log.write(f"the links and rules of the networks can't be removed: {wrong}")

    def _prune_cgroup(self) -> None:
        try:
            Cgroup(self.host.runtime.layout, CGROUP).prune()  # it stays while anybody's container runs
        except OSError as wrong:
            self.log.write(f"the cgroup {CGROUP} can't be removed: {wrong}")


def open_engine(paths: Paths, log: Log) -> Engine:
    """Return the engine of these directories, after looking what an earlier one left. The caller holds its lock.

    Raises Unavailable when a directory can't be used or the spawner can't be started.
    """
    for directory in (paths.root, paths.run):
        _directory(directory)
    engine = Engine(paths, log)
    # Before anybody listens: until its exec, a child has copies of all our descriptors, and an engine that is killed in
    # that moment would seem to listen on.
    engine.spawner.start()
    reconcile.reconcile(engine)
    secrets.sweep(engine)
    trims.attend(engine)
    engine.owners.look()
    return engine


def _awaited(engine: Engine, digest: Digest) -> bool:
    from .lazy import verb

    return verb.awaited(engine, digest)


def _directory(path: str) -> str:
    """Return the path of a directory that is made, for us alone, when it is not there (SEC-34)."""
    try:
        os.makedirs(path, 0o700, exist_ok=True)
        os.chmod(path, 0o700)
    except OSError as wrong:
        hint = "set ORLOP_ROOT and ORLOP_RUN to directories you can write"
        raise Unavailable("open", path, wrong.strerror or str(wrong), hint=hint) from None
    return path
