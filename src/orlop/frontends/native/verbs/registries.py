"""The verbs `registries.*`."""

from ....spec.registry import Credentials
from .call import Args, Call, Verb


class Login(Args):
    registry: str
    credentials: Credentials


class Search(Args):
    term: str
    limit: int = 25
    credentials: Credentials = Credentials()


def _login(call: Call, args: Login) -> object:
    from ....engine.images.login import login

    return login(call.engine, args.registry, args.credentials)


def _search(call: Call, args: Search) -> object:
    from ....engine.images.search import search

    return search(call.engine, args.term, args.limit, args.credentials)


VERBS: dict[str, Verb] = {
    "registries.login": Verb(Login, _login, lasts=True),
    "registries.search": Verb(Search, _search, lasts=True),
}
