"""One repository of one registry, spoken to by the OCI distribution specification.

What comes back is what was asked for: a manifest has the digest that was asked for or that the registry announced,
and at most 4 MiB; a blob is read through `content.Ingest`, which proves it.
Source: OCI distribution-spec 1.1, "Pull" and "Content Discovery"; the numbers end-N are its endpoints'.
"""

from __future__ import annotations

import random
import threading
import time
from urllib.parse import quote

from orlop.spec.digest import Digest
from orlop.spec.errors import Invalid, NotFound, OrlopError, Unavailable
from orlop.spec.image import (
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    INDEXES,
    MANIFESTS,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    Index,
    parse_manifest,
)
from orlop.spec.jsonio import DOCUMENT_BYTES_MAX, parse_object

from .auth import Authorizer
from .transport import Broken, Guard, absolute, redirected, whole_number
from .trouble import RETRIED, refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from orlop.spec.registry import Credentials

    from .hosts import Endpoint
    from .transport import Body, Origin, Response, Transport

ACCEPTED = ", ".join((OCI_INDEX, DOCKER_INDEX, OCI_MANIFEST, DOCKER_MANIFEST))
REDIRECTS_MAX = 5
TRIES = 5
TRIES_ELSEWHERE = 2  # of a place, a mirror, behind which another one waits
BACKOFF_S = 0.25
BACKOFF_S_MAX = 10.0
RETRY_AFTER_S_MAX = 60.0
TAGS_MAX = 100_000
PAGES_MAX = 200
_REDIRECTS = frozenset((301, 302, 303, 307, 308))


class Canceled(Exception):
    """The caller does not want it any more."""


class Patience:
    """How often and how long one request is tried. cancel: ends all waiting."""

    def __init__(self, cancel: threading.Event | None = None, tries: int = TRIES) -> None:
        self.cancel = cancel or threading.Event()
        self.tries = tries

    def check(self) -> None:
        """Raise Canceled when nobody waits any more."""
        if self.cancel.is_set():
            raise Canceled

    def pause(self, number: int, retry_after: str = "") -> bool:
        """Wait before try `number` (1 is the second one); False when there is to be none. Raises Canceled."""
        if number >= self.tries:
            return False
        wait = min(BACKOFF_S * 2**number, BACKOFF_S_MAX) * (0.5 + random.random())
        if retry_after:
            asked = _seconds(retry_after)
            if asked > RETRY_AFTER_S_MAX:
                return False
            wait = max(asked, 0.0) or wait
        self.cancel.wait(wait)
        self.check()
        return True


