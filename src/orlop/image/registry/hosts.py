"""Where a registry is spoken to: its own address, mirrors before it, and how to trust each.

Read anew for every verb, so a change counts at once. Sources, the first that speaks of a registry decides:

    <certs.d>/<host>/hosts.toml      containerd's form
    registries.conf (+ .d)           podman's form, version 2: location, prefix, insecure, blocked, mirror; the user's,
                                     root's too, in place of the machine's (containers/image: sysregistriesv2)
    docker's defaults                docker.io is registry-1.docker.io; this machine itself may speak http

Certificates lie in <certs.d>/<host>/: NAME.crt, NAME.cert and NAME.key. A directory of them that this user may not
enter is passed over; a registries.conf that may not be read is an error where a registry is asked: it may block one.
Source: containers-registries.conf(5), containerd's docs/hosts.md, dockerd(8) on insecure registries.
"""

from __future__ import annotations

import os

from orlop.spec.errors import Denied, Invalid, Unavailable
from orlop.spec.reference import Reference

from .tls import DEFAULT_TLS, Tls, of_directory
from .transport import Origin, is_loopback

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

DOCKER_HUB, DOCKER_HUB_HOST = "docker.io", "registry-1.docker.io"
REGISTRIES = "containers/registries.conf"
FILE_BYTES_MAX = 1024 * 1024
ENDPOINTS_MAX = 16
PULL, RESOLVE, PUSH = "pull", "resolve", "push"
ALL = frozenset((PULL, RESOLVE, PUSH))


class Endpoint:
    """One place that holds a repository. scheme "" tries https first, then http: only where http is allowed.

    path: the repository's path there. capabilities: some of PULL, RESOLVE (tags may be asked for) and PUSH.
    is_mirror: not the registry that the reference names: credentials for that one are not for this one.
    """

    __slots__ = ("capabilities", "host", "is_mirror", "path", "prefix", "scheme", "tls")

    def __init__(
        self,
        host: str,
        path: str,
        *,
        scheme: str = "https",
        tls: Tls = DEFAULT_TLS,
        is_mirror: bool = False,
        capabilities: frozenset[str] = ALL,
    ) -> None:
        self.host = host
        self.path = path
        self.scheme = scheme
        self.tls = tls
        self.is_mirror = is_mirror
        self.capabilities = capabilities
        self.prefix = "/v2/"

    def origin(self, scheme: str) -> Origin:
        return Origin.of_url(f"{scheme}://{self.host}/")


