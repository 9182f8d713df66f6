"""The engine's verbs through its native socket, on real containers."""

import errno
import fcntl
import json
import os
import random
import signal
import socket
import struct
import subprocess
import threading
import time
from pathlib import Path

import pytest

from orlop.engine import host
from orlop.engine.containers import lifecycle
from orlop.engine.engine import open_engine
from orlop.engine.log import Log
from orlop.frontends.native.client import connect
from orlop.linux import process
from orlop.spec import attach, errors
from orlop.spec.container import ContainerRequest
from orlop.spec.paths import Paths
from support.engine import COMMAND

FS_IOC_SETFLAGS, FS_IMMUTABLE_FL = 0x40086602, 0x10  # ioctl_iflags(2)
SERVER = "trap 'exit 3' TERM; echo up; while :; do sleep 0.05; done"


class Engine:
    """A private engine, spoken to as a client of the socket does. `run` makes a container of the image host."""

    def __init__(self, environment) -> None:
        self.environment = environment
        self.paths = Paths(str(environment.root), str(environment.run))
        self.containers = environment.root / "containers"

    def __call__(self, verb: str, args=None, fds=(), **named):
        with connect(self.paths) as engine:
            return engine.call(verb, {**(args or {}), **named}, fds)

    def request(self, *args: str, **fields: object) -> dict[str, object]:
        named = {camel(name): value for name, value in fields.items()}
        return {"image": "host", "args": list(args), **named}

    def run(self, *args: str, **fields: object) -> str:
        return str(self("containers.run", request=self.request(*args, **fields))["id"])

    def output(self, *args: str, **fields: object) -> tuple[int, str, str]:
        """Run a command attached; return its exit code and what it wrote."""
        with Attached() as stream:
            self("containers.run", {"request": self.request(*args, **fields), "attached": True}, [stream.theirs])
            return stream.rest()

    def logs(self, container: str, **named: object) -> str:
        with connect(self.paths) as engine:
            engine.call("containers.logs", {"container": container, **named})
            return frames_of(engine.stream)[1]

    def state(self, container: str) -> dict[str, object]:
        return self("containers.inspect", container=container)["State"]

    def wait(self, container: str) -> int:
        return self("containers.wait", container=container)["exit_code"]

    def cut_short(self, verb: str, args: dict[str, object], after_s: float) -> None:
        """Ask for a verb and kill the engine that much later, whatever it does then."""
        with connect(self.paths) as client:
            client.send(verb, args)
            time.sleep(after_s)
            self.kill()
        self("engine.ping")

    def truth(self, container: str) -> str:
        """Return what files and processes say: "running", "not running", or "changing" while a monitor is at work."""
        try:
            status = status_of(self.containers / container)
        except FileNotFoundError:
            return "not running"
        alive = process_exists(status["pid"], status["pidStartTime"])
        monitored = process_exists(status["monitorPid"], status["monitorStartTime"])
        if alive and monitored:
            return "running"
        return "changing" if monitored else "not running"

    def kill(self) -> None:
        pid = self.environment.engine_pid()
        pidfd = os.pidfd_open(pid)
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        process_is_gone(pidfd)
        os.close(pidfd)


class Attached:
    """Both ends of an attach stream."""

    def __init__(self) -> None:
        self.ours, self._theirs = socket.socketpair()
        self.theirs = self._theirs.fileno()

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self.ours.close()
        self._theirs.close()

    def rest(self) -> tuple[int, str, str]:
        self._theirs.close()
        return frames_of(self.ours)


def camel(name: str) -> str:
    head, *tail = name.split("_")
    return head + "".join(part.capitalize() for part in tail)


def frames_of(stream) -> tuple[int, str, str]:
    """Read an attach stream to its end: the exit code (-1 without one), standard output, standard error."""
    decoder, code, texts = attach.Decoder(), -1, {attach.STDOUT: b"", attach.STDERR: b""}
    while data := stream.recv(65536):
        for kind, payload in decoder.feed(data):
            if kind == attach.EXIT:
                code = json.loads(payload)["exitCode"]
            elif kind in texts:
                texts[kind] += payload
    return code, texts[attach.STDOUT].decode(), texts[attach.STDERR].decode()


def process_is_gone(pidfd: int) -> None:
    import select

    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    assert poll.poll(20_000)


def wait_until(condition) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def status_of(directory: Path) -> dict[str, object]:
    return json.loads((directory / "status.json").read_text())


@pytest.fixture
def engine(orlop_env):
    return Engine(orlop_env)


# -- a life ---------------------------------------------------------------------------------------------------------