class Remote:
    """A registry's origin and who we are there: what the requests for its repositories have in common."""

    def __init__(self, transport: Transport, endpoint: Endpoint, credentials: Credentials) -> None:
        self.transport = transport
        self.endpoint = endpoint
        self._credentials = credentials
        self._lock = threading.Lock()
        self._answered = False
        self._origin: Origin | None = None
        self._authorizer: Authorizer | None = None

    def origin(self) -> Origin:
        """Return the registry's origin, found out where http is allowed beside https. Raises Broken."""
        with self._lock:
            if self._origin is None:
                scheme = self.endpoint.scheme
                if not scheme:
                    secure = self.endpoint.origin("https")
                    scheme = "https" if self.transport.speaks_tls(secure, self.endpoint.tls) else "http"
                self._origin = self.endpoint.origin(scheme)
                self._authorizer = Authorizer(self.transport, self._origin, self.endpoint.tls, self._credentials)
            return self._origin

    def request(
        self,
        method: str,
        url: str,
        scopes: frozenset[str],
        headers: dict[str, str] | None = None,
        body: Body = None,
    ) -> Response:
        """Ask once, with a token where one is wanted; redirects of GET and HEAD are followed. Raises Broken, Denied.

        url: a path at the registry, or an absolute URL that the registry gave. What is not at the registry's own
        origin gets no token.
        """
        from .transport import Origin

        own = self.origin()
        authorizer = self._authorizer
        assert authorizer is not None  # made together with the origin
        absolute = url if "://" in url else f"{own}{url}"
        for _ in range(REDIRECTS_MAX + 1):
            target = Origin.of_url(absolute)
            is_own = target == own
            sent = authorizer.header(scopes) if is_own else ""
            response = self._send(method, absolute, headers or {}, sent, body, is_own)
            if response.status == 401 and is_own:
                try:
                    answer = authorizer.answer(response, scopes, sent)
                except BaseException:
                    response.close()
                    raise
                if not answer:
                    return response
                response.close()
                response = self._send(method, absolute, headers or {}, answer, body, is_own)
            if response.status not in _REDIRECTS or method not in ("GET", "HEAD"):
                return response
            with response:
                absolute = redirected(response)
        raise Invalid("follow", f"{own}{url}", f"it redirects more than {REDIRECTS_MAX} times")

    def _send(
        self, method: str, url: str, headers: dict[str, str], authorization: str, body: Body, is_own: bool
    ) -> Response:
        from .tls import DEFAULT_TLS

        if authorization:
            headers = headers | {"Authorization": authorization}
        tls = self.endpoint.tls if is_own else DEFAULT_TLS
        response = self.transport.request(method, url, headers, body, tls=tls, guard=Guard(self.origin()))
        self._answered = True
        return response

    def is_nobody(self, broken: Broken) -> bool:
        """Say whether nobody is there to be waited for: where an answer came once, a registry may be starting anew."""
        import socket

        cause = broken.__cause__
        unknown = isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_NONAME
        return not self._answered and (unknown or isinstance(cause, ConnectionRefusedError))


