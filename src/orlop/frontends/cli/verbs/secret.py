"""`orlop secret create inspect ls rekey rm`, and `orlop config` with the same words: files for containers."""

from __future__ import annotations

import os

from ....spec.errors import Invalid, Unavailable
from .. import listing
from ..command import Command, Invocation, write, write_line
from ..flags import BOOL, EXIT_USAGE, STRING, Flag, UsageError
from ..values import FILTER, LABEL
from . import several
from .inspect import FORMAT_FLAG, print_each

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ...native.client import Engine

BYTES_MAX = 1024 * 1024
_HEADERS: dict[str, object] = {"ID": "ID", "Name": "NAME", "CreatedAt": "CREATED", "Labels": "LABELS"}


class _Kind:
    """The commands of secrets, or of configs. name: of one, in words; verbs: the engine's begin so."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.verbs = f"{name}s"

    def remove(self, invocation: Invocation) -> int:
        return several.remove(invocation, f"{self.verbs}.remove", "name")

    def create(self, invocation: Invocation) -> int:
        return _create(invocation, self)

    def list(self, invocation: Invocation) -> int:
        return _ls(invocation, self)

    def inspect(self, invocation: Invocation) -> int:
        return _inspect(invocation, self)


def _create(invocation: Invocation, kind: _Kind) -> int:
    import base64

    name, place = (*invocation.arguments, "-")[:2]
    request = {
        "name": name,
        "data": base64.b64encode(_read(place, kind.name)).decode(),
        "labels": dict(invocation.options["label"]),
        "updates": invocation.options["replace"],
    }
    with invocation.connect() as engine:
        found = engine.call(f"{kind.verbs}.create", {"request": request})
    write_line(str(found["id"]) if isinstance(found, dict) else "")
    return 0


def _read(place: str, kind: str) -> bytes:
    try:
        fd = 0 if place == "-" else os.open(place, os.O_RDONLY | os.O_CLOEXEC)
        with open(fd, "rb", buffering=0, closefd=fd != 0) as file:
            data = b""
            while len(data) <= BYTES_MAX and (piece := file.read(65536)):
                data += piece
    except OSError as wrong:
        raise Unavailable("read", place, wrong.strerror or str(wrong)) from None
    if len(data) > BYTES_MAX:
        raise Invalid("read", place, f"it has more than {BYTES_MAX} bytes: that is no {kind}", code="E0212")
    return data


def _ls(invocation: Invocation, kind: _Kind) -> int:
    options = invocation.options
    with invocation.connect() as engine:
        found = engine.call(f"{kind.verbs}.list", {"filters": listing.filters_of(options["filter"])})
    items = [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
    if options["quiet"]:
        write("".join(f"{one['ID'][:25]}\n" for one in items))
    elif options["format"] in ("", "table"):
        driver = [("DRIVER", "")] if kind is SECRETS else []
        titles = ("ID", "NAME", *(title for title, _ in driver), "CREATED", "UPDATED")
        rows = [
            (one["ID"][:25], one["Spec"]["Name"], *(cell for _, cell in driver), one["CreatedAt"], one["UpdatedAt"])
            for one in items
        ]
        listing.print_table(titles, rows)
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


def _rekey(invocation: Invocation) -> int:
    earlier = invocation.options["from"]
    with invocation.connect() as engine:
        found = engine.call("secrets.rekey", {"earlier": os.path.abspath(earlier) if earlier else ""})
    write_line(f"sealed anew: {found['sealed'] if isinstance(found, dict) else 0}")
    return 0


def _inspect(invocation: Invocation, kind: _Kind) -> int:
    options = invocation.options
    form: str = options["format"]
    if form and options["pretty"]:
        raise UsageError("--format is incompatible with human friendly format", "leave --pretty away", EXIT_USAGE)
    form = (_PRETTY + (_PRETTY_DATA if kind is CONFIGS else "")) if options["pretty"] else form
    return print_each(invocation, form, lambda engine, name: _found(engine, kind, name, flat=options["pretty"]))


def _found(engine: Engine, kind: _Kind, name: str, *, flat: bool) -> object:
    """Return docker's object of one; flat: with what --pretty shows at its top."""
    import base64

    found = engine.call(f"{kind.verbs}.inspect", {"name": name})
    if not flat or not isinstance(found, dict):
        return found
    spec = found["Spec"]
    data = base64.b64decode(spec.get("Data", "")).decode("utf-8", "replace")
    return {**found, "Name": spec["Name"], "Labels": spec["Labels"], "Data": data}


# Source: docker/cli, cli/command/secret/formatter.go.
_PRETTY = """ID:\t\t\t{{.ID}}
Name:\t\t\t{{.Name}}
{{- if .Labels }}
Labels:
{{- range $k, $v := .Labels }}
 - {{ $k }}{{if $v }}={{ $v }}{{ end }}
{{- end }}{{ end }}
Created at:            \t{{.CreatedAt}}
Updated at:            \t{{.UpdatedAt}}"""
_PRETTY_DATA = """
Data:
{{.Data}}"""

SECRETS, CONFIGS = _Kind("secret"), _Kind("config")

_REPLACE = Flag("replace", "", BOOL, "Make a new version of one that is there", default=False)
CREATE = Command(
    SECRETS.create,
    "Create a secret from a file or STDIN as content",
    "[OPTIONS] SECRET [file|-]",
    arguments=(1, 2),
    flags=(Flag("label", "l", LABEL, "Secret labels"), _REPLACE),
)
_LS_FLAGS = (
    Flag("filter", "f", FILTER, "Filter output based on conditions provided"),
    Flag("format", "", STRING, "Format output using a Go template", default=""),
    Flag("quiet", "q", BOOL, "Only display IDs", default=False),
)
LS = Command(SECRETS.list, "List secrets", "[OPTIONS]", flags=_LS_FLAGS)
_INSPECT_FLAGS = (
    FORMAT_FLAG,
    Flag("pretty", "", BOOL, "Print the information in a human friendly format", default=False),
)
INSPECT = Command(
    SECRETS.inspect,
    "Display detailed information on one or more secrets",
    "[OPTIONS] SECRET [SECRET...]",
    flags=_INSPECT_FLAGS,
    arguments=(1, None),
)
REKEY = Command(
    _rekey,
    "Renew the key that secrets are sealed with",
    "[OPTIONS]",
    flags=(
        Flag("from", "", STRING, "The key before this one, where not Orlop makes it but you provide it", default=""),
    ),
)
RM = Command(SECRETS.remove, "Remove one or more secrets", "SECRET [SECRET...]", arguments=(1, None))
CREATE_CONFIG = Command(
    CONFIGS.create,
    "Create a config from a file or STDIN",
    "[OPTIONS] CONFIG [file|-]",
    arguments=(1, 2),
    flags=(Flag("label", "l", LABEL, "Config labels"), _REPLACE),
)
LS_CONFIGS = Command(CONFIGS.list, "List configs", "[OPTIONS]", flags=_LS_FLAGS)
INSPECT_CONFIG = Command(
    CONFIGS.inspect,
    "Display detailed information on one or more configs",
    "[OPTIONS] CONFIG [CONFIG...]",
    flags=_INSPECT_FLAGS,
    arguments=(1, None),
)
RM_CONFIG = Command(CONFIGS.remove, "Remove one or more configs", "CONFIG [CONFIG...]", arguments=(1, None))
