"""The content store: nothing unverified or half-written is ever visible (SEC-43), and others may read it in place."""

from __future__ import annotations

import errno
import fcntl
import functools
import io
import json
import os
import resource
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orlop.content import Store
from orlop.content.recipes import NOT_PACKED, Head
from orlop.content.store import sweep
from orlop.frontends.registry import users
from orlop.frontends.registry.auth import Passwords
from orlop.spec.digest import Digest
from orlop.spec.errors import Invalid, NotFound, Unavailable
from orlop.spec.image import OCI_LAYER, Descriptor

DATA = b"some content\n" * 1000
DIGEST = Digest.of(DATA)
OTHER = Digest.of(b"other")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "content"))


def described(data: bytes = DATA, *, size: int | None = None, digest: Digest | None = None) -> Descriptor:
    size = len(data) if size is None else size
    return Descriptor(media_type=OCI_LAYER, digest=digest or Digest.of(data), size=size)


def files(store: Store) -> list[str]:
    root = Path(store.root)
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_an_empty_store_is_an_image_layout(store: Store) -> None:
    assert files(store) == ["index.json", "leases/sweep", "oci-layout"]
    root = Path(store.root)
    assert json.loads((root / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    assert json.loads((root / "index.json").read_text()) == {"schemaVersion": 2, "manifests": []}
    assert root.stat().st_mode & 0o777 == 0o700


def test_opening_it_again_changes_nothing(store: Store) -> None:
    store.ingest(DATA)
    before = files(store)
    assert Store(store.root).get(DIGEST) == DATA
    assert files(store) == before


@pytest.mark.parametrize("source", [DATA, io.BytesIO(DATA)], ids=["bytes", "stream"])
def test_a_blob_lies_under_its_digest(store: Store, source: bytes) -> None:
    assert store.ingest(source, media_type=OCI_LAYER) == described()
    assert (Path(store.root) / "blobs/sha256" / DIGEST.hex).read_bytes() == DATA
    assert store.get(DIGEST) == DATA
    assert store.stat(DIGEST) == len(DATA)
    with store.open(DIGEST) as file:
        assert file.read(4) == DATA[:4]
    assert os.listdir(Path(store.root) / "ingest") == []


def test_ingesting_twice_is_no_error(store: Store) -> None:
    inode = os.stat(store.path(store.ingest(DATA).digest)).st_ino
    assert store.ingest(io.BytesIO(DATA), described()) == described()
    assert os.stat(store.path(DIGEST)).st_ino == inode


def test_a_damaged_blob_is_replaced_by_the_next_ingest(store: Store) -> None:
    store.ingest(DATA)
    path = Path(store.path(DIGEST))
    path.chmod(0o600)
    path.write_bytes(b"short")
    store.ingest(DATA)
    assert store.get(DIGEST) == DATA


def test_sha512_has_its_own_directory(store: Store) -> None:
    digest = Digest.of(DATA, "sha512")
    assert store.ingest(DATA, digest).digest == digest
    assert store.get(digest) == DATA
    assert (Path(store.root) / "blobs/sha512" / digest.hex).exists()


def test_a_descriptor_of_sha512_is_verified_with_sha512(store: Store) -> None:
    expected = described(digest=Digest.of(DATA, "sha512"))
    assert store.ingest(DATA, expected) == expected
    with pytest.raises(Invalid, match="its content has the digest sha512:"):
        store.ingest(DATA[:-1] + b"x", expected)


LIES = {
    "another digest": described(digest=OTHER),
    "shorter": described(size=len(DATA) + 1),
    "longer": described(size=len(DATA) - 1),
    "much longer": described(size=0),
    "digest only": OTHER,
}


@pytest.mark.parametrize("case", LIES)
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_not_what_was_announced_never_becomes_visible(store: Store, case: str, stream: bool) -> None:
    with pytest.raises(Invalid, match=r"digest|announced|more than the"):
        store.ingest(io.BytesIO(DATA) if stream else DATA, LIES[case])
    assert files(store) == ["index.json", "leases/sweep", "oci-layout"]


def test_a_stream_that_never_ends_is_stopped_at_the_announced_size(store: Store) -> None:
    class Endless:
        taken = 0

        def read(self, count: int) -> bytes:
            self.taken += count
            return bytes(count)

    endless = Endless()
    with pytest.raises(Invalid, match="more than the 5000 bytes allowed"):
        store.ingest(endless, described(size=5000))
    assert endless.taken <= 2 << 20
    assert files(store) == ["index.json", "leases/sweep", "oci-layout"]


def test_a_stream_that_breaks_leaves_nothing(store: Store) -> None:
    class Broken:
        def read(self, count: int) -> bytes:
            raise ConnectionResetError(errno.ECONNRESET, "gone")

    with pytest.raises(ConnectionResetError):
        store.ingest(Broken())
    assert files(store) == ["index.json", "leases/sweep", "oci-layout"]


def test_an_ingest_can_be_read_before_it_is_committed(store: Store) -> None:
    with store.writer() as ingest:
        ingest.write(DATA[:100])
        ingest.write(DATA[100:])
        assert ingest.digest == DIGEST
        assert store.stat(DIGEST) is None
        with ingest.reader() as file:
            assert file.read() == DATA
        assert ingest.commit(DIGEST, OCI_LAYER) == described()
    assert store.stat(DIGEST) == len(DATA)


def test_what_is_not_there_is_said_with_the_next_step(store: Store) -> None:
    assert store.stat(OTHER) is None
    for call in (store.open, store.get):
        with pytest.raises(NotFound, match="is not in the store") as missing:
            call(OTHER)
        assert missing.value.hint


def test_a_blob_that_the_disk_changed_is_not_handed_out(store: Store) -> None:
    store.ingest(DATA)
    path = Path(store.path(DIGEST))
    path.chmod(0o600)
    path.write_bytes(DATA[:-1] + b"x")
    with pytest.raises(Unavailable, match="changed on disk"):
        store.get(DIGEST)


def test_get_is_bounded(store: Store) -> None:
    store.ingest(DATA)
    with pytest.raises(Invalid, match="the limit is 10"):
        store.get(DIGEST, 10)


def test_remove_is_final_and_repeatable(store: Store) -> None:
    store.ingest(DATA)
    store.remove(DIGEST)
    store.remove(DIGEST)
    assert store.stat(DIGEST) is None


def test_what_dead_writers_left_is_swept_and_what_living_ones_write_is_not(store: Store) -> None:
    ingest = Path(store.root) / "ingest"
    (ingest / "dead").write_bytes(b"x")
    with store.writer() as living:
        living.write(DATA)
        assert not (ingest / "dead").exists()
        (ingest / "dead too").write_bytes(b"x")
        another = Store(store.root)
        another.ingest(b"y")
        assert not (ingest / "dead too").exists()
        assert len(os.listdir(ingest)) == 1
        living.commit()
    assert store.get(DIGEST) == DATA


def test_a_sweeper_between_open_and_lock_costs_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The race is forced: the first file is swept the moment before its writer has locked it."""
    real = fcntl.flock
    swept = []

    def flock(fd: int, operation: int) -> None:
        if not swept:
            (name,) = os.listdir(Path(store.root) / "ingest")
            swept.append(name)
            os.unlink(Path(store.root) / "ingest" / name)
        real(fd, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    assert store.ingest(DATA).digest == DIGEST
    assert store.get(DIGEST) == DATA


def test_one_at_a_time_brings_a_blob_that_is_known(store: Store) -> None:
    other = Store(store.root)
    ingest = store.resume(described())
    assert ingest is not None
    ingest.write(DATA[:5])
    assert other.resume(described()) is None and other.coming(DIGEST) == 5
    ingest.keep()
    ingest = other.resume(described())
    assert ingest is not None and ingest.size == 5
    ingest.write(DATA[5:])
    ingest.commit(described())
    assert other.coming(DIGEST) == 0


def test_who_opens_what_becomes_a_blob_does_not_write_to_the_blob(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The race is forced: the file becomes a blob between an opening and its lock."""
    first = store.resume(described())
    assert first is not None
    first.write(DATA)
    other = Store(store.root)
    other.ingest(b"so that it has swept")
    real = fcntl.flock

    def flock(fd: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", real)
        first.commit(described())
        real(fd, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    second = other.resume(described())
    assert second is not None and second.size == 0
    second.write(b"else")
    second.close()
    assert store.get(DIGEST) == DATA


def test_a_sweeper_takes_no_file_for_the_one_that_was_a_blob_when_it_locked_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = store.resume(described())
    assert first is not None
    first.write(DATA)
    real = fcntl.flock
    next_one = []

    def flock(fd: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", real)
        first.commit(described())
        next_one.append(store.resume(described()))
        real(fd, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    sweep(f"{store.root}/ingest", 0.0)
    (ingest,) = next_one
    assert ingest is not None
    ingest.write(DATA)
    ingest.commit(described())


def test_what_another_process_leases_is_not_collected(store: Store) -> None:
    """Two stores of one directory are as strange to each other as two processes: locks belong to open files."""
    other = Store(store.root)

    def collect() -> list[Digest]:
        gone: list[Digest] = []
        with store.leases.collection() as remove_unless_leased:
            for digest in store.digests():
                if remove_unless_leased(digest, functools.partial(store.remove, digest)):
                    gone.append(digest)
        return gone

    with other.leases.hold() as lease:
        lease.add(DIGEST)
        store.ingest(DATA)
        store.ingest(b"nobody's")
        assert collect() == [Digest.of(b"nobody's")]
        with store.leases.collection() as remove_unless_leased:
            other.ingest(b"late")
            # as in one process: it had no name when that collection marked
            assert not remove_unless_leased(Digest.of(b"late"), lambda: None)
        assert store.leases.leased()(DIGEST)
    assert set(collect()) == {DIGEST, Digest.of(b"late")}
    assert files(store) == ["index.json", "leases/sweep", "oci-layout"]


def test_on_a_full_disk_all_is_leased(store: Store) -> None:
    store.ingest(DATA)
    other = Store(store.root)
    with other.leases.hold() as lease:
        with files_of_at_most(10):
            lease.add(OTHER)
        with store.leases.collection() as remove_unless_leased:
            assert not remove_unless_leased(DIGEST, lambda: None)
    with store.leases.collection() as remove_unless_leased:
        assert remove_unless_leased(DIGEST, lambda: None)
    assert files(store) == [f"blobs/sha256/{DIGEST.hex}", "index.json", "leases/sweep", "oci-layout"]


def test_a_lease_that_ends_during_another_ones_collection_holds_until_that_is_over(store: Store) -> None:
    other = Store(store.root)
    store.ingest(DATA)
    with store.leases.collection() as remove_unless_leased:
        with other.leases.hold() as lease:
            lease.add(DIGEST)  # and gives it a name, which the collection has not seen
        assert not remove_unless_leased(DIGEST, lambda: None)


def test_a_dead_process_leases_nothing(store: Store) -> None:
    store.ingest(DATA)
    (Path(store.root) / "leases/dead").write_text(f"{DIGEST}\n")
    with store.leases.collection() as remove_unless_leased:
        assert remove_unless_leased(DIGEST, lambda: store.remove(DIGEST))
    assert files(store) == ["index.json", "leases/sweep", "oci-layout"]


@pytest.mark.parametrize("line", [b"sha256:..\n", b"\xff\xfe", b"9" * 6000, b"\0" * 100, str(DIGEST).encode()[:-1]])
def test_what_a_living_process_says_without_sense_may_be_anything(store: Store, line: bytes) -> None:
    store.ingest(DATA)
    with open(Path(store.root) / "leases/other", "wb") as file:
        file.write(line)
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        with store.leases.collection() as remove_unless_leased:
            assert not remove_unless_leased(DIGEST, lambda: None)
        assert store.leases.leased()(DIGEST)
    with store.leases.collection() as remove_unless_leased:
        assert remove_unless_leased(DIGEST, lambda: None)


def test_what_is_no_file_leases_nothing(store: Store) -> None:
    store.ingest(DATA)
    leases = Path(store.root) / "leases"
    os.mkfifo(leases / "pipe")
    (leases / "folder").mkdir()
    (leases / "link").symlink_to("/dev/zero")
    with store.leases.collection() as remove_unless_leased:
        assert remove_unless_leased(DIGEST, lambda: None)


def test_a_lease_ends_where_somebody_has_tidied_up(store: Store) -> None:
    leases = Path(store.root) / "leases"
    for _ in range(2):
        with store.leases.hold() as lease:
            lease.add(DIGEST)
            for name in os.listdir(leases):
                (leases / name).unlink()
        with store.leases.collection() as remove_unless_leased:
            assert remove_unless_leased(DIGEST, lambda: None)


def test_many_writers_of_one_blob(store: Store) -> None:
    errors: list[BaseException] = []

    def write() -> None:
        try:
            assert Store(store.root).ingest(io.BytesIO(DATA)).digest == DIGEST
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert files(store) == [f"blobs/sha256/{DIGEST.hex}", "index.json", "leases/sweep", "oci-layout"]


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """What a full disk looks like to an unprivileged test: a write comes to its end early, and the next one fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, previous)


def test_a_full_disk_is_said_and_leaves_nothing(store: Store) -> None:
    with files_of_at_most(100_000), pytest.raises(Unavailable, match="cannot store a blob: File too large"):
        store.ingest(bytes(200_000))
    assert files(store) == ["index.json", "leases/sweep", "oci-layout"]


def test_a_root_that_is_a_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="cannot open content store"):
        Store(str(tmp_path / "file"))


def test_a_lease_of_a_recipe_is_one_of_the_layers_that_it_needs(store: Store, tmp_path: Path) -> None:
    """red: without `Leases.implied` a layer goes while a push wants the blob that is made of it."""
    blob = store.ingest(b"an archive").digest
    layer = Digest.of(b"the ChainID of a layer")
    store.recipes.open_tree = lambda chain_id: os.open(tmp_path, os.O_RDONLY)
    head = Head(size=10, chain=(layer,), level=NOT_PACKED)
    assert not store.add_recipe(blob, head, [(b"another archive", b"", 0)])
    assert store.add_recipe(blob, head, [(b"an ", b"", 0), (b"archive", b"", 0)])
    store.drop(blob)
    assert not os.path.exists(store.path(blob)) and store.stat(blob) == 10 and store.get(blob) == b"an archive"
    with store.leases.hold() as lease:
        lease.add(blob)
        with store.leases.collection() as remove_unless_leased:
            assert not remove_unless_leased(layer, lambda: None)
    assert os.listdir(f"{store.root}/ingest") == []
    store.remove(blob)
    assert store.stat(blob) is None and blob not in store.digests()


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
def test_what_is_no_file_is_no_blob_and_no_index(tmp_path, make):
    """Red: a fifo is waited for, for ever, by whoever asks."""
    store = Store(str(tmp_path))
    digest = Digest.of(b"x")
    make(store.path(digest))
    with pytest.raises(Unavailable):
        store.get(digest)
    os.unlink(tmp_path / "index.json")
    make(tmp_path / "index.json")
    with pytest.raises(Unavailable):
        store.names.entries()


def test_what_is_no_file_has_no_users(tmp_path):
    """Red: a registry waits for ever where they are a fifo. A link to where people keep them is followed."""
    os.mkfifo(tmp_path / "fifo")
    for look in (users.names, Passwords):
        with pytest.raises(Unavailable, match="not a regular file"):
            look(str(tmp_path / "fifo"))
    (tmp_path / "there").write_text("me:$2b$10$abcdefghijklmnopqrstuuO3hHpq4kP6a1Ts8KJ0bPiRQ5WSoCmZe\n")
    (tmp_path / "link").symlink_to("there")
    assert users.names(str(tmp_path / "link")) == ["me"]
    Passwords(str(tmp_path / "link"))
