"""What a user is told of an image when a container is made of it."""

from __future__ import annotations

from ...spec.image import RESERVED_LABELS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...image.image import Image
    from ...spec.container import ContainerRequest
    from ..engine import Engine

SHOWN_MAX = 5


def notes(engine: Engine, image: Image | None, request: ContainerRequest) -> tuple[str, ...]:
    """Return warnings: that it is made for another machine, or has labels that only we may give (SEC-51)."""
    if image is None:
        return ()
    told = []
    if not request.platform and not engine.images.platform.runs(image.config.platform):
        told.append(
            f"The requested image's platform ({image.config.platform}) does not match the detected host platform "
            f"({engine.images.platform}) and no specific platform was requested"
        )
    reserved = sorted(name for name in image.config.config.labels if name.startswith(RESERVED_LABELS))
    if reserved:
        shown = ", ".join(name[:100] for name in reserved[:SHOWN_MAX])
        told.append(f"The image has labels that only orlop itself gives, which were left out: {shown}")
    return tuple(told)
