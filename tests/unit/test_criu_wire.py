"""The few kinds of protocol buffer fields that CRIU's messages have, against bytes worked out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orlop.runtime.criu import wire


def test_a_message_is_written_as_the_format_says() -> None:
    message = ((1, 150), (2, "testing"), (3, ((1, True), (2, False))), (16, -1))
    expected = "089601120774657374696e671a04080110008001ffffffffffffffffff01"
    assert wire.encode(message).hex() == expected


def test_what_is_read_is_what_was_written() -> None:
    fields = wire.decode(wire.encode(((1, 150), (2, "testing"), (3, ((1, 1),)), (4, -7), (2, "again"))))
    assert (wire.number(fields, 1), wire.number(fields, 4), wire.number(fields, 9, 5)) == (150, -7, 5)
    assert wire.text(fields, 2) == "again" and wire.text(fields, 9) == ""
    assert wire.number(wire.decode(wire.inner(fields, 3)), 1) == 1


def test_fields_of_fixed_size_are_read_over() -> None:
    fields = wire.decode(bytes.fromhex("09010203040506070815010203041801"))
    assert wire.number(fields, 3) == 1 and wire.inner(fields, 1) == bytes(range(1, 9))


@pytest.mark.parametrize(
    "data", ["08", "0a05", "0a0561", "0d01", "0901020304", "08ffffffffffffffffffffff", "0b", "ff" * 11]
)
def test_a_truncated_or_strange_message_is_refused(data: str) -> None:
    with pytest.raises(ValueError):
        wire.decode(bytes.fromhex(data))


def test_a_field_of_the_other_kind_is_refused() -> None:
    fields = wire.decode(wire.encode(((1, 7), (2, "x"))))
    with pytest.raises(ValueError):
        wire.inner(fields, 1)
    with pytest.raises(ValueError):
        wire.number(fields, 2)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        fields = wire.decode(data)
    except ValueError:
        return
    assert all(values for values in fields.values())
