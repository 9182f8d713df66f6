"""Which system calls a container may make: the default profile, and profiles that the user brings.

The default allows by name and refuses the rest with EPERM; calls younger than the youngest name here get ENOSYS (see
`orlop.runtime.seccomp`). It covers what moby's default covers since that lists address families (2026), and is
stricter in one thing: TIOCSTI and TIOCLINUX are refused, which put characters into the input of a terminal that the
container shares with its caller (CVE-2017-5226, CVE-2023-28100). Known gap, the same as moby's: programs of i386
reach every address family through socketcall(2), whose arguments no filter sees.

Everything is written in the terms of the OCI specification, so that another runtime makes the same of the bundle.
"""

import errno

from ...runtime.host import HostFacts
from ...spec import jsonio
from ...spec.errors import Invalid
from ...spec.record import Record
from ...spec.runtime import Seccomp, Syscall, SyscallArg

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

_ALLOWED = """
_llseek _newselect accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown chown32
clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep
clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1
epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit
exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown
fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstat64
fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue futex_time64 futex_wait futex_waitv
futex_wake futimesat get_robust_list get_thread_area getcpu getcwd getdents getdents64 getegid getegid32 geteuid
geteuid32 getgid getgid32 getgroups getgroups32 getitimer getpeername getpgid getpgrp getpid getppid getpriority
getrandom getresgid getresgid32 getresuid getresuid32 getrlimit getrusage getsid getsockname getsockopt gettid
gettimeofday getuid getuid32 getxattr getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch
io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit ioprio_get ioprio_set ipc kill
landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lchown32 lgetxattr link linkat listen listmount
listxattr listxattrat llistxattr lremovexattr lseek lsetxattr lstat lstat64 madvise map_shadow_stack membarrier
memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mmap2 mprotect mq_getsetattr
mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal msgctl
msgget msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat open openat openat2 pause
pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64 prctl pread64 preadv
preadv2 prlimit64 process_mrelease pselect6 pselect6_time64 pwrite64 pwritev pwritev2 read readahead readlink
readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr removexattrat rename
renameat renameat2 restart_syscall riscv_hwprobe rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo
rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_get_priority_max
sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval
sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp
select semctl semget semop semtimedop semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto
set_robust_list set_thread_area set_tid_address setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups
setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid
setreuid32 setrlimit setsid setsockopt setuid setuid32 setxattr setxattrat shmat shmctl shmdt shmget shutdown
sigaltstack signalfd signalfd4 sigprocmask sigreturn socketcall socketpair splice stat stat64 statfs statfs64 statmount
statx symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete timer_getoverrun
timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64
timerfd_settime timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask uname unlink unlinkat uretprobe
utime utimensat utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write writev
"""

# What an engine inside needs that CAP_SYS_ADMIN would bring, and no more: no bpf, perf_event_open, quotactl or syslog.
_NESTING = (
    "clone clone3 fsconfig fsmount fsopen fspick mount mount_setattr move_mount open_tree pidfd_getfd pivot_root "
    "setdomainname sethostname setns umount umount2 unshare"
)
_KEYCTL_JOIN_SESSION_KEYRING = 1

# Each line: the capability of the bounding set that brings the calls.
_BY_CAPABILITY = {
    "CAP_BPF": "bpf",
    "CAP_DAC_READ_SEARCH": "open_by_handle_at",
    "CAP_PERFMON": "perf_event_open",
    "CAP_SYS_ADMIN": "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr "
    "lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl quotactl_fd "
    "setdomainname sethostname setns syslog umount umount2 unshare",
    "CAP_SYS_BOOT": "reboot",
    "CAP_SYS_CHROOT": "chroot",
    "CAP_SYS_MODULE": "delete_module finit_module init_module",
    "CAP_SYS_NICE": "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    "CAP_SYS_PACCT": "acct",
    "CAP_SYS_PTRACE": "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace",
    "CAP_SYS_RAWIO": "ioperm iopl",
    "CAP_SYS_TIME": "clock_settime clock_settime64 settimeofday stime",
    "CAP_SYS_TTY_CONFIG": "vhangup",
    "CAP_SYSLOG": "syslog",
}
_BY_MACHINE = {
    "x86_64": "arch_prctl modify_ldt",
    "aarch64": "arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush set_tls",
    "riscv64": "riscv_flush_icache",
}
# Before 4.8 a tracer could step around the filter of what it traced (seccomp(2), "Caveats").
_SINCE_4_8 = "process_vm_readv process_vm_writev ptrace"

_ARCHITECTURES = {
    "x86_64": ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"),
    "aarch64": ("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"),
    "riscv64": ("SCMP_ARCH_RISCV64",),
}

