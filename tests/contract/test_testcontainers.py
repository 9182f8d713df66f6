"""testcontainers-python, unchanged, with our docker.sock: a network, containers that find each other, ports, waits."""

from __future__ import annotations

import gc
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network
from testcontainers.core.wait_strategies import LogMessageWaitStrategy

from bench.workspace import Workspace
from support.engine import Environment

# docker-py leaves the answers of failed requests to the collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")


@pytest.fixture
def environment(orlop: Environment, monkeypatch: pytest.MonkeyPatch) -> Iterator[Environment]:
    with Workspace() as work:
        orlop("import", str(work.archive()), "box:1")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{orlop.run}/docker.sock")
    # The reaper is an image that nothing here can pull; the library's own answer is orlop.connect(tied=True).
    monkeypatch.setattr(testcontainers_config, "ryuk_disabled", True)
    yield orlop
    gc.collect()


def test_a_test_of_somebody_s(environment: Environment, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("it works")
    environment.inside(lambda: a_test(tmp_path))
    assert environment("ps", "-aq").stdout == ""
    assert len(environment("network", "ls", "-q").stdout.split()) == 3


def a_test(place: Path) -> None:
    waits = LogMessageWaitStrategy("ready")
    server = DockerContainer("box:1").with_command("sh -c 'echo ready; exec busybox httpd -f -p 80 -h /www'")
    server = server.with_exposed_ports(80).with_volume_mapping(str(place), "/www", "ro").with_env("A", "b")
    with Network() as network, server.with_network(network).with_network_aliases("web").waiting_for(waits) as web:
        code, said = web.exec(["sh", "-c", "echo $A; cat /www/index.html"])
        assert (code, said) == (0, b"b\nit works")
        assert b"it works" in fetched(web.get_container_host_ip(), int(web.get_exposed_port(80)))
        # A whole line, and it stays after it: the library takes one that has ended meanwhile for one that failed.
        ask = "sh -c 'busybox wget -qO- http://web/index.html; echo; exec sleep 1000'"
        client = DockerContainer("box:1").with_command(ask).with_network(network)
        with client.waiting_for(LogMessageWaitStrategy("it works")) as asked:
            assert asked.get_logs()[0] == b"it works\n"


def fetched(host: str, port: int) -> bytes:
    deadline = time.monotonic() + 60
    while True:
        try:
            with socket.create_connection((host, port), timeout=60) as stream:
                stream.sendall(b"GET /index.html HTTP/1.0\r\n\r\n")
                return b"".join(iter(lambda: stream.recv(1000), b""))
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
