"""Every way out of a container, tried at every door (support.doors): the same attack is refused whoever asks for it.

Two halves: what runs inside and looks for a way out (attacker.py, once a door), and requests and images that ask for
more than a container may have. That the first half's attacks find their ways where nothing is guarded is a test, too.
"""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support import doors
from support.docker_http import Api
from support.doors import Ask, Door
from support.pace import SLOW
from support.tasks import wait_until

SMALL = ("sh", "cat", "id", "true", "pwd", "ls", "env")
SOON_S = 20.0 * SLOW


@pytest.fixture(scope="module")
def shared() -> Iterator[Path]:
    """A directory that every user may read: archives lie there."""
    place = Path(tempfile.mkdtemp(prefix="orlop-doors-", dir="/tmp"))
    place.chmod(0o755)
    doors.archive(doors.tree(place / "tree"), place / "attacker.tar")
    doors.container.make_root(place / "small", SMALL)
    yield place
    shutil.rmtree(place)


@pytest.fixture(scope="module", params=doors.DOORS)
def door(request: pytest.FixtureRequest, shared: Path) -> Iterator[Door]:
    with doors.opened(request.param, shared) as found:
        brought = found.bring(shared / "attacker.tar", doors.IMAGE)
        assert brought.code == 0, brought
        yield found


@pytest.fixture(scope="module")
def reached(door: Door) -> dict[str, list[str]]:
    """What the attacker reached behind this door."""
    return doors.reached(door.ask(doors.attacks()).output)


# -- inside ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attack", doors.INSIDE)
def test_from_inside_nothing_is_reached(reached: dict[str, list[str]], attack: str) -> None:
    assert reached[attack] == []


HELD_BY_NAMESPACES = {
    # What a container of --privileged has not, either: these are no matter of a guard that can be switched off.
    "sec_01_programs", "sec_02_descriptors", "sec_04_environment", "sec_09_kernel_file_systems", "sec_33_sockets",
    "sec_34_shared_memory", "sec_36_processes", "sec_36_tracing", "mounts_are_private", "chroot_leads_nowhere",
    "sec_28_capabilities",
}  # fmt: skip


# -- what is asked for ----------------------------------------------------------------------------------------------


def asked(door: Door, ask: Ask) -> doors.Said:
    """Ask for it. What a door has no words for is a mistake of the test."""
    assert ask.asked() <= door.takes, (door.name, ask)
    return door.ask(ask)


def test_sec_03_a_descriptor_is_no_working_directory(door: Door) -> None:
    """CVE-2024-21626."""
    for number in (3, 5, 7, 8, 11):
        said = asked(door, Ask(("pwd",), workdir=f"/proc/self/fd/{number}"))
        assert said.code != 0, said
        assert "\n/\n" not in said.output


def test_sec_27_no_id_wraps_to_root(door: Door) -> None:
    """CVE-2024-40635, CVE-2026-46680."""
    for user in ("2147483648", "4294967296", "18446744073709551616", "-1", "0x0", "1000:-1"):
        said = asked(door, Ask(("sh", "-c", "echo uid=$(id -u)."), user=user))
        assert said.code != 0 or "uid=0." not in said.output, (user, said)


def test_sec_29_the_primary_group_counts(door: Door) -> None:
    """CVE-2023-25173, CVE-2022-36109: who leaves the primary group by a set-group-ID program is in it all the same."""
    said = asked(door, Ask(("cat", "/proc/self/status"), user="1000:4000"))
    (groups,) = [line for line in said.output.splitlines() if "Groups:" in line]
    assert groups.split("Groups:")[1].split() == ["4000"], said


CREATED = pytest.mark.parametrize("door", [name for name in doors.DOORS if name != "build"], indirect=True)


@CREATED
def test_sec_22_the_machines_directories_are_not_relabelled(door: Door) -> None:
    """CVE-2021-43816."""
    for place in ("/", "/etc", "/home/"):
        said = asked(door, Ask(("true",), bind=f"{place}:/h:z"))
        assert said.code != 0 and "SELinux relabeling of /" in said.output, (place, said)


@CREATED
def test_sec_23_no_name_is_a_path(door: Door) -> None:
    for name in ("../x", "a/b", "..", "a\nb", "x" * 4096):
        said = asked(door, Ask(("true",), name=name))
        assert said.code != 0 and "defect" not in said.output, (name[:10], said)


@CREATED
def test_sec_26_what_is_too_long_is_refused(door: Door) -> None:
    """CVE-2021-43784: nothing is cut, and nothing overflows."""
    for wish in (Ask(("true",), hostname="x" * 70_000), Ask(("true",), bind=f"/tmp:/{'x' * 70_000}")):
        said = asked(door, wish)
        assert said.code != 0 and "defect" not in said.output, said.output[:1000]


