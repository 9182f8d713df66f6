"""The state of a container is what lies on disk and lives in the kernel; only the arrows of the table are walked."""

import os

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from orlop.engine.containers import state
from orlop.engine.containers.record import Config, ContainerRecord
from orlop.engine.containers.state import ARROWS, CREATED, EXITED, GONE, PAUSED, RESTARTING, RUNNING, Task
from orlop.linux import process
from orlop.spec import jsonio
from orlop.spec.container import ContainerRequest
from orlop.spec.errors import Conflict
from orlop.spec.task import ExitRecord, TaskStatus

BOOT = process.boot_id()
WEB = ContainerRecord(
    id="a" * 64, name="web", created_at="", request=ContainerRequest(image="host"), config=Config(cmd=("true",))
)


def status_of(pid: int, start_time: int, started_at: str = "t1", boot_id: str = BOOT) -> TaskStatus:
    return TaskStatus(
        pid=pid,
        pid_start_time=start_time,
        monitor_pid=pid,
        monitor_start_time=start_time,
        boot_id=boot_id,
        started_at=started_at,
    )


def alive(started_at: str = "t1") -> TaskStatus:
    return status_of(os.getpid(), process.start_time(os.getpid()), started_at)


def dead(started_at: str = "t1") -> TaskStatus:
    return status_of(os.getpid(), process.start_time(os.getpid()) - 1, started_at)


def ended(started_at: str = "t1", code: int = 3) -> ExitRecord:
    return ExitRecord(exit_code=code, started_at=started_at, finished_at="t2")


def observe(directory, *, status=None, exit=None, boot_id=BOOT) -> Task:
    for name, value in (("status.json", status), ("exit.json", exit)):
        if value is not None:
            (directory / name).write_bytes(jsonio.dump(value.to_json()))
    return state.observe(str(directory), boot_id)


def test_nothing_on_disk_is_created(tmp_path):
    assert observe(tmp_path).state == CREATED


def test_a_living_monitor_of_this_boot_is_running(tmp_path):
    task = observe(tmp_path, status=alive())
    assert (task.state, task.exit, task.status) == (RUNNING, None, alive())


def test_an_exit_record_of_this_run_is_exited_though_the_monitor_still_lives(tmp_path):
    task = observe(tmp_path, status=alive(), exit=ended())
    assert task.state == EXITED
    assert task.exit is not None and task.exit.exit_code == 3


def test_an_end_that_names_the_next_run_is_restarting_while_the_monitor_lives(tmp_path):
    again = ended().replace(restart_at="t3")
    task = observe(tmp_path, status=alive(), exit=again)
    assert (task.state, task.is_up, task.lives) == (RESTARTING, True, False)
    assert observe(tmp_path, status=dead(), exit=again).state == EXITED


def test_a_restart_that_never_had_a_process_names_none(tmp_path):
    status = status_of(0, 0)
    assert state.open_init(status, BOOT) is None


def test_an_exit_record_of_an_earlier_run_is_history(tmp_path):
    assert observe(tmp_path, status=alive("t9"), exit=ended("t1")).state == RUNNING


def test_a_monitor_that_is_gone_without_a_record_is_255(tmp_path):
    task = observe(tmp_path, status=dead())
    assert task.state == EXITED
    assert task.exit is not None
    assert (task.exit.exit_code, task.exit.error) == (255, state.EXIT_LOST)


def test_a_monitor_that_is_gone_in_a_later_run_does_not_take_the_earlier_code(tmp_path):
    task = observe(tmp_path, status=dead("t9"), exit=ended("t1"))
    assert task.exit is not None and task.exit.exit_code == 255


def test_nothing_runs_after_a_reboot(tmp_path):
    assert observe(tmp_path, status=alive(), boot_id="another").state == EXITED


def test_an_exit_record_alone_is_a_start_that_failed(tmp_path):
    task = observe(tmp_path, exit=ended(code=127))
    assert task.state == CREATED
    assert task.exit is not None and task.exit.exit_code == 127


def test_a_zombie_monitor_is_gone(tmp_path):
    pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    found = observe(tmp_path, status=status_of(pid, process.start_time(pid)))
    os.waitpid(pid, 0)
    assert found.state == EXITED


def test_the_record_that_a_monitor_writes_last_is_not_missed(tmp_path, monkeypatch):
    """A monitor writes exit.json between our look for it and our look at the monitor."""

    def lives(status, boot_id):
        (tmp_path / "exit.json").write_bytes(jsonio.dump(ended().to_json()))
        return False

    monkeypatch.setattr(state, "monitor_lives", lives)
    task = observe(tmp_path, status=alive())
    assert task.exit is not None and task.exit.exit_code == 3


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"{}", b'{"pid":"x"}', b"x" * 70_000, b"\xff\xff"])
def test_a_damaged_file_is_as_none(tmp_path, text):
    (tmp_path / "status.json").write_bytes(text)
    (tmp_path / "exit.json").write_bytes(text)
    assert state.observe(str(tmp_path), BOOT).state == CREATED


@pytest.mark.parametrize(
    ("before", "verb", "text"),
    [
        (CREATED, "kill", f"cannot kill container web: container {WEB.id} is not running"),
        (EXITED, "kill", f"cannot kill container web: container {WEB.id} is not running"),
        (EXITED, "exec", f"container {WEB.id} is not running"),
        (CREATED, "attach", "You cannot attach to a stopped container, start it first"),
        (RUNNING, "remove", "container is running: stop the container before removing or force remove"),
        (EXITED, "pause", f"container {WEB.id} is not running"),
        (CREATED, "top", f"container {WEB.id} is not running"),
        (PAUSED, "pause", f"Container {WEB.id} is already paused"),
        (PAUSED, "exec", "Container web is paused, unpause the container before exec"),
        (PAUSED, "attach", "You cannot attach to a paused container, unpause it first"),
        (PAUSED, "start", "cannot start a paused container, try unpause instead"),
        (PAUSED, "remove", "container is paused and must be unpaused first"),
        (RUNNING, "unpause", f"Container {WEB.id} is not paused"),
    ],
)
def test_a_missing_arrow_is_refused_in_dockers_words(before, verb, text):
    with pytest.raises(Conflict) as caught:
        state.step(Task(before), verb, WEB)
    assert text in str(caught.value)
    assert "web" in caught.value.hint


VERBS = sorted({verb for _, verb in ARROWS})


UP = (RUNNING, PAUSED, RESTARTING)
REPORTED = ("exit", "fail", "again")  # by a monitor, and only where they can happen


class Walk(RuleBasedStateMachine):
    """Any sequence of verbs and reports: what is up can't be removed, and what is gone stays gone."""

    def __init__(self) -> None:
        super().__init__()
        self.state = CREATED
        self.started = False

    @rule(verb=st.sampled_from(VERBS))
    def verb(self, verb: str) -> None:
        if self.state == GONE or (verb in REPORTED and (self.state, verb) not in ARROWS):
            return
        try:
            after = state.step(Task(self.state), verb, WEB)
        except Conflict:
            assert (self.state, verb) not in ARROWS
            return
        assert not (self.state in UP and after == GONE)
        assert after != PAUSED or self.state in (RUNNING, PAUSED)
        assert after != RESTARTING or self.state in UP
        assert verb != "stop" or after not in UP
        self.started = self.started or after == RUNNING
        self.state = after

    @invariant()
    def a_container_ran_before_it_exited(self) -> None:
        assert self.state in (CREATED, *UP, EXITED, GONE)
        if self.state in (*UP, EXITED):
            assert self.started
        if self.state == CREATED:
            assert not self.started


TestWalk = Walk.TestCase
