"""`orlop save` and `orlop load`."""

from __future__ import annotations

import os

from ....spec.errors import Invalid
from ..archives import write_whole
from ..command import Command, Invocation
from ..flags import BOOL, STRING, Flag


def _save(invocation: Invocation) -> int:
    options = invocation.options
    args = {"images": list(invocation.arguments), "platform": options["platform"]}
    path: str = options["output"]
    if not path and os.isatty(1):
        hint = "use the -o flag or redirect"
        raise Invalid("save", "images", "cowardly refusing to save to a terminal", hint=hint)
    with invocation.connect() as engine:
        if path:
            write_whole(path, lambda fd: engine.call("images.save", args, [fd]), "save")
        else:
            engine.call("images.save", args, [1])
    return 0


def _load(invocation: Invocation) -> int:
    from .. import progress

    options = invocation.options
    path: str = options["input"]
    if not path and os.isatty(0):
        hint = "use -i to name a file, or redirect one to standard input"
        raise Invalid("load", "images", "requested load from stdin, but stdin is empty", hint=hint)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC) if path else 0
    except OSError as wrong:
        raise Invalid("load", path, (wrong.strerror or str(wrong)).lower(), hint="name an archive of images") from None
    display = progress.Display()
    try:
        with invocation.connect() as engine:
            args = {"platform": options["platform"], **({"force": True} if options["force"] else {})}
            for message in engine.messages("images.load", args, [fd]):
                display.show(message)
    finally:
        if path:
            os.close(fd)
    return 0


SAVE = Command(
    _save,
    "Save one or more images to a tar archive (streamed to STDOUT by default)",
    "[OPTIONS] IMAGE [IMAGE...]",
    flags=(
        Flag("output", "o", STRING, "Write to a file, instead of STDOUT", default=""),
        Flag("platform", "", STRING, "Save only the given platform variant", default=""),
    ),
    arguments=(1, None),
    aliases=("image save", "save"),
)
LOAD = Command(
    _load,
    "Load an image from a tar archive or STDIN",
    "[OPTIONS]",
    flags=(
        Flag("force", "", BOOL, "Give names that other images have here to the archive's", default=False),
        Flag("input", "i", STRING, "Read from tar archive file, instead of STDIN", default=""),
        Flag("platform", "", STRING, "Load only the given platform variant", default=""),
        Flag("quiet", "q", BOOL, "Suppress the load output", default=False),
    ),
    aliases=("image load", "load"),
)
