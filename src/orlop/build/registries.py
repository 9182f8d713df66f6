"""Which registries a build may ask: whoever has the passwords gives those of these, and no others."""

from __future__ import annotations

import re

from orlop.spec.errors import OrlopError
from orlop.spec.reference import Reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from .request import BuildRequest

IMAGE_PREFIX, LAYOUT_PREFIX = "docker-image://", "oci-layout://"  # of named contexts
HUB = "docker.io"
_IMAGE = re.compile(r"^\s*FROM\s+(?:--\S+\s+)*(\S+)|--from=(\S+)|,from=([^,\s]+)", re.IGNORECASE | re.MULTILINE)


def hosts(dockerfile: str, names: Iterable[str]) -> list[str]:
    """Return the registries of the images that a Dockerfile's text names, and of names; sorted, docker.io always."""
    return sorted({HUB, *(one.domain for one in references(dockerfile, names))})


def references(dockerfile: str, names: Iterable[str]) -> list[Reference]:
    """Return the images that a Dockerfile's text names, and names, that are references."""
    found = []
    for name in (*(match[1] or match[2] or match[3] for match in _IMAGE.finditer(dockerfile)), *names):
        try:
            found.append(Reference.parse(name))
        except OrlopError:
            continue  # a stage's number, a variable
    return found


def names_of(request: BuildRequest) -> list[str]:
    """Return the references that a request itself names."""
    contexts = [one.removeprefix(IMAGE_PREFIX) for one in request.contexts.values() if one.startswith(IMAGE_PREFIX)]
    places = (*request.cache_from, *request.cache_to, *request.cache_mounts_from, *request.cache_mounts_to)
    caches = [place.reference for place in places if place.reference]
    arguments = [value for value in request.build_args.values() if "/" in value]  # FROM $BASE
    return [*request.tags, *contexts, *caches, *arguments, *(name for one in request.outputs for name in one.names)]
