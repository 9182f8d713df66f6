"""What a program needs to run: its interpreter and its shared libraries, found as the dynamic loader finds them.

The files are read, never executed: ldd(1) would run the program's own interpreter.
Source: elf(5), ld.so(8) for the search order, glibc's dl-cache.h for /etc/ld.so.cache, musl's ldso for its own.
"""

from __future__ import annotations

import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

PT_LOAD, PT_DYNAMIC, PT_INTERP = 1, 2, 3
DT_NULL, DT_NEEDED, DT_STRTAB, DT_STRSZ, DT_RPATH, DT_RUNPATH, DT_FLAGS_1 = 0, 1, 5, 10, 15, 29, 0x6FFFFFFB
DF_1_NODEFLIB = 0x800
EM_386, EM_ARM, EM_X86_64, EM_AARCH64, EM_RISCV, EM_PPC64, EM_S390 = 3, 40, 62, 183, 243, 21, 22
EM_LOONGARCH = 258

PROGRAM_HEADERS_MAX = 256
DYNAMIC_BYTES_MAX = 64 * 1024
STRING_TABLE_BYTES_MAX = 16 * 1024**2
INTERPRETER_BYTES_MAX = 4096
CACHE_BYTES_MAX = 64 * 1024**2
CONF_DEPTH_MAX = 8

LD_SO_CACHE = "/etc/ld.so.cache"
LD_SO_CONF = "/etc/ld.so.conf"
_CACHE_MAGIC = b"glibc-ld.so.cache1.1"
_MUSL_DIRECTORIES = ("/lib", "/usr/local/lib", "/usr/lib")
_MUSL_OWN = ("libc.", "libpthread.", "librt.", "libm.", "libdl.", "libutil.", "libxnet.")  # all of them are the loader
_MACHINES = {
    "x86_64": (EM_X86_64, EM_386),
    "aarch64": (EM_AARCH64, EM_ARM),
    "riscv64": (EM_RISCV,),
    "ppc64le": (EM_PPC64,),
    "s390x": (EM_S390,),
    "loongarch64": (EM_LOONGARCH,),
}
_MACHINE_NAMES = {
    EM_X86_64: "x86-64",
    EM_386: "i386",
    EM_AARCH64: "arm64",
    EM_ARM: "arm",
    EM_RISCV: "riscv",
    EM_PPC64: "ppc64",
    EM_S390: "s390",
    EM_LOONGARCH: "loongarch",
}


class BrokenElf(ValueError):
    """The file begins like an ELF file and is none."""


class Elf:
    """What an ELF file says about the files it needs.

    machine: e_machine. bits: 32 or 64. interpreter: "" when the file is statically linked or a library.
    rpath, runpath: as written, $ORIGIN and the like not yet replaced. default_directories: False forbids them.
    """

    __slots__ = ("bits", "default_directories", "interpreter", "machine", "needed", "order", "rpath", "runpath")

    def __init__(self, bits: int, order: str, machine: int) -> None:
        self.bits = bits
        self.order = order
        self.machine = machine
        self.interpreter = ""
        self.needed: tuple[str, ...] = ()
        self.rpath: tuple[str, ...] = ()
        self.runpath: tuple[str, ...] = ()
        self.default_directories = True

    @property
    def machine_name(self) -> str:
        return _MACHINE_NAMES.get(self.machine, f"number {self.machine}")

    def runs_on(self, machine: str) -> bool:
        """Say whether a kernel of that machine (uname(2)) executes such files. An unlisted machine is trusted."""
        return machine not in _MACHINES or self.machine in _MACHINES[machine]

    def same_kind(self, other: Elf) -> bool:
        """Say whether both can be in one process."""
        return (self.bits, self.order, self.machine) == (other.bits, other.order, other.machine)


