"""I1: the engine may die at any instant. Containers run on, no log line, exit status or name is lost."""

import os
import signal
import subprocess
import time

from support import processes

WRITER = "i=0; while [ $i -lt {lines} ]; do echo line $i; i=$((i+1)); done"


def kill_engine(orlop):
    pid = orlop.engine_pid()
    assert pid is not None
    pidfd = os.pidfd_open(pid)
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    os.close(pidfd)
    deadline = time.monotonic() + 20
    while orlop.engine_pid() == pid:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_containers_write_on_and_no_line_is_lost(orlop):
    lines = 20_000
    orlop("run", "-d", "--name", "w", "host", "sh", "-c", WRITER.format(lines=lines) + "; exit 9")
    for _ in range(5):
        kill_engine(orlop)
        orlop("ps", "-a")
    assert orlop("wait", "w").stdout.strip() == "9"
    assert orlop("logs", "w").stdout == "".join(f"line {i}\n" for i in range(lines))


def test_an_exit_without_an_engine_is_found_by_the_next(orlop):
    wait_for_go = "while [ ! -e /go ]; do echo tick; sleep 0.05; done"
    orlop("run", "-d", "--name", "c", "-i", "host", "sh", "-c", wait_for_go + "; read x; echo said $x; exit 6")
    attached = orlop.popen("attach", "c", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert attached.stdout.readline() == b"tick\n"  # now it is attached
    kill_engine(orlop)
    orlop("exec", "c", "touch", "/go")
    kill_engine(orlop)
    out, _ = attached.communicate(b"hello\n", timeout=20)
    assert out.endswith(b"said hello\n")
    assert attached.returncode == 6
    assert "Exited (6)" in orlop("ps", "-a").stdout


def test_a_foreground_run_ends_with_its_code_although_the_engine_was_killed(orlop):
    run = orlop.popen(
        "run",
        "-i",
        "--name",
        "c",
        "host",
        "sh",
        "-c",
        "echo ready; read x; exit 5",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert run.stdout.readline() == b"ready\n"
    kill_engine(orlop)
    run.communicate(b"go\n", timeout=20)
    assert run.returncode == 5
    assert "Exited (5)" in orlop("ps", "-a").stdout


def test_auto_remove_is_done_by_the_next_engine(orlop):
    orlop("run", "-d", "--rm", "--name", "c", "-i", "host", "sh", "-c", "read x; exit 5")
    (container,) = orlop.container_ids()
    pid = int(orlop("inspect", "-f", "{{.State.Pid}}", "c").stdout)
    kill_engine(orlop)
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while container in orlop.container_ids():
        orlop("ps")
        assert time.monotonic() < deadline


def test_the_next_engine_can_do_everything_with_what_it_finds(orlop):
    orlop("run", "-d", "--name", "c", "host", "sleep", "1000")
    kill_engine(orlop)
    assert orlop("exec", "c", "echo", "hi").stdout == "hi\n"
    kill_engine(orlop)
    assert orlop("stop", "-t", "1", "c").stdout == "c\n"
    assert "Exited (137)" in orlop("ps", "-a").stdout
    kill_engine(orlop)
    assert orlop("rm", "c").stdout == "c\n"
    assert orlop.container_ids() == []


def test_who_follows_a_log_hears_all_of_it_from_one_engine_after_the_other(orlop):
    script = "i=0; while [ ! -e /go ]; do echo line $i; i=$((i+1)); sleep 0.01; done; echo last $i"
    orlop("run", "-d", "--network", "none", "--name", "w", "--log-opt", "max-size=4k", "--log-opt", "max-file=40",
          "host", "sh", "-c", script)  # fmt: skip
    heard = []
    with orlop.popen("logs", "-f", "w", stdout=subprocess.PIPE) as follower:
        for number in range(4):
            heard += [follower.stdout.readline().strip() for _ in range(20)]
            kill_engine(orlop) if number % 2 else orlop("ps")
        orlop("exec", "w", "touch", "/go")
        heard += follower.stdout.read().splitlines()
        assert follower.wait() == 0
    assert heard == [b"line %d" % number for number in range(len(heard) - 1)] + [b"last %d" % (len(heard) - 1)]


def test_who_follows_a_log_does_not_start_an_engine_that_was_stopped(orlop):
    orlop("run", "-d", "--network", "none", "--name", "w", "host", "sh", "-c", "echo up; sleep 1000")
    with orlop.popen("logs", "-f", "w", stdout=subprocess.PIPE) as follower:
        assert follower.stdout.readline() == b"up\n"
        orlop("engine", "stop")
        assert follower.wait(60) == 0
    assert orlop.engine_pid() is None


def test_an_engine_that_was_told_to_stop_has_ended_and_the_next_one_can_start(orlop):
    for _ in range(3):
        orlop("run", "--rm", "--network", "none", "host", "true")
        pid = orlop.engine_pid()
        orlop("engine", "stop")
        assert not processes.is_alive(pid)


def test_who_waits_or_stops_asks_the_next_engine(orlop):
    orlop(
        "run",
        "-d",
        "--network",
        "none",
        "--name",
        "c",
        "host",
        "sh",
        "-c",
        "trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done",
    )
    with orlop.popen("wait", "c", stdout=subprocess.PIPE) as waiting:
        time.sleep(0.5)
        kill_engine(orlop)
        while "up" not in orlop("logs", "c").stdout:
            time.sleep(0.02)
        orlop("stop", "-t", "60", "c")
        assert waiting.communicate(timeout=60)[0] == b"7\n" and waiting.returncode == 0
