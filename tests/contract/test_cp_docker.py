"""`cp`: one table of copies, run by docker's own command line and daemon and by ours; the trees after it must be equal.

Every row has a directory of its own in the container (/r/N) and here, made from the same seed, so one container serves
the whole table; ours does it twice, running and stopped.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bench.platforms import podman_command
from bench.workspace import CGROUP, Workspace
from orlop.linux import zstd
from support.bundles import busybox_root

Tree = dict[str, object]

AT_ONCE = 4
SEED = r"""
mkdir -p seed/dir/sub seed/empty; cd seed
echo a > file; echo b > other; echo c > dir/inner; echo d > dir/sub/deep
ln -s file link; ln -s dir dirlink; ln -s nowhere dangling; ln -s ../dir/inner empty/up
ln file hard; chmod 640 file; chmod 4755 other; chmod 1777 empty; mkfifo fifo
touch -d @1000000000 file other dir/inner dir/sub/deep dir/sub dir
"""
# {c} is CONTAINER:/r/N, {l} the row's directory here; both hold the seed. An "x" in front: docker refuses it.
ROWS = """
{c}/file {l}/new
{c}/file {l}/other
{c}/file {l}/dir
{c}/file {l}/dir/
{c}/file {l}/dir/.
x {c}/file {l}/new/
x {c}/file {l}/nodir/new
{c}/file {l}/link
{c}/file {l}/dirlink
{c}/file {l}/dangling
{c}/dir {l}/new
{c}/dir {l}/new/
{c}/dir {l}/dir
{c}/dir {l}/dir/
x {c}/dir {l}/file
{c}/dir/ {l}/new
{c}/dir/. {l}/new
{c}/dir/. {l}/dir
x {c}/dir/. {l}/file
{c}/dir/sub/.. {l}/new
{c}/link {l}/new
{c}/link {l}/dir
-L {c}/link {l}/new
-L {c}/link {l}/dir
{c}/dirlink {l}/new
{c}/dirlink/ {l}/new
{c}/dirlink/. {l}/new
{c}/dirlink/inner {l}/new
-L {c}/dirlink {l}/new
-L {c}/dirlink {l}/dir
{c}/dangling {l}/new
x -L {c}/dangling {l}/new
x {c}/nothing {l}/new
{c}/empty {l}/new
{c}/other {l}/new
{c}/. {l}/new
{l}/file {c}/new
{l}/file {c}/other
{l}/file {c}/dir
{l}/file {c}/dir/
{l}/file {c}/dir/.
x {l}/file {c}/new/
x {l}/file {c}/nodir/new
{l}/file {c}/link
{l}/file {c}/dirlink
{l}/file {c}/dirlink/
{l}/dir {c}/new
{l}/dir {c}/new/
{l}/dir {c}/dir
x {l}/dir {c}/file
{l}/dir/ {c}/new
{l}/dir/. {c}/new
{l}/dir/. {c}/dir
x {l}/dir/. {c}/file
{l}/link {c}/new
-L {l}/link {c}/new
-L {l}/link {c}/dir
{l}/dirlink {c}/new
-L {l}/dirlink {c}/new
{l}/dirlink/. {c}/new
{l}/dangling {c}/new
x -L {l}/dangling {c}/new
x {l}/nothing {c}/new
{l}/empty {c}/new
{l}/other {c}/new
{l}/dir/inner {c}/fifo
""".strip().splitlines()


# podman always follows a link that is named, and names the copy after what it leads to; it replaces one that stands
# here; a directory's new name takes no slash; and what "sub/.." means it finds out by the words, not by looking.
PODMAN_DIFFERS = """
{c}/file {l}/link
{c}/file {l}/dangling
{c}/dir {l}/new/
{c}/dir/sub/.. {l}/new
{c}/link {l}/new
{c}/link {l}/dir
-L {c}/link {l}/dir
{c}/dirlink {l}/new
-L {c}/dirlink {l}/dir
{c}/dangling {l}/new
{l}/dir {c}/new/
{l}/link {c}/new
{l}/dirlink {c}/new
{l}/dangling {c}/new
""".strip().splitlines()


class Peer:
    """A command line with `cp`, a container called cc, and directories of its own for the rows.

    copy: its words that copy and keep owners. read: those that write an archive in which /r is.
    """

    def __init__(
        self,
        call: Callable[..., subprocess.CompletedProcess[bytes]],
        place: Path,
        copy: tuple[str, ...] = ("cp",),
        read: tuple[str, ...] = ("cp", "cc:/r", "-"),
    ) -> None:
        self.call = call
        self.place = place
        self.copy = copy
        self.read = read

    def copy_all(self) -> tuple[list[subprocess.CompletedProcess[bytes]], list[tuple[Tree, Tree]]]:
        """Do every row; return how each ended, and what there is then: here and in the container."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            ends = list(pool.map(self._copy, range(len(ROWS))))
        return ends, self.trees()

    def _copy(self, index: int) -> subprocess.CompletedProcess[bytes]:
        row = ROWS[index].removeprefix("x ").removeprefix("" if self.copy == ("cp",) else "-L ")  # podman always does
        return self.call(*self.copy, *row.format(c=f"cc:/r/{index}", l=self.place / str(index)).split())

    def trees(self) -> list[tuple[Tree, Tree]]:
        """Return the trees of every row: here and in the container."""
        done = self.call(*self.read)
        assert done.returncode == 0, done.stderr
        inside: list[Tree] = [{} for _ in ROWS]
        with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
            for member in archive:
                place, row, name = (*member.name.rstrip("/").split("/", 2), "", "")[:3]
                if name and place == "r":
                    inside[int(row)][name] = _of_member(archive, member)
        return [(_tree(self.place / str(index)), found) for index, found in enumerate(inside)]


