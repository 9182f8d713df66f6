"""What a machine starts from: this machine's programs, its Python, Orlop, a kernel's modules, as one archive.

Nothing is downloaded: as the image `host` is, it is made of what is here. The modules that containers and the machine
itself need are loaded at the start, in the order of MODULES_FILE; there is no modprobe.
"""

from __future__ import annotations

import os
import platform
import py_compile
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from ...image.closure import Closure, find_program
from ...image.hostfiles import FILES, PROGRAMS
from ...spec.errors import Invalid, NotFound, OrlopError, Unavailable
from . import modules
from .cpio import Archive
from .guest import MODULES_FILE

HOME = "/usr/lib/orlop-machine"  # where Orlop lies in it
_OF_THE_MACHINE = ("virtio_pci", "virtio_console", "virtio_blk", "virtio_net", "ext4")
_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
_STDLIB_UNUSED = (
    "test",
    "idlelib",
    "tkinter",
    "turtledemo",
    "lib2to3",
    "ensurepip",
    "pydoc_data",
    "config-",
    "site-packages",
)
_DIRECTORIES = ("/proc", "/sys", "/dev", "/run", "/root", "/mnt", "/newroot", "/etc", "/var/lib", "/var/tmp")
_SCRIPT = "#!{interpreter} -IS\nimport sys\nsys.path.append({home!r})\nfrom {module} import {name}\n{name}()\n"


class Kernel:
    """image: what is booted. version: as uname -r says it. modules: name -> file."""

    def __init__(self, image: Path, version: str, found: dict[str, Path]) -> None:
        self.image, self.version, self.modules = image, version, found


def find_kernel(image: str, directory: str) -> Kernel:
    """Return the kernel that was named, or the newest of /boot. directory: of its modules, "" where it has them itself:
    lib/modules/VERSION beside its own directory.

    Raises NotFound, Invalid with what is missing.
    """
    hint = "install a kernel (Debian: linux-image-cloud-amd64), or name one: --kernel FILE --modules DIRECTORY"
    if image:
        chosen = Path(image).absolute()
    else:
        known = sorted(Path("/boot").glob("vmlinuz-*"), key=_by_number)
        if not known:
            raise NotFound("find", "a kernel", "there is no kernel in /boot", hint=hint)
        chosen = known[-1]
    try:
        with chosen.open("rb") as file:
            file.read(1)
    except OSError as wrong:
        raise NotFound("read", f"kernel {chosen}", wrong.strerror or str(wrong), hint=hint) from None
    version = chosen.name.removeprefix("vmlinuz-")
    places = (
        [Path(directory)]
        if directory
        else [
            chosen.parents[1] / "lib/modules" / version,
            Path("/lib/modules") / version,
            Path("/usr/lib/modules") / version,
        ]
    )
    for place in places:
        if found := modules.find(place):
            return Kernel(chosen, version, found)
    raise Invalid("use", f"kernel {chosen}", f"its modules are not in {', '.join(map(str, places))}", hint=hint)


def _by_number(path: Path) -> list[tuple[int, str]]:
    parts = path.name.replace(".", "-").split("-")
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def write(kernel: Kernel, hostname: str, target: Path) -> None:
    """Write the archive of a machine. Raises OrlopError for what can't be read."""
    archive = Archive()
    closure = Closure(faithful=True)
    for name in PROGRAMS:
        try:
            closure.add_program(find_program(name))
        except OrlopError:
            continue  # not here: the machine goes without it, as the image `host` does
    _add_python(archive, closure)
    _add_orlop(archive)
    for name, source in closure.files.items():
        archive.file(name, Path(source), os.stat(source).st_mode & 0o7777, int(os.stat(source).st_mtime))
    for name, link in closure.links.items():
        archive.link(name, link)
    for name, (mode, text) in FILES.items():
        archive.file(name, text.encode(), mode)
    for path in _DIRECTORIES:
        archive.directory(path)
    archive.directory("/tmp", 0o1777)
    archive.device("/dev/console", 5, 1)
    archive.file("/etc/hostname", f"{hostname}\n".encode())
    archive.file("/etc/hosts", f"127.0.0.1 localhost {hostname}\n".encode())
    if os.path.exists(_CERTIFICATES):
        archive.file(_CERTIFICATES, Path(_CERTIFICATES))
    _add_modules(archive, kernel)
    try:
        with target.open("wb") as file:
            archive.write(file)
    except OSError as wrong:
        raise Unavailable("write", str(target), f"{wrong.filename or ''}: {wrong.strerror}") from None


