"""What the command line imports before it answers: start-up is a feature, so the whole list is pinned.

Something new here costs every `orlop ps`. Add it only with a measurement (`python -X importtime`), or import it where
it is needed.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys

from orlop.spec import attach
from support.engine import CHECKOUT
from support.fake_engine import FakeEngine

SHOW = """
import sys
before = set(sys.modules)
sys.path.append({src!r})
from orlop.frontends.cli.main import main
status = main({words!r})
sys.stderr.write(" ".join(sorted(set(sys.modules) - before)))
sys.exit(status)
"""

# Which of the standard library's are built into the interpreter differs: these may come, others may not.
STANDARD = set("__future__ _collections_abc _stat abc genericpath io ntpath os os.path posixpath stat".split())
VERSION = set(
    """
    orlop orlop.frozen orlop.frontends orlop.frontends.cli orlop.frontends.cli.command
    orlop.frontends.cli.commands orlop.frontends.cli.flags orlop.frontends.cli.main orlop.spec orlop.spec.errors
    """.split()
)
CLIENT = VERSION | set(
    """
    orlop.frontends.cli.containers orlop.frontends.cli.values orlop.frontends.native orlop.frontends.native.client
    orlop.frontends.native.rundir orlop.frontends.native.wire orlop.spec.jsonio orlop.spec.paths
    """.split()
)
CLIENT_STANDARD = STANDARD | {"_json", "_socket", "fcntl", "time"}
PS = CLIENT | {f"orlop.frontends.cli.{name}" for name in ("listing", "table", "units", "containers.ps")}
RUN = CLIENT | set(
    """
    orlop.frontends.cli.containers.environment orlop.frontends.cli.foreground orlop.frontends.cli.health
    orlop.frontends.cli.limits
    orlop.frontends.cli.containers.podman orlop.frontends.cli.networking orlop.frontends.cli.request
    orlop.frontends.cli.session
    orlop.frontends.cli.containers.run orlop.linux orlop.linux.tty orlop.spec.attach orlop.spec.container
    orlop.spec.health orlop.spec.mount orlop.spec.network orlop.spec.record
    """.split()
)
EXEC = CLIENT | set(
    """
    orlop.assembled orlop.frontends.cli.containers.environment orlop.frontends.cli.containers.exec
    orlop.frontends.cli.foreground orlop.frontends.cli.session orlop.frontends.native.asker orlop.linux
    orlop.linux.tty orlop.spec.attach
    """.split()
)
RUN_STANDARD = CLIENT_STANDARD | {"_struct", "errno", "select", "struct", "termios", "types"}


def loaded(words: list[str], variables: dict[str, str]) -> set[str]:
    """Return the modules that a command line loads into a bare interpreter."""
    code = SHOW.format(src=str(CHECKOUT / "src"), words=words)
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], env=variables, capture_output=True, text=True, check=False
    )
    return set(done.stderr.splitlines()[-1].split())


def check(found: set[str], ours: set[str], standard: set[str]) -> None:
    own = {name for name in found if name.partition(".")[0] == "orlop"}
    assert own == ours
    assert found - own <= standard


def test_version_loads_what_is_pinned():
    check(loaded(["--version"], dict(os.environ)), VERSION, STANDARD)


def test_ps_loads_what_is_pinned():
    with FakeEngine({"containers.list": []}) as engine:
        check(loaded(["ps"], engine.variables), PS, CLIENT_STANDARD)


def test_run_loads_what_is_pinned():
    def start(_: object, fds: list[int]) -> object:
        os.close(fds[0])
        return {"id": "f" * 64, "warnings": []}

    with FakeEngine({"containers.run": start, "containers.wait": {"exit_code": 0}}) as engine:
        check(loaded(["run", "x"], engine.variables), RUN, RUN_STANDARD)


def test_exec_loads_what_is_pinned():
    def start(_: object, fds: list[int]) -> object:
        with socket.socket(fileno=fds[0]) as client:
            client.sendall(attach.frame(attach.EXIT, b'{"exitCode":0}'))
        return {"exec_id": "f" * 64, "pid": 7}

    with FakeEngine({"containers.exec": start}) as engine:
        check(loaded(["exec", "x", "true"], engine.variables), EXEC, RUN_STANDARD)
