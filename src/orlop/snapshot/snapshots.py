"""File systems from layers: each layer extracted once under its ChainID, a writable one for each key above them.

    <root>/layers/<chain id>/fs/           the layer's tree
                             layer.json    LayerRecord
           unpacking/<chain id>/           a layer on its way: see `unpack`
           active/<key>/upper/ work/       a container's own layer, or tree/, or disk.ext4: see `drivers`
                        parent             the ChainID it stands on, or NO_PARENT
                        driver             how it stands there; none is overlay2
           whole/<chain id>/ or .erofs     all layers of an image as one subvolume, or file (drivers btrfs, erofs)
           driver                          of new writable layers, where one was chosen
           trash/                          what is being made for active/, and what is being removed

Invariants:
1. A directory in layers/ is complete, has the diff_id it was asked for, and survived a power failure (syncfs) before
   its rename. It never changes again.
2. Every open Snapshots holds a shared lock (flock) on the root. Whoever opens it and gets the exclusive one is alone:
   all that lies in unpacking/ and trash/ then belongs to the dead and is removed.
3. Nothing is mounted here: `prepare` says which mount makes the root file system, somebody else makes it (I4).
"""

from __future__ import annotations

import errno
import fcntl
import functools
import os
import threading
from contextlib import closing

from orlop.linux.path import read_file
from orlop.spec.digest import HEX_LENGTHS, Digest
from orlop.spec.errors import Conflict, Invalid, NotFound, OrlopError, Unavailable
from orlop.spec.image import chain_ids
from orlop.spec.jsonio import DOCUMENT_BYTES_MAX, parse
from orlop.spec.runtime import Mount

from . import drivers, lent, removal
from .record import LayerRecord, Usage
from .unpack import Arrival, Unpack, complete, discard, is_opaque, layer_path, remove_tree, shifted, unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .owners import Shift
    from .unpack import Layer

KEY_LENGTH_MAX = 128
NO_PARENT = "none"
_ALGORITHMS = {length: algorithm for algorithm, length in HEX_LENGTHS.items()}  # a layer's directory is its hex
_KEY = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
_REPAIR = "have it written anew: orlop system fsck --repair"


