"""The compiled modules of a program in one file, beside the interpreter's own cache of compiled modules.

A module out of `__pycache__` costs two stat(2), an open, two reads and some Python of importlib's: for the seventy that
`orlop-runtime exec` imports that is 5 ms of 14. Here it is one stat(2); and what all runs of a verb import is executed
in one go, in the order in which another run's imports were complete, without importlib: 2 ms less.

    .cache/pycache/          what Python compiled (-X pycache_prefix; without it nothing is kept)
    .cache/frozen/<program>  8 bytes: the length of what follows; marshal: version, the length of the rest,
                             {name: (source, is a package, mtime in ns, size, start, length)}, {verb: names};
                             the rest: for each a line with the interpreter, name, mtime and size, and its code
                             written whole (beside + rename) by any process that had to import more than there is

Invariants:
1. A module is taken from here only if its source has the very time and size that it had when it was compiled.
2. The file is read only if it belongs to us or to root and nobody else may write it: as good as `__pycache__`.
3. Whatever is wrong with it: the module is imported as always. An order counts as long as none of the sources changed.
4. It is open only while it is read: what a container can reach of a process that enters it is no file of ours.
"""

import os
import sys
from marshal import dumps, loads
from time import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

    Row = tuple[str, bool, int, int, int, int]
else:
    ModuleSpec, ModuleType = type(sys.__spec__), type(sys)

_VERSION = f"5 {sys.version} {__file__}"  # of this checkout: a cache may be a link to another's
_COMPILED = "pycache"
_LENGTH_BYTES = 8
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_OTHERS_WRITE = 0o022
_WRITE_S_MAX = 60.0
_OURS = f"{__package__}."


