"""Images that builders made, as what can be compared: every file of all layers together, and the configuration."""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import tarfile
from pathlib import Path

Entry = tuple[object, ...]
WHITEOUT, OPAQUE = ".wh.", ".wh..wh..opq"
APPLETS = (
    "sh cat echo ls mkdir touch rm ln chmod chown mv cp id env test true false head tail sort wc stat printf sleep"
)
PASSWD = "root:x:0:0:root:/root:/bin/sh\nbob:x:1000:1001:Bob:/home/bob:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n"
GROUP = "root:x:0:\nbob:x:1001:\nstaff:x:50:bob\nnobody:x:65534:\n"


def base_archive(path: Path, busybox: Path) -> None:
    """Write an archive of a small root file system: busybox, users, a link to a directory, a sticky directory."""
    directories = {"bin": 0o755, "etc": 0o755, "tmp": 0o1777, "root": 0o700, "run": 0o755, "var": 0o755, "home": 0o755}
    directories |= {"proc": 0o555, "dev": 0o755, "sys": 0o555, "old": 0o750, "older": 0o750}
    with tarfile.open(path, "w") as archive:

        def add(name: str, kind: bytes, mode: int = 0o755, data: bytes = b"", link: str = "") -> None:
            member = tarfile.TarInfo(name)
            member.type, member.mode, member.size, member.linkname = kind, mode, len(data), link
            member.mtime = 1_000_000_000
            archive.addfile(member, io.BytesIO(data))

        for name, mode in directories.items():
            add(name, tarfile.DIRTYPE, mode)
        add("bin/busybox", tarfile.REGTYPE, 0o755, busybox.read_bytes())
        for applet in APPLETS.split():
            add(f"bin/{applet}", tarfile.SYMTYPE, link="busybox")
        add("etc/passwd", tarfile.REGTYPE, 0o644, PASSWD.encode())
        add("etc/group", tarfile.REGTYPE, 0o644, GROUP.encode())
        add("var/run", tarfile.SYMTYPE, link="/run")
        add("old/a", tarfile.REGTYPE, 0o640, b"old a\n")
        add("old/b", tarfile.REGTYPE, 0o640, b"old b\n")
        add("file", tarfile.REGTYPE, 0o644, b"a file\n")


class Image:
    """What one saved image holds. files: path -> what it is; config: docker's Config; layers: how many."""

    def __init__(self, archive: bytes) -> None:
        with tarfile.open(fileobj=io.BytesIO(archive)) as saved:
            (described,) = json.loads(_read(saved, "manifest.json"))
            document = json.loads(_read(saved, described["Config"]))
            self.config: dict[str, object] = document["config"]
            self.document = document
            self.layers = len(described["Layers"])
            self.files: dict[str, Entry] = {}
            for name in described["Layers"]:
                with tarfile.open(fileobj=io.BytesIO(_read(saved, name))) as layer:
                    _apply(self.files, layer)


def _read(saved: tarfile.TarFile, name: str) -> bytes:
    member = saved.getmember(name)
    while member.issym():  # dockerd links layers that several images have
        name = os.path.normpath(os.path.join(os.path.dirname(name), member.linkname))
        member = saved.getmember(name)
    file = saved.extractfile(member)
    assert file is not None
    return file.read()


def _apply(files: dict[str, Entry], layer: tarfile.TarFile) -> None:
    for member in layer:
        path = member.name.strip("/").removeprefix("./").strip("/") or "."
        parent, _, name = path.rpartition("/")
        if name == OPAQUE:
            _remove(files, parent, keep=True)
        elif name.startswith(WHITEOUT):
            _remove(files, f"{parent}/{name[4:]}".strip("/"))
        else:
            old = files.get(path)
            if old is not None and old[0] == "d" and not member.isdir():
                _remove(files, path)
            files[path] = _entry(files, layer, member)


def _remove(files: dict[str, Entry], path: str, *, keep: bool = False) -> None:
    for name in [name for name in files if name.startswith(f"{path}/") or (name == path and not keep)]:
        del files[name]


def _entry(files: dict[str, Entry], layer: tarfile.TarFile, member: tarfile.TarInfo) -> Entry:
    if member.islnk():
        return files[member.linkname.strip("/").removeprefix("./")]
    kind = "d" if member.isdir() else "l" if member.issym() else "f" if member.isreg() else "n"
    content = ""
    if member.isreg():
        file = layer.extractfile(member)
        assert file is not None
        content = hashlib.sha256(file.read()).hexdigest()[:16]
    xattrs = tuple(
        sorted(
            (key.removeprefix("SCHILY.xattr."), value)
            for key, value in member.pax_headers.items()
            if key.startswith("SCHILY.xattr.")
        )
    )
    mode = 0 if member.issym() else stat.S_IMODE(member.mode)
    return kind, oct(mode), member.uid, member.gid, member.linkname if member.issym() else "", content, xattrs
