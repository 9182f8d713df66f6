"""Layers that somebody serves while their content is still coming (`engine.lazy`): what stands for them meanwhile.

    <root>/lazy/<chain id>/layer.json   as of an unpacked one
                           fs.erofs     a link: to the file that is served, and to the unpacked tree once that is there

Containers are started on the link, whatever it leads to, so what was written down about their mounts stays true.
An unpacked layer comes first everywhere. Nothing is served after a reboot: what a link leads to then is not there.
"""

from __future__ import annotations

import os

from orlop.spec.digest import HEX_LENGTHS, Digest
from orlop.spec.jsonio import dump

from .unpack import layer_path, remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .record import LayerRecord
    from .snapshots import Snapshots

DIRECTORY = "lazy"
ALGORITHMS = {length: algorithm for algorithm, length in HEX_LENGTHS.items()}  # a directory is called as the hex
_LINK = "fs.erofs"


def lent(root: str) -> list[Digest]:
    """Return the ChainIDs of all layers that are lent, or were."""
    try:
        names = os.listdir(f"{root}/{DIRECTORY}")
    except FileNotFoundError:
        return []
    return [Digest(f"{ALGORITHMS[len(name)]}:{name}") for name in names if len(name) in ALGORITHMS]


def path(root: str, chain_id: Digest) -> str:
    """Return what a mount of the layer names."""
    return f"{record_directory(root, chain_id)}/{_LINK}"


def record_directory(root: str, chain_id: Digest) -> str:
    return f"{root}/{DIRECTORY}/{chain_id.hex}"


def is_served(root: str, chain_id: Digest) -> bool:
    """Tell whether the layer can be mounted now. False, too, when whoever served it has died."""
    return os.path.exists(path(root, chain_id))


def can_run(snapshots: Snapshots, chain_id: Digest) -> bool:
    """Tell whether a layer can be mounted, with all below it, although it is not unpacked."""
    chain = () if snapshots.has(chain_id) else snapshots.chain(chain_id)
    return bool(chain) and all(snapshots.has(one) or is_served(snapshots.root, one) for one in chain)


def is_partial(snapshots: Snapshots, chain_id: Digest) -> bool:
    """Tell whether a layer is here in part only, whether anybody serves it or not."""
    return not snapshots.has(chain_id) and was_lent(snapshots, chain_id)


def was_lent(snapshots: Snapshots, chain_id: Digest) -> bool:
    """Tell whether a layer is here in part only, or was."""
    return os.path.isdir(record_directory(snapshots.root, chain_id))


def lend(root: str, record: LayerRecord, target: str) -> None:
    """Let a file that is served stand for a layer. Raises OSError."""
    chain_id = record.chain[0]
    new = f"{root}/trash/{os.urandom(8).hex()}"
    os.makedirs(f"{root}/{DIRECTORY}", 0o700, exist_ok=True)
    os.mkdir(new, 0o700)
    with open(f"{new}/layer.json", "wb") as file:
        file.write(dump(record.to_json()))
    os.symlink(target, f"{new}/{_LINK}")
    try:
        os.rename(new, record_directory(root, chain_id))
    except OSError:  # one that was served before: its mounts go on with the file that they have
        _point(root, chain_id, target)
        remove_tree(root, new)


def settle(root: str, chain_id: Digest) -> None:
    """Let the unpacked tree stand for a layer that was served. One that was not stays as it is. Raises OSError."""
    if os.path.isdir(record_directory(root, chain_id)):
        _point(root, chain_id, f"{layer_path(root, chain_id)}/fs")


def forget(root: str, chain_id: Digest) -> None:
    """Take a layer back that no mount names. Raises Unavailable."""
    gone = f"{root}/trash/{os.urandom(8).hex()}"
    try:
        os.rename(record_directory(root, chain_id), gone)
    except FileNotFoundError:
        return
    remove_tree(root, gone)


def _point(root: str, chain_id: Digest, target: str) -> None:
    new = f"{root}/trash/{os.urandom(8).hex()}"
    os.symlink(target, new)
    os.rename(new, path(root, chain_id))
