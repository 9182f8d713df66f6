"""Images and caches that lie in a layout at the client: read over its session into a layout of ours.

    oci-layout://NAME[:tag]@DIGEST      a named context; the client serves the layout's blobs as the store "oci:NAME"
    type=local,src=FOLDER,digest=...    a cache; the store is "local:FOLDER"
    type=local,dest=FOLDER              a cache that is written there, by the same service

Every blob is proven by its digest while it comes; what is there already is not asked for again.
Source: moby/buildkit, session/content; containerd, api/services/content/v1/content.proto.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from contextlib import ExitStack

from ...build.cache import places
from ...build.garbage import SYNCED
from ...engine.steps.sweep import PASSING_PREFIX
from ...image.transports.layout import LayoutDirectory
from ...spec import jsonio, protobuf
from ...spec.digest import Digest
from ...spec.errors import Invalid, NotFound, OrlopError, Unavailable
from ...spec.image import INDEXES, LAYOUT_VERSION, OCI_MANIFEST, Descriptor, Index, Layout, Manifest, parse_manifest
from . import grpc
from .http2 import Broken

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from ...engine.engine import Engine
    from .session import Session

READ = "/containerd.services.content.v1.Content/Read"
WRITE = "/containerd.services.content.v1.Content/Write"
STAT, WRITING, COMMIT = 0, 1, 2  # of a WriteContentRequest
CACHE_MANIFEST = "cache.manifest"
WRITE_BYTES = 1024 * 1024  # a client takes messages of 4 MiB
STORE_HEADER = "buildkit-attachable-store-id"
BLOB_BYTES_MAX = 64 * 1024**3
DOCUMENT_BYTES_MAX = 64 * 1024 * 1024
MANIFESTS_MAX = 256


def layout_of(engine: Engine, session: Session, store: str, digest: str, name: str) -> str:
    """Return the directory of a layout of ours that has the client's image or cache under a name.

    Raises Invalid for what is none, Unavailable for a client that does not give it.
    """
    key = hashlib.sha256(f"{session.shared_key or session.name}\0{store}".encode()).hexdigest()[:32]
    directory = f"{engine.paths.root}/build/{SYNCED}/layout-{key}"
    session.hold(directory)
    os.makedirs(f"{directory}/blobs/sha256", 0o700, exist_ok=True)
    fetching = _Fetching(session, store, directory)
    target = fetching.described(Digest(digest))
    fetching.image(target)
    layout = LayoutDirectory(directory, make=True)
    try:
        layout.write("oci-layout", jsonio.dump(Layout(image_layout_version=LAYOUT_VERSION).to_json()))
        layout.write("index.json", jsonio.dump(Index(schema_version=2, manifests=()).to_json()))
        layout.name(target, name)
    finally:
        layout.close()
    os.utime(directory)  # when it was used last: build.garbage
    return directory


class _Fetching:
    """Blobs of one store of the client's, on their way into a directory."""

    def __init__(self, session: Session, store: str, directory: str) -> None:
        self._session = session
        self._store = store
        self._directory = directory

    def described(self, digest: Digest) -> Descriptor:
        """Fetch a manifest or index of which only the digest is known."""
        data = self._document(digest)
        kind = jsonio.parse_object(data, f"manifest {digest}", bytes_max=DOCUMENT_BYTES_MAX).get("mediaType")
        return Descriptor(media_type=str(kind or OCI_MANIFEST), digest=digest, size=len(data))

    def image(self, target: Descriptor) -> None:
        """Fetch all that a manifest or index consists of, as far as the client has it."""
        found = parse_manifest(self._document(target.digest), target.media_type, f"manifest {target.digest}")
        if isinstance(found, Manifest):
            for blob in (found.config, *found.layers):
                self._blob(blob.digest)
            return
        if len(found.manifests) > MANIFESTS_MAX:
            raise Invalid("read", f"index {target.digest}", f"it lists more than {MANIFESTS_MAX} manifests")
        for child in found.manifests:
            if child.media_type == OCI_MANIFEST or child.media_type not in INDEXES:
                self.image(child)

    def _document(self, digest: Digest) -> bytes:
        with open(self._blob(digest), "rb") as file:
            data = file.read(DOCUMENT_BYTES_MAX + 1)
        if len(data) > DOCUMENT_BYTES_MAX:
            raise Invalid("read", f"blob {digest}", f"it has more than {DOCUMENT_BYTES_MAX} bytes", code="E0212")
        return data

    def _blob(self, digest: Digest) -> str:
        """Return the file of a blob, fetched where it is not there."""
        path = f"{self._directory}/blobs/{digest.algorithm}/{digest.hex}"
        if os.path.exists(path):
            return path
        temporary = f"{path}.{os.urandom(6).hex()}"
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        try:
            with open(temporary, "xb") as file:
                content = hashlib.new(digest.algorithm)
                for data in self._pieces(digest):
                    content.update(data)
                    file.write(data)
                    if file.tell() > BLOB_BYTES_MAX:
                        raise Invalid(
                            "read", f"blob {digest}", f"it has more than {BLOB_BYTES_MAX} bytes", code="E0212"
                        )
            if content.hexdigest() != digest.hex:
                raise Invalid("read", f"blob {digest}", "what the client gave has another digest")
            os.rename(temporary, path)
        finally:
            if os.path.exists(temporary):
                os.unlink(temporary)
        return path

    def _pieces(self, digest: Digest) -> Iterator[bytes]:
        try:
            call = grpc.begin(self._session.connection, READ, [(STORE_HEADER, self._store)])
            call.send(protobuf.encode(((1, str(digest)),)))
            call.end()
            for message in call.messages():
                yield protobuf.inner(protobuf.decode(message), 2)
            call.check()
        except grpc.Failed as error:
            raise Unavailable("read", f"blob {digest} at the client", error.text) from None
        except (Broken, ValueError) as error:
            raise Unavailable("read", f"blob {digest} at the client", str(error)) from None


