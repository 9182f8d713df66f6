"""`orlop why`: why a container ended, or why it does not run.

What is known comes from four places: the exit record (the monitor's), the engine's journal (who asked for what), the
kernel's log (whom the OOM killer took; it is a ring, and old lines are gone) and the last lines of the output.
The first rule that fits says why; each says which facts it rests on, so that nobody has to believe it.
"""

from __future__ import annotations

import os
import time

from ...snapshot import lent
from ...spec import catalog, errors, signals
from ...spec.digest import Digest
from ...spec.task import LOG_SHIPPED_FILE, TIMEOUT
from ...supervise import logread, logship
from .. import strict
from ..containers import removal, state
from ..containers.inspect import duration, unix_time
from ..journal import BY
from . import health, unhealthy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from ...spec.task import ExitRecord
    from ..containers.record import ContainerRecord
    from ..containers.state import Task
    from ..engine import Engine

    Event = dict[str, Any]

LAST_LINES = 5
LINE_LENGTH_MAX = 300
JOURNAL_SLACK_NS = 30 * 10**9  # a verb is told after it was done
_KERNEL_LOG_BYTES_MAX = 8 * 1024
_SIGNAL_BASE = 128
_MISSING_LIBRARY = "error while loading shared libraries: "

# Exit statuses that mean something to those who chose them: shells, docker, sysexits.h.
_STATUSES = {
    1: "the program reported a failure",
    2: "the program did not understand how it was called, or a shell met a syntax error",
    64: "EX_USAGE: it was called wrongly",
    65: "EX_DATAERR: its input is not right",
    66: "EX_NOINPUT: an input file is missing",
    69: "EX_UNAVAILABLE: something that it needs is not there",
    70: "EX_SOFTWARE: a defect of the program",
    71: "EX_OSERR: the operating system refused something",
    73: "EX_CANTCREAT: it can't make a file",
    74: "EX_IOERR: reading or writing failed",
    77: "EX_NOPERM: it lacks a permission",
    78: "EX_CONFIG: its configuration is not right",
    126: "a shell found a command that can't be executed",
    127: "a shell did not find a command",
}
_SIGNALS = {
    "SIGABRT": "the program gave up by itself, after an assertion or a corrupted heap",
    "SIGBUS": "it touched memory whose file is gone or full (a small --shm-size, for instance)",
    "SIGFPE": "it divided by zero",
    "SIGILL": "it met an instruction that this processor does not have",
    "SIGSEGV": "it touched memory that is not its own: a defect of the program",
    "SIGSYS": "a seccomp filter kills a system call that it made",
    "SIGXCPU": "it used more processor time than its limit (--ulimit cpu)",
    "SIGXFSZ": "it wrote a larger file than its limit (--ulimit fsize)",
}


class Answer:
    """verdict: one word for programs. summary: one clause. facts: what it rests on. remedy: the next step, or ""."""

    __slots__ = ("facts", "remedy", "summary", "verdict")

    def __init__(self, verdict: str, summary: str, remedy: str = "", facts: tuple[str, ...] = ()) -> None:
        self.verdict = verdict
        self.summary = summary
        self.remedy = remedy
        self.facts = facts


def answer(engine: Engine, reference: str) -> dict[str, object]:
    """Return why a container is as it is. Raises NotFound."""
    record = engine.records.find(reference)
    task = engine.observe(record.id)
    found = _of(engine, record, task)
    ended = task.exit
    return {
        "id": record.id,
        "name": record.name,
        "state": task.state,
        "exit_code": removal.exit_code(task, record),
        "finished_at": ended.finished_at if ended is not None else "",
        "verdict": found.verdict,
        "summary": found.summary,
        "facts": [*found.facts, *_confined(record, task), *_partial(engine, record, task), *_unshipped(engine, record)],
        "remedy": found.remedy,
        "last_output": _last_output(engine, record),
    }


def _of(engine: Engine, record: ContainerRecord, task: Task) -> Answer:
    if record.start_error and not task.is_up:
        return _failed_start(record)
    if task.status is None or (task.exit is None and not task.lives):
        return Answer("never-started", "it was never started", f"start it with: orlop start {record.name}")
    if task.lives:
        return _running(engine, record, task)
    assert task.exit is not None
    found = _ended(engine, record, task, task.exit)
    if task.state != state.RESTARTING:
        return found
    again = f"its restart policy starts it again at {task.exit.restart_at}, for time {task.status.restarts + 1}"
    return Answer(found.verdict, found.summary, found.remedy, (*found.facts, again))