class Archive:
    """One such file, and the finder and loader of what is in it."""

    __slots__ = ("_before", "_file", "_imported", "_orders", "_path", "_rows", "_start")

    def __init__(self, path: str) -> None:
        self._path = path
        self._rows: dict[str, Row] = {}
        self._orders: dict[str, tuple[str, ...]] = {}
        self._imported: list[str] = []  # ours, in the order of their ends
        self._before = len(sys.modules)
        self._start = 0  # where code begins
        self._file = (0, 0, 0)
        self._open_again()

    def _open_again(self) -> None:
        try:
            self._open()
        except (OSError, EOFError, ValueError, TypeError):
            pass  # it is missing, broken, or not for us

    def _open(self) -> None:
        fd = os.open(self._path, _READ)
        try:
            status = os.fstat(fd)
            if status.st_uid not in (0, os.geteuid()) or status.st_mode & _OTHERS_WRITE:
                return
            length = int.from_bytes(os.read(fd, _LENGTH_BYTES), "little")
            start = _LENGTH_BYTES + length
            version, rest, rows, orders = loads(os.read(fd, min(length, status.st_size)))
            if version == _VERSION and start + rest == status.st_size:
                self._rows, self._orders, self._file, self._start = rows, orders, _identity(status), start
        finally:
            os.close(fd)

    def find_spec(self, name: str, path: object = None, target: object = None) -> "ModuleSpec | None":
        """Return where a module is (importlib.abc.MetaPathFinder), None for one that is not here or has changed."""
        row = self._rows.get(name)
        if row is None or not _is_as_it_was(row):
            return None
        code = self._code(name, row)
        if not code:
            return None
        spec = ModuleSpec(name, self, origin=row[0], loader_state=code, is_package=row[1])  # type: ignore[arg-type]
        if spec.submodule_search_locations is not None:
            spec.submodule_search_locations.append(os.path.dirname(row[0]))
        return spec

    def create_module(self, spec: "ModuleSpec") -> None:
        """Have importlib make the module (importlib.abc.Loader)."""

    def exec_module(self, module: "ModuleType") -> None:
        """Run a module's code (importlib.abc.Loader)."""
        spec = module.__spec__
        assert spec and spec.origin
        module.__file__ = spec.origin
        code, spec.loader_state = spec.loader_state, None
        exec(loads(code), module.__dict__)
        if module.__name__.startswith(_OURS):
            self._imported.append(module.__name__)

    def preload(self, words: "list[str]") -> None:
        """Import what another run imported whose verb is the first of these words that is known as one."""
        verb = next((word for word in words if word in self._orders), None)
        if verb is None:
            return
        names = [name for name in self._orders[verb] if name not in sys.modules]
        code = self._codes(names)
        if len(code) == len(names):
            _execute([self._module(name) for name in names], code)

    def _codes(self, names: "list[str]") -> "list[bytes]":
        """Return the code of all modules, nothing if one of them has changed."""
        rows = [row for name in names if (row := self._rows.get(name)) and _is_as_it_was(row)]
        if len(rows) < len(names):
            return []
        try:
            fd = os.open(self._path, _READ)
        except OSError:
            return []
        try:
            found = (self._read(fd, name, row) for name, row in zip(names, rows, strict=True))
            return [code for code in found if code] if _identity(os.fstat(fd)) == self._file else []
        finally:
            os.close(fd)

    def _module(self, name: str) -> "ModuleType":
        source, is_package, *_ = self._rows[name]
        module = ModuleType(name)
        module.__file__, module.__loader__ = source, self  # type: ignore[assignment]  # a duck of a Loader
        module.__spec__ = ModuleSpec(name, self, origin=source, is_package=is_package)  # type: ignore[arg-type]
        module.__package__ = name if is_package else name.rpartition(".")[0]
        if is_package:
            module.__path__ = module.__spec__.submodule_search_locations = [os.path.dirname(source)]
        return module

    def _code(self, name: str, row: "Row") -> bytes:
        """Return a module's code, b"" when another process has replaced the file."""
        try:
            fd = os.open(self._path, _READ)
        except OSError:
            return b""
        try:
            return self._read(fd, name, row) if _identity(os.fstat(fd)) == self._file else b""
        finally:
            os.close(fd)

    def _read(self, fd: int, name: str, row: "Row") -> bytes:
        head = _head(name, row[2], row[3])
        data = os.pread(fd, row[5], self._start + row[4])
        # An inode's number comes again soon: what is read says itself what it is.
        return data[len(head) :] if len(data) == row[5] and data.startswith(head) else b""

    def complete(self, verb: str) -> None:
        """Write the file anew if a module was imported that is not in it, or is no longer as it was.

        If all were, the order of a verb that had none is written instead.
        """
        names = [name for name in list(sys.modules)[self._before :] if _has_source(name)]
        if not names and (not verb or verb in self._orders):
            return
        beside = f"{self._path}.new"
        fd = _begin(beside)  # before any work: a clone that can't be written to is found so by every call
        try:
            try:
                _write(fd, self._completed(names, verb))
            finally:
                os.close(fd)
            os.rename(beside, self._path)
        except BaseException:
            os.unlink(beside)
            raise

    def _completed(self, names: "list[str]", verb: str) -> "list[bytes]":
        """Return the whole of the file with these modules compiled anew."""
        missing = {name: _compiled(name) for name in names}
        self._open_again()
        orders = {} if any(name in self._rows for name in missing) else self._orders
        if not missing:
            orders = {**orders, verb: tuple(self._imported)}
        rows: dict[str, Row] = {}
        code: list[bytes] = []
        start = 0
        for name, (source, is_package, mtime, size, data) in {**self._kept(), **missing}.items():
            head = _head(name, mtime, size)
            rows[name] = (source, is_package, mtime, size, start, len(head) + len(data))
            code += (head, data)
            start += rows[name][5]
        index = dumps((_VERSION, start, rows, orders))
        return [len(index).to_bytes(_LENGTH_BYTES, "little"), index, *code]

    def _kept(self) -> "dict[str, tuple[str, bool, int, int, bytes]]":
        kept = ((name, row, self._code(name, row)) for name, row in self._rows.items() if _is_as_it_was(row))
        return {name: (*row[:4], code) for name, row, code in kept if code}


_archive: Archive | None = None