def _of_member(archive: tarfile.TarFile, member: tarfile.TarInfo) -> object:
    if member.issym():
        return ("link", member.linkname)
    if member.islnk():
        member = archive.getmember(member.linkname)
    if member.isreg():
        content = archive.extractfile(member)
        assert content is not None
        return ("file", oct(member.mode & 0o7777), member.uid, content.read(), member.mtime)
    return ("dir" if member.isdir() else "fifo", oct(member.mode & 0o7777), member.uid)


def _tree(root: Path) -> Tree:
    out: Tree = {}
    for path in sorted(root.rglob("*")):
        info = path.lstat()
        name, mode = str(path.relative_to(root)), oct(stat.S_IMODE(info.st_mode))
        if stat.S_ISLNK(info.st_mode):
            out[name] = ("link", os.readlink(path))
        elif stat.S_ISREG(info.st_mode):
            out[name] = ("file", mode, info.st_uid, path.read_bytes(), int(info.st_mtime))
        else:
            out[name] = ("dir" if stat.S_ISDIR(info.st_mode) else "fifo", mode, info.st_uid)
    return out


End = tuple[subprocess.CompletedProcess[bytes], tuple[Tree, Tree]]


def _differ(theirs: End, ours: End) -> bool:
    """Tell whether two peers ended a row differently, or left other trees."""
    return (theirs[0].returncode != 0) != (ours[0].returncode != 0) or theirs[1] != ours[1]


@pytest.fixture(scope="module")
def workspace() -> Iterator[Workspace]:
    with Workspace() as place:
        yield place


@pytest.fixture(scope="module")
def rootfs(workspace: Workspace, peer: Callable[[str], Path]) -> Path:
    root = busybox_root(workspace.directory / "bb", peer("busybox"))
    subprocess.run(["sh", "-ec", SEED], cwd=root, check=True)
    (root / "r").mkdir()
    for index in range(len(ROWS)):
        subprocess.run(["cp", "-a", root / "seed", root / f"r/{index}"], check=True)
    # Told apart from what comes from here, by content and by owner.
    for index in range(len(ROWS)):
        (root / f"r/{index}/file").write_text("inside\n")
        os.utime(root / f"r/{index}/file", (1_000_000_000, 1_000_000_000))
        os.chown(root / f"r/{index}/dir/inner", 7, 7)
    archive = workspace.directory / "bb.tar"
    subprocess.run(["tar", "-C", root, "-cf", archive, "."], check=True)
    return archive


def _rows_here(workspace: Workspace, name: str) -> Path:
    place = workspace.directory / name
    place.mkdir()
    subprocess.run(["sh", "-ec", SEED], cwd=place, check=True)
    for index in range(len(ROWS)):
        subprocess.run(["cp", "-a", place / "seed", place / str(index)], check=True)
        os.chown(place / f"{index}/dir/inner", 9, 9)
    shutil.rmtree(place / "seed")
    return place


