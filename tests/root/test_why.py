"""`orlop why` after faults that were put there: the first verdict is the right one, and it names its facts."""

from __future__ import annotations

import json
import os
import subprocess
import time

import pytest

from support import processes

WAIT_S_MAX = 60.0


def wait_until(condition):
    deadline = time.monotonic() + WAIT_S_MAX
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def why(orlop, name="c"):
    return json.loads(orlop("why", "--format", "json", name).stdout)


def state(orlop, name="c"):
    return orlop("inspect", "-f", "{{.State.Status}}", name).stdout.strip()


def run(orlop, *words, flags=()):
    orlop("run", "-d", "--name", "c", *flags, "host", *words, check=False)
    wait_until(lambda: state(orlop) != "running")


EXITS = (
    ("exit 0", "completed", "with success"),
    ("echo what is wrong >&2; exit 1", "exit", "exited with 1"),
    ("exit 78", "exit", "EX_CONFIG"),
    ("nosuchcommand", "exit", "did not find a command"),
    ("sh -c 'kill -SEGV $$'; exit $?", "exit", "SIGSEGV"),
    ("kill -SEGV 1; sleep 5; exit 9", "exit", "exited with 9"),
    (
        "echo sh: error while loading shared libraries: libz.so.1: no such file >&2; exit 127",
        "missing-library",
        "libz.so.1",
    ),
)


def test_an_exit_is_explained(orlop):
    for script, verdict, words in EXITS:
        run(orlop, "sh", "-c", script)
        found = why(orlop)
        assert (found["verdict"], words in found["summary"]) == (verdict, True), found
        orlop("rm", "c")


def test_output_is_shown_where_it_helps(orlop):
    run(orlop, "sh", "-c", "echo what is wrong >&2; exit 1")
    assert "what is wrong" in orlop("why", "c").stdout


def test_a_start_that_failed_names_its_code(orlop):
    for command, code in (("nosuchprogram", "E0301"), ("/etc", "E0302"), ("/etc/passwd", "E0303")):
        orlop("create", "--name", "c", "host", command)
        orlop("start", "c", check=False)
        found = why(orlop)
        assert found["verdict"] == "start-failed" and any(code in fact for fact in found["facts"]), found
        assert command in found["summary"]
        orlop("rm", "c")


def test_an_oom_kill_names_limit_peak_and_victim(orlop):
    run(orlop, "dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1", flags=("-m", "16m"))
    found = why(orlop)
    assert found["verdict"] == "oom", found
    assert "its memory limit was 16 MiB" in found["facts"]
    assert any(fact.startswith("it had used 16 MiB") or "at most" in fact for fact in found["facts"])
    if os.access("/dev/kmsg", os.R_OK):
        assert any("(dd)" in fact for fact in found["facts"]), found
    assert "orlop update -m 32m c" in found["remedy"]


def test_a_stop_is_told_from_a_kill_by_somebody_else(orlop):
    orlop("run", "-d", "--name", "c", "host", "sleep", "1000")
    orlop("stop", "c")
    found = why(orlop)
    assert found["verdict"] == "stopped" and any("no handler for SIGTERM" in fact for fact in found["facts"]), found
    orlop("start", "c")
    orlop("kill", "c")
    wait_until(lambda: state(orlop) == "exited")
    found = why(orlop)
    assert found["verdict"] == "killed"
    assert found["summary"].startswith("uid 0"), found
    assert "by" not in orlop("events", "--since", "1h", "--until", "0s", "--format", "json").stdout.split('"')
    orlop("start", "c")
    pid = int(orlop("inspect", "-f", "{{.State.Pid}}", "c").stdout)
    os.kill(pid, 9)
    wait_until(lambda: state(orlop) == "exited")
    found = why(orlop)
    assert found["verdict"] == "signal" and "SIGKILL" in found["summary"], found
    assert any("from outside of the container" in fact for fact in found["facts"]), found
    assert "perf trace" in found["remedy"]


def test_a_kill_below_an_init_is_told_as_one(orlop):
    orlop("run", "-d", "--init", "--name", "c", "host", "sleep", "1000")
    orlop("exec", "c", "sh", "-c", "kill -9 2")  # process 1 is the init, and tells of its child
    wait_until(lambda: state(orlop) == "exited")
    found = why(orlop)
    assert found["verdict"] == "signal" and "SIGKILL" in found["summary"], found
    assert any("inside of the container or outside" in fact for fact in found["facts"]), found


