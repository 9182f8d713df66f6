"""What `state`, `list`, `ps` and `events --stats` print, beside runc for the same bundle."""

from __future__ import annotations

import json
import re
import secrets
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.bundles import RUNTIME, Runtime, base, busybox_root

Beside = Callable[..., list[str]]
# Keys that only one of the two prints, and why.
DIFFERENCES = {
    "cpuset", "hugetlb", "intel_rdt", "network_interfaces",  # no number of use: settings, or never filled in by runc
}  # fmt: skip


@pytest.fixture
def beside(tmp_path: Path, peer: Callable[[str], Path]) -> Iterator[Beside]:
    """`beside("state", ID)` returns both outputs, runc's first; each has started a container of that bundle."""
    rootfs = busybox_root(tmp_path / "root", peer("busybox"))
    name = f"orlop-documents-{secrets.token_hex(4)}"
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    runtimes = [Runtime(command, tmp_path / f"state{at}") for at, command in enumerate((peer("runc"), RUNTIME))]

    def call(*words: str, check: bool = True) -> list[str]:
        done = [runtime(*words, *([] if words[0] == "list" else [name])) for runtime in runtimes]
        assert not check or [each.returncode for each in done] == [0, 0], [each.stderr for each in done]
        return [each.stdout for each in done]

    try:
        for runtime in runtimes:
            config = base(rootfs)
            config["process"]["args"] = ["sleep", "1000"]
            config["annotations"] = {"org.example.key": "value"}
            (bundle / "config.json").write_text(json.dumps(config))
            argv = [*runtime.argv, "run", "--detach", "--bundle", str(bundle), name]
            quiet = subprocess.DEVNULL
            subprocess.run(argv, stdin=quiet, stdout=quiet, stderr=quiet, check=True, timeout=60)
        yield call
    finally:
        call("delete", "--force", check=False)


def plain(document: dict[str, object]) -> dict[str, object]:
    """Without what is another one's: the pid and the time."""
    assert isinstance(document["pid"], int) and document["pid"] > 1
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{1,9}Z", str(document["created"]))
    assert str(document["ociVersion"]).startswith("1.")  # of the state document: each runtime's own
    return {**document, "pid": 0, "created": "", "ociVersion": ""}


def test_state(beside: Beside) -> None:
    theirs, ours = (json.loads(text) for text in beside("state"))
    assert list(ours) == list(theirs)
    assert plain(ours) == plain(theirs)


def test_list(beside: Beside) -> None:
    theirs, ours = (json.loads(text) for text in beside("list", "--format", "json"))
    assert list(ours[0]) == list(theirs[0])
    assert [plain(row) for row in ours] == [plain(row) for row in theirs]
    tables = [re.sub(r"\d+(?= +running)|\S+Z", lambda found: "x" * len(found[0]), t) for t in beside("list")]
    theirs, ours = (re.sub(r" +\n", "\n", re.sub(r"x+ *", "x ", table)) for table in tables)
    assert ours.splitlines()[0].split() == theirs.splitlines()[0].split()
    assert ours.splitlines()[1:] == theirs.splitlines()[1:]
    assert len(set(beside("list", "--quiet"))) == 1


def test_ps(beside: Beside) -> None:
    theirs, ours = (json.loads(text) for text in beside("ps", "--format", "json"))
    assert [len(ours), len(theirs)] == [1, 1]
    theirs, ours = (text.splitlines() for text in beside("ps"))
    assert ours[0] == theirs[0]
    assert ours[1].endswith("sleep 1000") and theirs[1].endswith("sleep 1000")


def test_events(beside: Beside) -> None:
    theirs, ours = (json.loads(text) for text in beside("events", "--stats"))
    assert list(ours) == list(theirs)
    assert set(theirs["data"]) - set(ours["data"]) <= DIFFERENCES
    for group in ("usage", "throttling"):
        assert set(ours["data"]["cpu"][group]) == set(theirs["data"]["cpu"][group])
    for group in ("usage", "swap", "kernel"):
        assert set(theirs["data"]["memory"][group]) == set(ours["data"]["memory"][group])
    assert set(ours["data"]["memory"]["raw"]) == set(theirs["data"]["memory"]["raw"])
    assert ours["data"]["memory"]["usage"]["limit"] == theirs["data"]["memory"]["usage"]["limit"]
    assert ours["data"]["pids"] == theirs["data"]["pids"]


# Flags of mount(2) alone, which is not used here: they are left to the file system.
NO_MOUNT_OPTIONS = {"acl", "noacl"}


def sections(value: object, prefix: str = "") -> set[str]:
    """Return the path of every key of a document's objects."""
    if not isinstance(value, dict) or prefix == "annotations.":
        return set()
    return {f"{prefix}{key}" for key in value} | {
        path for key, inner in value.items() for path in sections(inner, f"{prefix}{key}.")
    }


def test_features(peer: Callable[[str], Path]) -> None:
    """What runc tells, and what the specification's 1.3 has beside it. Lists: ours are no shorter than runc's."""
    asked = ([peer("runc"), "features"], [str(RUNTIME), "features"])
    theirs, ours = (
        json.loads(subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True).stdout)
        for argv in asked
    )
    newer = {
        "potentiallyUnsafeConfigAnnotations", "linux.memoryPolicy.modes", "linux.memoryPolicy.flags",
        "linux.mountExtensions.idmap.enabled", "linux.netDevices.enabled", "linux.intelRdt.enabled",
        "linux.cgroup.rdma", "linux.seccomp.knownFlags", "linux.seccomp.supportedFlags",
    }  # fmt: skip
    assert sections(theirs) | newer <= sections(ours)
    assert set(theirs["hooks"]) <= set(ours["hooks"])
    assert set(theirs["mountOptions"]) - set(ours["mountOptions"]) <= NO_MOUNT_OPTIONS
    for section, name in (("seccomp", "actions"), ("seccomp", "archs"), ("seccomp", "operators")):
        missing = set(theirs["linux"][section][name]) - set(ours["linux"][section][name])
        assert not missing, (name, missing)
    cgroup = {**ours["linux"]["cgroup"], "systemdUser": True}  # a user's systemd makes no scope for ours
    assert theirs["linux"]["cgroup"] == {key: cgroup[key] for key in theirs["linux"]["cgroup"]}
    assert set(theirs["linux"]["namespaces"]) <= set(ours["linux"]["namespaces"])
