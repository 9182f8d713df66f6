"""`commit`: a container's own layer becomes an image above the one that it was made from.

Nothing of an image is visible before all of it is durable: layer, configuration and manifest are blobs, and its name is
written last. A container that is frozen meanwhile is thawed by the next engine when this one dies (freezing.held).
"""

from __future__ import annotations

from contextlib import ExitStack

from ...image.archive import write_image
from ...image.changes import apply_changes
from ...snapshot.layered import open_layers
from ...snapshot.pack import Packer
from ...spec.errors import Invalid, NotFound
from ...spec.health import Healthcheck
from ...spec.image import OCI_LAYER, ContainerConfig, Descriptor, History, ImageConfig, RootFs
from ...spec.platform import Platform
from ...spec.reference import Reference
from .. import events
from ..containers import freezing
from ..containers.record import timestamp
from ..userns import kept
from .difference import of_trees, unreadable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...image.image import Image
    from ...spec.container import CommitRequest
    from ...spec.digest import Digest
    from ..containers.record import ContainerRecord
    from ..engine import Engine

_TESTS_OF_IMAGES = (("NONE",), ("CMD",), ("CMD-SHELL",))  # our own probes are no image's: nobody else knows them


def commit(engine: Engine, request: CommitRequest) -> str:
    """Make an image of a container; return its id.

    Raises NotFound for the container or the image that it was made from, Invalid for a name or a change, Unavailable.
    """
    with engine.store.leases.hold():  # until its name is in the index
        return _commit(engine, request)


def _commit(engine: Engine, request: CommitRequest) -> str:
    record = engine.records.find(request.container)
    reference = Reference.parse(request.name).tagged() if request.name else None
    if reference is not None and reference.digest:
        raise Invalid("commit", record.subject, "cannot commit to digest reference", hint="give it a name with a tag")
    base = _base(engine, record)
    own = _config(record, base)  # first: a mistake in it must not cost the layer
    config = apply_changes(request.changes, ContainerConfig.from_json(request.config) if request.config else own)
    if request.config:
        config = _over(config, own)
    # docker lets it run on once its image is there and told of.
    with freezing.held(engine, record) if request.pause else ExitStack():
        layer, diff_id = _store_layer(engine, record)
        created = timestamp()
        history = History(
            created=created,
            created_by=" ".join(record.config.args),
            author=request.author,
            comment=request.message,
        )
        platform = base.config.platform if base is not None else Platform.of_machine(engine.host.runtime.machine)
        target = write_image(
            engine.store,
            (*((part.descriptor for part in base.layers) if base is not None else ()), layer),
            ImageConfig(
                created=created,
                author=request.author,
                architecture=platform.architecture,
                variant=platform.variant,
                os=platform.os,
                config=config,
                rootfs=RootFs(
                    type="layers", diff_ids=(*(base.config.rootfs.diff_ids if base is not None else ()), diff_id)
                ),
                history=(*(base.config.history if base is not None else ()), history),
                comment=request.message,
            ),
        )
        engine.store.names.put(reference, target)
        image = engine.images.resolve(str(target.digest))
        attributes = {"comment": request.message, "imageID": str(image.id), "imageRef": str(reference or "")}
        if reference is not None:
            events.publish_image(engine, image, "tag", reference.familiar)
        events.publish_container(engine, record, "commit", attributes)
        return str(image.id)


def _base(engine: Engine, record: ContainerRecord) -> Image | None:
    if not record.image_id:
        return None
    try:
        return engine.images.resolve(record.image_id)
    except NotFound:
        cause = f"the image {record.image_id} that it was made from is not here any more"
        raise NotFound("commit", record.subject, cause, hint=f"export it instead: orlop export {record.name}") from None


def _config(record: ContainerRecord, base: Image | None) -> ContainerConfig:
    """Return how containers of the image run: as this one does."""
    config = base.config.config if base is not None else ContainerConfig()
    health = record.config.health
    return config.replace(
        user=record.config.user,
        env=record.config.env,
        entrypoint=record.config.entrypoint,
        cmd=record.config.cmd,
        working_dir=record.config.working_dir,
        labels=record.config.labels,
        stop_signal=record.request.stop_signal or config.stop_signal,
        exposed_ports={port: {} for port in record.config.exposed_ports},
        volumes={place: {} for place in record.config.volumes},
        healthcheck=health if health is None or health.test[:1] in _TESTS_OF_IMAGES else None,
        on_build=(),
    )


def _over(config: ContainerConfig, own: ContainerConfig) -> ContainerConfig:
    """Return a configuration that a client sent, filled up from the container's (moby, daemon/commit.go, merge)."""
    set_already = {entry.partition("=")[0] for entry in config.env}
    mine, its = config.healthcheck or Healthcheck(), own.healthcheck or Healthcheck()
    checks = {name: getattr(mine, name) or getattr(its, name) for name in Healthcheck._fields}
    has_command = bool(config.entrypoint or config.cmd)
    return config.replace(
        user=config.user or own.user,
        exposed_ports={**own.exposed_ports, **config.exposed_ports},
        env=(*config.env, *(entry for entry in own.env if entry.partition("=")[0] not in set_already)),
        labels={**own.labels, **config.labels},
        cmd=config.cmd if has_command else own.cmd,
        entrypoint=config.entrypoint or own.entrypoint,
        healthcheck=Healthcheck(**checks) if any(checks.values()) else None,
        working_dir=config.working_dir or own.working_dir,
        volumes={**own.volumes, **config.volumes},
        stop_signal=config.stop_signal or own.stop_signal,
    )


def _store_layer(engine: Engine, record: ContainerRecord) -> tuple[Descriptor, Digest]:
    """Store what a container changed, uncompressed: its digest is the diff_id."""
    shift = kept.on_disk(record, engine.host.runtime)
    with engine.store.writer() as ingest:
        try:
            if record.request.rootfs:
                _pack(Packer(ingest.write, shift=shift), record.request.rootfs)
            else:
                with engine.layer(record).layers() as trees:
                    made = of_trees(engine, record, trees).made
                    _pack(Packer(ingest.write, whiteouts=True, omit=made, shift=shift), trees[0])
        except OSError as wrong:
            raise unreadable("commit", record, wrong) from None
        descriptor = ingest.commit(media_type=OCI_LAYER)
    return descriptor, descriptor.digest


def _pack(packer: Packer, tree: str) -> None:
    packer.add_directory(open_layers((tree,), plain=True), b".")
    packer.finish()
