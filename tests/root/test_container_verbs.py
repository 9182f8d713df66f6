"""The verbs that act on what runs, look at it, or change what was decided: the real command, the real kernel."""

from __future__ import annotations

import itertools
import json
import os
import select
import shlex
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orlop.engine.containers import changes
from orlop.engine.containers.state import RUNNING, Task
from orlop.linux.cgroup import Cgroup, detect
from orlop.spec.runtime import Pids, Resources
from support import processes
from support.engine import COMMAND, Environment

WAIT_S_MAX = 60.0
COUNTER = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done"
FOREVER = "trap 'exit 4' TERM; while :; do sleep 0.05; done"


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + WAIT_S_MAX
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def inspected(orlop: Environment, container: str) -> dict:
    found: dict = json.loads(orlop("inspect", "--type", "container", container).stdout)[0]
    return found


def state(orlop: Environment, container: str) -> str:
    return str(inspected(orlop, container)["State"]["Status"])


def start(orlop: Environment, name: str, script: str, *flags: str) -> str:
    container = orlop("run", "-d", "--network", "none", "--name", name, *flags, "host", "sh", "-c", script)
    if "trap" in script:  # until then it is deaf to the signal, and whoever stops it kills it
        pid = inspected(orlop, name)["State"]["Pid"]
        until(lambda: processes.handles(pid, signal.SIGTERM), "it handles the signal")
    return container.stdout.strip()


def cgroup_text(orlop: Environment, container: str, controller: str, file: str) -> str | None:
    return Cgroup(detect(), f"/orlop/{inspected(orlop, container)['Id']}").text(controller, file)


# -- pause ------------------------------------------------------------------------------------------------------------


def test_a_paused_container_stands_still_until_it_is_unpaused(orlop):
    start(orlop, "web", COUNTER)
    until(lambda: orlop("logs", "web").stdout, "it counts")
    assert orlop("pause", "web").stdout == "web\n"
    before = orlop("logs", "web").stdout
    assert "(Paused)" in orlop("ps").stdout
    assert state(orlop, "web") == "paused"
    time.sleep(0.3)
    assert orlop("logs", "web").stdout == before
    orlop("unpause", "web")
    until(lambda: orlop("logs", "web").stdout != before, "it counts on")
    assert state(orlop, "web") == "running"


def test_what_a_paused_container_refuses(orlop):
    container = start(orlop, "web", FOREVER)
    orlop("pause", "web")
    for words, text in (
        (["exec", "web", "true"], "Container web is paused, unpause the container before exec"),
        (["pause", "web"], f"Container {container} is already paused"),
        (["attach", "web"], "You cannot attach to a paused container, unpause it first"),
        (["start", "web"], "cannot start a paused container, try unpause instead"),
        (["rm", "web"], "container is paused and must be unpaused first"),
    ):
        done = orlop(*words, check=False)
        assert done.code == 1, done
        assert text in done.stderr, done
    orlop("rm", "-f", "web")
    assert orlop("unpause", "web", check=False).code == 1


@pytest.mark.parametrize(("verb", "code"), [(("stop",), 4), (("kill",), 137), (("kill", "-s", "TERM"), 4)])
def test_an_end_thaws(orlop, verb, code):
    start(orlop, "web", FOREVER)
    until(lambda: handles_term(orlop, "web"), "the handler is there")
    orlop("pause", "web")
    orlop(*verb, "web")
    assert orlop("wait", "web").stdout == f"{code}\n"


def handles_term(orlop: Environment, container: str) -> bool:
    lines = Path(f"/proc/{inspected(orlop, container)['State']['Pid']}/status").read_text().splitlines()
    caught = next(line.split()[1] for line in lines if line.startswith("SigCgt:"))
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


