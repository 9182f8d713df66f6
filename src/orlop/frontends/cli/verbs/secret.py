"""`orlop secret create inspect ls rm`."""

from __future__ import annotations

import os
import sys

from ....spec.errors import Invalid, OrlopError, Unavailable
from .. import listing
from ..command import Command, Invocation, write, write_line
from ..flags import BOOL, EXIT_USAGE, STRING, Flag
from ..main import explain
from ..values import LABEL
from . import several

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

BYTES_MAX = 1024 * 1024
_HEADERS: dict[str, object] = {"ID": "ID", "Name": "NAME", "CreatedAt": "CREATED", "Labels": "LABELS"}


def _create(invocation: Invocation) -> int:
    import base64

    name, place = (*invocation.arguments, "-")[:2]
    request = {
        "name": name,
        "data": base64.b64encode(_read(place)).decode(),
        "labels": dict(invocation.options["label"]),
    }
    with invocation.connect() as engine:
        found = engine.call("secrets.create", {"request": request})
    write_line(str(found["id"]) if isinstance(found, dict) else "")
    return 0


def _read(place: str) -> bytes:
    try:
        fd = 0 if place == "-" else os.open(place, os.O_RDONLY | os.O_CLOEXEC)
        with open(fd, "rb", buffering=0, closefd=fd != 0) as file:
            data = b""
            while len(data) <= BYTES_MAX and (piece := file.read(65536)):
                data += piece
    except OSError as wrong:
        raise Unavailable("read", place, wrong.strerror or str(wrong)) from None
    if len(data) > BYTES_MAX:
        raise Invalid("read", place, f"it has more than {BYTES_MAX} bytes: that is no secret")
    return data


def _ls(invocation: Invocation) -> int:
    options = invocation.options
    with invocation.connect() as engine:
        found = engine.call("secrets.list")
    items = [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
    if options["quiet"]:
        write("".join(f"{one['ID'][:25]}\n" for one in items))
    elif options["format"] in ("", "table"):
        rows = [(one["ID"][:25], one["Spec"]["Name"], "", one["CreatedAt"], one["UpdatedAt"]) for one in items]
        listing.print_table(("ID", "NAME", "DRIVER", "CREATED", "UPDATED"), rows)
    else:
        listing.print_formatted(options["format"], [_row(one) for one in items], _HEADERS)
    return 0


def _row(one: dict[str, Any]) -> Any:
    from ..template import Row

    labels: dict[str, str] = one["Spec"]["Labels"]
    fields: dict[str, object] = {
        "ID": one["ID"][:25],
        "Name": one["Spec"]["Name"],
        "CreatedAt": one["CreatedAt"],
        "UpdatedAt": one["UpdatedAt"],
        "Driver": "",
        "Labels": ",".join(f"{key}={value}" for key, value in sorted(labels.items())),
        "Label": lambda key: labels.get(key, ""),
    }
    return Row("*formatter.secretContext", fields)


def _inspect(invocation: Invocation) -> int:
    import json

    found, status = [], 0
    with invocation.connect() as engine:
        for name in invocation.arguments:
            try:
                found.append(engine.call("secrets.inspect", {"name": name}))
            except OrlopError as error:
                explain(error)
                status = EXIT_USAGE
    sys.stdout.write(json.dumps(found, indent=4) + "\n")
    return status


def _rm(invocation: Invocation) -> int:
    return several.remove(invocation, "secrets.remove", "name")


CREATE = Command(
    _create,
    "Create a secret from a file or STDIN as content",
    "[OPTIONS] SECRET [file|-]",
    arguments=(1, 2),
    flags=(Flag("label", "l", LABEL, "Secret labels"),),
)
LS = Command(
    _ls,
    "List secrets",
    "[OPTIONS]",
    flags=(
        Flag("format", "", STRING, "Format output using a Go template", default=""),
        Flag("quiet", "q", BOOL, "Only display IDs", default=False),
    ),
)
INSPECT = Command(
    _inspect, "Display detailed information on one or more secrets", "SECRET [SECRET...]", arguments=(1, None)
)
RM = Command(_rm, "Remove one or more secrets", "SECRET [SECRET...]", arguments=(1, None))
