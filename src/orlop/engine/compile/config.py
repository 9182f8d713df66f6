"""The request over the image's configuration: docker's rules for what overrides what. Pure."""

from __future__ import annotations

import posixpath

from ...spec import signals
from ...spec.container import ContainerRequest
from ...spec.errors import Invalid
from ...spec.image import RESERVED_LABELS, ContainerConfig
from ..containers import names
from ..containers.record import Config
from ..networks import ports
from . import health

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

PATH_DEFAULT = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
EXPOSED_MAX = 3 * 65536  # each port by TCP, UDP and SCTP; every list of containers shows them
HOSTNAME_LENGTH_MAX = 63  # __NEW_UTS_LEN is 64; a DNS label, which it should be, has 63
_HOSTNAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_")


def merge(request: ContainerRequest, image: ContainerConfig, container_id: str, host_name: str) -> Config:
    """Return how the container will run.

    host_name: the machine's own, which `--network host` and `--uts host` show. Raises Invalid with docker's texts.
    """
    subject = subject_of(request)
    _hostname(request.domainname, subject)
    if "" in request.annotations:
        cause = "invalid Annotations: the empty string is not permitted as an annotation key"
        raise Invalid("create", subject, cause, hint="write KEY=value", code="E0234")
    entrypoint, cmd = _command(request, image)
    if not entrypoint + cmd:
        hint = "give a command after the image, or an image that has one"
        raise Invalid("create", subject, "no command specified", hint=hint, code="E0201")
    default_name = host_name if "host" in (request.network, request.uts) else names.short_id(container_id)
    return Config(
        entrypoint=entrypoint,
        cmd=cmd,
        env=_environment(request.env, image.env, subject),
        user=request.user or image.user,
        working_dir=_working_dir(request.working_dir or image.working_dir, subject),
        hostname=_hostname(request.hostname, subject) or default_name,
        labels={**_unreserved(image.labels), **request.labels},
        stop_signal=_stop_signal(request.stop_signal or image.stop_signal, subject),
        stop_timeout_s=image.stop_timeout if request.stop_timeout_s is None else request.stop_timeout_s,
        health=health.merge(request, image, subject),
        shell_form=image.shell,
        exposed_ports=_exposed((*request.exposed_ports, *image.exposed_ports), subject),
        volumes=tuple(sorted(set(image.volumes) | {bind.target for bind in request.binds if not bind.source})),
    )


def _exposed(texts: tuple[str, ...], subject: str) -> tuple[str, ...]:
    """Return the ports that request and image expose, each text once. Raises Invalid for one that is none."""
    found = tuple(dict.fromkeys(texts))
    count = 0
    for text in found:
        try:
            first, last, _ = ports.parse_exposed(text)
        except ValueError as wrong:
            hint = "write 80, 80/udp or 8000-8010; if the image says it, make that anew with another EXPOSE"
            raise Invalid("create", subject, str(wrong), hint=hint) from None
        count += last - first + 1
        if count > EXPOSED_MAX:
            raise Invalid("create", subject, f"more than {EXPOSED_MAX} ports are exposed", hint="expose fewer")
    return found


def _unreserved(labels: dict[str, str]) -> dict[str, str]:
    """Return an image's labels but those that this engine reads as orders (SEC-51: CVE-2026-53488)."""
    return {name: value for name, value in labels.items() if not name.startswith(RESERVED_LABELS)}


def environment(
    config: Config, terminal: bool, more: Sequence[str] = (), linked: Sequence[str] = ()
) -> tuple[str, ...]:
    """Return the environment of a process: the defaults, the container's over them, more (of an exec) over both.

    linked: what the container's links say, which its own go over.
    HOME is missing where nobody set it: it depends on the user, who is looked up inside the container.
    """
    base = [f"PATH={PATH_DEFAULT}", f"HOSTNAME={config.hostname}"]
    if terminal:
        base.append("TERM=xterm")
    variables: dict[str, str] = {}
    for entry in (*base, *linked, *config.env, *more):
        name, equals, value = entry.partition("=")
        if equals:
            variables[name] = value
        else:
            variables.pop(name, None)
    return tuple(f"{name}={value}" for name, value in variables.items())


def check_environment(entries: Iterable[str], subject: str, verb: str = "create") -> None:
    """Raise Invalid for an entry without a name."""
    for entry in entries:
        if not entry or entry.startswith("="):
            hint = "write it as NAME=value"
            raise Invalid(verb, subject, f"invalid environment variable: {entry[:100]}", hint=hint, code="E0203")


def subject_of(request: ContainerRequest) -> str:
    """Return what errors call a container that is not made yet."""
    if request.name:
        return f"container {request.name.removeprefix('/')}"
    return f"a container of {request.image or request.rootfs}"


def _command(request: ContainerRequest, image: ContainerConfig) -> tuple[tuple[str, ...], tuple[str, ...]]:
    # An entrypoint of the user's own makes the image's arguments meaningless; [""] is docker's spelling of "none".
    if request.entrypoint:
        entrypoint = () if request.entrypoint == ("",) else request.entrypoint
        return entrypoint, request.args or ()
    entrypoint = image.entrypoint if request.entrypoint is None else ()
    return entrypoint, request.args or image.cmd


def _environment(asked: tuple[str, ...], image: tuple[str, ...], subject: str) -> tuple[str, ...]:
    check_environment(asked, subject)
    overridden = {entry.partition("=")[0] for entry in asked}
    return asked + tuple(entry for entry in image if entry.partition("=")[0] not in overridden)


def _working_dir(path: str, subject: str) -> str:
    if not path:
        return ""
    if not path.startswith("/"):
        cause = f"the working directory '{path}' is invalid, it needs to be an absolute path"
        raise Invalid("create", subject, cause, hint="write it from the container's root: -w /path", code="E0204")
    return posixpath.normpath("/" + path.lstrip("/"))


def _hostname(text: str, subject: str) -> str:
    # Becomes a line of /etc/hosts and /etc/hostname: no white space, no colon (CVE-2022-4318 was such a line).
    if len(text) > HOSTNAME_LENGTH_MAX or not _HOSTNAME.issuperset(text):
        hint = f"use at most {HOSTNAME_LENGTH_MAX} letters, digits, dots and hyphens"
        raise Invalid("create", subject, f"invalid hostname format: {text[:100]!r}", hint=hint, code="E0202")
    return text


def _stop_signal(text: str, subject: str) -> str:
    if not text:
        return "SIGTERM"
    signals.parse(text, subject)
    return text
