"""An SBOM by somebody else's scanner: its image is executed, sees the tree, and leaves statements.

    BUILDKIT_SCAN_SOURCE        the directory that it is about
    BUILDKIT_SCAN_DESTINATION   where it writes <name>.spdx.json: in-toto statements, of which the predicates are taken

It runs as a step does, with the build's network and limits; what it leaves is read as data, and no link in it followed.
Source: moby/buildkit, docs/attestations/sbom-protocol.md.
"""

from __future__ import annotations

import os
from contextlib import ExitStack

from orlop.engine.steps import run as steps
from orlop.linux.path import read_in_root
from orlop.spec import jsonio
from orlop.spec.errors import CommandFailed, Invalid
from orlop.spec.runtime import Mount

from .. import graph
from ..solver.mounts import Mounted
from ..solver.sources import find_image

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..solver.solve import Solver

SOURCE, DESTINATION = "/run/src/core/sbom", "/run/out"
SUFFIX = ".spdx.json"
FILES_MAX, FILE_BYTES_MAX = 100, 64 * 1024 * 1024
TAIL_LINES = 40


def scanned(solver: Solver, target: graph.Target, reference: str) -> Iterator[tuple[str, str, dict[str, object]]]:
    """Yield what the scanner of an image says of a target: the type, the name of a file of it, and itself.

    Raises NotFound without that image, CommandFailed when the scanner fails, Invalid for what is no statement.
    """
    log = solver.journal.step(0, f"[{target.platform}] generating sbom using {reference}")
    image = find_image(solver, reference, solver.engine.images.platform, log)
    config = image.config.config
    mount = graph.BindMount(target=SOURCE, source=target.vertex, path="/", read_only=True)
    step = graph.Run(base=target.vertex, argv=(*config.entrypoint, *config.cmd), mounts=(mount,))
    if not step.argv:
        raise Invalid("scan", reference, "the image says no command", hint="name the image of an SBOM scanner")
    directory = solver.scratch()
    os.chmod(directory, 0o777)  # whoever the scanner runs as; what leads here is the engine's alone
    with ExitStack() as held:
        space = solver.open_space(image.layers)
        held.callback(space.discard)
        mounted, _ = Mounted(solver, step, held).mounts(space)
        variables = (f"BUILDKIT_SCAN_SOURCE={SOURCE}", f"BUILDKIT_SCAN_DESTINATION={DESTINATION}")
        command = steps.Command(step.argv, (*config.env, *variables), config.working_dir or "/", config.user)
        command.request = solver.settings.limits()
        out = Mount(destination=DESTINATION, type="bind", source=directory, options=("rbind", "rprivate"))
        command.mounts = (*mounted, out)
        code = steps.run(solver.engine, space, command, log.write, solver.cancelled)
    if code:
        log.end("failed", f"exit code: {code}")
        raise CommandFailed("scan", reference, f"the scanner ended with {code}: {' '.join(log.tail(TAIL_LINES))[:400]}")
    log.end("done")
    found = list(_statements(directory, reference))
    if not found:
        cause = f"the scanner left no file *{SUFFIX} in {DESTINATION}"
        raise Invalid("scan", reference, cause, hint="name the image of an SBOM scanner")
    yield from found


def _statements(directory: str, reference: str) -> Iterator[tuple[str, str, dict[str, object]]]:
    root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        names = sorted(name for name in os.listdir(root) if name.endswith(SUFFIX))
        for name in names[:FILES_MAX]:
            try:
                data = read_in_root(root, name, FILE_BYTES_MAX)
            except OSError as wrong:
                raise Invalid("scan", reference, f"{name[:100]}: {wrong.strerror or wrong}") from None
            subject = f"{name[:100]} of {reference}"
            statement = jsonio.parse_object(data or b"", subject, bytes_max=FILE_BYTES_MAX)
            kind, predicate = statement.get("predicateType"), statement.get("predicate")
            if not isinstance(kind, str) or not isinstance(predicate, dict):
                raise Invalid("scan", subject, "it is no in-toto statement", hint="it needs predicateType, predicate")
            yield kind, f"sbom-{name}" if name != f"sbom{SUFFIX}" else name, predicate
    finally:
        os.close(root)
