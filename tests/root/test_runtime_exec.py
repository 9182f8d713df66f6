"""One more process in a running container."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orlop.linux.cgroup import detect
from orlop.spec.runtime import Capabilities, CpuAffinity, Hook, Hooks, Process, Resources, User
from support import container, launcher
from support.container import ENVIRONMENT, make_spec


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return container.make_root(tmp_path_factory.mktemp("exec") / "root")


def run_in(root: Path, script: str, **changes: object) -> launcher.Outcome:
    """Run a script by exec in a container that sleeps; changes are fields of the process."""
    process = Process(cwd="/", args=("sh", "-c", script), env=ENVIRONMENT).replace(**changes)
    spec = make_spec("sleep", "60", cgroups_path=f"/orlop-test-{os.getpid()}/exec")
    return launcher.run(spec, root, execs=[process])


def test_it_is_in_the_namespaces_and_cgroups_of_the_container(root: Path) -> None:
    script = (
        "for n in mnt net uts pid ipc cgroup; do readlink /proc/self/ns/$n /proc/1/ns/$n; done; cat /proc/self/cgroup"
    )
    outcome = run_in(root, script)
    assert outcome.execs == [0], repr(outcome)
    (*links,) = outcome.stdout.split()[:12]
    assert links[::2] == links[1::2]
    assert all(line.endswith(":/") for line in outcome.stdout.splitlines()[12:])


def test_rights_are_those_of_the_container(root: Path) -> None:
    outcome = run_in(root, "grep Cap /proc/self/status; id -u; pwd; cat /proc/1/comm; ls /proc/self/fd")
    assert outcome.stdout.count(f"{container.CAPABILITIES_MASK:016x}") == 3
    assert outcome.stdout.split()[-8:] == ["0", "/", "sleep", "0", "1", "2", "3"][-8:] or "sleep" in outcome.stdout


def test_user_directory_and_capabilities_of_its_own(root: Path) -> None:
    outcome = run_in(
        root,
        "id; pwd; grep CapEff /proc/self/status; umask",
        user=User(uid=1000, gid=1000, additional_gids=(10,), umask=0o077),
        cwd="/tmp",
        capabilities=Capabilities(bounding=("CAP_CHOWN",)),
    )
    words = outcome.stdout.split()
    assert words[:2] == ["uid=1000(ann)", "gid=1000(ann)"], repr(outcome)
    assert "/tmp" in words and "0" * 16 in words and words[-1] == "0077"


FIRST, SECOND = sorted(os.sched_getaffinity(0))[:2] if len(os.sched_getaffinity(0)) > 1 else (0, 0)


@pytest.mark.parametrize(
    ("own", "affinity", "told"),
    [
        (None, CpuAffinity(initial=f"{FIRST}", final=f"{SECOND}"), SECOND),
        (None, CpuAffinity(final=f"{SECOND}"), SECOND),
        (SECOND, CpuAffinity(initial=f"{FIRST}"), SECOND),
    ],
)
def test_the_processors_of_an_exec(root: Path, own: int | None, affinity: CpuAffinity, told: int) -> None:
    """config.md, execCPUAffinity: before the container's cgroup, and in it. `initial` may be none of the cgroup's own.

    What is left of `initial` in a cgroup with all processors is the kernel's to say: 6.1 gives them back on v2.
    Red where `initial` is set once the process is in the cgroup: EINVAL for the last row. The caller gets its own back.
    """
    show = ("grep", "Cpus_allowed_list", "/proc/self/status")
    process = Process(cwd="/", args=show, env=ENVIRONMENT, exec_cpu_affinity=affinity)
    limits = None if own is None else Resources.from_json({"cpu": {"cpus": str(own)}})
    spec = make_spec("sleep", "60", cgroups_path=f"/orlop-test-{os.getpid()}/exec", resources=limits)
    outcome = launcher.run(spec, root, execs=[process, process.replace(exec_cpu_affinity=None)])
    shown = outcome.stdout.split()[1::2]
    assert outcome.execs == [0, 0] and shown[0] == str(told), repr(outcome)
    assert (shown[1] == str(told)) == (own is not None or FIRST == SECOND), "the caller is where it was"


def test_processors_that_are_not_there(root: Path) -> None:
    (error,) = run_in(root, "true", exec_cpu_affinity=CpuAffinity(initial="8191")).execs
    assert (error.kind, error.subject) == ("unavailable", "the processors 8191") and error.hint


def test_an_exec_of_nothing(root: Path) -> None:
    (error,) = run_in(root, "", args=("nosuch",)).execs
    assert (error.exit_code, error.cause) == (127, 'exec: "nosuch": executable file not found in $PATH')


def test_a_container_that_has_ended_is_a_conflict(root: Path) -> None:
    process = Process(cwd="/", args=("true",), env=ENVIRONMENT)
    # Process 1 ignores what it does not handle, even SIGKILL from its own namespace: it has to end by itself.
    spec = make_spec("sh", "-c", "trap 'exit 0' USR1; touch /dev/shm/ready; while :; do sleep 0.01; done")
    wait = "while ! test -e /dev/shm/ready; do sleep 0.01; done; kill -USR1 1; sleep 60"
    outcome = launcher.run(spec, root, execs=[process.replace(args=("sh", "-c", wait)), process])
    killed, refused = outcome.execs
    assert killed == 137 and refused.kind == "conflict", repr(outcome)


@pytest.mark.parametrize("terminal", [True, False])
def test_a_terminal_of_its_own(root: Path, terminal: bool) -> None:
    outcome = run_in(root, "tty; ls /dev/console", terminal=terminal)
    assert outcome.stdout.splitlines()[0] == ("/dev/pts/0" if terminal else "not a tty"), repr(outcome)


def test_no_descriptor_of_ours_is_a_working_directory(root: Path) -> None:
    # CVE-2024-21626: an exec has descriptors of the host's before its execve.
    directories = [f"/proc/self/fd/{number}" for number in range(3, 40)]
    directories += [f"/proc/1/fd/{number}" for number in range(3)] + ["/proc/self/cwd/../../..", "/nosuch"]
    process = Process(cwd="/", args=("pwd",), env=ENVIRONMENT)
    outcome = launcher.run(make_spec("sleep", "60"), root, execs=[process.replace(cwd=cwd) for cwd in directories])
    assert outcome.stdout == "" and len(outcome.execs) == len(directories)
    assert {end.kind for end in outcome.execs if not isinstance(end, int)} == {"invalid"}, repr(outcome)
    assert 0 not in outcome.execs


# -- cgroups --------------------------------------------------------------------------------------------------------


def poststart(directory: Path, script: str) -> Hooks:
    """Return hooks that run a script on the host when the container's command has begun."""
    hook = directory / "hook"
    hook.write_text(f"#!/bin/sh\nset -e\n{script}\n")
    hook.chmod(0o755)
    return Hooks(poststart=(Hook(path=str(hook), env=("PATH=/bin:/usr/bin",)),))


