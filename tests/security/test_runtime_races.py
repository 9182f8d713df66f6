"""Races between a start and somebody who shares its image or a volume: names exchanged after every resolution.

Each attack is tried at every place of a start (support.interleave). The same attacks are tried without the guards, and
must succeed then: a test that sees nothing proves nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from orlop.spec.runtime import Mount, Spec
from support import container, interleave
from support.container import MOUNTS, make_spec
from support.interleave import Attempt

NO_DEV = tuple(row for row in MOUNTS if not row.destination.startswith("/dev"))
RESOLUTIONS_MIN = 10  # of any start here: fewer would mean that the hook is not called


class Scene:
    """What an attacker has: the image, a volume, and something of the host's that must stay as it is."""

    def __init__(self, directory: Path) -> None:
        self.root = container.make_root(directory / "root")
        self.volume = directory / "volume"
        self.outside = directory / "outside"
        for place in (self.volume, self.outside):
            place.mkdir()
        self.canary = self.outside / "canary"
        self.canary.write_text("canary")

    def untouched(self) -> bool:
        return [path.name for path in self.outside.iterdir()] == ["canary"] and self.canary.read_text() == "canary"

    def link(self, place: Path, target: Path | str) -> Path:
        place.symlink_to(target)
        return place

    def bind(self, destination: str) -> Mount:
        return Mount(destination=destination, type="bind", source=str(self.volume), options=("rbind",))


Plot = tuple[Spec, tuple[Path, Path]]
Harm = Callable[[Scene, Sequence[Attempt]], object]


def started(attempts: Sequence[Attempt]) -> list[Attempt]:
    return [attempt for attempt in attempts if not attempt.error]


def reached_outside(scene: Scene, attempts: Sequence[Attempt]) -> object:
    return not scene.untouched()


def a_mount_target(scene: Scene) -> Plot:
    """SEC-08, SEC-15 (CVE-2021-30465, CVE-2024-45310): directories and files are made below a mount target."""
    (scene.volume / "place").mkdir()
    link = scene.link(scene.volume / "link", scene.outside)
    file = scene.volume / "file"
    file.write_text("x")
    mounts = (
        *MOUNTS,
        scene.bind("/shared"),
        Mount(destination="/shared/place/made/deep", type="tmpfs"),
        Mount(destination="/shared/place/file", type="bind", source=str(file)),
    )
    return make_spec("true", mounts=mounts), (scene.volume / "place", link)


def a_copied_directory(scene: Scene) -> Plot:
    """SEC-08, SEC-19 with tmpcopyup: what is copied into the container must not be the host's."""
    (scene.volume / "place").mkdir()
    link = scene.link(scene.volume / "link", scene.outside)
    mounts = (
        *MOUNTS,
        scene.bind("/shared"),
        Mount(destination="/shared/place/copy", type="tmpfs"),
        Mount(destination="/shared/place", type="tmpfs", options=("tmpcopyup",)),
    )
    return make_spec("ls", "/shared/place", "/shared/link/", mounts=mounts), (scene.volume / "place", link)


def saw_the_canary(scene: Scene, attempts: Sequence[Attempt]) -> object:
    return not scene.untouched() or any("canary" in attempt.output for attempt in attempts)


def the_null_device(scene: Scene) -> Plot:
    """SEC-11 (CVE-2025-31133): what hides files of /proc is not what the container calls /dev/null."""
    link = scene.link(scene.volume / "link", scene.canary)
    (scene.volume / "null").write_text("")
    mounts = (*NO_DEV, scene.bind("/dev"))
    script = "(echo WROTE > /proc/keys) 2> /dev/shm; (echo WROTE > /proc/timer_list) 2> /dev/shm; cat /proc/keys"
    spec = make_spec("sh", "-c", script, mounts=mounts, masked_paths=("/proc/keys", "/proc/timer_list"))
    return spec, (scene.volume / "null", link)


def the_console(scene: Scene) -> Plot:
    """SEC-12 (CVE-2025-52565): the terminal is shown at /dev/console, or nowhere."""
    link = scene.link(scene.volume / "link", scene.canary)
    (scene.volume / "console").write_text("")
    (scene.volume / "pts").mkdir()
    devpts = next(row for row in MOUNTS if row.destination == "/dev/pts")
    spec = make_spec(
        "cat", "/proc/self/mountinfo", mounts=(*NO_DEV, scene.bind("/dev"), devpts), terminal=True, masked_paths=()
    )
    return spec, (scene.volume / "console", link)


