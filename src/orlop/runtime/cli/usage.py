"""What a container uses, as the `data` of runc's `events --stats`: the same names, numbers where the kernel has them.

cpu in nanoseconds, memory in bytes. Source: cgroup-v2.rst and cgroup-v1/{memory,cpuacct,blkio-controller}.rst of the
kernel; a file that this kernel does not have leaves its numbers out, or 0 where runc always prints one.
"""

from __future__ import annotations

import os

from ...linux.cgroup.directory import open_directory, split_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...linux.cgroup import Layout

_NO_LIMIT = 2**64 - 1  # how runc writes the "max" of v2


class _Files:
    """The control files of one cgroup, whatever hierarchy they are in."""

    def __init__(self, layout: Layout, path: str) -> None:
        self._layout = layout
        self._names = split_path(path)

    def is_v1(self, controller: str) -> bool:
        return self._layout.version(controller) == 1

    def text(self, controller: str, file: str) -> str:
        """Return a file's text, "" where the controller or the file is missing."""
        mount = self._layout.directory(controller)
        if not mount:
            return ""
        try:
            with open_directory(mount, self._names) as directory:
                return directory.read(file).strip()
        except FileNotFoundError:
            return ""

    def number(self, controller: str, file: str) -> int:
        text = self.text(controller, file)
        return _NO_LIMIT if text == "max" else int(text or "0")

    def keyed(self, controller: str, file: str) -> dict[str, int]:
        """Return a file of "KEY NUMBER" lines."""
        rows = (line.split() for line in self.text(controller, file).splitlines())
        return {row[0]: int(row[1]) for row in rows if len(row) == 2}


def document(layout: Layout, path: str) -> dict[str, object]:
    """Return the numbers of the cgroup `path`."""
    files = _Files(layout, path)
    limit = files.number("pids", "pids.max")
    limited = {"limit": limit} if 0 < limit < _NO_LIMIT else {}
    return {
        "cpu": _cpu_v1(files) if files.is_v1("cpuacct") else _cpu_v2(files),
        "memory": _memory_v1(files) if files.is_v1("memory") else _memory_v2(files),
        "pids": {"current": files.number("pids", "pids.current"), **limited},
        "blkio": _blkio_v1(files) if files.is_v1("blkio") else _blkio_v2(files),
        **({"cpuset": _cpuset_v1(files)} if files.is_v1("cpuset") else {}),
        "hugetlb": _hugetlb(files),
        "intel_rdt": {},  # no container of ours has any
        "network_interfaces": None,  # nor is one counted by its network devices
    }


def _cpu_v1(files: _Files) -> dict[str, object]:
    tick_ns = 10**9 // os.sysconf("SC_CLK_TCK")
    total = files.keyed("cpuacct", "cpuacct.stat")
    each = [line.split() for line in files.text("cpuacct", "cpuacct.usage_all").splitlines()[1:]]  # cpu user system
    throttled = files.keyed("cpu", "cpu.stat")
    return {
        "usage": {
            "total": files.number("cpuacct", "cpuacct.usage"),
            "percpu": [int(word) for word in files.text("cpuacct", "cpuacct.usage_percpu").split()],
            "percpu_kernel": [int(row[2]) for row in each],
            "percpu_user": [int(row[1]) for row in each],
            "kernel": total.get("system", 0) * tick_ns,
            "user": total.get("user", 0) * tick_ns,
        },
        "throttling": _throttling(throttled, throttled.get("throttled_time", 0)),
    }


def _cpu_v2(files: _Files) -> dict[str, object]:
    stat = files.keyed("cgroup", "cpu.stat")
    return {
        "usage": {
            "total": stat.get("usage_usec", 0) * 1000,
            "kernel": stat.get("system_usec", 0) * 1000,
            "user": stat.get("user_usec", 0) * 1000,
        },
        "throttling": _throttling(stat, stat.get("throttled_usec", 0) * 1000),
    }


def _throttling(stat: dict[str, int], time_ns: int) -> dict[str, int]:
    told = {
        "periods": stat.get("nr_periods", 0),
        "throttledPeriods": stat.get("nr_throttled", 0),
        "throttledTime": time_ns,
    }
    return {name: number for name, number in told.items() if number}


def _memory_v1(files: _Files) -> dict[str, object]:
    stat = files.keyed("memory", "memory.stat")

    def entry(kind: str) -> dict[str, int]:
        names = {
            "limit": "limit_in_bytes",
            "usage": "usage_in_bytes",
            "max": "max_usage_in_bytes",
            "failcnt": "failcnt",
        }
        return {name: files.number("memory", f"memory.{kind}{file}") for name, file in names.items()}

    return {
        "cache": stat.get("cache", 0),
        "usage": entry(""),
        "swap": entry("memsw."),
        "kernel": entry("kmem."),
        "kernelTCP": entry("kmem.tcp."),
        "raw": stat,
    }


