"""What holds for a whole build, decided once from the request."""

from __future__ import annotations

import base64
import time

from orlop.engine.containers.record import timestamp
from orlop.spec.container import ContainerRequest
from orlop.spec.errors import Invalid
from orlop.spec.platform import Platform

from .request import EPOCH_S_MAX
from .solver import keys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from orlop.spec.reference import Reference
    from orlop.spec.registry import Credentials

    from . import graph
    from .request import BuildRequest, SecretSource

    class Asked(Protocol):
        """Who is asked, while a build goes on, for what its request does not bring. Both raise Unavailable."""

        def secret(self, name: str) -> bytes | None:
            """Return a secret, None when there is none of that name."""

        def agent(self, name: str) -> str | None:
            """Return the path of a socket that leads to an SSH agent, None when there is none."""


# Not 0: zip archives can't say what lies before 1980 (APPNOTE, 4.4.6), so tools refuse files that do.
EPOCH_DEFAULT_S = 315_532_801
NO_HISTORY: dict[str, dict[str, str]] = {}


class Settings:
    """mtime_max_ns: no time of what is made is later. created: what the image says about its making (RFC 3339).

    before: what each place of this Dockerfile was made from the last time: place -> inputs.
    secrets: those that were given, and those that were asked for.
    """

    def __init__(self, request: BuildRequest, platform: Platform, salt: bytes, asked: Asked | None = None) -> None:
        self.request = request
        self.platform = platform
        self.salt = salt
        self.no_cache = request.no_cache
        self.no_cache_stages = frozenset(request.no_cache_stages)
        epoch_s = EPOCH_DEFAULT_S if request.source_date_epoch_s is None else request.source_date_epoch_s
        if not 0 <= epoch_s <= EPOCH_S_MAX:
            raise Invalid("build", "the image", f"the time {epoch_s} is not from 0 to {EPOCH_S_MAX}")
        self.mtime_max_ns = epoch_s * 10**9
        self.created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch_s))
        self.now = timestamp()
        self.hostname = ""  # of steps; "" is what they always have
        self.keeps = True  # whether the cache learns what steps made
        self.before: dict[str, dict[str, str]] = NO_HISTORY
        self.secrets = {secret.id: _data(secret) for secret in request.secrets}
        self._agents = {agent.id: agent.path for agent in request.agents}
        self._asked = asked

    def perturbed(self, hostname: str) -> Settings:
        """Return the settings of a build that is to make the same from the same, everything anew."""
        other = Settings(self.request, self.platform, self.salt, self._asked)
        other.secrets = self.secrets
        other.no_cache, other.keeps, other.hostname = True, False, hostname
        return other

    def secret(self, name: str) -> bytes | None:
        """Return a secret of the client's, None when it has none of that name. Raises Unavailable."""
        if name not in self.secrets and self._asked is not None and (data := self._asked.secret(name)) is not None:
            self.secrets[name] = data
        return self.secrets.get(name)

    def agent(self, name: str) -> str | None:
        """Return the path of the socket of an SSH agent of the client's, None when it has none. Raises Unavailable."""
        if name not in self._agents and self._asked is not None and (path := self._asked.agent(name)) is not None:
            self._agents[name] = path
        return self._agents.get(name)

    def credentials(self, reference: Reference) -> Credentials | None:
        """Return what the client gave for a repository, or for its registry."""
        given = self.request.credentials
        return given.get(reference.name) or given.get(reference.domain)

    def limits(self) -> ContainerRequest:
        """Return what every step's container has in common."""
        asked = self.request
        return ContainerRequest(
            hostname=self.hostname,
            network="" if asked.network == "default" else asked.network,
            extra_hosts=asked.extra_hosts,
            security_opt=asked.security_opt,
            dns=asked.dns,
            dns_options=asked.dns_options,
            dns_search=asked.dns_search,
            shm_bytes=asked.shm_bytes,
            ulimits=asked.ulimits,
            memory_bytes=asked.memory_bytes,
            memory_swap_bytes=asked.memory_swap_bytes,
            cpu_shares=asked.cpu_shares,
            cpu_period_us=asked.cpu_period_us,
            cpu_quota_us=asked.cpu_quota_us,
            cpuset_cpus=asked.cpuset_cpus,
            cpuset_mems=asked.cpuset_mems,
            cgroup_parent=asked.cgroup_parent,
        )

    def explain(self, vertex: graph.Vertex, inputs: dict[str, str]) -> list[str]:
        """Return why a step can't be what it was the last time."""
        before = self.before.get(place_of(vertex))
        if self.no_cache or vertex.origin.stage in self.no_cache_stages:
            return ["--no-cache was given"]
        if before is None:
            return ["it was not built before"]
        return keys.difference(inputs, before) or ["what it made the last time is gone, or was never whole"]


def place_of(vertex: graph.Vertex) -> str:
    """Return where in its Dockerfile a step stands."""
    return f"{vertex.origin.stage} {vertex.origin.step}"


def _data(secret: SecretSource) -> bytes:
    try:
        return base64.b64decode(secret.data, validate=True)
    except ValueError:
        cause = "its data is not base64"
        raise Invalid("build", f"secret {secret.id[:60]!r}", cause, hint="encode what the secret is") from None
