"""What runs inside a container and tries to get out of it: one function for each way, named after its row.

Nothing here does harm when it succeeds: files are opened for writing, not written; calls get arguments that no kernel
takes. `python3 attacker.py` prints a line `ATTACKS {...}` of JSON: the function's name -> what it reached, in words; a
list that is empty says that the container held. Only the standard library, and little of it: the image is small.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import socket
import struct
import sys

LIBC = ctypes.CDLL(None, use_errno=True)
# x86-64's and arm64's numbers, by sys/syscall.h.
NUMBERS = {
    "x86_64": {
        "add_key": 248, "bpf": 321, "clock_settime": 227, "clone3": 435, "fsopen": 430, "init_module": 175,
        "io_uring_setup": 425, "kexec_load": 246, "keyctl": 250, "mount": 165, "open_by_handle_at": 304,
        "open_tree": 428, "perf_event_open": 298, "pidfd_getfd": 438, "pivot_root": 155, "process_vm_readv": 310,
        "reboot": 169, "request_key": 249, "setns": 308, "sethostname": 170, "swapon": 167, "syslog": 103,
        "umount2": 166, "unshare": 272, "userfaultfd": 323,
    },
    "aarch64": {
        "add_key": 217, "bpf": 280, "clock_settime": 112, "clone3": 435, "fsopen": 430, "init_module": 105,
        "io_uring_setup": 425, "kexec_load": 104, "keyctl": 219, "mount": 40, "open_by_handle_at": 265,
        "open_tree": 428, "perf_event_open": 241, "pidfd_getfd": 438, "pivot_root": 41, "process_vm_readv": 270,
        "reboot": 142, "request_key": 218, "setns": 268, "sethostname": 161, "swapon": 224, "syslog": 116,
        "umount2": 39, "unshare": 97, "userfaultfd": 282,
    },
}[os.uname().machine]  # fmt: skip
ALLOWED_OF_THE_KERNEL = {"process_vm_readv"}  # since 4.8 a tracer sees no more than its own container
CAPABILITIES = 0xA80425FB  # docker's fourteen
DEVICES = {
    "mem": (1, 1),
    "port": (1, 4),
    "kmsg": (1, 11),
    "loop-control": (10, 237),
    "kvm": (10, 232),
    "fuse": (10, 229),
}
IN_DEV = set("console core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero".split())
CLONE_NEWUSER, CLONE_NEWNS, CLONE_NEWCGROUP = 0x10000000, 0x20000, 0x02000000
MS_REMOUNT = 0x20
PROC_SUPER_MAGIC, SYSFS_MAGIC = 0x9FA0, 0x62656572
CANARY = "ORLOP_CANARY"  # a variable, and a file's content, of whoever started us: seen in here it leaked


def can_write(path: str) -> bool:
    """Whether a file opens for writing; nothing is written."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NONBLOCK))
    except OSError:
        return False
    return True


def read(path: str) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read(65536)
    except OSError:
        return b""


def pids() -> list[str]:
    return [name for name in os.listdir("/proc") if name.isdecimal()]


def status() -> dict[str, str]:
    lines = read("/proc/self/status").decode().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def mounts() -> list[list[str]]:
    return [line.split() for line in read("/proc/self/mountinfo").decode().splitlines()]


def refused(name: str, *arguments: int) -> str:
    """Return "" when a call is not there for us, else what the kernel said to it."""
    ctypes.set_errno(0)
    LIBC.syscall(NUMBERS[name], *(ctypes.c_long(word) for word in arguments))
    code = ctypes.get_errno()
    return "" if code in (errno.EPERM, errno.ENOSYS) else f"{name}: {errno.errorcode.get(code, 'done')}"


def filesystem_type(path: str) -> int:
    buffer = ctypes.create_string_buffer(256)
    return struct.unpack_from("q", buffer)[0] if LIBC.statfs(path.encode(), buffer) == 0 else -1


# -- the ways out ---------------------------------------------------------------------------------------------------


