"""Trees for tests: what one is, down to the last attribute, so that two can be compared."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

Entry = tuple[object, ...]


def describe(root: Path | str, *, times: bool = True) -> dict[str, Entry]:
    """Return relative path -> type, mode, owner, device, link target, content, xattrs, time, and which are one file.

    times: without them, and without those of directories, trees made at different moments can be compared.
    """
    out: dict[str, Entry] = {}
    first_of: dict[tuple[int, int], str] = {}
    root = os.fspath(root)
    for directory, names, files in os.walk(root):
        names.sort()
        for name in [".", *sorted([*names, *files])] if directory == root else sorted([*names, *files]):
            path = root + "/" if name == "." else os.path.join(directory, name)  # "/": the root may be a magic link
            info = os.lstat(path)
            relative = os.path.relpath(path.rstrip("/"), root)
            same = first_of.setdefault((info.st_dev, info.st_ino), relative)
            out[relative] = (
                stat.filemode(info.st_mode),
                info.st_uid,
                info.st_gid,
                info.st_rdev,
                os.readlink(path) if stat.S_ISLNK(info.st_mode) else "",
                hashlib.sha256(Path(path).read_bytes()).hexdigest() if stat.S_ISREG(info.st_mode) else "",
                tuple((key, os.getxattr(path, key, follow_symlinks=False)) for key in sorted(listed(path))),
                info.st_mtime_ns if times else 0,
                same,
            )
    return out


def listed(path: str) -> list[str]:
    return os.listxattr(path, follow_symlinks=False)