def test_a_paused_container_takes_no_process(root: Path, tmp_path: Path) -> None:
    path = f"/orlop-test-{os.getpid()}/paused"
    code = f"from orlop.linux import cgroup; cgroup.Cgroup(cgroup.detect(), '{path}').freeze()"
    hooks = poststart(tmp_path, f'PYTHONPATH={launcher.SOURCES} {sys.executable} -c "{code}"')
    process = Process(cwd="/", args=("true",), env=ENVIRONMENT)
    (end,) = launcher.run(make_spec("sleep", "60", cgroups_path=path, hooks=hooks), root, execs=[process]).execs
    assert end.kind == "conflict" and "paused" in end.cause, str(end)


@pytest.fixture
def delegated() -> Iterator[str]:
    """A v2 controller that the root hands down while the test lasts; "" where v2 has none to hand down."""
    layout = detect()
    if not layout.v2_controllers:
        yield ""
        return
    controller = sorted(layout.v2_controllers)[0]
    control = Path(layout.v2, "cgroup.subtree_control")
    before = control.read_text().split()
    control.write_text(f"+{controller}")
    yield controller
    if controller not in before:
        with contextlib.suppress(OSError):
            control.write_text(f"-{controller}")


def test_a_container_with_cgroups_of_its_own(root: Path, tmp_path: Path, delegated: str) -> None:
    """As systemd in a container does: the cgroup that it was given has children, and may hold no process any more."""
    if not delegated:
        return  # then every v2 cgroup may hold processes
    path = f"/orlop-test-{os.getpid()}/nested"
    own = Path(detect().v2, path.lstrip("/"))
    script = f"""
    echo +{delegated} > {own.parent}/cgroup.subtree_control
    mkdir {own}/init
    cat {own}/cgroup.procs > {own}/init/cgroup.procs
    echo +{delegated} > {own}/cgroup.subtree_control
    """
    process = Process(cwd="/", args=("sh", "-c", "cat /proc/self/cgroup; cat /proc/1/cgroup"), env=ENVIRONMENT)
    spec = make_spec("sleep", "60", cgroups_path=path, hooks=poststart(tmp_path, script))
    outcome = launcher.run(spec, root, execs=[process])
    assert outcome.execs == [0], repr(outcome)
    lines = outcome.stdout.split()
    assert lines[: len(lines) // 2] == lines[len(lines) // 2 :] and "0::/init" in lines