def sec_01_programs() -> list[str]:
    """CVE-2019-5736: no process in here executes a file of the machine's."""
    found = []
    for pid in pids():
        try:
            place = os.readlink(f"/proc/{pid}/exe")
        except OSError:
            continue
        if place.startswith("/memfd:") or (place.startswith("/") and not os.path.lexists(place)):
            found.append(f"{pid}: {place}")
    return found


def sec_02_descriptors() -> list[str]:
    """CVE-2016-9962, CVE-2024-21626: nobody in here has a directory, a socket of ours or anything above 2 open."""
    found = []
    for pid in pids():
        try:
            descriptors = os.listdir(f"/proc/{pid}/fd")
        except OSError:
            continue
        for number in descriptors:
            try:
                place = os.readlink(f"/proc/{pid}/fd/{number}")
            except OSError:
                continue  # the one that listed them
            if pid == str(os.getpid()) and int(number) > 2 and not place.startswith(f"/proc/{pid}/fd"):
                found.append(f"{number}: {place}")
            if place.startswith("/") and os.path.isdir(place) and not place.startswith("/proc/"):
                found.append(f"{pid} {number}: {place}")
    return found


def sec_04_environment() -> list[str]:
    """SEC-04, SEC-35, SEC-65: what whoever started us has among its variables is in nobody's."""
    places = [f"/proc/{pid}/{name}" for pid in pids() for name in ("environ", "cmdline")]
    return [place for place in places if CANARY.encode() in read(place) and not place.endswith("cmdline")]


def sec_09_kernel_file_systems() -> list[str]:
    """CVE-2019-19921: /proc is a procfs and /sys a sysfs, and neither is written to."""
    found = [] if filesystem_type("/proc") == PROC_SUPER_MAGIC else ["/proc"]
    return found + ([] if filesystem_type("/sys") == SYSFS_MAGIC else ["/sys"])


def sec_11_masks() -> list[str]:
    """CVE-2025-31133: what is hidden is empty."""
    files = "keys kcore timer_list timer_stats sched_debug latency_stats interrupts".split()
    found = [path for name in files if read(path := f"/proc/{name}")]
    for path in ("/proc/acpi", "/proc/scsi", "/proc/asound"):
        if os.path.isdir(path) and os.listdir(path):
            found.append(path)
    return found


def sec_13_settings() -> list[str]:
    """CVE-2025-52881: no setting of the machine's opens for writing."""
    names = "sys/kernel/core_pattern sys/kernel/modprobe sys/vm/panic_on_oom sys/kernel/hostname sys/fs/file-max"
    names += " sysrq-trigger irq/default_smp_affinity bus/pci/devices fs/binfmt_misc/register"
    return [path for name in names.split() if can_write(path := f"/proc/{name}")]


def sec_13_sysfs() -> list[str]:
    names = "kernel/uevent_helper power/state kernel/mm/transparent_hugepage/enabled module/kernel/parameters/panic"
    return [path for name in names.split() if can_write(path := f"/sys/{name}")]


def sec_14_devices() -> list[str]:
    """A device that the machine has and we were not given: neither there, nor made, nor opened."""
    found = [f"/dev/{name}" for name in os.listdir("/dev") if name not in IN_DEV]
    wanted = {name: (os.makedev(*numbers), 0o020600) for name, numbers in DEVICES.items()}
    for line in read("/proc/partitions").decode().splitlines()[2:]:
        major, minor, _, name = line.split()
        wanted[name] = os.makedev(int(major), int(minor)), 0o060600
    for name, (numbers, mode) in wanted.items():
        place = f"/tmp/node-{name}"
        try:
            os.mknod(place, mode, numbers)
            os.close(os.open(place, os.O_RDONLY | os.O_NONBLOCK))
            found.append(place)
        except OSError:
            pass
    return found


def sec_27_identity() -> list[str]:
    """no_new_privs and the filter are on; root's power over what is not in here is not."""
    now = status()
    found = [] if now.get("NoNewPrivs") == "1" else ["no_new_privs is not set"]
    found += [] if now.get("Seccomp") == "2" else ["there is no filter"]
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("-1000")
        found.append("oom_score_adj")
    except OSError:
        pass
    return found


