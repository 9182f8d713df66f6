"""The gate's inside: init listens, and waits for `start`."""

import os
from _socket import AF_UNIX, socket

from .. import channel
from ..gate import SOCKET_FLAGS, Inside
from . import Operation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from . import Init, Outside


class AwaitStart(Operation):
    """Wait for `start`. directory: where the socket `name` is made."""

    directory: str
    name: str
    subject = "process"

    def describe(self) -> str:
        return "wait for the call of start"

    def call(self) -> str:
        return f"accept({self.directory}/{self.name})"

    def prepare(self, outside: "Outside") -> None:
        listener = socket(AF_UNIX, SOCKET_FLAGS)
        try:
            with Inside(self.directory) as directory:
                listener.bind(f"/proc/self/fd/{directory}/{self.name}")
            listener.listen(1)
            outside.keep(self, os.dup(listener.fileno()))
        finally:
            listener.close()

    def act(self, init: "Init") -> None:
        listener = socket(fileno=init.source(self))
        init.caller.close()
        fd, _ = listener._accept()  # type: ignore[attr-defined]  # the method behind socket.accept
        listener.close()
        init.caller.reopen(socket(fileno=fd))
        try:
            init.caller.send(channel.ENTERED)
        except OSError:
            pass  # it has gone; the container was started all the same
