"""`orlop unshare` and `orlop nsenter` beside util-linux's own: the same words, the same inside, the same status."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from orlop.linux import mount
from support import processes, rootless
from support.engine import CHECKOUT, COMMAND, Environment
from support.rootless import User
from support.tasks import wait_until

TIMEOUT_S = 60.0
SOURCE = CHECKOUT / "src"
# What a process can tell of where it is; what differs from one run to the next is normalised below.
PROBE = r"""
pwd; id -u; id -G; umask; hostname
cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups /proc/self/timens_offsets
for n in mnt uts ipc net pid user cgroup time; do readlink /proc/self/ns/$n; done
grep -E '^(Cap|NoNewPrivs|Groups|SigBlk|SigIgn)' /proc/self/status
grep -E '^NSpid' /proc/self/status | wc -w
[ $$ -lt 40 ] && echo few || echo many
[ -d /proc/$$ ] && echo its procfs
grep -E '^[0-9]+ [0-9]+ [^ ]+ [^ ]+ (/|/proc) ' /proc/self/mountinfo | sed 's/^[0-9]* [0-9]* [^ ]*//; s/:[0-9]*//'
"""
UNSHARE = [
    "-pf --mount-proc",
    "--pid --fork --mount-proc=/proc",
    "-T --boottime 1000 --monotonic -5",
    "-Tf --boottime=77",
    "-r",
    "-c",
    "-rUm",
    "-U",
    "-rn",
    "-fp --kill-child",
    "-u -w /usr",
    "-R / -w /usr",
    "-m -S 5 -G 6",
    "-r --keep-caps",
    "-U --setgroups deny",
    "-m --propagation slave",
    "-m --propagation unchanged",
    "-m --propagation shared",
    "-muinC",
    "--map-user=3 --map-group 7",
    "--map-user=nobody",
]
# The ids that a user may give away.
MAPS = [
    "--map-auto",
    "-r --map-auto",
    "-c --map-auto",
    "--map-user=3 --map-auto",
    "--map-user=70000 --map-auto",
    "--map-users={first},5,10 --map-groups={first},5,10",
    "--map-user=7 --map-users={first},5,10 --map-groups auto",
    "-r --map-users {first},1,10",
]
STATUSES = [
    ("unshare -f sh -c 'exit 7'", 7),
    ("unshare sh -c 'exit 7'", 7),
    ("unshare -f sh -c 'kill -TERM $$'", -signal.SIGTERM),
    ("unshare -fp sh -c 'kill -KILL $$; exit 3'", 3),
    ("unshare -u /no/such", 127),
    ("unshare -u no-such-program", 127),
    ("unshare -u /etc/passwd", 126),
    ("unshare -u /etc", 126),
    ("unshare -f no-such-program", 127),
    ("unshare -R /no/such true", 1),
    ("unshare -w /no/such true", 1),
    ("unshare --monotonic 5 true", 1),
    ("unshare -T --boottime -99999999999 true", 1),
    ("unshare -r --setgroups allow true", 1),
    ("unshare --net=/no/such/file true", 1),
    ("unshare -p sh -c 'true; true && (true); (true)'", 2),
    ("nsenter -m true", 1),
    ("nsenter -t 4194399 -m true", 1),
    ("nsenter --mount=/etc/passwd true", 1),
    ("nsenter --mount=/proc/self/ns/uts true", 1),
]


def run(words: list[str], more: Sequence[str] = (), **options: object) -> subprocess.CompletedProcess[str]:
    argv = {"capture_output": True, "text": True, "timeout": TIMEOUT_S, "stdin": subprocess.DEVNULL}
    return subprocess.run([*words, *more], check=False, **(argv | options))  # type: ignore[call-overload, no-any-return]


def normal(text: str) -> str:
    """Return an output with every new namespace's number as "new"."""
    own = {os.stat(f"/proc/self/ns/{kind}").st_ino for kind in os.listdir("/proc/self/ns")}
    return re.sub(r"\[(\d+)\]", lambda found: "[own]" if int(found[1]) in own else "[new]", text)


@pytest.fixture
def target() -> Iterator[int]:
    with processes.unshared("-muinC", "--mount-proc", script="hostname there; cd /usr") as pid:
        yield pid


