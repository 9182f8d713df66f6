"""A solved target becomes an image in the store: configuration, history, manifest. Nothing of this machine gets in."""

from __future__ import annotations

import os

from orlop.engine.images import listing as images
from orlop.engine.steps.workspace import unpacked
from orlop.image.archive import write_image
from orlop.snapshot.layered import open_layers
from orlop.snapshot.pack import Packer
from orlop.spec.errors import Denied, Unavailable
from orlop.spec.image import OCI_INDEX, Descriptor, History, ImageConfig, Index, RootFs
from orlop.spec.jsonio import dump

from . import graph, scan
from .solver.solve import chain_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from orlop.engine.engine import Engine

    from .solver.solve import Solver


def write(solver: Solver, target: graph.Target) -> Descriptor:
    """Store the image of a target; return its manifest's descriptor. The caller holds a lease."""
    settings = solver.settings
    solved = solver.solved[target.vertex]
    layers = solved.tree.layers
    solver.fetch(layers)
    config = ImageConfig(
        created=settings.created,
        author=target.author,
        architecture=target.platform.architecture,
        variant=target.platform.variant,
        os=target.platform.os,
        config=target.config,
        rootfs=RootFs(type="layers", diff_ids=tuple(layer.diff_id for layer in layers)),
        history=_history(solver, target),
        cache=_inline_cache(solver, target),
    )
    if settings.request.secrets_policy != "off":
        _scan(solver, target, config)
    return write_image(solver.engine.store, tuple(layer.descriptor for layer in layers), config)


def _inline_cache(solver: Solver, target: graph.Target) -> str:
    if not solver.settings.request.cache_to:
        return ""
    from .cache.transfer import of_image

    return of_image(solver, target)


def _scan(solver: Solver, target: graph.Target, config: ImageConfig) -> None:
    try:
        scan.check(solver, target, config)
    except Denied as found:
        if solver.settings.request.secrets_policy == "block":
            raise
        solver.journal.tell({"warning": {"rule": "SecretInImage", "detail": found.cause}})


def write_index(solver: Solver, manifests: Sequence[tuple[graph.Target, Descriptor]]) -> Descriptor:
    """Store the list of the images of several platforms; return its descriptor."""
    listed = tuple(descriptor.replace(platform=target.platform) for target, descriptor in manifests)
    index = Index(schema_version=2, media_type=OCI_INDEX, manifests=listed)
    return solver.engine.store.ingest(dump(index.to_json()), media_type=OCI_INDEX)


def write_tree(engine: Engine, name: str, target: int) -> None:
    """Write all files of an image as one archive to a descriptor. Raises NotFound, Unavailable when nobody reads."""
    image = images.find(engine, name)
    trees = engine.snapshots.trees(unpacked(engine, image.layers))

    def write(data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(target, view) :]

    packer = Packer(write)
    try:
        if trees:
            packer.add_directory(open_layers(trees, plain=len(trees) == 1), b".")
        packer.finish()
    except OSError as wrong:
        raise Unavailable("write", f"image {name}", wrong.strerror or str(wrong)) from None


def _history(solver: Solver, target: graph.Target) -> tuple[History, ...]:
    found = list(_base_history(solver, target.vertex))
    for step in target.steps:
        layer = solver.solved[step.vertex].layer if step.vertex is not None else None
        found.append(
            History(
                created=solver.settings.created,
                created_by=step.created_by,
                author=target.author,
                comment=getattr(step, "comment", ""),
                empty_layer=layer is None,
            )
        )
    return tuple(found)


def _base_history(solver: Solver, vertex: graph.Vertex) -> tuple[History, ...]:
    """Return the history of the image that a tree stands on; one entry a layer where the image tells none."""
    image = solver.solved[chain_of(vertex)[0]].image
    if image is None:
        return ()
    told = image.config.history
    if sum(not step.empty_layer for step in told) == len(image.layers):
        return told
    return tuple(History(created=image.config.created) for _ in image.layers)
