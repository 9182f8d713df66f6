"""Which namespaces a container has, shares, or joins: every mode of every kind, looked at from inside."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from support import processes
from support.engine import Environment

FLAGS = {"pid": "pid", "ipc": "ipc", "uts": "uts", "cgroup": "cgroupns", "time": "timens", "net": "network"}


@pytest.fixture
def process() -> Iterator[int]:
    with processes.unshared("-uinCT", "--boottime", "7000000", script="hostname there") as pid:
        yield pid


def inside(orlop: Environment, *words: str, kinds: tuple[str, ...] = tuple(FLAGS)) -> dict[str, str]:
    """Return kind -> the namespace of a container's process."""
    script = "".join(f"readlink /proc/self/ns/{kind};" for kind in kinds)
    said = orlop("run", "--rm", *words, "host", "sh", "-c", script).stdout.split()
    return dict(zip(kinds, said, strict=True))


def test_a_namespace_is_named_by_a_file(orlop: Environment, process: int) -> None:
    of_process = {kind: os.readlink(f"/proc/{process}/ns/{kind}") for kind in FLAGS}
    assert inside(orlop, *(f"--{flag}=ns:/proc/{process}/ns/{kind}" for kind, flag in FLAGS.items())) == of_process
    assert not set(inside(orlop, "--network=none").values()) & set(of_process.values())
    said = orlop("run", "--rm", f"--uts=ns:/proc/{process}/ns/uts", "--network=none", "host", "hostname").stdout
    assert said == "there\n"


def test_the_namespaces_of_a_container_are_joined(orlop: Environment) -> None:
    orlop("run", "-d", "--name=one", "--ipc=shareable", "--network=none", "host", "sleep", "1000")
    joined = inside(orlop, *(f"--{flag}=container:one" for flag in FLAGS.values()))
    pid = orlop("inspect", "-f", "{{.State.Pid}}", "one").stdout.strip()
    assert joined == {kind: os.readlink(f"/proc/{pid}/ns/{kind}") for kind in FLAGS}
    orlop("stop", "-t0", "one")
    for kind, flag in FLAGS.items():
        done = orlop("run", "--rm", f"--{flag}=container:one", "host", "true", check=False)
        assert (done.code, "running" in done.stderr) == (125, True), (kind, done)


def test_the_clocks_of_a_container_are_shifted(orlop: Environment) -> None:
    flag = "--timens=private,boottime=9000000,monotonic=4000000"
    done = orlop(
        "run", "--rm", "--network=none", flag, "host", "sh", "-c", "cat /proc/uptime /proc/self/timens_offsets"
    )
    uptime, _, *offsets = done.stdout.split()
    assert float(uptime) > 9_000_000
    assert offsets == ["monotonic", "4000000", "0", "boottime", "9000000", "0"]
    orlop("create", "--name=kept", "--network=none", flag, "host", "true")
    assert flag in orlop("show-run", "kept").stdout
    assert inside(orlop, "--timens=host", "--network=none", kinds=("time",)) == {
        "time": os.readlink("/proc/self/ns/time")
    }


WRONG = {
    "--pid=ns:/no/such": "there is no pid namespace at /no/such",
    "--network=ns:/no/such": "there is no network namespace at /no/such",
    "--uts=ns:/proc/self/ns/net": "it is a network namespace, and no uts namespace",
    "--network=ns:/etc/passwd": "it is no namespace",
    "--uts=ns:relative": "invalid UTS mode",
    "--timens=private,boottime=x": "invalid TIME mode",
    "--timens=private,real=5": "invalid TIME mode",
    "--timens=host,boottime=5": "invalid TIME mode",
    "--timens=private,boottime=-999999999999": "out of range",
}


def test_what_is_no_namespace_starts_nothing(orlop: Environment) -> None:
    for flag, said in WRONG.items():
        done = orlop("run", "--rm", flag, "host", "true", check=False)
        assert (done.code, said in done.stderr, "Traceback" in done.stderr) == (125, True, False), done
    assert orlop("ps", "-aq").stdout == ""
