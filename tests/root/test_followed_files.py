"""P27: a file that is mounted by itself is the one that has its name now, and nobody leads the container elsewhere."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import traceback
from pathlib import Path

import pytest

from orlop.linux import mount, process
from orlop.supervise import follow
from support import processes
from support.tasks import wait_until

NO_NETWORK = ("--network", "none")


def pid_of(orlop, name="c"):
    return int(orlop("inspect", "-f", "{{.State.Pid}}", name).stdout)


class View:
    """What a container sees, without the engine's help."""

    def __init__(self, pid: int) -> None:
        self.root = Path(f"/proc/{pid}/root")
        self.table = Path(f"/proc/{pid}/mountinfo")

    def read(self, place: str) -> str:
        return (self.root / place.lstrip("/")).read_text()

    def mounted(self, place: str) -> list[str]:
        """The options of every mount at a place."""
        rows = (line.split(" ") for line in self.table.read_text().splitlines())
        return [row[5] for row in rows if row[4] == place]


def put(path: Path, text: str) -> None:
    """Replace a file as `sed -i` does."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(text)
    fresh.rename(path)


def shows(view: View, place: str, text: str) -> None:
    wait_until(lambda: view.read(place) == text)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A directory with the files `cfg` and `barrier`."""
    directory = tmp_path / "files"
    directory.mkdir()
    for name in ("cfg", "barrier"):
        (directory / name).write_text("one\n")
    return directory


def test_what_editors_do_is_seen_by_the_container(orlop, files):
    """Red: with no `monitor.follow_files`, the first of these never comes true (as with docker)."""
    cfg = files / "cfg"
    binds = ("-v", f"{cfg}:/cfg:ro", "-v", f"{cfg}:/etc/mine:as=1000", "--mount", f"type=bind,src={cfg},dst=/third")
    orlop("run", "-d", "--name", "c", *NO_NETWORK, *binds, "host", "sleep", "1000")
    view = View(pid_of(orlop))
    before = {place: view.mounted(place) for place in ("/cfg", "/etc/mine", "/third")}
    subprocess.run(["sed", "-i", "s/one/sed/", str(cfg)], check=True)
    for place in before:
        shows(view, place, "sed\n")
    cfg.rename(files / "cfg~")  # as vim with a backup: for a moment nothing has the name
    with cfg.open("w") as file:
        file.write("half ")
        file.flush()
        shows(view, "/cfg", "half ")
        file.write("whole\n")
    shows(view, "/third", "half whole\n")
    cfg.unlink()  # as git checkout
    assert view.read("/cfg") == "half whole\n"
    cfg.write_text("git\n")
    for place in before:
        shows(view, place, "git\n")
    assert {place: view.mounted(place) for place in before} == before, "one mount at each place, of the same kind"
    mine = (view.root / "etc/mine").stat()
    assert (mine.st_uid, cfg.stat().st_uid) == (1000, 0)
    with pytest.raises(OSError):
        (view.root / "cfg").write_text("read-only")
    (view.root / "third").write_text("from inside\n")
    assert cfg.read_text() == "from inside\n"


def test_it_needs_no_engine_and_lasts_through_restarts(orlop, files):
    """Red: with `follow.found` on the first run alone, the second shows what it began with."""
    bind = ("-v", f"{files}/cfg:/cfg", "--restart", "always")
    orlop("run", "-d", "--name", "c", *NO_NETWORK, *bind, "host", "sleep", "1000")
    first = pid_of(orlop)
    engine = orlop.engine_pid()
    processes.kill(engine, processes.start_time(engine))
    wait_until(lambda: orlop.engine_pid() is None)
    put(files / "cfg", "without\n")
    shows(View(first), "/cfg", "without\n")
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: pid_of(orlop) not in (0, first))
    view = View(pid_of(orlop))
    assert view.read("/cfg") == "without\n"
    put(files / "cfg", "restarted\n")
    shows(view, "/cfg", "restarted\n")


