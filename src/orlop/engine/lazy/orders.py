"""What a server of layers is told, and what it answers: one JSON document each, on two pipes."""

import os

from ...spec.image import Descriptor
from ...spec.record import Record
from ...spec.registry import ANONYMOUS, Credentials

DIRECTORY = "lazy"  # below ORLOP_RUN: one for each server
LOCK, MOUNTED, MANIFEST, TROUBLE = "lock", "mnt", "manifest", "trouble"
ORDERS_FD, ANSWER_FD = 3, 4
ORDERS_BYTES_MAX = 1024 * 1024


class Orders(Record):
    """One image. root, run: the engine's directories; directory: the server's own, below run.

    reference: where the image is pulled from, by digest; manifest: its own, which lies in the store, as its
    configuration does. platform: whose image it is.
    """

    strict = True
    root: str
    run: str
    directory: str
    reference: str
    platform: str
    manifest: Descriptor
    credentials: Credentials = ANONYMOUS


class Answer(Record):
    """error: as of OrlopError, {} when the layers can be mounted. fetched: bytes that came for that."""

    error: dict[str, object] = {}
    fetched: int = 0


def remove_directory(directory: str) -> None:
    """Remove what a server had in its directory, once nothing is mounted there."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return
    for name in names:
        try:
            os.rmdir(f"{directory}/{name}") if name == MOUNTED else os.unlink(f"{directory}/{name}")
        except OSError:
            pass
    try:
        os.rmdir(directory)
    except OSError:
        pass  # the next engine does it
