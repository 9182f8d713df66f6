"""Image references: `[domain/]path[:tag][@digest]`, with docker's defaults.

    reference  = name [":" tag] ["@" digest]
    name       = [domain "/"] component {"/" component}
    domain     = host [":" port]          host: DNS labels, an IPv4 address or "[" IPv6 address "]"
    component  = alnum {separator alnum}  alnum: [a-z0-9]+, separator: "." or "_" or "__" or "-"+
    tag        = [A-Za-z0-9_][A-Za-z0-9_.-]{0,127}

A Reference is always normalised: domain and path are complete ("docker.io", "library/debian"). `str()` gives
that canonical form and `familiar` the short one; both parse back to the same reference (SEC-47), which is why
`familiar` keeps the domain where docker's own short form would name another image.
Source: the distribution project's reference package (grammar, limits, texts).
"""

from .digest import Digest
from .errors import Invalid
from .record import Record

DEFAULT_DOMAIN = "docker.io"
LEGACY_DEFAULT_DOMAIN = "index.docker.io"
OFFICIAL_PREFIX = "library/"
DEFAULT_TAG = "latest"

DOMAIN_LENGTH_MAX = 255 + len(":65535")
PATH_LENGTH_MAX = 255
TAG_LENGTH_MAX = 128
REFERENCE_LENGTH_MAX = DOMAIN_LENGTH_MAX + PATH_LENGTH_MAX + TAG_LENGTH_MAX + len("/:@sha512:") + 128

_DIGITS = frozenset("0123456789")
_LOWER = frozenset("abcdefghijklmnopqrstuvwxyz") | _DIGITS
_ALNUM = _LOWER | frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
_LABEL = _ALNUM | {"-"}
_WORD = _ALNUM | {"_"}
_TAG = _WORD | frozenset(".-")
_HEX = frozenset("0123456789abcdef")
_IPV6 = frozenset("0123456789abcdefABCDEF:")
_SHOWN_CHARACTERS_MAX = 200


class Reference(Record):
    """A name of an image. tag and digest may both be there: the digest then decides, the tag informs."""

    domain: str
    path: str
    tag: str = ""
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> "Reference":
        """Return the reference that text spells, normalised but without a default tag.

        Raises Invalid with docker's words ("invalid reference format").
        """
        if len(text) > REFERENCE_LENGTH_MAX:
            raise _malformed(text, f"it has {len(text)} characters, the limit is {REFERENCE_LENGTH_MAX}")
        if len(text) == 64 and _HEX.issuperset(text):
            raise _malformed(
                text, f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings", hint=""
            )
        rest, at, digest = text.partition("@")
        domain, remote = _split_domain(rest)
        path, colon, tag = remote.partition(":")
        if path != path.lower():
            raise _malformed(text, f"invalid reference format: repository name ({path}) must be lowercase")
        if (colon and not tag) or (at and not digest):
            raise _malformed(text, "invalid reference format: nothing follows the separator")
        try:
            return cls(domain=domain, path=path, tag=tag, digest=Digest(digest) if at else None)
        except ValueError as wrong:
            raise _malformed(text, str(wrong)) from None
        except Invalid as wrong:
            raise _malformed(text, f"invalid reference format: {wrong.subject}: {wrong.cause}") from None

    def check(self) -> None:
        """Raise ValueError unless every part obeys the grammar: a Reference that exists is well-formed."""
        if not _is_domain(self.domain):
            raise ValueError(f"invalid reference format: {self.domain!r} is not a registry's host name")
        if len(self.path) > PATH_LENGTH_MAX:
            raise ValueError(f"repository name must not be more than {PATH_LENGTH_MAX} characters")
        if not all(_is_component(part) for part in self.path.split("/")):
            raise ValueError("invalid reference format")
        if self.domain == DEFAULT_DOMAIN and "/" not in self.path:
            raise ValueError(f"invalid reference format: {DEFAULT_DOMAIN} has no repository without a namespace")
        if self.tag and not _is_tag(self.tag):
            raise ValueError(f"invalid reference format: {self.tag[:_SHOWN_CHARACTERS_MAX]!r} is not a tag")

    def __str__(self) -> str:
        return f"{self.domain}/{self.path}{self._suffix}"

    @property
    def name(self) -> str:
        """Domain and path, without tag and digest."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar(self) -> str:
        """The shortest form that docker's users type and that parses back to this reference."""
        return self.familiar_name + self._suffix

    @property
    def familiar_name(self) -> str:
        """`name` without what docker's defaults put there."""
        if self.domain != DEFAULT_DOMAIN:
            return self.name
        path = self.path.removeprefix(OFFICIAL_PREFIX)
        if "/" in path:
            path = self.path
        if len(path) == 64 and _HEX.issuperset(path):
            return self.path  # alone it would be an image ID
        return path if _split_domain(path) == (self.domain, self.path) else self.name

    def tagged(self) -> "Reference":
        """Return the reference with the default tag when it has neither tag nor digest."""
        return self if self.tag or self.digest else self.replace(tag=DEFAULT_TAG)

    @property
    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


def _split_domain(text: str) -> tuple[str, str]:
    """Split what the user wrote into domain and the rest, docker's defaults applied."""
    first, slash, rest = text.partition("/")
    if not slash:
        # One component is always a repository: "localhost" and "example:5000" too, the colon begins a tag.
        return DEFAULT_DOMAIN, OFFICIAL_PREFIX + text
    if first == LEGACY_DEFAULT_DOMAIN:
        first = DEFAULT_DOMAIN
    if not (first == "localhost" or "." in first or ":" in first or first != first.lower()):
        return DEFAULT_DOMAIN, text
    if first == DEFAULT_DOMAIN and "/" not in rest:
        rest = OFFICIAL_PREFIX + rest
    return first, rest


def _is_domain(text: str) -> bool:
    if not text or len(text) > DOMAIN_LENGTH_MAX:
        return False
    if text.startswith("["):
        address, bracket, port = text[1:].partition("]")
        if not bracket or not address or not _IPV6.issuperset(address):
            return False
        return not port or _is_port(port)
    host, colon, _ = text.partition(":")
    if not all(_is_label(label) for label in host.split(".")):
        return False
    return not colon or _is_port(text[len(host) :])


def _is_port(text: str) -> bool:
    return len(text) > 1 and text[0] == ":" and _DIGITS.issuperset(text[1:])


def _is_label(text: str) -> bool:
    return text != "" and text[0] != "-" and text[-1] != "-" and _LABEL.issuperset(text)


def _is_tag(text: str) -> bool:
    return len(text) <= TAG_LENGTH_MAX and text[0] in _WORD and _TAG.issuperset(text)


def _is_component(text: str) -> bool:
    """Say whether alphanumeric runs are joined by one ".", one or two "_", or any number of "-"."""
    if not text or text[0] not in _LOWER or text[-1] not in _LOWER:
        return False
    separator = ""
    for character in text:
        if character not in _LOWER:
            separator += character
        elif separator:
            if separator not in (".", "_", "__") and separator.strip("-"):
                return False
            separator = ""
    return True


def _malformed(text: str, cause: str, hint: str = "write it like name:tag or host:port/path/name:tag") -> Invalid:
    shown = text if len(text) <= _SHOWN_CHARACTERS_MAX else text[:_SHOWN_CHARACTERS_MAX] + "..."
    return Invalid("parse", f"reference {shown!r}", cause, hint=hint)
