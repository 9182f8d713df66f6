"""QEMU: its command line, and starting it so that it ends with its owner, however that ends."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import sys

from ...linux import pidfd, process
from ...spec.errors import NotFound
from ..native.start import interpreter
from .guest import PORT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .store import Machine, Place

PROGRAM = "qemu-system-x86_64"
_KVM_GET_API_VERSION, _KVM_API = 0xAE00, 12
_KERNEL_WORDS = "console=ttyS0 quiet panic=-1 reboot=t random.trust_cpu=on cgroup_no_v1=all audit=0"
_EMULATED_WORDS = "mitigations=off no_timer_check nowatchdog"
# What an emulator that was taken over may still do is little: no privileges, no other program, no namespaces.
_SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
_DIE_WITH_PARENT = (
    "import sys; sys.path.append(sys.argv.pop(1)); from orlop.frontends.machine.emulator import become; become()"
)


def find() -> str:
    """Return the emulator's path. Raises NotFound."""
    found = shutil.which(PROGRAM)
    if found is None:
        hint = "install it (Debian: apt-get install qemu-system-x86)"
        raise NotFound("find", PROGRAM, "machines run in QEMU, which is not installed", hint=hint)
    return found


def has_kvm() -> bool:
    """Return whether this user may use the processor's own virtualisation."""
    try:
        fd = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return fcntl.ioctl(fd, _KVM_GET_API_VERSION) == _KVM_API
    except OSError:
        return False
    finally:
        os.close(fd)


def argv(machine: Machine, place: Place, accelerator: str, link: int, console: int) -> list[str]:
    """Return the command. accelerator: kvm or tcg; link, console: connected sockets that it inherits."""
    is_kvm = accelerator == "kvm"
    words = [find(), "-machine", "pc", "-accel", "kvm" if is_kvm else "tcg,thread=multi"]
    words += ["-cpu", "host" if is_kvm else "max,la57=off", "-smp", str(machine.cpus)]
    words += ["-m", str(machine.memory_bytes // 1024**2), "-nodefaults", "-no-user-config", "-display", "none"]
    words += ["-no-reboot", "-sandbox", _SANDBOX, "-name", f"orlop-{machine.name}"]
    data = str(place.data).replace(",", ",,")
    words += ["-kernel", str(place.data / "kernel"), "-initrd", str(place.data / "root.cpio")]
    words += ["-append", _KERNEL_WORDS if is_kvm else f"{_KERNEL_WORDS} {_EMULATED_WORDS}"]
    words += ["-chardev", f"socket,id=console,fd={console}", "-serial", "chardev:console"]
    words += ["-chardev", f"socket,id=link,fd={link}", "-device", "virtio-serial-pci"]
    words += ["-device", f"virtserialport,chardev=link,name={PORT}"]
    words += ["-drive", f"file={data}/disk.img,if=virtio,format=raw,discard=unmap"]
    if machine.network == "user":
        words += ["-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile="]
    return words


def start(words: Sequence[str], keep: Sequence[int]) -> tuple[int, int]:
    """Start the command with these descriptors; return its pid and pidfd. It is killed when the calling thread ends."""
    argv = interpreter(_DIE_WITH_PARENT, str(os.getpid()), *words)
    # A descriptor dup2'ed onto itself loses close-on-exec in the child (glibc 2.29).
    actions = [(os.POSIX_SPAWN_DUP2, fd, fd) for fd in keep]
    pid = os.posix_spawn(argv[0], argv, os.environ, file_actions=actions, setsigmask=())
    return pid, pidfd.pidfd_open(pid)


def become() -> None:
    """In the child: be killed with the parent, whose pid is the first argument, and become what the others say."""
    process.prctl(process.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() == int(sys.argv[1]):
        os.execv(sys.argv[2], sys.argv[2:])