@pytest.mark.parametrize("flags", UNSHARE)
def test_what_is_unshared_is_what_unshare_unshares(flags: str) -> None:
    ours, theirs = (
        run([*program, *flags.split(), "sh", "-c", PROBE]) for program in ([COMMAND, "unshare"], ["unshare"])
    )
    assert theirs.returncode == 0, theirs
    assert (ours.returncode, ours.stderr) == (0, theirs.stderr)
    assert normal(ours.stdout) == normal(theirs.stdout)


@pytest.mark.parametrize(("line", "status"), STATUSES)
def test_the_status_is_util_linuxs(line: str, status: int) -> None:
    words = shlex.split(line)
    theirs, ours = run(words), run([str(COMMAND), *words])
    assert (theirs.returncode, ours.returncode) == (status, status), ours.stderr
    assert "Traceback" not in ours.stderr
    assert bool(ours.stderr) == bool(theirs.stderr)


@pytest.mark.parametrize(
    "flags",
    ["-a", "-m -u", "-p", "-p -F", "-nC", "-r -w", "-m -r/usr", "-m -w/usr", "-u -W /tmp", "-S 5 -G 6 -n", "-pm -S 7"],
)
def test_what_is_entered_is_what_nsenter_enters(target: int, flags: str) -> None:
    if " " not in flags and len(flags) > 2 and flags[2] != "/":
        theirs_flags = [f"-{letter}" for letter in flags[1:]]  # util-linux takes what follows a letter for a file
    else:
        theirs_flags = [word for part in flags.split() for word in (["-p", "-m"] if part == "-pm" else [part])]
    probe = PROBE.replace("[ $$ -lt 40 ]", "[ $$ -lt 2000 ]")
    ours = run([str(COMMAND), "nsenter", "-t", str(target), *flags.split(), "sh", "-c", probe], cwd="/tmp")
    theirs = run(["nsenter", "-t", str(target), *theirs_flags, "sh", "-c", probe], cwd="/tmp")
    assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout)
    assert ours.stderr == theirs.stderr


def test_a_namespace_is_kept_by_its_file(tmp_path: Path) -> None:
    mount.mount(str(tmp_path), str(tmp_path), flags=mount.MS_BIND)
    try:
        mount.mount("none", str(tmp_path), flags=mount.MS_PRIVATE)
        for name in ("uts", "time", "mount"):
            (tmp_path / name).touch()
        made = run(
            [str(COMMAND), "unshare", *(f"--{kind}={tmp_path}/{kind}" for kind in ("uts", "mount", "time"))],
            shlex.split("--boottime 5000000 sh -c 'hostname kept && mount -t tmpfs none /mnt'"),
        )
        assert made.returncode == 0, made.stderr
        for program in (["nsenter"], [str(COMMAND), "nsenter"]):
            assert run([*program, f"--uts={tmp_path}/uts", "hostname"]).stdout == "kept\n"
            assert (
                run([*program, f"--mount={tmp_path}/mount", "grep", "-c", " /mnt ", "/proc/self/mountinfo"]).stdout
                == "1\n"
            )
            shifted = run([*program, f"--time={tmp_path}/time", "cat", "/proc/uptime"])
            assert float(shifted.stdout.split()[0]) > 5000000
        assert run([str(COMMAND), "nsenter", f"-u{tmp_path}/uts", "hostname"]).stdout == "kept\n"
    finally:
        for name in ("uts", "time", "mount"):
            subprocess.run(["umount", "-q", tmp_path / name], check=False)
        mount.umount2(str(tmp_path), mount.MNT_DETACH)


