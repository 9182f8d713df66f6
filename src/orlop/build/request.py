"""What a client asks of a build (`build.solve`). Strict; units in the names."""

from orlop.spec.container import UlimitRequest
from orlop.spec.errors import Invalid
from orlop.spec.record import Record
from orlop.spec.registry import Credentials

from .cache.places import CachePlace
from .output.wanted import Attestation, Output

EPOCH_S_MAX = 253_402_300_799  # the last second of the year 9999: no later one has a place in an image


def parse_epoch(text: str) -> int | None:
    """Return the seconds that SOURCE_DATE_EPOCH says, None for "". Raises Invalid, as BuildKit does."""
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 12 and int(text) <= EPOCH_S_MAX):
        cause = f"invalid SOURCE_DATE_EPOCH: {text[:40]!r} is no number from 0 to {EPOCH_S_MAX}"
        raise Invalid("build", "the image", cause, hint="give seconds since 1970, or none")
    return int(text)


class SecretSource(Record):
    """A secret of --secret. data: base64. Never shown."""

    strict = True
    id: str
    data: str

    def __repr__(self) -> str:
        return f"SecretSource(id={self.id!r}, data=...)"


class AgentSource(Record):
    """An SSH agent of --ssh. path: of its socket."""

    strict = True
    id: str
    path: str


class BuildRequest(Record):
    """`orlop build`.

    context: an absolute path of a folder, "" when an archive of it comes as a descriptor, or when there is none.
    archive: a descriptor comes, with the context as a tar archive or, with archive_is_dockerfile, the Dockerfile alone.
    remote: a git repository or an http(s) URL that is the context.
    dockerfile: its path in the context; dockerfile_text: itself, from elsewhere, with ignore_text beside it.
    contexts: named ones: an absolute path, docker-image://REFERENCE, oci-layout://PATH, a git or http(s) URL.
    tags: names of the image, () leaves it without. platforms: () is the machine's.
    no_cache_stages: stages whose steps are made anew. network, extra_hosts and the limits: of every step, as for `run`.
    allow: entitlements ("network.host", "security.insecure"). source_date_epoch_s: no time of the image is later.
    credentials: by registry host, as in docker's config.json, or by a repository's whole name.
    credentials, secrets: never written down.
    keep_failed: a failing step's tree stays, for `build shell`.
    verify: make every step once more and compare. secrets_policy: block, warn or off (build.output.scan).
    cache_from, cache_to: build.cache.places; their paths are absolute. cache_mounts_from, cache_mounts_to: the same of
    the steps' cache mounts; one that is here is not read.
    outputs: () is an image in our store. squash: the layers that are made become one.
    """

    strict = True
    context: str = ""
    archive: bool = False
    archive_is_dockerfile: bool = False
    remote: str = ""
    dockerfile: str = ""
    dockerfile_text: str | None = None
    ignore_text: str | None = None
    contexts: dict[str, str] = {}
    tags: tuple[str, ...] = ()
    build_args: dict[str, str] = {}
    labels: dict[str, str] = {}
    target: str = ""
    platforms: tuple[str, ...] = ()
    no_cache: bool = False
    no_cache_stages: tuple[str, ...] = ()
    pull: bool = False
    network: str = ""
    extra_hosts: tuple[str, ...] = ()
    security_opt: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    shm_bytes: int = 0
    ulimits: tuple[UlimitRequest, ...] = ()
    memory_bytes: int = 0
    memory_swap_bytes: int = 0
    cpu_shares: int = 0
    cpu_period_us: int = 0
    cpu_quota_us: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    cgroup_parent: str = ""
    secrets: tuple[SecretSource, ...] = ()
    agents: tuple[AgentSource, ...] = ()
    allow: tuple[str, ...] = ()
    source_date_epoch_s: int | None = None
    credentials: dict[str, Credentials] = {}
    keep_failed: bool = False
    verify: bool = False
    secrets_policy: str = "block"
    attestations: tuple[Attestation, ...] = ()
    outputs: tuple[Output, ...] = ()
    squash: bool = False
    cache_from: tuple[CachePlace, ...] = ()
    cache_to: tuple[CachePlace, ...] = ()
    cache_mounts_from: tuple[CachePlace, ...] = ()
    cache_mounts_to: tuple[CachePlace, ...] = ()
