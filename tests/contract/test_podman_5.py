"""A day of podman 5, Debian 13's podman-remote unchanged, with one engine of ours and a registry of ours."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support import registry_server
from support.docker_http import Api, box_engine, tar_of
from support.engine import COMMAND, Environment
from support.podman_remote import BOX, TIMEOUT_S, Podman, client
from support.terminal import Terminal


@pytest.fixture(scope="module")
def environment() -> Iterator[Environment]:
    with box_engine() as environment:
        yield environment


@pytest.fixture
def podman(environment: Environment, peer: Callable[[str], Path], tmp_path: Path) -> Iterator[Podman]:
    with client(peer("podman-remote"), environment, tmp_path) as podman:
        yield podman


def test_containers(podman: Podman, environment: Environment, tmp_path: Path) -> None:
    """Red: without the rows of podman 5 (healthLogDestination) in creation.py; one form of an entrypoint for all."""
    assert podman("run --rm box:1 echo hi") == (0, "hi\n", "")
    assert podman("run --rm -i box:1 cat", "one\n") == (0, "one\n", "")
    assert podman("run --rm box:1 /nope")[0] == 127
    script = "echo one; while ! busybox test -e /tmp/end; do busybox usleep 20000; done; exit 5"
    podman.must(f"run -d --name web --entrypoint sh --stop-signal INT box:1 -c '{script}'")
    assert podman.must("ps --format '{{.Names}} {{.Image}} {{.Networks}}'") == f"web {BOX} podman"
    config = json.loads(podman.must("inspect web"))[0]["Config"]
    assert (config["Entrypoint"], config["StopSignal"]) == (["sh"], "SIGINT")
    for version, form in (("v5.4.2", (["sh"], "SIGINT")), ("v4.3.1", ("sh", 2))):
        told = Api(environment.run / "docker.sock", f"{version}/libpod")("GET", "/containers/web/json").json["Config"]
        assert (told["Entrypoint"], told["StopSignal"]) == form
    assert podman.must("exec -i web cat", "typed") == "typed"
    assert podman("exec web sh -c 'exit 3'")[0] == 3
    with Terminal([*podman.argv, "exec", "-it", "web", "sh"], podman.env, rows=21, columns=77) as screen:
        screen.send("busybox stty size; exit 6\r")
        screen.expect("21 77")
        assert screen.wait(TIMEOUT_S) == 6
    (tmp_path / "in").write_text("content")
    podman.must(f"cp {tmp_path}/in web:/tmp/in")
    podman.must(f"cp web:/tmp/in {tmp_path}/out")
    assert (tmp_path / "out").read_text() == "content"
    assert "A /tmp/in" in podman.must("diff web")
    made = podman.must("commit -q web made:1")
    assert podman.must("run --rm --entrypoint cat made:1 /tmp/in") == "content"
    assert podman.must("image inspect -f '{{.Id}}' made:1") == made
    assert podman.must("image diff made:1 box:1").splitlines()[-1] == "A /tmp/in"
    assert podman.must("stats --no-stream --format '{{.Name}}' web") == "web"
    assert "sh -c" in podman.must("top web")
    podman.must("update --restart on-failure:3 -m 64m web")
    host = json.loads(podman.must("inspect web"))[0]["HostConfig"]
    assert host["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 3} and host["Memory"] == 64 << 20
    podman.must("update --restart no web")
    podman.must("pause web")
    assert podman.must("wait --condition paused web") == "-1"
    podman.must("unpause web")
    podman.must("exec web busybox touch /tmp/end")
    assert podman("logs -f web") == (0, "one\n", "")
    assert podman.must("wait --condition exited web") == "5"
    podman.must("rm web")


def test_what_a_run_may_say(podman: Podman) -> None:
    """Red: without read_write_tmpfs, /tmp is read only; without _id_map; without _remove_image, made:1 stays."""
    assert podman.must("run --rm --read-only box:1 sh -c 'echo x >/tmp/x && cat /tmp/x'") == "x"
    assert podman("run --rm --read-only --read-only-tmpfs=false box:1 sh -c ': >/tmp/x'")[0] != 0
    said = podman.must("run --rm --uidmap 0:100000:500 --uidmap 500:200000:500 box:1 cat /proc/self/uid_map")
    assert said.split() == ["0", "100000", "500", "500", "200000", "500"]
    assert podman.must("run --rm --userns keep-id --tz UTC --umask 0077 box:1 sh -c umask") == "0077"
    podman.must("run -d --replace --name one box:1 sleep 1000")
    podman.must("run -d --replace --name one --health-cmd true --health-on-failure kill box:1 sleep 1000")
    assert podman.must("healthcheck run one") == ""
    podman.must("tag box:1 made:1")
    podman.must("run --rmi made:1 true")
    deadline = time.monotonic() + TIMEOUT_S
    while podman("image exists made:1")[0] == 0:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    podman.must("image exists box:1")
    assert podman.must("ps -a --format '{{.Names}}'") == "one"


def test_a_runs_time_is_bounded(podman: Podman, environment: Environment) -> None:
    """Red: without the deadline of Monitor._pause_s it sleeps on; without ended_by, `why` tells of a signal."""
    assert podman("run --name late --timeout 1 box:1 sleep 1000")[0] == 255  # podman's own too
    assert podman.must("inspect -f '{{.Config.Timeout}}' late") == "1"
    assert "its time was up: --timeout 1" in environment("why", "late").stdout
    assert "--timeout=1" in environment("show-run", "late").stdout
    assert environment("run", "--rm", "--timeout", "1", "box:1", "sleep", "1000", check=False).code == 255
    assert podman("run --rm --timeout 1000 box:1 sh -c 'exit 4'")[0] == 4


def test_a_secret_is_a_variable_where_somebody_asks_for_it(podman: Podman, environment: Environment) -> None:
    """Red: without prepare._granted, of starts and of execs; with the secret in the bundle's environment."""
    podman.must("secret create word -", "s3cret line")
    line = "--secret word,type=env,target=WORD -e WORD=weaker"
    assert podman.must(f"run --rm {line} box:1 sh -c 'echo $WORD'") == "s3cret line"
    podman.must(f"run -d --name web --restart always {line} --health-cmd 'test \"$WORD\"' box:1 sleep 1000")
    assert podman.must("exec web sh -c 'echo $WORD'") == "s3cret line"
    assert podman("healthcheck run web")[0] == 0
    assert podman.must("exec web sh -c 'busybox ls /run/secrets 2>&1 || :'").count("word") == 0
    told = podman.must("inspect web") + environment("inspect", "web").stdout + environment("show-run", "web").stdout
    kept = [path for path in environment.root.rglob("*") if path.is_file()]
    assert len(kept) > 5 and not any(b"s3cret line" in path.read_bytes() for path in kept)
    assert "s3cret" not in told and "--secret=word,type=env,target=WORD" in told
    podman.must("restart -t 0 web")  # its monitor's own restart reads it again, too
    os.kill(int(podman.must("inspect -f '{{.State.Pid}}' web")), signal.SIGKILL)
    deadline = time.monotonic() + TIMEOUT_S
    while podman("exec web sh -c 'echo $WORD'")[1] != "s3cret line\n":
        assert time.monotonic() < deadline
    podman.must("rm -f -t 0 web")
    podman.must("secret create --replace word -", "a\0b")
    code, _, err = podman(f"run --rm {line} box:1 true")
    assert code != 0 and "it has a NUL" in err and "a\0b" not in err
    podman.must("secret rm word")


