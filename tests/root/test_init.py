"""`--init`: process 1 of ours in front of the container's program."""

from __future__ import annotations

import time

from support import processes


def state(orlop, name):
    return orlop("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", name).stdout.strip()


def test_process_1_reaps_forwards_and_ends_as_its_child(orlop):
    orphans = "for i in 1 2 3 4 5; do (sh -c 'sleep 0.05 &' ) ; done; sleep 0.5"
    script = f"{orphans}; cat /proc/[0-9]*/stat | grep -c ' Z '; cat /proc/1/comm"
    done = orlop("run", "--rm", "--init", "host", "sh", "-c", script)
    assert done.stdout == "0\norlop-init\n"
    assert orlop("run", "--rm", "--init", "host", "sh", "-c", "exit 9", check=False).code == 9


def test_a_program_without_a_handler_ends_by_the_stop_signal_at_once(orlop):
    orlop("run", "-d", "--init", "--name", "c", "host", "sleep", "1000")
    begun = time.monotonic()
    orlop("stop", "c")
    assert time.monotonic() - begun < 5
    assert state(orlop, "c") == "exited 143"
    assert orlop("inspect", "-f", "{{.HostConfig.Init}}", "c").stdout.strip() == "true"


def test_a_command_that_is_not_there_is_told_as_without_it(orlop):
    done = orlop("run", "--rm", "--init", "host", "nosuch", check=False)
    assert done.code == 127 and 'exec: "nosuch": executable file not found in $PATH' in done.stderr


def test_it_needs_next_to_no_memory(orlop):
    container = orlop("run", "-d", "--init", "--name", "c", "host", "sleep", "1000").stdout.strip()
    pid = int(orlop("inspect", "-f", "{{.State.Pid}}", container).stdout)
    rollup = dict(line.split(":", 1) for line in processes.read(pid, "smaps_rollup").decode().splitlines()[1:])
    assert int(rollup["Pss"].split()[0]) <= 64  # KiB


def test_a_terminal_belongs_to_the_program(terminal):
    # One long sleep would do unless the signal came after "ready" and before the sleep: then dash waits for its end.
    screen = terminal(
        "run",
        "--rm",
        "-it",
        "--init",
        "host",
        "sh",
        "-c",
        "trap 'echo got it; exit 3' INT; echo ready; while :; do sleep 0.05; done",
    )
    screen.expect(b"ready")
    screen.send(b"\x03")
    screen.expect(b"got it")
    assert screen.wait() == 3
