"""Run one container through the runtime's library, in a process of its own.

clone3 wants a caller with one thread, which a test process is not. The child of `run` is that caller: it gets the spec
as JSON, starts the container with its own standard streams, waits, and reports.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orlop.spec import errors
from orlop.spec.runtime import Mount, Process, Spec

from .pace import SLOW

_CHECKOUT = Path(__file__).resolve().parents[2]
SOURCES = _CHECKOUT / "src"
# What a script in a process of its own puts first on its path: `sys.path[:0] = sys.argv[1].split(":")`.
IMPORTS = ":".join(str(_CHECKOUT / name) for name in ("src", "tests", "tools"))
TIMEOUT_S = 30.0 * SLOW
_CHUNK_BYTES = 65536


class Outcome:
    """How a container ended. code: its status, or 128 plus the signal; None when it was not started.

    error: what stopped the start. warnings: the plan's. facts: what the driver saw from outside.
    """

    def __init__(self, done: subprocess.CompletedProcess[bytes], report: dict[str, Any]) -> None:
        self.stdout = done.stdout.decode(errors="replace")
        self.stderr = done.stderr.decode(errors="replace")
        self.code: int | None = report.get("code")
        self.error = errors.from_json(report["error"]) if report.get("error") else None
        self.trace: str = report.get("trace", "")
        self.warnings: list[str] = report.get("warnings", [])
        self.facts: dict[str, Any] = report.get("facts", {})
        # Of each exec: its code, or the error that stopped it.
        self.execs = [errors.from_json(end) if isinstance(end, dict) else end for end in report.get("execs", ())]

    def __repr__(self) -> str:
        return (
            f"code {self.code}, error {self.error} {self.trace}\n"
            f"--- stdout\n{self.stdout}\n--- stderr\n{self.stderr}\n{self.warnings}"
        )


def output(outcome: Outcome) -> str:
    assert outcome.error is None and outcome.code == 0, repr(outcome)
    return outcome.stdout


def refusal(outcome: Outcome, kind: str) -> str:
    assert outcome.error is not None and outcome.error.kind == kind, repr(outcome)
    return str(outcome.error)


def run(
    spec: Spec,
    root: Path | Sequence[Mount],
    *,
    input: bytes = b"",
    execs: Sequence[Process] = (),
    pass_fds: Sequence[int] = (),
    python: Sequence[str] = (sys.executable,),
    killed: bool = False,
) -> Outcome:
    """Start a container on a directory or on snapshot mounts, wait for its end.

    execs: processes to run in it, one after the other, before the container is killed; their outputs come first.
    killed: somebody kills its init when all but the last step is done.
    """
    mounts = [Mount(type="bind", source=str(root))] if isinstance(root, Path) else list(root)
    request = {
        "spec": spec.to_json(),
        "mounts": [mount.to_json() for mount in mounts],
        "execs": [process.to_json() for process in execs],
        "killed": killed,
    }
    with tempfile.TemporaryDirectory(prefix="orlop-launch-") as scratch:
        asked, told = Path(scratch, "request"), Path(scratch, "report")
        asked.write_text(json.dumps(request))
        done = subprocess.run(
            [*python, "-c", _DRIVER, IMPORTS, str(asked), str(told)],
            input=input,
            capture_output=True,
            check=False,
            timeout=TIMEOUT_S,
            pass_fds=pass_fds,
        )
        assert told.exists(), f"the driver failed: {done.stderr.decode()}"
        return Outcome(done, json.loads(told.read_text()))


_DRIVER = """
import sys
sys.path[:0] = sys.argv[1].split(":")
from support import launcher
launcher.drive(*sys.argv[2:])
"""


def drive(asked: str, told: str) -> None:
    """The child's side of `run`."""
    from orlop.runtime import host, launch, plan, rootfs

    request = json.loads(Path(asked).read_text())
    spec = Spec.from_json(request["spec"])
    report: dict[str, Any] = {"facts": {}, "execs": []}
    created = None
    fd = -1
    try:
        compiled = plan.compile(spec, host.facts())
        report["warnings"] = compiled.warnings
        fd = rootfs.open_rootfs([Mount.from_json(mount) for mount in request["mounts"]])
        created = launch.create(compiled, fd, (0, 1, 2))
        os.close(fd)
        report["facts"] = {"pid": created.pid, "fds": sorted(os.listdir("/proc/self/fd"), key=int)}
        if request["killed"]:
            os.kill(created.pid, signal.SIGKILL)
            os.waitid(os.P_PID, created.pid, os.WEXITED | os.WNOWAIT)
        created.start()
        if request["execs"]:
            _exec_all(spec, created, [Process.from_json(process) for process in request["execs"]], report)
        if created.console is not None:
            copy_console(created.console)
        report["code"] = _wait(created.pid)
    except errors.OrlopError as failure:
        report["error"] = failure.to_json()
        report["trace"] = "\n".join(getattr(failure, "__notes__", ()))
    finally:
        if created and created.cgroup:
            created.cgroup.kill()
            created.cgroup.remove()
        _prune("/" + spec.linux.cgroups_path.strip("/").rpartition("/")[0])
        Path(told).write_text(json.dumps(report))


def _exec_all(spec: Spec, created: Any, processes: list[Process], report: dict[str, Any]) -> None:
    from orlop.runtime import enter, host

    facts = host.facts()
    try:
        for process in processes:
            try:
                plan = enter.compile_exec(process, spec, facts)
                entered = enter.create_exec(plan, created.pid, created.pidfd, (0, 1, 2))
                entered.start()
            except errors.OrlopError as failure:
                report["execs"].append(failure.to_json())
                continue
            os.close(entered.pidfd)
            if entered.console is not None:
                copy_console(entered.console)
                os.close(entered.console)
            report["execs"].append(_wait(entered.pid))
    finally:
        os.kill(created.pid, 9)


def _wait(pid: int) -> int:
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def copy_console(console: int, output: int = 1) -> None:
    """Copy what a terminal shows until nobody has it open."""
    while True:
        try:
            data = os.read(console, _CHUNK_BYTES)
        except OSError:  # EIO: the last process with the terminal open has gone
            return
        os.write(output, data)


def _prune(parent: str) -> None:
    from orlop.linux.cgroup import Cgroup, detect

    if parent != "/":
        Cgroup(detect(), parent).prune()
