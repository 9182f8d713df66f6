"""The conversation with init: what it said last is heard, however it ends."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from orlop.runtime import channel
from orlop.spec.errors import Unavailable


def test_what_was_said_before_an_end_with_something_unread_is_heard() -> None:
    ours, theirs = channel.pair()
    child = os.fork()
    if child == 0:
        try:
            ours.close()
            theirs.expect(channel.PREPARED)
            theirs.send(b"Flast words")
        finally:
            os._exit(0)
    theirs.close()
    ours.send(channel.PREPARED)
    ours.send(b"never read")
    os.waitpid(child, 0)
    assert ours.receive() == (b"Flast words", -1)
    assert ours.receive() == (b"", -1)
    ours.close()


def test_who_listens_and_takes_nothing_is_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A console socket whose queue is full. Red without SO_SNDTIMEO: connect(2) waits as long as it is (unix(7))."""
    monkeypatch.setattr(channel, "HAND_OVER_S_MAX", 1)
    path = tmp_path / "console"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(str(path))
        listener.listen(0)
        first.connect(str(path))
        with pytest.raises(Unavailable) as caught:
            channel.send_descriptor(str(path), listener.fileno(), b"terminal")
    assert (caught.value.subject, caught.value.cause) == (str(path), "nobody took it for 1 s")