def test_builds(podman: Podman, environment: Environment, tmp_path: Path) -> None:
    """Red: with docker's last lines, which the client can't read; with a text that begins as an id does."""
    (tmp_path / "c").mkdir()
    (tmp_path / "c/file").write_text("content")
    (tmp_path / "c/left").write_text("out")
    (tmp_path / "c/.containerignore").write_text("left\n")
    lines = "FROM box:1\nARG X=1\nCOPY . /in\nRUN echo 0123456789abcdef $X >/built; cat /built\nCMD cat /built\n"
    (tmp_path / "c/Containerfile").write_text(lines)
    said = podman.must(f"build -t app:1 --build-arg X=7 --label a=b {tmp_path}/c").splitlines()
    assert " 0123456789abcdef 7" in said
    assert podman.must("image inspect -f '{{.Id}} {{.Labels.a}}' app:1") == f"{said[-1]} b"
    assert podman.must("run --rm app:1 cat /built /in/file") == "0123456789abcdef 7\ncontent"
    assert podman("run --rm app:1 cat /in/left")[0] == 1
    podman.must("untag app:1")  # its last name: the image stays
    assert podman.must(f"run --rm {said[-1]} cat /in/file") == "content"
    podman.must(f"tag {said[-1]} app:1")
    assert podman.must(f"build -q -t app:2 -f - {tmp_path}/c", "FROM box:1\nCOPY file /f\n").isalnum()
    podman.must(f"build -q -t flat --squash {tmp_path}/c")
    counts = [json.loads(podman.must(f"image inspect {name}"))[0]["RootFS"]["Layers"] for name in ("app:1", "flat")]
    assert list(map(len, counts)) == [3, 2]
    code, _, err = podman(f"build -f - {tmp_path}/c", "FROM box:1\nRUN exit 3\n")
    assert code != 0 and "non-zero code: 3" in err
    code, _, err = podman(f"build -f - {tmp_path}/c", "FROM box:1\nFOO\n")
    assert code != 0 and "unknown instruction: FOO" in err
    assert environment("ps", "-aq").stdout == ""


