"""Small parts of the engine: its log, docker's words for time, the files below /etc, the watcher."""

import json
import os
import subprocess
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from orlop.engine import host
from orlop.engine.containers import files, inspect, state
from orlop.engine.containers.record import Config, ContainerRecord, timestamp
from orlop.engine.containers.watch import EXITED, REMOVED, Run, Watcher
from orlop.engine.log import LINE_BYTES_MAX, SIZE_BYTES_MAX, Log
from orlop.engine.rootless import keeper, uplink
from orlop.linux import process
from orlop.spec.container import ContainerRequest
from orlop.spec.runtime import Spec
from orlop.spec.task import ExitRecord, TaskStatus


def record(**fields: object) -> ContainerRecord:
    request = ContainerRequest(image="host", **fields)
    return ContainerRecord(
        id="a" * 64,
        name="web",
        created_at=timestamp(0),
        request=request,
        config=Config(cmd=("sh", "-c", "echo a b"), hostname="box"),
    )


# -- the log --------------------------------------------------------------------------------------------------------


def test_a_message_is_one_line_whatever_it_holds(tmp_path, capfd):
    with Log(str(tmp_path / "log")) as log:
        log.write("a\nforged line\r\x1b \udcff")
        log.write("x" * 100_000)
    lines = (tmp_path / "log").read_bytes().split(b"\n")
    assert len(lines) == 3
    assert lines[0].endswith(b"Z a\\nforged line\\r\x1b \\udcff")
    assert len(lines[1]) == LINE_BYTES_MAX
    assert "forged" in capfd.readouterr().err, "who runs it in the foreground sees it too"


def test_the_log_is_bounded(tmp_path, capfd):
    with Log(str(tmp_path / "log")) as log:
        for _ in range(3 * SIZE_BYTES_MAX // 8000):
            log.write("x" * 8000)
    sizes = [path.stat().st_size for path in tmp_path.iterdir()]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "log.1"]
    assert max(sizes) < SIZE_BYTES_MAX + LINE_BYTES_MAX
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


def test_a_log_that_can_not_be_written_stops_nobody(tmp_path, capfd):
    log = Log(str(tmp_path / "log"))
    log.close()
    log.write("lost")


def test_a_traceback_is_found_by_its_reference(tmp_path, capfd):
    with Log(str(tmp_path / "log")) as log:
        try:
            raise ZeroDivisionError("oh")
        except ZeroDivisionError as wrong:
            reference = log.exception("a test", wrong)
    text = (tmp_path / "log").read_text()
    assert f"error {reference}: a test: ZeroDivisionError('oh')" in text
    assert "test_engine_parts.py" in text


# -- docker's words and shapes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "Less than a second"),
        (0.9, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (120, "2 minutes"),
        (3599, "59 minutes"),
        (3600, "About an hour"),
        (7200, "2 hours"),
        (47 * 3600, "47 hours"),
        (48 * 3600, "2 days"),
        (13 * 86400, "13 days"),
        (14 * 86400, "2 weeks"),
        (59 * 86400, "8 weeks"),
        (60 * 86400, "2 months"),
        (729 * 86400, "24 months"),
        (730 * 86400, "2 years"),
    ],
)
def test_a_duration_is_told_in_dockers_words(seconds, text):
    assert inspect.duration(seconds) == text


def test_the_status_is_told_in_dockers_words():
    status = TaskStatus(
        pid=1,
        pid_start_time=1,
        monitor_pid=1,
        monitor_start_time=1,
        boot_id="",
        started_at=timestamp(100 * 10**9),
    )
    ended = ExitRecord(exit_code=3, started_at=status.started_at, finished_at=timestamp(160 * 10**9))
    texts = [
        inspect.status_text(record(), task, 220.0)
        for task in (
            state.Task(state.CREATED),
            state.Task(state.RUNNING, status),
            state.Task(state.EXITED, status, ended),
        )
    ]
    assert texts == ["Created", "Up 2 minutes", "Exited (3) About a minute ago"]


def test_a_command_with_spaces_is_shown_quoted():
    assert inspect.summary(record(), state.Task(state.CREATED))["Command"] == "sh -c 'echo a b'"


def test_what_is_shown_is_json():
    shown = inspect.details(record(), state.Task(state.CREATED), Spec(oci_version="1.2.1"), "/data")
    assert json.loads(json.dumps(shown))["Name"] == "/web"


# -- files and devices ----------------------------------------------------------------------------------------------


def test_the_files_of_a_container(tmp_path):
    engine = SimpleNamespace(records=SimpleNamespace(path=lambda container_id: str(tmp_path)), host=host.look())
    files.write(engine, record(network="none"), None)
    assert (tmp_path / "hostname").read_text() == "box\n"
    assert "127.0.0.1\tlocalhost\n" in (tmp_path / "hosts").read_text()
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o644}
    files.write(engine, record(network="host", extra_hosts=("printer:192.0.2.9",)), None)
    assert (tmp_path / "hosts").read_text().startswith(Path("/etc/hosts").read_text())
    assert "192.0.2.9\tprinter\n" in (tmp_path / "hosts").read_text()