# linux/sched.h: every CLONE_NEW* that clone(2) takes; NEWTIME is clone3's and unshare's alone.
_CLONE_NAMESPACES = 0x7E020000

# linux/socket.h. From AF_UNIX (1) on without a gap to AF_ROSE (11), then one by one. Left out, beside the families
# that Linux removed: AF_ALG (38), the kernel's cryptography (CVE-2026-31431), and AF_VSOCK (40), which before Linux
# 7.0 is no matter of network namespaces and leads to the hypervisor.
_FAMILIES_BELOW = 12
_FAMILIES = (13, 14, 15, 16, 17, 18, 21, 22, 24, 26, 27, 28, 29, 30, 31, 32, 33, 35, 36, 39, 41, 42, 43, 44, 45)

# linux/personality.h: Linux, Linux32, both with UNAME26, and the question what it is.
_PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)

_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C  # asm-generic/ioctls.h


_MADE: "dict[tuple[object, ...], Seccomp]" = {}  # most containers have the same: it is not put together each time
_MADE_MAX = 32


def default(capabilities: "Collection[str]", host: HostFacts, *, nesting: bool = False) -> Seccomp:
    """Return the default profile for a container with this bounding set (names with CAP_) on this machine.

    nesting: it may make namespaces and mounts, which the kernel grants in a user namespace of its own alone.
    """
    key = (tuple(capabilities), host.machine, host.kernel, nesting)
    found = _MADE.get(key)
    if found is None:
        while len(_MADE) >= _MADE_MAX:
            _MADE.pop(next(iter(_MADE)), None)
        found = _MADE[key] = _default(capabilities, host, nesting)
    return found


def _default(capabilities: "Collection[str]", host: HostFacts, nesting: bool) -> Seccomp:
    names = _ALLOWED.split() + _BY_MACHINE.get(host.machine, "").split()
    if host.kernel >= (4, 8):
        names += _SINCE_4_8.split()
    for capability, brought in _BY_CAPABILITY.items():
        if capability in capabilities:
            names += brought.split()
    names += _NESTING.split() if nesting else []
    rules = [
        _allow(("socket",), SyscallArg(index=0, op="SCMP_CMP_LT", value=_FAMILIES_BELOW)),
        *(_allow(("socket",), SyscallArg(index=0, op="SCMP_CMP_EQ", value=family)) for family in _FAMILIES),
        *(_allow(("personality",), SyscallArg(index=0, op="SCMP_CMP_EQ", value=value)) for value in _PERSONALITIES),
        *(_allow(("ioctl",), arg) for arg in _neither(1, _TIOCSTI, _TIOCLINUX)),
    ]
    if nesting:
        rules.append(_allow(("keyctl",), SyscallArg(index=0, op="SCMP_CMP_EQ", value=_KEYCTL_JOIN_SESSION_KEYRING)))
    elif "CAP_SYS_ADMIN" not in capabilities:
        # A C library that gets ENOSYS for clone3, whose flags lie behind a pointer, falls back to clone.
        rules += [
            _allow(("clone",), SyscallArg(index=0, op="SCMP_CMP_MASKED_EQ", value=_CLONE_NAMESPACES, value_two=0)),
            Syscall(names=("clone3",), action="SCMP_ACT_ERRNO", errno_ret=errno.ENOSYS),
        ]
    return Seccomp(
        default_action="SCMP_ACT_ERRNO",
        default_errno_ret=errno.EPERM,
        architectures=_ARCHITECTURES.get(host.machine, ()),
        syscalls=(_allow(tuple(sorted(set(names)))), *rules),
    )


def _allow(names: tuple[str, ...], *args: SyscallArg) -> Syscall:
    return Syscall(names=names, action="SCMP_ACT_ALLOW", args=args)


def _neither(index: int, one: int, other: int) -> "Iterator[SyscallArg]":
    """Yield conditions of which at least one holds for every 32-bit argument but these two.

    Rules are alternatives and a rule can test an argument once, so "not this and not that" has to be said bit by bit:
    the argument differs from both in a bit that they share, or in the pattern of the bits in which they differ.
    Comparing 64 bits with NE would let through what the kernel then cuts to 32 (CVE-2019-7303).
    """
    apart = one ^ other
    for bit in (1 << place for place in range(32)):
        if not apart & bit:
            yield SyscallArg(index=index, op="SCMP_CMP_MASKED_EQ", value=bit, value_two=~one & bit)
    pattern = apart
    while True:
        if pattern not in (one & apart, other & apart):
            yield SyscallArg(index=index, op="SCMP_CMP_MASKED_EQ", value=apart, value_two=pattern)
        if not pattern:
            return
        pattern = (pattern - 1) & apart


