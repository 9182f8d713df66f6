"""What a build starts from: images, contexts, here-documents, repositories and URLs become trees."""

from __future__ import annotations

import os

from orlop.engine.images import listing as images
from orlop.image.transports.layout import LayoutDirectory
from orlop.image.transports.transfer import Taking
from orlop.spec.errors import Internal, Invalid, NotFound
from orlop.spec.reference import Reference
from orlop.spec.registry import ANONYMOUS, PullRequest

from .. import graph
from ..registries import LAYOUT_PREFIX
from .solve import Solved, tree_of
from .tree import Tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from orlop.image.image import Image
    from orlop.spec.platform import Platform

    from ..journal import StepLog
    from .solve import Solver


def solve(solver: Solver, vertex: graph.Vertex, log: StepLog) -> Solved:
    """Return the tree of a source."""
    if isinstance(vertex, graph.Scratch):
        return Solved(tree_of(()))
    if isinstance(vertex, graph.ImageSource):
        return _image(solver, vertex, log)
    if isinstance(vertex, graph.Context):
        return Solved(solver.contexts[vertex.name])
    if isinstance(vertex, graph.InlineFile):
        return Solved(_inline(solver, vertex))
    if isinstance(vertex, graph.HttpSource):
        from ..http import fetch

        return Solved(fetch(solver, vertex, log))
    if isinstance(vertex, graph.GitSource):
        from ..git import checkout

        return Solved(checkout(solver, vertex, log))
    raise Internal("build", type(vertex).__name__, "the solver does not know this kind of vertex")


def find_image(solver: Solver, reference: str, platform: Platform | None, log: StepLog) -> Image:
    """Return an image, pulled where it is not here or --pull wants it; once for a build. Raises NotFound."""
    wanted = f"{reference} {platform or ''}"
    with solver.finding:
        if wanted not in solver.images:
            solver.images[wanted] = _find_image(solver, reference, platform, log)
        return solver.images[wanted]


def _find_image(solver: Solver, reference: str, platform: Platform | None, log: StepLog) -> Image:
    engine = solver.engine
    if reference.startswith(LAYOUT_PREFIX):
        return _of_layout(solver, reference.removeprefix(LAYOUT_PREFIX), platform)
    if not solver.settings.request.pull or reference in images.HOST_NAMES:
        try:
            image = images.find(engine, reference)
            if platform is None or platform.runs(image.config.platform):
                return image
            return engine.images.load(engine.images.for_platform(image.target, platform))
        except NotFound:
            pass
    from orlop.engine.images.pull import pull

    request = PullRequest(
        image=reference,
        platform=str(platform or ""),
        credentials=solver.settings.credentials(Reference.parse(reference)) or ANONYMOUS,
    )
    for message in pull(engine, request, solver.cancelled):
        log.note({"pull": message})
    image = images.find(engine, reference)
    if platform is None or platform.runs(image.config.platform):
        return image
    return engine.images.load(engine.images.for_platform(image.target, platform))


def _of_layout(solver: Solver, place: str, platform: Platform | None) -> Image:
    """Return the image of FOLDER[:NAME][@DIGEST], taken into our store. Raises NotFound, Invalid."""
    engine = solver.engine
    place, _, digest = place.partition("@")
    folder, colon, name = place.rpartition(":")
    if not colon or "/" in name:
        folder, name = place, ""
    if not os.path.isabs(folder):
        raise Invalid("build", f"{LAYOUT_PREFIX}{place}", "the folder is not an absolute path")
    layout = LayoutDirectory(folder)
    try:
        taking = Taking(layout, engine.store, solver.lease, platform or engine.images.platform)
        moves = taking.run(layout.resolve(digest or name))
        while True:
            try:
                next(moves)
            except StopIteration as end:
                return engine.images.load(end.value)
    finally:
        layout.close()


def _image(solver: Solver, vertex: graph.ImageSource, log: StepLog) -> Solved:
    image = find_image(solver, vertex.reference, vertex.platform, log)
    solver.lease.add(*(layer.chain_id for layer in image.layers), *(layer.descriptor.digest for layer in image.layers))
    found = Solved(tree_of(image.layers))
    found.image = image
    return found


def _inline(solver: Solver, vertex: graph.InlineFile) -> Tree:
    directory = solver.scratch()
    fd = os.open(f"{directory}/{vertex.filename}", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        file.write(vertex.data)
        os.fchmod(fd, vertex.mode)
    tree = Tree(directory=directory)
    tree.fetched = True
    return tree
