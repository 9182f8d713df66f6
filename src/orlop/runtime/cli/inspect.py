"""state, list, ps, events: verbs that only look."""

from __future__ import annotations

import sys
import time

from ...spec import jsonio
from ...spec.errors import Conflict, Invalid, NotFound, OrlopError
from ...spec.runtime import OCI_VERSION
from .call import Call
from .store import Entry, cgroup_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...linux.cgroup import Cgroup

_LOOK_S = 0.2  # how late the end, or a kill, may be noticed


def show(value: object) -> None:
    """Print a JSON value on one line."""
    sys.stdout.write(jsonio.dump(value).decode() + "\n")


def state(call: Call) -> int:
    """Print the state document, with runc's additions."""
    entry = call.store.load(call.container())
    document = _row(call, entry, call.store.status(entry))
    sys.stdout.write(_indented({**document, "owner": ""}) + "\n")
    return 0


def list_(call: Call) -> int:
    """Print the containers below --root."""
    rows = [(entry, call.store.status(entry)) for entry in _readable(call)]
    if call.flags.on("quiet"):
        sys.stdout.write("".join(f"{entry.id}\n" for entry, _ in rows))
        return 0
    if call.flags.text("format") == "json":
        show([_row(call, entry, status) for entry, status in rows])
        return 0
    if call.flags.text("format") not in ("", "table"):
        raise Invalid("list", "the containers", "invalid format option", hint="use table or json")
    cells = [("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER")]
    for entry, status in rows:
        pid = entry.pid if status != "stopped" else 0
        cells.append((entry.id, str(pid), status, entry.bundle, entry.created, _owner(entry.owner_uid)))
    widths = [max(max(len(row[column]) for row in cells) + 3, 12) for column in range(len(cells[0]) - 1)]
    for cell in cells:
        line = "".join(text.ljust(width) for text, width in zip(cell, widths, strict=False)) + cell[-1]
        sys.stdout.write(line.rstrip() + "\n")
    return 0


def ps(call: Call) -> int:
    """Print the processes of a container: as `ps` does, or their pids as JSON."""
    if not call.arguments:
        raise Invalid("run", "orlop-runtime ps", "it requires a minimum of 1 argument")
    entry = call.store.load(call.arguments[0])
    pids = cgroup_of(entry).procs()
    if call.flags.text("format") == "json":
        show(pids)
        return 0
    import subprocess

    options = call.arguments[1:] or ["-ef"]
    told = subprocess.run(["ps", *options], capture_output=True, text=True, check=False)
    if told.returncode:
        raise Invalid("list", f"the processes of container {entry.id}", told.stderr.strip() or "ps failed")
    lines = told.stdout.splitlines()
    try:
        column = lines[0].split().index("PID")
    except (IndexError, ValueError):
        raise Invalid(
            "list", f"the processes of container {entry.id}", "couldn't find PID field in ps output"
        ) from None
    wanted = {str(pid) for pid in pids}
    shown = [line for line in lines[1:] if len(line.split()) > column and line.split()[column] in wanted]
    sys.stdout.write("\n".join([lines[0], *shown]) + "\n")
    return 0


def events(call: Call) -> int:
    """Print what the container uses: once with --stats, else at every --interval until it stops, and each OOM kill."""
    entry = call.store.load(call.container())
    if call.store.status(entry) == "stopped":
        raise Conflict("watch", f"container {entry.id}", f"container with id {entry.id} is not running", code="E1001")
    seconds = _seconds(call.flags.text("interval") or "5s")
    from . import usage

    cgroup = cgroup_of(entry)
    killed = cgroup.events().oom_kills
    while True:
        show({"type": "stats", "id": entry.id, "data": usage.document(cgroup.layout, entry.cgroup)})
        sys.stdout.flush()
        if call.flags.on("stats"):
            return 0
        due = time.monotonic() + seconds
        while (left := due - time.monotonic()) > 0:
            time.sleep(min(left, _LOOK_S))
            if call.store.status(entry) == "stopped":
                return 0
            killed = _tell_kills(cgroup, entry.id, killed)


def _tell_kills(cgroup: Cgroup, container: str, before: int) -> int:
    """Print an event for every process that the OOM killer took since; return how many it took in all."""
    try:
        now = cgroup.events().oom_kills
    except FileNotFoundError:
        return before
    for _ in range(now - before):
        show({"type": "oom", "id": container})
    sys.stdout.flush()
    return now


def _readable(call: Call) -> list[Entry]:
    """Return the containers; one whose record is damaged is told about and hides no other one."""
    entries = []
    for container in call.store.ids():
        try:
            entries.append(call.store.load(container))
        except NotFound:
            continue  # deleted since
        except OrlopError as failure:
            call.log.write("error", str(failure))
    return entries


def _row(call: Call, entry: Entry, status: str) -> dict[str, object]:
    spec = call.store.spec(entry.id)
    annotations = {"annotations": dict(spec.annotations)} if spec.annotations else {}
    return {
        "ociVersion": OCI_VERSION,  # that of the state document, not of the bundle (runtime.md)
        "id": entry.id,
        "pid": entry.pid if status != "stopped" else 0,
        "status": status,
        "bundle": entry.bundle,
        "rootfs": entry.rootfs,
        "created": entry.created,
        **annotations,
        "owner": _owner(entry.owner_uid),
    }


def _owner(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"#{uid}"


def _seconds(text: str) -> float:
    unit = {"ms": 0.001, "s": 1.0, "m": 60.0}
    for suffix in ("ms", "s", "m"):
        number = text.removesuffix(suffix)
        plain = number.replace(".", "", 1)
        if number != text and plain.isascii() and plain.isdigit() and len(plain) <= 9 and float(number) > 0:
            return float(number) * unit[suffix]
    raise Invalid("watch", "the container", f"interval {text!r} is no duration", hint="give 5s or 500ms")


def _indented(value: object, margin: str = "") -> str:
    """Return JSON on many lines, as Go's MarshalIndent writes it; `json` would bring `re` along, for 5 ms."""
    inner = margin + "  "
    if isinstance(value, dict) and value:
        rows = (f"{inner}{jsonio.dump(key).decode()}: {_indented(item, inner)}" for key, item in value.items())
        return "{\n" + ",\n".join(rows) + f"\n{margin}}}"
    if isinstance(value, list) and value:
        return "[\n" + ",\n".join(inner + _indented(item, inner) for item in value) + f"\n{margin}]"
    return jsonio.dump(value).decode()
