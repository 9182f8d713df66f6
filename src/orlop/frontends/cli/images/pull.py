"""`orlop pull`, and the pull that `run` and `create` do when the image is not here."""

from __future__ import annotations

import os
import sys

from ....spec.errors import Invalid
from ....spec.reference import Reference
from ..command import Command, Invocation, for_output, write_line
from ..flags import BOOL, STRING, Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TextIO

    from ...native.client import Engine


def _pull(invocation: Invocation) -> int:
    options = invocation.options
    name = invocation.arguments[0]
    reference = Reference.parse(name)
    if options["all-tags"] and (reference.tag or reference.digest):
        raise Invalid("pull", name, "tag can't be used with --all-tags/-a", hint="leave the tag away")
    if not options["all-tags"]:
        if not reference.tag and not reference.digest and not options["quiet"]:
            write_line("Using default tag: latest")
        reference = reference.tagged()
    with invocation.connect() as engine:
        pull_image(
            engine,
            str(reference),
            platform=options["platform"],
            wanted=[name for name in ("all-tags", "all-platforms", "lazy", "referrers") if options[name]],
            output=None if options["quiet"] else sys.stdout,
        )
    write_line(for_output(str(reference)))
    return 0


def pull_image(
    engine: Engine,
    image: str,
    *,
    platform: str = "",
    wanted: Sequence[str] = (),
    output: TextIO | None,
) -> None:
    """Pull an image and show how far it is on a stream, or nowhere. wanted: flags of `pull` that are given.

    Raises the engine's error.
    """
    from .. import progress
    from ..credentials import for_places

    request: dict[str, object] = {"image": image, "platform": platform or os.environ.get("DOCKER_DEFAULT_PLATFORM", "")}
    request |= {name.replace("-", "_"): True for name in wanted}
    reference = Reference.parse(image)
    credentials = for_places(engine, reference.domain, reference.path).to_json()
    if credentials:
        request["credentials"] = credentials
    messages = engine.messages("images.pull", {"request": request})
    if output is None:
        for _ in messages:
            pass
    else:
        progress.Display(output).show_all(messages)


PULL = Command(
    _pull,
    "Download an image from a registry",
    "[OPTIONS] NAME[:TAG|@DIGEST]",
    flags=(
        Flag("all-platforms", "", BOOL, "Download the images for all platforms", default=False),
        Flag("all-tags", "a", BOOL, "Download all tagged images in the repository", default=False),
        Flag("disable-content-trust", "", BOOL, "Skip image verification", default=True),
        Flag(
            "lazy",
            "",
            BOOL,
            "Let the image run before its layers are here, where they can be read in part",
            default=False,
        ),
        Flag("platform", "", STRING, "Set platform if server is multi-platform capable", default=""),
        Flag("quiet", "q", BOOL, "Suppress verbose output", default=False),
        Flag("referrers", "", BOOL, "Download and keep what refers to it: signatures, attestations", default=False),
    ),
    arguments=(1, 1),
    aliases=("image pull", "pull"),
)
