"""Proxies on the way to registries: who is asked through which, what they see, and what they don't."""

from __future__ import annotations

import base64
import select
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from orlop.image.registry import Endpoint, Patience, Remote, Repository, Transport
from orlop.image.registry.proxy import Proxies
from orlop.image.registry.tls import DEFAULT_TLS, Tls
from orlop.image.registry.transport import Broken, Guard, Origin
from orlop.spec.errors import Denied, Invalid, OrlopError, Unavailable, Unsupported
from orlop.spec.registry import Credentials
from support import certificates
from support.archives import Archive
from support.registries import Content, Registry

HEAD_BYTES_MAX = 65536


class Proxy:
    """A proxy on loopback that connects everybody to one place, whatever they ask for. heads: what it was told."""

    def __init__(self, place: tuple[str, int], wanted: str = "") -> None:
        self.heads: list[str] = []
        self._place, self._wanted = place, wanted
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._serve, args=(client,)))
            self._threads[-1].start()

    def _serve(self, client: socket.socket) -> None:
        with client:
            head = b""
            while b"\r\n\r\n" not in head and len(head) < HEAD_BYTES_MAX and (more := client.recv(4096)):
                head += more
            self.heads.append(head.decode())
            if self._wanted and f"Proxy-Authorization: {self._wanted}\r\n" not in self.heads[-1]:
                client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
                return
            with socket.create_connection(self._place) as server:
                if head.startswith(b"CONNECT "):
                    client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                else:
                    server.sendall(head)
                self._pump(client, server)

    def _pump(self, client: socket.socket, server: socket.socket) -> None:
        while True:
            for one in select.select([client, server], [], [], 60)[0]:
                data = one.recv(65536)
                if not data:
                    return
                (server if one is client else client).sendall(data)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()


@pytest.fixture
def content() -> Content:
    content = Content()
    tree = bytes(Archive().file(b"f"))
    content.image(tree, tree, "1")
    return content


@pytest.fixture
def registry(content: Content) -> Iterator[Registry]:
    with Registry(content) as registry:
        yield registry


def place_of(registry: Registry) -> tuple[str, int]:
    return "127.0.0.1", int(registry.server_address[1])


def repository(environ: dict[str, str], host: str, scheme: str, tls: Tls = DEFAULT_TLS) -> Repository:
    transport = Transport(Proxies(environ))
    credentials = Credentials(username="user", password="of-the-registry")
    return Repository(Remote(transport, Endpoint(host, "lib/x", scheme=scheme, tls=tls), credentials), f"{host}/lib/x")


def test_http_goes_through_with_whole_addresses(registry: Registry) -> None:
    wanted = "Basic " + base64.b64encode(b"me:p@ss").decode()
    proxy = Proxy(place_of(registry), wanted)
    place = repository({"HTTP_PROXY": f"http://me:p%40ss@{proxy.address}"}, "registry.example", "http")
    assert place.resolve("1", Patience(tries=1)).size > 0
    place.remote.transport.close()
    proxy.close()
    assert proxy.heads[0].startswith("HEAD http://registry.example/v2/lib/x/manifests/1 HTTP/1.1\r\n")
    assert "\r\nHost: registry.example\r\n" in proxy.heads[0]


def test_https_is_a_tunnel_that_sees_nothing(content: Content, tmp_path: Path) -> None:
    (tmp_path / "server.pem").write_text(certificates.CERTIFICATE + certificates.KEY)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem")
    with Registry(content, tls=context) as registry:
        proxy = Proxy(place_of(registry))
        place = repository({"https_proxy": proxy.address}, "registry.example", "https", Tls(verify=False))
        assert place.resolve("1", Patience(tries=1)).size > 0
        place.remote.transport.close()
        proxy.close()
    assert proxy.heads[0].startswith("CONNECT registry.example:443 HTTP/1.")
    assert "uthorization" not in proxy.heads[0]


def test_a_proxy_that_refuses_is_named(registry: Registry) -> None:
    proxy = Proxy(place_of(registry), "Basic nobody")
    refused = repository({"HTTPS_PROXY": f"http://{proxy.address}"}, "registry.example", "https")
    with pytest.raises(Unavailable, match=f"the proxy {proxy.address}"):
        refused.resolve("1", Patience(tries=1))
    proxy.close()
    gone = repository({"HTTPS_PROXY": f"http://{proxy.address}"}, "registry.example", "https")
    with pytest.raises(Unavailable, match=f"the proxy {proxy.address}"):
        gone.resolve("1", Patience(tries=1))


