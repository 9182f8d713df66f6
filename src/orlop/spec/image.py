"""The OCI image specification 1.1 as records: descriptor, manifest, index, image configuration, layout.

The Docker schema 2 documents have the same fields under other media types and are read by the same records.
Field names are the specifications', in snake_case. Unknown properties are ignored, as the specification demands:
whoever needs a document's digest keeps its bytes and never writes the record back in their place.
Source: OCI image-spec: descriptor.md, manifest.md, image-index.md, config.md, image-layout.md; moby's
image/spec (v1.2) for the fields that only docker has.
"""

from .digest import Digest
from .errors import Invalid
from .health import Healthcheck as Healthcheck
from .jsonio import parse_object
from .platform import Platform
from .record import Record

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = OCI_LAYER + "+gzip"
OCI_LAYER_ZSTD = OCI_LAYER + "+zstd"
LAYER_TYPES = {"": OCI_LAYER, "gzip": OCI_LAYER_GZIP, "zstd": OCI_LAYER_ZSTD}  # by their compression

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP = DOCKER_LAYER + ".gzip"

MANIFESTS = frozenset((OCI_MANIFEST, DOCKER_MANIFEST))
INDEXES = frozenset((OCI_INDEX, DOCKER_INDEX))
CONFIGS = frozenset((OCI_CONFIG, DOCKER_CONFIG))

REF_NAME = "org.opencontainers.image.ref.name"
LAYOUT_VERSION = "1.0.0"
RESERVED_LABELS = ("io.orlop.", "org.orlop.")  # ours to give: an image that brings one asks for power (SEC-51)


class Descriptor(Record):
    """What a blob is and how to prove it. size in bytes; data is base64, as in the document."""

    media_type: str
    digest: Digest
    size: int
    urls: tuple[str, ...] = ()
    annotations: dict[str, str] = {}
    data: str = ""
    artifact_type: str = ""
    platform: Platform | None = None

    def check(self) -> None:
        if self.size < 0:
            raise ValueError("size is negative")


class Manifest(Record):
    """One image: its configuration and its layers, the base layer first."""

    schema_version: int
    media_type: str = ""
    artifact_type: str = ""
    config: Descriptor
    layers: tuple[Descriptor, ...]
    subject: Descriptor | None = None
    annotations: dict[str, str] = {}


class Index(Record):
    """Images of one name for several platforms; also the index.json of an image layout."""

    schema_version: int
    media_type: str = ""
    artifact_type: str = ""
    manifests: tuple[Descriptor, ...]
    subject: Descriptor | None = None
    annotations: dict[str, str] = {}


class Layout(Record):
    """The oci-layout file."""

    image_layout_version: str


class ArchivedImage(Record):
    """One image in the manifest.json of docker's archives: names of its members, and of the image."""

    config: str
    repo_tags: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    json_names = {"config": "Config", "repo_tags": "RepoTags", "layers": "Layers"}


class ContainerConfig(Record):
    """How a container of the image runs, unless the user says otherwise ("config" of the image configuration).

    env: "NAME=value". exposed_ports: "port/protocol" -> {}. volumes: absolute path -> {}.
    """

    user: str = ""
    exposed_ports: dict[str, object] = {}
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    volumes: dict[str, object] = {}
    working_dir: str = ""
    labels: dict[str, str] = {}
    stop_signal: str = ""
    args_escaped: bool = False
    # docker's own, kept by OCI tools
    healthcheck: Healthcheck | None = None
    on_build: tuple[str, ...] = ()
    shell: tuple[str, ...] = ()
    stop_timeout: int | None = None
    hostname: str = ""
    domainname: str = ""
    network_disabled: bool = False
    json_names = {
        "user": "User",
        "exposed_ports": "ExposedPorts",
        "env": "Env",
        "entrypoint": "Entrypoint",
        "cmd": "Cmd",
        "volumes": "Volumes",
        "working_dir": "WorkingDir",
        "labels": "Labels",
        "stop_signal": "StopSignal",
        "args_escaped": "ArgsEscaped",
        "healthcheck": "Healthcheck",
        "on_build": "OnBuild",
        "shell": "Shell",
        "stop_timeout": "StopTimeout",
        "hostname": "Hostname",
        "domainname": "Domainname",
        "network_disabled": "NetworkDisabled",
    }


class RootFs(Record):
    """diff_ids: digests of the uncompressed layers, the base layer first."""

    type: str
    diff_ids: tuple[Digest, ...]
    json_names = {"diff_ids": "diff_ids"}

    def check(self) -> None:
        if self.type != "layers":
            raise ValueError(f"the root file system's type is {self.type!r}, not 'layers'")


class History(Record):
    """One step of the image's making. empty_layer: the step made no layer."""

    created: str = ""
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False
    json_names = {"created_by": "created_by", "empty_layer": "empty_layer"}


class ImageConfig(Record):
    """The image configuration; its digest is the image's ID. created: RFC 3339.

    cache: what BuildKit calls an inline cache, base64: how the image's steps are known to builders.
    """

    created: str = ""
    author: str = ""
    architecture: str
    variant: str = ""
    os: str
    os_version: str = ""
    os_features: tuple[str, ...] = ()
    config: ContainerConfig = ContainerConfig()
    rootfs: RootFs
    history: tuple[History, ...] = ()
    comment: str = ""
    docker_version: str = ""
    cache: str = ""
    json_names = {
        "os_version": "os.version",
        "os_features": "os.features",
        "docker_version": "docker_version",
        "cache": "moby.buildkit.cache.v0",
    }

    @property
    def platform(self) -> Platform:
        return Platform(
            os=self.os,
            architecture=self.architecture,
            variant=self.variant,
            os_version=self.os_version,
            os_features=self.os_features,
        )


def chain_ids(diff_ids: tuple[Digest, ...]) -> tuple[Digest, ...]:
    """Return the ChainID of every layer, the base layer first (config.md, "Layer ChainID").

    A ChainID names a layer together with all that lie below it.
    """
    out: list[Digest] = []
    for diff_id in diff_ids:
        out.append(Digest.of(f"{out[-1]} {diff_id}".encode()) if out else diff_id)
    return tuple(out)


def parse_manifest(data: bytes, media_type: str, subject: str) -> Manifest | Index:
    """Return the manifest or index that the bytes of a blob hold.

    media_type is what the descriptor or the registry called it. Raises Invalid for a document that could be read
    as something else than that (CVE-2021-41190, SEC-45), and for one of another kind.
    """
    document = parse_object(data, subject)
    declared = document.get("mediaType", "")
    if media_type not in MANIFESTS and media_type not in INDEXES:
        raise Invalid("read", subject, f"{media_type!r} is no media type of an image manifest")
    if declared and declared != media_type:
        raise Invalid("read", subject, f"it calls itself {declared!r} but was announced as {media_type!r}")
    is_index = media_type in INDEXES
    foreign = ("config", "layers", "fsLayers") if is_index else ("manifests", "fsLayers")
    for name in foreign:
        if name in document:
            raise Invalid("read", subject, f"{name!r} has no place in a document of type {media_type!r}")
    parsed = Index.from_json(document, subject) if is_index else Manifest.from_json(document, subject)
    if parsed.schema_version != 2:
        raise Invalid("read", subject, f"its schemaVersion is {parsed.schema_version}, not 2")
    return parsed
