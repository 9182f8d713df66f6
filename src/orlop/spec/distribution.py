"""The words of the OCI distribution specification 1.1: error codes, pages, ranges. No I/O.

Source: distribution-spec, "Error Codes", "Pulling blobs", "Pushing a blob in chunks", "Listing tags"; RFC 9110, 14.
"""

from __future__ import annotations

from .digest import Digest
from .errors import Invalid
from .reference import Reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

# code: (HTTP status, what it means). The codes are the specification's; TOOMANYREQUESTS and UNSUPPORTED among them.
CODES = {
    "BLOB_UNKNOWN": (404, "blob unknown to registry"),
    "BLOB_UPLOAD_INVALID": (400, "blob upload invalid"),
    "BLOB_UPLOAD_UNKNOWN": (404, "blob upload unknown to registry"),
    "DENIED": (403, "requested access to the resource is denied"),
    "DIGEST_INVALID": (400, "provided digest did not match uploaded content"),
    "MANIFEST_BLOB_UNKNOWN": (404, "manifest references a manifest or blob unknown to registry"),
    "MANIFEST_INVALID": (400, "manifest invalid"),
    "MANIFEST_UNKNOWN": (404, "manifest unknown to registry"),
    "NAME_INVALID": (400, "invalid repository name"),
    "NAME_UNKNOWN": (404, "repository name not known to registry"),
    "PAGINATION_NUMBER_INVALID": (400, "invalid number of results requested"),
    "RANGE_INVALID": (416, "requested range not satisfiable"),
    "SIZE_INVALID": (400, "provided length did not match content length"),
    "TOOMANYREQUESTS": (429, "too many requests"),
    "UNAUTHORIZED": (401, "authentication required"),
    "UNAVAILABLE": (503, "the registry can't do this now"),
    "UNSUPPORTED": (405, "the operation is unsupported"),
}

PAGE_MAX = 1000
_ANY_DOMAIN = "registry.invalid"


class RegistryError(Exception):
    """A refusal: one of CODES, with what was refused. status: another HTTP status than the code's own."""

    def __init__(self, code: str, detail: str = "", status: int = 0) -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail
        self.status = status or CODES[code][0]

    def to_json(self) -> dict[str, object]:
        error: dict[str, object] = {"code": self.code, "message": CODES[self.code][1]}
        if self.detail:
            error["detail"] = self.detail
        return {"errors": [error]}


class Page:
    """A part of a sorted list: at most `count` entries after `last`. count None: as many as the registry likes."""

    __slots__ = ("count", "last")

    def __init__(self, count: int | None = None, last: str = "") -> None:
        self.count = count
        self.last = last

    @classmethod
    def parse(cls, count: str | None, last: str | None) -> Self:
        """Return the page that a query asks for. Raises RegistryError; a huge number is no more than PAGE_MAX."""
        if count is None:
            return cls(None, last or "")
        if not count.isascii() or not count.isdecimal() or len(count) > 20:
            raise RegistryError("PAGINATION_NUMBER_INVALID", count[:40])
        return cls(min(int(count), PAGE_MAX), last or "")

    @property
    def limit(self) -> int:
        return PAGE_MAX if self.count is None else self.count


def check_name(name: str) -> str:
    """Return the name of a repository. Raises RegistryError."""
    try:
        Reference(domain=_ANY_DOMAIN, path=name)
    except ValueError:
        raise RegistryError("NAME_INVALID", name[:300]) from None
    return name


def parse_reference(text: str) -> Digest | str:
    """Return what stands behind `manifests/`: a digest, or a tag. Raises RegistryError."""
    if ":" in text:
        return parse_digest(text)
    try:
        if not text:
            raise ValueError
        Reference(domain=_ANY_DOMAIN, path="name", tag=text)
    except ValueError:
        raise RegistryError("MANIFEST_INVALID", f"{text[:200]!r} is no tag") from None
    return text


def parse_digest(text: str) -> Digest:
    """Return a digest (SEC-44). Raises RegistryError."""
    try:
        return Digest(text)
    except Invalid as wrong:
        raise RegistryError("DIGEST_INVALID", wrong.cause) from None


def parse_range(header: str, size: int) -> tuple[int, int] | None:
    """Return (first, end) of the bytes that a Range header asks for, end exclusive; None where it is to be ignored.

    One range is served; several, or another unit, are ignored as RFC 9110, 14.2 permits. Raises RegistryError (416).
    """
    unit, _, ranges = header.partition("=")
    if unit.strip() != "bytes" or "," in ranges:
        return None
    first, dash, last = ranges.strip().partition("-")
    if not dash or not _is_number(first, empty=True) or not _is_number(last, empty=True) or not (first or last):
        return None
    if not first:
        count = min(int(last), size)
        if not count:
            raise RegistryError("RANGE_INVALID", header[:80])
        return size - count, size
    start, end = int(first), min(int(last) + 1, size) if last else size
    if last and int(last) < int(first):
        return None
    if start >= size:
        raise RegistryError("RANGE_INVALID", header[:80])
    return start, end


def parse_content_range(header: str) -> tuple[int, int]:
    """Return (first, last) of the bytes that a chunk holds, both inclusive ("0-1023"). Raises RegistryError."""
    text = header.strip().removeprefix("bytes").strip()  # docker's own clients write the unit, the specification none
    first, dash, last = text.partition("/")[0].partition("-")
    if not dash or not _is_number(first) or not _is_number(last) or int(last) < int(first):
        raise RegistryError("BLOB_UPLOAD_INVALID", f"Content-Range: {header[:80]}")
    return int(first), int(last)


def _is_number(text: str, *, empty: bool = False) -> bool:
    return (empty and not text) or (text.isascii() and text.isdecimal() and len(text) < 20)
