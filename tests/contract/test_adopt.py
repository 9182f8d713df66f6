"""`orlop adopt`: what a real dockerd tells of its container is what ours tells of the one that is made here."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bench import platforms
from bench.workspace import Workspace
from orlop.frontends.cli.containers.adopt import adopted
from orlop.spec.errors import Invalid, OrlopError
from support.engine import Environment

CONFIG = "Env Cmd Entrypoint User WorkingDir Labels Tty OpenStdin StopSignal ExposedPorts Image Hostname".split()
HOST = (
    "Binds RestartPolicy PortBindings CapAdd CapDrop Memory NanoCpus PidsLimit ReadonlyRootfs Tmpfs ShmSize Ulimits Dns"
    " ExtraHosts Init SecurityOpt GroupAdd NetworkMode Sysctls"
).split()
FLAGS = (
    "--name web --network none -e A=b -u 1:2 -w /tmp -l tier=front --hostname named --stop-signal INT --memory 64m"
    " --cpus 1.5 --pids-limit 50 --cap-add NET_ADMIN --cap-drop CHOWN --read-only --tmpfs /t:size=1m --shm-size 8m"
    " --ulimit nofile=100:200 --dns 1.1.1.1 --add-host foo:1.2.3.4 --init --group-add 5 -v data:/data -v /tmp:/h:ro"
    " --restart on-failure:3 --security-opt no-new-privileges --expose 81 --health-cmd true -it --entrypoint sleep"
)


def test_a_container_of_dockers_is_made_here(orlop: Environment, peer: Callable[[str], Path]) -> None:
    """Red: with the engine's own fields left in (Runtime is refused), or with its hostname where that is its id."""
    with Workspace() as work:
        daemon = work.dockerd("d", program=peer("dockerd"))

        def docker(*words: str) -> str:
            argv = [peer("docker"), *words]
            return subprocess.run(argv, env=daemon.env, capture_output=True, text=True, check=True).stdout

        docker("import", str(work.archive()), "box:1")
        docker("create", *FLAGS.split(), "box:1", "1000")
        docker("create", "--name", "plain", "--network", "none", "box:1", "true")
        place = f"unix://{daemon.socket}"
        said = orlop("adopt", "--from", place, "web")
        assert "volume data" in said.stderr
        orlop("adopt", "--from", place, "--name", "plain2", "plain")
        assert "--memory=67108864" in orlop("adopt", "--from", place, "--print", "web").stdout
        theirs, ours = json.loads(docker("inspect", "web"))[0], json.loads(orlop("inspect", "web").stdout)[0]
        wrong = {
            name: (theirs[part].get(name), ours[part].get(name))
            for part, names in (("Config", CONFIG), ("HostConfig", HOST))
            for name in names
            if (theirs[part].get(name) or None) != (ours[part].get(name) or None)
        }
        assert not wrong
        assert ours["Config"]["Healthcheck"]["Test"] == theirs["Config"]["Healthcheck"]["Test"]
        plain = json.loads(orlop("inspect", "plain2").stdout)[0]
        assert plain["Config"]["Hostname"] == plain["Id"][:12]
        orlop("start", "-a", "plain2")
        assert json.loads(docker("inspect", "web", "plain"))[1]["State"]["Status"] == "created"
        gone = orlop("adopt", "--from", place, "nosuch", check=False)
        assert gone.code == 1 and "none of that name" in gone.stderr
    lost = orlop("adopt", "--from", place, "web", check=False)
    assert lost.code == 1 and "Next: name the other engine's socket" in lost.stderr
    assert "unix sockets only" in orlop("adopt", "--from", "tcp://x:1", "web", check=False).stderr


def test_a_container_of_podmans_is_made_here(orlop: Environment, peer: Callable[[str], Path]) -> None:
    """Red: with podman's options of mounts left in, or its names of limits."""
    peer("podman")
    with Workspace() as work:
        command, env = platforms.podman_command(work)
        place = work.path("service") / "s"
        work.daemon([*command, "system", "service", "-t", "0", f"unix://{place}"], env, place)
        work.run([*command, "import", work.archive(), "box:1"], env)
        flags = "--name web --network none -e A=b -m 64m -v data:/data --ulimit nofile=100:200 --entrypoint sleep"
        work.run([*command, "create", *flags.split(), "box:1", "1000"], env)
        said = orlop("adopt", "--from", f"unix://{place}", "web")
        assert "nosuid of data:/data" in said.stderr
        orlop("start", "web")
        found = json.loads(orlop("inspect", "web").stdout)[0]
        assert "A=b" in found["Config"]["Env"] and found["Config"]["Entrypoint"] == ["sleep"]
        assert found["HostConfig"]["Memory"] == 64 << 20 and found["HostConfig"]["Binds"] == ["data:/data:rw"]
        assert orlop("exec", "web", "sh", "-c", "ulimit -n").stdout == "100\n"
        orlop("rm", "-f", "web")


@contextmanager
def answering(place: Path, answer: bytes) -> Iterator[None]:
    """Answer every connection with some bytes."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place))
        listener.listen()

        def serve() -> None:
            try:
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        connection.recv(65536)
                        connection.sendall(answer)
            except OSError:
                pass

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_an_engine_that_lies_is_told_of(orlop: Environment, tmp_path: Path) -> None:
    """Red: without HTTPException among what is told; with a document that is believed."""
    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
    for number, answer in enumerate(
        (b"", b"no http\r\n\r\n", head + b"[]", head + b"{", head + b'{"Config": 5}', head + b"x" * (20 << 20))
    ):
        place = tmp_path / f"s{number}"
        with answering(place, answer):
            said = orlop("adopt", "--from", f"unix://{place}", "web", check=False)
        assert said.code != 0 and "defect" not in said.stderr and "Traceback" not in said.stderr, (
            answer[:60],
            said,
        )
    assert orlop("ps", "-aq").stdout == ""


@pytest.mark.parametrize(
    "found",
    [
        {},
        {"Config": {"Image": "x"}, "HostConfig": {"Binds": [5]}},
        {"Config": {"Image": "x", "Env": {}}, "HostConfig": {}},
        {"Config": {"Image": "x"}, "HostConfig": {}, "Mounts": "no"},
        {"Config": {"Image": "x"}, "HostConfig": {"LogConfig": {"Type": 5}}},
        {"Config": {"Image": "x", "Hostname": 5}, "HostConfig": {}, "Id": "x"},
        {"Config": {"Image": "x"}, "HostConfig": {}, "NetworkSettings": {"Networks": {"a": 5}}},
    ],
)
def test_a_document_that_is_none(found: dict[str, Any]) -> None:
    """Red: with a field that is used as it came."""
    try:
        request, _ = adopted(found)
    except OrlopError as wrong:
        assert isinstance(wrong, Invalid)
    else:
        assert request.image == ""  # the engine refuses it
