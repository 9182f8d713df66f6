"""Init: what runs between clone3 and execve, in the container's namespaces.

Rules (I5, SEC-01 to SEC-05): from the first operation on there is no import, no NSS, no codec but UTF-8 and ASCII; it
is not dumpable, so no process of the container can trace it, open its descriptors or its /proc/PID/exe; everything
but 0, 1 and 2 is close-on-exec; it never returns into the caller's frames.
"""

from __future__ import annotations

import gc
import os

from ..linux import abi, process, signals
from ..spec.errors import Internal, Invalid, OrlopError, Unavailable
from . import channel
from .operations import Init
from .operations.process import execute

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from .channel import Channel
    from .operations import Operation, Outside
    from .plan import Plan

_FAILED = 1


def run(plan: Plan, outside: Outside, stdio: tuple[int, ...], caller: Channel) -> NoReturn:
    """Run the plan and execute its command. Ends the process in every case."""
    try:
        # A collection would touch every page of the heap that is shared with the caller.
        gc.disable()
        signals.reset_all()
        os.umask(0)
        if plan.pid_path or outside.target >= 0:
            process.wipe_environment()  # who lives there and may trace could read it
        init = Init(outside, caller, stdio)
        process.close_all_except({caller.fileno(), init.root, init.target, *stdio, *outside.sources.values()})
        caller.expect(channel.PREPARED)
        process.prctl(process.PR_SET_DUMPABLE, 0)
        _act(plan.operations, init)
        process.close_range(3, flags=process.CLOSE_RANGE_CLOEXEC)
        caller.send(channel.READY, init.terminal[0] if init.terminal else -1)
        caller.expect(channel.START)
        _act(plan.last, init)
        caller.send_failure(execute(init.program, plan.command, init.reaper))
    except OrlopError as failure:
        caller.send_failure(failure)
    except BaseException as defect:
        caller.send_failure(Internal("start", "the container", f"init failed: {defect!r}"), trace_of(defect))
    finally:
        os._exit(_FAILED)


def _act(operations: tuple[Operation, ...], init: Init) -> None:
    for operation in operations:
        try:
            operation.act(init)
        except OSError as failure:
            raise refused(operation, failure) from None


def refused(operation: Operation, failure: OSError) -> OrlopError:
    """Return the error of an operation that the kernel refused: what was to be done, and the kernel's words."""
    verb, _, subject = operation.describe().partition(" ")
    cause = failure.strerror or abi.strerror(failure.errno)
    kind = Invalid if failure.errno in operation.mistakes else Unavailable
    return kind(verb, subject, f"{cause} ({failure.filename})" if failure.filename else cause)


def trace_of(defect: BaseException) -> str:
    """Return the frames of a traceback; `traceback` itself would read source files, here the container's."""
    lines = []
    frame = defect.__traceback__
    while frame is not None:
        code = frame.tb_frame.f_code
        lines.append(f"{code.co_filename}:{frame.tb_lineno} in {code.co_name}")
        frame = frame.tb_next
    return "\n".join(lines)
