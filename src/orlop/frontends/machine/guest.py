"""Process 1 of a machine: mounts, modules, disk, network; then the engine's parent, and this side's end of all streams
over the virtio-serial port named PORT. It reaps every orphan; when the other side says so, it switches the machine off.

Services: `docker`, the engine's docker socket; `shell`, a command (shell.py); `control`, lines to us and back:
`ready` or `failed {error}` from here, `poweroff` from there.
"""

from __future__ import annotations

import errno
import glob
import os
import signal
import socket
import sys
import time
from pathlib import Path

from ...linux import abi, mount
from ...linux.netlink import rtnetlink
from ...supervise.loop import READ, Loop
from ..native.start import command, interpreter
from .streams import Links

PORT = "orlop"
MODULES_FILE = "/etc/orlop-modules"  # names of files below /lib/modules, in the order in which they are loaded
DISK = "/dev/vda"
DATA, RUN = "/var/lib/orlop", "/run/orlop"
END_S = 10.0  # for processes to end by themselves before the machine is switched off
# What qemu's network for users gives everybody: invocation.html, "-netdev user".
ADDRESS, PREFIX, GATEWAY, RESOLVER = "10.0.2.15", 24, "10.0.2.2", "10.0.2.3"
_SHELL = "import sys; sys.path.append(sys.argv.pop(1)); from orlop.frontends.machine.shell import main; main()"
_POWER_OFF = (0xFEE1DEAD, 672274793, 0x4321FEDC)  # reboot(2): two magic numbers, LINUX_REBOOT_CMD_POWER_OFF
_NOSUID, _NODEV, _NOEXEC, _BIND, _MOVE, _NOATIME = 2, 4, 8, 4096, 8192, 1024
_MOUNTS = (
    ("proc", "/proc", _NOSUID | _NODEV | _NOEXEC, ""),
    ("sysfs", "/sys", _NOSUID | _NODEV | _NOEXEC, ""),
    ("devtmpfs", "/dev", _NOSUID, "mode=755"),
    ("devpts", "/dev/pts", _NOSUID | _NOEXEC, "gid=5,mode=620,ptmxmode=666"),
    ("tmpfs", "/dev/shm", _NOSUID | _NODEV, "mode=1777"),
    ("mqueue", "/dev/mqueue", _NOSUID | _NODEV | _NOEXEC, ""),
    ("tmpfs", "/run", _NOSUID | _NODEV, "mode=755"),
    ("tmpfs", "/tmp", _NOSUID | _NODEV, "mode=1777"),
    ("cgroup2", "/sys/fs/cgroup", _NOSUID | _NODEV | _NOEXEC, "nsdelegate"),
)


def main() -> None:
    """Be process 1, until the machine is off."""
    try:
        _set_up()
        _Agent().run()
    except BaseException as wrong:
        # Nobody else hears of it: the console is all there is.
        sys.stderr.write(f"machine: {type(wrong).__name__}: {wrong}\n")
    _end()


