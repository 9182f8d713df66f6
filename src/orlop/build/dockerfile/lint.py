"""The rules that docker checks Dockerfiles against: their names, their words, and which of them are not asked for.

Most need nothing but the text and are checked here; those that need values (of variables, of the base image) are
reported by `compile`, which has them. Source: docker's documentation of build checks.
"""

import re

from orlop.spec.errors import Invalid
from orlop.spec.record import Record
from orlop.spec.reference import Reference

from . import instructions as kinds
from .fields import boolean
from .history import quoted

WARNINGS_MAX = 1000
_URL = "https://docs.docker.com/go/dockerfile/rule/"
_RESERVED = frozenset(("context", "scratch"))
_WORD = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_SECRET = re.compile(
    r"(?:_|^)(?:apikey|auth|credentials?|key|password|pword|passwd|secret|token)(?:_|$)", re.IGNORECASE
)
_NO_SECRET = re.compile(r"(?:_|^)(?:public|file|version)(?:_|$)", re.IGNORECASE)


class Rule(Record):
    """A rule. detail: what is said of one place, with {0}, {1} for what it is about. experimental: only on request."""

    name: str
    description: str
    detail: str
    experimental: bool = False

    @property
    def url(self) -> str:
        """Where docker explains it."""
        return f"{_URL}{_WORD.sub('-', self.name).lower()}/"


class Warning(Record):
    """One place that a rule is about. lines: the first and the last."""

    rule_name: str
    description: str
    url: str
    detail: str
    lines: tuple[int, int]


class Request(Record):
    """What `# check=` or BUILDKIT_DOCKERFILE_CHECK asks for. experimental: names of rules, or "all"."""

    skip: tuple[str, ...] = ()
    skip_all: bool = False
    error: bool = False
    experimental: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> "Request":
        """Return what a text such as `skip=A,B;error=true` asks for. Raises ValueError."""
        skip: tuple[str, ...] = ()
        experimental: tuple[str, ...] = ()
        error = False
        for part in filter(None, (part.strip() for part in text.split(";"))):
            name, equals, value = (piece.strip() for piece in part.partition("="))
            names = tuple(filter(None, (word.strip() for word in value.split(","))))
            if not equals or name not in ("skip", "error", "experimental"):
                raise ValueError(f'invalid check option "{part if not equals else name}"')
            if name == "skip":
                skip = names
            elif name == "experimental":
                experimental = names
            else:
                wanted = boolean(value)
                if wanted is None:
                    raise ValueError(f'failed to parse check option "{part}": invalid syntax')
                error = wanted
        return cls(skip=skip, skip_all="all" in skip, error=error, experimental=experimental)

    def wants(self, rule: Rule) -> bool:
        """Say whether a rule is to be checked."""
        if rule.experimental and rule.name not in self.experimental and "all" not in self.experimental:
            return False
        return not self.skip_all and rule.name not in self.skip