def test_a_whole_life(engine):
    web = engine("containers.create", request=engine.request("sh", "-c", SERVER, name="web"))
    assert web["warnings"] == []
    assert engine.state("web")["Status"] == "created"
    engine("containers.start", container="web")
    engine("containers.start", container=web["id"][:7])  # a second time: nothing to do
    assert engine.state("web")["Running"] is True
    wait_until(lambda: engine.logs("web") == "up\n")
    engine("containers.stop", container="web")
    engine("containers.stop", container="web")
    assert (engine.state("web")["Status"], engine.state("web")["ExitCode"]) == ("exited", 3)
    engine("containers.start", container="web")
    assert engine.state("web")["Running"] is True
    engine("containers.kill", container="web", signal="9")
    assert engine.wait("web") == 137
    engine("containers.remove", container="web")
    with pytest.raises(errors.NotFound, match="No such container: web"):
        engine("containers.inspect", container="web")
    assert engine("containers.list", all=True) == []


def test_an_attached_run_brings_output_and_exit_code(engine):
    assert engine.output("sh", "-c", "echo out; echo err >&2; exit 7") == (7, "out\n", "err\n")


def test_the_list_has_dockers_shape_and_filters(engine):
    engine.run("true", name="one", labels={"a": "1"})
    engine.run("sleep", "1000", name="two", labels={"a": "2", "b": ""})
    engine.wait("one")
    (shown,) = engine("containers.list")
    assert {key: shown[key] for key in ("Names", "Image", "Command", "State", "Labels")} == {
        "Names": ["/two"],
        "Image": "host",
        "Command": "sleep 1000",
        "State": "running",
        "Labels": {"a": "2", "b": ""},
    }
    assert shown["Status"].startswith(("Up", "Less"))

    def names(**filters: list[str]) -> list[str]:
        return [entry["Names"][0][1:] for entry in engine("containers.list", all=True, filters=filters)]

    assert names() == ["two", "one"]
    assert names(name=["o"]) == ["two", "one"]
    assert names(label=["a=1"]) == ["one"]
    assert names(label=["a", "b"]) == ["two"]
    assert names(status=["exited", "created"]) == ["one"]
    assert names(exited=["0"]) == ["one"]
    assert names(id=[shown["Id"][:5]]) == ["two"]
    assert names(ancestor=["host"]) == ["two", "one"]
    with pytest.raises(errors.Invalid, match="invalid filter 'color'"):
        names(color=["red"])


def test_inspect_tells_what_was_asked_and_what_was_decided(engine):
    engine.run("sleep", "1000", name="web", memory_bytes=32 << 20, env=["X=1"], tmpfs=[{"target": "/x"}])
    found = engine("containers.inspect", container="web")
    assert found["Path"] == "sleep"
    assert found["Args"] == ["1000"]
    assert found["HostConfig"]["Memory"] == 32 << 20
    assert found["HostConfig"]["MemorySwap"] == 64 << 20
    assert found["HostConfig"]["PidsLimit"] == 4096
    assert found["HostConfig"]["Tmpfs"] == {"/x": ""}
    assert found["Config"]["Env"][0] == "X=1"
    assert found["Config"]["Hostname"] == found["Id"][:12]
    assert found["Image"].startswith("sha256:")
    assert os.readlink(f"/proc/{found['State']['Pid']}/ns/pid") != os.readlink("/proc/self/ns/pid")


def test_a_plan_is_printed_and_nothing_is_made(engine):
    steps = engine("containers.plan", request=engine.request("true", memory_bytes=32 << 20, name="web"))
    calls = " ".join(f"{step['words']} {step.get('call', '')}" for step in steps)
    for wanted in ("overlay", "clone3", "pivot_root", "memory", "seccomp", "execve"):
        assert wanted in calls
    assert engine("containers.list", all=True) == []
    assert list(engine.containers.iterdir()) == []


@pytest.mark.parametrize(
    ("user", "ids"), [("1234:4321", "uid 1234, gid 4321"), ("1234", "uid 1234"), ("", "uid 0, gid 0")]
)
def test_a_plan_tells_the_ids_and_what_will_be_looked_up(engine, user, ids):
    steps = engine("containers.plan", request=engine.request("true", user=user))
    words = [step["words"] for step in steps if step["subject"] == "user"]
    assert any(ids in text for text in words)
    assert any("passwd" in text for text in words) == (user == "1234")


def test_a_plan_leaves_a_user_that_is_no_id_to_the_start(engine):
    steps = engine("containers.plan", request=engine.request("true", user="9" * 5000))
    assert any("passwd" in step["words"] for step in steps if step["subject"] == "user")


