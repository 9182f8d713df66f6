"""What a client says about registries: who it is there, and what the engine's verbs of images are asked for.

Places where images lie are written as skopeo's users write them: `docker://host/name:tag`, `oci:path:tag`, `dir:path`.
What is none of these words is a name in our own store; `orlop:NAME` says that in full (containers-transports(5)).
"""

from .errors import Invalid
from .record import Record
from .reference import Reference


class Elsewhere(Record):
    """What a user has for a place that stands in for a registry. host: as the configuration of registries names it."""

    strict = True
    host: str
    username: str = ""
    password: str = ""
    identity_token: str = ""
    registry_token: str = ""

    def __repr__(self) -> str:
        return "Elsewhere(...)"


class Credentials(Record):
    """What a user has for one registry. identity_token: an OAuth2 refresh token; registry_token: a bearer token as is.

    elsewhere: what the user has for its mirrors, each for its own host only. Never shown: a repr in a log would be a
    leak (SEC-74).
    """

    strict = True
    username: str = ""
    password: str = ""
    identity_token: str = ""
    registry_token: str = ""
    elsewhere: tuple[Elsewhere, ...] = ()

    def __repr__(self) -> str:
        return "Credentials(...)"

    @property
    def is_empty(self) -> bool:
        return not (self.password or self.identity_token or self.registry_token)

    def at(self, host: str) -> "Credentials":
        """Return what is for a mirror, nothing where nothing is kept for that very host."""
        found = next((one.to_json() for one in self.elsewhere if one.host == host), {})
        return Credentials.from_json({key: value for key, value in found.items() if key != "host"}, "credentials")


ANONYMOUS = Credentials()


class PullRequest(Record):
    """`orlop pull`. image: a reference; platform: "os/architecture[/variant]", "" is the machine's.

    all_tags: every tag of the repository; all_platforms: every image of an index; referrers: what refers to it comes
    along and stays with it: signatures, attestations. credentials: for the registry that
    the reference names, found by the client, whose helpers hold them. lazy: the image may run before its layers are
    here, where they can be read in part.
    """

    strict = True
    json_names = {"all_tags": "all_tags", "all_platforms": "all_platforms"}
    image: str
    platform: str = ""
    all_tags: bool = False
    all_platforms: bool = False
    referrers: bool = False
    lazy: bool = False
    credentials: Credentials = ANONYMOUS


class PushRequest(Record):
    """`orlop push`. image: a reference; all_tags: every tag of its repository here; platform: of an index only that."""

    strict = True
    json_names = {"all_tags": "all_tags"}
    image: str
    all_tags: bool = False
    platform: str = ""
    credentials: Credentials = ANONYMOUS


REGISTRY, LAYOUT, OCI_ARCHIVE, DOCKER_ARCHIVE, DIRECTORY, STORE = (
    "docker",
    "oci",
    "oci-archive",
    "docker-archive",
    "dir",
    "orlop",
)
TRANSPORTS = (REGISTRY, LAYOUT, OCI_ARCHIVE, DOCKER_ARCHIVE, DIRECTORY, STORE)
OTHERS = ("containers-storage", "docker-daemon", "ostree", "sif", "tarball")  # skopeo's that are no place of ours


class Location(Record):
    """One place. path: of the file or directory, absolute once a request has it; name: of the image there, or ""."""

    strict = True
    transport: str
    path: str = ""
    name: str = ""
    credentials: Credentials = ANONYMOUS

    @property
    def reference(self) -> Reference:
        """The image's reference. Raises Invalid where it has no proper one."""
        return Reference.parse(self.name).tagged()

    def __str__(self) -> str:
        if self.transport == REGISTRY:
            return f"docker://{self.name}"
        if self.transport == STORE:
            return self.name
        return ":".join(part for part in (self.transport, self.path, self.name) if part)


OCI, V2S2 = "oci", "v2s2"
PLAIN, GZIP, ZSTD = "uncompressed", "gzip", "zstd"
ESTARGZ = "estargz"  # gzip with a table of contents: such layers can be read in part
LEVELS_MAX = {GZIP: 9, ESTARGZ: 9, ZSTD: 22}


class ImageForm(Record):
    """How an image is to be written. types: OCI or V2S2, whose media types; compression: of its layers. "": as it is.

    level: of the compression, -1 is the usual one. keep_digests: refuse rather than write another image.
    """

    strict = True
    json_names = {"keep_digests": "keep_digests"}
    types: str = ""
    compression: str = ""
    level: int = -1
    keep_digests: bool = False

    def check(self) -> None:
        if self.types not in ("", OCI, V2S2):
            raise ValueError(f"there is no form {self.types[:40]!r}: it is {OCI} or {V2S2}")
        if self.compression not in ("", PLAIN, GZIP, ZSTD, ESTARGZ):
            raise ValueError(
                f"there is no compression {self.compression[:40]!r}: it is {PLAIN}, {GZIP}, {ZSTD} or {ESTARGZ}"
            )
        if self.types == V2S2 and self.compression == ESTARGZ:
            raise ValueError("docker's media types have no annotations, which eStargz needs")
        if self.types == V2S2 and self.compression == ZSTD:
            raise ValueError("docker's media types have none for layers with zstd")
        if not -1 <= self.level <= LEVELS_MAX.get(self.compression, -1):
            highest = LEVELS_MAX.get(self.compression)
            told = f"{self.compression} has the levels 0 to {highest}" if highest else "a level needs gzip or zstd"
            raise ValueError(told)


class CopyRequest(Record):
    """`orlop image copy` and `image sync`. platform: of an index the image for it; all_platforms: the index whole.

    referrers: what refers to it goes along: signatures, attestations. form: another one than it has.
    """

    strict = True
    json_names = {"all_platforms": "all_platforms"}
    source: Location
    destination: Location
    platform: str = ""
    all_platforms: bool = False
    referrers: bool = False
    form: ImageForm = ImageForm()


def parse_location(text: str) -> Location:
    """Return the place that a user's words name. Raises Invalid."""
    transport, colon, rest = text.partition(":")
    if not colon or transport not in TRANSPORTS:
        if colon and transport in OTHERS:
            hint = f"the places are {', '.join(f'{one}:' for one in TRANSPORTS)}"
            raise Invalid("use", text, f"orlop reads and writes no {transport}:", hint=hint)
        return Location(transport=STORE, name=text)
    if transport == STORE:
        return Location(transport=STORE, name=rest)
    if transport == REGISTRY:
        if not rest.startswith("//"):
            raise Invalid("use", text, "a registry's place begins with docker://", hint=f"write docker://{rest}")
        Reference.parse(rest[2:])
        return Location(transport=REGISTRY, name=rest[2:])
    path, _, name = (rest, "", "") if transport == DIRECTORY else rest.partition(":")
    if not path:
        raise Invalid("use", text, "it names no path", hint=f"write it like {transport}:PATH")
    return Location(transport=transport, path=path, name=name)
