"""State files that are something else: an engine starts, lists the others, and says of each what to do about it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from orlop.engine import strict
from orlop.frontends.native import rundir
from orlop.linux import path
from orlop.spec.errors import OrlopError, Unavailable
from support import processes
from support.engine import Environment
from support.pace import SLOW
from support.tasks import wait_until

HUGE_BYTES = 1 << 40  # nothing of it is on disk

FILES = tuple("container.json config.json status.json exit.json restart health.json endpoints.json log.json".split())


def _device(place: Path) -> None:
    os.mknod(place, 0o20666, os.makedev(1, 5))  # /dev/zero: reading it never ends


def _huge(place: Path) -> None:
    place.touch()
    os.truncate(place, HUGE_BYTES)


KINDS = {
    "fifo": os.mkfifo,
    "folder": lambda place: place.mkdir(),
    "link": lambda place: place.symlink_to("/dev/zero"),
    "device": _device,
    "empty": lambda place: place.touch(),
    "huge": _huge,
    "cut": lambda place: place.write_bytes(b'{"id": "'),
}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("empty", "cut")])
def test_what_is_no_file_of_ours_is_not_read(tmp_path, kind):
    """Red: with open(path, "rb") a fifo hangs, and a folder is another error."""
    KINDS[kind](tmp_path / "file")
    with pytest.raises(OSError) as refused:
        path.read_file(str(tmp_path / "file"), 1 << 20)
    assert refused.value.errno in path.DAMAGED
    with pytest.raises(FileNotFoundError):
        path.read_file(str(tmp_path / "none"), 10)
    (tmp_path / "good").write_bytes(b"0123456789")
    assert path.read_file(str(tmp_path / "good"), 10) == b"0123456789"


def restarted(orlop: Environment) -> None:
    """End the engine: the next command starts another, which looks at everything."""
    pid = orlop.engine_pid()
    assert pid is not None
    processes.kill(pid, processes.start_time(pid))
    wait_until(lambda: orlop.engine_pid() is None)


def copies(orlop: Environment) -> dict[str, tuple[str, str]]:
    """Make a container for each file and kind from one that has ended; return what each one's name stands for."""
    (original,) = (orlop.root / "containers").iterdir()
    made = {}
    for number, (file, kind) in enumerate((file, kind) for file in FILES for kind in KINDS):
        identity = f"{number:064x}"
        name = f"{file.partition('.')[0]}-{kind}"
        directory = original.with_name(identity)
        shutil.copytree(original, directory, ignore=lambda _, names: [one for one in names if one == "exec"])
        snapshots = orlop.root / "snapshots" / "active"
        shutil.copytree(snapshots / original.name, snapshots / identity, symlinks=True)
        record = json.loads((directory / "container.json").read_text())
        (directory / "container.json").write_text(json.dumps(record | {"id": identity, "name": name}))
        (directory / file).unlink(missing_ok=True)
        KINDS[kind](directory / file)
        made[name] = (file, kind)
    return made


@pytest.fixture
def swept(orlop: Environment) -> Iterator[Environment]:
    """An engine whose damaged containers go before its own end is proven: that reads their files."""
    yield orlop
    for directory in (orlop.root / "containers").glob("0" * 20 + "*"):
        shutil.rmtree(directory)


def test_an_engine_gets_by_with_any_state_file(swept):
    """Red: with open() in Records, state, orders and health the first `ps` never answers."""
    orlop = swept
    check = ("--health-cmd", "true", "--restart", "on-failure:1")
    orlop("run", "-d", "--network", "none", "--name", "good", *check, "host", "echo", "said")
    assert orlop("wait", "good").stdout == "0\n"
    made = copies(orlop)
    restarted(orlop)
    lost = {name for name, (file, _) in made.items() if file == "container.json"}
    listed = set(orlop("ps", "-a", "--format", "{{.Names}}").stdout.split())
    assert listed == {"good"} | set(made) - lost
    assert (orlop.root / "engine.log").read_text().count("is left alone") >= len(lost)
    shown = orlop("inspect", *made, check=False)
    assert "defect" not in shown.stderr
    for name, (file, kind) in made.items():
        if file == "config.json":
            refused = orlop("start", name, check=False)
            assert refused.code and "config.json" in refused.stderr and "defect" not in refused.stderr, refused
        if file == "log.json" and kind != "huge":  # a large log is read, as far as somebody reads it
            assert "defect" not in orlop("logs", name, check=False).stderr, name
    gone = orlop("rm", "-f", *(name for name in made if name not in lost), check=False)
    assert gone.code == 0, gone
    assert orlop("logs", "good").stdout == "said\n" and orlop("start", "good").code == 0


def test_a_log_that_is_something_else_is_named(orlop):
    """Red: with open() nobody can start an engine: the command waits for whoever reads the pipe."""
    log = orlop.root / "engine.log"
    orlop.root.mkdir(mode=0o700, exist_ok=True)
    for kind in ("fifo", "folder", "link"):
        KINDS[kind](log)
        refused = orlop("ps", check=False, timeout=30 * SLOW)
        assert refused.code == 1 and str(log) in refused.stderr and "remove it" in refused.stderr, refused
        served = orlop("serve", check=False, timeout=30 * SLOW)
        assert served.code and str(log) in served.stderr and "remove it" in served.stderr, served
        log.rmdir() if kind == "folder" else log.unlink()