def test_an_explanation_tells_the_ids_that_a_name_became(engine):
    engine.run("sleep", "1000", name="web", user="nobody")
    words = [step["words"] for step in engine("containers.explain", container="web") if step["subject"] == "user"]
    assert any("uid 65534" in text for text in words)


def test_an_explanation_names_the_namespaces_that_the_kernel_shows(engine):
    engine.run("sleep", "1000", name="web", network="host")
    pid = engine.state("web")["Pid"]
    live = {step["words"] for step in engine("containers.explain", container="web") if step["subject"] == "now"}
    assert f"pid namespace {os.readlink(f'/proc/{pid}/ns/pid')}" in live
    assert f"net namespace {os.readlink('/proc/self/ns/net')}, this machine's own" in live
    assert any(text.startswith("cgroup /orlop/") for text in live)


# -- what a container is given --------------------------------------------------------------------------------------


def test_the_files_below_etc_are_the_containers_own(engine, tmp_path):
    script = "cat /etc/hostname; hostname; grep -c localhost /etc/hosts; wc -l < /proc/self/mountinfo"
    code, out, _ = engine.output("sh", "-c", script, hostname="box")
    assert code == 0
    assert out.splitlines()[:3] == ["box", "box", "2"]


def test_a_missing_bind_source_is_made_and_a_dangling_link_is_an_error(engine, tmp_path):
    source = tmp_path / "a" / "b"
    code, _, _ = engine.output("sh", "-c", "echo x > /data/f", binds=[{"source": str(source), "target": "/data"}])
    assert (code, (source / "f").read_text()) == (0, "x\n")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(errors.Invalid, match="error while creating mount source path"):
        engine.run("true", binds=[{"source": str(tmp_path / "dangling"), "target": "/data"}])


def test_a_bind_source_behind_a_link_of_the_host_is_found(engine, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "f").write_text("here")
    (tmp_path / "link").symlink_to("real")
    binds = [{"source": str(tmp_path / "link"), "target": "/data", "options": ["ro"]}]
    code, out, _ = engine.output("sh", "-c", "cat /data/f; echo x > /data/f", binds=binds)
    assert (code != 0, out) == (True, "here")


def test_a_directory_as_root_is_used_in_place_and_stays(engine, tmp_path, orlop_env):
    orlop_env("rootfs", "from-binaries", "--with", "sh", "--with", "cat", str(tmp_path / "tree"))
    (tmp_path / "tree" / "mark").write_text("in place")
    with Attached() as stream:
        request = {"rootfs": str(tmp_path / "tree"), "args": ["sh", "-c", "cat /mark; echo new > /made"]}
        request["autoRemove"] = True
        engine("containers.run", {"request": request, "attached": True}, [stream.theirs])
        assert stream.rest()[:2] == (0, "in place")
    wait_until(lambda: engine("containers.list", all=True) == [])
    assert (tmp_path / "tree" / "made").read_text() == "new\n"


def test_the_default_profile_capabilities_and_limits_hold(engine):
    script = "grep -E '^(CapEff|CapInh|NoNewPrivs|Seccomp):' /proc/self/status; cat /proc/self/cgroup"
    code, out, _ = engine.output("sh", "-c", script, pids_max=30)
    assert code == 0
    lines = dict(line.split(":\t") for line in out.splitlines() if ":\t" in line)
    assert lines == {"CapInh": "0" * 16, "CapEff": "00000000a80425fb", "NoNewPrivs": "1", "Seccomp": "2"}


def test_a_privileged_container_has_what_the_engine_has(engine):
    script = "grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/self/status; ls /dev | wc -l; wc -c < /proc/interrupts"
    code, out, err = engine.output("sh", "-c", script, privileged=True)
    assert code == 0, err
    lines = out.splitlines()
    ours = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapBnd"))
    assert lines[0].split()[1] == ours.split()[1]
    assert (lines[1].split()[1], lines[2].split()[1]) == ("0", "0")
    assert int(lines[4]) > 0
    of_host = host.devices(ContainerRequest(privileged=True)).everything[0].path
    assert engine.output("test", "-e", of_host, privileged=True)[0] == 0
    assert engine.output("test", "-e", of_host)[0] == 1


def test_a_profile_of_the_users_own_is_applied(engine):
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}],
    }
    code, _, err = engine.output("mkdir", "/x", security_opt=["seccomp=" + json.dumps(profile)])
    assert (code, "Function not implemented" in err) == (1, True)


