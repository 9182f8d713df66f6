"""The instructions of a Dockerfile as records: one for each kind, as it is written, with variables still in it."""

from orlop.spec.health import Healthcheck as HealthcheckConfig
from orlop.spec.record import Record

from .lines import Directives, Heredoc
from .source import Source


class Instruction(Record):
    """What all have. word: as it is written ("run"); original: all of it, joined; lines: first, last."""

    word: str
    original: str
    lines: tuple[int, int]
    comments: tuple[str, ...] = ()
    empty_continuation: int = 0
    heredocs: tuple[Heredoc, ...] = ()

    @property
    def name(self) -> str:
        """The instruction's name in capitals."""
        return self.word.upper()


class From(Instruction):
    """FROM. stage: its name in lower case, "" without AS; stage_as_written and keyword (AS): as they are written."""

    image: str
    platform: str = ""
    stage: str = ""
    stage_as_written: str = ""
    keyword: str = ""


class Arg(Instruction):
    """ARG. arguments: (name, default or None)."""

    arguments: tuple[tuple[str, str | None], ...]


class Pairs(Instruction):
    """ENV and LABEL. pairs: (name, value); legacy: in the old form, `ENV name value`."""

    pairs: tuple[tuple[str, str], ...]
    legacy: bool = False


class Env(Pairs):
    """ENV."""


class Label(Pairs):
    """LABEL."""


class Command(Instruction):
    """CMD, ENTRYPOINT, SHELL. words: in shell form one, or none when nothing follows the instruction."""

    words: tuple[str, ...]
    is_json: bool


class Cmd(Command):
    """CMD."""


class Entrypoint(Command):
    """ENTRYPOINT."""


class Shell(Command):
    """SHELL, always in JSON form."""


class Run(Command):
    """RUN. mounts: the values of --mount; devices: those of --device."""

    mounts: tuple[str, ...] = ()
    network: str = ""
    security: str = ""
    devices: tuple[str, ...] = ()


class Copying(Instruction):
    """COPY and ADD. sources: paths and URLs, here-documents left out (they are in heredocs, in their order)."""

    sources: tuple[str, ...]
    destination: str
    chown: str = ""
    chmod: str = ""
    link: bool = False
    exclude: tuple[str, ...] = ()


class Copy(Copying):
    """COPY. source_stage: the value of --from."""

    source_stage: str = ""
    parents: bool = False


class Add(Copying):
    """ADD. keep_git_dir, unpack: None when the flag is not given."""

    checksum: str = ""
    keep_git_dir: bool | None = None
    unpack: bool | None = None


class Expose(Instruction):
    """EXPOSE."""

    ports: tuple[str, ...]


class Volume(Instruction):
    """VOLUME."""

    paths: tuple[str, ...]


class User(Instruction):
    """USER."""

    user: str


class Workdir(Instruction):
    """WORKDIR."""

    path: str


class StopSignal(Instruction):
    """STOPSIGNAL."""

    signal: str


class Maintainer(Instruction):
    """MAINTAINER."""

    maintainer: str


class Healthcheck(Instruction):
    """HEALTHCHECK."""

    health: HealthcheckConfig


class OnBuild(Instruction):
    """ONBUILD. trigger: the instruction, with its here-documents."""

    trigger: str


class Stage(Record):
    """A FROM and what follows it. index: of the stage in the file, from 0."""

    index: int
    base: From
    instructions: tuple[Instruction, ...] = ()

    @property
    def name(self) -> str:
        """What others call it: its name, or its index."""
        return self.base.stage or str(self.index)

    @property
    def title(self) -> str:
        """What progress and errors call it."""
        return self.base.stage or f"stage-{self.index}"


class Dockerfile(Record):
    """A whole Dockerfile. global_args: the ARGs before the first FROM."""

    source: Source
    directives: Directives
    global_args: tuple[Arg, ...]
    stages: tuple[Stage, ...]