class Counted(Patience):
    """Notes that a second try is to come, and has none."""

    pauses = 0

    def pause(self, number: int, retry_after: str = "") -> bool:
        self.pauses += 1
        return False


@pytest.mark.parametrize("scheme", ["http", "https", ""])
def test_nobody_is_waited_for_who_never_answered(registry: Registry, content: Content, scheme: str) -> None:
    """One that answered once may be starting anew. Red: `pull 127.0.0.1:1/x` took 8 s to say what docker says."""
    with Registry(content) as ended:
        place = repository({}, ended.name, "http")
        assert place.resolve("1", Patience()).size > 0
        nobody = repository({}, f"127.0.0.1:{ended.server_address[1]}", scheme)
    for asked, pauses in ((nobody, 0), (place, 1)):
        patience = Counted()
        asked.remote.transport.close()
        with pytest.raises(Unavailable, match="refused"):
            asked.resolve("1", patience)
        assert patience.pauses == pauses


EXCEPTIONS = "10.0.0.0/8, .dot.example,plain.example,only.example:5000,192.0.2.7,[2001:db8::7]:443,*.star.example"


@pytest.mark.parametrize(
    ("url", "is_direct"),
    [
        ("https://elsewhere.example", False),
        ("https://10.1.2.3", True),
        ("https://11.1.2.3", False),
        ("https://a.dot.example", True),
        ("https://dot.example", False),
        ("https://a.plain.example", True),
        ("https://plain.example", True),
        ("https://notplain.example", False),
        ("https://only.example", False),
        ("https://only.example:5000", True),
        ("https://192.0.2.7:8443", True),
        ("https://192.0.2.70", False),
        ("https://[2001:db8::7]", True),
        ("https://[2001:db8::7]:444", False),
        ("https://a.star.example", True),
        ("https://star.example", False),
        ("https://localhost:5000", True),
        ("https://127.0.0.9", True),
        ("https://[::1]", True),
        ("http://elsewhere.example", True),
    ],
)
def test_exceptions(url: str, is_direct: bool) -> None:
    proxies = Proxies({"HTTPS_PROXY": "proxy.example:3128", "no_proxy": EXCEPTIONS})
    assert (proxies.of(Origin.of_url(url)) is None) is is_direct


def test_variables() -> None:
    secure, plain = Origin.of_url("https://a.example"), Origin.of_url("http://a.example")
    assert str(Proxies({"https_proxy": "http://low", "HTTPS_PROXY": "http://up:1"}).of(secure)) == "up:1"
    assert str(Proxies({"http_proxy": "low"}).of(plain)) == "low:80"
    assert Proxies({"HTTP_PROXY": "http://up", "REQUEST_METHOD": "GET"}).of(plain) is None
    assert Proxies({"HTTPS_PROXY": "http://up", "NO_PROXY": "*"}).of(secure) is None
    for url, kind in (("socks5://x:1", Unsupported), ("http://:80", Invalid), ("http://x:a", Invalid)):
        with pytest.raises(kind) as caught:
            Proxies({"HTTPS_PROXY": url}).of(secure)
        assert isinstance(caught.value, OrlopError)
    with pytest.raises(Invalid) as hidden:
        Proxies({"HTTPS_PROXY": "http://me:secret@"}).of(secure)
    assert "secret" not in str(hidden.value)


def test_what_a_registry_names_is_judged_by_name_where_a_proxy_connects() -> None:
    guard = Guard(Origin.of_url("https://registry.example"))
    guard.check(Origin.of_url("https://elsewhere.example"), None)
    for url in (
        "https://localhost",
        "https://127.0.0.1",
        "https://169.254.169.254",
        "https://[::1]",
        "http://elsewhere.example",
    ):
        with pytest.raises(Denied):
            guard.check(Origin.of_url(url), None)


def test_a_broken_proxy_is_broken(registry: Registry) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    transport = Transport(Proxies({"HTTP_PROXY": f"127.0.0.1:{listener.getsockname()[1]}"}))
    thread = threading.Thread(target=lambda: listener.accept()[0].close())
    thread.start()
    with pytest.raises(Broken):
        transport.request("GET", "http://registry.example/v2/", {})
    thread.join()
    listener.close()
