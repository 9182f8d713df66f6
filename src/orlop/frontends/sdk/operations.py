"""Every operation of the library, once: coroutines over a Transport; with a Looping one, the asynchronous client.

What `running`, `volume` and `network` make is removed when their context ends, also when it ends by an exception or a
cancellation. What a client that is `tied` makes is marked, and the engine removes it when this process is gone.
"""

from __future__ import annotations

import socket
import time
from contextlib import asynccontextmanager
from functools import partial

from ...spec import attach, jsonio
from ...spec.errors import NotFound
from .values import OWNER_LABEL, CommandError, Completed, Options, Output, request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
    from typing import Any, Self, TypeVar, Unpack

    from .transport import Transport

    T = TypeVar("T")

    Object = dict[str, Any]

_STREAMS = {attach.STDOUT: "stdout", attach.STDERR: "stderr"}


class AsyncContainer:
    """A container that there is, or was. id is whole."""

    def __init__(self, transport: Transport, container_id: str) -> None:
        self._transport = transport
        self.id = container_id

    async def _call(self, verb: str, **args: object) -> Any:
        return await self._transport.call(f"containers.{verb}", {"container": self.id, **args})

    async def inspect(self) -> Object:
        """Return docker's object of it."""
        return _object(await self._call("inspect"))

    async def start(self) -> None:
        await self._call("start", attached=False)

    async def stop(self, timeout_s: int | None = None) -> None:
        await self._call("stop", timeout_s=timeout_s)

    async def kill(self, signal: str = "KILL") -> None:
        await self._call("kill", signal=signal)

    async def pause(self) -> None:
        await self._call("pause")

    async def unpause(self) -> None:
        await self._call("unpause")

    async def wait(self) -> int:
        """Wait until it does not run; return its exit code."""
        return int((await self._call("wait", condition="exited"))["exit_code"])

    async def remove(self, *, force: bool = False, volumes: bool = True) -> None:
        await self._call("remove", force=force, volumes=volumes)

    async def logs(self, *, follow: bool = False, tail: int | None = None) -> AsyncIterator[Output]:
        """Yield what it said, and with follow what it says until it ends."""
        wanted = {"container": self.id, "follow": follow, "tail": tail}
        stream = await self._transport.open("containers.logs", wanted)
        with stream:
            async for kind, payload in _frames(self._transport, stream):
                if kind in _STREAMS:
                    yield Output(_STREAMS[kind], payload)

    async def exec(self, *args: str, input: bytes = b"", user: str = "", check: bool = True) -> Completed:
        """Run one more command in it. Raises CommandError for another status than 0 when check."""
        wish = {"args": list(args), "user": user, "openStdin": bool(input)}
        asked: Object = {"container": self.id, "request": wish}
        return _checked(args, (await _attached(self._transport, "containers.exec", asked, input))[1], check)

    async def ports(self) -> Mapping[str, list[tuple[str, int]]]:
        """Return where its published ports are: {"80/tcp": [("0.0.0.0", 32768)]}."""
        found = (await self.inspect())["NetworkSettings"]["Ports"]
        return {port: [(one["HostIp"], int(one["HostPort"])) for one in places or ()] for port, places in found.items()}


