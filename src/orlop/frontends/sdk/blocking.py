"""The synchronous client: the operations of `operations`, each driven to its end at once."""

from __future__ import annotations

from contextlib import contextmanager

from .operations import AsyncContainer, AsyncEngine
from .transport import drive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping
    from contextlib import AbstractAsyncContextManager
    from typing import Any, Self, TypeVar, Unpack

    from .transport import Transport
    from .values import Completed, Options, Output

    T = TypeVar("T")
    Object = dict[str, Any]


def iterate(source: AsyncIterator[T]) -> Iterator[T]:
    """Yield what an asynchronous iterator over a Blocking transport yields."""
    try:
        while True:
            try:
                yield drive(_next(source))
            except StopAsyncIteration:
                return
    finally:
        drive(source.aclose())  # type: ignore[attr-defined]  # they are generators


async def _next(source: AsyncIterator[T]) -> T:
    return await source.__anext__()


@contextmanager
def _within(context: AbstractAsyncContextManager[T]) -> Iterator[T]:
    value = drive(context.__aenter__())
    try:
        yield value
    except BaseException as wrong:
        if not drive(context.__aexit__(type(wrong), wrong, wrong.__traceback__)):
            raise
    else:
        drive(context.__aexit__(None, None, None))


class Container:
    """A container that there is, or was. id is whole. Its operations are AsyncContainer's."""

    def __init__(self, source: AsyncContainer) -> None:
        self._source = source
        self.id = source.id

    def inspect(self) -> Object:
        """Return docker's object of it."""
        return drive(self._source.inspect())

    def start(self) -> None:
        drive(self._source.start())

    def stop(self, timeout_s: int | None = None) -> None:
        drive(self._source.stop(timeout_s))

    def kill(self, signal: str = "KILL") -> None:
        drive(self._source.kill(signal))

    def pause(self) -> None:
        drive(self._source.pause())

    def unpause(self) -> None:
        drive(self._source.unpause())

    def wait(self) -> int:
        """Wait until it does not run; return its exit code."""
        return drive(self._source.wait())

    def remove(self, *, force: bool = False, volumes: bool = True) -> None:
        drive(self._source.remove(force=force, volumes=volumes))

    def logs(self, *, follow: bool = False, tail: int | None = None) -> Iterator[Output]:
        """Yield what it said, and with follow what it says until it ends."""
        return iterate(self._source.logs(follow=follow, tail=tail))

    def exec(self, *args: str, input: bytes = b"", user: str = "", check: bool = True) -> Completed:
        """Run one more command in it. Raises CommandError for another status than 0 when check."""
        return drive(self._source.exec(*args, input=input, user=user, check=check))

    def ports(self) -> Mapping[str, list[tuple[str, int]]]:
        """Return where its published ports are: {"80/tcp": [("0.0.0.0", 32768)]}."""
        return drive(self._source.ports())


class Engine:
    """One engine. A context manager, which closes the connections; what was made stays unless it is tied or scoped."""

    def __init__(self, transport: Transport, *, tied: bool = False) -> None:
        self._source = AsyncEngine(transport, tied=tied)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._source.close()

    def info(self) -> Object:
        """Return docker's object of the engine and its machine."""
        return drive(self._source.info())

    def run(
        self, image: str, *args: str, input: bytes = b"", check: bool = True, **options: Unpack[Options]
    ) -> Completed:
        """Run a command in a new container, remove it, and return what it said: `orlop run --rm -i IMAGE ARGS`.

        Raises CommandError for another status than 0 when check, and the engine's errors.
        """
        return drive(self._source.run(image, *args, input=input, check=check, **options))

    def create(self, image: str, *args: str, **options: Unpack[Options]) -> Container:
        """Make a container, and do not start it."""
        return Container(drive(self._source.create(image, *args, **options)))

    @contextmanager
    def running(self, image: str, *args: str, **options: Unpack[Options]) -> Iterator[Container]:
        """A container that runs as long as the context lasts, and is gone after it."""
        with _within(self._source.running(image, *args, **options)) as container:
            yield Container(container)

    def container(self, name: str) -> Container:
        """Return the container of that name or id. Raises NotFound."""
        return Container(drive(self._source.container(name)))

    def containers(self, *, all: bool = False, **filters: str) -> list[Object]:
        """Return docker's summaries of the containers that run, or of all. filters: label="a=b", name="x" ..."""
        return drive(self._source.containers(all=all, **filters))

    def images(self) -> list[Object]:
        return drive(self._source.images())

    def pull(self, image: str) -> Iterator[Object]:
        """Pull an image; yield docker's messages of how far it is."""
        return iterate(self._source.pull(image))

    def events(self, **filters: str) -> Iterator[Object]:
        """Return an iterator of what happens from now on, as docker's objects, until it is closed."""
        return iterate(self._source.events(**filters))

    @contextmanager
    def volume(self, name: str = "") -> Iterator[str]:
        """A volume that is there as long as the context lasts; its name."""
        with _within(self._source.volume(name)) as made:
            yield made

    @contextmanager
    def network(self, name: str) -> Iterator[str]:
        """A network that is there as long as the context lasts; its id."""
        with _within(self._source.network(name)) as made:
            yield made
