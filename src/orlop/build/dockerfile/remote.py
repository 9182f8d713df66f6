"""Sources that are fetched: which texts are URLs of git repositories, which are URLs of files, and what they name.

Two forms say what to check out: `URL#reference:subdirectory`, and `URL?ref=..&subdir=..`. What they name comes from
the Dockerfile or from the command line and goes to git(1): a reference never begins with a dash, a subdirectory never
leads out (SEC-64, CVE-2019-13139).
Source: docker's documentation of git contexts ("URL fragments", "URL queries"); BuildKit's dfgitutil.
"""

import re
from urllib.parse import parse_qsl, unquote, urlsplit

from orlop.spec.record import Record

URL_CHARACTERS_MAX = 8192
UNNAMED = "__unnamed__"
_SCP = re.compile(r"(?:[a-zA-Z0-9_.-]+@)[a-zA-Z0-9._-]+:(?!//)[^:?#]+")
_COMMIT = re.compile(r"[0-9a-f]{7,40}|[0-9a-f]{64}")
_REFERENCE = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_./@+=~^{}-]*")
_QUERY = ("ref", "tag", "branch", "subdir", "checksum", "commit", "keep-git-dir", "submodules", "fetch-by-commit")


class GitUrl(Record):
    """A repository and what is wanted of it. None: the URL does not say."""

    remote: str
    reference: str = ""
    subdirectory: str = ""
    checksum: str = ""
    keep_git_dir: bool | None = None
    submodules: bool | None = None


def is_http(text: str) -> bool:
    """Say whether a text is the URL of a file."""
    return text.startswith(("http://", "https://")) and parse_git_url(text) is None


def filename(url: str) -> str:
    """Return what the file at a URL is called."""
    name = unquote(urlsplit(url).path).rstrip("/").rpartition("/")[2]
    return UNNAMED if name in ("", ".", "..") or "\0" in name else name


def parse_git_url(text: str) -> GitUrl | None:
    """Return what the URL of a git repository names; None for what is no such URL.

    Raises ValueError for one whose fragment or query is malformed or leads elsewhere.
    """
    if len(text) > URL_CHARACTERS_MAX:
        raise ValueError(f"a URL has more than {URL_CHARACTERS_MAX} characters")
    rest, hash_sign, fragment = text.partition("#")
    remote, question, query = rest.partition("?")
    if remote.startswith(("http://", "https://")):
        if not urlsplit(remote).path.endswith(".git") and not _names_a_repository(query):
            return None
    elif not remote.startswith(("git://", "ssh://")) and not _SCP.fullmatch(remote):
        return None
    if question and hash_sign:
        raise ValueError("the URL of a git repository has a fragment or a query, not both")
    url = _with_query(remote, query) if question else _with_fragment(remote, fragment)
    _check(url)
    return url


def _names_a_repository(query: str) -> bool:
    names = {name for name, _ in parse_qsl(query, keep_blank_values=True)}
    return bool(names) and names.issubset(_QUERY) and not names.isdisjoint(("ref", "tag", "branch", "subdir", "commit"))


def _with_fragment(remote: str, fragment: str) -> GitUrl:
    reference, _, subdirectory = fragment.partition(":")
    return GitUrl(remote=remote, reference=reference, subdirectory=subdirectory)


def _with_query(remote: str, query: str) -> GitUrl:
    given: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True, max_num_fields=32):
        if name not in _QUERY:
            raise ValueError(f'unexpected query "{name}"')
        if name in given:
            raise ValueError(f'query "{name}" is given twice')
        given[name] = value
    references = [name for name in ("ref", "tag", "branch") if given.get(name)]
    if len(references) > 1:
        raise ValueError(f"{' and '.join(references)} can't be given together")
    reference = given[references[0]] if references else ""
    prefix = {"tag": "refs/tags/", "branch": "refs/heads/"}.get(references[0], "") if references else ""
    checksum = given.get("checksum", "") or given.get("commit", "")
    if given.get("checksum") and given.get("commit"):
        raise ValueError("checksum and commit can't be given together")
    return GitUrl(
        remote=remote,
        reference=reference if reference.startswith("refs/") else prefix + reference,
        subdirectory=given.get("subdir", ""),
        checksum=checksum,
        keep_git_dir=_switch(given, "keep-git-dir"),
        submodules=_switch(given, "submodules"),
    )


def _switch(given: dict[str, str], name: str) -> bool | None:
    value = given.get(name)
    if value is None:
        return None
    if value.lower() in ("", "1", "true"):
        return True
    if value.lower() in ("0", "false"):
        return False
    raise ValueError(f'invalid boolean value for "{name}": {value}')


def _check(url: GitUrl) -> None:
    if url.remote.startswith("-"):
        raise ValueError("the URL of a git repository can't begin with a dash")
    if url.reference and (not _REFERENCE.fullmatch(url.reference) or ".." in url.reference):
        raise ValueError(f"invalid git reference {url.reference!r}")
    if "\0" in url.subdirectory or ".." in url.subdirectory.split("/"):
        raise ValueError(f"the subdirectory {url.subdirectory!r} leads out of the repository")
    if url.checksum and not _COMMIT.fullmatch(url.checksum):
        raise ValueError(f"invalid checksum {url.checksum!r}: it is not the hash of a commit")