class AsyncEngine:
    """One engine. A context manager, which closes the connections; what was made stays unless it is tied or scoped."""

    def __init__(self, transport: Transport, *, tied: bool = False) -> None:
        self._transport = transport
        self._tied = tied
        self._labels: dict[str, str] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._transport.close()

    async def _owned(self) -> dict[str, str]:
        """Return the labels that tie what is made to this process."""
        if self._tied and not self._labels:
            claimed = _object(await self._transport.call("owners.claim", {}))
            self._labels = {OWNER_LABEL: claimed["owner"]}
        return self._labels

    async def info(self) -> Object:
        """Return docker's object of the engine and its machine."""
        return _object(await self._transport.call("engine.info", {}))

    # -- containers -----------------------------------------------------------------------------------------------

    async def run(
        self, image: str, *args: str, input: bytes = b"", check: bool = True, **options: Unpack[Options]
    ) -> Completed:
        """Run a command in a new container, remove it, and return what it said: `orlop run --rm -i IMAGE ARGS`.

        Raises CommandError for another status than 0 when check, and the engine's errors.
        """
        wish = request(image, args, options, await self._owned()).replace(
            auto_remove=True, open_stdin=bool(input), stdin_once=bool(input)
        )
        asked: Object = {"request": wish.to_json()}
        made, completed = await _attached(self._transport, "containers.run", asked, input)
        # The end is known before the removal is done: whoever goes on sees neither the container nor its volumes' use.
        wanted: Object = {"container": made["id"], "condition": "removed"}
        await _gone(self._transport.call("containers.wait", wanted))
        return _checked((image, *args), completed, check)

    async def create(self, image: str, *args: str, **options: Unpack[Options]) -> AsyncContainer:
        """Make a container, and do not start it."""
        wish = request(image, args, options, await self._owned())
        made = _object(await self._transport.call("containers.create", {"request": wish.to_json()}))
        return AsyncContainer(self._transport, made["id"])

    @asynccontextmanager
    async def running(self, image: str, *args: str, **options: Unpack[Options]) -> AsyncIterator[AsyncContainer]:
        """A container that runs as long as the context lasts, and is gone after it."""
        made: list[AsyncContainer] = []
        create = partial(self.create, image, *args, **options)
        try:
            await self._transport.whole(_kept(made, create()))
            await made[0].start()
            yield made[0]
        finally:
            for container in made:
                await self._transport.whole(_gone(container.remove(force=True)))

    async def container(self, name: str) -> AsyncContainer:
        """Return the container of that name or id. Raises NotFound."""
        found = _object(await self._transport.call("containers.inspect", {"container": name}))
        return AsyncContainer(self._transport, found["Id"])

    async def containers(self, *, all: bool = False, **filters: str) -> list[Object]:
        """Return docker's summaries of the containers that run, or of all. filters: label="a=b", name="x" ..."""
        wanted = {key: [value] for key, value in filters.items()}
        return _objects(await self._transport.call("containers.list", {"all": all, "filters": wanted}))

    # -- everything else ------------------------------------------------------------------------------------------

    async def images(self) -> list[Object]:
        return _objects(await self._transport.call("images.list", {"filters": {}}))

    async def pull(self, image: str) -> AsyncIterator[Object]:
        """Pull an image; yield docker's messages of how far it is. Raises the engine's errors, also in the middle."""
        stream = await self._transport.open("images.pull", {"request": {"image": image}})
        with stream:
            async for message in _messages(self._transport, stream):
                yield message

    def events(self, **filters: str) -> AsyncIterator[Object]:
        """Return an iterator of what happens from now on, as docker's objects, until it is closed."""
        wanted = {key: [value] for key, value in filters.items()}
        return self._events({"filters": wanted, "since_ns": time.time_ns()})  # not only from the first look on

    async def _events(self, wanted: Object) -> AsyncIterator[Object]:
        stream = await self._transport.open("engine.events", wanted)
        left = b""
        with stream:
            while data := await self._transport.receive(stream):
                *lines, left = (left + data).split(b"\n")
                for line in lines:
                    if line:
                        yield jsonio.parse_object(line, "an event")

    @asynccontextmanager
    async def volume(self, name: str = "") -> AsyncIterator[str]:
        """A volume that is there as long as the context lasts; its name."""
        wish: Object = {"name": name, "labels": await self._owned()}
        made: list[object] = []
        try:
            await self._transport.whole(_kept(made, self._transport.call("volumes.create", {"request": wish})))
            yield _object(made[0])["name"]
        finally:
            for one in made:
                removal = self._transport.call("volumes.remove", {"volume": _object(one)["name"], "force": True})
                await self._transport.whole(_gone(removal))

    @asynccontextmanager
    async def network(self, name: str) -> AsyncIterator[str]:
        """A network that is there as long as the context lasts; its id."""
        wish: Object = {"name": name, "labels": await self._owned()}
        made: list[object] = []
        try:
            await self._transport.whole(_kept(made, self._transport.call("networks.create", {"request": wish})))
            yield _object(made[0])["id"]
        finally:
            for one in made:
                removal = self._transport.call("networks.remove", {"network": _object(one)["id"]})
                await self._transport.whole(_gone(removal))


