"""Some 800 requests to our docker.sock and to Debian's dockerd: the same statuses, the same bodies.

docker_requests.txt holds the requests, docker_differences.txt each difference with its reason; one that is gone is to
be removed there. What differs by nature (ids, moments, sizes, process ids) is replaced before the comparison, and of
what depends on the machine only the kind is compared. Our errors may add a line with the next step.
"""

from __future__ import annotations

import base64
import io
import json
import re
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import NoneType
from typing import Any
from urllib.parse import quote

import pytest

from bench.workspace import Workspace
from orlop.spec.attach import Decoder
from support.docker_http import Answer, Api
from support.engine import Environment

HERE = Path(__file__).parent
VERSION = "v1.45"  # that of Debian 13's dockerd, 26.1; a request with a version of its own is asked so
# Of these only the kind is compared: two runs of one daemon do not agree in them.
VOLATILE = frozenset(
    "Created CreatedAt Size SizeRootFs SizeRw SharedSize VirtualSize LayersSize Pid NFd NGoroutines SystemTime ID"
    " StartedAt FinishedAt MemTotal IPv4Forwarding execDuration"
    " NEventsListener LastTagTime RootFS SpaceReclaimed time timeNano".split()
)
_REPLACED = [
    (re.compile(r"sha256:[0-9a-f]{64}"), "<DIGEST>"),
    (re.compile(r"\b[0-9a-f]{64}\b"), "<ID>"),
    (re.compile(r"\b[0-9a-f]{12}\b"), "<id>"),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)"), "<TIME>"),
    (re.compile(r"(/tmp/[\w-]+)+(/\w+)*"), "<PLACE>"),
    (re.compile(r"^(up|exited \(\d+\)) [^()]*"), r"\1 <AGO> "),
]
HEADERS = "x-docker-container-path-stat ostype cache-control pragma builder-version swarm".split()
_KEPT: dict[Path, dict[str, str]] = {}  # what later requests to a daemon name: the ids of what they made, and times
Difference = tuple[str, str]  # where, what
_WITH_VERSION = re.compile(r"^(\w+ )/v[\d.]+(?=/)")
_VERSIONED = re.compile(r"/v\d")
_OF_THE_MACHINE = re.compile("IPv4 forwarding|block I/O weight", re.IGNORECASE)  # warnings of what its kernel lacks


def sections() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in (HERE / "docker_requests.txt").read_text().split("\n\n", 1)[1].splitlines():
        if line.startswith("# "):
            current = found.setdefault(line[2:], [])
        elif line:
            current.append(line)
    return found


class Accepted:
    """The lines of docker_differences.txt: REQUEST | WHERE | reason, where * stands for anything."""

    def __init__(self, text: str) -> None:
        lines = [line for line in text.splitlines() if line and not line.startswith("#")]
        self._rules = [(line, *map(_glob, line.split(" | ")[:2])) for line in lines]
        self.used: set[str] = set()

    def judge(self, request: str, where: str) -> bool:
        request = _WITH_VERSION.sub(r"\1", request)
        for line, of_request, of_place in self._rules:
            if of_request.fullmatch(request) and of_place.fullmatch(where):
                self.used.add(line)
                return True
        return False

    def unused(self) -> list[str]:
        return [line for line, *_ in self._rules if line not in self.used]


def _glob(text: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, text.split("*"))), re.DOTALL)


@pytest.fixture(scope="module")
def workspace() -> Iterator[Workspace]:
    with Workspace() as work:
        yield work


@pytest.fixture(scope="module")
def them(workspace: Workspace, peer: Callable[[str], Path]) -> Api:
    return loaded(Api(workspace.dockerd("d", program=peer("dockerd-26")).socket, VERSION), workspace)


@pytest.fixture(scope="module")
def ours(workspace: Workspace) -> Iterator[Api]:
    environment = Environment(workspace.path("o") / "root")
    try:
        environment("info")
        yield loaded(Api(environment.run / "docker.sock", VERSION), workspace)
    finally:
        left = environment.close()
    assert not left, left


