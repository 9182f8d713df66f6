"""The few kinds of protocol buffer fields that CRIU's messages have, against bytes worked out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orlop.spec import protobuf


def test_a_message_is_written_as_the_format_says() -> None:
    message = ((1, 150), (2, "testing"), (3, ((1, True), (2, False))), (16, -1))
    expected = "089601120774657374696e671a04080110008001ffffffffffffffffff01"
    assert protobuf.encode(message).hex() == expected


def test_what_is_read_is_what_was_written() -> None:
    fields = protobuf.decode(protobuf.encode(((1, 150), (2, "testing"), (3, ((1, 1),)), (4, -7), (2, "again"))))
    assert (protobuf.number(fields, 1), protobuf.number(fields, 4), protobuf.number(fields, 9, 5)) == (150, -7, 5)
    assert protobuf.text(fields, 2) == "again" and protobuf.text(fields, 9) == ""
    assert protobuf.number(protobuf.decode(protobuf.inner(fields, 3)), 1) == 1


def test_fields_of_fixed_size_are_read_over() -> None:
    fields = protobuf.decode(bytes.fromhex("09010203040506070815010203041801"))
    assert protobuf.number(fields, 3) == 1 and protobuf.inner(fields, 1) == bytes(range(1, 9))


@pytest.mark.parametrize(
    "data", ["08", "0a05", "0a0561", "0d01", "0901020304", "08ffffffffffffffffffffff", "0b", "ff" * 11]
)
def test_a_truncated_or_strange_message_is_refused(data: str) -> None:
    with pytest.raises(ValueError):
        protobuf.decode(bytes.fromhex(data))


def test_a_field_of_the_other_kind_is_refused() -> None:
    fields = protobuf.decode(protobuf.encode(((1, 7), (2, "x"))))
    with pytest.raises(ValueError):
        protobuf.inner(fields, 1)
    with pytest.raises(ValueError):
        protobuf.number(fields, 2)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        fields = protobuf.decode(data)
    except ValueError:
        return
    assert all(values for values in fields.values())
