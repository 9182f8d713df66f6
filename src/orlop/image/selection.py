"""Which image of an index is meant: the best for a machine, never an attestation about one.

Source: OCI image-spec, image-index.md; BuildKit's docs/attestations/attestation-storage.md for the annotation.
"""

from __future__ import annotations

from orlop.spec.platform import level

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from orlop.spec.image import Descriptor
    from orlop.spec.platform import Platform

ATTESTATION_OF = "vnd.docker.reference.digest"


def best_for(platform: Platform, manifests: Sequence[Descriptor]) -> Descriptor | None:
    """Return the manifest that suits a machine best: of those that run there the one for the highest variant."""
    fitting = [one for one in manifests if is_image(one) and (one.platform is None or platform.runs(one.platform))]
    if not fitting:
        return None
    return max(fitting, key=lambda one: level(one.platform) if one.platform is not None else -1)


def is_image(descriptor: Descriptor) -> bool:
    """Say whether an entry of an index is an image, not an attestation about one."""
    return ATTESTATION_OF not in descriptor.annotations
