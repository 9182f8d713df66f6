"""Attributes of one flag, as Go's encoding/csv reads them: key=value,"key=value with a comma"."""

from __future__ import annotations

import csv
import io

from orlop.spec.errors import Invalid


def rows(text: str) -> list[list[str]]:
    """Return the fields of every row. Raises ValueError for what is no CSV."""
    try:
        return list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except csv.Error as wrong:
        raise ValueError(str(wrong)) from None


def fields(text: str) -> list[str]:
    """Return the fields of one line, empty ones left out. Raises ValueError for what is not one line of CSV."""
    found = rows(text)
    if len(found) > 1:
        raise ValueError("it has more than one line")
    return [field for field in found[0] if field] if found else []


def pairs(text: str, subject: str, hint: str) -> list[tuple[str, str]]:
    """Return (key, value) of each attribute. subject, hint: of the error. Raises Invalid."""
    try:
        listed = [field.partition("=") for field in fields(text)]
    except ValueError as wrong:
        raise Invalid("build", subject, f"it is no list of attributes: {wrong}", hint=hint) from None
    for name, equals, _ in listed:
        if not equals:
            raise Invalid("build", subject, f"{name[:60]} is not key=value", hint=hint)
    return [(name.strip(), value) for name, _, value in listed]
