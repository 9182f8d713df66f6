"""Every route of docker's and podman's API, asked with queries and paths that no client would send.

What they say is taken or refused by a status below 500, and the engine's log tells of no defect. Which values of a
query a route reads is found in its sources, so a new one is asked for from its first day on. A seeded choice is asked
for here, all of them with `ORLOP_QUERIES=all`.
"""

from __future__ import annotations

import inspect
import os
import random
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FunctionType
from urllib.parse import quote

import pytest

from orlop.frontends.docker import swarm, table
from orlop.frontends.libpod import absent, dialect
from support.docker_http import Api, box_engine
from support.engine import Environment

EVERYTHING = os.environ.get("ORLOP_QUERIES") == "all"
CHOSEN = 250  # of each API
# Somebody else is asked, and is not there; what the words of such an answer begin with is no defect of ours.
OTHERS = ("onnection refused", "ame resolution", "ame or service not known", "etwork is unreachable")

_NAMES = re.compile(r"""(?:query\.get|query|every|flag|number)[(\[]\s*["']([\w-]+)["']""")
_PART = re.compile(r"\{\w+\*?\}")
OBJECTS = {"containers": "held", "networks": "net", "volumes": "vol", "secrets": "key", "images": "box:1"}
KEYS = (
    "until label label! dangling reference before since partial name id driver type scope status exited ancestor "
    "health volume network publish expose is-task is-official stars event image container daemon"
).split()
WORDS = (
    "", "%00", "\x01", "a\nb", "a\rb", "\x7f", "\x1b[31m", "\u00e9", "\udcff", "\udcc3(", "\ud800", "x" * 5000,
    "a/" * 2000, "-1", "0", "9" * 19, "9" * 40, "9" * 400, "9" * 5000, "1e999", "nan", "inf", "-inf", "0x10", "1..2h",
    "\u00b2h", "\u0663", "1.\u0663", "99999999999999h", "1m1", "0001-01-01", "9999-12-31T23:59:59+99:99",
    "-99999999999999", "../../etc/passwd", "/", ".", "..", "//", " ", "a b", "%", "%zz", "@", "a@", "@sha256:",
    "a@sha256:" + "0" * 63, "a@sha256:../..", ":", "a:", ":a", "a:" + "b" * 200, "A/B", "sha256:" + "0" * 64,
    "0" * 64, "a:b:c", "[", "[::1", "[::1%25lo]/a", "[fe80::1%lo]:1/a", "u:p@127.0.0.1:1/a", "127.0.0.1:99999/a",
    "127.0.0.1:\u0663/a", "file:///a", "unix:///a", "null", "true", "[]", "{}", "[1]", '{"a":1}', '{"a":{"b":true}}',
    '{"os":1,"architecture":2}', '{"os":"l","architecture":"\\u0000"}', '["\\ud800"]', "[" * 3000, '{"a":' * 3000,
    "linux/amd64/v1/x", "///", "CMD [", "ENV", "LABEL a", "USER \x01", "HEALTHCHECK --interval=x CMD a",
    "EXPOSE 99999999", "ctrl-", "SIGNOSUCH", "65", "-9",
)  # fmt: skip
URLS = (
    "http://%00/", "http://\x01/", "http://" + "a" * 300 + "/", "http://" + "a." * 2000 + "/", "http://\u00e9/",
    "http://\udcff/", "http://127.0.0.1:0/", "http://127.0.0.1:99999/", "http://127.0.0.1:-1/", "http://127.0.0.1:x/",
    "http://127.0.0.1:\u0663/", "http://[::1", "http://[::1%25lo]/", "http://[fe80::1%25nosuch]:1/", "http://[nosuch]/",
    "http://a:b@127.0.0.1:1/", "http://:@/", "http:///", "http://?", "http://#", "http:", "//", "file:///etc/passwd",
    "unix:///run/x.sock", "ftp://127.0.0.1/", "gopher://a/", "javascript:1", "http://a b/", "HTTP://127.0.0.1:1/",
    "http://127.0.0.1:1/\r\nX: y", "http://.../", "http://.a/", "http://-a-/", "http://0x7f.1:1/", "http://\u2100/",
    "http://127.0.0.1:1/" + "x" * 8000, "http://xn--\x7f/", "http://xn--a/", "http://\uff41\uff1a1/", "git://a/b", "-",
)  # fmt: skip
FILTERS = (
    *(
        text
        for value in (
            "",
            "\\u0000",
            "\\ud800",
            "nan",
            "inf",
            "-inf",
            "1..2h",
            "\u00b2h",
            "9" * 400,
            "x=y",
            "..",
            "[",
            "a" * 3000,
        )
        for key in KEYS
        for text in (f'{{"{key}":["{value}"]}}', f'{{"{key}":{{"{value}":true}}}}')
    ),
    *('{"a":1}', '{"a":[[]]}', '{"until":[null]}', '{"":[""]}', '{"label":{"a":{}}}', '{"until":[1e999]}'),
)
VALUES = {"filters": FILTERS + WORDS, "fromSrc": URLS + WORDS, "remote": URLS + WORDS, "url": URLS + WORDS}
Route = tuple[str, str, Callable[..., None]]


