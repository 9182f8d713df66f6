"""What a client says about registries: who it is there, and what the engine's verbs of images are asked for."""

from .record import Record


class Credentials(Record):
    """What a user has for one registry. identity_token: an OAuth2 refresh token; registry_token: a bearer token as is.

    Never shown: a repr in a log would be a leak (SEC-74).
    """

    strict = True
    username: str = ""
    password: str = ""
    identity_token: str = ""
    registry_token: str = ""

    def __repr__(self) -> str:
        return "Credentials(...)"

    @property
    def is_empty(self) -> bool:
        return not (self.password or self.identity_token or self.registry_token)


ANONYMOUS = Credentials()


class PullRequest(Record):
    """`orlop pull`. image: a reference; platform: "os/architecture[/variant]", "" is the machine's.

    all_tags: every tag of the repository; all_platforms: every image of an index. credentials: for the registry that
    the reference names, found by the client, whose helpers hold them.
    """

    strict = True
    json_names = {"all_tags": "all_tags", "all_platforms": "all_platforms"}
    image: str
    platform: str = ""
    all_tags: bool = False
    all_platforms: bool = False
    credentials: Credentials = ANONYMOUS


class PushRequest(Record):
    """`orlop push`. image: a reference; all_tags: every tag of its repository here; platform: of an index only that."""

    strict = True
    json_names = {"all_tags": "all_tags"}
    image: str
    all_tags: bool = False
    platform: str = ""
    credentials: Credentials = ANONYMOUS
