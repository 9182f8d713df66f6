"""`orlop images` and `orlop import`."""

from __future__ import annotations

import os

from ....spec.errors import Invalid
from .. import listing
from ..command import Command, Invocation, for_output, write, write_line
from ..flags import BOOL, EXIT_USAGE, LIST, STRING, Flag, UsageError
from ..units import ago, epoch_ns, local_time, size
from ..values import FILTER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ...native.client import Engine
    from ..template import Row

ID_LENGTH = 12
NONE = "<none>"

_HEADERS: dict[str, object] = {
    "Containers": "CONTAINERS",
    "CreatedAt": "CREATED AT",
    "CreatedSince": "CREATED",
    "Digest": "DIGEST",
    "ID": "IMAGE ID",
    "Repository": "REPOSITORY",
    "SharedSize": "SHARED SIZE",
    "Size": "SIZE",
    "Tag": "TAG",
    "UniqueSize": "UNIQUE SIZE",
    "VirtualSize": "SIZE",
}


class _Line:
    """One name of one image: what a row of the table shows."""

    __slots__ = ("created_s", "digest", "identifier", "repository", "size", "tag")

    def __init__(self, item: dict[str, Any], name: str, whole: bool) -> None:
        identifier = str(item.get("id", ""))
        self.identifier = identifier if whole else identifier.removeprefix("sha256:")[:ID_LENGTH]
        self.repository, self.tag = _split(name)
        self.digest = name.partition("@")[2] or str(item.get("digest", "")) or NONE
        created = epoch_ns(str(item.get("created", "")))
        self.created_s = created / 1e9 if created is not None else None
        number = item.get("size")
        self.size = size(number, 3) if isinstance(number, int) else "N/A"

    @property
    def since(self) -> str:
        return ago(self.created_s) if self.created_s else "N/A"

    def row(self) -> Row:
        from ..template import Row

        fields: dict[str, object] = {
            "Containers": "N/A",
            "CreatedAt": local_time(self.created_s) if self.created_s else "N/A",
            "CreatedSince": self.since,
            "Digest": self.digest,
            "ID": self.identifier,
            "Repository": self.repository,
            "SharedSize": "N/A",
            "Size": self.size,
            "Tag": self.tag,
            "UniqueSize": "N/A",
            "VirtualSize": self.size,
        }
        return Row("*formatter.imageContext", fields)


