"""The routes of the distribution specification: from a request to one verb of `Repositories`, and its answer.

    GET  /v2/                                      end-1      may I speak to you?
    GET  HEAD DELETE /v2/N/blobs/D                 end-2, 10  one range at most
    GET  HEAD PUT DELETE /v2/N/manifests/REF       end-3, 7, 9
    POST /v2/N/blobs/uploads/[?digest= | ?mount=&from=]       end-4a, 4b, 11
    GET  PATCH PUT DELETE /v2/N/blobs/uploads/ID   end-13, 5, 6
    GET  /v2/N/tags/list  /v2/_catalog             end-8; docker's catalog
    GET  /v2/N/referrers/D                         end-12
    GET  POST /token                               only with token authentication

Source: OCI distribution-spec 1.1, "API"; the distribution project's HTTP API for what only docker has.
"""

from __future__ import annotations

import io
import os
from contextlib import nullcontext
from urllib.parse import parse_qs, quote

from ...image.registry import Canceled
from ...image.repositories import Manifest, Repositories
from ...image.repositories.repositories import MANIFEST_BYTES_MAX, index_of
from ...spec.distribution import (
    Page,
    RegistryError,
    check_name,
    parse_content_range,
    parse_digest,
    parse_range,
    parse_reference,
)
from ...spec.errors import OrlopError
from ...spec.image import OCI_INDEX
from ..http import Exchange, Refused, pages
from .auth import DELETE, PULL, PUSH, Anyone, Tokens, basic_credentials

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from ...image.repositories.cache import Arriving, Cache
    from ...image.repositories.uploads import Upload
    from ...spec.digest import Digest
    from .auth import Check

FORM_BYTES_MAX = 64 * 1024
LOGGED_CHARACTERS_MAX = 1000
STALE = '110 - "Response is Stale"'  # RFC 7234, 5.5.1
API_VERSION = {"Docker-Distribution-API-Version": "registry/2.0"}


class Registry:
    """What a registry serves: its repositories, who may do what, and whether anything can be deleted.

    tls: whether clients reach it by https, for the places it sends them to. note: called with a line for each answer.
    cache: of which other registry it is the cache; then it can only be read. emptied: called after something was
    deleted, whose space may be had back. hosts: by which names of this machine it may be asked for; None is by any.
    """

    __slots__ = ("auth", "cache", "deletes", "emptied", "hosts", "note", "repositories", "tls")

    def __init__(
        self,
        repositories: Repositories,
        auth: Check | None = None,
        *,
        deletes: bool = True,
        tls: bool = False,
        note: Callable[[str], None] | None = None,
        cache: Cache | None = None,
        hosts: Collection[str] | None = None,
    ) -> None:
        self.repositories = repositories
        self.cache = cache
        self.auth: Check = auth or Anyone()
        self.deletes = deletes
        self.hosts = hosts
        self.tls = tls
        self.note = note
        self.emptied: Callable[[], None] = lambda: None


