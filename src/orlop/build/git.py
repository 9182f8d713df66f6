"""Repositories as trees: fetched by the machine's git, whose words are kept from meaning options or programs.

Neither a URL nor a reference can become an option, only transports that reach a server are allowed, no hook runs and
nobody is asked for a password (SEC-64: CVE-2019-13139).
"""

from __future__ import annotations

import base64
import os
import shutil
import urllib.parse

from orlop.linux.path import open_in_root
from orlop.spec.errors import Invalid, NotFound, Unavailable

from . import graph
from .http import authorization
from .solver.tree import Tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .journal import StepLog
    from .solver.solve import Solver

_ENVIRONMENT = ("HOME", "PATH", "SSH_AUTH_SOCK", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "https_proxy", "http_proxy")
_OPTIONS = (
    *("-c", "protocol.allow=never", "-c", "protocol.https.allow=always", "-c", "protocol.http.allow=always"),
    *("-c", "protocol.ssh.allow=always", "-c", "protocol.git.allow=always", "-c", "core.hooksPath=/dev/null"),
    *("-c", "core.fsmonitor=false", "-c", "init.defaultBranch=main", "-c", "advice.detachedHead=false"),
)
_REASONS = ("fatal:", "error:", "ssh:", "remote:")
_COMMIT_DIGITS = (40, 64)
_HEX = frozenset("0123456789abcdef")


def checkout(solver: Solver, source: graph.GitSource, log: StepLog) -> Tree:
    """Return the tree of a repository. Raises Invalid for another commit than was asked for, NotFound, Unavailable."""
    for word in (source.url, source.reference):
        if word.startswith("-"):
            raise Invalid(
                "fetch", source.url, f"{word!r} looks like an option", hint="name a branch, a tag or a commit"
            )
    directory = solver.scratch()
    git = _Git(directory, source.url, log, _given(solver, source.url))
    git.run("init", "--quiet")
    if _is_commit(source.reference):
        try:
            git.run("fetch", "--quiet", "--depth=1", "--", source.url, source.reference)
            git.run("checkout", "--quiet", "--detach", "FETCH_HEAD")
        except Unavailable:  # many servers give only what has a name
            git.run("fetch", "--quiet", "--tags", "--", source.url, "+refs/heads/*:refs/remotes/origin/*")
            git.run("checkout", "--quiet", "--detach", source.reference)
    else:
        git.run("fetch", "--quiet", "--depth=1", "--no-tags", "--", source.url, source.reference or "HEAD")
        git.run("checkout", "--quiet", "--detach", "FETCH_HEAD")
    commit = git.run("rev-parse", "--verify", "HEAD").strip()
    if source.checksum and not commit.startswith(source.checksum):
        cause = f"expected checksum to match {source.checksum}, got {commit}"
        raise Invalid("fetch", source.url, cause, hint="the reference has moved: look at it, then correct the checksum")
    if source.submodules and os.path.exists(f"{directory}/.gitmodules"):
        git.run("submodule", "update", "--quiet", "--init", "--recursive", "--depth=1")
    if not source.keep_git_dir:
        shutil.rmtree(f"{directory}/.git", ignore_errors=True)
    place = _below(directory, source.subdirectory, source.url)
    tree = Tree(directory=place, key=f"git {commit} {source.subdirectory} {source.keep_git_dir}")
    tree.fetched = True
    return tree


def _given(solver: Solver, url: str) -> dict[str, str]:
    """Return what git is told by its environment: the client's agent, and its token for the server, for that alone.

    GIT_AUTH_TOKEN and GIT_AUTH_HEADER, or these with .HOST behind, as BuildKit has them. No other user reads it there.
    """
    found: dict[str, str] = {}
    agent = solver.settings.agent("default")
    if agent is not None:
        found["SSH_AUTH_SOCK"] = agent
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return found
    kind, value = authorization(parts.hostname, "GIT_AUTH", ".", solver.settings.secret)
    if kind == "TOKEN":
        value = f"basic {base64.b64encode(f'x-access-token:{value}'.encode('latin-1')).decode()}"
    if kind:
        found["GIT_CONFIG_COUNT"] = "1"
        found["GIT_CONFIG_KEY_0"] = f"http.{parts.scheme}://{parts.netloc.rpartition('@')[2]}/.extraHeader"
        found["GIT_CONFIG_VALUE_0"] = f"Authorization: {value}"
    return found


def _is_commit(reference: str) -> bool:
    return len(reference) in _COMMIT_DIGITS and _HEX.issuperset(reference)


def _below(directory: str, path: str, url: str) -> str:
    """Return a directory of the checkout, resolved inside it: a link in it can't lead out (SEC-64)."""
    if not path:
        return directory
    root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fd = open_in_root(root, path, os.O_PATH | os.O_DIRECTORY)
    except OSError:
        cause = f"{url} has no directory {path}"
        raise NotFound("fetch", url, cause, hint="look at the part behind the colon") from None
    finally:
        os.close(root)
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


class _Git:
    """Runs git in a directory. The engine never forks: posix_spawn."""

    def __init__(self, directory: str, url: str, log: StepLog, given: dict[str, str]) -> None:
        self._directory = directory
        self._given = given
        self._url = url
        self._log = log

    def run(self, *words: str) -> str:
        """Return what git printed. Raises Unavailable with its last words when it fails."""
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        environment |= {"GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C", **self._given}
        output = os.memfd_create("git", os.MFD_CLOEXEC)
        try:
            actions = [
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, output, 1),
                (os.POSIX_SPAWN_DUP2, output, 2),
            ]
            argv = ("git", "-C", self._directory, *_OPTIONS, *words)
            try:
                pid = os.posix_spawnp("git", argv, environment, file_actions=actions)
            except FileNotFoundError:
                hint = "install it, or give the repository as a folder"
                raise Unavailable("fetch", self._url, "there is no program git", hint=hint) from None
            _, status = os.waitpid(pid, 0)
            os.lseek(output, 0, os.SEEK_SET)
            text = os.read(output, 1 << 20).decode(errors="replace")
        finally:
            os.close(output)
        if status:
            self._log.write(2, text.encode())
            lines = text.strip().splitlines() or [f"git {words[0]} failed"]
            # What failed comes before git's advice, which is "and the repository exists.".
            cause = "; ".join([line for line in lines if line.startswith(_REASONS)][:2]) or lines[-1]
            raise Unavailable("fetch", self._url, cause, hint="is the URL right, and the server up?")
        return text
