"""The steps COPY, ADD and WORKDIR: what they take, what the cache knows of it, and the layer that they make."""

from __future__ import annotations

import hashlib
import os
from contextlib import ExitStack

from orlop.spec.errors import Invalid

from .. import graph
from ..ignore import Matcher
from . import glob, keys
from .chmod import check_mode
from .copy import Writer, is_archive, owner_of
from .solve import Solved, base_of, stacked, tree_of
from .tree import Listing, Tree, directory_line, listing, not_found

TYPE_CHECKING = False
if TYPE_CHECKING:
    from orlop.image.image import Layer

    from ..journal import StepLog
    from .solve import Solver


class _Taken:
    """One thing to copy: root is open while the step works; listed: what lies there.

    parents: of --parents: directories of the tree, and where each is made again, as it is there.
    """

    __slots__ = ("destination", "listed", "parents", "root", "tree")

    def __init__(self, tree: Tree, root: int, listed: Listing, destination: str) -> None:
        self.tree = tree
        self.root = root
        self.listed = listed
        self.destination = destination
        self.parents: list[tuple[str, str]] = []


def copy(solver: Solver, step: graph.Copy, log: StepLog) -> Solved:
    """Make or find the layer of a COPY or ADD. Raises NotFound for a missing source, Invalid."""
    check_mode(step.mode)
    base = solver.solved[step.base].tree
    below = Tree() if step.link else base
    key = _key(solver, step, below)
    trees = [solver.solved[source.tree].tree for source in step.sources]
    alias = ""
    if all(tree.key for tree in trees):
        # Nothing needs to be read where the trees are known by what they are.
        alias = hashlib.sha256(f"{key.hex()} {' '.join(tree.key for tree in trees)}".encode()).hexdigest()
        if (found := _usable(solver, step, alias, key, below)) is not None:
            return _above(found, base) if step.link else found
    with ExitStack() as held:
        roots = {tree: held.enter_context(solver.opened(tree)) for tree in dict.fromkeys(trees)}
        taken = [one for source in step.sources for one in _take(solver, step, source, roots)]
        _check_destination(step, taken)
        for number, one in enumerate(taken):
            owners = one.tree.owned and not step.owner
            key.add(f"source {number} {one.listed.top}", one.listed.digest(owners=owners))
            key.files |= {f"file {path}": value for path, value in one.listed.inputs(owners=owners).items()}
            for path, _ in one.parents:
                key.add(f"directory {path}", directory_line(one.root, path, owners=owners))
        found = solver.cached(step, key, below)
        if found is None:
            solver.why(step, key, log)
            layer = _write(solver, step, below, taken)
            found = solver.keep(step, key, below, layer, *([alias] if alias else ()))
        elif alias:
            solver.keep(step, key, below, found.layer, alias)
            found.names = (found.key, alias)
        for tree in roots:
            tree.digests.save()
    return _above(found, base) if step.link else found


def as_layers(solver: Solver, source: graph.Vertex) -> tuple[Layer, ...]:
    """Return a folder's whole tree as one layer on nothing, from the cache where it is there."""
    everything = graph.CopySource(tree=source, path="/", literal=True)
    step = graph.Copy(base=graph.Scratch(), sources=(everything,), destination="/", link=True)
    solver.solved[step.base] = Solved(tree_of(()))
    tree = solver.solved[source].tree
    key = _key(solver, step, Tree())
    with solver.opened(tree) as root:
        taken = [_Taken(tree, root, listing(root, "/", tree), "/")]
        key.add("source", taken[0].listed.digest(owners=tree.owned))
        found = solver.known(key.hex(), key, Tree())
        if found is None:
            found = solver.keep(step, key, Tree(), _write(solver, step, Tree(), taken))
    return found.tree.layers


def make_directory(solver: Solver, step: graph.MakeDirectory, log: StepLog) -> Solved:
    """Make or find the layer of a WORKDIR; there is none where the directory is there already."""
    base = solver.solved[step.base].tree
    key = keys.Key("mkdir", None)
    key.add("base image or earlier step", base_of(base))
    key.add("directory", step.path)
    key.add("owner", step.owner)
    if (found := solver.cached(step, key, base)) is not None:
        return found
    solver.why(step, key, log)
    space = solver.open_space(base.layers)
    try:
        with space.opened() as root:
            owner = owner_of(root, step.owner) if step.owner else (0, 0)
            writer = Writer(root, owner, "", solver.settings.mtime_max_ns, solver.check)
            os.close(writer.make_directory(step.path))
        layer = space.commit(solver.settings.mtime_max_ns, check=solver.check)
    except BaseException:
        space.discard()
        raise
    return solver.keep(step, key, base, layer)


