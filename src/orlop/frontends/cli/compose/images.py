"""`orlop compose build`, `pull`, `push`, and what `up` does so that every service has its image."""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import dataclass

from ....spec.errors import Invalid, NotFound, OrlopError, Unavailable
from ....spec.reference import Reference
from ...compose import observed
from ...compose.document import wrong
from ..command import warn
from ..flags import BOOL, LIST, STRING, Flag
from ..images.pull import pull_image
from ..values import BYTES
from .context import Compose, command, only_says

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...compose.project import Project, Service

POLICIES = ("always", "missing", "never", "build", "if_not_present")


@dataclass(frozen=True)
class Making:
    """How images are made. policy: instead of the services' own pull_policy, "" for theirs."""

    policy: str = ""
    build: bool = False
    may_build: bool = True
    quiet: bool = False


def ensure(invocation: Compose, project: Project, services: Sequence[Service], making: Making = Making()) -> None:
    """Build or pull what is missing, as the services' pull_policy and the flags say.

    Raises Invalid for a policy that is not there, NotFound for what may not be made.
    """
    for service in services:
        chosen = making.policy if making.policy not in ("", "policy") else service.get("pull_policy", "missing")
        if chosen not in POLICIES:
            cause, hint = f"invalid pull policy {chosen!r}", f"known are {', '.join(POLICIES)}"
            if making.policy not in ("", "policy"):
                raise Invalid("use", f"--pull {chosen[:60]}", cause, hint=hint)
            place = service.config.places.get("pull_policy")
            raise wrong(place, f"services.{service.name}.pull_policy", cause, hint)
        is_here = _is_here(invocation, service)
        if "build" in service.config:
            if making.build or chosen == "build" or not is_here:
                if not making.may_build:
                    cause = f"No such image: {service.image}"
                    raise NotFound("use", f"image {service.image}", cause, hint="leave --no-build away", code="E0801")
                build_service(invocation, project, service, [])
        elif chosen == "always" or not is_here:
            if chosen == "never":
                cause = f"No such image: {service.image}"
                raise NotFound("use", f"image {service.image}", cause, hint=f"orlop pull {service.image}", code="E0801")
            pull_service(invocation, service, quiet=making.quiet)


def build_service(invocation: Compose, project: Project, service: Service, more: Sequence[str]) -> None:
    """Build a service's image by `orlop build`. more: flags for it. Raises Unavailable when it fails."""
    wish = service.config["build"]
    words = ["build", "--tag", service.image, *more]
    for tag in wish.get("tags", ()):
        words += ["--tag", tag]
    inline = wish.get("dockerfile_inline")
    with tempfile.NamedTemporaryFile("w", suffix=".Dockerfile") as file:
        if inline:
            file.write(inline)
            file.flush()
            words += ["--file", file.name]
        elif "dockerfile" in wish:
            words += ["--file", os.path.join(wish["context"], wish["dockerfile"])]
        words += _build_words(project, wish)
        if invocation.run([*words, wish["context"]]):
            raise Unavailable("build", f"service {service.name}", "the build failed", hint="its messages stand above")


def _build_words(project: Project, wish: dict[str, object]) -> list[str]:
    words = []
    for key, flag in (("args", "--build-arg"), ("labels", "--label")):
        for name, given in _pairs(wish.get(key)):
            passed = project.variables.get(name) if given is None else given
            if passed is not None:
                words += [flag, f"{name}={passed}"]
    for name, context in _pairs(wish.get("additional_contexts")):
        words += ["--build-context", f"{name}={context}"]
    for name, place in _pairs(wish.get("ssh")):
        words += ["--ssh", name if place is None else f"{name}={place}"]
    for name, limit in _limits(wish.get("ulimits")):
        words += ["--ulimit", f"{name}={limit}"]
    for key in ("target", "network", "shm_size", "isolation"):
        if key in wish:
            words += [f"--{key.replace('_', '-')}", str(wish[key])]
    for key in ("provenance", "sbom"):
        if key in wish:
            value = wish[key]
            words.append(f"--{key}={str(value).lower() if isinstance(value, bool) else value}")
    if wish.get("privileged"):
        words += ["--allow", "security.insecure"]  # what docker compose makes of it
    for key, flag in (("no_cache", "--no-cache"), ("pull", "--pull")):
        if wish.get(key):
            words.append(flag)
    for key, flag in (
        ("cache_from", "--cache-from"),
        ("cache_to", "--cache-to"),
        ("extra_hosts", "--add-host"),
        ("platforms", "--platform"),
        ("entitlements", "--allow"),
        ("no_cache_filter", "--no-cache-filter"),
    ):
        for value in _items(wish.get(key)):
            words += [flag, str(value)]
    for grant in _items(wish.get("secrets")):
        config = project.secrets[grant["source"]].config
        source = f"src={config['file']}" if "file" in config else f"env={config.get('environment', '')}"
        words += ["--secret", f"id={grant.get('target', grant['source'])},{source}"]
    return words


def _limits(value: object) -> list[tuple[str, str]]:
    """Return (name, SOFT:HARD) of ulimits."""
    return [(name, f"{one['soft']}:{one['hard']}") for name, one in value.items()] if isinstance(value, dict) else []


