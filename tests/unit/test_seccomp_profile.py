"""The default profile and docker's profile format."""

from __future__ import annotations

import errno
import json
import sys

import pytest

from orlop.engine.compile import seccomp_profile
from orlop.linux import bpf, bpf_machine, syscalls
from orlop.runtime import seccomp, seccomp_words
from orlop.runtime.host import HostFacts
from orlop.spec.errors import Invalid
from orlop.spec.runtime import Seccomp

ALLOW = bpf.SECCOMP_RET_ALLOW
EPERM = bpf.SECCOMP_RET_ERRNO | errno.EPERM
ENOSYS = bpf.SECCOMP_RET_ERRNO | errno.ENOSYS
TIOCSTI, TIOCLINUX, TIOCGWINSZ = 0x5412, 0x541C, 0x5413
AF_INET, AF_ALG, AF_VSOCK = 2, 38, 40
# docker's default capabilities
CAPABILITIES = tuple(
    f"CAP_{name}"
    for name in (
        "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL"
        " AUDIT_WRITE"
    ).split()
)


def host(machine="x86_64", kernel=(6, 18)):
    return HostFacts(machine=machine, kernel=kernel, cap_last=40, cap_bounding=0, cap_effective=0)


def outcome(name, *args, architecture="x86_64", machine="x86_64", capabilities=CAPABILITIES, kernel=(6, 18)):
    found = seccomp_profile.default(capabilities, host(machine, kernel))
    return run(found, name, *args, architecture=architecture, machine=machine)


def run(found, name, *args, architecture="x86_64", machine="x86_64"):
    number = syscalls.numbers(architecture)[name]
    return bpf_machine.simulate(seccomp.compile(found, machine), architecture, number, args)


NATIVE = {"x86_64": ("i386", "x32"), "aarch64": ("arm",), "riscv64": ()}


@pytest.mark.parametrize("machine", NATIVE)
def test_every_architecture_of_a_machine_reads_and_writes(machine):
    for architecture in (machine, *NATIVE[machine]):
        for name in ("read", "write", "execve", "exit_group", "statx", "getrandom", "landlock_restrict_self"):
            assert outcome(name, architecture=architecture, machine=machine) == ALLOW


@pytest.mark.parametrize("architecture", ["x86_64", "i386", "x32"])
@pytest.mark.parametrize(
    "name",
    "mount umount2 pivot_root unshare setns reboot swapon init_module kexec_load bpf perf_event_open keyctl add_key"
    " request_key io_uring_setup io_uring_enter io_uring_register userfaultfd open_by_handle_at settimeofday acct"
    " open_tree move_mount fsopen fsconfig fsmount fspick mount_setattr quotactl syslog kcmp vhangup iopl".split(),
)
def test_what_changes_the_host_is_refused(name, architecture):
    assert outcome(name, architecture=architecture) == EPERM


@pytest.mark.parametrize("machine", NATIVE)
def test_calls_younger_than_the_profile_are_missing(machine):
    for architecture in (machine, *NATIVE[machine]):
        for name in ("file_setattr", "open_tree_attr"):
            if architecture != "x32":  # whose own numbers lie above all others
                assert outcome(name, architecture=architecture, machine=machine) == ENOSYS


@pytest.mark.parametrize(
    ("capability", "names"),
    [
        ("CAP_SYS_ADMIN", "mount umount2 unshare setns clone3 fsopen open_tree bpf perf_event_open sethostname syslog"),
        ("CAP_SYS_BOOT", "reboot"),
        ("CAP_SYS_CHROOT", "chroot"),
        ("CAP_SYS_MODULE", "init_module finit_module delete_module"),
        ("CAP_SYS_PACCT", "acct"),
        ("CAP_SYS_PTRACE", "kcmp pidfd_getfd process_madvise"),
        ("CAP_SYS_RAWIO", "iopl ioperm"),
        ("CAP_SYS_TIME", "settimeofday clock_settime"),
        ("CAP_SYS_TTY_CONFIG", "vhangup"),
        ("CAP_SYS_NICE", "mbind set_mempolicy get_mempolicy set_mempolicy_home_node"),
        ("CAP_SYSLOG", "syslog"),
        ("CAP_BPF", "bpf"),
        ("CAP_PERFMON", "perf_event_open"),
        ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
    ],
)
def test_capabilities_bring_their_calls(capability, names):
    for name in names.split():
        assert outcome(name, capabilities=(capability,)) == ALLOW
        assert outcome(name, capabilities=()) in (EPERM, ENOSYS)