@pytest.fixture(scope="module")
def docker(workspace: Workspace, rootfs: Path, peer: Callable[[str], Path]) -> Peer:
    env = workspace.dockerd("d", program=peer("dockerd")).env

    def call(*args: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        words = [peer("docker"), *args]
        return subprocess.run(words, env=env, capture_output=True, timeout=120, check=False, input=data)

    assert call("import", str(rootfs), "bb:1").returncode == 0

    done = call("run", "-d", "--network=none", "--name", "cc", "bb:1", "sleep", "1000")
    assert done.returncode == 0, done.stderr
    return Peer(call, _rows_here(workspace, "docker"))


def test_every_copy_ends_as_dockers_does(orlop, docker: Peer, rootfs: Path, workspace: Workspace) -> None:
    def call(*args: str) -> subprocess.CompletedProcess[bytes]:
        done = orlop(*args, check=False)
        return subprocess.CompletedProcess(args, done.code, done.raw_stdout, done.raw_stderr)

    their_ends, their_trees = docker.copy_all()
    tables = [
        f"{row}: the table is wrong, docker said {end.stderr!r}"
        for row, end in zip(ROWS, their_ends, strict=True)
        if (end.returncode != 0) != row.startswith("x ")
    ]
    assert not tables
    orlop("import", str(rootfs), "bb:1")
    wrong = []
    for state in ("running", "stopped"):
        orlop("run", "-d", "--name", "cc", "bb:1", "sleep", "1000")
        if state == "stopped":
            orlop("kill", "cc")
            orlop("wait", "cc")
        our_ends, our_trees = Peer(call, _rows_here(workspace, state)).copy_all()
        for row, theirs, ours in zip(ROWS, their_ends, our_ends, strict=True):
            if (theirs.returncode != 0) != (ours.returncode != 0):
                wrong.append(f"{state}, {row}: docker {theirs.stderr!r}, we {ours.stderr!r}")
        for row, one, other in zip(ROWS, their_trees, our_trees, strict=True):
            for where, a, b in zip(("here", "inside"), one, other, strict=True):
                differing = [path for path in a | b if a.get(path) != b.get(path)]
                wrong += [
                    f"{state}, {row}, {where}: {path}: docker {a.get(path)}, we {b.get(path)}" for path in differing
                ]
        orlop("rm", "-f", "cc")
    assert not wrong, "\n".join(wrong)


def _archive() -> bytes:
    """Return a tar of things with owners, modes and links, as somebody may pipe it into `cp -`."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, kind, mode, uid in (
            ("piped", tarfile.DIRTYPE, 0o2750, 11),
            ("piped/file", tarfile.REGTYPE, 0o640, 12),
            ("piped/link", tarfile.SYMTYPE, 0o777, 13),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.mode, member.uid, member.gid, member.mtime = kind, mode, uid, uid, 1_000_000_000
            member.linkname = "file" if kind == tarfile.SYMTYPE else ""
            member.size = 5 if kind == tarfile.REGTYPE else 0
            archive.addfile(member, io.BytesIO(b"piped"[: member.size]))
    return out.getvalue()


def _zstd(data: bytes) -> bytes:
    compressor = zstd.Compressor(zstd.load(), 3)
    return compressor.compress(data) + compressor.flush()


PACKED = {"gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress, "zstd": _zstd}


def test_compressed_archives_are_taken_as_docker_takes_them(orlop, docker: Peer, rootfs: Path) -> None:
    """red: without Decompressed it is no archive."""
    orlop("import", str(rootfs), "bb:1")
    orlop("run", "-d", "--name", "packed", "bb:1", "sleep", "1000")
    for name, pack in PACKED.items():
        data = pack(_archive())
        orlop("exec", "packed", "mkdir", f"/{name}")
        orlop("cp", "-", f"packed:/{name}", input=data)
        assert orlop("exec", "packed", "cat", f"/{name}/piped/link").raw_stdout == b"piped"
        if name != "zstd":  # which docker knows since 23
            assert docker.call("exec", "cc", "mkdir", f"/{name}").returncode == 0
            assert docker.call("cp", "-", f"cc:/{name}", data=data).returncode == 0
            assert docker.call("exec", "cc", "cat", f"/{name}/piped/link").stdout == b"piped"
        cut = orlop("cp", "-", f"packed:/{name}", input=data[: len(data) // 2], check=False)
        assert cut.code == 1 and f"its {name} data is truncated" in cut.stderr
    orlop("rm", "-f", "packed")


@pytest.fixture(scope="module")
def podman(workspace: Workspace, rootfs: Path) -> Iterator[Peer]:
    command, env = podman_command(workspace)

    def call(*args: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run([*command, *args], env=env, capture_output=True, timeout=120, check=False, input=data)

    assert call("import", str(rootfs), "bb:1").returncode == 0
    done = call(
        "run", "-d", "--network=none", f"--cgroup-parent=/{CGROUP}", "--name", "cc", "localhost/bb:1", "sleep", "1000"
    )
    assert done.returncode == 0, done.stderr
    # Its `cp CONTAINER:/r -` writes the caller's owners; `export` those that are there.
    yield Peer(call, _rows_here(workspace, "podman-rows"), ("cp", "--archive=false"), ("export", "cc"))
    call("rm", "-f", "-t", "0", "cc")


def test_podman_agrees_but_for_what_is_listed(orlop, podman: Peer, rootfs: Path, workspace: Workspace) -> None:
    """The second judge of the table. Where it differs from docker, ours does what docker does: the test above."""

    def call(*args: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        done = orlop(*args, check=False, input=data)
        return subprocess.CompletedProcess(args, done.code, done.raw_stdout, done.raw_stderr)

    orlop("import", str(rootfs), "bb:1")
    orlop("run", "-d", "--name", "cc", "bb:1", "sleep", "1000")
    archive = _archive()
    assert podman.call(*podman.copy, "-", "cc:/r/0", data=archive).returncode == 0
    assert call("cp", "-", "cc:/r/0", data=archive).returncode == 0
    their_ends, their_trees = podman.copy_all()
    our_ends, our_trees = Peer(call, _rows_here(workspace, "for-podman")).copy_all()
    differing = [
        row
        for row, *pair in zip(
            ROWS, zip(their_ends, their_trees, strict=True), zip(our_ends, our_trees, strict=True), strict=True
        )
        if _differ(*pair)
    ]
    assert differing == PODMAN_DIFFERS


@pytest.mark.usefixtures("trusting")
def test_a_commit_is_an_image_for_docker_and_umoci(
    orlop, docker: Peer, rootfs: Path, workspace: Workspace, peer: Callable[[str], Path]
) -> None:
    orlop("import", str(rootfs), "bb:1")
    script = "rm -r /seed/dir /seed/link; mkdir /seed/dir; echo new > /seed/dir/new; echo x > /added; chown 7:8 /added"
    orlop("run", "--name", "cc", "bb:1", "sh", "-c", script)
    orlop("commit", "-c", "CMD cat /added", "cc", "made:1")
    archive = workspace.directory / "made.tar"
    source = f"oci:{orlop.root}/content:made:1"
    subprocess.run(
        [peer("skopeo"), "copy", source, f"docker-archive:{archive}:made:1"], check=True, capture_output=True
    )
    assert docker.call("load", "-i", str(archive)).returncode == 0
    shown = docker.call("run", "--rm", "--network=none", "made:1")
    assert (shown.returncode, shown.stdout) == (0, b"x\n"), shown
    listed = docker.call(
        "run", "--rm", "--network=none", "made:1", "sh", "-c", "ls /seed /seed/dir; stat -c %u:%g /added"
    )
    names = "dangling dir dirlink empty fifo file hard other".split()
    assert listed.stdout.decode().split() == ["/seed:", *names, "/seed/dir:", "new", "7:8"]
    bundle = workspace.directory / "bundle"
    subprocess.run(
        [peer("umoci"), "unpack", "--image", f"{orlop.root}/content:made:1", bundle], check=True, capture_output=True
    )
    seed = bundle / "rootfs/seed"
    assert not (seed / "link").is_symlink() and [path.name for path in (seed / "dir").iterdir()] == ["new"]


def test_the_difference_is_the_one_that_docker_shows(orlop, docker: Peer, rootfs: Path) -> None:
    orlop("import", str(rootfs), "bb:1")
    script = """cd /seed; rm file; echo x >> other; chmod 700 dir; mv dir/inner dir/moved; rm -r empty; mkdir empty
    touch empty/in; ln -sf else link; mkdir -p /new/deep; echo > /new/deep/file; rm -r /r/1; echo > /r/2/file
    touch -d @5 /r/3"""
    orlop("run", "--name", "cc", "bb:1", "sh", "-c", script, check=False)
    docker.call("rm", "-f", "dd")
    done = docker.call("run", "--network=none", "--name", "dd", "bb:1", "sh", "-c", script)
    assert done.returncode == 0, done
    theirs = docker.call("diff", "dd").stdout.decode().splitlines()
    assert sorted(orlop("diff", "cc").stdout.splitlines()) == sorted(theirs)