class Repository:
    """A repository at one endpoint. name: as users write it, for errors. Used by any number of threads."""

    def __init__(
        self, remote: Remote, name: str, *, push: bool = False, mount_from: frozenset[str] = frozenset()
    ) -> None:
        self.remote = remote
        self.path = remote.endpoint.path
        self.name = name
        actions = "pull,push" if push else "pull"
        self.scopes = frozenset(
            (f"repository:{self.path}:{actions}", *(f"repository:{one}:pull" for one in mount_from))
        )

    @property
    def host(self) -> str:
        return self.remote.endpoint.host

    def url(self, rest: str) -> str:
        return f"{self.remote.endpoint.prefix}{self.path}/{rest}"

    def ask(
        self,
        method: str,
        rest: str,
        patience: Patience,
        headers: dict[str, str] | None = None,
        body: Body = None,
    ) -> Response:
        """Ask until an answer comes that is worth one: failures of the network and of the server are tried again.

        rest: below the repository, or an absolute path or URL. Raises Unavailable, Denied, Canceled.
        """
        url = rest if rest.startswith("/") or "://" in rest else self.url(rest)
        number = 0
        while True:
            patience.check()
            try:
                response = self.remote.request(method, url, self.scopes, headers, body)
            except Broken as broken:
                number += 1
                if self.remote.is_nobody(broken) or not patience.pause(number):
                    raise self.unreachable(broken) from None
                continue
            if response.status not in RETRIED:
                return response
            number += 1
            if not patience.pause(number, response.header("Retry-After")):
                return response
            response.close()

    def unreachable(self, broken: Broken) -> Unavailable:
        """Return what a broken connection is to the user."""
        hint = "check the name and the network, then try again"
        # The host in the cause: that is all that docker's door tells.
        return Unavailable("reach", "a registry", f"{self.host}: {broken}", hint=hint)

    # -- manifests --------------------------------------------------------------------------------------------------

    def resolve(self, reference: str, patience: Patience) -> Descriptor:
        """Return what a tag or digest means, without its content (HEAD, end-3). Raises NotFound."""
        response = self.ask("HEAD", f"manifests/{_segment(reference)}", patience, {"Accept": ACCEPTED})
        with response:
            digest, media_type = response.header("Docker-Content-Digest"), _media_type(response)
            if response.status == 200 and digest and media_type in MANIFESTS | INDEXES:
                size = whole_number(response.header("Content-Length"))
                if size is not None:
                    return Descriptor(media_type=media_type, digest=Digest(digest), size=size)
            if response.status == 404:
                raise self.missing(reference, "manifest unknown")
            if response.status not in (200, 405):
                raise refusal(response, "pull", self._shown(reference), repository=self.name)
        return self.manifest(reference, patience)[0]

    def manifest(self, reference: str, patience: Patience) -> tuple[Descriptor, bytes]:
        """Return descriptor and bytes of the manifest or index that a tag or digest means (end-3).

        Raises NotFound, Invalid for a document that is none, is not the one announced, or too large.
        """
        response = self.ask("GET", f"manifests/{_segment(reference)}", patience, {"Accept": ACCEPTED})
        subject = self._shown(reference)
        with response:
            if response.status != 200:
                raise refusal(response, "pull", subject, repository=self.name)
            announced = response.header("Docker-Content-Digest")
            media_type = _media_type(response)
            try:
                data = response.document(DOCUMENT_BYTES_MAX)
            except Broken as broken:
                raise self.unreachable(broken) from None
        if media_type not in MANIFESTS and media_type not in INDEXES:
            media_type = _declared(data, media_type, subject)
        wanted = Digest(reference) if ":" in reference else Digest(announced) if announced else Digest.of(data)
        found = Digest.of(data, wanted.algorithm)
        if found != wanted:
            raise Invalid("pull", subject, f"its content has the digest {found}, not {wanted}", code="E0805")
        parse_manifest(data, media_type, subject)
        return Descriptor(media_type=media_type, digest=wanted, size=len(data)), data

    def missing(self, reference: str, cause: str) -> NotFound:
        shown = self._shown(reference)
        return NotFound("pull", f"image {shown}", f"manifest for {shown} not found: {cause}", hint="check name and tag")

    # -- blobs ------------------------------------------------------------------------------------------------------

    def blob(self, digest: Digest, patience: Patience, offset: int = 0, urls: tuple[str, ...] = ()) -> Response:
        """Return the answer that carries a blob from offset on, status 200 (from the start) or 206 (end-2).

        urls: where foreign layers lie; asked without any credentials. Raises NotFound, Unavailable.
        """
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        return self._blob(digest, patience, headers, offset, urls)

    def range(self, digest: Digest, patience: Patience, start: int, end: int, urls: tuple[str, ...] = ()) -> Response:
        """Return the answer that carries the bytes of a blob from start up to end, status 206, or all of it: 200."""
        return self._blob(digest, patience, {"Range": f"bytes={start}-{end - 1}"}, start, urls)

    def _blob(
        self, digest: Digest, patience: Patience, headers: dict[str, str], offset: int, urls: tuple[str, ...]
    ) -> Response:
        refused: OrlopError | None = None
        for place in (f"blobs/{digest}", *urls):
            response = self.ask("GET", place, patience, headers)
            if response.status in (200, 206):
                if response.status == 206 and not _continues(response, offset):
                    response.close()
                    raise Invalid("pull", f"blob {digest}", "the registry answers a range of another place")
                return response
            with response:
                refused = refusal(response, "pull", f"blob {digest} of {self.name}", repository=self.name)
        assert refused is not None
        raise refused

    def has_blob(self, digest: Digest, patience: Patience) -> bool:
        """Tell whether the repository has a blob (HEAD, end-2)."""
        with self.ask("HEAD", f"blobs/{digest}", patience) as response:
            if response.status in (200, 404):
                return response.status == 200
            raise refusal(response, "push", f"blob {digest} to {self.name}")

    def blob_size(self, digest: Digest, patience: Patience) -> int | None:
        """Return how many bytes a blob has, None where the repository has none (HEAD, end-2)."""
        with self.ask("HEAD", f"blobs/{digest}", patience) as response:
            if response.status == 404:
                return None
            size = whole_number(response.header("Content-Length"))
            if response.status == 200 and size is not None:
                return size
            raise refusal(response, "pull", f"blob {digest} of {self.name}", repository=self.name)

    # -- discovery --------------------------------------------------------------------------------------------------

    def tags(self, patience: Patience) -> Iterator[str]:
        """Yield the repository's tags, page by page, at most TAGS_MAX (end-8, SEC-52)."""
        place, count = "tags/list", 0
        for _ in range(PAGES_MAX):
            with self.ask("GET", place, patience) as response:
                if response.status != 200:
                    raise refusal(response, "list the tags of", f"repository {self.name}")
                document = parse_object(response.document(), f"the tags of {self.name}")
                place = _next_page(response)
            tags = document.get("tags") or []
            for tag in tags if isinstance(tags, list) else []:
                count += 1
                if count > TAGS_MAX:
                    raise Invalid("list", f"tags of {self.name}", f"there are more than {TAGS_MAX}")
                yield str(tag)
            if not place:
                return

    def referrers(self, digest: Digest, patience: Patience) -> tuple[Descriptor, ...]:
        """Return what refers to a manifest: signatures, attestations (end-12, or the tag that stands for it)."""
        subject = f"the referrers of {digest}"
        with self.ask("GET", f"referrers/{digest}", patience) as response:
            if response.status == 200 and _media_type(response) == OCI_INDEX:
                return Index.from_json(parse_object(response.document(), subject), subject).manifests
            if response.status not in (200, 404, 405):
                raise refusal(response, "list", subject)
        try:
            _, data = self.manifest(str(digest).replace(":", "-"), patience)
        except NotFound:
            return ()
        return Index.from_json(parse_object(data, subject), subject).manifests

    def delete_manifest(self, digest: Digest, patience: Patience) -> None:
        """Delete a manifest by digest (end-9)."""
        with self.ask("DELETE", f"manifests/{digest}", patience) as response:
            if response.status not in (200, 202):
                raise refusal(response, "delete", f"{self.name}@{digest}")

    def _shown(self, reference: str) -> str:
        return f"{self.name}{'@' if ':' in reference else ':'}{reference}"


