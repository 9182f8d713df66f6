"""COPY and ADD: which parts of which trees go where."""

from __future__ import annotations

import posixpath
import re

from orlop.spec.digest import Digest
from orlop.spec.errors import Invalid

from .. import graph
from . import instructions as kinds
from . import lint as rules
from .history import quoted
from .remote import filename, is_http, parse_git_url

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .remote import GitUrl
    from .stage import Stage
    from .steps import Trees

_OCTAL_MAX = 0o7777
_SYMBOLIC = re.compile(r"[ugoa]*(?:[-+=](?:[rwxXst]*|[ugo]))+")


def copy(stage: Stage, one: kinds.Copy, trees: Trees) -> None:
    """Do what a COPY says."""
    if "$" in one.source_stage[:-1]:
        stage.wrong(
            one,
            "variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope "
            "as a workaround",
        )
    paths = [stage.expand(source, one) for source in one.sources]
    for path in paths:
        if _git_url(stage, one, path):
            stage.wrong(one, "source can't be a git ref for COPY", hint="use ADD")
        if is_http(path):
            stage.wrong(one, "source can't be a URL for COPY", hint="use ADD")
    tree = trees(one.source_stage, one)
    if not one.source_stage:
        _check_ignored(stage, one, paths)
    sources = [_part(tree, path, parents=one.parents) for path in paths]
    _make(stage, one, sources, paths, parents=one.parents, unpack=False)


def add(stage: Stage, one: kinds.Add, trees: Trees) -> None:
    """Do what an ADD says."""
    checksum = stage.expand(one.checksum, one)
    if checksum and len(one.sources) != 1:
        stage.wrong(one, "checksum can't be specified for multiple sources")
    paths = [stage.expand(source, one) for source in one.sources]
    sources = []
    for path in paths:
        url = _git_url(stage, one, path)
        if url:
            sources.append(graph.CopySource(tree=_git(stage, one, url, checksum), path="/", literal=True))
        elif is_http(path):
            sources.append(_http(stage, one, path, checksum))
        else:
            if checksum:
                stage.wrong(one, "checksum requires HTTP(S) or Git sources")
            _check_ignored(stage, one, [path])
            sources.append(_part(trees("", one), path, parents=False))
    _make(stage, one, sources, paths, parents=False, unpack=one.unpack)


def _make(
    stage: Stage,
    one: kinds.Copying,
    sources: list[graph.CopySource],
    paths: list[str],
    *,
    parents: bool,
    unpack: bool | None,
) -> None:
    destination = stage.expand(one.destination, one)
    owner, mode = stage.expand(one.chown, one), stage.expand(one.chmod, one)
    _check_mode(stage, one, mode)
    words = [one.name]
    words += ["--parents"] * parents
    words += [f"--chown={owner}"] * bool(owner)
    words += [f"--chmod={mode}"] * bool(mode)
    words += paths
    words += [f"<<{heredoc.name}" for heredoc in one.heredocs]
    created_by = stage.layer_text(" ".join([*words, destination]))
    vertex = graph.Copy(
        base=stage.vertex,
        sources=(*sources, *_documents(stage, one)),
        destination=_destination(stage, destination),
        owner=owner,
        mode=mode,
        link=one.link,
        parents=parents,
        exclude=tuple(stage.expand(pattern, one, report=False) for pattern in one.exclude),
        unpack=unpack,
        origin=stage.origin(one, counted=True),
        created_by=created_by,
    )
    stage.record_layer(created_by, vertex)


def _part(tree: graph.Vertex, path: str, *, parents: bool) -> graph.CopySource:
    """Return what a path or a pattern means inside a tree: "..", as in docker, does not lead out of it."""
    pivot, found, below = path.partition("/./") if parents else (path, "", "")
    if not found:
        return graph.CopySource(tree=tree, path=_absolute(path))
    start = _absolute(pivot)
    return graph.CopySource(tree=tree, path=_absolute(f"{start}/{_absolute(below)}"), pivot=start)


def _absolute(path: str) -> str:
    return "/" + posixpath.normpath("/" + path).lstrip("/")


def _destination(stage: Stage, path: str) -> str:
    """Return the absolute destination; a slash at its end, or none at all for a directory, stays a slash."""
    is_directory = path in ("", ".") or path.endswith(("/", "/."))
    destination = _absolute(posixpath.join(stage.config.working_dir or "/", path))
    return destination if not is_directory or destination == "/" else destination + "/"


def _documents(stage: Stage, one: kinds.Copying) -> list[graph.CopySource]:
    sources = []
    for heredoc in one.heredocs:
        if "/" in heredoc.name or heredoc.name in (".", ".."):
            stage.wrong(one, f"a file can't be called {heredoc.name!r}", hint="name the file by the destination")
        text = stage.expand_document(heredoc.text, one) if heredoc.expand else heredoc.text
        tree = graph.InlineFile(filename=heredoc.name, data=text.encode(), origin=stage.origin(one))
        sources.append(graph.CopySource(tree=tree, path=f"/{heredoc.name}", literal=True))
    return sources


def _http(stage: Stage, one: kinds.Add, url: str, checksum: str) -> graph.CopySource:
    if checksum:
        try:
            Digest(checksum)
        except Invalid as wrong:
            stage.wrong(one, f"invalid checksum {checksum!r}: {wrong.cause}", hint="write sha256: and 64 digits")
    name = filename(url)
    tree = graph.HttpSource(url=url, filename=name, checksum=checksum, origin=stage.origin(one))
    return graph.CopySource(tree=tree, path=f"/{name}", literal=True)


def _git_url(stage: Stage, one: kinds.Copying, text: str) -> GitUrl | None:
    try:
        return parse_git_url(text)
    except ValueError as wrong:
        return stage.wrong(one, str(wrong))


def _git(stage: Stage, one: kinds.Add, url: GitUrl, checksum: str) -> graph.GitSource:
    if None not in (one.keep_git_dir, url.keep_git_dir) and one.keep_git_dir != url.keep_git_dir:
        stage.wrong(one, "inconsistent keep-git-dir configuration")
    if checksum and url.checksum and checksum != url.checksum:
        stage.wrong(one, f'checksum mismatch "{checksum}" != "{url.checksum}"')
    keep = url.keep_git_dir if url.keep_git_dir is not None else one.keep_git_dir
    return graph.GitSource(
        url=url.remote,
        reference=url.reference,
        subdirectory=url.subdirectory,
        keep_git_dir=bool(keep),
        submodules=url.submodules is not False,
        checksum=checksum or url.checksum,
        origin=stage.origin(one),
    )


def _check_mode(stage: Stage, one: kinds.Copying, mode: str) -> None:
    if not mode:
        return
    if mode.isascii() and mode.isdigit():
        if len(mode) <= 11 and not mode.strip("01234567") and int(mode, 8) <= _OCTAL_MAX:
            return
    elif all(_SYMBOLIC.fullmatch(clause) for clause in mode.split(",")):
        return
    stage.wrong(
        one,
        f"invalid chmod parameter: '{mode[:100]}'. it should be octal string and between 0 and 07777",
        hint="write 755, or u=rwX,go=rX",
    )


def _check_ignored(stage: Stage, one: kinds.Copying, paths: list[str]) -> None:
    ignores = stage.options.ignores
    for path in paths if ignores else ():
        cleaned = posixpath.normpath(path.lstrip("/") or ".")
        if ignores and ignores(cleaned):
            stage.lint.warn(rules.COPY_IGNORED_FILE, one, one.name.capitalize(), quoted(cleaned))
