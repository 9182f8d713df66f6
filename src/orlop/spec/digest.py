"""Content digests: `sha256:<64 hex digits>`, the one name of a blob.

A Digest that exists is well-formed, so it may become a file name or part of a URL without another look
(SEC-44: CVE-2024-3727, a digest used as a path before anybody had checked it).
Source: OCI image-spec, descriptor.md, "Digests".
"""

from __future__ import annotations

from .errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

HEX_LENGTHS = {"sha256": 64, "sha512": 128}
SHORT_HEX_LENGTH = 12  # what docker shows of an image's or a container's ID
_HEX = frozenset("0123456789abcdef")
_SHOWN_CHARACTERS_MAX = 100


class Digest(str):
    """`algorithm:hex`, compared and hashed as that string. The constructor raises Invalid for anything else."""

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        algorithm, colon, digits = text.partition(":")
        if not colon:
            raise _malformed(text, "it is not of the form algorithm:hex")
        length = HEX_LENGTHS.get(algorithm)
        if length is None:
            raise _malformed(text, f"its algorithm is none of {', '.join(HEX_LENGTHS)}")
        if len(digits) != length:
            raise _malformed(text, f"{algorithm} has {length} hex digits, not {len(digits)}")
        if not _HEX.issuperset(digits):
            raise _malformed(text, "what follows the colon is not lower-case hex")
        return super().__new__(cls, text)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the digest that text spells. Raises Invalid."""
        return cls(text)

    @classmethod
    def of(cls, data: bytes, algorithm: str = "sha256") -> Self:
        """Return the digest of data."""
        import hashlib

        return cls(f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}")

    @property
    def algorithm(self) -> str:
        return self.partition(":")[0]

    @property
    def hex(self) -> str:
        return self.partition(":")[2]

    @property
    def short(self) -> str:
        """The first twelve hex digits."""
        return self.hex[:SHORT_HEX_LENGTH]


def _malformed(text: str, cause: str) -> Invalid:
    shown = text if len(text) <= _SHOWN_CHARACTERS_MAX else text[:_SHOWN_CHARACTERS_MAX] + "..."
    return Invalid("read", f"digest {shown!r}", cause)
