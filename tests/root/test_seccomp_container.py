"""Seccomp profiles through the real command: the default, the user's own, none, wrong ones, and in words."""

from __future__ import annotations

import errno
import json
import platform

import pytest

from support import probe
from support.filtered import call
from support.seccomp_agent import Agent

MINUS_ONE = 2**64 - 1
NO_MKDIR = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.ENOSYS}],
}


@pytest.fixture
def profile(tmp_path):
    """`profile(document)` writes a profile and returns the option that names it."""

    def write(document):
        path = tmp_path / "profile.json"
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        return f"--security-opt=seccomp={path}"

    return write


def test_the_agent_of_an_exec_is_told_whose_it_is(orlop, profile, tmp_path):
    path = tmp_path / "agent"
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}
    notify = profile({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule], "listenerPath": str(path)})
    with Agent(path) as first:
        container = orlop("run", "-d", "--network", "none", notify, "host", "sleep", "1000").stdout.strip()
        path.unlink()
        with Agent(path) as second:
            assert orlop("exec", container, "mkdir", "/tmp/x", check=False).code == 1
        orlop("rm", "-f", container)
    for agent, status in ((first, "creating"), (second, "running")):
        assert (agent.state["state"]["id"], agent.state["state"]["status"]) == (container, status)
    assert second.state["state"]["pid"] == first.state["pid"] != second.state["pid"]
    assert len(second.calls) == 1


@pytest.fixture
def made_inside(orlop, tmp_path):
    """`made_inside(calls, *options)` returns what system calls gave to process 1 of a container."""
    if platform.machine() != "x86_64":
        pytest.skip("needs: x86-64")
    root = tmp_path / "rootfs"
    root.mkdir()

    def run(calls, *options):
        (root / "probe").write_bytes(probe.program(calls))
        (root / "probe").chmod(0o755)
        return probe.results(orlop("run", "--rm", "--network", "none", *options, "--rootfs", root, "/probe").raw_stdout)

    return run


DANGEROUS = [
    call("socket", 38, 5, 0),  # AF_ALG, CVE-2026-31431
    call("socket", 38, 5, 0, architecture="i386"),
    call("socket", 40, 1, 0),  # AF_VSOCK
    call("ioctl", MINUS_ONE, 0x5412, 0),  # TIOCSTI
    call("ioctl", MINUS_ONE, 0x541C, 0, architecture="i386"),  # TIOCLINUX, CVE-2023-28100
    call("unshare", 0x10000000),
    call("clone", 0x10000000, 0, 0, 0, 0),
    call("mount", 0, 0, 0, 0, 0),
    call("keyctl", 0, 0, 0),
    call("io_uring_setup", 0, 0),
    call("userfaultfd", 0),
    call("bpf", 0, 0, 0),
    call("swapoff", 0, architecture="x32"),
]
MISSING = [call("clone3", 0, 0), call("listns"), ("x86_64", 5000, ())]


def test_the_default_profile_is_on(made_inside):
    calls = [*DANGEROUS, *MISSING, call("getpid"), call("getpid", architecture="i386"), call("close", MINUS_ONE)]
    assert made_inside(calls) == [-errno.EPERM] * len(DANGEROUS) + [-errno.ENOSYS] * len(MISSING) + [1, 1, -errno.EBADF]


def test_capabilities_open_it(made_inside):
    calls = [call("unshare", 0), call("clone3", 0, 0), call("chroot", 0), call("acct", MINUS_ONE)]
    found = made_inside(calls, "--cap-add", "SYS_ADMIN", "--cap-drop", "SYS_CHROOT")
    assert found == [0, -errno.EINVAL, -errno.EPERM, -errno.EPERM]


def test_unconfined_means_no_filter(made_inside):
    found = made_inside([call("unshare", 0), call("clone3", 0, 0)], "--security-opt", "seccomp=unconfined")
    assert found == [0, -errno.EINVAL]


def test_a_profile_of_the_users_own(orlop, profile):
    done = orlop("run", "--rm", "--network", "none", profile(NO_MKDIR), "host", "mkdir", "/tmp/x", check=False)
    assert (done.code, "Function not implemented" in done.stderr) == (1, True)


def test_an_exec_is_filtered_like_the_container(orlop, profile):
    orlop("run", "-d", "--name", "c", "--network", "none", profile(NO_MKDIR), "host", "sleep", "60")
    done = orlop("exec", "c", "mkdir", "/tmp/x", check=False)
    assert (done.code, "Function not implemented" in done.stderr) == (1, True)


@pytest.mark.parametrize(
    ("document", "cause"),
    [
        ({"defaultAction": "SCMP_ACT_NONE"}, "defaultAction: 'SCMP_ACT_NONE' is no action"),
        ({"syscalls": []}, "defaultAction: it is required"),
        ({**NO_MKDIR, "architectures": ["PDP11"]}, "architectures[0]: 'PDP11' is no architecture"),
        ({**NO_MKDIR, "flags": ["NONE"]}, "flags[0]: 'NONE' is no seccomp flag"),
        ("{", "not valid JSON"),
    ],
)
def test_a_wrong_profile_stops_the_start(orlop, profile, document, cause):
    done = orlop("run", "--rm", "--network", "none", profile(document), "host", "true", check=False)
    assert (done.code, done.stdout) == (125, "")
    assert cause in done.stderr


def test_the_filter_in_words(orlop, profile):
    told = orlop("run", "--dry-run", "--network", "none", "host", "true").stdout
    assert "ioctl is allowed unless argument 1 is 0x5412 or 0x541c" in told
    assert "clone is allowed if argument 0 has none of the bits 0x7e020000" in told
    orlop("create", "--name", "c", "--network", "none", profile(NO_MKDIR), "host", "true")
    told = orlop("explain", "c").stdout
    assert "refused with ENOSYS: mkdir, mkdirat, whatever their arguments" in told
