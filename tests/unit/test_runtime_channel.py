"""The conversation with init: what it said last is heard, however it ends."""

from __future__ import annotations

import os

from orlop.runtime import channel


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
