"""Who may do what: nobody needs a name, or names and passwords from an htpasswd file, directly or through tokens.

With tokens a client is sent to our own token endpoint (`/token`), which takes the password once and answers with a
signed statement of what the bearer may do for five minutes. The key lives as long as the process.
Source: distribution-spec, "Authentication"; the distribution project's token and OAuth2 documents; RFC 7617, 6750.
"""

import base64
import binascii
import hashlib
import hmac
import os
import secrets
import threading
import time

from ...linux.crypt import crypt
from ...spec import jsonio
from ...spec.errors import Invalid, Unavailable
from ...spec.record import Record
from .users import open_users, read_users

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Check(Protocol):
        """How a door asks: who a request comes from, and what to tell somebody who is to say it first."""

        def permits(self, authorization: str, action: str, repository: str) -> bool | None: ...
        def challenge(self, action: str, repository: str, base: str) -> str: ...


PULL, PUSH, DELETE = "pull", "push", "delete"
ACTIONS = (PULL, PUSH, DELETE)
REALM = "Orlop registry"
TOKEN_S = 300
_REMEMBERED_S = 300
# What crypt(5) calls strong enough for new passwords. htpasswd's own MD5 and SHA-1 are not.
_METHODS = (b"$2a$", b"$2b$", b"$2y$", b"$5$", b"$6$", b"$7$", b"$y$", b"$gy$")
_DUMMY = b"$2b$10$abcdefghijklmnopqrstuuO3hHpq4kP6a1Ts8KJ0bPiRQ5WSoCmZe"


class Passwords:
    """The users of an htpasswd file (`htpasswd -B`). Read anew when the file changes."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._guard = threading.Lock()
        self._version: tuple[int, int] = (0, 0)
        self._hashes: dict[str, bytes] = {}
        self._salt = secrets.token_bytes(16)
        self._known: dict[bytes, float] = {}  # what was right a moment ago: each look costs 50 ms and more
        self._load()

    def match(self, user: str, password: str) -> bool:
        """Tell whether that is the user's password. A user that is not there costs as much time as a wrong password."""
        with self._guard:
            self._load()
            hashed = self._hashes.get(user)
            key = hashlib.sha256(self._salt + (hashed or b"") + user.encode() + b"\0" + password.encode()).digest()
            if self._known.get(key, 0.0) > time.monotonic():
                return True
        found = crypt(password.encode(), hashed or _DUMMY)
        if hashed is None or found is None or not hmac.compare_digest(found, hashed):
            return False
        with self._guard:
            now = time.monotonic()
            self._known = {known: until for known, until in self._known.items() if until > now}
            self._known[key] = now + _REMEMBERED_S
        return True

    def _load(self) -> None:
        try:
            with open_users(self._path) as file:
                found = os.fstat(file.fileno())
                version = (found.st_ino, found.st_mtime_ns)
                if version == self._version:
                    return
                data = read_users(file, self._path)
        except OSError as wrong:
            raise Unavailable("read", self._path, wrong.strerror or str(wrong)) from None
        self._hashes = _parse_htpasswd(data, self._path)
        self._version = version
        self._known.clear()


def _parse_htpasswd(data: bytes, path: str) -> dict[str, bytes]:
    users = {}
    for number, line in enumerate(data.splitlines(), 1):
        if not line.strip() or line.startswith(b"#"):
            continue
        user, colon, hashed = line.strip().partition(b":")
        hint = "make the line with: htpasswd -nB USER"
        if not colon or not user:
            raise Invalid("read", path, f"line {number} is not of the form user:hash", hint=hint)
        if not hashed.startswith(_METHODS):
            raise Invalid("read", path, f"the password of line {number} is not hashed with a strong method", hint=hint)
        try:
            users[user.decode()] = hashed
        except UnicodeDecodeError:
            raise Invalid("read", path, f"the user of line {number} is not UTF-8") from None
    return users


