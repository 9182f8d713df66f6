"""OCI hooks: programs of the user's that run at six points of a container's life, with its state on standard input.

    prestart, createRuntime  in the caller's namespaces, before pivot_root      launch
    createContainer          in the container's namespaces, before pivot_root   init
    startContainer           in the container, right before its command         init
    poststart                in the caller's namespaces, after the command began  launch
    poststop                 in the caller's namespaces, after the end            whoever reaps the container

Source: config.md, "POSIX-platform Hooks"; runtime.md, "State". posix_spawn and not `subprocess`: this runs in init too.
"""

from __future__ import annotations

import os
import select
import time

from ..linux import process
from ..linux.signals import SIGKILL
from ..spec import jsonio
from ..spec.errors import Invalid, Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..spec.runtime import Hook, State

OUTPUT_BYTES_SHOWN = 1024
_POLL_S_MAX = 1_000_000  # poll(2) takes an int of milliseconds: 24 days


def run(hooks: Sequence[Hook], point: str, state: State) -> None:
    """Run the hooks in order. point names them in errors ("createRuntime").

    Raises Unavailable for the first that can't be run, fails or takes longer than its timeout; it is killed then.
    """
    document = jsonio.dump(state.to_json())
    for index, hook in enumerate(hooks):
        _run(hook, f"{point} hook {index} ({hook.path})", document)


def check(hooks: Sequence[Hook], point: str) -> None:
    """Raises Invalid for a hook that the specification forbids."""
    for index, hook in enumerate(hooks):
        if not hook.path.startswith("/"):
            raise Invalid("read", f"hooks.{point}[{index}].path", f"{hook.path!r} is not an absolute path")
        if hook.timeout is not None and hook.timeout <= 0:
            raise Invalid("read", f"hooks.{point}[{index}].timeout", f"{hook.timeout} is not above 0")
        if hook.args and not hook.args[0]:
            raise Invalid("read", f"hooks.{point}[{index}].args[0]", "the name that a program gets can't be empty")
        for variable in hook.env:
            name, equals, _ = variable.partition("=")
            if not name or not equals:
                raise Invalid("read", f"hooks.{point}[{index}].env", f"{variable[:80]!r} is not NAME=value")
        for field, texts in (("path", (hook.path,)), ("args", hook.args), ("env", hook.env)):
            _check_encoding(texts, f"hooks.{point}[{index}].{field}")


def _check_encoding(texts: Sequence[str], field: str) -> None:
    try:
        os.fsencode("".join(texts))
    except UnicodeEncodeError:
        raise Invalid("read", field, "it is not UTF-8") from None


def _run(hook: Hook, subject: str, document: bytes) -> None:
    # Memory files instead of pipes: a hook that reads nothing, or prints much, blocks nobody.
    given, printed = os.memfd_create("state"), os.memfd_create("output")
    try:
        os.write(given, document)
        os.lseek(given, 0, os.SEEK_SET)
        code = _spawn_and_wait(hook, subject, given, printed)
        if code != 0:
            os.lseek(printed, 0, os.SEEK_SET)
            said = os.read(printed, OUTPUT_BYTES_SHOWN).decode(errors="replace").strip()
            ending = f"exited with {code}" if code > 0 else f"was killed by signal {-code}"
            raise Unavailable("run", subject, f"it {ending}" + (f" and said: {said}" if said else ""))
    finally:
        os.close(given)
        os.close(printed)


def _spawn_and_wait(hook: Hook, subject: str, given: int, printed: int) -> int:
    streams = [(os.POSIX_SPAWN_DUP2, given, 0), (os.POSIX_SPAWN_DUP2, printed, 1), (os.POSIX_SPAWN_DUP2, printed, 2)]
    environment = dict(variable.split("=", 1) for variable in hook.env)
    try:
        pid = os.posix_spawn(hook.path, hook.args or (hook.path,), environment, file_actions=streams, setsid=True)
    except OSError as failure:
        raise Unavailable("run", subject, failure.strerror or str(failure)) from None
    pidfd = process.pidfd_open(pid)
    try:
        ended = _wait(pidfd, hook.timeout)
        if not ended:
            os.killpg(pid, SIGKILL)
        code = os.waitstatus_to_exitcode(process.wait_pidfd(pidfd))
    finally:
        os.close(pidfd)
    if not ended:
        raise Unavailable("run", subject, f"it took longer than {hook.timeout} s", hint="raise its timeout")
    return code


def _wait(pidfd: int, timeout_s: int | None) -> bool:
    """Return whether the process ends in time."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    if timeout_s is None:
        return bool(poll.poll())
    deadline = time.monotonic() + timeout_s
    while (left := deadline - time.monotonic()) > 0:
        if poll.poll(min(left, _POLL_S_MAX) * 1000):
            return True
    return bool(poll.poll(0))
