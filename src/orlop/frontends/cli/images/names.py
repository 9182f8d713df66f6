"""`orlop tag`, `orlop rmi`, `orlop image prune`: names of images, given and taken."""

from __future__ import annotations

from ....spec.errors import OrlopError
from .. import listing
from ..command import Command, Invocation, for_output, write_line
from ..containers.lifecycle import confirmed
from ..flags import BOOL, EXIT_USAGE, STRINGS, Flag, split_values
from ..main import explain
from ..units import size
from ..values import FILTER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _tag(invocation: Invocation) -> int:
    source, name = invocation.arguments
    with invocation.connect() as engine:
        engine.call("images.tag", {"image": source, "name": name})
    return 0


def _remove(invocation: Invocation) -> int:
    options = invocation.options
    status = 0
    with invocation.connect() as engine:
        for name in invocation.arguments:
            args = {"image": name, "force": options["force"], "prune": not options["no-prune"]}
            if options["platform"]:
                args["platforms"] = split_values(options["platform"])
            try:
                print_deleted(engine.call("images.remove", args))
            except OrlopError as error:
                if options["force"] and error.kind == "not-found":
                    explain(error)
                    continue
                explain(error)
                status = EXIT_USAGE
    return status


def print_deleted(deleted: object) -> None:
    """Print docker's lines for {"Untagged"} and {"Deleted"} objects."""
    for item in deleted if isinstance(deleted, list) else ():
        for word in ("Untagged", "Deleted"):
            if isinstance(item, dict) and word in item:
                write_line(f"{word}: {for_output(str(item[word]))}")


def _prune(invocation: Invocation) -> int:
    options = invocation.options
    if not options["force"]:
        what = "without at least one container associated to them" if options["all"] else "dangling images"
        what = f"all images {what}" if options["all"] else f"all {what}"
        if not confirmed(f"WARNING! This will remove {what}."):
            return 0
    with invocation.connect() as engine:
        packed = {"packed": True} if options["packed"] else {}
        filters = listing.filters_of(options["filter"])
        result = engine.call("images.prune", {"all": options["all"], "filters": filters, **packed})
    found = result if isinstance(result, dict) else {}
    print_images_deleted(found)
    write_line(f"Total reclaimed space: {size(int(found.get('SpaceReclaimed') or 0))}")
    return 0


def print_images_deleted(result: dict[str, Any]) -> None:
    """Print docker's list of what a prune of images removed, with an empty line behind; nothing for nothing."""
    deleted = result.get("ImagesDeleted")
    if not isinstance(deleted, list) or not deleted:
        return
    write_line("Deleted Images:")
    for item in deleted:
        for word in ("Untagged", "Deleted"):
            if word in item:
                write_line(f"{word.lower()}: {for_output(str(item[word]))}")
    write_line("")


TAG = Command(
    _tag,
    "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
    "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
    arguments=(2, 2),
    aliases=("image tag", "tag"),
)
RMI = Command(
    _remove,
    "Remove one or more images",
    "[OPTIONS] IMAGE [IMAGE...]",
    flags=(
        Flag("force", "f", BOOL, "Force removal of the image", default=False),
        Flag("no-prune", "", BOOL, "Do not delete untagged parents", default=False),
        Flag("platform", "", STRINGS, "Remove only the given platform variant"),
    ),
    arguments=(1, None),
    aliases=("image rm", "image remove", "rmi"),
)
PRUNE = Command(
    _prune,
    "Remove unused images",
    "[OPTIONS]",
    flags=(
        Flag("all", "a", BOOL, "Remove all unused images, not just dangling ones", default=False),
        Flag("filter", "", FILTER, 'Provide filter values (e.g. "until=<timestamp>")'),
        Flag("force", "f", BOOL, "Do not prompt for confirmation", default=False),
        Flag("packed", "", BOOL, "Drop packed layers that can be made again from what is unpacked", default=False),
    ),
    aliases=("image prune",),
)
