"""docker-py, Docker's own Python SDK, unchanged against our docker.sock; and requests that no SDK would send."""

from __future__ import annotations

import base64
import contextlib
import gc
import io
import json
import os
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest

from support.docker_http import box_engine, tar_of
from support.engine import Environment

# docker-py leaves the answers of failed requests to the collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")


@pytest.fixture(scope="module")
def environment() -> Iterator[Environment]:
    with box_engine() as environment:
        yield environment


@pytest.fixture(scope="module")
def client(environment: Environment) -> Iterator[object]:
    client = docker.DockerClient(base_url=f"unix://{environment.run}/docker.sock", timeout=60)
    yield client
    client.close()
    gc.collect()  # what docker-py has left open is no later test's affair


@pytest.fixture
def held(client) -> Iterator[object]:
    container = client.containers.run(
        "box:1", "cat", detach=True, stdin_open=True, network_mode="none", labels={"kind": "test"}
    )
    yield container
    container.remove(force=True)


def test_the_engine_says_who_it_is(client):
    assert client.ping()
    assert client.version()["ApiVersion"] == "1.50"
    assert client.info()["OSType"] == "linux"


def test_run_returns_the_output_and_raises_the_status(client):
    assert client.containers.run("box:1", "echo hi", remove=True, network_mode="none") == b"hi\n"
    with pytest.raises(docker.errors.ContainerError) as failed:
        client.containers.run("box:1", ["sh", "-c", "echo why >&2; exit 3"], remove=True, network_mode="none")
    assert failed.value.exit_status == 3
    assert client.containers.list(all=True) == []


def test_attributes_and_lists(client, held):
    held.reload()
    assert (held.status, held.labels) == ("running", {"kind": "test"})
    assert [one.id for one in client.containers.list(filters={"label": "kind=test"})] == [held.id]
    assert client.containers.list(filters={"label": "kind=other"}) == []


def test_exec_in_every_form(held):
    assert held.exec_run("echo in") == (0, b"in\n")
    assert held.exec_run(["sh", "-c", "echo a; echo b >&2; exit 3"], demux=True) == (3, (b"a\n", b"b\n"))
    assert held.exec_run(["sh", "-c", "echo $A"], environment={"A": "x"}, workdir="/tmp", user="5") == (0, b"x\n")
    stream = held.exec_run("cat", stdin=True, socket=True).output._sock
    with stream:
        stream.sendall(b"typed\n")
        stream.shutdown(socket.SHUT_WR)
        assert b"".join(iter(lambda: stream.recv(100), b"")) == b"\x01\0\0\0\0\0\0\x06typed\n"


def test_who_starts_an_exec_says_whether_its_output_is_framed(client, held):
    """Red: 8 bytes of what a terminal said were taken for a frame's head. docker-py's exec_start asks for frames."""
    said = ["sh", "-c", "echo out; echo err >&2"]
    at_terminal = client.api.exec_create(held.id, said, tty=True)
    assert client.api.exec_start(at_terminal, demux=True) == (b"out\r\nerr\r\n", None)
    without = client.api.exec_create(held.id, said)
    assert client.api.exec_start(without, tty=True) == b"out\n"  # raw: whose line it is nobody could tell


def test_names_are_read_as_go_reads_them(client, held):
    """docker-py writes detachKeys where docker's CLI writes DetachKeys. Red: ctrl-a was typed."""
    exec_id = client.api.exec_create(held.id, "cat", stdin=True, tty=True, detach_keys="ctrl-a")["Id"]
    stream = client.api.exec_start(exec_id, tty=True, socket=True)._sock
    with stream:
        stream.sendall(b"\x01")
        assert stream.recv(10) == b""
    assert base64.b64decode(client.api.exec_inspect(exec_id)["DetachKeys"]) == b"\x01"


def test_what_is_killed_has_ended(client):
    """Red: the answer came ahead of the end, so a removal was refused."""
    for _ in range(5):
        container = client.containers.run("box:1", "sleep 1000", detach=True, network_mode="none")
        container.kill()
        container.remove()


def test_what_ends_while_it_is_committed_is_committed(client):
    """Red, now and then: No such device, of a cgroup that went while it was to be frozen."""
    for _ in range(6):
        container = client.containers.run("box:1", "true", detach=True, network_mode="none")
        container.commit("ending", "1")
        container.remove(force=True)
    client.images.remove("ending:1")