def _pairs(value: object) -> list[tuple[str, str | None]]:
    return list(value.items()) if isinstance(value, dict) else []


def _items(value: object) -> list[dict[str, str]]:
    return value if isinstance(value, list) else []


def pull_service(invocation: Compose, service: Service, *, quiet: bool = False) -> None:
    """Pull a service's image; what there is to say goes to standard error."""
    reference = Reference.parse(service.image).tagged()
    if not quiet:
        warn(f" {service.name} Pulling")
    with invocation.connect() as engine:
        output = None if quiet or not sys.stderr.isatty() else sys.stderr
        pull_image(engine, str(reference), platform=service.get("platform", ""), output=output)
    if not quiet:
        warn(f" {service.name} Pulled")


def _build(invocation: Compose) -> int:
    options = invocation.options
    project = invocation.project(invocation.arguments)
    services = project.chosen(invocation.arguments, with_dependencies=options["with-dependencies"])
    built = [one for one in services if "build" in one.config]
    if not built:
        warn("No services to build")
    if only_says(invocation, "build image", [one.image for one in built]):
        return 0
    more = [word for pair in options["build-arg"] for word in ("--build-arg", pair)]
    more += [f"--{name}" for name in ("no-cache", "pull", "push", "quiet") if options[name]]
    more += [word for key in options["ssh"] for word in ("--ssh", key)]
    more += ["--memory", str(options["memory"])] if options["memory"] else []
    for service in built:
        build_service(invocation, project, service, more)
    return 0


def _pull(invocation: Compose) -> int:
    options = invocation.options
    project = invocation.project(invocation.arguments)
    policy: str = options["policy"]
    if policy not in ("", "always", "missing"):
        raise Invalid("use", f"--policy {policy[:60]}", "invalid pull policy", hint="write missing or always")
    status = 0
    for service in project.chosen(invocation.arguments, with_dependencies=options["include-deps"]):
        if "build" in service.config and (options["ignore-buildable"] or "image" not in service.config):
            warn(f" {service.name} Skipped - No image to be pulled")
            continue
        if policy == "missing" and _is_here(invocation, service):
            warn(f" {service.name} Skipped - Image is already present locally")
            continue
        if only_says(invocation, "pull image", [service.image]):
            continue
        try:
            pull_service(invocation, service, quiet=options["quiet"])
        except OrlopError as error:
            if not options["ignore-pull-failures"]:
                raise
            warn(f"orlop: {error}")
            status = 0
    return status


def _is_here(invocation: Compose, service: Service) -> bool:
    with invocation.connect() as engine:
        return bool(observed.image_id(engine, service.image))


def _push(invocation: Compose) -> int:
    options = invocation.options
    project = invocation.project(invocation.arguments)
    for service in project.chosen(invocation.arguments, with_dependencies=options["include-deps"]):
        if "build" not in service.config:
            continue
        if "image" not in service.config:
            warn(f" {service.name} Skipped - it has no image: to be pushed to")
            continue
        if only_says(invocation, "push image", [service.image]):
            continue
        status = invocation.run(["push", *(["--quiet"] if options["quiet"] else []), service.image])
        if status and not options["ignore-push-failures"]:
            return status
    return 0


_SERVICES = "[OPTIONS] [SERVICE...]"
# fmt: off
BUILD = command(
    _build, "Build or rebuild services", _SERVICES,
    flags=(
        Flag("build-arg", "", LIST, "Set build-time variables for services"),
        Flag("memory", "m", BYTES, "Set memory limit for the build container", default=0),
        Flag("no-cache", "", BOOL, "Do not use cache when building the image", default=False),
        Flag("pull", "", BOOL, "Always attempt to pull a newer version of the image", default=False),
        Flag("push", "", BOOL, "Push service images", default=False),
        Flag("quiet", "q", BOOL, "Don't print anything to STDOUT", default=False),
        Flag("ssh", "", LIST, "Set SSH authentications used when building service images"),
        Flag("with-dependencies", "", BOOL, "Also build dependencies (transitively)", default=False),
    ),
    refused=("builder",),  # as of build: there is one
    arguments=(0, None),
)
PULL = command(
    _pull, "Pull service images", _SERVICES,
    flags=(
        Flag("ignore-buildable", "", BOOL, "Ignore images that can be built", default=False),
        Flag("ignore-pull-failures", "", BOOL, "Pull what it can and ignores images with pull failures", default=False),
        Flag("include-deps", "", BOOL, "Also pull services declared as dependencies", default=False),
        Flag("policy", "", STRING, 'Apply pull policy ("missing"|"always")', default=""),
        Flag("quiet", "q", BOOL, "Pull without printing progress information", default=False),
    ),
    arguments=(0, None),
)
PUSH = command(
    _push, "Push service images", _SERVICES,
    flags=(
        Flag("ignore-push-failures", "", BOOL, "Push what it can and ignores images with push failures", default=False),
        Flag("include-deps", "", BOOL, "Also push images of services declared as dependencies", default=False),
        Flag("quiet", "q", BOOL, "Push without printing progress information", default=False),
    ),
    arguments=(0, None),
)
# fmt: on
