"""A graph becomes trees: every vertex that the target needs, once, each as soon as what it needs is there.

Invariants:
1. A vertex is solved by one thread, after all its inputs; what does not depend on each other runs at the same time.
2. The first failure ends the build: running commands are killed, nothing new begins.
3. A result is layers that are durable and leased until the build ends: whoever tags them in time keeps them.
"""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager

from orlop.engine.steps.cache import Cached
from orlop.engine.steps.later import Later
from orlop.engine.steps.workspace import open_workspace
from orlop.image.image import Layer
from orlop.spec.digest import Digest
from orlop.spec.errors import OrlopError, Unavailable
from orlop.spec.image import chain_ids

from .. import graph
from ..cache.imports import Gone, Imports
from .tree import Tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from orlop.content.leases import Lease
    from orlop.engine.engine import Engine
    from orlop.engine.steps.workspace import Workspace
    from orlop.image.image import Image
    from orlop.spec.image import Descriptor

    from ..journal import Journal, StepLog
    from ..settings import Settings
    from .keys import Key

THREADS_MAX = 8


class Solved:
    """What a vertex is. tree: its files. layer: the one that it added, None for none. key: of the cache, "" for none.

    image: what an ImageSource is; inputs: what went into the key. names: all that the cache has it under.
    """

    __slots__ = ("cached", "image", "inputs", "key", "layer", "names", "tree")

    def __init__(self, tree: Tree, layer: Layer | None = None) -> None:
        self.tree = tree
        self.layer = layer
        self.key = ""
        self.names: tuple[str, ...] = ()
        self.inputs: dict[str, str] = {}
        self.cached = False
        self.image: Image | None = None


