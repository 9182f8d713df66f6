"""Filters of lists: docker's meaning of each, and no value that breaks a list or makes it wait."""

import time
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orlop.engine.containers import filters
from orlop.engine.containers.record import Config, ContainerRecord
from orlop.engine.containers.state import Task
from orlop.spec.container import ContainerRequest
from orlop.spec.errors import Invalid, NotFound, OrlopError
from orlop.spec.mount import MountPoint
from orlop.spec.network import Attachment, PortRequest, Published
from orlop.spec.task import ExitRecord, TaskStatus

ID = "ab" * 32


def record(name: str = "web", created_at: str = "2026-01-02", **fields: object) -> ContainerRecord:
    return ContainerRecord(
        id=ID,
        name=name,
        created_at=created_at,
        request=ContainerRequest(image="nginx:latest", ports=(PortRequest(first=80, last=81),), **fields),
        config=Config(cmd=("x",), labels={"tier": "front", "bare": ""}, exposed_ports=("443", "53/udp")),
        image_id="sha256:" + "cd" * 32,
        mounts=(MountPoint(type="volume", name="data", destination="/srv"),),
    )


STATUS = TaskStatus(pid=1, pid_start_time=1, monitor_pid=1, monitor_start_time=1, boot_id="b", started_at="t")
EXITED = Task("exited", STATUS, ExitRecord(exit_code=3, started_at="t", finished_at="u"))


class Records:
    def find(self, reference: str) -> ContainerRecord:
        if reference != "old":
            raise NotFound("find", reference, "No such container")
        return record("old", "2026-01-01")


PUBLISHED = (Published(host_first=8080, first=80), Published(host_first=8181, first=81, count=3))
NETWORKS = SimpleNamespace(
    attachments={ID: Attachment(boot_id="b", ports=PUBLISHED)},
    store=SimpleNamespace(find=lambda name: SimpleNamespace(id="ef" * 32)),
)
ENGINE = SimpleNamespace(records=Records(), networks=NETWORKS)


def fits(**chosen: str) -> bool:
    return filters.compile(ENGINE, {key.replace("_", "-"): (value,) for key, value in chosen.items()})(record(), EXITED)


@pytest.mark.parametrize(
    "chosen",
    [
        {},
        {"name": "we"}, {"name": "/web"}, {"name": "^/web$"}, {"name": "^web$"}, {"name": "w.b"}, {"name": "a|web"},
        {"id": ID}, {"id": ID[:4]}, {"id": "^ab.*ab$"},
        {"label": "tier"}, {"label": "tier=front"}, {"label": "bare="},
        {"status": "exited"}, {"exited": "3"}, {"since": "old"},
        {"ancestor": "nginx"}, {"ancestor": "nginx:latest"}, {"ancestor": "cdcd"}, {"ancestor": "sha256:" + "cd" * 32},
        {"volume": "data"}, {"volume": "/srv"}, {"publish": "8080"}, {"publish": "8183-8190/tcp"},
        {"network": "bridge"}, {"network": "efef"},
        {"expose": "443"}, {"expose": "53/udp"}, {"expose": "80"}, {"is_task": "false"}, {"isolation": "default"},
    ],
    ids=str,
)  # fmt: skip
def test_what_fits(chosen):
    assert fits(**chosen)


@pytest.mark.parametrize(
    "chosen",
    [
        {"name": "wob"}, {"name": "^eb"}, {"id": "ba" * 32}, {"label": "tier=back"}, {"label": "none"},
        {"status": "running"}, {"exited": "0"}, {"before": "old"}, {"ancestor": "ngin"}, {"ancestor": "cd"},
        {"volume": "dat"}, {"publish": "80"}, {"publish": "8184"}, {"publish": "8080/udp"}, {"expose": "53"},
        {"is_task": "true"}, {"network": "fe"}, {"network": "brid"},
    ],
    ids=str,
)  # fmt: skip
def test_what_does_not_fit(chosen):
    assert not fits(**chosen)


def test_one_value_of_a_key_is_enough_but_every_label_is_needed():
    assert filters.compile(ENGINE, {"name": ("x", "web")})(record(), EXITED)
    assert not filters.compile(ENGINE, {"label": ("tier", "none")})(record(), EXITED)
    assert not filters.compile(ENGINE, {"name": ("web",), "status": ("running",)})(record(), EXITED)


def test_an_exit_code_is_of_a_run_that_ended():
    never = Task("created", None, ExitRecord(exit_code=3, started_at="t", finished_at="u"))
    assert not filters.compile(ENGINE, {"exited": ("3",)})(record(), never)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("colour", "red"), ("status", "sad"), ("exited", "x"), ("exited", "9" * 40), ("health", "ill"),
        ("is-task", "maybe"), ("name", "["), ("name", "(a+)+$"), ("name", "(a|b)*"), ("name", ".*.*.*x"),
        ("name", "(?=x)"), ("name", "(a)\\1"), ("name", "a" * 300 + "."), ("name", "a{9999999999999}"),
        ("publish", "x"), ("expose", "0"), ("expose", "70000"),
    ],
)  # fmt: skip
def test_what_is_no_filter_is_refused(key, value):
    with pytest.raises(Invalid) as caught:
        filters.compile(ENGINE, {key: (value,)})
    assert caught.value.hint


def test_a_container_that_a_filter_names_must_be_there():
    with pytest.raises(NotFound):
        filters.compile(ENGINE, {"before": ("nobody",)})


EXPRESSION = st.lists(st.sampled_from([*"ab.*+?|()[]{}^$\\/-_", ".*", "[a-z]", "{2}", "\u00e9"]), max_size=14).map(
    "".join
)


@given(EXPRESSION)
def test_an_expression_is_answered_soon_or_refused(text):
    start = time.process_time()
    try:
        search = filters.expression("name", text)
    except Invalid:
        return
    search("a" * 255)
    assert time.process_time() - start < 5


@given(st.dictionaries(st.sampled_from([*sorted(filters._MAKERS), "x"]), st.lists(st.text(max_size=20), max_size=2)))
def test_any_filters_are_a_test_or_an_error(chosen):
    try:
        test = filters.compile(ENGINE, chosen)
    except OrlopError:
        return
    if "health" not in chosen:  # which looks at a file of the engine's
        assert test(record(), EXITED) in (True, False)