class Hosts:
    """The configuration files. certs: directories of certificates and hosts.toml, the first wins; files: registries."""

    def __init__(self, certs: tuple[str, ...], files: tuple[str, ...]) -> None:
        self._certs = certs
        self._files = files

    @classmethod
    def of_user(cls, root: str, environ: Mapping[str, str]) -> Hosts:
        """Return the files that the engine of this data directory reads: its own, the user's, the machine's."""
        at_home = environ.get("HOME", "/nonexistent").rstrip("/") + "/.config"
        given = environ.get("XDG_CONFIG_HOME", "")
        config = given if given.startswith("/") else at_home
        own = (f"{config}/containers/certs.d",)
        machine = ("/etc/containers/certs.d", "/etc/docker/certs.d", "/etc/containerd/certs.d")
        places = dict.fromkeys((config, at_home))  # podman looks at home only, whatever XDG_CONFIG_HOME says
        mine = next((one for one in places if os.path.exists(f"{one}/{REGISTRIES}")), None)
        if named := environ.get("CONTAINERS_REGISTRIES_CONF", ""):
            main, parts = named, ["/etc", config]
        elif mine is not None:
            main, parts = f"{mine}/{REGISTRIES}", [mine]  # also of root; what /etc has is not read then
        else:
            main, parts = f"/etc/{REGISTRIES}", ["/etc", config]
        files = (main, *(path for part in parts for path in _fragments(f"{part}/{REGISTRIES}.d")))
        return cls((f"{root}/certs.d", *own, *machine), files)

    def endpoints(self, reference: Reference) -> tuple[Endpoint, ...]:
        """Return the places to ask for a repository, in turn. Raises Invalid for a broken file, Denied if blocked."""
        for directory in self._certs:
            document = _hosts_toml(directory, reference.domain)
            if document is not None:
                return self._of_containerd(document, reference, f"{directory}/{reference.domain}")
        registry = self._registry_of(reference)
        if registry is not None:
            return self._of_podman(registry, reference)
        return (self._endpoint(reference.domain, reference.path),)

    def others(self, domain: str) -> tuple[str, ...]:
        """Return the hosts that requests for a registry may go to beside its own. Raises Invalid for a broken file.

        A file that may not be read names none: whoever only looks for credentials may never ask a registry.
        """
        found: dict[str, None] = {}
        for directory in self._certs:
            document = _hosts_toml(directory, domain)
            if document is not None:
                reference = Reference(domain=domain, path="any/name")
                places = self._of_containerd(document, reference, f"{directory}/{domain}")
                return tuple(dict.fromkeys(one.host for one in places if one.is_mirror))
        for path in self._files:
            try:
                document = _toml(path)
            except Unavailable:
                continue
            for table in _tables(document or {}, "registry", path):
                prefix = _text(table, "prefix", path) or _text(table, "location", path)
                host = prefix.partition("/")[0]
                if host == domain or (host.startswith("*.") and domain.endswith(host[1:])):
                    for place in (*_tables(table, "mirror", path), table):
                        found[_text(place, "location", path).partition("/")[0]] = None
        return tuple(one for one in found if one and one != domain)

    def _endpoint(self, host: str, path: str, *, insecure: bool = False, is_mirror: bool = False) -> Endpoint:
        tls = next((found for part in self._certs if (found := of_directory(f"{part}/{host}"))), DEFAULT_TLS)
        name = Origin.of_url(f"https://{host}/").host
        if insecure:
            tls = tls.unverified()
        return Endpoint(
            DOCKER_HUB_HOST if host == DOCKER_HUB else host,
            path,
            scheme="" if insecure or is_loopback(name) else "https",
            tls=tls,
            is_mirror=is_mirror,
            capabilities=ALL - {PUSH} if is_mirror else ALL,
        )

    # -- podman's registries.conf -----------------------------------------------------------------------------------

    def _registry_of(self, reference: Reference) -> dict[str, Any] | None:
        """Return the [[registry]] table with the longest prefix that fits; a later file replaces an equal prefix."""
        best: tuple[int, dict[str, Any]] | None = None
        for path in self._files:
            document = _toml(path)
            for table in _tables(document or {}, "registry", path):
                prefix = _text(table, "prefix", path) or _text(table, "location", path)
                if prefix and _fits(prefix, reference) and (best is None or len(prefix) >= best[0]):
                    best = (len(prefix), table | {"prefix": prefix, "file": path})
        return best[1] if best else None

    def _of_podman(self, registry: dict[str, Any], reference: Reference) -> tuple[Endpoint, ...]:
        file, prefix = str(registry["file"]), str(registry["prefix"])
        if registry.get("blocked") is True:
            raise Denied("ask", f"registry {prefix}", f"{file} blocks it", hint="take `blocked` away if that is wrong")
        places = []
        for mirror in _tables(registry, "mirror", file):
            by_digest = _text(mirror, "pull-from-mirror", file) or (
                "digest-only" if registry.get("mirror-by-digest-only") is True else "all"
            )
            if by_digest == "digest-only" and reference.digest is None:
                continue
            if by_digest == "tag-only" and reference.digest is not None:
                continue
            places.append((_text(mirror, "location", file), mirror.get("insecure") is True, True))
        places.append((_text(registry, "location", file) or prefix, registry.get("insecure") is True, False))
        if prefix.startswith("*."):
            places[-1] = (_text(registry, "location", file) or reference.domain, places[-1][1], False)
        rest = reference.name[len(prefix) :] if not prefix.startswith("*.") else f"/{reference.path}"
        found = []
        for location, insecure, is_mirror in places[-ENDPOINTS_MAX:]:
            host, _, path = f"{location}{rest}".partition("/")
            if not host or not path:
                raise Invalid("use", file, f"{location!r} is not the location of a registry", hint="write host:port")
            moved = is_mirror or host != reference.domain
            found.append(self._endpoint(host, path, insecure=insecure, is_mirror=moved))
        if not any(PUSH in one.capabilities for one in found):
            found[-1].capabilities = ALL
        return tuple(found)

    # -- containerd's hosts.toml ------------------------------------------------------------------------------------

    def _of_containerd(self, document: dict[str, Any], reference: Reference, directory: str) -> tuple[Endpoint, ...]:
        file = f"{directory}/hosts.toml"
        hosts = document.get("host", {})
        if not isinstance(hosts, dict):
            raise Invalid("use", file, "host is not a table")
        found = [
            self._containerd_endpoint(url, table, reference, file)
            for url, table in list(hosts.items())[:ENDPOINTS_MAX]
            if isinstance(table, dict)
        ]
        server = _text(document, "server", file) or f"https://{reference.domain}"
        if reference.domain == DOCKER_HUB and server in (f"https://{DOCKER_HUB}", "https://index.docker.io"):
            server = f"https://{DOCKER_HUB_HOST}"
        upstream = {key: value for key, value in document.items() if key not in ("host", "server")}
        found.append(self._containerd_endpoint(server, upstream, reference, file))
        return tuple(found)

    def _containerd_endpoint(self, url: str, table: dict[str, Any], reference: Reference, file: str) -> Endpoint:
        url = url if "://" in url else f"https://{url}"
        origin = Origin.of_url(url)
        host, _, prefix = url.partition("://")[2].partition("/")
        own = host in (reference.domain, DOCKER_HUB_HOST if reference.domain == DOCKER_HUB else "")
        endpoint = self._endpoint(host, reference.path, is_mirror=not own)
        endpoint.scheme = origin.scheme
        named = table.get("capabilities")
        if isinstance(named, list):
            endpoint.capabilities = frozenset(str(one) for one in named) & ALL
        directory = os.path.dirname(file)
        authorities = tuple(_under(directory, path) for path in _strings(table.get("ca", []), file))
        pairs = table.get("client", [])
        identities = tuple(
            (_under(directory, pair[0]), _under(directory, pair[-1])) if isinstance(pair, list) else (str(pair),) * 2
            for pair in (pairs if isinstance(pairs, list) else [pairs])
            if pair
        )
        verify = table.get("skip_verify") is not True
        if authorities or identities or not verify:
            endpoint.tls = Tls(verify=verify, authorities=authorities, identities=identities)
        if table.get("override_path") is True:
            endpoint.prefix = f"/{prefix.strip('/')}/"
        elif prefix.strip("/") and prefix.strip("/") != "v2":
            endpoint.prefix = f"/{prefix.strip('/')}/v2/"
        return endpoint


