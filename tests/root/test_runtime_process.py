"""The process: identity, rights, limits, names, streams, hooks; and what is refused by name."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orlop.linux.cgroup import Cgroup, detect
from orlop.spec.errors import OrlopError
from orlop.spec.runtime import (
    Box,
    Capabilities,
    CpuAffinity,
    Hook,
    Hooks,
    IdMapping,
    IoPriority,
    Namespace,
    Personality,
    Resources,
    Rlimit,
    Scheduler,
    Seccomp,
    TimeOffset,
    User,
)
from support import container, launcher
from support.container import CAPABILITIES, NAMESPACES, make_spec
from support.launcher import output, refusal


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return container.make_root(tmp_path_factory.mktemp("process") / "root")


def shell(root: Path, script: str, **changes: object) -> launcher.Outcome:
    return launcher.run(make_spec("sh", "-c", script, **changes), root)


def status(root: Path, **changes: object) -> dict[str, str]:
    return dict(re.findall(r"(\w+):\t(.*)", output(shell(root, "cat /proc/self/status", **changes))))


def namespaces(*extra: Namespace, without: str = "") -> tuple[Namespace, ...]:
    return (*(Namespace(type=kind) for kind in NAMESPACES if kind != without), *extra)


# Where a container sees its own limit and count of processes, and where the host has the cgroup.
V1 = Path("/sys/fs/cgroup/pids").is_dir()
PIDS = "/sys/fs/cgroup/pids" if V1 else "/sys/fs/cgroup"


# -- identity -------------------------------------------------------------------------------------------------------


def test_user_and_groups(root: Path) -> None:
    found = status(root, user=User(uid=1000, gid=1001, additional_gids=(1001, 10, 4294967294)))
    assert found["Uid"].split() == ["1000"] * 4 and found["Gid"].split() == ["1001"] * 4
    assert found["Groups"].split() == ["10", "1001", "4294967294"]
    assert found["CapEff"] == found["CapPrm"] == found["CapInh"] == "0" * 16
    assert found["CapBnd"] == f"{container.CAPABILITIES_MASK:016x}"


def test_ambient_capabilities_survive_the_user(root: Path) -> None:
    sets = ("CAP_NET_BIND_SERVICE",)
    wanted = Capabilities(bounding=sets, effective=sets, permitted=sets, inheritable=sets, ambient=sets)
    found = status(root, user=User(uid=1000, gid=1000), capabilities=wanted)
    assert {found[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {f"{1 << 10:016x}"}


def test_no_capabilities_at_all(root: Path) -> None:
    for wanted in (None, Capabilities()):
        found = status(root, capabilities=wanted)
        assert {found[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}


def test_what_the_host_lacks_is_a_warning(root: Path) -> None:
    wanted = (*CAPABILITIES, "CAP_SYS_RESOURCE")
    outcome = shell(root, "true", capabilities=Capabilities(bounding=wanted, effective=wanted, permitted=wanted))
    own = int(re.search(r"CapBnd:\t(\w+)", Path("/proc/self/status").read_text())[1], 16)
    assert outcome.code == 0 and bool(outcome.warnings) == (not own >> 24 & 1)
    assert all("CAP_SYS_RESOURCE" in warning for warning in outcome.warnings)


def test_a_capability_that_is_none_is_a_warning(root: Path) -> None:
    """config.md: "MUST be logged as a warning", and "SHOULD NOT fail"."""
    wanted = ("CAP_MAGIC", "CAP_CHOWN")
    changes = {"capabilities": Capabilities(bounding=wanted, effective=wanted, permitted=wanted)}
    outcome = shell(root, "cat /proc/self/status", **changes)
    found = dict(re.findall(r"(\w+):\t(.*)", output(outcome)))
    assert {found[name] for name in ("CapPrm", "CapEff", "CapBnd")} == {f"{1:016x}"}
    assert [warning for warning in outcome.warnings if "'CAP_MAGIC'" in warning]


@pytest.mark.parametrize("early", [True, False])
def test_no_new_privileges_and_filter(root: Path, early: bool) -> None:
    profile = Seccomp.from_json({"defaultAction": "SCMP_ACT_ALLOW"})
    found = status(root, no_new_privileges=not early, seccomp=profile, user=User(uid=1000, gid=1000))
    assert (found["NoNewPrivs"], found["Seccomp"]) == ("0" if early else "1", "2")
    assert found["CapPrm"] == "0" * 16


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_a_filter_that_forbids_everything_but_what_init_still_needs(root: Path, no_new_privileges: bool) -> None:
    names = (
        "execve exit_group write brk mmap munmap mprotect arch_prctl access openat close newfstatat fstat pread64 read "
    )
    names += "set_tid_address set_robust_list rseq prlimit64 getrandom fadvise64"
    # Without no_new_privs the capabilities can only go after the filter is loaded.
    names += "" if no_new_privileges else " capset"
    profile = {
        "defaultAction": "SCMP_ACT_KILL_PROCESS",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{"names": names.split(), "action": "SCMP_ACT_ALLOW"}],
    }
    spec = make_spec("echo", "in", no_new_privileges=no_new_privileges, seccomp=Seccomp.from_json(profile))
    assert output(launcher.run(spec, root)) == "in\n"


def test_umask_directory_and_environment(root: Path) -> None:
    assert output(shell(root, "umask; pwd")) == "0022\n/\n"
    script = "umask; pwd; echo $A $B; env | wc -l"
    env = (*container.ENVIRONMENT, "A=1", "A=2", "B=x=y")
    lines = output(shell(root, script, user=User(umask=0o137), cwd="/usr/bin", env=env)).splitlines()
    assert lines[:3] == ["0137", "/usr/bin", "2 x=y"]


def test_a_directory_that_only_root_may_enter(root: Path) -> None:
    # As with runc, whoever starts the container may put its process where it could not go by itself.
    private = root / "home/private"
    private.mkdir(mode=0o700, parents=True, exist_ok=True)
    assert output(shell(root, "pwd", user=User(uid=1001), cwd="/home/private", capabilities=None)) == "/home/private\n"


def test_a_directory_that_nobody_may_enter(root: Path) -> None:
    foreign = root / "foreign"
    foreign.mkdir(mode=0o700, exist_ok=True)
    os.chown(foreign, 5, 5)
    maps = (IdMapping(container_id=0, host_id=100000, size=1),)
    outcome = shell(
        root, "pwd", cwd="/foreign", namespaces=namespaces(Namespace(type="user")), uid_mappings=maps, gid_mappings=maps
    )
    assert 'chdir to cwd ("/foreign") set in config.json failed: permission denied' in refusal(outcome, "invalid")


@pytest.mark.parametrize(
    ("cwd", "text"),
    [
        ("/etc/passwd", 'chdir to cwd ("/etc/passwd") set in config.json failed: not a directory'),
        ("/etc/passwd/x", "not a directory"),
        ("relative", "process.cwd"),
        ("", "process.cwd"),
    ],
)
def test_working_directories_that_are_none(root: Path, cwd: str, text: str) -> None:
    assert text in refusal(shell(root, "true", cwd=cwd), "invalid")


@pytest.mark.parametrize("number", [*range(3, 24), 100, 1023])
def test_no_descriptor_of_ours_is_a_working_directory(root: Path, number: int) -> None:
    # CVE-2024-21626, by name and through a link of the image's.
    assert refusal(shell(root, "pwd; ls", cwd=f"/proc/self/fd/{number}"), "invalid")


def test_no_descriptor_through_a_link(root: Path) -> None:
    for number in range(3, 16):
        link = root / f"tmp/link{number}"
        if not link.is_symlink():
            link.symlink_to(f"/proc/self/fd/{number}")
        assert refusal(shell(root, "pwd", cwd=f"/tmp/link{number}"), "invalid")


# -- limits and scheduling ------------------------------------------------------------------------------------------


def test_rlimits_and_clamping(root: Path) -> None:
    hard = int(Path("/proc/sys/fs/nr_open").read_text())  # more is refused to everybody
    outcome = shell(
        root,
        "ulimit -Sn; ulimit -Hn; ulimit -c; ulimit -Ss",
        rlimits=(
            Rlimit(type="RLIMIT_NOFILE", soft=64, hard=hard),
            Rlimit(type="RLIMIT_CORE", soft=0, hard=0),
            Rlimit(type="RLIMIT_STACK", soft=1 << 20, hard=2**64 - 1),
        ),
    )
    own = int(re.search(r"Max open files\s+\d+\s+(\d+)", Path("/proc/self/limits").read_text())[1])
    lines = output(outcome).split()
    assert lines[0] == "64" and lines[2:] == ["0", "1024"]
    assert int(lines[1]) in (own, hard)
    assert bool(outcome.warnings) == (int(lines[1]) == own)


def test_a_limit_that_the_kernel_refuses_is_named(root: Path) -> None:
    """Who has CAP_SYS_RESOURCE is told; who has not is given what there is, and a warning."""
    most = int(Path("/proc/sys/fs/nr_open").read_text())
    outcome = shell(root, "ulimit -Hn", rlimits=(Rlimit(type="RLIMIT_NOFILE", soft=64, hard=most + 1),))
    if outcome.error is None:
        assert outcome.warnings
    else:
        assert "RLIMIT_NOFILE" in str(outcome.error) and "init failed" not in str(outcome.error)


def test_a_tiny_limit_does_not_hit_init(root: Path) -> None:
    limits = (
        Rlimit(type="RLIMIT_NOFILE", soft=3, hard=3),
        Rlimit(type="RLIMIT_AS", soft=16 << 20, hard=16 << 20),
        Rlimit(type="RLIMIT_FSIZE", soft=0, hard=0),
    )
    assert launcher.run(make_spec("true", rlimits=limits), root).error is None


def test_oom_score_scheduler_and_io(root: Path) -> None:
    """execCPUAffinity is not for process 1 (config.md): red where it was applied to it, too."""
    online = str(len(os.sched_getaffinity(0)))
    lines = output(
        shell(
            root,
            "cd /proc/self; cat oom_score_adj; nproc; grep -E 'policy|prio' sched",
            oom_score_adj=500,
            exec_cpu_affinity=CpuAffinity(initial="0", final="0"),
            scheduler=Scheduler(policy="SCHED_BATCH", nice=5),
            io_priority=IoPriority(io_class="IOPRIO_CLASS_BE", priority=7),
        )
    ).splitlines()
    assert lines[:2] == ["500", online]
    values = dict(re.findall(r"(policy|prio)\s*:\s*(\d+)", "\n".join(lines)))
    assert values == {"policy": "3", "prio": "125"}


def test_personality(root: Path) -> None:
    script = "cat /proc/self/personality; uname -m 2>/dev/null; true"
    assert output(shell(root, script, personality=Personality(domain="LINUX32"))).split()[0] == "00000008"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"rlimits": (Rlimit(type="RLIMIT_NONE", soft=1, hard=1),)}, "process.rlimits[0].type"),
        ({"rlimits": (Rlimit(type="RLIMIT_CPU", soft=2, hard=1),)}, "process.rlimits[0]"),
        ({"rlimits": (Rlimit(type="RLIMIT_CPU", soft=-1, hard=1),)}, "process.rlimits[0]"),
        ({"rlimits": (Rlimit(type="RLIMIT_CPU", soft=1, hard=1),) * 2}, "process.rlimits[1]"),
        ({"oom_score_adj": 1001}, "process.oomScoreAdj"),
        ({"scheduler": Scheduler(policy="SCHED_MAGIC")}, "process.scheduler.policy"),
        ({"scheduler": Scheduler(policy="SCHED_OTHER", flags=("X",))}, "process.scheduler.flags"),
        ({"io_priority": IoPriority(io_class="X")}, "process.ioPriority.class"),
        ({"io_priority": IoPriority(io_class="IOPRIO_CLASS_BE", priority=8)}, "process.ioPriority.priority"),
        ({"exec_cpu_affinity": CpuAffinity(final="1-0")}, "process.execCPUAffinity.final"),
        ({"exec_cpu_affinity": CpuAffinity(initial="0-99999999999999999999")}, "process.execCPUAffinity.initial"),
        ({"personality": Personality(domain="BSD")}, "linux.personality.domain"),
        ({"user": User(uid=4294967295)}, "process.user.uid"),
        ({"user": User(uid=-1)}, "process.user.uid"),
        ({"user": User(gid=4294967296)}, "process.user.gid"),
        ({"user": User(additional_gids=(1, -5))}, "process.user.additionalGids"),
        ({"user": User(umask=0o1000)}, "process.user.umask"),
        ({"capabilities": Capabilities(effective=("CAP_CHOWN",))}, "process.capabilities.effective"),
        ({"env": ("NOVALUE",)}, "process.env[0]"),
        ({"env": ("=x",)}, "process.env[0]"),
        ({"env": ("A=\ud800",)}, "process.env[0]"),
        ({"args": ("true", "\ud800")}, "process.args[1]"),
        ({"terminal": True, "console_size": Box(height=70000, width=1)}, "process.consoleSize"),
        ({"hostname": "x" * 65}, "hostname"),
        ({"hostname": "a\nb"}, "hostname"),
        ({"time_offsets": {"monotonic": TimeOffset(secs=1)}}, "linux.timeOffsets"),
        ({"uid_mappings": (IdMapping(container_id=0, host_id=0, size=1),)}, "linux.uidMappings"),
        ({"namespaces": (Namespace(type="mount"), Namespace(type="mount"))}, "linux.namespaces[1]"),
        ({"namespaces": (Namespace(type="mount"), Namespace(type="pid", path="x"))}, "linux.namespaces[1].path"),
        ({"namespaces": (Namespace(type="mount"),)}, "hostname"),
        ({"resources": Resources.from_json({"pids": {"limit": 5}})}, "linux.resources"),
        ({"hooks": Hooks(prestart=(Hook(path="relative"),))}, "hooks.prestart[0].path"),
        ({"hooks": Hooks(poststop=(Hook(path="/x", timeout=0),))}, "hooks.poststop[0].timeout"),
        # posix_spawn(3) of Python takes none of these, and what is run by delete must not be found out there.
        ({"hooks": Hooks(poststop=(Hook(path="/x", args=("", "a")),))}, "hooks.poststop[0].args[0]"),
        ({"hooks": Hooks(poststop=(Hook(path="/x", env=("=x",)),))}, "hooks.poststop[0].env"),
        ({"hooks": Hooks(poststop=(Hook(path="/\ud800"),))}, "hooks.poststop[0].path"),
        ({"hooks": Hooks(poststop=(Hook(path="/x", env=("A=\ud800",)),))}, "hooks.poststop[0].env"),
    ],
)
def test_contradictions_name_the_field(root: Path, changes: dict[str, object], text: str) -> None:
    from orlop.runtime import host, plan

    with pytest.raises(OrlopError) as caught:
        plan.compile(make_spec("true", **changes), host.facts())
    assert caught.value.kind == "invalid" and text in str(caught.value), str(caught.value)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"apparmor_profile": "docker-default"}, "process.apparmorProfile"),
        ({"selinux_label": "x"}, "process.selinuxLabel"),
        ({"mount_label": "x"}, "linux.mountLabel"),
        ({"namespaces": (Namespace(type="mount"), Namespace(type="magic"))}, "linux.namespaces[1]"),
        ({"namespaces": ()}, "mount namespace"),
    ],
)
def test_what_can_not_be_had_names_the_field(root: Path, changes: dict[str, object], text: str) -> None:
    from orlop.runtime import host, plan

    facts = host.facts().replace(lsms=())
    with pytest.raises(OrlopError) as caught:
        plan.compile(make_spec("true", **changes), facts)
    assert caught.value.kind == "unsupported" and text in str(caught.value), str(caught.value)


# -- names and sysctls ----------------------------------------------------------------------------------------------


def test_names(root: Path) -> None:
    script = "hostname; cat /proc/sys/kernel/domainname"
    assert output(shell(root, script, hostname="web-1", domainname="example.test")) == "web-1\nexample.test\n"


def test_sysctls_are_set_inside_and_not_outside(root: Path) -> None:
    names = ("net/ipv4/ip_forward", "kernel/shm_rmid_forced", "kernel/msgmax", "net/ipv4/conf/lo/forwarding")
    before = [Path("/proc/sys", name).read_text() for name in names]
    wanted = {
        "net.ipv4.ip_forward": "1",
        "kernel.shm_rmid_forced": "1",
        "kernel/msgmax": "4096",
        "net/ipv4/conf/lo/forwarding": "1",
    }
    script = "cat " + " ".join(f"/proc/sys/{name}" for name in names)
    assert output(shell(root, script, sysctl=wanted)).split() == ["1", "1", "4096", "1"]
    assert [Path("/proc/sys", name).read_text() for name in names] == before


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kernel.core_pattern", "|/x"),
        ("kernel.shm_rmid_forced", "1\nkernel.core_pattern=|/x"),
        ("kernel.shm_rmid_forced", "1\x7f"),
        ("net.ipv4.../../../kernel/core_pattern", "x"),
        ("net/../kernel/core_pattern", "x"),
        ("net.ipv4..ip_forward", "1"),
        ("net.", "1"),
        ("", "1"),
        ("vm.swappiness", "1"),
        ("kernel.hostname", "x"),
        ("netx.y", "1"),
        ("fs.mqueue", "1"),
    ],
)
def test_sysctls_that_are_not_the_containers(root: Path, name: str, value: str) -> None:
    pattern = Path("/proc/sys/kernel/core_pattern").read_text()
    assert "linux.sysctl" in refusal(shell(root, "true", sysctl={name: value}), "invalid")
    assert Path("/proc/sys/kernel/core_pattern").read_text() == pattern


def test_sysctls_need_their_namespace(root: Path) -> None:
    wanted = {"net.ipv4.ip_forward": "1"}
    assert "network" in refusal(shell(root, "true", sysctl=wanted, namespaces=namespaces(without="network")), "invalid")
    joined = Namespace(type="network", path="/proc/self/ns/net")
    spaces = namespaces(joined, without="network")
    assert "host's own" in refusal(shell(root, "true", sysctl=wanted, namespaces=spaces), "invalid")


def test_an_unknown_sysctl_is_named(root: Path) -> None:
    text = refusal(shell(root, "true", sysctl={"net.ipv4.nosuch": "1"}), "invalid")
    assert "net.ipv4.nosuch" in text
    text = refusal(shell(root, "true", sysctl={"net.ipv4.ip_forward": "many"}), "invalid")
    assert "net.ipv4.ip_forward" in text


# -- namespaces -----------------------------------------------------------------------------------------------------


@pytest.fixture
def neighbour() -> Iterator[int]:
    """A process in namespaces of its own: its pid."""
    command = ["unshare", "--net", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "sh", "-c"]
    done = subprocess.Popen([*command, "hostname next; echo; exec sleep 60"], stdout=subprocess.PIPE)
    assert done.stdout and done.stdout.readline() == b"\n"
    (child,) = Path(f"/proc/{done.pid}/task/{done.pid}/children").read_text().split()
    yield int(child)
    done.kill()
    done.wait()
    done.stdout.close()


def test_joined_namespaces(root: Path, neighbour: int) -> None:
    kinds = {"network": "net", "uts": "uts", "ipc": "ipc", "pid": "pid"}
    spaces = (
        Namespace(type="mount"), Namespace(type="cgroup"),
        *(Namespace(type=kind, path=f"/proc/{neighbour}/ns/{name}") for kind, name in kinds.items()),
    )  # fmt: skip
    script = "hostname; for n in net uts ipc pid; do readlink /proc/self/ns/$n; done; echo $$; cat /proc/1/comm"
    lines = output(shell(root, script, namespaces=spaces, hostname="")).splitlines()
    assert lines[0] == "next"
    assert lines[1:5] == [os.readlink(f"/proc/{neighbour}/ns/{name}") for name in kinds.values()]
    assert int(lines[5]) > 1 and lines[6] == "sleep"


def test_a_namespace_that_is_not_there(root: Path) -> None:
    spaces = namespaces(Namespace(type="uts", path="/proc/1/ns/nosuch"), without="uts")
    assert "/proc/1/ns/nosuch" in refusal(shell(root, "true", namespaces=spaces), "not-found")
    for kind in ("network", "pid"):
        spaces = namespaces(Namespace(type=kind, path="/proc/self/ns/uts"), without=kind)
        assert "it is a uts namespace" in refusal(shell(root, "true", namespaces=spaces), "invalid")


def test_time_offsets(root: Path) -> None:
    offsets = {"boottime": TimeOffset(secs=10**6), "monotonic": TimeOffset(secs=5, nanosecs=7)}
    spaces = namespaces(Namespace(type="time"))
    lines = output(shell(root, "cat /proc/uptime /proc/self/timens_offsets", namespaces=spaces, time_offsets=offsets))
    assert float(lines.split()[0]) > 10**6
    assert re.search(r"monotonic\s+5\s+7", lines)


def test_loopback_is_up(root: Path) -> None:
    assert output(shell(root, "cat /sys/class/net/lo/flags")) == "0x9\n"


def test_the_cgroup_view(root: Path) -> None:
    path = f"/orlop-test-{os.getpid()}/view"
    script = f"cd {PIDS}; cat pids.max cgroup.procs; ls .. .; echo 5 > pids.max"
    outcome = shell(root, script, cgroups_path=path, resources=Resources.from_json({"pids": {"limit": 20}}))
    lines = outcome.stdout.split()
    expected = {"memory", "cpu", "pids"} if V1 else {"memory.max", "cpu.max", "pids.max"}
    assert lines[:2] == ["20", "1"] and expected <= set(lines)
    assert "Read-only file system" in outcome.stderr
    assert not Path(PIDS, path.lstrip("/")).exists()


def test_a_relative_cgroup_path_starts_at_the_top(root: Path) -> None:
    outcome = shell(
        root,
        f"cat {PIDS}/pids.max",
        cgroups_path=f"orlop-test-{os.getpid()}/relative",
        resources=Resources.from_json({"pids": {"limit": 21}}),
    )
    assert output(outcome) == "21\n"


@pytest.mark.parametrize("size", [1, 65536])
def test_a_user_namespace(root: Path, size: int, tmp_path: Path) -> None:
    maps = (IdMapping(container_id=0, host_id=100000, size=size),)
    spaces = namespaces(Namespace(type="user"))
    for directory, _, files in os.walk(root):
        for name in ("", *files):
            os.chown(os.path.join(directory, name), 0, 0, follow_symlinks=False)
    script = (
        "id -u; cat /proc/self/uid_map; grep CapEff /proc/self/status; echo x > /dev/null; touch /dev/shm/made;"
        f" stat -c %u /dev/shm/made; cat {PIDS}/pids.current"
    )
    outcome = shell(
        root, script, namespaces=spaces, uid_mappings=maps, gid_mappings=maps,
        cgroups_path=f"/orlop-test-{os.getpid()}/userns",
    )  # fmt: skip
    lines = output(outcome).splitlines()
    assert lines[0] == "0" and lines[1].split() == ["0", "100000", str(size)]
    assert lines[2].endswith(f"{container.CAPABILITIES_MASK:016x}") and lines[3] == "0"
    assert bool(outcome.warnings) == (size == 1)
    outside = shell(root, "true", namespaces=spaces, uid_mappings=maps, gid_mappings=maps, user=User(uid=70000))
    assert "not mapped" in refusal(outside, "invalid")


# -- streams --------------------------------------------------------------------------------------------------------


def test_a_terminal(root: Path) -> None:
    script = "tty; stty size; readlink /proc/self/fd/0; ls -1 /dev/pts; stat -c '%F %t:%T' /dev/console; echo done"
    outcome = shell(root, script, terminal=True, console_size=Box(height=33, width=99))
    lines = outcome.stdout.replace("\r\n", "\n").splitlines()
    assert lines[:2] == ["/dev/pts/0", "33 99"], repr(outcome)
    assert lines[2] == "/dev/pts/0" and lines[3:5] == ["0", "ptmx"]
    assert lines[5].startswith("character special file") and lines[-1] == "done"


def test_a_terminal_of_a_user(root: Path) -> None:
    outcome = shell(root, "stat -c %u:%g /dev/pts/0; echo hi > /dev/tty", terminal=True, user=User(uid=1000, gid=1000))
    assert outcome.stdout.split() == ["1000:5", "hi"], repr(outcome)


def test_a_terminal_needs_devpts(root: Path) -> None:
    mounts = tuple(mount for mount in container.MOUNTS if mount.type != "devpts")
    assert "devpts" in refusal(shell(root, "true", terminal=True, mounts=mounts), "invalid")


def test_pipes_belong_to_the_user(root: Path) -> None:
    script = "echo out > /dev/stdout; echo err > /dev/stderr"
    outcome = shell(root, script, user=User(uid=1000, gid=1000))
    assert (output(outcome), outcome.stderr) == ("out\n", "err\n")


def test_signals_and_session(root: Path) -> None:
    found = output(shell(root, "grep -E 'Sig(Ign|Blk)' /proc/self/status; ps -o sid= -p 1 || true")).split()
    assert found[1] == found[3] == "0" * 16


# -- hooks ----------------------------------------------------------------------------------------------------------


def hook(path: Path, script: str, **fields: object) -> Hook:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return Hook(path=str(path), env=("PATH=/usr/bin:/bin",)).replace(**fields)


def test_hooks_at_every_point(root: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    record = 'printf "%s " "$0"; readlink /proc/self/ns/mnt /proc/self/ns/net | tr "\\n" " "; cat; echo'
    hooks = {
        name: (hook(tmp_path / name, f"({record}) >> {log}"),) for name in ("prestart", "create_runtime", "poststart")
    }
    inside = hook(tmp_path / "create_container", f"({record}) >> {log}")
    (root / "start").write_text("#!/bin/sh\n(echo start; cat) > /tmp/started\n")
    (root / "start").chmod(0o755)
    spec = make_spec("sh", "-c", "cat /tmp/started; sleep 0.2", mounts=(*container.MOUNTS,))
    outcome = launcher.run(
        spec.replace(
            hooks=Hooks(**hooks, create_container=(inside,), start_container=(Hook(path="/start", env=("PATH=/bin",)),))
        ),
        root,
    )
    lines = [line.split(" ", 3) for line in log.read_text().splitlines()]
    (root / "tmp/started").unlink(missing_ok=True)
    names = [Path(line[0]).name for line in lines]
    assert names == ["prestart", "create_runtime", "create_container", "poststart"], repr(outcome)
    states = [json.loads(line[3]) for line in lines]
    assert [state["status"] for state in states] == ["creating", "creating", "creating", "running"]
    assert states[0]["pid"] == states[1]["pid"] == states[3]["pid"] == outcome.facts["pid"]
    host = [os.readlink(f"/proc/self/ns/{name}") for name in ("mnt", "net")]
    assert [line[1:3] == host for line in lines] == [True, True, False, True]
    assert outcome.stdout.startswith("start\n{") and json.loads(outcome.stdout.split("\n")[1])["pid"] == 1


@pytest.mark.parametrize("point", ["prestart", "create_runtime", "create_container", "poststart"])
def test_a_hook_that_fails_stops_everything(root: Path, tmp_path: Path, point: str) -> None:
    failing = hook(tmp_path / "hook", "cat > /dev/null; echo this is why >&2; exit 3")
    path = f"/orlop-test-{os.getpid()}/hooks"
    outcome = launcher.run(make_spec("sleep", "60", hooks=Hooks(**{point: (failing,)}), cgroups_path=path), root)
    text = refusal(outcome, "unavailable")
    assert "hook 0" in text and "exited with 3" in text and "this is why" in text
    assert not Path(PIDS, path.lstrip("/")).exists()


@pytest.mark.parametrize("timeout", [2**31, 2**64 - 1])
def test_a_hook_may_take_very_long(root: Path, tmp_path: Path, timeout: int) -> None:
    """poll(2) counts milliseconds in an int. Red with the seconds as they are: OverflowError, told as a traceback."""
    quick = hook(tmp_path / "hook", "exit 0", timeout=timeout)
    outcome = launcher.run(make_spec("true", hooks=Hooks(prestart=(quick,))), root)
    assert outcome.code == 0, outcome


def test_a_hook_that_hangs_or_is_missing(root: Path, tmp_path: Path) -> None:
    hanging = hook(tmp_path / "hook", "sleep 60", timeout=1)
    before = time.monotonic()
    text = refusal(launcher.run(make_spec("true", hooks=Hooks(create_runtime=(hanging,))), root), "unavailable")
    assert "took longer than 1 s" in text and time.monotonic() - before < 20
    text = refusal(launcher.run(make_spec("true", hooks=Hooks(prestart=(Hook(path="/nosuch"),))), root), "unavailable")
    assert "/nosuch" in text and "No such file" in text


# -- the caller -----------------------------------------------------------------------------------------------------


def test_nothing_is_left_after_a_failure(root: Path) -> None:
    path = f"/orlop-test-{os.getpid()}/failure"
    script = """
