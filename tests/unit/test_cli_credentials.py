"""Who the user is: helpers, the keyring, docker's and podman's files; and that no password is left on a disk (P32)."""

from __future__ import annotations

import base64
import json
import os
import pwd
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from orlop.engine import credentials
from orlop.frontends.cli.images.login import domain_of
from orlop.linux import keyring
from orlop.spec.errors import Invalid, OrlopError, Unavailable, Unsupported
from orlop.spec.registry import ANONYMOUS, Credentials

GIVEN = Credentials(username="u", password="pass:word")

HELPER = """#!/bin/sh
# keeps what it is given in files beside it
cd "$(dirname "$0")"
case "$1" in
store) cat > stored ;;
get) read -r server; cat stored 2>/dev/null || { echo "credentials not found in native keychain"; exit 1; } ;;
erase) rm stored ;;
esac
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.delenv("DOCKER_CONFIG", raising=False)
    monkeypatch.delenv("REGISTRY_AUTH_FILE", raising=False)
    return tmp_path


@pytest.fixture
def registry() -> Iterator[str]:
    name = f"test-{secrets.token_hex(8)}.example"
    yield name
    try:
        keyring.remove(f"orlop:registry:{name}")
    except OSError:
        pass


def config(home: Path, document: object) -> Path:
    path = home / ".docker/config.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def auth(user: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def helper(home: Path, monkeypatch: pytest.MonkeyPatch, text: str = HELPER) -> None:
    program = home / "bin/docker-credential-test"
    program.parent.mkdir()
    program.write_text(text)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


def test_nobody(home: Path, registry: str) -> None:
    assert credentials.for_registry(registry) == ANONYMOUS
    assert not credentials.forget(registry)


@pytest.mark.parametrize("key", ["{}", "https://{}", "https://{}/v1/", "https://{}/v2/"])
def test_auths_of_docker(home: Path, registry: str, key: str) -> None:
    config(home, {"auths": {key.format(registry): auth("u", "pass:word")}})
    assert credentials.for_registry(registry) == GIVEN
    assert credentials.for_registry("other.example") == ANONYMOUS


def test_tokens_of_docker(home: Path) -> None:
    config(
        home, {"auths": {"https://index.docker.io/v1/": {"identitytoken": "t"}, "x.example": {"registrytoken": "r"}}}
    )
    assert credentials.for_registry("docker.io") == Credentials(identity_token="t")
    assert credentials.for_registry("x.example") == Credentials(registry_token="r")


@pytest.mark.parametrize("place", ["run/containers/auth.json", ".config/containers/auth.json"])
def test_auths_of_podman(home: Path, registry: str, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    path = home / place
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"auths": {registry: auth("u", "pass:word")}}))
    assert credentials.for_registry(registry) == GIVEN
    monkeypatch.delenv("HOME")  # a service of systemd has none: whose it is stands in passwd
    assert credentials.config_file() == f"{pwd.getpwuid(os.geteuid()).pw_dir}/.docker/config.json"


def test_a_key_with_a_namespace_is_nearer_than_the_keyring(home: Path, registry: str) -> None:
    """Where it fits: all of a part of the path. Red: with the keyring asked first."""
    try:
        credentials.keep(registry, GIVEN)
    except Unsupported:
        pytest.skip("needs: the kernel's keyring")
    config(home, {"auths": {f"{registry}/team": auth("t", "p"), f"{registry}/team/app": auth("a", "p")}})
    found = {
        path: credentials.for_registry(registry, path).username for path in ("team/x", "team/app/y", "teams/x", "")
    }
    assert found == {"team/x": "t", "team/app/y": "a", "teams/x": "u", "": "u"}


@pytest.mark.parametrize(
    "document", ["{", "[]", '{"auths": 5}', '{"auths": {"R": 5}}', '{"auths": {"R": {"auth": "%%"}}}']
)
def test_broken_files(home: Path, registry: str, document: str) -> None:
    config(home, document.replace("R", registry))
    try:
        assert credentials.for_registry(registry) == ANONYMOUS
    except OrlopError as wrong:
        assert isinstance(wrong, Invalid)


def test_a_helper_keeps_and_forgets(home: Path, registry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    helper(home, monkeypatch)
    before = config(home, {"credHelpers": {registry: "test"}}).read_bytes()
    assert credentials.for_registry(registry) == ANONYMOUS
    assert credentials.keep(registry, GIVEN) == "docker-credential-test"
    stored = json.loads((home / "bin/stored").read_bytes())
    assert stored == {"ServerURL": registry, "Username": "u", "Secret": "pass:word"}
    assert credentials.for_registry(registry) == GIVEN
    credentials.keep(registry, Credentials(username="u", identity_token="t"))
    assert credentials.for_registry(registry) == Credentials(identity_token="t")
    assert credentials.forget(registry)
    assert credentials.for_registry(registry) == ANONYMOUS
    assert (home / ".docker/config.json").read_bytes() == before


def test_the_store_for_all_registries(home: Path, registry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    helper(home, monkeypatch)
    config(home, {"credsStore": "test"})
    credentials.keep("docker.io", GIVEN)
    assert json.loads((home / "bin/stored").read_bytes())["ServerURL"] == "https://index.docker.io/v1/"


@pytest.mark.parametrize(
    "text", ["#!/bin/sh\nexit 3\n", "#!/bin/sh\necho '{'\n", "#!/bin/sh\necho no such thing; exit 1\n"]
)
def test_broken_helpers(home: Path, registry: str, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    helper(home, monkeypatch, text)
    config(home, {"credsStore": "test"})
    with pytest.raises((Unavailable, Invalid)):
        credentials.for_registry(registry)


@pytest.mark.parametrize("name", ["../evil", "a/b", "nothere", "x;y"])
def test_a_helper_is_a_name(home: Path, registry: str, name: str) -> None:
    config(home, {"credsStore": name})
    with pytest.raises((Unavailable, Invalid)):
        credentials.for_registry(registry)


def test_the_keyring_keeps_it_and_no_file_does(home: Path, registry: str) -> None:
    try:
        where = credentials.keep(registry, GIVEN)
    except Unsupported as refused:
        assert "credsStore" in refused.hint
        return
    assert "keyring" in where
    assert credentials.for_registry(registry) == GIVEN
    secret, encoded = b"pass:word", base64.b64encode(b"u:pass:word")
    for path in home.rglob("*"):
        data = path.read_bytes() if path.is_file() else b""
        assert secret not in data
        assert encoded not in data
    assert credentials.forget(registry)
    assert credentials.for_registry(registry) == ANONYMOUS


def test_without_a_keyring_nothing_is_written(home: Path, registry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(38, "add_key: Function not implemented")

    monkeypatch.setattr(keyring, "put", refuse)
    with pytest.raises(Unsupported, match="keyring takes no key"):
        credentials.keep(registry, GIVEN)
    assert list(home.rglob("*")) == []


def test_a_login_is_stronger_than_an_old_file_and_logout_clears_both(home: Path, registry: str) -> None:
    path = config(home, {"auths": {registry: auth("old", "old"), "other": auth("a", "b")}, "proxies": {"x": 1}})
    try:
        credentials.keep(registry, GIVEN)
        assert credentials.for_registry(registry) == GIVEN
    except Unsupported:
        pass
    assert credentials.forget(registry)
    assert json.loads(path.read_bytes()) == {"auths": {"other": auth("a", "b")}, "proxies": {"x": 1}}
    assert path.stat().st_mode & 0o777 == 0o600


def test_credentials_are_never_shown() -> None:
    assert "word" not in repr(GIVEN)


@pytest.mark.parametrize(
    ("server", "domain"),
    [
        ("", "docker.io"),
        ("https://index.docker.io/v1/", "docker.io"),
        ("localhost:5000", "localhost:5000"),
        ("https://reg.example/v2/", "reg.example"),
    ],
)
def test_what_a_user_calls_a_registry(server: str, domain: str) -> None:
    assert domain_of(server) == domain


@pytest.mark.parametrize("server", ["a b", "../x", "-x", "x:y:z", "http://:5000"])
def test_what_is_no_registry(server: str) -> None:
    with pytest.raises(Invalid):
        domain_of(server)
