"""The way of an image to where it was asked for: our store, registries, and descriptors that take archives.

Everything is written before the first name is given, so an output that fails leaves all names as they were.
"""

from __future__ import annotations

import os

from orlop.engine import events
from orlop.engine.steps.workspace import unpacked
from orlop.image.push import Push
from orlop.image.save import Saved, write_archive
from orlop.image.transports.layout import LayoutDirectory
from orlop.image.transports.transfer import give
from orlop.snapshot.layered import open_layers
from orlop.snapshot.pack import Packer
from orlop.spec.errors import Invalid, NotFound, Unavailable
from orlop.spec.image import INDEXES, Descriptor
from orlop.spec.reference import Reference
from orlop.spec.registry import ANONYMOUS

from . import attest, images
from .wanted import DOCKER, IMAGE, LOCAL, NOWHERE, OCI, TAR, Form, Output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from orlop.image.image import Image
    from orlop.spec.platform import Platform

    from .. import graph
    from ..solver.solve import Solver

DEFAULT = Output(type=IMAGE)


def deliver(solver: Solver, targets: Sequence[graph.Target], sinks: Sequence[int]) -> dict[str, object]:
    """Carry a build's result to all its outputs; return {id, digest, names, descriptor}.

    sinks: descriptors that the outputs name by their places. Raises Denied, Invalid, Unavailable.
    """
    outputs = solver.settings.request.outputs or (DEFAULT,)
    images.check(solver, targets)
    log = solver.journal.step(0, _title(outputs))
    written: dict[tuple[Form, object], Descriptor] = {}
    for output in (*outputs, DEFAULT):
        if output.type not in (TAR, LOCAL, NOWHERE) and (output.form, output.annotations) not in written:
            if output is DEFAULT and written:
                break
            written[output.form, output.annotations] = images.write(solver, targets, output)
    if written:
        log.note({"status": "exporting layers"})
    described = [(output, written.get((output.form, output.annotations))) for output in outputs]
    for output, descriptor in described:
        _send(solver, targets, output, descriptor, sinks)
    names: list[str] = []
    for output, descriptor in described:
        if descriptor is not None and output.store and (output.type == IMAGE or _is_load(output)):
            names += _name(solver, output, descriptor)
    result = next(one for one in (*(one for _, one in described), *written.values()) if one is not None)
    identity = solver.engine.images.id_of(result)
    if any(one is not None for _, one in described):
        log.note({"status": f"writing image {identity}"})
    for name in dict.fromkeys(names):
        log.note({"status": f"naming to {Reference.parse(name)}"})
    log.end("done")
    return {
        "id": identity,
        "digest": str(result.digest),
        "names": list(dict.fromkeys(names)),
        "descriptor": result.to_json(),
    }


def _title(outputs: Sequence[Output]) -> str:
    """Return what BuildKit calls the export; of several, the first says it."""
    kind = outputs[0].type
    if kind in (LOCAL, TAR):
        return f"exporting to client {'directory' if kind == LOCAL else 'tarball'}"
    is_archive = kind in (OCI, DOCKER) and not _is_load(outputs[0])
    return f"exporting to {kind} image format" if is_archive else "exporting to image"


def _is_load(output: Output) -> bool:
    return output.type == DOCKER and output.sink < 0 and not output.path


def _names(solver: Solver, output: Output) -> list[Reference]:
    given = dict.fromkeys((*solver.settings.request.tags, *output.names))
    return [Reference.parse(name).tagged() for name in given]


def _send(
    solver: Solver,
    targets: Sequence[graph.Target],
    output: Output,
    descriptor: Descriptor | None,
    sinks: Sequence[int],
) -> None:
    if output.type in (LOCAL, TAR):
        _write_trees(solver, targets, output, _sink(output, sinks))
    elif descriptor is not None and output.path:
        layout = LayoutDirectory(output.path, make=True)
        try:
            names = _names(solver, output)
            for _ in give(layout, solver.engine.store, descriptor):
                solver.check()
            layout.name(descriptor, names[0].tag if names else "latest")
        finally:
            layout.close()
    elif descriptor is not None and output.type in (OCI, DOCKER) and not _is_load(output):
        saved = Saved(_image(solver, descriptor), _names(solver, output), descriptor)
        write_archive(solver.engine.store, [saved], _sink(output, sinks))
    elif descriptor is not None and output.push:
        _push(solver, output, descriptor)


