"""Blobs on their way from a registry into the store: each fetched once, however many ask for it.

    Downloads.start(descriptor, repositories) -> Download      the one that runs already, or a new one
    Download.reader()                                          its bytes while they come: what unpacking reads

Invariants:
1. A reader sees bytes that nobody has verified yet. What is made of them becomes visible only after the whole blob,
   or its uncompressed content, was proven: `Download.wait` says so, and a layer's diff_id.
2. A download lives as long as somebody wants it. What came of one that was given up is kept and gone on with later.
3. Of all processes with this store one fetches a blob (`Store.resume`); the others wait until it is there, and go on
   with it if that one gives up. One that stands still is passed over.
"""

from __future__ import annotations

import threading
import time

from orlop.spec.errors import Internal, Invalid, NotFound, OrlopError

from .registry import TRIES_ELSEWHERE, Broken, Canceled, Patience

TYPE_CHECKING = False
if TYPE_CHECKING:
    import io
    from collections.abc import Callable, Sequence

    from orlop.content import Ingest, Store
    from orlop.spec.digest import Digest
    from orlop.spec.image import Descriptor

    from .registry import Repository

PARALLEL_MAX = 8  # of all pulls together
ELSEWHERE_S_MAX = 60.0  # without a byte from whoever else fetches the blob
_WAIT_S = 0.5
_LOOK_S = 0.02


class Download:
    """One blob. received: bytes so far; ended: nothing more comes; error: why not, when it failed."""

    def __init__(self, store: Store, descriptor: Descriptor, pace: Callable[[], object] | None = None) -> None:
        self.descriptor = descriptor
        self._pace = pace
        self.received = 0
        self.ended = False
        self.error: OrlopError | None = None
        self.cancel = threading.Event()
        self.users = 0
        self._sources: list[Repository] = []  # whom to ask, in turn; whoever joins adds their own
        self._asked = 0
        self._settled = False  # nobody is asked any more
        self._joining = threading.Lock()  # guards these three, and is never held for long
        self._store = store
        self._ingest: Ingest | None = None
        self._changed = threading.Condition()

    def join(self, repositories: Sequence[Repository]) -> bool:
        """Let these be asked too, after those that are there. False when it is too late for that."""
        with self._joining:
            if self._settled or self.cancel.is_set():
                return False
            self._sources += [one for one in repositories if one not in self._sources]
            return True

    def reader(self) -> Reader:
        """Return the blob from its start, as it comes."""
        return Reader(self)

    def wait(self, cancel: threading.Event) -> None:
        """Wait for the end. Raises what made it fail, Canceled when the caller gives up."""
        with self._changed:
            while not self.ended:
                if cancel.is_set():
                    raise Canceled
                self._changed.wait(_WAIT_S)
        self.check()

    def check(self) -> None:
        """Raise what made it fail."""
        if self.error is not None:
            raise self.error

    def wait_beyond(self, offset: int) -> int:
        """Wait until more than offset bytes are there, or the end; return how many there are. Raises its error."""
        with self._changed:
            while self.received <= offset and not self.ended:
                self._changed.wait()
        self.check()
        return self.received

    def open(self) -> io.FileIO:
        """Return the file that the blob is written to, or lies in. Raises its error."""
        with self._changed:
            while self._ingest is None and not self.ended:
                self._changed.wait()
            self.check()
            if self._ingest is not None:
                return self._ingest.reader()
        return self._store.open(self.descriptor.digest)

    def run(self, slots: threading.Semaphore) -> None:
        """Fetch the blob; the thread that `Downloads` starts. Never raises: `error` tells."""
        error: OrlopError | None = None
        try:
            with slots:
                self._fetch()
        except Canceled:
            error = Internal("pull", f"blob {self.descriptor.digest}", "nobody waits for it any more")
        except OrlopError as wrong:
            error = wrong
        except Exception as wrong:
            error = Internal("pull", f"blob {self.descriptor.digest}", f"{type(wrong).__name__}: {wrong}")
        with self._joining:
            self._settled = True
        with self._changed:
            self.error, self.ended, self._ingest = error, True, None
            self._changed.notify_all()

    def _fetch(self) -> None:
        ingest = self._begin()
        if ingest is None:
            return
        try:
            with self._changed:
                self._ingest, self.received = ingest, ingest.size
                self._changed.notify_all()
            self._ask(ingest)
            with self._changed:
                self._ingest = None
                ingest.commit(self.descriptor)
        except Invalid:
            self._close(ingest.close)
            raise
        finally:
            self._close(ingest.keep)

    def _begin(self) -> Ingest | None:
        """Return what to write to, None when the blob is here. While somebody else brings it, wait for that."""
        grew_at, seen = time.monotonic(), 0
        while True:
            # Before we look: whoever had it has then either committed it or left it to us.
            ingest = self._store.resume(self.descriptor)
            if self._store.stat(self.descriptor.digest) == self.descriptor.size:
                self.received = self.descriptor.size
                if ingest is not None:
                    ingest.close()
                return None
            if ingest is not None:
                return ingest
            coming = min(self._store.coming(self.descriptor.digest), self.descriptor.size)
            if coming != seen:
                grew_at, seen = time.monotonic(), coming
                self.received = coming  # for those who are told; who reads waits for the end
            elif time.monotonic() - grew_at > ELSEWHERE_S_MAX:
                return self._store.writer(self.descriptor.digest.algorithm)
            if self.cancel.wait(_LOOK_S):
                raise Canceled

    def _ask(self, ingest: Ingest) -> None:
        """Fill it from one registry after the other. Raises what the last one said."""
        refused: OrlopError | None = None
        while (repository := self._next()) is not None:
            try:
                self._fill(ingest, repository)
                return
            except Invalid:
                raise
            except OrlopError as wrong:
                refused = wrong
        raise refused or NotFound("pull", f"blob {self.descriptor.digest}", "no registry is configured for it")

    def _next(self) -> Repository | None:
        """Return whom to ask now. None is the last word: who comes later begins a download of their own."""
        with self._joining:
            self._settled = self._asked == len(self._sources)
            if self._settled:
                return None
            self._asked += 1
            return self._sources[self._asked - 1]

    def _close(self, close: Callable[[], None]) -> None:
        """Close what is written to when nobody can open it by that name any more: a reader waits for the end."""
        with self._changed:
            self._ingest = None
            close()

    def _fill(self, ingest: Ingest, repository: Repository) -> None:
        """Write what is missing from one registry; a broken connection is resumed where it broke."""
        patience = Patience(self.cancel) if repository is self._sources[-1] else Patience(self.cancel, TRIES_ELSEWHERE)
        failures = 0
        while ingest.size < self.descriptor.size:
            before = ingest.size
            try:
                self._receive(ingest, repository, patience)
            except Broken as broken:
                failures = 1 if ingest.size > before else failures + 1
                if not patience.pause(failures):
                    raise repository.unreachable(broken) from None

    def _receive(self, ingest: Ingest, repository: Repository, patience: Patience) -> None:
        wanted = self.descriptor
        with repository.blob(wanted.digest, patience, ingest.size, wanted.urls) as response:
            skip = ingest.size if response.status == 200 else 0  # a server without ranges begins anew
            if response.length is not None and response.length != wanted.size - ingest.size + skip:
                told = response.length + ingest.size - skip
                raise self._lies(f"the registry sends {told} bytes, {wanted.size} were announced")
            while data := response.read():
                patience.check()
                if self._pace is not None:
                    self._pace()
                data, skip = data[skip:], max(skip - len(data), 0)
                if ingest.size + len(data) > wanted.size:
                    raise self._lies(f"the registry sends more than the {wanted.size} bytes that were announced")
                ingest.write(data)
                with self._changed:
                    self.received = ingest.size
                    self._changed.notify_all()
        if ingest.size < wanted.size:
            raise Broken(f"it ended after {ingest.size} of {wanted.size} bytes")

    def _lies(self, cause: str) -> Invalid:
        return Invalid("pull", f"blob {self.descriptor.digest}", cause)


