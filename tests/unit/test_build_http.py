"""What a Dockerfile's ADD fetches, from servers that say what no server should."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from orlop.build import http as fetching
from orlop.spec.errors import Denied, Invalid, OrlopError

CONTENT = b"of the server\n"
# path: headers that its answer has beside
HEADERS = {
    "/no-number": {"Content-Length": "\xb2"},
    "/long-number": {"Content-Length": "9" * 5000},
    "/no-date": {"Last-Modified": "yesterday"},
    "/far-zone": {"Last-Modified": "Mon, 01 Jan 2024 00:00:00 +99999999999999999"},
    "/first-year": {"Last-Modified": "Mon, 01 Jan 0001 00:00:00 -0000"},
    "/%C3%A4%20b": {},
}
AUTH = "/auth"
LINKS = {
    "/named": "http://me:pass@127.0.0.1/x",
    "/half": "http://[::1/x",
    "/port": "http://127.0.0.1:99999/x",
    "/letters": "http://h:x/x",
}


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if link := LINKS.get(self.path):
            self.send_response(302)
            self.send_header("Location", link)
        elif self.path in HEADERS:
            self.send_response(200)
            for name, value in HEADERS[self.path].items():
                self.send_header(name, value)
        elif self.path == AUTH and self.headers["Authorization"] == "Basic bWU6cGEgc3M=":
            self.send_response(200)
        else:
            self.send_response(404)
        self.end_headers()
        self.wfile.write(CONTENT)

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{found.server_address[1]}"
        found.shutdown()
        thread.join()


@pytest.mark.parametrize("path", ["/no-number", "/no-date", "/far-zone", "/first-year", "/\u00e4 b"])
def test_headers_that_say_nothing_are_passed_over(server: str, path: str, tmp_path: Path) -> None:
    fetching.download(server + path, str(tmp_path / "file"), lambda _: None)
    assert (tmp_path / "file").read_bytes() == CONTENT


@pytest.mark.parametrize("path", ["/long-number", *LINKS])
def test_an_answer_that_can_not_be_is_told(server: str, path: str, tmp_path: Path) -> None:
    with pytest.raises(OrlopError, match=r"ended after|URL|[Pp]ort|user name"):
        fetching.download(server + path, str(tmp_path / "file"), lambda _: None)


def test_a_password_of_a_url_is_sent_and_not_told(server: str, tmp_path: Path) -> None:
    """As Go's client sends it. Red: it was not sent; where nobody listened, the error had it."""
    whose = server.replace("://", "://me:pa%20ss@")
    fetching.download(whose + AUTH, str(tmp_path / "file"), lambda _: None)
    for wrong in (f"{whose}/nosuch", "http://me:pa%20ss@127.0.0.1:1/", "http://me:pa%20ss@127.0.0.1:0/"):
        with pytest.raises(OrlopError) as told:
            fetching.download(wrong, str(tmp_path / "other"), lambda _: None)
        assert "pa%20ss" not in f"{told.value} {told.value.subject} {told.value.cause}"


URLS_OF_NOBODY = (
    "http://[::1/x", "http://" + "x" * 300 + "/", "http://" + "a." * 200 + "/", "http://a..b/", "http://.../", "http://h:99999/",
    "http://h:0/", "http://h:-1/", "http://h:x/", "http://%00/", "http://\0/", "http://h/\r\nX: y", "http://[fe80::1%25lo]/",
    "http://a b/", "http://\u2100/", "http://\ufffd/",
)  # fmt: skip


@pytest.mark.parametrize("url", URLS_OF_NOBODY, ids=ascii)
def test_a_url_that_is_none_is_told(url: str, tmp_path: Path) -> None:
    """Red: as Unavailable, which docker's door tells as a failure of the server."""
    with pytest.raises(Invalid):
        fetching.download(url, str(tmp_path / "file"), lambda _: None)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "unix:///x", "ftp://h/", "http:///", "http:", "h", ""])
def test_other_places_are_denied(url: str, tmp_path: Path) -> None:
    with pytest.raises(Denied):
        fetching.download(url, str(tmp_path / "file"), lambda _: None)