@pytest.mark.parametrize("architecture", ["x86_64", "i386", "x32"])
def test_clone_makes_processes_but_no_namespaces(architecture):
    assert outcome("clone", 0x3D0F00, architecture=architecture) == ALLOW  # a thread of glibc
    for flag in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert outcome("clone", 0x3D0F00 | flag, architecture=architecture) == EPERM
    assert outcome("clone3", architecture=architecture) == ENOSYS
    assert outcome("clone", 0x10000000, capabilities=("CAP_SYS_ADMIN",)) == ALLOW


@pytest.mark.parametrize("architecture", ["x86_64", "i386", "x32"])
def test_sockets_of_dangerous_families_are_refused(architecture):
    refused = {family for family in range(64) if outcome("socket", family, architecture=architecture) != ALLOW}
    assert {AF_ALG, AF_VSOCK} < refused
    assert refused == {12, 19, 20, 23, 25, 34, 37, AF_ALG, AF_VSOCK, *range(46, 64)}


def test_socketcall_is_the_documented_gap():
    assert outcome("socketcall", 1, architecture="i386") == ALLOW


@pytest.mark.parametrize("architecture", ["x86_64", "i386", "x32"])
def test_terminals_take_no_input_from_inside(architecture):
    high = [0] if architecture == "i386" else [0, 1 << 32, 0xFFFFFFFF00000000]
    for bits in high:  # the kernel looks at 32 bits of the command, and so must the filter (CVE-2019-7303)
        assert outcome("ioctl", 0, bits | TIOCSTI, architecture=architecture) == EPERM
        assert outcome("ioctl", 0, bits | TIOCLINUX, architecture=architecture) == EPERM
        assert outcome("ioctl", 0, bits | TIOCGWINSZ, architecture=architecture) == ALLOW
    for command in [*range(0x5400, 0x5480), 0, 1, 0xFFFFFFFF, 0x80045430, TIOCSTI | 1 << 31, TIOCLINUX ^ 1 << 16]:
        wanted = EPERM if command in (TIOCSTI, TIOCLINUX) else ALLOW
        assert outcome("ioctl", 0, command, architecture=architecture) == wanted


def test_personalities():
    allowed = {value for value in (0, 8, 0x20000, 0x20008, 0xFFFFFFFF) if outcome("personality", value) == ALLOW}
    assert len(allowed) == 5
    assert outcome("personality", 0x0040000) == EPERM  # ADDR_NO_RANDOMIZE


def test_tracing_needs_a_kernel_that_filters_the_traced():
    assert outcome("ptrace", kernel=(4, 8)) == ALLOW
    assert outcome("ptrace", kernel=(4, 7)) == EPERM
    assert outcome("ptrace", kernel=(3, 10), capabilities=("CAP_SYS_PTRACE",)) == ALLOW


@pytest.mark.parametrize(
    ("machine", "name", "found"),
    [
        ("x86_64", "arch_prctl", ALLOW),
        ("x86_64", "modify_ldt", ALLOW),
        ("riscv64", "riscv_flush_icache", ALLOW),
        ("riscv64", "riscv_hwprobe", ALLOW),
    ],
)
def test_machines_bring_their_calls(machine, name, found):
    assert outcome(name, architecture=machine, machine=machine) == found


def test_arm_sets_its_thread_pointer():
    for name in ("set_tls", "cacheflush", "arm_fadvise64_64", "arm_sync_file_range"):
        found = outcome(name, architecture="arm", machine="aarch64")
        assert found == ALLOW


def test_every_name_of_the_profile_exists():
    everything = set().union(*(syscalls.numbers(each) for each in syscalls.ARCHITECTURES)) | set(syscalls.MULTIPLEXED)
    for machine in NATIVE:
        found = seccomp_profile.default((*seccomp_profile._BY_CAPABILITY,), host(machine))
        assert {name for block in found.syscalls for name in block.names} <= everything


