"""`show-run --as`: what it writes is given to those it is written for: podman's `kube play` and quadlet generator."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

from bench import platforms
from bench.workspace import Workspace
from support.docker_http import box_engine

INFRA = "localhost/pause:1"
ASKED = (
    "--hostname h -e 'A=b c%d $x' -e B= -l p=q --annotation x=y -m 64m --memory-reservation 32m --cpus 1.5 -v data:/d"
    " --tmpfs /t:size=1m --network host --cap-add NET_ADMIN --cap-drop CHOWN --read-only --restart on-failure"
    " --security-opt no-new-privileges --group-add 5 --user 1:1 -w /tmp --add-host foo:1.2.3.4 box:1 /bin/sh -c"
)
SCRIPT = 'PATH=/bin; echo "$A" $0 100%; busybox id -G; busybox pwd; busybox touch /x || echo kept; busybox hostname'
HOST = ("Memory", "MemoryReservation", "CapAdd", "CapDrop", "ReadonlyRootfs", "SecurityOpt", "GroupAdd", "NetworkMode")


def test_podman_plays_what_is_written(peer: Callable[[str], Path]) -> None:
    """Red: with the words of the command joined; without `%%`... its containers say other things, or none is made."""
    peer("podman"), peer("conmon"), peer("runc")
    with Workspace() as work, box_engine() as environment:
        command, env = platforms.podman_command(work)
        config = Path(env["CONTAINERS_CONF"])
        config.write_text(config.read_text().replace("[engine]\n", f'[engine]\ninfra_image = "{INFRA}"\n', 1))

        def podman(*words: str) -> str:
            done = environment.inside(
                lambda: subprocess.run([*command, *words], env=env, capture_output=True, text=True, timeout=120)
            )
            assert done.returncode == 0, (words, done.stdout, done.stderr)
            return done.stdout

        podman("import", str(work.archive()), "localhost/box:1")
        podman("import", "-c", 'CMD ["/bin/sleep", "1000"]', str(work.archive()), INFRA)
        environment("run", "--name", "web", *shlex.split(ASKED), SCRIPT, 'it is "here"')
        ours = json.loads(environment("inspect", "web").stdout)[0]
        written = environment("show-run", "--as", "kube", "web")
        assert written.stderr == ""
        (work.directory / "web.yaml").write_text(written.stdout)
        podman("kube", "play", str(work.directory / "web.yaml"))
        try:
            podman("wait", "web-web")
            assert podman("logs", "web-web") == environment("logs", "web").stdout
            theirs = json.loads(podman("inspect", "web-web"))[0]
        finally:
            pod = podman("pod", "ps", "-q", "--no-trunc").strip()
            podman("kube", "down", str(work.directory / "web.yaml"))
            _remove_cgroups(pod)
            podman("volume", "rm", "-a", "-f")
            podman("rmi", "-a", "-f")
        for field in HOST:
            assert _plain(theirs["HostConfig"][field]) == _plain(ours["HostConfig"][field]), field
        assert theirs["HostConfig"]["CpuQuota"] / theirs["HostConfig"]["CpuPeriod"] == 1.5
        for field in ("User", "WorkingDir", "Hostname"):
            assert theirs["Config"][field] == ours["Config"][field], field
        assert theirs["Config"]["Labels"]["p"] == "q" and theirs["Config"]["Annotations"]["x"] == "y"
        assert {one["Destination"] for one in theirs["Mounts"]} == {"/d", "/t"}


def _remove_cgroups(pod: str) -> None:
    """Remove a pod's cgroups in the hierarchies that podman does not know, and their parent with the last one."""
    for parent in Path("/sys/fs/cgroup").glob("*/libpod_parent"):
        for directory in (parent / pod, parent):
            with contextlib.suppress(OSError):
                directory.rmdir()


def _plain(value: object) -> object:
    return sorted(str(one).removeprefix("CAP_") for one in value) if isinstance(value, list) else value


QUADLET = (
    "--name unit --hostname h -e 'A=b c%d $x' -e 'C=${D}' -l 'k=v w' -m 64m --cpus 1.5 --pids-limit 50 -v data:/d"
    " -v '/srv/$x:/s:ro' --tmpfs /t:size=1m -p 8080:80 --dns 1.1.1.1 --cap-add NET_ADMIN --read-only --init"
    " --restart always --ulimit nofile=100:200 --security-opt no-new-privileges --health-cmd 'test ${HOME}'"
    " --umask 0077 --stop-timeout 7 --user 1:1 -w '/w d' --timeout 50 --entrypoint /bin/sh box:1 -c"
)


def test_podmans_generator_reads_what_is_written(peer: Callable[[str], Path], tmp_path: Path) -> None:
    """Red: without `_literal`, systemd would put a variable of its own where `--health-cmd` has one."""
    quadlet = peer("quadlet")
    with box_engine() as environment:
        environment("create", *shlex.split(QUADLET), 'echo ${HOME} "100%"', "it is")
        written = environment("show-run", "--as", "quadlet", "unit")
        made = shlex.split(environment("show-run", "unit").stdout)[2:]
    assert written.stderr == ""
    (tmp_path / "unit.container").write_text(written.stdout)
    env = os.environ | {"QUADLET_UNIT_DIRS": str(tmp_path)}
    done = subprocess.run([quadlet, "-dryrun"], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    start = next(line for line in done.stdout.splitlines() if line.startswith("ExecStart="))
    assert "unsupported" not in done.stderr and "${" not in start.replace("$${", "")
    words = [word.replace("$$", "$").replace("%%", "%") for word in shlex.split(start.partition("=")[2])]
    told = set(_joined(words[2:]))
    for word in _joined(made):
        flag, _, value = word.partition("=")
        if flag not in ("--name", "--restart"):
            assert word in told or f"{flag}={value.lower()}" in told, (word, start)


def _joined(words: list[str]) -> list[str]:
    """Return flags and their values as one word each."""
    out: list[str] = []
    for word in words:
        short = {"-v": "--volume", "-d": "--detach"}.get(word, word)
        if out and out[-1].startswith("--") and "=" not in out[-1] and not word.startswith("-"):
            out[-1] += f"={word}"
        else:
            out.append(short)
    return out
