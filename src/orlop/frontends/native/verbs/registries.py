"""The verbs `registries.*`."""

from ....spec.registry import Credentials, Location
from .call import Args, Call, Verb


class Login(Args):
    registry: str
    credentials: Credentials


class Search(Args):
    term: str
    limit: int = 25
    credentials: Credentials = Credentials()


class Look(Args):
    place: Location
    platform: str = ""


class Place(Args):
    place: Location


class Places(Args):
    registry: str


def _places(call: Call, args: Places) -> object:
    return list(call.engine.registries.hosts().others(args.registry))


def _login(call: Call, args: Login) -> object:
    from ....engine.images.login import login

    return login(call.engine, args.registry, args.credentials)


def _search(call: Call, args: Search) -> object:
    from ....engine.images.search import search

    return search(call.engine, args.term, args.limit, args.credentials)


def _look(call: Call, args: Look) -> object:
    from ....engine.images.distribution import look

    return look(call.engine, args.place, args.platform)


def _tags(call: Call, args: Place) -> object:
    from ....engine.images.distribution import tags

    return tags(call.engine, args.place)


def _delete(call: Call, args: Place) -> object:
    from ....engine.images.distribution import delete

    delete(call.engine, args.place)
    return {}


VERBS: dict[str, Verb] = {
    "registries.delete": Verb(Place, _delete, lasts=True),
    "registries.login": Verb(Login, _login, lasts=True),
    "registries.look": Verb(Look, _look, lasts=True),
    "registries.places": Verb(Places, _places),
    "registries.search": Verb(Search, _search, lasts=True),
    "registries.tags": Verb(Place, _tags, lasts=True),
}
