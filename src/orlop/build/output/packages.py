"""Which packages are installed in a tree: what dpkg, apk and Python's installers have written down there.

The files are an image's: whatever they hold is data, bounded, and what can't be read is left out.
"""

import os

from orlop.linux.path import open_in_root
from orlop.spec.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Read = Callable[[str], bytes | None]

DPKG, DPKG_PARTS = "var/lib/dpkg/status", "var/lib/dpkg/status.d"
APK = "lib/apk/db/installed"
PYTHON = ("usr/lib", "usr/local/lib", "usr/lib64")
ENTRIES_MAX = 100_000


class Package(Record):
    """One package. kind: as package URLs call it (deb, apk, pypi)."""

    kind: str
    name: str
    version: str


def installed(read: "Read", root: int) -> list[Package]:
    """Return the packages of a tree, sorted. read: gives a file's content, None where it is not; root: it, open."""
    found = {*_debian(read, root), *_alpine(read), *_python(read, root)}
    return sorted(found, key=lambda one: (one.kind, one.name, one.version))


def _debian(read: "Read", root: int) -> "Iterator[Package]":
    files = [DPKG, *(f"{DPKG_PARTS}/{name}" for name in _names(root, DPKG_PARTS) if not name.endswith(".md5sums"))]
    for path in files:
        for fields in _paragraphs(_text(read, path), ": "):
            state = fields.get("Status", "install ok installed")
            if state.endswith(" installed") and fields.get("Package"):
                yield Package(kind="deb", name=fields["Package"], version=fields.get("Version", ""))


def _alpine(read: "Read") -> "Iterator[Package]":
    for fields in _paragraphs(_text(read, APK), ":"):
        if fields.get("P"):
            yield Package(kind="apk", name=fields["P"], version=fields.get("V", ""))


def _python(read: "Read", root: int) -> "Iterator[Package]":
    for top in PYTHON:
        for version in _names(root, top):
            if not version.startswith("python3"):
                continue
            for place in (f"{top}/{version}/site-packages", f"{top}/{version}/dist-packages"):
                for name in _names(root, place):
                    if name.endswith(".dist-info"):
                        fields = next(_paragraphs(_text(read, f"{place}/{name}/METADATA"), ": "), {})
                        if fields.get("Name"):
                            yield Package(kind="pypi", name=fields["Name"], version=fields.get("Version", ""))


def _text(read: "Read", path: str) -> str:
    try:
        return (read(path) or b"").decode(errors="replace")
    except OSError:
        return ""


def _paragraphs(text: str, separator: str) -> "Iterator[dict[str, str]]":
    """Yield the fields of each paragraph; continued lines are left out."""
    for paragraph in text.split("\n\n"):
        fields: dict[str, str] = {}
        for line in paragraph.split("\n"):
            name, found, value = line.partition(separator)
            if found and not line.startswith((" ", "\t")):
                fields.setdefault(name, value.strip().replace("\0", ""))
        if fields:
            yield fields


def _names(root: int, path: str) -> list[str]:
    try:
        fd = open_in_root(root, path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return []
    try:
        return sorted(os.listdir(fd))[:ENTRIES_MAX]
    finally:
        os.close(fd)
