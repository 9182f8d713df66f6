"""What a build is asked for beside the Dockerfile, and what comes out of compiling it."""

from __future__ import annotations

from orlop.spec.platform import Platform
from orlop.spec.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from orlop.spec.image import ContainerConfig

    from ..graph import Target, Vertex
    from .lint import Warning

    ResolveConfig = Callable[[str, Platform], ContainerConfig]

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
# Build arguments that speak to the builder: they are nobody's variables, and nobody needs to declare them.
BUILTIN = frozenset(
    (
        *PROXIES,
        *(name.lower() for name in PROXIES),
        *("BUILDKIT_BUILD_NAME", "BUILDKIT_CACHE_MOUNT_NS", "BUILDKIT_CONTEXT_KEEP_GIT_DIR", "BUILDKIT_INLINE_CACHE"),
        *("BUILDKIT_MULTI_PLATFORM", "BUILDKIT_SANDBOX_HOSTNAME", "BUILDKIT_SYNTAX", "BUILDKIT_DOCKERFILE_CHECK"),
        *("BUILDKIT_DOCKERFILE_CHECK_EXPERIMENTAL", "BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"),
        "SOURCE_DATE_EPOCH",
    )
)


class Options(Record):
    """What the builder asks for.

    platforms: what the images are for, one target each. build_platform: this machine's. build_args: of --build-arg.
    target: a stage's name or index, "" is the last one. labels: for the image, over those of the Dockerfile.
    contexts: named contexts (--build-context): what each stands for. all_stages: compile also what nobody needs.
    ignores: says whether .dockerignore excludes a path of the main context for sure, for the check of it.
    """

    build_platform: Platform
    platforms: tuple[Platform, ...] = ()
    build_args: Mapping[str, str] = {}
    target: str = ""
    labels: Mapping[str, str] = {}
    contexts: Mapping[str, Vertex] = {}
    all_stages: bool = False
    ignores: Callable[[str], bool] | None = None


class Compiled(Record):
    """What a Dockerfile became. targets: one for each platform, in their order. warnings: what the rules say.

    unconsumed: names of build arguments that no ARG asked for. failure: why warnings end the build, "" when they don't.
    """

    targets: tuple[Target, ...]
    warnings: tuple[Warning, ...] = ()
    unconsumed: tuple[str, ...] = ()
    failure: str = ""
