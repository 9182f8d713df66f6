"""container.json: written whole, read without a lock, found by id, name and prefix."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orlop.engine.containers import names
from orlop.engine.containers.record import Config, ContainerRecord, Records, timestamp, write_durably
from orlop.spec.container import BindRequest, ContainerRequest, TmpfsRequest
from orlop.spec.errors import Internal, Invalid, NotFound


def record(container_id: str, name: str, **fields: object) -> ContainerRecord:
    return ContainerRecord(
        id=container_id,
        name=name,
        created_at=timestamp(0),
        request=ContainerRequest(image="host"),
        config=Config(),
        **fields,
    )


def an_id(prefix: str) -> str:
    return prefix + "0" * (64 - len(prefix))


@pytest.fixture
def records(tmp_path):
    return Records(str(tmp_path))


def save(records: Records, saved: ContainerRecord) -> ContainerRecord:
    os.mkdir(records.path(saved.id))
    records.save(saved)
    return saved


_words = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
_lists = st.lists(_words, max_size=3).map(tuple)


@given(
    st.builds(
        ContainerRequest,
        image=_words,
        entrypoint=st.none() | _lists,
        args=st.none() | _lists,
        env=_lists,
        labels=st.dictionaries(_words, _words, max_size=3),
        binds=st.lists(st.builds(BindRequest, source=_words, target=_words, options=_lists), max_size=2).map(tuple),
        tmpfs=st.lists(st.builds(TmpfsRequest, target=_words, options=_lists), max_size=2).map(tuple),
        pids_max=st.none() | st.integers(-1, 2**31),
        memory_bytes=st.integers(0, 2**63 - 1),
    ),
    st.builds(Config, entrypoint=_lists, cmd=_lists, env=_lists, stop_timeout_s=st.none() | st.integers(0, 9)),
)
def test_a_record_survives_the_round_trip(request_, config):
    written = record(an_id("a"), "web", start_error="x", start_exit_code=127).replace(request=request_, config=config)
    assert ContainerRecord.from_json(written.to_json()) == written


def test_a_saved_record_is_found_by_id_name_and_prefix(records):
    web = save(records, record(an_id("abc1"), "web"))
    save(records, record(an_id("abd2"), "db"))
    for reference in (web.id, "web", "/web", "abc", "abc1000"):
        assert records.find(reference) == web


def test_a_name_goes_before_the_beginning_of_an_id(records):
    save(records, record(an_id("beef"), "web"))
    named = save(records, record(an_id("cafe"), "beef"))
    assert records.find("beef") == named


def test_a_prefix_of_several_ids_is_refused(records):
    save(records, record(an_id("abc1"), "web"))
    save(records, record(an_id("abc2"), "db"))
    with pytest.raises(Invalid, match="multiple IDs found with provided prefix: abc"):
        records.find("abc")


@pytest.mark.parametrize("reference", ["nosuch", "", "/", "abcdef", an_id("f"), "../../etc", "x" * 5000])
def test_what_is_not_there_is_not_found_with_dockers_text(records, reference):
    save(records, record(an_id("abc1"), "web"))
    with pytest.raises(NotFound, match="No such container: ") as caught:
        records.find(reference)
    assert len(str(caught.value)) < 200


def test_a_change_is_seen_at_once(records):
    web = save(records, record(an_id("a"), "web"))
    assert records.load(web.id).start_error == ""
    records.save(web.replace(start_error="no"))
    assert records.load(web.id).start_error == "no"


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"id":1}', b'{"id":"' + b"a" * 64 + b'"}', b"\xff", b"{}" * 9])
def test_a_damaged_record_is_named_and_hides_no_other(records, text):
    web = save(records, record(an_id("a"), "web"))
    broken = save(records, record(an_id("b"), "db"))
    path = f"{records.path(broken.id)}/container.json"
    with open(path, "wb") as file:
        file.write(text)
    with pytest.raises(Internal, match=r"container\.json"):
        records.load(broken.id)
    assert list(records.all()) == [web]


def test_a_directory_without_a_record_is_no_container(records):
    os.mkdir(records.path(an_id("a")))
    assert records.ids() == [an_id("a")]
    assert list(records.all()) == []


def test_a_condemned_container_is_gone_for_readers_and_known_to_the_next_engine(records):
    web = save(records, record(an_id("a"), "web"))
    records.condemn(web.id)
    for gone in (web.id, "web"):
        with pytest.raises(NotFound):
            records.find(gone)
    assert (records.ids(), Records(records.directory).condemned()) == ([], [web.id])
    with pytest.raises(NotFound):
        records.condemn(web.id)
    records.bury(web.id)
    records.bury(web.id)
    assert os.listdir(records.directory) == []


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    write_durably(str(path), b"old")
    (tmp_path / "file.tmp").mkdir()
    with pytest.raises(OSError):
        write_durably(str(path), b"new")
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("text", ["", "\0" * 4096])
def test_what_a_power_cut_leaves_of_a_record_that_was_not_durable_is_none(records, text):
    """red: the engine would leave such a directory alone for ever, as one that is damaged."""
    for prefix, auto_remove, expected in (("a", True, NotFound), ("b", False, Internal)):
        request = ContainerRequest(image="host", auto_remove=auto_remove)
        lost = save(records, record(an_id(prefix), prefix).replace(request=request))
        with open(f"{records.path(lost.id)}/container.json", "w", encoding="ascii") as file:
            file.write(text)
        with pytest.raises(expected):
            records.load(lost.id)


@pytest.mark.parametrize("auto_remove, synced", [(False, 2), (True, 0)])
def test_what_goes_with_its_process_is_not_made_durable(records, monkeypatch, auto_remove, synced):
    calls = []
    monkeypatch.setattr(os, "fsync", calls.append)
    kept = record(an_id("a"), "web").replace(request=ContainerRequest(image="host", auto_remove=auto_remove))
    save(records, kept)
    assert (len(calls), records.load(kept.id)) == (synced, kept)


def test_a_written_file_is_private(tmp_path):
    write_durably(str(tmp_path / "file"), b"x" * 100_000)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "file").stat().st_size == 100_000


def test_a_timestamp_is_rfc_3339_with_nanoseconds():
    assert timestamp(1_700_000_000_000_000_007) == "2023-11-14T22:13:20.000000007Z"
    assert len(timestamp()) == 30
    assert names.is_id(an_id("0"))
