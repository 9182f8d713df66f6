"""What the engine does about images that run before they are here: starts their servers, finds them, waits for them.

A server's directory is <ORLOP_RUN>/lazy/<beginning of the manifest's digest>; whoever holds the lock in it lives.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import threading
import time

from ...linux import fuse, mount, process
from ...snapshot import lent
from ...spec import jsonio
from ...spec.errors import NotFound, OrlopError, Unavailable, from_json
from ...spec.image import Manifest, chain_ids, parse_manifest
from ...spec.tar.estargz import TOC_DIGEST
from .orders import ANSWER_FD, DIRECTORY, LOCK, MANIFEST, MOUNTED, ORDERS_FD, TROUBLE, Answer, Orders, remove_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from ...content.leases import Lease
    from ...image.pull import Chosen, Pull
    from ...spec.digest import Digest
    from ...spec.image import Descriptor
    from ...spec.registry import Credentials
    from ..engine import Engine

    Message = dict[str, object]

ANSWER_BYTES_MAX = 64 * 1024
NOTHING_CAME_S_MAX = 120.0
_POLL_S = 0.1
_PACKAGE_PARENT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
_BOOTSTRAP = "import sys; sys.path.insert(0, sys.argv[1]); from orlop.engine.lazy import server; server.main()"
_starting = threading.Lock()


def pull(engine: Engine, pulling: Pull, credentials: Credentials, lease: Lease) -> Generator[Message, None, bool]:
    """Let an image run before its layers are here, and give it its name; yield docker's messages.

    Returns False where that can't be, after it said why: then it is pulled the ordinary way. Raises OrlopError.
    """
    reference = pulling.reference
    target, one = pulling.describe(lease)
    assert one.config is not None  # `describe` has seen to it
    chain = chain_ids(one.config.rootfs.diff_ids)
    lease.add(*(layer.digest for layer in one.manifest.layers), *chain)
    missing = [number for number, chain_id in enumerate(chain) if not engine.snapshots.has(chain_id)]
    here = (engine.store.stat(layer.digest) == layer.size for layer in one.manifest.layers)
    if all(here) and not missing:
        return False
    try:
        _check(engine, one, missing)
        with _starting:
            if not lent.can_run(engine.snapshots, chain[-1]):
                orders = Orders(
                    root=engine.paths.root,
                    run=engine.paths.run,
                    directory=_directory(engine, one.descriptor.digest),
                    reference=str(reference.replace(tag="", digest=target.digest)),
                    platform=str(one.config.platform),
                    manifest=one.descriptor,
                    credentials=credentials,
                )
                _start(engine, orders)
    except OrlopError as wrong:
        yield {"status": f"Not lazily: {wrong.cause}"}
        return False
    yield {"status": f"Pulling from {reference.path}", "id": str(reference.digest or reference.tag)}
    for number, layer in enumerate(one.manifest.layers):
        status = "Read from the registry when it is wanted" if number in missing else "Already exists"
        yield {"status": status, "progressDetail": {}, "id": layer.digest.short}
    engine.store.names.put(reference, target)
    yield {"status": f"Digest: {target.digest}"}
    yield {"status": f"Status: Runs before it is here: {reference.familiar}"}
    return True


def _check(engine: Engine, one: Chosen, missing: list[int]) -> None:
    """Raise Unavailable for what can't be read in part here."""
    cause = ""
    if not engine.host.runtime.initial_user_namespace:
        cause = "the kernel mounts EROFS for root of the machine only"
    elif engine.snapshots.driver.name != "overlay2":
        cause = f"the storage driver {engine.snapshots.driver.name} has no place for it"
    elif not os.access(fuse.DEVICE, os.R_OK | os.W_OK) or not mount.has_filesystem("erofs"):
        cause = "this kernel has no FUSE or no EROFS"
    for number in missing:
        layer = one.manifest.layers[number]
        if TOC_DIGEST not in layer.annotations:
            cause = cause or f"its manifest names no table of contents for layer {layer.digest.short}"
    if cause:
        raise Unavailable("read", "the image in part", cause)


def _directory(engine: Engine, digest: Digest) -> str:
    return f"{engine.paths.run}/{DIRECTORY}/{digest.hex[:32]}"


def _start(engine: Engine, orders: Orders) -> None:
    """Start a server and wait until its layers can be mounted. Raises what it says, Unavailable."""
    if _lives(orders.directory):
        cause = "the one that served it is about to end"
        raise Unavailable("serve", orders.reference, cause, hint="try again")
    _clear(orders.directory)
    os.makedirs(orders.directory, 0o700)
    with open(f"{orders.directory}/{MANIFEST}", "wb") as file:
        file.write(jsonio.dump(orders.manifest.to_json()))
    told, tell = os.pipe2(os.O_CLOEXEC)
    heard, answer = os.pipe2(os.O_CLOEXEC)
    try:
        pid = _spawn(told, answer)
        _attend(engine, pid, orders.directory)
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


# -- those that run -------------------------------------------------------------------------------------------------


