"""What must not leave a build: the values of its secrets, and what looks like a key, in layers or in the configuration.

A secret is looked for as it is and in base64, in whatever position it was encoded. What is only in a layer below, and
removed above, is found too: it leaves with the image. Only layers that this build's own steps made are looked through.
"""

from __future__ import annotations

import base64
import re

from orlop.spec import jsonio
from orlop.spec.errors import Denied
from orlop.spec.tar import Limits, Reader, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from orlop.spec.image import ImageConfig

    from .. import graph
    from ..solver.solve import Solver

SECRET_BYTES_MIN = 6  # what is shorter is in every file
OVERLAP_BYTES = 64 * 1024
LIMITS = Limits(entries=2**40, total_bytes=2**60)
# Forms that name themselves: prefix, then enough of what is no word.
_TOKENS = re.compile(
    rb"AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{60,}|xox[baprs]-[A-Za-z0-9-]{20,}"
    rb"|glpat-[A-Za-z0-9_-]{20}|-----BEGIN (?:RSA |EC |OPENSSH )?PRIVATE KEY-----"
)


def check(solver: Solver, target: graph.Target, config: ImageConfig) -> None:
    """Raise Denied for the first secret that an image would carry away, naming the step and the path."""
    needles = {name: forms(value) for name, value in solver.settings.secrets.items() if len(value) >= SECRET_BYTES_MIN}
    document = jsonio.dump(config.to_json())
    for name, wanted in needles.items():
        if any(form in document for form in wanted):
            raise _found(f"secret {name}", _where(config, wanted))
    if (token := _TOKENS.search(document)) is not None:
        raise _found(f"what looks like a key ({token.group()[:8].decode()}...)", _where(config, (token.group(),)))
    if not needles:
        return
    for step in target.steps:
        solved = solver.solved[step.vertex] if step.vertex is not None else None
        if solved is None or solved.layer is None:
            continue
        with solver.engine.store.open(solved.layer.descriptor.digest) as blob:
            for path, data in _pieces(blob.read):
                for name, wanted in needles.items():
                    if any(form in data for form in wanted):
                        raise _found(f"secret {name}", f"{path} of the step {step.origin.text}")


def _where(config: ImageConfig, wanted: tuple[bytes, ...]) -> str:
    """Return what of a configuration has one of these texts, in words that don't."""

    def has(text: str) -> bool:
        return any(form in text.encode(errors="surrogateescape") for form in wanted)

    for entry in config.config.env:
        if has(entry):
            return f"the variable {shown(entry.partition('=')[0].encode())} of the image's configuration"
    for name, value in config.config.labels.items():
        if has(value):
            return f"the label {shown(name.encode())} of the image's configuration"
    for number, step in enumerate(config.history, 1):
        if has(step.created_by):
            return f"step {number} of the image's history, {step.created_by.split()[0]}"
    return "the image's configuration or history"


def forms(value: bytes) -> tuple[bytes, ...]:
    """Return how a value may look: itself, without white space around it, and what base64 makes of it anywhere."""
    found = {value, value.strip()}
    for padding in range(3):
        encoded = base64.b64encode(b"\0" * padding + value.strip())
        inner = encoded[(padding * 8 + 5) // 6 : len(encoded) // 4 * 4 - 4]
        if len(inner) >= SECRET_BYTES_MIN:
            found.add(inner)
    return tuple(form for form in found if len(form) >= SECRET_BYTES_MIN)


def _pieces(read: Callable[[int], bytes]) -> Iterator[tuple[str, bytes]]:
    """Yield the path and pieces of the content of every file of a layer; pieces overlap."""
    reader = Reader(read, "a layer", LIMITS)
    for member in reader:
        name = shown(b"/" + member.name.strip(b"/"))
        if member.linkname:
            yield name, member.linkname
        tail = b""
        for piece in reader.data():
            yield name, tail + piece
            tail = (tail + piece)[-OVERLAP_BYTES:]


def _found(what: str, where: str) -> Denied:
    hint = "use it with RUN --mount=type=secret and leave no copy; --secrets-policy=warn lets it pass"
    return Denied("export", "the image", f"{what} is in {where}", hint=hint)