def test_options_take_the_defaults_away_one_by_one(engine):
    script = "grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/self/status | cut -f2; head -c 1 /proc/interrupts | wc -c"

    def show(**fields: object) -> list[str]:
        return engine.output("sh", "-c", script, **fields)[1].split()

    assert show() == ["00000000a80425fb", "1", "2", "0"]
    assert show(cap_drop=["ALL"], cap_add=["net_raw"])[0] == "0000000000002000"
    assert show(security_opt=["no-new-privileges=false"])[1] == "0"
    assert show(security_opt=["seccomp=unconfined"])[2] == "0"
    assert show(security_opt=["systempaths=unconfined"])[3] == "1"


# -- starts that fail -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "code", "text"),
    [
        (("nosuch",), 127, 'exec: "nosuch": executable file not found in $PATH'),
        (("/etc/passwd",), 126, "permission denied"),
        (("/nosuch",), 127, "no such file or directory"),
    ],
)
def test_a_command_that_can_not_be_executed(engine, args, code, text):
    with pytest.raises(errors.CommandFailed, match=text.replace("$", r"\$")) as caught:
        engine.run(*args, name="web")
    assert caught.value.exit_code == code
    found = engine.state("web")
    assert (found["Status"], found["ExitCode"], found["Running"]) == ("created", code, False)
    assert text in found["Error"]
    assert engine.wait("web") == code
    engine("containers.remove", container="web")
    with pytest.raises(errors.CommandFailed):
        engine.run(*args, auto_remove=True)
    assert engine("containers.list", all=True) == []


def test_a_failed_start_can_be_repaired_and_forgotten(engine, tmp_path):
    target = tmp_path / "dir" / "prog"
    binds = [{"source": str(tmp_path / "dir"), "target": "/x"}]
    with pytest.raises(errors.CommandFailed):
        engine.run("/x/prog", name="web", binds=binds)
    target.write_text("#!/bin/sh\nexit 4\n")
    target.chmod(0o755)
    engine("containers.start", container="web")
    assert engine.wait("web") == 4
    assert engine.state("web")["Error"] == ""


@pytest.mark.parametrize(
    ("fields", "kind", "text"),
    [
        ({"image": "nosuch"}, errors.NotFound, "No such image: nosuch:latest"),
        ({"image": ""}, errors.Invalid, "names no image"),
        ({"rootfs": "/"}, errors.Invalid, "both an image and a root directory"),
        ({"image": "", "rootfs": "x"}, errors.Invalid, "not an absolute path"),
        ({"image": "", "rootfs": "/nosuch"}, errors.Invalid, "no such directory"),
        ({"image": "", "rootfs": "/etc/passwd"}, errors.Invalid, "not a directory"),
        ({"name": "a b"}, errors.Invalid, "Invalid container name"),
        ({"memory_bytes": 1}, errors.Invalid, "Minimum memory limit allowed is 6MB"),
        ({"network": "web"}, errors.NotFound, "network web not found"),
        ({"user": "nosuch"}, errors.OrlopError, "unable to find user nosuch"),
        ({"stop_signal": "FOO"}, errors.Invalid, "invalid signal: FOO"),
    ],
)
def test_a_request_that_is_refused_leaves_nothing(engine, fields, kind, text):
    with pytest.raises(kind, match=text):
        engine.run("true", auto_remove=True, **fields)
    assert engine("containers.list", all=True) == []
    assert list(engine.containers.iterdir()) == []
    assert list((engine.environment.root / "snapshots" / "active").iterdir()) == []
    assert list((engine.environment.run / "tasks").iterdir()) == []


def test_a_name_is_taken_once(engine):
    first = engine.run("true", name="web")
    with pytest.raises(errors.Conflict, match=f'The container name "/web" is already in use by container "{first}"'):
        engine.run("true", name="web")
    results = []

    def create() -> None:
        try:
            results.append(engine("containers.create", request=engine.request("true", name="db"))["id"])
        except errors.Conflict:
            results.append(None)

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([made for made in results if made]) == 1


# -- stop, kill, wait, remove ---------------------------------------------------------------------------------------


def test_stop_kills_at_once_what_can_not_hear_it(engine):
    engine.run("sleep", "1000", name="deaf")
    begun = time.monotonic()
    engine("containers.stop", container="deaf")
    assert time.monotonic() - begun < 5
    assert engine.state("deaf")["ExitCode"] == 137


def test_stop_gives_a_handler_its_time_and_no_more(engine):
    engine.run("sh", "-c", "trap 'sleep 0.3; exit 5' TERM; echo up; while :; do sleep 0.05; done", name="slow")
    engine.run("sh", "-c", "trap : TERM; echo up; while :; do sleep 0.05; done", name="stubborn")
    for name in ("slow", "stubborn"):
        wait_until(lambda name=name: engine.logs(name) == "up\n")
    engine("containers.stop", container="slow")
    assert engine.state("slow")["ExitCode"] == 5
    engine("containers.stop", container="stubborn", timeout_s=1)
    assert engine.state("stubborn")["ExitCode"] == 137


