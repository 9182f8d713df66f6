"""`stats`: what a container uses now, as docker's object (/containers/{id}/stats), from the kernel's counters.

Everything is read anew for each sample, by the one thread that serves the call; nothing is remembered but the sample
before, which clients need for what happened in between. A container that hangs delays no sample: files of cgroups and
of /proc/PID/net never wait for a process.
"""

from __future__ import annotations

import os
import select

from ...linux.cgroup.counters import flat_keyed
from ...spec import jsonio
from ...spec.errors import NotFound, OrlopError
from . import inspect
from .record import timestamp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from ...linux.cgroup import Cgroup
    from ..engine import Engine
    from .record import ContainerRecord
    from .state import Task

    Sample = dict[str, Any]

PERIOD_S = 1.0
PERIOD_ONCE_S = 0.5  # between the two samples of a single answer: processor use is a difference
_USER_HZ = os.sysconf("SC_CLK_TCK")
_BLOCK_OPERATIONS = {"Read": "read", "Write": "write", "rbytes": "read", "wbytes": "write"}


def read(
    engine: Engine, references: Sequence[str], everything: bool, stream: bool, hangup: int, *, at_once: bool = False
) -> Iterator[bytes]:
    """Return lines of JSON, each a list of samples, one for each container: one line, or one a second.

    references: none is all that run, and with everything all that exist. hangup: the client's connection, whose end
    ends a stream. at_once: one line, with nothing before it to compare. A container that is gone is left out. Raises
    NotFound for a reference at once.
    """
    chosen = [engine.records.find(reference).id for reference in references]
    if at_once:
        return iter((jsonio.dump(_samples(engine, chosen, everything, {})) + b"\n",))
    return _lines(engine, chosen, everything, stream, hangup)


def _lines(engine: Engine, chosen: list[str], everything: bool, stream: bool, hangup: int) -> Iterator[bytes]:
    poll = select.poll()
    poll.register(hangup, select.POLLRDHUP)
    before: dict[str, Sample] = {}
    before = {sample["id"]: sample for sample in _samples(engine, chosen, everything, before)}
    while not poll.poll((PERIOD_S if stream else PERIOD_ONCE_S) * 1000):
        samples = _samples(engine, chosen, everything, before)
        yield jsonio.dump(samples) + b"\n"
        if not stream:
            return
        before = {sample["id"]: sample for sample in samples}


def _samples(engine: Engine, chosen: list[str], everything: bool, before: dict[str, Sample]) -> list[Sample]:
    found = []
    for record in _records(engine, chosen):
        task = engine.observe(record.id)
        if task.lives or chosen or everything:
            found.append((record.created_at, sample(engine, record, task, before.get(record.id))))
    if not chosen:  # else in the order in which they were asked for
        found.sort(key=lambda entry: entry[0], reverse=True)
    return [entry for _, entry in found]


def _records(engine: Engine, chosen: list[str]) -> Iterator[ContainerRecord]:
    if not chosen:
        yield from engine.records.all()
    for container_id in chosen:
        try:
            yield engine.records.load(container_id)
        except NotFound:
            continue


def sample(engine: Engine, record: ContainerRecord, task: Task, before: Sample | None) -> Sample:
    """Return docker's object of one container at this moment; zeros when it does not run.

    before: the sample before, whose processor numbers become `precpu_stats`.
    """
    found: Sample = {
        "name": f"/{record.name}",
        "id": record.id,
        "read": timestamp(),
        "preread": before["read"] if before else inspect.ZERO_TIME,
        "pids_stats": {},
        "blkio_stats": {},
        "cpu_stats": {},
        "precpu_stats": before["cpu_stats"] if before else {},
        "memory_stats": {},
        "networks": {},
    }
    if not task.lives or task.status is None:
        return found
    try:
        cgroup = engine.cgroup(record.id, task.status)
        stats = cgroup.stats()
        found["pids_stats"] = {"current": stats.pids or 0, "limit": _number(cgroup.text("pids", "pids.max")) or 0}
        found["cpu_stats"] = _cpu(cgroup, stats.cpu_ns or 0)
        found["memory_stats"] = _memory(cgroup, stats.memory_bytes or 0, stats.memory_peak_bytes or 0)
        found["blkio_stats"] = {"io_service_bytes_recursive": _block_io(cgroup)}
        if record.request.network != "host":
            found["networks"] = networks(task.status.pid)
    except (OSError, OrlopError):
        pass  # it ended meanwhile: what was read is there, the rest is zero
    return found