def _key(solver: Solver, step: graph.Copy, below: Tree) -> keys.Key:
    key = keys.Key("copy", None)
    key.add("base image or earlier step", base_of(below))
    key.add("destination", step.destination)
    key.add("owner", step.owner)
    key.add("mode", step.mode)
    key.add("times", str(solver.settings.mtime_max_ns))
    key.add("unpack", str(step.unpack))
    key.add("parents", str(step.parents))
    key.add("excluded", "\n".join(step.exclude))
    for number, source in enumerate(step.sources):
        key.add(f"path {number}", f"{source.path} {source.pivot} {source.literal}")
    return key


def _usable(solver: Solver, step: graph.Copy, alias: str, key: keys.Key, below: Tree) -> Solved | None:
    if solver.settings.no_cache or step.origin.stage in solver.settings.no_cache_stages:
        return None
    return solver.known(alias, key, below)


def _above(found: Solved, base: Tree) -> Solved:
    """Return a layer that was made on nothing as it lies above a base."""
    if found.layer is None:
        return _again(Solved(base), found)
    layer = stacked(base, found.layer)
    return _again(Solved(tree_of((*base.layers, layer)), layer), found)


def _again(made: Solved, found: Solved) -> Solved:
    made.key, made.names, made.inputs, made.cached = found.key, found.names, found.inputs, found.cached
    return made


def _take(solver: Solver, step: graph.Copy, source: graph.CopySource, roots: dict[Tree, int]) -> list[_Taken]:
    """Return what one source means: as many things as its wildcards fit, which may be none (`yarn.lock*`)."""
    tree = solver.solved[source.tree].tree
    root = roots[tree]
    paths = [source.path]
    if not source.literal and glob.is_wild(source.path):
        paths = glob.find(root, source.path, tree)
    excluded = Matcher(step.exclude) if step.exclude else None
    found = []
    for path in paths:
        listed = listing(root, path, tree, excluded)
        whole = listed.top == "/" or listed.is_directory
        if tree.excluded is not None and not whole and tree.excluded.excludes(listed.top.strip("/")):
            raise not_found(source.path)
        if excluded is not None and not listed.is_directory and excluded.excludes(os.path.basename(listed.top)):
            continue
        listed.top = "/" + path.strip("/") if listed.top != "/" else "/"
        one = _Taken(tree, root, listed, step.destination)
        if step.parents:
            _with_parents(one, source.pivot)
        found.append(one)
    return found


def _with_parents(one: _Taken, pivot: str) -> None:
    """Have a source keep the directories above it, from the pivot on."""
    below = one.listed.top.removeprefix("/" + pivot.strip("/")) if pivot else one.listed.top
    above = one.listed.top.removesuffix(below)
    where = (below if one.listed.is_directory else os.path.dirname(below)).strip("/")
    top = one.destination.rstrip("/")
    parts = where.split("/") if where else []
    for count in range(1, len(parts) + 1):
        inside = "/".join(parts[:count])
        one.parents.append((f"{above}/{inside}".replace("//", "/"), f"{top}/{inside}"))
    one.destination = f"{top}/{where}/".replace("//", "/")


def _check_destination(step: graph.Copy, taken: list[_Taken]) -> None:
    if len(taken) > 1 and not step.destination.endswith("/") and not any(one.listed.is_directory for one in taken):
        cause = "When using COPY with more than one source file, the destination must be a directory and end with a /"
        raise Invalid("copy", step.destination, cause, hint=f"write {step.destination}/")


def _write(solver: Solver, step: graph.Copy, below: Tree, taken: list[_Taken]) -> Layer | None:
    space = solver.open_space(below.layers)
    try:
        with space.opened() as root:
            chosen = _chosen_owner(solver, step, root)
            several = len(taken) > 1
            links: list[Writer] = []
            try:
                for one in taken:
                    owner = chosen if chosen is not None else None if one.tree.owned else (0, 0)
                    writer = Writer(root, owner, step.mode, solver.settings.mtime_max_ns, solver.check)
                    links.append(writer)
                    for path, made in one.parents:
                        writer.make_like(one.root, path, made)
                    _place(writer, step, one, chosen, several=several)
            finally:
                for writer in links:
                    writer.close()
        return space.commit(solver.settings.mtime_max_ns, None, solver.check)
    except BaseException:
        space.discard()
        raise


def _place(writer: Writer, step: graph.Copy, one: _Taken, chosen: tuple[int, int] | None, *, several: bool) -> None:
    unpack = step.unpack if step.unpack is not None else not one.tree.fetched
    if unpack and is_archive(one.root, one.listed):
        writer.unpack(one.root, one.listed, one.destination, chosen)
        return
    into = several or one.destination.endswith("/") or writer.is_directory(one.destination)
    writer.place(one.root, one.listed, one.destination, into=into)


def _chosen_owner(solver: Solver, step: graph.Copy, root: int) -> tuple[int, int] | None:
    if not step.owner:
        return None
    if not step.link:
        return owner_of(root, step.owner)
    base = solver.solved[step.base].tree
    with solver.opened(base) as names:
        return owner_of(names, step.owner)
