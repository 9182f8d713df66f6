"""A push: blobs first, then manifests, the tag last. What the registry has is not sent again.

Bytes go as they lie in the store, so the digests there are the digests here.
"""

from __future__ import annotations

import queue
import threading
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait

from orlop.spec.digest import Digest
from orlop.spec.errors import NotFound
from orlop.spec.image import CONFIGS, OCI_INDEX, Descriptor, Index, Manifest, parse_manifest
from orlop.spec.jsonio import dump

from .registry import Canceled, Patience
from .registry.upload import EXISTS, MOUNTED, Upload, put_manifest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from concurrent.futures import Future

    from orlop.content import Store

    from .registry import Repository

    Message = dict[str, object]

PARALLEL_MAX = 5
PROGRESS_S = 0.1


class Push:
    """One push of one manifest or index to one repository. sources: digest -> repositories that may have it there."""

    def __init__(self, store: Store, repository: Repository, sources: Mapping[Digest, Sequence[str]]) -> None:
        self.cancel = threading.Event()
        self._store = store
        self._repository = repository
        self._sources = sources
        self._patience = Patience(self.cancel)
        self._news: queue.SimpleQueue[Message] = queue.SimpleQueue()

    def run(self, target: Descriptor, tag: str) -> Iterator[Message]:
        """Push target and all it consists of, under a tag ("" is by digest only); yield docker's messages.

        Raises what the registry refuses with, NotFound when a part is not here.
        """
        manifests, blobs = self._parts(target)
        try:
            yield from self._send(blobs)
        except GeneratorExit:
            self.cancel.set()
            raise
        except Canceled:
            raise NotFound("push", self._repository.name, "it was interrupted") from None
        for descriptor in manifests:
            data = self._store.get(descriptor.digest)
            self._put(str(descriptor.digest), data, descriptor)
        self._put(tag or str(target.digest), self._store.get(target.digest), target)
        yield {"status": f"{tag or target.digest}: digest: {target.digest} size: {target.size}"}

    def _put(self, reference: str, data: bytes, described: Descriptor) -> None:
        """Store a manifest; where it refers to another and the registry does not see that, in the tag for it, too."""
        noted = put_manifest(self._repository, reference, data, described, self._patience)
        document = parse_manifest(data, described.media_type, f"manifest {described.digest}")
        if document.subject is None or noted:
            return
        # distribution-spec 1.1, "Unavailable Referrers API": the index under the tag <algorithm>-<hex> of the subject.
        subject = document.subject.digest
        others = [one for one in self._repository.referrers(subject, self._patience) if one.digest != described.digest]
        kind = document.artifact_type or (document.config.media_type if isinstance(document, Manifest) else "")
        entry = Descriptor(
            media_type=described.media_type,
            digest=described.digest,
            size=described.size,
            artifact_type=kind,
            annotations=document.annotations,
        )
        listed = dump(Index(schema_version=2, media_type=OCI_INDEX, manifests=(*others, entry)).to_json())
        index = Descriptor(media_type=OCI_INDEX, digest=Digest.of(listed), size=len(listed))
        put_manifest(self._repository, str(subject).replace(":", "-"), listed, index, self._patience)

    def lacks(self, index: Descriptor) -> list[Descriptor]:
        """Return the manifests of an index that are neither here nor there."""
        document = parse_manifest(self._store.get(index.digest), index.media_type, f"index {index.digest}")
        if not isinstance(document, Index):
            return []
        missing = [one for one in document.manifests if self._store.stat(one.digest) is None]
        return [one for one in missing if not self._is_there(one.digest)]

    def _is_there(self, digest: Digest) -> bool:
        try:
            self._repository.resolve(str(digest), self._patience)
        except NotFound:
            return False
        return True

    def _parts(self, target: Descriptor) -> tuple[list[Descriptor], dict[Digest, Descriptor]]:
        """Return what lies below a manifest or index: the manifests in it, and all blobs."""
        document = parse_manifest(self._store.get(target.digest), target.media_type, f"manifest {target.digest}")
        if isinstance(document, Manifest):
            return [], self._blobs(document)
        manifests: list[Descriptor] = []
        blobs: dict[Digest, Descriptor] = {}
        for child in document.manifests:
            if self._store.stat(child.digest) is None:
                continue  # it is there: `lacks` has asked
            deeper, of_child = self._parts(child)
            manifests += [*deeper, child]
            blobs |= of_child
        return manifests, blobs

    def _blobs(self, manifest: Manifest) -> dict[Digest, Descriptor]:
        found = {}
        for blob in (*manifest.layers, manifest.config):
            if self._store.stat(blob.digest) is None and blob.urls:
                continue  # a foreign layer: it stays where its urls lead
            found[blob.digest] = blob
        return found

    def _send(self, blobs: dict[Digest, Descriptor]) -> Iterator[Message]:
        for digest, blob in blobs.items():
            if blob.media_type not in CONFIGS:
                yield {"status": "Preparing", "progressDetail": {}, "id": digest.short}
        with ThreadPoolExecutor(PARALLEL_MAX, thread_name_prefix="push") as pool:
            pending: set[Future[None]] = {pool.submit(self._upload, blob) for blob in blobs.values()}
            try:
                while pending:
                    done, pending = wait(pending, PROGRESS_S, FIRST_COMPLETED)
                    yield from self._told()
                    for one in done:
                        one.result()
            finally:
                if pending:
                    self.cancel.set()
                    for one in pending:
                        one.cancel()
        yield from self._told()

    def _upload(self, blob: Descriptor) -> None:
        detail = {"current": 0, "total": blob.size}
        identifier = blob.digest.short
        is_shown = blob.media_type not in CONFIGS  # docker's users know layers

        def told(sent: int) -> None:
            if is_shown:
                self._news.put({"status": "Pushing", "progressDetail": detail | {"current": sent}, "id": identifier})

        upload = Upload(self._repository, blob, self._patience, told)
        how, source = upload.run(lambda: self._store.open(blob.digest), self._sources.get(blob.digest, ()))
        status = "Layer already exists" if how == EXISTS else f"Mounted from {source}" if how == MOUNTED else "Pushed"
        if is_shown:
            self._news.put({"status": status, "progressDetail": {}, "id": identifier})

    def _told(self) -> Iterator[Message]:
        while True:
            try:
                yield self._news.get_nowait()
            except queue.Empty:
                return
