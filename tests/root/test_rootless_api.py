"""Every endpoint of docker's API, asked once of an ordinary user's engine: with subordinate ids, and with none at all.

What an ordinary user can't have is an error that says so; nothing is a defect (500), and what is answered is looked at.
"""

from __future__ import annotations

import io
import json
import os
import re
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orlop.frontends.docker.table import NOUNS, TABLE
from support import builds, rootless
from support.docker_http import Answer, Api
from support.rootless import UID, User

# METHOD PATH [BODY] = STATUS [a part of the answer]. BODY is JSON; @NAME=CONTENT is an archive with one file; @base is
# that of the tests' root file system. %EXEC is the exec made last, %IMAGE what was saved.
ASKED = """
GET /_ping = 200 OK
HEAD /_ping = 200
OPTIONS /containers/json = 200
GET /version = 200 "ApiVersion":"1.50"
GET /info = 200 name=rootless
GET /events?since=1&until=2 = 200
POST /images/create?fromSrc=-&repo=small @base = 200
GET /images/json = 200 small:latest
GET /images/small/json = 200 "RepoTags":["small:latest"]
GET /images/small/history = 200 "small:latest"
POST /images/small/tag?repo=again = 201
GET /images/get?names=again = 200
GET /images/again/get = 200
DELETE /images/again = 200 Untagged
POST /images/load %IMAGE = 200
POST /images/none/push = 200 does not exist locally
GET /distribution/127.0.0.1:1/none/json = 500 connection refused
POST /auth {"serveraddress":"127.0.0.1:1","username":"a","password":"b"} = 500 connection refused
GET /images/search?term=x = 500
GET /volumes = 200 "Volumes"
POST /volumes/create {"Name":"vol"} = 201 "Name":"vol"
GET /volumes/vol = 200 "Mountpoint"
PUT /volumes/vol?version=1 {} = 503
POST /networks/create {"Name":"net"} = 201 "Id"
GET /networks = 200 "Name":"net"
GET /networks/net = 200 "Driver":"bridge"
POST /containers/create?name=c {"Image":"small","Cmd":["sh","-c","echo said; exec cat"],"OpenStdin":true} = 201 "Id"
POST /containers/c/start = 204
GET /containers/json = 200 "State":"running"
GET /containers/c/json = 200 "Running":true
GET /containers/c/top = 200 cat
GET /containers/c/stats?stream=0 = 200 "pids_stats"
GET /containers/c/logs?stdout=1&follow=0 = 200
POST /containers/c/resize?h=20&w=80 = 200
POST /containers/c/attach?stream=0&logs=1&stdout=1 = 200 said
GET /containers/c/attach/ws = 400
POST /containers/c/exec {"Cmd":["sh","-c","echo x >/made; chown 0:0 /made"],"AttachStdout":true} = 201 "Id"
POST /exec/%EXEC/start {"Detach":false} = 200
GET /exec/%EXEC/json = 200 "ExitCode":0
POST /exec/%EXEC/resize?h=2&w=2 = 404 No such exec instance
GET /containers/c/changes = 200 /made
GET /containers/c/archive?path=/made = 200
HEAD /containers/c/archive?path=/made = 200
PUT /containers/c/archive?path=/ @put=in = 200
GET /containers/c/export = 200
POST /commit?container=c&repo=changed = 201 sha256:
POST /networks/net/connect {"Container":"c"} = 200
POST /networks/net/disconnect {"Container":"c"} = 200
POST /containers/c/pause = 501 no cgroup to freeze it in
POST /containers/c/unpause = 409 is not paused
POST /containers/c/rename?name=d = 204
POST /containers/d/update {"RestartPolicy":{"Name":"on-failure"}} = 200
POST /containers/d/update {"Memory":67108864} = 501 delegated
POST /containers/d/kill?signal=URG = 204
POST /containers/d/restart?t=0 = 204
POST /containers/d/stop?t=0 = 204
POST /containers/d/wait = 200 "StatusCode"
POST /containers/create {"Image":"small","Cmd":["true"],"HostConfig":{"Memory":67108864}} = 501 delegated
POST /containers/create {"Image":"small","Cmd":["true"],"HostConfig":{"UsernsMode":"auto"}} = 501 can't map mounts
GET /containers/d/checkpoints = 501
POST /containers/d/checkpoints {"CheckpointID":"x"} = 501
DELETE /containers/d/checkpoints/x = 501
POST /build?t=built&q=1 @Dockerfile=FROM_small\\nRUN_echo_built_>/built = 200 sha256:
POST /build/prune = 200 SpaceReclaimed
POST /build/cancel?id=x = 200
POST /session = 400
POST /grpc = 400
GET /system/df = 200 "LayersSize"
GET /metrics = 200
DELETE /containers/d/alias = 404 No such container: d/alias
DELETE /containers/d/alias?link=1 = 404 No such container: d/alias
DELETE /containers/d?force=1 = 204
DELETE /volumes/vol = 204
DELETE /networks/net = 204
POST /containers/prune = 200 SpaceReclaimed
POST /images/prune = 200 SpaceReclaimed
POST /volumes/prune = 200 SpaceReclaimed
POST /networks/prune = 200
GET /plugins = 200 []
GET /plugins/privileges?remote=x = 501
"""
# Swarm, plugins: nothing of a user's is in them. Orlop has none for root either (contract/test_docker_recorded).
NEVER = ("/swarm", "/nodes", "/services", "/tasks", "/secrets", "/configs", "/plugins")


