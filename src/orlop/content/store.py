"""The content store: blobs under their digests, in an OCI image layout that other tools can read in place.

    <root>/oci-layout             written once
           index.json             see `orlop.content.names`
           blobs/<algorithm>/<hex>
           ingest/<random>        blobs on their way in; its writer holds a lock (flock) on the file
                  <alg>-<hex>     the same of a blob that is being fetched: kept for PARTIAL_S_MAX, to go on with it
           leases/                see `orlop.content.neighbours`
           recipes/               of blobs that are not kept: see `orlop.content.recipes`

Invariants:
1. A file below blobs/ has the digest that its name says, and survived a power failure before it got that name: it is
   hashed while it is written, compared, fsynced, renamed, and then the directory is fsynced. Readers need no lock.
2. A file in ingest/ whose lock can be had belongs to nobody: its writer died. The next writer removes it, or goes on
   with it where it has the same digest to bring. Of all processes one at a time brings a blob that is known by its
   digest; the lock says who.
3. A blob that is committed under a lease (`orlop.content.leases`) is not collected before its name is in the index.
Source: OCI image-spec, image-layout.md.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time

from orlop.linux.path import fsync_directory, open_file
from orlop.spec.digest import Digest
from orlop.spec.errors import Invalid, NotFound, Unavailable
from orlop.spec.image import LAYOUT_VERSION, Descriptor, Index, Layout
from orlop.spec.jsonio import DOCUMENT_BYTES_MAX, dump

from .leases import Leases
from .names import Names
from .neighbours import SWEEP
from .recipes import Recipes

TYPE_CHECKING = False
if TYPE_CHECKING:
    import hashlib
    import io
    from collections.abc import Callable, Iterable
    from types import TracebackType
    from typing import Protocol, Self

    from .recipes import Head, Piece

    class Readable(Protocol):
        """Anything with a read(n) that returns up to n bytes, b"" at the end."""

        def read(self, count: int, /) -> bytes: ...


OCTET_STREAM = "application/octet-stream"
BLOB_BYTES_MAX = 64 * 1024**3
READ_BYTES = 1024 * 1024
PARTIAL_S_MAX = 24 * 3600.0
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Store:
    """Blobs by digest below one directory, which is made (mode 0700) when it is not there.

    names: what the index of the layout calls them. leases: what may not be collected now.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self.names = Names(root)
        self.leases = Leases(f"{root}/leases")
        self.recipes = Recipes(root)
        self.leases.implied = self.recipes.chain
        self.awaited: Callable[[Digest], bool] = lambda digest: False  # waits for a blob that is on its way
        self._swept = False
        _make_layout(root)

    def path(self, digest: Digest) -> str:
        """Return where the blob lies or would lie."""
        return f"{self.root}/blobs/{digest.algorithm}/{digest.hex}"

    def stat(self, digest: Digest) -> int | None:
        """Return the size of a blob in bytes, or None when it is not here."""
        try:
            return os.stat(self.path(digest)).st_size
        except FileNotFoundError:
            head = self.recipes.head(digest)
            return head.size if head is not None else None

    def occupied(self, digest: Digest) -> int:
        """Return how many bytes lie here of a blob: its own, those of its recipe, or 0."""
        for path in (self.path(digest), self.recipes.path(digest)):
            try:
                return os.stat(path).st_size
            except FileNotFoundError:
                continue
        return 0

    def open(self, digest: Digest) -> io.FileIO:
        """Return the blob, open for reading without a buffer; made now where only its recipe is kept.

        Raises NotFound, Unavailable for what can't be read and for a recipe that makes another one.
        """
        try:
            return self._open(digest)
        except FileNotFoundError:
            if self.recipes.head(digest) is not None:
                return self._made(digest)
            if self.awaited(digest):
                return self._open(digest)
            raise NotFound(
                "read",
                f"blob {digest}",
                f"blob {digest} is not in the store",
                hint="the image is incomplete: import or pull it again",
            ) from None

    def _open(self, digest: Digest) -> io.FileIO:
        try:
            return open(open_file(self.path(digest)), "rb", buffering=0)
        except FileNotFoundError:
            raise
        except OSError as wrong:
            hint = "remove it, and pull or push it again"
            raise Unavailable("read", self.path(digest), wrong.strerror or str(wrong), hint=hint) from None

    def _made(self, digest: Digest) -> io.FileIO:
        """Return a blob that its recipe has made, in a file without a name."""
        with self.writer(digest.algorithm) as ingest:
            self.recipes.make(digest, ingest.write)
            if ingest.digest != digest:
                cause = f"its recipe makes {ingest.digest} here: the unpacked layer or zlib has changed"
                raise Unavailable("read", f"blob {digest}", cause, hint="remove the image and pull it again")
            return ingest.reader()

    def get(self, digest: Digest, bytes_max: int = DOCUMENT_BYTES_MAX) -> bytes:
        """Return a small blob whole, its digest checked once more.

        Raises NotFound, Invalid when it is larger than bytes_max, Unavailable when the disk has changed it.
        """
        with self.open(digest) as file:
            size = os.fstat(file.fileno()).st_size
            if size > bytes_max:
                raise Invalid("read", f"blob {digest}", f"it has {size} bytes, the limit is {bytes_max}", code="E0212")
            data = file.read(bytes_max)
        if Digest.of(data, digest.algorithm) != digest:
            raise Unavailable(
                "read",
                f"blob {digest}",
                "its content has changed on disk",
                hint="remove the image and import it again",
                code="E0805",
            )
        return data

    def ingest(
        self,
        source: Readable | bytes,
        expected: Descriptor | Digest | None = None,
        media_type: str = OCTET_STREAM,
        bytes_max: int = BLOB_BYTES_MAX,
    ) -> Descriptor:
        """Store one blob and return its descriptor: expected itself where that is a Descriptor.

        Raises Invalid when the content is not what was expected or too large, Unavailable when it can't be written.
        Nothing becomes visible in that case.
        """
        wanted = expected.digest if isinstance(expected, Descriptor) else expected
        if isinstance(expected, Descriptor):
            bytes_max = expected.size
        with self.writer(wanted.algorithm if wanted else "sha256") as ingest:
            if isinstance(source, bytes):
                ingest.write(source)
            else:
                while ingest.size <= bytes_max and (data := source.read(READ_BYTES)):
                    ingest.write(data)
            if ingest.size > bytes_max:
                raise Invalid("store", "a blob", f"it has more than the {bytes_max} bytes allowed", code="E0212")
            return ingest.commit(expected, media_type)

    def writer(self, algorithm: str = "sha256") -> Ingest:
        """Return an open Ingest, for a blob that is made piece by piece. Close it by committing or as a context."""
        self._sweep_once()
        path = f"{self.root}/ingest/{os.urandom(16).hex()}"
        return Ingest(self, algorithm, path, _create(path, os.O_EXCL))

    def resume(self, expected: Descriptor) -> Ingest | None:
        """Return an open Ingest for a blob that is known by its digest, with what an earlier one had got already.

        Its size says how much that is. What is left of it after `keep` or a crash is there for the next one. None while
        somebody else, of this process or another, brings that blob: `coming` says how much they have.
        """
        self._sweep_once()
        path = self.partial_path(expected.digest)
        try:
            fd = _create(path)
        except BlockingIOError:
            return None
        ingest = Ingest(self, expected.digest.algorithm, path, fd)
        if ingest.size > expected.size:
            ingest.restart()
        return ingest

    def coming(self, digest: Digest) -> int:
        """Return how many bytes lie in ingest/ of a blob that is known by its digest."""
        try:
            return os.stat(self.partial_path(digest)).st_size
        except FileNotFoundError:
            return 0

    def partial_path(self, digest: Digest) -> str:
        """Return where what has come of a blob lies or would lie: its beginning, which nobody has proven."""
        return f"{self.root}/ingest/{digest.algorithm}-{digest.hex}"

    def partial(self) -> list[str]:
        """Return the paths of what is on its way in."""
        return [entry.path for entry in os.scandir(f"{self.root}/ingest")]

    def digests(self) -> list[Digest]:
        """Return the digests of all blobs. A file below blobs/ that is called otherwise is not ours and left out."""
        found = []
        for algorithm in os.listdir(f"{self.root}/blobs"):
            for name in os.listdir(f"{self.root}/blobs/{algorithm}"):
                try:
                    found.append(Digest(f"{algorithm}:{name}"))
                except Invalid:
                    continue
        return list(dict.fromkeys((*found, *self.recipes.digests())))

    def _sweep_once(self) -> None:
        if not self._swept:
            self._swept = True
            sweep(f"{self.root}/ingest", PARTIAL_S_MAX)

    def remove(self, digest: Digest) -> None:
        """Remove a blob; that it is gone already is no error. Whether it is still needed is the caller's to know."""
        try:
            os.unlink(self.path(digest))
        except FileNotFoundError:
            pass
        self.recipes.remove(digest)

    def add_recipe(self, digest: Digest, head: Head, pieces: Iterable[Piece]) -> bool:
        """Keep a recipe for a blob, beside it. False for one that does not make it. Raises Unavailable."""
        self._sweep_once()
        path = f"{self.root}/ingest/{os.urandom(16).hex()}"
        fd = _create(path, os.O_EXCL)
        try:
            return self.recipes.add(digest, head, pieces, path, fd)
        except OSError as wrong:
            hint = f"free some space below {self.root}" if wrong.errno in _FULL else ""
            raise Unavailable("store", "a recipe", os.strerror(wrong.errno or 0), hint=hint) from None
        finally:
            if _lies_at(fd, path):
                os.unlink(path)
            os.close(fd)

    def drop(self, digest: Digest) -> None:
        """Remove a blob whose recipe is kept; that it is gone already is no error."""
        if self.recipes.head(digest) is None:
            return
        try:
            os.unlink(self.path(digest))
        except FileNotFoundError:
            pass