def test_the_next_engine_knows_that_a_container_is_paused_and_no_list_waits_for_it(orlop):
    start(orlop, "stuck", FOREVER)
    start(orlop, "other", FOREVER)
    orlop("pause", "stuck")
    os.kill(inspected(orlop, "other")["State"]["Pid"], signal.SIGSTOP)
    pid = orlop.engine_pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    shown = orlop("ps", "--format", "{{.Names}} {{.State}}", timeout=WAIT_S_MAX).stdout.split("\n")
    assert sorted(shown) == ["", "other running", "stuck paused"]
    orlop("rm", "-f", "other")
    orlop("unpause", "stuck")
    assert state(orlop, "stuck") == "running"


# -- restart, rename --------------------------------------------------------------------------------------------------


def test_a_restart_is_a_new_run_of_the_same_container(orlop):
    container = start(orlop, "web", FOREVER)
    before = inspected(orlop, "web")["State"]
    assert orlop("restart", "-t", "20", "web").stdout == "web\n"
    after = inspected(orlop, "web")
    assert (after["Id"], after["State"]["Status"]) == (container, "running")
    assert before["StartedAt"] < after["State"]["StartedAt"]
    assert after["State"]["Pid"] != before["Pid"]


def test_a_restart_starts_what_does_not_run_and_keeps_what_removes_itself(orlop):
    orlop("create", "--network", "none", "--name", "cold", "host", "sleep", "300")
    orlop("restart", "cold")
    assert state(orlop, "cold") == "running"
    start(orlop, "brief", FOREVER, "--rm")
    orlop("restart", "-s", "KILL", "brief")
    assert state(orlop, "brief") == "running"
    orlop("stop", "brief")
    until(lambda: "brief" not in orlop("ps", "-a").stdout, "--rm removes it at its own end")


def test_a_name_changes_hands(orlop):
    first = start(orlop, "old", FOREVER)
    orlop("rename", "old", "new")
    assert inspected(orlop, "new")["Id"] == first
    assert orlop("inspect", "old", check=False).code == 1
    second = start(orlop, "old", FOREVER)
    taken = orlop("rename", "old", "new", check=False)
    assert f'The container name "/new" is already in use by container "{first}"' in taken.stderr
    assert "same name as its current name" in orlop("rename", "old", "old", check=False).stderr
    for bad in ("a/b", "", "-x", "x" * 300, "a b", "\u00e9"):
        assert orlop("rename", "--", "old", bad, check=False).code == 1, bad
    assert inspected(orlop, "old")["Id"] == second


# -- update -----------------------------------------------------------------------------------------------------------


def test_limits_change_while_a_container_runs(orlop):
    start(orlop, "web", FOREVER, "-m", "64m", "--cpus", "1")
    pid = inspected(orlop, "web")["State"]["Pid"]
    orlop("update", "-m", "128m", "--cpus", "2", "--pids-limit", "7", "--cpu-shares", "512", "web")
    layout = detect()
    v1 = layout.version("memory") == 1
    assert cgroup_text(orlop, "web", "memory", "memory.limit_in_bytes" if v1 else "memory.max") == str(128 << 20)
    assert cgroup_text(orlop, "web", "pids", "pids.max") == "7"
    if layout.version("cpu") == 1:
        assert cgroup_text(orlop, "web", "cpu", "cpu.cfs_quota_us") == "200000"
        assert cgroup_text(orlop, "web", "cpu", "cpu.shares") == "512"
    else:
        assert cgroup_text(orlop, "web", "cpu", "cpu.max") == "200000 100000"
    orlop("update", "--pids-limit", "-1", "-m", "32m", "web")
    assert cgroup_text(orlop, "web", "pids", "pids.max") == "max"
    found = inspected(orlop, "web")
    assert (found["State"]["Pid"], found["HostConfig"]["Memory"], found["HostConfig"]["PidsLimit"]) == (
        pid, 32 << 20, 0,
    )  # fmt: skip
    orlop("restart", "-s", "KILL", "web")
    assert cgroup_text(orlop, "web", "memory", "memory.limit_in_bytes" if v1 else "memory.max") == str(32 << 20)


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["-m", "1m"], "Minimum memory limit allowed is 6MB"),
        (["--cpu-quota", "5000"], "Conflicting options: Nano CPUs and CPU Quota cannot both be set"),
        (["--cpuset-cpus", "4095"], "Requested CPUs are not available"),
        (["--blkio-weight", "5"], "Range of blkio weight is from 10 to 1000"),
        (["--restart", "sometimes"], "unknown policy 'sometimes'"),
        (["--cpus", "2", "--cpu-rt-runtime", "1000"], "refuses"),
        ([], "you must provide one or more flags"),
    ],
)
def test_a_refused_update_changes_nothing(orlop, flags, text):
    start(orlop, "web", FOREVER, "-m", "64m", "--cpus", "1")
    before = inspected(orlop, "web")["HostConfig"]
    quota = cgroup_text(orlop, "web", "cpu", "cpu.cfs_quota_us")
    done = orlop("update", *flags, "web", check=False)
    assert done.code == 1, done
    assert text in done.stderr, done
    assert inspected(orlop, "web")["HostConfig"] == before
    assert cgroup_text(orlop, "web", "cpu", "cpu.cfs_quota_us") == quota


