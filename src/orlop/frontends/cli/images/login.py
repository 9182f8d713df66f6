"""`orlop login`, `orlop logout`, `orlop search`: the user and registries."""

from __future__ import annotations

import os
import sys

from ....spec.errors import Invalid
from ....spec.registry import Credentials
from .. import listing
from ..command import Command, Invocation, for_output, warn, write_line
from ..flags import BOOL, EXIT_USAGE, INT, STRING, Flag, UsageError
from ..values import FILTER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..template import Row

SECRET_BYTES_MAX = 64 * 1024
DESCRIPTION_LENGTH = 45
_HEADERS: dict[str, object] = {
    "Name": "NAME",
    "Description": "DESCRIPTION",
    "StarCount": "STARS",
    "IsOfficial": "OFFICIAL",
    "IsAutomated": "AUTOMATED",
}


def _login(invocation: Invocation) -> int:
    from ....engine import credentials

    domain = domain_of(invocation.arguments[0] if invocation.arguments else "")
    given = _given(invocation, domain)
    with invocation.connect() as engine:
        result = engine.call("registries.login", {"registry": domain, "credentials": given.to_json()})
    token = str(result.get("identity_token") or "") if isinstance(result, dict) else ""
    if token:
        given = Credentials(username=given.username, identity_token=token)
    credentials.keep(domain, given)
    write_line("Login Succeeded")
    return 0


def _given(invocation: Invocation, domain: str) -> Credentials:
    """Return user and password: from flags, standard input, or the terminal; else what is kept already."""
    from ....engine import credentials

    options = invocation.options
    user, password = options["username"], options["password"]
    if options["password-stdin"]:
        if password:
            raise _usage("conflicting options: cannot specify both --password and --password-stdin")
        if not user:
            raise _usage("the --password-stdin option requires --username to be set")
        password = sys.stdin.read(SECRET_BYTES_MAX).rstrip("\r\n")
    elif password:
        warn("WARNING! Using --password via the CLI is insecure. Use --password-stdin.")
    if user and password:
        return Credentials(username=user, password=password)
    if not user and not password:
        known = credentials.for_registry(domain)
        if not known.is_empty:
            write_line("Authenticating with existing credentials...")
            return known
    if not os.isatty(0):
        cause = "Cannot perform an interactive login from a non TTY device"
        raise Invalid("log in to", domain, cause, hint="use --username and --password-stdin")
    import getpass

    user = user or input_line("Username: ")
    if not user:
        raise Invalid("log in to", domain, "username is required")
    password = password or getpass.getpass("Password: ")
    if not password:
        raise Invalid("log in to", domain, "password is required")
    return Credentials(username=user, password=password)


def input_line(prompt: str) -> str:
    sys.stdout.write(prompt)
    sys.stdout.flush()
    return sys.stdin.readline().strip()


def _usage(text: str) -> UsageError:
    return UsageError(text, "", EXIT_USAGE, shows_usage=False)


def domain_of(server: str) -> str:
    """Return the registry that a user means: docker.io for nothing; scheme and path are left away."""
    from ....spec.reference import DEFAULT_DOMAIN, Reference

    host = server.partition("://")[2] if "://" in server else server
    host = host.partition("/")[0]
    if host in ("", "index.docker.io", "registry-1.docker.io", "hub.docker.com"):
        return DEFAULT_DOMAIN
    try:
        return Reference(domain=host, path="any/name").domain
    except ValueError:
        raise Invalid("log in to", server, "it is not the host name of a registry", hint="write host:port") from None


def _logout(invocation: Invocation) -> int:
    from ....engine import credentials

    domain = domain_of(invocation.arguments[0] if invocation.arguments else "")
    if credentials.forget(domain):
        write_line(f"Removing login credentials for {credentials.key_of(domain)}")
    else:
        write_line(f"Not logged in to {credentials.key_of(domain)}")
    return 0


def _search(invocation: Invocation) -> int:
    from ....engine import credentials

    options = invocation.options
    term = invocation.arguments[0]
    first = term.partition("/")[0]
    domain = domain_of(first if "." in first or ":" in first or first == "localhost" else "")
    args: dict[str, object] = {"term": term, "limit": options["limit"] or 25}
    known = credentials.for_registry(domain).to_json()
    if known:
        args["credentials"] = known
    with invocation.connect() as engine:
        result = engine.call("registries.search", args)
    rows = (
        [_Result(item, whole=options["no-trunc"]) for item in result if isinstance(item, dict)]
        if isinstance(result, list)
        else []
    )
    rows = [row for row in rows if row.passes(options["filter"])]
    form: str = options["format"]
    if form in ("", "table"):
        listing.print_table(("NAME", "DESCRIPTION", "STARS", "OFFICIAL"), [row.cells() for row in rows])
    else:
        listing.print_formatted(form, [row.row() for row in rows], _HEADERS)
    return 0


class _Result:
    def __init__(self, item: dict[str, object], *, whole: bool) -> None:
        self.name = for_output(str(item.get("name", "")))
        text = " ".join(str(item.get("description", "")).split())
        self.description = text if whole else listing.ellipsis(text, DESCRIPTION_LENGTH)
        stars = item.get("star_count")
        self.stars = stars if isinstance(stars, int) else 0
        self.official = "[OK]" if item.get("is_official") else ""
        self.automated = "[OK]" if item.get("is_automated") else ""

    def passes(self, filters: tuple[tuple[str, str], ...]) -> bool:
        for key, value in filters:
            if key == "stars" and value.isascii() and value.isdigit():
                if self.stars < int(value[:18]):
                    return False
            elif key in ("is-official", "is-automated") and value in ("true", "false"):
                if bool(self.official if key == "is-official" else self.automated) is not (value == "true"):
                    return False
            else:
                known = "known are stars=N, is-official=true and is-automated=true"
                raise Invalid(
                    "filter", "results", f"invalid filter '{key[:60]}={value[:60]}'", hint=known, code="E0210"
                )
        return True

    def cells(self) -> tuple[str, ...]:
        return self.name, self.description, str(self.stars), self.official

    def row(self) -> Row:
        from ..template import Row

        fields: dict[str, object] = {
            "Name": self.name,
            "Description": self.description,
            "StarCount": str(self.stars),
            "IsOfficial": self.official,
            "IsAutomated": self.automated,
        }
        return Row("*formatter.searchContext", fields)


LOGIN = Command(
    _login,
    "Authenticate to a registry",
    "[OPTIONS] [SERVER]",
    flags=(
        Flag("password", "p", STRING, "Password or Personal Access Token (PAT)", default=""),
        Flag("password-stdin", "", BOOL, "Take the Password or Personal Access Token (PAT) from stdin", default=False),
        Flag("username", "u", STRING, "Username", default=""),
    ),
    arguments=(0, 1),
    aliases=("login",),
)
LOGOUT = Command(_logout, "Log out from a registry", "[SERVER]", arguments=(0, 1), aliases=("logout",))
SEARCH = Command(
    _search,
    "Search registries for images",
    "[OPTIONS] TERM",
    flags=(
        Flag("filter", "f", FILTER, "Filter output based on conditions provided"),
        Flag("format", "", STRING, "Pretty-print search using a Go template", default=""),
        Flag("limit", "", INT, "Max number of search results", default=0),
        Flag("no-trunc", "", BOOL, "Don't truncate output", default=False),
    ),
    arguments=(1, 1),
    aliases=("search",),
)
