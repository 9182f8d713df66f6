"""The verb `build`: a request becomes an image, told step by step.

The work is done on threads of its own; the caller's thread carries messages. When the client goes, or the caller
closes the generator, running commands are killed and nothing of the build stays but what its finished steps put into
the cache.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import select
import shutil
import threading
import time
from contextlib import ExitStack, contextmanager

from orlop.engine.containers.record import disk_trouble_told, write_durably
from orlop.linux.path import DAMAGED, read_file
from orlop.spec.errors import Invalid, OrlopError, Unavailable, Unsupported
from orlop.spec.platform import Platform
from orlop.spec.reference import Reference

from . import contexts, graph, history, verify
from .cache.imports import Gone
from .cache.places import INLINE, MAX
from .dockerfile.compile import compile as compile_graph
from .dockerfile.compile import whole_name
from .dockerfile.lines import RECIPES, UNSPOKEN_HINT, is_spoken, unspoken
from .dockerfile.options import Options
from .dockerfile.parse import parse
from .dockerfile.source import DockerfileError
from .journal import METADATA, Journal
from .settings import Settings, place_of
from .solver.solve import Solver, name_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from orlop.engine.engine import Engine
    from orlop.spec.image import ContainerConfig

    from .dockerfile.instructions import Dockerfile
    from .dockerfile.lint import Warning
    from .dockerfile.options import Compiled, ResolveConfig
    from .dockerfile.source import Source
    from .journal import Message
    from .request import BuildRequest
    from .settings import Asked

    Written = tuple[Dockerfile, Options, ResolveConfig]

SALT_BYTES = 32
_SALTING = threading.Lock()
TAIL_LINES = 40


def build(
    engine: Engine,
    request: BuildRequest,
    archive: int = -1,
    hangup: int = -1,
    sinks: Sequence[int] = (),
    asked: Asked | None = None,
) -> Generator[Message, None, dict[str, object]]:
    """Build; yield the journal's messages. The generator's value is {build, id, digest, names}.

    archive: the context as a descriptor, -1 for none. hangup: the client's connection: its end cancels the build.
    sinks: descriptors that take the archives of the request's outputs. asked: who has what the request does not bring.
    Raises DockerfileError, CommandFailed for a failing step, NotFound, Invalid, Denied, Unavailable.
    """
    directory = history.begin(engine)
    journal = Journal(directory)
    with engine.store.leases.hold() as lease, ExitStack() as held:
        settings = Settings(request, _platform(engine, request), _salt(engine), asked)
        solver = Solver(engine, settings, journal, lease, directory)
        work = _Work(solver, request, archive, sinks)
        held.callback(solver.close)
        held.callback(work.finish)
        thread = threading.Thread(target=work.run, name="build", daemon=True)
        watch = threading.Thread(target=_watch, args=(hangup, solver, work.done), name="build watch", daemon=True)
        thread.start()
        watch.start()
        held.callback(watch.join)
        held.callback(thread.join)
        held.callback(solver.cancel)  # first: for a caller that closes the generator early
        yield {"build": solver.name}
        yield from journal.messages()
        thread.join()
        if work.failure is not None:
            raise work.failure
        return work.result


@contextmanager
def prepared(engine: Engine, request: BuildRequest, archive: int) -> Iterator[Written]:
    """Hold what a request is about; nothing is built. Raises as `build` does."""
    directory = history.begin(engine)
    journal = Journal(directory)
    journal.end()
    try:
        with engine.store.leases.hold() as lease:
            settings = Settings(request, _platform(engine, request), _salt(engine))
            solver = Solver(engine, settings, journal, lease, directory)
            try:
                given = contexts.prepare(solver, request, archive)
                yield read_request(solver, request, given)
            finally:
                solver.close()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


class _Work:
    """One build, on a thread."""

    def __init__(self, solver: Solver, request: BuildRequest, archive: int, sinks: Sequence[int]) -> None:
        self.solver = solver
        self.request = request
        self.archive = archive
        self.sinks = sinks
        self.result: dict[str, object] = {}
        self.failure: BaseException | None = None
        self.done = os.eventfd(0, os.EFD_CLOEXEC)
        self._began = time.monotonic()
        self._name = ""
        self._title = ""
        self._source: Source | None = None  # once it is read

    def run(self) -> None:
        """Do it; the failure is told by the caller."""
        solver = self.solver
        try:
            with solver.engine.store.leases.hold() as lease:
                self.result = self._build()
                solver.lease.add(*lease.held)
        except OSError as wrong:  # the door takes an OSError for the end of its client
            reference = solver.engine.log.exception(f"build {solver.name}", wrong)
            where = f"{wrong.filename}: " if wrong.filename else ""
            hint = f"the engine's log has more about it: {reference}"
            self.failure = Unavailable("build", "the image", f"{where}{wrong.strerror or wrong}", hint=hint)
            self._tell_failure(self.failure)
        except BaseException as failure:
            self.failure = failure
            self._tell_failure(failure)
        finally:
            self._note()
            solver.journal.end()
            os.eventfd_write(self.done, 1)

    def finish(self) -> None:
        os.close(self.done)

    def _build(self) -> dict[str, object]:
        solver, request = self.solver, self.request
        _check(request)
        given = contexts.prepare(solver, request, self.archive)
        self._title = f"{given.identity} {given.dockerfile}".strip()
        self._name = hashlib.sha256(f"{given.identity}\0{given.dockerfile}\0{request.target}".encode()).hexdigest()
        solver.settings.before = history.inputs_before(solver.engine, self._name)
        written = read_request(solver, request, given)
        self._source = written[0].source
        compiled = compile_graph(*written)
        for warning in compiled.warnings:
            solver.journal.tell({"warning": told_warning(warning)})
        if compiled.unconsumed:
            shown = " ".join(compiled.unconsumed)
            text = f"[Warning] One or more build-args [{shown}] were not consumed"
            solver.journal.tell({"warning": {"detail": text}})
        if compiled.failure:
            raise Invalid("build", given.dockerfile, compiled.failure, hint="see them with: orlop build --check")
        if request.cache_from or request.cache_to or request.cache_mounts_from or request.cache_mounts_to:
            from .cache import transfer
        for place in request.cache_from:
            transfer.read(solver, place)
        for place in request.cache_mounts_from:
            transfer.read_mounts(solver, place)
        solver.journal.tell({"plan": _instructions(solver, compiled)})
        result = self._solved(compiled)
        for place in request.cache_to:
            if place.type != INLINE:
                transfer.write(solver, place, compiled.targets)
        for place in request.cache_mounts_to:
            transfer.write_mounts(solver, place, compiled.targets)
        return result

    def _solved(self, compiled: Compiled) -> dict[str, object]:
        """Solve and export. Where a cache can't give what it had promised, both once more: without believing it."""
        solver = self.solver
        while True:
            solver.solve([target.vertex for target in compiled.targets])
            try:
                for target in compiled.targets:
                    solver.fetch(solver.solved[target.vertex].tree.layers)
                if any(place.mode == MAX and place.type != INLINE for place in solver.settings.request.cache_to):
                    solver.fetch(one.layer for one in solver.solved.values() if one.layer is not None)
                if solver.settings.request.verify:
                    verify.check(solver, compiled.targets)
                return self._export(compiled)
            except Gone:
                solver.check()
                solver.begin_anew()

    def _export(self, compiled: Compiled) -> dict[str, object]:
        from .output.deliver import deliver

        return {"build": self.solver.name, **deliver(self.solver, compiled.targets, self.sinks)}

    def _tell_failure(self, failure: BaseException) -> None:
        if isinstance(failure, DockerfileError):
            self.solver.journal.tell({"excerpt": failure.excerpt})
            self.solver.journal.tell({"at": _at(failure.source, failure.lines)})
        vertex = self.solver.failed_vertex
        if self._source is not None and vertex is not None and vertex.origin.lines[0]:
            self.solver.journal.tell({"at": _at(self._source, vertex.origin.lines)})
        step = self.solver.failed_step
        if step is not None:
            number, name = step
            self.solver.journal.tell({"failed": number, "name": name, "tail": self.solver.tail})

    def _note(self) -> None:
        """Write down what was built; what only this build needed goes."""
        solver = self.solver
        failure = self.failure
        if isinstance(failure, OrlopError):
            error = failure.cause
        else:
            error = f"{type(failure).__name__}: {failure}" if failure is not None else ""
        steps = [_step(solver, vertex) for vertex in solver.solved]
        if solver.failed_vertex is not None:
            steps.append(_step(solver, solver.failed_vertex))
        record = history.BuildRecord(
            id=solver.name,
            name=self._name,
            title=self._title,
            created=solver.settings.now,
            state="failed" if failure is not None else "done",
            seconds=round(time.monotonic() - self._began, 3),
            error=error,
            image=str(self.result.get("id", "")),
            kept=solver.kept,
            failed_step=solver.failed_step[0] if solver.failed_step is not None else 0,
            steps=tuple(sorted(steps, key=lambda step: step.number)),
        )
        try:
            for name in os.listdir(solver.directory):
                if name.startswith("work-"):
                    shutil.rmtree(f"{solver.directory}/{name}", ignore_errors=True)
            history.save(solver.directory, record)
            history.trim(solver.engine)
        except OSError as wrong:
            solver.engine.log.write(f"build {solver.name} can't be written down: {wrong}")