def networks(pid: int) -> dict[str, dict[str, int]]:
    """Return the counters of each interface in a process's network namespace, but the loopback (proc_pid_net(5))."""
    found = {}
    with open(f"/proc/{pid}/net/dev", encoding="ascii", errors="replace") as file:
        for line in file.read().splitlines()[2:]:
            name, _, numbers = line.partition(":")
            values = [int(word) for word in numbers.split()]
            if name.strip() == "lo" or len(values) < 12:
                continue
            keys = ("bytes", "packets", "errors", "dropped")
            received = {f"rx_{key}": value for key, value in zip(keys, values[:4], strict=True)}
            sent = {f"tx_{key}": value for key, value in zip(keys, values[8:12], strict=True)}
            found[name.strip()] = received | sent
    return found


def _cpu(cgroup: Cgroup, total_ns: int) -> dict[str, object]:
    text = cgroup.text("cpu", "cpu.stat") or ""
    return {
        "cpu_usage": {"total_usage": total_ns, **_cpu_modes(cgroup, text)},
        "system_cpu_usage": _system_cpu_ns(),
        "online_cpus": os.sysconf("SC_NPROCESSORS_ONLN"),
        "throttling_data": {
            "periods": flat_keyed(text, "nr_periods"),
            "throttled_periods": flat_keyed(text, "nr_throttled"),
            "throttled_time": flat_keyed(text, "throttled_time") or flat_keyed(text, "throttled_usec") * 1000,
        },
    }


def _cpu_modes(cgroup: Cgroup, of_v2: str) -> dict[str, object]:
    """Return the time in the kernel and outside of it, with v1 of each processor too (cgroup-v1/cpuacct.rst)."""
    if cgroup.layout.version("cpuacct") != 1:
        return {
            "usage_in_kernelmode": flat_keyed(of_v2, "system_usec") * 1000,
            "usage_in_usermode": flat_keyed(of_v2, "user_usec") * 1000,
        }
    ticks = cgroup.text("cpuacct", "cpuacct.stat") or ""
    each = cgroup.text("cpuacct", "cpuacct.usage_percpu") or ""
    return {
        "percpu_usage": [int(word) for word in each.split()],
        "usage_in_kernelmode": flat_keyed(ticks, "system") * 10**9 // _USER_HZ,
        "usage_in_usermode": flat_keyed(ticks, "user") * 10**9 // _USER_HZ,
    }


def _system_cpu_ns() -> int:
    """Return the time of all processors so far, idle time too; guests' is in user's (proc_stat(5))."""
    with open("/proc/stat", encoding="ascii") as file:
        words = file.readline().split()
    return sum(int(word) for word in words[1:8]) * 10**9 // _USER_HZ


def _memory(cgroup: Cgroup, usage: int, peak: int) -> dict[str, object]:
    version = cgroup.layout.version("memory")
    text = cgroup.text("memory", "memory.stat") or ""
    details = {}
    for line in text.splitlines():
        key, _, number = line.partition(" ")
        details[key] = int(number)
    limit = _number(cgroup.text("memory", "memory.limit_in_bytes" if version == 1 else "memory.max"))
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "usage": usage,
        "max_usage": peak,
        "stats": details,
        "limit": total if limit is None else min(limit, total),
    }


def _number(text: str | None) -> int | None:
    """Return the number in a control file; None where there is none, or it says "max"."""
    return int(text) if text is not None and text.isdigit() else None


def _block_io(cgroup: Cgroup) -> list[dict[str, object]]:
    """Return the bytes that were read and written, by device."""
    entries: list[dict[str, object]] = []
    if cgroup.layout.version("blkio") == 1:
        for line in (cgroup.text("blkio", "blkio.throttle.io_service_bytes_recursive") or "").splitlines():
            words = line.split()
            if len(words) == 3:
                entries += _block_entry(words[0], words[1], words[2])
        return entries
    for line in (cgroup.text("io", "io.stat") or "").splitlines():
        device, *pairs = line.split()
        for pair in pairs:
            key, _, number = pair.partition("=")
            entries += _block_entry(device, key, number)
    return entries


def _block_entry(device: str, operation: str, number: str) -> list[dict[str, object]]:
    name = _BLOCK_OPERATIONS.get(operation)
    major, _, minor = device.partition(":")
    if name is None or not (major + minor + number).isdigit():
        return []
    return [{"major": int(major), "minor": int(minor), "op": name, "value": int(number)}]
