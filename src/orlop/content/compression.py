"""Compressed streams: what a blob's first bytes say it is, and its uncompressed bytes within limits.

A stream is read in pieces and never held as a whole. It ends with Invalid when it is damaged, cut off, longer than
UNCOMPRESSED_BYTES_MAX, or, beyond RATIO_FREE_BYTES, more than RATIO_MAX times the size of what came in (SEC-42).
"""

from __future__ import annotations

from orlop.spec.errors import Invalid, Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    class Decompressor(Protocol):
        """What lzma, bz2 and zstd have in common, and `_Gzip` wears."""

        @property
        def eof(self) -> bool: ...
        @property
        def unused_data(self) -> bytes: ...
        @property
        def needs_input(self) -> bool: ...
        def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


NONE, GZIP, XZ, BZIP2, ZSTD = "", "gzip", "xz", "bzip2", "zstd"
UNCOMPRESSED_BYTES_MAX = 256 * 1024**3
RATIO_MAX = 250  # program files reach 10; zeros reach 1030 with gzip, 30,000 with zstd
RATIO_FREE_BYTES = 1024**3
XZ_MEMORY_BYTES_MAX = 128 * 1024**2  # `xz -9` makes files that need 65 MiB
INPUT_BYTES = 256 * 1024
OUTPUT_BYTES = 1024 * 1024
HEAD_BYTES = 10

_MAGIC = {b"\x1f\x8b\x08": GZIP, b"\xfd7zXZ\0": XZ, b"\x28\xb5\x2f\xfd": ZSTD}
_BZIP2_BLOCKS = (b"1AY&SY", b"\x17rE8P\x90")  # what follows "BZh9": a tar may begin with a file called "BZh..."


def detect(head: bytes) -> str:
    """Return the compression that a stream's first HEAD_BYTES bytes announce, NONE if they announce none."""
    for magic, name in _MAGIC.items():
        if head.startswith(magic):
            return name
    if head.startswith(b"BZh") and head[4:10] in _BZIP2_BLOCKS:
        return BZIP2
    # A skippable frame (RFC 8878, 3.1.2) may come before the data: zstd's multi-threaded writers put one there.
    return ZSTD if len(head) >= 4 and head[1:4] == b"\x2a\x4d\x18" and 0x50 <= head[0] <= 0x5F else NONE


class Decompressed:
    """The uncompressed bytes of a stream, compressed or not.

    read(n) of the source returns up to n bytes and b"" at the end. subject names the stream in errors.
    compression: one of the constants, known from the start.
    """

    def __init__(self, read: Callable[[int], bytes], subject: str) -> None:
        self._read = read
        self._subject = subject
        self._head = read(INPUT_BYTES)
        while len(self._head) < HEAD_BYTES and (more := read(INPUT_BYTES)):
            self._head += more
        self.compression = detect(self._head)
        self._input = b""
        self._decompressor: Decompressor | None = self._open() if self.compression else None
        self._bytes_in = self._bytes_out = 0

    def read(self, count: int) -> bytes:
        """Return at least one and at most about count bytes, b"" at the end. Raises Invalid, Unsupported."""
        data = self._next_raw() if self.compression == NONE else self._decompress(min(count, OUTPUT_BYTES))
        self._bytes_out += len(data)
        if self._bytes_out > UNCOMPRESSED_BYTES_MAX:
            raise Invalid(
                "read", self._subject, f"it has more than {UNCOMPRESSED_BYTES_MAX} bytes uncompressed", code="E0212"
            )
        if self._bytes_out > RATIO_FREE_BYTES and self._bytes_out > RATIO_MAX * self._bytes_in:
            raise Invalid(
                "read",
                self._subject,
                f"{self._bytes_in} bytes became {self._bytes_out}: it looks made to fill the disk",
                hint="decompress it yourself if you trust it, and import that",
                code="E0807",
            )
        return data

    def _decompress(self, count: int) -> bytes:
        while True:
            decompressor = self._decompressor
            if decompressor is None or decompressor.eof:
                if not self._open_next():
                    return b""
                continue
            if decompressor.needs_input and not self._input:
                self._input = self._next_raw()
                if not self._input:
                    raise Invalid("read", self._subject, f"its {self.compression} data is truncated", code="E0807")
            data, self._input = self._input, b""
            try:
                out = decompressor.decompress(data, count)
            except Exception as wrong:  # zlib.error, LZMAError, ZstdError, OSError: each module has its own
                raise Invalid(
                    "read", self._subject, f"its {self.compression} data is damaged ({wrong})", code="E0807"
                ) from None
            if out:
                return out

    def _open_next(self) -> bool:
        """Go on with the next member or frame: these formats may be concatenated. False at the end."""
        rest = self._decompressor.unused_data if self._decompressor else self._input
        self._decompressor = None
        while len(rest) < HEAD_BYTES and (more := self._next_raw()):
            rest += more
        if not rest:
            return False
        if not rest.strip(b"\0"):  # gzip(1): zeros behind the data are a tape's padding
            while more := self._next_raw():
                if more.strip(b"\0"):
                    raise Invalid(
                        "read", self._subject, f"something else follows its {self.compression} data", code="E0807"
                    )
            return False
        if detect(rest) != self.compression:
            raise Invalid("read", self._subject, f"something else follows its {self.compression} data", code="E0807")
        self._input = rest
        self._decompressor = self._open()
        return True

    def _next_raw(self) -> bytes:
        if self._head:
            data, self._head = self._head, b""
        else:
            data = self._read(INPUT_BYTES)
        self._bytes_in += len(data)
        return data

    def _open(self) -> Decompressor:
        if self.compression == GZIP:
            return _Gzip()
        if self.compression == XZ:
            import lzma

            return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY_BYTES_MAX)
        if self.compression == BZIP2:
            import bz2

            return bz2.BZ2Decompressor()
        return open_zstd(self._subject)


class _Gzip:
    """One gzip member, with the interface of the other modules' decompressors."""

    def __init__(self) -> None:
        import zlib

        self._inflate = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        self._full = False  # the last call may have stopped for want of room, not of input

    @property
    def eof(self) -> bool:
        return self._inflate.eof

    @property
    def unused_data(self) -> bytes:
        return self._inflate.unused_data

    @property
    def needs_input(self) -> bool:
        return not self._full and not self._inflate.unconsumed_tail

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        out = self._inflate.decompress(self._inflate.unconsumed_tail + data, max_length)
        self._full = len(out) == max_length
        return out


def open_zstd(subject: str) -> Decompressor:
    """Return what decompresses one frame of zstd. Raises Unsupported."""
    try:
        from compression.zstd import ZstdDecompressor  # type: ignore[import-not-found]  # Python 3.14
    except ImportError:
        pass
    else:
        decompressor: Decompressor = ZstdDecompressor()
        return decompressor
    from orlop.linux import zstd

    try:
        return zstd.Decompressor(zstd.load())
    except OSError:
        raise Unsupported(
            "read",
            subject,
            "it is compressed with zstd, which this Python can't read, and there is no libzstd.so.1",
            hint="install libzstd1, or decompress it with `zstd -d` first",
        ) from None
