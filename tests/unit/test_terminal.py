"""The tests' pseudo-terminal is a real one: controlling terminal, echo, size, hang-up."""

import os
import signal
import sys

import pytest

from support.terminal import Terminal


def python(code: str, **size: int) -> Terminal:
    return Terminal([sys.executable, "-I", "-S", "-c", code], os.environ, **size)


def test_the_program_has_a_controlling_terminal_of_the_asked_size() -> None:
    # write, not print: the signal may come while print is still inside the stream (reentrant call).
    code = (
        "from signal import *; from os import write; signal(28, lambda *_: write(1, b'resized')); signal(2, 0)\n"
        "write(1, b'up')\nwhile 1: pause()"
    )
    with python(code) as terminal:
        terminal.expect("up")
        terminal.resize(10, 20)
        terminal.expect("resized")
        terminal.send(b"\x03")
        assert terminal.wait() == -signal.SIGINT


def test_text_that_never_comes_fails_with_what_came() -> None:
    with python("print('something else')") as terminal, pytest.raises(AssertionError, match="something else"):
        terminal.expect("this")


def test_leaving_ends_the_program() -> None:
    with python("import time; print('up', flush=True); time.sleep(1000)") as terminal:
        terminal.expect("up")
    with pytest.raises(ChildProcessError):
        os.waitpid(terminal.pid, os.WNOHANG)
