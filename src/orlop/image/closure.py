"""Programs of the host with all that they need to run elsewhere: the ldd-and-cp exercise, done by reading.

A closure maps names to what stands there: a symbolic link, or a file of the host. Two kinds:
- flat (`from_binaries`): every file under the name by which it is asked for; directories are real directories.
- faithful (the `host` image): every symbolic link on the way is kept, so /bin is a link where the host has one.
"""

from __future__ import annotations

import errno
import os
import stat

from orlop.linux.path import mkdir_in_root
from orlop.spec.errors import Conflict, Denied, Invalid, NotFound, OrlopError, Unavailable

from . import elf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

SEARCH_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
SCRIPT_LINE_BYTES_MAX = 256  # BINPRM_BUF_SIZE: what the kernel reads of a script's first line
LINKS_MAX = 40
COPY_BYTES = 16 * 1024**2
SCRIPT_DEPTH_MAX = 5  # what the kernel follows, see fs/exec.c
GLIBC_NSS_BUILTIN = (2, 34)  # from here on "files" and "dns" are part of libc.so.6


class Closure:
    """files: name -> the host's file. links: name -> target. Names are absolute and normalised."""

    def __init__(self, faithful: bool) -> None:
        self.files: dict[str, str] = {}
        self.links: dict[str, str] = {}
        self._faithful = faithful
        self._loader = elf.Loader()
        self._machine = os.uname().machine
        self._done: set[tuple[str, tuple[str, ...]]] = set()

    @property
    def names(self) -> set[str]:
        """All names, of files and links."""
        return {*self.files, *self.links}

    def add_program(self, path: str, depth: int = SCRIPT_DEPTH_MAX) -> None:
        """Add a program and everything that executing it opens. Raises NotFound, Invalid, Denied."""
        name = self.add_file(path)
        source = self.files[name]
        subject = f"program {path}"
        try:
            found = elf.read(source)
        except elf.BrokenElf as broken:
            raise Invalid(
                "copy", subject, f"it is not a proper ELF file: {broken}", hint="install its package again"
            ) from None
        except OSError as error:
            raise _failed("copy", subject, error) from None
        if found is None:
            self._add_script(source, subject, depth)
            return
        if not found.runs_on(self._machine):
            raise Invalid(
                "copy",
                subject,
                f"it is a program for {found.machine_name}, this machine is {self._machine}",
                hint="name a program of this machine's architecture",
                code="E0308",
            )
        if found.interpreter:
            self._require(found.interpreter, subject, "its interpreter")
        self._add_libraries(found, path, (), elf.is_musl(found.interpreter), subject)
        if found.interpreter and not elf.is_musl(found.interpreter):
            self._add_runtime_libraries(found, path)
        if self._loader.used_cache and os.path.isfile(elf.LD_SO_CACHE):
            self.add_file(elf.LD_SO_CACHE)

    def add_file(self, path: str) -> str:
        """Add a file and the links that lead to it; return the name of the file itself. Raises NotFound, Invalid."""
        name = os.path.normpath(path)
        for _ in range(LINKS_MAX):
            link = self._first_link(name)
            if not link:
                break
            target = os.readlink(link)
            self.links[link] = target
            rest = name[len(link) :].lstrip("/")
            name = os.path.normpath(os.path.join(os.path.dirname(link), target, rest)).replace("//", "/")
        source = os.path.realpath(path)
        try:
            if not stat.S_ISREG(os.stat(source).st_mode):
                raise Invalid("copy", f"file {path}", "it is not a regular file")
        except OSError as error:
            raise _failed("copy", f"file {path}", error) from None
        self.files[name] = source
        return name

    def _first_link(self, name: str) -> str:
        """Return the first component of a name that is a link to be kept, "" when none is."""
        if not self._faithful:
            return name if os.path.islink(name) else ""
        at = 0
        while at >= 0:
            at = name.find("/", at + 1)
            prefix = name if at < 0 else name[:at]
            if os.path.islink(prefix):
                return prefix
        return ""

    def _add_script(self, source: str, subject: str, depth: int) -> None:
        with open(source, "rb") as file:
            line = file.read(SCRIPT_LINE_BYTES_MAX).partition(b"\n")[0]
        words = os.fsdecode(line[2:]).split(None, 1) if line.startswith(b"#!") else []
        if not words:
            raise Invalid(
                "copy",
                subject,
                "it is neither an ELF program nor a script that names its interpreter",
                hint="name an executable program",
            )
        if depth == 0:
            raise Invalid(
                "copy",
                subject,
                "its interpreter is a script, whose interpreter is a script, and so on",
                hint="name a program that the kernel can execute",
            )
        if line.endswith(b"\r"):
            raise Invalid(
                "copy",
                subject,
                "its first line ends with a carriage return, which the kernel takes for part of the interpreter's name",
                hint="convert it to Unix line ends: sed -i 's/\\r$//' FILE",
            )
        interpreter = words[0]
        if not os.path.exists(interpreter):
            raise NotFound(
                "copy",
                subject,
                f"{subject} needs the interpreter {interpreter!r}, which is not there",
                hint="install the interpreter, or correct the script's first line",
            )
        self.add_program(interpreter, depth - 1)
        if os.path.basename(interpreter) == "env" and len(words) == 2:
            self.add_program(find_program(words[1].split()[-1]), depth - 1)

    def _require(self, path: str, subject: str, what: str) -> None:
        if not os.path.exists(path):
            raise NotFound(
                "copy",
                subject,
                f"{subject} can't run: {what} {path} is not there",
                hint="install the C library that it was built for",
            )
        self.add_file(path)

    def _add_libraries(self, needs: elf.Elf, path: str, rpaths: tuple[str, ...], musl: bool, subject: str) -> None:
        pending = [(needs, path, (*elf.expand(needs.rpath, path), *rpaths))]
        while pending:
            needs, path, rpaths = pending.pop()
            if (path, rpaths) in self._done:
                continue
            self._done.add((path, rpaths))
            for name in needs.needed:
                found = self._loader.find(name, needs, path, rpaths, musl)
                if found is None:
                    if musl and elf.is_musl_own(name):
                        continue
                    raise NotFound(
                        "copy",
                        subject,
                        f"{subject} can't run: {path} needs {name}, which none of the loader's directories has",
                        hint="install the package with this library",
                    )
                self.add_file(found)
                library = elf.read(found)
                if library is not None:
                    pending.append((library, found, (*elf.expand(library.rpath, found), *rpaths)))

    def _add_runtime_libraries(self, needs: elf.Elf, path: str) -> None:
        """Add what glibc loads with dlopen: the name services of old versions, and what unwinds cancelled threads."""
        libc = self._loader.find("libc.so.6", needs, path, (), False)
        if libc is None:
            return
        names = ["libgcc_s.so.1"] if self._faithful else []
        if _glibc_version(libc) < GLIBC_NSS_BUILTIN:
            names += ["libnss_files.so.2", "libnss_dns.so.2"]
        for name in names:
            found = self._loader.find(name, needs, path, (), False)
            if found is not None:
                self.add_file(found)
                library = elf.read(found)
                if library is not None:
                    self._add_libraries(library, found, (), False, f"library {found}")


