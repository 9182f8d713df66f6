"""orlop-runtime's command line before it touches a container: flags, ids, what it remembers, its log."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from orlop.linux import process
from orlop.runtime.cli import flags, main, update
from orlop.runtime.cli.flags import Flag
from orlop.runtime.cli.store import Entry, Store, check_id
from orlop.spec.errors import Conflict, Invalid, NotFound

TABLE = (Flag("name n", "string", ""), Flag("quiet q", "bool", ""), Flag("env e", "list", ""), Flag("count", "int", ""))


def parsed(*argv: str) -> tuple[flags.Flags, list[str]]:
    return flags.parse(argv, TABLE, "test")


def refused(*argv: str) -> str:
    with pytest.raises(Invalid) as caught:
        parsed(*argv)
    assert len(str(caught.value)) < 300
    return caught.value.cause


@pytest.mark.parametrize("words", [["--name=x"], ["-name=x"], ["--name", "x"], ["-n", "x"], ["-n=x"]])
def test_gos_four_spellings(words: list[str]) -> None:
    given, rest = parsed(*words, "web", "-q")
    assert (given.text("name"), rest, given.on("quiet")) == ("x", ["web", "-q"], False)


def test_repeated_flags_keep_the_last_value_and_lists_all() -> None:
    given, _ = parsed("-n", "a", "-n", "b", *("-e", "A=1") * 500)
    assert given.text("name") == "b"
    assert given.all("env") == ("A=1",) * 500


def test_two_dashes_end_the_flags_and_one_is_an_argument() -> None:
    assert parsed("-q", "--", "--name", "x")[1] == ["--name", "x"]
    assert parsed("-q", "-", "-q")[1] == ["-", "-q"]
    assert parsed("-n", "--", "x")[0].text("name") == "--"


@pytest.mark.parametrize(("word", "truth"), [("-q", True), ("-q=true", True), ("--quiet=F", False), ("-q=0", False)])
def test_booleans(word: str, truth: bool) -> None:
    assert parsed(word)[0].on("quiet") is truth


@pytest.mark.parametrize("word", ["--bogus", "---name", "-x=1", "-", "--=1", "-" + "x" * 100_000])
def test_an_undefined_flag_is_refused(word: str) -> None:
    if word == "-":
        assert parsed(word)[1] == ["-"]
    else:
        assert refused(word).startswith("flag provided but not defined: -")


def test_a_flag_without_its_value_is_refused() -> None:
    assert refused("-n") == "flag needs an argument: -n"
    assert refused("-q=maybe").startswith('invalid boolean value "maybe"')


@pytest.mark.parametrize("number", ["", "x", "1.5", "1_0", "٣", "0x10", "9" * 5000, "--1", " 1"])
def test_what_is_no_integer_is_refused(number: str) -> None:
    assert "it is not an integer" in refused(f"--count={number}")


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "../x", "a\0b", "a\n", "ä", "a\u2024", "a b", "x" * 4096, "a:b", "%2e", "a\\b"]
)
def test_what_could_name_another_directory_is_no_id(name: str) -> None:
    """SEC-23."""
    with pytest.raises(Invalid) as caught:
        check_id(name)
    assert caught.value.cause in ("invalid container ID format", "container id cannot be empty")
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("name", ["a", "A-b_c.d+e", "...", "-a", "x" * 255])
def test_ids_that_runc_takes(name: str) -> None:
    assert check_id(name) == name


# -- the store ------------------------------------------------------------------------------------------------------


def entry(name: str = "web", **changes: object) -> Entry:
    base = Entry(
        id=name,
        bundle="/b",
        pid=os.getpid(),
        pid_start_time=process.start_time(os.getpid()),
        boot_id=process.boot_id(),
        created="2026-01-01T00:00:00Z",
    )
    return base.replace(**changes)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "state"))


def test_an_id_is_taken_once(store: Store) -> None:
    store.reserve("web")
    with pytest.raises(Conflict) as caught:
        store.reserve("web")
    assert caught.value.cause == "container with given ID already exists"
    store.forget("web")
    store.reserve("web")


def test_a_live_process_runs(store: Store) -> None:
    store.reserve("web")
    store.save(entry())
    assert store.status(store.load("web")) == "running"
    Path(store.directory("web"), "gate.sock").touch()
    assert store.status(store.load("web")) == "created"


@pytest.mark.parametrize("changes", [{"pid_start_time": 1}, {"boot_id": "0" * 36}, {"pid": 2**22 - 1}])
def test_a_recycled_pid_or_another_boot_is_stopped(store: Store, changes: dict[str, object]) -> None:
    """SEC-36: the number alone says nothing."""
    store.reserve("web")
    store.save(entry(**changes))
    assert store.status(store.load("web")) == "stopped"


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"null", b"{}", b"\xff\xfe", b"[" * 100_000, b'{"id":"web","pid":"x"}', b"x" * 5_000_000]
)
def test_a_damaged_state_is_refused_by_name(store: Store, data: bytes) -> None:
    Path(store.reserve("web"), "state.json").write_bytes(data)
    with pytest.raises(Invalid) as caught:
        store.load("web")
    assert "web/state.json" in str(caught.value)
    assert len(str(caught.value)) < 600


def test_no_state_is_no_container(store: Store) -> None:
    for name in ("web", "x" * 255):
        with pytest.raises(NotFound) as caught:
            store.load(name)
        assert caught.value.cause == "container does not exist"
    assert store.ids() == []


# -- the whole command, without a container -------------------------------------------------------------------------


def test_an_error_is_one_line_of_json_with_msg(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log"
    argv = ["--log", str(log), "--log-format", "json", "--root", str(tmp_path / "r"), "state", "web"]
    assert main.main(argv) == 1
    assert main.main(argv) == 1
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(line["level"], line["msg"]) for line in lines] == [("error", "container does not exist")] * 2
    assert capsys.readouterr().err == "container does not exist\n" * 2


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["list", "web"], "requires exactly 0 arguments, 1 given"),
        (["features", "web"], "requires exactly 0 arguments, 1 given"),
        (["--bogus", "list"], "flag provided but not defined: -bogus"),
        (["--log-format", "xml", "list"], "unknown log-format"),
        (["state"], "requires exactly 1 argument, 0 given"),
        (["state", "../web"], "invalid container ID format"),
        (["state", "x" * 1000], "container does not exist"),
        (["update", "--l3-cache-schema", "x", "web"], "--l3-cache-schema is not supported"),
        (["checkpoint", "web"], "container does not exist"),
        (["restore", "web"], "config.json not found"),
        (["list", "--format", "xml"], "invalid format option"),
        (["create", "--bundle", "/nonexistent", "web"], "/nonexistent/config.json not found"),
    ],
)
def test_what_is_refused_says_why(
    words: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["--root", str(tmp_path / "r"), *words]) == 1
    err = capsys.readouterr().err
    assert told in err and err.count("\n") == 1 and "Traceback" not in err


def test_exit_statuses_are_runcs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = ["--root", str(tmp_path)]
    assert main.main([*root, "bogus"]) == 3
    assert main.main([*root, "exec"]) == 255
    assert main.main([*root, "exec", "--bogus", "web"]) == 1
    assert main.main([*root, "exec", "web", "true"]) == 255
    err = capsys.readouterr().err
    assert err.count("\n") == 4 and "there is no command" in err and "container does not exist" in err


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("7", 7), ("7b", 7), ("64m", 64 << 20), ("64MB", 64 << 20), ("64mib", 64 << 20), ("64 k", 64 << 10),
        ("1.5g", 3 << 29), ("0", 0), ("-1", -1), ("1P", 1 << 50),
        *((text, None) for text in ("", "x", "m", "1e3", "0x10", "-2", "1.g", ".5g", "1..5g", "٣", "9" * 30)),
        ("1mm", None), ("1 m b", None),
    ],
)  # fmt: skip
def test_sizes_are_dockers(text: str, size: int | None) -> None:
    given, _ = flags.parse(["--memory", text], main.VERBS["update"].flags, "update")
    if size is None:
        with pytest.raises(Invalid, match="is not a size"):
            update._bytes(given, "memory")
    else:
        assert update._bytes(given, "memory") == size


def test_rootless_and_criu_are_taken_from_old_callers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["--rootless", "auto", "--criu", "/x", "--root", str(tmp_path), "list", "-q"]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("log", ["", "/nonexistent/log"])
def test_a_log_that_cannot_be_written_hides_no_error(
    log: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["--log", log, "--root", str(tmp_path), "state", "web"]) == 1
    assert "container does not exist" in capsys.readouterr().err


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"{", b"[]", b"{}", b"\xff", b'{"ociVersion":"1.0.2","process":7}', b"[" * 100_000, b" " * (17 << 20)),
        *(b'{"ociVersion":"1.0.2","ociVersion":"1.0.2"}', b'{"ociVersion":"1.0.2","process":{"args":["true"]}}'),
    ],
)
def test_a_hostile_bundle_leaves_nothing(data: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_bytes(data)
    root = tmp_path / "r"
    assert main.main(["--root", str(root), "create", "--bundle", str(tmp_path), "web"]) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and len(err) < 1000
    assert not root.exists() or not list(root.iterdir())


def test_one_damaged_container_hides_no_other(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    Path(store.reserve("bad"), "state.json").write_bytes(b"{")
    store.reserve("web")
    store.save(entry())
    assert main.main(["--root", store.root, "list", "-q"]) == 0
    told = capsys.readouterr()
    assert told.out == "web\n" and "bad/state.json" in told.err
