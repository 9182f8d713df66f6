"""`orlop builder cache`: cache mounts, listed, kept, and carried to other engines."""

from __future__ import annotations

import os

from ....build.cache import places
from ..command import Command, Invocation, for_output, warn, write_line
from ..flags import BOOL, Flag, UsageError
from ..units import size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ....build.cache.places import CachePlace

_VERBS = "ls, export, import, pin or unpin"


def mount_place(text: str, flag: str, *, writes: bool) -> CachePlace:
    """Return where cache mounts lie: a folder (a path), a registry's reference, or attributes as those of --cache-to.

    Raises Invalid, Unsupported, UsageError.
    """
    if text.startswith(("/", "./", "../")) or text in (".", ".."):
        fields = {"type": places.LOCAL, "dest" if writes else "src": text}
    else:
        fields = places.fields_of(text)
    found = places.destination(fields) if writes else places.source(fields)
    if found.type == places.INLINE:
        raise UsageError(
            f"{flag} type=inline: an image holds no cache mounts", "give a folder or a registry's reference"
        )
    if found.form.compression or found.mode != places.MIN:
        raise UsageError(f"{flag} {text}: cache mounts have neither mode nor compression", "leave them away")
    return found.replace(path=os.path.abspath(found.path)) if found.path else found


def cache(invocation: Invocation, words: list[str], *, replaces: bool = False) -> int:
    """Carry out what the words after `cache` say."""
    verb, given = words[0], words[1:]
    if verb == "ls" and not given:
        return _list(invocation)
    if verb in ("pin", "unpin") and given:
        return _pin(invocation, given, pinned=verb == "pin")
    if verb in ("export", "import") and given:
        return _carry(invocation, verb, given, replaces)
    raise UsageError(f"'cache {verb}' is not understood", f"say {_VERBS}; all but ls need an argument")


def _list(invocation: Invocation) -> int:
    with invocation.connect() as engine:
        found = engine.call("build.usage", {})
    entries: list[dict[str, Any]] = found if isinstance(found, list) else []
    write_line(f"{'VOLUME':<50}{'SIZE':<10}{'LAST USED':<22}MOUNT")
    for one in entries:
        if one["Type"] == "exec.cachemount":
            shown = one["Description"].removeprefix("cached mount ")
            write_line(for_output(f"{one['ID']:<50}{size(one['Size']):<10}{one['LastUsedAt']:<22}{shown}"))
    return 0


def _pin(invocation: Invocation, mounts: list[str], *, pinned: bool) -> int:
    with invocation.connect() as engine:
        for name in mounts:
            found = engine.call("build.pin", {"mount": name, "pinned": pinned})
            write_line(str(found["volume"]) if isinstance(found, dict) else name)
    return 0


def _carry(invocation: Invocation, verb: str, words: list[str], replaces: bool) -> int:
    from ....engine.credentials import for_registry
    from ....spec.reference import Reference

    place = mount_place(words[0], f"cache {verb}", writes=verb == "export")
    args: dict[str, object] = {"place": place.to_json(), "mounts": words[1:], "replaces": replaces}
    if place.reference:
        reference = Reference.parse(place.reference)
        credentials = for_registry(reference.domain, reference.path)
        args["credentials"] = {} if credentials.is_empty else {reference.name: credentials.to_json()}
    with invocation.connect() as engine:
        found = engine.call("build.write_mounts" if verb == "export" else "build.read_mounts", args)
    told: list[dict[str, Any]] = found if isinstance(found, list) else []
    for one in told:
        write_line(for_output(f"{one['state']:<10}{size(one['bytes']):<10}{one['pieces']:>6} pieces  {one['id']}"))
    if any(one["state"] == "kept" for one in told):
        warn("orlop: what is here already was kept; orlop builder cache import --replace takes the other")
    return 0


def _run(invocation: Invocation) -> int:
    return cache(invocation, invocation.arguments, replaces=invocation.options["replace"])


CACHE = Command(
    _run,
    "Manage cache mounts: builder cache ls | export PLACE [MOUNT...] | import PLACE [MOUNT...] | pin|unpin MOUNT...",
    "[OPTIONS] VERB [PLACE] [MOUNT...]",
    flags=(Flag("replace", "", BOOL, "Let imported mounts take the place of those that are here", default=False),),
    arguments=(1, None),
    aliases=("builder cache", "build cache"),
)
