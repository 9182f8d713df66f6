"""A container from a spec, on the real kernel: what its first process is and sees."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from orlop.spec.runtime import Hook, Hooks, Mount, Seccomp
from support import container, launcher
from support.container import make_spec

ALLOW_ALL_BUT_REBOOT = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [{"names": ["reboot", "kexec_load"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}],
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root file system that tests only read: what they write goes to tmpfs."""
    return container.make_root(tmp_path_factory.mktemp("runtime") / "root")


def shell(root: Path, script: str, **changes: object) -> launcher.Outcome:
    """Run a script in a container that is as docker makes it, changed as told; it must end with 0."""
    outcome = launcher.run(make_spec("sh", "-c", script, **changes), root)
    assert outcome.code == 0 and outcome.error is None, repr(outcome)
    return outcome


def own_cgroup(name: str) -> str:
    return f"/orlop-test-{os.getpid()}/{name}"


def test_the_command_runs_and_its_status_comes_back(root: Path) -> None:
    assert launcher.run(make_spec("true"), root).code == 0
    assert launcher.run(make_spec("sh", "-c", "exit 7"), root).code == 7
    assert launcher.run(make_spec("sh", "-c", "kill -9 $$; true", namespaces=()), root).error is not None


def test_it_is_process_1_in_namespaces_of_its_own(root: Path) -> None:
    names = ("mnt", "net", "uts", "pid", "ipc", "cgroup")
    outcome = shell(root, "echo $$; hostname; for n in mnt net uts pid ipc cgroup; do readlink /proc/self/ns/$n; done")
    pid, hostname, *namespaces = outcome.stdout.split()
    assert (pid, hostname) == ("1", "box")
    own = {os.readlink(f"/proc/self/ns/{name}") for name in names}
    assert len(set(namespaces)) == len(names) and not own & set(namespaces)


def test_mounts_are_exactly_those_of_the_spec(root: Path) -> None:
    outcome = shell(root, "cat /proc/self/mountinfo", cgroups_path=own_cgroup("mounts"))
    lines = [line.split() for line in outcome.stdout.splitlines()]
    points = [line[4] for line in lines]
    for mount in container.MOUNTS:
        assert points.count(mount.destination) == 1
    # Everything else is the root, a mask, a read-only path or one hierarchy of the cgroup view.
    spec_points = {mount.destination for mount in container.MOUNTS}
    rest = set(points) - spec_points - {"/"} - set(container.MASKED_PATHS) - set(container.READONLY_PATHS)
    assert all(point.startswith("/sys/fs/cgroup/") for point in rest)
    options = {line[4]: line[5] for line in lines}
    assert options["/proc"] == "rw,nosuid,nodev,noexec,relatime"
    assert options["/dev"] == "rw,nosuid"
    assert options["/sys"] == "ro,nosuid,nodev,noexec,relatime"
    assert all(options[path].startswith("ro") for path in container.READONLY_PATHS if path in options)
    assert all(not line[6].startswith(("shared", "master")) for line in lines)


def test_the_host_sees_no_mount_of_the_container(root: Path) -> None:
    hook = root.parent / "hook"
    hook.write_text(f"#!/bin/sh\ngrep -e {root.parent} /proc/self/mountinfo && exit 1; exit 0\n")
    hook.chmod(0o755)
    hooks = Hooks(poststart=(Hook(path=str(hook), env=("PATH=/bin:/usr/bin",)),))
    # While it runs and when it has ended: a hook that finds something fails the start.
    shell(root, "sleep 0.1", cgroups_path=own_cgroup("host"), hooks=hooks)
    assert str(root.parent) not in Path("/proc/self/mountinfo").read_text()


def test_capabilities_and_filter(root: Path) -> None:
    outcome = shell(
        root, "grep -E 'Cap|NoNew|Seccomp:' /proc/self/status", seccomp=Seccomp.from_json(ALLOW_ALL_BUT_REBOOT)
    )
    status = dict(re.findall(r"(\w+):\t(\w+)", outcome.stdout))
    expected = f"{container.CAPABILITIES_MASK:016x}"
    assert {status[name] for name in ("CapPrm", "CapEff", "CapBnd")} == {expected}
    assert status["CapInh"] == status["CapAmb"] == "0" * 16
    assert (status["Seccomp"], status["NoNewPrivs"]) == ("2", "0")


def test_masked_and_readonly_paths(root: Path) -> None:
    outcome = shell(
        root,
        "cat /proc/keys /proc/timer_list | wc -c; ls /proc/acpi /sys/firmware | wc -l;"
        " echo x > /proc/sys/kernel/hostname || echo refused; echo h > /proc/sysrq-trigger || echo refused",
    )
    assert outcome.stdout.split() == ["0", "3", "refused", "refused"]
    assert "Read-only file system" in outcome.stderr


def test_only_the_three_streams_are_open(root: Path) -> None:
    leak = os.open("/", os.O_RDONLY)
    os.set_inheritable(leak, True)
    try:
        script = "for fd in /proc/self/fd/*; do echo ${fd##*/} $(readlink $fd); done"
        outcome = launcher.run(make_spec("sh", "-c", script), root, pass_fds=[leak])
    finally:
        os.close(leak)
    # The shell has no descriptor of its own while it expands the pattern but that of the directory, gone by readlink.
    open_fds = [line.split()[0] for line in outcome.stdout.splitlines() if len(line.split()) == 2]
    assert open_fds == ["0", "1", "2"], repr(outcome)


