"""The route of the classic builder, `POST /build`: its query, its stream of "Step 1/3 : ..." texts; and /build/prune.

The builder works on independent steps at the same time; the stream shows them in the Dockerfile's order, as clients
know it. Source: moby's api/server/router/build, builder/dockerfile.
"""

from __future__ import annotations

import base64
import binascii
import socket
from collections import deque

from ...build.cache import places
from ...build.request import BuildRequest
from ...image.changes import duration_ns
from ...spec import jsonio
from ...spec.container import UlimitRequest
from ...spec.errors import CommandFailed, NotFound, OrlopError
from . import creation
from .door import Door, Status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from typing import Any

    from ...build.cache.places import CachePlace
    from ...spec.registry import Credentials

    Messages = Generator[dict[str, object], None, dict[str, object]]

SHORT = 12
QUIET_LINES_MAX = 10_000  # of a build that is to say nothing unless it fails
CLIENT_TAR = ("", "client-session")
STDERR = 2
_RED, _PLAIN = "\x1b[91m", "\x1b[0m"  # moby, builder/dockerfile: what a step says on its standard error
RUNNING, REMOVED = " ---> Running in ", " ---> Removed intermediate container "


def build(door: Door) -> None:
    """Build from the archive in the body, or from what `remote` names."""
    request = build_request(door)
    with door.context.building(door.query.get("buildid", ""), door.connection):
        run(door, request, _as_it_is)


def _as_it_is(lines: Iterator[bytes]) -> Iterator[bytes]:
    return lines


def cancel(door: Door) -> None:
    """End a build as its client's leaving does. One that is over, or was never there, is no mistake, as in docker."""
    identifier = door.query.get("id", "")
    if not identifier:
        raise Status(400, "build ID not provided")
    door.context.cancel_build(identifier)
    door.answer(200)


def run(door: Door, request: BuildRequest, told: Callable[[Iterator[bytes]], Iterator[bytes]]) -> None:
    """Build what was asked for. told: what makes of docker's stream the one that is answered. Raises Status."""
    from ...build.build import build as solve

    if not request.archive:
        messages = solve(door.engine, request, -1, door.hangup)
        door.stream(200, {"Content-Type": "application/json"}, told(_stream(door, messages)))
        return
    ours, theirs = socket.socketpair()
    with theirs:
        with ours:
            messages = solve(door.engine, request, theirs.fileno(), door.hangup)
            first = next(messages)  # it reads from now on
            try:
                for piece in door.pieces():
                    ours.sendall(piece)
            except (BrokenPipeError, ConnectionResetError):
                pass  # it has refused the archive, and says why
        door.stream(200, {"Content-Type": "application/json"}, told(_stream(door, messages, first)))


def build_request(door: Door) -> BuildRequest:
    """Return what the query asks for. Raises Status, Invalid."""
    query = door.query
    if query.get("version", "1") == "2":
        raise Status(400, "builds of BuildKit's sessions are not served at this route: set DOCKER_BUILDKIT=0")
    if query.get("version", "1") not in ("", "1"):
        raise Status(400, f'invalid version "{query["version"][:60]}"')
    remote = query.get("remote", "")
    names = door.every("t")
    arguments = {name: value for name, value in _object(query.get("buildargs", "")).items() if value is not None}
    return BuildRequest(
        archive=remote in CLIENT_TAR,
        remote="" if remote in CLIENT_TAR else remote,
        dockerfile=query.get("dockerfile", ""),
        tags=tuple(name for name in names if name),
        build_args={name: str(value) for name, value in arguments.items()},
        labels={name: str(value) for name, value in _object(query.get("labels", "")).items()},
        target=query.get("target", ""),
        platforms=tuple(filter(None, [query.get("platform", "").lower()])),
        squash=door.flag("squash"),
        cache_from=_caches(query.get("cachefrom", "")),
        no_cache=door.flag("nocache"),
        pull=door.flag("pull"),
        network=_network(query.get("networkmode", "")),
        extra_hosts=tuple(part for text in door.every("extrahosts") for part in text.split(",") if part),
        ulimits=_ulimits(query.get("ulimits", "")),
        credentials=credentials(door),
        **limits(door),
    )


def limits(door: Door) -> dict[str, Any]:
    """Return the limits of steps, which docker's query and podman's call the same. Raises Status."""
    numbers = {
        "shm_bytes": "shmsize",
        "memory_bytes": "memory",
        "memory_swap_bytes": "memswap",
        "cpu_shares": "cpushares",
        "cpu_period_us": "cpuperiod",
        "cpu_quota_us": "cpuquota",
    }
    texts = {"cpuset_cpus": "cpusetcpus", "cpuset_mems": "cpusetmems", "cgroup_parent": "cgroupparent"}
    found: dict[str, Any] = {field: door.number(name) or 0 for field, name in numbers.items()}
    return found | {field: door.query.get(name, "") for field, name in texts.items()}


_AGES = ("until", "unused-for", "label", "label!")
_SIZES = ("keep-storage", "reserved-space", "max-used-space", "min-free-space")


