"""Snapshots: layers complete or absent, writable layers over them, trees removed whatever is in them."""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import io
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orlop.linux import mount
from orlop.runtime import rootfs
from orlop.snapshot import Snapshots, removal, usage
from orlop.snapshot.unpack import Arrival
from orlop.spec.digest import Digest
from orlop.spec.errors import Conflict, Invalid, NotFound, Unavailable, Unsupported
from orlop.spec.image import chain_ids
from orlop.spec.runtime import Mount
from support import trees
from support.archives import Archive

Layer = tuple[Digest, Callable[[], io.BytesIO]]
BASE = bytes(Archive().directory(b".", mode=0o711, uid=3, gid=4).file(b"base", b"one").file(b"both", b"lower"))
TOP = bytes(Archive().file(b"top", b"two").file(b"both", b"upper").file(b".wh.base"))


def layer(data: bytes, *, packed: bytes | None = None) -> Layer:
    return Digest.of(data), lambda: io.BytesIO(data if packed is None else packed)


@pytest.fixture
def snapshots(tmp_path: Path) -> Iterator[Snapshots]:
    snapshots = Snapshots(str(tmp_path / "snapshots"))
    yield snapshots
    left = [name for name in ("trash", "unpacking") if os.listdir(f"{snapshots.root}/{name}")]
    snapshots.close()
    assert not left


def fs(snapshots: Snapshots, chain_id: Digest | None) -> Path:
    assert chain_id is not None
    return Path(snapshots.root) / "layers" / chain_id.hex / "fs"


def seen(mounts: tuple[object, ...]) -> dict[str, trees.Entry]:
    """Return what a container would see: the mount is made, detached, and described."""
    (found,) = mounts
    options = [option.partition("=")[::2] for option in found.options]  # type: ignore[attr-defined]
    lower = [value for name, value in options if name == "lowerdir"]
    named = dict(options)
    fd = mount.overlay(lower, named["upperdir"], named["workdir"])
    try:
        return trees.describe(f"/proc/self/fd/{fd}", times=False)
    finally:
        os.close(fd)


# -- layers ---------------------------------------------------------------------------------------------------------


def test_layers_lie_under_their_chain_ids(snapshots: Snapshots) -> None:
    chain = snapshots.unpack([layer(BASE), layer(TOP, packed=gzip.compress(TOP))])
    assert chain == chain_ids((Digest.of(BASE), Digest.of(TOP)))[-1]
    assert (fs(snapshots, chain) / "top").read_text() == "two"
    assert (fs(snapshots, Digest.of(BASE)) / "base").read_text() == "one"
    assert stat.S_IMODE(os.stat(snapshots.root).st_mode) == 0o700


def test_what_is_there_is_not_opened_again(snapshots: Snapshots) -> None:
    snapshots.unpack([layer(BASE)])

    def never() -> io.BytesIO:
        raise AssertionError("opened")

    chain = snapshots.unpack([(Digest.of(BASE), never), layer(TOP)])
    assert snapshots.unpack([(Digest.of(BASE), never), (Digest.of(TOP), never)]) == chain


def test_no_layers_make_no_chain(snapshots: Snapshots) -> None:
    assert snapshots.unpack([]) is None
    (bind,) = snapshots.prepare("c", None)
    assert (bind.type, bind.source) == ("bind", f"{snapshots.root}/active/c/upper")
    assert stat.S_IMODE(os.stat(bind.source).st_mode) == 0o755
    assert snapshots.mounts("c") == (bind,)


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (TOP, "its content has the diff_id sha256:"),
        (BASE + b"\0", "its content has the diff_id sha256:"),
        (BASE[:700], "truncated"),
        (gzip.compress(BASE)[:-9], "gzip data is truncated"),
        (gzip.compress(BASE) + b"x", "something else follows"),
        (b"", "it is empty"),
        (b"garbage" * 1000, "not a tar archive"),
        (bytes(Archive().file(b"../x")), "leads out of the root directory"),
    ],
)
def test_a_layer_that_is_not_what_it_should_be_leaves_nothing(snapshots: Snapshots, data: bytes, cause: str) -> None:
    with pytest.raises(Invalid, match=cause):
        snapshots.unpack([(Digest.of(BASE), lambda: io.BytesIO(data))])
    assert os.listdir(f"{snapshots.root}/layers") == []
    with pytest.raises(NotFound):
        snapshots.prepare("c", Digest.of(BASE))