def test_an_init_tells_who_sent_the_signal(orlop):
    orlop("run", "-d", "--init", "--name", "c", "host", "sleep", "1000")
    pid = orlop("inspect", "-f", "{{.State.Pid}}", "c").stdout.strip()
    code = "import os, sys; os.setresuid(54321, 0, 0); os.kill(int(sys.argv[1]), 15)"
    subprocess.run(["python3", "-c", code, pid], check=True)
    wait_until(lambda: state(orlop) == "exited")
    found = why(orlop)
    assert found["verdict"] == "signal" and found["exit_code"] == 143, found
    assert "SIGTERM ended it, which a process outside of the container (uid 54321" in found["summary"], found
    orlop("start", "c")
    orlop("exec", "c", "sh", "-c", "kill -s INT 1")
    wait_until(lambda: state(orlop) == "exited")
    assert "SIGINT ended it, which process " in why(orlop)["summary"]
    script = "trap 'exit 7' TERM; while :; do sleep 0.05; done"
    orlop("run", "-d", "--init", "--name", "polite", "host", "sh", "-c", script)
    wait_until(lambda: "sleep" in orlop("top", "polite").stdout)
    orlop("exec", "polite", "sh", "-c", "kill -s TERM 1")
    wait_until(lambda: state(orlop, "polite") == "exited")
    found = why(orlop, "polite")
    assert found["verdict"] == "exit" and "SIGTERM, by process" in str(found["facts"]), found


def test_what_runs_waits_or_was_never_started(orlop):
    orlop("create", "--name", "c", "host", "true")
    assert why(orlop)["verdict"] == "never-started"
    orlop("run", "-d", "--name", "up", "host", "sleep", "1000")
    assert why(orlop, "up")["verdict"] == "running"
    orlop("pause", "up")
    assert why(orlop, "up")["verdict"] == "paused"
    orlop("run", "-d", "--name", "again", "--restart", "always", "host", "sh", "-c", "exit 3")
    wait_until(lambda: "starts it again" in str((found := why(orlop, "again"))["facts"]) and found["exit_code"] == 3)
    orlop("rm", "-f", "up", "again")


def test_the_unhealthy_and_the_lost(orlop):
    flags = ("--health-cmd", "echo not well; false", "--health-interval", "100ms", "--health-retries", "1")
    orlop("run", "-d", "--name", "c", *flags, "--health-on-failure", "kill", "host", "sleep", "1000")
    wait_until(lambda: state(orlop) == "exited")
    found = why(orlop)
    assert found["verdict"] == "unhealthy" and "not well" in str(found["facts"]), found
    container = orlop("run", "-d", "--name", "lost", "host", "sleep", "1000").stdout.strip()
    status = json.loads((orlop.root / "containers" / container / "status.json").read_text())
    processes.kill(status["monitorPid"], status["monitorStartTime"])
    wait_until(lambda: state(orlop, "lost") == "exited")
    assert why(orlop, "lost")["verdict"] == "monitor-lost"


# what checks a container that has nothing to answer with -> what its owner is told
ILL = {
    "a program that is not there": (("--health-cmd", "nosuch -f x"), "does not have the program", "--health-http"),
    "too slow": (("--health-cmd", "sleep 9", "--health-timeout", "50ms"), "timeout of 0.05 s", "--health-timeout"),
    "its own answer": (("--health-cmd", "echo not well; exit 3"), "exit status 3", "orlop exec c /bin/sh -c 'echo"),
    "nobody listens": (("--health-http", ":8080/"), "nothing in the container listens", "--health-start-period"),
}


@pytest.mark.parametrize("kind", ILL)
def test_what_runs_and_is_unhealthy(orlop, kind):
    flags, meaning, remedy = ILL[kind]
    check = (*flags, "--health-interval", "50ms", "--health-retries", "2")
    orlop("run", "-d", "--name", "c", "--network", "none", *check, "host", "sleep", "1000")
    wait_until(lambda: "(unhealthy)" in orlop("ps").stdout)
    found = why(orlop)
    assert found["verdict"] == "unhealthy" and found["state"] == "running" and "it runs since" in found["summary"]
    assert meaning in str(found["facts"]) and remedy in found["remedy"], found
    assert flags[1] in str(found["facts"]), found
    orlop("pause", "c")
    assert "it is paused since" in (paused := why(orlop))["summary"] and "orlop unpause c" in paused["remedy"], paused


def test_nobody_is_asked_about_nobody(orlop):
    refused = orlop("why", "nosuch", check=False)
    assert refused.code == 1 and "No such container: nosuch" in refused.stderr and "E0101" in refused.stderr


def test_codes_are_explained(orlop):
    assert orlop("explain", "e0305").stdout.startswith("E0305  The first line ends with CR LF\n")
    assert "no error E9999" in orlop("explain", "E9999", check=False).stderr