def prune(door: Door) -> None:
    """Remove what the cache of builds has; all=1 the cache mounts too."""
    from ...build.garbage import prune as collect
    from ...build.garbage import prune_matching

    filters = door.filters()
    conditions = [f"{name}={value}" for name, values in filters.items() if name not in _AGES for value in values]
    if filters.get("label"):  # no entry has a label: `system prune` asks so of everything
        door.answer_json(200, {"CachesDeleted": None, "SpaceReclaimed": 0})
        return
    unused = [_seconds(value) for name in ("until", "unused-for") for value in filters.get(name, ())]
    if conditions:
        limits = [door.number(name) or 0 for name in _SIZES]
        found = prune_matching(door.engine, [",".join(conditions)], max(unused, default=0), limits)
        door.answer_json(200, found)
        return
    found = collect(
        door.engine,
        everything=door.flag("all"),
        keep_bytes=door.number("keep-storage") or door.number("reserved-space") or 0,
        max_used_bytes=door.number("max-used-space") or 0,
        min_free_bytes=door.number("min-free-space") or 0,
        unused_s=max(unused, default=0),
    )
    door.answer_json(200, found)


def _seconds(text: str) -> int:
    try:
        return duration_ns("until", text) // 10**9
    except ValueError:
        raise Status(400, f"invalid filter 'until={text[:60]}'") from None


def _network(mode: str) -> str:
    return "" if mode in ("", "default", "bridge") else mode


def _object(text: str) -> dict[str, Any]:
    return jsonio.without_nul(jsonio.parse_object(text, "the query"), "the query") if text and text != "null" else {}


def _caches(text: str) -> tuple[CachePlace, ...]:
    """Return the images whose inline caches may be used (a JSON list). Raises Status, Invalid."""
    found = jsonio.parse(text, "cachefrom") if text else None
    if found is not None and not (isinstance(found, list) and all(isinstance(one, str) for one in found)):
        raise Status(400, "cachefrom is not a list of images")
    return tuple(places.source({"type": places.REGISTRY, "ref": str(one)}) for one in found or () if one)


def _ulimits(text: str) -> tuple[UlimitRequest, ...]:
    found = jsonio.parse(text, "ulimits") if text else None
    limits = []
    for one in found if isinstance(found, list) else ():
        fields = creation.Reader(one, "ulimits")
        limits.append(UlimitRequest(name=fields.text("Name"), soft=fields.number("Soft"), hard=fields.number("Hard")))
    return tuple(limits)


def credentials(door: Door, header: str = "X-Registry-Config") -> dict[str, Credentials]:
    """Return what a header says: base64 JSON, registry -> AuthConfig. Raises Status."""
    from .registries import of_config

    text = door.headers.get(header, "")
    if not text:
        return {}
    try:
        found = jsonio.parse_object(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), header)
    except (binascii.Error, ValueError, OrlopError):
        raise Status(400, f"invalid {header} header") from None
    out = {}
    for server, fields in found.items():
        host = server.partition("://")[2] or server
        host = "docker.io" if host.startswith("index.docker.io") else host.partition("/")[0]
        out[host] = of_config(creation.Reader(fields, header))
    return out


# -- the stream -------------------------------------------------------------------------------------------------------


def _stream(door: Door, messages: Messages, first: dict[str, object] | None = None) -> Iterator[bytes]:
    """Return docker's stream. What fails before the first step is raised: the status can still tell it."""
    from ...build.dockerfile.source import DockerfileError

    quiet = door.flag("q")
    text = _Text(told_after=door.flag("rm", default=True), told_after_failure=door.flag("forcerm"))
    held: list[bytes] = []
    while not text.planned:
        try:
            message = next(messages)
        except StopIteration as end:
            return iter([*([] if quiet else held), *_end(end.value, quiet)])
        except DockerfileError as wrong:
            raise Status(400, wrong.docker_text) from None
        except NotFound as wrong:
            if "target stage" in wrong.cause:  # the client's mistake, as docker's daemon sees it
                raise Status(400, wrong.cause) from None
            raise
        held += text.take(message)
    return _rest(messages, text, held, quiet)


def _rest(messages: Messages, text: _Text, first: list[bytes], quiet: bool) -> Iterator[bytes]:
    """Yield the lines. A quiet build's are kept, and told when it fails: without them nobody knows why."""
    held = deque(first, maxlen=QUIET_LINES_MAX)
    if not quiet:
        yield from first
    try:
        while True:
            try:
                message = next(messages)
            except StopIteration as end:
                if not quiet:
                    yield from text.finish()
                yield from _end(end.value, quiet)
                return
            lines = text.take(message)
            if quiet:
                held.extend(lines)
            else:
                yield from lines
    except OrlopError as wrong:
        if quiet:
            yield from held
        yield from text.finish()
        yield _failure(wrong)
    finally:
        messages.close()


def _end(result: dict[str, Any], quiet: bool) -> Iterator[bytes]:
    identifier = str(result.get("id", ""))
    if quiet:
        yield _line({"stream": f"{identifier}\n"})
        return
    yield _line({"aux": {"ID": identifier}})
    yield _line({"stream": f"Successfully built {identifier.removeprefix('sha256:')[:SHORT]}\n"})
    for name in result.get("names", []):
        yield _line({"stream": f"Successfully tagged {name}\n"})


