"""Escapes that other runtimes suffered, tried against the runtime's library from inside a container."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from orlop.linux import executable
from orlop.linux.cgroup import Cgroup, detect
from orlop.runtime.cli.sealed import needs_seal
from orlop.spec.runtime import Capabilities, Hook, Hooks, IdMapping, Mount, Namespace, Process, User
from support import container, doors, launcher
from support.container import CAPABILITIES, ENVIRONMENT, MOUNTS, NAMESPACES, make_spec
from support.engine import COMMAND
from support.pace import SLOW

RACE_STARTS = 120
SECRET = "the-callers-own"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return container.make_root(tmp_path_factory.mktemp("escapes") / "root")


@pytest.fixture(scope="module")
def sealed() -> Iterator[tuple[str, ...]]:
    """The interpreter in sealed memory, as the spawner executes it."""
    fd = executable.sealed_copy(os.path.realpath(sys.executable), "orlop")
    # A shell between: the driver is started by path, and its own argv[0] leads it to its library.
    yield ("/bin/bash", "-c", f'exec -a {sys.executable} /proc/{os.getpid()}/fd/{fd} "$@"', "-")
    os.close(fd)


def with_capability(*names: str) -> Capabilities:
    wanted = (*CAPABILITIES, *names)
    return Capabilities(bounding=wanted, effective=wanted, permitted=wanted)


# -- what a process of ours shows while it enters -------------------------------------------------------------------


WATCH = """
pass=0
while true; do
    for p in /proc/[0-9]*; do
        echo; echo "exe $(readlink $p/exe)"
        for f in $p/fd/*; do echo "fd $(readlink $f)"; done
        cat $p/maps $p/environ | tr '\\0' '\\n'
    done > /dev/shm/now 2> /dev/null
    cat /dev/shm/now >> /dev/shm/seen
    pass=$((pass + 1)); echo $pass > /dev/shm/pass
done
"""
HELD = """
import json, os, sys, time
sys.path[:0] = sys.argv[1].split(":")
from orlop.linux import process
from orlop.runtime import enter, host, launch, plan, rootfs
from orlop.spec.runtime import Mount, Process, Spec
from pathlib import Path
facts = host.facts()
spec = Spec.from_json(json.loads(sys.argv[3]))
fd = rootfs.open_rootfs([Mount(type="bind", source=sys.argv[2])])
watcher = launch.create(plan.compile(spec, facts), fd, (0, 1, 2))
watcher.start()
shm = Path(f"/proc/{watcher.pid}/root/dev/shm")
def passes():
    try:
        return int((shm / "pass").read_text() or 0)
    except FileNotFoundError:
        return 0
def watched():
    # Two whole passes from now on: the first may have begun before.
    target = passes() + 3
    while passes() < target:
        time.sleep(0.005)
try:
    watched()
    process_plan = enter.compile_exec(Process(cwd="/", args=("true",), env=spec.process.env), spec, facts)
    for _ in range(3):
        entered = enter.create_exec(process_plan, watcher.pid, watcher.pidfd, (0, 1, 2))
        watched()
        if sys.argv[4] == "starts":
            entered.start()
        else:
            process.pidfd_send_signal(entered.pidfd, 9)
        process.wait_pidfd(entered.pidfd)
    print((shm / "seen").read_bytes().decode(errors="replace"))
finally:
    process.pidfd_send_signal(watcher.pidfd, 9)
    process.wait_pidfd(watcher.pidfd)
"""


ATTACH = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
PTRACE_ATTACH, PTRACE_DETACH, WALL = 16, 17, 0x40000000
said, passes = {"exe /bin/sh"}, 0  # what the driver's caller looks for
while True:
    for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))):
        if pid == os.getpid():
            continue
        ctypes.set_errno(0)
        if libc.ptrace(PTRACE_ATTACH, pid, None, None) == 0:
            said.add("attached")
            os.waitpid(pid, WALL)
            libc.ptrace(PTRACE_DETACH, pid, None, None)
        elif ctypes.get_errno() != 3:  # ESRCH: it ended meanwhile
            said.add(os.strerror(ctypes.get_errno()))
    passes += 1
    for name, text in (("seen", "\\n".join(sorted(said))), ("pass", str(passes))):
        with open(f"/dev/shm/{name}.new", "w") as file:
            file.write(text)
        os.rename(f"/dev/shm/{name}.new", f"/dev/shm/{name}")
"""


def seen_by_a_watcher(
    root: Path, python: tuple[str, ...], capabilities: Capabilities, watcher: tuple[str, ...] = ("sh", "-c", WATCH)
) -> str:
    """Return what a container reads of its /proc while execs stand at their last step before execve."""
    spec = json.dumps(make_spec(*watcher, capabilities=capabilities).to_json())
    end = "starts" if watcher[0] == "sh" else "ends"
    command = [*python, "-c", HELD, launcher.IMPORTS, str(root), spec, end]
    env = os.environ | {"SECRET": SECRET}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100 * SLOW, env=env)
    assert done.returncode == 0, done.stderr
    assert "exe /bin/sh" in done.stdout or "exe /usr/bin/dash" in done.stdout
    return done.stdout


def test_sec_02_a_process_that_enters_shows_nothing(root: Path) -> None:
    """CVE-2016-9962: until its execve, an exec can't be traced, and its descriptors and memory can't be seen."""
    seen = seen_by_a_watcher(root, (sys.executable,), with_capability())
    assert "python" not in seen and SECRET not in seen


def test_sec_02_nobody_attaches_to_a_process_that_enters(tmp_path: Path) -> None:
    """CVE-2016-9962: to be root with the same capabilities is not enough, as long as it stands before its execve."""
    program = ("python3", "-I", "-S", "-c", ATTACH)
    tried = seen_by_a_watcher(doors.tree(tmp_path / "root"), (sys.executable,), with_capability(), program)
    assert set(tried.split("\n")) - {""} == {"exe /bin/sh", "Operation not permitted"}


def test_sec_01_not_even_with_ptrace_is_a_host_binary_reached(root: Path, sealed: tuple[str, ...]) -> None:
    """CVE-2019-5736: who may trace sees a program in sealed memory, and no file of the host's."""
    seen = seen_by_a_watcher(root, sealed, with_capability("CAP_SYS_PTRACE"))
    programs = {line.removeprefix("exe ") for line in seen.splitlines() if line.startswith("exe ")}
    # "" is a process that ended between the listing and the look.
    assert {program for program in programs if not program.startswith("/bin/")} - {""} == {"/memfd:orlop (deleted)"}
    assert SECRET not in seen


CACHED_PYTHON = COMMAND.with_name(".cache") / "python"
OVERWRITE = """
import os
print(os.readlink("/proc/self/exe"))
for path in ("/proc/self/exe", "/proc/self/fd/%d" % os.open("/proc/self/exe", os.O_PATH)):
    for flags in (os.O_WRONLY, os.O_RDWR | os.O_TRUNC):
        try:
            os.write(os.open(path, flags), b"#!/bin/sh\\n")
            print("WROTE")
        except OSError as refused:
            print(refused.strerror)
"""


@pytest.fixture(scope="module")
def root_with_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image in which the interpreter that is reached as /proc/self/exe works, so that it can attack."""
    root = container.make_root(tmp_path_factory.mktemp("python") / "root", ("python3",))
    for name, head in (("script", "/proc/self/exe"), ("nested", "/script")):
        (root / name).write_text(f"#!{head}\n{OVERWRITE}")
        (root / name).chmod(0o755)
    return root


@pytest.mark.parametrize("args", [("/proc/self/exe", "-c", OVERWRITE), ("/script",), ("/nested",)])
def test_sec_01_proc_self_exe_as_the_command(
    root_with_python: Path, sealed: tuple[str, ...], args: tuple[str, ...]
) -> None:
    """CVE-2019-5736: an image whose program is what the runtime executed last."""
    outcome = launcher.run(make_spec(*args), root_with_python, python=sealed)
    assert outcome.stdout.splitlines() == ["/memfd:orlop (deleted)"] + ["Text file busy"] * 4, repr(outcome)


@pytest.mark.parametrize("args", [("/proc/self/exe", "-c", OVERWRITE), ("/nested",)])
def test_sec_01_orlop_runtime_is_sealed_as_well(root_with_python: Path, tmp_path: Path, args: tuple[str, ...]) -> None:
    spec = make_spec(*args, cgroups_path=f"/orlop-test-{os.getpid()}/sealed")
    (tmp_path / "config.json").write_text(json.dumps(spec.to_json() | {"root": {"path": str(root_with_python)}}))
    command = [str(COMMAND.with_name("orlop-runtime")), "--root", str(tmp_path / "state"), "run", "sealed"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60 * SLOW)
    Cgroup(detect(), f"/orlop-test-{os.getpid()}").prune()
    # By the interpreter itself, or by `runtime.sealer` when it has been there before.
    exe, *refusals = done.stdout.splitlines()
    busy, read_only = ["Text file busy"] * 4, ["Read-only file system"] * 4
    own = f"/{os.path.basename(os.path.realpath(CACHED_PYTHON.read_text().strip()))}"
    assert (exe, refusals) in (("/memfd:orlop-runtime (deleted)", busy), (own, read_only)), done


def test_only_what_enters_a_container_pays_for_the_seal() -> None:
    for argv in (["run", "x"], ["--root", "/r", "--log", "l", "exec", "x", "ls"], ["create", "x"], ["restore", "x"]):
        assert needs_seal(argv)
    for argv in (["state", "x"], ["--version"], [], ["kill", "x", "9"], ["delete", "-f", "x"], ["start", "x"]):
        assert not needs_seal(argv)


def test_sealed_memory_can_not_be_written(tmp_path: Path) -> None:
    fd = executable.sealed_copy("/bin/true", "test")
    try:
        path = f"/proc/self/fd/{fd}"
        assert executable.is_sealed(path) and not executable.is_sealed("/bin/true")
        for flags in (os.O_WRONLY, os.O_RDWR, os.O_RDWR | os.O_APPEND):
            writer = os.open(path, flags)
            with pytest.raises(PermissionError):
                os.write(writer, b"x")
            with pytest.raises(PermissionError):
                os.ftruncate(writer, 1)
            os.close(writer)
        assert subprocess.run([path], pass_fds=[fd], check=False).returncode == 0
        with pytest.raises(FileNotFoundError):
            executable.sealed_copy(str(tmp_path / "missing"), "test")
    finally:
        os.close(fd)


AUDITED = """
import json, os, sys
sys.path[:0] = sys.argv[1].split(":")
from support.container import MOUNTS, make_spec
from orlop.linux import process
from orlop.runtime import enter, host, launch, plan, rootfs
from orlop.spec.errors import OrlopError
from orlop.spec.runtime import Hook, Hooks, Mount, Process, Rlimit, Seccomp, User
root, seen = sys.argv[2:4]
log = os.open(seen, os.O_WRONLY | os.O_APPEND)
caller = os.getpid()
def audit(event, args):
    # open: of a Python file; import: of a module that is not there yet.
    if os.getpid() != caller and (event == "import" or (event == "open" and str(args[0]).endswith((".py", ".pyc")))):
        os.write(log, f"{event} {args[0]}\\n".encode())
sys.addaudithook(audit)
facts = host.facts()
kill = Seccomp.from_json({"defaultAction": "SCMP_ACT_ALLOW"})
hooks = Hooks(create_container=(Hook(path="/bin/true"),), start_container=(Hook(path="/bin/true"),))
fill = Mount(destination="/etc", type="tmpfs", options=("tmpcopyup",))
specs = [
    make_spec("true", seccomp=kill, hooks=hooks, mounts=(*MOUNTS, fill), sysctl={"net.ipv4.ip_forward": "1"}),
    make_spec("true", user=User(uid=7, gid=8), rlimits=(Rlimit(type="RLIMIT_CORE", soft=0, hard=0),)),
    make_spec("sh", "-c", "true", terminal=True),
    make_spec("nosuch"),
    make_spec("/etc"),
    make_spec("/script"),
    make_spec("/r\u00e4tsel"),
    make_spec("true", cwd="/etc/passwd"),
    make_spec("true", sysctl={"net.ipv4.nosuch": "1"}),
    make_spec("true", mounts=(*MOUNTS, Mount(destination="/x", type="tmpfs", options=("size=x",)))),
    make_spec("true", mounts=(*MOUNTS, Mount(destination="/proc/x", type="tmpfs"))),
    make_spec("true", hooks=Hooks(start_container=(Hook(path="/nosuch"),))),
]
ends = []
for spec in specs:
    fd = rootfs.open_rootfs([Mount(type="bind", source=root)])
    try:
        created = launch.create(plan.compile(spec, facts), fd, (0, 1, 2))
        created.start()
        process.wait_pidfd(created.pidfd)
        ends.append("started")
    except OrlopError as error:
        ends.append(error.kind)
    os.close(fd)
fd = rootfs.open_rootfs([Mount(type="bind", source=root)])
spec = make_spec("sleep", "60")
sleeper = launch.create(plan.compile(spec, facts), fd, (0, 1, 2))
sleeper.start()
for wanted in (Process(cwd="/", args=("true",), env=spec.process.env), Process(cwd="/nosuch", args=("true",))):
    try:
        entered = enter.create_exec(enter.compile_exec(wanted, spec, facts), sleeper.pid, sleeper.pidfd, (0, 1, 2))
        entered.start()
        process.wait_pidfd(entered.pidfd)
        ends.append("started")
    except OrlopError as error:
        ends.append(error.kind)
process.pidfd_send_signal(sleeper.pidfd, 9)
process.wait_pidfd(sleeper.pidfd)
print(*ends)
"""


def test_sec_05_nothing_is_imported_after_the_clone(root: Path, tmp_path: Path) -> None:
    """CVE-2019-14271: what would be loaded late would come from the container's file system. Failures count too."""
    own = container.make_root(tmp_path / "own")
    (own / "script").write_text("no program\n")
    (own / "script").chmod(0o755)
    seen = tmp_path / "seen"
    seen.touch()
    command = [sys.executable, "-c", AUDITED, launcher.IMPORTS, str(own), str(seen)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100 * SLOW)
    expected = "started started started command command command command invalid invalid invalid invalid "
    assert done.stdout.split()[-14:] == [*expected.split(), "unavailable", "started", "invalid"], (
        done.stdout + done.stderr
    )
    assert seen.read_text() == ""


# -- mount targets that somebody swaps ------------------------------------------------------------------------------


class Swapper(threading.Thread):
    """Exchange two names as fast as possible. renameat2(2) with RENAME_EXCHANGE."""

    def __init__(self, one: Path, other: Path) -> None:
        super().__init__()
        self.names = os.fsencode(one), os.fsencode(other)
        self.count = 0
        self.over = threading.Event()

    def run(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        one, other = self.names
        while not self.over.is_set():
            assert libc.renameat2(-100, one, -100, other, 2) == 0
            self.count += 1


STARTS = """
import os, sys
sys.path[:0] = sys.argv[1].split(":")
from orlop.linux import process
from orlop.runtime import host, launch, plan, rootfs
from orlop.spec.errors import OrlopError
from orlop.spec.runtime import Mount
from support.container import MOUNTS, make_spec
root, shared, secret, count = *sys.argv[2:5], int(sys.argv[5])
facts = host.facts()
mounts = (
    *MOUNTS,
    Mount(destination="/shared", type="bind", source=shared, options=("rbind",)),
    Mount(destination="/shared/place/made/deep", type="tmpfs"),
    Mount(destination="/shared/place/file", type="bind", source=secret),
)
compiled = plan.compile(make_spec("sh", "-c", "test -e /etc/canary && echo ESCAPED; true", mounts=mounts), facts)
for _ in range(count):
    fd = rootfs.open_rootfs([Mount(type="bind", source=root)])
    try:
        created = launch.create(compiled, fd, (0, 1, 2))
        created.start()
        process.wait_pidfd(created.pidfd)
        os.close(created.pidfd)
        print("started")
    except OrlopError as error:
        print("refused")
    os.close(fd)
"""


def test_sec_08_and_15_targets_below_a_directory_that_becomes_a_link(root: Path, tmp_path: Path) -> None:
    """CVE-2021-30465, CVE-2024-45310: a volume is shared with an attacker who swaps a directory for a link."""
    outside, shared = tmp_path / "outside", tmp_path / "shared"
    for directory in (outside, shared, shared / "place"):
        directory.mkdir()
    (outside / "canary").write_text("canary")
    # From the host's root this link leads to a directory, from the container's to nothing.
    (shared / "link").symlink_to(outside)
    secret = tmp_path / "secret"
    secret.write_text("x")
    swapper = Swapper(shared / "place", shared / "link")
    swapper.start()
    try:
        arguments = [launcher.IMPORTS, str(root), str(shared), str(secret), str(RACE_STARTS)]
        command = [sys.executable, "-c", STARTS, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100 * SLOW)
    finally:
        swapper.over.set()
        swapper.join()
    words = done.stdout.split()
    assert len(words) == RACE_STARTS and set(words) <= {"started", "refused"}, done.stdout + done.stderr
    assert swapper.count > RACE_STARTS
    assert sorted(path.name for path in outside.iterdir()) == ["canary"]
    assert (outside / "canary").read_text() == "canary"
    # Whatever was mounted, the host's table has no mount below any place of this test.
    assert str(tmp_path.parent) not in Path("/proc/self/mountinfo").read_text()
    inside = root / str(outside).lstrip("/")
    assert not inside.exists() or "canary" not in os.listdir(inside)


def test_sec_12_the_console_is_not_bound_where_a_link_says(root: Path, tmp_path: Path) -> None:
    """CVE-2025-52565: /dev/console, and the terminal itself, may be links of an attacker's."""
    shared = tmp_path / "dev"
    (shared / "pts").mkdir(parents=True)
    (shared / "console").symlink_to("/proc/sys/kernel/hostname")
    kept = tuple(mount for mount in MOUNTS if mount.destination != "/dev")
    mounts = (Mount(destination="/dev", type="bind", source=str(shared), options=("rbind",)), *kept)
    outcome = launcher.run(make_spec("true", terminal=True, mounts=mounts), root)
    assert outcome.error is not None and "/dev/console" in str(outcome.error), repr(outcome)


def test_sec_12_ptmx_must_be_that_of_a_devpts(root: Path, tmp_path: Path) -> None:
    shared = tmp_path / "dev"
    (shared / "pts").mkdir(parents=True)
    os.mkfifo(shared / "pts/ptmx")
    kept = tuple(mount for mount in MOUNTS if not mount.destination.startswith("/dev"))
    mounts = (*kept, Mount(destination="/dev", type="bind", source=str(shared)))
    outcome = launcher.run(make_spec("true", terminal=True, mounts=mounts), root)
    assert outcome.error is not None and "/dev/pts" in str(outcome.error), repr(outcome)


def test_sec_09_masks_cover_the_procfs_that_was_mounted(root: Path, tmp_path: Path) -> None:
    """CVE-2023-27561: while the container is made, somebody with the same root puts another /proc in its place."""
    own = container.make_root(tmp_path / "own")
    hook = tmp_path / "hook"
    hook.write_text(f"#!/bin/sh\ncd {own} && mv proc hidden && mkdir -p proc/sys/kernel && touch proc/keys\n")
    hook.chmod(0o755)
    hooks = Hooks(create_runtime=(Hook(path=str(hook), env=("PATH=/bin:/usr/bin",)),))
    script = "test -d /hidden/1 && echo moved; cat /hidden/keys; echo x > /hidden/sys/kernel/hostname || echo refused"
    outcome = launcher.run(make_spec("sh", "-c", script, hooks=hooks), own)
    assert outcome.stdout.split() == ["moved", "refused"], repr(outcome)


# -- control groups -------------------------------------------------------------------------------------------------


def test_sec_30_no_control_file_can_be_written(root: Path) -> None:
    script = """
    cd /sys/fs/cgroup
    for f in */release_agent */notify_on_release */cgroup.procs */tasks */memory.limit_in_bytes cgroup.procs; do
        (echo 1 > $f) 2> /dev/null && echo WROTE $f
    done
    mkdir pids/x 2> /dev/null && echo MADE
    mount -t cgroup -o pids none /tmp 2> /dev/null && echo MOUNTED
    echo end
    """
    path = f"/orlop-test-{os.getpid()}/sec30"
    outcome = launcher.run(make_spec("sh", "-c", script, cgroups_path=path), root)
    assert outcome.stdout.split() == ["end"], repr(outcome)


def test_sec_30_release_agent_in_a_user_namespace(root: Path) -> None:
    """CVE-2022-0492: an administrator of a user namespace mounts a v1 hierarchy and tries to name an agent."""
    maps = (IdMapping(container_id=0, host_id=100000, size=65536),)
    script = """
    for c in pids memory cpu; do
        mount -t cgroup -o $c none /dev/shm 2> /dev/null || continue
        echo mounted
        (echo /x > /dev/shm/release_agent) 2> /dev/null && echo WROTE
        umount /dev/shm
    done
    echo end
    """
    spec = make_spec(
        "sh", "-c", script, capabilities=with_capability("CAP_SYS_ADMIN"), uid_mappings=maps, gid_mappings=maps,
        namespaces=tuple(Namespace(type=kind) for kind in (*NAMESPACES, "user")),
        cgroups_path=f"/orlop-test-{os.getpid()}/agent",
    )  # fmt: skip
    outcome = launcher.run(spec, root)
    assert "end" in outcome.stdout and "WROTE" not in outcome.stdout, repr(outcome)


# -- identity -------------------------------------------------------------------------------------------------------


def test_sec_29_the_primary_group_stays_in_negative_permissions(root: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    os.chown(secret, 0, 4000)
    secret.chmod(0o707)
    mounts = (*MOUNTS, Mount(destination="/secret", type="bind", source=str(secret), options=("bind",)))
    user = User(uid=1000, gid=4000, additional_gids=(4000,))
    outcome = launcher.run(make_spec("cat", "/secret", user=user, mounts=mounts), root)
    assert outcome.code == 1 and "Permission denied" in outcome.stderr, repr(outcome)


@pytest.mark.parametrize("entry", [make_spec("grep", "CapInh", "/proc/self/status")])
def test_sec_28_nothing_is_inheritable(root: Path, entry: object) -> None:
    process = Process(cwd="/", args=("grep", "CapInh", "/proc/self/status"), env=ENVIRONMENT)
    outcome = launcher.run(make_spec("sh", "-c", "grep CapInh /proc/self/status; sleep 60"), root, execs=[process])
    assert outcome.stdout.split() == ["CapInh:", "0" * 16] * 2, repr(outcome)
