"""cp against a container that swaps directories for links to the host while it runs (SEC-06).

CVE-2018-15664, CVE-2019-10152 and CVE-2026-41568 looked a path up twice. Here somebody in the container exchanges a
directory and an absolute link, as fast as the kernel can, during every copy: nothing of the host is read or changed.
"""

import ctypes
import os
import threading
from pathlib import Path

import pytest

COPIES = int(os.environ.get("ORLOP_TEST_RACES", "12"))
RENAME_EXCHANGE = 2


class Swapper:
    """Exchanges two names in a directory of a container until it is stopped."""

    def __init__(self, directory: Path, one: str, other: str) -> None:
        self.swaps = 0
        self._fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        self._names = one.encode(), other.encode()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
        while not self._stop.is_set():
            for _ in range(100):
                renameat2(self._fd, self._names[0], self._fd, self._names[1], RENAME_EXCHANGE)
            self.swaps += 100

    def __enter__(self) -> "Swapper":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        os.close(self._fd)


@pytest.fixture
def canary(tmp_path):
    """A directory of the host that no copy may read or change."""
    place = tmp_path / "canary"
    (place / "sub").mkdir(parents=True)
    (place / "file").write_text("of the host")
    (place / "sub/file").write_text("of the host")
    return place


def of_host(place):
    return {str(path): (path.is_file() and path.read_text()) for path in sorted(place.rglob("*"))}


def test_no_copy_leaves_the_container(orlop, canary, tmp_path):
    before = of_host(canary)
    # The same path exists inside, so that a link that is followed inside succeeds: every outcome is tried.
    script = f"""mkdir -p /w/real/sub {canary}/sub; ln -s {canary} /w/link
    for d in /w/real {canary}; do echo inside > $d/file; echo inside > $d/sub/file; done
    echo > /ready; exec sleep 1000"""
    orlop("run", "-d", "--name", "web", "host", "sh", "-c", script)
    while orlop("exec", "web", "test", "-e", "/ready", check=False).code:
        pass
    pid = orlop("inspect", "-f", "{{.State.Pid}}", "web").stdout.strip()
    payload = tmp_path / "payload"
    (payload / "sub").mkdir(parents=True)
    (payload / "file").write_text("copied in")
    (payload / "sub/new").write_text("copied in")
    ended = []
    with Swapper(Path(f"/proc/{pid}/root/w"), "real", "link") as swapper:
        for index in range(COPIES):
            out = tmp_path / f"out{index}"
            out.mkdir()
            ended.append(orlop("cp", "web:/w/real/sub/file", out / "file", check=False).code)
            ended.append(orlop("cp", "web:/w/real/.", out, check=False).code)
            ended.append(orlop("cp", f"{payload}/.", "web:/w/real", check=False).code)
            ended.append(orlop("cp", payload / "file", "web:/w/real/sub/file", check=False).code)
            for path in out.rglob("*"):
                assert not path.is_file() or path.is_symlink() or path.read_text() in ("inside\n", "copied in"), path
    assert of_host(canary) == before
    assert swapper.swaps > 1000 and 0 in ended, "the race never took place"


def test_an_archive_that_plants_a_link_writes_nowhere_else(orlop, canary, tmp_path):
    """What comes out of a container is extracted below the destination, whatever links are in it."""
    before = of_host(canary)
    script = f"mkdir -p /w; ln -s {canary} /w/sub; echo > /ready; exec sleep 1000"
    orlop("run", "-d", "--name", "web", "host", "sh", "-c", script)
    while orlop("exec", "web", "test", "-e", "/ready", check=False).code:
        pass
    out = tmp_path / "out"
    out.mkdir()
    orlop("cp", "web:/w/.", out)
    assert os.readlink(out / "sub") == str(canary)
    orlop("exec", "web", "sh", "-c", "rm /w/sub; mkdir /w/sub; echo evil > /w/sub/file")
    refused = orlop("cp", "web:/w/.", out, check=False)
    assert refused.code == 1 and "cannot overwrite non-directory with directory" in refused.stderr
    assert of_host(canary) == before
