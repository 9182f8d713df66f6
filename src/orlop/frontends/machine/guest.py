"""Process 1 of a machine, and its agent, which joins the machine's sockets with those of the other side.

    process 1   mounts, modules, disk, network; reaps every orphan; ends all and switches off when its agent has ended
    agent       `orlop serve`, and the streams over the virtio-serial port named PORT

Services: `docker`, the engine's docker socket; `shell`, a command (shell.py); `control`, lines to us and back:
`ready` or `failed {error}` from here, `poweroff` from there.
"""

from __future__ import annotations

import errno
import glob
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from ...linux import abi, mount
from ...linux.netlink import rtnetlink
from ...supervise.loop import READ, Loop
from ..native.start import command
from .streams import Links

PORT = "orlop"
MODULES_FILE = "/etc/orlop-modules"  # names of files below /lib/modules, in the order in which they are loaded
DISK = "/dev/vda"
DATA, RUN = "/var/lib/orlop", "/run/orlop"
END_S = 10.0  # for processes to end by themselves before the machine is switched off
# What qemu's network for users gives everybody: invocation.html, "-netdev user".
ADDRESS, PREFIX, GATEWAY, RESOLVER = "10.0.2.15", 24, "10.0.2.2", "10.0.2.3"
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
        agent = os.fork()
        if not agent:
            os.setsid()
            _Agent().run()
            os._exit(0)
        while os.wait()[0] != agent:
            pass
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
        self._engine: subprocess.Popen[bytes] | None = None
        self._start_engine()

    def run(self) -> None:
        """Serve until the other side wants the machine off, or is gone."""
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        while not self._links.ended:
            self._loop.turn(1.0)
            if self._engine is not None:
                self._engine.poll()

    def _start_engine(self) -> None:
        ready, report = os.pipe()
        argv = command("serve", "--ready-fd", str(report))
        with open(f"{DATA}/engine.log", "ab") as log:
            self._engine = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[report], start_new_session=True
            )
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
            argv = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.append({_home()!r}); {_SHELL}"]
            with theirs:
                subprocess.Popen(argv, stdin=theirs.fileno(), start_new_session=True)
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
        if self._engine is not None and self._engine.poll() is not None:
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


_SHELL = "from orlop.frontends.machine.shell import main; main()"


def _home() -> str:
    return str(Path(__file__).resolve().parents[3])


def _port() -> str:
    for place in glob.glob("/sys/class/virtio-ports/*/name"):
        if Path(place).read_text().strip() == PORT:
            return f"/dev/{Path(place).parent.name}"
    raise FileNotFoundError(errno.ENOENT, "the emulator gave the machine no such port", PORT)
