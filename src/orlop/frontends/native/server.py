"""The engine's native socket: requests in, verbs of the engine, results and errors out. Decides nothing.

    poll loop (one thread)   accepts, checks the peer, gathers requests without waiting for any of them
    workers (one a request)  parse the request, call the verb, reply; then the connection goes back to the loop

Invariants:
1. Only the engine's own user and root are served, whatever the socket's mode came to be (SO_PEERCRED, I2).
2. A peer that sends nothing, or half a request, costs a descriptor and a buffer for a bounded time, and no thread.
3. Every descriptor that came with a request is closed here, unless the verb took it.
4. This is the one place where errors become JSON. What is no OrlopError is a defect: Internal, with an id that finds
   the traceback in the engine's log.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
import time

from ... import __version__, frozen
from ...engine import caller
from ...engine.engine import Engine, open_engine
from ...engine.log import Log
from ...spec import jsonio
from ...spec.errors import Conflict, Internal, Invalid, NotFound, OrlopError, Unavailable
from ..docker.serve import DockerDoors
from ..scoped.serve import ScopedDoors
from . import activation, rundir, wire
from .hosts import Hosts
from .incoming import Incoming
from .verbs import VERBS, Call, Reply, Verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...spec.paths import Paths

CONNECTIONS_MAX = 4096
WORKERS_MAX = 1024
WAITING_WORKERS_MAX = 768  # of those, at most so many in verbs that may last: the rest is for ps
BUFFERED_BYTES_MAX = 64 * 1024 * 1024  # of all requests that have not arrived wholly
REQUEST_S_MAX = 10.0  # from the first byte of a request to its last
REPLY_S_MAX = 60.0  # for a peer that does not read
SILENCE_S_MAX = 300.0  # between two requests of a connection
IDLE_S_DEFAULT = 300.0
SWEEP_S = 1.0
BACKLOG = 1024
STOP_S_MAX = 5.0  # for requests that are being worked on when the engine is stopped
READY = b"\n"
NEWER = "the client is newer than the engine: `orlop engine stop`, and again; what runs goes on"


class Connection:
    """One client. since: when it was accepted, ended its last request, or began the present one (monotonic)."""

    __slots__ = ("incoming", "since", "socket")

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.rest()

    def rest(self) -> None:
        """Be ready for the next request: the loop never waits for a peer."""
        self.incoming = Incoming()
        self.since = time.monotonic()
        self.socket.setblocking(False)

    def work(self) -> None:
        """Be ready for a reply: a worker waits for a peer, but not for ever."""
        self.socket.settimeout(REPLY_S_MAX)

    def close(self) -> None:
        self.incoming.close()
        self.socket.close()


class Server:
    """Serves one engine on one listening socket until `stop` is called or nobody needs it for idle_s seconds."""

    def __init__(
        self, engine: Engine, listener: socket.socket, idle_s: float | None, docker: DockerDoors | None = None
    ) -> None:
        self._engine = engine
        self._docker = docker
        self._scoped = ScopedDoors(engine, docker) if docker is not None else None
        self._listener = listener
        self._idle_s = idle_s
        self._uids = {os.geteuid(), 0}
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._stopping = False
        self._lock = threading.Lock()
        self._resting: dict[int, Connection] = {}
        self._queued: list[Connection] = []
        self._returned: list[Connection] = []
        self._buffered = 0
        self._workers = 0
        self._waiting = 0
        self._needed_at = time.monotonic()

    def stop(self) -> None:
        """Let `run` return. Safe in a signal handler."""
        self._stopping = True
        os.eventfd_write(self._wake, 1)

    def run(self) -> None:
        """Serve until stopped or idle, and let what is being worked on end, but for what waits for a container."""
        self._listener.setblocking(False)
        self._epoll.register(self._listener, select.EPOLLIN)
        self._epoll.register(self._wake, select.EPOLLIN)
        while not self._stopping and not self._is_idle():
            for fd, _ in self._epoll.poll(SWEEP_S):
                if fd == self._listener.fileno():
                    self._accept()
                elif fd == self._wake:
                    os.eventfd_read(self._wake)
                elif fd in self._resting:
                    self._heed(self._resting[fd])
            self._take_back()
            self._sweep()
        deadline = time.monotonic() + STOP_S_MAX
        while self._workers > self._waiting and time.monotonic() < deadline:
            time.sleep(0.01)

    def close(self) -> None:
        """Tell whoever is connected, or was about to be, that the engine leaves; the socket's name is gone by now."""
        stopping = Unavailable("reach", "the engine", "it is stopping", hint="try again")
        for connection in list(self._resting.values()):
            _send_error(connection.socket, stopping)
            self._drop(connection)
        if self._scoped is not None:
            self._scoped.close()
        while late := _accept_now(self._listener):
            _send_error(late, stopping)
            late.close()
        with self._lock:
            unheard = (*self._queued, *self._returned)
        for connection in unheard:  # whole requests that nobody began, and clients between two requests
            _send_error(connection.socket, stopping)
            connection.close()
        self._listener.close()
        self._epoll.close()

    # -- the loop ---------------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError as wrong:
            if not isinstance(wrong, BlockingIOError):
                self._engine.log.write(f"a connection could not be accepted: {wrong}")
                time.sleep(0.01)  # out of descriptors: the listener stays readable
            return
        pid, uid, _ = wire.peer_credentials(sock)
        if uid not in self._uids:
            self._engine.log.write(f"denied: process {pid} of uid {uid} connected to the engine's socket")
            sock.close()
            return
        if len(self._resting) >= CONNECTIONS_MAX:
            _send_error(sock, _too_busy("connections", CONNECTIONS_MAX))
            sock.close()
            return
        self._rest(Connection(sock))

    def _rest(self, connection: Connection) -> None:
        """Wait for the connection's next request. Edge-triggered: each arrival is one look, however slow they come."""
        fd = connection.socket.fileno()
        self._resting[fd] = connection
        self._epoll.register(fd, select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET)
        self._heed(connection)  # what is there already makes no edge

    def _heed(self, connection: Connection) -> None:
        """Take what a connection has sent; give a whole request to a worker."""
        incoming = connection.incoming
        before = incoming.size
        try:
            goes_on = incoming.take(connection.socket)
        except OrlopError as wrong:
            _send_error(connection.socket, wrong)
            self._drop(connection)
            return
        except OSError:
            goes_on = False
        self._buffered += incoming.size - before
        if not before and incoming.size:
            connection.since = time.monotonic()
        if incoming.whole:
            self._forget(connection)
            self._queued.append(connection)
            self._employ()
        elif not goes_on:
            if incoming.size:
                _send_error(connection.socket, Invalid("read", "the request", "the stream ended in the middle of it"))
            self._drop(connection)
        elif self._buffered > BUFFERED_BYTES_MAX:
            _send_error(connection.socket, _too_busy("bytes of unfinished requests", BUFFERED_BYTES_MAX))
            self._drop(connection)

    def _employ(self) -> None:
        with self._lock:
            while self._queued and self._workers < WORKERS_MAX:
                worker = threading.Thread(target=self._work, args=(self._queued[0],), name="worker", daemon=True)
                try:
                    worker.start()
                except RuntimeError:  # no more threads now; it stays in the queue
                    return
                self._workers += 1
                del self._queued[0]

    def _take_back(self) -> None:
        with self._lock:
            returned, self._returned = self._returned, []
        for connection in returned:
            self._rest(connection)
        self._employ()

    def _sweep(self) -> None:
        """Close connections that began a request and do not go on, and those that only sit there."""
        now = time.monotonic()
        if self._scoped is not None:
            self._scoped.tick()
        for connection in list(self._resting.values()):
            if now - connection.since > (REQUEST_S_MAX if connection.incoming.size else SILENCE_S_MAX):
                self._drop(connection)

    def _is_idle(self) -> bool:
        if self._resting or self._queued or self._workers or self._returned or self._is_needed():
            self._needed_at = time.monotonic()
        return self._idle_s is not None and time.monotonic() - self._needed_at > self._idle_s

    def _is_needed(self) -> bool:
        """Tell whether a container's end is awaited by somebody, or asks us to remove it."""
        if self._docker is not None and self._docker.busy:
            return True
        if self._scoped is not None and self._scoped.busy:
            return True
        watcher = self._engine.watcher
        if self._engine.waits or self._engine.owners.busy:
            return True
        if watcher.busy() or self._engine.boot.busy():
            return True
        for container_id in watcher.watching():
            try:
                if self._engine.records.load(container_id).request.auto_remove:
                    return True
            except OrlopError:
                continue
        return False

    def _forget(self, connection: Connection) -> None:
        fd = connection.socket.fileno()
        del self._resting[fd]
        self._epoll.unregister(fd)
        self._buffered -= connection.incoming.size

    def _drop(self, connection: Connection) -> None:
        self._forget(connection)
        connection.close()

    # -- the workers ------------------------------------------------------------------------------------------------

    def _work(self, connection: Connection) -> None:
        keep = False
        try:
            keep = self._serve(connection)
        except OSError:
            pass  # the client is gone, or too slow
        except BaseException as wrong:
            self._engine.log.exception("serving a request", wrong)
        finally:
            with self._lock:
                self._workers -= 1
                if keep:  # also when stopping: the end of the stream tells a client that the engine listens no more
                    connection.rest()
                    self._returned.append(connection)
                else:
                    connection.close()
            os.eventfd_write(self._wake, 1)

    def _serve(self, connection: Connection) -> bool:
        """Answer one request; tell whether the connection can take another."""
        sock = connection.socket
        connection.work()
        try:
            request = connection.incoming.parse()
        except Invalid as wrong:
            wire.send_error(sock, wrong)
            return False
        pid, uid, _ = wire.peer_credentials(sock)
        caller.note(pid, uid)
        call = Call(self._engine, request.args, request.fds, sock.fileno(), self.stop)
        try:
            return self._answer(sock, request.verb, call)
        except OrlopError as wrong:
            wire.send_error(sock, wrong)
        except OSError:
            raise
        except Exception as wrong:
            wire.send_error(sock, self._confess(request.verb, wrong))
        finally:
            for fd in call.fds:
                os.close(fd)
        return True

    def _answer(self, sock: socket.socket, name: str, call: Call) -> bool:
        verb = VERBS.get(name)
        if verb is None:
            cause = f"there is no verb {name[:60]!r}"
            raise NotFound("do", repr(name[:60]), cause, hint=NEWER)
        if not verb.lasts:
            return _send_reply(sock, self._call(verb, name, call))
        with self._lock:
            if self._waiting >= WAITING_WORKERS_MAX:
                raise _too_busy("clients that wait", WAITING_WORKERS_MAX)
            self._waiting += 1
        try:
            return _send_reply(sock, self._call(verb, name, call))
        finally:
            with self._lock:
                self._waiting -= 1

    def _call(self, verb: Verb, name: str, call: Call) -> Reply:
        try:
            return verb.call(call)
        except OSError as wrong:
            raise self._confess(name, wrong) from None  # not the client's connection: a verb let it through

    def _confess(self, name: str, wrong: Exception) -> Internal:
        reference = self._engine.log.exception(f"verb {name}", wrong)
        hint = f"report it with the lines of {self._engine.paths.engine_log} that name {reference}"
        return Internal("do", name, f"a defect of the engine, error {reference}: {wrong}", hint=hint)


