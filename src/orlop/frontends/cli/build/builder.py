"""`orlop builder`: what was built, what steps wrote, a shell in a step, the cache."""

from __future__ import annotations

import os
import sys

from ....spec.errors import Unavailable
from ..command import Command, Invocation, for_output, write_line
from ..flags import BOOL, INT, Flag, UsageError
from ..flags import LIST as LIST_OF_TEXTS
from ..units import size
from ..values import BYTES, parse_duration

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import RawIOBase
    from typing import Any

READ_BYTES = 1 << 20


def _list(invocation: Invocation) -> int:
    build = invocation.arguments[0] if invocation.arguments else ""
    with invocation.connect() as engine:
        found = engine.call("build.list", {"build": build})
    records: list[dict[str, Any]] = found if isinstance(found, list) else []
    if build and records:
        return _show_steps(records[0])
    write_line(f"{'BUILD':<14}{'STATE':<9}{'TOOK':<9}{'CREATED':<22}WHAT")
    for record in records:
        took = f"{record.get('seconds', 0):.1f}s"
        created = str(record["created"])[:19]
        write_line(for_output(f"{record['id']:<14}{record['state']:<9}{took:<9}{created:<22}{record['title']}"))
    return 0


def _show_steps(record: dict[str, Any]) -> int:
    write_line(f"{'STEP':<6}{'STATE':<9}WHAT")
    for step in record.get("steps", []):
        write_line(for_output(f"{step['number']:<6}{step['state']:<9}{step['name']}"))
    if record.get("error"):
        write_line(for_output(f"failed: {record['error']}"))
    return 0


def _logs(invocation: Invocation) -> int:
    return print_log(invocation, (invocation.arguments or [""])[0])


def print_log(invocation: Invocation, place: str) -> int:
    """Write the whole output of a step: of BUILD@STEP, or BUILD and --step."""
    build, _, text = place.partition("@")
    step = text.removeprefix("step") or str(invocation.options["step"])
    if not (step.isascii() and step.isdigit()):
        raise UsageError(f"invalid step '{text}'", "write BUILD@NUMBER")
    with invocation.connect() as engine:
        found = engine.call("build.logs", {"build": build, "step": int(step)})
    path = str(found["path"]) if isinstance(found, dict) else ""
    try:
        with open(path, "rb", buffering=0) as file:
            for data in _unpacked(file, path):
                sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except OSError as wrong:
        raise Unavailable("read", path, wrong.strerror or str(wrong)) from None
    return 0


def _unpacked(file: RawIOBase, path: str) -> Iterator[bytes]:
    """Yield what a log holds. It is our own: however much its bytes become, all of it is wanted."""
    from ....build.journal import PACKED_SUFFIX
    from ....content.compression import open_zstd

    if not path.endswith(PACKED_SUFFIX):
        while data := file.read(READ_BYTES):
            yield data
        return
    decompressor = open_zstd(path)
    while not decompressor.eof:
        data = b""
        if decompressor.needs_input and not (data := file.read(READ_BYTES) or b""):
            raise Unavailable("read", path, "it is cut off", hint="build again")
        yield decompressor.decompress(data, READ_BYTES)


def _shell(invocation: Invocation) -> int:
    return enter(invocation, invocation.arguments[0], invocation.arguments[1:])


def enter(invocation: Invocation, place: str, command: list[str]) -> int:
    """Run a command, or a shell, in a step of a build, connected to our streams; return its status."""
    from .. import foreground

    terminal = os.isatty(0) and os.isatty(1)
    connected = foreground.attachment(
        stdin=True, stdout=True, stderr=True, terminal=terminal, detach_keys=b"\x10\x11", proxy_signals=True
    )
    from .build import agent_source, secret_source

    args: dict[str, object] = {"place": place, "command": command, "terminal": terminal}
    args["secrets"] = [secret_source(text).to_json() for text in invocation.options["secret"]]
    args["agents"] = [agent_source(text).to_json() for text in invocation.options["ssh"]]
    with invocation.connect() as engine:
        session = foreground.run_attached(engine, "build.shell", args, connected)
    return foreground.status_of_exec(session)


def _usage(invocation: Invocation) -> int:
    with invocation.connect() as engine:
        found = engine.call("build.usage", {})
    entries: list[dict[str, Any]] = found if isinstance(found, list) else []
    write_line(f"{'ID':<16}{'SIZE':<10}{'LAST USED':<22}DESCRIPTION")
    for one in entries:
        text = f"{one['ID'][:12]:<16}{size(one['Size']):<10}{one['LastUsedAt']:<22}{one['Description']}"
        write_line(for_output(text))
    write_line(f"Total: {size(sum(one['Size'] for one in entries))}")
    return 0