class Door(Exchange):
    """One client's connection to the registry."""

    @property
    def registry(self) -> Registry:
        return self.server.context  # type: ignore[return-value]  # what its Server was given

    @property
    def repositories(self) -> Repositories:
        return self.registry.repositories

    def handle_request(self) -> None:
        try:
            self._refuse_pages()
            if self.place == "/token":
                self._token()
            else:
                self._route()
        except RegistryError as wrong:
            self._answer_error(wrong)
        except OrlopError as wrong:
            self._answer_error(RegistryError("UNAVAILABLE", wrong.cause))

    def _refuse_pages(self) -> None:
        if pages.are_asking(self.headers, self.authority):
            raise RegistryError("DENIED", "requests of web pages are not served")
        hosts = self.registry.hosts
        if hosts is not None and not pages.is_this_machine(self.authority, hosts):
            name = self.authority[:200]
            raise RegistryError("DENIED", f"{name} is no name of this machine: serve with --host to be asked for by it")

    def refuse(self, wrong: Refused) -> None:
        code = {413: "SIZE_INVALID", 405: "UNSUPPORTED"}.get(wrong.status, "BLOB_UPLOAD_INVALID")
        self._answer_error(RegistryError(code, wrong.why, wrong.status))

    def log_request(self, code: int) -> None:
        if self.registry.note is not None:
            who = self.client_address[0] if isinstance(self.client_address, tuple) else ""
            self.registry.note(f"{who} {self.requestline[:LOGGED_CHARACTERS_MAX]!a} {code}")

    # -- where it goes ----------------------------------------------------------------------------------------------

    def _route(self) -> None:
        if not self.place.startswith("/v2/"):
            if self.place == "/v2":
                self.answer(301, {"Location": "/v2/"})
                return
            raise RegistryError("NAME_UNKNOWN", self.place[:200])
        rest = self.place.removeprefix("/v2/")
        if rest == "":
            self._allow("GET", "HEAD")
            self._authorize(PULL, "")
            self.answer_json(200, {}, API_VERSION)
        elif rest == "_catalog":
            self._allow("GET")
            self._authorize(PULL, "")
            self._list("repositories", {}, self.repositories.names)
        else:
            self._route_repository(rest.split("/"))

    def _route_repository(self, parts: list[str]) -> None:
        # From the end: "blobs" and "tags" are names like others, too.
        match parts:
            case [*name, "blobs", "uploads", ""]:
                self._start_upload("/".join(name))
            case [*name, "blobs", "uploads", upload]:
                self._upload("/".join(name), upload)
            case [*name, "blobs", digest]:
                self._blob("/".join(name), parse_digest(digest))
            case [*name, "manifests", reference]:
                self._manifest("/".join(name), parse_reference(reference))
            case [*name, "tags", "list"]:
                repository = self._enter("/".join(name), "GET")
                source = self.registry.cache or self.repositories
                self._list("tags", {"name": repository}, lambda page: source.tags(repository, page))
            case [*name, "referrers", digest]:
                self._referrers("/".join(name), parse_digest(digest))
            case _:
                raise RegistryError("NAME_UNKNOWN", "/".join(parts)[:200])

    def _enter(self, name: str, *methods: str) -> str:
        """Return the name of a repository that this request may work on with one of these methods."""
        check_name(name)
        self._allow(*methods)
        if self.registry.cache is not None and self.command not in ("GET", "HEAD"):
            raise RegistryError("UNSUPPORTED", f"this is a cache of {self.registry.cache.host}: push there")
        if self.command == "DELETE" and not self.registry.deletes:
            raise RegistryError("UNSUPPORTED", "this registry deletes nothing")
        reads = self.command in ("GET", "HEAD")
        self._authorize(PULL if reads else DELETE if self.command == "DELETE" else PUSH, name)
        return name

    def _allow(self, *methods: str) -> None:
        if self.command not in methods:
            raise RegistryError("UNSUPPORTED", f"{self.command} {self.place[:200]}")

    def _authorize(self, action: str, repository: str) -> None:
        permitted = self.registry.auth.permits(self.headers.get("Authorization", ""), action, repository)
        if permitted is None:
            raise _Challenge(self.registry.auth.challenge(action, repository, self._base()))
        if not permitted:
            raise RegistryError("DENIED", repository)

    def _may_read(self, repository: str) -> bool:
        return bool(self.registry.auth.permits(self.headers.get("Authorization", ""), PULL, repository))

    def _base(self) -> str:
        return f"http{'s' if self.registry.tls else ''}://{self.authority}"

    # -- blobs ------------------------------------------------------------------------------------------------------

    def _blob(self, name: str, digest: Digest) -> None:
        if self.command == "DELETE":
            self.repositories.delete_blob(self._enter(name, "DELETE"), digest)
            self.registry.emptied()
            self.answer(202)
            return
        self._enter(name, "GET", "HEAD")
        cache = self.registry.cache
        looked_for = self.command == "HEAD"
        found = cache.blob(name, digest) if cache else self.repositories.open_blob(name, digest, looked_for=looked_for)
        with found if isinstance(found, io.FileIO) else nullcontext():
            headers = {
                "Content-Type": "application/octet-stream",
                "Docker-Content-Digest": str(digest),
                "ETag": f'"{digest}"',
                "Accept-Ranges": "bytes",
                "Cache-Control": "max-age=31536000",
            }
            if self._is_known(digest):
                self.answer(304, {"ETag": f'"{digest}"'})
                return
            size = os.fstat(found.fileno()).st_size if isinstance(found, io.FileIO) else found.size
            wanted = self.headers.get("Range", "") if self.command == "GET" else ""
            extent = parse_range(wanted, size) if wanted else None
            if isinstance(found, io.FileIO):
                self.answer_file(found, headers, extent)
            else:
                self._hand_on(found, headers, extent)

    def _hand_on(self, blob: Arriving, headers: dict[str, str], extent: tuple[int, int] | None) -> None:
        """Answer with a blob while it comes. What breaks off cannot be said any more: the connection ends too early."""
        start, end = extent or (0, blob.size)
        headers["Content-Length"] = str(end - start)
        if extent:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{blob.size}"
        pieces = blob.pieces(start, end) if self.command != "HEAD" else iter(())
        first = next(pieces, b"")  # before the status: that nothing comes at all can still be said
        self.answer(206 if extent else 200, headers, first)
        try:
            for piece in pieces:
                self.send(piece)
        except (OrlopError, RegistryError, Canceled):
            self.close_connection = True

    def _start_upload(self, name: str) -> None:
        self._enter(name, "POST")
        if "mount" in self.query:
            digest, source = parse_digest(self.query["mount"]), self.query.get("from", "")
            # Only from where this client may read: else digests would open everybody's blobs.
            if source and self._may_read(check_name(source)) and self.repositories.mount(name, digest, source):
                self._answer_blob(name, digest)
                return
        wanted = parse_digest(self.query["digest"]) if "digest" in self.query else None
        upload = self.repositories.uploads.start(name, wanted.algorithm if wanted else "sha256")
        if wanted is None:
            self._answer_upload(202, upload)
            return
        try:
            with upload.lock:
                self._take(upload)
                self.repositories.finish(upload, wanted)
        finally:
            self.repositories.uploads.end(upload)  # nobody knows its id
        self._answer_blob(name, wanted)

    def _upload(self, name: str, upload_id: str) -> None:
        self._enter(name, "GET", "HEAD", "PATCH", "PUT", "DELETE")
        upload = self.repositories.uploads.find(name, upload_id)
        digest = parse_digest(self.query.get("digest", "")) if self.command == "PUT" else None
        if self.command not in ("GET", "HEAD"):
            self._change(upload, digest)
        # Answered without the lock: the client's next request may be here before we have let go of it.
        if digest is not None:
            self._answer_blob(name, digest)
        elif self.command == "DELETE":
            self.answer(204)
        else:
            self._answer_upload(202 if self.command == "PATCH" else 204, upload)

    def _change(self, upload: Upload, digest: Digest | None) -> None:
        if not upload.lock.acquire(blocking=False):
            raise RegistryError("BLOB_UPLOAD_INVALID", "another request is writing to this upload", 409)
        try:
            if self.command == "DELETE":
                self.repositories.uploads.end(upload)
                return
            self._check_order(upload)
            self._take(upload)
            if digest is not None:
                self.repositories.finish(upload, digest)
        except OrlopError:  # the disk is full: what has come is in the way of others
            self.repositories.uploads.end(upload)
            raise
        finally:
            upload.lock.release()

    def _check_order(self, upload: Upload) -> None:
        if "Content-Range" not in self.headers:
            return
        first, last = parse_content_range(self.headers.get("Content-Range"))
        if first != upload.size:
            raise RegistryError("RANGE_INVALID", f"the next byte is {upload.size}, not {first}")
        if self.length is not None and self.length != last - first + 1:
            raise RegistryError("SIZE_INVALID", f"Content-Range has {last - first + 1} bytes, the body {self.length}")

    def _take(self, upload: Upload) -> None:
        # What came before a connection broke stays: the client asks how much that is, and goes on there.
        for data in self.pieces():
            upload.ingest.write(data)

    def _answer_blob(self, name: str, digest: Digest) -> None:
        headers = {"Location": f"/v2/{name}/blobs/{digest}", "Docker-Content-Digest": str(digest)}
        self.answer(201, headers)

    def _answer_upload(self, status: int, upload: Upload) -> None:
        place = f"/v2/{upload.repository}/blobs/uploads/{upload.id}"
        # "0-0" of an empty upload is docker's: a range can't say nothing.
        headers = {"Location": place, "Range": f"0-{max(upload.size - 1, 0)}", "Docker-Upload-UUID": upload.id}
        self.answer(status, headers)

    # -- manifests --------------------------------------------------------------------------------------------------

    def _manifest(self, name: str, reference: Digest | str) -> None:
        self._enter(name, "GET", "HEAD", "PUT", "DELETE")
        if self.command == "PUT":
            media_type = self.headers.get("Content-Type", "").partition(";")[0].strip()
            manifest = self.repositories.put_manifest(name, reference, media_type, self.body(MANIFEST_BYTES_MAX))
            headers = {"Location": f"/v2/{name}/manifests/{manifest.digest}"} | _digest_header(manifest)
            if manifest.subject:
                headers["OCI-Subject"] = manifest.subject
            self.answer(201, headers)
        elif self.command == "DELETE":
            self.repositories.delete_manifest(name, reference)
            self.registry.emptied()
            self.answer(202)
        else:
            cache = self.registry.cache
            if cache is not None:
                manifest, is_old = cache.manifest(name, reference)
            else:
                manifest, is_old = self.repositories.manifest(name, reference), False
            headers = {"ETag": f'"{manifest.digest}"'} | _digest_header(manifest)
            if is_old:
                headers["Warning"] = STALE
            if self._is_known(manifest.digest):
                self.answer(304, headers)
            else:
                self.answer(200, {"Content-Type": manifest.media_type} | headers, manifest.data)

    def _referrers(self, name: str, digest: Digest) -> None:
        wanted = self.query.get("artifactType", "")
        found = (self.registry.cache or self.repositories).referrers(self._enter(name, "GET"), digest, wanted)
        headers = {"Content-Type": OCI_INDEX}
        if wanted:
            headers["OCI-Filters-Applied"] = "artifactType"
        page = Page.parse(self.query.get("n"), self.query.get("last"))
        after = next((at + 1 for at, one in enumerate(found) if one["digest"] == page.last), 0)
        found = found[after:]
        if len(found) > page.limit:
            found = found[: page.limit]
            query = f"&artifactType={quote(wanted, safe='')}" if wanted else ""
            last = quote(str(found[-1]["digest"]), safe="") if found else ""
            headers["Link"] = f'</v2/{name}/referrers/{digest}?n={page.limit}&last={last}{query}>; rel="next"'
        self.answer(200, headers, index_of(found))

    # -- lists, errors, tokens --------------------------------------------------------------------------------------

    def _list(self, what: str, facts: dict[str, object], entries: Callable[[Page], list[str]]) -> None:
        page = Page.parse(self.query.get("n"), self.query.get("last"))
        found = entries(page)
        headers = {}
        if len(found) > page.limit:
            found = found[: page.limit]
            if found:
                last = quote(found[-1], safe="")
                headers["Link"] = f'<{quote(self.place)}?n={page.limit}&last={last}>; rel="next"'
        self.answer_json(200, facts | {what: found}, headers | API_VERSION)

    def _is_known(self, digest: Digest) -> bool:
        known = self.headers.get("If-None-Match", "")
        return (
            any(tag.strip().removeprefix("W/").strip('"') in (digest, "*") for tag in known.split(",")) and known != ""
        )

    def _answer_error(self, wrong: RegistryError) -> None:
        headers = dict(API_VERSION)
        if isinstance(wrong, _Challenge) and wrong.challenge:
            headers["WWW-Authenticate"] = wrong.challenge
        self.answer_json(wrong.status, wrong.to_json(), headers)

    def _token(self) -> None:
        tokens = self.registry.auth
        if not isinstance(tokens, Tokens):
            raise RegistryError("NAME_UNKNOWN", "/token")
        self._allow("GET", "POST")
        if self.command == "POST":
            form = parse_qs(self.body(FORM_BYTES_MAX).decode("ascii", "replace"), max_num_fields=100)
            given = (form.get("username", [""])[-1], form.get("password", [""])[-1])
            scopes = " ".join(form.get("scope", [])).split()
        else:
            given = basic_credentials(self.headers.get("Authorization", "")) or ("", "")
            scopes = " ".join(self.every("scope")).split()
        issued = tokens.issue(*given, scopes)
        if issued is None:
            raise RegistryError("UNAUTHORIZED", "the user or the password is wrong")
        self.answer_json(200, issued, {"Cache-Control": "no-store"})


class _Challenge(RegistryError):
    """Somebody is to say who they are."""

    def __init__(self, challenge: str) -> None:
        super().__init__("UNAUTHORIZED")
        self.challenge = challenge


def _digest_header(manifest: Manifest) -> dict[str, str]:
    return {"Docker-Content-Digest": str(manifest.digest)}