class _Filter(Record):
    """When a rule of a docker profile counts. minKernel is "MAJOR.MINOR"."""

    caps: tuple[str, ...] = ()
    arches: tuple[str, ...] = ()
    min_kernel: str = ""

    def check(self) -> None:
        if self.min_kernel and not _version(self.min_kernel):
            raise ValueError(f'minKernel: invalid kernel version {self.min_kernel[:40]!r}, expected "<kernel>.<major>"')


class _Rule(Record):
    """A rule of a docker profile. name is the old form of names; errno is containers-common's name beside errnoRet."""

    action: str
    name: str = ""
    names: tuple[str, ...] = ()
    errno_ret: int | None = None
    errno: str = ""
    args: tuple[SyscallArg, ...] = ()
    includes: _Filter = _Filter()
    excludes: _Filter = _Filter()

    def check(self) -> None:
        if self.name and self.names:
            raise ValueError("both 'name' and 'names' are specified, use either 'name' or 'names'")


class _Architecture(Record):
    architecture: str
    sub_architectures: tuple[str, ...] = ()


class _Profile(Record):
    """A profile as docker, podman and kubernetes write it: OCI's, with rules that depend on the container."""

    default_action: str
    default_errno_ret: int | None = None
    default_errno: str = ""
    arch_map: tuple[_Architecture, ...] = ()
    architectures: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    listener_path: str = ""
    listener_metadata: str = ""
    syscalls: tuple[_Rule, ...] = ()

    def check(self) -> None:
        if self.architectures and self.arch_map:
            raise ValueError("both 'architectures' and 'archMap' are specified, use either of them")


# GOARCH and SCMP_ARCH_ names of the machines.
_GOARCH = {"x86_64": "amd64", "aarch64": "arm64", "arm64": "arm64", "riscv64": "riscv64"}


def parse(text: str, capabilities: "Collection[str]", host: HostFacts) -> Seccomp:
    """Return what a profile in docker's format (of which OCI's is a part) means to this container on this machine.

    Raises Invalid for anything that is no such profile; what a rule itself says is checked when it is compiled.
    """
    subject = "the seccomp profile"
    profile = _Profile.from_json(jsonio.parse_object(text, subject), subject)
    native = _ARCHITECTURES.get(host.machine, ("",))[0]
    architectures = profile.architectures
    for entry in profile.arch_map:
        if entry.architecture == native:
            architectures = (entry.architecture, *entry.sub_architectures)
            break
    return Seccomp(
        default_action=profile.default_action,
        default_errno_ret=_number("defaultErrno", profile.default_errno_ret, profile.default_errno),
        architectures=architectures,
        flags=profile.flags,
        listener_path=profile.listener_path,
        listener_metadata=profile.listener_metadata,
        syscalls=tuple(
            Syscall(
                names=rule.names or ((rule.name,) if rule.name else ()),
                action=rule.action,
                errno_ret=_number(f"syscalls[{index}].errno", rule.errno_ret, rule.errno),
                args=rule.args,
            )
            for index, rule in enumerate(profile.syscalls)
            if _counts(rule, capabilities, host)
        ),
    )


def _counts(rule: _Rule, capabilities: "Collection[str]", host: HostFacts) -> bool:
    """Tell whether a rule is for this container: every kind of inclusion holds, and no exclusion."""
    arch = _GOARCH.get(host.machine, host.machine)
    includes, excludes = rule.includes, rule.excludes
    return not (
        arch in excludes.arches
        or any(name in capabilities for name in excludes.caps)
        or (excludes.min_kernel and host.kernel >= _version(excludes.min_kernel))
        or (includes.arches and arch not in includes.arches)
        or not all(name in capabilities for name in includes.caps)
        or (includes.min_kernel and host.kernel < _version(includes.min_kernel))
    )


def _version(text: str) -> tuple[int, ...]:
    """Return (major, minor) of "4.8", () for what is no version."""
    parts = text.split(".")
    if len(parts) != 2 or not all(part.isascii() and part.isdigit() and len(part) < 4 for part in parts):
        return ()
    return (int(parts[0]), int(parts[1])) if any(int(part) for part in parts) else ()


def _number(field: str, number: int | None, name: str) -> int | None:
    """Return the errno that is given as a number, or by name, or both ways alike."""
    if not name:
        return number
    named = getattr(errno, name, None) if name.startswith("E") and name.isupper() else None
    if named is None or number not in (None, named):
        cause = (
            f"{field}: {name[:40]!r} is not the name of errno {number}"
            if named
            else f"{field}: {name[:40]!r} is no errno"
        )
        raise Invalid("read", "the seccomp profile", cause, hint=f"correct {field} and try again")
    return int(named)