class CachesToSend:
    """Caches that a build shall write (--cache-to), those of folders at the client first into layouts of ours.

    places: what the build is asked for. Leave it in any case, after `finish` where the build has ended well.
    """

    def __init__(self, engine: Engine, session: Session, given: Sequence[Mapping[str, str]]) -> None:
        self._session = session
        self._held = ExitStack()
        self._folders: list[tuple[str, str]] = []  # the layout, and the client's name for its store
        found = []
        try:
            for one in given:
                found.append(places.destination(self._ours(engine, one)))
        except OrlopError:
            self._held.close()
            raise
        self.places = tuple(found)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.close()

    def finish(self) -> dict[str, str]:
        """The build has written all of it: send what the client lacks. Return what its answer says of it.

        Raises Unavailable. The client writes its index itself.
        """
        answer = {}
        for directory, store in self._folders:
            layout = LayoutDirectory(directory)
            try:
                target = layout.resolve("")
                manifest = parse_manifest(layout.document(layout.place(target.digest)), target.media_type, "the cache")
            except NotFound:
                continue  # it could not be written, and that is no failure (ignore-error)
            finally:
                layout.close()
            assert isinstance(manifest, Manifest)
            for blob in (*manifest.layers, manifest.config, target):
                _send(self._session, store, blob, f"{directory}/{layout.place(blob.digest)}")
            answer[CACHE_MANIFEST] = jsonio.dump(target.to_json()).decode()
        return answer

    def _ours(self, engine: Engine, attributes: Mapping[str, str]) -> Mapping[str, str]:
        folder = attributes.get("dest", "")
        if attributes.get("type") != places.LOCAL or not folder:
            return attributes
        os.makedirs(f"{engine.paths.root}/build", 0o700, exist_ok=True)
        passing = tempfile.TemporaryDirectory(dir=f"{engine.paths.root}/build", prefix=PASSING_PREFIX)
        directory = self._held.enter_context(passing)
        self._folders.append((directory, f"local:{folder}"))
        return {**attributes, "dest": directory}


def _send(session: Session, store: str, blob: Descriptor, path: str) -> None:
    """Write a blob into a store of the client's; one that it has already is left alone. Raises Unavailable."""
    digest, size = str(blob.digest), blob.size
    about: protobuf.Message = ((2, f"orlop-{digest}"), (3, size), (4, digest))
    try:
        call = grpc.begin(session.connection, WRITE, [(STORE_HEADER, store)])
        answers = call.messages()

        def write(action: int, offset: int, data: bytes = b"") -> int:
            call.send(protobuf.encode(((1, action), *about, (5, offset), (6, data))))
            answer = next(answers, None)
            if answer is None:
                call.check()
                raise Unavailable("write", f"blob {digest} at the client", "it ended early")
            return protobuf.number(protobuf.decode(answer), 4)

        with open(path, "rb") as file:
            offset = write(STAT, 0)
            file.seek(offset)
            while data := file.read(WRITE_BYTES):
                offset = write(WRITING, offset, data)
        write(COMMIT, offset)
        call.end()
        for _ in answers:
            continue
        call.check()
    except grpc.Failed as error:
        if error.code != grpc.ALREADY_EXISTS:
            raise Unavailable("write", f"blob {digest} at the client", error.text) from None
    except (Broken, ValueError) as error:
        raise Unavailable("write", f"blob {digest} at the client", str(error)) from None
