"""Sealing a program in memory, while something still has a hand on it."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import threading
from collections.abc import Iterator

import pytest

from orlop.linux import executable


@pytest.fixture
def memory() -> Iterator[int]:
    fd = os.memfd_create("program", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(fd, b"#!/bin/true\n")
    yield fd
    os.close(fd)


def test_a_hand_that_lets_go_is_waited_for(memory: int) -> None:
    # A mapping is refused with the same EBUSY as a page that the kernel is moving at the moment.
    hand = mmap.mmap(memory, 0)
    with pytest.raises(OSError) as refused:
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    assert refused.value.errno == errno.EBUSY
    later = threading.Timer(0.05, hand.close)
    later.start()
    executable.seal(memory)
    later.join()
    with pytest.raises(PermissionError):
        os.write(memory, b"more")
    with pytest.raises(PermissionError):
        os.ftruncate(memory, 0)


def test_one_that_does_not_is_an_error_and_no_seal(memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executable, "_SEAL_TRIES", 3)
    with mmap.mmap(memory, 0), pytest.raises(OSError) as refused:
        executable.seal(memory)
    assert refused.value.errno == errno.EBUSY
    assert os.write(memory, b"more") == 4
