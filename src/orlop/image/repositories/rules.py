"""What a registry permits and how long it keeps what nobody names."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

HOUR_S = 3600.0
FOREVER = float("inf")


class Rules:
    """Limits in bytes (0 is none) and times in seconds.

    quota_bytes: of one repository, each blob counted once.
    unused_s: how long a blob stays that no manifest of its repository mentions; a slower push starts over.
    untagged_s: how long a manifest stays that no tag, no index and no subject leads to.
    upload_s: how long an upload may rest.
    keep_last: how many tags of a repository stay, those of what was pushed last (0 is all); and besides keep_tags:
    patterns (fnmatch) of tags that always stay.
    total_bytes: of all repositories together. Who has more (a cache) forgets what was asked for longest ago.
    """

    __slots__ = (
        "keep_last",
        "keep_tags",
        "quota_bytes",
        "total_bytes",
        "untagged_s",
        "unused_s",
        "upload_s",
        "uploads_max",
    )

    def __init__(
        self,
        *,
        quota_bytes: int = 0,
        unused_s: float = 6 * HOUR_S,
        untagged_s: float = FOREVER,
        upload_s: float = HOUR_S,
        uploads_max: int = 1000,
        keep_last: int = 0,
        keep_tags: Sequence[str] = (),
        total_bytes: int = 0,
    ) -> None:
        self.quota_bytes = quota_bytes
        self.unused_s = unused_s
        self.untagged_s = untagged_s
        self.upload_s = upload_s
        self.uploads_max = uploads_max
        self.keep_last = keep_last
        self.keep_tags = tuple(keep_tags)
        self.total_bytes = total_bytes
