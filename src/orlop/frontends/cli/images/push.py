"""`orlop push`."""

from __future__ import annotations

from ....spec.errors import Invalid
from ....spec.reference import Reference
from ..command import Command, Invocation, for_output, write_line
from ..flags import BOOL, STRING, Flag


def _push(invocation: Invocation) -> int:
    from ....engine.credentials import for_registry
    from .. import progress

    options = invocation.options
    name = invocation.arguments[0]
    reference = Reference.parse(name)
    if options["all-tags"] and (reference.tag or reference.digest):
        raise Invalid("push", name, "tag can't be used with --all-tags/-a", hint="leave the tag away")
    if not options["all-tags"]:
        if not reference.tag and reference.digest is None and not options["quiet"]:
            write_line("Using default tag: latest")
        reference = reference.tagged()
    request: dict[str, object] = {"image": str(reference), "platform": options["platform"]}
    if options["all-tags"]:
        request["all_tags"] = True
    credentials = for_registry(reference.domain, reference.path).to_json()
    if credentials:
        request["credentials"] = credentials
    with invocation.connect() as engine:
        messages = engine.messages("images.push", {"request": request})
        if options["quiet"]:
            for _ in messages:
                pass
            write_line(for_output(str(reference)))
        else:
            progress.Display().show_all(messages)
    return 0


PUSH = Command(
    _push,
    "Upload an image to a registry",
    "[OPTIONS] NAME[:TAG]",
    flags=(
        Flag("all-tags", "a", BOOL, "Push all tags of an image to the repository", default=False),
        Flag("disable-content-trust", "", BOOL, "Skip image signing", default=True),
        Flag("platform", "", STRING, "Push a platform-specific manifest as a single-platform image", default=""),
        Flag("quiet", "q", BOOL, "Suppress verbose output", default=False),
    ),
    arguments=(1, 1),
    aliases=("image push", "push"),
)
