"""The processes that serve the layers of one image while they come, and bring them: a child works, its parent keeps.

    <ORLOP_RUN>/lazy/<id>/lock        held as long as it lives; its process id
                          manifest    the descriptor of the image's manifest                        (writer: engine)
                          mnt/        the file system: <chain id>.erofs for each layer that was not here
                          trouble     why reads failed last, or that the child was killed

Invariants:
1. It serves until nobody has a file of its file system open any more: a container that began lazily keeps it.
2. It reads what containers wait for first; the pull behind that goes slower meanwhile (`_Pace`).
3. SIGTERM ends the pull: nobody wants the image any more.
4. Either of the two may be killed: readers notice nothing but a pause (`keep`).
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from ...content import Store
from ...image.download import Downloads
from ...image.parts.ranges import Ranges
from ...image.pull import Pull
from ...image.registry import Canceled
from ...linux import fuse, mount, process
from ...snapshot import Snapshots, lent
from ...snapshot.record import LayerRecord
from ...snapshot.skeleton import lay_out
from ...spec import jsonio
from ...spec.errors import Invalid, OrlopError, Unavailable
from ...spec.image import ImageConfig, Manifest, chain_ids, parse_manifest
from ...spec.platform import Platform
from ...spec.reference import Reference
from ..images.registries import Registries
from .layer import Kept, LayerFile, read_toc
from .orders import (
    ANSWER_FD,
    LOCK,
    MOUNTED,
    ORDERS_BYTES_MAX,
    ORDERS_FD,
    TROUBLE,
    Answer,
    Orders,
    remove_directory,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from ...image.registry import Repository
    from ...spec.digest import Digest

THREADS = 6
MEMORY_BYTES_MAX = 512 * 1024**2  # of private, writable memory; what is used stays well below
STACK_BYTES = 512 * 1024
FIRST_READ_S_MAX = 3.0  # the pull begins then, if nobody reads
IDLE_S = 0.3
PAUSE_S_MAX = 0.2
FILL_TRIES_S = (1.0, 5.0, 15.0, 30.0, 60.0)
LINGER_S = 1.0
LIVED_S = 60.0  # a child that was killed after less makes the next one wait longer
PAUSE_AFTER_DEATH_S, PAUSE_AFTER_DEATH_S_MAX = 0.1, 30.0


def main() -> None:
    """Be the server. Orders come on ORDERS_FD; the answer goes to ANSWER_FD."""
    with open(ORDERS_FD, "rb") as file:
        orders = Orders.from_json(jsonio.parse_object(file.read(ORDERS_BYTES_MAX), "orders"), "orders")
    process.close_all_except({0, 1, 2, ANSWER_FD})
    process.set_title("orlop: lazy keeper")
    process.set_name("orlop")
    os.chdir("/")
    threading.stack_size(STACK_BYTES)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
    lock = os.open(f"{orders.directory}/{LOCK}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    own(lock)
    answer = Answer()
    served: Served | None = None
    try:
        served = Served(orders)
        served.begin()
        answer = Answer(fetched=served.fetched)
    except OrlopError as wrong:
        answer = Answer(error=wrong.to_json())
    except OSError as wrong:
        cause = wrong.strerror or str(wrong)
        answer = Answer(error=Unavailable("serve", orders.reference, cause).to_json())
    try:
        os.write(ANSWER_FD, jsonio.dump(answer.to_json()))
    except BrokenPipeError:
        pass  # the engine was killed: the image has no name then, and nobody mounts it
    os.close(ANSWER_FD)
    if answer.error and served is not None:
        served.abandon()
    if answer.error or served is None or keep(served, lock):
        remove_directory(orders.directory)


class Served:
    """One image. fetched: bytes that came so far for what was read."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self.cancel = threading.Event()
        self._store = Store(f"{orders.root}/content")
        self._snapshots = Snapshots(f"{orders.root}/snapshots")
        self._kept = Kept(self.note_trouble)
        self._ranges: list[Ranges] = []
        self._files: dict[str, LayerFile] = {}
        self._mounted = f"{orders.directory}/{MOUNTED}"
        self._device = -1
        self._threads: list[threading.Thread] = []
        self._lent: list[Digest] = []

    @property
    def fetched(self) -> int:
        return sum(one.fetched for one in self._ranges)

    def begin(self) -> None:
        """Lend every layer that is neither unpacked nor served by another one. Raises OrlopError, OSError."""
        manifest, config = self._documents()
        chain = chain_ids(config.rootfs.diff_ids)
        missing = [number for number, chain_id in enumerate(chain) if not self._snapshots.has(chain_id)]
        if not missing:
            return
        below = self._snapshots.trees(chain[missing[0] - 1]) if missing[0] else ()
        places = self._places(self._registries())
        self._ranges = [Ranges(self._store, manifest.layers[number], places, self.cancel) for number in missing]
        with ThreadPoolExecutor(4) as pool:
            tocs = list(pool.map(read_toc, self._ranges))
        skeletons = lay_out(self._snapshots.root, tocs, below)
        for number, skeleton, toc, ranges in zip(missing, skeletons, tocs, self._ranges, strict=True):
            self._files[f"{chain[number].hex}.erofs"] = LayerFile(number, skeleton, toc, ranges, self._kept)
        os.makedirs(self._mounted, 0o700, exist_ok=True)
        self._device = fuse.mount(self._mounted)
        for number, skeleton in zip(missing, skeletons, strict=True):
            own = chain[number]
            diff_id = config.rootfs.diff_ids[number]
            record = LayerRecord(diff_id=diff_id, chain=tuple(reversed(chain[: number + 1])), entries=skeleton.entries)
            lent.lend(self._snapshots.root, record, f"{self._mounted}/{own.hex}.erofs")
            self._lent.append(own)

    def work(self, again: bool) -> None:
        """Serve, and bring the image; then wait until nobody needs this process. again: another one did and died."""
        registries = self._registries()  # connections of its own: none outlives a fork
        for ranges in self._ranges:
            ranges.ask(self._places(registries))
        if self._device >= 0:
            server = fuse.Server(self._device, self._files)
            self._threads = [
                threading.Thread(target=server.run, name=f"fuse {number}", daemon=True) for number in range(THREADS)
            ]
            for thread in self._threads:
                thread.start()
            if again:
                fuse.resend(self._device)
        started_at = time.monotonic()
        while self._kept.wanted_at < started_at and time.monotonic() < started_at + FIRST_READ_S_MAX:
            time.sleep(0.05)
        self._bring(registries)
        self.end()

    def end(self) -> None:
        """Unmount as soon as nobody has a file open."""
        while self._device >= 0:
            try:
                mount.umount2(self._mounted)
                break
            except OSError as wrong:
                if wrong.errno != errno.EBUSY:
                    break  # somebody else has: it is gone
                time.sleep(LINGER_S)
        for thread in self._threads:
            thread.join()

    def abandon(self) -> None:
        """Unmount what nobody was told of."""
        if self._device >= 0:
            os.close(self._device)
            mount.umount2(self._mounted, mount.MNT_DETACH)

    def leave(self) -> None:
        """Remove what shows that somebody serves."""
        remove_directory(self._orders.directory)

    def _registries(self) -> Registries:
        return Registries(self._orders.root, self._store)

    def _places(self, registries: Registries) -> list[Repository]:
        return registries.to_pull(Reference.parse(self._orders.reference), self._orders.credentials)

    def _documents(self) -> tuple[Manifest, ImageConfig]:
        descriptor = self._orders.manifest
        subject = f"manifest {descriptor.digest}"
        manifest = parse_manifest(self._store.get(descriptor.digest), descriptor.media_type, subject)
        if not isinstance(manifest, Manifest):
            raise Invalid("serve", subject, "it is an index")
        subject = f"configuration {manifest.config.digest}"
        config = ImageConfig.from_json(jsonio.parse(self._store.get(manifest.config.digest), subject), subject)
        if len(config.rootfs.diff_ids) != len(manifest.layers):
            raise Invalid("serve", subject, "it names other layers than its manifest")
        return manifest, config

    def _bring(self, registries: Registries) -> None:
        """Pull the image the ordinary way; try again for as long as that may help."""
        pace = _Pace(self._kept)
        downloads = Downloads(self._store, pace.wait)
        reference = Reference.parse(self._orders.reference)
        tries = 0
        while not self.cancel.is_set() and not all(map(self._snapshots.has, self._lent)):
            places = self._places(registries)
            pull = Pull(self._store, downloads, places, reference, Platform.parse(self._orders.platform))
            pull.cancel = self.cancel
            try:
                with self._store.leases.hold() as lease:
                    for _ in pull.fetch(lease, self._snapshots.unpack):
                        pass
            except (OrlopError, OSError, Canceled) as wrong:
                self.note_trouble(f"the rest of the image can't be fetched: {wrong}")
                self.cancel.wait(FILL_TRIES_S[min(tries, len(FILL_TRIES_S) - 1)])
                tries += 1
        if not self.cancel.is_set():  # brought by us, or by a pull of somebody else
            for chain_id in self._lent:
                lent.settle(self._snapshots.root, chain_id)

    def note_trouble(self, cause: str) -> None:
        new = f"{self._orders.directory}/{TROUBLE}.{threading.get_ident()}"
        try:
            with open(new, "wb") as file:
                file.write(jsonio.dump({"at": time.time(), "cause": cause[:2000]}))
            os.rename(new, f"{self._orders.directory}/{TROUBLE}")
        except OSError:
            pass  # a full tmpfs: the container hears EIO all the same


