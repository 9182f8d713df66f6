"""The data directory: every byte has an owner, what died leaves nothing that `fsck` can't explain, prune frees all."""

from __future__ import annotations

import gzip
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orlop.content.store import sweep
from orlop.image import collection
from orlop.linux import mount
from orlop.spec.digest import Digest
from orlop.spec.errors import Unavailable
from support import processes
from support.archives import Archive
from support.engine import Environment
from support.pulling import Puller
from support.registries import Content, Registry, Request, debian_registry

KILLS = int(os.environ.get("ORLOP_TEST_KILLS", "3"))
LAYERS = 4
PLENTY = "/usr"  # of the image host: 25 MB to commit


def tree(number: int) -> bytes:
    archive = Archive().directory(b"d%d" % number)
    for index in range(150):
        archive.file(b"d%d/f%d" % (number, index), os.urandom(2000))
    return bytes(archive)


def attributed(orlop: Environment) -> dict[str, int]:
    lines = orlop("system", "df", "--verify").stdout.partition("WHAT")[2].splitlines()[1:]
    found = {}
    for line in lines:
        what, _, rest = line.partition("   ")
        found[what] = int(rest.split()[0])
    return found


def disk_bytes(root: Path) -> int:
    return int(subprocess.run(["du", "-s", "-B1", root], capture_output=True, text=True, check=True).stdout.split()[0])


