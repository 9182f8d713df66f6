"""What to write into a cgroup's control files, as values that can be printed before they are written.

A step has `controller`, `describe()` (words), `call()` (the kernel's view) and `act(directory)`.
"""

from __future__ import annotations

import errno

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Protocol

    from .directory import Directory

    class Step(Protocol):
        @property
        def controller(self) -> str: ...
        def describe(self) -> str: ...
        def call(self) -> str: ...
        def act(self, directory: Directory) -> None: ...


# Files of these controllers bound each other (memory <= memory+swap, burst <= quota, quota/period <= the parent's):
# which may be written first depends on the present values, and the kernel says EINVAL to the wrong one.
_INTERDEPENDENT = ("memory", "cpu")


class Setting:
    """Write `value` to `file` of the hierarchy that holds `controller`."""

    __slots__ = ("controller", "file", "value")

    def __init__(self, controller: str, file: str, value: str) -> None:
        self.controller = controller
        self.file = file
        self.value = value

    def __eq__(self, other: object) -> bool:
        return type(other) is Setting and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        return f"Setting({self.controller!r}, {self.file!r}, {self.value!r})"

    def describe(self) -> str:
        return f"set {self.file} to {self.value}"

    def call(self) -> str:
        return f"write {self.value} to {self.file}"

    def act(self, directory: Directory) -> None:
        """Raises OSError that names the file and the value it refused."""
        directory.write(self.file, self.value)

    def _key(self) -> tuple[str, str, str]:
        return self.controller, self.file, self.value


def write_all(steps: Iterable[Step], directory: Directory) -> None:
    """Act on every step in a cgroup's directory, in the order given.

    A step that an interdependent controller refuses with EINVAL is tried again after the others, so a limit and
    its partner are raised and lowered in the order that the kernel allows. Raises OSError for the first step that
    stays refused.
    """
    pending = list(steps)
    while pending:
        refused: list[tuple[Step, OSError]] = []
        for step in pending:
            try:
                step.act(directory)
            except OSError as error:
                if error.errno != errno.EINVAL or step.controller not in _INTERDEPENDENT:
                    raise
                refused.append((step, error))
        if len(refused) == len(pending):
            raise refused[0][1]
        pending = [step for step, _ in refused]
