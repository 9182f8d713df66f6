"""`build shell`: a command in the tree of a step, before or after it, with the step's variables, user and mounts.

The step that failed is entered in the very tree where it failed, and what is changed there stays until the build is
forgotten. Every other step is entered in a copy that goes with the shell.
"""

from __future__ import annotations

from orlop.engine.steps.run import Command, start_attached
from orlop.engine.steps.workspace import Workspace
from orlop.spec.digest import Digest
from orlop.spec.errors import NotFound

from . import history

TYPE_CHECKING = False
if TYPE_CHECKING:
    from orlop.engine.containers.lifecycle import Client
    from orlop.engine.engine import Engine

    from .replay import Entered

SHELL = ("/bin/sh",)


def shell(engine: Engine, place: str, command: Command, client: Client, entered: Entered) -> None:
    """Start a command in a step. place: BUILD[@[step]NUMBER[-before|-after]]; the step that failed, or the last, by
    default. entered: gives the step's mounts, and is closed in the end. Raises NotFound, Invalid, CommandFailed.
    """
    try:
        _start(engine, place, command, client, entered)
    except BaseException:
        entered.close()
        raise


def _start(engine: Engine, place: str, command: Command, client: Client, entered: Entered) -> None:
    reference, _, text = place.partition("@")
    record = history.find(engine, reference)
    number, _, when = text.removeprefix("step").partition("-")
    step = _step(record, number)
    if when not in ("", "before", "after"):
        raise _no_step(record, text)
    command.argv, command.env, command.cwd = command.argv or SHELL, step.env, step.cwd or "/"
    command.user = step.user
    command.request = command.request.replace(open_stdin=True, network=step.network)
    if step.state == "failed" and when != "before":
        if not record.kept:
            raise NotFound(
                "enter", f"step {step.number}", f"the tree of step {step.number} was not kept", hint="build again"
            )
        space = Workspace(engine, (), record.kept)
        command.mounts, variables = entered.mounts(step, space)
        command.env = (*step.env, *variables)
        start_attached(engine, space, command, client, entered.close)
        return
    chain = step.base if when == "before" else step.after
    key = _prepared(engine, chain, step)
    space = Workspace(engine, (), key)

    def left() -> None:
        entered.close()
        space.discard()

    try:
        command.mounts, variables = entered.mounts(step, space)
        command.env = (*step.env, *variables)
        start_attached(engine, space, command, client, left)
    except BaseException:
        space.discard()
        raise


def _prepared(engine: Engine, chain: str, step: history.StepRecord) -> str:
    from orlop.engine.containers import names

    key = names.new_id()
    try:
        engine.snapshots.prepare(key, Digest(chain) if chain else None)
    except NotFound:
        cause = "what it made is gone"
        raise NotFound("enter", f"step {step.number}", cause, hint="build again: the cache was pruned") from None
    return key


def _step(record: history.BuildRecord, number: str) -> history.StepRecord:
    if not number:
        wanted = record.failed_step or max((step.number for step in record.steps), default=0)
    elif number.isascii() and number.isdigit() and len(number) < 8:
        wanted = int(number)
    else:
        raise _no_step(record, number)
    for step in record.steps:
        if step.number == wanted:
            return step
    raise _no_step(record, number)


def _no_step(record: history.BuildRecord, text: str) -> NotFound:
    hint = f"see its steps with: orlop builder ls {record.id}"
    return NotFound("enter", f"build {record.id}", f"the build {record.id} has no step {text[:40]!r}", hint=hint)
