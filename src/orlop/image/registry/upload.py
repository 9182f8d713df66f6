"""Blobs and manifests on their way into a registry.

A blob that the registry has is not sent; one that another repository there has is mounted; else it goes in one piece,
and, where the connection breaks, on from what the registry says it got.
Source: OCI distribution-spec 1.1, "Push": end-4a, end-5, end-6, end-7, end-11, end-13.
"""

from __future__ import annotations

from urllib.parse import quote

from orlop.spec.errors import Invalid, OrlopError, Unavailable

from .transport import Broken, absolute, send_piece, whole_number
from .trouble import RETRIED, Troubled, refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    import io
    import socket
    from collections.abc import Callable, Sequence

    from orlop.spec.digest import Digest
    from orlop.spec.image import Descriptor

    from .client import Patience, Repository
    from .transport import Response

PIECE_BYTES = 4 * 1024 * 1024  # after each of them the progress is told
CHUNK_BYTES = 64 * 1024 * 1024  # of a chunked upload
CHUNK_BYTES_MAX = 1024 * 1024 * 1024
OCTET_STREAM = "application/octet-stream"

EXISTS, MOUNTED, PUSHED = "exists", "mounted", "pushed"


class Upload:
    """One blob to one repository. told: is called with the number of bytes that were sent."""

    def __init__(
        self, repository: Repository, blob: Descriptor, patience: Patience, told: Callable[[int], None]
    ) -> None:
        self._repository = repository
        self._blob = blob
        self._patience = patience
        self._told = told
        self._chunk_bytes = CHUNK_BYTES

    def run(self, open_blob: Callable[[], io.FileIO], sources: Sequence[str] = ()) -> tuple[str, str]:
        """Bring the blob there. sources: repositories of the registry that may have it.

        Returns (EXISTS, ""), (MOUNTED, the source) or (PUSHED, ""). Raises what the registry refuses with.
        """
        if self._repository.has_blob(self._blob.digest, self._patience):
            return EXISTS, ""
        location = ""
        for source in sources[:1]:
            location = self._begin(source)
            if not location:
                return MOUNTED, source
        with open_blob() as file:
            self._send(file, location or self._begin())
        return PUSHED, ""

    def _begin(self, source: str = "") -> str:
        """Return where to send the blob to; "" when it was mounted from the source."""
        query = f"?mount={self._blob.digest}&from={quote(source, safe='')}" if source else ""
        with self._repository.ask(
            "POST", f"blobs/uploads/{query}", self._patience, {"Content-Length": "0"}
        ) as response:
            if response.status == 201:
                return ""
            if response.status != 202:
                raise self._refusal(response)
            least = whole_number(response.header("OCI-Chunk-Min-Length")) or 0
            self._chunk_bytes = max(CHUNK_BYTES, min(least, CHUNK_BYTES_MAX))
            return _location(response)

    def _send(self, file: io.FileIO, location: str) -> None:
        """Send the blob whole; whenever the connection breaks, go on in chunks from where the registry is."""
        failures = 0
        try:
            if self._put(file, location, 0, self._blob.size):
                return
        except Broken as broken:
            failures = self._failed(broken, failures)
        while True:
            try:
                offset, location = self._where(location)
                while offset < self._blob.size:
                    offset, location = self._patch(file, location, offset)
                    failures = 0
                if self._put(file, location, offset, 0):
                    return
                failures = self._failed(Broken("it has a part only"), failures)
            except Broken as broken:
                failures = self._failed(broken, failures)

    def _failed(self, broken: Broken, failures: int) -> int:
        if not self._patience.pause(failures + 1):
            raise broken.error if isinstance(broken, Troubled) else self._repository.unreachable(broken) from None
        return failures + 1

    def _put(self, file: io.FileIO, location: str, offset: int, count: int) -> bool:
        """End the upload with count more bytes. False when that was too much at once. Raises Broken."""
        url = location + ("&" if "?" in location else "?") + f"digest={quote(self._blob.digest, safe='')}"
        headers = {"Content-Type": OCTET_STREAM, "Content-Length": str(count)}
        with self._request("PUT", url, headers, file, offset, count) as response:
            if response.status in (201, 204):
                return True
            if response.status == 413:
                return False
            raise self._refused(response)

    def _patch(self, file: io.FileIO, location: str, offset: int) -> tuple[int, str]:
        """Send one chunk; return how far the registry is, and where the next one goes."""
        count = min(self._chunk_bytes, self._blob.size - offset)
        headers = {
            "Content-Type": OCTET_STREAM,
            "Content-Length": str(count),
            "Content-Range": f"{offset}-{offset + count - 1}",
        }
        with self._request("PATCH", location, headers, file, offset, count) as response:
            if response.status == 202:
                reached = _reached(response)
                return (offset + count if reached is None else reached), _location(response)
            if response.status == 416:
                raise Broken(f"status {response.status}")
            raise self._refused(response)

    def _where(self, location: str) -> tuple[int, str]:
        """Return how many bytes the registry has, and where the rest goes; a session it has forgotten begins anew."""
        with self._repository.remote.request("GET", location, self._repository.scopes) as response:
            if response.status == 204:
                return _reached(response) or 0, _location(response, location)
            if response.status not in (404, 405):
                raise Troubled(self._refusal(response))
        return 0, self._begin()

    def _request(
        self, method: str, url: str, headers: dict[str, str], file: io.FileIO, offset: int, count: int
    ) -> Response:
        """Send bytes of the file, once. A body is not sent twice without asking where the registry is."""
        self._patience.check()

        def send(sock: socket.socket) -> None:
            done = 0
            while done < count:
                self._patience.check()
                done += send_piece(sock, file, offset + done, min(PIECE_BYTES, count - done))
                self._told(offset + done)

        return self._repository.remote.request(method, url, self._repository.scopes, headers, send if count else None)

    def _refused(self, response: Response) -> OrlopError | Broken:
        """Return what an answer says: for good, or (Broken) until the next try."""
        error = self._refusal(response)
        return Troubled(error) if response.status in RETRIED else error

    def _refusal(self, response: Response) -> OrlopError:
        return refusal(response, "push", f"blob {self._blob.digest.short} to {self._repository.name}")


def put_manifest(repository: Repository, reference: str, data: bytes, described: Descriptor, patience: Patience) -> str:
    """Store a manifest or index under a tag or its digest (end-7). Raises Invalid when it is read otherwise.

    Returns the subject that the registry has noted, "" where it knows nothing of subjects, or there is none.
    """
    headers = {"Content-Type": described.media_type}
    with repository.ask("PUT", f"manifests/{quote(reference, safe=':')}", patience, headers, data) as response:
        if response.status not in (201, 202):
            raise refusal(response, "push", f"{repository.name}:{reference}")
        told: str | Digest = response.header("Docker-Content-Digest")
        if told and told != described.digest:
            raise Invalid("push", f"{repository.name}:{reference}", f"the registry calls it {str(told)[:80]}")
        return response.header("OCI-Subject")


def _location(response: Response, before: str = "") -> str:
    location = response.header("Location") or before
    if not location:
        raise Unavailable("push", response.url, "the registry does not say where to send the blob")
    return absolute(response, location)


def _reached(response: Response) -> int | None:
    """Return how many bytes a Range header says are there ("0-1023" are 1024), None when it says nothing.

    docker's registry says "0-0" for none and for one byte; one byte sent twice is refused, none is right.
    """
    first, dash, last = response.header("Range").removeprefix("bytes=").partition("-")
    reached = whole_number(last)
    if not dash or reached is None or first not in ("", "0"):
        return None
    return reached + 1 if reached else 0
