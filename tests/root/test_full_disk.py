"""A data directory on a full file system: each verb says so, shows nothing half, and what it took is given back."""

from __future__ import annotations

import gzip
import hashlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support import processes
from support.archives import Archive
from support.engine import COMMAND, Environment, Finished
from support.estargz import add_image
from support.registries import Content, Registry

SIZE_BYTES = 12 * 1024 * 1024
PAYLOAD_BYTES = 1_500_000  # random, so that no compression makes it small
# What is free when the verb begins: nothing, enough for its documents, enough for a part of its blobs.
FREE_BYTES = (0, 64 * 1024, 1024 * 1024)
VERBS = ("pull", "load", "import", "commit", "copy")
RESUMED = ("pull", "copy")  # what came stays for a day: the next one goes on with it
LISTED = ("images", "-a", "--no-trunc", "--format", "{{.ID}} {{.Repository}}:{{.Tag}}")


def payload(number: int) -> bytes:
    archive = Archive().directory(b"d%d" % number)
    for index in range(15):
        archive.file(b"d%d/f%d" % (number, index), os.urandom(PAYLOAD_BYTES // 15))
    return bytes(archive)


class SmallDisk:
    """A process with its data on a small tmpfs, which only that process's own mount namespace has."""

    def __init__(self, orlop: Environment, place: Path, *words: str) -> None:
        self.orlop = orlop
        place.mkdir(mode=0o700, exist_ok=True)
        script = f"mount -t tmpfs -o size={SIZE_BYTES},mode=0700 tmpfs {place} && exec {COMMAND} {' '.join(words)}"
        self.process: subprocess.Popen[bytes] = orlop.inside(
            lambda: subprocess.Popen(
                ["unshare", "--mount", "--propagation", "private", "sh", "-c", script],
                env=orlop.variables,
                stdout=subprocess.PIPE,
            )
        )
        self.root = Path(f"/proc/{self.process.pid}/root{place}")

    def wait_for_engine(self) -> None:
        while self.orlop.engine_pid() is None:
            assert self.process.poll() is None
            time.sleep(0.02)

    def free_bytes(self) -> int:
        found = os.statvfs(self.root)
        return found.f_bavail * found.f_frsize

    def fill(self, free_bytes: int) -> None:
        with (self.root / "ballast").open("wb") as file:
            if (more := self.free_bytes() - free_bytes) > 0:
                os.posix_fallocate(file.fileno(), 0, more)

    def relieve(self) -> None:
        (self.root / "ballast").unlink(missing_ok=True)

    def close(self) -> None:
        processes.kill(self.process.pid, processes.start_time(self.process.pid), signal.SIGTERM)
        self.process.communicate(timeout=60)


@pytest.fixture
def disk(orlop: Environment) -> Iterator[SmallDisk]:
    found = SmallDisk(orlop, orlop.root, "serve")
    found.wait_for_engine()
    yield found
    found.close()


@pytest.fixture
def image(orlop: Environment) -> Iterator[str]:
    """A name in a registry near the engine."""
    content = Content()
    tar = payload(1)
    content.image(tar, gzip.compress(tar, 1), "1")
    with orlop.inside(lambda: Registry(content)) as registry:
        yield f"{registry.name}/lib/x:1"


def words(verb: str, image: str, archive: Path) -> list[str]:
    return {
        "pull": ["pull", "-q", image],
        "load": ["load", "-q", "-i", str(archive)],
        "import": ["import", str(archive.with_suffix(".rootfs")), "imported:1"],
        "commit": ["commit", "writer", "committed:1"],
        "copy": ["image", "copy", "-q", f"docker://{image}", "copied:1"],
    }[verb]


def told_full(done: Finished) -> None:
    assert done.code != 0
    assert "No space left on device" in done.stderr, done
    assert "\nNext: free some space" in done.stderr, done
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("verb", VERBS)
def test_a_full_disk_is_told_and_given_back(disk: SmallDisk, image: str, tmp_path: Path, verb: str) -> None:
    orlop = disk.orlop
    archive = tmp_path / "saved.tar"
    archive.with_suffix(".rootfs").write_bytes(payload(2))
    orlop("pull", "-q", image)
    orlop("save", "-o", archive, image)
    orlop("rmi", "-f", image)
    orlop("import", "-", "small:1", input=bytes(Archive().directory(b"etc")))
    orlop("create", "--name", "writer", "--network", "none", "small:1", "none")
    content = tmp_path / "content"
    content.write_bytes(os.urandom(PAYLOAD_BYTES))
    orlop("cp", content, "writer:/etc/content")
    orlop("system", "fsck", "--repair", check=False)
    before, free = orlop(*LISTED).stdout, disk.free_bytes()
    for left in FREE_BYTES:
        disk.fill(left)
        done = orlop(*words(verb, image, archive), check=False)
        told_full(done)
        assert orlop(*LISTED).stdout == before
        disk.relieve()
        found = orlop("system", "fsck", check=False).stdout.splitlines()
        if verb in RESUMED:
            explained = ("leftover: ", "Everything is in order", "Next: ")
            assert all(line.startswith(explained) or " found, " in line for line in found), found
        else:
            assert found == ["Everything is in order."]
        orlop("system", "fsck", "--repair", check=False)
        assert free - disk.free_bytes() < 64 * 1024
    orlop(*words(verb, image, archive))
    assert orlop("system", "fsck").stdout == "Everything is in order.\n"


def test_a_push_needs_no_room_here_and_a_full_registry_says_what_it_lacks(
    disk: SmallDisk, image: str, tmp_path: Path
) -> None:
    orlop = disk.orlop
    place = tmp_path / "registry"
    theirs = SmallDisk(orlop, place, "registry", "serve", "--root", str(place), "--address", "127.0.0.1:0")
    try:
        assert theirs.process.stdout is not None
        port = int(theirs.process.stdout.readline().rpartition(b":")[2])
        target = f"127.0.0.1:{port}/lib/x:1"
        orlop("pull", "-q", image)
        orlop("tag", image, target)
        for left in FREE_BYTES[::2]:
            free = theirs.free_bytes()
            theirs.fill(left)
            done = orlop("push", "-q", target, check=False)
            assert done.code != 0 and "No space left on device" in done.stderr and "\nNext: " in done.stderr, done
            assert orlop("manifest", "inspect", "--insecure", target, check=False).code != 0
            theirs.relieve()
            assert free - theirs.free_bytes() < 128 * 1024  # what went into the database's log
        disk.fill(0)
        orlop("push", "-q", target)
        disk.relieve()
        orlop("rmi", "-f", target, image)
        orlop("pull", "-q", target)
    finally:
        theirs.close()


def test_who_reads_from_a_registry_needs_no_room_and_the_rest_comes_when_there_is_some(
    disk: SmallDisk, orlop: Environment, peer: Callable[[str], Path]
) -> None:
    wanted = os.urandom(PAYLOAD_BYTES)
    archive = Archive().directory(b"bin", mode=0o755).file(b"bin/busybox", peer("busybox").read_bytes(), mode=0o755)
    content = Content()
    add_image(content, [bytes(archive.file(b"wanted", wanted).file(b"rest", os.urandom(PAYLOAD_BYTES)))], "1")
    with orlop.inside(lambda: Registry(content)) as registry:
        name = f"{registry.name}/lib/x:1"
        disk.fill(PAYLOAD_BYTES)
        shown = orlop(
            "run", "--pull", "lazy", "--network", "none", "--name", "c", name, "/bin/busybox", "md5sum", "/wanted"
        )
        assert shown.stdout.split()[0] == hashlib.md5(wanted).hexdigest()
        while "No space left on device" not in orlop("image", "inspect", name).stdout:
            time.sleep(0.1)
        disk.relieve()
        orlop("pull", name)
        while "Partial" in orlop("image", "inspect", name).stdout:
            time.sleep(0.1)
        assert orlop("start", "--attach", "c").stdout == shown.stdout
        assert "Everything is in order" in orlop("system", "fsck").stdout
        orlop("rm", "c")
