"""The image called `host`: made on first use from programs of this machine, so that a first container needs no network.

    content/host.json     HostRecord: what the image was made from (writer: this module)

The same files give the same layer, configuration and digest: members are sorted, owned by root and dated 1970.
As long as no file and no directory that was looked into has changed, the image is not made again; the check costs a
stat(2) for each of them. A name `host` that the user gave to another image is left alone.
"""

from __future__ import annotations

import os
import stat

from orlop.linux.path import read_file
from orlop.spec.digest import Digest
from orlop.spec.errors import Invalid, NotFound, OrlopError, Unavailable
from orlop.spec.image import OCI_LAYER, ContainerConfig, Descriptor, History, ImageConfig, RootFs
from orlop.spec.jsonio import dump, parse
from orlop.spec.platform import Platform
from orlop.spec.reference import Reference
from orlop.spec.tar import DIRTYPE, REGTYPE, SYMTYPE, Member

from .archive import write_image
from .closure import SEARCH_PATH, Closure, find_program
from .hostfiles import FILES, PROGRAMS, TERMINALS, TERMINFO, HostRecord

TYPE_CHECKING = False
if TYPE_CHECKING:
    from orlop.content import Store

    from .image import Image
    from .images import Images

    Tree = dict[str, tuple[Member, str | bytes]]  # name -> (member, the host's file or the content)

