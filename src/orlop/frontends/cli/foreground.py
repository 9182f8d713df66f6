"""Run something attached: one end of a socket pair goes with the request, the session is carried on the other.

The stream goes to the monitor, so the status arrives even when the engine is killed meanwhile; only when the monitor
is gone too is the (next) engine asked.
"""

from __future__ import annotations

import os
from _socket import AF_UNIX, SOCK_STREAM, socket, socketpair

from ...spec.errors import OrlopError, Unavailable
from ..native.client import Lost
from .flags import EXIT_USAGE, UsageError
from .session import Attachment, OutputClosed, Session, Signals, window_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..native.client import Engine
    from .command import Invocation


def check_terminal(*, terminal: bool, stdin: bool) -> None:
    """Raise UsageError when the process shall have a terminal that our standard input is not."""
    if terminal and stdin and not os.isatty(0):
        raise UsageError(
            "the input device is not a TTY",
            "leave -t away, or run the command on a terminal",
            EXIT_USAGE,
            shows_usage=False,
        )


def attachment(
    *, stdin: bool, stdout: bool, stderr: bool, terminal: bool, detach_keys: bytes, proxy_signals: bool
) -> Attachment:
    """Return what connects the chosen streams to our own descriptors 0, 1 and 2."""
    return Attachment(
        stdin=0 if stdin else None,
        stdout=1 if stdout else None,
        stderr=2 if stderr else None,
        terminal=terminal,
        detach_keys=detach_keys,
        proxy_signals=proxy_signals,
    )


def console_size(*, terminal: bool) -> dict[str, int] | None:
    """Return our window's size as the engine's verbs take it, None when no terminal is wanted or there is none."""
    size = window_size() if terminal else None
    return {"height": size[0], "width": size[1]} if size else None


def run_attached(
    engine: Engine,
    verb: str,
    args: dict[str, object],
    connected: Attachment,
    started: Callable[[dict[str, Any]], None] = lambda _: None,
) -> Session:
    """Call the verb with the far end of a stream, pass its result to `started`, carry the session, return its end.

    Raises the engine's error. When the engine dies before it replies but the process was started all the same, the
    session goes on and `started` is not called.
    """
    args = args | {"attached": True, "console_size": console_size(terminal=connected.terminal)}
    with Signals() as signals:
        ours, theirs = socketpair(AF_UNIX, SOCK_STREAM)

        def asked() -> object:
            try:
                return engine.call(verb, args, [theirs.fileno()])
            finally:
                theirs.close()

        return _carried(asked, ours, connected, signals, started)


def take_over(
    engine: Engine, stream: socket, connected: Attachment, started: Callable[[dict[str, Any]], None]
) -> Session:
    """Like `run_attached`, of a request that was sent with the far end of this stream, and has no reply yet."""
    with Signals() as signals:
        return _carried(lambda: engine.receive()[0], stream, connected, signals, started)


def _carried(
    ask: Callable[[], object],
    stream: socket,
    connected: Attachment,
    signals: Signals,
    started: Callable[[dict[str, Any]], None],
) -> Session:
    lost: Lost | None = None
    try:
        result = ask()
        started(result if isinstance(result, dict) else {})
    except Lost as wrong:
        lost = wrong  # the message may have gone through: then a monitor holds the far end, else it just closed
    except BaseException:
        stream.close()
        raise
    session = carry(stream, connected, signals)
    if lost is not None and not session.heard:
        raise lost
    return session


def carry(stream: socket, connected: Attachment, signals: Signals) -> Session:
    """Run a session on a connected stream to its end, and close the stream."""
    session = Session(stream, connected, signals)
    try:
        session.run()
    except OutputClosed:
        raise BrokenPipeError from None
    finally:
        stream.close()
    return session


def tell(
    invocation: Invocation, container: str, did: str, *, exec_id: str = "", size: tuple[int, int] = (0, 0)
) -> None:
    """Have the engine tell of what was done at our terminal; nobody misses it where there is none."""
    args: dict[str, object] = {"container": container, "did": did, "exec": exec_id}
    args["size"] = {"height": size[0], "width": size[1]}
    try:
        with invocation.connect(start=False) as engine:
            engine.call("containers.told", args)
    except OrlopError:
        return


def status_of(session: Session, invocation: Invocation, container: str) -> int:
    """Return the exit status of a session: the process's, 0 after a detach, 128+n when signal n ended us."""
    if session.exit_code is not None:
        return session.exit_code
    if session.detached:
        tell(invocation, container, "detach")
        return 0
    if session.interrupted:
        return 128 + session.interrupted
    return ask_status(invocation, container)


def status_of_exec(session: Session) -> int:
    """Like `status_of`, for an exec: nobody but its monitor knows how it ended."""
    if session.lost:
        raise Unavailable("learn", "how the command ended", "its monitor is gone", hint="look inside: orlop ps -a")
    return 0 if session.detached else session.exit_code or 128 * bool(session.interrupted) + session.interrupted


def ask_status(invocation: Invocation, container: str) -> int:
    """Return the exit status that the engine knows of a container whose monitor told us none."""
    if not container:
        raise Unavailable(
            "learn",
            "how the container ended",
            "the engine and the monitor are both gone",
            hint="look for it with: orlop ps -a",
        )
    with invocation.connect() as engine:
        result = engine.call("containers.wait", {"container": container, "condition": "exited"})
    code = result.get("exit_code") if isinstance(result, dict) else None
    return code & 0xFF if isinstance(code, int) else 255


def wait_until_removed(invocation: Invocation, engine: Engine, container: str) -> None:
    """Return when a container that ended is gone, or when nobody can tell any more.

    engine: the connection of the start; when its engine died meanwhile the next one is asked, which removes it.
    """
    wanted: dict[str, object] = {"container": container, "condition": "removed"}
    try:
        engine.call("containers.wait", wanted)
    except Lost:
        try:
            with invocation.connect() as successor:
                successor.call("containers.wait", wanted)
        except OrlopError:
            return
    except OrlopError:
        return