def _confined(record: ContainerRecord, task: Task) -> Iterator[str]:
    """Yield what may be the reason of a failure that the program met by itself."""
    failed = (task.exit is not None and task.exit.exit_code) or record.start_error
    if failed and not task.is_up and strict.is_asked(record.request):
        yield strict.words(record.request)


def _partial(engine: Engine, record: ContainerRecord, task: Task) -> Iterator[str]:
    """Yield what a container has met whose image was, or is, read from its registry while it comes."""
    if not record.snapshot_parent or not lent.was_lent(engine.snapshots, Digest(record.snapshot_parent)):
        return
    begin = logread.parse_time(task.status.started_at) if task.status is not None else 0
    end = logread.parse_time(task.exit.finished_at) + JOURNAL_SLACK_NS if task.exit is not None else time.time_ns()
    subscription = engine.journal.subscribe()
    try:
        for event in subscription.replay():
            told = event["Type"] == "image" and event["Action"] in ("read_error", "interrupted")
            about = event["Actor"]["Attributes"]
            if told and begin <= event["timeNano"] <= end and about.get("image") == record.image_id:
                cause = about.get("cause", "")
                word = "a read failed" if event["Action"] == "read_error" else "who read it was killed"
                yield f"its image was here in part only, and {word}" + (f": {cause[:LINE_LENGTH_MAX]}" if cause else "")
    finally:
        engine.journal.unsubscribe(subscription)


def _failed_start(record: ContainerRecord) -> Answer:
    entry = catalog.find(record.start_error_code)
    if entry is None:  # noted by an earlier version
        entry = catalog.find(catalog.code_of(errors.Unavailable("start", record.subject, record.start_error)))
    assert entry
    return Answer(
        "start-failed",
        f"it could not be started: {record.start_error}",
        entry.remedy,
        (f"{entry.code}: {entry.title}",),
    )


def _running(engine: Engine, record: ContainerRecord, task: Task) -> Answer:
    assert task.status is not None
    since = duration(time.time() - unix_time(task.status.started_at))
    said = health.status(engine, record, task)
    facts = [f"restarted {task.status.restarts} times by its policy"] if task.status.restarts else []
    word = "is paused" if task.state == state.PAUSED else "runs"
    checked = health.read(engine, record.id)
    if said in (health.STARTING, "unhealthy") and checked is not None and checked.failing_streak:
        found = unhealthy.because(record, checked)
        if said == "unhealthy":
            remedy = f"let its processes run on: orlop unpause {record.name}" if word == "is paused" else found.remedy
            return Answer(said, f"it {word} since {since}, and is unhealthy", remedy, (*facts, *found.facts))
        facts += found.facts
    return Answer(task.state, f"it {word} since {since}" + (f" ({said})" if said else ""), "", tuple(facts))


def _ended(engine: Engine, record: ContainerRecord, task: Task, ended: ExitRecord) -> Answer:
    assert task.status is not None
    if task.status.boot_id != engine.boot_id:
        return Answer("rebooted", "the machine was booted while it ran", f"start it with: orlop start {record.name}")
    if ended.oom_killed:
        return _oom(record, ended)
    if ended.ended_by == TIMEOUT:
        summary = f"its time was up: --timeout {record.request.timeout_s} ended it"
        return Answer("timeout", summary, "give it more, or none: run --timeout SECONDS")
    if ended.ended_by:
        return _unhealthy(engine, record)
    if ended.error == state.EXIT_LOST:
        return _lost(record, ended)
    if not task.status.pid:
        return Answer("start-failed", f"it could not be started again: {ended.error}", f"see: orlop logs {record.name}")
    asked = list(_asked(engine, record, ended))
    if asked:
        return _asked_for(record, ended, asked)
    if ended.signal:
        return _signalled(record, ended, ended.signal)
    return _exited(engine, record, ended)


