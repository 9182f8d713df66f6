"""Restart policies: what a monitor does at the end of a run, without anybody's help.

    <container>/restart    one line: POLICY RETRIES_MAX run|stopped        (writer: the engine)

The engine writes it before a start, at a stop and when the policy changes; a monitor reads it at the end of each run
and again when the pause before the next one is over. Whoever writes it meanwhile wakes the monitor with `WAKE`.
A container without the file is not restarted. One line of text and not JSON: see launcher.Handover.

The pauses are docker's: 100 ms, doubled at each restart up to a minute, and 100 ms again after a run of ten seconds.
A restart that fails counts as a run that failed, so a cause that passes (a port in use) is got over.
"""

import time

from ..linux import path, signals

NO, ON_FAILURE, ALWAYS, UNLESS_STOPPED = "no", "on-failure", "always", "unless-stopped"
POLICIES = (NO, ON_FAILURE, ALWAYS, UNLESS_STOPPED)

RESTART_FILE = "restart"
WAKE = signals.SIGUSR1  # blocked in every monitor, so it is kept until it is waited for
PAUSE_S_MIN = 0.1
PAUSE_S_MAX = 60.0
STEADY_S = 10.0
_RUN, _STOPPED = "run", "stopped"
LINE_BYTES_MAX = 64


class Order:
    """What is wanted of a container. stopped: somebody stopped it, so nothing restarts it in this boot."""

    __slots__ = ("policy", "retries_max", "stopped")

    def __init__(self, policy: str = NO, retries_max: int = 0, stopped: bool = False) -> None:
        """retries_max: for on-failure, 0 is no limit."""
        self.policy = policy
        self.retries_max = retries_max
        self.stopped = stopped

    def encode(self) -> bytes:
        """Return the content of the file."""
        return f"{self.policy} {self.retries_max} {_STOPPED if self.stopped else _RUN}\n".encode()

    def wants(self, exit_code: int, restarts: int, forced: bool = False) -> bool:
        """Tell whether a container that ended so, and was restarted so often, is to run again.

        forced: its health check's action demands it, whatever the policy.
        """
        if self.stopped:
            return False
        if self.policy == ON_FAILURE and not forced:
            return exit_code != 0 and (not self.retries_max or restarts < self.retries_max)
        return forced or self.policy in (ALWAYS, UNLESS_STOPPED)


def decode(line: bytes) -> Order:
    """Return the order that a file holds; what is none orders nothing."""
    try:
        policy, retries_max, wanted = line.decode("ascii").split()
        order = Order(policy, int(retries_max), wanted == _STOPPED)
    except ValueError:
        return Order()
    return order if policy in POLICIES and wanted in (_RUN, _STOPPED) and order.retries_max >= 0 else Order()


def read(directory_fd: int) -> Order:
    """Return what is wanted now of the container with this directory."""
    try:
        return decode(path.read_file(RESTART_FILE, LINE_BYTES_MAX, directory_fd))
    except OSError:
        return Order()


class Series:
    """The runs of one container, one after the other. restarts: how many there were, of earlier monitors too.

    directory: a descriptor of the container's, which this monitor has taken (record.take).
    """

    __slots__ = ("_pause_s", "directory", "restarts")

    def __init__(self, restarts: int, directory: int = -1) -> None:
        self.restarts = restarts
        self.directory = directory
        self._pause_s = 0.0

    def pause_after(self, ran_s: float) -> float:
        """Return how long to wait before the next run, after one of this length."""
        if ran_s >= STEADY_S:
            self._pause_s = 0.0
        self._pause_s = min(max(2 * self._pause_s, PAUSE_S_MIN), PAUSE_S_MAX)
        return self._pause_s

    def wait(self, pause_s: float, exit_code: int, forced: bool) -> bool:
        """Wait for the next run; tell whether it is still wanted. Whoever changes his mind wakes us with `WAKE`."""
        deadline = time.monotonic() + pause_s
        while (left_s := deadline - time.monotonic()) > 0:
            if signals.sigtimedwait((WAKE,), left_s) is None:
                break
            if not read(self.directory).wants(exit_code, self.restarts, forced):
                return False
        if not read(self.directory).wants(exit_code, self.restarts, forced):
            return False
        self.restarts += 1
        return True