def test_the_stop_signal_is_the_requests(engine):
    engine.run("sh", "-c", "trap 'exit 9' USR1; echo up; while :; do sleep 0.05; done", name="web", stop_signal="USR1")
    wait_until(lambda: engine.logs("web") == "up\n")
    engine("containers.stop", container="web")
    assert engine.state("web")["ExitCode"] == 9


@pytest.mark.parametrize("verb", ["containers.kill", "containers.exec", "containers.attach"])
def test_what_needs_a_running_container_is_refused_in_dockers_words(engine, verb):
    container = engine.run("true", name="web")
    engine.wait("web")
    args = {"request": {"args": ["true"]}} if verb == "containers.exec" else {}
    text = "cannot attach to a stopped container" if verb == "containers.attach" else f"{container} is not running"
    with pytest.raises(errors.Conflict, match=text):
        engine(verb, container="web", **args)


def test_a_running_container_is_removed_by_force_only(engine):
    engine.run("sleep", "1000", name="web")
    with pytest.raises(errors.Conflict, match="stop the container before removing or force remove"):
        engine("containers.remove", container="web")
    engine("containers.remove", container="web", force=True)
    assert engine("containers.list", all=True) == []


def test_waiting_ends_with_the_exit_and_with_the_removal(engine):
    engine.run("sh", "-c", SERVER, name="web")
    codes: dict[str, object] = {}

    def wait(condition: str) -> None:
        codes[condition] = engine("containers.wait", container="web", condition=condition)["exit_code"]

    threads = [threading.Thread(target=wait, args=(condition,)) for condition in ("exited", "removed")]
    for thread in threads:
        thread.start()
    wait_until(lambda: engine.logs("web") == "up\n")
    engine("containers.stop", container="web")
    threads[0].join(20)
    assert codes == {"exited": 3}
    engine("containers.remove", container="web")
    threads[1].join(20)
    assert codes == {"exited": 3, "removed": 3}


def test_a_client_that_stops_waiting_costs_nothing(engine):
    engine.run("sleep", "1000", name="web")
    with connect(engine.paths) as client:
        client.send("containers.wait", {"container": "web"})
        time.sleep(0.2)
    with connect(engine.paths) as client:
        client.call("containers.logs", {"container": "web", "follow": True})
    engine("containers.remove", container="web", force=True)


def test_a_client_that_does_not_read_delays_no_end(engine):
    with Attached() as stream:
        request = engine.request("cat", "/dev/zero", name="web", auto_remove=True)
        container = engine("containers.run", {"request": request, "attached": True}, [stream.theirs])["id"]
        # A megabyte waits in the monitor then: each zero is six bytes of the log.
        log = engine.containers / container / "log.json"
        wait_until(lambda: log.exists() and log.stat().st_size > 6 * 2**20)
        engine("containers.kill", container="web")
        begun = time.monotonic()
        wait_until(lambda: not list(engine.containers.iterdir()))
        assert time.monotonic() - begun < 10


def test_auto_remove_takes_everything_away(engine):
    code, _, _ = engine.output("sh", "-c", "exit 3", auto_remove=True)
    assert code == 3
    wait_until(lambda: not list(engine.containers.iterdir()))
    assert list((engine.environment.root / "snapshots" / "active").iterdir()) == []
    assert list((engine.environment.run / "tasks").iterdir()) == []


def test_files_that_do_not_go_keep_nobody_waiting_and_nothing_else_from_going(engine):
    snapshots = engine.environment.root / "snapshots"
    volume = [{"type": "volume", "target": "/data"}]
    container = engine.run("sh", "-c", "echo kept >/stubborn; read x", auto_remove=True, open_stdin=True, mounts=volume)
    stubborn = snapshots / "active" / container / "upper" / "stubborn"
    wait_until(stubborn.exists)
    assert len(engine("volumes.list")) == 1
    fd = os.open(stubborn, os.O_RDONLY)
    fcntl.ioctl(fd, FS_IOC_SETFLAGS, struct.pack("l", FS_IMMUTABLE_FL))
    try:
        engine("containers.kill", container=container)
        wait_until(lambda: not list(engine.containers.iterdir()))
        assert engine("containers.list", all=True) == []
        assert engine("volumes.list") == []
        assert list((snapshots / "active").iterdir()) == []
        assert list((snapshots / "trash").iterdir()) != []
        assert f"container {container} is not wholly removed" in (engine.environment.root / "engine.log").read_text()
    finally:
        fcntl.ioctl(fd, FS_IOC_SETFLAGS, struct.pack("l", 0))
        os.close(fd)
    engine.kill()
    engine("engine.ping")
    assert list((snapshots / "trash").iterdir()) == []


