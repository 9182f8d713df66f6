"""The servers of layers, as the engine sees them: where they live, whether they do, what they said last.

A server's directory is <ORLOP_RUN>/lazy/<beginning of the manifest's digest>; whoever holds the lock in it lives.
"""

from __future__ import annotations

import fcntl
import os
import sys
import threading

from ...linux import mount
from ...spec import jsonio
from ...spec.errors import NotFound, OrlopError, Unavailable, from_json
from ...spec.image import Descriptor, Manifest, parse_manifest
from .orders import ANSWER_FD, DIRECTORY, LOCK, MANIFEST, MOUNTED, ORDERS_FD, TROUBLE, Answer, remove_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ...spec.digest import Digest
    from ..engine import Engine
    from .orders import Orders

ANSWER_BYTES_MAX = 64 * 1024
_PACKAGE_PARENT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
_BOOTSTRAP = "import sys; sys.path.insert(0, sys.argv[1]); from orlop.engine.lazy import server; server.main()"

starting = threading.Lock()  # held while one is started, or cleared away


def directory_of(engine: Engine, manifest: Digest) -> str:
    """Return the directory of the server of an image."""
    return f"{engine.paths.run}/{DIRECTORY}/{manifest.hex[:32]}"


def directories(run: str) -> Iterator[str]:
    """Yield the directories of servers, living or dead."""
    try:
        names = os.listdir(f"{run}/{DIRECTORY}")
    except FileNotFoundError:
        return
    for name in names:
        yield f"{run}/{DIRECTORY}/{name}"


def manifest_of(directory: str) -> Digest | None:
    """Return which image a server serves, None where it has not said."""
    try:
        with open(f"{directory}/{MANIFEST}", "rb") as file:
            found = Descriptor.from_json(jsonio.parse(file.read(ANSWER_BYTES_MAX), "a note"), "a note")
    except (OSError, OrlopError):
        return None
    return found.digest


def start(orders: Orders, attend: Callable[[int], object]) -> None:
    """Start a server and wait until its layers can be mounted; attend: is told its process at once.

    Raises what it says, Unavailable.
    """
    if lives(orders.directory):
        cause = "the one that served it is about to end"
        raise Unavailable("serve", orders.reference, cause, hint="try again")
    clear(orders.directory)
    os.makedirs(orders.directory, 0o700)
    with open(f"{orders.directory}/{MANIFEST}", "wb") as file:
        file.write(jsonio.dump(orders.manifest.to_json()))
    told, tell = os.pipe2(os.O_CLOEXEC)
    heard, answer = os.pipe2(os.O_CLOEXEC)
    try:
        attend(_spawn(told, answer))
        os.close(told)
        os.close(answer)
        told = answer = -1
        with open(tell, "wb", closefd=False) as file:
            file.write(jsonio.dump(orders.to_json()))
        os.close(tell)
        tell = -1
        with open(heard, "rb", closefd=False) as file:
            data = file.read(ANSWER_BYTES_MAX)
    except BrokenPipeError:
        data = b""
    finally:
        for fd in (told, tell, heard, answer):
            if fd >= 0:
                os.close(fd)
    if not data:
        raise Unavailable("serve", orders.reference, "its server has ended without a word")
    error = Answer.from_json(jsonio.parse(data, "an answer"), "an answer").error
    if error:
        raise from_json(error)


def _spawn(told: int, answer: int) -> int:
    cache = ("-X", f"pycache_prefix={sys.pycache_prefix}") if sys.pycache_prefix else ()
    argv = [sys.executable, "-I", "-S", "-X", "utf8", *cache, "-c", _BOOTSTRAP, _PACKAGE_PARENT]
    high = max(told, answer, ANSWER_FD) + 1  # two steps, for a descriptor may be where another one is to go
    actions = [
        (os.POSIX_SPAWN_DUP2, told, high),
        (os.POSIX_SPAWN_DUP2, answer, high + 1),
        (os.POSIX_SPAWN_DUP2, high, ORDERS_FD),
        (os.POSIX_SPAWN_DUP2, high + 1, ANSWER_FD),
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDWR, 0),
        (os.POSIX_SPAWN_DUP2, 0, 1),
        (os.POSIX_SPAWN_DUP2, 0, 2),
    ]
    return os.posix_spawn(sys.executable, argv, os.environ, file_actions=actions, setsid=True)


def brings(engine: Engine, digest: Digest) -> str:
    """Return the directory of the living server that brings a layer's blob, "" for none."""
    found = directories(engine.paths.run)
    return next((one for one in found if lives(one) and digest in _layers(engine, one)), "")


def trouble(directory: str) -> str:
    """Return why a server's reads failed last, "" where none did."""
    try:
        with open(f"{directory}/{TROUBLE}", "rb") as file:
            return str(jsonio.parse_object(file.read(ANSWER_BYTES_MAX), "trouble").get("cause", ""))
    except (OSError, OrlopError):
        return ""


def _layers(engine: Engine, directory: str) -> set[Digest]:
    """Return the digests of the layers that a server brings."""
    try:
        with open(f"{directory}/{MANIFEST}", "rb") as file:
            descriptor: Descriptor = Descriptor.from_json(jsonio.parse(file.read(ANSWER_BYTES_MAX), "a note"), "a note")
        data = engine.store.get(descriptor.digest)
        manifest = parse_manifest(data, descriptor.media_type, f"manifest {descriptor.digest}")
    except (FileNotFoundError, NotFound):
        return set()
    return {layer.digest for layer in manifest.layers} if isinstance(manifest, Manifest) else set()


def lives(directory: str) -> bool:
    """Tell whether a server lives."""
    return owner(directory) != 0


def owner(directory: str) -> int:
    """Return the process that holds the lock of a directory, 0 for none, -1 for one that has not said its number."""
    try:
        fd = os.open(f"{directory}/{LOCK}", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return 0
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return 0
    except BlockingIOError:
        return int(os.pread(fd, 20, 0) or b"0") or -1
    finally:
        os.close(fd)


def clear(directory: str) -> None:
    """Remove what a dead server left; mounts that containers have of it answer ENOTCONN already."""
    try:
        mount.umount2(f"{directory}/{MOUNTED}", mount.MNT_DETACH)
    except OSError:
        pass  # nothing is mounted there
    remove_directory(directory)