def test_a_pid_namespace_is_kept_once_it_has_a_process(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    file.touch()
    alone = run([str(COMMAND), "unshare", f"--pid={file}", "true"])
    assert alone.returncode == 1
    assert "--fork" in alone.stderr
    held = subprocess.Popen(
        [COMMAND, "unshare", "--fork", f"--pid={file}", "sh", "-c", "echo up; exec sleep 1000"], stdout=subprocess.PIPE
    )
    try:
        assert held.stdout is not None
        held.stdout.readline()
        entered = run([str(COMMAND), "nsenter", f"--pid={file}", "sh", "-c", "echo $$"])
        assert entered.returncode == 0, entered.stderr
        assert 1 < int(entered.stdout) < 50
    finally:
        for child in Path(f"/proc/{held.pid}/task/{held.pid}/children").read_text().split():
            os.kill(int(child), signal.SIGKILL)
        held.wait()
        assert held.stdout is not None
        held.stdout.close()
        subprocess.run(["umount", file], check=True)


def test_the_child_dies_with_its_parent() -> None:
    made = subprocess.Popen(
        [COMMAND, "unshare", "--kill-child", "sh", "-c", "echo $$; exec sleep 1000"], stdout=subprocess.PIPE
    )
    assert made.stdout is not None
    child = int(made.stdout.readline())
    made.kill()
    made.wait()
    made.stdout.close()
    wait_until(lambda: not processes.is_alive(child))


def test_a_container_is_entered_by_its_name(orlop: Environment) -> None:
    orlop("run", "-d", "--name", "box", "--hostname", "inner", "--network", "none", "host", "sleep", "1000")
    entered = orlop("nsenter", "-t", "box", "-a", "sh", "-c", "hostname; cat /proc/1/comm; id -u")
    assert entered.stdout == "inner\nsleep\n0\n"
    missing = orlop("nsenter", "-t", "nobody", "-a", "true", check=False)
    assert (missing.code, missing.stderr.splitlines()[0]) == (1, "orlop: No such container: nobody")
    orlop("stop", "-t", "0", "box")
    stopped = orlop("nsenter", "-t", "box", "-a", "true", check=False)
    assert (stopped.code, "it is not running" in stopped.stderr) == (1, True)


@pytest.mark.parametrize(("program", "status"), [("no-such", 127), ("/evil", 126)])
def test_nothing_of_what_is_entered_is_imported(tmp_path: Path, program: str, status: int) -> None:
    """A container that has files where the interpreter's modules lie gets none of them executed outside."""
    root = tmp_path / "root"
    for place in [path for path in sys.path if path.startswith("/")] + ["/usr/lib/python3", "/usr/lib/python3.11"]:
        lib = root / place.lstrip("/")
        lib.mkdir(parents=True, exist_ok=True)
        for name in ("warnings", "traceback", "resource", "json", "pwd", "contextlib", "orlop"):
            (lib / f"{name}.py").write_text("open('/imported', 'w')\n")
    (root / "evil").write_text("not a program")
    for words in (["unshare", "-f", "-R", str(root)], ["nsenter", f"-r{root}"]):
        done = run([str(COMMAND), *words, program])
        assert done.returncode == status
        assert "Traceback" not in done.stderr
        assert not (root / "imported").exists()


def test_nothing_can_be_imported_once_imports_are_sealed() -> None:
    code = (
        "from orlop.frontends.cli.namespaces import program; program.seal_imports('')\n"
        "try:\n    import traceback\nexcept ImportError:\n    print('sealed')"
    )
    assert run([sys.executable, "-S", "-c", code], env=os.environ | {"PYTHONPATH": str(SOURCE)}).stdout == "sealed\n"


@pytest.fixture(scope="module")
def user() -> Iterator[User]:
    with rootless.user() as somebody:
        yield somebody


@pytest.mark.parametrize("flags", [*MAPS, "-r -pf --mount-proc", "-rT --boottime 9", "-c --keep-caps"])
def test_an_ordinary_user_maps_ids_as_unshare_does(user: User, flags: str) -> None:
    words = flags.format(first=rootless.RANGE.split(":")[0]).split()
    probe = PROBE.replace("pwd;", "")
    theirs = user.run("unshare", *words, "sh", "-c", probe)
    ours = user.orlop("unshare", *words, "sh", "-c", probe)
    assert theirs.code == 0, theirs
    assert (ours.code, normal(ours.stdout)) == (0, normal(theirs.stdout)), ours


def test_ids_that_are_not_the_users_are_refused(user: User) -> None:
    done = user.orlop("unshare", "--map-users", "0:1:10", "--map-groups", "auto", "true")
    assert (done.code, "newuidmap does not map these" in done.stderr) == (1, True), done
    alone = user.orlop("unshare", "-m", "true")
    assert (alone.code, "write -r beside it" in alone.stderr) == (1, True), alone