def test_every_byte_has_an_owner(orlop: Environment) -> None:
    orlop("run", "--name", "c", "--network", "none", "host", "sh", "-c", "echo x > /written")
    orlop("import", "-", "one:1", input=tree(1))
    found = attributed(orlop)
    whole = found.pop("all of it")
    assert sum(found.values()) == whole
    assert abs(whole - disk_bytes(orlop.root)) <= whole // 100
    assert "unknown" not in found
    table = orlop("system", "df").stdout.splitlines()
    assert table[0].split() == ["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]
    assert table[1].split()[:3] == ["Images", "2", "1"]
    assert table[2].split()[:3] == ["Containers", "1", "0"]
    assert orlop("system", "fsck").stdout == "Everything is in order.\n"


def test_prune_frees_everything(orlop: Environment) -> None:
    orlop("run", "--name", "c", "--network", "none", "host", "true")
    orlop("import", "-", "one:1", input=tree(1))
    assert orlop("image", "prune", "-f").stdout == "Total reclaimed space: 0B\n"
    kept = orlop("image", "prune", "-af").stdout
    assert "untagged: one:1" in kept
    assert "host" not in kept
    done = orlop("system", "prune", "-af").stdout
    assert done.splitlines()[0] == "Deleted Containers:"
    assert "untagged: host:latest" in done
    assert orlop("images", "-q").stdout == ""
    assert disk_bytes(orlop.root) < 1024 * 1024


def test_damage_is_found_and_repaired(orlop: Environment) -> None:
    identifier = orlop("import", "-", "one:1", input=tree(1)).stdout.strip()
    orlop("import", "-", "two:1", input=tree(2))
    blobs = orlop.root / "content/blobs/sha256"
    layer = max(blobs.iterdir(), key=lambda path: path.stat().st_mtime if path.stat().st_size > 100_000 else 0)
    layer.chmod(0o600)
    with layer.open("r+b") as file:
        file.write(b"damage")
    (blobs / ("0" * 64)).write_bytes(b"x")
    (orlop.root / "strange").touch()
    told = orlop("system", "fsck", check=False)
    assert told.code == 1
    assert f"damaged: blob sha256:{layer.name}: its content has the digest" in told.stdout
    assert f"damaged: blob sha256:{'0' * 64}" in told.stdout
    assert f"unknown: {orlop.root}/strange" in told.stdout
    assert "incomplete: image two:1" in orlop("system", "fsck", "--repair", check=False).stdout
    (orlop.root / "strange").unlink()
    assert orlop("system", "fsck").stdout == "Everything is in order.\n"
    assert orlop("images", "-q", "--no-trunc").stdout.strip() == identifier


@pytest.mark.parametrize("content", [bytes(range(256)), "queue", "directory"])
def test_what_is_written_of_a_layer_is_repaired(orlop: Environment, content: bytes | str) -> None:
    orlop("import", "-", "one:1", input=tree(1))
    orlop("create", "--name", "stands", "--network", "none", "one:1", "/nosuch")
    (layer,) = (orlop.root / "snapshots/layers").glob("*/layer.json")
    layer.unlink()
    if isinstance(content, bytes):
        layer.write_bytes(content)
    elif content == "queue":
        os.mkfifo(layer)
    else:
        layer.mkdir()
    told = orlop("start", "stands", check=False)
    assert told.code == 1 and str(layer) in told.stderr and "orlop system fsck --repair" in told.stderr
    assert f"cannot read {layer}" in orlop("system", "fsck", check=False).stdout
    assert "repaired" in orlop("system", "fsck", "--repair", check=False).stdout
    assert orlop("system", "fsck").stdout == "Everything is in order.\n"
    assert "no such file or directory" in orlop("start", "stands", check=False).stderr


def test_a_record_that_cannot_be_read_is_told(orlop: Environment) -> None:
    orlop("secret", "create", "kept", "-", input=b"it")
    record = orlop.root / "secrets/kept/record.json"
    text = record.read_bytes()
    record.write_bytes(text[: len(text) // 2])
    assert str(record) in orlop("secret", "inspect", "kept", check=False).stderr
    assert f"damaged: {record}: it is not valid JSON" in orlop("system", "fsck", "--repair", check=False).stdout
    record.write_bytes(text)
    index = orlop.root / "content/index.json"
    text = index.read_bytes()
    index.write_bytes(b"[")
    assert f"damaged: {index}: " in orlop("system", "fsck", "--repair", check=False).stdout
    index.write_bytes(text)
    assert orlop("system", "fsck").stdout == "Everything is in order.\n"


def test_an_engine_starts_beside_a_link_in_place_of_its_notes(orlop: Environment, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").touch()
    orlop("info")
    orlop("engine", "stop")
    (orlop.root / "trimmed").rmdir()
    (orlop.root / "trimmed").symlink_to(kept)
    assert orlop("ps", "-aq").stdout == ""
    assert (kept / "file").exists()
    assert "trimmed is no directory" in (orlop.root / "engine.log").read_text()


# -- kill -9 ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def image(orlop: Environment) -> Iterator[Registry]:
    """A registry, near the engine, with an image of some layers; each answer takes a little while."""
    content = Content()
    content.layered([tree(number) for number in range(LAYERS)], "1")

    def slow(request: Request) -> bool:
        time.sleep(0.01)
        return False

    made = orlop.inside(lambda: Registry(content, slow))
    with made:
        yield made


def kill_engine(orlop: Environment) -> None:
    pid = orlop.engine_pid()
    if pid is not None:
        processes.kill(pid, processes.start_time(pid), signal.SIGKILL)


class Interrupted:
    """One verb: `before` makes it have something to do, `words` are its command, number of the try and all."""

    def __init__(self, orlop: Environment, name: str, registry: str) -> None:
        self.orlop, self.name, self.registry = orlop, name, registry
        self.archive = orlop.root.parent / "saved.tar"
        orlop("pull", "-q", name)
        orlop("save", "-o", self.archive, name)
        orlop("run", "--name", "writer", "--network", "none", "host", "sh", "-c", f"cp -r {PLENTY} /copied")

    def before(self, verb: str, number: int) -> None:
        if verb in ("pull", "load", "copy", "packed"):
            self.orlop("rmi", "-f", self.name, check=False)
        if verb not in ("pull", "load", "copy"):
            self.orlop("load", "-q", "-i", self.archive)
        if verb == "push":
            self.orlop("tag", self.name, f"{self.registry}/pushed/{number}:1")
        elif verb == "commit":
            self.orlop("rmi", "-f", "committed:1", check=False)

    def words(self, verb: str, number: int) -> list[str]:
        return {
            "pull": ["pull", "-q", self.name],
            "push": ["push", "-q", f"{self.registry}/pushed/{number}:1"],
            "load": ["load", "-q", "-i", str(self.archive)],
            "commit": ["commit", "writer", "committed:1"],
            "prune": ["image", "prune", "-af"],
            "packed": ["image", "prune", "-f", "--packed"],
            "copy": ["image", "copy", "-q", f"docker://{self.name}", self.name],
        }[verb]


@pytest.mark.parametrize("verb", ["pull", "push", "load", "commit", "prune", "packed", "copy"])
@pytest.mark.timeout(300 + 10 * KILLS)
def test_kill_9_leaves_nothing_that_fsck_cannot_explain(
    orlop: Environment, image: Registry, peer: Callable[[str], Path], tmp_path: Path, verb: str
) -> None:
    with debian_registry(peer("docker-registry"), tmp_path / "registry", orlop) as registry:
        story = Interrupted(orlop, f"{image.name}/lib/x:1", registry)
        story.before(verb, 0)
        started = time.monotonic()
        orlop(*story.words(verb, 0))
        whole_s = time.monotonic() - started
        chance = random.Random(5)
        for number in range(1, KILLS + 1):
            story.before(verb, number)
            client = orlop.popen(*story.words(verb, number), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(chance.uniform(0, whole_s))
            kill_engine(orlop)
            client.wait(60)
            found = orlop("system", "fsck", check=False).stdout.splitlines()
            explained = ("leftover: ", "Everything is in order", "Next: ")
            assert all(line.startswith(explained) or " found, " in line for line in found), found
        story.before(verb, KILLS)
        orlop(*story.words(verb, KILLS))
        orlop("system", "fsck", "--repair", check=False)
        assert orlop("system", "fsck").stdout == "Everything is in order.\n"
        assert "unknown" not in attributed(orlop)
        for name in ("committed:1", story.name):
            orlop("rmi", "-f", name, check=False)
        orlop("system", "prune", "-af")
        assert disk_bytes(orlop.root) < 1024 * 1024


# -- a full disk ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", ["200k", "500k", "700k"])
def test_a_full_disk_is_told_and_leaves_nothing_half(size: str) -> None:
    content = Content()
    one = tree(1)
    content.image(one, gzip.compress(one, 1), "1")
    with closing_fd(mount.new_filesystem("tmpfs", (("size", size), ("mode", "0700")), 0)) as fd:
        puller = Puller(Path(f"/proc/self/fd/{fd}"))
        with Registry(content) as registry, pytest.raises(Unavailable, match="No space left") as caught:
            puller.pull(registry)
        assert "free some" in caught.value.hint
        assert puller.store.names.entries() == ()
        assert not puller.snapshots.unpacked()
        for digest in puller.store.digests():
            assert Digest.of(puller.store.get(digest)) == digest
        collection.collect(puller.store, puller.snapshots)
        sweep(f"{puller.store.root}/ingest", 0.0)
        assert puller.store.digests() == []
        assert puller.store.partial() == []
        assert os.listdir(f"{puller.snapshots.root}/trash") == os.listdir(f"{puller.snapshots.root}/unpacking") == []
        puller.close()


@contextmanager
def closing_fd(fd: int) -> Iterator[int]:
    try:
        yield fd
    finally:
        os.close(fd)


# -- collections beside pulls -----------------------------------------------------------------------------------------


def test_a_collection_beside_pulls_takes_nothing_that_they_need(tmp_path: Path) -> None:
    puller = Puller(tmp_path)
    content = Content()
    for number in range(12):
        one = tree(number % 5)
        content.image(one, gzip.compress(one, 1, mtime=0), f"t{number}")
    done = threading.Event()
    failures: list[BaseException] = []

    def collect() -> None:
        try:
            while not done.is_set():
                collection.collect(puller.store, puller.snapshots)
        except BaseException as wrong:
            failures.append(wrong)

    collector = threading.Thread(target=collect)
    collector.start()
    with Registry(content) as registry:
        for number in range(12):
            puller.pull(registry, f"t{number}")
    done.set()
    collector.join()
    assert failures == []
    for image in puller.images.list():
        assert all(puller.store.stat(layer.descriptor.digest) is not None for layer in image.layers)
        assert image.chain_id in puller.snapshots.unpacked()
    assert len(puller.images.list()) == 12
    puller.close()


# -- many at once -----------------------------------------------------------------------------------------------------


def test_twenty_commands_at_once_fetch_each_blob_once(orlop: Environment) -> None:
    content = Content()
    trees = [tree(number) for number in range(5)]
    for number in range(4):
        content.layered([trees[0], trees[1 + number]], f"{number}")

    def slow(_: Request) -> bool:
        time.sleep(0.05)  # so that the commands meet
        return False

    with orlop.inside(lambda: Registry(content, slow)) as registry:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        names = [f"{registry.name}/lib/x:{number % 4}" for number in range(20)]
        clients = [orlop.popen("pull", "-q", name, **quiet) for name in names]
        for client in clients:
            _, errors = client.communicate(timeout=120)
            assert client.returncode == 0, errors
        for blob in content.blobs:
            assert registry.fetched(f"/blobs/{blob}") == 1
    assert len(orlop("images", "-q").stdout.split()) == 4
    assert orlop("system", "fsck").stdout == "Everything is in order.\n"
