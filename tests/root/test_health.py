"""Health checks on the real kernel: commands inside, requests from outside, and what becomes of who is ill."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import threading
import time

import pytest

from orlop.linux import process
from support import processes

WAIT_S_MAX = 60.0
QUICK = ("--health-interval", "100ms", "--health-retries", "2", "--health-timeout", "5s")


def wait_until(condition):
    deadline = time.monotonic() + WAIT_S_MAX
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def inspect(orlop, name, template):
    return orlop("inspect", "-f", template, name).stdout.strip()


def said(orlop, name="c"):
    return json.loads(inspect(orlop, name, "{{json .State.Health}}"))


def run(orlop, *flags, command=("sleep", "1000"), name="c"):
    return orlop("run", "-d", "--name", name, *QUICK, *flags, "host", *command).stdout.strip()


def test_a_command_that_succeeds_is_healthy_and_one_that_fails_is_not(orlop):
    run(orlop, "--health-cmd", "echo checked; test -e /tmp/well")
    wait_until(lambda: said(orlop)["Status"] == "unhealthy")
    assert "(unhealthy)" in orlop("ps").stdout
    told = said(orlop)
    assert told["FailingStreak"] >= 2 and told["Log"][-1]["Output"] == "checked\n" and told["Log"][-1]["ExitCode"] == 1
    orlop("exec", "c", "touch", "/tmp/well")
    wait_until(lambda: said(orlop)["Status"] == "healthy")
    assert "(healthy)" in orlop("ps").stdout
    wait_until(lambda: len(said(orlop)["Log"]) == 5)
    assert said(orlop)["FailingStreak"] == 0
    events = orlop("events", "--since", "1h", "--until", "0s", "--format", "{{.Action}}").stdout.splitlines()
    assert [event for event in events if event.startswith("health_status")] == [
        "health_status: unhealthy",
        "health_status: healthy",
    ]


def test_checks_go_on_without_the_engine(orlop):
    run(orlop, "--health-cmd", "test -e /tmp/well")
    pid = orlop.engine_pid()
    processes.kill(pid, processes.start_time(pid))
    path = orlop.root / "containers" / orlop.container_ids()[0] / "health.json"
    wait_until(lambda: json.loads(path.read_text())["status"] == "unhealthy")


def test_a_check_that_takes_too_long_is_killed_with_what_it_started(orlop):
    run(orlop, "--health-cmd", "sleep 987 & echo begun; sleep 987", "--health-timeout", "300ms")
    wait_until(lambda: said(orlop)["Status"] == "unhealthy")
    last = said(orlop)["Log"][-1]
    assert last["ExitCode"] == -1 and "exceeded timeout (0.3s)" in last["Output"] and "begun" in last["Output"]
    inside = orlop("exec", "c", "sh", "-c", "cat /proc/[0-9]*/cmdline").stdout
    assert inside.count("987") <= 4  # of the check that runs now


def test_long_output_is_cut_and_a_missing_command_is_told(orlop):
    run(orlop, "--health-cmd", "head -c 100000 /dev/zero | tr '\\0' x")
    wait_until(lambda: said(orlop)["Status"] == "healthy")
    assert said(orlop)["Log"][-1]["Output"] == "x" * 4096 + "..."
    orlop("rm", "-f", "c")
    run(orlop, "--health-cmd", "nosuchcommand")
    wait_until(lambda: said(orlop)["Status"] == "unhealthy")
    assert said(orlop)["Log"][-1]["ExitCode"] == 127 and "nosuchcommand" in said(orlop)["Log"][-1]["Output"]


def test_failures_in_the_start_period_do_not_count(orlop):
    run(orlop, "--health-cmd", "false", "--health-start-period", "1000s", "--health-start-interval", "50ms")
    assert "(health: starting)" in orlop("ps").stdout
    wait_until(lambda: len(said(orlop).get("Log") or []) >= 4)
    assert (said(orlop)["Status"], said(orlop)["FailingStreak"]) == ("starting", 0)


def test_a_paused_container_is_not_checked(orlop):
    run(orlop, "--health-cmd", "true")
    wait_until(lambda: said(orlop)["Status"] == "healthy")
    orlop("pause", "c")
    time.sleep(0.3)
    before = said(orlop)["Log"][-1]
    time.sleep(0.5)
    assert said(orlop)["Log"][-1] == before
    orlop("unpause", "c")
    wait_until(lambda: said(orlop)["Log"][-1] != before)
    assert said(orlop)["Status"] == "healthy"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/well" else 503)
        self.end_headers()
        self.wfile.write(b"said " + self.path.encode())

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serving(pid):
    """Serve on port 8080 of the loopback of a process's network namespace."""
    made = []

    def make():
        fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
        process.setns(fd, process.CLONE_NEWNET)
        os.close(fd)
        made.append(http.server.HTTPServer(("127.0.0.1", 8080), Handler))

    maker = threading.Thread(target=make)
    maker.start()
    maker.join()
    server = threading.Thread(target=made[0].serve_forever)
    server.start()
    try:
        yield
    finally:
        made[0].shutdown()
        made[0].server_close()
        server.join()