def test_a_driver_of_volumes_is_looked_for_when_there_is_a_volume(client):
    container = client.containers.create("box:1", "true", volume_driver="nosuch", network_mode="none")
    container.reload()
    assert container.attrs["HostConfig"]["VolumeDriver"] == "nosuch"
    container.remove()
    with pytest.raises(docker.errors.APIError, match='plugin "nosuch" not found'):
        client.containers.create("box:1", "true", volume_driver="nosuch", volumes=["/v"], network_mode="none")


def test_networks_as_they_were_asked_for(client):
    """An IPv6 subnet is the wish for IPv6; options of addresses that nobody gave are none."""
    pool = docker.types.IPAMPool(subnet="fd00:7::/64")
    network = client.networks.create("six", ipam=docker.types.IPAMConfig(pool_configs=[pool]))
    attrs = client.api.inspect_network("six")
    network.remove()
    assert (attrs["EnableIPv6"], attrs["IPAM"]["Options"]) == (True, None)
    assert "fd00:7::/64" in [one["Subnet"] for one in attrs["IPAM"]["Config"]]


def test_what_is_no_archive_is_told_in_the_stream_of_a_load(client):
    """Red: docker-py's ImageLoadError came never, as it is no APIError."""
    with pytest.raises(docker.errors.ImageLoadError):
        client.images.load(b"abc")


def test_attach_before_and_after_the_start(client):
    container = client.containers.create("box:1", "cat", stdin_open=True, network_mode="none")
    early = container.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})._sock
    container.start()
    late = container.attach_socket(params={"stdout": 1, "stream": 1})._sock
    with early, late:
        early.sendall(b"to both\n")
        for stream in (early, late):
            assert stream.recv(100).endswith(b"to both\n")
        container.kill()
        assert early.recv(100) == late.recv(100) == b""
    container.remove()


def test_archives(held):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        member = tarfile.TarInfo("f")
        member.size = 3
        tar.addfile(member, io.BytesIO(b"abc"))
    assert held.put_archive("/", buffer.getvalue())
    pieces, stat = held.get_archive("/f")
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as tar:
        found = tar.extractfile("f")
        assert found is not None and found.read() == b"abc"
    assert (stat["name"], stat["size"], stat["mode"]) == ("f", 3, 0o644)
    assert held.diff() == [{"Path": "/f", "Kind": 1}]
    with pytest.raises(docker.errors.NotFound):
        held.get_archive("/nosuch")
    with tarfile.open(fileobj=io.BytesIO(b"".join(held.export()))) as tar:
        assert "f" in tar.getnames()


def test_changes_of_what_runs(held):
    held.pause()
    held.reload()
    assert held.status == "paused"
    held.unpause()
    held.update(mem_limit="100m", memswap_limit="200m")
    held.rename("renamed")
    held.reload()
    assert (held.name, held.attrs["HostConfig"]["Memory"]) == ("renamed", 100 << 20)
    assert held.top()["Processes"][0][-1] == "cat"
    assert held.stats(stream=False)["pids_stats"]["current"] == 1
    held.stop(timeout=1)
    assert held.wait()["StatusCode"] == 137


def test_logs_and_events(client):
    container = client.containers.run("box:1", ["sh", "-c", "echo a; echo b"], detach=True, network_mode="none")
    container.wait()
    assert container.logs() == b"a\nb\n"
    assert container.logs(tail=1) == b"b\n"
    # docker-py's readers take a frame for a line. Red: one frame with both lines.
    assert list(container.logs(stream=True, follow=True)) == [b"a\n", b"b\n"]
    seen = client.events(since=1, until=int(time.time()) + 1, decode=True, filters={"container": container.id})
    assert [one["Action"] for one in seen] == ["create", "start", "die"]
    container.remove()


def test_the_events_of_execs(client, held):
    """Red: no exec_create of docker's clients, and nothing at all of a command that is not there."""
    assert [held.exec_run(words)[0] for words in ("true", "nosuch")] == [0, 127]
    seen = client.events(since=1, until=int(time.time()) + 1, decode=True, filters={"container": held.id})
    told = [one["Action"] for one in seen]
    assert sorted(told[2:]) == [  # an end is told when it is seen
        "exec_create: nosuch", "exec_create: true", "exec_die", "exec_start: nosuch", "exec_start: true",
    ]  # fmt: skip


