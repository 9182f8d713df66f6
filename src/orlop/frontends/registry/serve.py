"""`orlop registry serve` as a process: listen, serve, sweep now and then, leave on a signal."""

from __future__ import annotations

import signal
import socket
import ssl
import sys
import threading

from ...image.repositories import Repositories, Rules, Swept
from ...spec.errors import Invalid, OrlopError, Unavailable
from ...spec.reference import Reference
from ...spec.registry import ANONYMOUS
from ..http import Server
from ..http.pages import is_loopback
from .auth import Anyone, Basic, Passwords, Tokens
from .door import Door, Registry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ...image.registry import Repository
    from ...image.repositories.cache import Cache
    from .auth import Check


SOON_S = 1.0


class Options:
    """What the command line says. tls: (certificate chain, key), paths of PEM files. sweep_s 0: never.

    hosts: names that it may be asked for by, where it is served without TLS; on this machine alone its own are known.
    cache_of: the registry whose cache this is; config: where certs.d of it lies; credentials: who we are there.
    """

    __slots__ = (
        "access_log",
        "address",
        "anonymous_pull",
        "cache_of",
        "config",
        "credentials",
        "deletes",
        "hosts",
        "htpasswd",
        "root",
        "rules",
        "sweep_s",
        "tls",
        "tokens",
    )

    def __init__(self, address: str, root: str, rules: Rules) -> None:
        self.address = address
        self.root = root
        self.rules = rules
        self.htpasswd = ""
        self.tokens = False
        self.anonymous_pull = False
        self.deletes = True
        self.hosts: tuple[str, ...] = ()
        self.tls: tuple[str, str] | None = None
        self.cache_of = ""
        self.config = root
        self.credentials = ANONYMOUS
        self.sweep_s = 3600.0
        self.access_log = False


def serve(options: Options, told: Callable[[str], None]) -> None:
    """Serve until SIGTERM, SIGINT or SIGHUP; SIGUSR1 sweeps at once. told: called with the address once it is reached.

    Raises Invalid, Conflict, Unavailable when it can't begin.
    """
    auth = _auth(options)
    tls = _tls(*options.tls) if options.tls else None
    listener = _listen(options.address)
    try:
        repositories = Repositories(options.root, options.rules)
    except OrlopError:
        listener.close()
        raise
    note = _log if options.access_log else None
    sweeper = _Sweeper(repositories, options.sweep_s)
    cache = _cache(options, repositories, sweeper.soon) if options.cache_of else None
    # A page of any name can be made to lead to it (DNS rebinding), and a network's registry has names we do not know.
    is_bound = tls is None and (is_loopback(options.address) or options.hosts)
    registry = Registry(
        repositories,
        auth,
        deletes=options.deletes,
        tls=tls is not None,
        note=note,
        cache=cache,
        hosts=options.hosts if is_bound else None,
    )
    registry.emptied = sweeper.soon
    server = Server(listener, Door, registry, tls)
    signals = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # before the threads, which inherit it
    threads = [threading.Thread(target=server.serve), threading.Thread(target=sweeper.run)]
    for thread in threads:
        thread.start()
    try:
        host = options.address.rpartition(":")[0] or "0.0.0.0"
        told(f"http{'s' if tls else ''}://{host}:{server.port}")
        while signal.sigwait(signals) == signal.SIGUSR1:
            sweeper.now()
    finally:
        sweeper.stop()
        if cache is not None:
            cache.close()
        server.stop()
        for thread in threads:
            thread.join()
        repositories.close()


class _Sweeper:
    """Sweeps every so many seconds, and when told to."""

    def __init__(self, repositories: Repositories, every_s: float) -> None:
        self._repositories = repositories
        self._every_s = every_s or None
        self._wake = threading.Event()
        self._asked = False
        self._stopping = threading.Event()

    def run(self) -> None:
        while True:
            self._wake.wait(self._every_s)
            self._wake.clear()
            asked, self._asked = self._asked, False
            if not asked:
                self._stopping.wait(SOON_S)  # one sweep for all that changes meanwhile
            if self._stopping.is_set():
                return
            try:
                _log_sweep(self._repositories.sweep(), asked)
            except OrlopError as wrong:
                _log(f"the sweep failed: {wrong}")

    def now(self) -> None:
        self._asked = True
        self._wake.set()

    def soon(self) -> None:
        self._wake.set()

    def stop(self) -> None:
        self._stopping.set()
        self._wake.set()


def _cache(options: Options, repositories: Repositories, crowded: Callable[[], None]) -> Cache:
    from ...engine.images.registries import Registries
    from ...image.repositories.cache import Cache

    registries = Registries(options.config, repositories.store)

    def places(name: str) -> Sequence[Repository]:
        return registries.to_pull(Reference.parse(f"{options.cache_of}/{name}"), options.credentials)

    places("any/name")  # that its configuration is broken is said now
    return Cache(repositories, options.cache_of, places, crowded)


def _auth(options: Options) -> Check:
    if not options.htpasswd:
        if options.tokens or options.anonymous_pull:
            hint = f"make one with: orlop registry user --root {options.root} add NAME; or name a file with --htpasswd"
            raise Invalid("serve", "the registry", "it has no users", hint=hint)
        return Anyone()
    passwords = Passwords(options.htpasswd)
    if options.tokens:
        return Tokens(passwords, anonymous_pull=options.anonymous_pull)
    return Basic(passwords, anonymous_pull=options.anonymous_pull)


def _tls(certificate: str, key: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key)
    except OSError as wrong:  # ssl.SSLError too
        raise Invalid("use", f"the certificate {certificate}", wrong.strerror or str(wrong)) from None
    return context


def _listen(address: str) -> socket.socket:
    host, colon, port = address.rpartition(":")
    host = host.strip("[]")
    if not (colon and port.isascii() and port.isdecimal() and len(port) <= 5 and int(port) <= 65535):
        raise Invalid("listen on", address, "it is not of the form HOST:PORT", hint="write it like 127.0.0.1:5000")
    try:
        found = socket.getaddrinfo(host or None, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, where = found[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as wrong:
        raise Unavailable("listen on", address, wrong.strerror or str(wrong)) from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
    except OSError as wrong:
        listener.close()
        raise Unavailable(
            "listen on", address, wrong.strerror or str(wrong), hint="choose another port with --address"
        ) from None
    return listener


def _log_sweep(swept: Swept, asked: bool) -> None:
    if asked or swept.blobs or swept.links or swept.manifests or swept.tags:
        what = f"{swept.tags} tags, {swept.manifests} manifests, {swept.links} links, {swept.blobs} blobs"
        _log(f"swept {what}: {swept.bytes} bytes")


def _log(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