@pytest.mark.parametrize(
    ("flag", "place", "status", "words"),
    [
        ("--health-http", ":8080/well", "healthy", "said /well"),
        ("--health-http", ":8080/ill", "unhealthy", "503"),
        ("--health-http", ":8081/", "unhealthy", "Connection refused"),
        ("--health-tcp", ":8080", "healthy", ""),
        ("--health-tcp", "127.0.0.1:8081", "unhealthy", "Connection refused"),
    ],
)
def test_a_check_from_outside_asks_nothing_of_the_image(orlop, flag, place, status, words):
    """The container has no network but its loopback, and nothing that could ask."""
    run(orlop, flag, place, "--network", "none", "--health-retries", "1")
    with serving(int(inspect(orlop, "c", "{{.State.Pid}}"))):
        wait_until(lambda: said(orlop)["Status"] == status and words in said(orlop)["Log"][-1]["Output"])


def test_unhealthy_kills_stops_or_restarts(orlop):
    flags = ("--health-cmd", "false", "--health-on-failure")
    run(orlop, *flags, "kill", name="killed")
    run(orlop, *flags, "stop", name="stopped", command=("sh", "-c", "trap 'exit 7' TERM; while :; do sleep 0.05; done"))
    run(
        orlop, *flags, "restart", name="again", command=("sh", "-c", "trap 'exit 7' TERM; while :; do sleep 0.05; done")
    )
    wait_until(lambda: inspect(orlop, "killed", "{{.State.Status}} {{.State.ExitCode}}") == "exited 137")
    wait_until(lambda: inspect(orlop, "stopped", "{{.State.Status}} {{.State.ExitCode}}") == "exited 7")
    wait_until(lambda: int(inspect(orlop, "again", "{{.RestartCount}}")) >= 2)
    orlop("stop", "-t", "1", "again")
    wait_until(lambda: inspect(orlop, "again", "{{.State.Status}}") == "exited")


@pytest.mark.parametrize("action", ["stop", "restart"])
def test_who_does_not_handle_the_signal_is_not_waited_for(orlop, action):
    """Process 1 ignores what it does not handle: its time to end, an hour here, would pass in vain."""
    flags = ("--health-cmd", "test -e /tmp/well", "--health-on-failure", action, "--stop-timeout", "3600")
    run(orlop, *flags, name="deaf")
    if action == "stop":
        wait_until(lambda: inspect(orlop, "deaf", "{{.State.Status}} {{.State.ExitCode}}") == "exited 137")
    else:
        wait_until(lambda: int(inspect(orlop, "deaf", "{{.RestartCount}}")) >= 2)
        orlop("stop", "-t", "1", "deaf")


def test_a_dependency_is_awaited_until_it_is_healthy(orlop):
    run(
        orlop,
        "--health-cmd",
        "test -e /tmp/well",
        "--health-retries",
        "1000",
        command=("sh", "-c", "sleep 0.7; touch /tmp/well; sleep 1000"),
        name="db",
    )
    orlop("run", "-d", "--name", "api", "--depends-on", "db:healthy", "host", "sleep", "1000")
    assert said(orlop, "db")["Status"] == "healthy"
    run(orlop, "--health-cmd", "false", name="ill")
    refused = orlop("run", "-d", "--name", "never", "--depends-on", "ill:healthy", "host", "true", check=False)
    assert refused.code == 125 and "its dependency ill is unhealthy" in refused.stderr
    refused = orlop("run", "-d", "--depends-on", "api:healthy", "host", "true", check=False)
    assert "has no health check" in refused.stderr and "--health-cmd" in refused.stderr


REFUSED = (
    (["--no-healthcheck", "--health-cmd", "x"], "conflicts with --health-*"),
    (["--health-interval", "-1s", "--health-cmd", "x"], "cannot be negative"),
    (["--health-interval", "1us", "--health-cmd", "x"], "cannot be less than 1ms"),
    (["--health-http", "8080"], "no place to connect to"),
    (["--health-http", ":99999/x"], "no place to connect to"),
    (["--health-tcp", ":80/x"], "no place to connect to"),
    (["--health-tcp", "example.org:80"], "no place to connect to"),
    (["--health-tcp", ":80", "--health-cmd", "x"], "exclude each other"),
    (["--health-on-failure", "explode", "--health-cmd", "x"], "explode"),
    (["--health-on-failure", "exec: ", "--health-cmd", "x"], "names no command"),
    (["--health-on-failure", "kill"], "needs a health check"),
)


def test_a_check_that_is_none_is_refused(orlop):
    for flags, words in REFUSED:
        refused = orlop("run", "-d", *flags, "host", "true", check=False)
        assert refused.code == 125 and words in refused.stderr, refused
    assert orlop.container_ids() == []


def test_a_command_is_run_each_time_that_it_becomes_unhealthy(orlop):
    action = "exec:echo acted >> /tmp/log; echo said; exit 4"
    run(orlop, "--health-cmd", "test -e /tmp/well", "--health-on-failure", action)

    def acted():
        return orlop("exec", "c", "sh", "-c", "cat /tmp/log 2>/dev/null || true").stdout.count("acted")

    wait_until(lambda: acted() == 1)
    wait_until(lambda: any(one["Output"] == "said\n" and one["ExitCode"] == 4 for one in said(orlop)["Log"]))
    streak = said(orlop)["FailingStreak"]
    wait_until(lambda: said(orlop)["FailingStreak"] > streak)
    assert acted() == 1
    orlop("exec", "c", "touch", "/tmp/well")
    wait_until(lambda: said(orlop)["Status"] == "healthy")
    orlop("exec", "c", "rm", "/tmp/well")
    wait_until(lambda: acted() == 2)
    assert inspect(orlop, "c", "{{.State.Status}} {{.RestartCount}}") == "running 0"
