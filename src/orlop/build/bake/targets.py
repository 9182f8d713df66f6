"""What a bake is to build: groups opened, inheritance and matrices resolved, --set applied.

A target is a dict with docker's names of its attributes, as `bake --print` shows it; absent is "not said".
"""

from __future__ import annotations

import fnmatch
import itertools
import posixpath
import re

from orlop.spec.errors import Invalid, NotFound

from ..dockerfile.source import suggestion
from .document import Definition, Document
from .evaluate import to_bool, to_text
from .functions import JSON_ESCAPES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    Target = dict[str, Any]

MATRIX_MAX = 1000
INHERITANCE_DEPTH_MAX = 50
DEFAULT = "default"
_NAME = re.compile(r"[a-zA-Z0-9_-]+")
_TEXTS = ("context", "dockerfile", "dockerfile-inline", "target", "network", "shm-size", "call", "description")
_SWITCHES = ("pull", "no-cache")
_MAPS = ("args", "contexts", "labels", "extra-hosts")
_LISTS = ("tags", "platforms", "cache-to", "output", "no-cache-filter")  # a later one replaces an earlier one
_COLLECTED = ("cache-from", "secret", "ssh", "attest", "annotations", "entitlements", "ulimits")
_NOT_BUILT = ("inherits", "matrix", "name", "policy")
_OVERRIDES = {"platform": "platforms", "secrets": "secret", "outputs": "output"}
LINK = "target:"
CURRENT = "cwd://"  # the directory of the command, where a definition came from elsewhere
PUSHED, LOADED = "type=image,push=true", "type=docker"  # what --push and --load add
_SHIPPED = ("image", "registry")  # outputs that are pushed or not
_OF_IMAGES = (*_SHIPPED, "docker", "oci")
_SHOWN = (
    *("annotations", "attest", "context", "contexts", "dockerfile", "dockerfile-inline", "args", "labels", "tags"),
    *("cache-from", "cache-to", "target", "secret", "ssh", "platforms", "output", "pull", "no-cache", "network"),
    *("no-cache-filter", "shm-size", "ulimits", "call", "entitlements", "extra-hosts", "description"),
)


class Plan:
    """What is to be built. targets: by name, one that another takes as a context before it. groups: name -> names."""

    def __init__(self, groups: dict[str, list[str]], targets: dict[str, Target]) -> None:
        self.groups = groups
        self.targets = targets

    def to_text(self) -> str:
        """Return what `bake --print` shows: Go's JSON, which may stand in HTML and leaves other letters as they are."""
        import json

        return json.dumps(self.to_json(), indent=2, ensure_ascii=False).translate(JSON_ESCAPES) + "\n"

    def to_json(self) -> dict[str, object]:
        """Return it as values."""
        groups = {name: {"targets": members} for name, members in sorted(self.groups.items())}
        shown = {"group": groups} if groups else {}
        return {**shown, "target": {name: _ordered(self.targets[name]) for name in sorted(self.targets)}}


def _ordered(target: Target) -> Target:
    """Return a target in the order in which docker prints it; maps by name."""
    shown = {name: target[name] for name in _SHOWN if target.get(name) not in (None, [], {})}
    return {name: dict(sorted(value.items())) if isinstance(value, dict) else value for name, value in shown.items()}


def plan(document: Document, names: Sequence[str] = (), overrides: Sequence[str] = ()) -> Plan:
    """Return what building these targets and groups means. overrides: of --set. Raises Invalid, NotFound."""
    return _Planner(document, overrides).plan(names or (DEFAULT,))


def listed(document: Document) -> list[tuple[str, str]]:
    """Return names and descriptions of all targets and groups, as `bake --list=targets` shows them."""
    planner = _Planner(document, ())
    found = []
    for name in sorted({*document.groups, *planner.definitions, *planner.matrices}):
        if name in planner.definitions:
            text = planner.resolved(name).get("description", "")
        elif name in document.groups:
            text = document.value(document.groups[name], "description") or ""
            text = text or ", ".join(planner.members(name))
        else:
            text = ", ".join(planner.matrices[name])
        found.append((name, str(text)))
    return found


