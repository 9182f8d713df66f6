"""Broken inputs through the real command: an exit code, a text with the object and the cause, and the next step."""

import pytest

RUN = ("run", "--rm")
HUGE = "x" * 100_000

# what is typed, the exit status, words that the message must have
TABLE = {
    "unknown command": (["runn", "host"], 1, ["runn"]),
    "unknown flag": ([*RUN, "--rmm", "host"], 125, ["--rmm"]),
    "flag without a value": (["run", "--name"], 125, ["--name"]),
    "no image": (["run"], 1, ["requires at least 1 argument"]),
    "no command in the root": ([*RUN, "--rootfs", "/"], 125, ["command"]),
    "unknown image": ([*RUN, "nosuch:1", "true"], 125, ["nosuch:1"]),
    "malformed reference": ([*RUN, "local/UPPER", "true"], 125, ["local/UPPER", "lowercase"]),
    "reference of 100 kB": ([*RUN, HUGE, "true"], 125, ["reference"]),
    "bad name": ([*RUN, "--name", "a/b", "host", "true"], 125, ["a/b"]),
    "name of a path": ([*RUN, "--name", "../x", "host", "true"], 125, ["../x"]),
    "memory below the minimum": ([*RUN, "-m", "1m", "host", "true"], 125, ["6MB"]),
    "memory that is no size": ([*RUN, "-m", "lots", "host", "true"], 125, ["lots", "memory"]),
    "swap below memory": ([*RUN, "-m", "64m", "--memory-swap", "32m", "host", "true"], 125, ["swap", "memory"]),
    "too many processors": ([*RUN, "--cpus", "10000", "host", "true"], 125, ["cpus", "CPUs"]),
    "negative processors": ([*RUN, "--cpus", "-1", "host", "true"], 125, ["-1"]),
    "pids limit that is no number": ([*RUN, "--pids-limit", "many", "host", "true"], 125, ["many"]),
    "unknown capability": ([*RUN, "--cap-add", "FLY", "host", "true"], 125, ["FLY", "capability"]),
    "unknown security option": ([*RUN, "--security-opt", "magic=1", "host", "true"], 125, ["magic"]),
    "missing seccomp profile": (
        [*RUN, "--security-opt", "seccomp=/no/such.json", "host", "true"],
        125,
        ["/no/such.json"],
    ),
    "unknown network": ([*RUN, "--network", "nosuch", "host", "true"], 125, ["nosuch"]),
    "relative bind target": ([*RUN, "-v", "/tmp:data", "host", "true"], 125, ["data", "absolute"]),
    "bind with too many parts": ([*RUN, "-v", "/a:/b:ro:x:y", "host", "true"], 125, ["/a:/b:ro:x:y"]),
    "bind over the root": ([*RUN, "-v", "/tmp:/", "host", "true"], 125, ["/"]),
    "unknown mount option": ([*RUN, "-v", "/tmp:/t:sideways", "host", "true"], 125, ["sideways"]),
    "unknown tmpfs option": ([*RUN, "--tmpfs", "/t:sideways", "host", "true"], 125, ["sideways"]),
    "unknown user": ([*RUN, "-u", "nosuch", "host", "true"], 125, ["nosuch", "passwd"]),
    "unknown group": ([*RUN, "-u", "0:nosuch", "host", "true"], 125, ["nosuch", "group"]),
    "user id that wraps to root": ([*RUN, "-u", "4294967296", "host", "true"], 125, ["4294967296"]),
    "negative user id": ([*RUN, "-u=-1", "host", "true"], 125, ["-1"]),
    "bad environment": ([*RUN, "-e", "=x", "host", "true"], 125, ["=x"]),
    "working directory that is no directory": ([*RUN, "-w", "/etc/passwd", "host", "true"], 125, ["/etc/passwd"]),
    "relative working directory": ([*RUN, "-w", "tmp", "host", "true"], 125, ["tmp", "absolute"]),
    "working directory through a descriptor": (
        [*RUN, "-w", "/proc/self/fd/7", "host", "true"],
        125,
        ["/proc/self/fd/7"],
    ),
    "bad host name": ([*RUN, "-h", "a b", "host", "true"], 125, ["a b"]),
    "command not found": ([*RUN, "host", "nosuch"], 127, ['exec: "nosuch": executable file not found in $PATH']),
    "command is a directory": ([*RUN, "host", "/etc"], 126, ["/etc", "directory"]),
    "command is not executable": ([*RUN, "host", "/etc/passwd"], 126, ["/etc/passwd", "permission denied"]),
    "empty command": ([*RUN, "host", ""], 127, ['""']),
    "rootfs that is missing": ([*RUN, "--rootfs", "/no/such", "true"], 125, ["/no/such"]),
    "rootfs that is a file": ([*RUN, "--rootfs", "/etc/passwd", "true"], 125, ["/etc/passwd", "directory"]),
    "exec in nothing": (["exec", "nosuch", "true"], 1, ["nosuch", "No such container"]),
    "logs of nothing": (["logs", "nosuch"], 1, ["nosuch", "No such container"]),
    "stop of nothing": (["stop", "nosuch"], 1, ["nosuch", "No such container"]),
    "remove of nothing": (["rm", "nosuch"], 1, ["nosuch", "No such container"]),
    "inspect of nothing": (["inspect", "nosuch"], 1, ["nosuch"]),
    "unknown stop signal": ([*RUN, "--stop-signal", "NOPE", "host", "true"], 125, ["NOPE"]),
    "import of nothing": (["import", "/no/such.tar", "x"], 1, ["/no/such.tar"]),
    "import of garbage": (["import", "/etc/passwd", "x"], 1, ["/etc/passwd"]),
    "rootfs from a missing program": (
        ["rootfs", "from-binaries", "--with", "nosuch", "/tmp/orlop-nowhere"],
        1,
        ["nosuch"],
    ),
    "bad template": (["ps", "--format", "{{.ID"], 1, ["{{.ID"]),
}


@pytest.mark.parametrize("case", TABLE)
def test_a_broken_input_is_told_whole(orlop, case):
    argv, code, words = TABLE[case]
    done = orlop(*argv, check=False)
    assert done.code == code, done
    for word in words:
        assert word in done.stderr, done
    lines = done.stderr.strip().splitlines()
    assert any(line.startswith(("Next: ", "Usage:", "See '", "Run '")) for line in lines), done
    assert "Traceback" not in done.stderr and "unknown error" not in done.stderr
    assert "failed: failed" not in done.stderr and len(done.stderr) < 4096
    assert orlop.container_ids() == [], "a failed run leaves no container"
