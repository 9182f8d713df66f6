"""Wildcards of COPY and ADD: Go's filepath.Match for each part of a path, and `**` for any number of directories.

Source: Go, path/filepath/match.go; BuildKit's dockerfile reference, "COPY --parents".
"""

from __future__ import annotations

import os
import re
import stat

from orlop.linux.path import open_in_root
from orlop.spec.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .tree import Tree

_WILD = re.compile(r"[*?\[\\]")
DEPTH_MAX = 256
MATCHES_MAX = 1_000_000


def is_wild(path: str) -> bool:
    """Tell whether a path has anything in it that is not meant as it stands."""
    return _WILD.search(path) is not None


def find(root: int, pattern: str, tree: Tree) -> list[str]:
    """Return the paths of a tree, whose root is open, that a pattern means, sorted; () where nothing does.

    Links on the way are followed inside the tree. Raises Invalid for a malformed pattern.
    """
    found: list[str] = []
    _descend(root, tree, "", [part for part in pattern.split("/") if part], found)
    return sorted(set(found), key=lambda path: path.split("/"))


def part_matches(name: str, pattern: str) -> bool:
    """Tell whether one part of a path fits a pattern's part. Raises Invalid."""
    return _compiled(pattern).fullmatch(name) is not None


def _descend(root: int, tree: Tree, place: str, parts: list[str], found: list[str]) -> None:
    if len(found) > MATCHES_MAX or place.count("/") > DEPTH_MAX:
        raise Invalid("match", "a pattern", "it fits too many files", hint="name the directory instead")
    if not parts:
        found.append(place)
        return
    part, rest = parts[0], parts[1:]
    if part == "**":
        _descend(root, tree, place, rest, found) if rest else found.append(place)
        for name, is_directory in _names(root, tree, place):
            below = f"{place}/{name}" if place else name
            if is_directory:
                _descend(root, tree, below, parts, found)
            elif not rest:
                found.append(below)
        return
    if not is_wild(part):
        below = f"{place}/{part}" if place else part
        if _exists(root, tree, below, whole=not rest):
            _descend(root, tree, below, rest, found)
        return
    for name, _ in _names(root, tree, place):
        if part_matches(name, part):
            below = f"{place}/{name}" if place else name
            if not rest or _exists(root, tree, below, whole=False):
                _descend(root, tree, below, rest, found)


def _names(root: int, tree: Tree, place: str) -> list[tuple[str, bool]]:
    """Return the names in a directory that are part of the tree, and which are directories."""
    try:
        fd = open_in_root(root, place, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return []
    try:
        with os.scandir(fd) as entries:
            found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    finally:
        os.close(fd)
    return [(name, is_dir) for name, is_dir in sorted(found) if not _hidden(tree, place, name, is_dir)]


def _hidden(tree: Tree, place: str, name: str, is_directory: bool) -> bool:
    if tree.excluded is None or is_directory:
        return False  # what a "!" line takes back in may lie below
    return tree.excluded.excludes(f"{place}/{name}" if place else name)


def _exists(root: int, tree: Tree, path: str, *, whole: bool) -> bool:
    try:
        fd = open_in_root(root, path, os.O_PATH)
    except OSError:
        return False
    try:
        is_directory = stat.S_ISDIR(os.fstat(fd).st_mode)
    finally:
        os.close(fd)
    return is_directory or (whole and (tree.excluded is None or not tree.excluded.excludes(path)))


def _compiled(pattern: str) -> re.Pattern[str]:
    out = []
    at = 0
    while at < len(pattern):
        character = pattern[at]
        at += 1
        if character == "*":
            out.append("[^/]*")
        elif character == "?":
            out.append("[^/]")
        elif character == "\\":
            if at == len(pattern):
                raise _malformed(pattern)
            out.append(re.escape(pattern[at]))
            at += 1
        elif character == "[":
            text, at = _class(pattern, at)
            out.append(text)
        else:
            out.append(re.escape(character))
    return re.compile("".join(out), re.DOTALL)


def _class(pattern: str, at: int) -> tuple[str, int]:
    """Return a character class as a regular expression, and where the pattern goes on."""
    negated = pattern[at : at + 1] == "^"
    at += negated
    ranges: list[str] = []
    while True:
        if pattern[at : at + 1] == "]" and ranges:
            return f"[{'^' if negated else ''}{''.join(ranges)}]", at + 1
        low, at = _member(pattern, at)
        high = low
        if pattern[at : at + 1] == "-":
            high, at = _member(pattern, at + 1)
        if low > high:
            raise _malformed(pattern)
        ranges.append(f"{re.escape(low)}-{re.escape(high)}")


def _member(pattern: str, at: int) -> tuple[str, int]:
    if pattern[at : at + 1] in ("", "-", "]"):
        raise _malformed(pattern)
    if pattern[at] == "\\":
        at += 1
        if at == len(pattern):
            raise _malformed(pattern)
    return pattern[at], at + 1


def _malformed(pattern: str) -> Invalid:
    return Invalid("match", repr(pattern[:100]), "syntax error in pattern", hint="close its brackets, or escape them")
