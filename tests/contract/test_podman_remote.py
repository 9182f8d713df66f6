"""podman --remote, unchanged, on our socket: Debian 12's podman 4.3.1 speaks libpod's API to the engine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support import processes, registry_server
from support.docker_http import Api, box_engine
from support.engine import CHECKOUT, Environment
from support.podman_remote import TIMEOUT_S, Podman, client
from support.terminal import Terminal


@pytest.fixture(scope="module")
def environment() -> Iterator[Environment]:
    with box_engine() as environment:
        yield environment


@pytest.fixture
def podman(environment: Environment, peer: Callable[[str], Path], tmp_path: Path) -> Iterator[Podman]:
    with client(peer("podman"), environment, tmp_path) as podman:
        yield podman


def test_an_end_is_told_of_a_container_that_is_gone(podman: Podman, environment: Environment) -> None:
    """`run --rm` waits once the container is started: it may have ended, and be gone. Red: without `_told_end`, 404."""
    api = Api(environment.run / "docker.sock", "v4.3.1/libpod")
    identifier = podman.must("run -d --rm box:1 sh -c 'exit 5'")
    deadline = time.monotonic() + TIMEOUT_S
    while api("GET", f"/containers/{identifier}/exists").status != 404:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    answer = api("POST", f"/containers/{identifier}/wait")
    assert (answer.status, answer.body) == (200, b"5\n")
    assert api("POST", f"/containers/{identifier[:12]}/wait").status == 404


def test_runs_what_it_is_asked(podman: Podman) -> None:
    """Red: without stdin_once, where the end of the client's input is not the process's."""
    assert podman("run --rm box:1 echo hi") == (0, "hi\n", "")
    assert podman("run --rm box:1 sh -c 'echo out; echo err >&2; exit 7'") == (7, "out\n", "err\n")
    assert podman("run --rm -i box:1 cat", "one\ntwo\n") == (0, "one\ntwo\n", "")
    code, _, err = podman("run --rm box:1 /nope")
    assert code == 127 and "/nope" in err
    assert podman("run --rm box:1 /tmp")[0] == 126
    assert podman("ps -aq") == (0, "", "")


def test_a_terminal_has_its_clients_size(podman: Podman) -> None:
    """Red: without the size that is kept until the start, `stty size` fails; without h and w of an exec's start."""
    with Terminal([*podman.argv, "run", "--rm", "-it", "box:1", "sh"], podman.env, rows=33, columns=99) as screen:
        screen.send("busybox stty size; exit 5\r")
        screen.expect("33 99")
        assert screen.wait(TIMEOUT_S) == 5
    podman.must("run -d --name web box:1 sleep 1000")
    with Terminal([*podman.argv, "exec", "-it", "web", "sh"], podman.env, rows=21, columns=77) as screen:
        screen.send("busybox stty size; exit 6\r")
        screen.expect("21 77")
        assert screen.wait(TIMEOUT_S) == 6


def test_a_containers_life(podman: Podman) -> None:
    """Red: without the words of states and names in errors, `rm` of nothing is 125 instead of 1."""
    podman.must("run --name said box:1 sh -c 'echo one; echo two >&2; printf three'")
    code, out, err = podman("logs said")
    assert (code, sorted(out.split()), err.split()) == (0, ["one", "three"], ["two"])
    assert podman("logs -t said")[1].count("Z ") == 2
    podman.must("rm said")
    podman.must("run -d --name web -l tier=a -e A=b box:1 sleep 1000")
    assert podman.must("ps --format '{{.Names}} {{.Image}} {{.Networks}}'") == "web docker.io/library/box:1 podman"
    assert podman.must("ps -q --filter label=tier=b") == ""
    assert podman.must("exec web sh -c 'echo $A'") == "b"
    assert podman("exec web sh -c 'exit 3'")[0] == 3
    assert podman("exec web /nope")[0] == 127
    assert podman.must("exec -i web cat", "typed") == "typed"
    assert "sleep 1000" in podman.must("top web")
    assert "sleep 1000" in podman.must("top web pid args")
    assert podman.must("stats --no-stream --format '{{.Name}}' web") == "web"
    podman.must("pause web")
    assert podman.must("inspect -f '{{.State.Status}} {{.State.Running}}' web") == "paused false"
    podman.must("unpause web")
    podman.must("rename web web2")
    podman.must("restart -t 0 web2")
    podman.must("update -m 64m web2")
    assert podman.must("inspect -f '{{.HostConfig.Memory}}' web2") == str(64 << 20)
    podman.must("stop -t 0 web2")
    assert podman.must("ps -a --format '{{.Exited}} {{.ExitCode}}'") == "true 137"
    podman.must("start web2")
    podman.must("kill -s KILL web2")
    assert podman.must("wait web2") == "137"
    podman.must("container exists web2")
    assert podman("container exists nope")[0] == 1
    assert podman("create --name web2 box:1 true")[0] == 125
    podman.must("rm web2")
    code, _, err = podman("rm web2")
    assert code == 1 and "no such container" in err
    assert podman("inspect web2")[0] == 125
    podman.must("run -d --replace --name one box:1 sleep 1000")
    podman.must("run -d --replace --name one box:1 sleep 1000")
    assert podman("rm one")[0] == 2  # it runs
    assert len(podman.must("ps -aq").split()) == 1