class Reader:
    """The bytes of a download in order, whether it is under way or done. position: how many were read."""

    def __init__(self, download: Download) -> None:
        self._download = download
        self._file = download.open()
        self.position = 0

    def read(self, count: int, /) -> bytes:
        """Return up to count bytes, b"" at the end; waits for them. Raises what made the download fail."""
        if self.position >= self._download.wait_beyond(self.position):
            return b""
        data = self._file.read(count)
        self.position += len(data)
        return data

    def close(self) -> None:
        self._file.close()


class Downloads:
    """All downloads of one engine. pace: called between two pieces of each, for who wants them slower."""

    def __init__(self, store: Store, pace: Callable[[], object] | None = None) -> None:
        self._store = store
        self._pace = pace
        self._lock = threading.Lock()
        self._active: dict[str, Download] = {}
        self._slots = threading.Semaphore(PARALLEL_MAX)

    def start(self, descriptor: Descriptor, repositories: Sequence[Repository]) -> Download:
        """Return the download of a blob, begun now unless it runs already. `release` it when done.

        One that was begun by somebody else asks their registries first, and then the caller's.
        """
        with self._lock:
            download = self._active.get(descriptor.digest)
            if download is None or not download.join(repositories):
                download = Download(self._store, descriptor, self._pace)
                download.join(repositories)
                self._active[descriptor.digest] = download
                name = f"download {descriptor.digest.short}"
                threading.Thread(target=download.run, args=(self._slots,), name=name, daemon=True).start()
            elif download.descriptor.size != descriptor.size:
                raise Invalid("pull", f"blob {descriptor.digest}", "two manifests announce it with different sizes")
            download.users += 1
            return download

    def release(self, download: Download) -> None:
        """Say that the caller wants it no more. What nobody wants any more is given up."""
        with self._lock:
            download.users -= 1
            if download.users == 0:
                download.cancel.set()
                if self._active.get(download.descriptor.digest) is download:
                    del self._active[download.descriptor.digest]

    def users(self, digest: Digest) -> int:
        """Return how many wait for a blob now."""
        with self._lock:
            download = self._active.get(digest)
            return download.users if download is not None else 0
