"""Sockets with less power: the real docker CLI and docker-py through them, and requests that try to get more (P02)."""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest

from orlop.frontends.docker.table import NOUNS
from orlop.frontends.scoped import gate, rights
from orlop.spec.container import ContainerRequest
from support.docker_http import Answer, Api, box_engine
from support.engine import Environment

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")

READER = "--allow containers:list,inspect,events --allow system:info"
WORKER = "--allow containers:* --allow volumes:* --allow networks:* --allow images:read"


@pytest.fixture(scope="module")
def environment() -> Iterator[Environment]:
    with box_engine() as environment:
        for name, label in (("seen", "expose=true"), ("hidden", "expose=false")):
            flags = f"--name {name} --network none -e SECRET=s3cret -e PLAIN -l {label}"
            environment("run", "-d", *flags.split(), "box:1", "sleep", "1000")
        environment("volume", "create", "hidden-volume")
        environment("network", "create", "hidden-network")
        environment("socket", "create", "reader", *READER.split(), "--where", "label=expose=true")
        environment("socket", "create", "worker", *WORKER.split(), "--where", "label=team=a")
        yield environment


def api_of(environment: Environment, name: str) -> Api:
    return Api(environment.run / f"sockets/{name}.sock")


@pytest.fixture
def cli(environment: Environment, peer: Callable[[str], Path], tmp_path: Path) -> Callable[..., tuple[int, str]]:
    def run(name: str, line: str) -> tuple[int, str]:
        env = os.environ | {
            "DOCKER_HOST": f"unix://{environment.run}/sockets/{name}.sock",
            "DOCKER_CONFIG": str(tmp_path),
        }
        argv = [str(peer("docker")), *shlex.split(line)]
        done = environment.inside(
            lambda: subprocess.run(argv, env=env, capture_output=True, text=True, timeout=100, check=False)
        )
        return done.returncode, done.stdout or done.stderr

    return run


# -- who only reads ---------------------------------------------------------------------------------------------------


def test_a_reader_sees_what_has_its_label(cli: Callable[..., tuple[int, str]]) -> None:
    assert cli("reader", "ps -a --format {{.Names}}") == (0, "seen\n")
    assert cli("reader", "ps -aq --filter label=expose=false") == (0, "")
    assert cli("reader", "inspect -f '{{.State.Status}} {{.Config.Env}}' seen") == (
        0,
        "running [SECRET=<redacted> PLAIN=<redacted>]\n",
    )
    assert cli("reader", "inspect hidden") == (1, "[]\n")
    assert cli("reader", "ps -a --filter since=hidden")[0] != 0
    assert cli("reader", "version --format {{.Server.APIVersion}}") == (0, "1.50\n")


@pytest.mark.parametrize(
    "line",
    [
        "run --rm box:1 true",
        "exec seen env",
        "cp seen:/bin/sh -",
        "logs seen",
        "stop seen",
        "rm -f seen",
        "top seen",
        "volume ls",
        "network create x",
        "images",
        "rmi box:1",
        "system df",
    ],
)
def test_a_reader_does_nothing_else(cli: Callable[..., tuple[int, str]], line: str) -> None:
    code, told = cli("reader", line)
    assert code != 0
    assert "socket reader: it does not allow" in told, told
    assert "it allows containers:events, containers:inspect, containers:list" in told.replace("\n", " ")


def test_events_are_those_of_its_containers(environment: Environment) -> None:
    reader = api_of(environment, "reader")
    for name in ("seen", "hidden"):
        environment("exec", name, "true")
    until = int(time.time()) + 1
    for query in ("", '&filters={"type":["volume","container"]}', '&filters={"label":["expose"]}'):
        answer = reader("GET", f"/events?since=1&until={until}{query}")
        lines = [json.loads(line) for line in answer.body.splitlines()]
        assert {one["Actor"]["Attributes"]["name"] for one in lines} == {"seen"}
        assert {one["Type"] for one in lines} == {"container"}


# -- who works in its own corner --------------------------------------------------------------------------------------


