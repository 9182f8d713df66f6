"""Process 1 of the test guest, and its modprobe: the standard library of the host's Python is all there is.

Serial ports: ttyS0 the kernel's console, ttyS1 and ttyS2 the command's standard output and error, ttyS3 the outcome as
JSON. /job.json says what to run. The root is a tmpfs whose mount has a parent, so that pivot_root(2) works in it.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import select
import signal
import socket
import struct
import sys
import termios
import time
import tty

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

libc = ctypes.CDLL(None, use_errno=True)
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_MOVE, MS_REC = 2, 4, 8, 4096, 8192, 16384
FINIT_MODULE = 313
DRAIN_S = 2.0
POLL_S = 0.05
CGROUP = "/sys/fs/cgroup/session"
MOUNTS = (
    ("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, ""),
    ("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, ""),
    ("devtmpfs", "/dev", "devtmpfs", MS_NOSUID, "mode=755"),
    ("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "gid=5,mode=620,ptmxmode=666"),
    ("tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, ""),
    ("mqueue", "/dev/mqueue", "mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC, ""),
    ("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755"),
    ("tmpfs", "/tmp", "tmpfs", 0, "mode=1777"),
    ("cgroup2", "/sys/fs/cgroup", "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC, "nsdelegate"),
)


def mount(source: str, target: str, fstype: str, flags: int, data: str = "") -> None:
    if libc.mount(source.encode(), target.encode(), fstype.encode(), flags, data.encode()):
        raise OSError(ctypes.get_errno(), f"mount {fstype}", target)


def set_up() -> None:
    mount("/", "/newroot", "", MS_BIND)
    os.chdir("/newroot")
    mount(".", "/", "", MS_MOVE)
    os.chroot(".")
    os.chdir("/")
    for source, target, fstype, flags, data in MOUNTS:
        os.makedirs(target, exist_ok=True)
        mount(source, target, fstype, flags, data)
    # Only now: while the kernel boots it asks for what its own self-tests would like, a second of Python each time.
    os.symlink("/init", "/usr/sbin/modprobe")
    for name, target in (("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        os.symlink(f"/proc/self/{target}", f"/dev/{name}")
    socket.sethostname("guest")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, 0x8914, struct.pack("16sH14x", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP


def load_modules(names: list[str]) -> bool:
    """Load modules by name or alias, with what they need. Returns whether all are there."""
    with open("/lib/modules/index") as file:
        index = dict(line.rstrip("\n").split(" ", 1) for line in file)
    known = [name for name in names if name.replace("-", "_") in index or name in index]
    for name in known:
        for module in (index.get(name) or index[name.replace("-", "_")]).split():
            with open(f"/lib/modules/{module}.ko", "rb") as file:
                if libc.syscall(FINIT_MODULE, file.fileno(), b"", 0) and ctypes.get_errno() != 17:  # EEXIST
                    raise OSError(ctypes.get_errno(), "finit_module", module)
    return len(known) == len(names)


def open_port(number: int) -> int:
    fd = os.open(f"/dev/ttyS{number}", os.O_WRONLY | os.O_NOCTTY)
    tty.setraw(fd)
    return fd


def write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def start(job: dict[str, Any], pipes: list[int]) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        os.mkdir(CGROUP)
        with open(f"{CGROUP}/cgroup.procs", "w") as file:
            file.write("0")
        os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
        for fd, pipe in enumerate(pipes, 1):
            os.dup2(pipe, fd)
        os.closerange(3, 64)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.chdir(job["cwd"])
        os.execvpe(job["command"][0], job["command"], job["env"])
    except OSError as error:
        os.write(2, f"guest: {error}\n".encode())
    os._exit(127)


def run(job: dict[str, Any]) -> int:
    """Run the job, pass its output on, reap every orphan; return its wait status."""
    ports: dict[int, int] = {}
    ends = []
    for number in (1, 2):
        reading, writing = os.pipe()
        ports[reading] = open_port(number)
        ends.append(writing)
    pid = start(job, ends)
    for end in ends:
        os.close(end)
    status = deadline = None  # of the job: its wait status; until when its output is waited for
    while ports and (deadline is None or time.monotonic() < deadline):
        for fd in select.select(list(ports), [], [], POLL_S)[0]:
            data = os.read(fd, 65536)
            if data:
                write_all(ports[fd], data)
            else:
                termios.tcdrain(ports.pop(fd))
        found = reap(pid)
        if found is not None:
            # An orphan may hold the pipes open for ever: what it still writes is not waited for.
            status, deadline = found, time.monotonic() + DRAIN_S
    if status is None:
        status = os.waitpid(pid, 0)[1]
    for port in ports.values():
        termios.tcdrain(port)
    return status


def reap(job_pid: int) -> int | None:
    """Reap whoever ended, as process 1 must; return the job's wait status when it is among them."""
    status = None
    try:
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            if found[0] == job_pid:
                status = found[1]
    except ChildProcessError:
        pass
    return status


def main() -> None:
    outcome: dict[str, object] = {}
    try:
        set_up()
        with open("/job.json") as file:
            job = json.load(file)
        if not load_modules(job["modules"]):
            raise OSError(2, f"a module is missing of {job['modules']}")
        outcome["status"] = os.waitstatus_to_exitcode(run(job))
    except BaseException as error:
        outcome["error"] = f"{type(error).__name__}: {error}"
    port = open_port(3)
    write_all(port, json.dumps(outcome).encode())
    termios.tcdrain(port)
    libc.reboot(0x01234567)  # LINUX_REBOOT_CMD_RESTART: the machine is started with -no-reboot
    signal.pause()


if os.getpid() == 1:
    main()
else:
    sys.exit(0 if load_modules([word for word in sys.argv[1:] if not word.startswith("-")]) else 1)