def serve(
    paths: Paths,
    lock: int,
    ready: int | None = None,
    idle_s: float | None = IDLE_S_DEFAULT,
    hosts: Hosts | None = None,
) -> int:
    """Run the engine of these directories until it is stopped, interrupted, or idle; return the exit status.

    lock: the descriptor of rundir.claim or lock_engine, held until the end. ready: a pipe that gets READY once the
    socket listens, or the error as JSON; it is closed. idle_s: None never leaves. hosts: where else docker's API is.
    """
    try:
        _check_lock(paths, lock)
        data = rundir.claim_data(paths.root, paths.run)
        try:
            with Log(paths.engine_log) as log:
                return _serve(paths, log, ready, idle_s, hosts or Hosts())
        finally:
            os.close(data)
    except OrlopError as wrong:
        if ready is None:
            raise
        _report(ready, jsonio.dump(wrong.to_json()))
        return wrong.exit_code
    finally:
        os.close(lock)


def _renew(docker: DockerDoors, hosts: Hosts, log: Log) -> None:
    """Serve with certificates as they are now. All else that files say is read when it is needed."""
    try:
        for name, tls in hosts.renewed():
            docker.renew(name, tls)
        log.write("certificates were read again")
    except OrlopError as wrong:
        log.write(f"certificates stay as they were: {wrong}")


