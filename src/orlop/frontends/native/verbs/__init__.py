"""The verbs of the native socket: what each takes, the one engine function it calls, how its result looks.

The rows are those of docs/ARCHITECTURE.md, "The engine's native socket": a module for each noun. An entry translates
and does nothing else.
"""

from . import (
    build,
    containers,
    control,
    engine,
    images,
    manifests,
    networks,
    owners,
    registries,
    rootfs,
    secrets,
    sockets,
    system,
    volumes,
)
from .call import Call, Reply, Verb

__all__ = ["VERBS", "Call", "Reply", "Verb"]

VERBS: dict[str, Verb] = {
    **engine.VERBS,
    **build.VERBS,
    **containers.VERBS,
    **control.VERBS,
    **images.VERBS,
    **manifests.VERBS,
    **rootfs.VERBS,
    **secrets.VERBS,
    **sockets.VERBS,
    **system.VERBS,
    **networks.VERBS,
    **owners.VERBS,
    **registries.VERBS,
    **volumes.VERBS,
}