@CREATED
def test_sec_24_a_sysctl_is_the_containers(door: Door) -> None:
    """CVE-2022-0811: of a namespace of the container's own, one value, whatever it contains."""
    place = "/proc/sys/kernel/core_pattern"
    before = Path(place).read_text()
    for name, value in (
        ("kernel.core_pattern", "|/x"),
        ("kernel.shm_rmid_forced", "1+kernel.core_pattern=|/x"),
        ("kernel.shm_rmid_forced", "1\nkernel.core_pattern=|/x"),
        ("net.ipv4.ip_forward/../../../kernel/core_pattern", "|/x"),
        ("vm.overcommit_memory", "1"),
        ("kernel.printk_ratelimit", Path("/proc/sys/kernel/printk_ratelimit").read_text().strip()),
    ):
        said = asked(door, Ask(("true",), sysctl=(name, value)))
        assert said.code != 0, (name, said)
    assert Path(place).read_text() == before


def test_sec_25_a_line_stays_one_line(door: Door) -> None:
    """CVE-2022-4318, CVE-2026-15809: what becomes a line of a file in /etc begins no other one."""
    evil = "x\nevil:x:0:0::/:/bin/sh"
    for field, value in (("hostname", evil), ("host", f"{evil}:1.2.3.4"), ("env", ("HOME", f"/{evil}"))):
        if field in door.takes:
            script = 'while read -r line; do echo ">$line"; done </etc/$0'
            for name in ("passwd", "hosts", "hostname"):
                said = asked(door, Ask(("sh", "-c", script, name))._replace(**{field: value}))
                assert ">evil" not in said.output, (field, name, said)


TRAPS = """
import os
for name in "tar xz zstd gzip unpigz bzip2 cp ps nsenter ls cat python3 libnss_files.so.2".split():
    place = f"/usr/bin/{name}"
    if os.path.lexists(place):
        os.unlink(place)
    with open(place, "w") as file:
        file.write("#!/bin/sh\\necho trapped >/tmp/orlop-trap\\n")
    os.chmod(place, 0o755)
open("/ready", "w").close()
os.execvp("sleep", ["sleep", "1000"])
"""


@CREATED
def test_sec_05_and_20_nothing_of_an_image_is_executed(door: Door) -> None:
    """CVE-2019-14271, GHSA-x86f-5xw2-fm2r, CVE-2022-1227: what cp, top, diff, export and commit need is ours."""
    script = ("python3", "-I", "-S", "-c", TRAPS)
    assert door.command("run", "-d", "--name", "trapped", "-w", "/", doors.IMAGE, *script).code == 0
    try:
        wait_until(lambda: door.command("exec", "trapped", "true").code == 0 and "ready" in told(door, "diff"))
        assert "sleep 1000" in told(door, "top") and "tmp" in told(door, "export")
        assert door.command("cp", "trapped:/usr/bin", "-").code == 0
        assert door.command("commit", "trapped", "trapped:1").code == 0
        assert not door.exists("/tmp/orlop-trap") and "orlop-trap" not in told(door, "diff")
        door.command("exec", "trapped", "cat")
        assert "orlop-trap" in told(door, "diff")  # who runs one of them is seen
    finally:
        door.command("rm", "-f", "trapped")
        Path("/tmp/orlop-trap").unlink(missing_ok=True)


def told(door: Door, verb: str) -> str:
    """Return what a verb, or docker's request of the same meaning, says of the container with the traps."""
    if isinstance(door, doors.Docker):
        place = {"diff": "changes"}.get(verb, verb)
        answer = Api(door.environment.run / "docker.sock")("GET", f"/containers/trapped/{place}")
        assert answer.status == 200, answer
        text: str = answer.body.decode(errors="replace")
        return text.replace('"sleep","1000"', "sleep 1000")
    done = door.command(verb, "trapped")
    assert done.code == 0, done
    return done.stdout


# -- images that are not what they seem -----------------------------------------------------------------------------


def link(path: str, target: str) -> dict[str, tarfile.TarInfo | None]:
    member = tarfile.TarInfo(path)
    member.type, member.linkname = tarfile.SYMTYPE, target
    return {path: member}


def special(path: str, kind: bytes) -> dict[str, tarfile.TarInfo | None]:
    member = tarfile.TarInfo(path)
    member.type, member.mode = kind, 0o644
    return {path: member}


def made(door: Door, shared: Path, name: str, changes: dict[str, tarfile.TarInfo | None], *words: str) -> str:
    """Bring an image that differs from a good one; return its name."""
    place = shared / f"{name}.tar"
    if not place.exists():
        doors.archive(shared / "small", place, changes)
    brought = door.bring(place, f"{name}:1", *words)
    assert brought.code == 0, brought
    return f"{name}:1"