def _serve(paths: Paths, log: Log, ready: int | None, idle_s: float | None, hosts: Hosts) -> int:
    log.catch_threads()
    engine = open_engine(paths, log)
    _raise_descriptor_limit()  # after the spawner was started: containers have the limit that we were given
    try:
        own = [hosts.take(place) for place in (paths.docker_socket, paths.engine_socket)]
        beside = hosts.listeners()
        docker = DockerDoors(engine)
        docker.open(paths.docker_socket, own[0] or _listen(paths, paths.docker_socket))
        for name, listener, tls in beside:
            docker.open(name, listener, tls=tls)
        server = Server(engine, own[1] or _listen(paths, paths.engine_socket), idle_s, docker)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: server.stop())
        # Of a terminal that is gone it is the end; else dockerd's users send it to have settings read again.
        has_terminal = os.isatty(0)
        signal.signal(signal.SIGHUP, lambda *_: server.stop() if has_terminal else _renew(docker, hosts, log))
        log.write(f"engine {__version__} serves {paths.engine_socket}, process {os.getpid()}")
        if ready is not None:
            _report(ready, READY)
        activation.notify(os.environ, "READY=1")
        frozen.freeze()  # what a start imports; more would stay in memory
        try:
            server.run()
        finally:
            activation.notify(os.environ, "STOPPING=1")
            # What systemd bound stays: it listens on, and starts the next engine when a client comes.
            for place, offered in zip((paths.docker_socket, paths.engine_socket), own, strict=True):
                if offered is None:
                    os.unlink(place)
            for name in hosts.names:
                if name.startswith("unix://"):
                    os.unlink(name.removeprefix("unix://"))
            docker.close()
            server.close()
    finally:
        engine.close()
        log.write("engine stopped")
    return 0


