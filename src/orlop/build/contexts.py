"""What a client gives a build to read: the main context, named ones, the Dockerfile and .dockerignore.

A folder is read in place. An archive is extracted into the build's own directory first; its links stay inside (SEC-64).
"""

from __future__ import annotations

import hashlib
import os

from orlop.content.compression import NONE, Decompressed, detect
from orlop.linux.path import read_in_root
from orlop.snapshot.extract import Extraction, Rules
from orlop.spec.errors import Invalid, NotFound, Unsupported
from orlop.spec.tar import Limits, Reader

from . import graph
from .dockerfile.remote import filename, is_http, parse_git_url
from .ignore import Matcher, names_for, parse_lines
from .registries import IMAGE_PREFIX, LAYOUT_PREFIX
from .solver.digests import Digests
from .solver.tree import Tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .dockerfile.remote import GitUrl
    from .request import BuildRequest
    from .solver.solve import Solver

DOCKERFILE = "Dockerfile"
DOCKERFILE_BYTES_MAX = 16 * 1024 * 1024
IGNORE_FILE = ".dockerignore"
MAGIC_BYTES = 512
LIMITS = Limits(entries=2**40, total_bytes=2**60)  # the client's own, on its own disk


class Given:
    """What was given. dockerfile: its name for errors; text: itself. ignore: lines of .dockerignore.

    vertices: what named contexts are in the graph. identity: what the main context is called; root: its directory.
    """

    def __init__(self) -> None:
        self.dockerfile = DOCKERFILE
        self.text = b""
        self.ignore: tuple[str, ...] = ()
        self.vertices: dict[str, graph.Vertex] = {}
        self.identity = ""
        self.root = ""

    def read(self, name: str) -> bytes | None:
        """Return a file that a Dockerfile includes, None where it is not. Raises Invalid for what is no file."""
        return _read(self.root, name) if self.root else None


def prepare(solver: Solver, request: BuildRequest, archive: int) -> Given:
    """Read what the request names; the solver has the contexts then. archive: a descriptor, or -1.

    Raises NotFound, Invalid, Denied for a folder that can't be read.
    """
    given = Given()
    root = given.root = _main(solver, request, archive, given)
    _read_dockerfile(request, root, given)
    _read_ignore(request, root, given)
    tree = Tree(directory=root, digests=_digests(solver, root if request.context else ""))
    if given.ignore:
        tree.excluded = Matcher(given.ignore)
    solver.contexts[graph.MAIN_CONTEXT] = tree
    for name, source in request.contexts.items():
        given.vertices[name] = _named(solver, name, source)
    return given


def _main(solver: Solver, request: BuildRequest, archive: int, given: Given) -> str:
    """Return the directory of the main context."""
    given.identity = request.context or request.remote or "archive"
    if request.remote:
        return _remote(solver, request.remote, given)
    if request.context:
        if not os.path.isabs(request.context):
            raise Invalid("build", request.context, "the context is not an absolute path")
        if not os.path.isdir(request.context):
            cause = f'unable to prepare context: path "{request.context}" not found'
            raise NotFound("build", request.context, cause, hint="name a folder, a URL, or - for standard input")
        return request.context
    directory = solver.scratch()
    if archive >= 0 and not request.archive_is_dockerfile:
        extract(archive, directory, solver.check)
    elif archive >= 0:
        given.text = _read_all(archive)
        given.dockerfile = "-"
    return directory


def extract(archive: int, directory: str, check: Callable[[], None] = lambda: None) -> None:
    """Extract an archive, plain or compressed, into an empty directory of ours. check: raises what ends it.

    Raises Invalid.
    """

    def read(count: int) -> bytes:
        check()
        return os.read(archive, count)

    target = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        stream = Decompressed(read, "the context")
        rules = Rules(layer=False, owner=(-1, -1))
        Extraction(target, -1, "the context", rules=rules).run(Reader(stream.read, "the context", LIMITS))
    finally:
        os.close(target)


def _read_all(archive: int) -> bytes:
    data = b""
    while piece := os.read(archive, 65536):
        data += piece
        if len(data) > DOCKERFILE_BYTES_MAX:
            raise Invalid("read", "the Dockerfile", f"it has more than {DOCKERFILE_BYTES_MAX} bytes", code="E0212")
    return data