def _read_by(handler: FunctionType, seen: set[FunctionType]) -> set[str]:
    """Return the names of a query's values that a handler reads, and what it calls in the doors."""
    seen.add(handler)
    source = inspect.getsource(handler)
    names = set(_NAMES.findall(source)) | ({"filters"} if "filters(" in source else set())
    for word in set(re.findall(r"\w+", source)):
        called = handler.__globals__.get(word)
        if isinstance(called, FunctionType) and ".frontends." in called.__module__ and called not in seen:
            names |= _read_by(called, seen)
    return names


def _asked(routes: Sequence[Route], prefix: str) -> Iterator[tuple[str, str]]:
    """Yield (method, target) of every hostile query and path of these routes."""
    for method, pattern, handler in routes:
        assert isinstance(handler, FunctionType)
        if method == "OPTIONS" or pattern in ("/grpc", "/session"):
            continue
        noun = next((noun for noun in OBJECTS if f"/{noun}" in pattern), "images")
        place = prefix + _PART.sub(OBJECTS[noun], pattern)
        for name in sorted(_read_by(handler, set())):
            yield from ((method, f"{place}?{name}={_quoted(value)}") for value in VALUES.get(name, WORDS))
        if place != prefix + pattern:
            yield from ((method, prefix + _PART.sub(_quoted(value).replace("\\", r"\\"), pattern)) for value in WORDS)


def _quoted(text: str) -> str:
    return quote(text.encode("utf-8", "surrogatepass" if "\ud800" in text else "surrogateescape"), safe="")


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Environment]:
    blocked = tmp_path / "registries.conf"  # so that no name is asked for anywhere
    blocked.write_text('[[registry]]\nprefix = "docker.io"\nlocation = "docker.io"\nblocked = true\n')
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(blocked))
    with box_engine() as environment:
        yield environment


DOCKER = [route for noun in table.NOUNS if noun is not swarm for route in noun.ROUTES]
PODMAN = [route for route in dialect.ROUTES if route not in absent.ROUTES]


@pytest.mark.parametrize(("routes", "version"), [(DOCKER, "v1.50"), (PODMAN, "v5.0.0")], ids=["docker", "podman"])
def test_a_query_is_taken_or_refused(environment: Environment, routes: Sequence[Route], version: str) -> None:
    """Red: `until` of nan, inf, 1..2h and a superscript digit; a path of 5000 bytes, which was not answered at all."""
    environment("run", "-di", "--name", "held", "--network", "none", "box:1", "cat")
    environment("network", "create", "net")
    environment("volume", "create", "vol")
    asked = list(_asked(routes, f"/{version}"))
    if not EVERYTHING:
        asked = random.Random(4711).sample(asked, CHOSEN) + [one for one in asked if "until" in one[1]][::4]
    # What looks comes first, what takes away last: else nothing is there to look at.
    asked.sort(key=lambda one: ("GET", "HEAD", "PUT", "POST", "DELETE").index(one[0]))
    api = Api(environment.run / "docker.sock")
    wrong = [(told, *one) for one in asked if (told := _failed(api, *one))]
    environment("rm", "-f", "held", check=False)
    environment("rm", "-f", *environment("ps", "-aq").stdout.split(), check=False)
    assert not wrong, "\n".join(f"{told} for {method} {target[:300]}" for told, method, target in wrong[:20])
    log = (environment.root / "engine.log").read_text()
    assert " ended: " not in "".join(line for line in log.splitlines() if "thread" in line)


def _failed(api: Api, method: str, target: str) -> str:
    """Return what an answer says that is a failure of the engine's, "" for one that is none."""
    with api.connect() as stream:
        stream.sendall(
            f"{method} {target} HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Type: application/json\r\n"
            "Content-Length: 2\r\n\r\n{}".encode()
        )
        answer = stream.makefile("rb")
        head = answer.readline()
        if head.startswith(b"HTTP/1.1 500"):
            told = answer.read().decode(errors="replace").partition("\r\n\r\n")[2]
            return "" if any(word in told for word in OTHERS) else told
        return "" if head.startswith(b"HTTP/1.1 ") else "nothing is answered"
