"""The one process that a machine that is on has on this side: its emulator's parent, its sockets' server.

    python -I -S -c ... ROOT RUN NAME READY   reports on descriptor READY: a byte when the machine is ready, or an error

SIGTERM switches the machine off, and it ends as a machine does. SIGKILL ends both at once: the lock is free with the
last of them, the disk's journal makes it whole, and sockets without a server are replaced at the next start.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time

from ...linux import pidfd
from ...spec import errors, jsonio
from ...spec.paths import Paths
from ...supervise.loop import READ, Loop
from ..native.wire import peer_credentials
from . import emulator
from .store import DOCKER, SHELL, Place
from .streams import Links

START_S_MAX = 300.0  # an emulated machine on a busy one
POWER_OFF_S_MAX = 30.0
SILENT_S_MAX = 8.0  # a kernel says its first word within one: where there is none, /dev/kvm is there and does not work
CONSOLE_BYTES_MAX = 1024 * 1024
READY = b"\n"
_TAIL_BYTES = 1500
_SERVICES = {DOCKER: "docker", SHELL: "shell"}
BOOTSTRAP = "import sys; sys.path.append(sys.argv.pop(1)); from orlop.frontends.machine.owner import main; main()"


def main() -> None:
    """Own a machine until it is off."""
    paths, name, ready = Paths(sys.argv[1], sys.argv[2]), sys.argv[3], int(sys.argv[4])
    os.set_inheritable(ready, False)
    try:
        owner = _Owner(Place(paths, name))
        owner.boot()
    except errors.OrlopError as wrong:
        os.write(ready, jsonio.dump(wrong.to_json()))
        sys.exit(1)
    os.write(ready, READY)
    os.close(ready)
    owner.serve()


class _Owner:
    def __init__(self, place: Place) -> None:
        self._place = place
        self._machine = place.read()
        lock = place.lock()
        if lock is None:
            raise errors.Conflict(
                "start", f"machine {place.name}", "it is on", hint="orlop machine ls shows its socket"
            )
        os.ftruncate(lock, 0)
        os.write(lock, f"{os.getpid()} {pidfd.start_time(os.getpid())}\n".encode())
        self._lock = lock
        self._loop = Loop()
        self._listeners: list[socket.socket] = []
        self._said = b""  # on the control stream
        self._tail = b""  # of the console
        self._is_off = False
        self._power_off_at = 0.0
        self._log = os.open(place.data / "console.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        signal.signal(signal.SIGTERM, self._asked)
        signal.signal(signal.SIGINT, self._asked)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def boot(self) -> None:
        """Start the emulator and wait until the engine in there listens. Raises what is wrong, with the console."""
        accelerator = self._machine.accelerator
        if accelerator == "auto":
            accelerator = "kvm" if emulator.has_kvm() else "tcg"
        self._start(accelerator)
        deadline, silent = time.monotonic() + START_S_MAX, time.monotonic() + SILENT_S_MAX
        while not self._said.startswith((b"ready", b"failed")) and b"\nready" not in self._said:
            self._turn()
            if accelerator == "kvm" and not self._tail and not self._said and time.monotonic() > silent:
                if self._machine.accelerator == "kvm":
                    raise self._failure("the kernel says nothing under KVM; try: orlop machine init --accel tcg")
                accelerator = "tcg"
                self._kill()
                self._start(accelerator)
            elif b"failed" in self._said:
                raise self._failure(f"its engine: {self._said.decode(errors='replace').strip()}")
            elif self._is_off:
                raise self._failure("it went off while it started")
            elif time.monotonic() > deadline or self._power_off_at:
                self._kill()
                raise self._failure("it was told to stop" if self._power_off_at else "it did not start in time")
        for name in _SERVICES:
            self._listen(name)

    def serve(self) -> None:
        """Serve until the machine is off."""
        try:
            while not self._is_off:
                self._turn()
                if self._power_off_at and time.monotonic() > self._power_off_at:
                    self._kill()
        finally:
            for name in _SERVICES:
                (self._place.run / name).unlink(missing_ok=True)
            self._kill()

    def _start(self, accelerator: str) -> None:
        link, far_link = socket.socketpair()
        console, far_console = socket.socketpair()
        words = emulator.argv(self._machine, self._place, accelerator, far_link.fileno(), far_console.fileno())
        keep = (far_link.fileno(), far_console.fileno(), self._lock)
        self._pid, self._pidfd = emulator.start(words, keep)
        far_link.close()
        far_console.close()
        self._is_off = False
        self._link, self._console = link, console
        for sock in (link, console):
            sock.setblocking(False)
        self._links = Links(self._loop, link.fileno())
        self._control, far_control = socket.socketpair()
        for sock in (self._control, far_control):
            sock.setblocking(False)
        self._links.open("control", far_control)
        self._loop.watch(self._control.fileno(), READ, lambda _: self._hear())
        self._loop.watch(console.fileno(), READ, lambda _: self._read_console())
        self._loop.watch(self._pidfd, READ, lambda _: self._ended())

    def _turn(self) -> None:
        self._loop.turn(0.5)
        if self._power_off_at < 0:
            self._power_off_at = time.monotonic() + POWER_OFF_S_MAX
            try:
                self._control.send(b"poweroff\n")
            except OSError:
                self._kill()

    def _asked(self, *_: object) -> None:
        if not self._power_off_at:
            self._power_off_at = -1.0  # the next turn of the loop does it

    def _hear(self) -> None:
        try:
            said = self._control.recv(4096)
        except OSError:
            said = b""
        self._said = (self._said + said)[-8192:]
        if not said:
            self._loop.unwatch(self._control.fileno())

    def _read_console(self) -> None:
        try:
            said = self._console.recv(65536)
        except OSError:
            said = b""
        if not said:
            self._loop.unwatch(self._console.fileno())
            return
        self._tail = (self._tail + said)[-_TAIL_BYTES:]
        if os.lseek(self._log, 0, os.SEEK_CUR) > CONSOLE_BYTES_MAX:
            os.ftruncate(self._log, 0)
            os.lseek(self._log, 0, os.SEEK_SET)
        os.write(self._log, said)

    def _ended(self) -> None:
        if self._is_off:
            return
        self._is_off = True
        os.waitpid(self._pid, 0)
        self._read_console()
        self._links.close()
        for fd in (self._pidfd, self._control.fileno(), self._console.fileno()):
            self._loop.unwatch(fd)
        os.close(self._pidfd)
        for sock in (self._control, self._link, self._console):
            sock.close()

    def _kill(self) -> None:
        if not self._is_off:
            pidfd.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            self._ended()

    def _listen(self, name: str) -> None:
        place = self._place.run / name
        place.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        os.umask(0o077)
        listener.bind(str(place))
        listener.listen(128)
        listener.setblocking(False)
        self._listeners.append(listener)
        self._loop.watch(listener.fileno(), READ, lambda _: self._accept(listener, _SERVICES[name]))

    def _accept(self, listener: socket.socket, service: str) -> None:
        try:
            sock = listener.accept()[0]
        except OSError:
            return
        sock.setblocking(False)
        if peer_credentials(sock)[1] not in (os.geteuid(), 0) or not self._links.open(service, sock):
            sock.close()

    def _failure(self, cause: str) -> errors.OrlopError:
        self._kill()
        told = "\n".join(f"  {line}" for line in self._tail.decode(errors="replace").splitlines()[-8:])
        hint = f"its console: {self._place.data / 'console.log'}"
        return errors.Unavailable(
            "start", f"machine {self._place.name}", f"{cause}\n{told}" if told else cause, hint=hint
        )
