"""Attributes of --output and of --cache-to: read as Go reads them, and broken ones are errors of the user's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orlop.build.cache import places
from orlop.build.output import wanted
from orlop.spec.errors import Invalid

READERS = (wanted.fields_of, places.fields_of)


def test_attributes_are_read() -> None:
    assert wanted.fields_of('type=oci,"annotation.a=b,c", dst=x=y') == {
        "type": "oci",
        "annotation.a": "b,c",
        "dest": "x=y",
    }
    assert places.fields_of("Type=registry,REF=host/a:1,") == {"type": "registry", "ref": "host/a:1"}


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("text", ["a=b\nc", 'a=b,"c"d', 'a=b,"c', "a=b,c", "x=" + "y" * 200_000])
def test_what_is_no_list_is_an_error(read: Callable[[str], dict[str, str]], text: str) -> None:
    with pytest.raises(Invalid) as refused:
        read(text)
    assert refused.value.hint


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    for read in READERS:
        try:
            read(f"a={text}")
        except Invalid:
            continue
