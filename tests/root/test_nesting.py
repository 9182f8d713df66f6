"""`--nesting`: our engine inside our container, three levels deep, without a privilege on the machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import rootless
from support.engine import CHECKOUT, COMMAND
from support.rootless import UID, User

SEEN = ("-v", "/usr:/usr:ro", "-v", f"{CHECKOUT}:{CHECKOUT}:ro")
INNER = f"{COMMAND} run --rm --nesting {' '.join(SEEN)} host sh -c"


@pytest.fixture(scope="module")
def user() -> Iterator[User]:
    with rootless.user() as somebody:
        yield somebody


def test_three_levels_deep_without_a_capability_on_the_machine(user: User) -> None:
    third = f"{COMMAND} run --rm host sh -c 'echo third; id -u; cat /proc/self/uid_map'"
    second = f'{INNER} "echo second; {third}; {COMMAND} ps -aq"'
    done = user.orlop("run", "--rm", "--nested", *SEEN, "host", "sh", "-c", f"echo first; {COMMAND} ps -aq; {second}")
    assert done.code == 0, done
    found = done.stdout.splitlines()
    assert found[:4] == ["first", "second", "third", "0"], "no level lists a container of the one around it"
    assert [line.split() for line in found[4:]] == [["0", "0", "1"], ["1", "1", "65536"]]


def test_what_runs_inside_has_nothing_outside(user: User) -> None:
    script = f"{COMMAND} run -d host sleep 999 && sleep 1000"
    done = user.orlop("run", "-d", "--name", "outer", "--nesting", *SEEN, "host", "sh", "-c", script)
    assert done.code == 0, done
    rootless.wait_for("the inner process", lambda: "sleep 999 " in user.processes().values())
    for pid, line in user.processes().items():
        if line.startswith("sleep"):
            assert os.stat(f"/proc/{pid}").st_uid == UID
            assert Path(f"/proc/{pid}/ns/user").readlink() != Path("/proc/self/ns/user").readlink()
    rootless.wait_for("its row", lambda: len(user.orlop("exec", "outer", str(COMMAND), "ps", "-q").stdout.split()) == 1)
    assert user.orlop("rm", "-f", "-v", "outer").code == 0
    rootless.wait_for("its end", lambda: not any("sleep" in line for line in user.processes().values()))


def test_without_it_an_engine_inside_says_what_is_missing(user: User) -> None:
    words = ("-v", "/var/lib/orlop", *SEEN, "host", str(COMMAND), "run", "--rm", "host", "true")
    done = user.orlop("run", "--rm", *words)
    assert done.code == 125, done
    assert "cannot make a user namespace" in done.stderr
    assert "seccomp profile of a container around us" in done.stderr


def test_what_nesting_does_not_need_stays_shut(user: User) -> None:
    script = "dmesg 2>&1 | tail -1; cat /proc/kcore >/dev/null; echo 1 >/proc/sys/vm/overcommit_memory"
    done = user.orlop("run", "--rm", "--nesting", "host", "sh", "-c", script)
    assert done.code != 0, done
    assert "ermitted" in done.stdout + done.stderr
    assert "ermission denied" in done.stderr


def test_roots_engine_nests_in_ids_of_its_own_only(user: User) -> None:
    data, run = user.directory / "data", user.directory / "r"
    run.mkdir(mode=0o700)
    own = ("env", f"ORLOP_ROOT={data}", f"ORLOP_RUN={run}", str(COMMAND))
    for name in ("subuid", "subgid"):
        (user.directory / "etc" / name).write_text("containers:300000:200000\n")
    try:
        inner = f"cat /proc/self/uid_map; {COMMAND} run --rm host sh -c 'echo inner; id -u'"
        done = user.as_root(*own, "run", "--rm", "--nesting", *SEEN, "host", "sh", "-c", inner, path=user.path)
        assert done.code == 0, done
        assert done.stdout.split() == ["0", "300000", "65536", "inner", "0"]
        refused = user.as_root(*own, "run", "--rm", "--nesting", "--userns", "host", "host", "true", path=user.path)
        assert refused.code == 125, refused
        assert "it would have them as root" in refused.stderr
    finally:
        user.as_root(*own, "engine", "stop", path=user.path)
