"""`orlop machine init start ssh stop rm ls inspect`: virtual machines whose engine docker's clients reach here."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time

from ....spec import jsonio
from ....spec.errors import Conflict, OrlopError, Unavailable
from .. import listing
from ..command import Command, Invocation, write, write_line
from ..flags import BOOL, INT, STRING, Flag, UsageError
from ..units import size
from ..values import BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...machine.store import Machine, Place

DEFAULT = "default"
MEMORY, DISK = "1g", "10g"
_MEMORY_BYTES_MIN, _DISK_BYTES_MIN, _CPUS_MAX = 512 * 1024**2, 256 * 1024**2, 64


def _place(invocation: Invocation) -> Place:
    from ...machine.store import Place

    return Place(invocation.paths, invocation.arguments[0] if invocation.arguments else DEFAULT)


def _init(invocation: Invocation) -> int:
    from ...machine import contents, emulator, store

    options, place = invocation.options, _place(invocation)
    contents.check_architecture()
    emulator.find()
    store.sweep(invocation.paths)
    store.check_new(place)
    kernel = contents.find_kernel(options["kernel"], options["modules"])
    machine = store.Machine(
        name=place.name,
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        cpus=_within("--cpus", options["cpus"], 1, _CPUS_MAX),
        memory_bytes=_within("--memory", options["memory"], _MEMORY_BYTES_MIN, 2**42),
        disk_bytes=_within("--disk-size", options["disk-size"], _DISK_BYTES_MIN, 2**46),
        accelerator=_one_of("--accel", options["accel"], ("auto", "kvm", "tcg")),
        network=_one_of("--network", options["network"], ("none", "user")),
        kernel=kernel.version,
    )
    with store.Draft(place) as draft:
        contents.write(kernel, machine.name, draft.directory / "root.cpio")
        contents.copy_kernel(kernel, draft.directory / "kernel")
        contents.make_disk(draft.directory / "disk.img", machine.disk_bytes)
        draft.finish(machine)
    write_line(machine.name)
    return 0


def _within(flag: str, value: int, least: int, most: int) -> int:
    if not least <= value <= most:
        raise UsageError(f"{flag} {value}: it is not between {least} and {most}", "choose another number")
    return value


def _one_of(flag: str, value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        raise UsageError(f"{flag} {value}: it is none of {', '.join(known)}", f"choose {' or '.join(known)}")
    return value


def _start(invocation: Invocation) -> int:
    place = _place(invocation)
    place.read()
    _spawn(invocation, place)
    url = f"unix://{place.docker}"
    write_line(url)
    sys.stderr.write(f"docker context create orlop-{place.name} --docker host={url}\n")
    return 0


def _spawn(invocation: Invocation, place: Place) -> None:
    """Start the owner, in a session of its own, and wait until it says that the machine is ready, or why it is not."""
    from ....spec.errors import from_json
    from ...machine import owner
    from ...native.start import interpreter

    ready, report = os.pipe()
    paths = invocation.paths
    argv = interpreter(owner.BOOTSTRAP, paths.root, paths.run, place.name, str(report))
    actions = [
        *((os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)),
        (os.POSIX_SPAWN_DUP2, report, report),
    ]
    os.posix_spawn(argv[0], argv, os.environ, file_actions=actions, setsid=True, setsigmask=())
    os.close(report)
    with open(ready, "rb") as file:
        said = file.read(64 * 1024)
    if said == owner.READY:
        return
    if said:
        raise from_json(jsonio.parse(said, "the owner's report"))
    raise Unavailable("start", f"machine {place.name}", "its owner died at once", hint="is there enough memory?")


def _ssh(invocation: Invocation) -> int:
    from ..foreground import attachment, carry, status_of_exec
    from ..session import Signals

    place, words = _place(invocation), invocation.arguments[1:]
    place.read()
    terminal = os.isatty(0) and (not words or invocation.options["tty"])
    stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        stream.connect(str(place.shell))
    except OSError:
        cause = "it is off" if not place.is_on() else "it is starting"
        raise Conflict("enter", f"machine {place.name}", cause, hint=f"orlop machine start {place.name}") from None
    with Signals() as signals:
        stream.sendall(jsonio.dump({"command": words, "terminal": terminal}) + b"\n")
        connected = attachment(
            stdin=True, stdout=True, stderr=True, terminal=terminal, detach_keys=b"", proxy_signals=False
        )
        return status_of_exec(carry(stream, connected, signals))


def _stop(invocation: Invocation) -> int:
    place = _place(invocation)
    place.read()
    if place.is_on() and not place.signal_until_off(signal.SIGTERM):
        raise Unavailable("stop", f"machine {place.name}", "it is still on", hint=f"orlop machine rm -f {place.name}")
    write_line(place.name)
    return 0


def _rm(invocation: Invocation) -> int:
    from ...machine import store

    place = _place(invocation)
    place.read()
    lock = place.lock()
    if lock is None:
        if not invocation.options["force"]:
            hint = f"stop it: orlop machine stop {place.name}"
            raise Conflict("remove", f"machine {place.name}", "it is on", hint=hint)
        place.signal_until_off(signal.SIGKILL)
        lock = place.lock()
    if lock is None:
        raise Unavailable("remove", f"machine {place.name}", "somebody still holds it", hint="try again")
    store.remove(place, lock)
    write_line(place.name)
    return 0


def _ls(invocation: Invocation) -> int:
    from ...machine import store

    rows = []
    for name in store.names(invocation.paths):
        place = store.Place(invocation.paths, name)
        try:
            machine = place.read()
        except OrlopError:
            rows.append((name, "broken", "", "", "", ""))
            continue
        used = (place.data / "disk.img").stat().st_blocks * 512
        on = place.is_on()
        rows.append(
            (
                name,
                _state(place),
                str(machine.cpus),
                size(machine.memory_bytes),
                f"{size(used)} of {size(machine.disk_bytes)}",
                f"unix://{place.docker}" if on else "",
            )
        )
    if invocation.options["quiet"]:
        write("".join(f"{row[0]}\n" for row in rows))
    else:
        listing.print_table(("NAME", "STATE", "CPUS", "MEMORY", "DISK", "DOCKER_HOST"), rows)
    return 0


def _state(place: Place) -> str:
    if not place.is_on():
        return "off"
    return "on" if place.docker.exists() else "starting"


def _inspect(invocation: Invocation) -> int:
    place = _place(invocation)
    machine: Machine = place.read()
    facts = {
        **machine.to_json(),
        "state": _state(place),
        "docker": f"unix://{place.docker}",
        "data": str(place.data),
        "console": str(place.data / "console.log"),
    }
    import json

    write_line(json.dumps(facts, indent=4))
    return 0


_NAMED = (0, 1)
INIT = Command(
    _init,
    "Make a virtual machine of this machine's programs",
    "[OPTIONS] [NAME]",
    arguments=_NAMED,
    flags=(
        Flag("accel", "", STRING, "What runs it: auto, kvm, or tcg (emulation)", default="auto"),
        Flag("cpus", "", INT, "Number of processors", default=2),
        Flag("disk-size", "", BYTES, f"Size of its disk, a sparse file (default {DISK})", default=10 * 1024**3),
        Flag("kernel", "", STRING, "A kernel's file (default: the newest in /boot)", default=""),
        Flag("memory", "m", BYTES, f"Its memory (default {MEMORY})", default=1024**3),
        Flag("modules", "", STRING, "The directory of that kernel's modules", default=""),
        Flag("network", "", STRING, "none, or user: it reaches what you reach, this machine too", default="none"),
    ),
)
START = Command(_start, "Start a virtual machine, and wait until its engine answers", "[NAME]", arguments=_NAMED)
SSH = Command(
    _ssh,
    "Open a shell in a virtual machine, or run a command there (no sshd is needed)",
    "[OPTIONS] NAME [COMMAND] [ARG...]",
    arguments=(0, None),
    interspersed=False,
    flags=(Flag("tty", "t", BOOL, "Give a command a terminal", default=False),),
)
STOP = Command(_stop, "Switch a virtual machine off", "[NAME]", arguments=_NAMED)
RM = Command(
    _rm,
    "Remove a virtual machine with its disk",
    "[OPTIONS] [NAME]",
    arguments=_NAMED,
    flags=(Flag("force", "f", BOOL, "Also one that is on", default=False),),
)
LS = Command(
    _ls,
    "List virtual machines",
    "[OPTIONS]",
    flags=(Flag("quiet", "q", BOOL, "Only display names", default=False),),
)
INSPECT = Command(_inspect, "Display what a virtual machine is", "[NAME]", arguments=_NAMED)