def test_files_that_come_and_go_while_it_runs_are_followed_too(orlop, files):
    """Red: without the frame of `live._have_followed` the added file stays the old one.

    The one who tells the monitor is no client whose end would end the container's input.
    """
    orlop("create", "-i", "--name", "c", *NO_NETWORK, "host", "sh", "-c", "cat; sleep 1000")
    orlop("start", "c")
    view = View(pid_of(orlop))
    orlop("update", "--mount-add", f"type=bind,src={files}/cfg,dst=/cfg", "c")
    orlop("update", "--mount-add", f"type=bind,src={files}/barrier,dst=/barrier", "c")
    put(files / "cfg", "added\n")
    shows(view, "/cfg", "added\n")
    orlop("update", "--mount-rm", "/cfg", "c")
    put(files / "cfg", "gone\n")
    put(files / "barrier", "later\n")
    shows(view, "/barrier", "later\n")
    assert view.mounted("/cfg") == [] and view.read("/cfg") == ""
    children = Path(f"/proc/{pid_of(orlop)}/task/{pid_of(orlop)}/children").read_text().split()
    assert [Path(f"/proc/{child}/comm").read_text() for child in children] == ["cat\n"], "its input has not ended"


def _device(path):
    os.mknod(path, 0o20666, os.makedev(1, 5))


def _socket(path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


HOSTILE = {
    "a link to a file": lambda path, secret: path.symlink_to(secret),
    "a link beside it": lambda path, secret: path.symlink_to("barrier"),
    "a directory": lambda path, secret: path.mkdir(),
    "a fifo": lambda path, secret: os.mkfifo(path),
    "a device": lambda path, secret: _device(path),
    "a socket": lambda path, secret: _socket(path),
}


def test_nothing_but_an_ordinary_file_takes_its_place(orlop, files, tmp_path):
    """Who can write to the directory can't lead the container to a file of the host (SEC-08), nor make it hang.

    The barrier comes second in the list, and its directory's events after: when it is seen, the hostile one was judged.
    Red: with os.open(one.path, O_PATH) in `_opened` the secret is read; without S_ISREG the fifo and the device are.
    """
    secret = tmp_path / "secret"
    secret.write_text("secret\n")
    cfg = files / "cfg"
    binds = ("-v", f"{cfg}:/a", "-v", f"{files}/barrier:/b")
    orlop("run", "-d", "--name", "c", *NO_NETWORK, *binds, "host", "sleep", "1000")
    view = View(pid_of(orlop))
    for number, (name, make) in enumerate(HOSTILE.items()):
        cfg.rmdir() if cfg.is_dir() and not cfg.is_symlink() else cfg.unlink()
        make(cfg, secret)
        put(files / "barrier", f"{number}\n")
        shows(view, "/b", f"{number}\n")
        assert view.read("/a") == "one\n", name
    cfg.unlink()
    cfg.write_text("good\n")
    shows(view, "/a", "good\n")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "cfg").write_text("foreign\n")
    files.rename(tmp_path / "moved")
    files.symlink_to(tmp_path / "elsewhere")  # a link on the way; the events come from the moved directory
    put(tmp_path / "moved" / "cfg", "moved\n")
    put(tmp_path / "moved" / "barrier", "moved\n")
    files.unlink()
    (tmp_path / "moved").rename(files)
    put(files / "barrier", "end\n")
    shows(view, "/b", "end\n")
    assert view.read("/a") in ("good\n", "moved\n") and view.read("/a") != "foreign\n"


def test_in_a_directory_of_everybody_it_belongs_to_whom_it_belonged(orlop, files):
    """As the kernel's protected_regular has it for opening. Red: without `is_foreign` the foreign one is shown."""
    files.chmod(0o1777)
    os.chown(files / "cfg", 1000, 1000)
    binds = ("-v", f"{files}/cfg:/a", "-v", f"{files}/barrier:/b")
    orlop("run", "-d", "--name", "c", *NO_NETWORK, *binds, "host", "sleep", "1000")
    view = View(pid_of(orlop))
    foreign = files / "foreign"
    foreign.write_text("foreign\n")
    os.chown(foreign, 1001, 1001)
    foreign.rename(files / "cfg")
    put(files / "barrier", "two\n")
    shows(view, "/b", "two\n")
    assert view.read("/a") == "one\n"
    own = files / "own"
    own.write_text("own\n")
    os.chown(own, 1000, 1000)
    own.rename(files / "cfg")
    shows(view, "/a", "own\n")


