"""The same profile under runc and under ours: the same program gets the same answer for every call."""

from __future__ import annotations

import errno
import json
import secrets
import signal
import subprocess
from pathlib import Path

import pytest

from devtools import peers
from orlop.engine.compile import seccomp_profile
from orlop.linux import abi, capability, seccomp, syscalls
from orlop.runtime import seccomp as oci
from orlop.runtime.host import facts
from orlop.runtime.seccomp_flags import load_flags
from orlop.spec.errors import OrlopError
from orlop.spec.runtime import Seccomp
from support import filtered, probe
from support.filtered import call

if abi.MACHINE != "x86_64":
    pytest.skip("needs: x86-64", allow_module_level=True)

ALL = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
MINUS_ONE = 2**64 - 1
UNUSED = 400
PLACES = [Path(place, "usr/share/containers/seccomp.json") for place in ("/", peers.DIRECTORY)]
CONTAINERS_COMMON = next((place for place in PLACES if place.exists()), PLACES[0])
KILLED = [-10000 * signal.SIGSYS]


def rule(names, action, *args, **fields):
    return {"names": names.split(), "action": f"SCMP_ACT_{action}", "args": list(args), **fields}


def arg(index, op, value, value_two=0):
    return {"index": index, "op": f"SCMP_CMP_{op}", "value": value, "valueTwo": value_two}


def permissive(*rules, **fields):
    return {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ALL, "syscalls": list(rules), **fields}


def capabilities():
    """Everything that this process may do: then a refusal is the filter's."""
    return list(capability.names_of(facts().cap_bounding))


def default_profile():
    return seccomp_profile.default(("CAP_CHOWN", "CAP_SYS_CHROOT"), facts()).to_json()


@pytest.fixture
def runc(peer, tmp_path):
    """`runc(profile, calls)` returns what the calls gave in a container, or the text of runc's refusal to start it."""
    program = peer("runc")
    name = f"orlop-test-{secrets.token_hex(4)}"

    def run(profile, calls):
        root = tmp_path / "bundle" / "rootfs"
        root.mkdir(parents=True, exist_ok=True)
        write_probe(root / "probe", calls)
        spec = {
            "ociVersion": "1.0.2",
            "root": {"path": "rootfs"},
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
            "process": {
                "args": ["/probe"],
                "cwd": "/",
                "user": {"uid": 0, "gid": 0},
                "noNewPrivileges": True,
                "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), capabilities()),
            },
            "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}], "seccomp": profile},
        }
        (tmp_path / "bundle/config.json").write_text(json.dumps(spec))
        command = [program, "--root", tmp_path / "state", "run", "--bundle", tmp_path / "bundle", name]
        done = subprocess.run(command, capture_output=True, timeout=60, check=False)
        if done.stderr:
            return done.stderr.decode()
        return probe.results(done.stdout) + ([] if done.returncode == 0 else [-10000 * (done.returncode - 128)])

    yield run
    subprocess.run([program, "--root", tmp_path / "state", "delete", "--force", name], capture_output=True, check=False)


