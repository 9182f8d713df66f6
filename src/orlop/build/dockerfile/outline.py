"""What `--call=outline`, `--call=targets` and `--check` say of a Dockerfile, as records."""

from orlop.image.expand import expand
from orlop.spec.errors import NotFound, OrlopError, Unavailable
from orlop.spec.image import ContainerConfig
from orlop.spec.platform import Platform
from orlop.spec.record import Record

from .. import graph
from . import instructions as kinds
from . import lint as rules
from .compile import Bases, Stages, checks_of, find_target
from .compile import compile as compile_graph
from .lint import Lint, Request, Warning
from .source import DockerfileError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .options import Options, ResolveConfig


class TargetEntry(Record):
    """A stage that can be built. default: it is what is built when nobody names one."""

    name: str = ""
    default: bool = False
    description: str = ""
    base: str = ""
    platform: str = ""
    lines: tuple[int, int] = (0, 0)


class Argument(Record):
    """A build argument that the target asks for. value: what it has."""

    name: str
    description: str = ""
    value: str = ""
    lines: tuple[int, int] = (0, 0)


class Need(Record):
    """A secret or an SSH agent that a step wants."""

    name: str
    required: bool = False
    lines: tuple[int, int] = (0, 0)


class Cache(Record):
    """A cache that a step mounts."""

    id: str


class Outline(Record):
    """What a target takes: arguments, secrets, agents, caches."""

    name: str = ""
    description: str = ""
    args: tuple[Argument, ...] = ()
    secrets: tuple[Need, ...] = ()
    ssh: tuple[Need, ...] = ()
    cache: tuple[Cache, ...] = ()


class Checked(Record):
    """What --check found. error: why the Dockerfile can't be built at all, with its lines."""

    warnings: tuple[Warning, ...] = ()
    error: str = ""
    error_lines: tuple[int, int] = (0, 0)
    failure: str = ""


def targets(dockerfile: kinds.Dockerfile) -> tuple[TargetEntry, ...]:
    """Return the stages, as --call=targets lists them."""
    last = len(dockerfile.stages) - 1
    return tuple(
        TargetEntry(
            name=stage.base.stage,
            default=stage.index == last,
            description=description(stage.base, stage.base.stage),
            base=stage.base.image,
            platform=stage.base.platform,
            lines=stage.base.lines,
        )
        for stage in dockerfile.stages
    )


def outline(dockerfile: kinds.Dockerfile, options: "Options", resolve_config: "ResolveConfig") -> Outline:
    """Return what the target takes. Raises DockerfileError, NotFound."""
    platform = (options.platforms or (options.build_platform,))[0]
    stages = Stages(dockerfile, options, platform, Bases(resolve_config), Lint(Request(skip_all=True)))
    stages.target()
    wanted = find_target(dockerfile, options.target)
    vertices = [step.vertex for _, stage in stages.needed() for step in stage.steps if step.vertex is not None]
    secrets: dict[str, Need] = {}
    agents: dict[str, Need] = {}
    caches: dict[str, Cache] = {}
    for vertex in dict.fromkeys(vertices):
        for mount in vertex.mounts if isinstance(vertex, graph.Run) else ():
            if isinstance(mount, graph.SecretMount):
                secrets.setdefault(mount.id, Need(name=mount.id, required=mount.required, lines=vertex.origin.lines))
            elif isinstance(mount, graph.SshMount):
                agents.setdefault(mount.id, Need(name=mount.id, required=mount.required, lines=vertex.origin.lines))
            elif isinstance(mount, graph.CacheMount):
                caches.setdefault(mount.id, Cache(id=mount.id))
    return Outline(
        name=wanted.base.stage,
        description=description(wanted.base, wanted.base.stage),
        args=tuple(sorted(_arguments(dockerfile, stages), key=lambda arg: arg.lines)),
        secrets=tuple(secrets.values()),
        ssh=tuple(agents.values()),
        cache=tuple(caches.values()),
    )


def check(dockerfile: kinds.Dockerfile, options: "Options", resolve_config: "ResolveConfig") -> Checked:
    """Return what the rules say of the target, or of all stages when none is named.

    A base image that is not at hand is taken for an empty one: what it would define is then not missed.
    """
    missing: list[str] = []
    unknown: list[tuple[str, OrlopError]] = []

    def resolve(reference: str, platform: Platform) -> ContainerConfig:
        try:
            return resolve_config(reference, platform)
        except NotFound:
            missing.append(reference)
        except Unavailable as wrong:
            unknown.append((reference, wrong))
        return ContainerConfig()

    error, lines = "", (0, 0)
    lint = Lint(Request())
    try:
        lint = Lint(checks_of(dockerfile, options))
        compile_graph(dockerfile, _of_all(options), resolve, lint)
    except DockerfileError as wrong:
        error, lines = wrong.cause, wrong.lines
    except NotFound as wrong:  # the target
        error = wrong.cause
    if unknown and not error:
        reference, why = unknown[0]
        bases = [stage.base for stage in dockerfile.stages]
        named = [base for base in bases if base.image == reference] or bases
        error, lines = f"{reference}: failed to resolve source metadata: {why}", named[0].lines
    skipped = rules.UNDEFINED_VAR.name if missing or unknown else ""
    warnings = tuple(one for one in lint.warnings if one.rule_name != skipped)
    return Checked(warnings=warnings, error=error, error_lines=lines, failure=lint.failure() if warnings else "")


def description(one: kinds.Instruction, name: str) -> str:
    """Return what a comment above an instruction says of a name: `# name text`."""
    for comment in reversed(one.comments):
        word, _, text = comment.partition(" ")
        if name and word.lower() == name.lower():
            return text.strip()
    return ""


def _of_all(options: "Options") -> "Options":
    return options if options.target else options.replace(all_stages=True)


def _arguments(dockerfile: kinds.Dockerfile, stages: Stages) -> "Iterator[Argument]":
    needed = stages.needed()
    used = _used_by_from(dockerfile, [written for written, _ in needed])
    seen: set[str] = set()
    for arg in dockerfile.global_args:
        for name, _ in arg.arguments:
            if name in used and name not in seen:
                seen.add(name)
                yield _argument(arg, name, stages.arguments.get(name))
    for written, stage in needed:
        last: dict[str, kinds.Arg] = {}
        for one in written.instructions:
            if isinstance(one, kinds.Arg):
                last.update((name, one) for name, default in one.arguments if default is not None or name not in last)
        for name, one in last.items():
            if name not in seen and not (name in stages.predefined and dict(one.arguments)[name] is None):
                seen.add(name)
                yield _argument(one, name, stage.args.get(name))


def _argument(one: kinds.Arg, name: str, value: str | None) -> Argument:
    return Argument(name=name, description=description(one, name), value=value or "", lines=one.lines)


def _used_by_from(dockerfile: kinds.Dockerfile, written: list[kinds.Stage]) -> set[str]:
    """Return the names that FROM uses and that stages take over, and those that their defaults use."""
    defaults = {name: default or "" for arg in dockerfile.global_args for name, default in arg.arguments}
    used: set[str] = set()
    texts = [text for stage in written for text in (stage.base.image, stage.base.platform)]
    taken = [one for stage in written for one in stage.instructions if isinstance(one, kinds.Arg)]
    texts += [f"${name}" for one in taken for name, default in one.arguments if default is None and name in defaults]
    while texts:
        found: set[str] = set()
        try:
            expand(texts.pop(), {}, escape=dockerfile.directives.escape, unset=found)
        except ValueError:
            pass  # ${name:?text}: the name is noted before it is refused
        texts += [defaults[name] for name in found - used if name in defaults]
        used |= found
    return used