def test_the_profile_is_an_oci_document():
    found = seccomp_profile.default(CAPABILITIES, host())
    assert Seccomp.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_the_profile_in_words():
    lines = seccomp_words.describe(seccomp_profile.default(CAPABILITIES, host()), "x86_64")
    assert "ioctl is allowed unless argument 1 is 0x5412 or 0x541c (compared in 32 bits)" in lines
    assert "refused with ENOSYS: clone3, whatever their arguments" in lines
    assert "clone is allowed if argument 0 has none of the bits 0x7e020000" in lines


def parse(document, capabilities=CAPABILITIES, **where):
    return seccomp_profile.parse(json.dumps(document), capabilities, host(**where))


def docker(**fields):
    return {"defaultAction": "SCMP_ACT_ERRNO", **fields}


def conditional(**when):
    return docker(syscalls=[{"names": ["read"], "action": "SCMP_ACT_ALLOW", **when}])


ARCH_MAP = [
    {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]},
    {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
    {"architecture": "SCMP_ARCH_RISCV64", "subArchitectures": None},
]


@pytest.mark.parametrize(
    ("machine", "architectures"),
    [
        ("x86_64", ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32")),
        ("aarch64", ("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM")),
        ("riscv64", ("SCMP_ARCH_RISCV64",)),
    ],
)
def test_the_architecture_map(machine, architectures):
    assert parse(docker(archMap=ARCH_MAP), machine=machine).architectures == architectures


@pytest.mark.parametrize(
    ("when", "counts"),
    [
        ({}, True),
        ({"includes": {}, "excludes": {}}, True),
        ({"includes": None, "args": None, "comment": "x"}, True),
        ({"includes": {"caps": ["CAP_CHOWN"]}}, True),
        ({"includes": {"caps": ["CAP_CHOWN", "CAP_SYS_ADMIN"]}}, False),
        ({"excludes": {"caps": ["CAP_SYS_ADMIN"]}}, True),
        ({"excludes": {"caps": ["CAP_SYS_ADMIN", "CAP_CHOWN"]}}, False),
        ({"includes": {"arches": ["amd64", "x32"]}}, True),
        ({"includes": {"arches": ["arm64"]}}, False),
        ({"excludes": {"arches": ["amd64"]}}, False),
        ({"includes": {"minKernel": "4.8"}}, True),
        ({"includes": {"minKernel": "6.18"}}, True),
        ({"includes": {"minKernel": "6.19"}}, False),
        ({"includes": {"minKernel": "7.0"}}, False),
        ({"excludes": {"minKernel": "6.18"}}, False),
        ({"excludes": {"minKernel": "7.0"}}, True),
        ({"includes": {"minKernel": ""}}, True),
        ({"includes": {"caps": ["CAP_CHOWN"], "arches": ["s390x"]}}, False),
    ],
)
def test_rules_count_or_do_not(when, counts):
    assert (run(parse(conditional(**when)), "read") == ALLOW) == counts


def test_every_field_arrives():
    found = parse(
        docker(
            defaultErrnoRet=38,
            architectures=["SCMP_ARCH_X86_64"],
            flags=["SECCOMP_FILTER_FLAG_LOG"],
            listenerPath="/run/agent.sock",
            listenerMetadata="x",
            syscalls=[
                {
                    "name": "dup",
                    "action": "SCMP_ACT_ERRNO",
                    "errnoRet": 7,
                    "args": [{"index": 1, "value": 2, "valueTwo": 3, "op": "SCMP_CMP_MASKED_EQ"}],
                }
            ],
        )
    )
    oci = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 38,
        "architectures": ["SCMP_ARCH_X86_64"],
        "flags": ["SECCOMP_FILTER_FLAG_LOG"],
        "listenerPath": "/run/agent.sock",
        "listenerMetadata": "x",
        "syscalls": [
            {
                "names": ["dup"],
                "action": "SCMP_ACT_ERRNO",
                "errnoRet": 7,
                "args": [{"index": 1, "value": 2, "valueTwo": 3, "op": "SCMP_CMP_MASKED_EQ"}],
            }
        ],
    }
    assert found == Seccomp.from_json(oci)
    assert parse(oci) == found