def sec_28_capabilities() -> list[str]:
    """CVE-2022-24769: nothing is inheritable or ambient, and nothing is there beyond docker's fourteen."""
    now = status()
    found = [name for name in ("CapInh", "CapAmb") if int(now[name], 16)]
    return found + [name for name in ("CapPrm", "CapEff", "CapBnd") if int(now[name], 16) & ~CAPABILITIES]


def sec_30_cgroups() -> list[str]:
    """CVE-2022-0492: no control file opens for writing, no cgroup is made, no hierarchy is mounted."""
    found = []
    for where, directories, names in os.walk("/sys/fs/cgroup"):
        found += [path for name in names if can_write(path := f"{where}/{name}")]
        for name in directories[:]:
            if os.path.islink(f"{where}/{name}"):
                directories.remove(name)
        try:
            os.mkdir(f"{where}/orlop-attack")
            os.rmdir(f"{where}/orlop-attack")
            found.append(f"{where}/ takes cgroups")
        except OSError:
            pass
    os.makedirs("/tmp/cgroup", exist_ok=True)
    for kind, options in (("cgroup", b"memory"), ("cgroup", b"pids"), ("cgroup2", b"")):
        if LIBC.mount(b"none", b"/tmp/cgroup", kind.encode(), 0, options) == 0:
            LIBC.umount2(b"/tmp/cgroup", 2)
            found.append(f"{kind} {options.decode()} is mounted")
    return found


def sec_31_calls() -> list[str]:
    """The calls that led out of containers of others: the filter refuses them, whatever the arguments."""
    return [told for name in NUMBERS if name not in ALLOWED_OF_THE_KERNEL if (told := refused(name, *[-1] * 6))]


def sec_31_families() -> list[str]:
    """CVE-2026-31431: no kernel's cryptography, no way to the hypervisor."""
    found = []
    for name, family, kind in (("AF_ALG", 38, socket.SOCK_SEQPACKET), ("AF_VSOCK", 40, socket.SOCK_STREAM)):
        try:
            socket.socket(family, kind).close()
            found.append(name)
        except OSError as error:
            if error.errno != errno.EPERM:
                found.append(f"{name}: {error.strerror}")
    return found


def sec_31_terminals() -> list[str]:
    """CVE-2017-5226, CVE-2023-28100: no terminal is typed into."""
    found = []
    for name, request in (("TIOCSTI", 0x5412), ("TIOCLINUX", 0x541C)):
        ctypes.set_errno(0)
        LIBC.ioctl(0, ctypes.c_ulong(request), b"x")
        if ctypes.get_errno() != errno.EPERM:
            found.append(name)
    return found


def sec_31_namespaces() -> list[str]:
    """CVE-2022-0185 and its like begin with a user namespace."""
    found = []
    for name, flags in (("user", CLONE_NEWUSER), ("mount", CLONE_NEWNS), ("cgroup", CLONE_NEWCGROUP)):
        child = os.fork()
        if child == 0:
            os._exit(0 if LIBC.unshare(flags) == 0 else 1)
        if os.waitpid(child, 0)[1] == 0:
            found.append(name)
    return found


def sec_32_side_channels() -> list[str]:
    """GHSA-jq35-85cj-fj4p, GHSA-6fw5-f8r9-fgfm: power, heat, firmware."""
    found = []
    places = ["/sys/devices/virtual/powercap", "/sys/firmware"]
    places += [f"/sys/devices/system/cpu/cpu{number}/thermal_throttle" for number in range(8)]
    for place in places:
        if os.path.isdir(place) and os.listdir(place):
            found.append(place)
    return found


