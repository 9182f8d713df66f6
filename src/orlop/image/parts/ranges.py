"""A blob read in part: from the store where it lies or is on its way, else by ranges from a registry.

What comes back is as long as what was asked for, and proven by nobody: the caller has the digests of the parts.
Ranges are whole blocks of BLOCK_BYTES, and the last few are kept: files that lie together are asked for together.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict

from orlop.spec.errors import Invalid, NotFound, OrlopError, Unsupported

from ..registry import Broken, Patience

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from orlop.content import Store
    from orlop.spec.image import Descriptor

    from ..registry import Repository

BLOCK_BYTES = 128 * 1024
KEPT_BLOCKS = 64  # of one blob
ANSWER_S_MAX = 30.0  # for one range, from one registry


class Ranges:
    """One blob. fetched: bytes that came from registries. Used by any number of threads."""

    def __init__(
        self, store: Store, descriptor: Descriptor, repositories: Sequence[Repository], cancel: threading.Event
    ) -> None:
        self.descriptor = descriptor
        self.fetched = 0
        self._store = store
        self._repositories = list(repositories)
        self._cancel = cancel
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._coming: dict[int, threading.Event] = {}

    def ask(self, repositories: Sequence[Repository]) -> None:
        """Fetch from these places from now on: a forked child has connections of its own."""
        self._repositories = list(repositories)

    def read(self, start: int, end: int) -> bytes:
        """Return the bytes from start up to end. Raises Unavailable, Invalid for a place that is not in the blob."""
        if not 0 <= start <= end <= self.descriptor.size:
            raise self._wrong(f"bytes {start} to {end} are not in it")
        found = self._local(start, end)
        if found is not None:
            return found
        first, last = start // BLOCK_BYTES, -(-end // BLOCK_BYTES)
        blocks = self._blocks(first, last)
        data = b"".join(blocks)
        return data[start - first * BLOCK_BYTES : end - first * BLOCK_BYTES]

    def _local(self, start: int, end: int) -> bytes | None:
        """Return a part of the blob that is in the store, or of as much of it as has come; None where it lacks."""
        digest = self.descriptor.digest
        for path in (self._store.path(digest), self._store.partial_path(digest)):
            try:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            except FileNotFoundError:
                continue
            try:
                data = os.pread(fd, end - start, start)
            finally:
                os.close(fd)
            if len(data) == end - start:
                return data
        return None

    def _blocks(self, first: int, last: int) -> list[bytes]:
        """Return blocks, those that lack fetched together; who else fetches one of them is waited for."""
        found: dict[int, bytes] = {}
        while True:
            with self._lock:
                for number in range(first, last):
                    if number not in found and number in self._kept:
                        self._kept.move_to_end(number)
                        found[number] = self._kept[number]
                missing = [number for number in range(first, last) if number not in found]
                if not missing:
                    return [found[number] for number in range(first, last)]
                others = [self._coming[number] for number in missing if number in self._coming]
                if not others:
                    done = threading.Event()
                    run = range(missing[0], missing[-1] + 1)
                    self._coming |= dict.fromkeys(run, done)
            if others:
                others[0].wait()
                continue
            try:
                found |= self._fetch_blocks(run)
            finally:
                with self._lock:
                    for number in run:
                        del self._coming[number]
                done.set()

    def _fetch_blocks(self, run: range) -> dict[int, bytes]:
        start = run[0] * BLOCK_BYTES
        data = self._fetch(start, min((run[-1] + 1) * BLOCK_BYTES, self.descriptor.size))
        found = {
            number: data[at : at + BLOCK_BYTES]
            for number, at in zip(run, range(0, len(data), BLOCK_BYTES), strict=True)
        }
        with self._lock:
            self.fetched += len(data)
            self._kept |= found
            while len(self._kept) > KEPT_BLOCKS:
                self._kept.popitem(last=False)
        return found

    def _fetch(self, start: int, end: int) -> bytes:
        """Return a range from the first registry that gives it, each tried as often as `Patience` says."""
        refused: OrlopError | None = None
        for repository in tuple(self._repositories):
            patience = Patience(self._cancel)
            number = 0
            while True:
                try:
                    return self._ask(repository, patience, start, end)
                except Broken as broken:
                    number += 1
                    if not patience.pause(number):
                        refused = repository.unreachable(broken)
                        break
                except OrlopError as wrong:
                    refused = wrong
                    break
        raise refused or NotFound("pull", f"blob {self.descriptor.digest}", "no registry is configured for it")

    def _ask(self, repository: Repository, patience: Patience, start: int, end: int) -> bytes:
        deadline = time.monotonic() + ANSWER_S_MAX
        with repository.range(self.descriptor.digest, patience, start, end, self.descriptor.urls) as response:
            if response.status == 200 and (start or end != self.descriptor.size):
                cause = f"registry {repository.host} gives blobs only whole"
                raise Unsupported("read", f"blob {self.descriptor.digest} in part", cause)
            data = bytearray()
            while len(data) <= end - start and (piece := response.read()):
                data += piece
                patience.check()
                if time.monotonic() > deadline:
                    raise Broken(f"only {len(data)} of {end - start} bytes came in {ANSWER_S_MAX:.0f} s")
        if len(data) > end - start:
            raise self._wrong(f"the registry sends more than the {end - start} bytes that it was asked for")
        if len(data) < end - start:
            raise Broken(f"it ended after {len(data)} of {end - start} bytes")
        return bytes(data)

    def _wrong(self, cause: str) -> Invalid:
        return Invalid("read", f"blob {self.descriptor.digest}", cause)
