"""Layers on their way in: extracted side by side, made visible one above the other.

    unpacking/<chain id>/fs/ layer.json     extracted by up to PARALLEL_MAX threads, in any order
    layers/<chain id>/                      in the order of the chain, once what lies below is there: settled, durable

Invariants:
1. Who writes below unpacking/<chain id> holds a lock (flock) on that directory, and moves or discards it before
   letting go.
2. A layer becomes visible after everything below it. When one fails, those below it are finished, those above given up.
3. No layer waits for one above it, so the locks of two that unpack images with common layers are taken in one order.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from contextlib import closing

from orlop.content.compression import Decompressed
from orlop.linux import abi, inode
from orlop.linux.path import fsync_directory
from orlop.spec.digest import Digest
from orlop.spec.errors import Invalid, Unavailable
from orlop.spec.jsonio import dump
from orlop.spec.tar import Reader

from . import overlay, removal
from .drivers import drop_subvolumes
from .extract import LAYER, Extraction, Rules
from .readahead import PIECE_BYTES, ReadAhead
from .record import LayerRecord

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Future
    from typing import Protocol

    from .owners import Shift

    class Blob(Protocol):
        """An open blob: `content.Store.open` returns one."""

        def read(self, count: int, /) -> bytes: ...
        def close(self) -> None: ...

    Layer = tuple[Digest, Callable[[], Blob]]

PARALLEL_MAX = 4
# Of all layers of an image together, decompressed and not yet written. Small files take longer to make than to
# decompress, large ones the other way round: with room for both nobody waits for the other.
AHEAD_BYTES_MAX = 48 * 1024**2


class Unpack:
    """The missing layers of one chain. layers: (diff_id, opener) of each, the base first; chain: their ChainIDs.

    shift: where the trees are to have other owners than the archives; their names in the chain are `shifted` then.
    """

    def __init__(self, root: str, layers: Sequence[Layer], chain: Sequence[Digest], shift: Shift | None = None) -> None:
        self._root = root
        self._origins = tuple(chain) if shift else ()
        self._rules = Rules(layer=True, shift=shift)
        self._layers = layers
        self._chain = [shifted(each, shift) for each in chain] if shift else chain
        self._pieces_max = AHEAD_BYTES_MAX // PIECE_BYTES
        self._failed = len(chain)  # the lowest layer that failed: what lies above it is given up
        self._lock = threading.Lock()

    def run(self, present: int) -> None:
        """Unpack all layers but the first `present` ones, which are there. Raises Invalid, Denied, Unavailable."""
        missing = range(present, len(self._chain))
        if len(missing) == 1:
            arrival = self._extract(present)
            if arrival is not None:
                with closing(arrival):
                    self._complete([arrival])
            return
        from concurrent.futures import ThreadPoolExecutor

        parallel = min(len(missing), PARALLEL_MAX)
        self._pieces_max //= parallel
        with ThreadPoolExecutor(parallel, thread_name_prefix="unpack") as pool:
            futures = [pool.submit(self._extract, index) for index in missing]
            try:
                self._complete_in_order(futures)
            finally:
                self._give_up(0)
                pool.shutdown(cancel_futures=True)
                for future in futures:
                    if not future.cancelled() and future.exception() is None and (arrival := future.result()):
                        arrival.close()

    def _complete_in_order(self, futures: Sequence[Future[Arrival | None]]) -> None:
        """Wait for one layer after the other; those that are ready together are made durable together."""
        at = 0
        while at < len(futures):
            ready = [futures[at].result()]
            while (at := at + 1) < len(futures) and futures[at].done() and futures[at].exception() is None:
                ready.append(futures[at].result())
            self._complete([arrival for arrival in ready if arrival is not None])

    def _extract(self, index: int) -> Arrival | None:
        """Return a layer that is extracted and proven, or None for one that somebody else has brought meanwhile."""
        diff_id, open_blob = self._layers[index]
        try:
            arrival = Arrival(self._root, index, self._chain[index], self._rules)
            try:
                if arrival.is_there:
                    arrival.close()
                    return None
                with closing(open_blob()) as blob:
                    arrival.extract(blob, diff_id, lambda: index > self._failed, self._pieces_max)
            except BaseException:
                arrival.close()
                raise
        except OSError as error:
            self._give_up(index)
            raise unavailable("unpack", f"layer {diff_id}", error) from None
        except BaseException:
            self._give_up(index)
            raise
        return arrival

    def _give_up(self, index: int) -> None:
        with self._lock:
            self._failed = min(self._failed, index)

    def _complete(self, arrivals: Sequence[Arrival]) -> None:
        """Make layers visible whose lower ones are there or among them. arrivals: the lowest first."""
        if not arrivals:
            return
        try:
            on_the_way = {arrival.index: arrival.path for arrival in arrivals}
            for arrival in arrivals:
                arrival.origin = self._origins[arrival.index] if self._origins else ""
                arrival.describe(self._layers[arrival.index][0], self._chain, self._below(arrival.index, on_the_way))
            complete(self._root, arrivals)
            for arrival in arrivals:
                arrival.close()  # now: who waits for this layer may hold one above it that we wait for
        except OSError as error:
            raise unavailable("unpack", f"layer {self._layers[arrivals[0].index][0]}", error) from None

    def _below(self, index: int, on_the_way: dict[int, str]) -> list[str]:
        """Return the trees below a layer, the topmost first."""
        trees = []
        for lower in range(index - 1, -1, -1):
            trees.append(f"{on_the_way.get(lower) or layer_path(self._root, self._chain[lower])}/fs")
            if is_opaque(trees[-1]):
                break
        return trees


class Arrival:
    """One layer on its way: unpacking/<chain id>, locked until `close`, which discards what was not completed.

    is_there: while we waited for the lock somebody else has brought the layer. index: which of its chain it is.
    origin: LayerRecord's.
    """

    def __init__(self, root: str, index: int, chain_id: Digest, rules: Rules = LAYER) -> None:
        """Wait for the lock, and remove what a dead writer left. Raises OSError."""
        self.index = index
        self.chain_id = chain_id
        self.path = f"{root}/unpacking/{chain_id.hex}"
        self._root = root
        self.origin = ""
        self._rules = rules
        self._extraction: Extraction | None = None
        self._tree = -1
        while True:
            try:
                os.mkdir(self.path, 0o700)
            except FileExistsError:
                pass
            try:
                self.fd = os.open(self.path, removal.DIRECTORY_FLAGS)
            except FileNotFoundError:
                continue
            fcntl.flock(self.fd, fcntl.LOCK_EX)
            self.is_there = os.path.isdir(layer_path(root, chain_id))
            if self.is_there or self._is_empty_and_ours():
                return
            os.close(self.fd)

    def extract(self, blob: Blob, diff_id: Digest, given_up: Callable[[], bool], pieces_max: int) -> None:
        """Extract a blob into fs/, pieces_max pieces ahead at the most.

        Raises Invalid when its content is not what the diff_id says, OSError.
        """
        import hashlib

        subject = f"layer {diff_id}"
        digest = hashlib.new(diff_id.algorithm)
        stream = Decompressed(blob.read, subject)
        self._tree = self._make_tree()
        os.mkdir("trash", 0o700, dir_fd=self.fd)
        trash = os.open("trash", removal.DIRECTORY_FLAGS, dir_fd=self.fd)
        try:
            with closing(ReadAhead(stream.read, pieces_max)) as ahead:

                def read(count: int) -> bytes:
                    if given_up():
                        raise Unavailable("unpack", subject, "a layer below it could not be unpacked")
                    data = ahead.read(count)
                    digest.update(data)
                    return data

                self._extraction = Extraction(self._tree, trash, subject, self._rules)
                self._extraction.run(Reader(read, subject))
        finally:
            os.close(trash)
        if digest.hexdigest() != diff_id.hex:
            found = f"{diff_id.algorithm}:{digest.hexdigest()}"
            raise Invalid(
                "unpack", subject, f"its content has the diff_id {found}", hint="import or pull it again", code="E0805"
            )
        os.rmdir("trash", dir_fd=self.fd)

    def describe(self, diff_id: Digest, chain: Sequence[Digest], below: Sequence[str]) -> None:
        """Settle what the layers below decide, and write layer.json. Raises OSError."""
        extraction = self._extraction
        assert extraction is not None  # `extract` came before
        extraction.settle(below)
        self.write(
            LayerRecord(
                diff_id=diff_id,
                chain=tuple(reversed(chain[: self.index + 1])),
                entries=extraction.entries,
                lost_xattrs=extraction.lost_xattrs,
                lost_devices=extraction.lost_devices,
                origin=self.origin,
            )
        )

    def write(self, record: LayerRecord) -> None:
        """Write layer.json. Raises OSError."""
        with open(f"{self.path}/layer.json", "wb") as file:
            file.write(dump(record.to_json()))

    def close(self) -> None:
        """Let go of the lock; what was not completed is discarded. Raises Unavailable."""
        if self.fd < 0:
            return
        try:
            if self._is_ours():
                discard(self._root, self.path)
        finally:
            if self._tree >= 0:
                os.close(self._tree)
            os.close(self.fd)
            self.fd = self._tree = -1

    def _make_tree(self) -> int:
        """Make fs/ and return its descriptor.

        ext4 looks at every inode that was freed in the last minute before it gives one away (recently_deleted(), since
        3.14): after a `rmi` a pull of 10,000 files took four times as long in the directory's own block group. With
        the flag, a directory goes to a group that the hash of its name chooses, and its files with it.
        """
        inode.spread_subdirectories(self.fd)
        name = os.urandom(8).hex()
        os.mkdir(name, 0o700, dir_fd=self.fd)
        os.rename(name, "fs", src_dir_fd=self.fd, dst_dir_fd=self.fd)
        tree = os.open("fs", removal.DIRECTORY_FLAGS, dir_fd=self.fd)
        os.fchmod(tree, 0o755)
        return tree

    def _is_empty_and_ours(self) -> bool:
        if not self._is_ours():
            return False  # it became a layer, or was discarded, while we waited
        if os.listdir(self.fd):
            discard(self._root, self.path)
            return False
        return True

    def _is_ours(self) -> bool:
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self.fd))
        except FileNotFoundError:
            return False


def complete(root: str, arrivals: Sequence[Arrival]) -> None:
    """Make described layers durable and move them to layers/, the lowest first. Raises OSError."""
    abi.syscall("syncfs", arrivals[0].fd, subject=arrivals[0].path)
    for arrival in arrivals:
        os.rename(arrival.path, layer_path(root, arrival.chain_id))
    fsync_directory(f"{root}/layers")


def layer_path(root: str, chain_id: Digest) -> str:
    """Return where an unpacked layer lies or would lie."""
    return f"{root}/layers/{chain_id.hex}"


def open_tree(root: str, chain_id: Digest) -> int:
    """Return a descriptor of an unpacked layer's own tree. Raises OSError."""
    return os.open(f"{layer_path(root, chain_id)}/fs", removal.DIRECTORY_FLAGS)


