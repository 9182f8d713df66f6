"""Volumes against hostile images, hostile neighbours and hostile names: a canary outside is never read nor written.

SEC-08, SEC-09, SEC-19, SEC-21, SEC-77; CVE-2017-1002101, CVE-2021-25741, CVE-2021-30465, CVE-2022-23648.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from orlop.runtime import copyup
from orlop.spec.errors import Invalid
from support.archives import Archive

NO_NETWORK = ("--network", "none")
ROUNDS = int(os.environ.get("ORLOP_TEST_SWAPS", "12"))
RENAME_EXCHANGE = 2
AT_FDCWD = -100
_renameat2 = ctypes.CDLL(None, use_errno=True).renameat2


def exchange(first: Path, second: Path) -> None:
    if _renameat2(AT_FDCWD, os.fsencode(first), AT_FDCWD, os.fsencode(second), RENAME_EXCHANGE):
        raise OSError(ctypes.get_errno(), str(first))


def swap_once_there(first: Path, second: Path, stack: ExitStack) -> None:
    """Begin to swap two names as soon as the first is there."""
    while not first.is_dir():
        pass
    stack.enter_context(Swapping(first, second))


class Swapping:
    """Two names that change places all the time, until the block ends."""

    def __init__(self, first: Path, second: Path) -> None:
        self.first, self.second = first, second
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.swap)

    def swap(self) -> None:
        while not self.over.is_set():
            exchange(self.first, self.second)

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()


@pytest.fixture
def canary(tmp_path: Path):
    """A directory that nobody may read or write; it is looked at afterwards."""
    directory = tmp_path / "canary"
    directory.mkdir(mode=0o700)
    (directory / "secret").write_text("bird")
    yield directory
    assert [path.name for path in directory.iterdir()] == ["secret"]
    assert (directory / "secret").read_text() == "bird" and directory.stat().st_mode & 0o777 == 0o700
    assert directory.stat().st_uid == 0


def copied(source: Path, destination: Path) -> int:
    fds = [os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in (source, destination)]
    try:
        return copyup.copy_tree(*fds, "volume v")
    finally:
        for fd in fds:
            os.close(fd)


def data(orlop, name):
    return orlop.root / "volumes" / name / "_data"


def make_image(orlop, archive, *changes):
    orlop("import", *(word for change in changes for word in ("-c", change)), "-", "hostile", input=bytes(archive))


# -- copy-up --------------------------------------------------------------------------------------------------------


def test_links_in_the_destination_are_not_followed(tmp_path, canary):
    source, destination = tmp_path / "s", tmp_path / "d"
    for name in ("dir", "file", "new"):
        (source / name).mkdir(parents=True)
        (source / name / "f").write_text("overwritten")
    (source / "plain").write_text("overwritten")
    destination.mkdir()
    for name in ("dir", "plain"):
        (destination / name).symlink_to(canary)
    (destination / "file").symlink_to(canary / "secret")
    copied(source, destination)
    assert os.readlink(destination / "dir") == str(canary)  # what is there stays
    assert (destination / "new/f").read_text() == "overwritten"


def like(tree: Path, content: str) -> Path:
    """Make a tree with many directories; content "" makes no files in them."""
    for index in range(40):
        (tree / "deep" / str(index)).mkdir(parents=True)
        if content:
            (tree / "deep" / str(index) / "f").write_text(content)
    return tree


def test_a_destination_that_is_swapped_meanwhile_leads_nowhere(tmp_path):
    source, destination, outside = tmp_path / "s", tmp_path / "d", like(tmp_path / "outside", "")
    like(source / "a", "x")
    for _ in range(ROUNDS):
        destination.mkdir()
        (destination / "link").symlink_to(outside)
        with ExitStack() as stack:
            swapper = threading.Thread(target=swap_once_there, args=(destination / "a", destination / "link", stack))
            swapper.start()
            try:
                copied(source, destination)
            except OSError:
                pass  # a link was there: refused
            swapper.join()
        assert not list(outside.rglob("f"))
        subprocess.run(["rm", "-rf", destination], check=True)


def test_a_source_that_is_swapped_meanwhile_shows_nothing_from_outside(tmp_path):
    source, destination, outside = tmp_path / "s", tmp_path / "d", like(tmp_path / "outside", "bird")
    like(source / "a", "of the image")
    (source / "link").symlink_to(outside)
    for _ in range(ROUNDS):
        destination.mkdir()
        with Swapping(source / "a", source / "link"):
            try:
                copied(source, destination)
            except OSError:
                pass
        found = subprocess.run(["grep", "-r", "bird", destination], capture_output=True, text=True, check=False)
        assert found.stdout == ""
        subprocess.run(["rm", "-rf", destination], check=True)


def test_a_tree_deeper_than_any_path_is_refused(tmp_path):
    source, destination = tmp_path / "s", tmp_path / "d"
    source.mkdir()
    destination.mkdir()
    here = os.open(source, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(30):
        os.mkdir("n" * 200, dir_fd=here)
        below = os.open("n" * 200, os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    with pytest.raises(Invalid, match="nested too deeply"):
        copied(source, destination)


def test_sockets_are_left_out_and_huge_holes_cost_nothing(tmp_path):
    source, destination = tmp_path / "s", tmp_path / "d"
    source.mkdir()
    destination.mkdir()
    os.mknod(source / "socket", 0o140600)
    with (source / "hole").open("wb") as file:
        file.truncate(1 << 40)
    assert copied(source, destination) == 2
    assert [path.name for path in destination.iterdir()] == ["hole"]
    assert (destination / "hole").stat().st_blocks == 0 and (destination / "hole").stat().st_size == 1 << 40


# -- hostile images -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target", ["{canary}", "../../../../../../..{canary}", "/proc/self/root{canary}", "/../..{canary}"]
)
def test_a_volume_at_a_link_of_the_image_does_not_begin_with_files_of_the_host(orlop, canary, target):
    make_image(orlop, Archive().symlink(b"data", target.format(canary=canary).encode()), "VOLUME /data")
    orlop("create", "-v", "named:/data", "hostile", "true", check=False)
    orlop("create", "hostile", "true", check=False)
    for volume in (orlop.root / "volumes").iterdir():
        assert not list(volume.rglob("secret"))


@pytest.mark.parametrize(
    "place", ["/../../etc", "/../../..{canary}", "../..{canary}", "//{canary}", "/./../{canary}/", "{canary}/../canary"]
)
def test_a_volume_declared_above_the_root_lies_below_it(orlop, canary, place):
    make_image(orlop, Archive().file(b"bin/true"), f'VOLUME ["{place.format(canary=canary)}"]')
    orlop("create", "--name", "c", "hostile", "/bin/true")
    for volume in (orlop.root / "volumes").iterdir():
        assert not list((volume / "_data").iterdir())


@pytest.mark.parametrize("place", ["/proc", "/proc/self", "/x/../proc/sys", "/", "/..", "."])
def test_a_volume_declared_where_none_may_be_is_refused(orlop, place):
    make_image(orlop, Archive().file(b"bin/true"), f'VOLUME ["{place}"]')
    refused = orlop("create", "hostile", "/bin/true", check=False)
    assert refused.code == 1 and "VOLUME" in refused.stderr
    assert orlop.container_ids() == [] and orlop("volume", "ls", "-q").stdout == ""


# -- hostile names and files ----------------------------------------------------------------------------------------

NAMES = [
    "..", ".", "../x", "a/b", "/etc", "a/../../x", ".hidden", "-f", "_x", "a\nb", "a b", "a\\b", "\u00e4\u00f6",
    "a:b", "x" * 256, "\u202eabc", "a*b", "$(id)", "%2e%2e", "~root", ".new-0123", ".gone-0123", "a\tb", "a,b", "a=b",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_name_becomes_no_directory(orlop, name):
    def below():
        return sorted(
            str(path.relative_to(orlop.root)) for path in orlop.root.rglob("*") if "engine.log" not in str(path)
        )

    orlop("volume", "ls")
    before = below()
    for words in (["volume", "create", "--", name], ["volume", "rm", "--", name], ["volume", "inspect", "--", name]):
        assert orlop(*words, check=False).code == 1
    assert orlop("create", "--mount", f'type=volume,"src={name}",dst=/d', "host", check=False).code in (1, 125)
    assert [path for path in below() if not path.startswith(("content", "snapshots"))] == [
        path for path in before if not path.startswith(("content", "snapshots"))
    ]


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[]", b"{}", b"null", b'{"name":3}', b"{" * 100_000, b'{"name":"x"}' * 2, b"\xff\xfe", bytes(9 << 20)],
)
def test_a_damaged_record_hides_no_other_volume(orlop, text):
    orlop("volume", "create", "good")
    orlop("volume", "create", "bad")
    (orlop.root / "volumes/bad/volume.json").write_bytes(text)
    assert orlop("volume", "ls", "-q").stdout == "good\n"
    shown = orlop("volume", "inspect", "bad", check=False)
    assert shown.code == 1 and "volume.json" in shown.stderr and "Traceback" not in shown.stderr
    refused = orlop("create", "-v", "bad:/b", "host", check=False)
    assert refused.code == 1 and orlop.container_ids() == []
    assert orlop("create", "-v", "good:/g", "host").code == 0


# -- hostile neighbours ---------------------------------------------------------------------------------------------


def test_a_part_of_a_volume_that_is_swapped_for_a_link_shows_nothing_else(orlop, canary):
    orlop("run", *NO_NETWORK, "--rm", "-v", "vol:/v", "host", "sh", "-c", "mkdir /v/sub; echo mine > /v/sub/secret")
    volume = data(orlop, "vol")
    (volume / "link").symlink_to(f"../../../../../../../../../..{canary}")
    (volume / "absolute").symlink_to(canary)
    for link in ("link", "absolute"):
        with Swapping(volume / "sub", volume / link):
            for _ in range(ROUNDS):
                done = orlop(
                    *(
                        "run",
                        *NO_NETWORK,
                        "--rm",
                        "--mount",
                        "src=vol,dst=/d,volume-subpath=sub",
                        "host",
                        "cat",
                        "/d/secret",
                    ),
                    check=False,
                )
                assert done.stdout in ("", "mine\n") and "bird" not in done.stdout + done.stderr
                assert done.stdout or "leads out of it" in done.stderr
        if not (volume / "sub").is_dir() or (volume / "sub").is_symlink():
            exchange(volume / "sub", volume / link)


def test_a_mount_point_that_is_swapped_for_a_link_moves_no_mount_to_the_host(orlop, canary):
    orlop("run", *NO_NETWORK, "--rm", "-v", "shared:/s", "host", "sh", "-c", "mkdir /s/sub; ln -s /../../../.. /s/link")
    shared = data(orlop, "shared")
    before = {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()}
    with Swapping(shared / "sub", shared / "link"):
        for _ in range(ROUNDS):
            script = f"cat {canary}/secret /s/sub{canary}/secret"
            done = orlop(
                "run",
                *NO_NETWORK,
                "--rm",
                "-v",
                "shared:/s",
                "-v",
                "other:/s/sub",
                "host",
                "sh",
                "-c",
                script,
                check=False,
            )
            assert "bird" not in done.stdout
    after = {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()}
    assert not [place for place in after - before if str(orlop.root) in place or str(canary) in place]