def test_a_failure_keeps_the_layers_below(snapshots: Snapshots) -> None:
    with pytest.raises(Invalid):
        snapshots.unpack([layer(BASE), (Digest.of(b"other"), lambda: io.BytesIO(TOP))])
    assert os.listdir(f"{snapshots.root}/layers") == [Digest.of(BASE).hex]


def test_an_opener_that_fails_leaves_nothing(snapshots: Snapshots) -> None:
    def missing() -> io.BytesIO:
        raise NotFound("read", "blob", "blob is not in the store")

    with pytest.raises(NotFound, match="not in the store"):
        snapshots.unpack([(Digest.of(BASE), missing)])


def test_layers_are_extracted_side_by_side(snapshots: Snapshots) -> None:
    top_was_opened = threading.Event()

    def base() -> io.BytesIO:
        assert top_was_opened.wait(60)
        return io.BytesIO(BASE)

    def top() -> io.BytesIO:
        top_was_opened.set()
        return io.BytesIO(TOP)

    chain = snapshots.unpack([(Digest.of(BASE), base), (Digest.of(TOP), top)])
    assert chain == chain_ids((Digest.of(BASE), Digest.of(TOP)))[-1]
    assert sorted(os.listdir(fs(snapshots, chain))) == ["base", "both", "top"]


def test_what_no_member_describes_comes_from_below_though_that_arrives_later(snapshots: Snapshots) -> None:
    middle = bytes(Archive().directory(b"tmp", mode=0o1777, uid=5, mtime=7).file(b"tmp/a"))
    upper_was_opened = threading.Event()
    upper = bytes(Archive().file(b"tmp/x/y").directory(b"tmp/x", mode=0o750))

    def late() -> io.BytesIO:
        assert upper_was_opened.wait(60)
        return io.BytesIO(middle)

    def early() -> io.BytesIO:
        upper_was_opened.set()
        return io.BytesIO(upper)

    chain = snapshots.unpack([layer(BASE), (Digest.of(middle), late), (Digest.of(upper), early)])
    info = os.stat(fs(snapshots, chain) / "tmp")
    assert (stat.S_IMODE(info.st_mode), info.st_uid, info.st_mtime) == (0o1777, 5, 7)
    assert stat.S_IMODE(os.stat(fs(snapshots, chain) / "tmp/x").st_mode) == 0o750
    root = os.stat(fs(snapshots, chain))
    assert (stat.S_IMODE(root.st_mode), root.st_uid, root.st_gid) == (0o711, 3, 4)


def test_what_lies_above_a_layer_that_fails_is_given_up(snapshots: Snapshots) -> None:
    broken = threading.Event()

    def refuse() -> io.BytesIO:
        broken.set()
        raise NotFound("read", "blob", "blob is not in the store")

    class Endless(io.BytesIO):
        """A member without end: whoever reads it to its end never comes back."""

        def read(self, count: int | None = -1, /) -> bytes:
            return super().read(count) or bytes(count or 1)

    huge = bytes(Archive().file(b"big", b"", size=1 << 33))[:512]
    with pytest.raises(NotFound, match="not in the store"):
        snapshots.unpack([layer(BASE), (Digest.of(b"1"), refuse), (Digest.of(b"2"), lambda: Endless(huge))])
    assert broken.is_set()
    assert os.listdir(f"{snapshots.root}/layers") == [Digest.of(BASE).hex]


def test_many_layers_lie_one_above_the_other(snapshots: Snapshots) -> None:
    blobs = [bytes(Archive().file(b"shared", b"%d" % number).file(b"only-%d" % number)) for number in range(60)]
    chain = snapshots.unpack([layer(blob) for blob in blobs])
    found = seen(snapshots.prepare("c", chain))
    assert {f"only-{number}" for number in range(60)} <= set(found)
    assert (fs(snapshots, chain) / "shared").read_bytes() == b"59"


def test_more_layers_than_the_kernel_takes_are_counted_for_whoever_mounts_them() -> None:
    # The kernel says EINVAL, which told a user the names of 501 descriptors.
    options = tuple(f"lowerdir=/{number}" for number in range(rootfs.LAYERS_MAX + 1))
    with pytest.raises(Unsupported, match="it has 501 layers, and the kernel's overlayfs takes 500"):
        rootfs.open_rootfs((Mount(type="overlay", source="overlay", options=options),))


