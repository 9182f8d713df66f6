"""zstd through the library that dpkg, the kernel's tools and half of the distribution stand on: libzstd.so.1.

For Pythons before 3.14, whose standard library has no zstd. The decoder's window is bounded by the library's own
default (2**27 bytes), so a frame can't ask for more memory than 128 MiB (SEC-42).
Source: zstd.h of zstd 1.4 and later, "Streaming decompression - HowTo", "Streaming compression - HowTo".
"""

from __future__ import annotations

import ctypes

LIBRARY = "libzstd.so.1"
_COMPRESSION_LEVEL, _CHECKSUM = 100, 201  # ZSTD_cParameter
_CONTINUE, _END = 0, 2  # ZSTD_EndDirective
_OUT_BYTES = 256 * 1024


class _Buffer(ctypes.Structure):
    """ZSTD_inBuffer and ZSTD_outBuffer, which have the same fields."""

    _fields_ = [("data", ctypes.c_void_p), ("size", ctypes.c_size_t), ("pos", ctypes.c_size_t)]


def load() -> ctypes.CDLL:
    """Return the library. Raises OSError when this machine has none."""
    library = ctypes.CDLL(LIBRARY)
    library.ZSTD_createDStream.restype = ctypes.c_void_p
    library.ZSTD_freeDStream.argtypes = (ctypes.c_void_p,)
    library.ZSTD_decompressStream.restype = ctypes.c_size_t
    library.ZSTD_decompressStream.argtypes = (ctypes.c_void_p, ctypes.POINTER(_Buffer), ctypes.POINTER(_Buffer))
    library.ZSTD_createCCtx.restype = ctypes.c_void_p
    library.ZSTD_freeCCtx.argtypes = (ctypes.c_void_p,)
    library.ZSTD_CCtx_setParameter.restype = ctypes.c_size_t
    library.ZSTD_CCtx_setParameter.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_int)
    library.ZSTD_compressStream2.restype = ctypes.c_size_t
    buffers = (ctypes.POINTER(_Buffer), ctypes.POINTER(_Buffer))
    library.ZSTD_compressStream2.argtypes = (ctypes.c_void_p, *buffers, ctypes.c_int)
    library.ZSTD_isError.argtypes = (ctypes.c_size_t,)
    library.ZSTD_getErrorName.argtypes = (ctypes.c_size_t,)
    library.ZSTD_getErrorName.restype = ctypes.c_char_p
    return library


class Decompressor:
    """One frame, with the interface of the standard library's decompressors.

    Not for use by two threads at once. decompress raises ValueError for damaged data.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self.eof = False
        self.unused_data = b""
        self.needs_input = True
        self._library = library
        self._stream = library.ZSTD_createDStream()
        if not self._stream:
            raise MemoryError("ZSTD_createDStream")
        self._rest = b""

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        """Return at most max_length bytes more of the content; what data is left over is kept for the next call."""
        data = self._rest + data
        size = max_length if max_length > 0 else 1 << 20
        out = ctypes.create_string_buffer(size)
        # Both buffers outlive the call: `data` and `out` are names of this frame.
        source = _Buffer(ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p), len(data), 0)
        target = _Buffer(ctypes.cast(out, ctypes.c_void_p), size, 0)
        left = 1
        while source.pos < source.size or target.pos < target.size:
            before = source.pos, target.pos
            left = self._library.ZSTD_decompressStream(self._stream, ctypes.byref(target), ctypes.byref(source))
            if self._library.ZSTD_isError(left):
                raise ValueError(self._library.ZSTD_getErrorName(left).decode())
            if left == 0 or target.pos == target.size or (source.pos, target.pos) == before:
                break
        self._rest = data[source.pos :]
        if left == 0:
            self.eof, self.unused_data, self._rest = True, self._rest, b""
        self.needs_input = not self.eof and target.pos < target.size and not self._rest
        return out.raw[: target.pos]

    def __del__(self) -> None:
        if getattr(self, "_stream", None):
            self._library.ZSTD_freeDStream(self._stream)
            self._stream = None


class Compressor:
    """One frame, with the interface of zlib's compressors: the same bytes for the same content and library.

    Not for use by two threads at once.
    """

    def __init__(self, library: ctypes.CDLL, level: int) -> None:
        self._library = library
        self._context = library.ZSTD_createCCtx()
        if not self._context:
            raise MemoryError("ZSTD_createCCtx")
        for parameter, value in ((_COMPRESSION_LEVEL, level), (_CHECKSUM, 1)):
            self._checked(library.ZSTD_CCtx_setParameter(self._context, parameter, value))

    def compress(self, data: bytes) -> bytes:
        """Take more of the content; return what of the frame is ready."""
        return self._run(data, _CONTINUE)

    def flush(self) -> bytes:
        """Return the rest of the frame."""
        return self._run(b"", _END)

    def _run(self, data: bytes, directive: int) -> bytes:
        made = []
        out = ctypes.create_string_buffer(_OUT_BYTES)
        # Both buffers outlive the calls: `data` and `out` are names of this frame.
        source = _Buffer(ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p), len(data), 0)
        while True:
            target = _Buffer(ctypes.cast(out, ctypes.c_void_p), _OUT_BYTES, 0)
            left = self._library.ZSTD_compressStream2(
                self._context, ctypes.byref(target), ctypes.byref(source), directive
            )
            self._checked(left)
            made.append(out.raw[: target.pos])
            if source.pos == source.size and (directive == _CONTINUE or left == 0):
                return b"".join(made)

    def _checked(self, code: int) -> None:
        if self._library.ZSTD_isError(code):
            raise ValueError(self._library.ZSTD_getErrorName(code).decode())

    def __del__(self) -> None:
        if getattr(self, "_context", None):
            self._library.ZSTD_freeCCtx(self._context)
            self._context = None
