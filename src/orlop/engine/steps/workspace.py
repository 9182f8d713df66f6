"""A writable tree above layers: what a step of a build changes, and how that becomes the next layer.

Invariants:
1. A layer depends on what is in the tree and on nothing else: no time is later than `mtime_max_ns`, no stub that
   something was mounted on gets in, sockets are left out. A stub is removed by its name in an open directory, and only
   while it is empty: what a step puts in its place is not followed (SEC-61).
2. The layer's blob and its unpacked tree are the same: the tree is put right first, and then packed.
3. The root is a detached mount, seen by nobody else (I4), and every path in it is resolved by the kernel (I5).
"""

from __future__ import annotations

import functools
import os
import stat
from contextlib import contextmanager

from ...image.image import Layer
from ...runtime import rootfs
from ...snapshot import removal
from ...snapshot.difference import compare
from ...snapshot.layered import open_layers
from ...snapshot.overlay import is_whiteout
from ...snapshot.pack import Packer
from ...spec.errors import Unavailable
from ...spec.image import OCI_LAYER
from ..containers import names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from ...spec.digest import Digest
    from ..engine import Engine
    from .later import Later


KEPT = "kept-"  # and the name of a build: the key of the tree in which one of its steps failed


class Workspace:
    """One writable tree. key: its snapshot's. Made with `open_workspace`; commit it or discard it."""

    def __init__(self, engine: Engine, layers: Sequence[Layer], key: str) -> None:
        self.engine = engine
        self.layers = tuple(layers)
        self.key = key
        self.later: Later | None = None  # gets what is left of it once it is committed
        self.again_bytes = 0  # once it is committed: what its layer holds that a layer below holds already

    @contextmanager
    def opened(self) -> Iterator[int]:
        """Hold a descriptor of the root: the layers below and what was written, as one tree."""
        root = rootfs.open_rootfs(self.engine.snapshots.mounts(self.key))
        try:
            yield root
        finally:
            os.close(root)

    def commit(
        self, mtime_max_ns: int, targets: Collection[str] | None = (), check: Callable[[], None] = lambda: None
    ) -> Layer | None:
        """Make a layer of what was written; None where nothing was. The workspace is gone then.

        targets: absolute paths where something was mounted; None for what no command wrote but we: then something was
        written, and files have their times. The caller holds a lease. check: raises what ends it, however much there
        is to write: a hole counts like data. Raises Unavailable.
        """
        try:
            space = self.engine.snapshots.writable(self.key)
            space.settle()
            with space.layers() as (upper, *lower):
                made: Collection[bytes] = ()
                if targets is not None:
                    found = compare(upper, lower, {os.fsencode(path.strip("/")) for path in targets})
                    if not found.changes and not _root_changed(upper, lower):
                        self.discard()
                        return None
                    made = found.made
                    self.again_bytes = found.again_bytes
                _settle(upper, made, mtime_max_ns, directories_only=targets is None)
                with self.engine.store.writer() as ingest:

                    def write(data: bytes) -> None:
                        check()
                        ingest.write(data)

                    packer = Packer(write, whiteouts=True)
                    packer.add_directory(open_layers((upper,), plain=True), b".")
                    packer.finish()
                    descriptor = ingest.commit(media_type=OCI_LAYER)
        except OSError as wrong:
            where = f"{wrong.filename}: " if wrong.filename else ""
            raise Unavailable("commit", "a step's layer", f"{where}{wrong.strerror or wrong}") from None
        chain_id = self.engine.snapshots.adopt(self.key, descriptor.digest, self.later.put if self.later else None)
        return Layer(descriptor=descriptor, diff_id=descriptor.digest, chain_id=chain_id)

    def keep(self, build: str) -> None:
        """Let it stay as it is, for those who want to look at it."""
        self.engine.snapshots.rename(self.key, KEPT + build)
        self.key = KEPT + build

    def discard(self) -> None:
        """Throw away what was written."""
        self.engine.snapshots.remove(self.key)