def test_a_link_in_place_of_a_file_is_not_followed(tmp_path):
    (tmp_path / "canary").write_text("untouched")
    (tmp_path / "hosts").symlink_to("canary")
    engine = SimpleNamespace(records=SimpleNamespace(path=lambda container_id: str(tmp_path)), host=host.look())
    with pytest.raises(OSError):
        files.write(engine, record(network="none"), None)
    assert (tmp_path / "canary").read_text() == "untouched"


def test_devices_are_found_below_a_directory_but_for_the_containers_own():
    found = {device.path: device for device in host.devices(record(privileged=True).request).everything}
    assert not {"/dev/null", "/dev/ptmx", "/dev/console"} & set(found)
    assert not [path for path in found if path.startswith(("/dev/pts/", "/dev/shm/"))]
    for path, device in found.items():
        info = os.stat(path)
        assert (device.major, device.minor) == (os.major(info.st_rdev), os.minor(info.st_rdev))


# -- the watcher ----------------------------------------------------------------------------------------------------


class Ends:
    """Runs of real processes, and which of their ends was dealt with."""

    def __init__(self, tmp_path) -> None:
        self.seen: list[str] = []
        self.told = threading.Event()
        self.log = Log(str(tmp_path / "log"))
        self.watcher = Watcher(self.settle, self.log)

    def settle(self, run: Run) -> None:
        self.seen.append(run.container_id)
        self.watcher.tell(run.container_id, EXITED, 7)
        self.told.set()

    def run(self, name: str) -> tuple[int, Run]:
        pid = os.posix_spawn("/bin/sleep", ["sleep", "1000"], {})
        start = process.start_time(pid)
        status = TaskStatus(
            pid=pid,
            pid_start_time=start,
            monitor_pid=pid,
            monitor_start_time=start,
            boot_id="",
            started_at=str(start),
        )
        return pid, Run(name, status, os.pidfd_open(pid), -1)


@pytest.fixture
def ends(tmp_path, capfd):
    found = Ends(tmp_path)
    yield found
    found.watcher.close()
    found.log.close()


def end(pid: int) -> None:
    os.kill(pid, 9)
    os.waitpid(pid, 0)


def test_an_end_is_dealt_with_once_and_then_told(ends):
    pid, run = ends.run("web")
    waiters = [ends.watcher.subscribe("web", EXITED), ends.watcher.subscribe("web", REMOVED)]
    other = ends.watcher.subscribe("db", EXITED)
    ends.watcher.watch(run)
    ends.watcher.watch(Run("web", run.status, os.dup(run.monitor), -1))  # known already
    assert ends.watcher.watching() == ["web"]
    end(pid)
    assert ends.told.wait(20)
    assert (os.eventfd_read(waiters[0].fd), waiters[0].exit_code) == (1, 7)
    for silent in (waiters[1], other):
        with pytest.raises(BlockingIOError):
            os.eventfd_read(silent.fd)
    ends.watcher.tell("web", REMOVED, 7)
    assert os.eventfd_read(waiters[1].fd) == 1
    for waiter in (*waiters, other):
        ends.watcher.unsubscribe(waiter)
    assert ends.seen == ["web"]


def test_the_end_of_what_is_gone_already_is_dealt_with(ends):
    pid, run = ends.run("web")
    os.close(run.monitor)
    run.monitor = -1
    end(pid)
    ends.watcher.watch(run)
    assert ends.told.wait(20)


def test_one_end_that_goes_wrong_does_not_stop_the_watch(ends, tmp_path):
    first, second = ends.run("web"), ends.run("db")
    settle = ends.settle

    def broken(run: Run) -> None:
        if run.container_id == "web":
            ends.told.set()
            raise ZeroDivisionError("oh")
        settle(run)

    ends.watcher._ended = broken
    for _, run in (first, second):
        ends.watcher.watch(run)
    end(first[0])
    assert ends.told.wait(20)
    ends.told.clear()
    end(second[0])
    assert ends.told.wait(20)
    assert ends.seen == ["db"]


def test_a_closed_watcher_leaves_no_descriptor(tmp_path, capfd):
    before = len(os.listdir("/proc/self/fd"))
    found = Ends(tmp_path)
    pid, run = found.run("web")
    found.watcher.watch(run)
    found.watcher.close()
    found.log.close()
    end(pid)
    assert len(os.listdir("/proc/self/fd")) == before


def test_an_uplink_that_talks_on_lives_and_takes_no_memory():
    notes = uplink._notes()
    try:
        done = subprocess.run(["sh", "-c", "echo up >&2; yes x >&2; echo on >&2; exit 3"], stderr=notes, timeout=60)
        assert done.returncode == 3
        assert os.pread(notes, keeper.SAID_BYTES_MAX, 0).startswith(b"up\n")
        assert os.fstat(notes).st_size == keeper.SAID_BYTES_MAX
    finally:
        os.close(notes)