def test_files_go_in_and_out(podman: Podman, tmp_path: Path) -> None:
    """Red: without isDir and linkTarget in the header, `cp` takes a directory for a file."""
    podman.must("run -d --name web box:1 sleep 1000")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/file").write_text("content")
    podman.must(f"cp {tmp_path}/tree/file web:/tmp/other")
    podman.must(f"cp {tmp_path}/tree web:/tmp")
    assert podman.must("exec web cat /tmp/other /tmp/tree/file") == "contentcontent"
    podman.must("exec web busybox ln -s /tmp/tree /tmp/link")
    podman.must(f"cp web:/tmp/link/file {tmp_path}/back")
    assert (tmp_path / "back").read_text() == "content"
    assert "A /tmp/other" in podman.must("diff web")
    podman.must(f"export -o {tmp_path}/whole.tar web")
    assert podman.must(f"import -q {tmp_path}/whole.tar flat:1").startswith("sha256:")
    assert podman.must("run --rm flat:1 cat /tmp/other") == "content"
    made = podman.must('commit -q -c CMD=\'["cat","/tmp/other"]\' web made:1')
    assert podman.must("run --rm made:1") == "content"
    assert podman.must("image inspect -f '{{.Id}}' made:1") == made


def test_images(podman: Podman, tmp_path: Path) -> None:
    """Red: without full names, where `untag` and `rmi` of what `images` shows find nothing."""
    assert podman.must("images --format '{{.Repository}}:{{.Tag}}'") == "docker.io/library/box:1"
    podman.must("image exists box:1")
    assert podman("image exists nope:1")[0] == 1
    podman.must("tag box:1 example.org/other:2")
    podman.must("untag box:1 example.org/other:2")
    assert podman("image exists example.org/other:2")[0] == 1
    podman.must("tag box:1 example.org/other:2")
    assert len(podman.must("history -q box:1").split()) == 1
    podman.must(f"save -q -o {tmp_path}/saved.tar example.org/other:2")
    podman.must("rmi example.org/other:2")
    assert "example.org/other:2" in podman.must(f"load -i {tmp_path}/saved.tar")
    podman.must("rmi example.org/other:2")
    code, _, err = podman("rmi nope:1")
    assert code == 1 and "image not known" in err
    podman.must("image prune -f")
    assert podman("run --rm --pull never nope:1 true")[0] == 125
    assert "docker.io/library/box:1" in podman.must("image tree box:1")


def test_registries(podman: Podman, environment: Environment, tmp_path: Path) -> None:
    """Red: without the accounts of X-Registry-Auth the push is refused; without `copy` a push under another name leaves
    that name here."""
    root = tmp_path / "registry"
    user = [*environment("registry", "user", "--root", str(root), "add", "--password-stdin", "anna", input="pw\n").argv]
    assert user[0] == "registry"
    with registry_server.beside(environment, root, "--anonymous-pull") as host:
        code, _, err = podman(f"push --tls-verify=false --creds anna:wrong box:1 {host}/a/box:1")
        assert code == 125 and err
        podman.must(f"push --tls-verify=false --creds anna:pw box:1 {host}/a/box:1")
        assert podman(f"image exists {host}/a/box:1")[0] == 1
        assert podman.must(f"run --rm --tls-verify=false --pull always {host}/a/box:1 echo pulled").endswith("pulled")
        assert podman.must(f"images --format '{{{{.Names}}}}' {host}/a/box") == f"[{host}/a/box:1]"
        identifier = podman.must(f"pull -q --tls-verify=false {host}/a/box:1")
        assert podman.must("image inspect -f '{{.Id}}' box:1") == identifier
        assert podman(f"pull --tls-verify=false {host}/a/nope:1")[0] == 125
        podman.must(f"rmi {host}/a/box:1")


