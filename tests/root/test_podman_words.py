"""What podman's users type and docker does not have: choices of containers, variables, time zone, umask, clones."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from support.engine import COMMAND, Environment

SLEEP = ("host", "sleep", "1000")


def start(orlop: Environment, name: str, *flags: str) -> str:
    return orlop("run", "-d", "--network", "none", "--name", name, *flags, *SLEEP).stdout.strip()


def states(orlop: Environment) -> dict[str, str]:
    lines = orlop("ps", "-a", "--format", "{{.Names}} {{.State}}").stdout.splitlines()
    return dict(line.split() for line in lines)


def test_containers_are_chosen_by_all_filter_and_file(orlop: Environment, tmp_path: Path) -> None:
    file = tmp_path / "id"
    a = start(orlop, "a", "--cidfile", str(file))
    start(orlop, "b", "--label", "kind=x")
    orlop("create", "--network", "none", "--name", "made", "host", "true")
    assert sorted(orlop("pause", "--all").stdout.split()) == sorted(orlop("ps", "-q", "--no-trunc").stdout.split())
    assert states(orlop) == {"a": "paused", "b": "paused", "made": "created"}
    assert len(orlop("unpause", "-a").stdout.split()) == 2
    assert orlop("kill", "--cidfile", file).stdout == f"{a}\n"
    orlop("wait", "a")
    assert len(orlop("stop", "-t", "0", "--filter", "label=kind=x").stdout.split()) == 1
    assert states(orlop) == {"a": "exited", "b": "exited", "made": "created"}
    assert orlop("stop", "--all").stdout == ""
    assert orlop("stop", "nosuch", check=False).code == 1
    assert orlop("stop", "--ignore", "nosuch").code == orlop("rm", "--ignore", "nosuch").code == 0
    assert len(orlop("restart", "-a", "-t", "0").stdout.split()) == 3
    assert len(orlop("rm", "-f", "--all").stdout.split()) == 3
    assert orlop("rm", "-a").stdout == "" and states(orlop) == {}
    assert "requires at least 1 argument" in orlop("rm", check=False).stderr
    assert orlop("rm", "--cidfile", tmp_path / "nothing", check=False).code == 1


def test_exists_tells_by_its_status(orlop: Environment) -> None:
    start(orlop, "here")
    assert orlop("container", "exists", "here").stdout == ""
    orlop("volume", "create", "here")
    orlop("network", "create", "here")
    for kind, name in (("container", "here"), ("volume", "here"), ("network", "here"), ("image", "host")):
        assert orlop(kind, "exists", name).stdout == ""
        gone = orlop(kind, "exists", "gone", check=False)
        assert (gone.code, gone.stdout, gone.stderr) == (1, "", ""), kind


def test_replace_takes_the_name(orlop: Environment) -> None:
    first = start(orlop, "web", "--replace")
    second = start(orlop, "web", "--replace")
    assert first != second and states(orlop) == {"web": "running"}
    assert (
        orlop("run", "--rm", "--network", "none", "--name", "web", "--replace", "host", "echo", "hi").stdout == "hi\n"
    )
    assert states(orlop) == {}
    start(orlop, "web")
    orlop("create", "--network", "none", "--name", "web", "--replace", "host", "true")
    assert states(orlop) == {"web": "created"}


def test_variables_umask_and_time_zone(orlop: Environment, tmp_path: Path) -> None:
    def inside(script: str, *flags: str) -> list[str]:
        done = orlop("run", "--rm", "--network", "none", *flags, "host", "sh", "-c", script, env={"OF_HOST": "1 2"})
        return done.stdout.splitlines()

    assert inside("echo $OF_HOST; echo $PATH", "--env-host", "-e", "PATH=/bin:/usr/bin") == ["1 2", "/bin:/usr/bin"]
    assert inside("env | grep -c ^GONE=", "--unsetenv", "GONE", "-e", "GONE=1") == ["1"]
    assert inside("umask; touch /tmp/f; stat -c %a /tmp/f", "--umask", "077") == ["0077", "600"]
    assert inside("umask") == ["0022"]
    zone = Path("/usr/share/zoneinfo/Asia/Tokyo")
    if zone.exists():
        assert inside("date +%z", "--tz", "Asia/Tokyo") == ["+0900"]
    start(orlop, "c", "--umask", "0027", "--pidfile", str(tmp_path / "pid"))
    assert orlop("exec", "c", "sh", "-c", "umask").stdout == "0027\n"
    assert os.path.exists(f"/proc/{(tmp_path / 'pid').read_text()}")
    mounts = inside("cat /proc/self/mountinfo", "--read-only", "--read-only-tmpfs", "--tmpfs", "/tmp:size=1m")
    assert [line.split()[4] for line in mounts if line.split()[4] in ("/run", "/tmp", "/var/tmp")].sort() is None
    assert {line.split()[4] for line in mounts} >= {"/run", "/tmp", "/var/tmp"}


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--umask", "9"], "no umask"),
        (["--umask", "7777"], "no umask"),
        (["--tz", "Nowhere/Else"], "unknown time zone"),
        (["--tz", "../../etc/passwd"], "unknown time zone"),
        (["--unsetenv", "A=1"], "invalid variable"),
    ],
)
def test_what_is_refused(orlop: Environment, flags: list[str], words: str) -> None:
    done = orlop("run", *flags, "host", "true", check=False)
    assert done.code == 125 and words in done.stderr, done


def test_a_clone_has_the_configuration_of_another(orlop: Environment) -> None:
    start(orlop, "one", "-e", "A=1", "--label", "x=y", "--umask", "027")
    orlop("container", "clone", "one")
    orlop("container", "clone", "--run", "one", "two")
    orlop("container", "clone", "--destroy", "-f", "--name", "three", "one")
    assert states(orlop) == {"one-clone": "created", "two": "running", "three": "created"}
    form = "{{json .Config.Env}} {{json .Config.Labels}}"
    assert len({orlop("inspect", "-f", form, name).stdout.split('"HOSTNAME')[0] for name in states(orlop)}) == 1
    assert orlop("exec", "two", "sh", "-c", "echo $A; umask").stdout == "1\n0027\n"
    assert orlop("container", "clone", "nosuch", check=False).code == 125


def test_lists_without_titles_and_logs_with_names(orlop: Environment) -> None:
    orlop("volume", "create", "data")
    assert orlop("volume", "ls", "--noheading").stdout.split() == ["local", "data"]
    assert orlop("network", "ls", "--noheading", "--format", "table {{.Name}}").stdout.split()[0] == "bridge"
    orlop("run", "--network", "none", "--name", "told", "host", "sh", "-c", "printf 'a\\nb'; echo c >&2; printf d")
    assert "NAMES" not in orlop("ps", "-a", "--noheading").stdout and "told" in orlop("ps", "-a", "--noheading").stdout
    shown = orlop("logs", "--names", "told")
    assert (shown.stdout, shown.stderr) == ("told a\ntold bd", "told c\n")
    assert "\x1b[" in orlop("logs", "--names", "--color", "told").stdout


def test_waiting_for_a_state(orlop: Environment) -> None:
    start(orlop, "here")
    assert orlop("wait", "--condition", "running", "here").stdout == "-1\n"
    assert orlop("wait", "--condition", "running", "--ignore", "nosuch").stdout == "-1\n"
    assert orlop("wait", "--condition", "running", "nosuch", check=False).code == 1
    assert "no such state" in orlop("wait", "--condition", "removing", "here", check=False).stderr
    orlop("kill", "here")
    assert orlop("wait", "--condition", "exited", "--interval", "10ms", "here").stdout == "137\n"


def test_a_health_check_and_an_entrypoint_as_json(orlop: Environment) -> None:
    flags = ("--health-cmd", '["test", "-d", "/"]', "--health-interval", "1s")
    orlop("run", "-d", "--network", "none", "--name", "sound", *flags, "--entrypoint", '["sleep", "100"]', "host")
    assert orlop("wait", "--condition", "healthy", "sound").stdout == "-1\n"
    assert orlop("inspect", "-f", "{{json .Config.Healthcheck.Test}} {{.Path}} {{.Args}}", "sound").stdout == (
        '["CMD","test","-d","/"] sleep [100]\n'
    )


def test_a_pod_is_the_containers_that_name_it(orlop: Environment, tmp_path: Path) -> None:
    (tmp_path / "podman").symlink_to(COMMAND)

    def podman(*words: str) -> tuple[int, str, str]:
        argv, env = [str(tmp_path / "podman"), *words], orlop.variables
        done = orlop.inside(lambda: subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60))
        return done.returncode, done.stdout, done.stderr

    assert podman("pod", "create", "--name=p", "--infra=false", "--share=") == (0, "p\n", "")
    assert podman("pod", "exists", "p") == (1, "", "")
    for name in "ab":
        start(orlop, name, "--pod", "p")
    start(orlop, "other")
    assert podman("pod", "exists", "p") == (0, "", "")
    assert len(podman("pod", "stop", "p", "-t0")[1].split()) == 2
    assert states(orlop) == {"a": "exited", "b": "exited", "other": "running"}
    assert len(podman("pod", "rm", "-f", "p")[1].split()) == 2 and states(orlop) == {"other": "running"}
    assert podman("pod", "exists", "p")[0] == 1 and podman("pod", "rm", "p")[0] == 0
    code, _, told = podman("pod", "create", "--name", "p")
    assert code == 1 and "share namespaces" in told and "Next: give --infra=false" in told
    assert "known are create, exists" in podman("pod", "ps")[2]
    assert "invalid pod name" in orlop("create", "--pod=a/b", *SLEEP, check=False).stderr
    words = orlop("run", "--rm", "--network=none", "host", "echo", "--pod", "x").stdout
    assert words == "--pod x\n", "a command's own words are its own"
