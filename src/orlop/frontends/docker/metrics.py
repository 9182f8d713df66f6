"""The route /metrics: what the engine and its containers are doing, in the OpenMetrics text format.

docker's daemon tells the first group of names on a listener of its own (`metrics-addr`); the containers' are ours.
Everything is read when it is asked for. Source: the OpenMetrics specification 1.0, moby's daemon/metrics.go.
"""

from __future__ import annotations

import os

from ... import __version__
from ...engine import info as facts
from ...engine.containers import state, usage
from .door import Door

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    Labels = Mapping[str, str]
    Point = tuple[Labels, float]

CONTENT_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"
_STATES = {state.RUNNING: "running", state.RESTARTING: "running", state.PAUSED: "paused"}


class Exposition:
    """The text as it grows. A family is told once, with all its points."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def family(self, name: str, kind: str, told: str, points: Iterable[Point]) -> None:
        """Add a metric family. kind: "gauge" or "counter"; a counter's samples end in _total."""
        suffix = "_total" if kind == "counter" else ""
        self._lines += [f"# TYPE {name} {kind}", f"# HELP {name} {told}"]
        for labels, value in points:
            inner = ",".join(f'{key}="{_escaped(one)}"' for key, one in labels.items())
            number = repr(value) if isinstance(value, float) and not value.is_integer() else str(int(value))
            self._lines.append(f"{name}{suffix}{'{' + inner + '}' if inner else ''} {number}")

    def text(self) -> bytes:
        """Return the whole document."""
        return ("\n".join(self._lines) + "\n# EOF\n").encode("utf-8", "replace")


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def expose(door: Door) -> None:
    out = Exposition()
    _engine(door, out)
    _process(out)
    _containers(door, out)
    door.answer(200, {"Content-Type": CONTENT_TYPE}, out.text())


def _engine(door: Door, out: Exposition) -> None:
    engine = door.engine
    states = dict.fromkeys(("running", "paused", "stopped"), 0)
    for record in engine.records.all():
        states[_STATES.get(engine.observe(record.id).state, "stopped")] += 1
    host = facts.info(engine)
    labels = {
        "version": __version__,
        "architecture": str(host["Architecture"]),
        "kernel": str(host["KernelVersion"]),
        "os": str(host["OperatingSystem"]),
        "graphdriver": str(host["Driver"]),
        "daemon_id": str(host["ID"]),
    }
    out.family("engine_daemon_engine", "gauge", "What the engine and its machine are", [(labels, 1)])
    found: list[Point] = [({"state": name}, number) for name, number in states.items()]
    out.family("engine_daemon_container_states_containers", "gauge", "Containers by state", found)
    out.family("engine_daemon_engine_cpus_cpus", "gauge", "Processors of the machine", [({}, _number(host["NCPU"]))])
    memory = _number(host["MemTotal"])
    out.family("engine_daemon_engine_memory_bytes", "gauge", "Memory of the machine", [({}, memory)])
    listeners = engine.journal.listeners()
    out.family("engine_daemon_events_subscribers", "gauge", "Clients that listen to events", [({}, listeners)])


def _process(out: Exposition) -> None:
    ticks, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    with open("/proc/self/stat", encoding="ascii", errors="replace") as file:
        words = file.read().rpartition(")")[2].split()  # proc_pid_stat(5): from the third field on
    seconds = (int(words[11]) + int(words[12])) / ticks
    out.family("process_cpu_seconds", "counter", "Processor time of the engine", [({}, seconds)])
    out.family("process_resident_memory_bytes", "gauge", "Memory of the engine", [({}, int(words[21]) * page)])
    out.family("process_threads", "gauge", "Threads of the engine", [({}, int(words[17]))])
    descriptors = len(os.listdir("/proc/self/fd"))
    out.family("process_open_fds", "gauge", "Descriptors that the engine has open", [({}, descriptors)])


def _containers(door: Door, out: Exposition) -> None:
    engine = door.engine
    found: list[tuple[Labels, Any]] = []
    for record in engine.records.all():
        task = engine.observe(record.id)
        if task.lives:
            labels = {"id": record.id, "name": record.name, "image": record.request.image}
            found.append((labels, usage.sample(engine, record, task, None)))

    def points(*path: str, scale: float = 1) -> list[Point]:
        return [(labels, _number(_at(sample, path)) / scale) for labels, sample in found]

    used = points("cpu_stats", "cpu_usage", "total_usage", scale=1e9)
    out.family("orlop_container_cpu_seconds", "counter", "Processor time of a container", used)
    out.family("orlop_container_memory_bytes", "gauge", "Memory of a container", points("memory_stats", "usage"))
    limits = points("memory_stats", "limit")
    out.family("orlop_container_memory_limit_bytes", "gauge", "What a container's memory may grow to", limits)
    out.family("orlop_container_processes", "gauge", "Processes of a container", points("pids_stats", "current"))
    for direction, told in (("rx", "received"), ("tx", "sent")):
        by_link: list[Point] = [
            ({**labels, "interface": link}, _number(counters[f"{direction}_bytes"]))
            for labels, sample in found
            for link, counters in sample["networks"].items()
        ]
        out.family(f"orlop_container_network_{told}_bytes", "counter", f"Bytes that a container {told}", by_link)


def _at(value: Any, path: tuple[str, ...]) -> object:
    for name in path:
        value = value.get(name, {})
    return value


def _number(value: object) -> float:
    return value if isinstance(value, (int, float)) else 0


ROUTES = (("GET", "/metrics", expose),)
