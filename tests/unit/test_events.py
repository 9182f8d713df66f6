"""Events: a bounded journal that outlives its writer, ends that are told once, listeners that delay nobody."""

import json
import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orlop.engine import events, journal
from orlop.engine.containers.record import Config, ContainerRecord, timestamp
from orlop.engine.journal import Journal
from orlop.engine.log import Log
from orlop.spec.container import ContainerRequest
from orlop.spec.errors import Invalid, NotFound
from orlop.spec.task import ExitRecord

ID = "ab" * 32


def _no_network(name: str) -> object:
    raise NotFound("find", f"network {name}", "there is none here")


class Engine(SimpleNamespace):
    """As much of an engine as events know."""

    def __init__(self, directory: Path) -> None:
        self.log = Log(str(directory / "engine.log"))
        self.path = str(directory / "events.jsonl")
        super().__init__(
            journal=Journal(self.path, self.log),
            rows=SimpleNamespace(touched=lambda _: None),
            networks=SimpleNamespace(store=SimpleNamespace(find=_no_network)),
        )

    def again(self) -> "Engine":
        """Return the next engine of the same directory."""
        self.journal.close()
        return Engine(Path(self.path).parent)


@pytest.fixture
def engine(tmp_path):
    return Engine(tmp_path)


@pytest.fixture
def hangup():
    read_end, write_end = os.pipe()
    yield read_end
    os.close(read_end)
    os.close(write_end)


def record(name: str = "web", **labels: str) -> ContainerRecord:
    return ContainerRecord(
        id=ID,
        name=name,
        created_at=timestamp(),
        request=ContainerRequest(image="nginx:1"),
        config=Config(cmd=("x",), labels=labels),
    )


def ended(started_at: str, code: int = 3) -> ExitRecord:
    return ExitRecord(exit_code=code, started_at=started_at, finished_at=timestamp())


def told(engine: Engine, hangup: int, *, since_ns: int | None = 0, **filters: tuple[str, ...]) -> list[dict]:
    """Return everything that was told until now."""
    lines = b"".join(events.read(engine, filters, since_ns, time.time_ns(), hangup))
    return [json.loads(line) for line in lines.splitlines()]


def actions(engine: Engine, hangup: int, **filters: tuple[str, ...]) -> list[str]:
    return [event["Action"] for event in told(engine, hangup, **filters)]


def test_an_event_is_dockers_object(engine, hangup):
    events.publish_container(engine, record(tier="front"), "kill", {"signal": "15"})
    (event,) = told(engine, hangup)
    assert event.pop("timeNano") // 10**9 == event.pop("time")
    assert event == {
        "status": "kill",
        "id": ID,
        "from": "nginx:1",
        "Type": "container",
        "Action": "kill",
        "Actor": {"ID": ID, "Attributes": {"image": "nginx:1", "name": "web", "signal": "15", "tier": "front"}},
        "scope": "local",
    }


def test_a_volume_has_no_old_names(engine, hangup):
    events.publish(engine, events.VOLUME, "mount", "data", {"driver": "local"})
    (event,) = told(engine, hangup)
    assert not {"status", "id", "from"} & set(event)


def test_an_unknown_action_is_a_defect(engine):
    with pytest.raises(AssertionError):
        events.publish(engine, events.CONTAINER, "explode", ID)


def test_the_next_engine_tells_what_the_last_one_told(engine, hangup):
    events.publish_container(engine, record(), "create")
    assert actions(engine.again(), hangup) == ["create"]


def test_a_torn_last_line_hides_nothing(engine, hangup):
    events.publish_container(engine, record(), "create")
    with open(engine.path, "ab") as file:
        file.write(b'{"Type":"container","Act')
    engine = engine.again()
    events.publish_container(engine, record(), "start")
    assert actions(engine, hangup) == ["create", "start"]
    assert actions(engine.again(), hangup) == ["create", "start"]


@pytest.mark.parametrize(
    "line", [b"", b"[]", b"{}", b"\xff\xff", b"null", b'{"Actor":{},"timeNano":1}', b"x" * 200_000]
)
def test_a_damaged_line_hides_no_other(engine, hangup, line):
    events.publish_container(engine, record(), "create")
    with open(engine.path, "ab") as file:
        file.write(line + b"\n")
    events.publish_container(engine, record(), "start")
    assert actions(engine.again(), hangup) == ["create", "start"]


