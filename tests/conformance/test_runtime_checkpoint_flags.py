"""What checkpoint's and restore's flags are for: each lets CRIU take what it refuses without, by ours as by runc."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from conformance.test_runtime_checkpoint import Counter
from support.bundles import RUNTIME, mount

# It counts as the other one does, each number on a way that a checkpoint has to keep open.
COUNT = """
import os, socket, time
{}
number = 0
while True:
    number += 1
    step(number)
    with open("/tmp/next", "w") as file:
        file.write(str(number))
    os.rename("/tmp/next", "/tmp/n")
    time.sleep(0.01)
"""
LOCK = """
import fcntl
import json
held = open("/tmp/lock", "w")
fcntl.flock(held, fcntl.LOCK_EX)
def step(number):
    held.write("x")
"""
CONNECTION = """
listening = socket.create_server(("127.0.0.1", 99))
one = socket.create_connection(("127.0.0.1", 99))
other = listening.accept()[0]
def step(number):
    one.sendall(b"%9d" % number)
    assert int(other.recv(9, socket.MSG_WAITALL)) == number
"""
OUTSIDE = """
way = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
way.connect("/shown/outside")
def step(number):
    try:
        way.send(b"%d" % number, socket.MSG_DONTWAIT)
    except BlockingIOError:
        pass
"""
UNLINKED = """
kept = open("/tmp/gone", "w+")
os.link("/tmp/gone", "/tmp/other")
os.unlink("/tmp/gone")
def step(number):
    kept.write(str(number) + " ")
    kept.flush()
"""
NOTHING = """
def step(number):
    pass