def read(path: str) -> Elf | None:
    """Return what an ELF file says, or None for a file of another kind. Raises OSError, BrokenElf."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        ident = os.pread(fd, 64, 0)
        if ident[:4] != b"\x7fELF":
            return None
        try:
            return _read(fd, ident)
        except (struct.error, IndexError):
            raise BrokenElf("it is cut off") from None
    finally:
        os.close(fd)


def _read(fd: int, ident: bytes) -> Elf:
    if ident[4] not in (1, 2) or ident[5] not in (1, 2):
        raise BrokenElf("its class or byte order is none that exists")
    bits, order = 32 * ident[4], "<" if ident[5] == 1 else ">"
    elf = Elf(bits, order, struct.unpack_from(order + "H", ident, 18)[0])
    segments = _segments(fd, ident, elf)
    for kind, offset, _, size in segments:
        if kind == PT_INTERP:
            if size > INTERPRETER_BYTES_MAX:
                raise BrokenElf("its interpreter's name is too long")
            elf.interpreter = os.fsdecode(os.pread(fd, size, offset).partition(b"\0")[0])
        elif kind == PT_DYNAMIC:
            if size > DYNAMIC_BYTES_MAX:
                raise BrokenElf("its dynamic section is too large")
            _read_dynamic(fd, elf, os.pread(fd, size, offset), segments)
    return elf


def _segments(fd: int, ident: bytes, elf: Elf) -> list[tuple[int, int, int, int]]:
    """Return (type, file offset, address, size in the file) of every program header."""
    if elf.bits == 64:
        start, entry_bytes, count = *struct.unpack_from(elf.order + "Q", ident, 32), *_halves(elf, ident, 54)
        layout, picked = elf.order + "IIQQQQ", (0, 2, 3, 5)
    else:
        start, entry_bytes, count = *struct.unpack_from(elf.order + "I", ident, 28), *_halves(elf, ident, 42)
        layout, picked = elf.order + "IIIII", (0, 1, 2, 4)
    if count > PROGRAM_HEADERS_MAX or (count and entry_bytes < struct.calcsize(layout)):
        raise BrokenElf("its program headers make no sense")
    table = os.pread(fd, count * entry_bytes, start) if start < 2**62 else b""
    out = []
    for index in range(count):
        fields = struct.unpack_from(layout, table, index * entry_bytes)
        kind, offset, address, size = (fields[position] for position in picked)
        if offset >= 2**62:
            raise BrokenElf("a segment lies outside of it")
        out.append((kind, offset, address, size))
    return out


def _halves(elf: Elf, ident: bytes, at: int) -> tuple[int, int]:
    first, second = struct.unpack_from(elf.order + "HH", ident, at)
    return first, second


def _read_dynamic(fd: int, elf: Elf, data: bytes, segments: list[tuple[int, int, int, int]]) -> None:
    word = elf.order + ("qQ" if elf.bits == 64 else "iI")
    tags: list[tuple[int, int]] = []
    for tag, value in struct.iter_unpack(word, data[: len(data) - len(data) % struct.calcsize(word)]):
        if tag == DT_NULL:
            break
        tags.append((tag, value))
    values = dict(tags)
    if DT_STRTAB not in values:
        return
    if values.get(DT_STRSZ, 0) > STRING_TABLE_BYTES_MAX:
        raise BrokenElf("its string table is too large")
    strings = os.pread(fd, values.get(DT_STRSZ, 0), _file_offset(values[DT_STRTAB], segments))

    def text(offset: int) -> str:
        return os.fsdecode(strings[offset:].partition(b"\0")[0])

    elf.needed = tuple(text(value) for tag, value in tags if tag == DT_NEEDED)
    if DT_RPATH in values:
        elf.rpath = tuple(filter(None, text(values[DT_RPATH]).split(":")))
    if DT_RUNPATH in values:
        elf.runpath = tuple(filter(None, text(values[DT_RUNPATH]).split(":")))
    elf.default_directories = not values.get(DT_FLAGS_1, 0) & DF_1_NODEFLIB


def _file_offset(address: int, segments: list[tuple[int, int, int, int]]) -> int:
    for kind, offset, start, size in segments:
        if kind == PT_LOAD and start <= address < start + size:
            return offset + address - start
    raise BrokenElf("its string table lies in no segment")


class Loader:
    """Finds libraries as the dynamic loader of this host does. What was found once is remembered.

    used_cache: some library was found only through ld.so.cache or ld.so.conf, in a directory that the loader itself
    does not search: a copy of the program needs a copy of the cache.
    """

    def __init__(self) -> None:
        self.used_cache = False
        self._configured: tuple[dict[str, list[str]], list[str]] | None = None
        self._known: dict[str, Elf | None] = {}

    def find(self, name: str, needs: Elf, path: str, rpaths: tuple[str, ...], musl: bool) -> str | None:
        """Return the path of a library, as the loader would open it, or None.

        needs: who needs it, path: where that lies. rpaths: the RPATHs of those who loaded it, $ORIGIN replaced.
        """
        if "/" in name:
            return name if self._fits(name, needs) else None
        for candidate, configured in self._candidates(name, needs, path, rpaths, musl):
            if self._fits(candidate, needs):
                if configured and os.path.dirname(candidate) not in _default_directories(needs.bits):
                    self.used_cache = True
                return candidate
        return None

    def _candidates(
        self, name: str, needs: Elf, path: str, rpaths: tuple[str, ...], musl: bool
    ) -> Iterator[tuple[str, bool]]:
        for directory in (*(() if needs.runpath else rpaths), *expand(needs.runpath, path)):
            yield f"{directory}/{name}", False
        if not needs.default_directories:
            return
        if musl:
            yield from ((f"{directory}/{name}", False) for directory in _musl_directories())
            return
        cached, configured = self._configuration()
        yield from ((candidate, True) for candidate in cached.get(name, ()))
        yield from ((f"{directory}/{name}", False) for directory in _default_directories(needs.bits))
        yield from ((f"{directory}/{name}", True) for directory in configured)

    def _fits(self, path: str, needs: Elf) -> bool:
        if path not in self._known:
            try:
                self._known[path] = read(path)
            except (OSError, BrokenElf):
                self._known[path] = None
        found = self._known[path]
        return found is not None and found.same_kind(needs)

    def _configuration(self) -> tuple[dict[str, list[str]], list[str]]:
        if self._configured is None:
            cached = _read_cache(LD_SO_CACHE)
            self._configured = (cached, [] if cached else _read_conf(LD_SO_CONF, CONF_DEPTH_MAX))
        return self._configured


def is_musl(interpreter: str) -> bool:
    return os.path.basename(interpreter).startswith("ld-musl-")


def is_musl_own(name: str) -> bool:
    """Say whether musl's loader answers for this library itself, without opening a file."""
    return name.startswith(_MUSL_OWN)


