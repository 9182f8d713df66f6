"""Extraction on a real file system: equal to GNU tar's for real trees, and in overlayfs's form for layers."""

from __future__ import annotations

import os
import random
import stat
import subprocess
import sysconfig
import threading
import zlib
from pathlib import Path

import pytest

from orlop.linux import mount
from orlop.snapshot import removal
from orlop.snapshot.extract import Extraction
from orlop.snapshot.overlay import OPAQUE_XATTR
from orlop.spec.errors import Invalid, Unavailable
from orlop.spec.tar import Reader
from support import archives, trees
from support.archives import Archive


class Target:
    """A directory to extract into, with its trash."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "fs"
        self.trash = directory / "trash"
        self.root.mkdir(parents=True)
        self.trash.mkdir()

    def extract(self, data: bytes, *, lower: tuple[str, ...] = (), step: int = 100_000) -> Extraction:
        root, trash = (os.open(path, removal.DIRECTORY_FLAGS) for path in (self.root, self.trash))
        try:
            extraction = Extraction(root, trash, "the layer")
            extraction.run(Reader(archives.source(data, step), "the layer"))
            extraction.settle(lower)
        finally:
            os.close(root)
            os.close(trash)
        assert list(self.trash.iterdir()) == []
        return extraction

    def path(self, name: str) -> Path:
        return self.root / name

    def info(self, name: str) -> os.stat_result:
        return self.path(name).lstat()


@pytest.fixture
def target(tmp_path: Path) -> Target:
    return Target(tmp_path / "target")


# -- like GNU tar ---------------------------------------------------------------------------------------------------


def make_tree(tree: Path, seed: int = 1) -> None:
    """Make a tree with everything a root file system has."""
    rng = random.Random(seed)
    directories = [tree]
    tree.mkdir()
    for number in range(40):
        directory = rng.choice(directories) / f"d{number}{'é' * (number % 3)}"
        directory.mkdir()
        directories.append(directory)
    for number in range(300):
        path = rng.choice(directories) / f"f{number}{'n' * (number % 120)}"
        kind = number % 10
        if kind == 0:
            path.symlink_to(rng.choice(["target", "/absolute/target", "../" * 10, "x" * 200]))
        elif kind == 1:
            os.mkfifo(path)
        elif kind == 2:
            os.mknod(path, stat.S_IFCHR | 0o620, os.makedev(5, number))
        elif kind == 3:
            os.mknod(path, stat.S_IFBLK | 0o660, os.makedev(8, number))
        else:
            path.write_bytes(rng.randbytes(rng.choice([0, 1, 511, 512, 513, 5000, 300_000])))
            if kind == 4:
                (rng.choice(directories) / f"hard{number}").hardlink_to(path)
            if kind == 5:
                os.setxattr(path, "user.test", rng.randbytes(40))
                os.setxattr(path, "trusted.test", b"t\0=\n")
            if kind == 6:
                # cap_net_bind_service=ep, version 2 (linux/capability.h, struct vfs_cap_data)
                os.setxattr(path, "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
        os.lchown(path, rng.randrange(70000), rng.randrange(70000))
        if not path.is_symlink():
            path.chmod(rng.randrange(0o10000))
        if kind == 6:
            os.setxattr(path, "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
        os.utime(path, ns=(0, rng.randrange(2**60)), follow_symlinks=False)
    for directory in reversed(directories):
        os.setxattr(directory, "user.directory", b"yes")
        os.chown(directory, rng.randrange(1000), rng.randrange(1000))
        directory.chmod(rng.choice([0o755, 0o700, 0o1777, 0o2755, 0o555, 0]))
        os.utime(directory, ns=(0, rng.randrange(2**60)))


GNU_TAR = ["tar", "--xattrs", "--xattrs-include=*", "--numeric-owner", "--sparse"]


@pytest.mark.parametrize("form", ["posix", "gnu"])
@pytest.mark.parametrize("order", ["name", "none"])
def test_a_tree_of_everything_is_extracted_as_gnu_tar_does(
    target: Target, tmp_path: Path, form: str, order: str
) -> None:
    make_tree(tmp_path / "tree")
    flags = [*GNU_TAR, f"--sort={order}"]
    if form == "gnu":
        flags = ["tar", "--numeric-owner", "--sparse", "--format=gnu", f"--sort={order}"]
    data = subprocess.run([*flags, "-C", tmp_path / "tree", "-c", "."], check=True, capture_output=True).stdout
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    subprocess.run([*GNU_TAR, "-C", theirs, "-xp"], check=True, input=data)
    extraction = target.extract(data)
    assert extraction.lost_xattrs == extraction.lost_devices == 0
    ours = trees.describe(target.root)
    assert ours == trees.describe(theirs)
    assert len(ours) > 340


@pytest.mark.parametrize("directory", ["/usr/share/doc", sysconfig.get_path("stdlib"), "/etc", "/usr/bin"])
def test_a_real_tree_is_extracted_as_by_gnu_tar(target: Target, tmp_path: Path, directory: str) -> None:
    if not os.path.isdir(directory):
        directory = "/usr/share"
    listed = subprocess.run(
        ["find", ".", "-xdev", "!", "-type", "s", "-print0"], cwd=directory, check=True, capture_output=True
    ).stdout.split(b"\0")[:1000]
    data = subprocess.run(
        [*GNU_TAR, "-C", directory, "--no-recursion", "--null", "-T", "-", "-c"],
        input=b"\0".join(listed),
        check=True,
        capture_output=True,
    ).stdout
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    subprocess.run([*GNU_TAR, "-C", theirs, "-xp"], check=True, input=data)
    target.extract(data)
    assert trees.describe(target.root) == trees.describe(theirs)


def test_sparse_files_stay_sparse(target: Target, tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.seek(50 << 20)
        file.write(b"end")
        file.truncate(80 << 20)
    for version in ("0.0", "0.1", "1.0"):
        data = subprocess.run(
            ["tar", "--format=pax", f"--sparse-version={version}", "--sparse", "-C", tmp_path, "-c", "sparse"],
            check=True,
            capture_output=True,
        ).stdout
        target.extract(data)
        made = target.path("sparse")
        assert made.read_bytes() == path.read_bytes()
        assert made.stat().st_blocks * 512 < 1 << 20


# -- order, repetition, replacement ---------------------------------------------------------------------------------


def test_directories_have_the_times_of_their_members_last_description(target: Target) -> None:
    archive = Archive().directory(b"a", mtime=100).directory(b"a/b", mtime=200)
    archive.file(b"a/b/c", mtime=300).directory(b"z", mtime=400)
    for number in range(200):  # more than are held open at once
        archive.directory(b"a/d%d" % number, mtime=500).file(b"a/d%d/f" % number)
    archive.file(b"a/late").directory(b"a/b", mtime=250).file(b"a/b/later")
    target.extract(bytes(archive.directory(b".", mtime=1)))
    times = {name: target.info(name).st_mtime for name in ("a", "a/b", "a/b/c", "z", "a/d0", "a/d199", ".")}
    assert times == {"a": 100, "a/b": 250, "a/b/c": 300, "z": 400, "a/d0": 500, "a/d199": 500, ".": 1}


def test_the_last_of_several_members_with_one_name_counts(target: Target) -> None:
    archive = Archive().file(b"x", b"one").file(b"x", b"two", mode=0o600)
    archive.symlink(b"y", b"x").file(b"y", b"no link").directory(b"z").file(b"z/in").symlink(b"z", b"x")
    archive.file(b"w").directory(b"w").file(b"w/in", b"deep")
    target.extract(bytes(archive))
    assert target.path("x").read_bytes() == b"two"
    assert target.path("y").read_bytes() == b"no link"
    assert target.path("z").readlink() == Path("x")
    assert target.path("w/in").read_bytes() == b"deep"
    assert stat.S_IMODE(target.info("x").st_mode) == 0o600


def test_a_directory_twice_keeps_its_content(target: Target) -> None:
    target.extract(bytes(Archive().directory(b"d").file(b"d/f").directory(b"d", mode=0o700)))
    assert target.path("d/f").exists()
    assert stat.S_IMODE(target.info("d").st_mode) == 0o700


def test_a_full_directory_is_replaced_by_what_the_archive_says(target: Target) -> None:
    archive = Archive()
    for number in range(30):
        archive.file(b"d/" + b"/".join(b"s%d" % depth for depth in range(number)) + b"/f")
    target.extract(bytes(archive.file(b"d", b"a file now")))
    assert target.path("d").read_bytes() == b"a file now"


def test_parents_that_no_member_describes(target: Target) -> None:
    target.extract(bytes(Archive().file(b"a/b/c/f")))
    assert stat.filemode(target.info("a/b").st_mode) == "drwxr-xr-x"


def test_parents_that_only_lower_layers_describe(target: Target, tmp_path: Path) -> None:
    base, middle = Target(tmp_path / "base"), Target(tmp_path / "middle")
    base.extract(bytes(Archive().directory(b"tmp", mode=0o1777, uid=5, mtime=7, pax={b"SCHILY.xattr.user.a": b"b"})))
    base.extract(bytes(Archive().directory(b"gone", mode=0o700).symlink(b"link", b"tmp")))
    middle.extract(bytes(Archive().file(b".wh.gone")))
    lower = (str(middle.root), str(base.root))
    target.extract(bytes(Archive().file(b"tmp/x/y").file(b"gone/f").file(b"link/f")), lower=lower)
    info = target.info("tmp")
    assert (stat.S_IMODE(info.st_mode), info.st_uid, info.st_mtime) == (0o1777, 5, 7)
    assert os.getxattr(target.path("tmp"), "user.a") == b"b"
    assert stat.S_IMODE(target.info("gone").st_mode) == 0o755
    assert stat.S_IMODE(target.info("link").st_mode) == 0o755


def test_members_below_a_symlink_land_where_it_leads_inside(target: Target) -> None:
    archive = Archive().directory(b"usr/lib").symlink(b"lib", b"usr/lib").file(b"lib/f")
    archive.symlink(b"abs", b"/usr").file(b"abs/g").symlink(b"dangling", b"/new/place").file(b"dangling/h")
    target.extract(bytes(archive))
    assert target.path("usr/lib/f").exists()
    assert target.path("usr/g").exists()
    assert target.path("new/place/h").exists()
    assert target.info("lib").st_mode & stat.S_IFLNK == stat.S_IFLNK


def test_names_are_read_as_go_reads_them(target: Target) -> None:
    archive = Archive().file(b"/abs").file(b"./dot").file(b"a//b").file(b"a/./c").file(b"a/../d").file(b"///e")
    target.extract(bytes(archive))
    assert sorted(str(path.relative_to(target.root)) for path in target.root.rglob("*") if path.is_file()) == [
        *("a/b", "a/c", "abs", "d", "dot", "e"),
    ]


def test_hard_links(target: Target) -> None:
    archive = Archive().file(b"a", b"one").hard(b"b", b"a").hard(b"./d/c", b"/a").symlink(b"s", b"a").hard(b"t", b"s")
    archive.file(b"x").hard(b"x", b"a").hard(b"a", b"a").directory(b"dir").hard(b"dir", b"a")
    target.extract(bytes(archive))
    assert len({target.info(name).st_ino for name in ("a", "b", "d/c", "x", "dir")}) == 1
    assert target.info("t").st_ino == target.info("s").st_ino
    assert target.path("t").readlink() == Path("a")


def test_set_id_bits_and_file_capabilities_survive_the_change_of_owner(target: Target) -> None:
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    records = {b"SCHILY.xattr.security.capability": capability}
    target.extract(bytes(Archive().file(b"su", mode=0o6755, uid=1, gid=2).file(b"ping", uid=3, pax=records)))
    assert stat.S_IMODE(target.info("su").st_mode) == 0o6755
    assert os.getxattr(target.path("ping"), "security.capability") == capability


# -- layers ---------------------------------------------------------------------------------------------------------


def is_whiteout(info: os.stat_result) -> bool:
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == 0


def is_opaque(path: Path) -> bool:
    return OPAQUE_XATTR in trees.listed(str(path)) and os.getxattr(path, OPAQUE_XATTR) == b"y"


def test_whiteouts_become_those_of_overlayfs(target: Target) -> None:
    archive = Archive().file(b".wh.top").file(b"d/.wh.f").file(b"o/.wh..wh..opq").file(b".wh..wh.plnk").directory(b"o")
    target.extract(bytes(archive))
    assert is_whiteout(target.info("top"))
    assert is_whiteout(target.info("d/f"))
    assert is_opaque(target.path("o"))
    assert sorted(path.name for path in target.root.iterdir()) == ["d", "o", "top"]


@pytest.mark.parametrize("whiteout_first", [True, False])
def test_a_whiteout_hides_what_is_below_not_what_is_beside_it(target: Target, whiteout_first: bool) -> None:
    archive = Archive()
    if whiteout_first:
        archive.file(b".wh.f").file(b".wh.d").file(b".wh.s")
    archive.file(b"f", b"here").directory(b"d", mtime=5).file(b"d/f").symlink(b"s", b"f")
    if not whiteout_first:
        archive.file(b".wh.f").file(b".wh.d").file(b".wh.s")
    target.extract(bytes(archive))
    assert target.path("f").read_bytes() == b"here"
    assert target.path("d/f").exists()
    assert is_opaque(target.path("d"))
    assert target.info("d").st_mtime == 5
    assert target.path("s").is_symlink()


def test_attributes_of_overlayfs_do_not_come_from_an_archive(target: Target) -> None:
    records = {
        b"SCHILY.xattr." + name: b"y"
        for name in (b"trusted.overlay.redirect", b"trusted.overlay.opaque", b"user.overlay.opaque", b"user.kept")
    }
    target.extract(bytes(Archive().directory(b"d", pax=records).file(b"f", pax=records)))
    for name in ("d", "f"):
        assert trees.listed(str(target.path(name))) == ["user.kept"]


def test_layers_are_seen_through_a_real_overlay(tmp_path: Path) -> None:
    layers = [
        Archive()
        .file(b"kept")
        .file(b"gone")
        .directory(b"o")
        .file(b"o/old")
        .directory(b"r")
        .file(b"r/old")
        .file(b"t/x"),
        Archive()
        .file(b".wh.gone")
        .file(b"o/.wh..wh..opq")
        .file(b"o/new")
        .file(b".wh.r")
        .file(b"r/new")
        .file(b"t/.wh.x"),
    ]
    lower: list[str] = []
    for index, layer in enumerate(layers):
        target = Target(tmp_path / str(index))
        target.extract(bytes(layer), lower=tuple(lower))
        lower.insert(0, str(target.root))
    (tmp_path / "upper").mkdir()
    (tmp_path / "work").mkdir()
    fd = mount.overlay(lower, str(tmp_path / "upper"), str(tmp_path / "work"))
    try:
        seen = set(trees.describe(f"/proc/self/fd/{fd}"))
    finally:
        os.close(fd)
    assert seen == {".", "kept", "o", "o/new", "r", "r/new", "t"}


# -- limits and failures --------------------------------------------------------------------------------------------


def test_a_full_disk_is_said(tmp_path: Path) -> None:
    fd = mount.new_filesystem("tmpfs", (("size", "1m"), ("mode", "0700")), 0)
    try:
        base = Path(f"/proc/self/fd/{fd}")
        target = Target(base / "target")
        with pytest.raises(Unavailable, match="No space left on device") as full:
            target.extract(bytes(Archive().file(b"big", bytes(2 << 20))))
        assert "free some space" in full.value.hint
    finally:
        os.close(fd)


def test_descriptors_do_not_leak(target: Target) -> None:
    before = len(os.listdir("/proc/self/fd"))
    target.extract(bytes(Archive().file(b"a/b/c").file(b"d/e/f").hard(b"g", b"d/e/f").file(b".wh.x")))
    for broken in (Archive().file(b"../x"), Archive().hard(b"a", b"missing"), Archive().file(b"f").file(b"f/g")):
        with pytest.raises(Invalid):
            target.extract(bytes(broken))
    assert len(os.listdir("/proc/self/fd")) == before


def test_extraction_in_a_thread_does_not_care_about_the_umask(target: Target) -> None:
    previous = os.umask(0o777)
    try:
        thread = threading.Thread(target=target.extract, args=(bytes(Archive().file(b"a/f").directory(b"d")),))
        thread.start()
        thread.join()
    finally:
        os.umask(previous)
    assert [stat.S_IMODE(target.info(name).st_mode) for name in ("a", "a/f", "d")] == [0o755, 0o644, 0o755]


def test_memory_does_not_grow_with_the_archive(target: Target) -> None:
    import tracemalloc

    class Source:
        """20,000 directories and a file of 64 MiB, made while they are read."""

        def __init__(self) -> None:
            self.pending = [archives.header(b"big", size=64 << 20), *[bytes(1 << 20)] * 64]
            self.pending += [archives.header(b"d%d/" % number, b"5") for number in range(20_000)]
            self.pending.reverse()

        def __call__(self, count: int) -> bytes:
            return self.pending.pop() if self.pending else b""

    source = Source()
    root, trash = (os.open(path, removal.DIRECTORY_FLAGS) for path in (target.root, target.trash))
    tracemalloc.start()
    try:
        Extraction(root, trash, "the layer").run(Reader(source, "the layer"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        os.close(root)
        os.close(trash)
    assert peak < 8 << 20


def test_crc_of_what_was_read_in_odd_pieces(target: Target) -> None:
    data = random.Random(3).randbytes(100_003)
    target.extract(bytes(Archive().file(b"f", data).file(b"g", data[:1])), step=997)
    assert zlib.crc32(target.path("f").read_bytes()) == zlib.crc32(data)
    assert target.path("g").read_bytes() == data[:1]