def test_a_restart_policy_is_given_later(orlop):
    start(orlop, "web", FOREVER)
    orlop("update", "--restart", "on-failure:5", "web")
    assert inspected(orlop, "web")["HostConfig"]["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 5}
    os.kill(inspected(orlop, "web")["State"]["Pid"], signal.SIGKILL)
    until(lambda: inspected(orlop, "web")["RestartCount"] == 1, "its monitor starts it again")
    orlop("rm", "-f", "web")


# -- top, stats, port -------------------------------------------------------------------------------------------------


def test_top_shows_what_ps_shows(orlop, peer):
    ps = peer("ps")
    start(orlop, "web", "sleep 300 & sleep 301 & wait")
    until(lambda: len(orlop("top", "web").stdout.splitlines()) == 4, "three processes")
    rows = [line.split(None, 7) for line in orlop("top", "web").stdout.splitlines()]
    assert rows[0] == "UID PID PPID C STIME TTY TIME CMD".split()
    pids = [row[1] for row in rows[1:]]
    wanted = subprocess.run([ps, "-f", "-ww", "-q", ",".join(pids)], capture_output=True, text=True, check=True).stdout
    theirs = [line.split(None, 7) for line in wanted.splitlines()[1:]]

    def lasting(rows: list[list[str]]) -> list[list[str]]:
        return sorted([*row[:3], *row[4:6], row[7]] for row in rows)  # C and TIME change between two looks

    assert lasting(rows[1:]) == lasting(theirs)
    assert orlop("top", "web", "-o", "pid,comm").stdout.splitlines()[0].split() == ["PID", "COMMAND"]
    assert len(orlop("top", "web", "aux").stdout.splitlines()) == 4
    for options, text in ((["-o", "comm"], "Couldn't find PID field"), (["--nonsense"], "ps: error")):
        assert text in orlop("top", "web", *options, check=False).stderr


def test_stats_are_the_kernels_numbers(orlop):
    start(orlop, "busy", "while :; do :; done", "-m", "64m")
    start(orlop, "idle", "exec sleep 300", "--cpus", "1")
    orlop("create", "--name", "cold", "host", "true")
    rows = {row["Name"]: row for row in map(json.loads, stats(orlop, "--format", "json").splitlines())}
    assert set(rows) == {"busy", "idle"}
    busy, idle = (float(rows[name]["CPUPerc"].rstrip("%")) for name in ("busy", "idle"))
    assert busy > idle >= 0  # how busy it is, the rest of the machine decides
    assert rows["busy"]["MemUsage"].endswith(" / 64MiB")
    assert (rows["idle"]["PIDs"], rows["idle"]["NetIO"]) == ("1", "0B / 0B")
    header, *lines = stats(orlop, "-a").splitlines()
    assert header.split("  ")[0] == "CONTAINER ID" and header.endswith("PIDS")
    assert len(lines) == 3
    assert stats(orlop, "--format", "{{.Name}} {{.MemPerc}}", "cold") == "cold 0.00%\n"
    assert "No such container: nosuch" in orlop("stats", "--no-stream", "nosuch", check=False).stderr


def stats(orlop: Environment, *words: str) -> str:
    return orlop("stats", "--no-stream", *words).stdout


def test_a_container_without_published_ports(orlop):
    start(orlop, "web", FOREVER)
    assert orlop("port", "web").stdout == ""
    done = orlop("port", "web", "80", check=False)
    assert (done.code, "no public port '80' published for web" in done.stderr) == (1, True)


# -- prune, sizes, filters --------------------------------------------------------------------------------------------


def test_prune_takes_what_does_not_run_and_fits(orlop):
    start(orlop, "alive", FOREVER)
    for name, label in (("a", "tier=front"), ("b", "tier=back"), ("c", "none=")):
        orlop("create", "--network", "none", "--name", name, "-l", label, "host", "true")
    names = ["ps", "-a", "--format", "{{.Names}}"]
    assert orlop("container", "prune", input="n\n").stdout.startswith(
        "WARNING! This will remove all stopped containers"
    )
    orlop("container", "prune", "-f", "--filter", "until=2020-01-01T00:00:00Z")
    assert len(orlop(*names).stdout.split()) == 4
    orlop("container", "prune", "-f", "--filter", "label=tier=front")
    assert orlop(*names).stdout.split() == ["c", "b", "alive"]
    orlop("container", "prune", "-f", "--filter", "label!=tier")
    assert orlop(*names).stdout.split() == ["b", "alive"]
    done = orlop("container", "prune", input="y\n").stdout
    assert "Deleted Containers:" in done and "Total reclaimed space: " in done
    assert orlop(*names).stdout.split() == ["alive"]


def test_sizes_and_filters(orlop):
    first = start(orlop, "front", "head -c 2000000 /dev/zero > /big; " + FOREVER, "-l", "tier=front", "--expose", "80")
    start(orlop, "back", FOREVER, "-l", "tier=back", "-v", "/tmp:/data")
    orlop("create", "--network", "none", "--name", "cold", "--expose", "53/udp", "host", "true")
    until(lambda: "MB (virtual" in orlop("ps", "-s", "--filter", "name=front").stdout, "the size of what it wrote")
    assert inspected(orlop, "front").get("SizeRw") is None
    assert int(orlop("container", "inspect", "-s", "-f", "{{.SizeRw}}", "front").stdout) >= 2_000_000

    def names(*filters: str, all: bool = True) -> list[str]:
        words = [word for text in filters for word in ("--filter", text)]
        return orlop("ps", *(["-a"] if all else []), "--format", "{{.Names}}", *words).stdout.split()

    assert names("name=^/front$") == names(f"id={first[:8]}") == names("label=tier=front") == ["front"]
    assert names("name=(front|cold)") == ["cold", "front"]
    assert names("label=tier", "volume=/data") == ["back"]
    assert names("since=front") == ["cold", "back"]
    assert names("before=back", all=False) == ["front"]
    assert names("status=created", "status=paused", all=False) == ["cold"]
    assert names("expose=80") == names("expose=70-90/tcp") == ["front"]
    assert names("expose=53") == []
    assert names("ancestor=host", "health=none", "is-task=false", "network=none") == ["cold", "back", "front"]
    assert names("publish=80") == names("is-task=true") == names("exited=0") == []
    assert orlop("ps", "-n", "1", "-q", "--no-trunc").stdout == orlop("ps", "-lq", "--no-trunc").stdout
    header = orlop("ps", "--format", 'table {{.Names}}\\t{{.Label "tier"}}').stdout.splitlines()[0]
    assert header.split() == ["NAMES", "tier"]


# -- events -----------------------------------------------------------------------------------------------------------


def told(orlop: Environment, *words: str) -> list[dict]:
    lines = orlop("events", "--since", "1h", "--until", "0s", "--format", "json", *words).stdout.splitlines()
    return [json.loads(line) for line in lines]


def test_events_tell_the_story_of_a_container(orlop):
    orlop(
        "run",
        "--rm",
        "--network",
        "none",
        "--name",
        "web",
        "-l",
        "tier=front",
        "host",
        "sh",
        "-c",
        "exit 7",
        check=False,
    )
    until(lambda: told(orlop, "--filter", "event=destroy"), "it is removed")
    story = told(orlop, "--filter", "type=container")
    assert [event["Action"] for event in story] == ["create", "attach", "start", "die", "destroy"]
    attributes = story[3]["Actor"]["Attributes"]
    assert (attributes["exitCode"], attributes["name"], attributes["tier"]) == ("7", "web", "front")
    text = orlop("events", "--since", "1h", "--until", "0s", "--filter", "event=die").stdout
    assert text.rstrip().endswith("(execDuration=0, exitCode=7, image=host, name=web, tier=front)")
    assert orlop("system", "events", "--since", "1h", "--until", "0s", "--filter", "container=nosuch").stdout == ""


def test_stop_is_told_in_dockers_order(orlop):
    start(orlop, "web", FOREVER)
    orlop("stop", "web")
    assert [event["Action"] for event in told(orlop, "-f", "container=web")][-3:] == ["kill", "die", "stop"]
    start(orlop, "forced", FOREVER)
    orlop("rm", "-f", "forced")
    actions = [event["Action"] for event in told(orlop, "-f", "container=forced", "-f", "type=container")]
    assert actions == ["create", "start", "kill", "die", "destroy"]


def test_an_end_that_no_engine_saw_is_told_once_by_the_next(orlop):
    for name in ("a", "b"):
        start(orlop, name, FOREVER)
    for name in ("a", "b"):
        engine, victim = orlop.engine_pid(), inspected(orlop, name)["State"]["Pid"]
        assert engine is not None
        os.kill(engine, signal.SIGKILL)
        os.kill(victim, signal.SIGKILL)
        until(lambda name=name: state(orlop, name) == "exited", "the next engine sees it")
    until(lambda: len(told(orlop, "-f", "event=die")) >= 2, "both ends are told")
    assert sorted(event["Actor"]["Attributes"]["name"] for event in told(orlop, "-f", "event=die")) == ["a", "b"]


def test_ends_of_execs_are_told_once_also_by_the_next_engine(orlop):
    start(orlop, "web", FOREVER)
    orlop("exec", "web", "sh", "-c", "exit 3", check=False)
    orlop("exec", "-d", "web", "sleep", "0.5")
    engine = orlop.engine_pid()
    assert engine is not None
    os.kill(engine, signal.SIGKILL)
    until(lambda: len(told(orlop, "-f", "event=exec_die")) >= 2, "both are told")
    codes = [event["Actor"]["Attributes"]["exitCode"] for event in told(orlop, "-f", "event=exec_die")]
    assert codes == ["3", "0"]
    assert len(told(orlop, "-f", "event=exec_start")) == len(told(orlop, "-f", "event=exec_create")) == 2


def test_events_are_told_as_they_happen(orlop):
    orlop("create", "--network", "none", "--name", "web", "host", "true")
    with orlop.popen("events", "--filter", "container=web", stdout=subprocess.PIPE) as listener:
        try:
            assert listener.stdout is not None
            # It may not listen yet: a container has as many names as it takes.
            for old, new in itertools.pairwise(itertools.chain(["web"], (f"web{n}" for n in range(1000)))):
                orlop("rename", old, new)
                if select.select([listener.stdout], [], [], 0.2)[0]:
                    break
            line = listener.stdout.readline().decode()
        finally:
            listener.kill()
        assert "rename" in line
        assert "oldName=/web" in line


# -- logs -------------------------------------------------------------------------------------------------------------


def test_lines_of_a_log_are_chosen(orlop):
    script = (
        r"""echo plain; echo '{"level":"error","user":{"id":7}}'; echo '{"level":"info"}' >&2; printf 'last error'"""
    )
    orlop("run", "--network", "none", "--name", "web", "host", "sh", "-c", script)
    assert orlop("logs", "--grep", "error$", "web").stdout == "last error"
    found = orlop("logs", "--json", "user.id=7", "--json", "level=error", "--names", "web")
    assert (found.stdout, found.stderr) == ('web {"level":"error","user":{"id":7}}\n', "")
    assert orlop("logs", "-f", "--json", "level=info", "web").stderr == '{"level":"info"}\n'
    assert orlop("logs", "--tail", "1", "--grep", "plain", "web").stdout == ""
    dated = orlop("logs", "-t", "--grep", "^plain$", "web").stdout
    assert dated.endswith("Z plain\n") and dated.count("\n") == 1
    refused = orlop("logs", "--grep", "(", "web", check=False)
    assert refused.code == 1 and "it is no pattern" in refused.stderr


# -- show-run ---------------------------------------------------------------------------------------------------------


def test_the_printed_command_line_makes_the_same_container(orlop):
    flags = [
        "-m",
        "64m",
        "--cpus",
        "0.5",
        "-e",
        'TEXT=it\'s "here"',
        "-l",
        "a=b c",
        "--ulimit",
        "core=0",
        "--read-only",
    ]
    start(orlop, "web", FOREVER, *flags, "--cap-drop", "ALL", "--tmpfs", "/t:size=1m", "-v", "/tmp:/data:ro")
    line = orlop("show-run", "--name", "copy", "web").stdout
    assert line.startswith("orlop run --name=copy --detach ")
    words = [str(COMMAND), *shlex.split(line)[1:]]
    subprocess.run(words, env=orlop.variables, check=True, capture_output=True)
    first, second = inspected(orlop, "web"), inspected(orlop, "copy")
    for part in ("HostConfig", "Mounts", "Path", "Args"):
        assert first[part] == second[part]
    for found in (first, second):
        found["Config"].pop("Hostname")
    assert first["Config"] == second["Config"]


def test_a_container_is_written_for_other_tools(orlop, tmp_path):
    flags = ("-e", "PRICE=$5 100%", "-p", "127.0.0.1::80", "-m", "64m", "-v", "data:/data", "--cap-drop", "ALL")
    orlop("create", "--name", "web", *flags, "--egress", "deny", "host", "sleep", "1000")
    shown = orlop("show-run", "--as", "compose", "--name", "copy", "web")
    assert "compose has no words for --egress" in shown.stderr
    (tmp_path / "compose.yaml").write_text(shown.stdout)
    orlop("compose", "-f", tmp_path / "compose.yaml", "create")
    first, second = inspected(orlop, "web"), inspected(orlop, "copy")
    assert [one["Name"] for one in first["Mounts"]] == [one["Name"] for one in second["Mounts"]] == ["data"]
    assert set(first["Config"]["Env"]) - set(second["Config"]["Env"]) == set()
    for part in ("Memory", "CapDrop", "PortBindings", "NetworkMode"):
        assert first["HostConfig"][part] == second["HostConfig"][part], part
    assert "kind: Pod\n" in orlop("show-run", "--as", "kube", "web").stdout
    assert "\nPodmanArgs=--memory=67108864\n" in orlop("show-run", "--as", "quadlet", "web").stdout
    refused = orlop("show-run", "--as", "swarm", "web", check=False)
    assert refused.code == 1 and "there is no form 'swarm'" in refused.stderr


def test_limits_of_one_whose_cgroup_has_just_gone_are_those_of_its_next_run():
    """Its monitor removes the cgroup first, and says then that it has ended."""
    layout = detect()
    host = SimpleNamespace(runtime=SimpleNamespace(layout=layout))
    engine: Any = SimpleNamespace(host=host, observe=lambda _: Task(RUNNING))
    record: Any = SimpleNamespace(id="x", subject="container x")
    gone = Cgroup(layout, f"/orlop-test-{os.getpid()}-gone")
    changes._apply(engine, record, gone, Resources(pids=Pids(limit=5)))
