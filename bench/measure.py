"""Timing whole processes in turn."""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor

WARM_UP_ROUNDS = 2


class CommandFailed(Exception):
    """A measured command ended with a status other than 0: its time means nothing. str() is its last words."""


class Subject:
    """One command to time.

    name: the row in the table. before: called untimed ahead of each run (to stop an engine, say).
    thread: where to start it from, when its peer needs mounts of its own; None is this thread. copies: how many of it
    run at once, from the start of the first to the end of the last.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        env: Mapping[str, str],
        *,
        before: Callable[[], None] = lambda: None,
        thread: Executor | None = None,
        copies: int = 1,
    ) -> None:
        self.name, self.argv, self.env, self.before, self.thread = name, list(argv), dict(env), before, thread
        self.copies = copies

    def timed(self) -> float:
        """Return the milliseconds that it takes. Raises CommandFailed."""
        with tempfile.TemporaryFile() as errors:
            actions = [
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_DUP2, errors.fileno(), 2),
            ]
            started = time.perf_counter_ns()
            # posix_spawn is vfork underneath: the size of this process does not enter the figure.
            pids = [os.posix_spawn(self.argv[0], self.argv, self.env, file_actions=actions) for _ in range(self.copies)]
            status = max(os.waitpid(pid, 0)[1] for pid in pids)
            elapsed = time.perf_counter_ns() - started
            if status != 0:
                errors.seek(0)
                words = " ".join(errors.read().decode(errors="replace").split())[:300]
                raise CommandFailed(words or f"status {os.waitstatus_to_exitcode(status)}")
        return elapsed / 1e6


class Served(Subject):
    """Something that a server does again and again: a line on its standard input begins it, a line tells the end."""

    def __init__(self, name: str, server: subprocess.Popen[bytes]) -> None:
        super().__init__(name, [], {})
        self.server = server

    def timed(self) -> float:
        assert self.server.stdin and self.server.stdout
        started = time.perf_counter_ns()
        try:
            self.server.stdin.write(b"\n")
            self.server.stdin.flush()
        except BrokenPipeError:
            pass
        told = self.server.stdout.readline()
        elapsed = time.perf_counter_ns() - started
        if not told:
            raise CommandFailed(f"the server ended with {self.server.wait()}")
        return elapsed / 1e6


class Series:
    """The times of one subject, in ms, one for each round."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.times_ms: list[float] = []
        self.failure = ""

    @property
    def median(self) -> float:
        return statistics.median(self.times_ms)

    def ratio_to(self, other: Series) -> float:
        """Return the median of the rounds' own ratios: noise that lasts longer than a round cancels out."""
        return statistics.median(a / b for a, b in zip(self.times_ms, other.times_ms, strict=True))


def once(subject: Subject) -> float:
    """Run a subject once and return the milliseconds from before its start to after its end. Raises CommandFailed."""
    subject.before()
    return subject.thread.submit(subject.timed).result() if subject.thread else subject.timed()


def in_turn(subjects: Sequence[Subject], rounds: int, warm_up: int = WARM_UP_ROUNDS) -> list[Series]:
    """Time subjects in rounds, each round in the same order but starting one further. Who fails drops out.

    warm_up: rounds before those that count.
    """
    series = [Series(subject) for subject in subjects]
    for number in range(-warm_up, rounds):
        alive = [one for one in series if not one.failure]
        for position in range(len(alive)):
            one = alive[(position + number) % len(alive)]
            try:
                elapsed = once(one.subject)
            except CommandFailed as failure:
                one.failure = str(failure)
                continue
            if number >= 0:
                one.times_ms.append(elapsed)
    return series