def test_the_journal_is_bounded_and_keeps_the_newest(engine, hangup, monkeypatch):
    monkeypatch.setattr(journal, "SIZE_BYTES_MAX", 4096)
    for number in range(200):
        events.publish(engine, events.VOLUME, "create", f"v{number}")
    assert sum(os.path.getsize(path) for path in (engine.path, f"{engine.path}.1")) < 3 * 4096
    names = [event["Actor"]["ID"] for event in told(engine, hangup)]
    assert names[-1] == "v199"
    assert names == [f"v{number}" for number in range(200 - len(names), 200)]


def test_an_event_that_can_not_be_kept_is_told_all_the_same(engine, hangup):
    subscription = engine.journal.subscribe()
    events.publish(engine, events.VOLUME, "create", "v" * journal.LINE_BYTES_MAX)
    assert len(subscription.take()) == 1
    engine.journal.unsubscribe(subscription)
    assert told(engine, hangup) == []


# -- ends ------------------------------------------------------------------------------------------------------------


def test_an_end_is_told_once_by_whoever_sees_it(engine, hangup):
    events.publish_container(engine, record(), "start")
    run = timestamp()
    assert [events.died(engine, record(), ended(run)) for _ in range(3)] == [True, False, False]
    assert actions(engine, hangup) == ["start", "die"]


def test_an_end_is_told_once_across_engines(engine, hangup):
    events.publish_container(engine, record(), "start")
    run, next_run = timestamp(), timestamp(time.time_ns() + 10**9)
    events.died(engine, record(), ended(run))
    engine = engine.again()
    assert not events.died(engine, record(), ended(run))
    assert events.died(engine, record(), ended(next_run))
    engine = engine.again()
    assert not events.died(engine, record(), ended(next_run))
    assert actions(engine, hangup) == ["start", "die", "die"]


def test_an_end_that_the_dead_engine_did_not_tell_is_told_by_the_next(engine, hangup):
    events.publish_container(engine, record(), "start")
    assert events.died(engine.again(), record(), ended(timestamp()))


def test_an_end_that_was_cut_off_is_not_told_again(engine, hangup, monkeypatch):
    monkeypatch.setattr(journal, "SIZE_BYTES_MAX", 2048)
    events.publish_container(engine, record(), "start")
    end = ended(timestamp())
    events.died(engine, record(), end)
    for number in range(100):
        events.publish(engine, events.VOLUME, "create", f"v{number}")
    engine = engine.again()
    assert not events.died(engine, record(), end)
    assert "die" not in actions(engine, hangup)


def test_an_end_has_dockers_attributes_and_no_mark_of_ours(engine, hangup):
    events.publish_container(engine, record(), "start")
    start = timestamp(time.time_ns() - 5 * 10**9)
    events.died(engine, record(), ended(start, 137))
    event = told(engine, hangup)[-1]
    assert "run" not in event
    assert event["Actor"]["Attributes"] == {
        "image": "nginx:1", "name": "web", "exitCode": "137", "execDuration": "5",
    }  # fmt: skip


def test_a_process_that_the_kernel_killed_for_its_memory_is_told_first(engine, hangup):
    events.publish_container(engine, record(), "start")
    end = ended(timestamp()).replace(oom_killed=True)
    events.died(engine, record(), end)
    engine = engine.again()
    events.died(engine, record(), end)
    assert actions(engine, hangup) == ["start", "oom", "die"]


def test_the_end_of_an_exec_is_told_once_too(engine, hangup):
    events.exec_told(engine, record(), "cd" * 32, ("sh", "-c", "exit 3"), "exec_create", "exec_start")
    run = ended(timestamp())
    for _ in range(3):
        events.exec_died(engine, record(), "cd" * 32, run)
        engine = engine.again()
    events.exec_died(engine, record(), "ef" * 32, run)
    found = told(engine, hangup)
    assert [event["Action"] for event in found] == [
        "exec_create: sh -c exit 3", "exec_start: sh -c exit 3", "exec_die", "exec_die",
    ]  # fmt: skip
    assert found[2]["Actor"]["Attributes"]["exitCode"] == "3"


# -- listeners -------------------------------------------------------------------------------------------------------


def test_since_and_until_bound_what_is_told(engine, hangup):
    events.publish(engine, events.VOLUME, "create", "a")
    between = time.time_ns()
    events.publish(engine, events.VOLUME, "create", "b")
    assert [event["Actor"]["ID"] for event in told(engine, hangup, since_ns=between)] == ["b"]
    assert [event["Actor"]["ID"] for event in told(engine, hangup, since_ns=0)] == ["a", "b"]
    first = b"".join(events.read(engine, {}, 0, between, hangup))
    assert json.loads(first)["Actor"]["ID"] == "a"
    assert told(engine, hangup, since_ns=None) == []