# -- exec, attach, logs ---------------------------------------------------------------------------------------------


def test_exec_is_the_containers_unless_told_otherwise(engine):
    engine.run("sleep", "1000", name="web", env=["A=1"], working_dir="/tmp", user="65534")

    def execute(*args: str, **fields: object) -> tuple[int, str, str]:
        with Attached() as stream:
            request = {"args": list(args), **fields}
            result = engine(
                "containers.exec", {"container": "web", "request": request, "attached": True}, [stream.theirs]
            )
            assert result["pid"] > 0
            return stream.rest()

    script = "id -u; pwd; echo $A$B; readlink /proc/self/ns/pid"
    pid = engine.state("web")["Pid"]
    inside = os.readlink(f"/proc/{pid}/ns/pid")
    assert execute("sh", "-c", script) == (0, f"65534\n/tmp\n1\n{inside}\n", "")
    assert execute("sh", "-c", script, user="0", workingDir="/", env=["B=2"]) == (0, f"0\n/\n12\n{inside}\n", "")
    assert execute("sh", "-c", "exit 9")[0] == 9
    with pytest.raises(errors.CommandFailed) as caught:
        execute("nosuch")
    assert caught.value.exit_code == 127
    for wrong, text in (
        ({"args": []}, "no exec command specified"),
        ({"args": ["a"], "workingDir": "x"}, "absolute path"),
    ):
        with pytest.raises(errors.Invalid, match=text):
            engine("containers.exec", container="web", request=wrong)


def test_ended_execs_do_not_pile_up(engine, monkeypatch):
    engine.run("sleep", "1000", name="web")
    (directory,) = engine.containers.iterdir()
    for _ in range(70):
        engine("containers.exec", container="web", request={"args": ["true"]})
    wait_until(lambda: engine("containers.inspect", container="web")["ExecIDs"] is None)
    engine("containers.exec", container="web", request={"args": ["sleep", "1000"]})
    assert len(list((directory / "exec").iterdir())) <= 66
    assert len(engine("containers.inspect", container="web")["ExecIDs"]) == 1


def test_an_attached_client_joins_and_leaves(engine):
    engine.run(
        "sh", "-c", "while read line; do echo got $line; done; exit 2", name="web", open_stdin=True, stdin_once=True
    )
    with connect(engine.paths) as client:
        facts, fds = client.call_with_fds("containers.attach", {"container": "web"})
    assert facts == {"terminal": False, "open_stdin": True}
    with socket.socket(fileno=fds[0]) as stream:
        stream.sendall(attach.frame(attach.STDIN, b"hello\n") + attach.frame(attach.STDIN))
        assert frames_of(stream) == (2, "got hello\n", "")


def test_logs_are_cut_followed_and_stamped(engine):
    engine.run("sh", "-c", "echo one; echo three; sleep 1000", name="web")
    wait_until(lambda: engine.logs("web") == "one\nthree\n")
    assert engine.logs("web", tail=1) == "three\n"
    assert engine.logs("web", tail=0) == ""
    assert engine.logs("web", until_ns=1) == ""
    stamp, text = engine.logs("web", tail=1, timestamps=True).split(" ")
    assert (stamp[-1], text) == ("Z", "three\n")
    followed: list[str] = []
    reader = threading.Thread(target=lambda: followed.append(engine.logs("web", follow=True)))
    reader.start()
    engine("containers.kill", container="web")
    reader.join(20)
    assert followed == ["one\nthree\n"]


# -- what a dead engine leaves --------------------------------------------------------------------------------------


def test_the_end_of_a_killed_monitor_is_completed(engine):
    container = engine.run("sh", "-c", "trap : TERM; while :; do sleep 0.05; done", name="web")
    directory = engine.containers / container
    status = status_of(directory)
    monitor = process.pidfd_of(status["monitorPid"], status["monitorStartTime"])
    process.pidfd_send_signal(monitor, signal.SIGKILL)
    assert engine.wait("web") in (137, 255)
    os.close(monitor)
    found = engine.state("web")
    assert (found["Status"], found["Running"]) == ("exited", False)
    assert "monitor" in found["Error"]
    wait_until(lambda: not process_exists(status["pid"], status["pidStartTime"]))
    groups = [place for place, _, _ in os.walk("/sys/fs/cgroup")]  # of others, too, which come and go
    assert not [place for place in groups if place.endswith(f"orlop/{container}")]
    engine("containers.start", container="web")
    assert engine.state("web")["Running"] is True