def find_program(name: str, directories: Sequence[str] = SEARCH_PATH) -> str:
    """Return the path of a program: name itself if it has a slash, else as found. Raises NotFound, Denied, Invalid."""
    if "/" in name:
        path = os.path.abspath(name)
        if not os.path.exists(path):
            raise NotFound(
                "copy",
                f"program {name}",
                f"program {name} does not exist",
                hint="look for another path of it",
                code="E0222",
            )
        if os.path.isdir(path):
            raise Invalid("copy", f"program {name}", "it is a directory", hint="name a program in it")
        if not os.access(path, os.X_OK):
            raise Denied("copy", f"program {name}", "it is not executable", hint=f"chmod +x {name}, or name another")
        return path
    for directory in directories:
        path = f"{directory}/{name}"
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    raise NotFound(
        "copy",
        f"program {name}",
        f"program {name} is in none of {', '.join(directories)}",
        hint="write its path, or install it",
        code="E0222",
    )


def from_binaries(programs: Sequence[str], directory: str) -> list[str]:
    """Copy programs and all they need into a directory, which is made if it is missing; return the copied paths.

    The paths begin with "/", as the programs will see them once the directory is their root.
    Raises NotFound, Invalid, Denied, Conflict, Unavailable.
    """
    if not programs:
        raise Invalid("copy", "programs", "none is named", hint="name at least one: --with /bin/sh")
    closure = Closure(faithful=False)
    for program in programs:
        closure.add_program(find_program(program))
    names = sorted(closure.names)
    subject = f"into directory {directory}"
    if os.path.exists(directory) and not os.path.isdir(directory):
        raise Conflict("copy", subject, "it is a file", hint="name a directory, or one that does not exist yet")
    try:
        os.makedirs(directory, 0o755, exist_ok=True)
        root = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for name in names:
                _copy(root, name, closure)
        finally:
            os.close(root)
    except OSError as error:
        raise _failed("copy", subject, error) from None
    return names


def _copy(root: int, name: str, closure: Closure) -> None:
    """Put one file or link below a directory. A link that stands there already, /lib for example, never leads out."""
    base = os.path.basename(name)
    parent = mkdir_in_root(root, os.path.dirname(name))
    try:
        try:
            os.unlink(base, dir_fd=parent)
        except FileNotFoundError:
            pass
        if name in closure.links:
            os.symlink(closure.links[name], base, dir_fd=parent)
        else:
            _copy_file(closure.files[name], parent, base)
    finally:
        os.close(parent)


def _copy_file(source: str, parent: int, base: str) -> None:
    """Copy content, mode and time; the owner becomes whoever copies."""
    reading = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        info = os.fstat(reading)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        writing = os.open(base, flags, 0o600, dir_fd=parent)
        try:
            while os.sendfile(writing, reading, None, COPY_BYTES):
                pass
            os.fchmod(writing, stat.S_IMODE(info.st_mode))
            os.utime(writing, ns=(info.st_mtime_ns, info.st_mtime_ns))
        finally:
            os.close(writing)
    finally:
        os.close(reading)


def _glibc_version(path: str) -> tuple[int, ...]:
    """Return the version that libc.so.6 states in its banner, (0,) when it states none."""
    with open(path, "rb") as file:
        data = file.read()
    at = data.find(b"release version ")
    digits = data[at + 16 : at + 32].partition(b",")[0].rstrip(b".\n") if at >= 0 else b""
    parts = digits.split(b".")[:2]
    return tuple(int(part) for part in parts) if parts and all(part.isdigit() for part in parts) else (0,)


def _failed(verb: str, subject: str, error: OSError) -> OrlopError:
    cause = os.strerror(error.errno or 0)
    if error.filename:
        cause = f"{error.filename}: {cause}"
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return NotFound(verb, subject, f"cannot {verb} {subject}: {cause}")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return Denied(verb, subject, cause, hint="name a place that you may write to, or run it as root")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Unavailable(verb, subject, cause, hint="free some space there")
    return Unavailable(verb, subject, cause)