def _set_up() -> None:
    # The kernel's first root can't be pivoted away from: one that is mounted on it can.
    mount.mount("/", "/newroot", "", _BIND)
    os.chdir("/newroot")
    mount.mount(".", "/", "", _MOVE)
    os.chroot(".")
    os.chdir("/")
    for fstype, target, flags, data in _MOUNTS:
        os.makedirs(target, exist_ok=True)
        mount.mount(fstype, target, fstype, flags, data)
    for name, target in (("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        os.symlink(f"/proc/self/{target}", f"/dev/{name}")
    for name in Path(MODULES_FILE).read_text().split():
        with open(f"/lib/modules/{name}", "rb") as file:
            _load_module(file.fileno())
    _wait_for(DISK)
    os.makedirs(DATA, exist_ok=True)
    mount.mount(DISK, DATA, "ext4", _NOATIME, "discard")
    os.chmod(DATA, 0o700)
    socket.sethostname(Path("/etc/hostname").read_text().strip())
    _set_up_network()


def _load_module(fd: int) -> None:
    try:
        abi.syscall("finit_module", fd, b"\0", 0)
    except FileExistsError:
        pass


def _wait_for(path: str) -> None:
    deadline = time.monotonic() + END_S
    while not os.path.exists(path):
        if time.monotonic() > deadline:
            raise FileNotFoundError(errno.ENOENT, "it did not appear", path)
        time.sleep(0.01)


def _set_up_network() -> None:
    with rtnetlink.Rtnetlink() as netlink:
        netlink.set_link(1, up=True)
        link = netlink.link("eth0")
        if link is None:
            return
        netlink.set_link(link.index, up=True)
        netlink.add_address(link.index, ADDRESS, PREFIX)
        netlink.add_route(("0.0.0.0", 0), rtnetlink.Hop(GATEWAY, link.index))
    Path("/etc/resolv.conf").write_text(f"nameserver {RESOLVER}\n")


def _end() -> None:
    """End every process, write everything back, switch off."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.kill(-1, number)
        except ProcessLookupError:
            break
        _reap_all(time.monotonic() + END_S)
    os.sync()
    try:
        mount.umount2(DATA)
    except OSError:
        pass  # its journal makes it whole again
    abi.syscall("reboot", *_POWER_OFF, None)


def _reap_all(deadline: float) -> None:
    while time.monotonic() < deadline:
        try:
            if not os.waitpid(-1, os.WNOHANG)[0]:
                time.sleep(0.02)
        except ChildProcessError:
            return


class _Agent:
    """The engine's parent, and this side's end of all streams."""

    def __init__(self) -> None:
        self._loop = Loop()
        self._port = os.open(_port(), os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._links = Links(self._loop, self._port, self._serve)
        self._control: socket.socket | None = None
        self._told = b""
        self._engine = 0
        woken, self._waking = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._waking)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._loop.watch(woken, READ, lambda _: self._reap(woken))
        self._start_engine()

    def run(self) -> None:
        """Serve until the other side wants the machine off, or is gone."""
        while not self._links.ended:
            self._loop.turn()

    def _reap(self, woken: int) -> None:
        os.read(woken, 4096)
        try:
            while (pid := os.waitpid(-1, os.WNOHANG)[0]) != 0:
                if pid == self._engine:
                    self._engine = 0
        except ChildProcessError:
            pass

    def _start_engine(self) -> None:
        ready, report = os.pipe()
        log = (f"{DATA}/engine.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, *log),
            (os.POSIX_SPAWN_DUP2, 1, 2),
            (os.POSIX_SPAWN_DUP2, report, report),
        ]
        argv = command("serve", "--ready-fd", str(report))
        self._engine = os.posix_spawn(argv[0], argv, os.environ, file_actions=actions, setsid=True)
        os.close(report)
        os.set_blocking(ready, False)
        self._loop.watch(ready, READ, lambda _: self._hear(ready))

    def _hear(self, ready: int) -> None:
        said = os.read(ready, 8192)
        self._loop.unwatch(ready)
        os.close(ready)
        self._told = b"ready\n" if said == b"\n" else b"failed " + (said.strip() or b"{}") + b"\n"
        if self._control is not None:
            self._control.send(self._told)

    def _serve(self, service: str) -> socket.socket | None:
        if service == "docker":
            return self._docker()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        if service == "shell":
            argv, actions = interpreter(_SHELL), [(os.POSIX_SPAWN_DUP2, theirs.fileno(), 0)]
            with theirs:
                os.posix_spawn(argv[0], argv, os.environ, file_actions=actions, setsid=True)
            return ours
        if service == "control" and self._control is None:
            theirs.setblocking(False)
            self._control = theirs
            theirs.send(self._told or b"starting\n")
            self._loop.watch(theirs.fileno(), READ, lambda _: self._obey())
            return ours
        ours.close()
        theirs.close()
        return None

    def _docker(self) -> socket.socket | None:
        if not self._engine:
            self._start_engine()
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(f"{RUN}/docker.sock")
        except OSError:
            sock.close()
            return None
        sock.setblocking(False)
        return sock

    def _obey(self) -> None:
        if self._control is not None and self._control.recv(64) in (b"", b"poweroff\n"):
            self._links.close()


def _port() -> str:
    for place in glob.glob("/sys/class/virtio-ports/*/name"):
        if Path(place).read_text().strip() == PORT:
            return f"/dev/{Path(place).parent.name}"
    raise FileNotFoundError(errno.ENOENT, "the emulator gave the machine no such port", PORT)