def process_exists(pid: int, start_time: int) -> bool:
    try:
        return process.start_time(pid) == start_time
    except ProcessLookupError:
        return False


def test_a_monitor_killed_without_an_engine_is_found_by_the_next(engine):
    container = engine.run("sleep", "1000", name="web")
    engine("containers.create", request=engine.request("true", name="kept"))
    status = status_of(engine.containers / container)
    engine.kill()
    monitor = process.pidfd_of(status["monitorPid"], status["monitorStartTime"])
    process.pidfd_send_signal(monitor, signal.SIGKILL)
    process_is_gone(monitor)
    os.close(monitor)
    wait_until(lambda: engine.state("web")["Status"] == "exited" and engine.state("web")["ExitCode"] in (137, 255))
    assert engine.state("kept")["Status"] == "created"
    wait_until(lambda: not process_exists(status["pid"], status["pidStartTime"]))


def test_half_made_and_half_removed_containers_are_swept(engine):
    kept = engine.run("sleep", "1000", name="kept")
    gone = engine("containers.create", request=engine.request("true", name="gone"))["id"]
    half = engine("containers.create", request=engine.request("true", name="half"))["id"]
    engine.kill()
    (engine.containers / half / "container.json").unlink()
    (engine.containers / gone).rename(engine.containers / f"{gone}.removed")
    (engine.containers / ("ab" * 32)).mkdir()
    (engine.environment.run / "tasks" / ("cd" * 32)).mkdir()
    assert [entry["Id"] for entry in engine("containers.list", all=True)] == [kept]
    assert [path.name for path in engine.containers.iterdir()] == [kept]
    assert [path.name for path in (engine.environment.root / "snapshots" / "active").iterdir()] == [kept]
    assert [path.name for path in (engine.environment.run / "tasks").iterdir()] == [kept]
    engine.run("true", name="half")


def test_a_damaged_record_is_left_alone_and_hides_no_other(engine):
    engine("containers.create", request=engine.request("true", name="good"))
    bad = engine("containers.create", request=engine.request("true", name="bad"))["id"]
    engine.kill()
    (engine.containers / bad / "container.json").write_text("{")
    assert [entry["Names"] for entry in engine("containers.list", all=True)] == [["/good"]]
    with pytest.raises(errors.Internal, match=r"container\.json"):
        engine("containers.inspect", container=bad)
    assert (engine.containers / bad).exists()
    assert "is left alone" in (engine.environment.root / "engine.log").read_text()


def test_the_engine_killed_at_any_moment_of_a_run_loses_nothing(engine):
    """Killed at 30 moments of `run --rm`: a container of it either ran to its end and is gone, or never began."""
    ran = engine.environment.root.parent / "ran"
    ran.mkdir()
    binds = [{"source": str(ran), "target": "/ran"}]
    engine("engine.ping")
    for index in range(30):
        request = engine.request("touch", f"/ran/{index}", name=f"n{index}", auto_remove=True, binds=binds)
        engine.cut_short("containers.run", {"request": request}, 0.005 * index)
    wait_until(lambda: engine("containers.list", all=True) == [] or only_created(engine))
    engine.kill()
    for entry in engine("containers.list", all=True):
        assert entry["State"] == "created", "a start that was never asked for"
        engine("containers.remove", container=entry["Id"])
    assert list(engine.containers.iterdir()) == []
    assert list((engine.environment.root / "snapshots" / "active").iterdir()) == []
    assert engine.output("ls", "/ran", binds=binds)[0] == 0


def test_the_engine_killed_in_any_verb_leaves_a_state_that_is_true(engine):
    """Start, exec, stop, kill, remove, cut short at 60 moments: what the next engine says is what the kernel says."""
    dice = random.Random(11)
    verbs = ["containers.start", "containers.exec", "containers.stop", "containers.kill", "containers.remove"]
    container = ""
    for index in range(60):
        if not container or not (engine.containers / container).exists():
            request = engine.request("sh", "-c", SERVER, name=f"n{index}")
            container = engine("containers.create", request=request)["id"]
        verb = dice.choice([*verbs, "containers.start", "containers.start"])
        args: dict[str, object] = {"container": container}
        if verb == "containers.exec":
            args["request"] = {"args": ["true"]}
        if verb == "containers.remove":
            args["force"] = True
        engine.cut_short(verb, args, dice.random() * 0.06)
        for entry in engine("containers.list", all=True):
            says_running = entry["State"] == "running"
            wait_until(lambda container=container: engine.truth(container) != "changing")
            if engine("containers.list", all=True) == [entry]:
                assert says_running == (engine.truth(container) == "running"), (verb, entry["Status"])
    engine.kill()
    for entry in engine("containers.list", all=True):
        engine("containers.remove", container=entry["Id"], force=True)
    assert list(engine.containers.iterdir()) == []
    assert list((engine.environment.root / "snapshots" / "active").iterdir()) == []


