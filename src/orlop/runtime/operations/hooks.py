"""Hooks as operations: the point where the caller runs its own, and those that init runs."""

import os

from ...spec.runtime import Hook
from .. import channel, hooks
from . import Operation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from . import Init


class HookPoint(Operation):
    """Let the caller run its prestart and createRuntime hooks, and wait."""

    subject = "hooks"

    def describe(self) -> str:
        return "wait for the hooks that run outside"

    def call(self) -> str:
        return "send, receive"

    def act(self, init: "Init") -> None:
        init.caller.send(channel.CREATED)
        init.caller.expect(channel.HOOKED)


class ContainerHooks(Operation):
    """Run hooks in the container's namespaces."""

    point: str
    hooks: tuple[Hook, ...]
    subject = "hooks"

    def describe(self) -> str:
        return f"run the {self.point} hooks " + ", ".join(hook.path for hook in self.hooks)

    def call(self) -> str:
        return "posix_spawn"

    def act(self, init: "Init") -> None:
        status = "created" if self.point == "startContainer" else "creating"
        hooks.run(self.hooks, self.point, init.state.replace(pid=os.getpid(), status=status))