def _failure(wrong: OrlopError) -> bytes:
    told = wrong.cause
    detail: dict[str, object] = {"message": told}
    if isinstance(wrong, CommandFailed):
        # The words and the code of the classic builder, which its clients look for.
        command = wrong.subject.removeprefix("RUN ")
        told = f"The command '/bin/sh -c {command}' returned a non-zero code: {wrong.exit_code}"
        detail = {"code": wrong.exit_code, "message": told}
    return _line({"errorDetail": detail, "error": told})


def _line(message: dict[str, object]) -> bytes:
    return jsonio.dump(message) + b"\r\n"


class _Text:
    """The journal's messages as the classic builder's texts: one step after the other.

    A step's container is gone with the step, whatever was asked; told_after, told_after_failure: docker would remove it
    then, and says so. Containers of instructions that execute nothing are docker's alone.
    """

    def __init__(self, *, told_after: bool, told_after_failure: bool) -> None:
        self.planned = False
        self._told_after = told_after or told_after_failure
        self._told_after_failure = told_after_failure
        self._containers: dict[int, str] = {}
        self._plan: list[tuple[str, int]] = []
        self._at = 0  # which instruction is shown now
        self._announced = -1
        self._held: dict[int, list[bytes]] = {}  # what steps said before their turn
        self._ended: dict[int, dict[str, object]] = {}
        self._tree = ""
        self._missed: set[int] = set()

    def take(self, message: dict[str, object]) -> list[bytes]:
        """Return the lines that a message makes possible."""
        plan = message.get("plan")
        if isinstance(plan, list):
            self.planned = True
            self._plan = [(str(one["text"]), int(one["step"])) for one in plan]
        step = message.get("step")
        if isinstance(step, int) and step:
            if "log" in message:
                told = str(message["log"])
                told = f"{_RED}{told}{_PLAIN}" if message.get("stream") == STDERR else told
                self._held.setdefault(step, []).append(_line({"stream": told}))
            elif "container" in message:
                self._containers[step] = str(message["container"])[:SHORT]
                self._held.setdefault(step, []).append(_line({"stream": f"{RUNNING}{self._containers[step]}\n"}))
            elif "pull" in message and isinstance(message["pull"], dict):
                self._held.setdefault(step, []).append(_line(message["pull"]))
            elif "missed" in message:
                self._missed.add(step)
            elif message.get("state") in ("done", "cached", "failed"):
                self._ended[step] = message
        elif step == 0 and isinstance(message.get("pull"), dict):
            return [_line(message["pull"])]  # type: ignore[arg-type]
        return self._advance()

    def finish(self) -> list[bytes]:
        """Return what is still held back: the build is over, one way or the other."""
        return self._advance()

    def _advance(self) -> list[bytes]:
        lines: list[bytes] = []
        while self._at < len(self._plan):
            text, step = self._plan[self._at]
            if self._announced < self._at:
                if step and step not in self._ended and step not in self._held and self._earlier_failed():
                    return lines
                lines.append(_line({"stream": f"Step {self._at + 1}/{len(self._plan)} : {text}\n"}))
                self._announced = self._at
            lines += self._held.pop(step, [])
            if step:
                ended = self._ended.get(step)
                if ended is None or (ended.get("state") == "failed" and not self._told_after_failure):
                    return lines
                if self._told_after and step in self._containers:
                    lines.append(_line({"stream": f"{REMOVED}{self._containers.pop(step)}\n"}))
                if ended.get("state") == "failed":
                    return lines
                self._tree = str(ended.get("tree", "")) or self._tree
            used = self._used_cache()
            if used is None:
                return lines
            if used:
                lines.append(_line({"stream": " ---> Using cache\n"}))
            lines.append(_line({"stream": f" ---> {self._tree.removeprefix('sha256:')[:SHORT]}\n"}))
            self._at += 1
        return lines

    def _used_cache(self) -> bool | None:
        """Tell whether the instruction shown now came from the cache; None while that is not known.

        One that makes no layer did where the next one that makes one does, or at the end the last one.
        """
        text, step = self._plan[self._at]
        if text.upper().startswith("FROM "):
            return False
        steps = [number for text, number in self._plan if number and not text.upper().startswith("FROM ")]
        later = [number for text, number in self._plan[self._at :] if number and number in steps]
        wanted = step or next(iter(later or steps[-1:]), 0)
        if wanted in self._ended:
            return self._ended[wanted].get("state") == "cached"
        if wanted in self._missed:
            return False
        return None if wanted else True

    def _earlier_failed(self) -> bool:
        return any(message.get("state") == "failed" for message in self._ended.values())


def plain(text: str) -> str:
    """Return a text without what only docker's classic builder says: "" for one that is nothing else."""
    if text.startswith((RUNNING, REMOVED)):
        return ""
    return text.removeprefix(_RED).removesuffix(_PLAIN) if text.startswith(_RED) else text


ROUTES = (
    ("POST", "/build", build),
    ("POST", "/build/cancel", cancel),
    ("POST", "/build/prune", prune),
)
