"""Tables as docker prints them: columns at least ten wide, three blanks between, nothing after the last."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTH_MIN = 10
PADDING = 3


def render(rows: Sequence[Sequence[str]], width_min: int = WIDTH_MIN) -> str:
    """Return the rows (the first is the header) as lines. Rows may differ in length."""
    columns = max(map(len, rows), default=0)
    widths = [max(width_min, PADDING + max(len(row[at]) for row in rows if at < len(row))) for at in range(columns)]
    return "".join(
        "".join(cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False)) + row[-1] + "\n"
        for row in rows
        if row
    )