def _fits(prefix: str, reference: Reference) -> bool:
    if prefix.startswith("*."):
        return reference.domain.endswith(prefix[1:])
    name = reference.name
    return name == prefix or name.startswith(prefix + "/")


def _fragments(directory: str) -> tuple[str, ...]:
    try:
        names = sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return ()
    except OSError:
        return (directory,)  # reading it says what is wrong
    return tuple(f"{directory}/{name}" for name in names if name.endswith(".conf"))


def _hosts_toml(directory: str, host: str) -> dict[str, Any] | None:
    """Return the document of a host in a directory of certificates; None when that has none or may not be entered."""
    path = f"{directory}/{host}/hosts.toml"
    try:
        return _toml(path)
    except Unavailable:
        try:
            os.stat(path)
        except PermissionError:
            return None
        except OSError:
            pass
        raise


def _toml(path: str) -> dict[str, Any] | None:
    """Return a file's document, None when there is no such file. Raises Invalid, Unavailable."""
    try:
        with open(path, "rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as wrong:
        hint = "let this user read it, or write a ~/.config/containers/registries.conf, which is read in its place"
        raise Unavailable("read", path, wrong.strerror or str(wrong), hint=hint) from None
    import tomllib

    if len(data) > FILE_BYTES_MAX:
        raise Invalid("read", path, f"it has more than {FILE_BYTES_MAX} bytes", code="E0212")
    try:
        return tomllib.loads(data.decode())
    except (ValueError, RecursionError) as wrong:
        raise Invalid("read", path, f"it is not valid TOML: {wrong}", hint="correct the file") from None


def _tables(document: Mapping[str, Any], name: str, path: str) -> list[dict[str, Any]]:
    tables = document.get(name, [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise Invalid("read", path, f"{name} is not a list of tables", hint=f"write [[{name}]]")
    return tables


def _text(table: Mapping[str, Any], name: str, path: str) -> str:
    value = table.get(name, "")
    if not isinstance(value, str):
        raise Invalid("read", path, f"{name} is not a string")
    return value


def _strings(value: object, path: str) -> list[str]:
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(one, str) for one in values):
        raise Invalid("read", path, "a certificate's file is not a string")
    return [str(one) for one in values]


def _under(directory: str, path: object) -> str:
    return os.path.join(directory, str(path))
