"""`orlop registry serve`: a registry for others. Needs no engine."""

from __future__ import annotations

import os
import sys

from ....spec.errors import Invalid
from ..command import Command, Invocation, for_output, write_line
from ..flags import BOOL, EXIT_USAGE, INT, LIST, STRING, Flag, Options, UsageError
from ..values import BYTES, DURATION

USERS = "users"  # below the registry's root: who may come, where nothing else is said
PASSWORD_CHARACTERS_MAX = 4096
HOUR_NS = 3600 * 10**9


UNTAGGED_S_WITH_KEEP_LAST = 3600.0  # an index is pushed after its parts, which have no tag


def _serve(invocation: Invocation) -> int:
    from ....engine.credentials import for_registry
    from ....image.repositories import Rules
    from ...registry.serve import Options, serve

    given = invocation.options
    rules = Rules(
        quota_bytes=given["quota"],
        unused_s=given["keep-unused"] / 1e9,
        keep_last=given["keep-last"],
        keep_tags=given["keep-tag"],
        total_bytes=given["cache-size"],
    )
    if given["keep-untagged"] is not None:
        rules.untagged_s = given["keep-untagged"] / 1e9
    elif given["keep-last"]:
        rules.untagged_s = UNTAGGED_S_WITH_KEEP_LAST
    _check_rules(given)
    root = _root(invocation)
    options = Options(given["address"], root, rules)
    options.htpasswd, options.tokens = given["htpasswd"], given["tokens"]
    if not options.htpasswd and os.path.exists(f"{root}/{USERS}"):
        options.htpasswd = f"{root}/{USERS}"
    options.hosts = given["host"]
    options.anonymous_pull, options.deletes = given["anonymous-pull"], not given["no-delete"]
    options.sweep_s, options.access_log = given["sweep-interval"] / 1e9, given["access-log"]
    if bool(given["tls-cert"]) != bool(given["tls-key"]):
        raise UsageError("a certificate and its key belong together", "give both --tls-cert and --tls-key", EXIT_USAGE)
    if given["cache-of"]:
        if given["quota"]:
            told = "a cache has no quota: what it serves is the other registry's"
            raise UsageError(told, "bound all of it with --cache-size", EXIT_USAGE)
        options.cache_of, options.config = given["cache-of"], invocation.paths.root
        options.credentials = for_registry(given["cache-of"])
    if given["tls-cert"]:
        options.tls = (given["tls-cert"], given["tls-key"])
    serve(options, lambda where: write_line(f"serving {root} at {where}"))
    return 0


def _root(invocation: Invocation) -> str:
    given = invocation.options["root"]
    return os.path.abspath(given) if given else f"{invocation.paths.root}/registry"


def _user(invocation: Invocation) -> int:
    from ...registry import users

    word, *names = invocation.arguments
    path = invocation.options["htpasswd"] or f"{_root(invocation)}/{USERS}"
    if len(names) != (0 if word == "ls" else 1) or word not in ("add", "rm", "ls"):
        raise UsageError(f"registry user {word}: it takes add NAME, rm NAME or ls", "", EXIT_USAGE)
    if word == "ls":
        for name in users.names(path):
            write_line(for_output(name))
    elif word == "rm":
        users.remove(path, names[0])
        write_line(for_output(names[0]))
    else:
        is_new = users.add(path, names[0], _password(invocation))
        write_line(for_output(f"{names[0]}: {'added' if is_new else 'has a new password'}"))
    return 0


def _password(invocation: Invocation) -> str:
    if invocation.options["password-stdin"]:
        return sys.stdin.read(PASSWORD_CHARACTERS_MAX).rstrip("\r\n")
    if not os.isatty(0):
        raise Invalid("add", "a user", "there is no terminal to ask for a password", hint="use --password-stdin")
    import getpass

    password = getpass.getpass("Password: ")
    if password != getpass.getpass("Password again: "):
        raise Invalid("add", "a user", "the two passwords differ", hint="try again")
    return password


def _check_rules(given: Options) -> None:
    if given["keep-last"] < 0:
        raise UsageError("a number of tags is not negative", "give --keep-last 1 or more", EXIT_USAGE)
    if given["keep-tag"] and not given["keep-last"]:
        raise UsageError("--keep-tag is an exception from --keep-last", "give --keep-last too", EXIT_USAGE)
    if given["cache-size"] and not given["cache-of"]:
        told = "only a cache may forget what it holds"
        raise UsageError(told, "give --cache-of, or bound each repository with --quota", EXIT_USAGE)


SERVE = Command(
    _serve,
    "Serve a registry",
    "[OPTIONS]",
    flags=(
        Flag("access-log", "", BOOL, "Write a line for each request to standard error", default=False),
        Flag("address", "a", STRING, "Where to listen (host:port)", default="127.0.0.1:5000"),
        Flag("anonymous-pull", "", BOOL, "Let everybody read; only writing needs a user", default=False),
        Flag("cache-of", "", STRING, "Serve what this registry (host[:port]) has, and keep it", default=""),
        Flag(
            "cache-size", "", BYTES, "The most bytes that a cache keeps; what was asked for longest ago goes", default=0
        ),
        Flag("host", "", LIST, "Name of this machine that clients ask for, besides its own (without TLS)"),
        Flag(
            "htpasswd",
            "",
            STRING,
            "File of users and bcrypt passwords (htpasswd -B; default those of `registry user`)",
            default="",
        ),
        Flag("keep-last", "", INT, "Keep this many tags of each repository, the newest (default all)", default=0),
        Flag("keep-tag", "", LIST, "With --keep-last: keep tags of this pattern besides (v*.*.*)"),
        Flag("keep-unused", "", DURATION, "Keep blobs that no manifest mentions for this time", default=6 * HOUR_NS),
        Flag("keep-untagged", "", DURATION, "Remove manifests that no tag leads to after this time (default never)"),
        Flag("no-delete", "", BOOL, "Refuse to delete anything", default=False),
        Flag("quota", "", BYTES, "The most bytes that one repository may hold", default=0),
        Flag("root", "", STRING, "Where the data lies (default the engine's data, below registry/)", default=""),
        Flag("sweep-interval", "", DURATION, "How often what nobody holds is removed", default=HOUR_NS),
        Flag("tls-cert", "", STRING, "Certificate chain (PEM) to serve https", default=""),
        Flag("tls-key", "", STRING, "Key of the certificate (PEM)", default=""),
        Flag("tokens", "", BOOL, "Authenticate with bearer tokens instead of a password each time", default=False),
    ),
)
USER = Command(
    _user,
    "Give a registry users, take them away, or list them",
    "[OPTIONS] add NAME|rm NAME|ls",
    arguments=(1, 2),
    flags=(
        Flag("htpasswd", "", STRING, "File to change (default the registry's own)", default=""),
        Flag("password-stdin", "", BOOL, "Take the password from STDIN", default=False),
        Flag("root", "", STRING, "The registry's data (default the engine's data, below registry/)", default=""),
    ),
)