def shifted(chain_id: Digest, shift: Shift) -> Digest:
    """Return what names a layer whose tree has other owners than its archive: no image's layer has this ChainID."""
    return Digest.of(f"{chain_id} {shift}".encode())


def is_opaque(tree: str) -> bool:
    """Say whether a layer's root hides all that lies below: overlayfs looks at the attribute everywhere but there."""
    try:
        return os.getxattr(tree, overlay.OPAQUE_XATTR) == b"y"
    except OSError:
        return False


def discard(root: str, path: str) -> None:
    """Take a tree out of sight, then remove it. Raises FileNotFoundError, Unavailable."""
    gone = f"{root}/trash/{os.urandom(8).hex()}"
    os.rename(path, gone)
    remove_tree(root, gone)


def remove_tree(root: str, path: str) -> None:
    """Remove a tree that lies in the trash. Raises Unavailable."""
    drop_subvolumes(path)
    trash = os.open(f"{root}/trash", removal.DIRECTORY_FLAGS)
    try:
        removal.remove(trash, os.path.basename(path), trash)
    except OSError as error:
        raise unavailable("remove", path, error) from None
    finally:
        os.close(trash)


def unavailable(verb: str, subject: str, error: OSError) -> Unavailable:
    hint = "free some space in the data directory" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
    return Unavailable(verb, subject, os.strerror(error.errno or 0), hint=hint)
