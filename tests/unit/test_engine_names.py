"""Names and ids: what a user may call a container, and how one is called without asking."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orlop.engine.containers import names
from orlop.spec.errors import Invalid


def test_a_drawn_name_is_a_valid_one_of_two_words():
    for _ in range(200):
        drawn = names.draw_name(())
        assert names.check_name(drawn) == drawn
        assert drawn.count("_") == 1


def test_a_taken_name_is_not_drawn():
    class EverythingWithoutANumber:
        def __contains__(self, name: object) -> bool:
            return not str(name)[-1].isdigit()

    assert names.draw_name(EverythingWithoutANumber())[-1].isdigit()


def test_an_id_has_64_hex_digits_and_its_short_form_is_no_number():
    ids = {names.new_id() for _ in range(300)}
    assert len(ids) == 300
    assert all(names.is_id(drawn) and not names.short_id(drawn).isdigit() for drawn in ids)


@pytest.mark.parametrize("text", ["c", "web", "/web", "a.b-c_d", "0x", "A" * 255])
def test_docker_takes_these_names(text):
    assert names.check_name(text) == text.removeprefix("/")


@pytest.mark.parametrize(
    "text",
    ["", "/", "//web", "-web", ".web", "_web", "a b", "a/b", "../x", "a\0b", "a\n", "w\u2024b", "ä1", "A" * 256],
)
def test_everything_else_is_refused_with_dockers_text(text):
    with pytest.raises(Invalid) as caught:
        names.check_name(text)
    assert "Invalid container name (" in caught.value.cause
    assert "only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed" in caught.value.cause


def test_a_refused_name_is_not_repeated_at_length():
    with pytest.raises(Invalid) as caught:
        names.check_name("/" * 4096)
    assert len(str(caught.value)) < 300


@given(st.text(max_size=70))
def test_only_lower_case_hex_of_the_right_length_is_an_id(text):
    assert names.is_id(text) == (len(text) == 64 and all(char in "0123456789abcdef" for char in text))