def _segment(reference: str) -> str:
    return quote(reference, safe=":")


def _media_type(response: Response) -> str:
    return response.header("Content-Type").partition(";")[0].strip()


def _declared(data: bytes, answered: str, subject: str) -> str:
    """Return the media type that a document itself names: some registries answer with text/plain or nothing.

    A specific but different type is a contradiction (SEC-45).
    """
    if answered not in ("", "application/json", "text/plain", "application/octet-stream"):
        raise Invalid("pull", subject, f"{answered[:100]!r} is no media type of an image")
    declared = parse_object(data, subject).get("mediaType")
    if isinstance(declared, str) and declared in MANIFESTS | INDEXES:
        return declared
    raise Invalid("pull", subject, "nothing says which kind of document it is", hint="the registry is broken")


def _continues(response: Response, offset: int) -> bool:
    """Say whether a 206 begins where we asked (RFC 9110, 14.4)."""
    unit, _, rest = response.header("Content-Range").partition(" ")
    return unit == "bytes" and whole_number(rest.partition("-")[0]) == offset


def _next_page(response: Response) -> str:
    """Return where a Link header (RFC 8288) says the next page is, "" for the last one."""
    link = response.header("Link")
    if not link.startswith("<") or 'rel="next"' not in link:
        return ""
    return absolute(response, link[1:].partition(">")[0])


def _seconds(retry_after: str) -> float:
    """Return how long a Retry-After header (RFC 9110, 10.2.3) asks us to wait; 0 when it can't be understood."""
    if retry_after.isascii() and retry_after.isdigit() and len(retry_after) < 10:
        return float(retry_after)
    from email.utils import parsedate_to_datetime

    try:
        return max(parsedate_to_datetime(retry_after).timestamp() - time.time(), 0.0)
    except (ValueError, TypeError, OverflowError):
        return 0.0
