"""Files that are mounted by themselves, followed by their names.

Many programs change a file by putting a new one in its place: `sed -i`, editors, `git checkout`. A mount of a single
file goes on showing the old one. So the new one is mounted in its place, as config.json says:

    launcher   which mounts are single files, and of which files     -> Handover.followed
    monitor    watches the directories of these files (inotify(7)); when one of their names comes, it forks
    follower   opens the new files, clones them with the mounts' attributes, enters the container's mount namespace,
               puts them in the place of the old ones, tells the monitor which files are mounted now, ends

Invariants:
1. Who mounts no single file pays nothing. Nothing is needed of the engine.
2. A follower compares what is there with what is mounted, so one that comes too often, or too late, does no harm.
3. What replaces a file is opened without following any link, and is an ordinary file: who may write to the directory
   can't lead the container to another one (SEC-08). In a sticky directory it belongs to whom the old one belonged, to
   the directory's owner, or to root, as the kernel has it for opening (protected_regular).
4. Only a mount that shows the file which we mounted is replaced, through a descriptor of it: in the container no name
   is resolved twice, nothing is imported or looked up there (SEC-05, SEC-06).
5. A follower that hangs (a dead file server) delays nobody; there is one at a time. It ends with its monitor.

What is written into the same file needs none of this. What replaces a directory on the way is not followed.
"""

import errno
import os
import stat
import time

from ..linux import inotify, mount, path, process, signals
from ..runtime.operations import mount_options
from ..runtime.operations.idmap import IdMap
from ..runtime.operations.mounts import BindMount
from . import record
from .loop import READ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import NoReturn

    from ..spec.runtime import Mount, Spec
    from .launcher import Inherited
    from .loop import Loop

BYTES_MAX = 12 * 1024  # of their names: about a hundred files; more are mounted, and not followed
SETTLE_S = 0.05  # after a name came: editors do several things, one after the other
_SEPARATOR = "\0"
_EVENTS = inotify.IN_CREATE | inotify.IN_MOVED_TO


class Followed:
    """A file that is mounted by itself. place: where; path: of the file, without links; identity: of what is mounted
    there, (device, inode); owner: to whom the first one belonged.
    """

    __slots__ = ("identity", "owner", "path", "place")

    def __init__(self, place: str, path: str, identity: tuple[int, int], owner: int) -> None:
        self.place = place
        self.path = path
        self.identity = identity
        self.owner = owner


