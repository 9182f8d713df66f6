"""`orlop registry serve`: a registry for others. Needs no engine."""

from __future__ import annotations

import os

from ..command import Command, Invocation, write_line
from ..flags import BOOL, EXIT_USAGE, STRING, Flag, UsageError
from ..values import BYTES, DURATION


def _serve(invocation: Invocation) -> int:
    from ....image.repositories import Rules
    from ...registry.serve import Options, serve
    from ..credentials import for_registry

    given = invocation.options
    keep = given["keep-untagged"]
    rules = (
        Rules(quota_bytes=given["quota"]) if keep is None else Rules(quota_bytes=given["quota"], untagged_s=keep / 1e9)
    )
    root = os.path.abspath(given["root"]) if given["root"] else f"{invocation.paths.root}/registry"
    options = Options(given["address"], root, rules)
    options.htpasswd, options.tokens = given["htpasswd"], given["tokens"]
    options.anonymous_pull, options.deletes = given["anonymous-pull"], not given["no-delete"]
    options.sweep_s, options.access_log = given["sweep-interval"] / 1e9, given["access-log"]
    if bool(given["tls-cert"]) != bool(given["tls-key"]):
        raise UsageError("a certificate and its key belong together", "give both --tls-cert and --tls-key", EXIT_USAGE)
    if given["cache-of"]:
        if given["quota"]:
            told = "a cache has no quota: what it serves is the other registry's"
            raise UsageError(told, "leave --quota away", EXIT_USAGE)
        options.cache_of, options.config = given["cache-of"], invocation.paths.root
        options.credentials = for_registry(given["cache-of"])
    if given["tls-cert"]:
        options.tls = (given["tls-cert"], given["tls-key"])
    serve(options, lambda where: write_line(f"serving {root} at {where}"))
    return 0


SERVE = Command(
    _serve,
    "Serve a registry",
    "[OPTIONS]",
    flags=(
        Flag("access-log", "", BOOL, "Write a line for each request to standard error", default=False),
        Flag("address", "a", STRING, "Where to listen (host:port)", default="127.0.0.1:5000"),
        Flag("anonymous-pull", "", BOOL, "Let everybody read; only writing needs a user", default=False),
        Flag("cache-of", "", STRING, "Serve what this registry (host[:port]) has, and keep it", default=""),
        Flag("htpasswd", "", STRING, "File of users and bcrypt passwords (htpasswd -B)", default=""),
        Flag("keep-untagged", "", DURATION, "Remove manifests that no tag leads to after this time (default never)"),
        Flag("no-delete", "", BOOL, "Refuse to delete anything", default=False),
        Flag("quota", "", BYTES, "The most bytes that one repository may hold", default=0),
        Flag("root", "", STRING, "Where the data lies (default the engine's data, below registry/)", default=""),
        Flag("sweep-interval", "", DURATION, "How often what nobody holds is removed", default=3600 * 10**9),
        Flag("tls-cert", "", STRING, "Certificate chain (PEM) to serve https", default=""),
        Flag("tls-key", "", STRING, "Key of the certificate (PEM)", default=""),
        Flag("tokens", "", BOOL, "Authenticate with bearer tokens instead of a password each time", default=False),
    ),
)