def test_a_worker_works_in_its_corner(cli: Callable[..., tuple[int, str]], environment: Environment) -> None:
    for line, told in (
        ("run --rm --network none box:1 echo in", "in\n"),
        ("volume create own", "own\n"),
        ("run -d --name mine -v own:/v --tmpfs /t -m 64m box:1 sleep 1000", None),
        ("exec mine sh -c 'echo x >/v/f; cat /v/f'", "x\n"),
        ("ps --format {{.Names}}", "mine\n"),
        ("volume ls -q", "own\n"),
        ("network ls -q", ""),
        ("network create net", None),
        ("network connect net mine", ""),
        ("inspect -f '{{index .Config.Labels \"team\"}}' mine", "a\n"),
        ("network inspect -f '{{.Labels.team}} {{len .Containers}}' net", "a 1\n"),
        ("stop -t 0 mine", "mine\n"),
        ("container prune -f", None),
        ("network prune -f", None),
        ("volume rm own", "own\n"),
    ):
        code, said = cli("worker", line)
        assert code == 0 and told in (None, said), (line, code, said)
    assert environment("ps", "-a", "--format", "{{.Names}}").stdout.split() == ["hidden", "seen"]
    assert "hidden-network" in environment("network", "ls").stdout


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("-v /etc:/e", "may not mount a path of the host"),
        ("--mount type=bind,src=/etc,dst=/e", "may not mount a bind"),
        ("--mount type=image,src=box:1,dst=/e", "may not mount a image"),
        ("-v hidden-volume:/v", "only volumes that the socket sees"),
        ("-v new-volume:/v", "only volumes that the socket sees"),
        ("--mount type=volume,dst=/v,volume-driver=local,volume-opt=type=none,volume-opt=device=/etc", "no options"),
        ("--volumes-from hidden", "only containers that the socket sees"),
        ("--privileged", "may not set privileged"),
        ("--cap-add SYS_ADMIN", "may not set cap_add"),
        ("--device /dev/null", "may not set devices"),
        ("--device-cgroup-rule 'a *:* rwm'", "may not set device_cgroup_rules"),
        ("--security-opt seccomp=unconfined", "may not set security_opt"),
        ("--security-opt systempaths=unconfined", "may not set security_opt"),
        ("--network host", "may not set network"),
        ("--network container:hidden", "only containers that the socket sees"),
        ("--network hidden-network", "only networks that the socket sees"),
        ("--pid host", "may not set pid"),
        ("--pid container:hidden", "only containers that the socket sees"),
        ("--ipc host", "may not set ipc"),
        ("--uts host", "may not set uts"),
        ("--userns host", "may not set userns"),
        ("--cgroupns host", "may not set cgroup_namespace"),
        ("--cgroup-parent /x", "may not set cgroup_parent"),
        ("--sysctl net.ipv4.ip_forward=1", "may not set sysctls"),
        ("--oom-score-adj -5", "oom_score_adj"),
        ("--oom-kill-disable", "may not set oom_kill_disable"),
        ("--log-driver syslog", "may not set log_driver"),
        ("--annotation a=b", "may not set annotations"),
        ("--link hidden", "only containers that the socket sees"),
    ],
)
def test_what_a_worker_may_not_make(
    cli: Callable[..., tuple[int, str]], environment: Environment, flags: str, words: str
) -> None:
    before = environment("ps", "-aq").stdout, environment("volume", "ls", "-q").stdout
    code, told = cli("worker", f"create {flags} box:1 true")
    assert code != 0 and words in told, told
    assert (environment("ps", "-aq").stdout, environment("volume", "ls", "-q").stdout) == before