def test_images_volumes_networks(client, held):
    image = held.commit("made", "1")
    assert image.tags == ["made:1"]
    seen = client.events(since=1, until=int(time.time()) + 1, decode=True)
    told = [one["Action"] for one in seen if one["Actor"]["ID"] == held.id or one["Action"] == "tag"]
    assert told[-4:] == ["pause", "tag", "commit", "unpause"]
    client.images.remove("made:1")
    loaded = client.images.load(b"".join(client.images.get("box:1").save(named=True)))
    assert [one.tags for one in loaded] == [["box:1"]]
    with pytest.raises(docker.errors.ImageNotFound):
        client.images.get("nosuch:1")
    volume = client.volumes.create("data")
    assert [one.name for one in client.volumes.list()] == ["data"]
    volume.remove()
    network = client.networks.create("net")
    network.connect(client.containers.create("box:1", "cat", name="member"))
    assert [one.name for one in client.networks.list(names=["net"])] == ["net"]
    client.containers.get("member").remove()
    network.remove()


# -- what no SDK sends ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def send(environment: Environment) -> Callable[[bytes], tuple[int, bytes]]:
    def send(request: bytes) -> tuple[int, bytes]:
        with socket.socket(socket.AF_UNIX) as stream:
            stream.settimeout(60)
            stream.connect(f"{environment.run}/docker.sock")
            with contextlib.suppress(BrokenPipeError):  # it may be refused before its end has left
                stream.sendall(request)
                stream.shutdown(socket.SHUT_WR)
            answer = b"".join(iter(lambda: stream.recv(65536), b""))
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), body

    return send


def post(path: str, body: bytes, kind: str = "application/json") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


CREATE = "/v1.50/containers/create"


