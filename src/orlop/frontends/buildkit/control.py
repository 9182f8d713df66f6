"""The services Control and LLBBridge: what buildx asks, on the engine's verb `build`.

    client                                   we
      Control.Solve(ref, exporter, session)    waits until the build of that ref is returned, exports, answers
      Control.Status(ref)                      what the build tells, until its end
      LLBBridge.Ping                           what this bridge can
      LLBBridge.Solve(dockerfile.v0, options)  reads the client's folders, builds
      LLBBridge.Return                         ends Control.Solve

An older client gives the frontend to Control.Solve itself. Graphs of the client's own making (LLB), gateway images and
containers of frontends are refused by name. Source: moby/buildkit, control.proto, gateway.proto, client/solve.go.
"""

from __future__ import annotations

import base64
import contextlib
import os
import socket
import threading

from ... import __version__
from ...build.contexts import IGNORE_FILE
from ...build.journal import METADATA
from ...build.request import BuildRequest
from ...spec import jsonio, protobuf
from ...spec.errors import Conflict, Denied, Invalid, NotFound, OrlopError, Unsupported
from ...spec.reference import Reference
from . import grpc, inputs, outputs
from .asking import Asking
from .content import CachesToSend
from .failures import failed
from .frontend import FRONTEND, attestations_of, cache_sources, request_of, upload
from .http2 import Stream
from .status import Progress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from ...engine.engine import Engine
    from .session import Session, Sessions

    Fields = dict[int, list[int | bytes]]

BUILDS_MAX = 200
ENDED_MAX = 20  # builds that are over, kept for a client whose question about them comes late
WAIT_S_MAX = 60.0
_NO_IMAGES = frozenset(("local", "tar", "cacheonly"))  # exporters
_CAPABILITIES = (
    "solve.base", "resolveimage", "readfile", "readdir", "statfile", "return", "returnmap", "proto.refarray",
    "importcaches", "gateway.solve.metadata", "gateway.warnings", "reference.output",
    "frontend.inputs", "gateway.evaluate",
)  # fmt: skip
_CODES: dict[type[OrlopError], int] = {
    NotFound: grpc.NOT_FOUND,
    Invalid: grpc.INVALID_ARGUMENT,
    Conflict: grpc.ALREADY_EXISTS,
    Denied: grpc.PERMISSION_DENIED,
    Unsupported: grpc.UNIMPLEMENTED,
}


class Build:
    """One build, known by the reference that its client chose."""

    def __init__(self, reference: str) -> None:
        self.reference = reference
        self.progress = Progress(reference)
        self.solve: Fields = {}
        self.begun = threading.Event()  # Control.Solve came
        self.returned = threading.Event()  # LLBBridge.Return came, or Control.Solve's client went
        self.error = ""
        self.status = b""  # google.rpc.Status of that error
        self.place: dict[str, Any] = {}  # where the Dockerfile is wrong, or a step of it failed
        self.unresolved = ""  # the image of which nothing could be learned
        self.result: dict[str, Any] = {}
        self.caches_written: dict[str, str] = {}  # what the client is told of them

    @property
    def exporter(self) -> tuple[str, dict[str, str]]:
        """The exporter's type and attributes: the first of `Exporters`, or the one of older clients."""
        if 13 in self.solve:
            found = protobuf.decode(_bytes(self.solve[13][0]))
            return protobuf.text(found, 1), _pairs(found, 2)
        return protobuf.text(self.solve, 3), _pairs(self.solve, 4)

    def caches(self, number: int) -> list[dict[str, str]]:
        """Return the attributes of caches: 4 are those to write, 5 to read (CacheOptions of the request)."""
        found = []
        for options in map(_bytes, self.solve.get(8, ())):
            for entry in map(_bytes, protobuf.decode(options).get(number, ())):
                fields = protobuf.decode(entry)
                found.append({"type": protobuf.text(fields, 1), **_pairs(fields, 2)})
        return found