def test_containers_common_names_its_errnos():
    found = parse(
        docker(defaultErrno="ENOSYS", syscalls=[{"names": ["dup"], "action": "SCMP_ACT_ERRNO", "errno": "EPERM"}])
    )
    assert (found.default_errno_ret, found.syscalls[0].errno_ret) == (errno.ENOSYS, errno.EPERM)


@pytest.mark.parametrize(
    ("document", "cause"),
    [
        ({}, "defaultAction: it is required"),
        ([], "it is not a JSON object"),
        (docker(archMap=ARCH_MAP, architectures=["SCMP_ARCH_X86"]), "both 'architectures' and 'archMap' are specified"),
        (conditional(name="write"), "syscalls[0]: both 'name' and 'names' are specified"),
        (conditional(includes={"minKernel": "4"}), "invalid kernel version '4'"),
        (conditional(includes={"minKernel": "4.8.1"}), "invalid kernel version '4.8.1'"),
        (conditional(includes={"minKernel": "0.0"}), "invalid kernel version '0.0'"),
        (conditional(excludes={"minKernel": "a.b"}), "invalid kernel version 'a.b'"),
        (conditional(includes={"minKernel": 4.8}), "syscalls[0].includes.minKernel: expected a string"),
        (conditional(includes={"caps": "CAP_CHOWN"}), "syscalls[0].includes.caps: expected a list"),
        (conditional(errno="EWHAT"), "syscalls[0].errno: 'EWHAT' is no errno"),
        (conditional(errno="EPERM", errnoRet=2), "syscalls[0].errno: 'EPERM' is not the name of errno 2"),
        (docker(defaultErrno="errorcode"), "defaultErrno: 'errorcode' is no errno"),
        (docker(syscalls=[{"names": ["read"]}]), "syscalls[0].action: it is required"),
        (docker(syscalls=[{"names": [1], "action": "SCMP_ACT_ALLOW"}]), "syscalls[0].names[0]: expected a string"),
        (docker(syscalls=[{"names": ["a\0b"], "action": "x"}]), "syscalls[0].names[0]: a string can't hold a NUL"),
        (docker(syscalls=["read"]), "syscalls[0]: expected an object"),
        (docker(syscalls={}), "syscalls: expected a list"),
        (docker(defaultErrnoRet=2**64), "defaultErrnoRet: the integer does not fit into 64 bits"),
        (docker(defaultErrnoRet=True), "defaultErrnoRet: expected an integer"),
        (conditional(args=[{"index": 0, "op": "SCMP_CMP_EQ", "value": 2**64}]), "value: the integer does not fit"),
        (conditional(args=[{"index": 0, "value": 1}]), "syscalls[0].args[0].op: it is required"),
    ],
)
def test_wrong_profiles_are_named(document, cause):
    with pytest.raises(Invalid) as caught:
        parse(document)
    assert cause in caught.value.cause


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", "it is not valid JSON"),
        ("{", "it is not valid JSON"),
        ('{"defaultAction": "SCMP_ACT_ERRNO", "defaultAction": "SCMP_ACT_ALLOW"}', "stands twice"),
        ('{"defaultAction": ' + "[" * 100_000 + "]" * 100_000 + "}", "it is nested too deeply"),
        ('{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [' + " " * 5_000_000 + "]}", "the limit is"),
        ('{"defaultErrnoRet": NaN}', "NaN"),
    ],
)
def test_hostile_texts_are_refused(text, cause):
    with pytest.raises(Invalid) as caught:
        seccomp_profile.parse(text, CAPABILITIES, host())
    assert cause in caught.value.cause


def test_no_thread_is_given_another_ones_profile():
    """The JSON of the last profile is remembered; here another thread writes its own between any two lines."""
    own, other = Seccomp(default_action="SCMP_ACT_ERRNO"), Seccomp(default_action="SCMP_ACT_ALLOW")

    def between(frame, _event, _argument):
        if frame.f_code is Seccomp.to_json.__code__ and frame.f_locals.get("self") is own:
            sys.settrace(None)
            other.to_json()
            sys.settrace(between)
            return between
        return None

    for _ in range(2):
        before = sys.gettrace()
        sys.settrace(between)
        try:
            written = own.to_json()
        finally:
            sys.settrace(before)
        assert written == {"defaultAction": "SCMP_ACT_ERRNO"}
