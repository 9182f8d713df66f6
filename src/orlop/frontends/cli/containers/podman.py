"""Flags of podman's that docker does not have, of run and create."""

from __future__ import annotations

import os

from ....spec.container import BindRequest, TmpfsRequest
from ..flags import BOOL, EXIT_FLAGS, LIST, STRING, STRINGS, BadValue, Flag, Kind, Options, UsageError, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ZONES = "/usr/share/zoneinfo"
LOCAL_TIME = "/etc/localtime"
POD_LABEL = "io.orlop.pod"  # such a pod is the containers that have the label
READ_ONLY_TMPFS = ("/run", "/tmp", "/var/tmp")


def parse_umask(text: str) -> int:
    """Octal digits: 0022. Raises BadValue."""
    if not 0 < len(text) <= 4 or set(text) - set("01234567") or int(text, 8) > 0o777:
        raise BadValue(f"{quote(text)} is no umask", "write octal digits: 0022")
    return int(text, 8)


def parse_timeout(text: str) -> int:
    """Seconds, 0 for no limit. Raises BadValue."""
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise BadValue(f"{quote(text)} is no number of seconds", "write 600")
    return int(text)


def parse_pod(text: str) -> str:
    """The name of a pod that shares nothing. Raises BadValue."""
    if not text or not text.isascii() or not all(c.isalnum() or c in "_.-" for c in text):
        raise BadValue(f"invalid pod name {quote(text)}", "use letters, digits, _ . and -")
    return text


# fmt: off
PODMAN_FLAGS = (
    Flag("env-host", "", BOOL, "Give the container all variables of this shell", default=False),
    Flag("pidfile", "", STRING, "Write the process ID of the container's first process to the file", default=""),
    Flag("pod", "", Kind("string", parse_pod), "Name the pod, one that shares nothing, that it is in", default=""),
    Flag("read-only-tmpfs", "", BOOL, "With --read-only, mount a tmpfs at /run, /tmp and /var/tmp", default=False),
    Flag("replace", "", BOOL, "Remove the container that has the name, if there is one", default=False),
    Flag("requires", "", STRINGS, "Start this container first", hidden=True),
    Flag("rmi", "", BOOL, "With --rm, which it means, also remove the image, if nobody else uses it", default=False),
    Flag("timeout", "", Kind("uint", parse_timeout), "Kill the container when it has run for so many seconds"),
    Flag("tz", "", STRING, "Time zone of the container: Area/City, or local for this machine's", default=""),
    Flag("umask", "", Kind("string", parse_umask), "umask of the container's process, in octal digits"),
    Flag("unsetenv", "", LIST, "Leave out a variable of the image's"),
)
# fmt: on


def environment(options: Options) -> tuple[str, ...]:
    """Return the variables that are weaker than those of -e: this shell's, and those to be left out."""
    host = (f"{name}={value}" for name, value in os.environ.items()) if options["env-host"] else ()
    for name in options["unsetenv"]:
        if not name or "=" in name:
            raise _wrong(f"invalid variable for --unsetenv: {quote(name)}", "give a name")
    return (*host, *options["unsetenv"])


def labels(options: Options) -> dict[str, str]:
    """Return the label that --pod means."""
    return {POD_LABEL: options["pod"]} if options["pod"] else {}


def fields(options: Options) -> dict[str, Any]:
    """Return the fields of a ContainerRequest that the flags fill alone. Raises UsageError."""
    return {
        "umask": options["umask"],
        "timeout_s": options["timeout"] or 0,
        "depends_on": (*options["depends-on"], *options["requires"]),
    }


def binds(options: Options) -> tuple[BindRequest, ...]:
    """Return what --tz shows of the host. Raises UsageError for a zone that this machine does not know."""
    zone: str = options["tz"]
    found = time_zone(zone)
    if found is None:
        raise _wrong(f"unknown time zone {quote(zone)}", f"see {ZONES}, or write local")
    return found


def time_zone(zone: str) -> tuple[BindRequest, ...] | None:
    """Return what of the host gives a container a time zone, nothing for "", None for one that this machine has not."""
    if not zone:
        return ()
    source = LOCAL_TIME if zone == "local" else f"{ZONES}/{zone}"
    if ".." in zone.split("/") or not os.path.isfile(source):
        return None
    return (BindRequest(source=os.path.realpath(source), target=LOCAL_TIME, options=("ro",)),)


def tmpfs(options: Options) -> tuple[TmpfsRequest, ...]:
    """Return what --read-only-tmpfs mounts where nothing else is asked for."""
    if not (options["read-only"] and options["read-only-tmpfs"]):
        return ()
    taken = {target for target, _ in options["tmpfs"]}
    return tuple(TmpfsRequest(target=target) for target in READ_ONLY_TMPFS if target not in taken)


def _wrong(message: str, hint: str) -> UsageError:
    return UsageError(message, hint, EXIT_FLAGS, shows_usage=False)