def test_a_label_can_not_be_taken_off(environment: Environment) -> None:
    worker = api_of(environment, "worker")
    made = worker(
        "POST", "/containers/create?name=l", {"Image": "box:1", "Cmd": ["x"], "Labels": {"team": "b", "x": "y"}}
    )
    assert made.status == 201
    assert worker("GET", "/containers/l/json").json["Config"]["Labels"] == {"team": "a", "x": "y"}
    assert worker("DELETE", "/containers/l").status == 204
    assert worker("POST", "/volumes/create", {"Name": "hidden-volume"}).status == 403


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/containers/ID/exec", {"Cmd": ["true"]}),
        ("POST", "/containers/ID/stop", None),
        ("DELETE", "/containers/ID?force=1", None),
        ("GET", "/containers/ID/logs?stdout=1", None),
        ("GET", "/containers/ID/archive?path=/etc", None),
        ("PUT", "/containers/ID/archive?path=/etc", b""),
        ("POST", "/containers/ID/attach?logs=1", None),
        ("GET", "/containers/ID/top", None),
        ("GET", "/containers/ID/stats?stream=0", None),
        ("POST", "/containers/ID/update", {"Memory": 0}),
        ("POST", "/containers/ID/rename?name=mine", None),
        ("GET", "/containers/json?filters=%7B%22before%22%3A%5B%22ID%22%5D%7D", None),
        ("GET", "/volumes/hidden-volume", None),
        ("DELETE", "/volumes/hidden-volume", None),
        ("GET", "/networks/hidden-network", None),
        ("DELETE", "/networks/hidden-network", None),
        ("POST", "/networks/bridge/connect", {"Container": "ID"}),
        ("GET", "/networks/host", None),
    ],
)
@pytest.mark.parametrize("by", ["name", "id", "prefix"])
def test_what_is_hidden_answers_as_what_is_not_there(
    environment: Environment, method: str, path: str, body: object, by: str
) -> None:
    hidden = environment("inspect", "-f", "{{.Id}}", "hidden").stdout.strip()
    reference = {"name": "hidden", "id": hidden, "prefix": hidden[:10]}[by]
    worker = api_of(environment, "worker")

    def ask(reference: str, noun: str) -> Answer:
        sent = json.loads(json.dumps(body).replace("ID", reference)) if isinstance(body, dict) else body
        return worker(method, path.replace("ID", reference).replace("hidden-", f"{noun}-"), sent)

    found, absent = ask(reference, "hidden"), ask("0123abc", "nosuch")
    assert found.status == absent.status == 404
    assert found.message.replace(reference, "X").replace("hidden", "X") == absent.message.replace(
        "0123abc", "X"
    ).replace("nosuch", "X")
    assert environment("inspect", "-f", "{{.State.Status}}", "hidden").stdout == "running\n"


def test_an_exec_of_another_socket_is_not_there(environment: Environment) -> None:
    whole = Api(environment.run / "docker.sock")
    exec_id = whole("POST", "/containers/hidden/exec", {"Cmd": ["true"]}).json["Id"]
    worker = api_of(environment, "worker")
    for method, path in (("GET", "json"), ("POST", "start"), ("POST", "resize?h=1&w=1")):
        answer = worker(method, f"/exec/{exec_id}/{path}", {} if method == "POST" else None)
        assert (answer.status, answer.message) == (404, f"No such exec instance: {exec_id}")


@pytest.mark.parametrize("path", ["/grpc", "/session", "/build"])
def test_no_socket_builds(environment: Environment, path: str) -> None:
    answer = api_of(environment, "worker")("POST", path)
    assert answer.status == 403


def test_environments_are_shown_by_no_detour(environment: Environment) -> None:
    environment("socket", "create", "looker", "--allow", "containers:read", "--allow", "images:read")
    looker = api_of(environment, "looker")
    assert looker("GET", "/containers/seen/top?ps_args=eww").status == 403
    assert looker("GET", "/containers/seen/logs?stdout=1&details=1").status == 403
    for path in ("/containers/seen/json", "/containers/json", "/containers/seen/top", "/images/box:1/json"):
        answer = looker("GET", path)
        assert answer.status == 200 and b"s3cret" not in answer.body
    environment("socket", "create", "shown", "--allow", "containers:read", "--reveal-env")
    assert "SECRET=s3cret" in api_of(environment, "shown")("GET", "/containers/seen/json").json["Config"]["Env"]
    environment("socket", "rm", "looker", "shown")


def test_docker_py(environment: Environment) -> None:
    client = docker.DockerClient(base_url=f"unix://{environment.run}/sockets/worker.sock", timeout=60)
    try:
        assert client.containers.run("box:1", "echo hi", remove=True, network_mode="none") == b"hi\n"
        assert client.containers.list(all=True) == []
        with pytest.raises(docker.errors.APIError) as refused:
            client.containers.run("box:1", "true", privileged=True)
        assert refused.value.status_code == 403
        with pytest.raises(docker.errors.NotFound):
            client.containers.get("hidden")
    finally:
        client.close()