def servers(run: str) -> Iterator[str]:
    """Yield the directories of servers, living or dead."""
    try:
        names = os.listdir(f"{run}/{DIRECTORY}")
    except FileNotFoundError:
        return
    for name in names:
        yield f"{run}/{DIRECTORY}/{name}"


def take_up(engine: Engine) -> None:
    """Clear away servers that died, and what they served that is whole by now or that nobody stands on."""
    for directory in servers(engine.paths.run):
        pid = _owner(directory)
        if pid > 0:
            _attend(engine, pid, directory)
        else:
            _clear(directory)
    root = engine.snapshots.root
    used = engine.snapshots.in_use()
    for chain_id in lent.lent(root):
        if engine.snapshots.has(chain_id):
            lent.settle(root, chain_id)
        elif not lent.is_served(root, chain_id) and chain_id not in used:
            lent.forget(root, chain_id)


def _attend(engine: Engine, pid: int, directory: str) -> None:
    """Wait, on a thread, for a server's end; clear away what one that was killed has left."""
    try:
        pidfd = process.pidfd_open(pid)
    except ProcessLookupError:
        pidfd = -1

    def attend() -> None:
        if pidfd >= 0:
            process.wait_pidfd(pidfd)
            os.close(pidfd)
        try:
            os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            pass  # an earlier engine's
        if os.path.isdir(directory) and not _lives(directory):
            cause = trouble(directory)
            engine.log.write(f"the server of {directory} was killed: who reads from it fails. {cause}".strip())
            _clear(directory)

    threading.Thread(target=attend, name="lazy server", daemon=True).start()


def awaited(engine: Engine, digest: Digest) -> bool:
    """Wait for a layer's blob that a server brings. False where none does. Raises Unavailable when nothing comes."""
    directory = brings(engine, digest)
    if not directory:
        return False
    came_at, seen = time.monotonic(), -1
    while not os.path.exists(engine.store.path(digest)) and _lives(directory):
        coming = engine.store.coming(digest)
        if coming != seen:
            came_at, seen = time.monotonic(), coming
        if time.monotonic() > came_at + NOTHING_CAME_S_MAX:
            cause = trouble(directory) or "nothing comes from its registry"
            raise Unavailable("read", f"blob {digest}", cause, hint="pull the image again")
        time.sleep(_POLL_S)
    return os.path.exists(engine.store.path(digest))


def brings(engine: Engine, digest: Digest) -> str:
    """Return the directory of the living server that brings a layer's blob, "" for none."""
    found = servers(engine.paths.run)
    return next((one for one in found if _lives(one) and digest in _layers(engine, one)), "")


def await_whole(engine: Engine, chain_id: Digest) -> None:
    """Wait until a layer and all below it are unpacked. Raises Unavailable when nobody brings them."""
    while not engine.snapshots.has(chain_id):
        if not any(map(_lives, servers(engine.paths.run))):
            if engine.snapshots.has(chain_id):
                return
            cause = "its image is here in part only, and nobody brings the rest"
            raise Unavailable("read", f"layer {chain_id}", cause, hint="pull its image")
        time.sleep(_POLL_S)


def give_up(engine: Engine, manifest: Digest) -> None:
    """Let nobody bring an image any more whose name is gone; who runs from it goes on as far as that goes."""
    directory = _directory(engine, manifest)
    pid = _owner(directory)
    if pid:
        try:
            os.kill(pid, signal.SIGTERM)
        except ProcessLookupError:
            pass


def trouble(directory: str) -> str:
    """Return why a server's reads failed last, "" where none did."""
    try:
        with open(f"{directory}/{TROUBLE}", "rb") as file:
            return str(jsonio.parse_object(file.read(ANSWER_BYTES_MAX), "trouble").get("cause", ""))
    except (OSError, OrlopError):
        return ""


def _layers(engine: Engine, directory: str) -> set[Digest]:
    """Return the digests of the layers that a server brings."""
    from ...spec.image import Descriptor

    try:
        with open(f"{directory}/{MANIFEST}", "rb") as file:
            descriptor: Descriptor = Descriptor.from_json(jsonio.parse(file.read(ANSWER_BYTES_MAX), "a note"), "a note")
        data = engine.store.get(descriptor.digest)
        manifest = parse_manifest(data, descriptor.media_type, f"manifest {descriptor.digest}")
    except (FileNotFoundError, NotFound):
        return set()
    return {layer.digest for layer in manifest.layers} if isinstance(manifest, Manifest) else set()


def _lives(directory: str) -> bool:
    return _owner(directory) != 0


def _owner(directory: str) -> int:
    """Return the process that holds the lock of a directory, 0 for none."""
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


def _clear(directory: str) -> None:
    """Remove what a dead server left; mounts that containers have of it answer ENOTCONN already."""
    try:
        mount.umount2(f"{directory}/{MOUNTED}", mount.MNT_DETACH)
    except OSError:
        pass  # nothing is mounted there
    remove_directory(directory)
