"""index.json of the layout: which descriptor a name means.

An entry carries its name twice: as org.opencontainers.image.ref.name in docker's short form, which is what
`skopeo inspect oci:DIR:NAME` and umoci look for, and in full as io.containerd.image.name, which containerd's and
docker's importers read. An entry without a name keeps an image whose name went to another one. What refers to an image
(a signature, an attestation) is an entry with REFERS_TO, the digest of that image's entry, and goes with the last one.

Written by rename under a lock (flock on the layout's directory); readers take no lock.
"""

from __future__ import annotations

import fcntl
import os

from orlop.linux.path import read_file
from orlop.spec.errors import Invalid, NotFound, Unavailable
from orlop.spec.image import REF_NAME, Descriptor, Index
from orlop.spec.jsonio import dump, parse
from orlop.spec.reference import Reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from orlop.spec.digest import Digest

    Entry = tuple[Reference | None, Descriptor]

REFERS_TO = "io.orlop.refers-to"
FULL_NAME = "io.containerd.image.name"
INDEX_BYTES_MAX = 64 * 1024**2
_RESTORE = "put it back from a copy: it says which of the blobs are images"


class Names:
    """The names of one layout."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._path = f"{root}/index.json"

    def entries(self) -> tuple[Entry, ...]:
        """Return (name or None, descriptor) of every entry, in the file's order. Raises Invalid, Unavailable."""
        return tuple((_name_of(descriptor), descriptor) for descriptor in self._read().manifests)

    def get(self, name: Reference) -> Descriptor | None:
        """Return what a name means, without the annotations of its entry's names."""
        return next((descriptor for known, descriptor in self.entries() if known == name), None)

    def put(self, name: Reference | None, descriptor: Descriptor, *, keep_displaced: bool = True) -> None:
        """Give a name (or, with None, just a place) to a descriptor; what had the name keeps a place without one.

        keep_displaced: False drops what had the name, unless it has others.
        """
        named = _with_name(descriptor, name)

        def change(entries: list[Entry]) -> list[Descriptor]:
            previous = [old for known, old in entries if name is not None and known == name]
            kept = [old for known, old in entries if known is None or known != name]
            kept = [old for old in kept if not (_name_of(old) is None and old.digest == descriptor.digest)]
            if name is None and any(old.digest == descriptor.digest for old in kept):
                return kept
            still_named = {old.digest for old in kept} | {descriptor.digest}
            if keep_displaced:
                kept += [_with_name(old, None) for old in previous if old.digest not in still_named]
            return [*kept, named]

        self._update(change)

    def referrers(self, digest: Digest) -> tuple[Descriptor, ...]:
        """Return what is kept here because it refers to an image, or to a part of it."""
        found = (one for one in self._read().manifests if one.annotations.get(REFERS_TO) == digest)
        return tuple(
            one.replace(annotations={key: value for key, value in one.annotations.items() if key != REFERS_TO})
            for one in found
        )

    def put_referrers(self, digest: Digest, others: Sequence[Descriptor]) -> None:
        """Keep what refers to an image for as long as that has an entry."""
        marked = [one.replace(annotations=one.annotations | {REFERS_TO: str(digest)}) for one in others]
        known = {one.digest for one in others}

        def change(entries: list[Entry]) -> list[Descriptor]:
            kept = [
                old for _, old in entries if old.digest not in known or old.annotations.get(REFERS_TO) != str(digest)
            ]
            return [*kept, *marked]

        self._update(change)

    def remove(self, name: Reference, *, keep: bool = False) -> Descriptor:
        """Take a name away and return what it meant. Its last name gone, the image is gone from the index.

        keep: it keeps a place there, without a name. Raises NotFound.
        """
        removed: list[Descriptor] = []

        def change(entries: list[Entry]) -> list[Descriptor]:
            removed.extend(old for known, old in entries if known == name)
            kept = [old for known, old in entries if known != name]
            others = {old.digest for old in kept}
            return [*kept, *(_with_name(old, None) for old in removed if keep and old.digest not in others)]

        self._update(change)
        if not removed:
            raise NotFound("remove", f"image {name.familiar}", f"No such image: {name.familiar}")
        return removed[0]

    def forget(self, digest: Digest) -> tuple[Reference, ...]:
        """Remove every entry of a descriptor, named or not; return the names that it had."""
        removed: list[Reference] = []

        def change(entries: list[Entry]) -> list[Descriptor]:
            removed.extend(known for known, old in entries if known is not None and old.digest == digest)
            return [old for _, old in entries if old.digest != digest]

        self._update(change)
        return tuple(removed)

    def _read(self) -> Index:
        try:
            data = read_file(self._path, INDEX_BYTES_MAX)
        except OSError as error:
            raise Unavailable("read", self._path, os.strerror(error.errno or 0), hint=_RESTORE) from None
        try:
            return Index.from_json(parse(data, self._path, bytes_max=INDEX_BYTES_MAX), self._path)
        except Invalid as wrong:
            raise Invalid("read", self._path, wrong.cause, hint=_RESTORE) from None

    def _update(self, change: Callable[[list[Entry]], list[Descriptor]]) -> None:
        try:
            lock = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
                index = self._read()
                before = [(_name_of(descriptor), descriptor) for descriptor in index.manifests]
                self._write(index.replace(manifests=_without_orphans(change(before))))
                os.fsync(lock)
            finally:
                os.close(lock)
        except OSError as error:
            raise Unavailable("write", self._path, os.strerror(error.errno or 0)) from None

    def _write(self, index: Index) -> None:
        temporary = self._path + ".new"  # one name is enough: the lock is held
        with open(temporary, "wb") as file:
            file.write(dump(index.to_json()))
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, self._path)


def _without_orphans(entries: list[Descriptor]) -> tuple[Descriptor, ...]:
    """Return the entries without those that refer to what has none."""
    here = {str(one.digest) for one in entries if REFERS_TO not in one.annotations}
    return tuple(one for one in entries if one.annotations.get(REFERS_TO) in (None, *here))


def _with_name(descriptor: Descriptor, name: Reference | None) -> Descriptor:
    annotations = {key: value for key, value in descriptor.annotations.items() if key not in (REF_NAME, FULL_NAME)}
    if name is not None:
        annotations |= {REF_NAME: name.familiar, FULL_NAME: str(name)}
    return descriptor.replace(annotations=annotations)


def _name_of(descriptor: Descriptor) -> Reference | None:
    """Return the name of an entry, None when it has none that is a reference.

    Other tools write only the short name, or copy an entry and change only that (umoci repack); containerd puts just
    the tag there. So the full name counts where the short one agrees with it.
    """
    short = descriptor.annotations.get(REF_NAME, "")
    full = _parsed(descriptor.annotations.get(FULL_NAME, ""))
    if full is not None and short in ("", str(full), full.familiar, full.tag):
        return full
    return _parsed(short)


def _parsed(text: str) -> Reference | None:
    try:
        return Reference.parse(text).tagged() if text else None
    except Invalid:
        return None
