"""`orlop manifest`: create, annotate, inspect, push, rm."""

from __future__ import annotations

from ....spec.reference import Reference
from ..command import Command, Invocation, for_output, write, write_line
from ..flags import BOOL, STRING, STRINGS, Flag, split_values

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...native.client import Engine

_PLATFORM = {"os": "os", "arch": "architecture", "variant": "variant", "os-version": "os_version"}
_INSECURE = Flag("insecure", "", BOOL, "Allow communication with an insecure registry", default=False)


def account(engine: Engine, name: str) -> dict[str, object]:
    """Return what the user has for the registry of a list."""
    from .. import credentials

    reference = Reference.parse(name)
    return credentials.for_places(engine, reference.domain, reference.path).to_json()


def _create(invocation: Invocation) -> int:
    name, *images = invocation.arguments
    args: dict[str, object] = {"name": name, "images": images, "amend": invocation.options["amend"]}
    with invocation.connect() as engine:
        args["credentials"] = account(engine, name)
        result = engine.call("manifests.create", args)
    told = result.get("name", "") if isinstance(result, dict) else ""
    write_line(for_output(f"Created manifest list {told}"))
    return 0


def _annotate(invocation: Invocation) -> int:
    name, image = invocation.arguments
    options = invocation.options
    changes = {field: options[flag] for flag, field in _PLATFORM.items() if flag in options.given}
    with invocation.connect() as engine:
        features = {"features": split_values(options["os-features"])} if options["os-features"] else {}
        engine.call("manifests.annotate", {"name": name, "image": image, "changes": changes, **features})
    return 0


def _inspect(invocation: Invocation) -> int:
    from ..verbs.inspect import pretty

    name = invocation.arguments[-1]
    verbose = {"verbose": True} if invocation.options["verbose"] else {}
    with invocation.connect() as engine:
        found = engine.call("manifests.inspect", {"name": name, "credentials": account(engine, name), **verbose})
    step = "   " if isinstance(found, dict) and "manifests" in found else "\t"  # as docker has it
    write(for_output(pretty(found, step=step) + "\n"))
    return 0


def _push(invocation: Invocation) -> int:
    name = invocation.arguments[0]
    with invocation.connect() as engine:
        args = {"name": name, "purge": invocation.options["purge"], "credentials": account(engine, name)}
        result = engine.call("manifests.push", args)
    told = result if isinstance(result, dict) else {}
    for digest in told.get("members", []):
        write_line(for_output(f"Pushed ref {Reference.parse(name).name}@{digest} with digest: {digest}"))
    write_line(str(told.get("digest", "")))
    return 0


def _remove(invocation: Invocation) -> int:
    with invocation.connect() as engine:
        engine.call("manifests.remove", {"names": list(invocation.arguments)})
    return 0


CREATE = Command(
    _create,
    "Create a local manifest list for annotating and pushing to a registry",
    "MANIFEST_LIST MANIFEST [MANIFEST...]",
    flags=(Flag("amend", "a", BOOL, "Amend an existing manifest list", default=False), _INSECURE),
    arguments=(2, None),
    aliases=("manifest create",),
)
ANNOTATE = Command(
    _annotate,
    "Add additional information to a local image manifest",
    "[OPTIONS] MANIFEST_LIST MANIFEST",
    flags=(
        Flag("arch", "", STRING, "Set architecture", default=""),
        Flag("os", "", STRING, "Set operating system", default=""),
        Flag("os-features", "", STRINGS, "Set operating system feature"),
        Flag("os-version", "", STRING, "Set operating system version", default=""),
        Flag("variant", "", STRING, "Set architecture variant", default=""),
    ),
    arguments=(2, 2),
    aliases=("manifest annotate",),
)
INSPECT = Command(
    _inspect,
    "Display an image manifest, or manifest list",
    "[OPTIONS] [MANIFEST_LIST] MANIFEST",
    flags=(
        _INSECURE,
        Flag("verbose", "v", BOOL, "Output additional info including layers and platform", default=False),
    ),
    arguments=(1, 2),
    aliases=("manifest inspect",),
)
PUSH = Command(
    _push,
    "Push a manifest list to a repository",
    "[OPTIONS] MANIFEST_LIST",
    flags=(_INSECURE, Flag("purge", "p", BOOL, "Remove the local manifest list after push", default=False)),
    arguments=(1, 1),
    aliases=("manifest push",),
)
RM = Command(
    _remove,
    "Delete one or more manifest lists from local storage",
    "MANIFEST_LIST [MANIFEST_LIST...]",
    arguments=(1, None),
    aliases=("manifest rm",),
)