class _Claims(Record):
    """What a token says. exp: seconds since the epoch; access: repository -> actions."""

    exp: int
    sub: str = ""
    access: dict[str, tuple[str, ...]] = {}


class Anyone:
    """No names: whoever reaches the registry may do everything."""

    def permits(self, authorization: str, action: str, repository: str) -> bool | None:
        return True

    def challenge(self, action: str, repository: str, base: str) -> str:
        return ""


class Basic:
    """A name and a password with each request. anonymous_pull: reading needs none."""

    def __init__(self, passwords: Passwords, *, anonymous_pull: bool = False) -> None:
        self.passwords = passwords
        self._anonymous_pull = anonymous_pull

    def permits(self, authorization: str, action: str, repository: str) -> bool | None:
        """Return True; False when this user may not; None when the request says nobody, or gives a wrong password.

        repository "": nothing but the registry itself.
        """
        if self._anonymous_pull and not authorization and action == PULL and repository:
            return True
        given = basic_credentials(authorization)
        return True if given and self.passwords.match(*given) else None

    def challenge(self, action: str, repository: str, base: str) -> str:
        return f'Basic realm="{REALM}"'


class Tokens:
    """A bearer token with each request, from our own token endpoint."""

    def __init__(self, passwords: Passwords, *, anonymous_pull: bool = False) -> None:
        self._passwords = passwords
        self._anonymous_pull = anonymous_pull
        self._key = secrets.token_bytes(32)

    def permits(self, authorization: str, action: str, repository: str) -> bool | None:
        """As Basic.permits; False for a token that is right but is not for this."""
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer":
            return None
        granted = self._read(token.strip())
        if granted is None:
            return None
        return not repository or action in granted.get(repository, ()) or None

    def challenge(self, action: str, repository: str, base: str) -> str:
        # Who is to push will read too: docker asks for both at once.
        wanted = "pull,push" if action == PUSH else action
        scope = f',scope="repository:{repository}:{wanted}"' if repository else ""
        return f'Bearer realm="{base}/token",service="{REALM}"{scope}'

    def issue(self, user: str, password: str, scopes: list[str]) -> dict[str, object] | None:
        """Return the token endpoint's answer; None for a wrong password. user "": nobody in particular."""
        if user and not self._passwords.match(user, password):
            return None
        granted: dict[str, list[str]] = {}
        for scope in scopes:
            kind, _, rest = scope.partition(":")
            name, _, actions = rest.rpartition(":")
            asked = set(actions.split(","))  # skopeo asks for * before it deletes
            allowed = [action for action in ACTIONS if asked & {action, "*"} and self._may(user, action)]
            if kind == "repository" and allowed:
                granted[name] = sorted({*granted.get(name, ()), *allowed})
        access = {name: tuple(actions) for name, actions in granted.items()}
        claims = jsonio.dump(_Claims(exp=int(time.time()) + TOKEN_S, sub=user, access=access).to_json())
        token = f"{_encode(claims)}.{_encode(self._sign(claims))}"
        return {"token": token, "access_token": token, "expires_in": TOKEN_S}

    def _may(self, user: str, action: str) -> bool:
        return bool(user) or (self._anonymous_pull and action == PULL)

    def _read(self, token: str) -> dict[str, tuple[str, ...]] | None:
        text, _, signature = token.partition(".")
        try:
            claims = base64.urlsafe_b64decode(text)
            if not hmac.compare_digest(base64.urlsafe_b64decode(signature), self._sign(claims)):
                return None
        except ValueError:
            return None
        read = _Claims.from_json(jsonio.parse(claims, "a token of ours"), "a token of ours")
        return None if read.exp < time.time() else read.access

    def _sign(self, claims: bytes) -> bytes:
        return hmac.digest(self._key, claims, "sha256")


def basic_credentials(authorization: str) -> tuple[str, str] | None:
    """Return (user, password) of a Basic Authorization header, None when there are none in it."""
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return (user, password) if colon and user and "\0" not in password else None


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode()
