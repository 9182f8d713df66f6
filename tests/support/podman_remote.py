"""podman's client against an engine of ours: unchanged, with a configuration of the test's own."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import platforms

from .engine import Environment
from .pace import SLOW

TIMEOUT_S = 120.0 * SLOW
BOX = "docker.io/library/box:1"
Result = tuple[int, str, str]


class Podman:
    """The real client. Its state is a directory of the test's: it keeps none of its own when it is remote.

    program: podman, or podman-remote, which is remote whatever is said.
    """

    def __init__(self, program: Path, environment: Environment, home: Path) -> None:
        remote = [] if program.name == "podman-remote" else ["--remote"]
        self.argv = [str(program), *remote, "--url", f"unix://{environment.run}/docker.sock"]
        config = platforms.podman_configuration(home)
        self.env = os.environ | {"HOME": str(home), "CONTAINERS_CONF": str(config), "TMPDIR": str(home), "TZ": "UTC"}
        self._environment = environment

    def __call__(self, line: str, data: str = "") -> Result:
        """Return (status, output, errors) of a command line, with data as its input."""
        argv = [*self.argv, *shlex.split(line)]
        done = self._environment.inside(
            lambda: subprocess.run(
                argv, env=self.env, input=data, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
            )
        )
        return done.returncode, done.stdout, done.stderr

    def must(self, line: str, data: str = "") -> str:
        """Return the output of a command line that succeeds."""
        code, out, err = self(line, data)
        assert code == 0, f"{line}: {code} {out}{err}"
        return out.strip()


@contextmanager
def client(program: Path, environment: Environment, home: Path) -> Iterator[Podman]:
    """A client of an engine that has the image box:1; what else it has made is removed again."""
    podman = Podman(program, environment, home)
    yield podman
    podman.must("rm -f -a -t 0 -v")
    for image in json.loads(podman.must("images --format json")):
        if BOX not in image.get("Names", ()):
            podman.must(f"rmi -f {image['Id']}")