class Snapshots:
    """The snapshots below one directory, which is made (mode 0700) when it is not there.

    Opening it sweeps what died writers left. driver: the name of that of new writable layers; "" for the one that was
    chosen last; afterwards the driver. Raises Invalid for a name that is none, Unavailable where it can't be used here.
    """

    def __init__(self, root: str, driver: str = "") -> None:
        self.root = root
        try:
            os.makedirs(root, 0o700, exist_ok=True)
            for name in ("layers", "unpacking", "active", "trash"):
                os.makedirs(f"{root}/{name}", 0o700, exist_ok=True)
            self._lock_fd = os.open(root, removal.DIRECTORY_FLAGS)
        except OSError as error:
            raise unavailable("open", f"snapshots {root}", error) from None
        try:
            self._sweep()
            self.driver = drivers.chosen(root, driver)
        except BaseException as error:
            self.close()
            if isinstance(error, OSError):
                raise unavailable("open", f"snapshots {root}", error) from None
            raise

    def close(self) -> None:
        """Give up the lock: the next one that opens the directory may sweep it."""
        os.close(self._lock_fd)

    def unpack(self, layers: Sequence[Layer], shift: Shift | None = None) -> Digest | None:
        """Extract what is missing of these layers and return the ChainID of the last one (None for no layers).

        layers: (diff_id, function that opens the blob, compressed or not), the base layer first.
        shift: makes trees of their own, with other owners; what is returned then names the topmost of those.
        Raises Invalid when a layer is broken, hostile or not the one its diff_id says; then nothing of it stays.
        """
        chain = chain_ids(tuple(diff_id for diff_id, _ in layers))
        if not chain:
            return None
        names = tuple(shifted(chain_id, shift) for chain_id in chain) if shift else chain
        present = len(chain)
        while present and not self.has(names[present - 1]):
            present -= 1
        if present < len(chain):
            Unpack(self.root, layers, chain, shift).run(present)
        return names[-1]

    def prepare(self, key: str, parent: Digest | None, *, inside: bool = False) -> tuple[Mount, ...]:
        """Make a writable layer called key above the layer `parent`; return what makes it a root file system.

        One Mount of type overlay: a "lowerdir=" option for each layer, the topmost first, then upperdir= and workdir=.
        Without parent, and of some drivers, it is one bind mount. inside: it will be mounted where no program of ours
        can be started any more. Raises NotFound for the parent, Conflict when the key is taken.
        """
        directory = self._active(key)
        lower = self._lower(parent)
        driver = drivers.without_program(self.driver) if inside else self.driver
        new = f"{self.root}/trash/{os.urandom(8).hex()}"
        try:
            os.mkdir(new, 0o700)
            driver.fill(self.root, new, lower, parent)
            with open(f"{new}/parent", "w") as file:
                file.write(parent or NO_PARENT)
            if driver.name != drivers.DEFAULT:
                drivers.write_note(new, driver.name)
            os.rename(new, directory)
        except OSError as error:
            remove_tree(self.root, new)
            if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
                raise Conflict("prepare", f"snapshot {key}", "there is one of that name already") from None
            raise unavailable("prepare", f"snapshot {key}", error) from None
        return driver.mounts(directory, lower)

    def mounts(self, key: str) -> tuple[Mount, ...]:
        """Return what `prepare` returned for the key. Raises NotFound, Unavailable for layers that nobody serves."""
        parent = self._parent(key)
        if parent is not None:
            for layer in self.chain(parent) if not self.has(parent) else ():
                if not self.has(layer) and not lent.is_served(self.root, layer):
                    cause = "it was read from its registry while it came, and nobody does that any more"
                    raise Unavailable("mount", f"layer {layer}", cause, hint="pull its image")
        return self.writable(key).mounts()

    def writable(self, key: str) -> drivers.Writable:
        """Return the layer called key, for what depends on its driver. Raises NotFound."""
        return drivers.Writable(self.root, self._active(key), self._lower(self._parent(key)))

    def remove(self, key: str) -> None:
        """Remove the layer called key, whatever its processes left there. Raises NotFound, Unavailable."""
        remove_tree(self.root, self.withdraw(key))

    def withdraw(self, key: str) -> str:
        """Take the layer called key out of sight; return its path in the trash, for `dispose`.

        Raises NotFound, Unavailable.
        """
        gone = f"{self.root}/trash/{os.urandom(8).hex()}"
        try:
            os.rename(self._active(key), gone)
        except FileNotFoundError:
            raise self._missing(key) from None
        except OSError as error:
            raise unavailable("remove", f"snapshot {key}", error) from None
        return gone

    def rename(self, key: str, new: str) -> None:
        """Give a writable layer, which nothing has mounted, another key. Raises NotFound, Conflict."""
        try:
            os.rename(self._active(key), self._active(new))
        except FileNotFoundError:
            raise self._missing(key) from None
        except OSError:
            raise Conflict("rename", f"snapshot {key}", f"there is one called {new} already") from None

    def adopt(self, key: str, diff_id: Digest, later: Callable[[Callable[[], None]], object] | None = None) -> Digest:
        """Make the writable layer called key a layer above what it stands on; return its ChainID. The key is gone then.

        The caller knows that its upper directory is the tree that an archive with this diff_id makes, and that nothing
        uses it any more. later: is given the removal of what is left of it, which otherwise a thread does.
        Raises NotFound, Unavailable.
        """
        parent = self._parent(key)
        below = self._record(parent).chain if parent is not None else ()
        chain_id = chain_ids((parent, diff_id))[-1] if parent is not None else diff_id
        if not self.has(chain_id):
            self._adopt(key, LayerRecord(diff_id=diff_id, chain=(chain_id, *below), entries=0))
        gone = self.withdraw(key)
        tidy = functools.partial(self._remove_quietly, gone)
        if later is not None:
            later(tidy)
        else:  # nobody waits for it: where the layer was there already, this is a whole tree
            threading.Thread(target=tidy, name="trash", daemon=True).start()
        return chain_id

    def trees(self, chain_id: Digest | None) -> tuple[str, ...]:
        """Return the trees of an unpacked layer and of those below it, the topmost first. Raises NotFound."""
        return self._lower(chain_id)

    def chain(self, chain_id: Digest) -> tuple[Digest, ...]:
        """Return the ChainIDs from a layer down to its base; () where it is not unpacked."""
        try:
            return self._record(chain_id).chain
        except NotFound:
            return ()

    def has(self, chain_id: Digest) -> bool:
        """Tell whether a layer is unpacked."""
        return os.path.isdir(self._layer(chain_id))

    def keys(self, prefix: str = "") -> list[str]:
        """Return the keys of all writable layers that begin with prefix."""
        return [key for key in os.listdir(f"{self.root}/active") if key.startswith(prefix)]

    def unpacked(self) -> dict[Digest, Digest]:
        """Return the ChainID of each unpacked layer -> the same; of a tree with other owners -> the image's own."""
        names = {name: _ALGORITHMS.get(len(name)) for name in os.listdir(f"{self.root}/layers")}
        found = (Digest(f"{algorithm}:{name}") for name, algorithm in names.items() if algorithm)
        return {chain_id: self._origin(chain_id) for chain_id in found}

    def in_use(self) -> set[Digest]:
        """Return the ChainIDs of the layers that a writable layer stands on, all the way down."""
        used: set[Digest] = set()
        for key in self.keys():
            try:
                parent = self._parent(key)
                if parent is not None and parent not in used:
                    used |= set(self._record(parent).chain)
            except NotFound:
                continue  # it was removed meanwhile
        return used

    def retire(self, chain_id: Digest) -> str:
        """Take an unpacked layer out of sight and return its path in the trash, for `dispose`.

        Whether something stands on it is the caller's to know.
        """
        gone = f"{self.root}/trash/{os.urandom(8).hex()}"
        try:
            os.rename(self._layer(chain_id), gone)
        except OSError as error:
            raise unavailable("remove", f"layer {chain_id}", error) from None
        for name, place in (("", "tree"), (".erofs", "image")):
            try:
                os.rename(f"{self.root}/whole/{chain_id.hex}{name}", f"{gone}/{place}")
            except OSError:
                pass  # no writable layer stood on it, or none by that driver
        lent.forget(self.root, chain_id)
        return gone

    def dispose(self, path: str) -> None:
        """Remove what lies at path: in the trash, or of a dead writer in unpacking/. Raises Unavailable.

        That nothing is there is no error: a sweep or a repair was faster.
        """
        try:
            discard(self.root, path)
        except FileNotFoundError:
            pass

    def layer_usage(self, chain_id: Digest) -> Usage:
        """Return what an unpacked layer occupies. Raises NotFound."""
        from .usage import measure

        try:
            return measure(self._layer(chain_id))
        except FileNotFoundError:
            raise _not_unpacked(chain_id) from None

    def directory(self, key: str) -> str:
        """Return where the layer called key lies: its upper/ and work/. Raises Invalid for what is no key."""
        return self._active(key)

    def usage(self, key: str) -> Usage:
        """Return what the layer called key itself occupies. Raises NotFound."""
        try:
            return self.writable(key).usage()
        except FileNotFoundError:
            raise self._missing(key) from None

    # -- layers -----------------------------------------------------------------------------------------------------

    def _layer(self, chain_id: Digest) -> str:
        return layer_path(self.root, chain_id)

    def _adopt(self, key: str, record: LayerRecord) -> None:
        try:
            with closing(Arrival(self.root, 0, record.chain[0])) as arrival:
                if arrival.is_there:
                    return  # another one brought it while we waited for the lock
                os.rename(f"{self._active(key)}/upper", f"{arrival.path}/fs")
                arrival.write(record)
                complete(self.root, [arrival])
        except OSError as error:
            raise unavailable("adopt", f"snapshot {key}", error) from None

    def _origin(self, chain_id: Digest) -> Digest:
        try:
            origin = self._record(chain_id).origin
        except OrlopError:
            return chain_id  # it was removed meanwhile, or is broken: `fsck` says so
        return Digest.parse(origin) if origin else chain_id

    def _lower(self, chain_id: Digest | None) -> tuple[str, ...]:
        """Return the trees below a writable layer, the topmost first."""
        if chain_id is None:
            return ()
        lower = []
        is_whole = self.has(chain_id)  # with all that lies below it
        for layer in self._record(chain_id).chain:
            here = is_whole or self.has(layer)
            lower.append(f"{self._layer(layer)}/fs" if here else lent.path(self.root, layer))
            if is_opaque(lower[-1]):
                break
        return tuple(lower)

    def _record(self, chain_id: Digest) -> LayerRecord:
        for directory in (self._layer(chain_id), lent.record_directory(self.root, chain_id)):
            path = f"{directory}/layer.json"
            try:
                return LayerRecord.from_json(parse(read_file(path, DOCUMENT_BYTES_MAX), path), path)
            except FileNotFoundError:
                continue
            except OSError as wrong:
                cause = os.strerror(wrong.errno or 0)
                raise Unavailable("read", path, cause, hint=_REPAIR) from None
            except Invalid as wrong:
                raise Invalid("read", path, wrong.cause, hint=_REPAIR) from None
        raise _not_unpacked(chain_id)

    # -- keys, trash ------------------------------------------------------------------------------------------------

    def _active(self, key: str) -> str:
        if not key or len(key) > KEY_LENGTH_MAX or key[0] in ".-" or not _KEY.issuperset(key):
            raise Invalid("use", f"snapshot key {key[:KEY_LENGTH_MAX]!r}", "it is not a name of [A-Za-z0-9_.-]")
        return f"{self.root}/active/{key}"

    def _parent(self, key: str) -> Digest | None:
        """Return the ChainID that the layer called key stands on. Raises NotFound."""
        try:
            parent = read_file(path := f"{self._active(key)}/parent", 256).decode(errors="replace")
        except FileNotFoundError:
            raise self._missing(key) from None
        except OSError as wrong:
            raise unavailable("read", path, wrong) from None
        if not parent:
            cause = "its parent file is empty: it was made just before a power failure"
            raise Unavailable("mount", f"snapshot {key}", cause)
        return None if parent == NO_PARENT else Digest.parse(parent)

    def _remove_quietly(self, path: str) -> None:
        try:
            remove_tree(self.root, path)
        except Unavailable:
            pass  # it stays in the trash, for the next sweep

    def _missing(self, key: str) -> NotFound:
        return NotFound("find", f"snapshot {key}", f"No such snapshot: {key}")

    def _sweep(self) -> None:
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pass
        else:
            for name in os.listdir(f"{self.root}/unpacking"):
                os.rename(f"{self.root}/unpacking/{name}", f"{self.root}/trash/{os.urandom(8).hex()}")
            for name in drivers.orphans(self.root):
                os.rename(f"{self.root}/whole/{name}", f"{self.root}/trash/{os.urandom(8).hex()}")
            trash = os.open(f"{self.root}/trash", removal.DIRECTORY_FLAGS)
            try:
                removal.empty(trash)
            except OSError:
                pass  # something immutable or busy: it stays in the trash, where it hinders nobody
            finally:
                os.close(trash)
        fcntl.flock(self._lock_fd, fcntl.LOCK_SH)


def _not_unpacked(chain_id: Digest) -> NotFound:
    hint = "unpack the image first"
    return NotFound("prepare", f"layer {chain_id}", f"layer {chain_id} is not unpacked", hint=hint)
