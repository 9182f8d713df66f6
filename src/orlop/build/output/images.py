"""Solved targets become an image: configurations, histories, manifests. Nothing of this machine is in it."""

from __future__ import annotations

from orlop.engine.steps.workspace import unpacked
from orlop.image.convert import typed, with_table
from orlop.image.image import Layer
from orlop.snapshot.layered import idle_whiteouts, open_layers
from orlop.snapshot.pack import Packer
from orlop.spec.errors import Denied, Invalid, Unsupported
from orlop.spec.image import (
    DOCKER_CONFIG,
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    Descriptor,
    History,
    ImageConfig,
    Index,
    Manifest,
    RootFs,
    chain_ids,
)
from orlop.spec.jsonio import dump
from orlop.spec.registry import ESTARGZ

from .. import graph
from ..cache.places import INLINE
from ..solver.solve import chain_of
from . import layers as forms
from . import scan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..solver.solve import Solver
    from .wanted import Form, Output

    Described = list[tuple[graph.Target, Descriptor]]


def write(solver: Solver, targets: Sequence[graph.Target], output: Output) -> Descriptor:
    """Store what an output consists of; return its manifest's or index's descriptor. The caller holds a lease."""
    images = [(target, _manifest(solver, target, output)) for target in targets]
    attestations = solver.settings.request.attestations
    if len(images) == 1 and not attestations and not output.form.is_index:
        for one in output.annotations:
            if one.place.startswith("index"):
                cause = "index annotations are not supported for an image of one platform alone"
                raise Invalid("build", f"annotation {one.key}", cause, hint="add multi-platform=true to --output")
        return images[0][1].replace(annotations=_annotations(output, "manifest-descriptor", targets[0]))
    return _index(solver, images, output)


def check(solver: Solver, targets: Sequence[graph.Target]) -> None:
    """Raise Denied for an image with a secret in it, or warn of it, as the request wants."""
    policy = solver.settings.request.secrets_policy
    for target in targets if policy != "off" else ():
        solver.fetch(solver.solved[target.vertex].tree.layers)
        try:
            scan.check(solver, target, _config(solver, target, ()))
        except Denied as found:
            if policy == "block":
                raise
            solver.journal.tell({"warning": {"rule": "SecretInImage", "detail": found.cause}})


def _index(solver: Solver, images: Described, output: Output) -> Descriptor:
    listed = [
        descriptor.replace(platform=target.platform, annotations=_annotations(output, "manifest-descriptor", target))
        for target, descriptor in images
    ]
    if solver.settings.request.attestations:
        from .attest import write as attested

        listed += attested(solver, images, artifacts=output.form.artifacts)
    kind = DOCKER_INDEX if output.form.docker else OCI_INDEX
    index = Index(
        schema_version=2,
        media_type=kind,
        manifests=tuple(listed),
        annotations=_annotations(output, "index", None),
    )
    made = solver.engine.store.ingest(dump(index.to_json()), media_type=kind)
    return made.replace(annotations=_annotations(output, "index-descriptor", None))


def _annotations(output: Output, place: str, target: graph.Target | None) -> dict[str, str]:
    platform = str(target.platform) if target is not None else ""
    return {one.key: one.value for one in output.annotations if one.place == place and one.platform in ("", platform)}


def _manifest(solver: Solver, target: graph.Target, output: Output) -> Descriptor:
    form, store = output.form, solver.engine.store
    layers = solver.solved[target.vertex].tree.layers
    if form.compression == ESTARGZ and any(place.type == INLINE for place in solver.settings.request.cache_to):
        cause = "an inline cache names layers by what they hold, and estargz adds a table to that"
        raise Unsupported("build", "output compression=estargz", cause, hint="write the cache elsewhere, or use zstd")
    solver.fetch(layers)
    base = _base(solver, target)
    if solver.settings.request.squash:
        layers = _squashed(solver, layers, base)
    if form.rewrite_times:
        layers = tuple(forms.bounded(solver.engine, layer, solver.settings.mtime_max_ns) for layer in layers)
    descriptors = []
    for number, layer in enumerate(layers):
        packed = form.compression and (form.force or number >= base)
        if packed and form.compression == ESTARGZ:
            listed, diff_id = with_table(store, layer.descriptor, layer.diff_id, form.level)
            layers = (*layers[:number], layer.replace(diff_id=diff_id), *layers[number + 1 :])
            descriptors.append(listed)
            continue
        one = forms.packed(solver.engine, layer.descriptor, form) if packed else layer.descriptor
        descriptors.append(typed(one, docker=form.docker))
    config = _config(solver, target, layers)
    described = store.ingest(dump(config.to_json()), media_type=DOCKER_CONFIG if form.docker else OCI_CONFIG)
    manifest = Manifest(
        schema_version=2,
        media_type=_manifest_type(form),
        config=described,
        layers=tuple(descriptors),
        annotations=_annotations(output, "manifest", target),
    )
    return store.ingest(dump(manifest.to_json()), media_type=_manifest_type(form))


def _manifest_type(form: Form) -> str:
    return DOCKER_MANIFEST if form.docker else OCI_MANIFEST


def _config(solver: Solver, target: graph.Target, layers: Sequence[Layer]) -> ImageConfig:
    return ImageConfig(
        created=solver.settings.created,
        author=target.author,
        architecture=target.platform.architecture,
        variant=target.platform.variant,
        os=target.platform.os,
        config=target.config,
        rootfs=RootFs(type="layers", diff_ids=tuple(layer.diff_id for layer in layers)),
        history=_history(solver, target),
        cache=_inline_cache(solver, target),
    )


def _inline_cache(solver: Solver, target: graph.Target) -> str:
    if not solver.settings.request.cache_to:
        return ""
    from ..cache.transfer import of_image

    return of_image(solver, target)


def _base(solver: Solver, target: graph.Target) -> int:
    """Return how many layers are those of the base image."""
    image = solver.solved[chain_of(target.vertex)[0]].image
    return len(image.layers) if image is not None else 0


def _squashed(solver: Solver, layers: tuple[Layer, ...], base: int) -> tuple[Layer, ...]:
    """Return the base's layers, and what is above them as one."""
    engine, own = solver.engine, len(layers) - base
    if own < 2:
        return layers
    trees = engine.snapshots.trees(unpacked(engine, layers))
    above, below = trees[:own], trees[own:]
    idle = set(idle_whiteouts(open_layers(above, plain=True), open_layers(below) if below else None))
    with engine.store.writer() as ingest:
        packer = Packer(ingest.write, whiteouts=True, omit=idle)
        packer.add_directory(open_layers(above, plain=True), b".")
        packer.finish()
        made = ingest.commit(media_type=OCI_LAYER)
    diff_ids = (*(layer.diff_id for layer in layers[:base]), made.digest)
    return (*layers[:base], Layer(descriptor=made, diff_id=made.digest, chain_id=chain_ids(diff_ids)[-1]))


def _history(solver: Solver, target: graph.Target) -> tuple[History, ...]:
    found = list(_base_history(solver, target.vertex))
    squash = solver.settings.request.squash
    own = 0
    for step in target.steps:
        layer = solver.solved[step.vertex].layer if step.vertex is not None else None
        own += layer is not None
        found.append(
            History(
                created=solver.settings.created,
                created_by=step.created_by,
                author=target.author,
                comment=getattr(step, "comment", ""),
                empty_layer=layer is None or squash,
            )
        )
    if squash and own:
        found.append(History(created=solver.settings.created, comment=f"merge of {own} layers"))
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
