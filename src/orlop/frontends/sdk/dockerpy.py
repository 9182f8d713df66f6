"""docker-py, the SDK that programs for docker are written with, on this engine: what `orlop.docker` is.

It is docker-py itself, which has to be installed, with two differences: clients without an address talk to our
docker.sock, and an engine that does not run is started. DOCKER_HOST and a `base_url` mean what they mean to docker-py.
"""

from __future__ import annotations

import os
import sys
import types

import docker  # type: ignore[import-untyped]

from ...spec.errors import OrlopError
from . import door
from .transport import paths_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def address() -> str:
    """Return where our docker.sock is, of an engine that runs. Raises docker.errors.DockerException."""
    try:
        with door.connect() as engine:
            engine.info()
    except OrlopError as wrong:
        raise docker.errors.DockerException(str(wrong)) from wrong
    return f"unix://{paths_of('', '').docker_socket}"


class APIClient(docker.APIClient):  # type: ignore[misc]  # docker-py has no types
    """docker-py's, of this engine unless it is given another address."""

    def __init__(self, base_url: str | None = None, *args: Any, **options: Any) -> None:
        super().__init__(base_url or address(), *args, **options)


class DockerClient(docker.DockerClient):  # type: ignore[misc]  # as above
    """docker-py's, of this engine unless it is given another address."""

    def __init__(self, base_url: str | None = None, *args: Any, **options: Any) -> None:
        super().__init__(base_url or address(), *args, **options)


def from_env(**options: Any) -> DockerClient:
    """Return a client as docker-py's from_env does; without a DOCKER_HOST, of this engine."""
    environ = options.get("environment") or os.environ
    if environ.get("DOCKER_HOST"):
        return DockerClient.from_env(**options)  # type: ignore[no-any-return]  # as above
    return DockerClient(**{name: value for name, value in options.items() if name in ("version", "timeout")})


def fill(module: types.ModuleType) -> None:
    """Give a module everything that docker-py has, its submodules by their names too, and ours in place of its own."""
    own = {"APIClient": APIClient, "Client": APIClient, "DockerClient": DockerClient, "from_env": from_env}
    public = {name: value for name, value in vars(docker).items() if not name.startswith("__")}
    vars(module).update(public | own)
    module.__dict__["__version__"] = docker.__version__
    for name, value in list(sys.modules.items()):
        if name.startswith("docker."):
            sys.modules.setdefault(f"{module.__name__}.{name.removeprefix('docker.')}", value)