class Ingest:
    """A blob on its way into the store: write, then commit. Leaving the context uncommitted throws it away."""

    def __init__(self, store: Store, algorithm: str, path: str, fd: int) -> None:
        self._store = store
        self._algorithm = algorithm
        self._path, self._fd = path, fd
        self._begin()
        while data := os.read(self._fd, READ_BYTES):
            self._hash.update(data)
            self.size += len(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def write(self, data: bytes) -> None:
        """Append data. Raises Unavailable when the disk does not take it."""
        self._hash.update(data)
        self.size += len(data)
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as error:
            raise self._unavailable(error) from None

    def restart(self) -> None:
        """Forget what was written."""
        os.ftruncate(self._fd, 0)
        os.lseek(self._fd, 0, os.SEEK_SET)
        self._begin()

    def keep(self) -> None:
        """Stop here, and leave what was written for `Store.resume`. What it can't find by its digest is thrown away."""
        if _is_partial(os.path.basename(self._path)):
            self._path = ""
        self.close()

    def _begin(self) -> None:
        import hashlib

        self._hash: hashlib._Hash = hashlib.new(self._algorithm)
        self.size = 0

    def reader(self) -> io.FileIO:
        """Return what was written so far, open for reading from the start."""
        return open(self._path, "rb", buffering=0)

    @property
    def digest(self) -> Digest:
        """The digest of what was written so far."""
        return Digest(f"{self._algorithm}:{self._hash.hexdigest()}")

    def commit(self, expected: Descriptor | Digest | None = None, media_type: str = OCTET_STREAM) -> Descriptor:
        """Make the blob visible and durable; return its descriptor. Raises Invalid, Unavailable."""
        descriptor = self._verified(expected, media_type)
        path = self._store.path(descriptor.digest)
        self._store.leases.committed(descriptor.digest)
        try:
            if self._store.stat(descriptor.digest) == self.size:
                self.close()
            else:
                os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
                os.fchmod(self._fd, 0o444)
                os.fsync(self._fd)
                os.rename(self._path, path)
                self._path = ""
                self.close()
            fsync_directory(os.path.dirname(path))  # also for a blob that another writer has just renamed
        except OSError as error:
            raise self._unavailable(error) from None
        return descriptor

    def close(self) -> None:
        """Throw away what was not committed."""
        if self._path:
            os.unlink(self._path)
            self._path = ""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _verified(self, expected: Descriptor | Digest | None, media_type: str) -> Descriptor:
        wanted = expected.digest if isinstance(expected, Descriptor) else expected
        if isinstance(expected, Descriptor) and expected.size != self.size:
            raise Invalid("store", f"blob {wanted}", f"it has {self.size} bytes, {expected.size} were announced")
        if wanted is not None and wanted.algorithm != self._algorithm:
            raise Invalid("store", f"blob {wanted}", f"it was hashed with {self._algorithm}")
        if wanted is not None and wanted != self.digest:
            raise Invalid("store", f"blob {wanted}", f"its content has the digest {self.digest}", code="E0805")
        if isinstance(expected, Descriptor):
            return expected
        return Descriptor(media_type=media_type, digest=self.digest, size=self.size)

    def _unavailable(self, error: OSError) -> Unavailable:
        hint = f"free some space below {self._store.root}" if error.errno in _FULL else ""
        return Unavailable("store", "a blob", os.strerror(error.errno or 0), hint=hint)


def _make_layout(root: str) -> None:
    try:
        os.makedirs(root, 0o700, exist_ok=True)
        for name in ("ingest", "leases", "blobs", "blobs/sha256"):
            if not os.path.isdir(f"{root}/{name}"):
                os.makedirs(f"{root}/{name}", 0o700, exist_ok=True)
        files = {
            "index.json": Index(schema_version=2, manifests=()).to_json(),
            "oci-layout": Layout(image_layout_version=LAYOUT_VERSION).to_json(),
        }
        for name, document in files.items():
            if not os.path.exists(f"{root}/{name}"):
                _write_new(f"{root}/{name}", dump(document))
        os.close(os.open(f"{root}/leases/{SWEEP}", os.O_RDONLY | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o600))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise Unavailable("open", f"content store {root}", f"{where}{os.strerror(error.errno or 0)}") from None


def _write_new(path: str, data: bytes) -> None:
    """Write a file that is there whole or not at all; one that another process has just made stays."""
    temporary = f"{path}.{os.urandom(8).hex()}"
    with open(temporary, "wb") as file:
        file.write(data)
        os.fsync(file.fileno())
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass
    os.unlink(temporary)


def _create(path: str, flags: int = 0) -> int:
    """Return a file in ingest/, made where it is not there, and locked. Raises BlockingIOError when another has it.

    flags: O_EXCL for one that must be new; then whoever has it only looks at it, and is waited for.
    """
    while True:
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise Unavailable("store", "a blob", f"{path}: {os.strerror(error.errno or 0)}") from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX if flags else fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _lies_at(fd, path):
                return fd
        except BaseException:
            os.close(fd)
            raise
        # Between our open and our lock a sweeper removed it, or its writer was done: then it is a blob now, which
        # nobody may write to.
        os.close(fd)


def _is_partial(name: str) -> bool:
    """Tell whether a file in ingest/ is called after the digest of the blob that it becomes."""
    return "-" in name


def _lies_at(fd: int, path: str) -> bool:
    """Tell whether this file still has that name. True stays true while the caller has its lock."""
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except FileNotFoundError:
        return False


def sweep(directory: str, partial_s_max: float) -> None:
    """Remove what dead writers left in ingest/; partial blobs that can be gone on with only when they are that old."""
    oldest = time.time() - partial_s_max
    for name in os.listdir(directory):
        try:
            fd = os.open(f"{directory}/{name}", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_old = not _is_partial(name) or os.fstat(fd).st_mtime < oldest
            if is_old and _lies_at(fd, f"{directory}/{name}"):  # else it is a blob by now, and the next has that name
                os.unlink(f"{directory}/{name}")
        except OSError:
            pass  # its writer lives, or another sweeper was faster
        finally:
            os.close(fd)