def copy_kernel(kernel: Kernel, target: Path) -> None:
    """Copy the kernel's file. Raises Unavailable."""
    try:
        shutil.copyfile(kernel.image, target)
    except OSError as wrong:
        raise Unavailable("copy", str(kernel.image), wrong.strerror or str(wrong)) from None


def make_disk(target: Path, size_bytes: int) -> None:
    """Make a sparse file with an empty ext4. Raises NotFound without mkfs.ext4, Unavailable with what it said."""
    program = shutil.which("mkfs.ext4", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if program is None:
        raise NotFound(
            "find", "mkfs.ext4", "there is no mkfs.ext4, which makes the machine's disk", hint="install e2fsprogs"
        )
    with target.open("xb") as file:
        file.truncate(size_bytes)
    done = subprocess.run(
        [program, "-q", "-F", "-m", "0", "-E", "lazy_itable_init=1,nodiscard", str(target)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Unavailable("make", str(target), done.stderr.strip()[-500:], hint="is there enough space?")


def _add_python(archive: Archive, closure: Closure) -> None:
    interpreter = _interpreter()
    closure.add_program(interpreter)
    stdlib = Path(os.__file__).parent
    archive.tree(stdlib, str(stdlib), _STDLIB_UNUSED)
    extensions = Path(sysconfig.get_path("platstdlib", vars={"platbase": sys.base_exec_prefix}), "lib-dynload")
    if not extensions.is_relative_to(stdlib):
        archive.tree(extensions, str(extensions))
    for path in extensions.glob("*.so"):
        try:
            closure.add_program(str(path))
        except OrlopError:
            continue  # a module whose library is not here can't be imported here either
    archive.link("/usr/bin/python3", interpreter)


def _add_orlop(archive: Archive) -> None:
    """Add the package with what it compiles to, so that a slow machine need not; and its programs."""
    package = Path(__file__).resolve().parents[2]
    suffix = f".{sys.implementation.cache_tag}.pyc"
    unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH  # nothing in the machine changes sources
    with tempfile.TemporaryDirectory() as directory:
        compiled = f"{directory}/module"
        for source in sorted(package.rglob("*")):
            where = f"{HOME}/{source.relative_to(package.parent)}"
            if "__pycache__" in source.parts or not source.is_file():
                continue
            archive.file(where, source)
            if source.suffix == ".py":
                py_compile.compile(str(source), compiled, where, doraise=True, invalidation_mode=unchecked)
                data = Path(compiled).read_bytes()
                archive.file(f"{os.path.dirname(where)}/__pycache__/{source.stem}{suffix}", data)
    for path, module, name in (
        ("/init", "orlop.frontends.machine.guest", "main"),
        ("/usr/bin/orlop", "orlop.frontends.cli.main", "entry"),
    ):
        script = _SCRIPT.format(interpreter=_interpreter(), home=HOME, module=module, name=name)
        archive.file(path, script.encode(), 0o755)


def _add_modules(archive: Archive, kernel: Kernel) -> None:
    order: dict[str, None] = {}
    needs = modules.dependencies(kernel.modules, (*_OF_THE_MACHINE, *modules.FOR_CONTAINERS))
    for name in (*_OF_THE_MACHINE, *modules.FOR_CONTAINERS):
        if name in needs:
            order.update(dict.fromkeys((*needs[name], name)))
    for name in order:
        archive.file(f"/lib/modules/{name}.ko", modules.read(kernel.modules[name]))
    archive.file(MODULES_FILE, "".join(f"{name}.ko\n" for name in order).encode())


def _interpreter() -> str:
    return os.path.realpath(sys.executable)


def check_architecture() -> None:
    """Raise Invalid on what machines are not made for yet."""
    if platform.machine() != "x86_64":
        cause = f"they are made for x86-64, and this is {platform.machine()}"
        raise Invalid("make", "machines", cause, hint="use this machine's own engine: orlop serve")
