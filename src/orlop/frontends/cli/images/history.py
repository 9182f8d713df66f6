"""`orlop history`: the steps that made an image."""

from __future__ import annotations

from .. import listing
from ..command import Command, Invocation, for_output, write
from ..flags import BOOL, STRING, Flag
from ..units import ago, epoch_ns, size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..template import Row

ID_LENGTH = 12
CREATED_BY_LENGTH = 45
MISSING = "<missing>"
_HEADERS: dict[str, object] = {
    "ID": "IMAGE",
    "CreatedAt": "CREATED AT",
    "CreatedSince": "CREATED",
    "CreatedBy": "CREATED BY",
    "Size": "SIZE",
    "Comment": "COMMENT",
}


class _Step:
    def __init__(self, item: dict[str, Any], *, whole: bool, human: bool) -> None:
        identifier = str(item.get("Id", MISSING))
        cut = identifier.removeprefix("sha256:")[:ID_LENGTH]
        self.identifier = identifier if whole or identifier == MISSING else cut
        self.created_at = str(item.get("Created", ""))
        created = epoch_ns(self.created_at)
        self.since = ago(created / 1e9) if created is not None else "N/A"
        text = str(item.get("CreatedBy", "")).replace("\t", " ")
        self.created_by = text if whole else listing.ellipsis(text, CREATED_BY_LENGTH)
        number = int(item.get("Size") or 0)
        self.size = size(number, 3) if human else str(number)
        self.comment = str(item.get("Comment", ""))
        self.created = self.since if human else self.created_at

    def cells(self) -> tuple[str, ...]:
        return self.identifier, self.created, self.created_by, self.size, self.comment

    def row(self) -> Row:
        from ..template import Row

        fields: dict[str, object] = {
            "ID": self.identifier,
            "CreatedAt": self.created_at,
            "CreatedSince": self.since,
            "CreatedBy": self.created_by,
            "Size": self.size,
            "Comment": self.comment,
        }
        return Row("*formatter.historyContext", fields)


def _history(invocation: Invocation) -> int:
    options = invocation.options
    with invocation.connect() as engine:
        platform = {"platform": options["platform"]} if options["platform"] else {}
        found = engine.call("images.history", {"image": invocation.arguments[0], **platform})
    items = [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []
    steps = [_Step(item, whole=options["no-trunc"], human=options["human"]) for item in items]
    form: str = options["format"]
    if options["quiet"] and not form:
        write("".join(f"{for_output(step.identifier)}\n" for step in steps))
    elif form in ("", "table"):
        listing.print_table(("IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"), [step.cells() for step in steps])
    else:
        listing.print_formatted(form, [step.row() for step in steps], _HEADERS)
    return 0


HISTORY = Command(
    _history,
    "Show the history of an image",
    "[OPTIONS] IMAGE",
    flags=(
        listing.FORMAT_FLAG,
        Flag("human", "H", BOOL, "Print sizes and dates in human readable format", default=True),
        Flag("no-trunc", "", BOOL, "Don't truncate output", default=False),
        Flag("quiet", "q", BOOL, "Only show image IDs", default=False),
        Flag("platform", "", STRING, "Show history for the given platform", default=""),
    ),
    arguments=(1, 1),
    aliases=("image history", "history"),
)