def sec_33_sockets() -> list[str]:
    """CVE-2020-15257: no socket that is listened on by others is seen."""
    own = {f"[{os.stat(f'/proc/self/fd/{number}').st_ino}]" for number in (0, 1, 2)}
    lines = read("/proc/net/unix").decode().splitlines()[1:]
    return [line for line in lines if "orlop" in line and not any(name in line for name in own)]


def sec_36_processes() -> list[str]:
    """Nobody of the outside is among our processes, and no path of theirs leads out."""
    found = [pid for pid in pids() if b"orlop" in read(f"/proc/{pid}/cmdline").partition(b"\0")[0]]
    for pid in pids():
        try:
            if not os.path.exists(f"/proc/{pid}/root/attacker.py"):
                found.append(f"/proc/{pid}/root")
        except OSError:
            continue
    return found


def sec_36_tracing() -> list[str]:
    """Process 1 is ours, and above it there is nobody."""
    parent = int(status()["PPid"])
    return [] if parent == 0 or os.path.exists(f"/proc/{parent}") else [f"a parent outside: {parent}"]


def mounts_are_private() -> list[str]:
    """No mount in here travels out, none of the outside in."""
    return [" ".join(row) for row in mounts() for word in row[6 : row.index("-")] if not word.startswith("unbindable")]


def mounts_stay_as_they_are() -> list[str]:
    found = []
    for place in (b"/sys", b"/proc/sys", b"/proc/sysrq-trigger", b"/sys/fs/cgroup"):
        if LIBC.mount(b"none", place, None, MS_REMOUNT | 0x1000, None) == 0:
            found.append(f"{place.decode()} is writable")
    for place in (b"/proc/keys", b"/proc/kcore", b"/sys/firmware"):
        if LIBC.umount2(place, 2) == 0:
            found.append(f"{place.decode()} is unmasked")
    return found


def chroot_leads_nowhere() -> list[str]:
    """chroot(2), "this call does not change the current working directory": the old way out of a chroot."""
    child = os.fork()
    if child:
        return ["the root"] if os.waitpid(child, 0)[1] else []
    try:
        os.makedirs("/tmp/cell", exist_ok=True)
        here = os.open("/", os.O_RDONLY)
        os.chroot("/tmp/cell")
        os.fchdir(here)
        for _ in range(64):
            os.chdir("..")
        os._exit(0 if os.path.exists("attacker.py") else 1)
    except OSError:
        os._exit(0)


def handles_open_nothing() -> list[str]:
    """CVE-2014-3519's way, "shocker": a file by the handle of the file system's root."""
    handle = struct.pack("IIQ", 8, 1, 2)
    ctypes.set_errno(0)
    root = os.open("/etc/hosts" if os.path.exists("/etc/hosts") else "/", os.O_RDONLY)
    try:
        fd = LIBC.syscall(NUMBERS["open_by_handle_at"], root, handle, os.O_RDONLY)
        return ["a file of the machine's"] if fd >= 0 else []
    finally:
        os.close(root)


def sec_34_shared_memory() -> list[str]:
    """What is written to shared memory is no program."""
    found = []
    for place in ("/dev/shm",):
        for row in mounts():
            if row[4] == place and not {"nosuid", "nodev", "noexec"} <= set(row[5].split(",")):
                found.append(place)
    return found


NAMES = (
    "sec_01_programs sec_02_descriptors sec_04_environment sec_09_kernel_file_systems sec_11_masks sec_13_settings "
    "sec_13_sysfs sec_14_devices sec_27_identity sec_28_capabilities sec_30_cgroups sec_31_calls sec_31_families "
    "sec_31_terminals sec_31_namespaces sec_32_side_channels sec_33_sockets sec_34_shared_memory "
    "sec_36_processes sec_36_tracing mounts_are_private mounts_stay_as_they_are chroot_leads_nowhere "
    "handles_open_nothing"
).split()


def main() -> None:
    found = {}
    for name in NAMES:
        try:
            found[name] = globals()[name]()
        except Exception as error:  # an attack that could not be tried proves nothing
            found[name] = [f"could not be tried: {error!r}"]
    print("ATTACKS", json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
    sys.exit(0)