class _Planner:
    """definitions: target -> its blocks, each with the matrix's values. matrices: a target's name -> what it became."""

    def __init__(self, document: Document, overrides: Sequence[str]) -> None:
        self._document = document
        self.definitions: dict[str, list[tuple[Definition, dict[str, Any]]]] = {}
        self.matrices: dict[str, list[str]] = {}
        for name, blocks in document.targets.items():
            self._expand(name, blocks)
        environment = document.environment
        self._overrides = [one for text in overrides if (one := _override(text, environment)) is not None]
        for pattern, *_ in self._overrides:
            if pattern != "*" and not fnmatch.filter(self.definitions, pattern):
                near = suggestion(pattern, set(self.definitions))
                cause = f"could not find any target matching '{pattern}'{near}"
                raise NotFound("bake", f"--set {pattern}", cause, hint="see: orlop bake --list=targets")
        self._resolved: dict[str, Target] = {}

    def plan(self, names: Sequence[str]) -> Plan:
        groups: dict[str, list[str]] = {}
        wanted: list[str] = []
        for name in dict.fromkeys(names):
            wanted += self._opened(name, groups, 0)
        others = [name for name in names if name != DEFAULT]
        if others:
            groups[DEFAULT] = list(dict.fromkeys([*groups.get(DEFAULT, []), *others]))
        targets: dict[str, Target] = {}
        for name in dict.fromkeys(wanted):
            self._add(name, targets, ())
        return Plan(groups, targets)

    def members(self, group: str) -> list[str]:
        value = self._document.value(self._document.groups[group], "targets")
        return _texts(value or [], self._document.groups[group], "targets")

    def resolved(self, name: str) -> Target:
        """Return a target with what it inherits and --set. Raises Invalid, NotFound."""
        if name not in self._resolved:
            target = self._inherited(name, ())
            given: set[str] = set()  # the first --set of a list replaces it, the next ones add to it
            for pattern, keys, value, append in self._overrides:
                if fnmatch.fnmatchcase(name, pattern):
                    _apply(target, keys, value, append=append or keys[0] in given)
                    given.add(keys[0])
            target["context"] = target.get("context") or "."
            target.setdefault("dockerfile", "Dockerfile")
            if target["context"].startswith(CURRENT):
                target["context"] = posixpath.normpath(target["context"].removeprefix(CURRENT))
            for key in (*_LISTS, *_COLLECTED):  # what is empty is how a file leaves an entry away: V ? "x:${V}" : ""
                if key in target:
                    target[key] = [text for text in dict.fromkeys(target[key]) if text]
            if "contexts" in target:
                target["contexts"] = {key: value for key, value in target["contexts"].items() if value}
            if "attest" in target:  # the last one of each type
                target["attest"] = list({_type_of(text): text for text in target["attest"]}.values())
            self._resolved[name] = target
        return self._resolved[name]

    def _opened(self, name: str, groups: dict[str, list[str]], depth: int) -> list[str]:
        """Return the targets that a name stands for."""
        if depth > INHERITANCE_DEPTH_MAX:
            raise Invalid("bake", f"group {name}", "groups are nested too deeply")
        if name in self.definitions and name not in self._document.groups:
            return [name]
        if name in self.matrices:
            members = self.matrices[name]
        elif name in self._document.groups:
            members = self.members(name)
        else:
            known = {*self._document.groups, *self.definitions, *self.matrices}
            raise NotFound(
                "bake",
                name,
                f"failed to find target {name}{suggestion(name, known)}",
                hint="see: orlop bake --list=targets",
                code="E1413",
            )
        if name in groups:
            return []
        groups[name] = members
        found: list[str] = []
        for member in members:
            found += [name] if member == name else self._opened(member, groups, depth + 1)
        return found

    def _add(self, name: str, targets: dict[str, Target], below: tuple[str, ...]) -> None:
        """Add a target after those whose results are its contexts."""
        if name in targets:
            return
        if name in below:
            raise Invalid("bake", f"target {name}", f"it takes itself as a context: {' -> '.join([*below, name])}")
        if len(below) > INHERITANCE_DEPTH_MAX:
            raise Invalid("bake", f"target {name}", "targets take each other as contexts too deeply")
        target = self.resolved(name)
        for value in target.get("contexts", {}).values():
            if value.startswith(LINK):
                self._add(value.removeprefix(LINK), targets, (*below, name))
        targets[name] = target

    # -- one target -----------------------------------------------------------------------------------------------

    def _expand(self, name: str, blocks: list[Definition]) -> None:
        """Make one target of each combination of a matrix, and a group that has their name."""
        matrix: dict[str, list[Any]] = {}
        for block in blocks:
            matrix |= _matrix(self._document, block)
        if not matrix:
            _check_name(name, blocks[-1])
            self.definitions[name] = [(block, {}) for block in blocks]
            return
        named = [block for block in blocks if "name" in block.attributes]
        if not named:
            blocks[-1].wrong("name must be specified when the target has a matrix", 'name = "app-${sanitize(version)}"')
        names = list(matrix)
        combinations = list(itertools.islice(itertools.product(*(matrix[key] for key in names)), MATRIX_MAX + 1))
        if len(combinations) > MATRIX_MAX:
            blocks[-1].wrong(f"the matrix has more than {MATRIX_MAX} combinations")
        self.matrices[name] = []
        for combination in combinations:
            local = dict(zip(names, combination, strict=True))
            own = str(self._document.value(named[-1], "name", local))
            _check_name(own, named[-1])
            if own in self.definitions:
                named[-1].wrong(f"two targets of the matrix are called {own}")
            self.definitions[own] = [(block, local) for block in blocks]
            self.matrices[name].append(own)

    def _inherited(self, name: str, below: tuple[str, ...]) -> Target:
        if name not in self.definitions:
            near = suggestion(name, set(self.definitions))
            raise NotFound(
                "bake", name, f"failed to find target {name}{near}", hint="see: orlop bake --list=targets", code="E1413"
            )
        if name in below:
            raise Invalid("bake", f"target {name}", f"infinite loop from {' -> '.join([*below, name])}")
        if len(below) > INHERITANCE_DEPTH_MAX:
            raise Invalid("bake", f"target {name}", "targets inherit too deeply")
        own: Target = {}
        parents: list[str] = []
        for block, local in self.definitions[name]:
            parents += _texts(self._document.value(block, "inherits", local) or [], block, "inherits")
            _merge(own, self._attributes(block, local))
        target: Target = {}
        for parent in parents:
            _merge(target, self._inherited(parent, (*below, name)))
        _merge(target, own)
        return target

    def _attributes(self, block: Definition, local: Mapping[str, Any]) -> Target:
        """Return what one block says, with each attribute in its form."""
        target: Target = {}
        if block.blocks:
            block.wrong(f"unexpected block {block.blocks[0].type!r}")
        for name in block.attributes:
            if name in _NOT_BUILT:
                continue
            value = self._document.value(block, name, local)
            if value is None:
                continue
            try:
                target[name] = _form(name, value)
            except ValueError as wrong:
                block.wrong(f"{name}: {wrong}")
        return target


