"""File trees that steps read: of images and stages, of folders, of what was fetched.

Invariants:
1. A tree is walked by descriptors: a name in an open directory, without following; a path is resolved by the kernel
   with the tree as its root (SEC-60, SEC-63, SEC-64).
2. A listing has the same order and the same digest wherever the tree lies: no times, no inodes, no readdir order.
"""

from __future__ import annotations

import hashlib
import os
import stat
from contextlib import contextmanager

from orlop.engine.steps.workspace import unpacked
from orlop.linux import mount
from orlop.linux.path import open_in_root
from orlop.snapshot.extract import DEPTH_MAX
from orlop.snapshot.pack import xattrs_of
from orlop.spec.errors import Invalid, NotFound

from .digests import Digests

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from orlop.engine.engine import Engine
    from orlop.image.image import Layer

    from ..ignore import Matcher


DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
ENTRIES_MAX = 20_000_000


class Tree:
    """Where files come from.

    layers: of an image or a stage. directory: a folder of the host's, when it is not made of layers.
    key: what the tree is, where that is known without looking at every file: "" for a folder.
    excluded: what is not part of it. owned: its files keep their owners when they are copied.
    """

    def __init__(
        self,
        *,
        layers: Sequence[Layer] = (),
        directory: str = "",
        key: str = "",
        excluded: Matcher | None = None,
        owned: bool = False,
        digests: Digests | None = None,
    ) -> None:
        self.layers = tuple(layers)
        self.directory = directory
        self.key = key
        self.excluded = excluded
        self.owned = owned
        self.fetched = False  # its files came from a server, or from a here-document
        self.digests = digests or Digests()

    @contextmanager
    def opened(self, engine: Engine) -> Iterator[int]:
        """Hold a descriptor of the root directory. Raises OSError, Invalid and Unavailable for layers."""
        root = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) if self.directory else -1
        if root < 0:
            root = open_layers_root(engine, self.layers)
        try:
            yield root
        finally:
            os.close(root)


def open_layers_root(engine: Engine, layers: Sequence[Layer]) -> int:
    """Return a descriptor of the root of these layers, mounted together where there are several, read-only."""
    trees = engine.snapshots.trees(unpacked(engine, layers))
    if not trees:
        fd = mount.new_filesystem("tmpfs", (("mode", "0755"),))
        return _readable(fd)
    if len(trees) == 1:
        return os.open(trees[0], DIRECTORY)
    return _readable(mount.overlay(trees, "", "", attributes=mount.MOUNT_ATTR_RDONLY, flags=()))


def _readable(mounted: int) -> int:
    try:
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=mounted)
    finally:
        os.close(mounted)


class Node:
    """One entry of a listing. path: below the listing's top, "" for the top itself. content: digest or link target."""

    __slots__ = ("content", "info", "path")

    def __init__(self, path: str, info: os.stat_result, content: bytes = b"") -> None:
        self.path = path
        self.info = info
        self.content = content


class Listing:
    """All that lies at one place of a tree, parents first, names sorted. top: the place in the tree."""

    def __init__(self, top: str, nodes: list[Node]) -> None:
        self.top = top
        self.nodes = nodes

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.nodes[0].info.st_mode)

    def digest(self, *, owners: bool) -> str:
        """Return the digest of names, kinds, modes, contents and attributes; of owners too, if they matter."""
        digest = hashlib.sha256()
        for node in self.nodes:
            digest.update(_line(node, owners))
        return digest.hexdigest()

    def inputs(self, *, owners: bool) -> dict[str, str]:
        """Return path -> digest of each file, for people."""
        found = {}
        for node in self.nodes:
            found[f"{self.top.rstrip('/')}/{node.path}" if node.path else self.top] = hashlib.sha256(
                _line(node, owners)
            ).hexdigest()[:16]
        return found


def listing(root: int, path: str, tree: Tree, patterns: Matcher | None = None) -> Listing:
    """Return what lies at a path of a tree whose root is open; a link at its end is followed inside the tree.

    patterns: more that is left out, by paths below the place. Raises NotFound, Invalid for what can't be read.
    """
    top = os.path.normpath("/" + path.strip("/")).lstrip("/")
    try:
        fd = open_in_root(root, top, os.O_PATH)
    except (FileNotFoundError, NotADirectoryError):
        raise not_found(path) from None
    except OSError as refused:
        raise Invalid("read", path, refused.strerror or str(refused), hint="is it a loop of links?") from None
    try:
        info = os.fstat(fd)
        walk = _Walk(tree, top, patterns)
        try:
            if stat.S_ISDIR(info.st_mode):
                walk.nodes.append(Node("", info, _attributes(f"/proc/self/fd/{fd}")))
                walk.directory(os.open(".", DIRECTORY, dir_fd=fd), "", 0)
            else:
                walk.nodes.append(Node("", info, walk.content(info, f"/proc/self/fd/{fd}", None, fd)))
        except OSError as wrong:
            raise Invalid("read", f"{path} of the context", f"{wrong.filename or ''}: {wrong.strerror}") from None
        return Listing("/" + top, walk.nodes)
    finally:
        os.close(fd)