def own(lock: int) -> None:
    """Write into the lock who holds it."""
    os.pwrite(lock, b"%-20d" % os.getpid(), 0)


def keep(served: Served, lock: int) -> bool:
    """Have a child serve, and another one when that is killed; False where no child lives for long.

    What it needs was made before the fork, so whoever comes next serves the same bytes; the device stays open here, so
    readers wait meanwhile. The keeper does nothing but wait, and the child lives on without it.
    """
    worker, again, pause_s = 0, False, PAUSE_AFTER_DEATH_S

    def forward(*_: object) -> None:
        served.cancel.set()
        if worker:
            os.kill(worker, signal.SIGTERM)

    signal.signal(signal.SIGTERM, forward)
    while pause_s < PAUSE_AFTER_DEATH_S_MAX:
        keeper, began_at = os.getpid(), time.monotonic()
        worker = process.fork()
        if worker == 0:
            _work(served, lock, keeper, again)
        if served.cancel.is_set():
            forward()
        _, status = os.waitpid(worker, 0)
        worker, again = 0, True
        if status == 0:
            return True
        served.note_trouble(f"its server ended ({status}) and was started again")
        pause_s = PAUSE_AFTER_DEATH_S if time.monotonic() > began_at + LIVED_S else pause_s * 2
        time.sleep(pause_s)
    return False


def _work(served: Served, lock: int, keeper: int, again: bool) -> NoReturn:
    status = 1
    try:
        is_alone = False

        def inherit(*_: object) -> None:
            nonlocal is_alone
            is_alone = True
            own(lock)

        signal.signal(signal.SIGTERM, lambda *_: served.cancel.set())
        signal.signal(signal.SIGUSR1, inherit)
        process.prctl(process.PR_SET_PDEATHSIG, signal.SIGUSR1)
        process.set_title("orlop: lazy")
        if os.getppid() != keeper:
            inherit()
        served.work(again)
        if is_alone:
            served.leave()
        status = 0
    except BaseException as defect:
        served.note_trouble(f"a defect of its server: {defect!r}")
    finally:
        os._exit(status)


class _Pace:
    """Lets the pull wait while somebody waits for a read."""

    def __init__(self, kept: Kept) -> None:
        self._kept = kept

    def wait(self) -> None:
        """Wait a moment, where somebody has waited just now."""
        end = time.monotonic() + PAUSE_S_MAX
        while time.monotonic() < end and time.monotonic() - self._kept.wanted_at < IDLE_S:
            time.sleep(0.02)