@pytest.mark.parametrize("name, target", [("proc", "/tmp"), ("sys", "/"), ("dev", "../../tmp/x")])
def test_sec_09_and_14_a_link_in_place_of_a_kernel_directory(door: Door, shared: Path, name: str, target: str) -> None:
    """CVE-2019-19921, CVE-2026-41579."""
    image = made(door, shared, f"linked-{name}", link(name, target))
    said = door.ask(Ask(("sh", "-c", "echo ran"), image))
    assert said.code != 0 and "\nran\n" not in f"\n{said.output}", said
    assert f"/{name}" in said.output


def test_sec_16_files_of_ours_follow_no_link_of_an_image(door: Door, shared: Path) -> None:
    """CVE-2025-24965."""
    canary = f"/tmp/orlop-canary-16-{os.getpid()}"
    changes: dict[str, tarfile.TarInfo | None] = {}
    for name in ("hosts", "resolv.conf", "hostname", "mtab"):
        changes |= link(f"etc/{name}", canary)
    image = made(door, shared, "linked-etc", changes)
    door.write(canary, "host")
    try:
        for _ in range(2):
            said = door.ask(Ask(("cat", canary), image))
            assert "host\n" not in f"{said.output}\n" or said.code != 0, said
            assert door.read(canary) == "host"
    finally:
        Path(canary).unlink(missing_ok=True)


def test_sec_16_nothing_is_made_where_a_link_of_an_image_leads(door: Door, shared: Path) -> None:
    """Not even an empty file: what a link dangles to is made inside, or the start is refused."""
    place = f"/tmp/orlop-absent-16-{os.getpid()}"
    image = made(door, shared, "dangling-etc", link("etc/hosts", place) | link("etc/hostname", f"{place}.too"))
    door.ask(Ask(("true",), image))
    try:
        assert not door.exists(place) and not door.exists(f"{place}.too")
    finally:
        for name in (place, f"{place}.too"):
            Path(name).unlink(missing_ok=True)


@pytest.mark.parametrize("kind", ["fifo", "zero"])
def test_sec_17_a_passwd_that_never_ends(door: Door, shared: Path, kind: str) -> None:
    """CVE-2024-9676."""
    changes = special("etc/passwd", tarfile.FIFOTYPE) if kind == "fifo" else link("etc/passwd", "/dev/zero")
    image = made(door, shared, f"passwd-{kind}", changes)
    started = time.monotonic()
    said = door.ask(Ask(("true",), image, user="app"))
    assert said.code != 0 and "defect" not in said.output, said
    assert time.monotonic() - started < SOON_S


def test_sec_21_places_of_an_image_lie_in_it(door: Door, shared: Path) -> None:
    """CVE-2022-23648: volumes and working directories that lead out."""
    canary = f"/tmp/orlop-canary-21-{os.getpid()}"
    door.write(canary, "host")
    try:
        image = made(door, shared, "places", {}, "VOLUME /../../../tmp", "WORKDIR /../../../tmp")
        said = door.ask(Ask(("sh", "-c", f"pwd; ls -a /tmp; cat {canary}; echo end"), image))
        assert "host\n" not in said.output, said
        assert door.read(canary) == "host"
    finally:
        Path(canary).unlink(missing_ok=True)


def test_sec_51_labels_of_an_image_are_no_orders(door: Door, shared: Path) -> None:
    """CVE-2026-53488."""
    image = made(door, shared, "orders", {}, "LABEL io.orlop.owner=1.1 org.orlop.init=true")
    assert door.ask(Ask(("true",), image)).code == 0
    assert door.command("inspect", "-f", "{{json .Config.Labels}}", image).code == 0


# -- nothing is proven by what can't succeed ------------------------------------------------------------------------


@pytest.fixture
def unguarded(orlop: Callable[..., object], shared: Path) -> dict[str, list[str]]:
    orlop("import", str(shared / "attacker.tar"), doors.IMAGE)
    words = ("--privileged", "--pid=host", "--security-opt", "seccomp=unconfined")
    said = orlop("run", "--rm", *words, doors.IMAGE, "python3", "-I", "-S", "/attacker.py")
    return doors.reached(said.stdout)  # type: ignore[attr-defined]


def test_without_guards_the_attacks_succeed(unguarded: dict[str, list[str]]) -> None:
    assert sorted(unguarded) == sorted(doors.INSIDE)
    assert {name for name in doors.INSIDE if not unguarded[name]} <= HELD_BY_NAMESPACES
