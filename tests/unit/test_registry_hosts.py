"""Which places are asked for a repository: podman's and containerd's files, certificates, docker's defaults."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orlop.image.registry.auth import is_within_trust, merge_scopes, parse_challenges
from orlop.image.registry.hosts import PUSH, Endpoint, Hosts
from orlop.image.registry.transport import Guard, Origin, is_loopback
from orlop.spec.errors import Denied, Invalid, OrlopError, Unavailable
from orlop.spec.reference import Reference


class Files:
    def __init__(self, root: Path) -> None:
        self.certs, self.conf = root / "certs.d", root / "registries.conf"
        self.hosts = Hosts((str(self.certs),), (str(self.conf),))

    def write(self, path: str, text: str) -> None:
        place = self.certs / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)

    def endpoints(self, name: str) -> list[tuple[str, str, str, bool]]:
        return [shown(one) for one in self.hosts.endpoints(Reference.parse(name))]


def shown(one: Endpoint) -> tuple[str, str, str, bool]:
    return one.scheme or "any", one.host, f"{one.prefix}{one.path}", one.tls.verify


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_defaults(files: Files) -> None:
    assert files.endpoints("debian") == [("https", "registry-1.docker.io", "/v2/library/debian", True)]
    assert files.endpoints("mirror.example/a/b") == [("https", "mirror.example", "/v2/a/b", True)]
    assert files.endpoints("localhost:5000/b") == [("any", "localhost:5000", "/v2/b", True)]
    assert files.endpoints("127.0.0.9:5000/b") == [("any", "127.0.0.9:5000", "/v2/b", True)]


PODMAN = """
unqualified-search-registries = ["evil.example"]
[[registry]]
prefix = "docker.io/library"
location = "inner.example/hub"
[[registry.mirror]]
location = "mirror.example:5000/docker"
insecure = true
[[registry.mirror]]
location = "digests.example"
pull-from-mirror = "digest-only"
[[registry]]
location = "plain.example"
insecure = true
[[registry]]
prefix = "*.blocked.example"
blocked = true
[[registry]]
prefix = "plain.example/deeper"
location = "mirror.example/other"
"""
DIGEST = "@sha256:" + "0" * 64


def test_podmans_file(files: Files) -> None:
    files.conf.write_text(PODMAN)
    mirror = ("any", "mirror.example:5000", "/v2/docker/debian", False)
    own = ("https", "inner.example", "/v2/hub/debian", True)
    assert files.endpoints("debian:12") == [mirror, own]
    assert files.hosts.others("docker.io") == ("mirror.example:5000", "digests.example", "inner.example")
    assert files.hosts.others("plain.example") == ("mirror.example",)
    assert files.hosts.others("elsewhere.example") == ()
    assert files.endpoints("debian" + DIGEST) == [mirror, ("https", "digests.example", "/v2/debian", True), own]
    assert files.endpoints("user/x")[0][1] == "registry-1.docker.io"
    assert files.endpoints("plain.example/x") == [("any", "plain.example", "/v2/x", False)]
    assert files.endpoints("plain.example/deeper/x") == [("https", "mirror.example", "/v2/other/x", True)]
    assert files.endpoints("plain.example/deeperx")[0][1] == "plain.example"
    with pytest.raises(Denied, match="blocks it"):
        files.endpoints("a.blocked.example/x")


def test_which_files_are_the_users(tmp_path: Path) -> None:
    """As skopeo 1.9 and podman 4.3 open them, seen with strace: root's own file counts, and replaces the machine's.

    red: with the user's file for others than root only, nothing is blocked.
    """
    home, other = tmp_path / "home/.config/containers", tmp_path / "other/containers"
    for place in (home, other):
        (place / "registries.conf.d").mkdir(parents=True)
    blocks = '[[registry]]\nlocation = "{}.example"\nblocked = true\n'
    environ = {"HOME": str(tmp_path / "home")}

    def blocked(**more: str) -> str:
        hosts = Hosts.of_user(str(tmp_path), environ | more)
        found = ""
        for name in ("home", "part", "other", "named"):
            try:
                hosts.endpoints(Reference.parse(f"{name}.example/x"))
            except Denied:
                found += f"{name} "
        return found

    (home / "registries.conf.d/1.conf").write_text(blocks.format("part"))
    assert blocked() == "part "
    (home / "registries.conf").write_text(blocks.format("home"))
    assert blocked() == blocked(XDG_CONFIG_HOME=str(other.parent)) == "home part "
    named = tmp_path / "named.conf"
    named.write_text(blocks.format("named"))
    assert blocked(CONTAINERS_REGISTRIES_CONF=str(named)) == "part named "
    (other / "registries.conf").write_text(blocks.format("other"))
    assert blocked(XDG_CONFIG_HOME=str(other.parent)) == "other "
    assert blocked(XDG_CONFIG_HOME="relative") == "home part "


def test_a_mirror_is_no_place_to_push_to_and_hears_no_password(files: Files) -> None:
    files.conf.write_text(PODMAN)
    mirror, own = files.hosts.endpoints(Reference.parse("debian"))
    assert mirror.is_mirror
    assert PUSH not in mirror.capabilities
    assert PUSH in own.capabilities


def test_containerds_file(files: Files) -> None:
    files.write(
        "mirror.example/hosts.toml",
        """
