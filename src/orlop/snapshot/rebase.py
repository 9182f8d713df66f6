"""An archive whose members get other names on their way: what `cp` calls a copy that shall be called otherwise."""

from __future__ import annotations

from orlop.spec.errors import Invalid
from orlop.spec.tar import LNKTYPE, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from orlop.spec.tar import Member, Reader


class Rebased:
    """A tar.Reader's members, with `old` at the beginning of their names (and of hard links' targets) become `new`.

    old: one component, or b"." for the root of the archive, so that `new` goes in front of everything. A name that does
    not begin with old stays. without_root: what is the root itself, whatever the archive makes of it, is left out.
    Raises Invalid for a name that leads out of the archive's root.
    """

    def __init__(self, reader: Reader, old: bytes, new: bytes, *, without_root: bool = False) -> None:
        self._reader = reader
        self._old = old
        self._new = new
        self._skipped = self._renamed(b".") if without_root else None

    def __iter__(self) -> Iterator[Member]:
        for member in self._reader:
            member.name = self._renamed(member.name)
            if member.name == self._skipped:
                continue
            if member.kind == LNKTYPE:
                member.linkname = self._renamed(member.linkname)
            yield member

    def data(self) -> Iterator[bytes]:
        """Yield the stored bytes of the current member."""
        return self._reader.data()

    def _renamed(self, name: bytes) -> bytes:
        parts: list[bytes] = []
        for part in name.split(b"/"):
            if part == b"..":
                if not parts:
                    raise Invalid("extract", f"member {shown(name)}", "it leads out of the archive's root")
                parts.pop()
            elif part not in (b"", b"."):
                parts.append(part)
        if self._old == b".":
            return b"/".join((self._new, *parts))
        if parts[:1] == [self._old]:
            parts[0] = self._new
        return b"/".join(parts) or b"."
