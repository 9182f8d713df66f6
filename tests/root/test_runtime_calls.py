"""Flags of create, run and exec that change what the process gets: roots, sockets, cgroups, signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from support.bundles import RUNTIME, Config, Runtime, base, busybox_root
from support.tasks import wait_until

SLEEP = "exec sleep 1000 >/dev/null 2>&1 </dev/null"


@pytest.fixture(scope="module")
def rootfs(tmp_path_factory: pytest.TempPathFactory, peer: Callable[[str], Path]) -> Path:
    return busybox_root(tmp_path_factory.mktemp("root"), peer("busybox"))


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    return Runtime(RUNTIME, tmp_path / "state")


def bundle(tmp_path: Path, rootfs: Path, script: str, change: Callable[[Config], object] = lambda config: None) -> str:
    config = base(rootfs)
    config["process"]["args"] = ["/bin/sh", "-c", script]  # type: ignore[index]
    change(config)
    (tmp_path / "bundle").mkdir(exist_ok=True)
    (tmp_path / "bundle/config.json").write_text(json.dumps(config))
    return str(tmp_path / "bundle")


def test_no_pivot_changes_the_root_and_leaves_no_procfs_of_the_host(
    runtime: Runtime, rootfs: Path, tmp_path: Path
) -> None:
    script = "ls /; readlink /proc/self/root; wc -l </proc/mounts; cut -d' ' -f2,3 /proc/mounts | sort | uniq -c"
    told = runtime("run", "--no-pivot", "-b", bundle(tmp_path, rootfs, script), "moved")
    assert told.returncode == 0, told
    assert "busybox" not in told.stdout and "etc" in told.stdout.split()
    pivoted = runtime("run", "-b", bundle(tmp_path, rootfs, script), "pivoted")
    own = [line for line in told.stdout.splitlines() if line.endswith((" /proc proc", " /sys sysfs"))]
    assert own and own == [
        line for line in pivoted.stdout.splitlines() if line.endswith((" /proc proc", " /sys sysfs"))
    ]


def test_sockets_of_systemd_are_handed_on(runtime: Runtime, rootfs: Path, tmp_path: Path) -> None:
    """As runc: LISTEN_FDS counts for the process that LISTEN_PID names, and --preserve-fds comes behind."""
    where = bundle(tmp_path, rootfs, "echo $LISTEN_FDS $LISTEN_PID; cat <&3; cat <&4; ls /proc/self/fd | wc -l")
    (tmp_path / "a").write_text("first\n")
    (tmp_path / "b").write_text("second\n")
    command = " ".join([*runtime.argv, "run", "--preserve-fds", "1", "-b", where, "sockets"])
    script = f"exec 3<{tmp_path}/a 4<{tmp_path}/b; LISTEN_FDS=1 LISTEN_PID=$$ exec {command}"
    told = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert told.stdout.splitlines()[:3] == ["1 1", "first", "second"], told
    script = (
        f"exec 3<{tmp_path}/a 4<{tmp_path}/b; LISTEN_FDS=1 LISTEN_PID=1 exec {command.replace('--preserve-fds 1', '')}"
    )
    told = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert told.stdout.splitlines()[0] == "" and "first" not in told.stdout, told


def test_exec_enters_a_cgroup_below(runtime: Runtime, rootfs: Path, tmp_path: Path) -> None:
    where = bundle(tmp_path, rootfs, SLEEP)
    path = json.loads(Path(where, "config.json").read_text())["linux"]["cgroupsPath"]
    v1 = Path("/sys/fs/cgroup/memory").exists()
    below = [Path(f"/sys/fs/cgroup/{name}{path}/sub") for name in (("memory", "pids") if v1 else ("",))]
    try:
        assert runtime("run", "--detach", "-b", where, "below").returncode == 0
        for directory in below:
            directory.mkdir()
        flags = ["--cgroup", "memory,pids:sub"] if v1 else ["--cgroup", "/sub"]
        told = runtime("exec", *flags, "below", "cat", "/proc/self/cgroup")
        assert told.stdout.count("/sub\n") == len(below), told
        for wrong in ("../x", "nosuch:sub", "nosuch", "nosuch:/"):
            told = runtime("exec", "--cgroup", wrong, "below", "true")
            assert told.returncode != 0 and told.stderr.count("\n") == 1, told
    finally:
        runtime("delete", "--force", "below")


def test_a_signal_at_the_very_start_is_the_containers(runtime: Runtime, rootfs: Path, tmp_path: Path) -> None:
    """Between the start and the first wait a TERM must not end the runtime and leave the container behind."""
    where = bundle(tmp_path, rootfs, "trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done")
    with subprocess.Popen([*runtime.argv, "run", "-b", where, "early"], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 7
        finally:
            process.kill()
            runtime("delete", "--force", "early")


def test_events_tell_of_the_oom_killer(runtime: Runtime, rootfs: Path, tmp_path: Path) -> None:
    script = (
        "exec >/dev/null 2>&1 </dev/null; while ! [ -e /tmp/go ]; do sleep 0.05; done; (tail /dev/zero); sleep 1000"
    )

    def limit(config: Config) -> None:
        config["linux"]["resources"]["memory"] = {"limit": 16 << 20, "swap": 16 << 20}  # type: ignore[index]

    where = bundle(tmp_path, rootfs, script, limit)
    argv = [*runtime.argv, "events", "--interval", "100ms", "eats"]
    try:
        assert runtime("run", "--detach", "-b", where, "eats").returncode == 0
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as events:
            try:
                assert events.stdout
                assert json.loads(events.stdout.readline())["type"] == "stats"
                runtime("exec", "eats", "touch", "/tmp/go")
                kinds: list[str] = []
                wait_until(lambda: kinds.append(json.loads(events.stdout.readline())["type"]) or "oom" in kinds)  # type: ignore[union-attr,func-returns-value]
            finally:
                events.kill()
    finally:
        runtime("delete", "--force", "eats")


def test_a_device_rule_keeps_its_access(runtime: Runtime, rootfs: Path, tmp_path: Path) -> None:
    """runc refuses a rule without: what we remember of a container must be good for it, too."""
    where = bundle(tmp_path, rootfs, SLEEP)
    try:
        assert runtime("run", "--detach", "-b", where, "rules").returncode == 0
        kept = json.loads((tmp_path / "state/rules/config.json").read_text())
        assert kept["linux"]["resources"]["devices"] == [{"allow": False, "access": "rwm"}]
    finally:
        runtime("delete", "--force", "rules")


def test_the_program_of_a_profile_is_kept(runtime: Runtime, rootfs: Path, tmp_path: Path) -> None:
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}]}
    where = bundle(tmp_path, rootfs, "mkdir /tmp/x", lambda config: config["linux"].update(seccomp=profile))  # type: ignore[attr-defined]
    for _ in range(2):
        told = runtime("run", "-b", where, "filtered")
        assert told.returncode == 1 and "Operation not permitted" in told.stderr
        assert len(os.listdir(tmp_path / "state/.seccomp")) == 1
    assert runtime("list", "-q").stdout == ""


def test_the_statistics_have_the_sections_of_runc(
    runtime: Runtime, rootfs: Path, tmp_path: Path, peer: Callable[[str], Path]
) -> None:
    where = bundle(tmp_path, rootfs, SLEEP)
    theirs = Runtime(peer("runc"), tmp_path / "runc")
    found = []
    for each, name in ((runtime, "ours"), (theirs, "theirs")):
        try:
            assert each("run", "--detach", "-b", where, name).returncode == 0
            found.append(json.loads(each("events", "--stats", name).stdout)["data"])
            listed = json.loads(each("ps", "--format", "json", name).stdout)
            assert listed == [json.loads(each("state", name).stdout)["pid"]]
        finally:
            each("delete", "--force", name)
    ours, others = found
    assert set(ours) >= set(others)
    for section in ("cpuset", "pids", "network_interfaces", "intel_rdt"):
        assert ours.get(section) == others.get(section), section
    # On a hybrid machine runc does not look at v2, which may have hugetlb.
    for section in ("cpu", "memory", "hugetlb"):
        assert set(ours[section]) >= set(others[section]), section
    assert set(ours["memory"]["raw"]) == set(others["memory"]["raw"])


# Calls of a running container.
BESIDE_RUNC = {
    "no command": ("exec", "beside"),
    "a command that is not there": ("exec", "beside", "nosuch"),
    "a working directory that is not there": ("exec", "--cwd", "/nosuch", "beside", "pwd"),
    "a user that is no number": ("exec", "-u", "x", "beside", "id"),
    "a user and groups": ("exec", "-u", "5:6", "-g", "7", "-g", "8", "beside", "id"),
    "no new privileges": ("exec", "--no-new-privs", "beside", "grep", "NoNewPrivs", "/proc/self/status"),
    "a capability": ("exec", "-c", "CAP_CHOWN", "beside", "grep", "CapEff", "/proc/self/status"),
    "a capability that is none": ("exec", "-c", "CAP_NOPE", "beside", "grep", "CapEff", "/proc/self/status"),
    "a process without HOME": ("exec", "-p", "@process", "beside"),
    "a controller that is none": ("exec", "--cgroup", "nosuch:/", "beside", "true"),
    "a detached terminal": ("exec", "-d", "-t", "beside", "true"),
    "signal 0": ("kill", "beside", "0"),
    "a signal that is none": ("kill", "beside", "NOSIG"),
    "a container that is not there": ("exec", "nobody", "true"),
    "the same twice": ("run", "-b", "@bundle", "beside"),
    "an argument too many": ("list", "beside"),
    "memory with a point": ("update", "--memory", "0.5g", "beside"),
    "memory that is none": ("update", "--memory", "x", "beside"),
    "a start of what runs": ("start", "beside"),
    "a deletion of what runs": ("delete", "beside"),
    "no such verb": ("nosuch",),
}


def test_calls_have_the_statuses_and_the_output_of_runc(
    runtime: Runtime, rootfs: Path, tmp_path: Path, peer: Callable[[str], Path]
) -> None:
    theirs = Runtime(peer("runc"), tmp_path / "runc")
    process = {"args": ["sh", "-c", "echo $HOME"], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 5, "gid": 5}}
    (tmp_path / "process.json").write_text(json.dumps(process))
    where = bundle(tmp_path, rootfs, SLEEP)
    words = {"@process": str(tmp_path / "process.json"), "@bundle": where}
    found: list[dict[str, tuple[int, str]]] = []
    for each in (theirs, runtime):
        try:
            assert each("run", "--detach", "-b", where, "beside").returncode == 0
            told = {name: each(*(words.get(word, word) for word in call)) for name, call in BESIDE_RUNC.items()}
            # Usage on standard output is runc's own way to say that a call is wrong.
            found.append(
                {
                    name: (done.returncode, "" if done.stdout.startswith("Incorrect Usage") else done.stdout)
                    for name, done in told.items()
                }
            )
            each("kill", "beside", "KILL")
            wait_until(lambda each=each: json.loads(each("state", "beside").stdout)["status"] == "stopped")  # type: ignore[misc]
            for call in (("kill", "beside", "0"), ("update", "--memory", "64m", "beside"), ("exec", "beside", "true")):
                done = each(*call)
                assert done.returncode == (255 if call[0] == "exec" else 1), done
        finally:
            each("delete", "--force", "beside")
    assert found[0] == found[1]