server = "https://mirror.example"
[host."http://cache.example:5000"]
capabilities = ["pull"]
skip_verify = true
[host."https://other.example/v2/prefix"]
override_path = true
ca = "ca.crt"
""",
    )
    first, second, own = files.hosts.endpoints(Reference.parse("mirror.example/a/b"))
    assert shown(first) == ("http", "cache.example:5000", "/v2/a/b", False)
    assert first.capabilities == {"pull"}
    assert shown(second) == ("https", "other.example", "/v2/prefix/a/b", True)
    assert second.tls.authorities == (f"{files.certs}/mirror.example/ca.crt",)
    assert shown(own) == ("https", "mirror.example", "/v2/a/b", True)
    assert (first.is_mirror, second.is_mirror, own.is_mirror) == (True, True, False)
    assert files.hosts.others("mirror.example") == (first.host, second.host)


def test_certificates(files: Files) -> None:
    for name in ("ca.crt", "me.cert", "me.key"):
        files.write(f"reg.example:5000/{name}", "x")
    (one,) = files.hosts.endpoints(Reference.parse("reg.example:5000/x"))
    place = f"{files.certs}/reg.example:5000"
    assert one.tls.authorities == (f"{place}/ca.crt",)
    assert one.tls.identities == ((f"{place}/me.cert", f"{place}/me.key"),)
    with pytest.raises(Invalid, match="certificate"):
        one.tls.context()
    (files.certs / "reg.example:5000/me.key").unlink()
    with pytest.raises(Invalid, match=r"no key me\.key"):
        files.hosts.endpoints(Reference.parse("reg.example:5000/x"))


@pytest.mark.parametrize(
    "text",
    [
        "[[registry",
        "registry = 5",
        "[[registry]]\nlocation = 5",
        "[registry]\nlocation='x'",
        "x = '" + "y" * 2_000_000 + "'",
    ],
)
def test_broken_files(files: Files, text: str) -> None:
    files.conf.write_text(text)
    with pytest.raises(Invalid):
        files.endpoints("debian")


def test_broken_hosts(files: Files) -> None:
    for text in ("host = 5", "[host.'ftp://x']", "server = 5", "["):
        files.write("mirror.example/hosts.toml", text)
        with pytest.raises(OrlopError):
            files.endpoints("mirror.example/x")


@contextmanager
def somebody() -> Iterator[None]:
    """Run as an ordinary user for a while, where root runs the tests."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