def _images(invocation: Invocation) -> int:
    options = invocation.options
    filters = listing.filters_of(options["filter"])
    if options["tree"]:
        return _tree(invocation, filters)
    with invocation.connect() as engine:
        found = engine.call("images.list", {"filters": filters} if filters else {})
    items = [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []
    lines = [_Line(item, name, options["no-trunc"]) for item in items for name in _names(item)]
    if invocation.arguments:
        lines = [line for line in lines if _matches(line, invocation.arguments[0])]
    form: str = options["format"]
    titled: bool = not options["noheading"]
    if options["quiet"] and not form:
        write("".join(f"{for_output(line.identifier)}\n" for line in lines))
    elif form in ("", "table") and options["digests"]:
        listing.print_table(
            ("REPOSITORY", "TAG", "DIGEST", "IMAGE ID", "CREATED", "SIZE"),
            [(line.repository, line.tag, line.digest, line.identifier, line.since, line.size) for line in lines],
            titled=titled,
        )
    elif form in ("", "table"):
        listing.print_table(
            ("REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"),
            [(line.repository, line.tag, line.identifier, line.since, line.size) for line in lines],
            titled=titled,
        )
    else:
        listing.print_formatted(form, [line.row() for line in lines], _HEADERS, titled=titled)
    return 0


def _tree(invocation: Invocation, filters: dict[str, list[str]]) -> int:
    from .tree import print_platforms

    for flag in ("quiet", "no-trunc", "digests", "format"):
        if invocation.options[flag]:
            raise UsageError(f"--{flag} is not yet supported with --tree", f"leave --{flag} away", EXIT_USAGE)
    with invocation.connect() as engine:
        found = engine.call("images.list", {"filters": filters, "platforms": True})
    items = [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []
    wanted = invocation.arguments[0] if invocation.arguments else ""
    named = [(name, item) for item in items for name in _names(item)]
    print_platforms([(n, i) for n, i in named if not wanted or _matches(_Line(i, n, True), wanted)])
    return 0


def _names(item: dict[str, Any]) -> list[str]:
    names = item.get("names")
    return [str(name) for name in names] if isinstance(names, list) and names else [""]


def _split(name: str) -> tuple[str, str]:
    """Return (repository, tag) of a familiar name; a digest is no tag."""
    repository, at, _ = name.partition("@")
    if at:
        return repository, NONE
    head, colon, tag = name.rpartition(":")
    if colon and "/" not in tag:
        return head, tag
    return name or NONE, "latest" if name else NONE


def _matches(line: _Line, wanted: str) -> bool:
    repository, tag = _split(wanted)
    return line.repository == repository and (line.tag == tag or ":" not in wanted.rpartition("/")[2])


def _import(invocation: Invocation) -> int:
    options = invocation.options
    source, name = (*invocation.arguments, "")[:2]
    if source.partition(":")[0] in ("oci", "oci-archive", "docker-archive", "dir") and not os.path.exists(source):
        if options["change"] or options["message"]:
            hint = "import it as it is, then change it in a build"
            raise Invalid("import", source, "a whole image has its own configuration", hint=hint)
        from .copy import take_in

        return take_in(invocation, source, name)
    if "://" in source:
        from .fetch import fetched

        fd = fetched(source)
    else:
        fd = 0 if source == "-" else _open(source)
    try:
        with invocation.connect() as engine:
            args = {"name": name, "changes": list(options["change"]), "message": options["message"]}
            if options["platform"]:
                args["platform"] = options["platform"]
            result = _imported(engine, args, fd, source)
    finally:
        if fd:
            os.close(fd)
    write_line(str(result.get("id", "")) if isinstance(result, dict) else "")
    return 0


def _imported(engine: Engine, args: dict[str, object], fd: int, source: str) -> object:
    """The engine sees a descriptor: an error about what it read gets the name that the user gave."""
    try:
        return engine.call("images.import", args, [fd])
    except Invalid as wrong:
        if wrong.subject != "the archive":
            raise
        named = "standard input" if source == "-" else source
        raise Invalid(
            "import", named, wrong.cause, hint=wrong.hint or "give a tar archive of a root file system"
        ) from None


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as wrong:
        reason = (wrong.strerror or str(wrong)).lower()
        raise Invalid("import", path, reason, hint="name a tar archive, or - for standard input") from None


IMAGES = Command(
    _images,
    "List images",
    "[OPTIONS] [REPOSITORY[:TAG]]",
    flags=(
        # There are no intermediate images: all is what is shown.
        Flag("all", "a", BOOL, "Show all images", default=False),
        Flag("digests", "", BOOL, "Show digests", default=False),
        Flag("filter", "f", FILTER, "Filter output based on conditions provided"),
        listing.FORMAT_FLAG,
        listing.NOHEADING_FLAG,
        Flag("no-trunc", "", BOOL, "Don't truncate output", default=False),
        Flag("quiet", "q", BOOL, "Only show image IDs", default=False),
        Flag("tree", "", BOOL, "List multi-platform images as a tree (EXPERIMENTAL)", default=False),
    ),
    arguments=(0, 1),
    aliases=("image ls", "image list", "images"),
)
IMPORT = Command(
    _import,
    "Import the contents from a tarball to create a filesystem image",
    "[OPTIONS] file|URL|- [REPOSITORY[:TAG]]",
    flags=(
        Flag("change", "c", LIST, "Apply Dockerfile instruction to the created image"),
        Flag("message", "m", STRING, "Set commit message for imported image", default=""),
        Flag("platform", "", STRING, "Set platform if server is multi-platform capable", default=""),
    ),
    arguments=(1, 2),
    aliases=("image import", "import"),
)
