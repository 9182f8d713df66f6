"""One call of a verb: the shape of its arguments, what came along, what goes back."""

import fcntl
import os
import stat

from ....engine.containers.lifecycle import Client
from ....engine.engine import Engine
from ....spec.errors import Invalid
from ....spec.record import Record
from ....spec.runtime import Box

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any


class Args(Record):
    """The arguments of a verb. Their JSON names are the fields' own, and an unknown one is an error."""

    strict = True

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.json_names = {name: name for name in cls._fields}


class Nothing(Args):
    pass


class Call:
    """One call of a verb. fds: what came along; they are closed after the call. hangup: the client's connection.

    stop: ends the engine.
    """

    __slots__ = ("args", "engine", "fds", "hangup", "stop")

    def __init__(
        self, engine: Engine, args: dict[str, object], fds: list[int], hangup: int, stop: "Callable[[], None]"
    ) -> None:
        self.engine = engine
        self.args = args
        self.fds = fds
        self.hangup = hangup
        self.stop = stop

    def client(self, verb: str, *, attached: bool, size: Box | None) -> Client:
        """Return who asked for a start. Raises Invalid unless exactly the promised descriptor came along."""
        return Client(self.only_fd(verb, "an attach stream", stat.S_ISSOCK) if attached else None, size)

    def only_fd(self, verb: str, what: str, is_right: "Callable[[int], bool] | None" = None) -> int:
        """Return the one descriptor that came along. It is closed after the call."""
        if len(self.fds) != 1:
            raise Invalid("do", verb, f"{what} has to come with it, and {len(self.fds)} descriptors came")
        if is_right is not None and not is_right(os.fstat(self.fds[0]).st_mode):
            raise Invalid("do", verb, f"the descriptor that came with it is not {what}")
        return self.fds[0]

    def archive(self, verb: str) -> int:
        """Return the one descriptor that came along, from which an archive can be read. It is closed after the call."""
        fd = self.only_fd(verb, "an archive", _is_stream)
        if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY:
            raise Invalid("do", verb, "the descriptor that came with it can only be written to")
        return fd


def _is_stream(mode: int) -> bool:
    return any(is_one(mode) for is_one in (stat.S_ISREG, stat.S_ISFIFO, stat.S_ISSOCK, stat.S_ISCHR))


class Reply:
    """result: JSON. fds: sent with it and then closed. stream: sent after it, and then the connection ends."""

    __slots__ = ("fds", "result", "stream")

    def __init__(self, result: object, fds: "Sequence[int]" = (), stream: "Iterator[bytes] | None" = None) -> None:
        self.result = result
        self.fds = fds
        self.stream = stream


class Verb:
    """lasts: whether a call may go on for as long as a container lives."""

    __slots__ = ("_args", "_function", "lasts")

    def __init__(self, args: type[Args], function: "Callable[[Call, Any], object]", *, lasts: bool = False) -> None:
        self._args = args
        self._function = function
        self.lasts = lasts

    def call(self, call: Call) -> Reply:
        result = self._function(call, self._args.from_json(call.args, "the arguments"))
        return result if isinstance(result, Reply) else Reply(result)