def loaded(api: Api, workspace: Workspace) -> Api:
    changes = quote('ENV FROM=image\nCMD ["sh"]')
    archive = workspace.archive().read_bytes()
    answer = api("POST", f"/images/create?fromSrc=-&repo=box&tag=1&changes={changes}", archive)
    assert answer.status == 200, answer
    return api


@pytest.mark.timeout(400)
def test_the_same_requests_have_the_same_answers(ours: Api, them: Api, workspace: Workspace) -> None:
    accepted = Accepted((HERE / "docker_differences.txt").read_text())
    asked, different = 0, []
    for section, requests in sections().items():
        for request in requests:
            asked += 1
            found = compare(*(send(api, request, workspace) for api in (ours, them)))
            different += [
                f"{section}: {request} | {where} | {what}"
                for where, what in found
                if not accepted.judge(request, where)
            ]
    assert not different, "\n" + "\n".join(different)
    assert not accepted.unused(), "no longer different:\n" + "\n".join(accepted.unused())
    assert asked >= 750


def send(api: Api, request: str, workspace: Workspace) -> Answer:
    name, _, request = request.rpartition(" := ")
    kept = _KEPT.setdefault(api.place, {"begun": f"{time.time():.9f}"})
    for place, value in {**kept, "now": f"{time.time():.9f}"}.items():
        request = request.replace(f"<{place}>", value)
    answer = _send(api, request, workspace)
    if name:
        kept[name] = str(answer.json["Id"])
    return answer


def _send(api: Api, request: str, workspace: Workspace) -> Answer:
    method, path, body = (*request.split(" ", 2), "")[:3]
    path = quote(path, safe="/?&=%,:+")
    if _VERSIONED.match(path):
        api = Api(api.place, "")
    if body.startswith("@tar:"):
        return api(method, path, archive_of(body.removeprefix("@tar:")), Content_Type="application/x-tar")
    if body.startswith("@raw:"):
        return api(method, path, body.removeprefix("@raw:").encode(), Content_Type="application/x-tar")
    if body == "@image":
        return api(method, path, workspace.archive().read_bytes(), Content_Type="application/x-tar")
    return api(method, path, body.encode(), Content_Type="application/json") if body else api(method, path)


def archive_of(text: str) -> bytes:
    """Return an archive of members: `name=content`, `name/` for a directory, `name->target` for a link; ; between."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for word in text.split(";"):
            member = tarfile.TarInfo(re.split("=|->", word)[0].rstrip("/"))
            member.mtime, member.uid, member.gid, member.mode = 1_000_000_000, 5, 6, 0o640
            content = word.partition("=")[2].replace("\\n", "\n").encode()
            if "->" in word:
                member.type, member.linkname = tarfile.SYMTYPE, word.partition("->")[2]
            elif word.endswith("/"):
                member.type, member.mode = tarfile.DIRTYPE, 0o750
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def compare(ours: Answer, theirs: Answer) -> list[Difference]:
    """Return where two answers differ."""
    if ours.status != theirs.status:
        where = f"status {ours.status} for {theirs.status}"
        return [(where, f"ours {ours.body[:300]!r}, theirs {theirs.body[:300]!r}")]
    types = [one.headers.get("content-type", "none") for one in (ours, theirs)]
    if types[0] != types[1]:
        return [("content-type", " for ".join(types))]
    found = []
    for name in HEADERS:
        told = [_header(name, one.headers.get(name)) for one in (ours, theirs)]
        if normal(told[0]) != normal(told[1]):
            found.append((f"header {name}", f"{told[0]}, theirs {told[1]}"))
    return [*found, *differences("body", value_of(ours), value_of(theirs))]


def _header(name: str, value: str | None) -> object:
    """Return what a header says; a path's time is today's, and what a directory takes is the disk's."""
    if name != "x-docker-container-path-stat" or value is None:
        return value
    found = json.loads(base64.b64decode(value))
    return json.dumps({key: found[key] for key in sorted(found) if key not in ("mtime", "size")})