def _form(name: str, value: Any) -> Any:
    if name in _TEXTS:
        return to_text(value)
    if name in _SWITCHES:
        return to_bool(value)
    if name in _MAPS:
        if not isinstance(value, dict):
            raise ValueError("an object is required")
        return {key: to_text(item) for key, item in value.items() if item is not None}
    if name in _LISTS or name in _COLLECTED:
        if not isinstance(value, list):
            raise ValueError("a list is required")
        return [_comma_separated(item) for item in value if item is not None]
    known = (*_TEXTS, *_SWITCHES, *_MAPS, *_LISTS, *_COLLECTED, *_NOT_BUILT)
    raise ValueError(f"there is no such attribute{suggestion(name, known)}")


def _comma_separated(item: Any) -> str:
    """Return an item of a list as --output and its like have it: an object becomes type=local,dest=path."""
    if not isinstance(item, dict):
        return to_text(item)
    fields = [f"{key}={to_text(value)}" for key, value in item.items() if value is not None]
    return ",".join(f'"{field}"' if "," in field else field for field in fields)


def _texts(value: Any, block: Definition, name: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        block.wrong(f"{name} is no list of strings")
    return list(value)


def _type_of(attestation: str) -> str:
    fields = attestation.split(",")
    return next((field for field in fields if field.startswith("type=")), attestation)


def _matrix(document: Document, block: Definition) -> dict[str, list[Any]]:
    value = document.value(block, "matrix")
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(items, list) for items in value.values()):
        block.wrong("matrix is no object of lists", 'matrix = { version = ["1", "2"] }')
    return dict(value)