def test_what_comes_while_one_listens_is_told_without_a_gap(engine, hangup):
    events.publish(engine, events.VOLUME, "create", "before")
    stream = events.read(engine, {}, 0, None, hangup)
    assert json.loads(next(stream))["Actor"]["ID"] == "before"
    events.publish(engine, events.VOLUME, "create", "after")
    assert json.loads(next(stream))["Actor"]["ID"] == "after"
    stream.close()


def test_a_client_that_leaves_ends_its_stream(engine):
    read_end, write_end = os.pipe()
    stream = events.read(engine, {}, None, None, read_end)
    os.close(write_end)
    assert list(stream) == []
    os.close(read_end)


def test_a_slow_listener_is_dropped_with_a_word_and_delays_nobody(engine, hangup, monkeypatch):
    monkeypatch.setattr(journal, "QUEUED_MAX", 10)
    stream = events.read(engine, {}, 0, None, hangup)
    events.publish(engine, events.VOLUME, "create", "first")
    next(stream)
    for number in range(50):
        events.publish(engine, events.VOLUME, "create", f"v{number}")
    lines = [json.loads(line) for line in b"".join(stream).splitlines()]
    assert [line["Actor"]["ID"] for line in lines[:-1]] == [f"v{number}" for number in range(10)]
    assert "faster than they were read" in lines[-1]["error"]["cause"]


def test_descriptors_are_given_back(engine, hangup):
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        told(engine, hangup)
        events.read(engine, {}, None, None, hangup).close()
    assert len(os.listdir("/proc/self/fd")) <= before


# -- filters -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, "create exec_start:_sh mount pull connect"),
        ({"type": ("container",)}, "create exec_start:_sh"),
        ({"type": ("volume", "image")}, "mount pull"),
        ({"event": ("exec_start",)}, "exec_start:_sh"),
        ({"event": ("exec",)}, ""),
        ({"event": ("create", "pull")}, "create pull"),
        ({"container": ("web",)}, "create exec_start:_sh"),
        ({"container": (ID[:12],)}, "create exec_start:_sh"),
        ({"container": ("eb",)}, ""),
        ({"image": ("nginx",)}, "create exec_start:_sh pull"),
        ({"image": ("nginx:1",)}, "create exec_start:_sh pull"),
        ({"image": ("nginx:2",)}, ""),
        ({"label": ("tier",)}, "create exec_start:_sh"),
        ({"label": ("tier=front",)}, "create exec_start:_sh"),
        ({"label": ("tier=front", "none")}, ""),
        ({"volume": ("data",)}, "mount"),
        ({"network": ("lan",)}, "connect"),
        ({"scope": ("local",)}, "create exec_start:_sh mount pull connect"),
        ({"scope": ("swarm",)}, ""),
        ({"type": ("container",), "event": ("mount",)}, ""),
    ],
)
def test_filters_choose_as_dockers_do(engine, hangup, filters, expected):
    events.publish_container(engine, record(tier="front"), "create")
    events.publish_container(engine, record(tier="front"), "exec_start: sh")
    events.publish(engine, events.VOLUME, "mount", "data")
    events.publish(engine, events.IMAGE, "pull", "nginx:1", {"name": "nginx"})
    events.publish(engine, events.NETWORK, "connect", "cd" * 32, {"name": "lan", "type": "bridge"})
    assert " ".join(action.replace(" ", "_") for action in actions(engine, hangup, **filters)) == expected


def test_an_unknown_filter_is_refused(engine, hangup):
    with pytest.raises(Invalid, match="invalid filter 'colour'"):
        events.read(engine, {"colour": ("red",)}, None, None, hangup)


@given(st.dictionaries(st.sampled_from(sorted(events.FILTERS)), st.lists(st.text(max_size=20), max_size=3).map(tuple)))
@settings(max_examples=50, deadline=None)
def test_no_value_of_a_filter_breaks_the_stream(tmp_path_factory, filters):
    engine = Engine(tmp_path_factory.mktemp("events"))
    events.publish_container(engine, record(), "create")
    read_end, write_end = os.pipe()
    try:
        told(engine, read_end, **filters)
    finally:
        engine.journal.close()
        os.close(read_end)
        os.close(write_end)