@pytest.mark.parametrize(
    "request_",
    [
        post(CREATE, b"{"),
        post(CREATE, b"[]"),
        post(CREATE, b'{"Image":"box:1"}', "text/plain"),
        post(CREATE, b'{"Image":"box:1","Image":"other"}'),
        post(CREATE, b'{"Image":"box:1","image":"other"}'),
        post(CREATE, b'{"Image":5}'),
        post(CREATE, b'{"Image":"box:1","Cmd":{"a":1}}'),
        post(CREATE, b'{"Image":"box:1","Env":[1]}'),
        post(CREATE, b'{"Image":"box:1","HostConfig":[]}'),
        post(CREATE, b'{"Image":"box:1","HostConfig":{"Memory":"1g"}}'),
        post(CREATE, b'{"Image":"box:1","HostConfig":{"Memory":true}}'),
        post(CREATE, b'{"Image":"box:1","HostConfig":{"Binds":["a:b:c:d"]}}'),
        post(CREATE, b'{"Image":"box:1","HostConfig":{"PortBindings":{"99999/tcp":[{}]}}}'),
        post(CREATE, b'{"Image":"box:1","HostConfig":{"PortBindings":{"x":[{}]}}}'),
        post(CREATE, b'{"Image":"box:1","HostConfig":{"Mounts":[{"Type":"nosuch","Target":"/x"}]}}'),
        post(CREATE, b'{"Image":"box:1","HostConfig":{"NetworkMode":"container:nosuch"}}'),
        post(CREATE, b'{"Image":"box:1","HostConfig":{"SecurityOpt":["seccomp={"]}}'),
        post(CREATE, b'{"Image":"box:1","HostConfig":{"DeviceRequests":[{"Count":-1}]}}'),
        post(CREATE, b'{"Image":"../../etc"}'),
        post(CREATE, b"{" + b'"a":{' * 100_000),
        post(CREATE, b'{"Image":"' + b"x" * 9_000_000 + b'"}'),
        b"GET /v1.50/containers/json?filters={ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v1.50/containers/json?limit=many HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v1.50/containers/json?filters=" + b"%7B" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v9.99/containers/json HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v1.12/containers/json HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /nosuch HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /containers/%2e%2e%2f%2e%2e/json HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /containers/nosuch/archive?path= HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PATCH /containers/json HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /exec/nosuch/start HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
        b"GET /swarm HTTP/1.1\r\nHost: x\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 200 + b"\r\n",
        b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        post("/v1.50/images/create?fromImage=box&tag=:::", b""),
        b"POST /images/create?fromImage=x HTTP/1.1\r\nHost: x\r\nX-Registry-Auth: !!!\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_a_bad_request_is_told_and_nothing_is_made(send, client, request_):
    status, body = send(request_)
    assert 400 <= status < 600 and status != 500, (status, body)
    assert json.loads(body)["message"]
    assert client.containers.list(all=True) == []
    assert client.ping()


def put(path: str, body: bytes) -> bytes:
    return f"PUT {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def test_a_broken_archive_is_told_and_leaves_nothing(send, client, held):
    broken = (
        b"no archive at all" * 100,
        b"\x1f\x8b\x08" + b"\0" * 600,
        tar_of("../../out", b"x" * 300)[:700],
        b"x" * 511,
    )
    images = client.images.list()
    for data in broken:
        for request in (
            put(f"/v1.50/containers/{held.id}/archive?path=/", data),
            post("/v1.50/images/create?fromSrc=-&repo=broken&tag=1", data, "application/x-tar"),
        ):
            status, body = send(request)
            assert 400 <= status < 500, (request[:60], status, body)
            assert json.loads(body)["message"]
        status, body = send(post("/v1.50/images/load", data, "application/x-tar"))
        assert status == 200 and b'"errorDetail"' in body, (status, body)
    assert client.images.list() == images
    assert not held.diff()


def test_an_archive_that_leads_outside_stays_inside(send, held, tmp_path):
    status, body = send(
        put(f"/v1.50/containers/{held.id}/archive?path=/tmp", tar_of(f"../../../..{tmp_path}/out", b"x"))
    )
    assert status in (200, 400), body
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["/exec/ID/start", "/exec/ID/resize?h=-1&w=5", "/exec/ID/resize?h=70000&w=5"])
def test_a_broken_exec_request_is_told(send, client, held, path):
    exec_id = client.api.exec_create(held.id, ["true"])["Id"]
    status, body = send(post(f"/v1.50{path}".replace("ID", exec_id), b"[1, 2"))
    assert status == 400, body
    assert json.loads(body)["message"]


@pytest.mark.parametrize(
    "body",
    [b'{"Cmd":[]}', b'{"Cmd":[1]}', b'{"Cmd":null}', b'{"Cmd":["x"],"Env":["=x"]}', b'{"Cmd":["x"],"User":5}', b"null"],
)
def test_an_exec_that_can_not_be_is_told(send, held, body):
    status, answer = send(post(f"/v1.50/containers/{held.id}/exec", body))
    if status == 201:  # what only the start can know
        exec_id = json.loads(answer)["Id"]
        status, answer = send(post(f"/v1.50/exec/{exec_id}/start", b'{"Detach":true}'))
    assert status == 400, answer


@pytest.mark.parametrize("query", ["since=x", "until=1.x", "since=" + "9" * 50, "tail=x&since=%FF"])
def test_a_broken_moment_is_told(send, held, query):
    head = f"GET /v1.50/containers/{held.id}/logs?stdout=1&{query} HTTP/1.1\r\nHost: x\r\n\r\n"
    status, body = send(head.encode())
    assert status == 400, body


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/volumes/create", b'{"Name":"../x"}'),
        ("/volumes/create", b'{"Name":5}'),
        ("/volumes/create", b'{"Driver":"nosuch"}'),
        ("/volumes/create", b'{"DriverOpts":{"type":7}}'),
        ("/networks/create", b'{"Name":""}'),
        ("/networks/create", b'{"Name":"a b"}'),
        ("/networks/create", b'{"Name":"n","Driver":"nosuch"}'),
        ("/networks/create", b'{"Name":"n","IPAM":{"Config":[{"Subnet":"10.0.0.0/99"}]}}'),
        ("/networks/create", b'{"Name":"n","IPAM":{"Config":"x"}}'),
        ("/networks/bridge/connect", b'{"Container":"nosuch"}'),
        ("/networks/nosuch/connect", b'{"Container":"x"}'),
        ("/containers/nosuch/update", b'{"Memory":"x"}'),
        ("/commit?container=nosuch", b"{}"),
        ("/images/box:1/tag?repo=UPPER", b""),
        ("/images/box:1/tag?repo=", b""),
    ],
)
def test_a_broken_request_of_every_noun_is_told(send, client, path, body):
    before = (len(client.volumes.list()), len(client.networks.list()), len(client.images.list()))
    status, answer = send(post(f"/v1.50{path}", body))
    assert 400 <= status < 500 or status == 501, (status, answer)  # 501: a driver that there is none of
    assert json.loads(answer)["message"]
    assert (len(client.volumes.list()), len(client.networks.list()), len(client.images.list())) == before


def test_a_stranger_is_not_served(environment: Environment, tmp_path: Path):
    # The directory keeps others away; this is for the day when somebody opens it (I2, SEC-70).
    import os

    place = environment.run / "docker.sock"
    os.chmod(environment.run, 0o755)
    os.chmod(place, 0o666)
    try:
        pid = os.fork()
        if not pid:
            try:
                os.setgid(65534)
                os.setuid(65534)
                with socket.socket(socket.AF_UNIX) as stream:
                    stream.connect(str(place))
                    stream.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
                    os._exit(len(stream.recv(1)))
            except OSError:
                os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    finally:
        os.chmod(place, 0o600)
        os.chmod(environment.run, 0o700)


