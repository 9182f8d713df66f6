"""The rows of a list of containers: looked at once, and again as soon as something has changed."""

from __future__ import annotations

import os
import types

import pytest

from orlop.engine.containers import state
from orlop.engine.containers.record import Config, ContainerRecord, Records, timestamp
from orlop.engine.supervision import rows
from orlop.linux import inotify
from orlop.spec.container import ContainerRequest


class Engine:
    """What rows ask of an engine, and how often they looked at what."""

    def __init__(self, directory: str) -> None:
        self.records = Records(directory)
        self.states: dict[str, str] = {}
        self.held: dict[str, object] = {}
        self.every: dict[str, object] = {}
        self.looks: list[str] = []
        self.networks = types.SimpleNamespace(
            store=types.SimpleNamespace(all=lambda: self.every), attachments=types.SimpleNamespace(get=self.held.get)
        )

    def observe(self, container_id: str) -> state.Task:
        self.looks.append(container_id[0])
        return state.Task(self.states.get(container_id, state.CREATED))

    def looked(self) -> str:
        """Return whom the looks since the last call were at."""
        found, self.looks = "".join(sorted(self.looks)), []
        return found


@pytest.fixture
def engine(tmp_path):
    return Engine(str(tmp_path))


@pytest.fixture
def listed(engine):
    found = rows.Rows(engine)
    yield found
    found.close()


def make(engine, letter, **fields):
    container_id = letter * 64
    os.makedirs(engine.records.path(container_id), exist_ok=True)
    engine.records.save(
        ContainerRecord(
            id=container_id,
            name=fields.get("name", letter),
            created_at=timestamp(ord(letter) * 10**9),
            request=ContainerRequest(image="host"),
            config=Config(cmd=("true",)),
        )
    )
    return container_id


def names(listed):
    return [row.record.name for row in listed.now()]


def test_what_has_not_changed_is_not_looked_at_again(engine, listed):
    make(engine, "a"), make(engine, "b")
    assert (names(listed), engine.looked()) == (["b", "a"], "ab")
    assert (names(listed), engine.looked()) == (["b", "a"], "")


def test_a_file_that_a_monitor_writes_is_seen_at_once(engine, listed):
    first, _ = make(engine, "a"), make(engine, "b")
    for _ in range(3):  # each watch fires once, and is set again
        names(listed), engine.looked()
        place = engine.records.path(first)
        with open(f"{place}/exit.json.tmp", "w", encoding="ascii"):
            pass
        os.rename(f"{place}/exit.json.tmp", f"{place}/exit.json")
        assert (names(listed), engine.looked()) == (["b", "a"], "a")


def test_what_comes_and_goes_is_seen_at_once(engine, listed):
    first = make(engine, "a")
    assert names(listed) == ["a"]
    os.mkdir(engine.records.path("c" * 64))  # a creation that is not finished
    assert names(listed) == ["a"]
    make(engine, "c")
    assert names(listed) == ["c", "a"]
    make(engine, "c", name="sea")
    assert names(listed) == ["sea", "a"]
    engine.records.condemn(first)
    assert names(listed) == ["sea"]
    listed.touched(first)
    assert names(listed) == ["sea"]


def test_what_the_engine_tells_is_looked_at(engine, listed):
    first = make(engine, "a")
    names(listed), engine.looked()
    engine.states[first] = state.PAUSED
    listed.touched(first)
    assert [row.task.state for row in listed.now()] == [state.PAUSED]


def test_what_runs_is_looked_at_again_after_a_while(engine, listed, monkeypatch):
    engine.states[make(engine, "a")] = state.RUNNING
    make(engine, "b")
    names(listed), engine.looked()
    monkeypatch.setattr(rows, "RECHECK_S", -1.0)
    assert (names(listed), engine.looked()) == (["b", "a"], "a")


def test_networks_that_change_are_seen(engine, listed):
    first = make(engine, "a")
    names(listed), engine.looked()
    engine.held[first] = object()
    assert (names(listed), engine.looked()) == (["a"], "a")
    (row,) = listed.now()
    row.text = b"of before"
    engine.every = {}
    assert [one.text for one in listed.now()] == [b""]


def test_a_whole_list_is_kept_for_its_second(engine, listed, monkeypatch):
    first = make(engine, "a")
    monkeypatch.setattr(rows.time, "time", lambda: 5.5)
    _, good_for, whole = listed.kept(True)
    assert whole is None
    listed.keep(True, good_for, b"[]")
    assert listed.kept(True)[2] == b"[]"
    assert listed.kept(False)[2] is None, "the other list"
    monkeypatch.setattr(rows.time, "time", lambda: 6.0)
    assert listed.kept(True)[2] is None, "a status tells the time"
    listed.keep(True, listed.kept(True)[1], b"[]")
    make(engine, "a", name="other")
    assert listed.kept(True)[2] is None
    engine.records.condemn(first)
    assert listed.kept(True)[0] == []


def test_without_watches_everything_is_looked_at(engine, listed, monkeypatch):
    def refused(*args):
        raise OSError(24, "too many")

    monkeypatch.setattr(inotify, "add_watch", refused)
    make(engine, "a")
    os.mkdir(engine.records.path("b" * 64))
    assert names(listed) == ["a"]
    make(engine, "b")
    make(engine, "c")
    assert names(listed) == ["c", "b", "a"]
    engine.looked()
    assert (names(listed), engine.looked()) == (["c", "b", "a"], "abc")


def test_events_that_the_kernel_dropped_are_made_good(engine, listed, monkeypatch):
    first = make(engine, "a")
    names(listed), engine.looked()
    engine.states[first] = state.EXITED
    monkeypatch.setattr(inotify, "read_events", lambda fd: [(-1, inotify.IN_Q_OVERFLOW, b"")])
    assert [row.task.state for row in listed.now()] == [state.EXITED]
