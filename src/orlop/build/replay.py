"""What was mounted while a step ran, written down with its build and mounted again for who enters the step.

Contents that can't be had again are told: a tree whose layers were pruned. Secrets and agents are never written down:
whoever enters gives them once more, and where they are not given their mounts are left out.
"""

from __future__ import annotations

import base64
from contextlib import ExitStack

from orlop.image.image import Layer
from orlop.spec.digest import Digest
from orlop.spec.errors import NotFound
from orlop.spec.image import OCI_LAYER, Descriptor

from . import graph, history
from .journal import Journal
from .request import BuildRequest
from .settings import Settings
from .solver.mounts import Mounted
from .solver.solve import Solved, Solver, base_of, tree_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from orlop.engine.engine import Engine
    from orlop.engine.steps.workspace import Workspace
    from orlop.spec.runtime import Mount

    from .request import AgentSource, SecretSource

SCRIPT_BYTES_MAX = 256 * 1024
_KINDS: dict[str, type[Any]] = {
    "bind": graph.BindMount,
    "cache": graph.CacheMount,
    "tmpfs": graph.TmpfsMount,
    "secret": graph.SecretMount,
    "ssh": graph.SshMount,
    "script": graph.ScriptMount,
}
_FIELDS = ("target", "id", "path", "read_only", "sharing", "mode", "uid", "gid", "size_bytes", "env")


def written(solver: Solver, step: graph.Run) -> tuple[history.MountRecord, ...]:
    """Return a step's mounts as its record keeps them."""
    found = []
    for mount in step.mounts:
        kind = next(name for name, cls in _KINDS.items() if isinstance(mount, cls))
        fields = {name: getattr(mount, name) for name in _FIELDS if hasattr(mount, name)}
        if isinstance(mount, graph.BindMount):
            chain = _chain(solver, mount)
            if chain is None:
                continue  # of a step that was known: nobody has made a layer of the folder
            fields["chain"] = chain
        if isinstance(mount, graph.ScriptMount):
            if len(mount.data) > SCRIPT_BYTES_MAX:
                continue
            fields["data"] = base64.b64encode(mount.data).decode()
        found.append(history.MountRecord(kind=kind, **fields))
    return tuple(found)


def _chain(solver: Solver, mount: graph.BindMount) -> str | None:
    if mount in solver.bound:
        return solver.bound[mount]
    solved = solver.solved.get(mount.source)
    return base_of(solved.tree) if solved is not None and solved.tree.key else None


class Entered:
    """The mounts of a step that somebody enters. Close it when they have left."""

    def __init__(self, engine: Engine, secrets: Sequence[SecretSource], agents: Sequence[AgentSource]) -> None:
        self._held = ExitStack()
        self._directory = history.begin(engine)
        request = BuildRequest(secrets=tuple(secrets), agents=tuple(agents))
        lease = self._held.enter_context(engine.store.leases.hold())
        settings = Settings(request, engine.images.platform, b"")
        self._solver = Solver(engine, settings, Journal(self._directory), lease, self._directory)
        self._held.callback(self._solver.close)

    def mounts(self, record: history.StepRecord, space: Workspace) -> tuple[tuple[Mount, ...], tuple[str, ...]]:
        """Return the mounts of a step, and the variables that come with them. Raises NotFound, Unavailable."""
        step = graph.Run(base=graph.Scratch(), argv=(), mounts=tuple(self._mount(one) for one in record.mounts))
        return Mounted(self._solver, step, self._held).mounts(space)

    def close(self) -> None:
        import shutil

        self._solver.journal.end()
        self._held.close()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _mount(self, record: history.MountRecord) -> graph.Mount:
        cls = _KINDS[record.kind]
        fields = {name: getattr(record, name) for name in _FIELDS if name in cls._fields}
        if record.kind == "script":
            return graph.ScriptMount(**fields, data=base64.b64decode(record.data))
        if record.kind == "bind":
            return graph.BindMount(**fields, source=self._source(record))
        made: graph.Mount = cls(**fields)
        return made

    def _source(self, record: history.MountRecord) -> graph.Vertex:
        """Return a vertex that stands for the tree of a mount, which has to be unpacked still."""
        layers: tuple[Layer, ...] = ()
        if record.chain:
            chain = Digest(record.chain)
            if not self._solver.engine.snapshots.has(chain):
                cause = f"what was mounted on {record.target} is gone"
                raise NotFound("enter", "the step", cause, hint="build again: the cache was pruned")
            described = Descriptor(media_type=OCI_LAYER, digest=chain, size=0)
            layers = (Layer(descriptor=described, diff_id=chain, chain_id=chain),)
        vertex = graph.Scratch()
        self._solver.solved[vertex] = Solved(tree_of(layers))
        return vertex
