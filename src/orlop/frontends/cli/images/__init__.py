"""The verbs of images and registries, as in `containers`."""
