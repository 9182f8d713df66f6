"""The verbs `images.*`."""

from ....engine import images
from ....engine.caller import Sent
from ....spec.registry import CopyRequest, PullRequest, PushRequest
from .. import wire
from .call import Args, Call, Reply, Verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


class NamedImage(Args):
    image: str


class OfPlatform(Args):
    image: str
    platform: str = ""


class Mounted(Args):
    image: str
    path: str


class Held(Args):
    key: str


class Folded(Args):
    key: str
    name: str
    mtime_max_ns: int


class Compared(Args):
    old: str
    new: str


class Pull(Args):
    request: PullRequest


class Push(Args):
    request: PushRequest


class Copy(Args):
    request: CopyRequest


class List(Args):
    filters: dict[str, tuple[str, ...]] = {}
    platforms: bool = False


class Save(Args):
    images: tuple[str, ...]
    platform: str = ""


class Load(Args):
    platform: str = ""
    force: bool = False


class Tag(Args):
    image: str
    name: str


class Untag(Args):
    """names: () is all that the image has."""

    image: str
    names: tuple[str, ...] = ()


class Remove(Args):
    image: str
    force: bool = False
    prune: bool = True
    platforms: tuple[str, ...] = ()


class Prune(Args):
    all: bool = False
    packed: bool = False
    filters: dict[str, tuple[str, ...]] = {}


class Import(Args):
    name: str = ""
    changes: tuple[str, ...] = ()
    message: str = ""
    platform: str = ""


def _import(call: Call, args: Import) -> object:
    archive = Sent(call.archive("images.import"), call.hangup)
    return {"id": images.import_archive(call.engine, archive, args.name, args.changes, args.message, args.platform)}


def _pull(call: Call, args: Pull) -> Reply:
    from ....engine.images.pull import pull

    return told(pull(call.engine, args.request, call.hangup))


def _push(call: Call, args: Push) -> Reply:
    from ....engine.images.push import push

    return told(push(call.engine, args.request, call.hangup))


def _copy(call: Call, args: Copy) -> Reply:
    from ....engine.images.copy import copy

    return told(copy(call.engine, args.request, call.hangup))


def _sync(call: Call, args: Copy) -> Reply:
    from ....engine.images.copy import sync

    return told(sync(call.engine, args.request, call.hangup))


def _save(call: Call, args: Save) -> object:
    from ....engine.images import archives

    archives.save(call.engine, args.images, call.only_fd("images.save", "where to write"), args.platform)
    return {}


def _load(call: Call, args: Load) -> Reply:
    from ....engine.images import archives

    archive = Sent(call.archive("images.load"), call.hangup)
    return told(archives.load(call.engine, archive, args.platform, force=args.force))


def _list(call: Call, args: List) -> object:
    return images.summaries(call.engine, args.filters, platforms=args.platforms)


def _tree(call: Call, args: NamedImage) -> object:
    from ....engine.images import layers

    return layers.tree(call.engine, args.image)


def _diff(call: Call, args: Compared) -> object:
    from ....engine.images import layers

    return layers.diff(call.engine, args.old, args.new)


def _mount(call: Call, args: Mounted) -> object:
    from ....engine.images import mounts

    return mounts.mount(call.engine, args.image, args.path)


def _mounted(call: Call, _args: Args) -> object:
    from ....engine.images import mounts

    return mounts.mounted(call.engine)


def _release(call: Call, args: Held) -> object:
    from ....engine.images import mounts

    mounts.release(call.engine, args.key)
    return {}


def _fold(call: Call, args: Folded) -> object:
    from ....engine.images import mounts

    return {"id": mounts.fold(call.engine, args.key, args.name, args.mtime_max_ns)}


def _flatten(call: Call, args: NamedImage) -> object:
    from ....engine.images import mounts

    return {"id": mounts.flatten(call.engine, args.image)}


def _untag(call: Call, args: Untag) -> object:
    from ....engine.images import removal

    return {"names": removal.untag_all(call.engine, args.image, args.names)}


def _tag(call: Call, args: Tag) -> object:
    from ....engine.images import removal

    removal.tag(call.engine, args.image, args.name)
    return {}


def _remove(call: Call, args: Remove) -> object:
    from ....engine.images import platforms, removal

    if args.platforms:
        return platforms.remove_platforms(call.engine, args.image, args.platforms, force=args.force)
    return removal.remove(call.engine, args.image, force=args.force, prune=args.prune)


def _prune(call: Call, args: Prune) -> object:
    from ....engine.images import removal

    return removal.prune(call.engine, unused=args.all, filters=args.filters, packed=args.packed)


def told(messages: "Iterator[object]") -> Reply:
    """Return the reply of a verb that tells how far it is; the generator's value is its result."""

    def stream() -> "Iterator[bytes]":
        while True:
            try:
                message = next(messages)
            except StopIteration as end:
                yield wire.pack({"result": end.value if end.value is not None else {}})
                return
            yield wire.pack({"message": message})

    return Reply({"stream": True}, stream=stream())


VERBS: dict[str, Verb] = {
    "images.list": Verb(List, _list),
    "images.history": Verb(OfPlatform, lambda call, args: images.history(call.engine, args.image, args.platform)),
    "images.mount": Verb(Mounted, _mount, lasts=True),
    "images.mounted": Verb(Args, _mounted),
    "images.release": Verb(Held, _release),
    "images.fold": Verb(Folded, _fold, lasts=True),
    "images.flatten": Verb(NamedImage, _flatten, lasts=True),
    "images.tree": Verb(NamedImage, _tree),
    "images.diff": Verb(Compared, _diff, lasts=True),
    "images.save": Verb(Save, _save, lasts=True),
    "images.load": Verb(Load, _load, lasts=True),
    "images.inspect": Verb(OfPlatform, lambda call, args: images.inspect(call.engine, args.image, args.platform)),
    "images.import": Verb(Import, _import),
    "images.tag": Verb(Tag, _tag),
    "images.untag": Verb(Untag, _untag),
    "images.remove": Verb(Remove, _remove),
    "images.prune": Verb(Prune, _prune),
    "images.pull": Verb(Pull, _pull, lasts=True),
    "images.push": Verb(Push, _push, lasts=True),
    "images.copy": Verb(Copy, _copy, lasts=True),
    "images.sync": Verb(Copy, _sync, lasts=True),
}
