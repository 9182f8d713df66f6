"""A new user's day, through the real command: run, look inside, leave it running, read, enter, stop, remove."""

import os
import re
import signal
import subprocess
import tarfile
import time
from pathlib import Path

import pytest


def until(true, seconds=20):
    """Return once true() is: a bound for a hang, not a measurement."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.02)


def test_the_main_job_shows_that_it_is_isolated(orlop):
    shown = orlop("run", "--rm", "-m", "64m", "--pids-limit", "100", "--hostname", "deck", "host", "isolation").stdout
    assert "deck" in shown
    assert str(64 * 1024 * 1024) in shown or "64" in shown
    assert "100" in shown


def test_every_namespace_but_user_is_its_own(orlop):
    kinds = ["cgroup", "ipc", "mnt", "net", "pid", "time", "uts"]
    script = " ".join(f"$(readlink /proc/self/ns/{kind})" for kind in kinds)
    inside = orlop("run", "--rm", "host", "sh", "-c", f"echo {script}").stdout.split()
    assert len(inside) == len(kinds)
    for kind, name in zip(kinds, inside, strict=True):
        assert name.startswith(f"{kind}:[")
        assert name != os.readlink(f"/proc/self/ns/{kind}"), kind


def test_process_one_host_name_root_and_limits(orlop):
    script = """
    echo pid=$$ host=$(hostname) cwd=$(pwd)
    for f in pids.max memory.max; do cat /sys/fs/cgroup/$f 2>/dev/null; done
    cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/cpu/cpu.cfs_quota_us
    grep -E '^(CapEff|CapBnd|CapInh|CapAmb|NoNewPrivs|Seccomp):' /proc/self/status
    """
    out = orlop(
        "run",
        "--rm",
        "-m",
        "20m",
        "--cpus",
        ".5",
        "--pids-limit",
        "20",
        "-h",
        "deck",
        "-w",
        "/tmp",
        "host",
        "sh",
        "-c",
        script,
    ).stdout
    assert "pid=1 host=deck cwd=/tmp" in out
    assert "20971520" in out and "\n20\n" in out and "50000" in out
    facts = dict(re.findall(r"^(\w+):\s+(\S+)$", out, re.M))
    assert facts["CapEff"] == facts["CapBnd"] == "00000000a80425fb"
    assert facts["CapInh"] == facts["CapAmb"] == "0000000000000000"
    assert facts["NoNewPrivs"] == "1"
    assert facts["Seccomp"] == "2"


def test_the_root_is_the_images_and_the_host_does_not_see_it(orlop, tmp_path):
    marker = tmp_path / "marker"
    marker.write_text("host")
    orlop("run", "-d", "--name", "c", "host", "sh", "-c", "echo in > /written; sleep 1000")
    mounts = Path("/proc/self/mountinfo").read_text()
    assert str(orlop.root) not in mounts and str(orlop.run) not in mounts, "I4: the host's mount table shows it"
    assert orlop("exec", "c", "cat", "/written").stdout == "in\n"
    assert orlop("exec", "c", "test", "-e", str(marker), check=False).code == 1
    assert not Path("/written").exists()


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["true"], 0),
        (["sh", "-c", "exit 7"], 7),
        (["sh", "-c", "exit 255"], 255),
        (["nosuch"], 127),
        (["/no/such"], 127),
        (["/etc"], 126),
        (["/etc/passwd"], 126),
    ],
)
def test_exit_codes_are_dockers(orlop, command, code):
    done = orlop("run", "--rm", "host", *command, check=False)
    assert done.code == code, done
    if code in (126, 127):
        assert command[0] in done.stderr


def test_a_signal_is_128_plus_its_number(orlop):
    orlop("run", "-d", "--name", "c", "host", "sleep", "1000")
    orlop("kill", "c")
    assert orlop("wait", "c").stdout.strip() == "137"
    assert "Exited (137)" in orlop("ps", "-a").stdout


def test_standard_streams(orlop):
    done = orlop("run", "--rm", "-i", "host", "sh", "-c", "cat; echo error >&2", input="in\n")
    assert (done.stdout, done.stderr) == ("in\n", "error\n")
    assert orlop("run", "--rm", "host", "cat", input="not for you").stdout == ""
    data = os.urandom(3_000_000)
    assert orlop("run", "--rm", "-i", "host", "cat", input=data).raw_stdout == data


def test_a_terminal(terminal):
    shell = terminal("run", "--rm", "-it", "host", "sh", rows=33, columns=101)
    shell.send("stty size; tty; echo $TERM\n")
    shell.expect("33 101")
    shell.expect("/dev/pts/0")
    shell.send("exit 3\n")
    assert shell.wait() == 3


def test_user_environment_directory_and_groups(orlop):
    script = "id -u; id -g; pwd; echo $A$B; echo $HOME"
    run = ["run", "--rm", "-u", "1234:4321", "-e", "A=1", "-e", "B", "-w", "/new/dir", "host", "sh", "-c", script]
    assert orlop(*run, env={"B": "2"}).stdout.split() == ["1234", "4321", "/new/dir", "12", "/"]
    assert orlop("run", "--rm", "-u", "nobody", "host", "id", "-un").stdout == "nobody\n"


def test_binds_tmpfs_and_read_only(orlop, tmp_path):
    (tmp_path / "f").write_text("host\n")
    bind = f"{tmp_path}:/data"
    assert orlop("run", "--rm", "-v", bind, "host", "sh", "-c", "cat /data/f; echo c > /data/g").stdout == "host\n"
    assert (tmp_path / "g").read_text() == "c\n"
    refused = orlop("run", "--rm", "-v", bind + ":ro", "host", "sh", "-c", "echo x > /data/g", check=False)
    assert refused.code != 0 and "Read-only file system" in refused.stderr
    script = "grep ' /scratch ' /proc/self/mounts; touch /scratch/x; touch /etc/x"
    done = orlop("run", "--rm", "--read-only", "--tmpfs", "/scratch:size=1m", "host", "sh", "-c", script, check=False)
    assert re.search(r"tmpfs /scratch tmpfs rw,\S*size=1024k", done.stdout)
    assert "Read-only file system" in done.stderr and "/scratch/x" not in done.stderr


def test_capabilities_and_security_options(orlop):
    def effective(*options):
        out = orlop(
            "run", "--rm", *options, "host", "grep", "-E", "CapEff|NoNewPrivs|Seccomp:", "/proc/self/status"
        ).stdout
        return dict(line.split(":\t") for line in out.splitlines())

    assert effective("--cap-drop", "ALL")["CapEff"] == "0" * 16
    assert effective("--cap-drop", "all", "--cap-add", "CHOWN")["CapEff"] == "0000000000000001"
    assert effective("--security-opt", "seccomp=unconfined")["Seccomp"] == "0"
    assert effective("--security-opt", "no-new-privileges=false")["NoNewPrivs"] == "0"


def test_a_container_in_the_background(orlop):
    made = orlop(
        "run", "-d", "--name", "web", "-e", "X=1", "host", "sh", "-c", "echo one; echo two >&2; sleep 1000"
    ).stdout.strip()
    assert re.fullmatch("[0-9a-f]{64}", made)
    until(lambda: orlop("logs", "web").stdout == "one\n")
    assert orlop("logs", "web").stderr == "two\n"
    listed = orlop("ps").stdout
    assert made[:12] in listed and "web" in listed and "Up " in listed
    assert orlop("inspect", "-f", "{{.State.Running}} {{.Config.Env}}", "web").stdout.startswith("true [")
    assert orlop("exec", "web", "sh", "-c", "echo $X; exit 4", check=False).code == 4
    assert orlop("stop", "-t", "1", "web").stdout == "web\n"
    assert "web" not in orlop("ps").stdout and "Exited (137)" in orlop("ps", "-a").stdout
    assert orlop("rm", "web").stdout == "web\n"
    assert made[:12] not in orlop("ps", "-a").stdout


def test_exec_joins_everything_and_leaves_it_running(orlop):
    orlop("run", "-d", "--name", "c", "host", "sleep", "1000")
    same = "[ $(readlink /proc/self/ns/$n) = $(readlink /proc/1/ns/$n) ] || echo $n"
    script = f"for n in cgroup ipc mnt net pid time uts; do {same}; done"
    assert orlop("exec", "c", "sh", "-c", script + "; grep PPid: /proc/$$/status").stdout == "PPid:\t0\n"
    assert (
        orlop("exec", "-u", "65534", "-w", "/tmp", "-e", "A=b", "c", "sh", "-c", "id -u; pwd; echo $A").stdout
        == "65534\n/tmp\nb\n"
    )
    status = orlop("exec", "c", "grep", "-E", "^(CapEff|Seccomp|NoNewPrivs):", "/proc/self/status").stdout
    assert status.split() == ["CapEff:", "00000000a80425fb", "NoNewPrivs:", "1", "Seccomp:", "2"]
    assert "Up " in orlop("ps").stdout


def test_attach_shows_what_comes_and_ctrl_c_ends_it(orlop):
    orlop("run", "-d", "-i", "--name", "c", "host", "sh", "-c", "for i in 1 2; do read l; echo got $l; done; echo bye")
    assert orlop("attach", "c", input="a\nb\n").stdout == "got a\ngot b\nbye\n"
    assert orlop("wait", "c").stdout.strip() == "0"
    orlop("run", "-d", "--name", "loop", "host", "sh", "-c", "trap 'exit 5' INT; while :; do echo x; sleep 0.1; done")
    attached = orlop.popen("attach", "loop", stdout=subprocess.PIPE)
    assert attached.stdout.readline() == b"x\n"
    attached.send_signal(signal.SIGINT)
    attached.communicate(timeout=20)
    assert attached.returncode == 5


def test_logs_follow_to_the_end(orlop):
    orlop("run", "-d", "--name", "c", "host", "sh", "-c", "for i in 1 2 3 4 5; do echo $i; sleep 0.1; done")
    assert orlop("logs", "-f", "c").stdout == "1\n2\n3\n4\n5\n"
    assert orlop("logs", "-n", "2", "c").stdout == "4\n5\n"
    assert re.match(r"\d{4}-\d\d-\d\dT[\d:.]+Z 5\n", orlop("logs", "-t", "--tail", "1", "c").stdout)


def test_auto_remove_removes(orlop):
    orlop("run", "--rm", "--name", "gone", "host", "true")
    orlop("run", "-d", "--rm", "--name", "later", "host", "true")
    until(lambda: not orlop.container_ids())
    # No name of hex digits: it could be the beginning of an image's ID.
    assert orlop("inspect", "gone", check=False).code == 1


def test_import_and_run_an_image(orlop, tmp_path):
    root = tmp_path / "tree"
    orlop("rootfs", "from-binaries", "--with", "/bin/sh", "--with", "/bin/ls", str(root))
    (root / "hello").write_text("hi\n")
    subprocess.run(["tar", "-C", root, "-cf", tmp_path / "r.tar", "."], check=True)
    orlop("import", str(tmp_path / "r.tar"), "tiny:1")
    assert "tiny" in orlop("images").stdout
    assert "hello" in orlop("run", "--rm", "tiny:1", "ls", "/").stdout
    assert "hello" in orlop("run", "--rm", "--rootfs", str(root), "/bin/ls", "/").stdout


@pytest.mark.parametrize("verb", ["import", "load"])
def test_a_client_that_goes_ends_the_reading_of_its_pipe_though_the_writer_lives_on(orlop, verb):
    """red: without looking at the client's connection a thread of the engine reads that pipe as long as it is open."""
    orlop("run", "--rm", "--network", "none", "host", "true")
    descriptors = Path(f"/proc/{orlop.engine_pid()}/fd")

    def held(inode):
        return [fd for fd in descriptors.iterdir() if _link(fd) == f"pipe:[{inode}]"]

    begun = tarfile.TarInfo("file")
    begun.size = 1 << 20
    reading, writing = os.pipe()
    inode = os.fstat(reading).st_ino
    words = ("import", "-", "x") if verb == "import" else ("load",)
    client = orlop.popen(*words, stdin=reading, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.close(reading)
    try:
        os.write(writing, begun.tobuf())
        until(lambda: held(inode))
        client.kill()
        client.wait()
        until(lambda: not held(inode))
        assert orlop("images", "-q", "x").stdout == ""
    finally:
        client.kill()
        client.wait()
        os.close(writing)


def _link(path):
    try:
        return os.readlink(path)
    except OSError:
        return ""


def test_dry_run_makes_nothing_and_explain_tells_everything(orlop):
    plan = orlop("run", "--dry-run", "-m", "32m", "--name", "c", "host", "true").stdout
    for call in ("clone3", "pivot_root", "move_mount", "capset", "seccomp", "execve"):
        assert call in plan, call
    assert orlop.container_ids() == []
    orlop("run", "-d", "--name", "c", "-m", "32m", "host", "sleep", "1000")
    told = orlop("explain", "c").stdout
    for word in ("clone3", "pivot_root", "33554432", "chown", "capset", "pid", "mount"):
        assert word in told, word


@pytest.mark.parametrize("network", ["none", "host"])
def test_network_none_has_loopback_only_and_host_is_the_hosts(orlop, network):
    name = orlop("run", "--rm", "--network", network, "host", "readlink", "/proc/self/ns/net").stdout.strip()
    hosts = orlop.inside(lambda: os.readlink("/proc/thread-self/ns/net"))
    assert (name == hosts) == (network == "host")
    if network == "none":
        devices = orlop("run", "--rm", "--network", "none", "host", "cat", "/proc/net/dev").stdout.splitlines()[2:]
        assert [line.split(":")[0].strip() for line in devices] == ["lo"]