"""
KEPT = {
    "a lock": (LOCK, ("--file-locks",), ("--file-locks",)),
    "a connection": (CONNECTION, ("--tcp-established",), ("--tcp-established",)),
    "a socket outside": (OUTSIDE, ("--ext-unix-sk",), ("--ext-unix-sk",)),
    "a memory of its own": (NOTHING, ("--auto-dedup",), ("--auto-dedup",)),
    **{
        f"cgroups, {mode}": (NOTHING, ("--manage-cgroups-mode", mode), ("--manage-cgroups-mode", mode))
        for mode in ("soft", "full", "strict")
    },
}


@pytest.fixture
def counter(tmp_path: Path, peer: Callable[[str], Path]) -> Iterator[Counter]:
    rootfs = tmp_path / "python"
    for name in ("usr", "shown", "dev", "proc", "sys", "tmp", "etc"):
        (rootfs / name).mkdir(parents=True)
    for name in ("bin", "lib", "lib64"):
        (rootfs / name).symlink_to(f"usr/{name}")
    made = Counter(tmp_path, rootfs, f"{peer('criu').parent}:{os.environ['PATH']}")
    made.config["mounts"].append(mount("/usr", "bind", "/usr", "rbind", "ro"))
    yield made
    for runtime in made.used:
        made.call(runtime, "delete", "--force")
    assert made.left() == []


def begin(counter: Counter, runtime: Path, code: str) -> None:
    counter.config["process"].update(args=["/usr/bin/python3", "-I", "-S", "-c", COUNT.format(code)])
    counter.write()
    counter.start(runtime)


def told(done: subprocess.CompletedProcess[str]) -> bool:
    """Return whether it did it; what did not is told in words."""
    assert done.returncode in (0, 1) and "Traceback" not in done.stdout, done.stdout
    assert bool(done.stdout) == bool(done.returncode), done.stdout
    return done.returncode == 0


def outcome(counter: Counter, runtime: Path, code: str, at_checkpoint: Sequence[str], at_restore: Sequence[str]) -> str:
    """Return how far it comes."""
    begin(counter, runtime, code)
    images = counter.images.with_name(f"images-{runtime.name}")
    words = ("checkpoint", "--image-path", str(images))
    without = "" if told(counter.call(runtime, *words, "--leave-running")) else "with the flag only: "
    before = counter.reaches(runtime, 10)
    if not told(counter.call(runtime, *words, *at_checkpoint)):
        counter.reaches(runtime, before + 10)
        return f"{without}not at all"
    words = ("restore", "-d", "--bundle", str(counter.directory), "--image-path", str(images))
    if not told(counter.call(runtime, *words, *at_restore)):
        return f"{without}no restore"
    assert counter.reaches(runtime, before + 20) >= before
    return f"{without}counts on"


@pytest.mark.parametrize("case", KEPT)
def test_it_comes_as_far_as_with_runc(counter: Counter, peer: Callable[[str], Path], case: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as outside:
        outside.bind(os.path.relpath(counter.directory / "outside"))
        ours = outcome(counter, RUNTIME, *KEPT[case])
        if case == "a lock":
            with open(counter.inside(RUNTIME, "tmp/lock")) as lock, pytest.raises(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        counter.must(RUNTIME, "delete", "--force")
        if case == "cgroups, strict":
            assert ours == "no restore"  # the cgroup is there before CRIU is; runc 1.1 does not hand the word on
            return
        assert ours == outcome(counter, peer("runc"), *KEPT[case])


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_an_unlinked_file_is_kept_by_a_link(counter: Counter) -> None:
    """runc has the flag since 1.2."""
    ours = outcome(counter, RUNTIME, UNLINKED, ("--link-remap",), ())
    assert ours == "with the flag only: counts on"


def test_a_namespace_is_left_empty(counter: Counter, peer: Callable[[str], Path]) -> None:
    ours = outcome(counter, RUNTIME, NOTHING, ("--empty-ns", "network"), ("--empty-ns", "network"))
    counter.must(RUNTIME, "delete", "--force")
    assert ours == outcome(counter, peer("runc"), NOTHING, ("--empty-ns", "network"), ("--empty-ns", "network"))


def test_memory_goes_to_a_page_server(counter: Counter, peer: Callable[[str], Path]) -> None:
    begin(counter, RUNTIME, NOTHING)
    pages, port = counter.directory / "pages", free_port()
    pages.mkdir()
    argv = [peer("criu"), "page-server", "--images-dir", pages, "--address", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            await_listener(port)
            before = counter.reaches(RUNTIME, 5)
            counter.checkpoint(RUNTIME, "--page-server", f"127.0.0.1:{port}")
            assert server.wait(timeout=60) == 0, "it has all of the memory"
        finally:
            server.kill()
    assert list(pages.glob("pages-*.img")) and not list(counter.images.glob("pages-*.img"))
    for path in pages.glob("page*.img"):
        path.rename(counter.images / path.name)
    counter.restore(RUNTIME)
    assert counter.reaches(RUNTIME, before + 10) >= before


def await_listener(port: int) -> None:
    """Wait until somebody listens, without connecting: who connects to a page server is its client."""
    wanted = f"0100007F:{port:04X} 00000000:0000 0A"
    deadline = time.monotonic() + 60
    while wanted not in Path("/proc/net/tcp").read_text():
        assert time.monotonic() < deadline, "nobody listens"
        time.sleep(0.01)


def test_memory_comes_when_it_is_used(counter: Counter, peer: Callable[[str], Path]) -> None:
    """The checkpoint serves the memory, a daemon of CRIU's fetches it for the restored process (userfaultfd).

    CRIU 4.1 can't serve on a kernel that refuses its tee(2): then both calls fail, in CRIU's words, and the container
    runs on as if nobody had asked.
    """
    begin(counter, RUNTIME, NOTHING)
    before, port, work = counter.reaches(RUNTIME, 5), free_port(), counter.directory / "work"
    work.mkdir()
    listens, told = os.pipe()
    flags = ["--lazy-pages", "--page-server", f"127.0.0.1:{port}", "--status-fd", str(told)]
    argv = counter.argv(RUNTIME, "checkpoint", "--image-path", str(counter.images), *flags)
    with subprocess.Popen(argv, env=counter.environment, pass_fds=[told], stderr=subprocess.PIPE, text=True) as serving:
        os.close(told)
        assert os.read(listens, 1) == b"\0", serving.communicate()
        os.close(listens)
        # The dumped process is there until the last page is fetched, and its cgroup is its own.
        first, counter.id = counter.id, f"{counter.id}-lazy"
        counter.config["linux"]["cgroupsPath"] = f"{counter.cgroup}-lazy"
        counter.write()
        with fetching(peer("criu"), counter.images, work, port):
            words = ("-d", "--bundle", str(counter.directory), "--image-path", str(counter.images))
            done = counter.call(RUNTIME, "restore", *words, "--work-path", str(work), "--lazy-pages")
        complaint = serving.communicate(timeout=60)[1]
    assert serving.returncode == done.returncode and done.returncode in (0, 1), (complaint, done.stdout)
    if done.returncode:
        assert "CRIU: " in complaint and "CRIU: " in done.stdout, (complaint, done.stdout)
        assert counter.call(RUNTIME, "state").returncode == 1
        counter.id = first
    assert counter.reaches(RUNTIME, before + 10) >= before


@contextmanager
def fetching(criu: Path, images: Path, work: Path, port: int) -> Iterator[None]:
    """CRIU's daemon between a restored process and the one that serves its memory."""
    argv = [criu, "lazy-pages", "--images-dir", images, "--work-dir", work, "--page-server"]
    argv += ["--address", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as daemon:
        try:
            while not (work / "lazy-pages.socket").exists():
                assert daemon.poll() is None
                time.sleep(0.01)
            yield
            daemon.wait(timeout=60)
        finally:
            daemon.kill()


def test_mounts_are_as_they_were(counter: Counter) -> None:
    """Every mask and every read-only path: CRIU makes all but the first of a kind from what that one was."""
    counter.config["linux"]["maskedPaths"] = ["/proc/keys", "/proc/timer_list", "/proc/kcore", "/proc/irq"]
    counter.config["linux"]["readonlyPaths"] = ["/proc/bus", "/proc/fs", "/proc/sys"]
    begin(counter, RUNTIME, NOTHING)
    before = table(counter)
    counter.checkpoint(RUNTIME)
    counter.restore(RUNTIME)
    counter.reaches(RUNTIME, 10)
    assert table(counter) == before
    argv = [*counter.argv(RUNTIME, "exec"), "/bin/sh", "-c"]
    for path in ("/proc/sys/kernel/domainname", "/proc/irq/x"):
        done = subprocess.run([*argv, f"echo x > {path}"], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode and "Read-only file system" in done.stderr, done


def table(counter: Counter) -> list[tuple[str, ...]]:
    """Return what is mounted where, and which may not be written."""
    pid = json.loads(counter.must(RUNTIME, "state"))["pid"]
    rows = [row.split() for row in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()]
    return sorted((row[4], row[3], *(word for word in row[5].split(",") if word != "relatime")) for row in rows)
