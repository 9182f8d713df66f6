"""The error tree: three parts, once each, unchanged across a process border."""

import pytest

from orlop.spec import errors

CLASSES = [
    errors.NotFound, errors.Conflict, errors.Invalid, errors.Denied,
    errors.Unavailable, errors.Unsupported, errors.CommandFailed, errors.Internal,
]  # fmt: skip


@pytest.mark.parametrize("cls", CLASSES)
def test_an_error_crosses_a_process_border_unchanged(cls):
    sent = cls("start", "container web", "the port is taken", hint="free it")
    got = errors.from_json(sent.to_json())
    assert type(got) is cls
    assert (str(got), got.hint, got.exit_code) == (str(sent), "free it", sent.exit_code)


def test_the_exit_code_of_a_command_survives():
    sent = errors.CommandFailed("start", "container web", "no such file", exit_code=127)
    assert errors.from_json(sent.to_json()).exit_code == 127


@pytest.mark.parametrize("value", [None, [], "text", {}, {"kind": "nonsense"}, {"kind": ["x"]}, {"exitCode": "many"}])
def test_any_other_value_is_an_internal_error(value):
    assert type(errors.from_json(value)) is errors.Internal


def test_the_text_names_verb_object_and_cause():
    assert (
        str(errors.Conflict("remove", "container web", "it is running")) == "cannot remove container web: it is running"
    )