import os, sys, json
sys.path[:0] = sys.argv[1].split(":")
from support.container import make_spec
from orlop.runtime import host, launch, plan, rootfs
from orlop.linux.cgroup import Cgroup, detect
from orlop.spec.errors import OrlopError
from orlop.spec.runtime import Mount, Device
facts = host.facts()
def descriptors():
    return sorted(os.readlink(f"/proc/self/fd/{fd}") for fd in range(64) if os.path.exists(f"/proc/self/fd/{fd}"))
fd = rootfs.open_rootfs([Mount(type="bind", source=sys.argv[2])])
before = descriptors()
bind = Mount(destination="/etc", type="bind", source="/bin")
cases = [
    make_spec("nosuch", cgroups_path=sys.argv[3]),
    make_spec("true", cgroups_path=sys.argv[3], cwd="/etc/passwd"),
    make_spec("true", cgroups_path=sys.argv[3], sysctl={"net.ipv4.nosuch": "1"}),
    make_spec("true", cgroups_path=sys.argv[3], mounts=(bind, Mount(destination="/x", type="bind", source="/nosuch"))),
    make_spec("true", cgroups_path=sys.argv[3], mounts=(bind, Mount(destination="/x", type="nosuch"))),
]
for spec in cases:
    try:
        launch.create(plan.compile(spec, facts), fd, (0, 1, 2)).start()
        print("started")
    except OrlopError as error:
        pass
    assert descriptors() == before, (descriptors(), before)
    assert not os.path.exists(sys.argv[4] + sys.argv[3])
    try:
        print("child", os.waitpid(-1, os.WNOHANG))
    except ChildProcessError:
        print("clean")
"""
    arguments = [launcher.IMPORTS, str(root), path, PIDS]
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["clean"] * 5, done.stderr
    Cgroup(detect(), path.rpartition("/")[0]).prune()
