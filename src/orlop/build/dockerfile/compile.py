"""From stages to a graph: which stages are needed, what each stands on, what comes out.

Stages are compiled in the order of the file, those that the target does not need left out. A stage refers only to
earlier ones, so the graph has no cycles; nothing here calls itself for each stage, however many there are.
"""

from __future__ import annotations

import re
from bisect import bisect_left

from orlop.image.expand import expand
from orlop.spec.errors import Invalid, NotFound, OrlopError
from orlop.spec.image import ContainerConfig
from orlop.spec.platform import Platform
from orlop.spec.reference import Reference

from .. import graph
from . import instructions as kinds
from . import lint as rules
from .history import quoted
from .mounts import source_stage
from .options import BUILTIN, Compiled
from .parse import parse_trigger
from .source import DockerfileError, Source, suggestion
from .stage import Shared, Stage
from .steps import apply, makes_a_step, parse_platform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .options import Options, ResolveConfig

SCRATCH = "scratch"
_NAMES = re.compile(r"\$\{?(\w+)")
TRIGGERS_MAX = 1000
_NOT_CONTEXTS = ("", SCRATCH, "context")
_TRIGGER_DEPTH_MAX = 50


def compile(
    dockerfile: kinds.Dockerfile, options: Options, resolve_config: ResolveConfig, lint: rules.Lint | None = None
) -> Compiled:
    """Return the graph that builds the target for each platform.

    resolve_config gives the configuration of a base image; it may be slow, and is asked once for each image and
    platform. lint: collects warnings, also those before an error. Raises DockerfileError for what the Dockerfile says,
    and whatever resolve_config raises.
    """
    lint = lint or rules.Lint(checks_of(dockerfile, options))
    rules.check_text(dockerfile, lint)
    bases = Bases(resolve_config)
    targets = []
    consumed: set[str] = set()
    for platform in options.platforms or (options.build_platform,):
        stages = Stages(dockerfile, options, platform, bases, lint)
        targets.append(stages.target())
        consumed |= stages.consumed
    return Compiled(
        targets=tuple(targets),
        warnings=lint.warnings,
        unconsumed=tuple(sorted(options.build_args.keys() - consumed - BUILTIN)),
        failure=lint.failure(),
    )


def find_target(dockerfile: kinds.Dockerfile, name: str) -> kinds.Stage:
    """Return the stage that --target names, the last one for "". Raises NotFound."""
    if not name:
        return dockerfile.stages[-1]
    for stage in reversed(dockerfile.stages):
        if stage.base.stage == name.lower():
            return stage
    if name.isascii() and name.isdigit() and len(name) < 6 and int(name) < len(dockerfile.stages):
        return dockerfile.stages[int(name)]
    near = suggestion(name, [stage.base.stage for stage in dockerfile.stages if stage.base.stage])
    raise NotFound(
        "build",
        dockerfile.source.name,
        f'target stage "{name}" could not be found{near}',
        hint="see --call=targets",
        code="E1407",
    )


def global_arguments(
    dockerfile: kinds.Dockerfile, options: Options, platform: Platform, *, defaults: bool = False
) -> dict[str, str]:
    """Return what FROM sees: the predefined arguments, then the ARGs before it.

    defaults: as if nobody gave build arguments.
    """
    given = {} if defaults else options.build_args
    values = {
        **platform_arguments("BUILD", options.build_platform),
        **platform_arguments("TARGET", platform),
        "TARGETSTAGE": find_target(dockerfile, options.target).base.stage or "default",
    }
    # A predefined one may be given by its name without being declared.
    values.update((name, value) for name, value in given.items() if name in values)
    for arg in dockerfile.global_args:
        for name, default in arg.arguments:
            value = given.get(name)
            if value is None and default is not None:
                try:
                    value = expand(default, values, escape=dockerfile.directives.escape)
                except ValueError as wrong:
                    dockerfile.source.wrong(arg.lines, f'failed to process "{default[:200]}": {wrong}')
            if value is not None:
                values[name] = value
    return values


def platform_arguments(prefix: str, platform: Platform) -> dict[str, str]:
    """Return the predefined arguments of a platform. prefix: BUILD or TARGET."""
    return {
        f"{prefix}PLATFORM": str(platform),
        f"{prefix}OS": platform.os,
        f"{prefix}ARCH": platform.architecture,
        f"{prefix}VARIANT": platform.variant,
    }