def test_volumes_whose_record_is_something_else(orlop):
    """Red: with open() in volumes.store `volume ls` hangs at the fifo."""
    for name in ("good", *KINDS):
        orlop("volume", "create", name)
    for name, make in KINDS.items():
        place = orlop.root / "volumes" / name / "volume.json"
        place.unlink()
        make(place)
    restarted(orlop)
    assert "good" in orlop("volume", "ls", "-q").stdout.split()
    for name in KINDS:
        shown = orlop("volume", "inspect", name, check=False)
        assert shown.code and "volume.json" in shown.stderr and "defect" not in shown.stderr, name
        assert "orlop volume" in shown.stderr or "repair" in shown.stderr, shown


OWN = (
    *("events.jsonl", "events.jsonl.1", "engine-id", "networks/*/network.json", "build/salt"),
    *("content/host.json", "content/leases/sweep", "build/builds/*/build.json", "snapshots/active/*/parent"),
    "content/recipes/*",
)


TOLD = ("sweep", "host.json")  # a folder in their place stops what needs them, and is named


def own_files(orlop: Environment) -> list[Path]:
    """One of each kind of file that the engine itself keeps; of the networks that of `net`."""
    found = []
    for pattern in OWN:
        places = [one for one in orlop.root.glob(pattern) if "network" not in pattern or '"net"' in one.read_text()]
        found.append(places[0] if places else orlop.root / pattern)
    return found


def test_an_engine_gets_by_with_any_file_of_its_own(orlop, tmp_path):
    """Red: with open() in one of their readers it hangs at the fifo, or every command ends with a defect."""
    (tmp_path / "Dockerfile").write_text("FROM host\nARG A=1\nRUN --network=none true\n")
    orlop("network", "create", "net")
    orlop("create", "--network", "none", "--name", "kept", "host", "true")
    orlop("build", "-q", "-t", "built", str(tmp_path))
    orlop("image", "prune", "--packed", "-f")
    assert orlop("info", "--format", "{{.ID}}").stdout.strip()
    files = own_files(orlop)
    good = {place: place.read_bytes() if place.exists() else b"" for place in files}
    assert sum(map(bool, good.values())) == len(OWN) - 2, "of no rotation yet, and one that is empty"
    for kind in ("fifo", "folder", "empty", "huge", "cut"):  # a device and a link are found as a fifo is
        make = KINDS[kind]
        for place in files:
            place.unlink(missing_ok=True)
            place.parent.mkdir(exist_ok=True)
            (Path.touch if kind == "folder" and place.name in TOLD else make)(place)
        restarted(orlop)
        for words in ("ps -a", "network ls", "builder ls", "events --since 1h --until 0s", "system df", "info"):
            told = orlop(*words.split(), check=False)
            assert "defect" not in told.stderr, (kind, told)
            assert words in ("info", "system df") or told.code == 0, (kind, told)
        assert orlop("run", "--rm", "--network", "none", "host", "echo", "x").stdout == "x\n", kind
        refused = orlop("run", "--rm", "host", "true", check=False)
        assert refused.code == 125 and "network.json" in refused.stderr and "repair" in refused.stderr, (kind, refused)
        assert orlop("network", "create", "net", check=False).code, kind
        built = orlop("build", "-q", "--build-arg", f"A={kind}", str(tmp_path), check=False)
        assert built.code == 0 or "salt" in built.stderr, (kind, built)
        for place, data in good.items():
            shutil.rmtree(place) if place.is_dir() and not place.is_symlink() else place.unlink(missing_ok=True)
            if data:
                place.write_bytes(data)
    assert orlop("run", "--rm", "--network", "net", "host", "true").code == 0, "it is read anew"
    for place in orlop.root.glob("events.jsonl.odd*"):
        shutil.rmtree(place) if place.is_dir() and not place.is_symlink() else place.unlink()


def test_a_lock_that_is_something_else_is_named(tmp_path):
    """Red: "Is a directory: engine.lock", which lies nowhere, and no word of what to do."""
    run = os.open(tmp_path, os.O_RDONLY)
    for kind in ("folder", "link"):
        KINDS[kind](tmp_path / "engine.lock")
        with pytest.raises(Unavailable, match=f"{tmp_path}/engine.lock") as refused:
            rundir.lock_engine(run)
        assert "remove it" in refused.value.hint
        (tmp_path / "engine.lock").rmdir() if kind == "folder" else (tmp_path / "engine.lock").unlink()
    os.close(run)


@pytest.mark.parametrize("kind", KINDS)
def test_settings_that_are_something_else_stop_new_containers(tmp_path, kind):
    """They may have said strict: nothing is guessed. Red: with open() the fifo hangs; without a hint nobody knows."""
    KINDS[kind](tmp_path / strict.FILE)
    with pytest.raises(OrlopError, match=strict.FILE) as refused:
        strict.setting(SimpleNamespace(paths=SimpleNamespace(root=str(tmp_path))))
    assert "orlop config" in refused.value.hint
