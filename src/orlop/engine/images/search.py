"""The verb `search`: names that a registry finds for a word.

docker's search index (`/v1/search`) where a registry has one; else the names of its catalogue that hold the word.
"""

from __future__ import annotations

from urllib.parse import urlencode

from ...image.registry import Patience
from ...image.registry.trouble import refusal
from ...spec.errors import Invalid
from ...spec.jsonio import parse_object
from ...spec.reference import DEFAULT_DOMAIN, Reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...image.registry import Repository
    from ...spec.registry import Credentials
    from ..engine import Engine

LIMIT_MAX = 100
CATALOG_MAX = 1000
PAGES_MAX = 20
SEARCH_HOST = "index.docker.io"


def search(engine: Engine, term: str, limit: int, credentials: Credentials) -> list[dict[str, object]]:
    """Return docker's search results: {"name", "description", "star_count", "is_official", "is_automated"}."""
    if not 1 <= limit <= LIMIT_MAX:
        cause = f"limit {limit} is outside the range of [1, {LIMIT_MAX}]"
        raise Invalid("search", term, cause, hint=f"write --limit 1 to {LIMIT_MAX}")
    domain, word = _split(term)
    place = engine.registries.to_pull(Reference.parse(f"{domain}/any/name"), credentials)[-1]
    place.scopes = frozenset()
    base = f"https://{SEARCH_HOST}" if domain == DEFAULT_DOMAIN else ""
    query = urlencode({"q": word, "n": limit})
    with place.ask("GET", f"{base}/v1/search?{query}", Patience(tries=2)) as response:
        if response.status == 200:
            results = parse_object(response.document(), f"the results of {domain}").get("results")
            found = [item for item in results if isinstance(item, dict)] if isinstance(results, list) else []
            return [_shown(item, domain) for item in found[:limit]]
        if response.status not in (404, 405):
            raise refusal(response, "search", domain)
    place.scopes = frozenset(("registry:catalog:*",))
    names = [name for name in _catalog(place) if word in name]
    return [_shown({"name": name}, domain) for name in sorted(names)[:limit]]


def _split(term: str) -> tuple[str, str]:
    """Return (registry, word): docker's grammar, where a first part with a dot or colon names the registry."""
    first, slash, rest = term.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return (DEFAULT_DOMAIN if first == SEARCH_HOST else first), rest
    return DEFAULT_DOMAIN, term.removeprefix("library/")


def _catalog(place: Repository) -> list[str]:
    names: list[str] = []
    path = f"{place.remote.endpoint.prefix}_catalog?n={CATALOG_MAX}"
    for _ in range(PAGES_MAX):
        with place.ask("GET", path, Patience(tries=2)) as response:
            if response.status != 200:
                raise refusal(response, "search", place.host)
            listed = parse_object(response.document(), f"the catalogue of {place.host}").get("repositories")
        page = [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []
        names += page
        if len(page) < CATALOG_MAX:
            break
        path = f"{place.remote.endpoint.prefix}_catalog?{urlencode({'n': CATALOG_MAX, 'last': page[-1]})}"
    return names


def _shown(item: dict[str, object], domain: str) -> dict[str, object]:
    name = str(item.get("name", ""))
    stars = item.get("star_count")
    return {
        "name": name if domain == DEFAULT_DOMAIN else f"{domain}/{name}",
        "description": str(item.get("description") or ""),
        "star_count": stars if isinstance(stars, int) else 0,
        "is_official": item.get("is_official") is True,
        "is_automated": item.get("is_automated") is True,
    }
