"""Broken inputs through the real command: an exit code, a text with the object and the cause, and the next step."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from support.engine import Environment

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
    "image of a mount that is missing": (
        [*RUN, "--mount", "type=image,src=nosuch,dst=/i", "host", "true"],
        125,
        ["No such image: nosuch:latest", "orlop pull nosuch"],
    ),
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
    "log files below none": ([*RUN, "--log-opt", "max-file=--5", "host", "true"], 125, ["max-file", "--5"]),
    "log files in another script": ([*RUN, "--log-opt", "max-file=\u00b2", "host", "true"], 125, ["max-file"]),
    "log size without end": ([*RUN, "--log-opt", f"max-size={'9' * 5000}", "host", "true"], 125, ["invalid size"]),
    "facility in another script": (
        [*RUN, "--log-driver", "syslog", "--log-opt", "syslog-facility=\u00b2", "host", "true"],
        125,
        ["invalid syslog facility"],
    ),
    "log receiver at no port": (
        [*RUN, "--log-driver", "syslog", "--log-opt", f"syslog-address=tcp://h:{'9' * 5000}", "host", "true"],
        125,
        ["is not HOST:PORT"],
    ),
    "open file of a shell's": ([*RUN, "-v", "/dev/fd/63:/x", "host", "true"], 125, ["/dev/fd/63", "the engine's is"]),
    "missing device": (
        [*RUN, "--device", "/dev/nope", "host", "true"],
        125,
        ["/dev/nope", "no such file or directory"],
    ),
    "device of another kind": ([*RUN, "--device", "/etc/passwd", "host", "true"], 125, ["/etc/passwd", "device"]),
    "relative device": ([*RUN, "--device", "nope", "host", "true"], 125, ["nope is not an absolute path"]),
    "device of CDI": (
        [*RUN, "--device", "vendor.com/gpu=all", "host", "true"],
        125,
        ["unresolvable CDI devices vendor.com/gpu=all"],
    ),
    "rate of a missing device": ([*RUN, "--device-read-bps", "/dev/nope:1mb", "host", "true"], 125, ["/dev/nope"]),
    "rate that is none": ([*RUN, "--device-write-iops", "/dev/null:x", "host", "true"], 125, ["/dev/null:x", "rate"]),
    "graphics processor": ([*RUN, "--gpus", "all", "host", "true"], 125, ["gpu"]),
    "processor that is not there": ([*RUN, "--cpuset-cpus", "4095", "host", "true"], 125, ["4095", "available"]),
    "processors that are no list": ([*RUN, "--cpuset-cpus", "1-", "host", "true"], 125, ["1-", "invalid format"]),
    "period out of range": ([*RUN, "--cpu-period", "10", "host", "true"], 125, ["CPU cfs period", "1000"]),
    "two limits of processors": ([*RUN, "--cpus", "1", "--cpu-quota", "9999", "host", "true"], 125, ["Conflicting"]),
    "reservation above the limit": (
        [*RUN, "-m", "10m", "--memory-reservation", "20m", "host", "true"],
        125,
        ["memory reservation limit"],
    ),
    "kernel memory": ([*RUN, "--kernel-memory", "20m", "host", "true"], 125, ["kernel memory"]),
    "swappiness out of range": ([*RUN, "--memory-swappiness", "101", "host", "true"], 125, ["101", "0-100"]),
    "out-of-memory score out of range": ([*RUN, "--oom-score-adj", "2000", "host", "true"], 125, ["2000", "[-1000"]),
    "block weight out of range": ([*RUN, "--blkio-weight", "5", "host", "true"], 125, ["blkio weight", "10 to 1000"]),
    "unknown ulimit": ([*RUN, "--ulimit", "bogus=1", "host", "true"], 125, ["invalid ulimit type: bogus"]),
    "soft limit above the hard one": ([*RUN, "--ulimit", "nofile=2:1", "host", "true"], 125, ["2 > 1"]),
    "setting of the machine": ([*RUN, "--sysctl", "kernel.panic=1", "host", "true"], 125, ["kernel.panic=1"]),
    "setting that does not exist": ([*RUN, "--sysctl", "net.no.such=1", "host", "true"], 125, ["net.no.such"]),
    "shared memory that is no size": ([*RUN, "--shm-size", "lots", "host", "true"], 125, ["lots", "shm-size"]),
    "pid mode that is none": ([*RUN, "--pid", "bogus", "host", "true"], 125, ["invalid PID mode"]),
    "ipc of nothing": ([*RUN, "--ipc", "container:", "host", "true"], 125, ["container:", "IPC"]),
    "pid of nothing": ([*RUN, "--pid", "container:nosuch", "host", "true"], 125, ["nosuch", "No such container"]),
    "name of a shared uts": ([*RUN, "--uts", "host", "-h", "x", "host", "true"], 125, ["hostname and the UTS mode"]),
    "isolation of Windows": ([*RUN, "--isolation", "hyperv", "host", "true"], 125, ["hyperv", "linux"]),
    "processors of Windows": ([*RUN, "--cpu-count", "2", "host", "true"], 125, ["cpu-count", "Windows"]),
    "another runtime": ([*RUN, "--runtime", "runc", "host", "true"], 125, ["runc", "runtime"]),
    "another machine": ([*RUN, "--platform", "x/y/z/w", "host", "true"], 125, ["x/y/z/w"]),
    "cgroup outside": ([*RUN, "--cgroup-parent", "../x", "host", "true"], 125, ["../x", "cgroup"]),
    "engine's socket": ([*RUN, "--use-api-socket", "host", "true"], 125, ["use-api-socket", "socket"]),
    "label file that is missing": ([*RUN, "--label-file", "/no/such", "host", "true"], 125, ["/no/such"]),
    "exposed port that is none": ([*RUN, "--expose", "99999", "host", "true"], 125, ["99999", "expose"]),
    "pause of nothing": (["pause", "nosuch"], 1, ["nosuch", "No such container"]),
    "rename of nothing": (["rename", "nosuch", "x"], 1, ["nosuch", "No such container"]),
    "update of nothing": (["update", "-m", "64m", "nosuch"], 1, ["nosuch", "No such container"]),
    "update without a change": (["update", "nosuch"], 1, ["one or more flags"]),
    "top of nothing": (["top", "nosuch"], 1, ["nosuch", "No such container"]),
    "stats of nothing": (["stats", "--no-stream", "nosuch"], 1, ["nosuch", "No such container"]),
    "command line of nothing": (["show-run", "nosuch"], 1, ["nosuch", "No such container"]),
    "filter that is none": (["ps", "--filter", "colour=red"], 1, ["invalid filter 'colour'"]),
    "expression that never ends": (["ps", "--filter", "name=(a+)+$"], 1, ["name=(a+)+$"]),
    "state that is none": (["ps", "--filter", "status=sad"], 1, ["status=sad"]),
    "events since nonsense": (["events", "--since", "later"], 1, ["--since later"]),
    "events with an unknown filter": (["events", "--until", "0s", "--filter", "x=y"], 1, ["invalid filter 'x'"]),
    "image that is a container": (["inspect", "--type", "image", "nosuch"], 1, ["No such image: nosuch"]),
    "kind that is none": (["inspect", "--type", "nosuch", "host"], 1, ["nosuch"]),
    "field of a template": (["inspect", "-f", "{{.Nosuch}}", "host"], 1, ["Nosuch"]),
    "link to nobody": ([*RUN, "--network", "none", "--link", "nosuch:x", "host", "true"], 125, ["nosuch"]),
    "port that is none": ([*RUN, "-p", "99999:80", "host", "true"], 125, ["99999"]),
    "terminal that is not there": ([*RUN, "-it", "host", "sh"], 1, ["not a TTY"]),
    "interval without a unit": ([*RUN, "--health-interval", "5", "host", "true"], 125, ["5", "unit"]),
    "restart policy that is none": ([*RUN, "--restart", "maybe", "host", "true"], 125, ["maybe"]),
    "variables' file that is missing": ([*RUN, "--env-file", "/nosuch", "host", "true"], 125, ["/nosuch"]),
    "mount of no kind": ([*RUN, "--mount", "type=foo,dst=/x", "host", "true"], 125, ["foo", "mount type"]),
    "name server that is none": ([*RUN, "--dns", "foo", "host", "true"], 125, ["foo", "IP address"]),
    "host without an address": ([*RUN, "--add-host", "foo", "host", "true"], 125, ["foo", "add-host"]),
    "hardware address that is none": ([*RUN, "--mac-address", "foo", "host", "true"], 125, ["foo", "MAC"]),
    "address without a subnet": ([*RUN, "--ip", "1.2.3.4", "host", "true"], 125, ["user configured subnets"]),
    "network of a container's name": ([*RUN, "--network", "container:nosuch", "host", "true"], 125, ["nosuch"]),
    "user namespace that is none": ([*RUN, "--userns", "nosuch", "host", "true"], 125, ["nosuch"]),
    "log driver that is none": ([*RUN, "--log-driver", "nosuch", "host", "true"], 125, ["nosuch"]),
    "ulimit without a value": ([*RUN, "--ulimit", "nofile", "host", "true"], 125, ["nofile"]),
    "detach keys that are none": (["attach", "--detach-keys", "ctrl-x,nosuch", "x"], 125, ["nosuch"]),
    "copy from here to here": (["cp", "/etc/passwd", "/tmp/nowhere"], 1, ["at least one container"]),
    "copy out of nothing": (["cp", "nosuch:/x", "/tmp/nowhere"], 1, ["nosuch", "No such container"]),
    "volume of a path": (["volume", "create", "a/b"], 1, ["a/b", "invalid characters"]),
    "volume of one letter": (["volume", "create", "v"], 1, ["too short"]),
    "volume of a driver": (["volume", "create", "--driver", "nosuch", "vv"], 1, ["nosuch", "plugin"]),
    "volume that is none": (["volume", "rm", "nosuch"], 1, ["nosuch", "no such volume"]),
    "snapshot of nothing": (["volume", "rollback", "nosuch", "x"], 1, ["nosuch", "no such volume"]),
    "network that is always there": (["network", "rm", "bridge"], 1, ["bridge", "pre-defined"]),
    "driver of a network": (["network", "create", "--driver", "nosuch", "x"], 1, ["nosuch"]),
    "code that is none": (["explain", "E9999"], 1, ["E9999"]),
    "cause of nothing": (["why", "nosuch"], 1, ["nosuch", "No such container"]),
    "create of a host without an address": (["create", "--add-host", "foo", "host"], 125, ["foo", "add-host"]),
    "create that ends and begins": (["create", "--rm", "--restart", "always", "host"], 125, ["AutoRemove"]),
    "create with a missing file of variables": (["create", "--env-file", "/nosuch", "host"], 125, ["/nosuch"]),
    "create of what the engine refuses": (["create", "-m", "1m", "host"], 1, ["6MB"]),
    "prune with an unknown filter": (["container", "prune", "-f", "--filter", "x=y"], 1, ["invalid filter 'x'"]),
}


@pytest.fixture(scope="module")
def orlop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    """One engine for the whole table: no case leaves anything in it, which each of them checks."""
    environment = Environment(tmp_path_factory.mktemp("broken") / "root")
    yield environment
    left = environment.close()
    assert not left, "the engine left behind:\n  " + "\n  ".join(left)


@pytest.mark.parametrize("case", TABLE)
def test_a_broken_input_is_told_whole(orlop, case):
    argv, code, words = TABLE[case]
    done = orlop(*argv, check=False)
    assert done.code == code, done
    for word in words:
        assert word in done.stderr, done
    lines = done.stderr.strip().splitlines()
    assert any(line.startswith(("Next: ", "Usage:", "See '", "Run '")) for line in lines), done
    if lines[0].startswith("orlop: cannot "):  # an error, and not a wrong command line
        assert re.search(r"\(E(?!19)\d{4}\)$|explain E(?!19)\d{4}$", lines[-1]), done
    assert "Traceback" not in done.stderr and "unknown error" not in done.stderr
    assert "failed: failed" not in done.stderr and len(done.stderr) < 4096
    assert orlop.container_ids() == [], "a failed run leaves no container"