def directory_line(root: int, path: str, *, owners: bool) -> str:
    """Return what of a directory alone counts when it is made again: mode, attributes; its owner, if that matters."""
    fd = open_in_root(root, path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        node = Node("", os.fstat(fd), _attributes(f"/proc/self/fd/{fd}"))
    finally:
        os.close(fd)
    return hashlib.sha256(_line(node, owners)).hexdigest()[:16]


def not_found(path: str) -> NotFound:
    """Return docker's error for a source that is not there."""
    hint = "look at the context, at .dockerignore, and at the stage's own files"
    return NotFound("copy", path, f'failed to compute cache key: "{path}": not found', hint=hint, code="E1416")


class _Walk:
    def __init__(self, tree: Tree, top: str, patterns: Matcher | None) -> None:
        self.nodes: list[Node] = []
        self._tree = tree
        self._top = top
        self._patterns = patterns

    def directory(self, fd: int, path: str, depth: int) -> None:
        """List an open directory, which is closed."""
        if depth > DEPTH_MAX:
            os.close(fd)
            raise Invalid("read", path, f"it lies more than {DEPTH_MAX} directories deep")
        try:
            with os.scandir(fd) as entries:
                found = sorted(entries, key=lambda entry: os.fsencode(entry.name))
            for entry in found:
                below = f"{path}/{entry.name}" if path else entry.name
                info = entry.stat(follow_symlinks=False)
                is_directory = stat.S_ISDIR(info.st_mode)
                hidden = self._hidden(below)
                if hidden and (not is_directory or self._pruned(below)):
                    continue
                if len(self.nodes) > ENTRIES_MAX:
                    raise Invalid("read", self._top, f"it has more than {ENTRIES_MAX} files", code="E0212")
                if not is_directory:
                    if not stat.S_ISSOCK(info.st_mode):
                        self.nodes.append(Node(below, info, self.content(info, entry.name, fd, -1)))
                    continue
                at = len(self.nodes)
                inner = os.open(entry.name, DIRECTORY, dir_fd=fd)
                self.nodes.append(Node(below, info, _attributes(f"/proc/self/fd/{inner}")))
                self.directory(inner, below, depth + 1)
                if hidden and len(self.nodes) == at + 1:
                    self.nodes.pop()  # nothing below it is taken back in by a "!" line
        finally:
            os.close(fd)

    def content(self, info: os.stat_result, name: str, directory: int | None, place: int) -> bytes:
        """Return what of a file's content counts. place: a descriptor of it, or -1."""
        if stat.S_ISREG(info.st_mode):
            flags = os.O_RDONLY | os.O_CLOEXEC | (os.O_NOFOLLOW if place < 0 else 0)
            digest = self._tree.digests.of(info, lambda: os.open(name, flags, dir_fd=directory))
            where = name if directory is None else f"/proc/self/fd/{directory}/{name}"
            return digest + _attributes(where, follow=directory is None)
        if stat.S_ISLNK(info.st_mode):
            return os.fsencode(os.readlink("" if place >= 0 else name, dir_fd=place if place >= 0 else directory))
        return b"%d:%d" % (os.major(info.st_rdev), os.minor(info.st_rdev))

    def _hidden(self, path: str) -> bool:
        if self._patterns is not None and self._patterns.excludes(path):
            return True
        return self._tree.excluded is not None and self._tree.excluded.excludes(self._whole(path))

    def _pruned(self, path: str) -> bool:
        """Tell whether nothing below a hidden directory is taken back in."""
        if self._patterns is not None and self._patterns.prunes(path):
            return True
        return self._tree.excluded is not None and self._tree.excluded.prunes(self._whole(path))

    def _whole(self, path: str) -> str:
        return f"{self._top}/{path}" if self._top else path


def _attributes(path: str, *, follow: bool = True) -> bytes:
    return b"".join(name + b"=" + value + b"\0" for name, value in xattrs_of(path, follow=follow).items())


def _line(node: Node, owners: bool) -> bytes:
    info = node.info
    owner = f"{info.st_uid}:{info.st_gid}" if owners else ""
    return b"%s\0%o\0%s\0%s\n" % (os.fsencode(node.path), info.st_mode, owner.encode(), node.content)
