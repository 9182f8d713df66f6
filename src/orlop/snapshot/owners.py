"""Owners of files that this user namespace has no ids for: kept aside in an attribute, and shown again by archives.

A user without subordinate ids has one id, so that everything in an image is that user's on disk. Who it belongs to
otherwise is written beside it, and goes back into layers and archives that are made of the tree. Links and nodes take
no such attribute (xattr(7)): theirs is lost. Only where there is one id is the attribute believed: elsewhere whoever
may write a file in a container could claim it to be root's.
"""

from __future__ import annotations

import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..spec.tar import Member

XATTR = b"user.orlop.owner"
NOBODY = 65534
_ID_DIGITS_MAX = 10


def _is_single() -> bool:
    with open("/proc/self/uid_map", "rb") as file:
        fields = file.read(256).split()
    return len(fields) == 3 and fields[2] == b"1"


SINGLE = _is_single()


class Shift:
    """Owners in a tree that is seen through the ids of another user namespace: a running container's own.

    uids, gids: (id in there, id that we see, how many) of each range. An id that has no place in there is nobody's.
    """

    __slots__ = ("_gids", "_uids")

    def __init__(self, uids: Sequence[tuple[int, int, int]], gids: Sequence[tuple[int, int, int]]) -> None:
        self._uids = tuple(uids)
        self._gids = tuple(gids)

    def __str__(self) -> str:
        """Say what it does, the same for the same ranges."""
        return f"{self._uids} {self._gids}"

    def seen(self, uid: int, gid: int) -> tuple[int, int]:
        """Return how we see an owner of in there; -1, which is no change, stays."""
        return _moved(uid, self._uids), _moved(gid, self._gids)

    def inside(self, uid: int, gid: int) -> tuple[int, int]:
        """Return what an owner that we see is in there."""
        uids = [(theirs, own, count) for own, theirs, count in self._uids]
        gids = [(theirs, own, count) for own, theirs, count in self._gids]
        return _moved(uid, uids), _moved(gid, gids)


def _moved(number: int, ranges: Sequence[tuple[int, int, int]]) -> int:
    if number == -1:
        return -1
    return next((to + number - at for at, to, count in ranges if at <= number < at + count), NOBODY)


def give(target: int | str, uid: int, gid: int) -> bool:
    """Change the owner of a descriptor, or of a path that is not followed; False where its ids could not be kept.

    Raises OSError, EINVAL for ids that are not mapped where others are.
    """
    try:
        os.chown(target, uid, gid)
    except OSError as failure:
        if failure.errno != errno.EINVAL or not SINGLE:
            raise
    else:
        return True
    try:
        os.setxattr(target, XATTR, b"%d:%d" % (uid, gid))
    except OSError as failure:
        if failure.errno not in (errno.EPERM, errno.ENOTSUP):
            raise
        return False
    return True


def restore(member: Member, fd: int) -> None:
    """Give a member that is packed the owner that was kept aside, if there is one. fd: the file's, O_PATH will do."""
    if not SINGLE:
        return
    try:
        kept = os.getxattr(f"/proc/self/fd/{fd}", XATTR)
    except OSError:
        return
    uid, _, gid = kept.partition(b":")
    if uid.isdigit() and gid.isdigit() and max(len(uid), len(gid)) <= _ID_DIGITS_MAX:
        member.uid, member.gid = int(uid), int(gid)
