"""Entering a running container: its namespaces all at once, through the pidfd of its first process."""

import os

from ...linux import process
from ...spec.errors import Conflict
from . import Operation
from .namespaces import become_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from . import Init


def not_running() -> Conflict:
    """Return the error of whoever comes too late."""
    return Conflict("enter", "the container", "it is not running", hint="start it first", code="E1001")


class EnterContainer(Operation):
    """Join the namespaces of the container's first process. (Its PID namespace this process was born in.)

    flags: CLONE_NEW* of those that differ from the caller's; own_ids: the user namespace is among them.
    """

    flags: int
    own_ids: bool = False
    subject = "namespaces"

    def describe(self) -> str:
        return "enter the namespaces of the container"

    def call(self) -> str:
        return f"setns(pidfd, {self.flags:#x})"

    def act(self, init: "Init") -> None:
        if self.own_ids:
            # A procfs can't be made in a user namespace whose own is masked (fs/namespace.c, mount_too_revealing).
            init.procfs()
        try:
            process.setns(init.target, self.flags)
        except ProcessLookupError:
            raise not_running() from None
        if self.own_ids:
            become_root()
        # setns put root and working directory at the root of the mount namespace, wherever its processes are now.
        init.root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
