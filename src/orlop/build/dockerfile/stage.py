"""A stage while it is compiled: its tree so far, its configuration, its variables, its history."""

from __future__ import annotations

from orlop.image.expand import Lexer, expand, expand_words
from orlop.spec.errors import Invalid, OrlopError
from orlop.spec.image import ContainerConfig

from ..graph import Origin, Step
from . import instructions as kinds
from . import lint as rules
from .history import LAYER, quoted
from .options import PROXIES
from .source import suggestion

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from orlop.spec.platform import Platform

    from ..graph import Vertex
    from .lint import Lint
    from .options import Options
    from .source import Source

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SHELL = ("/bin/sh", "-c")
SHOWN_CHARACTERS_MAX = 1000
EXPANDED_CHARACTERS_MAX = 64 * 1024 * 1024
_NOT_VARIABLES = frozenset(("BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"))


class Shared:
    """What all stages of one Dockerfile, for one platform, have in common.

    global_args: the ARGs before the first FROM, and the predefined ones. What variables are replaced by is counted over
    all of them: twenty thousand instructions that each expand to a megabyte are refused.
    """

    __slots__ = ("_expanded", "escape", "global_args", "lint", "options", "source")

    def __init__(self, source: Source, escape: str, global_args: dict[str, str], lint: Lint, options: Options) -> None:
        self.source = source
        self.escape = escape
        self.global_args = global_args
        self.lint = lint
        self.options = options
        self._expanded = 0

    def count(self, value: str) -> None:
        """Count what an expansion gave. Raises ValueError when it is too much in all."""
        self._expanded += len(value)
        if self._expanded > EXPANDED_CHARACTERS_MAX:
            raise ValueError(f"all expansions together have more than {EXPANDED_CHARACTERS_MAX} characters")