def _check_lock(paths: Paths, lock: int) -> None:
    """Raise Conflict when the lock is not that of these directories: two engines would share them."""
    try:
        same = os.path.samestat(os.fstat(lock), os.stat(paths.engine_lock))
    except OSError:
        same = False
    if not same:
        cause = "the lock that came with the start is another one's"
        raise Conflict("start", f"an engine in {paths.run}", cause, hint="start it with: orlop serve")


def _listen(paths: Paths, place: str) -> socket.socket:
    """Return a listening socket at a place in the engine's own directory. Raises Unavailable."""
    directory = rundir.open_private(paths.run, create=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    name = rundir.socket_path(directory, os.path.basename(place))
    try:
        try:
            os.unlink(name)  # of an engine that was killed: the lock says that it is gone
        except FileNotFoundError:
            pass
        mask = os.umask(0o177)
        try:
            listener.bind(name)
        finally:
            os.umask(mask)
        listener.listen(BACKLOG)
    except OSError as wrong:
        listener.close()
        hint = "set ORLOP_RUN to a directory of yours on a local file system"
        raise Unavailable("listen on", place, wrong.strerror or str(wrong), hint=hint) from None
    finally:
        os.close(directory)
    return listener


def _report(ready: int, data: bytes) -> None:
    try:
        os.write(ready, data)
    except OSError:
        pass  # whoever started us did not wait
    finally:
        os.close(ready)


def _send_reply(sock: socket.socket, reply: Reply) -> bool:
    try:
        wire.send_result(sock, reply.result, reply.fds)
    finally:
        for fd in reply.fds:
            os.close(fd)
    if reply.stream is None:
        return True
    sock.settimeout(None)  # whoever reads a log may stop for a while: a pager does
    for piece in reply.stream:
        sock.sendall(piece)
    return False


def _accept_now(listener: socket.socket) -> socket.socket | None:
    try:
        return listener.accept()[0]
    except OSError:
        return None


def _send_error(sock: socket.socket, error: OrlopError) -> None:
    try:
        wire.send_error(sock, error)
    except OSError:
        pass


def _too_busy(what: str, limit: int) -> Unavailable:
    return Unavailable("serve", "the request", f"the engine has {limit} {what} already", hint="try again later")


def _raise_descriptor_limit() -> None:
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
