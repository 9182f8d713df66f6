"""Seccomp programs in the real kernel: what it makes of them is what `simulate` says, for every ABI of x86-64."""

from __future__ import annotations

import errno
import os
import pty
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from orlop.engine.compile import seccomp_profile
from orlop.linux import abi, bpf, bpf_machine, seccomp, syscalls
from orlop.linux.bpf import Rule, Section, assemble, condition
from orlop.runtime import seccomp as oci
from orlop.runtime.host import facts
from support import filtered
from support.filtered import call, results

if abi.MACHINE != "x86_64":
    pytest.skip("needs: x86-64", allow_module_level=True)

ALLOW = bpf.SECCOMP_RET_ALLOW
MINUS_ONE = 2**64 - 1
SIGSYS = -10000 * signal.SIGSYS
UNUSED = 400  # a number that x86-64 skipped: the kernel answers ENOSYS, whatever the arguments
MARK = 4001  # an errno that no call returns
ARCHITECTURES = ("x86_64", "i386", "x32")
# docker's, which is what decides the profile; the child has all of root's, so that a refusal is the filter's.
CAPABILITIES = ("CAP_CHOWN", "CAP_KILL", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SYS_CHROOT")


def default_program(**changes):
    profile = seccomp_profile.default(CAPABILITIES, facts()).replace(**changes)
    return oci.compile(profile, "x86_64")


def one_section(*rules, default=ALLOW):
    return assemble([Section("x86_64", rules)], default)


# -- SEC-31: eighty calls, three ABIs -------------------------------------------------------------------------------

# With every argument -1 a call that reaches the kernel does no harm: no such descriptor, address, process or flag.
REFUSED = """
mount umount2 pivot_root unshare setns reboot swapon swapoff init_module finit_module delete_module kexec_load bpf
perf_event_open keyctl add_key request_key io_uring_setup io_uring_enter io_uring_register userfaultfd
open_by_handle_at settimeofday clock_settime acct open_tree move_mount fsopen fsconfig fsmount fspick mount_setattr
quotactl quotactl_fd syslog kcmp iopl ioperm process_madvise pidfd_getfd mbind set_mempolicy get_mempolicy
migrate_pages move_pages fanotify_init sethostname setdomainname lookup_dcookie uselib nfsservctl
lsm_set_self_attr
""".split()
REACHED = """
read write open close stat fcntl ioctl readv mprotect munmap dup dup3 kill tkill getpriority sched_getparam
sched_getattr getpgid getsid statx openat openat2 fchmodat2 getxattrat mseal futex_wake pidfd_open close_range
landlock_add_rule capget chroot
""".split()
MISSING = ["clone3", "open_tree_attr", "file_getattr", "file_setattr", "listns"]
EIGHTY = [*((name, "refused") for name in REFUSED), *((name, "reached") for name in REACHED),
          *((name, "missing") for name in MISSING)]  # fmt: skip


def expected(name, kind, architecture):
    """x32 has calls of its own above all others, so nothing there is younger than the profile but what it names so."""
    if kind == "missing" and architecture == "x32" and name != "clone3":
        return "refused"
    return kind


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_eighty_calls_get_what_the_profile_says(architecture):
    known = [(name, kind) for name, kind in EIGHTY if name in syscalls.numbers(architecture)]
    assert len(EIGHTY) >= 80
    assert len(known) >= 75
    word = MINUS_ONE if architecture != "i386" else 0xFFFFFFFF
    calls = [call(name, *[word] * 6, architecture=architecture) for name, _ in known]
    really = results(default_program(), calls)
    marked = results(default_program(default_errno_ret=MARK), calls)
    assert len(really) == len(marked) == len(known)
    for (name, kind), real, mark in zip(known, really, marked, strict=True):
        kind = expected(name, kind, architecture)
        if kind == "refused":
            assert (name, real, mark) == (name, -errno.EPERM, -MARK)
        elif kind == "missing":
            assert (name, real, mark) == (name, -errno.ENOSYS, -errno.ENOSYS)
        else:
            # Past the filter: the kernel's own answer. A kernel without x32 knows none of its calls.
            assert (name, real) == (name, mark)
            assert real not in (-errno.EPERM, -MARK), name
            assert (real == -errno.ENOSYS) <= (architecture == "x32"), name


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_dangerous_address_families(architecture):
    stream, sequential = 1, 5
    # The number of a family that is not there is told by the kernel; that of a refused one by the filter.
    found = results(
        default_program(),
        [
            call("socket", 1, stream, 0, architecture=architecture),
            call("socket", 38, sequential, 0, architecture=architecture),  # AF_ALG, CVE-2026-31431
            call("socket", 40, stream, 0, architecture=architecture),  # AF_VSOCK
            call("socket", 12, stream, 0, architecture=architecture),  # AF_DECnet
        ],
    )
    assert found[1:] == [-errno.EPERM] * 3
    assert found[0] == -errno.ENOSYS if architecture == "x32" else found[0] > 0


def test_socketcall_hides_the_address_family():
    # The documented gap, moby's too. SYS_SOCKET with an address that is not there: the kernel, not the filter, answers.
    assert results(default_program(), [call("socketcall", 1, 0, architecture="i386")]) == [-errno.EFAULT]


@pytest.mark.parametrize("architecture", ["x86_64", "i386"])
def test_terminals_take_no_input_from_inside(architecture):
    leader, follower = pty.openpty()
    try:
        calls = [call("ioctl", follower, command, 0, architecture=architecture) for command in (0x5412, 0x541C)]
        if architecture == "x86_64":
            calls.append(call("ioctl", follower, 1 << 32 | 0x5412, 0))  # the kernel cuts the command to 32 bits
        found = results(default_program(), [*calls, call("ioctl", follower, 0x5413, 0, architecture=architecture)])
    finally:
        os.close(leader)
        os.close(follower)
    assert found == [-errno.EPERM] * len(calls) + [-errno.EFAULT]  # TIOCGWINSZ goes through, to no address


def test_namespaces_by_clone_are_refused_and_threads_are_not():
    script = (
        "import threading, os\n"
        "done = []\n"
        "thread = threading.Thread(target=done.append, args=(1,)); thread.start(); thread.join()\n"
        "pid = os.fork()\n"
        "if pid == 0: os._exit(7)\n"
        "print(done, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
    )
    assert run_filtered([sys.executable, "-I", "-c", script]) == "[1] 7\n"
    assert results(default_program(), [call("clone", 0x10000000 | signal.SIGCHLD)]) == [-errno.EPERM]


def test_programs_of_the_host_run_under_the_default_profile(tmp_path):
    (tmp_path / "a").write_text("text\n")
    script = (
        "ls / > /dev/null && cat a && cp a b && mv b c && rm c && mkdir d && rmdir d && date +%Y > /dev/null && id -u"
    )
    assert run_filtered(["/bin/sh", "-c", script], cwd=tmp_path) == "text\n0\n"


def run_filtered(argv, cwd=None):
    program = default_program()

    def confine():
        abi.libc.prctl(filtered.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        seccomp.load(program)

    run = subprocess.run(argv, preexec_fn=confine, cwd=cwd, capture_output=True, text=True, timeout=30, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    return run.stdout


# -- actions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "result"),
    [
        (ALLOW, -errno.ENOSYS),
        (bpf.SECCOMP_RET_LOG, -errno.ENOSYS),
        (bpf.SECCOMP_RET_ERRNO | errno.EXDEV, -errno.EXDEV),
        (bpf.SECCOMP_RET_ERRNO, 0),
        (bpf.SECCOMP_RET_ERRNO | 4095, -4095),
        (bpf.SECCOMP_RET_TRACE | 5, -errno.ENOSYS),  # nobody traces
        (bpf.SECCOMP_RET_TRAP, SIGSYS),
        (bpf.SECCOMP_RET_KILL_THREAD, SIGSYS),
        (bpf.SECCOMP_RET_KILL_PROCESS, SIGSYS),
    ],
)
def test_actions(action, result):
    assert results(one_section(Rule([UNUSED], action)), [("x86_64", UNUSED, ())]) == [result]


@pytest.mark.parametrize("architecture", ["i386", "x32"])
def test_a_call_of_an_architecture_without_a_section_kills(architecture):
    assert results(one_section(), [call("getpid", architecture=architecture)]) == [SIGSYS]


def test_a_call_of_an_architecture_with_a_section_does_not():
    program = assemble([Section(name, []) for name in ARCHITECTURES], ALLOW)
    pids = results(program, [call("getpid", architecture=name) for name in ARCHITECTURES])
    assert pids[0] == pids[1] > 0
    assert pids[2] in (pids[0], -errno.ENOSYS)  # with and without CONFIG_X86_X32_ABI


# -- the kernel and the interpreter agree ---------------------------------------------------------------------------

EDGES = [0, 1, 2, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF, 2**32, 2**32 + 1, 2**63, MINUS_ONE - 1, MINUS_ONE]


@pytest.mark.parametrize("seed", range(20))
def test_the_kernel_compares_as_the_interpreter_does(seed):
    dice = random.Random(seed)
    rules = []
    for mark in range(3000, 3012):
        tests = [
            condition(index, dice.choice(bpf.OPERATORS), dice.choice(EDGES), dice.choice(EDGES))
            for index in dice.sample(range(6), 3)  # of one length: none is another's beginning
        ]
        rules.append(Rule([UNUSED, UNUSED + 1], bpf.SECCOMP_RET_ERRNO | mark, tests))
    program = one_section(*rules, default=ALLOW)
    calls = [("x86_64", UNUSED + dice.randint(0, 2), [dice.choice(EDGES) for _ in range(6)]) for _ in range(100)]
    wanted = [bpf_machine.simulate(program, *one) for one in calls]
    found = results(program, calls)
    assert found == [-errno.ENOSYS if action == ALLOW else -(action & bpf.SECCOMP_RET_DATA) for action in wanted]
    assert len(set(found)) > 1


@pytest.mark.parametrize("instructions", [4096])
def test_the_longest_program_loads(instructions):
    program = (bpf.LD_W_ABS | 0 << 32).to_bytes(8, "little") * (instructions - 1) + bpf.RET_K.to_bytes(4, "little")
    program += ALLOW.to_bytes(4, "little")
    assert len(bpf_machine.check(program)) == instructions
    assert results(program, [("x86_64", UNUSED, ())]) == [-errno.ENOSYS]


# -- loading --------------------------------------------------------------------------------------------------------


def load_error(program, flags=0, uid=0, twice=False):
    """Return the errno of a load in a child, 0 for success."""
    pid = os.fork()
    if pid == 0:
        try:
            if uid:
                os.setresuid(uid, uid, uid)
            else:
                abi.libc.prctl(filtered.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
            if twice:
                seccomp.load(program, flags)
            seccomp.load(program, flags)
            os._exit(0)
        except OSError as wrong:
            os._exit(wrong.errno or 255)
        finally:
            os._exit(254)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


GOOD = one_section()


@pytest.mark.parametrize(
    ("program", "flags", "uid", "error"),
    [
        (GOOD, 0, 0, 0),
        (GOOD, seccomp.FLAGS["SECCOMP_FILTER_FLAG_LOG"] | seccomp.FLAGS["SECCOMP_FILTER_FLAG_SPEC_ALLOW"], 0, 0),
        (GOOD, seccomp.SECCOMP_FILTER_FLAG_TSYNC, 0, 0),
        (GOOD, 0, 65534, errno.EACCES),
        (GOOD, 1 << 20, 0, errno.EINVAL),
        (b"", 0, 0, errno.EINVAL),
        (GOOD[:-4], 0, 0, errno.EINVAL),
        (GOOD[:-8], 0, 0, errno.EINVAL),
        (GOOD[-8:] * 4097, 0, 0, errno.EINVAL),
        (GOOD[-8:] * 65537, 0, 0, errno.EINVAL),
        (b"\xff" * 8 + GOOD, 0, 0, errno.EINVAL),
    ],
)
def test_loading(program, flags, uid, error):
    assert load_error(program, flags, uid) == error


def test_a_second_listener_is_busy():
    assert load_error(GOOD, seccomp.SECCOMP_FILTER_FLAG_NEW_LISTENER, twice=True) == errno.EBUSY


def test_a_listener_is_a_descriptor_that_does_not_outlive_exec():
    pid = os.fork()
    if pid == 0:
        try:
            abi.libc.prctl(filtered.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
            flags = seccomp.SECCOMP_FILTER_FLAG_NEW_LISTENER | seccomp.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
            listener = seccomp.load(one_section(Rule([UNUSED], bpf.SECCOMP_RET_USER_NOTIF)), flags)
            is_listener = listener is not None and "seccomp notify" in os.readlink(f"/proc/self/fd/{listener}")
            os._exit(0 if is_listener and not os.get_inheritable(listener) else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_what_this_kernel_can():
    # The kernel's own list has its own spelling.
    listed = Path("/proc/sys/kernel/seccomp/actions_avail").read_text().split()
    names = {name.upper() for name in listed}
    assert {name.removeprefix("SECCOMP_RET_") for name in seccomp.supported_actions()} == names
    assert {"SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG"} <= set(seccomp.supported_flags())
    assert ("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" in seccomp.supported_flags()) == (facts().kernel >= (5, 19))


def test_a_flag_that_no_kernel_has_is_not_supported():
    assert not seccomp._has_flag(1 << 20)
    assert not seccomp._has_action(0x12340000)