class Control:
    """All builds of one engine's clients."""

    def __init__(self, engine: Engine, sessions: Sessions) -> None:
        self._engine = engine
        self._sessions = sessions
        self._guard = threading.Lock()
        self._builds: dict[str, Build] = {}
        self._ended: dict[str, Build] = {}
        control, bridge = "/moby.buildkit.v1.Control/", "/moby.buildkit.v1.frontend.LLBBridge/"
        self._methods: dict[str, Callable[[grpc.Call], None]] = {
            f"{control}Solve": self._solve,
            f"{control}Status": self._status,
            f"{control}ListWorkers": self._list_workers,
            f"{control}Info": self._info,
            f"{control}DiskUsage": self._disk_usage,
            f"{control}Prune": self._prune,
            f"{bridge}Ping": self._ping,
            f"{bridge}Solve": self._bridge_solve,
            f"{bridge}Return": self._return,
            f"{bridge}Evaluate": self._evaluate,
            f"{bridge}Warn": self._evaluate,
            "/grpc.health.v1.Health/Check": self._health,
        }

    def serve(self, stream: Stream) -> None:
        """Carry out one call."""
        grpc.serve(stream, self._methods)

    # -- Control -------------------------------------------------------------------------------------------------------

    def _solve(self, call: grpc.Call) -> None:
        fields = _request(call)
        build = self._build(protobuf.text(fields, 1))
        build.solve = fields
        build.begun.set()
        try:
            with _told():
                if protobuf.text(fields, 6):
                    self._run(call, build, protobuf.text(fields, 6), _pairs(fields, 7))
                else:
                    _wait(call.stream, build.returned)
                    if build.error:
                        code = protobuf.number(protobuf.decode(build.status), 1) if build.status else grpc.UNKNOWN
                        raise grpc.Failed(code or grpc.UNKNOWN, build.error, build.status)
                answer = self._export(build)
        finally:
            build.returned.set()
            build.progress.end()
            self._forget(build)
            build.progress.wait_for_readers(call.stream.closed.is_set)
        call.send(protobuf.encode(tuple((1, ((1, name), (2, value))) for name, value in answer.items())))

    def _export(self, build: Build) -> dict[str, str]:
        if not build.result:
            return {}
        answer = {**build.caches_written}
        if build.exporter[0] in _NO_IMAGES:
            return answer
        answer["containerimage.digest"] = str(build.result["digest"])
        answer["containerimage.config.digest"] = str(build.result["id"])
        answer["containerimage.descriptor"] = base64.b64encode(jsonio.dump(build.result["descriptor"])).decode()
        if build.result["names"]:
            given = build.exporter[1].get("name", "")
            answer["image.name"] = ",".join(str(Reference.parse(name).tagged()) for name in given.split(",") if name)
        return answer

    def _status(self, call: grpc.Call) -> None:
        build = self._build(protobuf.text(_request(call), 1))
        try:
            for message in build.progress.read(call.stream.closed.is_set):
                call.send(message)
        finally:
            if not build.begun.is_set():  # nobody has begun it, and who asked has gone
                self._forget(build)

    def _list_workers(self, call: grpc.Call) -> None:
        _request(call)
        call.send(protobuf.encode(((1, self._worker()),)))

    def _worker(self) -> protobuf.Message:
        platform = self._engine.images.platform
        shown = ((1, platform.architecture), (2, platform.os), (3, platform.variant))
        return (
            (1, "orlop"),
            (2, ((1, "org.mobyproject.buildkit.worker.executor"), (2, "orlop"))),
            # By this label buildx knows that archives and images of several platforms can be made.
            (2, ((1, "org.mobyproject.buildkit.worker.snapshotter"), (2, "orlop"))),
            (3, shown),
            (5, _version()),
        )

    def _info(self, call: grpc.Call) -> None:
        _request(call)
        call.send(protobuf.encode(((1, _version()),)))

    def _disk_usage(self, call: grpc.Call) -> None:
        from ...build.garbage import usage

        _request(call)
        records = []
        for one in usage(self._engine):
            facts: dict[str, Any] = dict(one)  # docker's BuildCache
            size, kind = int(facts.get("Size", 0)), str(facts.get("Type", "regular"))
            fields = ((1, str(facts["ID"])), (3, bool(facts.get("InUse"))), (4, size))
            records.append((1, (*fields, (9, str(facts.get("Description", ""))), (10, kind))))
        call.send(protobuf.encode(tuple(records)))

    def _prune(self, call: grpc.Call) -> None:
        from ...build.garbage import prune, prune_matching

        fields = _request(call)
        with _told():
            # buildx sends an empty one where none is given.
            filters = [one.decode(errors="replace") for one in map(_bytes, fields.get(1, ())) if one]
            unused_s = protobuf.number(fields, 3) // 10**9
            if filters:
                found = prune_matching(
                    self._engine, filters, unused_s, [protobuf.number(fields, at) for at in (4, 5, 6)]
                )
            else:
                found = prune(
                    self._engine,
                    everything=bool(protobuf.number(fields, 2)),
                    keep_bytes=protobuf.number(fields, 4),
                    max_used_bytes=protobuf.number(fields, 5),
                    min_free_bytes=protobuf.number(fields, 6),
                    unused_s=unused_s,
                )
        facts: dict[str, Any] = dict(found)
        reclaimed = int(facts.get("SpaceReclaimed", 0))
        for name in facts.get("CachesDeleted") or ():
            call.send(protobuf.encode(((1, str(name)), (4, reclaimed))))
            reclaimed = 0  # what was gained is known of all together

    # -- LLBBridge -----------------------------------------------------------------------------------------------------

    def _ping(self, call: grpc.Call) -> None:
        _request(call)
        capabilities = tuple((1, ((1, name), (2, True))) for name in _CAPABILITIES)
        call.send(protobuf.encode((*capabilities, *_of_graphs(), (3, self._worker()))))

    def _bridge_solve(self, call: grpc.Call) -> None:
        fields = _request(call)
        build = self._of_call(call)
        with _told():
            if not build.begun.wait(WAIT_S_MAX):
                self._forget(build)
                raise NotFound("find", "the build", f"no such job {build.reference[:60]}")
            options = inputs.resolved(_pairs(fields, 3), fields)
            metadata = self._run(call, build, protobuf.text(fields, 2), options)
        result: list[tuple[int, Any]] = [(10, ((1, name), (2, value))) for name, value in metadata.items()]
        if build.result:
            whole = inputs.definition(str(build.result["id"]))
            result.insert(0, (3, ((1, build.reference), (2, whole))))
        call.send(protobuf.encode(((3, tuple(result)),)))

    def _run(self, call: grpc.Call, build: Build, frontend: str, options: dict[str, str]) -> dict[str, bytes]:
        """Build with the frontend; return the metadata of a call that asks about the Dockerfile instead."""
        from ...build.build import build as solve

        if frontend != FRONTEND:
            cause = f"there is no frontend {frontend[:60]!r}" if frontend else "it sends a graph of its own"
            raise Unsupported("build", "what the client asks for", cause, hint="build from a Dockerfile")
        session = self._session(build)
        allow = tuple(value.decode() for value in build.solve.get(9, ()) if isinstance(value, bytes))
        with (
            _hangup(call.stream) as hangup,
            upload(self._engine, session, options) as archive,
            Asking(self._engine, session) as asking,
            CachesToSend(self._engine, session, build.caches(4)) as caches,
            outputs.Sending(self._engine, session, *build.exporter) as sending,
        ):
            asked = BuildRequest(
                tags=sending.output.names,
                allow=allow,
                outputs=(sending.output,),
                cache_to=caches.places,
                cache_from=cache_sources(self._engine, session, options, build.caches(5)),
                attestations=attestations_of(options, leaves=sending.output.is_image_that_leaves),
            )
            build.progress.definition = f"[internal] load build definition from {_file_name(options)}"
            request = request_of(self._engine, session, options, asked)
            _tell_read(build, request)
            if "requestid" in options:
                from .subrequests import answer

                return answer(self._engine, request, archive, options["requestid"])
            messages = solve(self._engine, request, archive, hangup, sending.sinks, asking)
            while True:
                try:
                    message = next(messages)
                except StopIteration as end:
                    sending.finish()
                    build.caches_written = caches.finish()
                    build.result = end.value
                    return {}
                except OrlopError as failure:
                    raise failed(failure, build.place, build.unresolved) from None
                if "at" in message:
                    build.place = message["at"]  # type: ignore[assignment]  # build.journal
                if message.get("state") == "failed" and str(message.get("name")).startswith(METADATA):
                    build.unresolved = str(message["name"]).removeprefix(METADATA)
                build.progress.tell(message)

    def _return(self, call: grpc.Call) -> None:
        fields = _request(call)
        build = self._of_call(call)
        if 2 in fields:
            build.status = protobuf.inner(fields, 2)
            build.error = protobuf.text(protobuf.decode(build.status), 2) or "the client gave up"
        build.returned.set()
        call.send(b"")

    def _evaluate(self, call: grpc.Call) -> None:
        _request(call)
        call.send(b"")

    def _health(self, call: grpc.Call) -> None:
        _request(call)
        call.send(protobuf.encode(((1, 1),)))  # SERVING

    # -- builds --------------------------------------------------------------------------------------------------------

    def _of_call(self, call: grpc.Call) -> Build:
        return self._build(call.metadata.get("buildkit-controlapi-buildid", [""])[0])

    def _build(self, reference: str) -> Build:
        """Return a build, one that is made now where nobody has named it before: calls come in any order."""
        if not 0 < len(reference) <= 200:
            raise grpc.Failed(grpc.INVALID_ARGUMENT, "the build has no name")
        with self._guard:
            if reference in self._ended:
                return self._ended[reference]
            if reference not in self._builds:
                if len(self._builds) >= BUILDS_MAX:
                    raise grpc.Failed(grpc.RESOURCE_EXHAUSTED, f"there are {BUILDS_MAX} builds already")
                self._builds[reference] = Build(reference)
            return self._builds[reference]

    def _forget(self, build: Build) -> None:
        with self._guard:
            if self._builds.pop(build.reference, None) is not None and build.begun.is_set():
                self._ended[build.reference] = build
                if len(self._ended) > ENDED_MAX:
                    del self._ended[next(iter(self._ended))]

    def _session(self, build: Build) -> Session:
        return self._sessions.find(protobuf.text(build.solve, 5))