def _oom(record: ContainerRecord, ended: ExitRecord) -> Answer:
    limit = record.request.memory_bytes
    facts = [f"its memory limit was {_size(limit)}" if limit else "it had no memory limit of its own"]
    if ended.memory_peak_bytes:
        facts.append(f"it had used {_size(ended.memory_peak_bytes)} at most")
    victims = list(_victims(record.id))
    facts += [f"the kernel killed process {victim['pid']} ({victim['task']})" for victim in victims[-3:]]
    if not limit or any(victim["constraint"] == "CONSTRAINT_NONE" for victim in victims):
        remedy = "end something else, or give the machine more memory"
        return Answer("host-oom", "the machine was out of memory, and the kernel chose it", remedy, tuple(facts))
    remedy = (
        f"give it more: orlop update -m {_size(2 * limit).replace(' ', '').lower()[:-2]} {record.name}; then start it"
    )
    return Answer("oom", "the kernel killed it, because it needed more memory than its limit", remedy, tuple(facts))


def _unhealthy(engine: Engine, record: ContainerRecord) -> Answer:
    checked = health.read(engine, record.id)
    found = unhealthy.because(record, checked) if checked is not None else unhealthy.Cause()
    summary = f"it was unhealthy, and --health-on-failure {record.request.health_on_failure} ended it"
    return Answer("unhealthy", summary, found.remedy or f"see: orlop logs {record.name}", found.facts)


def _lost(record: ContainerRecord, ended: ExitRecord) -> Answer:
    how = f"its status is known all the same: {ended.exit_code}" if ended.exit_code != state.EXIT_CODE_LOST else ""
    facts = (ended.error, how) if how else (ended.error,)
    summary = "its monitor, a process of ours beside it, was killed, and it was ended with it"
    return Answer("monitor-lost", summary, f"start it with: orlop start {record.name}", facts)


def _asked_for(record: ContainerRecord, ended: ExitRecord, asked: list[Event]) -> Answer:
    """Somebody asked this engine for the end."""
    last = asked[-1]
    names = [
        _signal_name(int(event["Actor"]["Attributes"].get("signal", "0")))
        for event in asked
        if event["Action"] == "kill"
    ]
    facts = [f"signals that were sent: {', '.join(names)}"] if names else []
    stopped = any(event["Action"] == "stop" for event in asked)
    if stopped and ended.signal == 9 and names[:1] != ["SIGKILL"]:
        facts.append("it had not ended in its time after the first signal, so it was killed")
    elif stopped and ended.signal == 9:
        facts.append(
            f"it has no handler for {record.config.stop_signal}, and process 1 ignores what it does not handle"
        )
    word = "stopped" if stopped else "killed"
    remedy = "let the program handle the signal, or use --init" if ended.signal == 9 and stopped else ""
    moment = f"at {time.strftime('%H:%M:%S', time.localtime(last['time']))}"
    asker = next((event[BY] for event in reversed(asked) if BY in event), "somebody")
    return Answer(word, f"{asker} {word} it through this engine {moment}", remedy, tuple(facts))


def _signalled(record: ContainerRecord, ended: ExitRecord, number: int) -> Answer:
    name = _signal_name(number)
    meaning = _SIGNALS.get(name)
    if meaning:
        return Answer("signal", f"{name} ended it: {meaning}", "see its output below", ())
    facts = ["neither this engine sent it, nor was it the container's memory limit"]
    if record.request.init and ended.sent_signal == number:
        summary = f"{name} ended it, which {_sender(ended)} sent"
        return Answer("signal", summary, "", (facts[0], "--init's process 1 got it and passed it on"))
    if record.request.init:
        facts.append("process 1 is --init's: the sender may be inside of the container or outside")
    elif not record.request.pid:
        # pid_namespaces(7): who lives there can send process 1 only what it handles, and nobody handles this.
        facts.append("it came from outside of the container: inside, nobody can kill process 1")
    # wait(2) does not tell, nor does audit(7) without a rule.
    facts.append("the kernel keeps no record of who sends a signal")
    remedy = f"see who sends the next one: perf trace -e signal:signal_generate --filter sig=={number}"
    return Answer("signal", f"{name} ended it, which a process with the right to do so sent", remedy, tuple(facts))


def _sender(ended: ExitRecord) -> str:
    where = f"process {ended.sent_by_pid} inside" if ended.sent_by_pid else "a process outside of the container"
    return f"{where} (uid {ended.sent_by_uid}, as the container counts)"