def _pin(invocation: Invocation) -> int:
    return _set_pins(invocation, pinned=True)


def _unpin(invocation: Invocation) -> int:
    return _set_pins(invocation, pinned=False)


def _set_pins(invocation: Invocation, *, pinned: bool) -> int:
    with invocation.connect() as engine:
        for name in invocation.arguments:
            found = engine.call("build.pin", {"mount": name, "pinned": pinned})
            write_line(str(found["volume"]) if isinstance(found, dict) else name)
    return 0


def _prune(invocation: Invocation) -> int:
    options = invocation.options
    if not options["force"]:
        everything = "all build cache and all cache mounts" if options["all"] else "all build cache"
        sys.stdout.write(f"WARNING! This will remove {everything}. Are you sure you want to continue? [y/N] ")
        sys.stdout.flush()
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            return 1
    unused = [
        value for key, _, value in (text.partition("=") for text in options["filter"]) if key in ("until", "unused-for")
    ]
    conditions = [text for text in options["filter"] if text.partition("=")[0] not in ("until", "unused-for")]
    unused_s = max((parse_duration(value) // 10**9 for value in unused), default=0)
    args: dict[str, object] = {
        "all": options["all"],
        "keep_bytes": options["keep-storage"] or options["reserved-space"],
        "max_used_bytes": options["max-used-space"],
        "min_free_bytes": options["min-free-space"],
        "unused_s": unused_s,
        "filters": [",".join(conditions)] if conditions else [],
    }
    with invocation.connect() as engine:
        found = engine.call("build.prune", args)
    result: dict[str, Any] = found if isinstance(found, dict) else {}
    if result.get("CachesDeleted"):
        write_line("Deleted build cache objects:")
        for key in result["CachesDeleted"]:
            write_line(str(key))
        write_line("")
    write_line(f"Total reclaimed space: {size(result.get('SpaceReclaimed', 0))}")
    return 0


LIST = Command(
    _list,
    "List builds, or the steps of one",
    "[BUILD]",
    arguments=(0, 1),
    aliases=("builder ls",),
)
LOGS = Command(
    _logs,
    "Print the whole output of a step",
    "[OPTIONS] [BUILD[@STEP]]",
    flags=(Flag("step", "", INT, "Number of the step (default: the one that failed, or the last)", default=0),),
    arguments=(0, 1),
    aliases=("builder logs",),
)
SHELL = Command(
    _shell,
    "Enter a step of a build: builder shell BUILD[@STEP[-before|-after]]",
    "[OPTIONS] BUILD[@STEP] [COMMAND] [ARG...]",
    flags=(
        Flag("secret", "", LIST_OF_TEXTS, 'Secret that the step had ("id=mysecret[,src=/local/secret]")'),
        Flag("ssh", "", LIST_OF_TEXTS, 'SSH agent that the step had ("default|<id>[=<socket>]")'),
    ),
    arguments=(1, None),
    interspersed=False,
    aliases=("builder shell",),
    passes_command_status=True,
)
DU = Command(_usage, "Show what the build cache holds", "", aliases=("builder du",))
PIN = Command(
    _pin,
    "Have pruning leave cache mounts alone (their ids, or their volumes)",
    "MOUNT [MOUNT...]",
    arguments=(1, None),
    aliases=("builder pin",),
)
UNPIN = Command(
    _unpin,
    "Let pruning remove cache mounts again",
    "MOUNT [MOUNT...]",
    arguments=(1, None),
    aliases=("builder unpin",),
)
PRUNE = Command(
    _prune,
    "Remove build cache",
    "[OPTIONS]",
    flags=(
        Flag("all", "a", BOOL, "Remove all unused build cache, not just dangling ones", default=False),
        Flag("filter", "", LIST_OF_TEXTS, 'Provide filter values (e.g. "until=24h", "type=exec.cachemount")'),
        Flag("force", "f", BOOL, "Do not prompt for confirmation", default=False),
        Flag("keep-storage", "", BYTES, "Amount of disk space to keep for cache", default=0),
        Flag("max-used-space", "", BYTES, "Maximum amount of disk space allowed to keep for cache", default=0),
        Flag("min-free-space", "", BYTES, "Target amount of free disk space after pruning", default=0),
        Flag("reserved-space", "", BYTES, "Amount of disk space always allowed to keep for cache", default=0),
    ),
    aliases=("builder prune",),
)