def read_request(solver: Solver, request: BuildRequest, given: contexts.Given) -> Written:
    """Return the Dockerfile, what is asked of it, and what knows base images. Raises DockerfileError."""
    syntax = request.build_args.get("BUILDKIT_SYNTAX", "")
    if not is_spoken(syntax):
        raise Unsupported("build", "--build-arg BUILDKIT_SYNTAX", unspoken(syntax), hint=UNSPOKEN_HINT)
    platforms = tuple(Platform.parse(text) for text in request.platforms)
    ignores = solver.contexts[graph.MAIN_CONTEXT].excluded
    options = Options(
        build_platform=solver.engine.images.platform,
        platforms=platforms,
        build_args=request.build_args,
        target=request.target,
        labels=request.labels,
        contexts=given.vertices,
        ignores=ignores.surely_excludes if ignores is not None else None,
    )

    def config_of(reference: str, platform: Platform) -> ContainerConfig:
        from .solver.sources import find_image

        log = solver.journal.step(0, METADATA + whole_name(reference))
        try:
            image = find_image(solver, reference, platform, log)
        except OrlopError as failure:
            log.end("failed", failure.cause)
            raise
        log.end("done")
        return image.config.config

    def compose(source: Source, language: str) -> Source:
        if language == RECIPES:
            from . import recipes

            return recipes.composed(solver, source, given.read, _predefined(options) | request.build_args)
        from .dockerfile.templates import composed

        return composed(source, given.read, _predefined(options), request.build_args)

    return parse(given.text, given.dockerfile, compose), options, config_of


