"""What `ps` and `images` have in common: rows as a table, as identifiers, as JSON lines, or through a template."""

from __future__ import annotations

from .command import for_output, write
from .flags import BOOL, STRING, Flag
from .table import render

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .template import Row

FORMAT_FLAG = Flag(
    "format",
    "",
    STRING,
    "Format output using a custom template:\n"
    "'table':            Print output in table format with column headers (default)\n"
    "'table TEMPLATE':   Print output in table format using the given Go template\n"
    "'json':             Print in JSON format\n"
    "'TEMPLATE':         Print output using the given Go template",
    default="",
)

NOHEADING_FLAG = Flag("noheading", "", BOOL, "Leave the titles of a table away", default=False)


def filters_of(pairs: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    """Return what --filter named as the engine's verbs take it; an empty one asks for nothing, as in docker."""
    found: dict[str, list[str]] = {}
    for key, value in pairs:
        if key or value:
            found.setdefault(key, []).append(value)
    return found


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, titled: bool = True) -> None:
    """Print rows as a table, below its titles unless they are not wanted."""
    lines = ([for_output(_one_line(cell)) for cell in row] for row in rows)
    write(render([header, *lines] if titled else list(lines)))


def print_formatted(form: str, rows: Sequence[Row], headers: dict[str, object], *, titled: bool = True) -> None:
    """Print rows through a format. headers: field name -> title, for `table TEMPLATE` when titled. Raises Invalid."""
    from .template import Row, Template

    if form == "json":
        form = "{{json .}}"
    is_table = form.startswith("table ")
    text = form.removeprefix("table").strip().replace("\\t", "\t").replace("\\n", "\n")
    template = Template(text)
    if not is_table:
        write("".join(for_output(template.render(row)) + "\n" for row in rows))
        return
    title = template.render(Row("formatter.SubHeaderContext", headers))
    lines = [for_output(_one_line(template.render(row))) for row in rows]
    write(render([line.split("\t") for line in ([title, *lines] if titled else lines)]))


def ellipsis(text: str, length: int) -> str:
    """Return the text cut to that many characters, the last of them then being an ellipsis."""
    return text if len(text) <= length else text[: length - 1] + "\u2026"


def _one_line(text: str) -> str:
    return text.replace("\n", "\\n") if "\n" in text else text