def test_volumes_networks_and_secrets(podman: Podman, tmp_path: Path) -> None:
    podman.must("volume create -l a=b v1")
    assert podman.must("volume ls -q") == "v1"
    assert podman.must("volume inspect -f '{{.Labels.a}}' v1") == "b"
    (tmp_path / "h").mkdir()
    (tmp_path / "h/seen").write_text("")
    mounts = f"-v v1:/data -v {tmp_path}/h:/h:ro --tmpfs /t --mount type=tmpfs,dst=/u"
    out = podman.must(f"run --rm {mounts} box:1 sh -c 'echo kept >/data/f; busybox ls /h; touch /h/x || echo ro'")
    assert out.split()[-1] in ("ro", "seen") and "seen" in out
    assert podman.must("run --rm -v v1:/data box:1 cat /data/f") == "kept"
    podman.must("volume rm v1")
    assert podman("volume exists v1")[0] == 1
    podman.must("network create --subnet 10.97.0.0/24 n1")
    assert podman.must("network ls -q").split() == ["n1", "podman"]
    podman.must("run -d --name c1 --network n1:ip=10.97.0.77,alias=al -p 18123:80 box:1 sleep 1000")
    assert podman.must("inspect -f '{{.NetworkSettings.Networks.n1.IPAddress}}' c1") == "10.97.0.77"
    assert podman.must("port c1") == "80/tcp -> 0.0.0.0:18123"
    podman.must("network connect podman c1")
    assert podman.must("inspect -f '{{len .NetworkSettings.Networks}}' c1") == "2"
    podman.must("network disconnect podman c1")
    podman.must("rm -f -t 0 c1")
    podman.must("network rm n1")
    assert podman("network exists n1")[0] == 1
    podman.must("network exists podman")
    podman.must("secret create k -", "s3")
    assert podman.must("secret ls --format '{{.Name}} {{.Driver}}'") == "k file"
    assert podman("run --rm --secret k box:1 cat /run/secrets/k") == (0, "s3", "")
    assert podman("run --rm --secret k,type=env,target=E box:1 sh -c 'echo $E'") == (0, "s3\n", "")
    podman.must("secret rm k")
    assert podman("secret rm k")[0] == 125


def test_a_container_is_made_before_it_starts(podman: Podman, environment: Environment, tmp_path: Path) -> None:
    """Red: without the launcher's wait the command runs; without giving_way, `rename` waits for ever."""
    podman.must("create --name c1 --restart on-failure:1 box:1 sh -c 'cat /tmp/in; echo ran; exit 3'")
    assert podman.must("init c1") == "c1"
    told = json.loads(podman.must("inspect c1"))[0]
    assert (told["State"]["Status"], told["State"]["Running"]) == ("initialized", False)
    assert podman.must("ps -a --format '{{.Names}} {{.Status}}'") == "c1 Initialized"
    assert os.stat(f"/proc/{told['State']['Pid']}/ns/net").st_ino != os.stat("/proc/self/ns/net").st_ino
    code, _, err = podman("init c1")
    assert code == 125 and "already been created in runtime" in err
    assert podman("exec c1 true")[0] == 125 and podman.must("logs c1") == ""
    (tmp_path / "in").write_text("in it")
    podman.must(f"cp {tmp_path}/in c1:/tmp/in")
    podman.must("start c1")
    assert podman.must("wait --condition exited c1") == "3"
    deadline = time.monotonic() + TIMEOUT_S
    while podman.must("logs c1") != "in itran\nin itran":  # its second run does not wait
        assert time.monotonic() < deadline
        time.sleep(0.05)
    podman.must("wait --condition exited c1")
    podman.must("init c1")
    podman.must("rename c1 c2")  # undoes it
    assert podman.must("inspect -f {{.State.Status}} c2") == "exited"
    podman.must("init c2")
    assert podman("start -a c2")[:2] == (3, "in itran\n") and podman.must("container init --all") != ""
    podman.must("rm c2")
    podman.must("create --name bad box:1 /nope")
    podman.must("init bad")
    assert podman("start bad")[0] == 125 and podman.must("inspect -f {{.State.Status}} bad") == "created"


def test_what_waits_goes_with_its_engine() -> None:
    """Red: without the end of the reply socket in Reply.wait: the process stays, and nobody can ever start it."""
    with box_engine() as environment:
        api = Api(environment.run / "docker.sock", "v4.3.1/libpod")
        environment("create", "--name", "c1", "box:1", "echo", "ran")
        assert api("POST", "/containers/c1/init").status == 204
        made = int(api("GET", "/containers/c1/json").json["State"]["Pid"])
        pid = environment.engine_pid()
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + TIMEOUT_S
        while processes.is_alive(made):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert environment("ps", "-a", "--format", "{{.State}}").stdout == "created\n"
        assert environment("start", "-a", "c1").stdout == "ran\n"
        api("POST", "/containers/c1/init")
        environment("engine", "stop")
        assert environment("ps", "-a", "--format", "{{.State}}").stdout == "exited\n"


