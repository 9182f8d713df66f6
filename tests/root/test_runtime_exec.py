"""One more process in a running container."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orlop.spec.runtime import Capabilities, Process, User
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
    assert outcome.facts["execs"] == [0], repr(outcome)
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


def test_an_exec_of_nothing(root: Path) -> None:
    outcome = run_in(root, "", args=("nosuch",))
    assert outcome.error is not None and outcome.error.exit_code == 127


def test_a_container_that_has_ended_is_a_conflict(root: Path) -> None:
    process = Process(cwd="/", args=("true",), env=ENVIRONMENT)
    outcome = launcher.run(
        make_spec("sleep", "60"), root, execs=[process.replace(args=("sh", "-c", "kill -9 1")), process]
    )
    assert outcome.error is None or outcome.error.kind == "conflict"