def _file_name(options: dict[str, str]) -> str:
    return options.get("filename", "Dockerfile").rpartition("/")[2]


def _tell_read(build: Build, request: BuildRequest) -> None:
    """Tell what was read of the client, as BuildKit does."""
    if request.dockerfile_text is None:
        return  # of a repository or an archive
    if request.ignore_text is not None:
        ignored = len(request.ignore_text.encode(errors="surrogateescape"))
    else:
        try:
            ignored = os.stat(f"{request.context}/{IGNORE_FILE}", follow_symlinks=False).st_size
        except OSError:
            ignored = 0
    for name, what, size in (
        (build.progress.definition, "dockerfile", len(request.dockerfile_text.encode(errors="surrogateescape"))),
        ("[internal] load .dockerignore", "context", ignored),
    ):
        step = {"step": 0, "name": name}
        build.progress.tell({**step, "state": "started"})
        build.progress.tell({**step, "status": f"transferring {what}: {size}B"})
        build.progress.tell({**step, "state": "done"})


def _of_graphs() -> protobuf.Message:
    """Return what the bridge says of graphs and exporters: with the second, attestations are asked for."""
    return tuple((2, ((1, name), (2, True))) for name in ("source.image", "exporter.image.attestations"))


def _version() -> protobuf.Message:
    return ((1, "github.com/moby/buildkit"), (2, f"v0.13.0+orlop-{__version__}"))


