"""What a build is made of: a graph of vertices, each of which is one file tree.

The Dockerfile compiler writes graphs, the solver reads them; nobody else knows both. A graph holds what was asked for
and nothing of this machine: no digest of a file, no path of an engine.

Invariants:
1. A vertex is immutable and compared by identity: two stages that share a base share the object.
2. A vertex refers only to vertices that were made before it: a graph has no cycles.
3. Paths inside trees are absolute and use "/"; a trailing slash of a Copy's destination is kept, it means a directory.
4. Variables are expanded; users and groups are names still, since only the tree says who they are.
"""

from __future__ import annotations

from orlop.spec.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from orlop.spec.image import ContainerConfig
    from orlop.spec.platform import Platform

SHARED, PRIVATE, LOCKED = "shared", "private", "locked"  # of a cache mount
DEFAULT, NONE, HOST = "default", "none", "host"  # networks of a step
SANDBOX, INSECURE = "sandbox", "insecure"  # security of a step
MAIN_CONTEXT = ""


class Identical(Record):
    """A record that equals only itself; its text does not follow the graph, which may be deep."""

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {id(self):#x}>"


class Origin(Identical):
    """Where in the Dockerfile a vertex comes from. lines: the first and the last, from 1; (0, 0) is nowhere.

    file: as the user called it. text: the instruction as progress and errors show it ("RUN make").
    stage: its name, or "stage-2"; step and steps: which one of how many in the stage.
    written: the instruction as it is written, where `text` says something else of it.
    """

    file: str = ""
    lines: tuple[int, int] = (0, 0)
    text: str = ""
    stage: str = ""
    step: int = 0
    steps: int = 0
    written: str = ""


class Vertex(Identical):
    """One file tree. created_by: docker's text for the image's history, where the vertex makes a layer."""

    origin: Origin = Origin()
    created_by: str = ""

    @property
    def inputs(self) -> tuple[Vertex, ...]:
        """The vertices whose trees this one needs, the base first."""
        return ()


# -- sources ------------------------------------------------------------------------------------------------------


class Scratch(Vertex):
    """The empty tree."""


class ImageSource(Vertex):
    """An image's tree. reference: as `FROM` has it. platform: None is the machine's."""

    reference: str
    platform: Platform | None = None


class Context(Vertex):
    """A folder that the client gave. name: of --build-context, MAIN_CONTEXT for the build's own.

    What .dockerignore excludes is not in the tree; whoever gives the folder to the solver says what that is.
    """

    origin: Origin = Origin(text="[internal] load build context")
    name: str = MAIN_CONTEXT


class GitSource(Vertex):
    """A checkout. reference: a branch, a tag, a commit, "" for the default branch; checksum: the commit it must be."""

    url: str
    reference: str = ""
    subdirectory: str = ""
    keep_git_dir: bool = False
    submodules: bool = True
    checksum: str = ""


class HttpSource(Vertex):
    """One file in an otherwise empty tree, called filename. checksum: "sha256:..." or "" for any content."""

    url: str
    filename: str
    checksum: str = ""


class InlineFile(Vertex):
    """One file in an otherwise empty tree, with the content of a here-document."""

    filename: str
    data: bytes
    mode: int = 0o644


# -- mounts of a Run ----------------------------------------------------------------------------------------------


class BindMount(Identical):
    """A part of a tree. What is written to it (with read_only=False) is thrown away."""

    target: str
    source: Vertex
    path: str = "/"
    read_only: bool = True


class CacheMount(Identical):
    """A directory that stays between builds. source, path: what it holds when it is new; None is an empty directory."""

    target: str
    id: str
    source: Vertex | None = None
    path: str = "/"
    read_only: bool = False
    sharing: str = SHARED
    mode: int = 0o755
    uid: int = 0
    gid: int = 0

    @property
    def cache(self) -> str:
        """Which cache it is: as in docker, one that is to have another owner or mode is another one."""
        mode = f",mode={self.mode:04o}" if self.mode != 0o755 else ""
        owner = "".join(f",{key}={number}" for key, number in (("uid", self.uid), ("gid", self.gid)) if number)
        return f"{self.id}{mode}{owner}"


class TmpfsMount(Identical):
    """Memory. size_bytes: 0 is the kernel's default."""

    target: str
    size_bytes: int = 0


class SecretMount(Identical):
    """A secret as a file at target, as a variable, or both; target "" is no file. required: fail without it."""

    id: str
    target: str = ""
    env: str = ""
    required: bool = False
    mode: int = 0o400
    uid: int = 0
    gid: int = 0


class SshMount(Identical):
    """A socket of an SSH agent of the client's; SSH_AUTH_SOCK names it."""

    id: str = "default"
    target: str = ""
    required: bool = False
    mode: int = 0o600
    uid: int = 0
    gid: int = 0


class ScriptMount(Identical):
    """A here-document that the command executes or reads."""

    target: str
    data: bytes
    mode: int = 0o755


Mount = BindMount | CacheMount | TmpfsMount | SecretMount | SshMount | ScriptMount


# -- what makes layers --------------------------------------------------------------------------------------------


class Run(Vertex):
    """A command, and what it left in its base.

    argv: executed as it is: the shell is in it. env: "NAME=value", build arguments too. cwd: an absolute path.
    proxies: "NAME=value" that the command sees and that no cache key knows (HTTP_PROXY and its like).
    network: DEFAULT, NONE or HOST. security: SANDBOX or INSECURE. devices: CDI names, "?" after optional ones.
    """

    base: Vertex
    argv: tuple[str, ...]
    env: tuple[str, ...] = ()
    proxies: tuple[str, ...] = ()
    cwd: str = "/"
    user: str = ""
    mounts: tuple[Mount, ...] = ()
    network: str = DEFAULT
    security: str = SANDBOX
    devices: tuple[str, ...] = ()

    @property
    def inputs(self) -> tuple[Vertex, ...]:
        """The base, then the trees that are mounted."""
        mounted = (mount.source for mount in self.mounts if isinstance(mount, BindMount | CacheMount))
        return (self.base, *(source for source in mounted if source is not None))


class CopySource(Identical):
    """What a Copy takes from a tree. path: absolute; a pattern of Go's filepath.Match, unless literal.

    pivot: with `parents`, the part of path before "/./" that is left out of the destination.
    """

    tree: Vertex
    path: str
    literal: bool = False
    pivot: str = ""


class Copy(Vertex):
    """COPY and ADD: parts of trees, laid over the base.

    destination: absolute. owner: "user[:group]" as --chown has it, "" is 0:0. mode: octal or symbolic (--chmod),
    "" keeps the sources'. link: the layer does not depend on the base (and follows no link in it).
    parents: keep the sources' directories. exclude: patterns below each source.
    unpack: None extracts local archives and leaves fetched ones (ADD's rule); False never, True always.
    """

    base: Vertex
    sources: tuple[CopySource, ...]
    destination: str
    owner: str = ""
    mode: str = ""
    link: bool = False
    parents: bool = False
    exclude: tuple[str, ...] = ()
    unpack: bool | None = False

    @property
    def inputs(self) -> tuple[Vertex, ...]:
        """The base, then the trees that are copied from."""
        return (self.base, *(source.tree for source in self.sources))


class MakeDirectory(Vertex):
    """WORKDIR: a directory, with its parents (0755), where there is none. owner: as Copy's."""

    base: Vertex
    path: str
    owner: str = ""

    @property
    def inputs(self) -> tuple[Vertex, ...]:
        """The base."""
        return (self.base,)


# -- what is built ------------------------------------------------------------------------------------------------


class Step(Identical):
    """One entry that a build adds to the image's history. vertex: whose layer it is; None changes only the config."""

    created_by: str
    vertex: Vertex | None = None
    origin: Origin = Origin()


class Target(Identical):
    """An image to be made: the tree, the configuration and the history after the base image's.

    platform: what the image is for. steps: of the target's stage and of the stages it stands on, the first one first.
    name: the stage's. author: MAINTAINER.
    """

    vertex: Vertex
    config: ContainerConfig
    platform: Platform
    steps: tuple[Step, ...] = ()
    name: str = ""
    author: str = ""
