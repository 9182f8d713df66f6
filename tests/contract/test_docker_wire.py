"""What docker's own daemon takes and says beside what its clients show: found by asking both, kept here by itself."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from urllib.parse import quote

import pytest

from bench.workspace import Workspace
from support.docker_http import Api, box_engine
from support.engine import Environment

FIRST, SECOND = 'CMD ["sh"]', "ENV A=1"
CHANGES = f"changes={quote(FIRST)}&changes={quote(SECOND)}"


@pytest.fixture(scope="module")
def environment() -> Iterator[Environment]:
    with box_engine() as environment:
        yield environment


@pytest.fixture
def api(environment: Environment) -> Api:
    return Api(environment.run / "docker.sock")


@pytest.fixture
def held(api: Api) -> Iterator[str]:
    body = {"Image": "box:1", "Cmd": ["sleep", "1000"], "HostConfig": {"NetworkMode": "none"}}
    assert api("POST", "/containers/create?name=held", body).status == 201
    assert api("POST", "/containers/held/start").status == 204
    yield "held"
    assert api("DELETE", "/containers/held?force=1").status == 204


def _started(api: Api, body: dict[str, object]) -> tuple[str, bytes]:
    """Start an exec as docker's clients do and wait until it has ended. Return its id and the first piece that came."""
    exec_id = api("POST", "/containers/held/exec", body).json["Id"]
    with api.connect() as client:
        line = f"POST {api.prefix}/exec/{exec_id}/start HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\n"
        client.sendall(f"{line}Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 2\r\n\r\n{{}}".encode())
        while api("GET", f"/exec/{exec_id}/json").json["ExitCode"] is None:
            pass
        first = client.recv(65536)
        rest = b"".join(iter(lambda: client.recv(65536), b""))
    assert first.startswith(b"HTTP/1.1 101 ")
    return first.decode(), rest


def test_output_waits_until_the_head_is_read(api: Api, held: str) -> None:
    """docker-py reads the head with a buffer, and drops what is in it. Red: of 180 execs under load 16 said nothing."""
    head, said = _started(api, {"Cmd": ["sh", "-c", "echo out"], "AttachStdout": True, "AttachStderr": True})
    assert head.endswith("\r\n\r\n")
    assert said == b"\1\0\0\0\0\0\0\4out\n"


@pytest.mark.parametrize(("wish", "said"), [("Stdout", b"out\n"), ("Stderr", b"err\n"), ("Stdin", b"")])
def test_an_exec_says_what_its_client_wants_to_hear(api: Api, held: str, wish: str, said: bytes) -> None:
    """Red: both, whatever the client wanted: docker-py's exec_run(stdout=False)."""
    assert _started(api, {"Cmd": ["sh", "-c", "echo out; echo err >&2"], f"Attach{wish}": True})[1][8:] == said


def test_an_exec_is_told_of_a_place_of_any_length(api: Api, held: str) -> None:
    """Red: the error tells the place twice, and did not fit into the monitor's answer."""
    made = api("POST", f"/containers/{held}/exec", {"Cmd": ["true"], "WorkingDir": f"/{'x' * 70_000}"})
    answer = api("POST", f"/exec/{made.json['Id']}/start", {"Detach": True})
    assert answer.status >= 400 and "too long" in answer.message and "monitor" not in answer.message, answer


def test_what_no_record_holds_makes_nothing(api: Api) -> None:
    """Red: it was made, and could be neither started nor removed: "repair container.json or remove its directory"."""
    for body in ({"Labels": {"a": "\0"}}, {"StopTimeout": 2**64}, {"Env": ["A=\0"]}):
        assert api("POST", "/containers/create?name=odd", {"Image": "box:1", "Cmd": ["true"], **body}).status == 400
    assert api("POST", "/volumes/create", {"Name": "odd", "DriverOpts": {"type": "\0"}}).status == 400
    assert api("POST", "/containers/create?name=%00", {"Image": "box:1", "Cmd": ["true"]}).status == 400
    assert (api("GET", "/containers/odd/json").status, api("GET", "/volumes/odd").status) == (404, 404)


