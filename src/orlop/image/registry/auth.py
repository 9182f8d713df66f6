"""Who we are to a registry: basic passwords and bearer tokens, sent where they belong and nowhere else.

Invariants:
1. A password goes to the registry's own origin, or to a token realm within its trust boundary: the same host, its
   parent domain, or a sibling of it. Anything else could be named by whoever answers for the registry
   (SEC-46: CVE-2020-15157, and distribution's rule of 2026-04).
2. A token is asked for with all scopes that the request needs at once, and used until it expires.
Source: distribution's "Token Authentication Specification" and "Oauth2 Token Authentication"; RFC 7235.
"""

from __future__ import annotations

import base64
import threading
import time
from urllib.parse import urlencode, urlsplit

from orlop.spec.errors import Denied, Invalid
from orlop.spec.jsonio import parse_object

from .transport import Guard, Origin

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from orlop.spec.registry import Credentials

    from .tls import Tls
    from .transport import Response, Transport

TOKEN_BYTES_MAX = 64 * 1024
ANSWER_BYTES_MAX = 256 * 1024
TOKEN_S_DEFAULT = 60
TOKEN_S_EARLY = 10
CLIENT_ID = "orlop"
_CHALLENGES_MAX = 8
_PARAMETERS_MAX = 16


class Challenge:
    """One way in that a registry offers. scheme: "bearer" or "basic", in lower case."""

    __slots__ = ("parameters", "scheme")

    def __init__(self, scheme: str, parameters: dict[str, str]) -> None:
        self.scheme = scheme
        self.parameters = parameters


def parse_challenges(headers: Collection[str]) -> list[Challenge]:
    """Return what WWW-Authenticate headers offer. What can't be understood is left out."""
    found = []
    for header in list(headers)[:_CHALLENGES_MAX]:
        scheme, _, rest = header.strip().partition(" ")
        if scheme.lower() in ("bearer", "basic"):
            found.append(Challenge(scheme.lower(), _parameters(rest)))
    return found


def _parameters(text: str) -> dict[str, str]:
    """Return the `key="value"` pairs of a challenge."""
    out: dict[str, str] = {}
    while text and len(out) < _PARAMETERS_MAX:
        key, equals, text = text.lstrip(" ,").partition("=")
        if not equals:
            break
        if text.startswith('"'):
            value, at = "", 1
            while at < len(text) and text[at] != '"':
                at += text[at] == "\\"
                value += text[at : at + 1]
                at += 1
            text = text[at + 1 :]
        else:
            value, _, text = text.partition(",")
        out.setdefault(key.strip().lower(), value.strip())
    return out


class Authorizer:
    """Proves who we are to one origin. Used by any number of threads."""

    def __init__(self, transport: Transport, origin: Origin, tls: Tls, credentials: Credentials) -> None:
        self._transport = transport
        self._origin = origin
        self._tls = tls
        self._credentials = credentials
        self._lock = threading.Lock()
        self._basic = False
        self._tokens: dict[frozenset[str], tuple[float, str]] = {}  # scopes -> (valid until, token)

    def header(self, scopes: frozenset[str]) -> str:
        """Return the Authorization header to send at once, "" when nothing is known to be wanted."""
        if self._credentials.registry_token:
            return f"Bearer {self._credentials.registry_token}"
        with self._lock:
            until, token = self._tokens.get(scopes, (0.0, ""))
            if token and time.monotonic() < until:
                return f"Bearer {token}"
            return _basic(self._credentials) if self._basic else ""

    def answer(self, response: Response, scopes: frozenset[str], sent: str) -> str:
        """Return the header that answers a 401, "" when there is nothing (else) to try. Raises Denied, Broken."""
        challenges = parse_challenges(response.headers("WWW-Authenticate"))
        bearer = next((one for one in challenges if one.scheme == "bearer" and one.parameters.get("realm")), None)
        if bearer is not None and not self._credentials.registry_token:
            with self._lock:
                _, known = self._tokens.get(scopes, (0.0, ""))
            if known and sent != f"Bearer {known}":
                return f"Bearer {known}"  # another thread was faster
            return f"Bearer {self._fetch(bearer, scopes)}"
        offered = any(one.scheme == "basic" for one in challenges)
        header = _basic(self._credentials)
        if not offered or not header or sent == header:
            return ""
        with self._lock:
            self._basic = True
        return header

    def _fetch(self, challenge: Challenge, scopes: frozenset[str]) -> str:
        """Return a new token for these scopes and those the registry asks for."""
        realm = challenge.parameters["realm"]
        wanted = merge_scopes(scopes, challenge.parameters.get("scope", "").split())
        query = [("service", service)] if (service := challenge.parameters.get("service", "")) else []
        query += [("scope", scope) for scope in wanted]
        origin = Origin.of_url(realm)
        has_secret = bool(self._credentials.password or self._credentials.identity_token)
        if has_secret and not is_within_trust(self._origin, origin):
            raise Denied(
                "log in to",
                str(self._origin),
                f"it wants the password to be sent to {origin}",
                hint=f"if that is right, log in to {urlsplit(realm).netloc} itself, or pull without a password",
            )
        response = self._ask(realm, query)
        with response:
            data = response.document(ANSWER_BYTES_MAX)
            if response.status != 200:
                raise Denied(
                    "log in to",
                    str(self._origin),
                    f"{origin} gives no token: {_told(data) or f'status {response.status}'}",
                    hint="check user name and password with: orlop login",
                )
        token, seconds = _parse_token(data, realm)
        with self._lock:
            self._tokens[scopes] = (time.monotonic() + max(seconds - TOKEN_S_EARLY, TOKEN_S_EARLY), token)
        return token

    def _ask(self, realm: str, query: list[tuple[str, str]]) -> Response:
        tls = self._tls if Origin.of_url(realm).host == self._origin.host else type(self._tls)()
        guard = Guard(self._origin)
        if self._credentials.identity_token:
            form = [("grant_type", "refresh_token"), ("refresh_token", self._credentials.identity_token)]
            scope = " ".join(value for key, value in query if key == "scope")
            rest = [(key, value) for key, value in query if key != "scope"]
            body = urlencode([*form, ("client_id", CLIENT_ID), ("scope", scope), *rest]).encode()
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            return self._transport.request("POST", realm, headers, body, tls=tls, guard=guard)
        basic = _basic(self._credentials)
        headers = {"Authorization": basic} if basic else {}
        if basic:
            query = [*query, ("account", self._credentials.username), ("client_id", CLIENT_ID)]
        url = realm + ("&" if "?" in realm else "?") + urlencode(query)
        return self._transport.request("GET", url, headers, tls=tls, guard=guard)