# -- requests that try to get more (SEC-70) ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/containers/seen/exec",
        "//containers/seen/exec",
        "/containers/seen//exec",
        "/v1.50//containers/seen/exec",
        "/containers/json/../../containers/seen/exec",
        "/containers/x/../seen/exec",
        "/%63ontainers/seen/exec",
        "/containers/seen%2Fexec",
        "/containers/json%2F..%2Fseen%2Fexec",
        "/v1.50/v1.50/containers/seen/exec",
        "/containers/seen/exec/",
        "/containers/seen/exec?x=/containers/json",
        "/containers/seen/exec;/containers/json",
        "/containers/json#/containers/seen/exec",
    ],
)
@pytest.mark.parametrize("form", ["counted", "chunked", "empty", "no length", "5 MiB", "two lengths", "both", "coded"])
def test_no_form_of_a_request_opens_more(environment: Environment, path: str, form: str) -> None:
    body = b'{"Cmd":["true"]}'
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nX-HTTP-Method-Override: GET\r\n"
    sent = {
        "counted": f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body,
        "chunked": f"{head}Transfer-Encoding: chunked\r\n\r\n10\r\n".encode() + body + b"\r\n0\r\n\r\n",
        "empty": f"{head}Content-Length: 0\r\n\r\n".encode() + body,
        "no length": f"{head}\r\n".encode() + body,
        "two lengths": f"{head}Content-Length: 0\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body,
        "both": f"{head}Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n".encode()
        + body
        + b"\r\n0\r\n\r\n",
        "coded": f"{head}Transfer-Encoding: xchunked\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body,
        "5 MiB": f"{head}Content-Length: {5 << 20}\r\n\r\n".encode() + b" " * (5 << 20),
    }[form]
    with api_of(environment, "reader").connect() as stream:
        try:
            stream.sendall(sent)
            stream.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # refused before it was read
        answer = b"".join(iter(lambda: receive(stream), b""))
    assert answer.split(b" ")[1] in (b"403", b"404", b"400"), answer[:300]
    for line in answer.split(b"\r\n"):
        assert not line.startswith(b"HTTP/1.1 2"), answer


def receive(stream: socket.socket) -> bytes:
    try:
        return stream.recv(65536)
    except ConnectionResetError:
        return b""


# -- its life ---------------------------------------------------------------------------------------------------------


def test_every_request_is_audited(environment: Environment) -> None:
    environment("socket", "create", "watched", "--allow", "containers:list")
    watched = api_of(environment, "watched")
    watched("GET", "/containers/json?filters=%7B%7D")
    watched("POST", "/containers/seen/exec", {"Cmd": ["true"]})
    watched("GET", "/nosuch")
    watched("GET", "/info", Origin="http://evil")
    with watched.connect() as stream:  # both on one connection
        stream.sendall(b"GET /_ping HTTP/1.1\r\nHost: a\r\n\r\n")
        stream.recv(1000)
        stream.sendall(b"GET /_ping HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
        stream.recv(1000)
    lines = [json.loads(line) for line in environment("socket", "audit", "watched").stdout.splitlines()]
    decisions = [(one["method"], one["path"], one["right"], one["decision"]) for one in lines]
    assert decisions == [
        ("GET", "/v1.50/containers/json", "containers:list", "allowed"),
        ("POST", "/v1.50/containers/seen/exec", "containers:exec", "denied"),
        ("GET", "/v1.50/nosuch", "", "refused before a decision"),
        ("GET", "/v1.50/info", "", "refused before a decision"),
        ("GET", "/_ping", "free", "allowed"),
        ("GET", "", "", "no request that can be understood"),
    ]
    assert all(one["pid"] == os.getpid() and one["uid"] == os.geteuid() for one in lines)
    # What can't be written down is not done.
    audit = environment.root / "sockets/watched/audit.jsonl"
    audit.unlink()
    audit.mkdir()
    assert watched("GET", "/containers/json").status >= 500
    audit.rmdir()
    assert watched("GET", "/containers/json").status == 200
    environment("socket", "rm", "watched")


def test_it_ends_when_its_time_has_come_or_it_is_removed(environment: Environment) -> None:
    environment("socket", "create", "brief", "--allow", "containers:events,list", "--ttl", "2s")
    brief = api_of(environment, "brief")
    assert brief("GET", "/containers/json").status == 200
    with brief.connect() as stream:  # a request that lasts is cut off
        stream.sendall(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
        while stream.recv(1000):
            pass
    deadline = time.monotonic() + 60
    while brief.place.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    with pytest.raises(OSError):
        brief("GET", "/_ping")
    assert "(expired)" in environment("socket", "ls").stdout
    assert environment("socket", "rm", "brief").stdout == "brief\n"
    assert environment("socket", "rm", "brief", check=False).code == 1


def test_it_is_there_again_with_the_next_engine(environment: Environment) -> None:
    assert api_of(environment, "reader")("GET", "/containers/json").status == 200
    environment("engine", "stop")
    assert not (environment.run / "sockets/reader.sock").exists()
    environment("socket", "ls", "-q")
    assert [one["Names"] for one in api_of(environment, "reader")("GET", "/containers/json").json] == [["/seen"]]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["x", "--allow", "containers:nosuch"], "containers have no verb 'nosuch'"),
        (["x", "--allow", "nosuch:list"], "allows nothing that there is"),
        (["x", "--allow", "containers"], "allows nothing that there is"),
        (["x"], "it would allow nothing"),
        (["../x", "--allow", "containers:*"], "its name"),
        (["x" * 60, "--allow", "containers:*"], "its name"),
        (["reader", "--allow", "containers:*"], "there is one of that name"),
        (["x", "--allow", "containers:*", "--where", "name=x"], "label=NAME"),
        (["x", "--allow", "containers:*", "--uid", "-5"], "out of range"),
    ],
)
def test_what_can_not_be_a_socket(environment: Environment, words: list[str], told: str) -> None:
    done = environment("socket", "create", *words, check=False)
    assert done.code != 0 and told in done.stderr, done