def _memory_v2(files: _Files) -> dict[str, object]:
    stat = files.keyed("memory", "memory.stat")
    failures = files.keyed("memory", "memory.events").get("max", 0)
    swap_failures = files.keyed("memory", "memory.swap.events").get("max", 0)
    return {
        "cache": stat.get("file", 0),
        "usage": {
            "limit": files.number("memory", "memory.max"),
            "usage": files.number("memory", "memory.current"),
            "max": files.number("memory", "memory.peak"),
            "failcnt": failures,
        },
        "swap": {
            "limit": files.number("memory", "memory.swap.max"),
            "usage": files.number("memory", "memory.swap.current"),
            "max": files.number("memory", "memory.swap.peak"),
            "failcnt": swap_failures,
        },
        "raw": stat,
    }


def _cpuset_v1(files: _Files) -> dict[str, object]:
    """Source: cgroup-v1/cpusets.rst. The files in the order of runc's document."""
    document: dict[str, object] = {}
    for name in (
        "cpus", "cpu_exclusive", "mems", "mem_hardwall", "mem_exclusive", "memory_migrate", "memory_spread_page",
        "memory_spread_slab", "memory_pressure", "sched_load_balance", "sched_relax_domain_level",
    ):  # fmt: skip
        if name in ("cpus", "mems"):
            document[name] = _numbers(files.text("cpuset", f"cpuset.{name}"))
        else:
            document[name] = files.number("cpuset", f"cpuset.{name}")
    return document


def _numbers(text: str) -> list[int]:
    """Return the numbers of the kernel's list format: "0-2,7"."""
    found: list[int] = []
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def _hugetlb(files: _Files) -> dict[str, object]:
    """Return the use of huge pages by their size, as "2MB"."""
    document: dict[str, object] = {}
    for size in _huge_page_sizes():
        if files.is_v1("hugetlb"):
            names = {"usage": "usage_in_bytes", "max": "max_usage_in_bytes", "failcnt": "failcnt"}
            row = {key: files.number("hugetlb", f"hugetlb.{size}.{name}") for key, name in names.items()}
        elif files.text("hugetlb", f"hugetlb.{size}.current"):
            failures = files.keyed("hugetlb", f"hugetlb.{size}.events").get("max", 0)
            row = {"usage": files.number("hugetlb", f"hugetlb.{size}.current"), "failcnt": failures}
        else:
            continue
        document[size] = row
    return document


def _huge_page_sizes() -> list[str]:
    try:
        names = os.listdir("/sys/kernel/mm/hugepages")
    except FileNotFoundError:
        return []
    sizes = sorted(int(name.removeprefix("hugepages-").removesuffix("kB")) for name in names)
    return [
        f"{size >> 20}GB" if size >= 1 << 20 else f"{size >> 10}MB" if size >= 1 << 10 else f"{size}KB"
        for size in sizes
    ]


def _blkio_v1(files: _Files) -> dict[str, object]:
    found = {}
    for name, file in (("ioServiceBytesRecursive", "io_service_bytes"), ("ioServicedRecursive", "io_serviced")):
        text = files.text("blkio", f"blkio.bfq.{file}_recursive") or files.text(
            "blkio", f"blkio.throttle.{file}_recursive"
        )
        rows = [line.split() for line in text.splitlines()]  # "8:0 Read 4096", and at the end "Total 4096"
        entries = [_blkio_entry(row[0], row[1], row[2]) for row in rows if len(row) == 3]
        if entries:
            found[name] = entries
    return dict(found)


def _blkio_v2(files: _Files) -> dict[str, object]:
    names = {"rbytes": ("ioServiceBytesRecursive", "Read"), "wbytes": ("ioServiceBytesRecursive", "Write"),
             "rios": ("ioServicedRecursive", "Read"), "wios": ("ioServicedRecursive", "Write")}  # fmt: skip
    found: dict[str, list[object]] = {}
    for line in files.text("io", "io.stat").splitlines():
        device, *pairs = line.split()
        for key, _, number in (pair.partition("=") for pair in pairs):
            if key in names:
                name, operation = names[key]
                found.setdefault(name, []).append(_blkio_entry(device, operation, number))
    return dict(found)


def _blkio_entry(device: str, operation: str, number: str) -> dict[str, object]:
    major, _, minor = device.partition(":")
    return {"major": int(major), "minor": int(minor or "0"), "op": operation, "value": int(number)}