async def _kept(made: list[T], creation: Coroutine[Any, Any, T]) -> None:
    """Put what a creation makes where it is found also by whoever was cancelled meanwhile."""
    made.append(await creation)


async def _gone(removal: Coroutine[Any, Any, object]) -> None:
    """Remove what may be gone already."""
    try:
        await removal
    except NotFound:
        pass


async def _attached(transport: Transport, verb: str, args: Object, input: bytes) -> tuple[Object, Completed]:
    """Start a command with its streams on a socket pair, give it input, and collect what it says until it ends.

    Returns what the verb returned, too.
    """
    ours, theirs = socket.socketpair()
    with ours:
        try:
            made = await transport.call(verb, {**args, "attached": True}, [theirs.fileno()])
        finally:
            theirs.close()
        return _object(made), await _collect(transport, ours, input)


def _checked(args: Sequence[str], completed: Completed, check: bool) -> Completed:
    if check and completed.exit_code:
        raise CommandError(args, completed)
    return completed


async def _collect(transport: Transport, stream: socket.socket, input: bytes) -> Completed:
    said = {attach.STDOUT: bytearray(), attach.STDERR: bytearray()}
    waiting = memoryview(input)
    code = 255  # without a last frame: nobody knows
    window = attach.WINDOW_BYTES
    waiting, window = await _type(transport, stream, waiting, window, bool(input))
    async for kind, payload in _frames(transport, stream):
        if kind in said:
            said[kind] += payload
        elif kind == attach.TAKEN and waiting:
            window += int.from_bytes(payload, "big")
            waiting, window = await _type(transport, stream, waiting, window, True)
        elif kind == attach.EXIT:
            code = int(str(jsonio.parse_object(payload, "an exit record").get("exitCode", code)))
    return Completed(code, bytes(said[attach.STDOUT]), bytes(said[attach.STDERR]))


async def _type(
    transport: Transport, stream: socket.socket, waiting: memoryview, window: int, open: bool
) -> tuple[memoryview, int]:
    """Send as much input as the monitor's window has room for, and its end behind the last; return what is left."""
    try:
        while waiting and window > 0:
            size = min(len(waiting), window, attach.PAYLOAD_BYTES_MAX)
            await transport.send(stream, attach.frame(attach.STDIN, bytes(waiting[:size])))
            waiting, window = waiting[size:], window - size
        if open and not waiting:
            await transport.send(stream, attach.frame(attach.STDIN))
    except OSError:
        pass  # it has ended, and its last frames may still be there
    return waiting, window


async def _frames(transport: Transport, stream: socket.socket) -> AsyncIterator[tuple[int, bytes]]:
    decoder = attach.Decoder()
    while data := await _received(transport, stream):
        for frame in decoder.feed(data):
            yield frame


async def _received(transport: Transport, stream: socket.socket) -> bytes:
    try:
        return await transport.receive(stream)
    except ConnectionError:
        return b""


async def _messages(transport: Transport, stream: socket.socket) -> AsyncIterator[Object]:
    """Yield the messages behind a reply until the result. Raises the error that comes instead."""
    from ...spec import errors

    data = b""
    while piece := await transport.receive(stream):
        data += piece
        while len(data) >= 4 and len(data) >= 4 + (size := int.from_bytes(data[:4], "big")):
            value = jsonio.parse_object(data[4 : 4 + size], "a message")
            data = data[4 + size :]
            if "error" in value:
                raise errors.from_json(value["error"])
            if "result" in value:
                return
            yield _object(value.get("message"))


def _object(value: object) -> Object:
    return value if isinstance(value, dict) else {}


def _objects(value: object) -> list[Object]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
