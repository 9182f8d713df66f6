"""What is left to do of a build's steps: all of it is done, whatever becomes of a part of it."""

from __future__ import annotations

import threading

from orlop.engine.steps.later import Later


def test_what_stands_behind_a_defect_is_done(monkeypatch):
    told, done = [], []
    monkeypatch.setattr(threading, "excepthook", told.append)
    later = Later()

    def fail():
        raise OSError("a defect")

    for number in range(3):
        later.put(fail)
        later.put(lambda number=number: done.append(number))
    later.finish()
    assert done == [0, 1, 2]
    assert [one.exc_type for one in told] == [OSError]


def test_nothing_is_begun_before_it_is_time_and_all_of_it_at_the_end():
    done = []
    later = Later()
    later.put(lambda: done.append("first"))
    assert done == []
    later.begin()
    later.put(lambda: done.append("second"))
    later.finish()
    later.finish()
    assert sorted(done) == ["first", "second"]