def value_of(answer: Answer) -> object:
    """Return what a body holds: a JSON value, a list of them for a stream of lines, or text."""
    if answer.body[:4] in (b"\1\0\0\0", b"\2\0\0\0"):
        return _streams(answer.body)
    text = answer.body.decode("utf-8", "surrogateescape")
    if answer.headers.get("content-type", "").startswith("application/json"):
        values = [json.loads(line) for line in text.splitlines() if line.strip()]
        if values and isinstance(values[0], list) and values[0] and {*values[0][0]} == {"Path", "Kind"}:
            values[0].sort(key=lambda change: str(change["Path"]))  # docker's daemon tells changes in any order
        for one in values[0] if values and isinstance(values[0], list) else values:
            if isinstance(one, dict) and isinstance(one.get("Mounts"), list):
                one["Mounts"].sort(key=lambda mount: str(mount["Destination"]))  # and mounts
        return values[0] if len(values) == 1 else values
    return text if answer.body[257:262] != b"ustar" else _members(answer.body)


def _streams(data: bytes) -> dict[str, str]:
    """Return what multiplexed streams say: into how many pieces it was cut is a matter of time."""
    found: dict[int, bytes] = {}
    for kind, payload in Decoder().feed(data):
        found[kind] = found.get(kind, b"") + payload
    return {str(kind): payload.decode() for kind, payload in found.items()}


def _members(data: bytes) -> dict[str, object]:
    """Return what an archive holds."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {
            one.name: [
                one.type.decode(),
                oct(one.mode & 0o7777),
                one.uid,
                one.gid,
                one.linkname,
                one.isfile() * one.size,
            ]
            for one in tar
        }


def differences(where: str, ours: Any, theirs: Any) -> Iterator[Difference]:
    if where.endswith(".Warnings"):
        ours, theirs = ([one for one in both or [] if not _OF_THE_MACHINE.search(one)] for both in (ours, theirs))
    if isinstance(ours, dict) and isinstance(theirs, dict):
        ours, theirs = ({normal(key, of_key=True): one for key, one in both.items()} for both in (ours, theirs))
        for key in sorted(ours.keys() | theirs.keys()):
            if key not in ours or key not in theirs:
                yield (
                    f"{where}.{key}",
                    f"only {'ours' if key in ours else 'theirs'}: {ours.get(key, theirs.get(key))!r}",
                )
            elif key in VOLATILE:
                if type(ours[key]) is not type(theirs[key]):
                    yield f"{where}.{key}", f"{ours[key]!r}, theirs {theirs[key]!r}"
            else:
                yield from differences(f"{where}.{key}", ours[key], theirs[key])
    elif "_stats" in where and isinstance(ours, int) and isinstance(theirs, int):
        pass  # what was measured
    elif ".blkio_stats." in where and {type(ours), type(theirs)} <= {list, NoneType}:
        pass  # whether a disk was asked for anything is the machine's matter: what is in memory counts nowhere
    elif ours in ([], {}, None, "") and theirs in ([], {}, None, ""):
        pass  # Go's clients read them alike, and docker's daemon gives the one or the other from version to version
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for place, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from differences(f"{where}.{place}", mine, other)
    elif normal(ours) != normal(theirs):
        yield where, f"{normal(ours)!r}, theirs {normal(theirs)!r}"


def normal(value: Any, *, of_key: bool = False) -> Any:
    if not isinstance(value, str):
        return value
    text = value.partition("\nNext: ")[0].strip()
    if not of_key:
        text = text[:1].lower() + text[1:]  # docker 28's errors begin with a small letter, 20.10's with either
    for pattern, put in _REPLACED:
        text = pattern.sub(put, text)
    return text