def test_processes_are_told_as_they_see_themselves(podman: Podman) -> None:
    """Red: with the machine's numbers; without a row of top._COLUMNS."""
    podman.must("run -d --name c1 --user 1:1 --uidmap 0:100000:65536 --cap-drop all box:1 sleep 1000")
    words = "user,pid,ppid,capeff,seccomp,huser,state,nice,args,group,pgid"
    said = podman.must(f"top c1 {words}").splitlines()
    assert said[0].split() == "USER PID PPID EFFECTIVE CAPS SECCOMP HUSER STATE NI COMMAND GROUP PGID".split()
    assert said[1].split() == ["1", "1", "0", "none", "filter", "100001", "S", "0", "sleep", "1000", "1", "1"]
    assert podman.must("top c1").splitlines()[0].split() == "USER PID PPID %CPU ELAPSED TTY TIME COMMAND".split()
    every = podman.must(
        "top c1 hpid hgroup hgroups groups capbnd capprm capinh capamb label rss vsz stime etime time comm"
    )
    assert len(every.splitlines()) == 2 and every.splitlines()[1].split()[0] != "1"
    code, _, err = podman("top c1 nosuch")
    assert code == 125 and "unknown descriptor: nosuch" in err


def test_lists_know_podmans_filters(podman: Podman) -> None:
    """Red: without the row of each in the module's _FILTERS: docker's list refuses it."""
    podman.must("run -d --name c1 --restart always box:1 sleep 1000")
    podman("volume rm -f v1")
    podman("network rm -f n1")
    podman.must("volume create -o size=1m v1")
    podman.must("network create --subnet 10.97.9.0/24 --ip-range 10.97.9.128/25 -o mtu=1400 n1")
    for line, wanted in (
        ("ps --format {{.Names}} --filter until=1h", ""),
        ("ps --format {{.Names}} --filter restart-policy=always", "c1"),
        ("ps --format {{.Names}} --filter restart-policy=no", ""),
        ("images --format {{.Repository}} --filter containers=true", "docker.io/library/box"),
        ("images --format {{.Repository}} --filter containers=false", ""),
        ("images --format {{.Repository}} --filter readonly=true", ""),
        ("images --format {{.Repository}} --filter id=zz", ""),
        ("volume ls -q --filter opt=size", "v1"),
        ("volume ls -q --filter opt=size=2m", ""),
        ("volume ls -q --filter scope=local", "v1"),
        ("volume ls -q --filter until=1h", ""),
        ("network ls -q --filter name=n1 --filter until=1h", ""),
    ):
        assert podman.must(line) == wanted, line
    assert len(podman.must("ps --ns --format '{{.MNT}} {{.NET}} {{.PIDNS}} {{.USERNS}}'").split()) == 4
    code, _, err = podman("volume create v1")
    assert code == 125 and "volume already exists" in err
    told = json.loads(podman.must("network inspect n1"))[0]
    assert told["subnets"][0]["lease_range"] == {"start_ip": "10.97.9.129", "end_ip": "10.97.9.255"}
    assert told["options"] == {"mtu": "1400"}
    podman.must("network rm n1")
    podman.must("volume rm v1")
    code, _, err = podman("rmi nope:1")
    assert code == 1 and "nope:1: image not known" in err


def test_an_exec_that_cannot_start_is_an_error(podman: Podman) -> None:
    """Red: with docker's words among the output, as any client's of docker's API has them."""
    podman.must("run -d --name c1 box:1 sleep 1000")
    assert podman("exec c1 nope") == (127, "", 'Error: exec: "nope": executable file not found in $PATH\n')
    code, out, err = podman("exec c1 /tmp")
    assert (code, out) == (126, "") and err.startswith("Error: ")


def test_images_are_compared_with_nothing_and_squashed(podman: Podman, environment: Environment) -> None:
    """Red: without layers.last, of which image; without _squashed the commit has two layers; without `lookup...`."""
    assert "A /bin" in podman.must("diff box:1") and "A /bin" in podman.must("image diff box:1")
    podman.must("run --name c1 box:1 sh -c 'echo x >/made'")
    identifier = podman.must("commit -q --squash c1 made:1")
    assert podman.must("image inspect -f '{{.Id}} {{len .RootFS.Layers}}' made:1") == f"{identifier} 1"
    assert podman.must("run --rm made:1 cat /made") == "x"
    assert podman.must("images -q --filter dangling=true") == ""
    podman.must("manifest create l1")
    assert environment("system", "fsck").code == 0  # a list of nothing is whole
    podman.must("manifest rm l1")
    assert podman("manifest exists l1")[0] == 1