@pytest.fixture(scope="module", params=[True, False], ids=["ids", "one id"])
def user(request: pytest.FixtureRequest) -> Iterator[User]:
    with rootless.user(ids=request.param) as somebody:
        assert somebody.orlop("ps").code == 0
        yield somebody


@contextmanager
def as_user() -> Iterator[None]:
    """Who connects is who the engine serves: its user namespace knows no other."""
    os.setegid(UID)
    os.seteuid(UID)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


def archive(text: str) -> bytes:
    name, _, content = text.partition("=")
    data = content.replace("_", " ").replace("\\n", "\n").encode()
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as made:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        made.addfile(member, io.BytesIO(data))
    return file.getvalue()


def test_every_endpoint_answers_as_it_should(user: User, peer: Callable[[str], Path]) -> None:
    builds.base_archive(user.directory / "base.tar", peer("busybox"))
    kept = {"@base": (user.directory / "base.tar").read_bytes(), "%IMAGE": b""}
    api, wrong, an_exec = Api(user.runtime / "orlop/docker.sock"), [], ""
    for line in ASKED.strip().splitlines():
        asked, _, expected = line.rpartition(" = ")
        method, path, *rest = asked.split(" ", 2)
        body: object = None
        if rest:
            body = (
                kept[rest[0]] if rest[0] in kept else archive(rest[0][1:]) if rest[0][0] == "@" else json.loads(rest[0])
            )
        headers = {"Content_Type": "application/x-tar"} if isinstance(body, bytes) else {}
        with as_user():
            answer: Answer = api(method, path.replace("%EXEC", an_exec), body, **headers)
        if path.endswith("/exec"):
            an_exec = answer.json["Id"]
        if path == "/images/again/get":
            kept["%IMAGE"] = answer.body
        status, _, part = expected.partition(" ")
        if answer.status != int(status) or part.encode() not in answer.body or b"defect" in answer.body:
            wrong.append(f"{line}: {answer}")
    assert not wrong, "\n".join(wrong)


def test_no_endpoint_is_left_out() -> None:
    seen = {TABLE.find(*asked(line))[0][:2] for line in ASKED.strip().splitlines()}
    routes = [route[:2] for noun in NOUNS for route in noun.ROUTES if not route[1].startswith(NEVER)]
    assert [route for route in routes if route not in seen] == []


def asked(line: str) -> tuple[str, str]:
    method, path = line.split(" ")[:2]
    return method, re.sub(r"\?.*", "", path)