class Stage:
    """One stage. What instructions change is public and theirs to change.

    vertex: the tree so far. config: what is not in one of the next four. env, labels, ports, volumes: the image's.
    variables: what instructions see and commands get: ENV of the image and of here, ARG. An ENV always wins.
    args: the ARGs so far with their values, for the history. consumed: names that its ARGs asked for.
    steps: what is added to the base image's history. workdir_set, cmd_set: this stage says so itself.
    """

    def __init__(self, shared: Shared, title: str, vertex: Vertex, platform: Platform) -> None:
        self.source = shared.source
        self.escape = shared.escape
        self.lint = shared.lint
        self.options = shared.options
        self.global_args = shared.global_args
        self._shared = shared
        self.title = title
        self.vertex = vertex
        self.platform = platform
        self.config = ContainerConfig()
        self.env: dict[str, str] = {}
        self.labels: dict[str, str] = {}
        self.ports: dict[str, object] = {}
        self.volumes: dict[str, object] = {}
        self.variables: dict[str, str] = {}
        self.args: dict[str, str | None] = {}
        self.consumed: set[str] = set()
        self.author = ""
        self.steps: list[Step] = []
        self.workdir_set = False
        self.cmd_set = False
        self.step_count = 0
        self.step_total = 0
        self.on_build = False
        self._environment: tuple[str, ...] | None = None

    # -- where it begins ------------------------------------------------------------------------------------------

    def begin_with(self, config: ContainerConfig) -> None:
        """Take over a base image's configuration."""
        self.config = config.replace(env=(), labels={}, exposed_ports={}, volumes={}, on_build=())
        self.env = dict(entry.partition("=")[::2] for entry in config.env)
        self.env.setdefault("PATH", PATH)
        self.labels, self.ports = dict(config.labels), dict(config.exposed_ports)
        self.volumes = dict(config.volumes)
        self.variables = dict(self.env)

    def begin_after(self, base: Stage) -> None:
        """Take over what another stage has left, without its ONBUILD."""
        self.config = base.config.replace(on_build=())
        self.env, self.labels = dict(base.env), dict(base.labels)
        self.ports, self.volumes = dict(base.ports), dict(base.volumes)
        self.variables, self.args = dict(base.variables), dict(base.args)
        self.author, self.steps, self.workdir_set = base.author, list(base.steps), base.workdir_set

    def final_config(self) -> ContainerConfig:
        """Return the image's configuration as it is now."""
        return self.config.replace(
            env=tuple(f"{name}={value}" for name, value in self.env.items()),
            labels={**self.labels, **self.options.labels},
            exposed_ports=dict(sorted(self.ports.items())),
            volumes=dict(sorted(self.volumes.items())),
        )

    # -- variables ------------------------------------------------------------------------------------------------

    def set_env(self, name: str, value: str) -> None:
        """Set a variable of the image."""
        self.env[name] = self.variables[name] = value
        self._environment = None

    def set_arg(self, name: str, value: str | None) -> None:
        """Declare a build argument; it becomes a variable unless the image has one of that name."""
        self.args[name] = value
        if value is not None and name not in self.env and name not in _NOT_VARIABLES:
            self.variables[name] = value
            self._environment = None

    def environment(self) -> tuple[str, ...]:
        """Return what a command gets."""
        if self._environment is None:
            self._environment = tuple(f"{name}={value}" for name, value in self.variables.items())
        return self._environment

    def proxies(self) -> tuple[str, ...]:
        """Return the predefined build arguments that commands get though nobody declares them, in both spellings."""
        given = {name.upper(): value for name, value in self.options.build_args.items() if name.upper() in PROXIES}
        return tuple(f"{spelling}={given[name]}" for name in sorted(given) for spelling in (name, name.lower()))

    def expand(self, text: str, one: kinds.Instruction, *, report: bool = True) -> str:
        """Return a word with variables replaced and quotes taken off. report: note the names that are not set."""
        unset: set[str] = set()
        try:
            value = expand(text, self.variables, escape=self.escape, unset=unset)
            self._shared.count(value)
        except ValueError as wrong:
            self.wrong(one, f"failed to process {_short(text)}: {wrong}")
        if report:
            self._report_unset(unset, one)
        return value

    def expand_words(self, text: str, one: kinds.Instruction) -> list[str]:
        """Return the words of a text after the replacement of variables. Names that are not set are not noted."""
        self.expand(text, one, report=False)
        return expand_words(text, self.variables, escape=self.escape)

    def expand_document(self, text: str, one: kinds.Instruction) -> str:
        """Return the text of a here-document with variables replaced: its quotes are text."""
        unset: set[str] = set()
        try:
            value = Lexer(text, self.variables, plain_quotes=True, unset=unset).word()
            self._shared.count(value)
        except ValueError as wrong:
            self.wrong(one, f"failed to process a heredoc: {wrong}")
        self._report_unset(unset, one)
        return value

    def _report_unset(self, unset: set[str], one: kinds.Instruction) -> None:
        for name in sorted(unset - self.args.keys() - _NOT_VARIABLES):
            near = suggestion(name, set(self.variables)).replace("mean ", "mean $")
            self.lint.warn(rules.UNDEFINED_VAR, one, name, near)

    # -- what is said of it ---------------------------------------------------------------------------------------

    def wrong(self, one: kinds.Instruction, cause: str, *, hint: str = "") -> NoReturn:
        """Refuse an instruction."""
        self.source.wrong(one.lines, cause, hint=hint)

    def refuse(self, one: kinds.Instruction, error: OrlopError) -> NoReturn:
        """Refuse an instruction for what a value of it is."""
        cause = error.cause if isinstance(error, Invalid) else str(error)
        self.source.wrong(one.lines, cause, hint=error.hint)

    def origin(self, one: kinds.Instruction, *, counted: bool = False) -> Origin:
        """Return where an instruction stands; counted: it is a step of its own."""
        self.step_count += counted
        return Origin(
            file=self.source.name,
            lines=one.lines,
            text=("ONBUILD " if self.on_build else "") + self._shown(one),
            stage=self.title,
            step=self.step_count if counted else 0,
            steps=self.step_total if counted else 0,
        )

    def _shown(self, one: kinds.Instruction) -> str:
        text = one.original[len(one.word) :]
        try:
            text = Lexer(text, self.variables, escape=self.escape, keep_quotes=True, keep_unset=True).word()
        except ValueError:
            pass  # the shell's syntax, not ours
        text = f"{one.name}{text}"
        if isinstance(one, kinds.Run) and one.heredocs:
            first, *more = one.heredocs[0].content.strip().split("\n")
            text += f" ({first.rstrip()}{'...' if more else ''})"
        return text if len(text) <= SHOWN_CHARACTERS_MAX else text[:SHOWN_CHARACTERS_MAX] + "..."

    def record(self, created_by: str, one: kinds.Instruction) -> None:
        """Add an entry to the history for an instruction that makes no layer."""
        self.steps.append(Step(created_by=created_by, origin=self.origin(one)))

    def record_layer(self, created_by: str, vertex: Vertex) -> None:
        """Add an entry for the tree that the stage now has."""
        self.vertex = vertex
        self.steps.append(Step(created_by=created_by, vertex=vertex, origin=vertex.origin))

    def layer_text(self, text: str) -> str:
        """Return the history's text of what made a layer."""
        return text + LAYER


def _short(text: str) -> str:
    return quoted(text[:200])
