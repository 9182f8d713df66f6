"""USER as docker writes it -> numbers, looked up in the container's own passwd and group."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..spec.runtime import Process


class Identity:
    """uid, gid, additional_gids as numbers; home: the passwd entry's directory, "/" without one."""

    __slots__ = ("additional_gids", "gid", "home", "uid")

    def __init__(self, uid: int, gid: int, additional_gids: tuple[int, ...], home: str) -> None:
        self.uid = uid
        self.gid = gid
        self.additional_gids = additional_gids
        self.home = home


def resolve(root_fd: int, user: str, groups: Sequence[str] = ()) -> Identity:
    """Return the identity that `user` ("", "uid", "name", "uid:gid", "name:group") means below root_fd.

    groups: more groups by name or number (`--group-add`). Raises NotFound with docker's texts, Invalid for a malformed
    user or an unusable passwd or group file.
    """
    raise NotImplementedError


def apply(process: Process, identity: Identity) -> Process:
    """Return the process with this user, and HOME where the environment has none."""
    raise NotImplementedError