def test_an_import_with_several_changes(api: Api, environment: Environment) -> None:
    """`docker import -c A -c B` names the field twice. Red: only the last one was looked at."""
    with Workspace() as work:
        archive = work.archive()
        sent = archive.read_bytes()
        made = api("POST", f"/images/create?fromSrc=-&repo=twice&{CHANGES}", sent, Content_Type="application/x-tar")
        assert made.status == 200
        with Served(environment, archive.parent) as port:
            source = quote(f"http://127.0.0.1:{port}/{archive.name}", safe="")
            fetched = api("POST", f"/images/create?fromSrc={source}&repo=fetched&{CHANGES}")
            missing = api("POST", f"/images/create?fromSrc={source}x&repo=fetched")
    said = [str(json.loads(line).get("status", line))[:7] for line in fetched.body.splitlines()]
    assert said == ["Downloa", "sha256:"], fetched
    for name in ("twice", "fetched"):
        config = api("GET", f"/images/{name}/json").json["Config"]
        assert (config["Cmd"], config["Env"]) == (["sh"], ["A=1"]), name
        assert api("DELETE", f"/images/{name}").status == 200
    assert missing.status == 404


class Served:
    """A folder over HTTP, on an engine's own loopback."""

    def __init__(self, environment: Environment, folder: Path) -> None:
        handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
        self.server = environment.inside(lambda: http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler))

    def __enter__(self) -> int:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self.server.server_port

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def test_a_link_is_removed_and_not_its_container(api: Api) -> None:
    """Red: `docker rm --link NAME` removed the container."""
    for name, links in (("db", []), ("web", ["db:store", "db"])):
        body = {"Image": "box:1", "Cmd": ["sleep", "1000"], "HostConfig": {"Links": links}}
        assert api("POST", f"/containers/create?name={name}", body).status == 201
        assert api("POST", f"/containers/{name}/start").status == 204
    own = api("DELETE", "/containers/web?link=1&force=1")
    assert (own.status, own.message.partition("\n")[0]) == (
        409,
        "Conflict, cannot remove the default link name of the container",
    )
    assert api("DELETE", "/containers/web/nosuch?link=1").status == 404
    assert api("DELETE", "/containers/web/store").status == 404  # what is no request for a link removes none
    assert api("DELETE", "/containers/web/store?link=1").status == 204
    assert api("GET", "/containers/web/json").json["HostConfig"]["Links"] == ["/db:/web/db"]
    hosts = api("GET", "/containers/web/archive?path=/etc/hosts").body
    assert b"\tdb" in hosts and b"store" not in hosts
    for name in ("web", "db"):
        assert api("DELETE", f"/containers/{name}?force=1").status == 204


def test_a_quiet_build_that_fails_says_why(api: Api) -> None:
    """Red: 400, with words of a container's start, and docker's client ended with 1."""
    from contract.test_docker_recorded import archive_of

    sent = archive_of("Dockerfile=FROM box:1\\nRUN echo before && exit 3")
    answer = api("POST", "/build?q=1", sent, Content_Type="application/x-tar")
    lines = [json.loads(line) for line in answer.body.splitlines()]
    assert (answer.status, lines[-1]["errorDetail"]["code"]) == (200, 3)
    assert {"stream": "before\n"} in lines
    answer = api("POST", "/build?q=1", archive_of("Dockerfile=FROM box:1"), Content_Type="application/x-tar")
    assert next(map(json.loads, answer.body.splitlines()))["stream"].startswith("sha256:")


@pytest.mark.parametrize(
    ("field", "value", "status"),
    [
        ("MaskedPaths", ["/proc/acpi", "/sys/firmware"], 201),  # of those that are masked here anyway
        ("ReadonlyPaths", ["/proc/sys"], 201),
        ("MaskedPaths", ["/etc/passwd"], 501),
        ("ReadonlyPaths", ["/srv"], 501),
    ],
)
def test_paths_that_are_to_be_hidden_are_hidden_or_refused(api: Api, field: str, value: list[str], status: int) -> None:
    """Red: a list of one's own was passed over, and what it names stayed open."""
    answer = api(
        "POST", "/containers/create?name=masks", {"Image": "box:1", "Cmd": ["true"], "HostConfig": {field: value}}
    )
    assert answer.status == status, answer
    assert status != 201 or api("DELETE", "/containers/masks").status == 204