def _sink(output: Output, sinks: Sequence[int]) -> int:
    if not 0 <= output.sink < len(sinks):
        raise Invalid("build", f"output type={output.type}", "no descriptor came that takes it", hint="give it a dest")
    return sinks[output.sink]


def _image(solver: Solver, descriptor: Descriptor) -> Image | None:
    """Return what docker's older readers are told of; nothing where it has nothing for this machine."""
    try:
        return solver.engine.images.load(descriptor)
    except NotFound:
        return None


# -- trees ------------------------------------------------------------------------------------------------------------


def _write_trees(solver: Solver, targets: Sequence[graph.Target], output: Output, sink: int) -> None:
    split = output.split if output.split is not None else len(targets) > 1
    if not split and len(targets) > 1:
        cause = "the files of several platforms don't fit into one folder"
        raise Invalid("build", f"output type={output.type}", cause, hint="leave platform-split=false away")
    packer = Packer(lambda data: _write_all(sink, data))
    try:
        for target in targets:
            layers = solver.solved[target.vertex].tree.layers
            solver.fetch(layers)
            trees = solver.engine.snapshots.trees(unpacked(solver.engine, layers))
            folder = _folder(target.platform) if split else "."
            if trees:
                packer.add_directory(open_layers(trees, plain=len(trees) == 1), folder.encode())
            for name, data in attest.files(solver, target, output.prefix):
                packer.add_file(f"{folder}/{name}".removeprefix("./").encode(), data, solver.settings.mtime_max_ns)
        packer.finish()
    except OSError as wrong:
        raise Unavailable("write", "the build's output", wrong.strerror or str(wrong)) from None


def _folder(platform: Platform) -> str:
    return "_".join(part for part in (platform.os, platform.architecture, platform.variant) if part)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


# -- names and registries ---------------------------------------------------------------------------------------------


def _push(solver: Solver, output: Output, descriptor: Descriptor) -> None:
    names = _names(solver, output)
    if not names:
        raise Invalid("push", "the image", "tag is needed when pushing to registry", hint="name it with -t")
    engine = solver.engine
    for name in names:
        credentials = solver.settings.credentials(name) or ANONYMOUS
        log = solver.journal.step(0, f"[internal] pushing {name.familiar}")
        pushing = Push(engine.store, engine.registries.to_push(name, credentials, frozenset()), {})
        try:
            for message in pushing.run(descriptor, "" if output.by_digest else name.tag):
                solver.check()
                log.note({"pull": message})
        except OSError as wrong:
            raise Unavailable("push", name.familiar, wrong.strerror or str(wrong)) from None
        log.end("done")
        events.publish(engine, "image", "push", name.familiar, {"name": name.familiar_name})


def _name(solver: Solver, output: Output, descriptor: Descriptor) -> list[str]:
    """Give an image its names in our store; return them."""
    engine = solver.engine
    names = [] if output.by_digest else _names(solver, output)
    if output.canonical:
        names += [_canonical(name, descriptor) for name in _names(solver, output)]
    if not names and output.dangling:
        names = [_canonical(Reference.parse(output.dangling), descriptor)]
    if output.unpack and descriptor.media_type not in INDEXES:
        engine.snapshots.unpack(engine.images.layer_openers(engine.images.load(descriptor)))
    plain = descriptor.replace(annotations={})
    for name in names:
        engine.store.names.put(name, plain)
        events.publish(engine, "image", "tag", engine.images.id_of(plain), {"name": name.familiar})
    if not names:
        engine.store.names.put(None, plain)
    return [name.familiar for name in names]


def _canonical(name: Reference, descriptor: Descriptor) -> Reference:
    return name.replace(tag="", digest=descriptor.digest)