def _predefined(options: Options) -> dict[str, str]:
    """Return the platforms' arguments, as far as they are the same for all of the build."""
    from .dockerfile.compile import platform_arguments

    values = platform_arguments("BUILD", options.build_platform)
    if len(options.platforms) < 2:
        values |= platform_arguments("TARGET", (*options.platforms, options.build_platform)[0])
    return values | {name: options.build_args[name] for name in values if name in options.build_args}


def _instructions(solver: Solver, compiled: Compiled) -> list[dict[str, object]]:
    """Return the instructions that are built, as the Dockerfile has them: their text, and which vertex they are."""
    found: list[tuple[graph.Origin, int]] = []
    for vertex in solver.plan(target.vertex for target in compiled.targets):
        if vertex.origin.lines[0] and not isinstance(vertex, graph.InlineFile | graph.HttpSource | graph.GitSource):
            found.append((vertex.origin, solver.number(vertex)))
    seen = {origin for origin, _ in found}
    for target in compiled.targets:
        found += [(step.origin, 0) for step in target.steps if step.vertex is None and step.origin not in seen]
    found.sort(key=lambda pair: pair[0].lines)
    return [{"text": origin.written or origin.text, "step": number} for origin, number in found]


def _at(source: Source, lines: tuple[int, int]) -> dict[str, object]:
    return {"file": source.name, "lines": list(lines), "text": source.text}


def told_warning(warning: Warning) -> dict[str, object]:
    """Return a warning as messages have it."""
    return {
        "rule": warning.rule_name,
        "description": warning.description,
        "url": warning.url,
        "detail": warning.detail,
        "lines": list(warning.lines),
    }


def _check(request: BuildRequest) -> None:
    for tag in request.tags:
        if Reference.parse(tag).digest:
            raise Invalid("build", f"image {tag}", "a tag can't have a digest", hint="write name:tag")


def _step(solver: Solver, vertex: graph.Vertex) -> history.StepRecord:
    solved = solver.solved.get(vertex)
    base = getattr(vertex, "base", None)
    below = solver.solved[base].tree.layers if base in solver.solved else ()
    layers = solved.tree.layers if solved is not None else ()
    command = vertex if isinstance(vertex, graph.Run) else None
    return history.StepRecord(
        number=solver.number(vertex),
        name=name_of(vertex),
        place=place_of(vertex),
        state="failed" if solved is None else "cached" if solved.cached else "done",
        key=solved.key if solved is not None else "",
        base=str(below[-1].chain_id) if below else "",
        after=str(layers[-1].chain_id) if layers else "",
        env=command.env if command is not None else (),
        cwd=command.cwd if command is not None else "",
        user=command.user if command is not None else "",
        network=_network(solver, command) if command is not None else "",
        mounts=_mounts(solver, command) if command is not None else (),
    )


def _network(solver: Solver, command: graph.Run) -> str:
    return command.network if command.network != graph.DEFAULT else solver.settings.limits().network


def _mounts(solver: Solver, command: graph.Run) -> tuple[history.MountRecord, ...]:
    if not command.mounts:
        return ()
    from .replay import written

    return written(solver, command)


def _platform(engine: Engine, request: BuildRequest) -> Platform:
    return Platform.parse(request.platforms[0]) if request.platforms else engine.images.platform


def _salt(engine: Engine) -> bytes:
    """Return what makes digests of values in the cache worth nothing to others. Made once, kept for this user alone."""
    path = f"{engine.paths.root}/build/salt"
    with _SALTING, disk_trouble_told("read", path):
        try:
            if len(salt := read_file(path, SALT_BYTES)) == SALT_BYTES:
                return salt
        except OSError as wrong:
            if wrong.errno not in (errno.ENOENT, *DAMAGED):
                raise
        salt = secrets.token_bytes(SALT_BYTES)
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        write_durably(path, salt)
    return salt


def _watch(hangup: int, solver: Solver, done: int) -> None:
    """Cancel the build when the client goes."""
    poll = select.poll()
    poll.register(done, select.POLLIN)
    if hangup >= 0:
        poll.register(hangup, select.POLLRDHUP)
    ready = {fd for fd, _ in poll.poll()}
    if done not in ready:
        solver.cancel()
