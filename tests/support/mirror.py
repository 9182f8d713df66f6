"""A proxy on loopback by which steps of builds reach the packages that this machine reaches, and nothing else of it.

It asks in the machine's own network; whoever asks it may be in another. What was fetched once is kept for the next one.
"""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from .netns import on_the_machine

FETCH_S_MAX = 120
Answer = tuple[int, bytes]


class _Cache:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, Answer] = {}

    def get(self, url: str) -> Answer:
        with self._lock:
            found = self._known.get(url)
        if found is None:
            found = on_the_machine(lambda: _fetch(url))
            with self._lock:
                self._known[url] = found
        return found


def _fetch(url: str) -> Answer:
    try:
        with urllib.request.urlopen(url, timeout=FETCH_S_MAX) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as refused:
        return refused.code, b""
    except OSError:
        return 502, b""


@contextmanager
def proxy(*places: Callable[[Callable[[], ThreadingHTTPServer]], ThreadingHTTPServer]) -> Iterator[list[str]]:
    """Hold one proxy in each of these networks; yield their URLs. places: run what they are given, in there."""
    cache = _Cache()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status, body = cache.get(self.path) if self.path.startswith("http://") else (400, b"")
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    servers = [inside(lambda: ThreadingHTTPServer(("127.0.0.1", 0), Handler)) for inside in places]
    threads = [threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}) for server in servers]
    for thread in threads:
        thread.start()
    try:
        yield [f"http://127.0.0.1:{server.server_address[1]}" for server in servers]
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()
        for thread in threads:
            thread.join()
