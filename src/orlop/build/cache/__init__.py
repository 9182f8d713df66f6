"""Caches that leave the engine: what steps have made, in a folder, in a registry, or in the image itself."""