def _exited(engine: Engine, record: ContainerRecord, ended: ExitRecord) -> Answer:
    output = _last_output(engine, record)
    missing = next((line for line in output if _MISSING_LIBRARY in line), "")
    if ended.exit_code == 127 and missing:
        library = missing.partition(_MISSING_LIBRARY)[2].partition(":")[0]
        summary = f"its program needs the library {library}, which the image does not have"
        return Answer("missing-library", summary, f"install {library} in the image", (missing[:LINE_LENGTH_MAX],))
    sent = ended.sent_signal if record.request.init else 0
    facts = (f"the last signal that it was sent is {_signal_name(sent)}, by {_sender(ended)}",) if sent else ()
    if not ended.exit_code:
        return Answer("completed", "its program ended by itself, with success", facts=facts)
    number = ended.exit_code - _SIGNAL_BASE
    if record.request.init and number > 0 and _signal_name(number).startswith("SIG"):
        return _signalled(record, ended, number)  # so process 1 passes on how the program ended
    if number > 0 and (name := _signal_name(number)).startswith("SIG") and ended.exit_code not in _STATUSES:
        summary = f"its program exited with {ended.exit_code}: a shell's way to say that {name} ended a command"
        return Answer("exit", summary, "see its output below", facts)
    meaning = _STATUSES.get(ended.exit_code, "only the program knows what that means")
    return Answer("exit", f"its program exited with {ended.exit_code}: {meaning}", "see its output below", facts)


def _asked(engine: Engine, record: ContainerRecord, ended: ExitRecord) -> Iterator[Event]:
    """Yield what was asked of this engine that ends a container, in the run that ended."""
    begin, end = logread.parse_time(ended.started_at), logread.parse_time(ended.finished_at) + JOURNAL_SLACK_NS
    subscription = engine.journal.subscribe()
    try:
        for event in subscription.replay():
            in_time = event.get("id") == record.id and begin <= event["timeNano"] <= end
            if in_time and (event["Action"] == "stop" or (event["Action"] == "kill" and _ends(event, record))):
                yield event
    finally:
        engine.journal.unsubscribe(subscription)


def _ends(event: Event, record: ContainerRecord) -> bool:
    number = int(event["Actor"]["Attributes"].get("signal", "0"))
    return number in (9, 15, signals.parse(record.config.stop_signal, record.subject))


def _victims(container_id: str) -> Iterator[dict[str, str]]:
    """Yield what the kernel's log tells of OOM kills in a container's cgroup; nothing where it can't be read.

    mm/oom_kill.c, dump_oom_summary: "oom-kill:constraint=...,oom_memcg=...,task_memcg=...,task=...,pid=...,uid=...".
    """
    try:
        fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return
    try:
        while True:
            try:
                line = os.read(fd, _KERNEL_LOG_BYTES_MAX).decode(errors="replace")
            except BrokenPipeError:
                continue  # overtaken by the ring: the next read goes on behind the gap
            except OSError:
                return
            _, mark, rest = line.partition(";oom-kill:")
            if mark and container_id in rest:
                words = (word.partition("=") for word in rest.splitlines()[0].split(","))
                fields = {name: value for name, equals, value in words if equals}
                yield {name: fields.get(name, "") for name in ("constraint", "task", "pid")}
    finally:
        os.close(fd)


def _unshipped(engine: Engine, record: ContainerRecord) -> Iterator[str]:
    """Yield what a log receiver did not get of the output."""
    path = f"{engine.records.path(record.id)}/{LOG_SHIPPED_FILE}"
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return
    try:
        sent = logship.Progress(fd)
    finally:
        os.close(fd)
    receiver = record.request.log_driver
    if sent.missing:
        yield f"{sent.missing} lines of its output were rotated away before {receiver} had taken them"
    if sent.undelivered:
        yield f"{sent.undelivered} lines of its output did not reach {receiver}: {sent.cause}"


def _last_output(engine: Engine, record: ContainerRecord) -> list[str]:
    entries = logread.read(engine.records.path(record.id), tail=LAST_LINES)
    lines = b"".join(entry.data for entry in entries).decode(errors="replace").splitlines()
    return [line[:LINE_LENGTH_MAX] for line in lines[-LAST_LINES:]]


def _signal_name(number: int) -> str:
    return signals.name(number)


def _size(size: int) -> str:
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= unit:
            return f"{size / unit:.4g} {name}"
    return f"{size} B"
