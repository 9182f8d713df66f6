"""`podman top`: the processes of a container as they see themselves, by podman's own names of columns.

Source: podman-top(1); its titles, and how it writes numbers and times.
"""

from __future__ import annotations

import os
import time

from ...build.dockerfile.history import duration
from ...engine.containers import processes
from ...engine.rootfs import inside
from ...engine.rootless.enter import user_name
from ...linux import capability
from ...runtime import users
from ..docker.door import Status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ...engine.engine import Engine

DEFAULT = ("user", "pid", "ppid", "pcpu", "etime", "tty", "time", "args")
_NO_CAPABILITIES, _ALL = "none", "full"
_SECCOMP = ("disabled", "strict", "filter")
_SHORT = {"group": "rgroup"}


class Process:
    """What /proc tells of one. names: of users and groups, in the container and on this machine."""

    def __init__(self, pid: int, names: Names) -> None:
        """Raises OSError when it has ended."""
        self.pid, self.names = pid, names
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
            self.status = {key: value.split() for key, _, value in (line.partition(":") for line in file)}
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            self.stat = file.read().rpartition(")")[2].split()
        ticks = os.sysconf("SC_CLK_TCK")
        self.cpu_s = (int(self.stat[11]) + int(self.stat[12])) / ticks
        self.age_s = max(time.clock_gettime(time.CLOCK_BOOTTIME) - int(self.stat[19]) / ticks, 0.0)

    def words(self) -> str:
        with open(f"/proc/{self.pid}/cmdline", "rb") as file:
            data = file.read(processes.COMMAND_BYTES_MAX)
        return data.rstrip(b"\0").replace(b"\0", b" ").decode("utf-8", "replace") or f"[{self.name()}]"

    def name(self) -> str:
        return " ".join(self.status["Name"])

    def label(self) -> str:
        try:
            with open(f"/proc/{self.pid}/attr/current", encoding="utf-8", errors="replace") as file:
                return file.read().strip("\0\n") or "?"
        except OSError:
            return "?"

    def ids(self, key: str, which: int) -> tuple[int, int]:
        """Return an id as the container has it, and as this machine does."""
        outside = int(self.status[key][which])
        return _inner(f"/proc/{self.pid}/{key.lower()}_map", outside), outside

    def capabilities(self, key: str) -> str:
        bits = int(self.status[key][0], 16)
        if bits == (2 << capability.last()) - 1:
            return _ALL
        return ",".join(sorted(one.removeprefix("CAP_") for one in capability.names_of(bits))) or _NO_CAPABILITIES

    def pid_of(self, number: str) -> str:
        """Return the number that a process of this one's namespace has there, 0 for one that is outside."""
        try:
            with open(f"/proc/{number}/status", encoding="ascii", errors="replace") as file:
                inner = next(line for line in file if line.startswith("NSpid:")).split()[1:]
        except (OSError, StopIteration):
            return "0"
        depth = len(self.status["NSpid"])
        return inner[depth - 1] if len(inner) == depth else "0"


class Names:
    """Names of ids: of the container's own files, and of this machine's."""

    def __init__(self, root: int) -> None:
        self.users, self.groups = _of_file(root, users.PASSWD), _of_file(root, users.GROUP)

    def user(self, number: int) -> str:
        return self.users.get(number, str(number))

    def group(self, number: int) -> str:
        return self.groups.get(number, str(number))


def _of_file(root: int, path: str) -> dict[int, str]:
    found: dict[int, str] = {}
    for fields in users.lines(root, path):
        if len(fields) > 2 and fields[2].isdecimal():
            found.setdefault(int(fields[2]), fields[0])
    return found


def _host_group(number: int) -> str:
    import grp

    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def _inner(path: str, outside: int) -> int:
    """Return what an id of this machine is in a process's user namespace."""
    with open(path, encoding="ascii") as file:
        for line in file:
            first, began, count = map(int, line.split())
            if began <= outside < began + count:
                return first + outside - began
    return outside


