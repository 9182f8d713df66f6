"""The seccomp listener's way to its agent: init loads the filter, the caller takes the listener and passes it on.

    init                                       caller                                agent
      |  seccomp(NEW_LISTENER)                   |                                     |
      |-------- LISTENER + its number ---------->|  pidfd_getfd                        |
      |                                          |------ ContainerProcessState + fd -->|
      |<------- TAKEN ---------------------------|                                     |
      |  capabilities, execve                    |                                     |

init can't send the descriptor itself: with the filter on, sendmsg(2) may already wait for an agent that knows nothing.
It gets along with write(2), which a profile can't ask about (`runtime.seccomp`), and read(2), which the agent can
answer by then. Without an agent there is no container.
Source: config-linux.md, "seccomp", "The Container Process State".
"""

import os

from ..linux import process
from ..linux.signals import SIGKILL
from ..spec import jsonio
from ..spec.errors import Denied, Invalid, Unavailable
from ..spec.record import Record
from . import channel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..spec.runtime import Seccomp, State

_DESCRIPTOR_NAME = "seccompFd"
_NUMBER_MAX = 1 << 20


class Listener(Record):
    """Who answers for the calls with SCMP_ACT_NOTIFY: the unix socket of the agent, and what it is told besides."""

    path: str
    metadata: str = ""


class Delivery:
    """What is needed to pass the listener of a process on. pid, pidfd: the process's; state: its container's."""

    __slots__ = ("_listener", "_pid", "_pidfd", "_state")

    def __init__(self, listener: Listener, pid: int, pidfd: int, state: "State") -> None:
        self._listener = listener
        self._pid = pid
        self._pidfd = pidfd
        self._state = state

    def take(self, init: channel.Channel, message: bytes) -> None:
        """Answer a LISTENER message. Raises Denied, Unavailable after killing init, whose calls nobody would answer."""
        try:
            self._pass_on(message[len(channel.LISTENER) :])
        except BaseException:
            process.pidfd_send_signal(self._pidfd, SIGKILL)
            raise
        try:
            init.send(channel.TAKEN)
        except BrokenPipeError:
            pass  # the agent has refused it a call already, and it has said so

    def _pass_on(self, number: bytes) -> None:
        if not number.isdigit() or not 0 <= int(number) < _NUMBER_MAX:
            raise Unavailable("filter with", "linux.seccomp", f"init named {number[:20]!r} as its listener")
        try:
            fd = process.pidfd_getfd(self._pidfd, int(number))
        except PermissionError:
            raise Denied(
                "filter with", "linux.seccomp", "taking the listener of SCMP_ACT_NOTIFY needs CAP_SYS_PTRACE",
                hint="run with that capability, or remove the rules with SCMP_ACT_NOTIFY",
            ) from None  # fmt: skip
        try:
            channel.send_descriptor(self._listener.path, fd, jsonio.dump(self._document()))
        finally:
            os.close(fd)

    def _document(self) -> dict[str, object]:
        state = self._state.to_json()
        document = {"ociVersion": self._state.oci_version, "fds": [_DESCRIPTOR_NAME], "pid": self._pid}
        if self._listener.metadata:
            document["metadata"] = self._listener.metadata
        return {**document, "state": state}


def listener_of(seccomp: "Seccomp") -> Listener:
    """Return who must be told. Raises Invalid when the agent's path is missing."""
    if not seccomp.listener_path.startswith("/"):
        cause = f"{seccomp.listener_path!r} is no absolute path" if seccomp.listener_path else "listenerPath is not set"
        raise Invalid(
            "read", "linux.seccomp.listenerPath", f"{cause}, and SCMP_ACT_NOTIFY needs an agent",
            hint="name the unix socket of the agent",
        )  # fmt: skip
    return Listener(path=seccomp.listener_path, metadata=seccomp.listener_metadata)