def checks_of(dockerfile: kinds.Dockerfile, options: Options) -> rules.Request:
    """Return which rules the Dockerfile, or a build argument, asks for. Raises DockerfileError."""
    line = dockerfile.directives.checks_line
    text = options.build_args.get("BUILDKIT_DOCKERFILE_CHECK", dockerfile.directives.checks)
    more = options.build_args.get("BUILDKIT_DOCKERFILE_CHECK_EXPERIMENTAL", "")
    try:
        request = rules.Request.parse(text)
    except ValueError as wrong:
        dockerfile.source.wrong((line or 1, line or 1), f"failed to parse check options: {wrong}")
    return request.replace(experimental=tuple(more.split(","))) if more else request


class Bases:
    """Configurations of base images and the vertices of their trees, each once."""

    def __init__(self, resolve_config: ResolveConfig) -> None:
        self._resolve = resolve_config
        self._configs: dict[tuple[str, Platform], ContainerConfig] = {}
        self._vertices: dict[tuple[str, Platform], graph.ImageSource] = {}
        self.scratch = graph.Scratch()
        self.context = graph.Context()

    def config(self, reference: str, platform: Platform) -> ContainerConfig:
        key = reference, platform
        if key not in self._configs:
            self._configs[key] = self._resolve(reference, platform)
        return self._configs[key]

    def vertex(self, reference: str, platform: Platform, origin: graph.Origin) -> graph.ImageSource:
        key = reference, platform
        if key not in self._vertices:
            origin = origin.replace(text=f"FROM {whole_name(reference)}", written=origin.text)
            self._vertices[key] = graph.ImageSource(reference=reference, platform=platform, origin=origin)
        return self._vertices[key]


def whole_name(reference: str) -> str:
    """Return an image's whole name, as BuildKit shows it; an ID is one."""
    if reference.startswith("sha256:"):
        return reference
    try:
        return str(Reference.parse(reference).tagged())
    except OrlopError:
        return reference  # of a layout