def _request(call: grpc.Call) -> Fields:
    """Return the one message that a call begins with. Raises Failed."""
    messages = list(call.messages())
    if len(messages) != 1:
        raise grpc.Failed(grpc.INVALID_ARGUMENT, f"{len(messages)} messages instead of one")
    try:
        return protobuf.decode(messages[0])
    except ValueError as error:
        raise grpc.Failed(grpc.INVALID_ARGUMENT, str(error)) from None


def _pairs(fields: Fields, number: int) -> dict[str, str]:
    """Return a map<string, string>."""
    found = {}
    for value in fields.get(number, ()):
        entry = protobuf.decode(_bytes(value))
        found[protobuf.text(entry, 1)] = protobuf.text(entry, 2)
    return found


def _bytes(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise grpc.Failed(grpc.INVALID_ARGUMENT, "a field is not a message")
    return value


def _wait(stream: Stream, event: threading.Event) -> None:
    """Wait for an event as long as the client is there."""
    while not event.wait(1.0):
        if stream.closed.is_set():
            raise grpc.Failed(grpc.CANCELLED, "the client has gone")


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Make an error of the engine the status of the call."""
    try:
        yield
    except OrlopError as error:
        text = f"{error}\nNext: {error.hint}" if error.hint else str(error)
        raise grpc.Failed(_CODES.get(type(error), grpc.UNKNOWN), text) from None
    except ValueError as error:
        raise grpc.Failed(grpc.INVALID_ARGUMENT, str(error)) from None


@contextlib.contextmanager
def _hangup(stream: Stream) -> Iterator[int]:
    """Hold a descriptor whose other end is closed when the client resets its call, or goes."""
    ours, theirs = socket.socketpair()
    try:
        with stream.at_end(theirs.close):
            yield ours.fileno()
    finally:
        theirs.close()
        ours.close()