def _read_dockerfile(request: BuildRequest, root: str, given: Given) -> None:
    if request.dockerfile_text is not None:
        given.text = request.dockerfile_text.encode(errors="surrogateescape")
        given.dockerfile = request.dockerfile or given.dockerfile
        return
    if given.text or request.archive_is_dockerfile:
        return
    given.dockerfile = request.dockerfile or DOCKERFILE
    data = _read(root, given.dockerfile)
    if data is None and not request.dockerfile:
        data = _read(root, DOCKERFILE.lower())
    if data is None:
        cause = f"failed to read dockerfile: open {given.dockerfile}: no such file or directory"
        raise NotFound("build", given.dockerfile, cause, hint="name it with -f", code="E0407")
    given.text = data


def _read_ignore(request: BuildRequest, root: str, given: Given) -> None:
    if request.ignore_text is not None:
        text: bytes | None = request.ignore_text.encode(errors="surrogateescape")
    else:
        own, common = names_for(given.dockerfile)
        text = _read(root, own)
        if text is None:
            text = _read(root, common)
    if text:
        given.ignore = parse_lines(text.decode(errors="surrogateescape"))


def _read(root: str, name: str) -> bytes | None:
    """Return a file of the context, resolved inside it; None where it is not. Raises Invalid."""
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return read_in_root(fd, name, DOCKERFILE_BYTES_MAX)
    except OSError as wrong:
        raise Invalid("read", name, wrong.strerror or str(wrong), hint="give a regular file") from None
    finally:
        os.close(fd)


def _named(solver: Solver, name: str, source: str) -> graph.Vertex:
    if source.startswith(IMAGE_PREFIX):
        return graph.ImageSource(reference=source.removeprefix(IMAGE_PREFIX))
    if source.startswith(LAYOUT_PREFIX):
        return graph.ImageSource(reference=source)
    if source.startswith("/"):
        if not os.path.isdir(source):
            raise NotFound("build", f"context {name}", f"{source} is not a directory", hint="name a folder")
        tree = Tree(directory=source, digests=_digests(solver, source))
        fd = os.open(source, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            text = read_in_root(fd, IGNORE_FILE, DOCKERFILE_BYTES_MAX)
        finally:
            os.close(fd)
        if text:
            tree.excluded = Matcher(parse_lines(text.decode(errors="surrogateescape")))
        solver.contexts[name] = tree
        return graph.Context(name=name, origin=graph.Origin(text=f"[context {name}] load from client"))
    url = _git_url(source)
    if url is not None:
        return _git_source(url)
    if is_http(source):
        return graph.HttpSource(url=source, filename=filename(source))
    hint = "give a folder, docker-image://REFERENCE, oci-layout://FOLDER[:NAME], a git repository or a URL"
    raise Unsupported("build", f"context {name}", f"{source} is none of the known kinds", hint=hint)


def _remote(solver: Solver, remote: str, given: Given) -> str:
    """Return the directory of a context that is a repository or a URL. What a URL has is an archive or a Dockerfile."""
    log = solver.journal.step(0, f"[internal] load {remote}")
    url = _git_url(remote)
    if url is not None:
        from .git import checkout

        directory = checkout(solver, _git_source(url), log).directory
        log.end("done")
        return directory
    if not is_http(remote):
        hint = "write a URL that begins with http://, https:// or git://, or give a folder"
        raise Invalid("build", remote, "it is no URL that can be fetched", hint=hint)
    from .http import download

    directory = solver.scratch()
    path = f"{solver.scratch()}/context"
    download(remote, path, solver.settings.secret)
    archive = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if is_text(os.pread(archive, MAGIC_BYTES, 0)):
            given.text, given.dockerfile = _read_all(archive), filename(remote)
        else:
            extract(archive, directory, solver.check)
    finally:
        os.close(archive)
    log.end("done")
    return directory


def is_text(head: bytes) -> bool:
    """Tell whether a file that begins so is a Dockerfile and no archive."""
    return detect(head) == NONE and head[257:262] != b"ustar"


def _git_url(text: str) -> GitUrl | None:
    try:
        return parse_git_url(f"https://{text}" if text.startswith("github.com/") else text)
    except ValueError as wrong:
        raise Invalid("build", text, str(wrong), hint="write URL#reference:directory") from None


def _git_source(url: GitUrl) -> graph.GitSource:
    return graph.GitSource(
        url=url.remote,
        reference=url.reference,
        subdirectory=url.subdirectory,
        keep_git_dir=bool(url.keep_git_dir),
        submodules=url.submodules is not False,
        checksum=url.checksum,
    )


def _digests(solver: Solver, place: str) -> Digests:
    if not place:
        return Digests(check=solver.check)
    name = hashlib.sha256(os.fsencode(os.path.realpath(place))).hexdigest()[:32]
    return Digests(f"{solver.engine.paths.root}/build/digests/{name}", solver.check)
