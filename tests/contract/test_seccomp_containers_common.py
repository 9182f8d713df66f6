"""Our default profile beside podman's: every call about which they differ, with the reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from devtools import peers
from orlop.engine.compile import seccomp_profile
from orlop.linux import bpf, bpf_machine, syscalls
from orlop.runtime import seccomp
from orlop.runtime.host import HostFacts

HOST = HostFacts(machine="x86_64", kernel=(6, 18), cap_last=40, cap_bounding=0, cap_effective=0)
ARGUMENTS = (0, 1, 2, 38, 40, 0x5412, 0x7E020000, 2**64 - 1)  # each of our conditions fails for one of them

# docker's default; everything
CAPABILITIES = ("CAP_CHOWN", "CAP_NET_RAW", "CAP_MKNOD", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE")
EVERY_CAPABILITY = (*seccomp_profile._BY_CAPABILITY, *CAPABILITIES)

STRICTER = {
    "moby refuses namespaces to containers without CAP_SYS_ADMIN; podman lets them, for podman inside podman": (
        "clone clone3 setns unshare fsconfig fsmount fsopen fspick mount mount_setattr move_mount open_tree umount"
        " umount2"
    ),
    "moby lists address families, without AF_ALG and AF_VSOCK": "socket",
    "TIOCSTI and TIOCLINUX, ours alone": "ioctl",
    "moby asks for CAP_SYS_NICE": "get_mempolicy mbind set_mempolicy",
    "moby asks for CAP_SYS_PTRACE": "pidfd_getfd",
    "moby asks for CAP_SYS_BOOT": "reboot",
    "moby asks for CAP_SYSLOG or CAP_SYS_ADMIN": "syslog",
}
STRICTER_ALWAYS = {
    "keyrings belong to no namespace": "keyctl",
    "moby: it turns the whole mount namespace, and a container is inside its root already": "pivot_root",
    "no kernel since 2.6 has it": "query_module",
    "moby leaves out what only libc5 of i386 calls": "readdir sigaction signal sigpending sigsuspend",
}
LOOSER = {
    "younger than the file that Debian 12 has": (
        "cachestat fchmodat2 futex_requeue futex_wait futex_waitv futex_wake getxattrat listmount listxattrat"
        " map_shadow_stack mseal removexattrat setxattrat statmount uretprobe"
    ),
    "moby allows what reads events and moves pages between a process's own pipes": (
        "io_pgetevents io_pgetevents_time64 vmsplice"
    ),
}
LOOSER_WITH_CAPABILITIES = {
    "younger than the file, and for CAP_SYS_ADMIN or CAP_SYS_NICE": (
        "lsm_get_self_attr lsm_list_modules lsm_set_self_attr quotactl_fd set_mempolicy_home_node"
    ),
}


@pytest.fixture
def theirs():
    for place in ("/", str(peers.DIRECTORY)):
        file = Path(place, "usr/share/containers/seccomp.json")
        if file.exists():
            return file.read_text()
    pytest.skip("needs: the profile of containers-common")


def verdict(program, architecture, name):
    """Return how much of a call is allowed: 0 nothing, 2 everything, 1 something."""
    number = syscalls.numbers(architecture)[name]
    actions = {bpf_machine.simulate(program, architecture, number, [value] * 6) for value in ARGUMENTS}
    return 2 if actions == {bpf.SECCOMP_RET_ALLOW} else int(bpf.SECCOMP_RET_ALLOW in actions)


def differences(text, capabilities):
    """Return (calls of which ours allows less, calls of which ours allows more)."""
    ours = seccomp.compile(seccomp_profile.default(capabilities, HOST), "x86_64")
    other = seccomp.compile(seccomp_profile.parse(text, capabilities, HOST), "x86_64")
    less, more = set(), set()
    for architecture in ("x86_64", "i386", "x32"):
        for name in syscalls.numbers(architecture):
            mine, its = verdict(ours, architecture, name), verdict(other, architecture, name)
            (less if mine < its else more if mine > its else set()).add(name)
    return less, more


def names(*tables):
    return {name for table in tables for text in table.values() for name in text.split()}


def test_differences_without_capabilities(theirs):
    less, more = differences(theirs, CAPABILITIES)
    assert less == names(STRICTER, STRICTER_ALWAYS) - {"query_module"}
    assert more == names(LOOSER)


def test_differences_with_every_capability(theirs):
    less, more = differences(theirs, EVERY_CAPABILITY)
    assert less == names(STRICTER_ALWAYS) | {"socket", "ioctl"}
    assert more == names(LOOSER, LOOSER_WITH_CAPABILITIES)
