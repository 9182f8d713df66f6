"""Other people's clients of registries, beside an engine: each with data of its own, in the engine's network."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import platforms
from bench.workspace import Workspace

from . import processes
from .engine import Environment

END_S_MAX = 30
Peer = Callable[[str], Path]


def client(peer: Peer, place: Path, orlop: Environment) -> Callable[..., str]:
    """Return what runs skopeo, podman, umoci... with a policy and data of its own and returns what it printed."""
    policy = place / ".config/containers/policy.json"  # where podman looks
    policy.parent.mkdir(parents=True, exist_ok=True)
    policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    own = {
        "skopeo": ["--policy", str(policy)],
        "podman": [f"--root={place}/podman", f"--runroot={orlop.run}/podman", "--storage-driver=vfs"],
    }

    def run(program: str, *args: str | Path) -> str:
        words = [peer(program), *own.get(program, []), *args]
        environment = os.environ | {"HOME": str(place)}
        if program == "podman":
            environment["CONTAINERS_CONF"] = str(platforms.podman_configuration(place))
        done = orlop.inside(lambda: subprocess.run(words, capture_output=True, text=True, env=environment))
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@contextmanager
def docker(peer: Peer, orlop: Environment) -> Iterator[Callable[..., str]]:
    """Yield what runs docker's client on a daemon of its own and returns its output, stripped. Raises Failure."""
    peer("dockerd")
    with Workspace() as work:
        made = orlop.inside(lambda: platforms.docker(work))

        def run(*args: str) -> str:
            words = [made.run.argv[0], *args]
            done = orlop.inside(lambda: subprocess.run(words, env=made.run.env, capture_output=True, text=True))
            assert done.returncode == 0, done.stderr
            return done.stdout.strip()

        yield run
    # containerd and its shims end after dockerd has, on their own
    deadline = time.monotonic() + END_S_MAX
    while any(str(work.directory) in processes.title(pid) for pid in processes.pids()):
        assert time.monotonic() < deadline, "something of dockerd's does not end"
        time.sleep(0.05)
