"""What a build's output costs whoever shows it, and what of it is shown."""

from __future__ import annotations

import io

import pytest

from orlop.frontends.cli.build import display


class Stream(io.StringIO):
    """Counts what is written to it."""

    writes = 0

    def write(self, text: str) -> int:
        self.writes += 1
        return super().write(text)


def test_lines_that_come_together_are_written_together() -> None:
    stream = Stream()
    shown = display.display("plain", stream)
    shown.show({"step": 2, "stream": 1, "log": "x\n" * 10_000 + "rest"})
    shown.show({"step": 2, "stream": 1, "log": " of it\n"})

    lines = [line.split(" ", 2) for line in stream.getvalue().splitlines()]
    assert [line[0] for line in lines] == ["#2"] * 10_001
    assert [line[2] for line in lines] == ["x"] * 10_000 + ["rest of it"]
    assert stream.writes == 2


@pytest.mark.parametrize("mode", ["plain", "tty"])
def test_a_line_that_does_not_end_is_not_held_for_ever(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(display, "LINE_CHARACTERS_MAX", 100)
    shown = display.display(mode, Stream())
    shown.show({"step": 2, "name": "RUN x", "state": "started"})
    for _ in range(50):
        shown.show({"step": 2, "stream": 1, "log": "x" * 30})
        held = shown._tails[2][-1] if isinstance(shown, display.Terminal) else shown._partial.get(2, "")
        assert len(held) <= 100
