"""Signals as command lines name them."""

import pytest

from orlop.spec import signals
from orlop.spec.errors import Invalid


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("TERM", 15),
        ("SIGTERM", 15),
        ("sigkill", 9),
        ("9", 9),
        ("RTMIN", 34),
        ("SIGRTMIN+3", 37),
        ("RTMAX-14", 50),
        ("64", 64),
    ],
)
def test_signals_are_read_as_docker_reads_them(text, number):
    assert signals.parse(text, "container web") == number


@pytest.mark.parametrize("text", ["", "0", "-1", "65", "FOO", "SIG", "SIGSIGTERM1", "RTMIN+31", "9 9", "1" * 5000, "٣"])
def test_a_wrong_signal_is_refused_with_dockers_text(text):
    with pytest.raises(Invalid) as caught:
        signals.parse(text, "container web")
    assert caught.value.cause == f"invalid signal: {text[:40]}"


def test_a_signal_has_its_name():
    assert (signals.name(15), signals.name(6), signals.name(34), signals.name(50)) == (
        "SIGTERM",
        "SIGABRT",
        "SIGRTMIN",
        "signal 50",
    )
