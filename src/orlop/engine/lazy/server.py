"""The process that serves the layers of one image while they come, and brings them.

    <ORLOP_RUN>/lazy/<id>/lock        held as long as it lives; its process id
                          manifest    the descriptor of the image's manifest                        (writer: engine)
                          mnt/        the file system: <chain id>.erofs for each layer that was not here
                          trouble     why reads failed last, if they did

Invariants:
1. It serves until nobody has a file of its file system open any more: a container that began lazily keeps it.
2. It reads what containers wait for first; the pull behind that goes slower meanwhile (`_Pace`).
3. SIGTERM ends the pull: nobody wants the image any more.
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
    from ...spec.digest import Digest

THREADS = 6
MEMORY_BYTES_MAX = 512 * 1024**2  # of private, writable memory; what is used stays well below
STACK_BYTES = 512 * 1024
FIRST_READ_S_MAX = 3.0  # the pull begins then, if nobody reads
IDLE_S = 0.3
PAUSE_S_MAX = 0.2
FILL_TRIES_S = (1.0, 5.0, 15.0, 30.0, 60.0)
LINGER_S = 1.0


def main() -> None:
    """Be the server. Orders come on ORDERS_FD; the answer goes to ANSWER_FD."""
    with open(ORDERS_FD, "rb") as file:
        orders = Orders.from_json(jsonio.parse_object(file.read(ORDERS_BYTES_MAX), "orders"), "orders")
    process.close_all_except({0, 1, 2, ANSWER_FD})
    process.set_title("orlop: lazy")
    process.set_name("orlop")
    os.chdir("/")
    threading.stack_size(STACK_BYTES)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
    lock = os.open(f"{orders.directory}/{LOCK}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    os.pwrite(lock, b"%d" % os.getpid(), 0)
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
    if served is not None:
        served.end() if answer.error else served.run()
    remove_directory(orders.directory)


class Served:
    """One image. fetched: bytes that came so far for what was read."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._cancel = threading.Event()
        self._store = Store(f"{orders.root}/content")
        self._snapshots = Snapshots(f"{orders.root}/snapshots")
        self._registries = Registries(orders.root, self._store)
        self._kept = Kept(self._note_trouble)
        self._ranges: list[Ranges] = []
        self._mounted = f"{orders.directory}/{MOUNTED}"
        self._device = -1
        self._threads: list[threading.Thread] = []
        self._lent: list[Digest] = []
        signal.signal(signal.SIGTERM, lambda *_: self._cancel.set())

    @property
    def fetched(self) -> int:
        return sum(one.fetched for one in self._ranges)

    def begin(self) -> None:
        """Serve every layer that is neither unpacked nor served by another one. Raises OrlopError, OSError."""
        manifest, config = self._documents()
        chain = chain_ids(config.rootfs.diff_ids)
        missing = [number for number, chain_id in enumerate(chain) if not self._snapshots.has(chain_id)]
        if not missing:
            return
        below = self._snapshots.trees(chain[missing[0] - 1]) if missing[0] else ()
        reference = Reference.parse(self._orders.reference)
        places = self._registries.to_pull(reference, self._orders.credentials)
        self._ranges = [Ranges(self._store, manifest.layers[number], places, self._cancel) for number in missing]
        with ThreadPoolExecutor(4) as pool:
            tocs = list(pool.map(read_toc, self._ranges))
        skeletons = lay_out(self._snapshots.root, tocs, below)
        files = {}
        for number, skeleton, toc, ranges in zip(missing, skeletons, tocs, self._ranges, strict=True):
            files[f"{chain[number].hex}.erofs"] = LayerFile(number, skeleton, toc, ranges, self._kept)
        os.makedirs(self._mounted, 0o700, exist_ok=True)
        self._device = fuse.mount(self._mounted)
        server = fuse.Server(self._device, files)
        self._threads = [
            threading.Thread(target=server.run, name=f"fuse {number}", daemon=True) for number in range(THREADS)
        ]
        for thread in self._threads:
            thread.start()
        for number, skeleton in zip(missing, skeletons, strict=True):
            own = chain[number]
            diff_id = config.rootfs.diff_ids[number]
            record = LayerRecord(diff_id=diff_id, chain=tuple(reversed(chain[: number + 1])), entries=skeleton.entries)
            lent.lend(self._snapshots.root, record, f"{self._mounted}/{own.hex}.erofs")
            self._lent.append(own)

    def run(self) -> None:
        """Bring the image; then wait until nobody needs this process."""
        started_at = time.monotonic()
        while self._kept.wanted_at < started_at and time.monotonic() < started_at + FIRST_READ_S_MAX:
            time.sleep(0.05)
        self._bring()
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

    def _bring(self) -> None:
        """Pull the image the ordinary way; try again for as long as that may help."""
        pace = _Pace(self._kept)
        downloads = Downloads(self._store, pace.wait)
        reference = Reference.parse(self._orders.reference)
        tries = 0
        while not self._cancel.is_set():
            places = self._registries.to_pull(reference, self._orders.credentials)
            pull = Pull(self._store, downloads, places, reference, Platform.parse(self._orders.platform))
            pull.cancel = self._cancel
            try:
                with self._store.leases.hold() as lease:
                    for _ in pull.fetch(lease, self._snapshots.unpack):
                        pass
                for chain_id in self._lent:
                    lent.settle(self._snapshots.root, chain_id)
                return
            except (OrlopError, OSError, Canceled) as wrong:
                self._note_trouble(f"the rest of the image can't be fetched: {wrong}")
                self._cancel.wait(FILL_TRIES_S[min(tries, len(FILL_TRIES_S) - 1)])
                tries += 1

    def _note_trouble(self, cause: str) -> None:
        new = f"{self._orders.directory}/{TROUBLE}.{threading.get_ident()}"
        try:
            with open(new, "wb") as file:
                file.write(jsonio.dump({"at": time.time(), "cause": cause[:2000]}))
            os.rename(new, f"{self._orders.directory}/{TROUBLE}")
        except OSError:
            pass  # a full tmpfs: the container hears EIO all the same


class _Pace:
    """Lets the pull wait while somebody waits for a read."""

    def __init__(self, kept: Kept) -> None:
        self._kept = kept

    def wait(self) -> None:
        """Wait a moment, where somebody has waited just now."""
        end = time.monotonic() + PAUSE_S_MAX
        while time.monotonic() < end and time.monotonic() - self._kept.wanted_at < IDLE_S:
            time.sleep(0.02)
