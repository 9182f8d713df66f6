"""Images: names, manifests, configurations; import of archives; the image made from this host's programs."""

from .image import Image, Layer
from .images import Images

__all__ = ["Image", "Images", "Layer"]
