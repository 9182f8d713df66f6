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

from ..linux import process
from ..linux.signals import SIGKILL
from ..spec import jsonio
from ..spec.errors import Invalid, Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..spec.runtime import Hook, State

OUTPUT_BYTES_SHOWN = 1024


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
        for variable in hook.env:
            if not variable.partition("=")[1]:
                raise Invalid("read", f"hooks.{point}[{index}].env", f"{variable!r} is not NAME=value")


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
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        ended = poll.poll(None if hook.timeout is None else hook.timeout * 1000)
        if not ended:
            os.killpg(pid, SIGKILL)
        code = os.waitstatus_to_exitcode(process.wait_pidfd(pidfd))
    finally:
        os.close(pidfd)
    if not ended:
        raise Unavailable("run", subject, f"it took longer than {hook.timeout} s", hint="raise its timeout")
    return code