def showed_the_terminal_elsewhere(scene: Scene, attempts: Sequence[Attempt]) -> object:
    """Where the file is that was resolved: /dev/console, or its other name when that was exchanged afterwards."""
    return [
        attempt
        for attempt in started(attempts)
        if not any(
            row.split()[4] in ("/dev/console", "/dev/link") and " - devpts " in row
            for row in attempt.output.splitlines()
        )
    ]


def the_terminals(scene: Scene) -> Plot:
    """SEC-12: the directory of the terminals."""
    link = scene.link(scene.volume / "link", scene.outside)
    (scene.volume / "pts").mkdir()
    (scene.volume / "console").write_text("")
    devpts = next(row for row in MOUNTS if row.destination == "/dev/pts")
    spec = make_spec(
        "cat", "/proc/self/mountinfo", mounts=(*NO_DEV, scene.bind("/dev"), devpts), terminal=True, masked_paths=()
    )
    return spec, (scene.volume / "pts", link)


def mounted_terminals_elsewhere(scene: Scene, attempts: Sequence[Attempt]) -> object:
    """A container that started has them: a link is followed inside the image, where the place may have any name."""
    tables = [[row.split() for row in attempt.output.splitlines()] for attempt in started(attempts)]
    return [table for table in tables if not any("devpts" in row and row[3] == "/" for row in table)]


def procfs(scene: Scene) -> Plot:
    """SEC-09, SEC-13 (CVE-2023-27561, CVE-2025-52881): what is written and hidden is that of the real procfs."""
    fake = scene.root / "fake"
    (fake / "sys/net/ipv4").mkdir(parents=True)
    for name in ("sys/net/ipv4/ip_forward", "keys"):
        (fake / name).write_text("fake")
    script = "cat /proc/sys/net/ipv4/ip_forward /fake/sys/net/ipv4/ip_forward; wc -c < /proc/keys; wc -c < /fake/keys"
    spec = make_spec("sh", "-c", script, sysctl={"net.ipv4.ip_forward": "1"})
    return spec, (scene.root / "proc", fake)


def was_led_to_another_procfs(scene: Scene, attempts: Sequence[Attempt]) -> object:
    """One of both is the fake, which nobody writes; the other has the value, and nothing to read in keys."""
    fakes = [path for path in (scene.root / "fake", scene.root / "proc") if (path / "keys").exists()]
    assert len(fakes) == 1
    if (fakes[0] / "sys/net/ipv4/ip_forward").read_text() != "fake":
        return "the fake was written"
    # "fake" has no end of line: "fake1", or "1" and then "fake".
    wanted = ({"1", "fake0", "4"}, {"fake1", "4", "0"})
    return [attempt for attempt in started(attempts) if set(attempt.output.split()) not in wanted]


def devices(scene: Scene) -> Plot:
    """SEC-14 (CVE-2026-41579, CVE-2026-47766): the image's own /dev."""
    link = scene.link(scene.root / "link", scene.outside)
    return make_spec("true", mounts=NO_DEV), (scene.root / "dev", link)


def the_working_directory(scene: Scene) -> Plot:
    """SEC-03 (CVE-2024-21626): it is made, and entered, inside."""
    link = scene.link(scene.root / "link", scene.outside)
    (scene.root / "job").mkdir()
    return make_spec("pwd", cwd="/job/deep"), (scene.root / "job", link)


ATTACKS: dict[str, tuple[Callable[[Scene], Plot], Harm]] = {
    "a mount target": (a_mount_target, reached_outside),
    "a copied directory": (a_copied_directory, saw_the_canary),
    "the null device": (the_null_device, reached_outside),
    "the console": (the_console, showed_the_terminal_elsewhere),
    "the terminals": (the_terminals, mounted_terminals_elsewhere),
    "procfs": (procfs, was_led_to_another_procfs),
    "devices": (devices, reached_outside),
    "the working directory": (the_working_directory, reached_outside),
}


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_moment_is_a_good_one(scene: Scene, attack: str) -> None:
    plot, harm = ATTACKS[attack]
    spec, pair = plot(scene)
    attempts = interleave.attempts(spec, scene.root, pair)
    assert len(attempts) > RESOLUTIONS_MIN and started(attempts), attempts
    assert not attempts[-1].error, attempts[-1]
    assert not harm(scene, attempts), attempts
    assert scene.untouched()


@pytest.mark.parametrize("attack", ATTACKS)
def test_without_the_guards_there_is_one(scene: Scene, attack: str) -> None:
    plot, harm = ATTACKS[attack]
    spec, pair = plot(scene)
    assert harm(scene, interleave.attempts(spec, scene.root, pair, weakened=True))