def test_a_root_is_mounted_for_who_asks(environment: Environment) -> None:
    """Red: with a mount of its own for a running container; without `source`, its next start is beside it."""
    api = Api(environment.run / "docker.sock", "v4.3.1/libpod")
    environment("run", "-d", "--name", "m1", "-v", "/data", "box:1", "sleep", "1000")
    place = Path(api("POST", "/containers/m1/mount").json)
    assert Path(api("POST", "/containers/m1/mount").json) == place and (place / "bin/sleep").exists()
    assert list(api("GET", "/containers/showmounted").json.values()) == [str(place)]
    (place / "tmp/in").write_text("one")
    assert environment("exec", "m1", "cat", "/tmp/in").stdout == "one"
    environment("restart", "-t", "0", "m1")
    (place / "tmp/in").write_text("two")
    assert environment("exec", "m1", "cat", "/tmp/in").stdout == "two"
    assert environment("cp", "m1:/tmp/in", "-").raw_stdout.count(b"two") == 1
    assert api("POST", "/containers/m1/unmount").status == 204 and not place.exists()
    assert api("POST", "/containers/m1/unmount").status == 409
    assert api("POST", "/containers/nope/mount").status == 404
    environment("stop", "-t", "0", "m1")
    api("POST", "/containers/m1/mount")
    (place / "tmp/in").write_text("three")
    environment("start", "m1")
    assert environment("exec", "m1", "cat", "/tmp/in").stdout == "three"
    environment("rm", "-f", "-v", "m1")
    assert not place.exists() and str(place) not in Path("/proc/mounts").read_text()


def test_what_a_run_may_say_is_honoured(podman: Podman) -> None:
    """Red: each flag, with its row of creation.py taken away: what it asks for is then refused or not there."""
    podman.must(
        "run -d --name c1 -e A=b -w /tmp -u 1:1 -m 64m --cpus 1.5 --pids-limit 50 --hostname hh --cap-add NET_ADMIN"
        " --cap-drop CHOWN --read-only --restart on-failure:3 --entrypoint sleep --ulimit nofile=100:200 --dns 1.1.1.1"
        " --add-host foo:1.2.3.4 --security-opt no-new-privileges --health-cmd true --annotation q=r --umask 0077"
        " --device /dev/null:/dev/xx --shm-size 8m --stop-signal INT --log-opt max-size=10mb --cpu-shares 100"
        " --memory-swap 128m --group-add 5 --pid host --ipc private --uts private --init --tz UTC box:1 1000"
    )
    found: dict[str, Any] = json.loads(podman.must("inspect c1"))[0]
    host, config = found["HostConfig"], found["Config"]
    assert [host[name] for name in ("Memory", "MemorySwap", "CpuQuota", "PidsLimit", "CpuShares", "ShmSize")] == [
        64 << 20,
        128 << 20,
        150000,
        50,
        100,
        8 << 20,
    ]
    assert (host["CapAdd"], host["CapDrop"], host["PidMode"]) == (["CAP_NET_ADMIN"], ["CAP_CHOWN"], "host")
    assert host["ReadonlyRootfs"] and host["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 3}
    assert (config["User"], config["WorkingDir"], config["Hostname"], config["StopSignal"]) == ("1:1", "/tmp", "hh", 2)
    assert (config["Umask"], config["Annotations"]["q"], config["Entrypoint"]) == ("0077", "r", "sleep")
    assert "A=b" in config["Env"] and config["Healthcheck"]["Test"] == ["CMD-SHELL", "true"]
    assert "CAP_CHOWN" not in found["EffectiveCaps"] + found["BoundingCaps"]
    script = "ulimit -n; busybox id; umask; busybox grep foo /etc/hosts; echo hi >/tmp/f; test -c /dev/xx"
    said = podman.must(f"exec c1 sh -c '{script}'")
    for word in ("100", "uid=1 gid=1 groups=1,5", "0077", "1.2.3.4"):
        assert word in said, said
    podman.must("healthcheck run c1")
    podman.must("exec -u 0 c1 true")


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("pod create --name p", "pods are not there"),
        ("run --rm --pod p box:1 true", "pods are not there"),
        ("run --rm --systemd=always box:1 true", "systemd is not supported"),
        ("run --rm --no-hosts box:1 true", "use_image_hosts is not supported"),
        ("run --rm --cgroups=disabled box:1 true", "cgroups_mode is not supported"),
        ("run --rm --personality LINUX32 box:1 true", "personality is not supported"),
        ("run --rm --uidmap 1:1:1 box:1 true", "have gaps"),
        ("run --rm --sdnotify=conmon box:1 true", "no unit of systemd"),
        ("run --rm --security-opt unmask=/proc/acpi box:1 true", "single paths"),
        ("generate kube x", "Kubernetes"),
        ("container checkpoint x", "checkpoints"),
        ("generate systemd x", "show-run"),
        ("image scp box:1 root@nowhere::", "save and load"),
    ],
)
def test_what_is_not_there_is_refused_by_name(podman: Podman, line: str, why: str) -> None:
    """Red: with the field among those that are ignored; of a verb, without its row in absent.py."""
    if line.endswith(" x"):
        podman.must("create --name x box:1 true")
    code, out, err = podman(line)
    assert code == 125 and why in err, (code, out, err)


