"""Root's containers in user namespaces: ids of their own, files that keep their owners on disk."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from support import rootless
from support.engine import Finished
from support.rootless import User

SRC = Path(__file__).parents[2] / "src"
FIRST, COUNT, REMAPPED = 300000, 200000, 700000


class Machine:
    """A machine whose /etc/subuid gives ids to `containers`, and an engine of its root."""

    def __init__(self, user: User) -> None:
        self.user = user
        self.root = user.directory / "data"
        self.run = user.directory / "r"
        self.run.mkdir(mode=0o700)
        for name in ("subuid", "subgid"):
            (user.directory / "etc" / name).write_text(f"containers:{FIRST}:{COUNT}\nremapper:{REMAPPED}:65536\n")

    def orlop(self, *words: str) -> Finished:
        env = ("env", f"ORLOP_ROOT={self.root}", f"ORLOP_RUN={self.run}")
        return self.user.as_root(*env, str(rootless.COMMAND), *words, path=self.user.path)

    def lines(self, *words: str) -> list[str]:
        done = self.orlop(*words)
        assert done.code == 0, done
        return done.stdout.splitlines()

    def uid_map(self, name: str) -> list[int]:
        pid = self.lines("inspect", "-f", "{{.State.Pid}}", name)[0]
        return [int(word) for word in Path(f"/proc/{pid}/uid_map").read_text().split()]


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    with rootless.user() as user:
        found = Machine(user)
        try:
            yield found
        finally:
            for line in found.orlop("ps", "-aq").stdout.split():
                found.orlop("rm", "-f", line)
            found.orlop("engine", "stop")


def test_a_mapped_bind_mount_keeps_the_containers_ids_on_disk(machine: Machine) -> None:
    place = machine.user.directory / "mapped"
    place.mkdir()
    try:
        words = ("run", "--rm", "--userns", "auto", "--network", "none", "-v", f"{place}:/m:idmap", "host", "sh", "-c")
        assert machine.lines(*words, "echo x >/m/root; echo x >/m/other; chown 5:6 /m/other; stat -c %u /m/root") == [
            "0"
        ]
        found = {path.name: (path.stat().st_uid, path.stat().st_gid) for path in place.iterdir()}
        assert found == {"root": (0, 0), "other": (5, 6)}
        plain = machine.orlop(*(word.removesuffix(":idmap") for word in words), "echo x >/m/new")
        assert (plain.code, "Permission denied" in plain.stderr) == (2, True)
        assert machine.lines("run", "--rm", "--network", "none", "-v", f"{place}:/m:ro,idmap", "host", "ls", "/m")
        twice = machine.orlop("create", "-v", f"{place}:/m:idmap,as=5", "host", "true")
        assert (twice.code, "invalid mode" in twice.stderr) == (1, True)
    finally:
        for path in place.iterdir():
            path.unlink()
        place.rmdir()


def test_a_mount_shows_its_owner_as_one_of_the_containers(machine: Machine) -> None:
    """as=UID where the container has ids of its own. Red with the machine's UID in the map: Permission denied; a
    volume was shown as if nothing had been asked for.
    """
    place = machine.user.directory / "shown"
    place.mkdir()
    os.chown(place, 1234, 1235)
    base = ("run", "--rm", "--userns", "auto", "--network", "none", "-u", "1000:1001")
    script = "stat -c %u:%g /m; echo x >/m/new; stat -c %u:%g /m/new"
    try:
        assert machine.lines(*base, "-v", f"{place}:/m:as=1000:1001", "host", "sh", "-c", script) == ["1000:1001"] * 2
        assert ((place / "new").stat().st_uid, (place / "new").stat().st_gid) == (1234, 1235)
        far = machine.orlop(*base, "-v", f"{place}:/m:as=4000000", "host", "true")
        assert (far.code, "as=4000000: the container's user namespace has no such id" in far.stderr) == (125, True), far
        machine.lines("volume", "create", "shown")
        assert machine.lines(*base, "-v", "shown:/m:as=1000:1001", "host", "sh", "-c", script) == ["1000:1001"] * 2
        root = ("run", "--rm", "--network", "none", "-v", "shown:/m", "host", "stat", "-c", "%u:%g", "/m", "/m/new")
        assert machine.lines(*root) == ["0:0", "0:0"]
    finally:
        shutil.rmtree(place)
        machine.orlop("volume", "rm", "-f", "shown")


def test_each_container_has_ids_that_nobody_else_has(machine: Machine) -> None:
    with ThreadPoolExecutor(3) as pool:
        own = ("--userns", "auto:size=5000", "host", "sleep", "1000")
        list(pool.map(lambda name: machine.lines("run", "-d", "--name", name, *own), "abc"))
    maps = [machine.uid_map(name) for name in "abc"]
    assert all(own == 0 and size == 5000 and first >= FIRST for own, first, size in maps)
    firsts = sorted(first for _, first, _ in maps)
    assert all(after - before >= 5000 for before, after in itertools.pairwise(firsts))
    machine.lines("stop", "-t", "0", "b")
    machine.lines("start", "b")
    assert machine.uid_map("b") == maps[1]
    assert machine.lines("inspect", "-f", "{{.HostConfig.UsernsMode}}", "b") == ["auto:size=5000"]
    done = machine.orlop("create", "--userns", f"auto:size={COUNT}", "host", "true")
    assert done.code == 1, done
    assert f"has no {COUNT} ids left" in done.stderr
    for name in "abc":
        machine.lines("rm", "-f", name)


def test_files_keep_their_owners_on_disk_and_everywhere(machine: Machine) -> None:
    machine.lines("run", "-d", "--name", "f", "--userns", "auto", "-v", "vol:/v", "host", "sleep", "1000")
    script = (
        "id -u; echo x >/tmp/x; chown 33:34 /tmp/x; echo y >/v/y; chown 7:8 /v/y; stat -c %u / /etc/passwd /etc/hosts"
    )
    assert machine.lines("exec", "f", "sh", "-c", script) == ["0", "0", "0", "0"]
    volume = (machine.root / "volumes/vol/_data/y").stat()
    assert (volume.st_uid, volume.st_gid) == (7, 8)
    assert "A /tmp/x" in machine.lines("diff", "f")
    given = machine.user.directory / "given"
    given.write_text("given")
    given.chmod(0o600)
    machine.lines("cp", str(given), "f:/tmp/given")
    assert machine.lines("exec", "f", "stat", "-c", "%u %g", "/tmp/given") == ["0 0"]
    taken = machine.user.directory / "taken.tar"
    taken.write_bytes(machine.orlop("cp", "f:/tmp/x", "-").raw_stdout)
    shown = machine.user.as_root("tar", "--numeric-owner", "-tvf", str(taken), path=machine.user.path).stdout
    assert re.search(r"\b33/34\b", shown), shown
    machine.lines("commit", "f", "kept:1")
    assert machine.lines("run", "--rm", "kept:1", "stat", "-c", "%u %g", "/tmp/x") == ["33 34"]
    assert str(machine.uid_map("f")[1]) in machine.lines("top", "f")[1]
    machine.lines("rm", "-f", "f")
    machine.lines("rmi", "kept:1")
    machine.lines("volume", "rm", "vol")


def test_root_inside_is_nobody_outside(machine: Machine) -> None:
    secret = machine.user.directory / "secret"
    secret.write_text("secret")
    secret.chmod(0o600)
    done = machine.orlop("run", "--rm", "--userns", "auto", "-v", f"{secret}:/s", "host", "cat", "/s")
    assert done.code == 1, done
    assert "Permission denied" in done.stderr
    machine.lines("run", "-d", "--name", "n", "--userns", "remap=remapper", "host", "sleep", "1000")
    pid = machine.lines("inspect", "-f", "{{.State.Pid}}", "n")[0]
    assert machine.uid_map("n") == [0, REMAPPED, 65536]
    assert os.stat(f"/proc/{pid}").st_uid == REMAPPED
    machine.lines("rm", "-f", "n")


OWN_MOUNTS = """
import os, sys
sys.path.insert(0, sys.argv.pop(1))
from contextlib import ExitStack
from orlop.runtime import rootfs
from orlop.spec.runtime import IdMapping, Mount
top = upper = sys.argv[1]
ids = (IdMapping(container_id=0, host_id=5000, size=1000),)
options = (f"lowerdir={top}/lower", f"upperdir={upper}/upper", f"workdir={upper}/work")
wanted = Mount(type="overlay", options=options, uid_mappings=ids, gid_mappings=ids)
os.chdir(top)
before = os.readlink("/proc/self/ns/mnt"), os.getcwd(), sorted(os.listdir("/proc/self/fd"))
with ExitStack() as opened:
    fd = rootfs._open(wanted, opened, rootfs._enter_own_mounts(opened))