_COLUMNS: dict[str, tuple[str, Callable[[Process], str]]] = {
    "args": ("COMMAND", Process.words),
    "capamb": ("AMBIENT CAPS", lambda one: one.capabilities("CapAmb")),
    "capbnd": ("BOUNDING CAPS", lambda one: one.capabilities("CapBnd")),
    "capeff": ("EFFECTIVE CAPS", lambda one: one.capabilities("CapEff")),
    "capinh": ("INHERITED CAPS", lambda one: one.capabilities("CapInh")),
    "capprm": ("PERMITTED CAPS", lambda one: one.capabilities("CapPrm")),
    "comm": ("COMMAND", Process.name),
    "etime": ("ELAPSED", lambda one: duration(int(one.age_s * 1e9))),
    "group": ("GROUP", lambda one: one.names.group(one.ids("Gid", 1)[0])),
    "groups": (
        "GROUPS",
        lambda one: ",".join(
            one.names.group(_inner(f"/proc/{one.pid}/gid_map", int(group))) for group in one.status["Groups"]
        ),
    ),
    "hgroup": ("HGROUP", lambda one: _host_group(one.ids("Gid", 1)[1])),
    "hgroups": ("HGROUPS", lambda one: ",".join(_host_group(int(group)) for group in one.status["Groups"])),
    "hpid": ("HPID", lambda one: str(one.pid)),
    "huser": ("HUSER", lambda one: user_name(one.ids("Uid", 1)[1])),
    "label": ("LABEL", Process.label),
    "nice": ("NI", lambda one: one.stat[16]),
    "pcpu": ("%CPU", lambda one: f"{100 * one.cpu_s / one.age_s if one.age_s else 0:.3f}"),
    "pgid": ("PGID", lambda one: one.status["NSpgid"][-1]),
    "pid": ("PID", lambda one: one.status["NSpid"][-1]),
    "ppid": ("PPID", lambda one: one.pid_of(one.status["PPid"][0])),
    "rgroup": ("RGROUP", lambda one: one.names.group(one.ids("Gid", 0)[0])),
    "rss": ("RSS", lambda one: one.status.get("VmRSS", ["0"])[0]),
    "ruser": ("RUSER", lambda one: one.names.user(one.ids("Uid", 0)[0])),
    "seccomp": ("SECCOMP", lambda one: _SECCOMP[int(one.status["Seccomp"][0])]),
    "state": ("STATE", lambda one: one.status["State"][0]),
    "stime": (
        "STIME",
        lambda one: time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC", time.gmtime(int(time.time() - one.age_s))),
    ),
    "time": ("TIME", lambda one: duration(int(one.cpu_s * 1e9))),
    "tty": ("TTY", lambda one: processes.terminal(int(one.stat[4]))),
    "user": ("USER", lambda one: one.names.user(one.ids("Uid", 1)[0])),
    "vsz": ("VSZ", lambda one: one.status.get("VmSize", ["0"])[0]),
}
# ps's words for the same.
_ALIASES = {
    "%cpu": "pcpu", "command": "args", "cputime": "time", "elapsed": "etime", "ni": "nice", "tt": "tty", "ucmd": "comm",
    "ucomm": "comm", "vsize": "vsz", "s": "state", "stat": "state", "euser": "user", "egroup": "group",
}  # fmt: skip


def top(engine: Engine, reference: str, words: Sequence[str]) -> dict[str, object]:
    """Return docker's object of the columns that are named. Raises NotFound, Conflict, Status."""
    wanted = [_ALIASES.get(word.lower(), word.lower()) for word in words] or list(DEFAULT)
    if unknown := [word for word in wanted if word not in _COLUMNS]:
        raise Status(400, f"unknown descriptor: {unknown[0][:60]}: known are {', '.join(sorted(_COLUMNS))}")
    record, pids = processes.of_container(engine, reference)
    with inside.opened(engine, record) as root:
        names = Names(root)
    rows = []
    for pid in sorted(pids):
        try:
            one = Process(pid, names)
            rows.append([_COLUMNS[word][1](one) for word in wanted])
        except OSError:
            continue  # it has ended
    processes.told(engine, record)
    return {"Titles": [_COLUMNS[word][0] for word in wanted], "Processes": rows}
