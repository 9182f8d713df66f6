"""A container's request in the words of other tools: `show-run --as compose|kube|quadlet`.

Each module has one function, which takes a `ContainerRequest` and the container's name, and returns what it makes of
them together with the fields of the request that the other tool has no words for: these are said, never left out
silently.
"""
