"""What the cache of builds holds, as docker's API tells it."""

from __future__ import annotations

import time

from ...image import collection

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..engine import Engine


def usage(engine: Engine) -> list[dict[str, object]]:
    """Return docker's object of each record, the last used first. Sizes in bytes."""
    records = list(engine.step_cache.all())
    of_images = collection.mark(engine.store).blobs if records else set()
    found: dict[str, dict[str, object]] = {}
    for record, used in sorted(records, key=lambda pair: pair[1], reverse=True):
        name = record.chain_id or record.key
        if name in found:
            continue  # the same step under another name
        found[name] = {
            "ID": record.key,
            "Type": "regular",
            "Description": record.name,
            "InUse": False,
            "Shared": record.layer is not None and record.layer.digest in of_images,
            "Size": record.layer.size if record.layer is not None else 0,
            "CreatedAt": record.created,
            "LastUsedAt": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(used)),
            "UsageCount": 1,
        }
    return list(found.values())