# -- what is said while it happens ------------------------------------------------------------------------------------


def until_seen(stream: socket.socket, text: bytes) -> bytes:
    stream.settimeout(60)
    seen = b""
    while text not in seen:
        data = stream.recv(1000)
        assert data, seen
        seen += data
    return seen


def test_a_shell_at_a_terminal(client, held):
    exec_id = client.api.exec_create(held.id, ["sh"], stdin=True, tty=True)["Id"]
    with client.api.exec_start(exec_id, tty=True, socket=True)._sock as stream:
        client.api.exec_resize(exec_id, height=21, width=72)
        stream.sendall(b"busybox stty size; exit 4\n")
        assert b"21 72\r\n" in until_seen(stream, b"21 72\r\n")
        while stream.recv(1000):
            pass
    assert client.api.exec_inspect(exec_id)["ExitCode"] == 4


def test_a_log_is_followed_while_it_is_written(client, held):
    seen = held.logs(stream=True, follow=True)
    held.exec_run(["sh", "-c", "echo later >/proc/1/fd/1"])
    assert next(seen) == b"later\n"
    seen.close()


def test_attached_and_gone_by_its_keys(client):
    container = client.containers.run("box:1", "cat", detach=True, stdin_open=True, tty=True, network_mode="none")
    wanted = {"stdin": 1, "stdout": 1, "stream": 1, "detachKeys": "ctrl-x,x"}
    with container.attach_socket(params=wanted)._sock as stream:
        stream.sendall(b"typed\n")
        until_seen(stream, b"typed\r\ntyped\r\n")
        stream.sendall(b"\x18x")
        assert stream.recv(100) == b""
    container.reload()
    assert container.status == "running"
    container.remove(force=True)


def test_events_come_while_one_listens(client, held):
    events = client.events(decode=True, filters={"container": held.id})
    held.pause()
    held.unpause()
    assert [next(events)["Action"] for _ in range(2)] == ["pause", "unpause"]
    events.close()


def test_statistics_come_one_after_the_other(held):
    stream = held.stats(stream=True, decode=True)
    first, second = next(stream), next(stream)
    assert first["read"] < second["read"] and second["preread"] == first["read"]
    stream.close()


SHIM = """
import gc
import orlop.docker as docker
from orlop.docker.errors import ContainerError, ImageNotFound
from orlop.docker.types import Mount
import docker as itself

client = docker.from_env()
assert isinstance(client, itself.DockerClient) and docker.errors is itself.errors
assert docker.APIClient().ping() and client.version()["Components"][0]["Name"] == "Engine"
print(client.containers.run("box:1", "echo hi", remove=True, network_mode="none").decode().strip())
mounts = [Mount("/m", None, "tmpfs")]
try:
    client.containers.run("box:1", "sh -c 'exit 3'", remove=True, network_mode="none", mounts=mounts)
except ContainerError as wrong:
    print(wrong.exit_status)
try:
    client.images.get("nosuch:1")
except ImageNotFound as wrong:
    print(wrong.status_code)
client.close()
"""


def test_docker_py_by_our_name_starts_the_engine_and_finds_it(environment: Environment) -> None:
    """`import orlop.docker as docker`: nothing else changes, and no engine has to run yet."""
    pid = environment.engine_pid()
    if pid is not None:
        environment("engine", "stop")
    variables = {name: value for name, value in environment.variables.items() if name != "DOCKER_HOST"}
    argv = [sys.executable, "-c", SHIM]
    more = {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = environment.inside(
        lambda: subprocess.run(argv, env=variables | more, capture_output=True, text=True, timeout=60, check=False)
    )
    assert (done.returncode, done.stdout.split()) == (0, ["hi", "3", "404"]), done


def test_docker_py_by_our_name_goes_where_docker_host_says(tmp_path: Path) -> None:
    script = "import orlop.docker as docker; docker.from_env(timeout=5)"
    host = f"unix://{tmp_path}/nosuch.sock"
    variables = {"PYTHONPATH": os.pathsep.join(sys.path), "DOCKER_HOST": host, "PATH": os.environ["PATH"]}
    done = subprocess.run([sys.executable, "-c", script], env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "DockerException" in done.stderr and "No such file" in done.stderr, done
