"""`orlop dashboard`, as browsers and others ask it: what is hostile is text, who has no cookie gets nothing."""

from __future__ import annotations

import html.parser
import http.client
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orlop.frontends.dashboard import markup
from support.engine import COMMAND, Environment

SCRIPT = "<script>alert(1)</script>"
HOSTILE = f"\"'>{SCRIPT}<img src=x onerror=alert(1)>\u202e\x1b[31m"


class Browser:
    """A browser without a cookie jar: each request says what it sends."""

    def __init__(self, address: str) -> None:
        self.url = urlsplit(address)
        self.cookie = ""

    def __call__(self, place: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], str]:
        assert self.url.hostname is not None and self.url.port is not None
        connection = http.client.HTTPConnection(self.url.hostname, self.url.port, timeout=60)
        sent = {"Cookie": self.cookie} if self.cookie else {}
        sent |= {key.replace("_", "-"): text for key, text in headers.items()}
        try:
            connection.request(method, place, headers=sent)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read().decode()
        finally:
            connection.close()

    def log_in(self) -> tuple[int, dict[str, str], str]:
        found = self(f"/?{self.url.query}")
        self.cookie = found[1].get("Set-Cookie", "").partition(";")[0]
        return found


class Page(html.parser.HTMLParser):
    """The elements of a page, and its text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.links: set[str] = set()
        self.text = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links |= {value or "" for name, value in attrs if name in ("href", "src")}

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    made = Environment(tmp_path_factory.mktemp("d") / "data")
    try:
        made("run", "-d", "--name", "up", "--network", "none", "--label", f"x={HOSTILE}", "-e", "KEY=hidden-value",
             "--health-cmd", "true", "--health-interval", "100ms", "-v", "kept:/kept",
             "host", "sh", "-c", f"echo '{SCRIPT}'; exec sleep 1000")  # fmt: skip
        made("run", "--name", "down", "--network", "none", "host", "sh", "-c", "exit 3", check=False)
        yield made
    finally:
        assert made.close() == []


@pytest.fixture
def browser(engine: Environment) -> Iterator[Browser]:
    argv = [str(COMMAND), "dashboard"]
    served = engine.inside(lambda: subprocess.Popen(argv, env=engine.variables, stdout=subprocess.PIPE, text=True))
    try:
        assert served.stdout is not None
        made = Browser(served.stdout.readline())
        yield made
    finally:
        served.terminate()
        assert served.wait() == 0
        assert served.stdout is not None
        served.stdout.close()


def test_it_shows_what_there_is(browser: Browser, engine: Environment) -> None:
    def told() -> None:
        assert browser.log_in()[0] == 303
        while "healthy" not in (page := Page((found := browser("/"))[2])).text:
            time.sleep(0.05)
        status, headers, _ = found
        assert status == 200 and headers["Content-Type"] == "text/html; charset=utf-8"
        for word in ("1 of 2 running", "up", "Exited (3)", "healthy", "iB", "host:latest", "kept", "bridge", "start"):
            assert word in page.text, word
        status, _, source = browser("/container/down")
        assert status == 200 and "its program exited with 3" in Page(source).text
        assert browser("/style.css")[1]["Content-Type"] == "text/css; charset=utf-8"
        assert [browser(place)[0] for place in ("/container/none", "/container/", "/x", "/container/../x")] == [404] * 4

    engine.inside(told)


def test_what_is_hostile_is_text_and_secrets_are_not_shown(browser: Browser, engine: Environment) -> None:
    def told() -> None:
        browser.log_in()
        for place in ("/", "/container/up"):
            source = browser(place)[2]
            page = Page(source)
            assert not page.tags & {"script", "img", "iframe", "form", "style", "object"}, page.tags
            assert page.attributes <= {"lang", "charset", "name", "content", "rel", "href", "class"}, page.attributes
            assert all(link.startswith("/") and not link.startswith("//") for link in page.links), page.links
            assert "hidden-value" not in source and "\x1b" not in source and "\u202e" not in source
        assert page.text.count(SCRIPT) >= 2 and "\\u202e" in page.text and "KEY" in page.text

    engine.inside(told)


def test_nobody_looks_without_the_cookie_and_the_token_is_good_once(browser: Browser, engine: Environment) -> None:
    def told() -> None:
        for place in ("/", "/style.css", "/container/up", "/?token=", "/?token=wrong", "/?token=%ff"):
            status, headers, source = browser(place)
            assert (status, "Set-Cookie" in headers, "host:latest" in source) == (403, False, False)
        status, headers, _ = browser.log_in()
        assert status == 303 and headers["Location"] == "/"
        assert headers["Set-Cookie"].endswith("; Path=/; HttpOnly; SameSite=Strict")
        kept = browser.cookie
        assert browser("/")[0] == 200
        browser.cookie = ""
        assert browser(f"/?{browser.url.query}")[0] == 403
        for browser.cookie in (f"{kept}x", "orlop-dashboard=", kept.replace("orlop", "x"), f"x={kept}"):
            assert browser("/")[0] == 403

    engine.inside(told)


def test_pages_of_others_get_nothing(browser: Browser, engine: Environment) -> None:
    def told() -> None:
        browser.log_in()
        assert browser.url.hostname is not None
        assert browser.url.hostname.startswith("127.")
        for headers in (
            {"Host": "evil.example"},
            {"Host": f"evil.example:{browser.url.port}"},
            {"Host": f"localhost:{browser.url.port}"},
            {"Host": browser.url.hostname},
            {"Origin": "http://evil.example"},
            {"Origin": "null"},
            {"Sec_Fetch_Site": "cross-site"},
            {"Sec_Fetch_Site": "same-site"},
        ):
            assert browser("/", **headers)[0] == 403, headers
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH"):
            assert browser("/", method)[0] in (400, 405, 501), method
        assert browser("/", Origin=f"http://{browser.url.netloc}", Sec_Fetch_Site="same-origin")[0] == 200
        headers = browser("/")[1]
        assert headers["Content-Security-Policy"].startswith("default-src 'none'; style-src 'self';")
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert (headers["Cache-Control"], headers["X-Frame-Options"]) == ("no-store", "DENY")
        assert not [name for name in headers if name.startswith("Access-Control")]

    engine.inside(told)


@given(st.text())
def test_no_text_becomes_a_tag(words: str) -> None:
    page = Page(str(markup.tag("p", words, class_=words)))
    assert page.tags == {"p"} and page.attributes == {"class"}


def test_it_ends_when_its_time_is_up(engine: Environment, tmp_path: Path) -> None:
    done = engine("dashboard", "--ttl", "100ms")
    assert done.code == 0 and done.stdout.startswith("http://127.")
    assert "choose another number" in engine("dashboard", "--port", "70000", check=False).stderr