def test_registries_and_manifest_lists(podman: Podman, environment: Environment, tmp_path: Path) -> None:
    """Red: with push's destination unread; with `listtags` unread."""
    (tmp_path / "c").mkdir()
    podman.must(f"build -q -t app:1 -f - {tmp_path}/c", "FROM box:1\nENV a=b\n")
    root = str(tmp_path / "registry")
    environment("registry", "user", "--root", root, "add", "--password-stdin", "anna", input="pw")
    with registry_server.beside(environment, tmp_path / "registry", "--anonymous-pull") as host:
        account = "--tls-verify=false --creds anna:pw"
        assert podman(f"push --tls-verify=false --creds anna:no box:1 {host}/a/box:1")[0] == 125
        podman.must(f"push {account} box:1 {host}/a/box:1")
        assert podman.must(f"search --list-tags --format '{{{{.Tag}}}}' --tls-verify=false {host}/a/box") == "1"
        assert podman.must(f"run --rm --tls-verify=false --pull always {host}/a/box:1 echo x").endswith("x")
        podman.must("manifest create list box:1")
        assert podman("manifest create list")[0] == 125
        podman.must("manifest add --arch arm64 --os linux list app:1")
        listed = json.loads(podman.must("manifest inspect list"))["manifests"]
        assert [one["platform"]["architecture"] for one in listed][1] == "arm64"
        podman.must(f"manifest annotate --variant v8 list {listed[1]['digest']}")
        podman.must(f"manifest push {account} --all list docker://{host}/b/registry/list:2")
        there = json.loads(podman.must(f"manifest inspect --tls-verify=false {host}/b/registry/list:2"))["manifests"]
        assert there[1]["platform"] == {"architecture": "arm64", "os": "linux", "variant": "v8"}
        podman.must(f"manifest remove list {listed[1]['digest']}")
        assert len(json.loads(podman.must("manifest inspect list"))["manifests"]) == 1
        assert podman("manifest exists list")[0] == 0
        podman.must("manifest rm list")
        assert podman("manifest exists list")[0] == 1


def test_volumes_networks_and_secrets(podman: Podman, environment: Environment) -> None:
    """Red: without `extract`, an import of a volume that is there is a conflict; without updates, --replace is."""
    podman.must("volume create -l a=b v1")
    api = Api(environment.run / "docker.sock", "v5.4.2/libpod")  # a client of 5.4 refuses to do it from afar
    assert api("POST", "/volumes/v1/import", tar_of("one", b"first")).status == 204
    assert api("POST", "/volumes/v1/import", tar_of("two", b"second")).status == 204
    assert podman.must("run --rm -v v1:/data box:1 cat /data/one /data/two") == "firstsecond"
    archive = api("GET", "/volumes/v1/export")
    assert archive.status == 200 and b"second" in archive.body
    for name in ("../out", "/etc/orlop-out"):
        answer = api("POST", "/volumes/v1/import", tar_of(name, b"hostile"))
        assert answer.status == 400 or not Path("/etc/orlop-out").exists(), answer
    podman.must("network create --subnet 10.97.1.0/24 n1")
    podman.must("run -d --name c1 --network n1:ip=10.97.1.7 -p 18125:80 box:1 sleep 1000")
    assert podman.must("inspect -f '{{.NetworkSettings.Networks.n1.IPAddress}}' c1") == "10.97.1.7"
    assert podman.must("port c1") == "80/tcp -> 0.0.0.0:18125"
    said = podman.must("events --stream=false --since 1m --filter type=network --format json").splitlines()
    assert any(json.loads(line).get("network") == "n1" for line in said)
    podman.must("rm -f -t 0 c1")
    podman.must("network rm n1")
    podman.must("secret create k -", "old")
    podman.must("secret create --replace k -", "new")
    assert podman("run --rm --secret k box:1 cat /run/secrets/k") == (0, "new", "")
    assert "SecretData" not in podman.must("secret inspect k")
    assert json.loads(podman.must("secret inspect --showsecret k"))[0]["SecretData"] == "new"
    podman.must("secret rm k")
    assert int(json.loads(podman.must("system df --format json"))[0]["RawSize"]) > 0
    podman.must("system check")
    podman.must("system prune -f --volumes")
    assert podman.must("volume ls -q") == ""


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("run --rm --systemd=always box:1 true", "--tmpfs /run"),
        ("run --rm --unsetenv-all box:1 true", "--unsetenv"),
        ("update --health-cmd true x", "health_cmd"),
        ("build --secret id=k,src=/etc/hostname /nowhere", "docker buildx build"),
        ("build -v /tmp:/x /nowhere", "RUN --mount"),
        ("build --pull=never /nowhere", "never"),
        ("build --squash-all /nowhere", "--squash"),
        ("container checkpoint x", "orlop-runtime checkpoint"),
        ("image scp box:1 root@nowhere::", "through ssh"),
        ("network update --dns-add 1.1.1.1 podman", "run --dns"),
        ("generate systemd x", "show-run --as quadlet"),
        ("kube generate x", "show-run --as quadlet"),
        ("pod create p", "--network container:NAME"),
    ],
)
def test_what_is_not_there_says_why(podman: Podman, tmp_path: Path, line: str, why: str) -> None:
    """Red: without the row's reason in creation._WHY, build._WHY or absent."""
    if line.endswith(" x"):
        podman.must("create --name x box:1 true")
    (tmp_path / "c").mkdir()
    (tmp_path / "c/Containerfile").write_text("FROM box:1\n")
    code, out, err = podman(line.replace("/nowhere", str(tmp_path / "c")))
    assert code == 125 and why in err, (code, out, err)