def open_workspace(engine: Engine, layers: Sequence[Layer], key: str = "", *, inside: bool = False) -> Workspace:
    """Return a new tree above these layers, which are unpacked where they are not. key "" draws one.

    inside: it is mounted in a container, and is not its root. Raises Invalid for a broken layer, Unavailable.
    """
    key = key or names.new_id()
    engine.snapshots.prepare(key, unpacked(engine, layers), inside=inside)
    return Workspace(engine, layers, key)


def unpacked(engine: Engine, layers: Sequence[Layer]) -> Digest | None:
    """Return the ChainID of these layers, each of them unpacked. None for no layers."""
    if layers and engine.snapshots.has(layers[-1].chain_id):
        return layers[-1].chain_id
    blobs = (functools.partial(engine.store.open, layer.descriptor.digest) for layer in layers)
    return engine.snapshots.unpack(tuple(zip((layer.diff_id for layer in layers), blobs, strict=True)))


def _root_changed(upper: str, lower: Sequence[str]) -> bool:
    above = os.stat(upper)
    mode, uid, gid = 0o755, 0, 0
    if lower:
        below = os.stat(lower[0])
        mode, uid, gid = stat.S_IMODE(below.st_mode), below.st_uid, below.st_gid
    return (stat.S_IMODE(above.st_mode), above.st_uid, above.st_gid) != (mode, uid, gid)


def _settle(upper: str, made: Collection[bytes], mtime_max_ns: int, *, directories_only: bool) -> None:
    """Put a tree right, below directories first: stubs and sockets go, times are bounded."""
    root = os.open(upper, removal.DIRECTORY_FLAGS)
    pending: list[tuple[int, bytes, list[bytes]]] = []
    fd, path, names_left = root, b"", _names(root, directories_only)
    try:
        while True:
            while names_left:
                name = names_left.pop()
                below = path + b"/" + name if path else name
                if directories_only or _settle_entry(fd, name, below in made, mtime_max_ns):
                    pending.append((fd, path, names_left))
                    fd, path = os.open(name, removal.DIRECTORY_FLAGS, dir_fd=fd), below
                    names_left = _names(fd, directories_only)
            info = os.fstat(fd)
            if info.st_mtime_ns > mtime_max_ns:
                os.utime(fd, ns=(mtime_max_ns, mtime_max_ns))
            if not pending:
                return
            parent, parent_path, parent_names = pending.pop()
            os.close(fd)
            fd = parent
            if path in made:
                _remove_stub(parent, path.rpartition(b"/")[2])
            path, names_left = parent_path, parent_names
    finally:
        os.close(fd)
        for held, _, _ in pending:
            os.close(held)


def _names(fd: int, directories_only: bool) -> list[bytes]:
    if not directories_only:
        return list(map(os.fsencode, os.listdir(fd)))
    with os.scandir(fd) as entries:
        return [os.fsencode(entry.name) for entry in entries if entry.is_dir(follow_symlinks=False)]


def _settle_entry(parent: int, name: bytes, is_stub: bool, mtime_max_ns: int) -> bool:
    """Put one entry right; tell whether it is a directory to go into."""
    info = os.lstat(name, dir_fd=parent)
    if stat.S_ISDIR(info.st_mode):
        return True
    is_socket = stat.S_ISSOCK(info.st_mode) and not is_whiteout(info)
    if is_socket or (is_stub and stat.S_ISREG(info.st_mode) and not info.st_size):
        os.unlink(name, dir_fd=parent)
    elif info.st_mtime_ns > mtime_max_ns:
        os.utime(name, ns=(mtime_max_ns, mtime_max_ns), dir_fd=parent, follow_symlinks=False)
    return False


def _remove_stub(parent: int, name: bytes) -> None:
    try:
        os.rmdir(name, dir_fd=parent)
    except OSError:
        pass  # something was put into it meanwhile: then it is the step's
