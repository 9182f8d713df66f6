"""The way to registries: connections, what is on its way, and which place holds a repository."""

from __future__ import annotations

import os
import select
import threading
from contextlib import contextmanager

from ...image.download import Downloads
from ...image.registry import Hosts, Remote, Repository, Transport
from ...image.registry.hosts import PULL, PUSH, RESOLVE
from ...image.registry.proxy import Proxies
from ...spec.errors import Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...content import Store
    from ...image.registry.hosts import Endpoint
    from ...spec.reference import Reference
    from ...spec.registry import Credentials


class Registries:
    """What all pulls and pushes of one engine share."""

    def __init__(self, root: str, store: Store) -> None:
        self.transport = Transport(Proxies(os.environ))
        self.downloads = Downloads(store)
        self._root = root

    def hosts(self) -> Hosts:
        """Return the configuration of registries, as its files are now."""
        return Hosts.of_user(self._root, os.environ)

    def to_pull(self, reference: Reference, credentials: Credentials) -> list[Repository]:
        """Return the places to pull a reference from, in turn. Raises Unavailable when there are none."""
        wanted = {PULL} if reference.digest is not None else {PULL, RESOLVE}
        endpoints = [one for one in self.hosts().endpoints(reference) if wanted <= one.capabilities]
        if not endpoints:
            raise _nowhere("pull", reference)
        return [Repository(self._remote(one, credentials), reference.familiar_name) for one in endpoints]

    def to_push(self, reference: Reference, credentials: Credentials, sources: frozenset[str]) -> Repository:
        """Return the place to push to. sources: repositories of the same registry that blobs may be mounted from."""
        for endpoint in reversed(self.hosts().endpoints(reference)):
            if PUSH in endpoint.capabilities:
                remote = self._remote(endpoint, credentials)
                return Repository(remote, reference.familiar_name, push=True, mount_from=sources)
        raise _nowhere("push", reference)

    def _remote(self, endpoint: Endpoint, credentials: Credentials) -> Remote:
        # A mirror never sees the credentials of the registry that it mirrors (SEC-46), only those kept for itself.
        return Remote(self.transport, endpoint, credentials.at(endpoint.host) if endpoint.is_mirror else credentials)


def _nowhere(verb: str, reference: Reference) -> Unavailable:
    hint = "look at registries.conf and hosts.toml"
    return Unavailable(verb, reference.familiar, f"its configuration names no place to {verb} it", hint=hint)


@contextmanager
def cancelled_at(hangup: int, cancel: threading.Event) -> Iterator[None]:
    """Set an event when the client at this socket (-1: nobody) goes away, as long as the context lasts."""
    if hangup < 0:
        yield
        return
    done = os.eventfd(0, os.EFD_CLOEXEC)

    def watch() -> None:
        poll = select.poll()
        poll.register(done, select.POLLIN)
        poll.register(hangup, select.POLLRDHUP)
        if any(fd == hangup for fd, _ in poll.poll()):
            cancel.set()

    watcher = threading.Thread(target=watch, name="hangup", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        os.eventfd_write(done, 1)
        watcher.join()
        os.close(done)