def _check_name(name: str, block: Definition) -> None:
    if not _NAME.fullmatch(name):
        block.wrong(f'invalid name "{name}": only letters, digits, "_" and "-" are allowed', "use sanitize()")


def _merge(target: Target, other: Target) -> None:
    """Lay one target over another."""
    for name, value in other.items():
        if name in _MAPS:
            target[name] = {**target.get(name, {}), **value}
        elif name in _COLLECTED:
            target[name] = list(dict.fromkeys([*target.get(name, []), *value]))
        else:
            target[name] = value


# -- --set ----------------------------------------------------------------------------------------------------------


def _override(text: str, environment: Mapping[str, str]) -> tuple[str, list[str], str, bool] | None:
    """Return pattern, keys, value of `TARGET.KEY[.SUBKEY]=VALUE`, and whether it is added (`+=`). Raises Invalid.

    An argument without a value is the environment's; None where there is none of that name.
    """
    name, equals, value = text.partition("=")
    append = name.endswith("+")
    pattern, *keys = name.removesuffix("+").split(".", 2)
    if not equals and len(keys) == 2 and keys[0] == "args" and all((pattern, *keys)):
        return (pattern, keys, environment[keys[1]], append) if keys[1] in environment else None
    if not equals or not keys or not all((pattern, *keys)):
        raise Invalid(
            "bake", f"--set {text}", "invalid override, expected target.name=value", hint="--set app.args.X=1"
        )
    keys[0] = _OVERRIDES.get(keys[0], keys[0])
    if (keys[0] in _MAPS) != (len(keys) == 2):
        raise Invalid("bake", f"--set {text}", f"invalid key {'.'.join(keys)}", hint="maps need a key: app.args.X=1")
    if keys[0] in _SHORTHANDS and value not in ("true", "false"):
        raise Invalid("bake", f"--set {text}", f"invalid value {value} for boolean key {keys[0]}", hint="true or false")
    return pattern, keys, value, append


def _pushed(outputs: list[str], *, wanted: bool) -> list[str]:
    """Return outputs as --push has them: those of images with it, one more where none of them can be pushed. Where
    something else than an image is wanted, that is what is wanted.
    """
    kinds = [_kind(one) for one in outputs]
    said = f",push={str(wanted).lower()}"
    made = [
        one + said if kind in _SHIPPED and not one.endswith(said) else one
        for one, kind in zip(outputs, kinds, strict=True)
    ]
    is_lacking = not any(kind in _SHIPPED or kind not in _OF_IMAGES for kind in kinds)
    return [*made, PUSHED] if wanted and is_lacking else made


def _loaded(outputs: list[str], *, wanted: bool) -> list[str]:
    """The same of --load."""
    is_there = any(_kind(one) == "docker" and "dest=" not in one for one in outputs)
    has_others = any(_kind(one) not in _OF_IMAGES for one in outputs)
    return [*outputs, LOADED] if wanted and not is_there and not has_others else outputs


def _kind(output: str) -> str:
    """Return the type of an output; a word alone is a folder, or standard output."""
    fields = dict(field.partition("=")[::2] for field in output.split(","))
    return fields.get("type", "local")


_SHORTHANDS = {"push": _pushed, "load": _loaded}


def _apply(target: Target, keys: list[str], value: str, *, append: bool) -> None:
    name = keys[0]
    if name in _SHORTHANDS:
        target["output"] = _SHORTHANDS[name](target.get("output", []), wanted=value == "true")
    elif name in _MAPS:
        target[name] = {**target.get(name, {}), keys[1]: value}
    elif name in _LISTS or name in _COLLECTED:
        before = target.get(name, []) if append or name == "attest" else []
        target[name] = [*before, *(value.split(",") if name in ("tags", "platforms") else [value])]
    else:
        try:
            target[name] = _form(name, value)
        except ValueError as wrong:
            raise Invalid("bake", f"--set {'.'.join(keys)}", str(wrong)) from None