def test_devices_and_links(root: Path) -> None:
    script = "stat -c '%n %F %t:%T %a %u' /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty; " + (
        "readlink /dev/fd /dev/stdin /dev/stdout /dev/stderr /dev/ptmx; echo x > /dev/null; head -c 4 /dev/zero | wc -c"
    )
    lines = shell(root, script).stdout.splitlines()
    assert lines[:6] == [
        f"/dev/{name} character special file {number} 666 0"
        for name, number in (
            ("null", "1:3"), ("zero", "1:5"), ("full", "1:7"), ("random", "1:8"), ("urandom", "1:9"), ("tty", "5:0"),
        )
    ]  # fmt: skip
    assert lines[6:11] == ["/proc/self/fd", "/proc/self/fd/0", "/proc/self/fd/1", "/proc/self/fd/2", "pts/ptmx"]
    assert lines[11] == "4"


@pytest.mark.parametrize(
    ("args", "code", "text"),
    [
        (("nosuch",), 127, 'exec: "nosuch": executable file not found in $PATH'),
        (("/bin/nosuch",), 127, 'exec: "/bin/nosuch": stat /bin/nosuch: no such file or directory'),
        (("/etc",), 126, 'exec: "/etc": is a directory'),
        (("/etc/passwd",), 126, 'exec: "/etc/passwd": permission denied'),
        (("",), 127, 'exec: "": executable file not found in $PATH'),
    ],
)
def test_a_command_that_does_not_exist(root: Path, args: tuple[str, ...], code: int, text: str) -> None:
    outcome = launcher.run(make_spec(*args, cgroups_path=own_cgroup("missing")), root)
    assert outcome.code is None and outcome.error is not None
    assert (outcome.error.kind, outcome.error.exit_code, outcome.error.cause) == ("command", code, text)


@pytest.mark.parametrize(
    ("content", "code", "text"),
    [
        ("#!/bin/sh\r\n", 127, 'its "#!" line ends with CR LF'),
        ("#!/no/bash\n", 127, "its interpreter /no/bash does not exist in the container"),
        ("echo hi\n", 126, 'neither a program for this machine nor a script with a "#!" line'),
        ("", 126, "the file is empty"),
    ],
)
@pytest.mark.parametrize("filtered", [True, False])
def test_a_command_that_the_kernel_refuses(
    root: Path, tmp_path: Path, content: str, code: int, text: str, filtered: bool
) -> None:
    (tmp_path / "tool").write_text(content)
    (tmp_path / "tool").chmod(0o755)
    mount = Mount(destination="/tool", type="bind", source=str(tmp_path / "tool"), options=("bind",))
    profile = Seccomp.from_json(ALLOW_ALL_BUT_REBOOT) if filtered else None
    spec = make_spec("/tool", mounts=(*container.MOUNTS, mount), seccomp=profile, cgroups_path=own_cgroup("refused"))
    outcome = launcher.run(spec, root)
    assert outcome.code is None and outcome.error is not None, repr(outcome)
    assert (outcome.error.kind, outcome.error.exit_code) == ("command", code) and text in outcome.error.cause
    assert not Path("/sys/fs/cgroup/pids" + own_cgroup("refused")).exists()


def test_a_command_on_a_file_system_without_programs(root: Path, tmp_path: Path) -> None:
    (tmp_path / "tool").write_text("#!/bin/sh\n")
    (tmp_path / "tool").chmod(0o755)
    mount = Mount(destination="/opt", type="bind", source=str(tmp_path), options=("bind", "noexec"))
    outcome = launcher.run(make_spec("/opt/tool", mounts=(*container.MOUNTS, mount)), root)
    # access(2) says no already: the search tells it, as runc does.
    assert outcome.error is not None and outcome.error.exit_code == 126
    assert 'exec: "/opt/tool": permission denied' in outcome.error.cause and "noexec" in outcome.error.hint


def test_a_filter_that_forbids_execve_ends_the_process(root: Path) -> None:
    rule = {"names": ["execve"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}
    profile = Seccomp.from_json({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]})
    outcome = launcher.run(make_spec("true", seccomp=profile), root)
    assert outcome.error is not None and "operation not permitted" in outcome.error.cause, repr(outcome)
    rule = {"names": ["execve"], "action": "SCMP_ACT_KILL_PROCESS"}
    profile = Seccomp.from_json({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]})
    killed = launcher.run(make_spec("true", seccomp=profile), root)
    assert killed.code == 128 + 31, repr(killed)


def test_an_init_that_is_killed_before_its_last_step_is_told_as_that(root: Path) -> None:
    outcome = launcher.run(make_spec("true"), root, killed=True)
    assert outcome.code is None and outcome.error is not None
    assert outcome.error.cause == "init was killed by signal 9 before the command"
    assert "memory limit" in outcome.error.hint
