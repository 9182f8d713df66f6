"""What we need of ctypes, from the extension module behind it.

`import ctypes` takes 3 ms, a tenth of a whole call of orlop-runtime: it builds forty types, and imports more modules.
This takes 0.6 ms. The names are ctypes' own and mean the same; type checkers are shown ctypes itself. `_ctypes` has had
what is used here since Python 2.5; what rarer callers need more (POINTER, cast) they import from ctypes.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctypes import (
        CDLL,
        Array,
        PyDLL,
        Structure,
        addressof,
        byref,
        c_char,
        c_char_p,
        c_int,
        c_int32,
        c_long,
        c_uint32,
        c_uint64,
        c_ulong,
        c_ushort,
        c_void_p,
        get_errno,
        sizeof,
    )
else:
    import _ctypes
    from _ctypes import Structure, addressof, byref, get_errno, sizeof

    class c_char(_ctypes._SimpleCData):
        _type_ = "c"

    class c_char_p(_ctypes._SimpleCData):
        _type_ = "z"

    class c_ushort(_ctypes._SimpleCData):
        _type_ = "H"

    class c_int(_ctypes._SimpleCData):
        _type_ = "i"

    class c_uint32(_ctypes._SimpleCData):
        _type_ = "I"

    class c_long(_ctypes._SimpleCData):
        _type_ = "l"

    class c_ulong(_ctypes._SimpleCData):
        _type_ = "L"

    class c_void_p(_ctypes._SimpleCData):
        _type_ = "P"

    # LP64, as every machine that abi knows: a long has 64 bits.
    c_int32, c_uint64 = c_int, c_ulong

    class _Library:
        """The functions of the programs and libraries that this process has loaded, by their names."""

        def __init__(self, _: None, use_errno: bool, more: int = 0) -> None:
            class Function(_ctypes.CFuncPtr):
                _flags_ = _ctypes.FUNCFLAG_CDECL | (_ctypes.FUNCFLAG_USE_ERRNO if use_errno else 0) | more
                _restype_ = c_int

            self._function = Function
            self._handle = _ctypes.dlopen(None, 0)

        def __getattr__(self, name):
            function = self._function(_ctypes.dlsym(self._handle, name))
            setattr(self, name, function)
            return function

        def __getitem__(self, name):
            return self._function(_ctypes.dlsym(self._handle, name))

    CDLL = _Library

    def PyDLL(name: None, use_errno: bool) -> _Library:
        return _Library(name, use_errno, _ctypes.FUNCFLAG_PYTHONAPI)


def create_string_buffer(init: int | bytes, size: int | None = None) -> Array[c_char]:
    """Return memory of so many bytes, or with these bytes in it and then as long as size says."""
    buffer = (c_char * (size or (init if isinstance(init, int) else len(init) + 1)))()
    if not isinstance(init, int):
        buffer.raw = init
    return buffer


__all__ = (
    "CDLL", "PyDLL", "Structure", "addressof", "byref", "c_char", "c_char_p", "c_int", "c_int32", "c_long", "c_uint32",
    "c_uint64", "c_ulong", "c_ushort", "c_void_p", "create_string_buffer", "get_errno", "sizeof",
)  # fmt: skip
