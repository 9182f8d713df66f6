"""docker's client at a terminal, through our socket: what its sizes and its leaving are told as."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

from bench.workspace import Workspace
from support.docker_http import Api
from support.engine import Environment
from support.terminal import Terminal

WAIT_S_MAX = 60.0


def actions(orlop: Environment) -> list[dict[str, str]]:
    lines = orlop("events", "--since", "1h", "--until", "0s", "--filter", "container=web", "--format", "json").stdout
    events = [json.loads(line) for line in lines.splitlines()]
    return [{"action": event["Action"], **event["Actor"]["Attributes"]} for event in events]


def test_sizes_and_detaching_are_told(orlop: Environment, peer: Callable[[str], Path]) -> None:
    orlop("run", "-d", "-it", "--network", "none", "--name", "web", "host", "sh", "-c", "while :; do read x; done")
    api = Api(orlop.run / "docker.sock")
    assert api("POST", "/containers/web/resize?h=33&w=44").status == 200
    (resized,) = [event for event in actions(orlop) if event["action"] == "resize"]
    assert (resized["height"], resized["width"], resized["name"]) == ("33", "44", "web")
    assert "attach" not in [event["action"] for event in actions(orlop)]
    env = os.environ | {"DOCKER_HOST": f"unix://{orlop.run}/docker.sock", "DOCKER_CONFIG": str(orlop.root)}
    with Terminal([peer("docker"), "attach", "--detach-keys", "ctrl-x", "web"], env, rows=20, columns=70) as screen:
        deadline = time.monotonic() + WAIT_S_MAX
        while not any(event.get("width") == "70" for event in actions(orlop)):  # now it is attached
            assert time.monotonic() < deadline
            time.sleep(0.05)
        screen.send(b"\x18")  # which docker's client knows by itself: it just leaves
        screen.wait(WAIT_S_MAX)
    with socket.socket(socket.AF_UNIX) as stream:
        stream.settimeout(WAIT_S_MAX)
        stream.connect(str(orlop.run / "docker.sock"))
        place = "/containers/web/attach?stream=1&stdin=1&stdout=1&detachKeys=ctrl-y"
        stream.sendall(f"POST {place} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n".encode())
        head = b""
        while b"\r\n\r\n" not in head:
            head += stream.recv(4096)
        assert head.startswith(b"HTTP/1.1 101 ")
        stream.sendall(b"\x19")
        while stream.recv(4096):
            pass
    deadline = time.monotonic() + WAIT_S_MAX
    while "detach" not in [event["action"] for event in actions(orlop)]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert orlop("inspect", "-f", "{{.State.Status}}", "web").stdout == "running\n"


def test_a_program_starts_at_a_terminal_of_its_size(orlop: Environment, peer: Callable[[str], Path]) -> None:
    """What `docker run -t` says of its terminal with the creation holds from the first instruction on."""
    with Workspace() as work:
        orlop("import", str(work.archive()), "box:1")
    api = Api(orlop.run / "docker.sock")
    config = {"Image": "box:1", "Cmd": ["busybox", "stty", "size"], "Tty": True, "HostConfig": {"NetworkMode": "none"}}
    unknown = "standard input"  # what stty says of a terminal without a size
    for size, told in (([20, 70], "20 70"), ([0, 0], unknown), ("x", unknown), ([1, 1 << 20], unknown)):
        config["HostConfig"]["ConsoleSize"] = size  # type: ignore[index]
        made = api("POST", "/containers/create?name=sized", config).json["Id"]
        assert api("POST", f"/containers/{made}/start").status == 204
        orlop("wait", made)
        assert told in orlop("logs", made).stdout, size
        orlop("rm", made)
    env = os.environ | {"DOCKER_HOST": f"unix://{orlop.run}/docker.sock", "DOCKER_CONFIG": str(orlop.root)}
    words = ("run", "--rm", "-t", "--network", "none", "box:1", "busybox", "stty", "size")
    with orlop.inside(lambda: Terminal([peer("docker"), *words], env, rows=20, columns=70)) as screen:
        screen.expect("20 70")
        assert screen.wait(WAIT_S_MAX) == 0
