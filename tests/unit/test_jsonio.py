"""JSON from outside: bounded, unambiguous, never a crash."""

import pytest

from orlop.spec import jsonio
from orlop.spec.errors import Invalid


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b'{"a":1}x', "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"\xef\xbb\xbf{}", "not valid JSON"),
        (b'{"a":NaN}', "NaN is not a JSON number"),
        (b'{"a":-Infinity}', "-Infinity is not a JSON number"),
        (b'{"a":1,"a":2}', "the name 'a' stands twice"),
        (b'{"x":{"b":1,"c":2,"b":3}}', "the name 'b' stands twice"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b"1" * 10_000, "a number in it has too many digits"),
        (b'"\\ud800"', "half a surrogate pair"),
        (b'{"\\uDC00": 1}', "half a surrogate pair"),
        (b'["\\udc00\\ud800"]', "half a surrogate pair"),
    ],
)
def test_broken_documents_are_refused_by_name(data, cause):
    with pytest.raises(Invalid) as caught:
        jsonio.parse(data, "config.json")
    assert str(caught.value).startswith("cannot read config.json: ")
    assert cause in caught.value.cause


def test_a_document_over_the_limit_is_not_parsed():
    with pytest.raises(Invalid, match=r"it has 11 bytes, the limit is 10"):
        jsonio.parse(b'"123456789"', "x", bytes_max=10)
    assert jsonio.parse(b'"12345678"', "x", bytes_max=10) == "12345678"


def test_only_an_object_where_an_object_is_due():
    assert jsonio.parse_object(b'{"a": [1, null]}', "x") == {"a": [1, None]}
    with pytest.raises(Invalid, match="not a JSON object"):
        jsonio.parse_object(b"[]", "x")


def test_dump_is_compact_and_keeps_the_order():
    assert jsonio.dump({"b": 1, "a": "é"}) == '{"b":1,"a":"é"}'.encode()


def test_a_pair_of_surrogates_is_one_character_and_a_stray_byte_is_told_as_a_question_mark():
    assert jsonio.parse(b'"\\ud83d\\ude00"', "x") == "\U0001f600"
    assert jsonio.dump({"name": "a\udcffb"}) == b'{"name":"a?b"}'