def found(mounts: "Iterable[Mount]", own: str) -> str:
    """Return the files that are mounted by themselves, encoded; "" for none. Called before they are mounted.

    own: the container's directory, whose files are written in place.
    """
    some = []
    for one in mounts:
        if one.type != "bind" or one.source.startswith((own, mount_options.OWN_DESCRIPTOR)):
            continue
        try:
            if not stat.S_ISREG(os.stat(one.source).st_mode):
                continue
            fd = os.open(one.source, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue  # whoever mounts it says so
        try:
            info = os.fstat(fd)
            name = os.readlink(f"/proc/self/fd/{fd}")
            some.append(Followed(one.destination, name, _identity(info), info.st_uid))
        finally:
            os.close(fd)
    return encode(some)


def encode(files: "Iterable[Followed]") -> str:
    """Return the files as text, as many as go into BYTES_MAX."""
    text = ""
    for one in files:
        device, inode = one.identity
        more = _SEPARATOR.join((one.place, one.path, f"{device} {inode} {one.owner}"))
        if len(os.fsencode(text)) + len(os.fsencode(more)) < BYTES_MAX:
            text += f"{_SEPARATOR}{more}" if text else more
    return text


def decode(text: str) -> list[Followed]:
    """Return the files of a text. Raises ValueError for one that is not by `encode`."""
    words = text.split(_SEPARATOR) if text else []
    files = []
    for place, name, numbers in zip(words[::3], words[1::3], words[2::3], strict=True):
        device, inode, owner = map(int, numbers.split())
        files.append(Followed(place, name, (device, inode), owner))
    return files


class Files:
    """The followed files of one run, in its monitor."""

    __slots__ = ("_directory", "_due", "_files", "_follower", "_inherited", "_loop", "_names", "_pidfd", "_pipe",
                 "_said", "_watch")  # fmt: skip

    def __init__(self, loop: "Loop", pidfd: int, directory: int, inherited: "Inherited") -> None:
        """pidfd: of the container's first process; directory: the container's. Both are borrowed."""
        self._loop = loop
        self._pidfd = pidfd
        self._directory = directory
        self._inherited = inherited
        self._files: list[Followed] = []
        self._names: dict[int, set[bytes]] = {}
        self._watch = self._pipe = -1
        self._follower = 0
        self._said = b""
        self._due = False

    def follow(self, text: str) -> None:
        """Follow these files, and no others any more. Raises ValueError for what `found` does not write."""
        self._files = decode(text)
        self._forget()
        if not self._files:
            return
        try:
            self._watch = inotify.init()
        except OSError:
            return  # EMFILE: fs.inotify.max_user_instances; then the mounts stay what they are
        for one in self._files:
            parent, _, name = one.path.rpartition("/")
            try:
                number = inotify.add_watch(self._watch, parent or "/", _EVENTS)
            except OSError:
                continue
            self._names.setdefault(number, set()).add(os.fsencode(name))
        self._loop.watch(self._watch, READ, self._note)
        if any(_current(one) not in (None, one.identity) for one in self._files):
            self._begin()  # it was replaced while nobody watched yet

    def stop(self) -> None:
        """The run has ended: no follower outlives it, but one that hangs in the kernel, which the kernel then ends."""
        self._forget()
        if self._follower:
            os.kill(self._follower, signals.SIGKILL)
            self._let_go(os.WNOHANG)

    def _forget(self) -> None:
        if self._watch >= 0:
            self._loop.unwatch(self._watch)
            os.close(self._watch)
            self._watch = -1
        self._names.clear()

    def _note(self, _events: int) -> None:
        for number, mask, name in inotify.read_events(self._watch):
            if name in self._names.get(number, ()) or mask & inotify.IN_Q_OVERFLOW:
                self._due = True
        if self._due and not self._follower:
            self._begin()

    def _begin(self) -> None:
        self._due = False
        try:
            self._pipe, theirs = os.pipe()
            try:
                self._follower = os.fork()
                if self._follower == 0:
                    _main(self._files, self._pidfd, self._directory, theirs, self._inherited)
            finally:
                os.close(theirs)
        except OSError:
            return
        os.set_blocking(self._pipe, False)
        self._loop.watch(self._pipe, READ, self._finish)

    def _finish(self, _events: int) -> None:
        try:
            said = os.read(self._pipe, BYTES_MAX)
        except BlockingIOError:
            return
        if said:
            self._said += said
            return
        mounted = {one.place: one.identity for one in decode(os.fsdecode(self._said))}
        for one in self._files:
            one.identity = mounted.get(one.place, one.identity)
        self._let_go(0)
        if self._due:
            self._begin()

    def _let_go(self, flags: int) -> None:
        self._loop.unwatch(self._pipe)
        os.close(self._pipe)
        os.waitpid(self._follower, flags)
        self._follower, self._pipe, self._said = 0, -1, b""


def _identity(info: os.stat_result) -> tuple[int, int]:
    return info.st_dev, info.st_ino


def _current(one: Followed) -> tuple[int, int] | None:
    try:
        return _identity(os.lstat(one.path))
    except OSError:
        return None


# -- the follower -----------------------------------------------------------------------------------------------------


def _main(files: list[Followed], pidfd: int, directory: int, monitor: int, inherited: "Inherited") -> "NoReturn":
    """Mount what has replaced the files, in a process of its own, which ends here."""
    try:
        process.prctl(process.PR_SET_PDEATHSIG, signals.SIGKILL)
        process.close_all_except({pidfd, directory, monitor})
        process.set_title("orlop: new files for mounts", inherited.title_area)
        time.sleep(SETTLE_S)
        spec = record.read_spec(f"/proc/self/fd/{directory}")
        fresh = [new for one in files if (new := _new(one, spec)) is not None]
        if fresh:
            descriptors = os.open("/proc/self/fd", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            process.setns(pidfd, process.CLONE_NEWNS)
            os.write(monitor, os.fsencode(encode([one.now for one in fresh if one.replace(descriptors)])))
    finally:
        os._exit(0)


class New:
    """A file that has replaced a followed one. tree: a detached mount of it; now: what is then followed."""

    __slots__ = ("before", "now", "tree")

    def __init__(self, before: Followed, now: Followed, tree: int) -> None:
        self.before = before
        self.now = now
        self.tree = tree

    def replace(self, descriptors: int) -> bool:
        """Put it in the place of the old one; tell whether it is mounted. In the container's mount namespace.

        descriptors: see mount.detach.
        """
        try:
            root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            old = path.open_in_root(root, self.now.place)
            mounted = _identity(os.fstat(old))
            if mounted == self.before.identity and mount.is_mount_root(old):
                mount.replace_mount(self.tree, old, lambda: _underneath(root, self.now.place), descriptors)
                mounted = self.now.identity
        except OSError:
            return False  # unmounted, or something else is there by now
        return mounted == self.now.identity


def _new(one: Followed, spec: "Spec") -> New | None:
    """Return the file that has now the name of one that is mounted, as config.json wants it mounted; None for none."""
    wanted = next((each for each in spec.mounts if each.destination == one.place and each.type == "bind"), None)
    if wanted is None:
        return None
    try:
        fd, info = _opened(one)
    except OSError:
        return None  # between two steps of an editor, or a link: what is mounted stays
    try:
        now = Followed(one.place, one.path, _identity(info), one.owner)
        if now.identity == one.identity:
            return None
        # By our number: a descriptor named through /proc/self is one of somebody's detached trees, to the operation.
        source = f"/proc/{os.getpid()}/fd/{fd}"
        options = mount_options.parse(wanted.options, one.place)
        uids, gids = wanted.uid_mappings, wanted.gid_mappings
        if options.idmap and not uids and not gids:
            uids, gids = spec.linux.uid_mappings, spec.linux.gid_mappings
        idmap = IdMap(uids=uids, gids=gids, recursive=options.idmap == "ridmap") if uids or gids else None
        bind = BindMount(destination=one.place, source=source, options=options, idmap=idmap)
        return New(one, now, bind.open_tree())
    finally:
        os.close(fd)


def _opened(one: Followed) -> tuple[int, os.stat_result]:
    """Return an O_PATH descriptor of an ordinary file that nobody slipped in there, and what it is. Raises OSError."""
    parent, _, name = one.path.rpartition("/")
    resolve = path.RESOLVE_NO_SYMLINKS | path.RESOLVE_NO_MAGICLINKS
    directory = path.openat2(mount.AT_FDCWD, parent or "/", os.O_PATH | os.O_DIRECTORY, 0, resolve)
    try:
        fd = path.openat2(directory, name, os.O_PATH, 0, resolve | path.RESOLVE_BENEATH)
        info, above = os.fstat(fd), os.fstat(directory)
    finally:
        os.close(directory)
    is_foreign = above.st_mode & stat.S_ISVTX and info.st_uid not in (0, above.st_uid, one.owner)
    if is_foreign or not stat.S_ISREG(info.st_mode):
        os.close(fd)
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), one.path)
    return fd, info


def _underneath(root: int, place: str) -> int:
    """Return a descriptor of what a mount lay on, to mount the next one there. Raises OSError."""
    fd = path.open_in_root(root, place)
    if stat.S_ISREG(os.fstat(fd).st_mode) and mount.filesystem_magic(fd) != mount.PROC_SUPER_MAGIC:
        return fd
    os.close(fd)
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), place)