def merge_scopes(*groups: Collection[str]) -> list[str]:
    """Return the scopes with one entry for each resource: `repository:a:pull` and `repository:a:push` become one."""
    actions: dict[str, list[str]] = {}
    for scope in (scope for group in groups for scope in sorted(group)):
        resource, _, wanted = scope.rpartition(":")
        known = actions.setdefault(resource, [])
        known += [action for action in wanted.split(",") if action not in known]
    return [f"{resource}:{','.join(sorted(wanted))}" for resource, wanted in sorted(actions.items())]


def is_within_trust(registry: Origin, realm: Origin) -> bool:
    """Say whether a realm may see the registry's password: the same host, a parent domain, a sibling.

    A shared parent must have two labels of its own that are no country's registry (co.uk): without the list of public
    suffixes the careful reading is that two short labels are one.
    """
    if registry.scheme == "https" and realm.scheme != "https":
        return False
    one, other = registry.host, realm.host
    if one == other:
        return True
    if not (_is_name(one) and _is_name(other)):
        return False
    shorter, longer = sorted((one, other), key=len)
    if longer.endswith("." + shorter) and _is_owned(shorter):
        return True
    parent = one.partition(".")[2]
    return parent == other.partition(".")[2] and _is_owned(parent)


def _is_name(host: str) -> bool:
    return ":" not in host and not host.replace(".", "").isdigit()


def _is_owned(domain: str) -> bool:
    labels = domain.split(".")
    if len(labels) < 2 or not all(labels):
        return False
    return len(labels) > 2 or not (len(labels[1]) == 2 and len(labels[0]) <= 3)


def _basic(credentials: Credentials) -> str:
    if not credentials.username or not credentials.password:
        return ""
    raw = f"{credentials.username}:{credentials.password}".encode()
    return "Basic " + base64.b64encode(raw).decode()


def _parse_token(data: bytes, realm: str) -> tuple[str, int]:
    document = parse_object(data, f"the token of {realm[:200]}", bytes_max=ANSWER_BYTES_MAX)
    token = document.get("token") or document.get("access_token")
    seconds = document.get("expires_in", TOKEN_S_DEFAULT)
    if not isinstance(token, str) or not token or len(token) > TOKEN_BYTES_MAX or not token.isascii():
        raise Invalid("read", f"the token of {realm[:200]}", "it holds no token")
    if any(ord(c) <= 32 or ord(c) == 127 for c in token):
        raise Invalid("read", f"the token of {realm[:200]}", "the token holds white space")
    return token, seconds if isinstance(seconds, int) and 0 < seconds < 86400 else TOKEN_S_DEFAULT


def _told(data: bytes) -> str:
    from .trouble import told

    return told(data)