def only_created(engine) -> bool:
    return all(entry["State"] == "created" for entry in engine("containers.list", all=True)) and not list(
        (engine.environment.run / "tasks").iterdir()
    )


def test_a_creation_that_fails_at_its_last_step_is_undone(engine, monkeypatch):
    opened = open_engine(engine.paths, Log(str(engine.environment.run / "log")))
    try:

        def full(record: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device", "container.json")

        monkeypatch.setattr(opened.records, "save", full)
        with pytest.raises(errors.Unavailable, match=r"container\.json: No space left on device"):
            lifecycle.create(opened, ContainerRequest(image="host", name="web", args=("true",)))
        assert list(engine.containers.iterdir()) == []
        assert list((engine.environment.root / "snapshots" / "active").iterdir()) == []
        monkeypatch.undo()
        assert lifecycle.create(opened, ContainerRequest(image="host", name="web", args=("true",)))[0].name == "web"
    finally:
        opened.close()
        opened.log.close()


def test_an_idle_engine_leaves_but_not_before_the_end_of_what_it_must_remove(engine, orlop_env):
    served = orlop_env.popen("serve", "--idle-timeout", "1500ms", stderr=subprocess.DEVNULL)
    wait_until(orlop_env.socket.exists)
    engine.run("sleep", "3", auto_remove=True)
    begun = time.monotonic()
    assert served.wait(30) == 0
    assert time.monotonic() - begun > 2
    assert list(engine.containers.iterdir()) == []
    assert not orlop_env.socket.exists()


# -- the engine itself ----------------------------------------------------------------------------------------------


def test_what_it_writes_is_for_its_user_alone(engine):
    engine("containers.create", request=engine.request("true"))
    assert engine.environment.root.stat().st_mode & 0o777 == 0o700
    assert engine.environment.run.stat().st_mode & 0o777 == 0o700
    assert engine.environment.socket.stat().st_mode & 0o777 == 0o600
    (directory,) = engine.containers.iterdir()
    assert directory.stat().st_mode & 0o777 == 0o700


def test_it_is_small_and_starts_fast_enough(engine):
    begun = time.monotonic()
    engine("engine.ping")
    seconds = time.monotonic() - begun
    pid = engine.environment.engine_pid()
    engine.output("true", auto_remove=True)
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    resident_kib = int(next(line for line in lines if line.startswith("VmRSS")).split()[1])
    assert resident_kib < 45 * 1024
    assert seconds < 5  # measured by `dev bench`; here only that nothing waits for a time-out


def test_containers_have_a_descriptor_limit_of_their_own_whatever_the_engine_has(engine, orlop_env):
    """The engine raises its own: a thousand clients need more than the 1024 that a login gives."""
    argv = ["sh", "-c", 'ulimit -Sn 512; ulimit -Hn 2000; exec "$0" serve', str(COMMAND)]
    with subprocess.Popen(argv, env=orlop_env.variables, stderr=subprocess.DEVNULL) as served:
        wait_until(orlop_env.socket.exists)
        assert engine.output("sh", "-c", "ulimit -Sn; ulimit -Hn")[:2] == (0, "1024\n2000\n")
        engine("engine.stop")
        assert served.wait(20) == 0


def test_fifty_containers_at_once(engine):
    ids: list[str] = []
    threads = [threading.Thread(target=lambda: ids.append(engine.run("true", auto_remove=True))) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(ids)) == 50
    wait_until(lambda: engine("containers.list", all=True) == [])


def test_a_frozen_container_delays_nobody(engine):
    container = engine.run("sh", "-c", SERVER, name="web")
    status = status_of(engine.containers / container)
    monitor = process.pidfd_of(status["monitorPid"], status["monitorStartTime"])
    process.pidfd_send_signal(monitor, signal.SIGSTOP)
    try:
        stopper = threading.Thread(target=lambda: engine("containers.stop", container="web", timeout_s=1))
        stopper.start()
        begun = time.monotonic()
        for _ in range(10):
            assert len(engine("containers.list", all=True)) == 1
            engine("containers.inspect", container="web")
        engine.output("true", auto_remove=True)
        assert time.monotonic() - begun < 10
    finally:
        process.pidfd_send_signal(monitor, signal.SIGCONT)
        os.close(monitor)
    stopper.join(30)
    assert engine.state("web")["Status"] == "exited"
