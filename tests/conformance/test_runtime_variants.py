"""orlop-runtime beside runc and crun: the same config.json, one change each, the same probe inside, the same answers.

A difference that is meant stands in the judge's list with its reason; everything else must be equal after
normalisation. crun 1.8 refuses hybrid cgroups: it is shown the v1 hierarchies alone, and so is ours beside it.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from support.bundles import RUNTIME, V1_ONLY, Config, Runtime, base, busybox_root, cgroups, changed, normalised

# -- one change each ------------------------------------------------------------------------------------------------


def process(**values: object) -> Callable[[Config], object]:
    return lambda config: config["process"].update(values)


def linux(**values: object) -> Callable[[Config], object]:
    return lambda config: config["linux"].update(values)


def resources(**values: object) -> Callable[[Config], object]:
    return lambda config: config["linux"]["resources"].update(values)


def top(**values: object) -> Callable[[Config], object]:
    return lambda config: config.update(values)


def mount(destination: str, kind: str, source: str, *options: str) -> Callable[[Config], object]:
    entry = {"destination": destination, "type": kind, "source": source, "options": list(options)}
    return lambda config: config["mounts"].append(entry)


def without(namespace: str) -> Callable[[Config], object]:
    def change(config: Config) -> None:
        config["linux"]["namespaces"] = [row for row in config["linux"]["namespaces"] if row["type"] != namespace]
        if namespace == "uts":
            config.pop("hostname")

    return change


def remounted(destination: str, *options: str) -> Callable[[Config], object]:
    def change(config: Config) -> None:
        next(row for row in config["mounts"] if row["destination"] == destination)["options"] = list(options)

    return change


def seccomp(default: str, *rules: dict[str, object], **more: object) -> Callable[[Config], object]:
    value = {"defaultAction": default, "architectures": ["SCMP_ARCH_X86_64"], "syscalls": list(rules), **more}
    return linux(seccomp=value)


def sets(names: list[str]) -> dict[str, list[str]]:
    return dict.fromkeys(("bounding", "effective", "permitted"), names)


ALL = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_SETUID", "CAP_SETGID", "CAP_SYS_ADMIN", "CAP_NET_RAW", "CAP_MKNOD"]
MKDIR = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}

VARIANTS: dict[str, Callable[[Config], object]] = {
    "processors of an exec": process(execCPUAffinity={"initial": "0", "final": "0"}),
    "nothing changed": lambda config: None,
    "read-only root": lambda config: config["root"].update(readonly=True),
    "another hostname": top(hostname="a.b.c"),
    "user": process(user={"uid": 1000, "gid": 1001}),
    "user and groups": process(user={"uid": 1000, "gid": 1001, "additionalGids": [5, 7, 1001]}),
    "root with groups": process(user={"uid": 0, "gid": 0, "additionalGids": [1, 2, 3]}),
    "umask": process(user={"uid": 0, "gid": 0, "umask": 0o077}),
    "cwd": process(cwd="/tmp"),
    "cwd that is missing": process(cwd="/new/dir"),
    "environment": process(env=["PATH=/bin", "A=b=c", "EMPTY=", "HOME=/tmp"]),
    "environment without HOME": process(env=["PATH=/bin"]),
    "no capabilities": process(capabilities={}),
    "capabilities left out": lambda config: config["process"].pop("capabilities"),
    "more capabilities": process(capabilities=sets(ALL)),
    "capabilities of a user": process(user={"uid": 1000, "gid": 1000}, capabilities=sets(ALL)),
    "bounding only": process(capabilities={"bounding": ALL}),
    "ambient": process(
        user={"uid": 1000, "gid": 1000}, capabilities={**sets(ALL), "inheritable": ALL, "ambient": ["CAP_CHOWN"]}
    ),
    "new privileges allowed": process(noNewPrivileges=False),
    "rlimits": process(
        rlimits=[
            {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
            {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
            {"type": "RLIMIT_NPROC", "soft": 500, "hard": 600},
            {"type": "RLIMIT_STACK", "soft": 1 << 20, "hard": 8 << 20},
        ]
    ),
    "rlimits of a user": process(
        user={"uid": 1000, "gid": 1000}, rlimits=[{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}]
    ),
    "oom score": process(oomScoreAdj=500),
    "host network": without("network"),
    "host pid": without("pid"),
    "host ipc": without("ipc"),
    "host uts": without("uts"),
    "host cgroup": without("cgroup"),
    "user namespace": lambda config: (
        config["linux"]["namespaces"].append({"type": "user"}),
        config["linux"].update(
            uidMappings=[{"containerID": 0, "hostID": 0, "size": 65536}],
            gidMappings=[{"containerID": 0, "hostID": 0, "size": 65536}],
        ),
    ),
    "nothing masked": linux(maskedPaths=[]),
    "nothing read-only": linux(readonlyPaths=[]),
    "mask a file of the image": linux(maskedPaths=["/bin/true"]),
    "mask what is missing": linux(maskedPaths=["/no/such"]),
    "read-only directory": linux(readonlyPaths=["/etc"]),
    "sysctl": linux(sysctl={"net.ipv4.ip_forward": "1", "kernel.shmmax": "1000000", "kernel.domainname": "example"}),
    "tmpfs": mount("/mnt", "tmpfs", "tmpfs", "size=1m", "mode=700", "nosuid", "nodev", "noexec"),
    "tmpfs in a new directory": mount("/a/b/c", "tmpfs", "tmpfs"),
    "tmpfs noatime": mount("/mnt", "tmpfs", "tmpfs", "noatime"),
    "tmpfs iversion": mount("/mnt", "tmpfs", "tmpfs", "iversion", "size=1m"),
    "tmpfs strictatime": mount("/mnt", "tmpfs", "tmpfs", "strictatime"),
    "bind": mount("/mnt", "bind", "/etc", "bind"),
    "bind read-only": mount("/mnt", "bind", "/etc", "bind", "ro"),
    "bind with flags": mount("/mnt", "bind", "/etc", "bind", "nosuid", "nodev", "noexec", "ro"),
    "bind recursively": mount("/mnt", "bind", "/dev", "rbind"),
    "bind a file": mount("/etc/hosts", "bind", "/etc/hosts", "bind", "ro"),
    "bind a file on a new path": mount("/run/x/hosts", "bind", "/etc/hosts", "bind"),
    "bind private": mount("/mnt", "bind", "/etc", "bind", "private"),
    "bind slave": mount("/mnt", "bind", "/etc", "rbind", "rslave"),
    "proc read-only": remounted("/proc", "ro"),
    "proc with flags": remounted("/proc", "nosuid", "nodev", "noexec"),
    "sys writable": remounted("/sys", "nosuid", "noexec", "nodev"),
    "cgroup v2 by its name": mount("/mnt", "cgroup2", "cgroup2", "ro", "nosuid", "nodev", "noexec"),
    "no /dev": lambda config: config.update(
        mounts=[row for row in config["mounts"] if not row["destination"].startswith("/dev")]
    ),
    "no /sys": lambda config: config.update(
        mounts=[row for row in config["mounts"] if not row["destination"].startswith("/sys")]
    ),
    "devices": linux(
        devices=[
            {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o666, "uid": 0, "gid": 0},
            {"path": "/dev/loop0", "type": "b", "major": 7, "minor": 0, "fileMode": 0o600, "uid": 1, "gid": 2},
            {"path": "/dev/pipe", "type": "p", "fileMode": 0o644},
        ]
    ),
    "device rules": resources(
        devices=[
            {"allow": False, "access": "rwm"},
            {"allow": True, "type": "c", "major": 1, "minor": 1, "access": "r"},
            {"allow": True, "type": "b", "major": 7, "access": "rw"},
        ]
    ),
    "every device": resources(devices=[{"allow": True, "access": "rwm"}]),
    "memory": resources(memory={"limit": 64 << 20}),
    "memory and reservation": resources(memory={"limit": 64 << 20, "reservation": 32 << 20}),
    "swappiness": resources(memory={"limit": 64 << 20, "swappiness": 10}),
    "cpu": resources(cpu={"shares": 512, "quota": 50000, "period": 100000}),
    "cpu shares": resources(cpu={"shares": 2}),
    "cpuset": resources(cpu={"cpus": "0", "mems": "0"}),
    "pids": resources(pids={"limit": 50}),
    "pids without limit": resources(pids={"limit": -1}),
    "seccomp errno": seccomp("SCMP_ACT_ALLOW", MKDIR),
    "seccomp errno number": seccomp("SCMP_ACT_ALLOW", {**MKDIR, "errnoRet": 38}),
    "seccomp argument": seccomp(
        "SCMP_ACT_ALLOW",
        {
            "names": ["chmod", "fchmodat"],
            "action": "SCMP_ACT_ERRNO",
            "args": [{"index": 1, "value": 0o700, "op": "SCMP_CMP_EQ"}],
        },
    ),
    "seccomp without no_new_privs": lambda config: (
        seccomp("SCMP_ACT_ALLOW", MKDIR)(config),
        config["process"].update(noNewPrivileges=False),
    ),
    "propagation private": linux(rootfsPropagation="private"),
    "propagation slave": linux(rootfsPropagation="slave"),
    "propagation shared": linux(rootfsPropagation="shared"),
    "annotations": top(annotations={"a": "b"}),
    "command not found": process(args=["nosuch"]),
    "command by path not found": process(args=["/no/such"]),
    "command is a directory": process(args=["/etc"]),
    "command is not executable": process(args=["/etc/group"]),
    "exit status": process(args=["/bin/sh", "-c", "exit 42"]),
    "killed by a signal": process(args=["/bin/sh", "-c", "sh -c 'kill -9 $$'; exit $?"]),
}

# Variants whose difference is meant: the lines that may differ (all that match one of the words), and why.
Differences = dict[str, tuple[tuple[str, ...], str]]
RUNC: Differences = {
    "no /dev": (
        ("/proc/keys", "/proc/timer_list", "/dev/x"),
        "runc's mask is the /dev/null that it made in the image, ours the host's own (SEC-11); x is of the run before",
    ),
    "propagation shared": (
        ("/ ext4",),
        "linux.rootfsPropagation is the container's root's own (config-linux.md); runc 1.1 leaves it private",
    ),
}
RUNC_EVERYWHERE: tuple[tuple[str, str], ...] = (
    ("/proc/acpi tmpfs", "the tmpfs of a mask has nosuid, nodev and noexec, too"),
    ("/sys/firmware tmpfs", "the tmpfs of a mask has nosuid, nodev and noexec, too"),
    ("/sys/fs/cgroup tmpfs", "the directory of the hierarchies is read-only, too, when they are (SEC-30)"),
    ("/sys/fs/cgroup/systemd", "a named hierarchy's source is cgroup, as of the others"),
    ("c 10:200 rwm", "/dev/net/tun is not among the default devices: runc took it out in 1.2"),
)
_OF_A_USER = (
    ("/tmp/",),
    "a tmpfs without a mode gets that of the directory that it covers, as with runc; crun leaves the kernel's 1777",
)
CRUN: Differences = {
    "user": _OF_A_USER,
    "user and groups": _OF_A_USER,
    "capabilities of a user": _OF_A_USER,
    "ambient": _OF_A_USER,
    "rlimits of a user": _OF_A_USER,
    "user namespace": (
        ("/dev/",),
        "the host's device nodes are bound with the flags that they have there, as with runc",
    ),
    "proc with flags": (("/proc/",), "a path that is made read-only keeps the flags of its mount, as with runc"),
    "cgroup v2 by its name": (("/mnt",), "where v2 is not mounted, no cgroup of the container's is in it"),
    "no /dev": (("/dev/x",), "x is of the run before"),
    "propagation shared": (("/ ext4",), "linux.rootfsPropagation is the container's root's own (config-linux.md)"),
}
CRUN_EVERYWHERE: tuple[tuple[str, str], ...] = (
    ("/proc/acpi tmpfs", "the tmpfs of a mask has nosuid, nodev and noexec, too"),
    ("/sys/firmware tmpfs", "the tmpfs of a mask has nosuid, nodev and noexec, too"),
    ("/sys/fs/cgroup", "crun's sources are paths, and its directory of the hierarchies can be written (SEC-30)"),
    ("core -> /proc/kcore", "/dev/core is made where the kernel has a /proc/kcore"),
    ("c 5:1 rwm", "/dev/console is a bound terminal here, no device that needs a rule"),
)
CRUN_REFUSES = {
    "pids without limit": "crun 1.8 writes -1 into pids.max; the word is max",
    "tmpfs iversion": "crun 1.8 gives the word to the file system, and tmpfs has no option of that name",
}


@pytest.fixture(scope="module")
def rootfs(tmp_path_factory: pytest.TempPathFactory, peer: Callable[[str], Path]) -> Path:
    """busybox and nothing else."""
    return busybox_root(tmp_path_factory.mktemp("root"), peer("busybox"))


def unlike(
    theirs: str, ours: str, differences: Differences, everywhere: Sequence[tuple[str, str]], variant: str
) -> str:
    """Return the lines in which two answers differ and should not."""
    told = difflib.unified_diff(normalised(theirs), normalised(ours), "theirs", "ours", lineterm="", n=0)
    meant, _ = differences.get(variant, ((), ""))
    words = (*meant, *(word for word, _ in everywhere))
    lines = [line for line in list(told)[2:] if not line.startswith("@@")]
    return "\n".join(line for line in lines if not any(word in line for word in words))


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_is_as_runc_has_it(variant: str, rootfs: Path, tmp_path: Path, peer: Callable[[str], Path]) -> None:
    config = changed(base(rootfs), VARIANTS[variant])
    theirs = Runtime(peer("runc"), tmp_path / "runc").run(tmp_path / "bundle", config, "x")
    for directory in cgroups(config):  # of one that stays busy for 0.1 s runc takes its leave
        directory.rmdir()
    ours = Runtime(RUNTIME, tmp_path / "orlop").run(tmp_path / "bundle", config, "x")
    assert cgroups(config) == []
    assert ours.returncode == theirs.returncode, (ours.stderr, theirs.stderr)
    assert not (left := unlike(theirs.stdout, ours.stdout, RUNC, RUNC_EVERYWHERE, variant)), left


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_is_as_crun_has_it(variant: str, rootfs: Path, tmp_path: Path, peer: Callable[[str], Path]) -> None:
    config = changed(base(rootfs), VARIANTS[variant])
    theirs = Runtime(peer("crun"), tmp_path / "crun", V1_ONLY).run(tmp_path / "bundle", config, "x")
    ours = Runtime(RUNTIME, tmp_path / "orlop", V1_ONLY).run(tmp_path / "bundle", config, "x")
    assert cgroups(config) == []
    if variant in CRUN_REFUSES:
        assert (theirs.returncode, ours.returncode) == (1, 0), (ours.stderr, theirs.stderr)
        return
    assert ours.returncode == theirs.returncode, (ours.stderr, theirs.stderr)
    assert not (left := unlike(theirs.stdout, ours.stdout, CRUN, CRUN_EVERYWHERE, variant)), left


@pytest.mark.parametrize(
    ("wanted", "of_runc"),
    [
        ({}, 0),
        ({"l3CacheSchema": "L3:0=f"}, 1),
        ({"memBwSchema": "MB:0=10"}, 1),
        ({"closID": "x", "l3CacheSchema": "L3:0=f"}, 1),
        ({"closID": "x"}, 0),  # runc takes it and does nothing: a field that can't be honoured is an error here
    ],
)
def test_intel_rdt_where_the_machine_has_none(
    wanted: dict[str, object], of_runc: int, rootfs: Path, tmp_path: Path, peer: Callable[[str], Path]
) -> None:
    config = changed(base(rootfs), lambda config: (linux(intelRdt=wanted)(config), process(args=["true"])(config)))
    theirs = Runtime(peer("runc"), tmp_path / "runc").run(tmp_path / "bundle", config, "x")
    for directory in cgroups(config):
        directory.rmdir()
    ours = Runtime(RUNTIME, tmp_path / "orlop").run(tmp_path / "bundle", config, "x")
    assert theirs.returncode == of_runc or Path("/sys/fs/resctrl/info").exists(), theirs
    assert (ours.returncode, "linux.intelRdt" in ours.stderr) == ((1, True) if wanted else (0, False)), ours


NEWER: dict[str, tuple[Callable[[Config], object], str]] = {
    "personality": (linux(personality={"domain": "LINUX32"}), "\n00000008\n"),
    "seccomp flags": (seccomp("SCMP_ACT_ALLOW", MKDIR, flags=["SECCOMP_FILTER_FLAG_LOG"]), "Seccomp:\t2"),
    "time namespace": (
        lambda config: (
            config["linux"]["namespaces"].append({"type": "time"}),
            config["linux"].update(timeOffsets={"boottime": {"secs": 1000000}}),
            config["process"].update(
                args=["/bin/sh", "-c", "cut -d. -f1 /proc/uptime | grep -E '^1[0-9]{6}$' && echo later"]
            ),
        ),
        "later",
    ),
    "recursive read-only": (mount("/mnt", "bind", "/dev", "rbind", "rro"), "/mnt"),
    "scheduler": (
        lambda config: config["process"].update(
            scheduler={"policy": "SCHED_BATCH", "nice": 5}, args=["/bin/sh", "-c", "cut -d' ' -f19,41 /proc/self/stat"]
        ),
        "5 3",
    ),
    "io priority": (process(ioPriority={"class": "IOPRIO_CLASS_IDLE", "priority": 0}), "## identity"),
    "domain name": (top(domainname="example.test"), "example.test"),
}


@pytest.mark.parametrize("field", NEWER)
def test_a_field_that_is_newer_than_debians_runc(field: str, rootfs: Path, tmp_path: Path) -> None:
    change, word = NEWER[field]
    told = Runtime(RUNTIME, tmp_path / "orlop").run(tmp_path / "bundle", changed(base(rootfs), change), "x")
    assert word in told.stdout, told