class Stages:
    """The stages of one Dockerfile for one platform.

    arguments: what FROM sees; predefined: names of those that nobody needs to declare before it.
    consumed: names of the build arguments that something asked for, complete once there is a target.
    """

    def __init__(
        self, dockerfile: kinds.Dockerfile, options: Options, platform: Platform, bases: Bases, lint: rules.Lint
    ) -> None:
        self._dockerfile = dockerfile
        self._source = dockerfile.source
        self._options = options
        self._platform = platform
        self._bases = bases
        self._lint = lint
        self._contexts = {name: tree for name, tree in options.contexts.items() if name not in _NOT_CONTEXTS}
        self.arguments = global_arguments(dockerfile, options, platform)
        self._default_arguments = global_arguments(dockerfile, options, platform, defaults=True)
        self._shared = Shared(self._source, dockerfile.directives.escape, self.arguments, lint, options)
        self._names = self._expanded_names()
        self._compiled: dict[int, Stage] = {}
        self._indices: dict[str, list[int]] = {}
        for stage in dockerfile.stages:
            if stage.base.stage:
                self._indices.setdefault(stage.base.stage, []).append(stage.index)
        self._trigger_depth = 0
        declared = {name for arg in dockerfile.global_args for name, _ in arg.arguments}
        self.predefined = self.arguments.keys() - declared
        # Also those of stages that this target does without: whoever gives them means one of its siblings.
        asked = (one for stage in dockerfile.stages for one in stage.instructions if isinstance(one, kinds.Arg))
        self.consumed = declared | self.predefined | {name for one in asked for name, _ in one.arguments}

    def target(self) -> graph.Target:
        """Return the target, with everything that it needs compiled."""
        wanted = find_target(self._dockerfile, self._options.target)
        if self._options.all_stages:
            for each in self._dockerfile.stages:
                self._compile(each.index)
        stage = self._require(wanted.index)
        return graph.Target(
            vertex=stage.vertex,
            config=stage.final_config(),
            platform=stage.platform,
            steps=tuple(stage.steps),
            name=wanted.base.stage,
            author=stage.author,
        )

    def needed(self) -> list[tuple[kinds.Stage, Stage]]:
        """Return the stages that the target needed, as they are written and as they became."""
        return [(self._dockerfile.stages[index], stage) for index, stage in sorted(self._compiled.items())]

    # -- which stages are needed ----------------------------------------------------------------------------------

    def _expanded_names(self) -> list[str]:
        """Return what each FROM names."""
        names = []
        escape = self._dockerfile.directives.escape
        for stage in self._dockerfile.stages:
            base = stage.base
            unset: set[str] = set()
            try:
                name = expand(base.image, self.arguments, escape=escape, unset=unset)
                default = expand(base.image, self._default_arguments, escape=escape)
            except ValueError as wrong:
                self._source.wrong(base.lines, f'failed to process "{base.image[:200]}": {wrong}')
            self._report_unset(unset, base)
            rules.check_base(base, default, self._lint)
            if not name:
                self._source.wrong(base.lines, f"base name ({base.image}) should not be blank")
            names.append(name)
        return names

    def _report_unset(self, unset: set[str], base: kinds.From) -> None:
        declared = {name for arg in self._dockerfile.global_args for name, _ in arg.arguments}
        for name in sorted(unset - declared):
            near = suggestion(name, declared | self.arguments.keys())
            self._lint.warn(rules.UNDEFINED_ARG_IN_FROM, base, name, near)

    def _require(self, index: int) -> Stage:
        """Return a stage, compiled with everything that it needs."""
        needed = {index}
        for at in range(index, -1, -1):
            if at in needed and at not in self._compiled:
                needed |= self._needs(at)
        for at in sorted(needed):
            self._compile(at)
        return self._compiled[index]

    def _needs(self, index: int) -> set[int]:
        """Return the earlier stages that a stage names."""
        stage = self._dockerfile.stages[index]
        names = [self._names[index]]
        for one in stage.instructions:
            if isinstance(one, kinds.Copy) and one.source_stage:
                names.append(one.source_stage)
            elif isinstance(one, kinds.Run):
                names += filter(None, (_mount_source(text) for text in one.mounts))
        found = (self._earlier(name, index, by_index=at > 0) for at, name in enumerate(names))
        return {at for at in found if at is not None}

    def _earlier(self, name: str, before: int, *, by_index: bool = True) -> int | None:
        """Return the last stage before this one that is called so."""
        indices = self._indices.get(name.lower(), [])
        at = bisect_left(indices, before)
        if at:
            return indices[at - 1]
        if by_index and name.isascii() and name.isdigit() and len(name) < 6 and int(name) < before:
            return int(name)
        return None

    # -- one stage ------------------------------------------------------------------------------------------------

    def _compile(self, index: int) -> Stage:
        if index in self._compiled:
            return self._compiled[index]
        written = self._dockerfile.stages[index]
        stage, triggers = self._begin(written)
        self._triggers(stage, triggers, written)
        replaced = written.base.stage in self._contexts
        for one in () if replaced else written.instructions:
            apply(stage, one, lambda name, one: self._tree(stage, written, name, one))
        self._compiled[index] = stage
        self.consumed |= stage.consumed
        return stage

    def _begin(self, written: kinds.Stage) -> tuple[Stage, tuple[str, ...]]:
        """Return a stage as its FROM leaves it, and the ONBUILD triggers of what it stands on."""
        name = self._names[written.index]
        alone = len(self._dockerfile.stages) == 1
        platform = self._stage_platform(written.base)
        stage = Stage(self._shared, "" if alone else written.title, self._bases.scratch, platform or self._platform)
        stage.step_total = sum(makes_a_step(one) for one in written.instructions)
        # A named context called like a stage stands for the whole of it.
        context = self._given(written.base.stage, stage.platform, stage.origin(written.base))
        earlier = self._earlier(name, written.index, by_index=False)
        if context is None and earlier is not None:
            base = self._compiled[earlier]
            stage.begin_after(base)
            stage.vertex = base.vertex
            stage.platform = base.platform
            return stage, base.config.on_build
        if context is None and name == SCRATCH:
            stage.begin_with(ContainerConfig(working_dir="/"))
            return stage, ()
        stage.step_total += 1
        stage.vertex = context or self._outside(
            name, stage.platform, written.base, stage.origin(written.base, counted=True)
        )
        config = self._config_of(stage.vertex, stage.platform, written.base)
        stage.begin_with(config)
        return stage, config.on_build

    def _stage_platform(self, base: kinds.From) -> Platform | None:
        if not base.platform:
            return None
        unset: set[str] = set()
        escape = self._dockerfile.directives.escape
        try:
            text = expand(base.platform, self.arguments, escape=escape, unset=unset)
        except ValueError as wrong:
            self._source.wrong(base.lines, f"failed to process arguments for platform {base.platform}: {wrong}")
        self._report_unset(unset, base)
        if not text:
            near = self._near(unset)
            self._source.wrong(base.lines, f"empty platform value from expression {base.platform}{near}")
        try:
            platform = parse_platform(text, self._options.build_platform)
        except Invalid as wrong:
            cause = f"failed to parse platform {base.platform}: {wrong.cause}{self._near(unset)}"
            self._source.wrong(base.lines, cause, hint=wrong.hint)
        alone = set(_NAMES.findall(base.platform)) == {"TARGETPLATFORM"}
        if alone and text == self.arguments.get("TARGETPLATFORM"):
            self._lint.warn(rules.REDUNDANT_TARGET_PLATFORM, base, base.platform)
        named = platform.os in base.stage or platform.architecture in base.stage
        if "$" not in base.platform and not named:
            self._lint.warn(rules.FROM_PLATFORM_FLAG_CONST_DISALLOWED, base, quoted(base.platform))
        return platform

    def _near(self, unset: set[str]) -> str:
        """Return what somebody may have meant by the first name that is not set and resembles a known one."""
        return next(filter(None, (suggestion(name, set(self.arguments)) for name in sorted(unset))), "")

    def _triggers(self, stage: Stage, triggers: tuple[str, ...], written: kinds.Stage) -> None:
        """Do what the base image's ONBUILD says, before anything else."""
        if len(triggers) > TRIGGERS_MAX:
            self._source.wrong(written.base.lines, f"its base image has more than {TRIGGERS_MAX} ONBUILD triggers")
        parsed = []
        for trigger in triggers:
            try:
                one = parse_trigger(trigger, Source(f"ONBUILD of {self._names[written.index]}", ""))
            except DockerfileError as wrong:
                self._source.wrong(written.base.lines, f"its base image's ONBUILD {trigger[:100]!r}: {wrong.cause}")
            parsed.append(one.replace(lines=written.base.lines))
        stage.step_total += sum(map(makes_a_step, parsed))
        stage.on_build = True
        for one in parsed:
            apply(stage, one, lambda name, one: self._tree(stage, written, name, one))
        stage.on_build = False

    # -- what names stand for -------------------------------------------------------------------------------------

    def _tree(self, stage: Stage, written: kinds.Stage, name: str, one: kinds.Instruction) -> graph.Vertex:
        """Return the tree that --from or from= names; "" is the build's context."""
        if not name:
            return self._bases.context
        earlier = self._earlier(name, written.index)
        if earlier is not None:
            return self._on_demand(earlier, one).vertex
        for other in self._dockerfile.stages[written.index :]:
            if name.lower() == other.base.stage:
                self._refuse_later(written, other, name, one)
        if name.isascii() and name.isdigit():
            self._source.wrong(one.lines, f"invalid stage index {name}")
        if name.lower() == SCRATCH:
            return self._bases.scratch
        return self._outside(name, self._platform, one, stage.origin(one))

    def _refuse_later(self, written: kinds.Stage, other: kinds.Stage, name: str, one: kinds.Instruction) -> None:
        if other.index == written.index:
            self._source.wrong(one.lines, f"circular dependency detected on stage: {name}")
        self._source.wrong(
            one.lines,
            f'cannot copy from stage "{name}", it needs to be defined before current stage "{written.title}"',
        )

    def _on_demand(self, index: int, one: kinds.Instruction) -> Stage:
        """Return an earlier stage; one that only a base image's ONBUILD names is compiled now."""
        if index in self._compiled:
            return self._compiled[index]
        if self._trigger_depth >= _TRIGGER_DEPTH_MAX:
            self._source.wrong(one.lines, "ONBUILD of base images leads through too many stages")
        self._trigger_depth += 1
        stage = self._require(index)
        self._trigger_depth -= 1
        return stage

    def _given(self, name: str, platform: Platform, origin: graph.Origin) -> graph.Vertex | None:
        """Return a named context; an image's for the platform that is wanted here."""
        found = self._contexts.get(name)
        if isinstance(found, graph.ImageSource) and found.platform is None:
            return self._bases.vertex(found.reference, platform, origin)
        return found

    def _outside(self, name: str, platform: Platform, one: kinds.Instruction, origin: graph.Origin) -> graph.Vertex:
        """Return the tree of a named context or an image."""
        try:
            reference = Reference.parse(name)
        except Invalid as wrong:
            if (context := self._given(name, platform, origin)) is not None:
                return context
            self._source.wrong(one.lines, f'failed to parse stage name "{name[:200]}": {wrong.cause}', hint=wrong.hint)
        for spelling in (name, name.lower(), reference.familiar, reference.familiar.removesuffix(":latest")):
            if (context := self._given(spelling, platform, origin)) is not None:
                return context
        return self._bases.vertex(name, platform, origin)

    def _config_of(self, vertex: graph.Vertex, platform: Platform, base: kinds.From) -> ContainerConfig:
        if not isinstance(vertex, graph.ImageSource):
            return ContainerConfig()
        try:
            return self._bases.config(vertex.reference, vertex.platform or platform)
        except NotFound as missing:
            names = [stage.base.stage for stage in self._dockerfile.stages if stage.base.stage]
            near = suggestion(vertex.reference, names)
            if not near:
                raise
            self._source.wrong(base.lines, f"{missing.cause}{near}", hint=missing.hint)


def _mount_source(text: str) -> str:
    try:
        return source_stage(text)
    except ValueError:
        return ""  # refused where the mount is read