def test_whoever_is_not_named_may_not_connect(environment: Environment) -> None:
    environment("socket", "create", "named", "--allow", "containers:list", "--uid", "65534")
    place = environment.run / "sockets/named.sock"
    os.chmod(environment.run, 0o711)
    os.chmod(place.parent, 0o711)
    try:
        assert [connects_as(uid, place) for uid in (65534, 65533)] == [True, False]
    finally:
        os.chmod(environment.run, 0o700)
        os.chmod(place.parent, 0o700)
        environment("socket", "rm", "named")


def connects_as(uid: int, place: Path) -> bool:
    pid = os.fork()
    if not pid:
        answer = b""
        try:
            os.setgid(uid)
            os.setuid(uid)
            with socket.socket(socket.AF_UNIX) as stream:
                stream.connect(str(place))
                stream.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
                answer = stream.recv(100)
        except OSError:
            pass
        os._exit(0 if answer else 1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


# -- the tables -------------------------------------------------------------------------------------------------------


CLOSED_PREFIXES = ("/swarm", "/nodes", "/services", "/tasks", "/secrets", "/configs", "/plugins", "/build", "/session")


def test_every_route_has_its_right_or_is_closed() -> None:
    routes = {(method, pattern) for noun in NOUNS for method, pattern, _ in noun.ROUTES}
    assert set(rights.NEEDED) <= routes
    closed = {
        (method, pattern) for method, pattern in routes - set(rights.NEEDED) if not pattern.startswith(CLOSED_PREFIXES)
    }
    assert closed == {
        ("PUT", "/volumes/{name}"),
        ("POST", "/grpc"),
        ("GET", "/containers/{id}/checkpoints"),
        ("POST", "/containers/{id}/checkpoints"),
        ("DELETE", "/containers/{id}/checkpoints/{checkpoint}"),
    }


def test_every_field_of_a_creation_is_judged() -> None:
    """A new field is refused until it stands here or in gate.FIELDS."""
    refused = (
        "rootfs unplugged secrets configs volume_driver cap_add privileged annotations log_options runtime devices"
        " device_cgroup_rules cgroup_parent sysctls remove_image"
        " host_access oom_kill_disable cpu_realtime_period_us cpu_realtime_runtime_us blkio_weight_devices"
        " device_read_bps device_write_bps device_read_iops device_write_iops"
    ).split()
    assert set(ContainerRequest._fields) == gate.FIELDS | gate.CHECKED | set(refused)
    assert not gate.FIELDS & gate.CHECKED