class Solver:
    """Solves the vertices of one build."""

    def __init__(self, engine: Engine, settings: Settings, journal: Journal, lease: Lease, directory: str) -> None:
        """directory: the build's own, for what it fetches and notes."""
        self.engine = engine
        self.settings = settings
        self.journal = journal
        self.lease = lease
        self.directory = directory
        self.name = os.path.basename(directory)
        self.contexts: dict[str, Tree] = {}
        self.images: dict[str, Image] = {}  # what each reference means in this build
        self.finding = threading.Lock()
        self.kept = ""  # the workspace of the step that failed
        self.tail: list[str] = []  # the last lines that it wrote
        self.cancelled = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.given_up = threading.Event()  # the same, for what waits for registries
        self.later = Later()  # what no step waits for
        self.imports = Imports()
        self.mount_sources: list[Callable[[str, str], bool]] = []  # make a cache mount's volume where they have it
        self.bound: dict[graph.BindMount, str] = {}  # the ChainID of what was mounted
        self.solved: dict[graph.Vertex, Solved] = {}
        self.failure: BaseException | None = None
        self.abandoned = False  # by who asked for it
        self.follower: Solver | None = None
        self.failed_step: tuple[int, str] | None = None
        self.failed_vertex: graph.Vertex | None = None
        self._numbers: dict[graph.Vertex, int] = {}
        self._here: set[Digest] = set()  # blobs that the store has, leased
        self._changed = threading.Condition()

    def cancel(self, failure: BaseException | None = None) -> None:
        """End the build: as cancelled, or with a failure."""
        with self._changed:
            self.abandoned = self.abandoned or failure is None
            if self.failure is None:
                self.failure = failure or Unavailable("build", "the image", "the build was cancelled")
            self._changed.notify_all()
        self.given_up.set()
        os.eventfd_write(self.cancelled, 1)
        if self.follower is not None:
            self.follower.cancel(failure)

    def cancelled_with(self, other: Solver) -> None:
        """Have this one end when another one is cancelled."""
        other.follower = self

    def close(self) -> None:
        self.later.finish()
        os.close(self.cancelled)

    def plan(self, targets: Iterable[graph.Vertex]) -> list[graph.Vertex]:
        """Give a number to everything that these vertices need, and return it, each after its inputs."""
        order = _ordered(targets)
        for number, vertex in enumerate(order, 1):
            self._numbers.setdefault(vertex, number)
        return order

    def solve(self, targets: Iterable[graph.Vertex]) -> None:
        """Solve these vertices and what they need; `solved` has them then. Raises what the first failing one raised.

        Where a cache had promised a layer that is needed and can't be had, the steps are solved anew without it.
        """
        wanted = list(targets)
        while not self._solve_once(wanted):
            self.begin_anew()

    def begin_anew(self) -> None:
        """Forget what is solved: a cache had promised a layer of it that can't be had (Gone)."""
        self.failure = None
        self.given_up.clear()
        try:
            os.eventfd_read(self.cancelled)
        except BlockingIOError:
            pass  # no step noticed it
        self.solved = {vertex: one for vertex, one in self.solved.items() if not vertex.inputs}

    def _solve_once(self, targets: Iterable[graph.Vertex]) -> bool:
        """Solve; False when it has to be tried anew. Raises what the first failing vertex raised."""
        order = self.plan(targets)
        waiting = {vertex: {need for need in vertex.inputs if need not in self.solved} for vertex in order}
        ready = [vertex for vertex in order if not waiting[vertex] and vertex not in self.solved]
        left = {vertex for vertex in order if vertex not in self.solved}
        users: dict[graph.Vertex, list[graph.Vertex]] = {}
        for vertex, needs in waiting.items():
            for need in needs:
                users.setdefault(need, []).append(vertex)
        threads = [
            threading.Thread(target=self._work, args=(users, waiting, ready, left), name="build", daemon=True)
            for _ in range(min(THREADS_MAX, max(1, len(left))))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.later.begin()  # no step comes any more
        if isinstance(self.failure, Gone) and not self.abandoned:
            return False
        if self.failure is not None:
            raise self.failure
        return True

    def scratch(self) -> str:
        """Return a new directory that goes with the build."""
        path = f"{self.directory}/work-{os.urandom(8).hex()}"
        os.mkdir(path, 0o700)
        return path

    def as_layers(self, source: graph.Vertex) -> tuple[Layer, ...]:
        """Return a folder's tree as a layer: what a step may mount."""
        from . import files

        return files.as_layers(self, source)

    def check(self) -> None:
        """Raise what has ended the build meanwhile."""
        if self.failure is not None:
            raise self.failure

    # -- trees ------------------------------------------------------------------------------------------------------

    def fetch(self, layers: Iterable[Layer]) -> None:
        """Bring layers into the store that only a cache elsewhere has. Raises Gone where it has them no more."""
        self.fetch_all(layer.descriptor for layer in layers)

    def fetch_all(self, descriptors: Iterable[Descriptor]) -> None:
        """The same of what layers are described by."""
        for descriptor in descriptors:
            if descriptor.digest in self._here:
                continue
            self.lease.add(descriptor.digest)
            if self.engine.store.stat(descriptor.digest) is None:
                known = self.imports.fetch(descriptor)
                for record in known if self.settings.keeps else ():
                    self.engine.step_cache.put(record, {})
            self._here.add(descriptor.digest)

    def open_space(self, layers: Sequence[Layer], key: str = "", *, inside: bool = False) -> Workspace:
        """Return a writable tree above layers. Raises as `open_workspace`, and Gone."""
        self.fetch(layers)
        space = open_workspace(self.engine, layers, key, inside=inside)
        space.later = self.later
        return space

    @contextmanager
    def opened(self, tree: Tree) -> Iterator[int]:
        """Hold a descriptor of a tree's root. Raises as Tree.opened, and Gone."""
        self.fetch(tree.layers)
        with tree.opened(self.engine) as root:
            yield root

    def number(self, vertex: graph.Vertex) -> int:
        """Return what messages call a vertex."""
        return self._numbers.get(vertex, 0)

    def _work(
        self,
        users: dict[graph.Vertex, list[graph.Vertex]],
        waiting: dict[graph.Vertex, set[graph.Vertex]],
        ready: list[graph.Vertex],
        left: set[graph.Vertex],
    ) -> None:
        while True:
            with self._changed:
                while not ready and left and self.failure is None:
                    self._changed.wait()
                if not left or self.failure is not None:
                    return
                vertex = ready.pop(0)
            try:
                with self.engine.store.leases.hold() as lease:
                    found = self._solve(vertex)
                    self.lease.add(*lease.held)
            except BaseException as failure:  # of this thread: `solve` raises it in the build's own
                self.cancel(failure)
                return
            with self._changed:
                self.solved[vertex] = found
                left.discard(vertex)
                for other in users.get(vertex, ()):
                    waiting[other].discard(vertex)
                    if not waiting[other]:
                        ready.append(other)
                # This thread takes one of them itself: who is woken for nothing takes the interpreter from it.
                self._changed.notify(len(ready) - 1 if left else THREADS_MAX)

    def _solve(self, vertex: graph.Vertex) -> Solved:
        from . import files, runs, sources

        log = self.journal.step(self.number(vertex), name_of(vertex))
        try:
            if isinstance(vertex, graph.Run):
                found = runs.solve(self, vertex, log)
            elif isinstance(vertex, graph.Copy):
                found = files.copy(self, vertex, log)
            elif isinstance(vertex, graph.MakeDirectory):
                found = files.make_directory(self, vertex, log)
            else:
                found = sources.solve(self, vertex, log)
        except BaseException as failure:
            if isinstance(failure, Gone):
                log.end("done")  # it begins anew
                raise
            if self.failure is None and isinstance(failure, OrlopError):
                self.failed_step, self.failed_vertex = (log.number, log.name), vertex
            log.end("failed", failure.cause if isinstance(failure, OrlopError) else str(failure))
            raise
        log.end("cached" if found.cached else "done", tree=base_of(found.tree))
        return found

    # -- the cache --------------------------------------------------------------------------------------------------

    def cached(self, vertex: graph.Vertex, key: Key, base: Tree) -> Solved | None:
        """Return what a step made the last time, where all of it is still there and may be used."""
        if self.settings.no_cache or vertex.origin.stage in self.settings.no_cache_stages:
            return None
        return self.known(key.hex(), key, base)

    def known(self, name: str, key: Key, base: Tree) -> Solved | None:
        """Return what the cache has under a name, where all of it is still there."""
        record = self.record(name)
        if record is None or record.base != base_of(base):
            return None
        if record.layer is None:
            found = Solved(base)
        else:
            layer = Layer(descriptor=record.layer, diff_id=Digest(record.diff_id), chain_id=Digest(record.chain_id))
            self.lease.add(layer.descriptor.digest, layer.chain_id)
            size = self.engine.store.stat(layer.descriptor.digest)
            if size is None and not self.imports.offers(layer.descriptor.digest):
                return None
            if size is not None and size != layer.descriptor.size:
                return None  # what says so is no cache of ours
            found = Solved(tree_of((*base.layers, layer)), layer)
        found.cached = True
        found.key, found.names, found.inputs = name, (name,), {**key.inputs, **key.files}
        return found

    def record(self, name: str) -> Cached | None:
        """Return what the cache has under a name, ours or one that was given."""
        return self.engine.step_cache.get(name) or self.imports.get(name)

    def keep(self, vertex: graph.Vertex, key: Key, base: Tree, layer: Layer | None, *aliases: str) -> Solved:
        """Note what a step has made, and return it. aliases: more names that the cache has it under."""
        found = Solved(tree_of((*base.layers, layer)) if layer is not None else base, layer)
        found.key, found.inputs = key.hex(), {**key.inputs, **key.files}
        found.names = (found.key, *aliases)
        for name in found.names if self.settings.keeps else ():
            record = Cached(
                key=name,
                name=name_of(vertex),
                created=self.settings.now,
                base=base_of(base),
                chain_id=str(layer.chain_id) if layer is not None else "",
                layer=layer.descriptor if layer is not None else None,
                diff_id=str(layer.diff_id) if layer is not None else "",
            )
            self.engine.step_cache.put(record, found.inputs)
        return found

    def why(self, vertex: graph.Vertex, key: Key, log: StepLog) -> None:
        """Tell why a step is made anew: which of its inputs differ from those of the last build."""
        log.note({"missed": self.settings.explain(vertex, {**key.inputs, **key.files})})


def tree_of(layers: tuple[Layer, ...]) -> Tree:
    """Return the tree of a stage."""
    return Tree(layers=layers, key=str(layers[-1].chain_id) if layers else "scratch", owned=True)


def base_of(tree: Tree) -> str:
    """Return the ChainID of a tree of layers, "" for the empty one."""
    return str(tree.layers[-1].chain_id) if tree.layers else ""


def stacked(base: Tree, layer: Layer) -> Layer:
    """Return a layer as it is called above another tree than the one it was made on."""
    diff_ids = (*(one.diff_id for one in base.layers), layer.diff_id)
    return layer.replace(chain_id=chain_ids(diff_ids)[-1])


def name_of(vertex: graph.Vertex) -> str:
    """Return what progress calls a vertex."""
    origin = vertex.origin
    text = " ".join(origin.text.split()) or _source_name(vertex)
    place = f"{origin.stage} {origin.step}/{origin.steps}" if origin.steps and origin.step else origin.stage
    return f"[{place.strip()}] {text}" if place else text


def _source_name(vertex: graph.Vertex) -> str:
    if isinstance(vertex, graph.ImageSource):
        return f"[internal] image {vertex.reference}"
    if isinstance(vertex, graph.Context):
        return f"[internal] context {vertex.name}".rstrip()
    if isinstance(vertex, graph.GitSource | graph.HttpSource):
        return f"[internal] {vertex.url}"
    return f"[internal] {type(vertex).__name__.lower()}"


def _ordered(targets: Iterable[graph.Vertex]) -> list[graph.Vertex]:
    """Return the vertices that the targets need and themselves, each after its inputs."""
    found: dict[graph.Vertex, None] = {}
    pending = [(target, False) for target in targets][::-1]
    while pending:
        vertex, entered = pending.pop()
        if vertex in found:
            continue
        if entered:
            found[vertex] = None
        else:
            pending.append((vertex, True))
            pending.extend((need, False) for need in reversed(vertex.inputs))
    return list(found)


def chain_of(vertex: graph.Vertex) -> list[graph.Vertex]:
    """Return a vertex and those it stands on, the lowest first."""
    found = [vertex]
    while (base := getattr(found[-1], "base", None)) is not None:
        found.append(base)
    return found[::-1]
