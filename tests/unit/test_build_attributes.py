"""Attributes of --output and of --cache-to: read as Go reads them, and broken ones are errors of the user's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orlop.build.cache import places
from orlop.build.output import wanted
from orlop.build.request import BuildRequest, SecretSource
from orlop.build.settings import Settings
from orlop.spec.errors import Invalid
from orlop.spec.platform import Platform

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


@pytest.mark.parametrize("data", ["\u00e9", "x", "YQ", "YQ= =", "YQ==\n", "Y-_Q", "="])
def test_a_secret_that_is_no_base64_is_refused(data: str) -> None:
    """Red: without validate=True what is none was left out of it without a word, or was a defect of ours."""
    request = BuildRequest(secrets=(SecretSource(id="s", data=data),))
    with pytest.raises(Invalid, match=r"secret 's'.*not base64"):
        Settings(request, Platform(os="linux", architecture="amd64"), b"")
