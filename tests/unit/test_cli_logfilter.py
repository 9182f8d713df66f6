"""`logs --grep` and `--json`: which lines pass, whatever pieces they come in."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orlop.frontends.cli.containers import logfilter
from orlop.frontends.cli.containers.logfilter import Filter, matching, with_field
from orlop.spec.errors import Invalid

LOG = b'plain\n{"level":"error","n":1}\r\n\xff\xfe error\n{"level":"info"}\nlast error'


def shown(chosen: Filter, *pieces: bytes, stream: int = 1) -> bytes:
    return b"".join(chosen(stream, piece) for piece in pieces) + chosen.rest(stream)


def test_lines_with_the_pattern_pass_as_they_are() -> None:
    assert shown(Filter([matching("error")], 0), LOG) == b'{"level":"error","n":1}\r\n\xff\xfe error\nlast error'
    assert shown(Filter([matching("^plain$")], 0), LOG) == b"plain\n"
    assert shown(Filter([matching("}$")], 0), LOG) == b'{"level":"error","n":1}\r\n{"level":"info"}\n'
    assert shown(Filter([matching("error"), matching("^last")], 0), LOG) == b"last error"


def test_a_prefix_is_shown_and_not_searched() -> None:
    log = b"2026-11-22T10:00:00.000000000Z a=2026 one\n2026-11-22T10:00:01.000000000Z a=2026 year 2026\n"
    assert shown(Filter([matching("2026")], 2), log) == log.splitlines(keepends=True)[1]
    assert shown(Filter([with_field("a=1")], 1), b'T {"a":1}\nT {"a":2}\n') == b'T {"a":1}\n'


@pytest.mark.parametrize(
    ("wanted", "line", "passes"),
    [
        ("level=error", '{"level":"error"}', True),
        ("level=error", '{"level":"errors"}', False),
        ("level=error", ' {"level":"error"} ', True),
        ("level=error", '["level","error"]', False),
        ("level=error", '{"level":"error"', False),
        ("a.b=1", '{"a":{"b":1}}', True),
        ("a.b=1", '{"a.b":1}', True),
        ("a.b=1", '{"a":[1]}', False),
        ("a=1", '{"a":1.0}', False),
        ("a=1e400", '{"a":1e400}', True),
        ("a=true", '{"a":true}', True),
        ("a=null", '{"a":null}', True),
        ("a=null", "{}", False),
        ("a=", '{"a":""}', True),
        ("a=x=y", '{"a":"x=y"}', True),
        ('a=["é"]', '{"a":["é"]}', False),
        ("a=é", '{"a":"\\u00e9"}', True),
        ("a=1", "[" * 200_000, False),
        ("a=1", '{"a":' * 200_000, False),
        ("a=1", '{"a":' + "9" * 100_000 + "}", False),
    ],
)
def test_a_field_is_compared(wanted: str, line: str, passes: bool) -> None:
    assert with_field(wanted)(line) is passes


@pytest.mark.parametrize("pattern", ["(", "*", "a{99999999999}", "(?P<n", "[z-a]"])
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(Invalid) as wrong:
        matching(pattern)
    assert "it is no pattern" in wrong.value.cause and wrong.value.hint


@pytest.mark.parametrize("wanted", ["", "level", "=x"])
def test_what_is_no_field_is_refused(wanted: str) -> None:
    with pytest.raises(Invalid, match="FIELD=VALUE"):
        with_field(wanted)


def test_of_a_line_without_end_the_beginning_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logfilter, "LINE_BYTES_MAX", 8)
    pieces = [b"error 12", b"34", b"5\nno\nqu", b"iet 1234", b"error\nerror\n"]
    chosen = Filter([matching("error")], 0)
    assert [chosen(1, piece) for piece in pieces] == [b"error 12", b"34", b"5\n", b"", b"error\n"]


@settings(max_examples=200)
@given(st.lists(st.tuples(st.sampled_from([1, 2]), st.text("ab\r\n ", max_size=6)), max_size=12))
def test_pieces_do_not_matter(pieces: list[tuple[int, str]]) -> None:
    chosen = Filter([matching("a")], 0)
    out = {1: b"", 2: b""}
    for stream, text in pieces:
        out[stream] += chosen(stream, text.encode())
    for stream in out:
        whole = "".join(text for one, text in pieces if one == stream)
        ends = [line + "\n" for line in whole.split("\n")[:-1]] + [whole.rpartition("\n")[2]]
        assert out[stream] + chosen.rest(stream) == "".join(line for line in ends if "a" in line).encode()


@settings(max_examples=100)
@given(
    st.dictionaries(st.text("abc", min_size=1), st.text(max_size=5)), st.text("abc", min_size=1), st.text(max_size=5)
)
def test_a_string_is_found_under_its_name(fields: dict[str, str], name: str, value: str) -> None:
    assert with_field(f"{name}={value}")(json.dumps(fields)) is (fields.get(name) == value)
