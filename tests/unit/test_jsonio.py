"""The bounded JSON reader against the standard library's, and what it refuses beyond that."""

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orlop.spec import errors, jsonio

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)

BROKEN = [
    "",
    " ",
    "{",
    "[",
    "[1,",
    "[1,]",
    "[1 2]",
    '{"a"',
    '{"a":',
    '{"a":1,}',
    '{"a":1 "b":2}',
    "{1:2}",
    "nul",
    "1 2",
    "-",
    "01",
    "1.",
    "'a'",
    '"',
    '"\\u12"',
    '"\\x"',
    '"\x01"',
    "\ufeff1",
    "// 1",
    "\u00a01",
]


@given(VALUES)
def test_it_writes_what_it_reads_and_what_the_json_package_reads(value):
    data = jsonio.dump(value)
    assert jsonio.parse(data, "x", bytes_max=1 << 24) == value
    assert json.loads(data) == value
    assert jsonio.parse(json.dumps(value, indent=1), "x", bytes_max=1 << 24) == value


@pytest.mark.parametrize("text", BROKEN)
def test_what_the_json_package_refuses_is_refused(text):
    with pytest.raises(ValueError):
        json.loads(text)
    with pytest.raises(errors.Invalid, match="cannot read the document: it is not valid JSON"):
        jsonio.parse(text, "the document")


def test_a_syntax_error_is_told_in_a_process_that_never_imported_json():
    code = (
        "from orlop.spec import errors, jsonio\n"
        "try: jsonio.parse('{', 'x')\n"
        "except errors.Invalid as wrong: print(wrong)\n"
    )
    run = subprocess.run(
        [sys.executable, "-S", "-c", code], env={"PYTHONPATH": ":".join(sys.path)}, capture_output=True, text=True
    )
    assert "it is not valid JSON: Expecting property name" in run.stdout, run.stderr


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b'{"a":1,"a":2}', "the name 'a' stands twice"),
        (b"NaN", "NaN is not a JSON number"),
        (b"[-Infinity]", "-Infinity is not a JSON number"),
        (b"\xff", "can't decode byte 0xff"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b"9" * 1_000_000, "Exceeds the limit"),
        (b" " * (jsonio.DOCUMENT_BYTES_MAX + 1), "the limit is 4194304"),
    ],
)
def test_what_two_readers_could_read_differently_is_refused(data, cause):
    with pytest.raises(errors.Invalid) as caught:
        jsonio.parse(data, "x")
    assert cause in caught.value.cause


def test_only_json_types_are_written():
    with pytest.raises(TypeError, match="set has no JSON form"):
        jsonio.dump({"a": set()})
    with pytest.raises(ValueError):
        jsonio.dump(float("nan"))