found = os.stat("file", dir_fd=fd)
with open("file", opener=lambda name, flags: os.open(name, flags, dir_fd=fd)) as file:
    print(found.st_uid, file.read())
os.close(os.open("made", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
os.close(fd)
after = os.readlink("/proc/self/ns/mnt"), os.getcwd(), sorted(os.listdir("/proc/self/fd"))
print(before == after, os.listdir(f"{upper}/upper"))
"""


def test_layers_can_be_attached_for_a_kernel_that_wants_it(tmp_path: Path) -> None:
    # The way of kernels before 6.15, which this one takes, too: tests/vm has one that takes no other.
    for name in ("lower", "upper", "work"):
        (tmp_path / name).mkdir()
    (tmp_path / "lower/file").write_text("content")
    mounts = Path("/proc/self/mountinfo").read_text()
    argv = [sys.executable, "-c", OWN_MOUNTS, str(SRC), str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["5000 content", "True ['made']"], done
    assert Path("/proc/self/mountinfo").read_text() == mounts


def test_low_ports_pings_and_the_machines_namespaces_work(machine: Machine) -> None:
    sysctls = ("cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start")
    assert machine.lines("run", "--rm", "--userns", "auto", "host", *sysctls) == ["0"]
    shared = ("--userns", "auto", "--network", "host", "host", "cat", "/proc/net/dev")
    assert rootless.LINK in "".join(machine.lines("run", "--rm", *shared))
    assert machine.lines("run", "--rm", "--userns", "auto", "--network", "none", "host", "ls", "/sys/class/net") == [
        "lo"
    ]
    # Red where `reach._powers` says nothing.
    for capability, is_told in (("net_admin", True), ("SYS_TIME", False)):
        done = machine.orlop("run", "--rm", "--userns", "auto", "--cap-add", capability, "host", "true")
        assert done.code == 0 and ("NET_ADMIN has no power over its network" in done.stderr) is is_told, done
    device = ("--device", "/dev/zero:/dev/nil", "host", "stat", "-c", "%t:%T", "/dev/nil")
    assert machine.lines("run", "--rm", "--userns", "auto", *device) == ["1:5"]


def test_settings_of_the_network_are_the_engines_to_write(machine: Machine) -> None:
    # Root of another user namespace has no rights over a network namespace that the engine has made.
    own = ("--sysctl", "net.ipv4.ip_default_ttl=70", "--sysctl", "net.ipv4.conf.eth0.log_martians=1")
    read = "cd /proc/sys; cat net/ipv4/ip_default_ttl net/ipv4/conf/eth0/log_martians kernel/msgmax"
    both = (*own, "--sysctl", "kernel.msgmax=4321", "--restart", "always", "--name", "s", "host")
    machine.lines("run", "-d", "--userns", "auto", *both, "sleep", "1000")
    assert machine.lines("exec", "s", "sh", "-c", read) == ["70", "1", "4321"]
    shown = machine.lines("inspect", "-f", '{{index .HostConfig.Sysctls "net.ipv4.ip_default_ttl"}}', "s")
    assert shown == ["70"]
    pid = machine.lines("inspect", "-f", "{{.State.Pid}}", "s")[0]
    os.kill(int(pid), signal.SIGKILL)
    rootless.wait_for("it runs again", lambda: machine.lines("inspect", "-f", "{{.RestartCount}}", "s") == ["1"])
    rootless.wait_for("it answers", lambda: machine.orlop("exec", "s", "sh", "-c", read).stdout == "70\n1\n4321\n")
    machine.lines("rm", "-f", "s")
    ttl = ("cat", "/proc/sys/net/ipv4/ip_default_ttl")
    alone = machine.lines("run", "--rm", "--userns", "auto", "--network", "none", *own[:2], "host", *ttl)
    assert alone == ["70"]  # made by itself, in its own user namespace
    for wrong, told in (
        ("net.no.such=1", "the sysctl net.no.such can't be set to '1': No such file or directory"),
        ("net.ipv4.ip_default_ttl=x", "the sysctl net.ipv4.ip_default_ttl can't be set to 'x': Invalid argument"),
        ("net.ipv4.conf.../all/x=1", "is not allowed"),
    ):
        done = machine.orlop("run", "--rm", "--userns", "auto", "--sysctl", wrong, "host", "true")
        assert done.code == 125 and told in done.stderr, done
    assert machine.lines("ps", "-aq") == []


def test_a_namespace_is_shared_with_whoever_joins_it(machine: Machine) -> None:
    machine.lines("run", "-d", "--userns", "auto", "--ipc", "shareable", "--name", "lends", "host", "sleep", "1000")
    pid = machine.lines("inspect", "-f", "{{.State.Pid}}", "lends")[0]
    own = os.readlink(f"/proc/{pid}/ns/user")
    # The PID and IPC namespaces of another range of ids are closed to root in there: with its user namespace they open.
    joins = ("--userns", "container:lends", "--pid", "container:lends", "--ipc", "container:lends", "-v", "vol:/v")
    script = "readlink /proc/self/ns/user; kill -0 1 && echo may; touch /v/x; stat -c %u /v/x /bin"
    assert machine.lines("run", "--rm", *joins, "host", "sh", "-c", script) == [own, "may", "0", "0"]
    assert (machine.root / "volumes/vol/_data/x").stat().st_uid == 0
    done = machine.orlop("run", "--rm", "--userns", "container:lends", "--privileged", "host", "true")
    assert "privileged mode is incompatible with user namespaces" in done.stderr
    machine.lines("create", "--name", "joins", "--userns", "container:lends", "host", "true")
    machine.lines("rm", "-f", "lends")
    done = machine.orlop("start", "joins")
    assert done.code == 1 and "No such container: lends" in done.stderr, done
    machine.lines("rm", "joins")
    machine.lines("volume", "rm", "vol")
    machine.lines("run", "-d", "--name", "plain", "host", "sleep", "1000")
    shared = ("--userns", "container:plain", "host", "readlink", "/proc/self/ns/user")
    assert machine.lines("run", "--rm", *shared) == [os.readlink("/proc/self/ns/user")]
    machine.lines("rm", "-f", "plain")


def test_some_ids_are_given_by_name_and_the_rest_are_nobody_elses(machine: Machine) -> None:
    given = "auto:size=3000,uidmapping=0:1234:2,gidmapping=100:4321:1"
    machine.lines("run", "-d", "--name", "first", "--userns", given, "-v", "vol:/v", "host", "sleep", "1000")
    read = ("cat", "/proc/self/uid_map", "/proc/self/gid_map")
    found = [[int(word) for word in line.split()] for line in machine.lines("exec", "first", *read)]
    uids, gids = found[:2], found[2:]
    assert uids[0] == [0, 1234, 2] and uids[1][0::2] == [2, 2998] and uids[1][1] >= FIRST
    assert [line[0::2] for line in gids] == [[0, 100], [100, 1], [101, 2899]] and gids[1][1] == 4321
    assert gids[2][1] == gids[0][1] + 100 >= FIRST
    # On disk nothing has changed hands, whatever the map: layers and volumes are shown through it.
    script = "touch /v/a; chown 2:100 /v/a; stat -c %u:%g /v/a /etc/passwd"
    assert machine.lines("exec", "first", "sh", "-c", script) == ["2:100", "0:0"]
    shown = (machine.root / "volumes/vol/_data/a").stat()
    assert (shown.st_uid, shown.st_gid) == (2, 100)
    mine = machine.user.directory / "mine"
    mine.write_text("mine")
    mine.chmod(0o600)
    os.chown(mine, 1234, 1234)
    assert machine.lines("run", "--rm", "--userns", given, "-v", f"{mine}:/m", "host", "cat", "/m") == ["mine"]
    second = machine.lines("run", "--rm", "--userns", "auto:size=3000", "host", *read)
    first_free = int(second[0].split()[1])
    assert first_free >= uids[1][1] + 2998 or first_free + 3000 <= uids[1][1]
    machine.lines("rm", "-f", "first")
    machine.lines("volume", "rm", "vol")


def test_keep_id_of_root_is_a_namespace_in_which_everybody_is_who_they_are(machine: Machine) -> None:
    words = ("run", "-d", "--name", "k", "-v", "vol:/v", "--userns", "keep-id:uid=1000,gid=1001")
    machine.lines(*words, "host", "sleep", "1000")
    assert machine.uid_map("k") == [0, 0, 2**32 - 1]
    script = "id -u; id -g; readlink /proc/self/ns/user; stat -c %u:%g /etc/passwd"
    *ids, namespace, owner = machine.lines("exec", "k", "sh", "-c", script)
    assert (ids, owner) == (["1000", "1001"], "0:0")
    assert namespace != os.readlink("/proc/self/ns/user")
    # Its root has no power over the machine, as an owner of files it is the machine's: audit says so.
    assert machine.lines("run", "--rm", "--userns", "keep-id", "host", "id", "-u") == ["0"]
    machine.lines("run", "-d", "--name", "r", "--userns", "keep-id", "host", "sleep", "1000")
    shown = json.loads(machine.orlop("audit", "--format", "json", "r").stdout)
    assert [fact["passed"] for fact in shown[0]["facts"] if fact["fact"] == "root"] == [False]
    # It takes nobody an id away.
    assert machine.lines("run", "--rm", "--userns", f"auto:size={COUNT}", "host", "true") == []
    for name in ("k", "r"):
        machine.lines("rm", "-f", name)
    machine.lines("volume", "rm", "vol")


PING_SOCKET = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP); print('opened')"


def test_pings_are_those_of_ping_sockets_and_of_no_raw_ones(machine: Machine, peer: Callable[[str], Path]) -> None:
    # E09 both ways: who may open a ping socket is net.ipv4.ping_group_range's to say.
    own = ("run", "--rm", "--userns", "remap=remapper", "-v", "/usr:/usr:ro", "-u", "1000")
    shown = machine.lines(*own, "host", "/usr/bin/python3", "-I", "-S", "-c", PING_SOCKET)
    assert shown == ["opened"]
    shut = ("run", "--rm", "--sysctl", "net.ipv4.ping_group_range=1 0", *own[4:])
    done = machine.orlop(*shut, "host", "/usr/bin/python3", "-I", "-S", "-c", PING_SOCKET)
    assert done.code == 1 and "Permission denied" in done.stderr, done
    # E10: busybox asks for a raw socket, which takes CAP_NET_RAW over the network namespace's owner.
    busybox = ("-v", f"{peer('busybox')}:/bin/busybox:ro", "host", "/bin/busybox", "ping", "-c", "1", "127.0.0.1")
    done = machine.orlop("run", "--rm", "--userns", "remap=remapper", *busybox)
    assert done.code == 1 and "ping: permission denied (are you root?)" in done.stderr, done
    assert "1 packets received" in "".join(machine.lines("run", "--rm", *busybox))
    done = machine.orlop("run", "--rm", "--cap-drop", "NET_RAW", *busybox)
    assert done.code == 1 and "ping: permission denied (are you root?)" in done.stderr, done


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--userns", "auto", "--privileged"), "privileged mode is incompatible with user namespaces"),
        (("--userns", "auto:size=0"), "invalid USER mode: auto:size=0"),
        (("--userns", "auto:size=x"), "invalid USER mode: auto:size=x"),
        (("--userns", "auto:sizes=5"), "invalid USER mode: auto:sizes=5"),
        (("--userns", "remap=stranger"), "stranger has no ids in /etc/subuid"),
        (("--userns", "container:nobody"), "No such container: nobody"),
        (("--userns", "container:"), "invalid USER mode: container:"),
        (("--userns", "auto:uidmapping=0:5"), "invalid USER mode: auto:uidmapping=0:5"),
        (("--userns", "auto:uidmapping=0:5:2,uidmapping=1:9:1"), "invalid USER mode"),
        (("--userns", "auto:size=1,uidmapping=0:@5:2"), "write the machine's id, without the @"),
        (("--userns", "auto:size=5,uidmapping=7:7:4294967295"), "invalid USER mode"),
        (("--userns", "keep-id:size=5"), "root's keep-id has all ids there are"),
        (("--userns", "keep-id:gid=-1"), "invalid USER mode: keep-id:gid=-1"),
        (("--userns", "keep-id", "--nesting"), "it would have them as root"),
        (("--userns", "auto:size=9,uidmapping=0:0:1", "--nesting"), "it would have them as root"),
        (("--userns", "nomap"), "leaves an ordinary user's own id out, and this engine is root's"),
        (("--userns", "auto:size=10", "-u", "11"), "11 is not mapped in the user namespace"),
    ],
)
def test_what_can_not_be_is_an_error(machine: Machine, words: tuple[str, ...], told: str) -> None:
    done = machine.orlop("run", "--rm", *words, "host", "true")
    assert done.code == 125, done
    assert told in done.stderr
    assert "Next: " in done.stderr


def test_without_ids_the_error_says_how_to_get_some(machine: Machine) -> None:
    file = machine.user.directory / "etc/subuid"
    before = file.read_text()
    file.write_text("")
    try:
        done = machine.orlop("run", "--rm", "--userns", "auto", "host", "true")
    finally:
        file.write_text(before)
    assert done.code == 125, done
    assert "echo orlop:1879048192:268435456 | tee -a /etc/subuid" in done.stderr


@contextmanager
def serving(machine: Machine, *words: str, **variables: str) -> Iterator[None]:
    """An engine of its own on the machine's data, with words for `serve` and variables."""
    machine.lines("engine", "stop")
    own = {"ORLOP_ROOT": machine.root, "ORLOP_RUN": machine.run} | variables
    env = ("env", *(f"{name}={value}" for name, value in own.items()))
    served = subprocess.Popen(
        machine.user.root_argv(*env, str(rootless.COMMAND), "serve", *words),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        rootless.wait_for("the engine", lambda: machine.orlop("engine", "status").code == 0)
        yield
    finally:
        machine.orlop("engine", "stop")
        served.wait(timeout=60)


def test_an_engine_gives_everybody_ids_of_their_own_but_those_that_opt_out(machine: Machine) -> None:
    """S75's answer to "root everywhere": auto for whoever says nothing."""
    with serving(machine, ORLOP_USERNS="auto:size=3000"):
        for name in "ab":
            machine.lines("run", "-d", "--name", name, "host", "sleep", "1000")
        maps = [machine.uid_map(name) for name in "ab"]
        assert all(own == 0 and size == 3000 and first >= FIRST for own, first, size in maps)
        assert abs(maps[0][1] - maps[1][1]) >= 3000
        shown = machine.lines("run", "--rm", "--userns", "host", "host", "cat", "/proc/self/uid_map")[0].split()
        assert shown == ["0", "0", "4294967295"]
        machine.lines("rm", "-f", "a", "b")


def test_a_whole_engine_is_remapped_but_for_those_that_opt_out(machine: Machine) -> None:
    with serving(machine, "--userns-remap", "remapper"):
        assert machine.lines("run", "--rm", "host", "cat", "/proc/self/uid_map")[0].split() == [
            "0",
            str(REMAPPED),
            "65536",
        ]
        shown = machine.lines("run", "--rm", "--userns", "host", "host", "cat", "/proc/self/uid_map")[0].split()
        assert shown == ["0", "0", "4294967295"]
        assert "name=userns" in machine.lines("info", "-f", "{{.SecurityOptions}}")[0]
        # docker's word for busybox's ping without NET_RAW: it wants a raw socket (E10).
        done = machine.orlop("run", "--rm", "--privileged", "host", "true")
        assert "privileged mode is incompatible with user namespaces" in done.stderr


def test_a_layer_with_a_size_has_the_containers_owners(machine: Machine) -> None:
    fill = "touch /mine; stat -c %u:%g /mine /etc; dd if=/dev/zero of=/f bs=1M count=40 2>/dev/null; stat -c %s /f"
    run = ("run", "--rm", "--network", "none", "--userns", "auto", "--disk", "20m")
    owners, image, size = machine.lines(*run, "host", "sh", "-c", fill)
    assert (owners, image) == ("0:0", "0:0") and 19 << 20 <= int(size) <= 21 << 20