def test_the_name_podman_is_ours(environment: Environment, tmp_path: Path) -> None:
    """Red: without the rows of cli.podman.verbs; without `keep` of names.remove, untag loses the image."""
    (tmp_path / "podman").symlink_to(COMMAND)
    (tmp_path / "c").mkdir()
    label = '"/usr/bin/podman run --rm --name NAME IMAGE echo'
    (tmp_path / "c/Dockerfile").write_text(f'FROM box:1\nLABEL run={label} ran" bad="rm -rf /"\n')

    def ours(line: str, data: bytes = b"") -> tuple[int, str]:
        argv = [tmp_path / "podman", *line.split()]
        done = environment.inside(
            lambda: subprocess.run(argv, env=environment.variables, input=data, capture_output=True, check=False)
        )
        return done.returncode, (done.stdout + done.stderr).decode()

    assert ours(f"build -q -t lab:1 {tmp_path}/c")[0] == 0
    assert ours("container runlabel --display run lab:1") == (0, "podman run --rm --name lab lab:1 echo ran\n")
    assert ours("container runlabel run lab:1 twice") == (0, "ran twice\n")
    code, said = ours("container runlabel bad lab:1")
    assert code != 0 and "nobody to ask" in said
    identifier = ours("images -q lab:1")[1].strip()
    assert ours("untag lab:1") == (0, "")
    assert ours(f"run --rm {identifier} echo x") == (0, "x\n")
    assert ours("manifest create l box:1")[0] == 0
    assert ours(f"manifest add --arch arm64 l {identifier}")[0] == 0
    listed = json.loads(ours("manifest inspect l")[1])["manifests"]
    assert listed[1]["platform"]["architecture"] == "arm64"
    assert ours(f"manifest remove l {listed[1]['digest']}")[0] == 0
    assert ours("manifest exists l") == (0, "") and ours("manifest exists n")[0] == 1
    assert ours("manifest rm l")[0] == 0
    assert ours("volume create v7")[0] == 0
    assert ours("volume import v7 -", tar_of("one", b"first"))[0] == 0
    assert ours("run --rm -v v7:/v box:1 cat /v/one") == (0, "first")
    assert ours("volume rm v7")[0] == 0
    assert ours("run -d --name h --health-cmd true box:1 sleep 1000")[0] == 0
    assert ours("healthcheck run h") == (0, "")
    assert ours("secret exists nope")[0] == 1
    place = Path(ours("mount h")[1].strip())
    assert (place / "bin/sleep").exists() and ours("mount")[1].endswith(f" {place}\n")
    assert ours("umount -a")[0] == 0 and ours("mount") == (0, "") and ours("unmount h")[0] == 125
    code, said = ours("container checkpoint h")
    assert code == 125 and "orlop-runtime" in said
    assert ours("--log-level debug --remote rm -f -t 0 h")[0] == 0
    assert ours(f"rmi -f {identifier}")[0] == 0
