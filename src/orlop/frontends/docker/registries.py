"""Routes that ask registries: login, search, and what a name means there."""

from __future__ import annotations

import base64
import binascii

from ...spec import jsonio
from ...spec.errors import Denied, OrlopError
from ...spec.registry import ANONYMOUS, Credentials
from . import creation
from .door import Door, Status

_LIMIT_DEFAULT = 25
_NOBODY: dict[str, object] = {"is_official": False, "is_automated": False, "star_count": 0}
_HUB = ("", "https://index.docker.io/v1/", "index.docker.io")


def credentials(door: Door) -> Credentials:
    """Return what X-Registry-Auth says: base64url JSON (api/types/registry.AuthConfig). Raises Status."""
    found = in_header(door)
    return ANONYMOUS if found is None else of_config(creation.Reader(found, "X-Registry-Auth"))


def in_header(door: Door) -> dict[str, object] | None:
    """Return the object that X-Registry-Auth is, None without one. Raises Status."""
    text = door.headers.get("X-Registry-Auth", "")
    if not text:
        return None
    try:
        return jsonio.parse_object(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), "X-Registry-Auth")
    except (binascii.Error, ValueError, OrlopError):
        raise Status(400, "invalid X-Registry-Auth header") from None


def of_config(fields: creation.Reader) -> Credentials:
    """Return the credentials of docker's AuthConfig."""
    return Credentials(
        username=fields.text("username"),
        password=fields.text("password"),
        identity_token=fields.text("identitytoken"),
        registry_token=fields.text("registrytoken"),
    )


def login(door: Door) -> None:
    """Prove credentials; the client keeps them. An identity token is what it is to keep instead."""
    from ...engine.images.login import login as prove

    fields = creation.Reader(door.json(), "AuthConfig")
    server = fields.text("serveraddress")
    registry = "docker.io" if server in _HUB else server.partition("://")[2] or server
    try:
        found = prove(door.engine, registry.partition("/")[0], of_config(fields))
    except Denied as wrong:
        raise Status(401, wrong.cause) from None  # 403 would say that who was recognised may not
    door.answer_json(200, {"Status": "Login Succeeded", "IdentityToken": found["identity_token"]})


def search(door: Door) -> None:
    from ...engine.images.search import search as find

    limit, filters = door.number("limit"), door.filters()
    term = door.query.get("term", "")
    _chosen(_NOBODY, filters)  # what they can't be is told before anybody is asked
    found = find(door.engine, term, _LIMIT_DEFAULT if limit is None or limit == 0 else limit, credentials(door))
    door.answer_json(200, [one for one in found if _chosen(one, filters)])


def _chosen(one: dict[str, object], filters: dict[str, tuple[str, ...]]) -> bool:
    if unknown := set(filters) - {"is-official", "is-automated", "stars"}:
        raise Status(400, f"invalid filter '{min(unknown)[:60]}'")
    chosen = True
    for key in ("is-official", "is-automated"):
        for value in filters.get(key, ()):
            if value not in ("true", "1", "false", "0"):
                raise Status(400, f"invalid filter '{key}={value[:60]}'")
            chosen &= (value in ("true", "1")) == one[key.replace("-", "_")]
    for value in filters.get("stars", ()):
        if not (value.isascii() and value.isdecimal() and len(value) < 20):
            raise Status(400, f"invalid filter 'stars={value[:60]}'")
        chosen &= int(str(one["star_count"])) >= int(value)
    return chosen


def distribution(door: Door) -> None:
    from ...engine.images.distribution import inspect

    door.answer_json(200, inspect(door.engine, door.parts["name"], credentials(door)))


ROUTES = (
    ("POST", "/auth", login),
    ("GET", "/images/search", search),
    ("GET", "/distribution/{name*}/json", distribution),
)