def expand(directories: tuple[str, ...], path: str) -> tuple[str, ...]:
    """Replace $ORIGIN, $LIB and $PLATFORM in the search paths of the object at path."""
    origin = os.path.dirname(os.path.realpath(path))
    out = []
    for directory in directories:
        for name, values in (("ORIGIN", (origin,)), ("LIB", ("lib64", "lib")), ("PLATFORM", (os.uname().machine,))):
            directory = directory.replace("${" + name + "}", values[0]).replace(f"${name}", values[0])
        out.append(os.path.normpath(directory))
    return tuple(out)


def _default_directories(bits: int) -> tuple[str, ...]:
    """Return what a loader was built to search: Debian's multiarch directories and the two old pairs."""
    triplets = [entry for entry in _listed("/usr/lib") if "-linux-" in entry]
    out = [f"{base}/{triplet}" for triplet in triplets for base in ("/lib", "/usr/lib")]
    if bits == 64:
        out += ["/lib64", "/usr/lib64"]
    return (*out, "/lib", "/usr/lib")


def _musl_directories() -> tuple[str, ...]:
    for name in _listed("/etc"):
        if name.startswith("ld-musl-") and name.endswith(".path"):
            with open(f"/etc/{name}") as file:
                return tuple(filter(None, file.read(CACHE_BYTES_MAX).replace("\n", ":").split(":")))
    return _MUSL_DIRECTORIES


def _listed(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except OSError:
        return []


def _read_cache(path: str) -> dict[str, list[str]]:
    """Return soname -> paths from ld.so.cache, those for special processors (glibc-hwcaps) last; {} if unreadable."""
    try:
        with open(path, "rb") as file:
            data = file.read(CACHE_BYTES_MAX)
    except OSError:
        return {}
    start = data.find(_CACHE_MAGIC)
    out: dict[str, list[str]] = {}
    special: list[tuple[str, str]] = []
    try:
        (count,) = struct.unpack_from("=I", data, start + len(_CACHE_MAGIC))
        if start < 0 or count * 24 > len(data):
            return {}
        for index in range(count):
            _, key, value, _, hwcap = struct.unpack_from("=iIIIQ", data, start + 48 + 24 * index)
            name, library = _cached_text(data, start + key), _cached_text(data, start + value)
            if hwcap:
                special.append((name, library))
            else:
                out.setdefault(name, []).append(library)
    except struct.error:
        return {}
    for name, library in special:
        out.setdefault(name, []).append(library)
    return out


def _cached_text(data: bytes, offset: int) -> str:
    end = data.find(b"\0", offset)
    return os.fsdecode(data[offset : end if end >= 0 else offset])


def _read_conf(path: str, depth: int) -> list[str]:
    """Return the directories that ld.so.conf lists, includes followed."""
    import glob

    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read(CACHE_BYTES_MAX).splitlines()
    except OSError:
        return []
    out = []
    for line in lines:
        words = line.partition("#")[0].split()
        if words[:1] == ["include"] and depth:
            for pattern in words[1:]:
                for included in sorted(glob.glob(os.path.join(os.path.dirname(path), pattern))):
                    out += _read_conf(included, depth - 1)
        elif words and words[0].startswith("/"):
            out.append(words[0].rstrip("/"))
    return out