class Lint:
    """What is found in one Dockerfile. warnings: in the order in which it was found, each once."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self._found: dict[Warning, None] = {}

    @property
    def warnings(self) -> tuple[Warning, ...]:
        """What was found, by line."""
        return tuple(sorted(self._found, key=lambda warning: warning.lines))

    def warn(
        self, rule: Rule, instruction: kinds.Instruction, *about: str, lines: tuple[int, int] | None = None
    ) -> None:
        """Note that a rule is broken, unless nobody asks, or a comment above the instruction says so."""
        if not self.request.wants(rule) or len(self._found) >= WARNINGS_MAX:
            return
        if any(_comment_skips(comment, rule) for comment in instruction.comments):
            return
        self.note(rule, lines or instruction.lines, *about)

    def note(self, rule: Rule, lines: tuple[int, int], *about: str) -> None:
        """Note a broken rule at these lines."""
        if not self.request.wants(rule):
            return
        detail = rule.detail.format(*about)
        warning = Warning(rule_name=rule.name, description=rule.description, url=rule.url, detail=detail, lines=lines)
        self._found[warning] = None

    def failure(self) -> str:
        """Return why the build fails when warnings are to be errors, "" when it does not."""
        if not (self.request.error and self._found):
            return ""
        names = sorted({warning.rule_name for warning in self._found})
        return f"lint violation found for rules: {', '.join(names)}"


def _comment_skips(comment: str, rule: Rule) -> bool:
    name, _, value = comment.partition("=")
    if name.strip().lower() != "check":
        return False
    try:
        return not Request.parse(value).wants(rule)
    except ValueError:
        return False


def check_text(dockerfile: kinds.Dockerfile, lint: Lint) -> None:
    """Check the rules that need only the text."""
    _check_casing(dockerfile, lint)
    names: set[str] = set()
    for arg in dockerfile.global_args:
        _check_continuation(arg, lint)
        _check_description(arg, tuple(name for name, _ in arg.arguments), lint)
    for stage in dockerfile.stages:
        _check_stage_name(stage.base, names, lint)
        _check_instruction(stage.base, lint)
        _check_once(stage, lint)
        for instruction in stage.instructions:
            _check_instruction(instruction, lint)


def check_base(base: kinds.From, image: str, lint: Lint) -> None:
    """Check the name of a base image as it is when nobody gives build arguments."""
    try:
        Reference.parse(image)
    except Invalid:
        lint.warn(INVALID_DEFAULT_ARG_IN_FROM, base, base.image)


def _check_casing(dockerfile: kinds.Dockerfile, lint: Lint) -> None:
    every: list[kinds.Instruction] = []
    for stage in dockerfile.stages:
        every += [stage.base, *stage.instructions]
    lower = sum(one.word.islower() for one in every)
    upper = sum(one.word.isupper() for one in every)
    fits, casing = (str.islower, "lowercase") if lower > upper else (str.isupper, "uppercase")
    for one in every:
        if not fits(one.word):
            lint.warn(CONSISTENT_INSTRUCTION_CASING, one, one.word, casing)


def _check_stage_name(base: kinds.From, names: set[str], lint: Lint) -> None:
    if not base.stage:
        return
    if base.stage_as_written != base.stage:
        lint.warn(STAGE_NAME_CASING, base, base.stage_as_written)
    if (base.word.islower() and not base.keyword.islower()) or (base.word.isupper() and not base.keyword.isupper()):
        lint.warn(FROM_AS_CASING, base, base.keyword, base.word)
    if base.stage in _RESERVED:
        lint.warn(RESERVED_STAGE_NAME, base, quoted(base.stage))
    if base.stage in names:
        lint.warn(DUPLICATE_STAGE_NAME, base, quoted(base.stage))
    names.add(base.stage)
    _check_description(base, (base.stage,), lint)


def _check_description(one: kinds.Instruction, names: tuple[str, ...], lint: Lint) -> None:
    if one.comments and not any(one.comments[-1].split(None, 1)[0] == name for name in names):
        lint.warn(INVALID_DEFINITION_DESCRIPTION, one, one.name, names[0])


def _check_once(stage: kinds.Stage, lint: Lint) -> None:
    last: dict[type, kinds.Instruction] = {}
    for one in stage.instructions:
        if isinstance(one, kinds.Cmd | kinds.Entrypoint | kinds.Healthcheck):
            earlier = last.get(type(one))
            if earlier is not None:
                # The earlier one is the one that has no effect.
                lint.warn(MULTIPLE_INSTRUCTIONS_DISALLOWED, earlier, one.word)
            last[type(one)] = one


def _check_instruction(one: kinds.Instruction, lint: Lint) -> None:
    _check_continuation(one, lint)
    if isinstance(one, kinds.Maintainer):
        lint.warn(MAINTAINER_DEPRECATED, one)
    elif isinstance(one, kinds.Pairs):
        if one.legacy:
            lint.warn(LEGACY_KEY_VALUE_FORMAT, one, one.word)
        if isinstance(one, kinds.Env):
            _check_secrets(one, tuple(name for name, _ in one.pairs), lint)
    elif isinstance(one, kinds.Arg):
        names = tuple(name for name, _ in one.arguments)
        _check_secrets(one, names, lint)
        _check_description(one, names, lint)


def _check_continuation(one: kinds.Instruction, lint: Lint) -> None:
    if one.empty_continuation:
        last = one.lines[1]  # docker points at the end of the instruction
        lint.warn(NO_EMPTY_CONTINUATION, one, lines=(last, last))


def _check_secrets(one: kinds.Instruction, names: tuple[str, ...], lint: Lint) -> None:
    for name in names:
        if _SECRET.search(name) and not _NO_SECRET.search(name):
            lint.warn(SECRETS_USED_IN_ARG_OR_ENV, one, one.name, quoted(name))


def check_port(one: kinds.Expose, port: str, lint: Lint) -> None:
    """Check one port of an EXPOSE, its variables replaced."""
    protocol = port.partition("/")[2]
    if protocol != protocol.lower():
        lint.warn(EXPOSE_PROTO_CASING, one, port)
    if ":" in port:
        lint.warn(EXPOSE_INVALID_FORMAT, one, port)


def _rule(name: str, description: str, detail: str, *, experimental: bool = False) -> Rule:
    return Rule(name=name, description=description, detail=detail, experimental=experimental)


CONSISTENT_INSTRUCTION_CASING = _rule(
    "ConsistentInstructionCasing",
    "All commands within the Dockerfile should use the same casing (either upper or lower)",
    "Command '{0}' should match the case of the command majority ({1})",
)
COPY_IGNORED_FILE = _rule(
    "CopyIgnoredFile",
    "Attempting to Copy file that is excluded by .dockerignore",
    "Attempting to {0} file {1} that is excluded by .dockerignore",
)
DUPLICATE_STAGE_NAME = _rule(
    "DuplicateStageName",
    "Stage names should be unique",
    "Duplicate stage name {0}, stage names should be unique",
)
EXPOSE_INVALID_FORMAT = _rule(
    "ExposeInvalidFormat",
    "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a future "
    "release",
    "EXPOSE instruction should not define an IP address or host-port mapping, found '{0}'",
)
EXPOSE_PROTO_CASING = _rule(
    "ExposeProtoCasing",
    "Protocol in EXPOSE instruction should be lowercase",
    "Defined protocol '{0}' in EXPOSE instruction should be lowercase",
)
FROM_AS_CASING = _rule(
    "FromAsCasing",
    "The 'as' keyword should match the case of the 'from' keyword",
    "'{0}' and '{1}' keywords' casing do not match",
)
FROM_PLATFORM_FLAG_CONST_DISALLOWED = _rule(
    "FromPlatformFlagConstDisallowed",
    "FROM --platform flag should not use a constant value",
    "FROM --platform flag should not use constant value {0}",
)
INVALID_DEFAULT_ARG_IN_FROM = _rule(
    "InvalidDefaultArgInFrom",
    "Default value for global ARG results in an empty or invalid base image name",
    "Default value for ARG {0} results in empty or invalid base image name",
)
INVALID_DEFINITION_DESCRIPTION = _rule(
    "InvalidDefinitionDescription",
    "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is not "
    "intended to be a description comment, add an empty line or comment between the instruction and the comment.",
    "Comment for {0} should follow the format: `# {1} <description>`",
    experimental=True,
)
JSON_ARGS_RECOMMENDED = _rule(
    "JSONArgsRecommended",
    "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
    "JSON arguments recommended for {0} to prevent unintended behavior related to OS signals",
)
LEGACY_KEY_VALUE_FORMAT = _rule(
    "LegacyKeyValueFormat",
    "Legacy key/value format with whitespace separator should not be used",
    '"{0} key=value" should be used instead of legacy "{0} key value" format',
)
MAINTAINER_DEPRECATED = _rule(
    "MaintainerDeprecated",
    "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
    "Maintainer instruction is deprecated in favor of using label",
)
MULTIPLE_INSTRUCTIONS_DISALLOWED = _rule(
    "MultipleInstructionsDisallowed",
    "Multiple instructions of the same type should not be used in the same stage",
    "Multiple {0} instructions should not be used in the same stage because only the last one will be used",
)
NO_EMPTY_CONTINUATION = _rule(
    "NoEmptyContinuation",
    "Empty continuation lines will become errors in a future release",
    "Empty continuation line",
)
REDUNDANT_TARGET_PLATFORM = _rule(
    "RedundantTargetPlatform",
    "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
    "Setting platform to predefined {0} in FROM is redundant as this is the default behavior",
)
RESERVED_STAGE_NAME = _rule(
    "ReservedStageName",
    "Reserved words should not be used as stage names",
    "Stage name should not use the same name as reserved stage {0}",
)
SECRETS_USED_IN_ARG_OR_ENV = _rule(
    "SecretsUsedInArgOrEnv",
    "Sensitive data should not be used in the ARG or ENV commands",
    "Do not use ARG or ENV instructions for sensitive data ({0} {1})",
)
STAGE_NAME_CASING = _rule("StageNameCasing", "Stage names should be lowercase", "Stage name '{0}' should be lowercase")
UNDEFINED_ARG_IN_FROM = _rule(
    "UndefinedArgInFrom", "FROM command must use declared ARGs", "FROM argument '{0}' is not declared{1}"
)
UNDEFINED_VAR = _rule(
    "UndefinedVar", "Variables should be defined before their use", "Usage of undefined variable '${0}'{1}"
)
WORKDIR_RELATIVE_PATH = _rule(
    "WorkdirRelativePath",
    "Relative workdir without an absolute workdir declared within the build can have unexpected results if the base "
    "image changes",
    "Relative workdir {0} can have unexpected results if the base image changes",
)
RULES: dict[str, Rule] = {rule.name: rule for rule in tuple(globals().values()) if isinstance(rule, Rule)}
