"""What a Dockerfile's ADD fetches, from servers that say what no server should."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from orlop.build import http as fetching
from orlop.spec.errors import OrlopError

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
LINKS = {"/half": "http://[::1/x", "/port": "http://127.0.0.1:99999/x", "/letters": "http://h:x/x"}


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if link := LINKS.get(self.path):
            self.send_response(302)
            self.send_header("Location", link)
        elif self.path in HEADERS:
            self.send_response(200)
            for name, value in HEADERS[self.path].items():
                self.send_header(name, value)
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
    with pytest.raises(OrlopError, match=r"ended after|URL|port|Port"):
        fetching.download(server + path, str(tmp_path / "file"), lambda _: None)


@pytest.mark.parametrize("url", ["http://[::1/x", "http://" + "x" * 300 + "/", "http://a..b/", "http://h:99999/"])
def test_a_url_that_is_none_is_told(url: str, tmp_path: Path) -> None:
    with pytest.raises(OrlopError):
        fetching.download(url, str(tmp_path / "file"), lambda _: None)