NAME = "host"
RECORD_FILE = "host.json"
RECORD_BYTES_MAX = 4 * 1024**2
CREATED = "1970-01-01T00:00:00Z"
PATH = "PATH=" + ":".join(SEARCH_PATH)
COMMENT = "programs of this host"
READ_BYTES = 1024 * 1024
_BUSYBOX_BYTES_MAX = 16 * 1024**2
_APPLET_BYTES_MAX = 32
_APPLET = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789[_-.")
_DIRECTORIES = {
    "/dev": 0o755,
    "/etc": 0o755,
    "/home": 0o755,
    "/mnt": 0o755,
    "/proc": 0o555,
    "/root": 0o700,
    "/run": 0o755,
    "/sys": 0o555,
    "/tmp": 0o1777,
    "/usr/bin": 0o755,
    "/var": 0o755,
    "/var/tmp": 0o1777,
}
_SHELLS = ("bash", "sh")


def ensure(images: Images) -> Image:
    """Return the image `host`, made now if it is not there or the host's files have changed.

    Raises NotFound when this host has no shell to put into it, Unavailable when it can't be stored.
    """
    name = Reference.parse(NAME).tagged()
    record = _read_record(images.store)
    target = images.store.names.get(name)
    if target is not None:
        is_ours = record is not None and record.manifest == target.digest
        image = _existing(images, is_ours)
        if image is not None and (
            image.config.comment != COMMENT or (record and is_ours and _state(record.watched) == record.state)
        ):
            return image
    closure, tree = _collect()
    watched = _watched(closure)
    state = _state(watched)  # before the files are read: a change meanwhile is then seen the next time
    target = _store(images.store, tree)
    images.store.names.put(name, target, keep_displaced=False)
    _write_record(images.store, HostRecord(manifest=target.digest, watched=watched, state=state))
    return images.resolve(NAME)


def _existing(images: Images, is_ours: bool) -> Image | None:
    """Return the image that has the name, None when it is one of ours that lost a blob."""
    try:
        image = images.resolve(NAME)
    except (NotFound, Invalid, Unavailable):
        if is_ours:
            return None
        raise
    is_whole = all(images.store.stat(layer.descriptor.digest) is not None for layer in image.layers)
    return image if is_whole or not is_ours else None


# -- what goes in ---------------------------------------------------------------------------------------------------


def _collect() -> tuple[Closure, Tree]:
    """Return the closure of the programs found here, and the tree made of it."""
    closure = Closure(faithful=True)
    applets: dict[str, str] = {}
    missing = []
    for name in PROGRAMS:
        try:
            closure.add_program(find_program(name))
        except OrlopError:  # not here, or it lacks a library: the image goes without it
            missing.append(name)
    _add_busybox(closure, missing, applets)
    if not any(_has(closure, applets, shell) for shell in _SHELLS):
        raise NotFound(
            "make",
            "image host",
            "this host has no shell that the image host could be made of",
            hint="install bash, dash or busybox, or import an archive: orlop import FILE.tar NAME",
        )
    _add_terminals(closure)
    tree = _tree(closure, applets)
    return closure, tree


def _add_busybox(closure: Closure, missing: list[str], applets: dict[str, str]) -> None:
    """Let busybox stand in for what is missing, where it has the applet."""
    try:
        path = find_program("busybox")
        closure.add_program(path)
    except OrlopError:
        return
    known = _busybox_applets(path)
    applets.update((name, path) for name in missing if name in known)


def _busybox_applets(path: str) -> set[str]:
    """Return the names that a busybox answers to, read from its table: sorted names, a NUL behind each."""
    with open(path, "rb") as file:
        words = file.read(_BUSYBOX_BYTES_MAX).split(b"\0")
    best: list[bytes] = []
    run: list[bytes] = []
    for word in words:
        if not word or len(word) > _APPLET_BYTES_MAX or not _APPLET.issuperset(word):
            run = []
        elif run and run[-1] < word:
            run.append(word)
        else:
            run = [word]
        best = run if len(run) > len(best) else best
    return {word.decode() for word in best}


def _has(closure: Closure, applets: dict[str, str], name: str) -> bool:
    return name in applets or any(f"{directory}/{name}" in closure.names for directory in SEARCH_PATH)


def _add_terminals(closure: Closure) -> None:
    """Add what bash's and less's libraries know about terminals, from the first directory that has each."""
    for name in TERMINALS:
        for directory in TERMINFO:
            path = f"{directory}/{name[0]}/{name}"
            if os.path.isfile(path):
                closure.add_file(path)
                break


def _tree(closure: Closure, applets: dict[str, str]) -> Tree:
    tree: Tree = {}
    for name, mode in _DIRECTORIES.items():
        tree[name] = (_member(name, DIRTYPE, mode), b"")
    for name, target in closure.links.items():
        link = _member(name, SYMTYPE, 0o777)
        link.linkname = os.fsencode(target)
        tree[name] = (link, b"")
    for name, source in closure.files.items():
        info = os.stat(source)
        tree[name] = (_member(name, REGTYPE, 0o755 if info.st_mode & 0o111 else 0o644), source)
    for name, path in applets.items():
        link = _member(f"/usr/bin/{name}", SYMTYPE, 0o777)
        link.linkname = os.fsencode(path)
        tree.setdefault(f"/usr/bin/{name}", (link, b""))
    for name, (mode, text) in FILES.items():
        tree[name] = (_member(name, REGTYPE, mode), text.encode())
    _add_parents(tree)
    return tree


def _add_parents(tree: Tree) -> None:
    for name in tuple(tree):
        parent = os.path.dirname(name)
        while parent not in ("/", "") and parent not in tree:
            tree[parent] = (_member(parent, DIRTYPE, 0o755), b"")
            parent = os.path.dirname(parent)


def _member(name: str, kind: str, mode: int) -> Member:
    return Member(os.fsencode(name.lstrip("/")) + (b"/" if kind == DIRTYPE else b""), kind, mode)


# -- how it is stored -----------------------------------------------------------------------------------------------


def _store(store: Store, tree: Tree) -> Descriptor:
    from orlop.spec.tar.writer import END_OF_ARCHIVE, encode, padding

    try:
        with store.writer() as layer:
            for name in sorted(tree):
                member, content = tree[name]
                if isinstance(content, bytes):
                    member.size = member.stored = len(content)
                    layer.write(encode(member) + content + padding(len(content)))
                    continue
                with open(content, "rb", buffering=0) as file:
                    size = left = os.fstat(file.fileno()).st_size
                    member.size = member.stored = size
                    layer.write(encode(member))
                    while left and (data := file.read(min(left, READ_BYTES))):
                        layer.write(data)
                        left -= len(data)
                    if left:
                        raise Unavailable("make", "image host", f"{content} became shorter while it was read")
                    layer.write(padding(size))
            layer.write(END_OF_ARCHIVE)
            descriptor = layer.commit(media_type=OCI_LAYER)
    except OSError as error:
        raise Unavailable("make", "image host", f"{error.filename}: {os.strerror(error.errno or 0)}") from None
    return write_image(store, (descriptor,), _config(tree, descriptor.digest))


def _config(tree: Tree, diff_id: Digest) -> ImageConfig:
    names = {os.path.basename(name) for name in tree}
    shell = next(name for name in _SHELLS if name in names)
    platform = Platform.of_machine(os.uname().machine)
    return ImageConfig(
        created=CREATED,
        architecture=platform.architecture,
        variant=platform.variant,
        os=platform.os,
        config=ContainerConfig(env=(PATH,), cmd=(shell,)),
        rootfs=RootFs(type="layers", diff_ids=(diff_id,)),
        history=(History(created=CREATED, comment=COMMENT),),
        comment=COMMENT,
    )


# -- when it is made again ------------------------------------------------------------------------------------------


def _watched(closure: Closure) -> tuple[str, ...]:
    """Return every file that went in, and every directory whose entries decided which."""
    paths = {*closure.files.values(), *SEARCH_PATH, "/etc/ld.so.cache", *TERMINFO}
    paths |= {os.path.dirname(name) for name in closure.names}
    return tuple(sorted(paths))


def _state(paths: tuple[str, ...]) -> Digest:
    """Return a digest of what these files and directories are now; one that is missing counts too."""
    lines = []
    for path in paths:
        try:
            info = os.stat(path)
        except OSError:
            lines.append(f"{path} -")
            continue
        # A directory's size says nothing that its time does not.
        size = 0 if stat.S_ISDIR(info.st_mode) else info.st_size
        lines.append(f"{path} {info.st_dev}:{info.st_ino} {size} {info.st_mtime_ns}")
    return Digest.of(os.fsencode("\n".join(lines)))


def _read_record(store: Store) -> HostRecord | None:
    path = f"{store.root}/{RECORD_FILE}"
    try:
        return HostRecord.from_json(parse(read_file(path, RECORD_BYTES_MAX), path), path)
    except (OSError, OrlopError):
        return None  # it is only a cache: without it the image is made again


def _write_record(store: Store, record: HostRecord) -> None:
    temporary = f"{store.root}/ingest/{os.urandom(16).hex()}"
    try:
        with open(temporary, "wb") as file:
            file.write(dump(record.to_json()))
        os.rename(temporary, f"{store.root}/{RECORD_FILE}")
    except OSError as error:
        raise Unavailable("make", "image host", f"{RECORD_FILE}: {os.strerror(error.errno or 0)}") from None