def test_the_engine_tells_of_itself(podman: Podman) -> None:
    info = json.loads(podman.must("info -f json"))
    assert info["host"]["ociRuntime"]["name"] == "orlop" and info["version"]["APIVersion"] == "4.3.1"
    assert podman.must("version -f '{{.Server.APIVersion}}'") == "4.3.1"
    assert "box" in podman.must("system df -v")
    assert podman("run --name ended box:1 sh -c 'exit 3'")[0] == 3
    filters = "--filter container=ended --filter event=died"
    assert podman.must(f"events --stream=false --since 1h {filters} --format '{{{{.Status}}}} {{{{.Name}}}}'") == (
        "died ended"
    )
    podman.must("system prune -f")
    assert podman.must("ps -aq") == ""


def test_it_costs_an_engine_nothing_that_no_podman_asks(environment: Environment) -> None:
    """Red: with an import of the package at the top of docker's door."""
    script = (
        "import sys; sys.path.insert(0, 'src'); import orlop.frontends.docker.table, orlop.frontends.docker.door;"
        "print([name for name in sys.modules if '.libpod' in name])"
    )
    python = CHECKOUT / ".venv/bin/python"
    done = subprocess.run([python, "-c", script], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# -- requests that no client sends ------------------------------------------------------------------------------------


HOSTILE: list[tuple[str, str, object, int]] = [
    ("POST", "/containers/create", b"{", 400),
    ("POST", "/containers/create", b"[]", 400),
    ("POST", "/containers/create", b"", 400),
    ("POST", "/containers/create", b'{"image": 5}', 400),
    ("POST", "/containers/create", {"image": "box:1", "command": "x" * 10, "mounts": "no"}, 400),
    ("POST", "/containers/create", {"image": "box:1", "mounts": [5]}, 400),
    ("POST", "/containers/create", {"image": "box:1", "env": ["A=b"]}, 400),
    ("POST", "/containers/create", {"image": "box:1", "umask": "9"}, 400),
    ("POST", "/containers/create", {"image": "box:1", "umask": "7777777"}, 400),
    ("POST", "/containers/create", {"image": "box:1", "stop_signal": 4000}, 400),
    ("POST", "/containers/create", {"image": "box:1", "portmappings": [{"container_port": 70000}]}, 400),
    ("POST", "/containers/create", {"image": "box:1", "portmappings": [{"container_port": 9, "range": 99999}]}, 400),
    ("POST", "/containers/create", {"image": "box:1", "portmappings": [{"container_port": 9, "protocol": "x"}]}, 400),
    ("POST", "/containers/create", {"image": "box:1", "netns": {"nsmode": "nosuch"}}, 501),
    ("POST", "/containers/create", {"image": "box:1", "netns": "host"}, 400),
    ("POST", "/containers/create", {"image": "box:1", "nosuch": 1}, 501),
    ("POST", "/containers/create", {"image": "box:1", "resource_limits": {"rdma": {"x": 1}}}, 501),
    ("POST", "/containers/create", {"image": "box:1", "resource_limits": {"memory": {"limit": "1"}}}, 400),
    ("POST", "/containers/create", {"image": "box:1", "timezone": "../../etc/passwd"}, 400),
    ("POST", "/containers/create", {"image": "box:1", "health_check_on_failure_action": 99}, 400),
    ("POST", "/containers/create", {"image": "nope:1"}, 404),
    ("POST", "/containers/create", b'{"image": "' + b"x" * (9 << 20) + b'"}', 413),
    ("GET", "/containers/json?filters=no", None, 400),
    ("GET", "/containers/json?filters=[]", None, 400),
    ("GET", "/containers/json?last=x", None, 400),
    ("GET", "/containers/nope/json", None, 404),
    ("GET", "/containers/nope/logs?stdout=true&since=x", None, 404),
    ("GET", "/containers/nope/archive", None, 400),
    ("POST", "/containers/nope/wait?condition=nosuch", None, 400),
    ("POST", "/containers/nope/wait?condition=running", None, 404),
    ("POST", "/containers/nope/update?restartPolicy=always", {}, 404),
    ("POST", "/containers/nope/update", {"health_cmd": "true"}, 501),
    ("POST", "/containers/create", {"image": "box:1", "idmappings": {"UIDMap": [{"container_id": 5, "size": 1}]}}, 400),
    ("POST", "/containers/create", {"image": "box:1", "idmappings": {"UIDMap": [{"size": -1}]}}, 400),
    ("POST", "/containers/create", {"image": "box:1", "idmappings": {"UIDMap": 5}}, 400),
    ("POST", "/containers/create", {"image": "box:1", "userns": {"nsmode": "path", "value": "/proc/1/ns/user"}}, 501),
    ("POST", "/containers/create", {"image": "box:1", "healthLogDestination": "/etc"}, 501),
    ("POST", "/containers/nope/mount", None, 404),
    ("POST", "/containers/nope/checkpoint", None, 404),
    ("POST", "/volumes/nope/import", b"", 404),
    ("POST", "/volumes/..%2f..%2fetc/import", b"", 404),
    ("GET", "/volumes/nope/export", None, 404),
    ("POST", "/build", b"no archive", 400),
    ("POST", "/build?t=app", b"\x1f\x8b" + b"\0" * 100, 400),
    ("POST", "/build?t=a/UPPER", b"\0" * 1024, 400),
    ("POST", '/build?dockerfile=["a","b"]', b"\0" * 1024, 501),
    ("POST", "/build?dockerfile=[5]", b"\0" * 1024, 400),
    ("POST", "/build?labels={}", b"\0" * 1024, 400),
    ("POST", "/build?buildargs=[]", b"\0" * 1024, 400),
    ("POST", "/build?nsoptions=[5]", b"\0" * 1024, 400),
    ("POST", '/build?nsoptions=[{"Name":"pid","Host":true}]', b"\0" * 1024, 501),
    ("POST", '/build?nsoptions=[{"Name":"network","Path":"/proc/1/ns/net"}]', b"\0" * 1024, 501),
    ("POST", '/build?additionalbuildcontexts={"x":{"Value":"/etc"}}', b"\0" * 1024, 501),
    ("POST", "/build?networkmode=9", b"\0" * 1024, 400),
    ("POST", '/build?ulimits=["nofile=x"]', b"\0" * 1024, 400),
    ("POST", "/build?timestamp=x", b"\0" * 1024, 400),
    ("POST", "/build?seccomp=/etc/shadow", b"\0" * 1024, 501),
    ("POST", "/build?nosuch=1", b"\0" * 1024, 501),
    ("POST", "/build?pullpolicy=never", b"\0" * 1024, 501),
    ("POST", f"/build?buildargs={'[' * 5000}", b"\0" * 1024, 400),
    ("POST", "/manifests/a/UPPER", None, 400),
    ("POST", "/manifests/m?images=nope:1&annotation=a", None, 501),
    ("GET", "/manifests/nope/exists", None, 404),
    ("PUT", "/manifests/nope", {"operation": "update", "images": ["box:1"]}, 404),
    ("PUT", "/manifests/nope", {"operation": ["update"], "images": "box:1"}, 400),
    ("PUT", "/manifests/nope", {"annotations": {"a": "b"}}, 501),
    ("PUT", "/manifests/nope", b"--boundary", 400),
    ("DELETE", "/manifests/nope", None, 404),
    ("POST", "/manifests/nope/registry/127.0.0.1:1/a", None, 404),
    ("POST", "/manifests/box:1/registry/a/UPPER", None, 404),
    ("GET", "/images/nope/tree", None, 404),
    ("GET", "/images/box:1/changes?parent=nope", None, 404),
    ("GET", "/images/a/UPPER/resolve", None, 400),
    ("POST", f"/containers/{'a' * 64}/wait", None, 404),
    ("GET", "/events?since=nonsense", None, 400),
    ("GET", '/events?stream=false&filters={"nosuch":["x"]}', None, 400),
    ("POST", "/networks/create", {"name": "n", "subnets": [{"subnet": "no"}]}, 400),
    ("POST", "/networks/create", {"name": "n", "subnets": "no"}, 400),
    (
        "POST",
        "/networks/create",
        {"name": "n", "subnets": [{"subnet": "10.96.0.0/24", "lease_range": {"start_ip": "x", "end_ip": "y"}}]},
        400,
    ),
    ("POST", "/networks/podman/connect", {"container": "nope"}, 404),
    ("DELETE", "/networks/host", None, 404),
    ("POST", "/volumes/create", {"Name": "../x"}, 400),
    ("POST", "/volumes/create", {"Labels": 5}, 400),
    ("POST", "/secrets/create?name=../x", b"data", 400),
    ("POST", "/secrets/create?name=k&labels=no", b"data", 400),
    ("POST", "/secrets/create?name=k&driver=pass", b"data", 501),
    ("POST", "/secrets/create?name=k", b"x" * (600 << 10), 413),
    ("POST", "/images/pull?reference=a/UPPER&policy=always", None, 400),
    ("POST", "/images/pull?reference=x&policy=nosuch", None, 400),
    ("POST", "/images/load", b"no archive", 400),
    ("GET", "/images/export?format=dir&references=box:1", None, 501),
    ("GET", "/images/export", None, 400),
    ("GET", "/images/nope/json", None, 404),
    ("POST", "/commit?container=nope", None, 404),
    ("GET", "/pods/json", None, 501),
    ("POST", "/play/kube", b"", 501),
    ("GET", "/nosuch", None, 404),
    ("PATCH", "/containers/json", None, 404),
]


def test_hostile_requests_get_a_clear_error_of_libpods_form(environment: Environment) -> None:
    """Red: without the checks of creation.py some are defects of the engine; without the dialect, docker's form."""
    api = Api(environment.run / "docker.sock", "v4.3.1/libpod")
    wrong = []
    for method, path, body, status in HOSTILE:
        answer = api(method, path, body)
        told = json.loads(answer.body) if answer.body[-1:] == b"}" else {}
        if (
            answer.status != status
            or set(told) != {"cause", "message", "response"}
            or answer.json["response"] != status
        ):
            wrong.append((method, path, str(body)[:80], status, answer))
        assert "defect" not in str(told), (path, body, told)
    assert not wrong, "\n".join(map(str, wrong))
    form = api("POST", "/containers/create", b'{"image": "box:1"}', Content_Type="text/plain")  # a browser's
    assert form.status == 400 and "application/json" in form.json["cause"]
    page = api("POST", "/containers/create", b'{"image": "box:1"}', Origin="http://localhost")
    assert page.status == 403
    assert api("GET", "/containers/json?all=true").json == []


def test_versions(environment: Environment) -> None:
    for prefix, status in (("v4.3.1", 200), ("v4.0.0", 200), ("v5.2.0", 200), ("v3.0.0", 400), ("v9.0", 400)):
        answer = Api(environment.run / "docker.sock", f"{prefix}/libpod")("GET", "/_ping")
        assert (answer.status, answer.headers["libpod-api-version"]) == (status, "4.3.1"), prefix
    answer = Api(environment.run / "docker.sock", "libpod")("GET", "/_ping")
    assert (answer.status, answer.body) == (200, b"OK")
    plain = Api(environment.run / "docker.sock", "v1.41")("GET", "/_ping")
    assert "libpod-api-version" not in plain.headers and plain.headers["api-version"] == "1.50"


def test_a_socket_with_less_power_opens_nothing_of_libpod(environment: Environment) -> None:
    """Red: with a row of libpod's in scoped.rights, or with patterns of its routes that begin as docker's."""
    from orlop.frontends.libpod.dialect import ROUTES
    from orlop.frontends.scoped import rights

    routes = [(method, pattern) for method, pattern, _ in ROUTES]
    assert all(pattern.startswith("/libpod/") for _, pattern in routes)
    assert not set(routes) & set(rights.NEEDED)
    environment("socket", "create", "some", "--allow", "containers:*", "--allow", "images:read")
    api = Api(environment.run / "sockets/some.sock", "v4.3.1/libpod")
    for method, pattern in routes:
        path = pattern.removeprefix("/libpod").replace("{name*}", "box:1").replace("{rest*}", "x")
        path = path.replace("{id}", "x").replace("{name}", "x")
        answer = api(method, path, {} if method == "POST" else None)
        assert answer.status == 403, (method, path, answer)
    assert Api(environment.run / "sockets/some.sock", "v1.41")("GET", "/containers/json").status == 200
    environment("socket", "rm", "some")