@pytest.fixture
def ours(tmp_path):
    """`ours(profile, calls)` returns what the calls gave under our program, or the text of the error."""

    def run(profile, calls):
        write_probe(tmp_path / "probe", calls)
        try:
            found = Seccomp.from_json(profile)
            program, flags = oci.compile(found, abi.MACHINE), load_flags(found)
        except OrlopError as wrong:
            return str(wrong)

        def confine():
            abi.libc.prctl(filtered.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
            seccomp.load(program, flags)

        done = subprocess.run(
            [tmp_path / "probe"], preexec_fn=confine, capture_output=True, env={}, timeout=60, check=False
        )
        return probe.results(done.stdout) + ([] if done.returncode == 0 else [10000 * done.returncode])

    return run


def write_probe(path, calls):
    path.write_bytes(probe.program(calls))
    path.chmod(0o755)


def unused(*args):
    return "x86_64", UNUSED, args


PERMISSIVE = {
    "errnos": (
        permissive(
            rule("mkdir", "ERRNO"), rule("rmdir", "ERRNO", errnoRet=38), rule("link", "ERRNO", errnoRet=0),
            rule("dup", "TRACE"), rule("dup2", "LOG"),
        ),
        [call(name, MINUS_ONE) for name in ("mkdir", "rmdir", "link", "dup", "dup2", "dup3")],
    ),
    "a rule without conditions beats one with, before it": (
        permissive(rule("dup", "ERRNO", arg(0, "EQ", 1), errnoRet=5), rule("dup", "ERRNO", errnoRet=6)),
        [call("dup", 1), call("dup", 2)],
    ),
    "a rule without conditions beats one with, after it": (
        permissive(rule("dup", "ERRNO", errnoRet=6), rule("dup", "ERRNO", arg(0, "EQ", 1), errnoRet=5)),
        [call("dup", 1), call("dup", 2)],
    ),
    "of two rules without conditions the first wins": (
        permissive(rule("dup", "ERRNO", errnoRet=6), rule("dup", "ERRNO", errnoRet=7)),
        [call("dup", 1)],
    ),
    "a rule with the default action shadows nothing": (
        permissive(rule("dup", "ALLOW"), rule("dup", "ERRNO", errnoRet=7)),
        [call("dup", MINUS_ONE)],
    ),
    "the order of overlapping rules is not that of the profile": (
        permissive(
            rule("dup3", "ERRNO", arg(0, "LT", 100), errnoRet=11), rule("dup3", "ERRNO", arg(0, "EQ", 5), errnoRet=12),
            rule("dup3", "ERRNO", arg(0, "GE", 3), errnoRet=13), rule("dup3", "ERRNO", arg(2, "EQ", 9), errnoRet=14),
            rule("dup3", "ERRNO", arg(1, "EQ", 8), errnoRet=15),
        ),
        [
            call("dup3", *args)
            for args in ((5, 0, 0), (4, 0, 0), (200, 0, 0), (5, 8, 0), (5, 8, 9), (2, 0, 0), (2, 8, 1))
        ],
    ),
    "conditions on several arguments": (
        permissive(
            rule("dup3", "ERRNO", arg(0, "EQ", 1), arg(2, "EQ", 3), errnoRet=11),
            rule("dup3", "ERRNO", arg(0, "EQ", 1), arg(1, "EQ", 2), errnoRet=12),
        ),
        [call("dup3", *args) for args in ((1, 2, 3), (1, 2, 4), (1, 3, 3), (1, 3, 4), (2, 2, 3))],
    ),
    "a rule with fewer conditions decides before one with more": (
        permissive(
            rule("dup3", "ERRNO", arg(0, "EQ", 1), errnoRet=6),
            rule("dup3", "ERRNO", arg(0, "EQ", 1), arg(1, "EQ", 1), errnoRet=5),
        ),
        [call("dup3", 1, 1), call("dup3", 1, 2)],
    ),
    "two conditions on one argument are alternatives": (
        permissive(rule("dup", "ERRNO", arg(0, "GE", 10), arg(0, "LE", 3), errnoRet=11)),
        [call("dup", value) for value in (3, 4, 9, 10)],
    ),
    "every operator, on both sides of 32 bits": (
        permissive(
            *(
                rule(name, "ERRNO", arg(0, op, 2**32 + 5), errnoRet=11)
                for name, op in zip(("dup", "fsync", "fchdir", "fdatasync", "syncfs", "close"),
                                    ("NE", "LT", "LE", "EQ", "GE", "GT"), strict=True)
            ),
            rule("flock", "ERRNO", arg(0, "MASKED_EQ", 2**32 + 0xF0, 2**32 + 0x10), errnoRet=11),
        ),
        [
            call(name, value)
            for name in ("dup", "fsync", "fchdir", "fdatasync", "syncfs", "close")
            for value in (5000, 2**32 + 4, 2**32 + 5, 2**32 + 6, 2**33 + 5, MINUS_ONE)
        ] + [call("flock", value) for value in (0x10, 2**32 + 0x11, 2**32 + 0x21, 2**33 + 0x10, 3 * 2**32 + 0x1F)],
    ),
    "unknown names are skipped": (
        permissive(rule("no_such_call dup", "ERRNO", errnoRet=7), rule("s390_runtime_instr", "KILL_PROCESS")),
        [call("dup", MINUS_ONE)],
    ),
    "calls of other ABIs have their own numbers": (
        permissive(rule("dup getpid", "ERRNO", errnoRet=7)),
        [call(name, architecture=each) for each in ("x86_64", "i386", "x32") for name in ("dup", "getpid")],
    ),
    "socketcall and ipc on i386": (
        permissive(
            rule("socket shmget", "ERRNO", errnoRet=7), rule("bind", "ERRNO", arg(0, "EQ", 77), errnoRet=8),
            rule("semget", "ERRNO", errnoRet=9),
        ),
        [
            call("socket", MINUS_ONE), *(call("socketcall", place, 0, architecture="i386") for place in (1, 2, 3, 99)),
            *(call("ipc", place, architecture="i386") for place in (2, 23, 99)),
            call("socket", architecture="i386"), call("bind", 76, architecture="i386"),
            call("bind", 77, architecture="i386"),
        ],
    ),
    "killed by another architecture": (
        {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ALL[:1], "syscalls": [rule("dup", "ERRNO")]},
        [call("dup"), call("dup", architecture="i386")],
    ),
    "x32 without its architecture": (
        {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ALL[:2], "syscalls": [rule("dup", "ERRNO")]},
        [call("dup"), call("dup", architecture="i386"), call("dup", architecture="x32")],
    ),
    "killed by a rule": (
        permissive(rule("dup", "KILL"), rule("fsync", "TRAP")), [call("fchdir", MINUS_ONE), call("dup"), call("fsync")],
    ),
    "no architectures means the machine's own": (
        {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule("dup", "ERRNO", errnoRet=7)]},
        [call("dup"), ("x86_64", 5000, ())],
    ),
    "a permissive default has no missing calls": (
        permissive(rule("dup", "ERRNO", errnoRet=7), defaultErrnoRet=None), [("x86_64", 5000, ()), ("i386", 5000, ())],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", PERMISSIVE)
def test_runc_and_we_answer_alike(runc, ours, case):
    profile, calls = PERMISSIVE[case]
    profile = {key: value for key, value in profile.items() if value is not None}
    theirs = runc(profile, calls)
    assert isinstance(theirs, list), theirs
    assert ours(profile, calls) == theirs
    assert len(theirs) == len(calls) or theirs[-1:] == KILLED


def test_calls_younger_than_the_profile(runc, ours):
    """libseccomp 2.5.4 knows fewer names than we: the newest name of this profile is known to both."""
    profile = default_profile()
    profile["syscalls"][0]["names"] = [
        name
        for name in profile["syscalls"][0]["names"]
        if syscalls.numbers("x86_64").get(name, 0) <= syscalls.numbers("x86_64")["process_mrelease"]
    ]
    numbers = [425, 428, 440, 447, 448, 449, 450, 451, 462, 470, 1000, 0x3FFFFFFF, 0x40000000 + 546, 0x40000000 + 548]
    calls = [
        *(("x86_64", number, [MINUS_ONE] * 6) for number in numbers),
        *(("i386", number, [0xFFFFFFFF] * 6) for number in numbers[:10]),
    ]
    theirs = runc(profile, calls)
    assert ours(profile, calls) == theirs
    assert {-errno.EPERM, -errno.ENOSYS} <= set(theirs)


REFUSED_AND_REACHED = """
read write mount umount2 unshare setns clone clone3 keyctl bpf ptrace personality chroot reboot acct swapon
io_uring_setup userfaultfd perf_event_open open_by_handle_at name_to_handle_at socket socketpair init_module ioctl
openat2 statx close_range pidfd_getfd pivot_root quotactl settimeofday syslog uselib vmsplice
""".split()


def sweep(names=REFUSED_AND_REACHED):
    return [
        call(name, *[MINUS_ONE if each != "i386" else 0xFFFFFFFF] * 6, architecture=each)
        for each in ("x86_64", "i386", "x32")
        for name in names
        if name in syscalls.numbers(each)
    ]


def test_our_default_profile_means_the_same_to_runc(runc, ours):
    families = [call("socket", family, 1, 0) for family in (0, 1, 2, 16, 38, 40, 41, 45)]
    commands = [call("ioctl", MINUS_ONE, value, 0) for value in (0x5401, 0x5412, 0x541C, 2**32 + 0x5412, 0x80045430)]
    clones = [call("clone", value, 0, 0, 0, 0) for value in (0x10000000, 0x2000000, 0x20000)]
    calls = [*sweep(), *families, *commands, *clones]
    theirs = runc(default_profile(), calls)
    mine = ours(default_profile(), calls)
    assert [(one, mine[place]) for place, one in enumerate(calls)] == [
        (one, theirs[place]) for place, one in enumerate(calls)
    ]


def test_containers_commons_profile_means_the_same_to_runc(runc, ours):
    if not CONTAINERS_COMMON.exists():
        pytest.skip("needs: the profile of containers-common")
    for capabilities in (("CAP_CHOWN",), ("CAP_SYS_ADMIN", "CAP_AUDIT_WRITE")):
        found = seccomp_profile.parse(CONTAINERS_COMMON.read_text(), capabilities, facts())
        calls = [*sweep(), call("socket", 16, 3, 9), call("socket", 16, 3, 0), call("socket", 2, 1, 9)]
        theirs = runc(found.to_json(), calls)
        mine = ours(found.to_json(), calls)
        assert list(zip(calls, mine, strict=True)) == list(zip(calls, theirs, strict=True))


@pytest.mark.parametrize(
    "profile",
    [
        permissive(
            rule("dup", "ERRNO", arg(0, "EQ", 1), errnoRet=5),
            rule("dup", "ERRNO", arg(0, "EQ", 1), errnoRet=6),
        ),
        permissive(rule("dup", "NOSUCH")),
        permissive(rule("dup", "ERRNO", arg(0, "NOSUCH", 1))),
        permissive(rule("dup", "ERRNO", arg(7, "EQ", 1))),
        permissive(architectures=["SCMP_ARCH_NOSUCH"]),
        permissive(flags=["SECCOMP_FILTER_FLAG_NOSUCH"]),
        permissive(defaultAction="SCMP_ACT_NOTIFY"),
        permissive(rule("write", "NOTIFY"), listenerPath="/nowhere"),
    ],
    ids=["contradiction", "action", "operator", "argument", "architecture", "flag",
         "notify by default", "notify for write"],
)  # fmt: skip
def test_runc_and_we_refuse_alike(runc, ours, profile):
    calls = [call("dup", 1)]
    theirs, mine = runc(profile, calls), ours(profile, calls)
    assert isinstance(mine, str)
    assert isinstance(theirs, str), theirs