def test_what_may_not_be_read() -> None:
    """As podman: closed directories of certificates are passed over, a closed registries.conf.d is an error.

    Red: with `_toml` for `_hosts_toml`; with closed fragments left out; with `others` raising.
    """
    debian, barred = Reference.parse("debian"), Reference.parse("barred.example/a")
    with tempfile.TemporaryDirectory(prefix="orlop-", dir="/tmp") as place:
        root, parts = Path(place), Path(place, "config/containers/registries.conf.d")
        root.chmod(0o755)
        parts.mkdir(parents=True)
        (parts / "a.conf").write_text("[[registry]]\nlocation = 'barred.example'\nblocked = true\n")
        files = Files(root)
        files.write("docker.io/hosts.toml", "server = 'https://other.example'\n")
        environ = {"XDG_CONFIG_HOME": f"{root}/config", "HOME": f"{root}/home"}
        files.certs.chmod(0)
        parts.chmod(0)
        with somebody():
            hosts = Hosts.of_user(str(root), environ)
            assert files.endpoints("debian") == [("https", "registry-1.docker.io", "/v2/library/debian", True)]
            assert hosts.others("docker.io") == ()
            with pytest.raises(Unavailable, match=r"conf\.d: Permission denied"):
                hosts.endpoints(debian)
        for directory in (files.certs, parts):
            directory.chmod(0o755)
        with pytest.raises(Denied):
            Hosts.of_user(str(root), environ).endpoints(barred)


# -- trust ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("registry", "realm", "trusted"),
    [
        ("https://registry-1.docker.io", "https://auth.docker.io", True),
        ("https://registry.gitlab.com", "https://gitlab.com", True),
        ("https://reg.example:5000", "https://reg.example", True),
        ("https://reg.example", "http://reg.example", False),
        ("https://reg.example", "https://evil.example", False),
        ("https://reg.co.uk", "https://evil.co.uk", False),
        ("https://a.reg.co.uk", "https://auth.reg.co.uk", True),
        ("https://a.example.com", "https://com", False),
        ("https://docker.io.evil.com", "https://docker.io", False),
        ("https://10.0.0.1", "https://10.0.0.2", False),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5001", True),
        ("http://127.0.0.1:5000", "http://127.0.0.2:5000", False),
    ],
)
def test_who_may_hear_a_password(registry: str, realm: str, trusted: bool) -> None:
    assert is_within_trust(Origin.of_url(registry), Origin.of_url(realm)) is trusted


class Peer:
    def __init__(self, address: str) -> None:
        self.address = address

    def getpeername(self) -> tuple[str, int]:
        return self.address, 80


@pytest.mark.parametrize(
    ("address", "refused"),
    [
        ("169.254.169.254", True),
        ("fe80::1%eth0", True),
        ("127.0.0.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("0.0.0.0", True),
        ("224.0.0.1", True),
        ("10.1.2.3", False),
        ("93.184.216.34", False),
    ],
)
def test_where_a_registry_may_send_us(address: str, refused: bool) -> None:
    guard = Guard(Origin.of_url("https://reg.example"))
    other = Origin.of_url("https://cdn.example")
    if refused:
        with pytest.raises(Denied):
            guard.check(other, Peer(address))  # type: ignore[arg-type]
    else:
        guard.check(other, Peer(address))  # type: ignore[arg-type]
    with pytest.raises(Denied, match="leave https"):
        guard.check(Origin.of_url("http://cdn.example"), Peer("93.184.216.34"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "url",
    ["file:///etc/passwd", "ftp://x/", "//x", "http://", "http://u:p@x/", "http://x/ y", "http://[", "http://x:99999/"],
)
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(OrlopError):
        Origin.of_url(url)


def test_scopes_are_merged() -> None:
    merged = merge_scopes(["repository:a:pull", "repository:b:pull"], ["repository:a:push,pull", "registry:catalog:*"])
    assert merged == ["registry:catalog:*", "repository:a:pull,push", "repository:b:pull"]


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (
            'Bearer realm="https://a/t",service="s, x",scope="r:a:pull,push"',
            {"realm": "https://a/t", "service": "s, x", "scope": "r:a:pull,push"},
        ),
        ('bearer realm="a\\"b"', {"realm": 'a"b'}),
        ("Bearer realm=x, service=y", {"realm": "x", "service": "y"}),
        ('Bearer realm="unended', {"realm": "unended"}),
        ("Bearer", {}),
    ],
)
def test_challenges(header: str, expected: dict[str, str]) -> None:
    (challenge,) = parse_challenges([header])
    assert (challenge.scheme, challenge.parameters) == ("bearer", expected)
    assert parse_challenges(["Digest x=y", ""]) == []


def test_this_machine() -> None:
    assert all(is_loopback(name) for name in ("localhost", "127.3.2.1", "::1", "x.localhost"))
    assert not any(is_loopback(name) for name in ("localhost.example", "10.0.0.1", "127.0.0.1.example"))
