"""What operations take and return."""

from __future__ import annotations

from typing import NamedTuple, TypedDict

from ...spec.container import ContainerRequest, GrantRequest, TmpfsRequest
from ...spec.errors import Invalid, OrlopError
from ..cli.values import parse_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from ...spec.container import BindRequest
    from ...spec.network import PortRequest

OWNER_LABEL = "io.orlop.owner"


class Options(TypedDict, total=False):
    """How a container is made. What is left away is the image's, or the engine's default.

    volumes: as for `run -v`, "/host:/inside:ro" or "name:/inside". ports: of the container -> of the host, 0 draws one.
    memory: bytes, or "64m". cpus: 1.5 is one and a half processors. secrets: names, as files in /run/secrets.
    """

    name: str
    env: Mapping[str, str]
    user: str
    workdir: str
    hostname: str
    labels: Mapping[str, str]
    entrypoint: Sequence[str]
    network: str
    volumes: Sequence[str]
    tmpfs: Sequence[str]
    ports: Mapping[int, int]
    memory: int | str
    cpus: float
    pids: int
    read_only: bool
    privileged: bool
    init: bool
    cap_add: Sequence[str]
    cap_drop: Sequence[str]
    security_opt: Sequence[str]
    restart: str
    secrets: Sequence[str]


class Completed(NamedTuple):
    """A command that has ended. stdout and stderr as bytes."""

    exit_code: int
    stdout: bytes
    stderr: bytes


class Output(NamedTuple):
    """A piece of what a container says. stream: "stdout" or "stderr"."""

    stream: str
    data: bytes


class CommandError(Exception):
    """A command ended with another status than 0, and `check` was asked for."""

    def __init__(self, args: Sequence[str], completed: Completed) -> None:
        super().__init__(args, completed)
        self.completed = completed
        self._words = " ".join(args)

    def __str__(self) -> str:
        tail = self.completed.stderr.decode(errors="replace").strip()[-500:]
        return f"{self._words!r} ended with status {self.completed.exit_code}{': ' + tail if tail else ''}"


def request(image: str, args: Sequence[str], options: Options, labels: Mapping[str, str]) -> ContainerRequest:
    """Return what the engine is asked for. Raises Invalid, TypeError for an option that there is none of."""
    given: dict[str, Any] = dict(options)
    if unknown := set(given) - set(Options.__annotations__):
        raise TypeError(f"unknown option {min(unknown)!r}; known are {', '.join(sorted(Options.__annotations__))}")
    memory = given.get("memory", 0)
    return ContainerRequest(
        image=image,
        args=tuple(args) or None,
        name=given.get("name", ""),
        env=tuple(f"{key}={value}" for key, value in given.get("env", {}).items()),
        user=given.get("user", ""),
        working_dir=given.get("workdir", ""),
        hostname=given.get("hostname", ""),
        labels={**given.get("labels", {}), **labels},
        entrypoint=tuple(given["entrypoint"]) if "entrypoint" in given else None,
        network=given.get("network", ""),
        binds=tuple(map(_bind, given.get("volumes", ()))),
        tmpfs=tuple(TmpfsRequest(target=target) for target in given.get("tmpfs", ())),
        ports=tuple(_port(inside, outside) for inside, outside in given.get("ports", {}).items()),
        memory_bytes=_bytes(memory) if isinstance(memory, str) else memory,
        cpu_nanos=int(given.get("cpus", 0) * 1e9),
        pids_max=given.get("pids"),
        read_only=given.get("read_only", False),
        privileged=given.get("privileged", False),
        init=given.get("init", False),
        cap_add=tuple(given.get("cap_add", ())),
        cap_drop=tuple(given.get("cap_drop", ())),
        security_opt=tuple(given.get("security_opt", ())),
        restart_policy=given.get("restart", ""),
        secrets=tuple(GrantRequest(source=one) for one in given.get("secrets", ())),
    )


def _bytes(text: str) -> int:
    try:
        return int(parse_bytes(text))
    except ValueError as wrong:
        raise Invalid("read", f"memory={text!r}", str(wrong)) from None


def _bind(text: str) -> BindRequest:
    from ...spec.container import BindRequest

    source, colon, rest = text.partition(":")
    target, _, options = rest.partition(":")
    if not colon:
        return BindRequest(source="", target=source)
    return BindRequest(source=source, target=target, options=tuple(options.split(",")) if options else ())


def _port(inside: int, outside: int) -> PortRequest:
    from ...spec.network import PortRequest

    return PortRequest(host_first=outside, host_last=outside, first=inside, last=inside, protocol="tcp")


__all__ = ["CommandError", "Completed", "Options", "OrlopError", "Output"]