def test_what_the_container_moved_or_put_there_is_left_alone(orlop, files):
    """A place in the container that leads elsewhere by now gets nothing.

    Red: without the identity in `New.replace` the container's own mount at /c is replaced.
    """
    (files / "third").write_text("one\n")
    binds = ("-v", f"{files}/cfg:/one/etc/cfg", "-v", f"{files}/third:/c", "-v", f"{files}/barrier:/d")
    orlop("run", "-d", "--name", "c", "--privileged", *NO_NETWORK, *binds, "host", "sleep", "1000")
    pid = pid_of(orlop)
    view = View(pid)
    script = "mv /one/etc /two && mkdir /one/etc && echo own > /one/etc/cfg && echo put > /put"
    orlop("exec", "c", "sh", "-c", script)

    # Instead of ours: what lies on top of it goes with the host's file, by the kernel itself.
    def exchange() -> bool:
        mount.umount2("/c")
        mount.mount("/put", "/c", "", mount.MS_BIND)
        return True

    pidfd = os.pidfd_open(pid)
    assert _in_a_mount_namespace(exchange, lambda: process.setns(pidfd, process.CLONE_NEWNS)) == 0
    os.close(pidfd)
    for name in ("cfg", "third", "barrier"):
        put(files / name, "two\n")
    shows(view, "/d", "two\n")
    assert view.read("/one/etc/cfg") == "own\n" and view.read("/two/cfg") == "one\n"
    assert view.mounted("/one/etc/cfg") == [] and len(view.mounted("/two/cfg")) == 1
    assert view.read("/c") == "put\n" and len(view.mounted("/c")) == 1


def test_who_mounts_no_single_file_has_nobody_who_watches(orlop, files):
    """Nor does the container's own /etc/hosts, which is written in place."""
    orlop("run", "-d", "--name", "c", *NO_NETWORK, "-v", f"{files}:/files", "host", "sleep", "1000")
    orlop("run", "-d", "--name", "d", *NO_NETWORK, "-v", f"{files}/cfg:/cfg", "host", "sleep", "1000")

    def watches(name):
        status = json.loads((orlop.root / "containers" / container_id(orlop, name) / "status.json").read_text())
        held = Path(f"/proc/{status['monitorPid']}/fd")
        return [os.readlink(one) for one in held.iterdir()].count("anon_inode:inotify")

    wait_until(lambda: watches("d") == 1)  # the monitor begins when the process already runs
    assert watches("c") == 0


def container_id(orlop, name):
    return orlop("inspect", "-f", "{{.Id}}", name).stdout.strip()


def _in_a_mount_namespace(work, enter=lambda: process.unshare(process.CLONE_NEWNS)) -> int:
    """Run work in a forked child, in a mount namespace of its own or another one; return its status."""
    pid = os.fork()
    if pid == 0:
        try:
            enter()
            os._exit(0 if work() else 1)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize("propagation", [mount.MS_PRIVATE, mount.MS_SHARED])
def test_a_mount_is_replaced_whatever_the_kernel_can(files, propagation):
    """A file that is mounted on itself below a shared mount gets none beneath (EINVAL, as on kernels before 6.5).

    Red: without the second half of `replace_mount`, the shared one.
    """

    def work() -> bool:
        mount.mount("", "/", "", mount.MS_REC | mount.MS_PRIVATE)
        mount.mount(str(files), str(files), "", mount.MS_BIND)
        mount.mount("", str(files), "", propagation)
        place, under = files / "cfg", os.open(files / "cfg", os.O_PATH)
        (files / "barrier").write_text("second\n")
        fresh = mount.clone_tree(os.open(files / "barrier", os.O_PATH))
        mount.move_mount(mount.clone_tree(under), under)
        old, descriptors = os.open(place, os.O_PATH), os.open("/proc/self/fd", os.O_PATH)
        mount.replace_mount(fresh, old, lambda: os.open(place, os.O_PATH), descriptors)
        shown = place.read_text()
        mount.umount2(str(place), mount.MNT_DETACH)
        return shown == "second\n" and place.read_text() == "one\n"

    assert _in_a_mount_namespace(work) == 0


def test_a_list_of_files_is_bounded_and_reads_back():
    one = follow.Followed("/a b\n", "/x/\udcff", (1, 2), 3)
    (back,) = follow.decode(follow.encode([one]))
    assert (back.place, back.path, back.identity, back.owner) == (one.place, one.path, one.identity, one.owner)
    many = follow.encode([follow.Followed(f"/{number:04}", "/" + "x" * 200, (1, 2), 3) for number in range(500)])
    assert len(os.fsencode(many)) <= follow.BYTES_MAX and 40 < len(follow.decode(many)) < 500
    assert follow.decode("") == []
    for broken in ("a", "a\0b", "a\0b\0c", "a\0b\0 1 2", "a\0b\0" + "1 2 3 4"):
        with pytest.raises(ValueError):
            follow.decode(broken)
