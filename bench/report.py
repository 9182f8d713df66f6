"""The table: to the terminal, and with the machine's facts into docs/PERFORMANCE.md."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from .measure import Series

BEGIN, END = "<!-- written by ./dev bench --write: begin -->", "<!-- end -->"


def times(series: Sequence[Series], reference: Series | None) -> list[str]:
    """Return a Markdown table. reference: whose time the last column is divided by; None leaves that column out."""
    name = reference.subject.name if reference else ""
    head = ["command", "min ms", "median ms", "max ms", *([f"`{name}` takes of it"] if reference else [])]
    rows = [head, ["---", *["---:"] * (len(head) - 1)]]
    for one in series:
        if one.failure:
            rows.append([one.subject.name, "refused", one.failure, *[""] * (len(head) - 3)])
            continue
        figures = [f"{value:.1f}" for value in (min(one.times_ms), one.median, max(one.times_ms))]
        ratio = [_ratio(reference, one)] if reference else []
        rows.append([one.subject.name, *figures, *ratio])
    return _table(rows)


def memory(platforms: Mapping[str, Mapping[str, Sequence[int]]]) -> list[str]:
    """Return a table of what processes keep in memory: {platform: {role: pids}}; of several the mean."""
    rows = [["process", "PSS MiB", "private MiB"], ["---", "---:", "---:"]]
    for roles in platforms.values():
        for role, pids in roles.items():
            if pids:
                pss, private = (sum(column) / len(pids) / 1024 for column in zip(*map(_resident, pids), strict=True))
                rows.append([role, f"{pss:.1f}", f"{private:.1f}"])
    return _table(rows)


def facts(versions: Sequence[str], command: str) -> list[str]:
    """Return lines that say where and how the figures were taken."""
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return [
        f"- command: `{command}`",
        f"- machine: {os.cpu_count()} x {_cpu()}, {_memory_gib():.0f} GiB, load {load}",
        f"- kernel: Linux {platform.release()}, cgroups: {_cgroups()}",
        f"- Python {platform.python_version()}; {'; '.join(versions)}",
        f"- taken: {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    ]


def write(path: Path, text: str) -> None:
    """Put text between the markers of a document, and leave the rest of it as it is."""
    document = path.read_text() if path.exists() else f"# Performance\n\n{BEGIN}\n{END}\n"
    pattern = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    path.write_text(pattern.sub(lambda _: f"{BEGIN}\n{text}\n{END}", document))


def _ratio(reference: Series, one: Series) -> str:
    if one is reference or reference.failure:
        return ""
    return f"{reference.ratio_to(one):.2f}"


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return ["| " + " | ".join(_cell(*pair) for pair in zip(row, widths, strict=True)) + " |" for row in rows]


def _cell(text: str, width: int) -> str:
    if set(text) <= {"-", ":"} and text:
        return "-" * (width - text.endswith(":")) + ":" * text.endswith(":")
    return text.rjust(width) if text[:1].isdigit() else text.ljust(width)


def _resident(pid: int) -> tuple[int, int]:
    """Return PSS and private memory in KiB (man 5 proc, smaps_rollup)."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    figures = {name: int(value) for name, value in re.findall(r"^(\w+): +(\d+) kB", text, re.MULTILINE)}
    return figures["Pss"], figures["Private_Clean"] + figures["Private_Dirty"]


def _cpu() -> str:
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def _cgroups() -> str:
    types = {line.split()[1]: line.split()[2] for line in Path("/proc/mounts").read_text().splitlines()}
    if types.get("/sys/fs/cgroup") == "cgroup2":
        return "v2"
    return "hybrid" if "cgroup2" in types.values() else "v1"
