"""TLS to registries: what is not trusted is refused, and never asked over http instead."""

from __future__ import annotations

import gzip
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from orlop.image.registry import Endpoint, Patience, Remote, Repository, Transport, client
from orlop.image.registry.tls import DEFAULT_TLS, Tls, of_directory
from orlop.spec.errors import Unavailable
from orlop.spec.registry import ANONYMOUS
from support.archives import Archive
from support.certificates import CERTIFICATE, KEY
from support.registries import Content, Registry

TAR = bytes(Archive().file(b"a"))


@pytest.fixture
def certs(tmp_path: Path) -> Path:
    """A directory as certs.d has one for each registry."""
    (tmp_path / "ca.crt").write_text(CERTIFICATE)
    (tmp_path / "server.pem").write_text(CERTIFICATE + KEY)
    return tmp_path


@pytest.fixture
def secure(certs: Path) -> Iterator[Registry]:
    content = Content()
    content.image(TAR, gzip.compress(TAR), "1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certs / "server.pem")
    with Registry(content, tls=context) as registry:
        yield registry


@pytest.fixture
def transport(monkeypatch: pytest.MonkeyPatch) -> Iterator[Transport]:
    monkeypatch.setattr(client, "BACKOFF_S", 0.01)
    made = Transport()
    yield made
    made.close()


def ask(transport: Transport, host: str, tls: Tls, scheme: str) -> int:
    place = Repository(Remote(transport, Endpoint(host, "x", scheme=scheme, tls=tls), ANONYMOUS), "x")
    return place.manifest("1", Patience(tries=1))[0].size


@pytest.mark.parametrize("scheme", ["https", ""])
def test_an_untrusted_certificate_is_refused(secure: Registry, transport: Transport, scheme: str) -> None:
    with pytest.raises(Unavailable, match="certificate is not valid") as refused:
        ask(transport, secure.name, DEFAULT_TLS, scheme)
    assert "ca.crt" in refused.value.hint
    assert secure.requests == []


@pytest.mark.parametrize("scheme", ["https", ""])
def test_a_certificate_of_certs_d_is_trusted(secure: Registry, transport: Transport, certs: Path, scheme: str) -> None:
    tls = of_directory(str(certs))
    assert tls is not None
    assert ask(transport, secure.name, tls, scheme) > 0
    assert secure.fetched("manifests") == 1


def test_an_insecure_registry_is_one_that_is_named(secure: Registry, transport: Transport) -> None:
    assert ask(transport, secure.name, DEFAULT_TLS.unverified(), "https") > 0


def test_https_is_not_left_for_a_server_without(transport: Transport) -> None:
    content = Content()
    content.image(TAR, gzip.compress(TAR), "1")
    with Registry(content) as plain:
        with pytest.raises(Unavailable):
            ask(transport, plain.name, DEFAULT_TLS, "https")
        assert plain.requests == []
        assert ask(transport, plain.name, DEFAULT_TLS, "") > 0
