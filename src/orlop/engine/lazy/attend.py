"""Looking after the servers of layers: what becomes of an image is told, and one that was killed is started again."""

from __future__ import annotations

import os
import select
import threading
import time

from ...linux import process
from ...spec.errors import OrlopError
from .. import events
from . import servers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...spec.digest import Digest
    from ...spec.registry import Credentials
    from ..engine import Engine
    from .orders import Orders

LOOK_S = 1.0
AGAIN_S = (0.0, 2.0, 5.0, 15.0, 30.0, 60.0)  # pauses before the tries to have an image served again; then the last one
# (data directory, manifest): what its client gave for it; in memory only
credentials: dict[tuple[str, Digest], Credentials] = {}


def start(engine: Engine, orders: Orders, chain_id: Digest) -> None:
    """Start a server of an image whose topmost layer that is. Raises what it says, Unavailable."""
    digest = orders.manifest.digest
    servers.start(orders, lambda pid: attend(engine, pid, digest, chain_id))


def attend(engine: Engine, pid: int, manifest: Digest, chain_id: Digest | None) -> None:
    """See to a server, on a thread, until it ends; have the image served again when it was killed."""
    first = _open(pid)
    name = f"lazy {manifest.short}"
    threading.Thread(target=_attend, args=(engine, first, pid, manifest, chain_id), name=name, daemon=True).start()


def again(engine: Engine, chain_id: Digest) -> None:
    """Try, on a thread, to have an image served again, until it is, is here, or nobody wants it any more."""
    threading.Thread(target=_again, args=(engine, chain_id), name="lazy again", daemon=True).start()


def _attend(engine: Engine, pidfd: int, pid: int, manifest: Digest, chain_id: Digest | None) -> None:
    directory = servers.directory_of(engine, manifest)
    seen, is_whole = servers.trouble(directory), False
    while True:
        while pidfd >= 0 and not _ended(pidfd, None if is_whole else LOOK_S):
            trouble = servers.trouble(directory)
            if trouble and trouble != seen:
                seen = trouble
                tell(engine, manifest, "read_error", trouble)
            is_whole = _tell_whole(engine, manifest, chain_id)
        if pidfd >= 0:
            os.close(pidfd)
        try:
            os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            pass  # an earlier engine's, or the child of one that was killed
        last, pid = pid, servers.owner(directory)
        if not pid:
            break
        if pid == last:
            time.sleep(LOOK_S)  # its child has not written down yet that it is the one now
        pidfd = _open(pid)
    is_whole = is_whole or _tell_whole(engine, manifest, chain_id)
    with servers.starting:  # the next one, which has not locked the directory yet, is not what is cleared away
        was_killed = os.path.isdir(directory) and not servers.lives(directory)
        cause = servers.trouble(directory)
        if was_killed:
            servers.clear(directory)
    if was_killed:
        engine.log.write(f"the server of {directory} was killed: who reads from it fails. {cause}".strip())
    if was_killed and not is_whole and chain_id is not None:
        tell(engine, manifest, "interrupted", cause)
        _again(engine, chain_id)


def _again(engine: Engine, chain_id: Digest) -> None:
    from . import verb

    number, told = 0, ""
    while any(image.chain_id == chain_id and image.names for image in engine.images.list()):
        time.sleep(AGAIN_S[min(number, len(AGAIN_S) - 1)])
        try:
            verb.ensure(engine, chain_id)
            return
        except OrlopError as wrong:
            if str(wrong) != told:
                told = str(wrong)
                engine.log.write(told)
        number += 1


def _tell_whole(engine: Engine, manifest: Digest, chain_id: Digest | None) -> bool:
    """Say so when all of an image is here."""
    if chain_id is None or not engine.snapshots.has(chain_id):
        return False
    credentials.pop((engine.paths.root, manifest), None)
    tell(engine, manifest, "whole")
    return True


def _ended(pidfd: int, timeout_s: float | None) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(None if timeout_s is None else timeout_s * 1000))


def _open(pid: int) -> int:
    try:
        return process.pidfd_open(pid) if pid > 0 else -1
    except ProcessLookupError:
        return -1


def tell(engine: Engine, manifest: Digest, action: str, cause: str = "") -> None:
    """Tell what became of an image: partial, whole, read_error, interrupted."""
    found = next((image for image in engine.images.list() if image.manifest.digest == manifest), None)
    name = found.names[0] if found is not None and found.names else str(manifest)
    attributes = {"name": name, "image": str(found.id) if found is not None else ""}
    attributes |= {"cause": cause} if cause else {}
    events.publish(engine, events.IMAGE, action, name, attributes)
