"""A person at a terminal, through the real command and a real container: detach, attach, interrupt, pipe away."""

from __future__ import annotations

import json
import os
import signal
import subprocess

import pytest

COUNT = "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.05; done"


def test_detach_attach_resize_and_exit(orlop, terminal):
    shell = terminal("run", "-it", "--name", "c", "host", "sh", rows=40, columns=120)
    shell.send("stty size\n")
    shell.expect("40 120")
    shell.send("echo a''b\n")
    shell.expect("ab")
    shell.send(b"\x10\x11")
    assert shell.wait() == 0
    assert "Up " in orlop("ps").stdout
    again = terminal("attach", "c", rows=30, columns=90)
    again.send("stty size\n")
    again.expect("30 90")
    again.resize(50, 100)
    again.send("stty size\n")
    again.expect("50 100")
    again.send("exit 9\n")
    assert again.wait() == 9
    assert "Exited (9)" in orlop("ps", "-a").stdout
    assert told(orlop) == [
        ("resize", "40", "120"), ("detach",), ("attach",), ("resize", "30", "90"), ("resize", "50", "100"),
    ]  # fmt: skip


def told(orlop):
    """Return the events of clients at terminals, with what they tell, from the first resize on."""
    lines = orlop("events", "--since", "1970-01-01", "--until", "0s", "--format", "{{json .}}").stdout.splitlines()
    events = [json.loads(line) for line in lines]
    shown = {"attach": (), "detach": (), "exec_detach": ("execID",), "resize": ("height", "width")}
    found = [
        (event["Action"], *(event["Actor"]["Attributes"][name] for name in shown[event["Action"]]))
        for event in events
        if event["Action"] in shown
    ]
    return found[next(index for index, one in enumerate(found) if one[0] != "attach") :]


def test_detaching_from_an_exec_is_told(orlop, terminal):
    orlop("run", "-d", "--name", "c", "host", "sleep", "1000")
    shell = terminal("exec", "-it", "c", "sh")
    shell.send("echo a''b\n")
    shell.expect("ab")
    shell.send(b"\x10\x11")
    assert shell.wait() == 0
    ((action, exec_id),) = told(orlop)
    listed = orlop("exec", "ls", "c").stdout
    assert action == "exec_detach" and exec_id[:12] in listed


def test_control_c_reaches_the_process_through_its_terminal(terminal):
    shell = terminal("run", "--rm", "-it", "host", "sh", "-c", "trap 'echo caught; exit 7' INT; echo ready; read line")
    shell.expect("ready")
    shell.send(b"\x03")
    shell.expect("caught")
    assert shell.wait() == 7


def test_exec_on_a_terminal(orlop, terminal):
    orlop("run", "-d", "--name", "c", "host", "sleep", "1000")
    shell = terminal("exec", "-it", "c", "sh", rows=21, columns=77)
    shell.send("stty size; tty; echo $((40+2))\n")
    shell.expect("21 77")
    shell.expect("/dev/pts/")
    shell.expect("42")
    shell.send("exit 5\n")
    assert shell.wait() == 5
    assert "Up " in orlop("ps").stdout


def test_a_terminal_session_outlives_its_engine(orlop, terminal):
    shell = terminal("run", "-it", "--name", "c", "host", "sh")
    shell.send("echo re''ady\n")
    shell.expect("ready")
    pid = orlop.engine_pid()
    os.kill(pid, signal.SIGKILL)
    shell.send("echo still he''re; exit 6\n")
    shell.expect("still here")
    assert shell.wait() == 6
    assert "Exited (6)" in orlop("ps", "-a").stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_signals_to_the_client_are_the_process(orlop, number):
    script = f"trap 'exit 3' {number.name.removeprefix('SIG')}; echo ready; while :; do sleep 0.05; done"
    with orlop.popen("run", "--rm", "host", "sh", "-c", script, stdout=subprocess.PIPE) as run:
        assert run.stdout.readline() == b"ready\n"
        run.send_signal(number)
        assert run.wait(30) == 3


def test_a_reader_that_goes_leaves_the_container(orlop):
    with orlop.popen("run", "--name", "c", "host", "sh", "-c", COUNT, stdout=subprocess.PIPE) as run:
        assert run.stdout.readline() == b"line 1\n"
        run.stdout.close()
        assert run.wait(30) == 141
    assert "Up " in orlop("ps").stdout
    with orlop.popen("logs", "-f", "c", stdout=subprocess.PIPE) as logs:
        assert logs.stdout.readline() == b"line 1\n"
        logs.stdout.close()
        assert logs.wait(30) == 141


def test_what_an_image_and_a_build_say_can_not_steer_the_terminal(orlop, terminal, tmp_path):
    """SEC-78: words of a Dockerfile, names of its files, and what its programs print to a person's terminal."""
    evil = "\x1b]0;owned\x07\x1b[2J\u202e\x9b5A"
    failing = f"RUN echo '{evil}'; printf '\\033]0;owned\\007\\033[2J'; exit 3"
    shown = []
    for instruction in (failing, f"COPY no{evil} /", f"COPY f{evil}* /", f"RU{evil}"):
        (tmp_path / "Dockerfile").write_text(f"FROM host\nLABEL x='{evil}'\n{instruction}\n")
        for words in ([], ["--progress=plain"]):
            shown.append(terminal("build", "--network", "none", *words, tmp_path))
            assert shown[-1].wait() != 0
    orlop("import", "-c", f"LABEL x='{evil}'", "-m", evil, "-", "evil:1", input=bytes(10240))
    for words in (
        ["images"],
        ["image", "inspect", "evil:1"],
        ["history", "--no-trunc", "evil:1"],
        ["images", "--tree"],
    ):
        shown.append(terminal(*words))
        assert shown[-1].wait() == 0
    for screen in shown:
        text = screen.output.decode(errors="replace")
        assert "\x1b]0" not in text and "\x1b[2J" not in text and "\x07" not in text, text
        assert "\u202e" not in text and "\x9b" not in text, text


def test_what_a_container_calls_itself_can_not_steer_the_terminal(orlop, terminal):
    """SEC-78."""
    evil = "\x1b]0;owned\x07\x1b[2J\u202e"
    orlop("create", "--name", "c", "-l", f"x={evil}", "host", evil)
    for words in (
        ["ps", "-a"],
        ["ps", "-a", "--format", "{{.Labels}} {{.Command}}"],
        ["inspect", "c"],
        ["explain", "c"],
    ):
        screen = terminal(*words)
        assert screen.wait() == 0
        assert b"\x1b" not in screen.output and b"\x07" not in screen.output and "\u202e".encode() not in screen.output
    assert evil in orlop("ps", "-a", "--format", '{{.Label "x"}}').stdout, "a program gets what there is"


def test_the_terminal_of_a_failed_start_is_left_alone(orlop, terminal):
    shell = terminal("run", "--rm", "-it", "host", "nosuch")
    shell.expect('exec: "nosuch": executable file not found in $PATH')
    assert shell.wait() == 127


def test_start_and_attach_again(orlop):
    orlop("create", "-i", "--name", "c", "host", "sh", "-c", "read x; echo got $x; exit 4")
    first = orlop("start", "-ai", "c", input="one\n", check=False)
    assert (first.code, first.stdout) == (4, "got one\n")
    second = orlop("start", "-a", "-i", "c", input="two\n", check=False)
    assert (second.code, second.stdout) == (4, "got two\n")
    assert orlop("start", "c").stdout == "c\n"
    orlop("kill", "c")
