"""A container's record becomes an OCI runtime spec. Pure: the same record on the same machine gives the same spec.

    config     the request over the image's configuration
    mounts     default mounts, the container's files, binds, tmpfs
    resources  limits and device rules
    security   capabilities, security options, masked paths
    spec       all of them, put together

The spec is docker's default one unless ours is safer; each difference stands at its place with the reason.
"""

from .spec import Compiled, container

__all__ = ["Compiled", "container"]
