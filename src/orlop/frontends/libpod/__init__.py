"""Podman's own API, libpod, for `podman --remote` and its bindings: on docker's sockets, below /libpod/.

    dialect     versions, the table of routes, the form of errors
    creation    podman's container (SpecGenerator) -> ContainerRequest
    shapes      what the engine tells of containers, in podman's objects
    containers images volumes networks secrets manifests build system   a table of routes each
    absent      what podman has and Orlop has not, refused by name

It is another language at the same door: connections, bodies, hijacked streams and every handler that means the same are
frontends.docker's. Nothing of it is imported before the first client of podman's comes.
"""
