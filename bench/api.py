"""docker's own clients against our docker.sock and against dockerd: the same program, the same commands."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from devtools import peers
from devtools.failure import Failure

from .measure import Subject
from .platforms import Platform
from .workspace import Workspace

CONTAINERS, REQUESTS = 100, 100
ROUNDS_MAX = 5
SERVICES = "one two three four five".split()
# One connection, as a client that looks again and again has it.
_ASKER = """
import http.client, socket, sys
place, number = sys.argv[1], int(sys.argv[2])
client = http.client.HTTPConnection("docker")
client.sock = socket.socket(socket.AF_UNIX)
client.sock.connect(place)
for _ in range(number):
    client.request("GET", "/v1.41/containers/json?all=1")
    answer = client.getresponse()
    data = answer.read()
    assert answer.status == 200, data
"""


class Daemon:
    """A socket that speaks docker's API, and an image there. name: for the rows."""

    def __init__(self, name: str, work: Workspace, socket: Path) -> None:
        program = peers.find("docker")
        if program is None:
            raise Failure("docker.io is missing")
        self.name, self.work, self.socket, self.program = name, work, socket, str(program)
        self.env = work.environment(DOCKER_HOST=f"unix://{socket}", DOCKER_CONFIG=str(work.directory))
        work.run([self.program, "import", work.archive(), "api:latest"], self.env)

    def run(self) -> Subject:
        argv = [self.program, "run", "--rm", "--network", "none", "api", "/bin/true"]
        return Subject(f"{self.name}, by docker run --rm", argv, self.env)

    def listing(self) -> Subject:
        create = [self.program, "create", "--network", "none", "api", "/bin/true"]
        for _ in range(CONTAINERS):
            self.work.run(create, self.env)
        self.work.at_end([self.program, "container", "prune", "-f"], self.env)
        argv = [sys.executable, "-I", "-S", "-c", _ASKER, str(self.socket), str(REQUESTS)]
        return Subject(f"{self.name}, {REQUESTS} GET /containers/json of {CONTAINERS}", argv, self.env)

    def project(self) -> Subject:
        compose = peers.find("docker-compose")
        if compose is None:
            raise Failure("docker-compose is missing")
        file = self.work.directory / f"{self.name.split()[0]}.yaml"
        body = "    image: api\n    network_mode: none\n    command: sleep 1000\n    stop_signal: KILL\n"
        file.write_text("services:\n" + "".join(f"  {name}:\n{body}" for name in SERVICES))
        argv = [str(compose), "-p", "bench", "-f", str(file)]

        def down() -> None:
            subprocess.run([*argv, "down"], env=self.env, capture_output=True, check=True)

        self.work.at_end([*argv, "down"], self.env)
        return Subject(f"{self.name}, compose up of five services", [*argv, "up", "-d"], self.env, before=down)


def daemons(work: Workspace, platforms: Sequence[Platform]) -> list[Daemon]:
    """Return ours, and dockerd if it is there."""
    found = []
    named = {one.name: one for one in platforms}
    if "orlop" in named:
        found.append(Daemon("orlop", work, Path(named["orlop"].run.env["ORLOP_RUN"]) / "docker.sock"))
    if "docker" in named:
        found.append(Daemon("dockerd", work, Path(named["docker"].run.env["DOCKER_HOST"].removeprefix("unix://"))))
    return found
