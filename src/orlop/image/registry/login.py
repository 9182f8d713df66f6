"""Logging in: the password is tried once, and a registry that gives a token for it spares us keeping it.

Source: distribution's "Oauth2 Token Authentication" (grant_type=password, access_type=offline).
"""

from __future__ import annotations

from urllib.parse import urlencode

from orlop.spec.errors import Denied, Invalid
from orlop.spec.jsonio import parse_object

from .auth import ANSWER_BYTES_MAX, CLIENT_ID, is_within_trust, parse_challenges
from .transport import Broken, Guard, Origin
from .trouble import refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from orlop.spec.registry import Credentials

    from .client import Patience, Repository


def prove(repository: Repository, credentials: Credentials, patience: Patience) -> str:
    """Ask the registry whether it knows the user; return an identity token if it gives one, else "".

    Raises Denied for a wrong password, Unavailable.
    """
    remote = repository.remote
    base = remote.endpoint.prefix
    try:
        with remote.transport.request("GET", f"{remote.origin()}{base}", {}, tls=remote.endpoint.tls) as response:
            challenges = parse_challenges(response.headers("WWW-Authenticate"))
    except Broken as broken:
        raise repository.unreachable(broken) from None
    repository.scopes = frozenset()
    with repository.ask("GET", base, patience) as response:
        if response.status == 401:
            raise Denied(
                "log in to",
                repository.host,
                "unauthorized: incorrect username or password",
                hint="check them and try again",
                code="E0802",
            )
        if response.status != 200:
            raise refusal(response, "log in to", repository.host)
    realm = next((one for one in challenges if one.scheme == "bearer" and one.parameters.get("realm")), None)
    return _identity_token(repository, credentials, realm.parameters) if realm is not None else ""


def _identity_token(repository: Repository, credentials: Credentials, parameters: dict[str, str]) -> str:
    """Return a refresh token, "" from a server that gives none."""
    remote = repository.remote
    realm = parameters["realm"]
    if not credentials.password or not is_within_trust(remote.origin(), Origin.of_url(realm)):
        return ""
    form = {
        "grant_type": "password",
        "username": credentials.username,
        "password": credentials.password,
        "service": parameters.get("service", ""),
        "client_id": CLIENT_ID,
        "access_type": "offline",
    }
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    body = urlencode(form).encode()
    try:
        with remote.transport.request("POST", realm, headers, body, guard=Guard(remote.origin())) as response:
            if response.status != 200:
                return ""
            answer = parse_object(response.document(ANSWER_BYTES_MAX), "the identity token")
    except (Broken, Invalid):
        return ""
    token = answer.get("refresh_token")
    return token if isinstance(token, str) and token.isascii() else ""