def test_several_unpackers_of_one_layer_extract_it_once(snapshots: Snapshots) -> None:
    opened: list[int] = []
    results: list[object] = []
    gate = threading.Barrier(6)

    def opener() -> io.BytesIO:
        opened.append(1)
        return io.BytesIO(BASE)

    def unpack() -> None:
        own = Snapshots(snapshots.root)
        gate.wait()
        results.append(own.unpack([(Digest.of(BASE), opener)]))
        own.close()

    threads = [threading.Thread(target=unpack) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [Digest.of(BASE)] * 6
    assert len(opened) == 1


def test_a_layer_that_is_there_is_let_go_while_one_above_it_is_waited_for(snapshots: Snapshots) -> None:
    """Two pulls of an image: one has the base, the other the layer above it, and waits for the base."""
    base, above = Digest.of(BASE), Digest.of(TOP)
    chain = chain_ids((base, above))
    held = f"{snapshots.root}/unpacking/{chain[1].hex}"
    os.mkdir(held, 0o700)
    lock = os.open(held, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    is_waited_for = threading.Event()

    def open_base() -> io.BytesIO:
        is_waited_for.wait(20)
        return io.BytesIO(BASE)

    layers = [(base, open_base), (above, lambda: io.BytesIO(TOP))]
    first = threading.Thread(target=lambda: snapshots.unpack(layers), daemon=True)
    first.start()
    while not os.path.exists(f"{snapshots.root}/unpacking/{chain[0].hex}"):
        assert first.is_alive()
    waiter = threading.Thread(target=lambda: Arrival(snapshots.root, 0, chain[0]).close(), daemon=True)
    waiter.start()
    time.sleep(0.2)  # until it waits: were it later, it would find the layer there
    is_waited_for.set()
    waiter.join(20)
    is_stuck = waiter.is_alive()
    os.close(lock)
    first.join(20)
    waiter.join(20)
    assert not is_stuck and snapshots.has(chain[1]) and not os.listdir(f"{snapshots.root}/unpacking")


KILLED = """
import io, os, signal, sys
from orlop.snapshot import Snapshots
from orlop.spec.digest import Digest

class Dies:
    left = [bytes.fromhex(sys.argv[2])]
    def read(self, count):
        if self.left:
            return self.left.pop()
        os.kill(os.getpid(), signal.SIGKILL)
    def close(self): pass

Snapshots(sys.argv[1]).unpack([(Digest(sys.argv[3]), Dies)])
"""


def test_what_a_killed_unpacker_left_is_in_nobodys_way(tmp_path: Path) -> None:
    root = str(tmp_path / "snapshots")
    arguments = [root, BASE[:1600].hex(), str(Digest.of(BASE))]
    environment = {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", KILLED, *arguments]
    keeper = Snapshots(root)  # while somebody is here nothing is swept: the next unpacker takes the place over
    assert subprocess.run(command, env=environment).returncode == -signal.SIGKILL
    assert os.listdir(f"{root}/unpacking") == [Digest.of(BASE).hex]
    other = Snapshots(root)
    assert os.listdir(f"{root}/unpacking") == [Digest.of(BASE).hex]
    assert other.unpack([layer(BASE)]) == Digest.of(BASE)
    assert os.listdir(f"{root}/unpacking") == os.listdir(f"{root}/trash") == []
    keeper.close()
    other.close()


def test_the_next_one_alone_sweeps_what_the_dead_left(tmp_path: Path) -> None:
    root = tmp_path / "snapshots"
    Snapshots(str(root)).close()
    (root / "unpacking" / ("0" * 64) / "fs/d").mkdir(parents=True)
    (root / "trash/x/y").mkdir(parents=True)
    (root / "trash/file").write_text("")
    snapshots = Snapshots(str(root))
    assert os.listdir(root / "unpacking") == os.listdir(root / "trash") == []
    snapshots.close()


# -- writable layers ------------------------------------------------------------------------------------------------


def test_a_writable_layer_shows_the_image(snapshots: Snapshots) -> None:
    chain = snapshots.unpack([layer(BASE), layer(TOP)])
    mounts = snapshots.prepare("c", chain)
    (found,) = mounts
    lower = [fs(snapshots, chain), fs(snapshots, Digest.of(BASE))]
    directory = f"{snapshots.root}/active/c"
    assert found.type == "overlay"
    assert found.options == (
        *(f"lowerdir={path}" for path in lower),
        f"upperdir={directory}/upper",
        f"workdir={directory}/work",
        "redirect_dir=off",
        "metacopy=off",
    )
    tree = seen(mounts)
    assert set(tree) == {".", "both", "top"}
    assert tree["."][:3] == ("drwx--x--x", 3, 4)
    assert tree["both"][5] == hashlib.sha256(b"upper").hexdigest()
    assert snapshots.mounts("c") == mounts


def test_an_opaque_root_ends_the_chain(snapshots: Snapshots) -> None:
    chain = snapshots.unpack([layer(BASE), layer(bytes(Archive().file(b".wh..wh..opq").file(b"only")))])
    assert set(seen(snapshots.prepare("c", chain))) == {".", "only"}


def test_keys(snapshots: Snapshots) -> None:
    chain = snapshots.unpack([layer(BASE)])
    snapshots.prepare("c", chain)
    with pytest.raises(Conflict, match="cannot prepare snapshot c: there is one of that name already"):
        snapshots.prepare("c", chain)
    for call in (snapshots.mounts, snapshots.remove, snapshots.usage):
        with pytest.raises(NotFound, match="No such snapshot: d"):
            call("d")
    for key in ("", ".", "..", "../x", "a/b", ".hidden", "-flag", "a\0b", "é", "k" * 129):
        with pytest.raises(Invalid, match="is not a name"):
            snapshots.prepare(key, chain)
    snapshots.remove("c")
    with pytest.raises(NotFound):
        snapshots.mounts("c")


def test_a_lost_parent_is_not_taken_for_none(snapshots: Snapshots) -> None:
    """An empty file is what a power failure leaves of one just written: the container must not get an empty root."""
    snapshots.prepare("c", snapshots.unpack([layer(BASE)]))
    parent = Path(snapshots.root) / "active/c/parent"
    parent.write_text("")
    with pytest.raises(Unavailable, match="its parent file is empty"):
        snapshots.mounts("c")
    parent.write_text("sha256:../../x")
    with pytest.raises(Invalid, match="hex digits"):
        snapshots.mounts("c")


def test_a_full_disk_is_said_with_the_next_step(tmp_path: Path) -> None:
    fd = mount.new_filesystem("tmpfs", (("size", "1m"), ("mode", "0700")), 0)
    try:
        snapshots = Snapshots(f"/proc/self/fd/{fd}/snapshots")
        with pytest.raises(Unavailable, match="No space left on device") as full:
            snapshots.unpack([layer(bytes(Archive().file(b"big", bytes(2 << 20))))])
        assert "free some space" in full.value.hint
        assert os.listdir(f"{snapshots.root}/layers") == os.listdir(f"{snapshots.root}/trash") == []
        snapshots.close()
    finally:
        os.close(fd)


def test_only_one_of_many_gets_a_key(snapshots: Snapshots) -> None:
    chain = snapshots.unpack([layer(BASE)])
    results: list[type] = []

    def prepare() -> None:
        try:
            results.append(type(snapshots.prepare("c", chain)))
        except Conflict:
            results.append(Conflict)

    threads = [threading.Thread(target=prepare) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(kind.__name__ for kind in results) == ["Conflict"] * 11 + ["tuple"]


def test_a_parent_that_is_not_unpacked(snapshots: Snapshots) -> None:
    with pytest.raises(NotFound, match="is not unpacked") as missing:
        snapshots.prepare("c", Digest.of(b"x"))
    assert missing.value.hint


# -- removal and usage ----------------------------------------------------------------------------------------------


def test_removal_of_what_a_container_can_leave(snapshots: Snapshots, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("stays")
    snapshots.prepare("c", None)
    upper = Path(snapshots.root) / "active/c/upper"
    (upper / "closed/inner").mkdir(parents=True)
    (upper / "closed/inner/file").write_text("x")
    (upper / "link").symlink_to(outside)
    (upper / "dangling").symlink_to("/nowhere")
    os.mkfifo(upper / "fifo")
    os.mknod(upper / "whiteout", stat.S_IFCHR, 0)
    (upper / "closed").chmod(0)
    (Path(snapshots.root) / "active/c" / "work" / "work").mkdir(mode=0)
    snapshots.remove("c")
    assert os.listdir(f"{snapshots.root}/active") == []
    assert (outside / "file").read_text() == "stays"


def make_deep(directory: Path, depth: int) -> None:
    """Make a chain of directories deeper than any path may be long."""
    fd = os.open(directory, removal.DIRECTORY_FLAGS)
    for _ in range(depth):
        os.mkdir("d", 0o700, dir_fd=fd)
        below = os.open("d", removal.DIRECTORY_FLAGS, dir_fd=fd)
        os.close(os.open("f", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=fd))
        os.close(fd)
        fd = below
    os.close(fd)


def test_depth_is_no_limit(snapshots: Snapshots) -> None:
    snapshots.prepare("c", None)
    make_deep(Path(snapshots.root) / "active/c/upper", 6000)
    assert snapshots.usage("c").inodes == 1 + 2 * 6000
    snapshots.remove("c")


def test_an_unprivileged_owner_removes_what_it_made(tmp_path: Path) -> None:
    """Modes that keep even the owner out: only without root's powers they are in the way."""
    root = tmp_path / "snapshots"
    for parent in (tmp_path, *tmp_path.parents[:3]):
        parent.chmod(parent.stat().st_mode | 0o055)
    root.mkdir()
    os.chown(root, 65534, 65534)
    # The checkout may lie where only root can read it.
    source = shutil.copytree(Path(__file__).parents[2] / "src", tmp_path / "src")
    script = """
import os, sys
from orlop.snapshot import Snapshots
snapshots = Snapshots(sys.argv[1])
os.makedirs(sys.argv[1] + "/trash/x/closed/inner/full/more")
os.makedirs(sys.argv[1] + "/active/c/upper/a/b/c")
for name in ("trash/x/closed/inner", "trash/x/closed", *("active/c/upper/" + path for path in ("a/b/c", "a/b", "a"))):
    os.chmod(sys.argv[1] + "/" + name, 0)
snapshots.remove("c")
snapshots.close()
Snapshots(sys.argv[1]).close()
assert os.listdir(sys.argv[1] + "/trash") == os.listdir(sys.argv[1] + "/active") == []
"""
    subprocess.run(
        [os.path.realpath(sys.executable), "-c", script, root],
        env={"PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1"},
        user=65534,
        group=65534,
        extra_groups=[],
        check=True,
        cwd="/",
    )


def test_a_directory_swapped_for_a_link_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The race is forced: the swap happens between the look at a name and the use of it."""
    outside, tree, trash = (tmp_path / name for name in ("outside", "tree", "trash"))
    for path in (outside, tree / "d", trash):
        path.mkdir(parents=True)
    (outside / "file").write_text("stays")
    real = usage._count

    def count_then_swap(directory: int, seen: set[tuple[int, int]]) -> object:
        found = real(directory, seen)
        if not (tree / "d").is_symlink():
            (tree / "d").rmdir()
            (tree / "d").symlink_to(outside)
        return found

    monkeypatch.setattr(usage, "_count", count_then_swap)
    assert usage.measure(str(tree)).inodes == 2
    (trash / "parked").symlink_to(outside)
    fd = os.open(trash, removal.DIRECTORY_FLAGS)
    try:
        with pytest.raises(OSError, match="parked"):
            removal._empty(fd, ["parked"])
    finally:
        os.close(fd)
    assert (outside / "file").read_text() == "stays"


def test_usage_is_what_du_says(snapshots: Snapshots) -> None:
    chain = snapshots.unpack([layer(BASE)])
    snapshots.prepare("c", chain)
    upper = Path(snapshots.root) / "active/c/upper"
    for name in ("a", "a/b", "c"):
        (upper / name).mkdir()
    (upper / "a/b/f").write_bytes(b"x" * 100_000)
    (upper / "c/hard").hardlink_to(upper / "a/b/f")
    (upper / "link").symlink_to("/etc")
    with (upper / "sparse").open("wb") as file:
        file.truncate(1 << 30)
    os.sync()
    expected = subprocess.run(["du", "-s", "-B1", upper], check=True, capture_output=True, text=True).stdout.split()[0]
    found = snapshots.usage("c")
    assert found.bytes == int(expected)
    assert found.inodes == 7
    assert usage.measure(str(upper)) == found