def thaw(program: str) -> None:
    """Have modules come from the program's file from here on. Without `-X pycache_prefix=.../pycache` do nothing."""
    global _archive
    prefix = sys.pycache_prefix
    if prefix is not None and os.path.basename(prefix) == _COMPILED:
        _archive = Archive(os.path.join(os.path.dirname(prefix), "frozen", program))
        sys.meta_path.insert(0, _archive)
        _archive.preload(sys.argv[1:])


def freeze(verb: str = "") -> None:
    """Let the file have what was imported since `thaw`, if it lacks some, and let go of it. What fails is not told.

    verb: whose imports those were, "" for what has none.
    """
    global _archive
    archive, _archive = _archive, None
    if archive is not None:
        sys.meta_path.remove(archive)
        try:
            archive.complete(verb)
        except (OSError, SyntaxError, ValueError):
            pass  # a read-only clone, a source that is being written


def keep(name: str, program: "Callable[[], bytes]") -> None:
    """Put a program of ours beside the compiled modules, if it is not there. What fails is not told.

    program: called for what it consists of. The script that starts us looks for it there.
    """
    prefix = sys.pycache_prefix
    if prefix is None or os.path.basename(prefix) != _COMPILED:
        return
    place = os.path.join(os.path.dirname(prefix), name)
    if os.access(place, os.X_OK):
        return
    beside = f"{place}.{os.getpid()}"
    try:
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o755)
        try:
            os.write(fd, program())
        finally:
            os.close(fd)
        os.rename(beside, place)
    except OSError:
        pass


def _execute(modules: "list[ModuleType]", code: "list[bytes]") -> None:
    """Make these modules what importing them in this order would make them, or forget all of them."""
    sys.modules.update({module.__name__: module for module in modules})
    try:
        for module, data in zip(modules, code, strict=True):
            exec(loads(data), module.__dict__)
            parent, _, name = module.__name__.rpartition(".")
            setattr(sys.modules[parent], name, module)
    except Exception:  # what it was will be told when it happens again
        for module in modules:
            sys.modules.pop(module.__name__, None)
            parent, _, name = module.__name__.rpartition(".")
            if (above := sys.modules.get(parent)) is not None and getattr(above, name, None) is module:
                delattr(above, name)


def _identity(status: os.stat_result) -> "tuple[int, int, int]":
    return status.st_ino, status.st_size, status.st_mtime_ns


def _head(name: str, mtime: int, size: int) -> bytes:
    return f"{sys.hexversion} {name} {mtime} {size}\n".encode()


def _is_as_it_was(row: "Row") -> bool:
    try:
        status = os.stat(row[0])
    except OSError:
        return False
    return status.st_mtime_ns == row[2] and status.st_size == row[3]


def _has_source(name: str) -> bool:
    """Tell whether a module came from a source: others are of C, or of ours, or gone again."""
    spec = getattr(sys.modules.get(name), "__spec__", None)
    return spec is not None and type(spec.loader).__name__ == "SourceFileLoader" and spec.name == name


def _compiled(name: str) -> "tuple[str, bool, int, int, bytes]":
    """Return a module's source, whether it is a package, the source's time and size, and its code."""
    spec: Any = sys.modules[name].__spec__
    status = os.stat(spec.origin)  # ahead of the code: if it changes in between, the time is too old, not too new
    code = spec.loader.get_code(name)
    is_package = spec.submodule_search_locations is not None
    return spec.origin, is_package, status.st_mtime_ns, status.st_size, dumps(code)


def _begin(beside: str) -> int:
    """Return a descriptor of a new file. Raises OSError, FileExistsError while another process writes one."""
    os.makedirs(os.path.dirname(beside), 0o755, exist_ok=True)
    try:
        return os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    except FileExistsError:
        if time() - os.lstat(beside).st_mtime > _WRITE_S_MAX:
            os.unlink(beside)  # whoever wrote it was killed: the next one may
        raise


def _write(fd: int, parts: "list[bytes]") -> None:
    data = b"".join(parts)
    if os.write(fd, data) != len(data):
        raise OSError("the disk is full")
