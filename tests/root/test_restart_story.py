"""Restart policies through the real command: docker's states and words, with and without an engine, after a reboot."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from support import processes

RESTARTERS = int(os.environ.get("ORLOP_TEST_RESTARTERS", "6"))
WAIT_S_MAX = 60.0 + RESTARTERS


def wait_until(condition):
    deadline = time.monotonic() + WAIT_S_MAX
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def inspect(orlop, name, template):
    return orlop("inspect", "-f", template, name).stdout.strip()


def status(orlop, container):
    return json.loads((orlop.root / "containers" / container / "status.json").read_text())


def kill_engine(orlop):
    pid = orlop.engine_pid()
    assert pid is not None
    processes.kill(pid, processes.start_time(pid))
    wait_until(lambda: orlop.engine_pid() != pid)


def test_on_failure_restarts_so_often(orlop):
    container = orlop(
        "run", "-d", "--name", "c", "--restart", "on-failure:3", "host", "sh", "-c", "exit 4"
    ).stdout.strip()
    wait_until(lambda: inspect(orlop, "c", "{{.State.Status}}") == "exited")
    assert inspect(orlop, "c", "{{.RestartCount}} {{.State.ExitCode}}") == "3 4"
    assert (
        inspect(orlop, "c", "{{.HostConfig.RestartPolicy.Name}} {{.HostConfig.RestartPolicy.MaximumRetryCount}}")
        == "on-failure 3"
    )
    orlop("start", container)
    wait_until(lambda: inspect(orlop, "c", "{{.State.Status}}") == "exited")
    assert inspect(orlop, "c", "{{.RestartCount}}") == "3"


def test_a_restarting_container_has_dockers_states_and_arrows(orlop):
    container = orlop("run", "-d", "--name", "c", "--restart", "always", "host", "sh", "-c", "exit 1").stdout.strip()
    wait_until(lambda: status(orlop, container).get("restarts", 0) >= 5)
    wait_until(
        lambda: (
            inspect(orlop, "c", "{{.State.Status}} {{.State.Running}} {{.State.Restarting}}") == "restarting true true"
        )
    )
    assert "Restarting (1) " in orlop("ps").stdout
    assert orlop("ps", "-q", "--no-trunc", "--filter", "status=restarting").stdout.strip() == container
    for verb, words in (("exec", "is restarting, wait until"), ("rm", "container is restarting")):
        refused = orlop(verb, "c", *(["true"] if verb == "exec" else []), check=False)
        assert refused.code != 0 and words in refused.stderr
    assert orlop("start", "c").code == 0
    assert orlop("wait", "c").stdout.strip() == "1"
    assert orlop("stop", "c").stdout.strip() == "c"
    assert inspect(orlop, "c", "{{.State.Status}}") == "exited"
    runs = status(orlop, container)["restarts"]
    time.sleep(0.5)
    assert status(orlop, container)["restarts"] == runs


def test_stop_and_kill_end_a_container_that_always_restarts(orlop):
    for name, verb in (("one", ("stop", "-t", "0")), ("two", ("kill",)), ("three", ("rm", "-f"))):
        orlop("run", "-d", "--name", name, "--restart", "always", "host", "sleep", "1000")
        orlop(*verb, name)
    wait_until(lambda: "Up" not in orlop("ps", "-a").stdout)
    assert inspect(orlop, "one", "{{.State.Status}} {{.RestartCount}}") == "exited 0"
    assert inspect(orlop, "two", "{{.State.Status}} {{.State.ExitCode}}") == "exited 137"
    assert orlop("inspect", "three", check=False).code == 1


def test_another_signal_does_not_mean_an_end(orlop):
    container = orlop(
        "run",
        "-d",
        "--name",
        "c",
        "--restart",
        "always",
        "host",
        "sh",
        "-c",
        "trap 'exit 3' HUP; while :; do sleep 0.1; done",
    ).stdout.strip()
    pid = int(inspect(orlop, "c", "{{.State.Pid}}"))
    wait_until(lambda: processes.handles(pid, signal.SIGHUP))
    orlop("kill", "-s", "HUP", "c")
    wait_until(lambda: status(orlop, container).get("restarts", 0) == 1)
    orlop("rm", "-f", "c")


def test_restarts_go_on_while_the_engine_is_dead_and_a_stop_by_the_next_holds(orlop):
    container = orlop(
        "run", "-d", "--name", "c", "--restart", "always", "host", "sh", "-c", "echo run; exit 1"
    ).stdout.strip()
    kill_engine(orlop)
    wait_until(lambda: status(orlop, container).get("restarts", 0) >= 3)
    assert orlop("stop", "c").code == 0
    kill_engine(orlop)
    assert inspect(orlop, "c", "{{.State.Status}}") == "exited"
    runs = int(inspect(orlop, "c", "{{.RestartCount}}"))
    assert orlop("logs", "c").stdout == "run\n" * (runs + 1)


def test_a_killed_monitor_is_replaced_and_the_count_goes_on(orlop):
    container = orlop("run", "-d", "--name", "c", "--restart", "always", "host", "sleep", "1000").stdout.strip()
    first = status(orlop, container)
    processes.kill(first["monitorPid"], first["monitorStartTime"])
    wait_until(lambda: status(orlop, container)["startedAt"] != first["startedAt"])
    wait_until(lambda: inspect(orlop, "c", "{{.State.Status}} {{.RestartCount}}") == "running 1")
    wait_until(lambda: not processes.is_alive(first["pid"]))
    # and by the next engine, when this one is dead too
    second = status(orlop, container)
    kill_engine(orlop)
    processes.kill(second["monitorPid"], second["monitorStartTime"])
    orlop("ps")
    wait_until(lambda: inspect(orlop, "c", "{{.State.Status}} {{.RestartCount}}") == "running 2")
    orlop("rm", "-f", "c")


def test_what_was_stopped_is_not_restarted_by_the_next_engine(orlop):
    container = orlop("run", "-d", "--name", "c", "--restart", "always", "host", "sleep", "1000").stdout.strip()
    orlop("stop", "-t", "0", "c")
    started = status(orlop, container)["startedAt"]
    kill_engine(orlop)
    orlop("ps")
    time.sleep(1)
    assert status(orlop, container)["startedAt"] == started


REFUSED = (
    (["--restart", "sometimes"], "unknown policy 'sometimes'"),
    (["--restart", ":3"], "no policy provided before colon"),
    (["--restart", "on-failure:x"], "maximum retry count must be an integer"),
    (["--restart", "on-failure:-1"], "not negative"),
    (["--restart", "always:3"], "can only be used with 'on-failure'"),
    (["--restart", "always", "--rm"], "restart policy"),
    (["--depends-on", "nosuch"], "nosuch"),
)


def test_a_policy_that_is_none_is_refused(orlop):
    for flags, words in REFUSED:
        refused = orlop("run", "-d", *flags, "host", "true", check=False)
        assert refused.code == 125 and words in refused.stderr, refused
    assert orlop.container_ids() == []


def reboot(orlop):
    """What a power cut leaves: no process of ours, an empty run directory, and the records of another boot."""
    kill_engine(orlop)
    for pid in orlop.processes():
        processes.kill(pid, processes.start_time(pid))
    wait_until(lambda: not orlop.processes())
    shutil.rmtree(orlop.run)
    Path(orlop.run).mkdir(0o700)
    for path in orlop.root.glob("containers/*/status.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"bootId": "00000000-0000-0000-0000-000000000000"}))


def test_a_rebooted_machine_comes_back_in_dependency_order(orlop):
    ids = {}
    for name, policy, needs in (
        ("db", "always", []),
        ("migrate", "no", ["--depends-on", "db"]),
        ("api", "unless-stopped", ["--depends-on", "migrate:completed", "--depends-on", "db"]),
        ("off", "unless-stopped", []),
        ("once", "no", []),
    ):
        command = ["sh", "-c", "sleep 0.3"] if name == "migrate" else ["sleep", "1000"]
        ids[name] = orlop("run", "-d", "--name", name, "--restart", policy, *needs, "host", *command).stdout.strip()
    orlop("stop", "-t", "0", "off")
    assert orlop("wait", "migrate").stdout.strip() == "0"
    reboot(orlop)
    orlop("ps")
    wait_until(lambda: set(orlop("ps", "--format", "{{.Names}}").stdout.split()) == {"db", "api"})
    started = {name: status(orlop, ids[name])["startedAt"] for name in ids}
    migrated = json.loads((orlop.root / "containers" / ids["migrate"] / "exit.json").read_text())
    assert started["db"] < started["migrate"] < migrated["finishedAt"] < started["api"]
    assert migrated["startedAt"] == started["migrate"] and migrated["exitCode"] == 0
    assert inspect(orlop, "once", "{{.State.Status}} {{.State.ExitCode}}") == "exited 255"
    assert inspect(orlop, "off", "{{.State.Status}}") == "exited"
    orlop("rm", "-f", "db", "api")


def test_a_cycle_of_dependencies_is_refused(orlop):
    # No names that could be the beginning of an id.
    orlop("create", "--name", "one", "host", "true")
    orlop("create", "--name", "two", "--depends-on", "one", "host", "true")
    orlop("rm", "one")
    refused = orlop("create", "--name", "one", "--depends-on", "two", "host", "true", check=False)
    assert refused.code != 0 and "one -> two -> one" in refused.stderr, refused


def test_a_start_at_boot_that_fails_is_tried_again(orlop, tmp_path):
    source = tmp_path / "mounted"
    source.mkdir()
    orlop("run", "-d", "--name", "c", "--restart", "always", "-v", f"{source}:/m", "host", "sleep", "1000")
    reboot(orlop)
    source.rmdir()
    source.write_text("in the way")
    source.chmod(0)
    orlop("ps")
    wait_until(lambda: "m" in inspect(orlop, "c", "{{.State.Error}}"))
    source.unlink()
    source.mkdir()
    wait_until(lambda: inspect(orlop, "c", "{{.State.Status}}") == "running")
    orlop("rm", "-f", "c")


@pytest.mark.timeout(120 + 5 * RESTARTERS)
def test_many_containers_restart_by_themselves(orlop):
    """ORLOP_TEST_RESTARTERS of them, half of which fail for ever, with the engine killed meanwhile."""
    count = RESTARTERS
    ids = []
    for number in range(count):
        policy, code = (("on-failure:3", 7), ("always", 0))[number % 2]
        ids.append(
            orlop(
                "run", "-d", "--name", f"c{number}", "--restart", policy, "host", "sh", "-c", f"echo run; exit {code}"
            ).stdout.strip()
        )
    kill_engine(orlop)
    wait_until(lambda: all(status(orlop, one).get("restarts", 0) >= 3 for one in ids))
    orlop("stop", *(f"c{number}" for number in range(count)), timeout=120)
    for number, one in enumerate(ids):
        told = inspect(orlop, one, "{{.State.Status}} {{.RestartCount}} {{.State.ExitCode}}").split()
        runs = orlop("logs", one).stdout
        assert told[0] == "exited" and runs == "run\n" * runs.count("run\n")
        if number % 2:  # the stop may have met the last run in its middle
            assert told[2] in ("0", "137") and int(told[1]) <= runs.count("run\n") <= int(told[1]) + 1
        else:
            assert told[1:] == ["3", "7"] and runs.count("run\n") == 4
