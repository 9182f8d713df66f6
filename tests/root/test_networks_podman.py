"""Networks beside podman's (4.3.1 with netavark and aardvark-dns 1.4), of root and of an ordinary user.

PODMAN is what podman answered to the same words on the same machine, one of the test's own; ours must be equal but for
DIFFERENT, which says why. With ORLOP_TEST_PODMAN=1 podman is asked again, for minutes (`./dev bench` brings it).
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from bench.platforms import podman_configuration
from bench.workspace import CGROUP, Workspace
from devtools import peers
from support import rootless
from support.engine import COMMAND, Finished
from support.rootless import UID, User

Call = Callable[..., Finished]
BUSYBOX = "/bin/busybox"
NEXT = "-- next --"
_FOUND = "/^Name/ { found = 1 } found && /^Address/ { print $2 }"
FIND = f"{BUSYBOX} nslookup %s 2>&1 | {BUSYBOX} awk '{_FOUND}' | {BUSYBOX} sort -u"
ADDRESSES = f"{BUSYBOX} ip -4 -o addr | {BUSYBOX} awk '{{print $2, $4}}'"
# name of the container -> how it is run
CONTAINERS = {
    "web": "--network left --ip 10.91.0.7 --mac-address 02:42:0a:5b:00:07 --network-alias www -p 18080:80"
    f" bb:1 {BUSYBOX} httpd -f -p 80 -h /etc",
    "other": "--network left bb:1 /bin/sleep 1000",
    "both": "--network left --network right bb:1 /bin/sleep 1000",
    "inner": "--network closed bb:1 /bin/sleep 1000",
    "alone": "--network none bb:1 /bin/sleep 1000",
}
# what is asked -> where, the script
INSIDE = {
    "an address of choice": ("web", ADDRESSES),
    "a MAC of choice": ("web", "cat /sys/class/net/eth0/address"),
    "two networks": ("both", f"{ADDRESSES} | {BUSYBOX} awk '{{print $2}}' | {BUSYBOX} cut -d. -f1-3 | {BUSYBOX} sort"),
    "no network": ("alone", ADDRESSES),
    "the way out": ("other", f"{BUSYBOX} ip route | {BUSYBOX} awk '/^default/ {{ print $3 }}'"),
    "no way out": ("inner", f"{BUSYBOX} ip route | {BUSYBOX} grep ^default || echo none"),
    "a name": ("other", FIND % "web"),
    "a name from its other network": ("both", f"{BUSYBOX} timeout 8 {FIND}" % "web"),
    "an alias": ("other", FIND % "www"),
    "a name of another network": ("inner", f"{BUSYBOX} timeout 8 {FIND}" % "web"),
    "itself by name": ("web", FIND % "web"),
    "its line of /etc/hosts": ("web", f"{BUSYBOX} grep -c ^10.91.0.7 /etc/hosts"),
    "an address of another network": ("far", f"{BUSYBOX} nc -w 2 10.91.0.7 80 </dev/null; echo $?"),
}
# what is asked -> the words of the command line: its status is the answer
REFUSED = {
    "a network that is not there": "run --rm --network nosuch bb:1 true",
    "an address of another subnet": "run --rm --network left --ip 10.99.0.1 bb:1 true",
    "an address that somebody has": "run --rm --network left --ip 10.91.0.7 bb:1 true",
    "a port that somebody has": "run --rm --network left -p 18080:80 bb:1 true",
    "a removal of what is not there": "network rm nosuch",
    "a removal of what is in use": "network rm left",
    "a name that there is": "network create left",
    "a subnet that there is": "network create --subnet 10.91.0.0/24 again",
    "a subnet that is none": "network create --subnet 10.91.0.0/99 again",
}
DIFFERENT = {
    "an address of another network": "networks are islands, as docker's: podman's bridges reach one another",
    "an address of another subnet": "125, as docker: podman's netavark ends it with 126",
    "an address that somebody has": "125, as docker: podman's netavark ends it with 126",
    "a port that somebody has": "125, as docker: podman's says 126",
    "a removal of what is in use": "1, as docker: podman has 2 for it",
    "a name that there is": "1, as docker: podman says 125",
    "a subnet that there is": "1, as docker: podman says 125",
    "a subnet that is none": "1, as docker: podman says 125",
}


PODMAN = {
    "an address of choice": "lo 127.0.0.1/8\neth0 10.91.0.7/24\n",
    "a MAC of choice": "02:42:0a:5b:00:07\n",
    "two networks": "10.91.0\n10.92.0\n127.0.0\n",
    "no network": "lo 127.0.0.1/8\n",
    "the way out": "10.91.0.1\n",
    "no way out": "none\n",
    "a name": "10.91.0.7\n",
    "a name from its other network": "10.91.0.7\n",
    "an alias": "10.91.0.7\n",
    "a name of another network": "",
    "itself by name": "10.91.0.7\n",
    "its line of /etc/hosts": "1\n",
    "an address of another network": "0\n",
    "another's network": "lo 127.0.0.1/8\neth0 10.91.0.7/24\n",
    "the port at 127.0.0.1": "200",
    f"the port at {rootless.ADDRESS}": "200",
    "connected": "3\n",
    "disconnected": "2\n",
    "a network that is not there": "125",
    "an address of another subnet": "126",
    "an address that somebody has": "126",
    "a port that somebody has": "126",
    "a removal of what is not there": "1",
    "a removal of what is in use": "2",
    "a name that there is": "125",
    "a subnet that there is": "125",
    "a subnet that is none": "125",
    "an address after a restart": "lo 127.0.0.1/8\neth0 10.91.0.7/24\n",
}


@pytest.fixture(scope="module")
def work() -> Iterator[Workspace]:
    with Workspace() as work:
        os.chmod(work.directory, 0o755)
        work.archive()
        yield work


@pytest.fixture(scope="module")
def user() -> Iterator[User]:
    # What podman keeps below /run outlives it.
    with rootless.user(setup="mount -t tmpfs none /run; mkdir /run/lock") as user:
        yield user


def podman(user: User, who: str, peer: Callable[[str], Path]) -> tuple[Call, list[str]]:
    """Return podman on directories of its own, and what each run of root's takes."""
    home = user.directory / f"podman-{who}"
    home.mkdir()
    lines = f"""
        runtime = "runc"
        events_logger = "file"
        conmon_path = ["{peer("conmon")}"]
        helper_binaries_dir = ["{peer("netavark").parent}"]
        [engine.runtimes]
        runc = ["{peer("runc")}"]
        """
    config = podman_configuration(home, lines, 'network_backend = "netavark"')
    environment = ("env", f"CONTAINERS_CONF={config}", f"PATH={peers.path()}:{user.path}")
    place = (f"--root={home}/root", f"--runroot={home}/run", "--storage-driver=vfs", "--cgroup-manager=cgroupfs")
    argv: list[str | Path] = [*environment, peer("podman"), *place]
    if who == "root":
        return lambda *words: user.as_root(*argv, *words, path=peers.path()), [f"--cgroup-parent=/{CGROUP}"]
    os.chown(home, UID, UID)
    policy = user.home / ".config/containers"
    policy.mkdir(parents=True)
    (policy / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    for path in (policy.parent, policy, policy / "policy.json"):
        os.chown(path, UID, UID)
    return lambda *words: user.run(*argv, *words), []


def orlop_of(user: User, who: str) -> Call:
    if who == "user":
        return user.orlop
    home = user.directory / "orlop-root"
    home.mkdir(mode=0o700)
    environment = ("env", f"ORLOP_ROOT={home}/root", f"ORLOP_RUN={home}/run", str(COMMAND))
    return lambda *words: user.as_root(*environment, *words, path=user.path)


def answers(call: Call, user: User, options: list[str], archive: Path) -> dict[str, str]:
    """Ask everything; nothing is left."""

    def right(*words: str | Path) -> str:
        done = call(*words)
        assert done.code == 0, done
        return str(done.stdout)

    right("import", archive, "bb:1")
    for name, more in (("left", ()), ("right", ()), ("closed", ("--internal",))):
        number = {"left": 91, "right": 92, "closed": 93}[name]
        right("network", "create", *more, "--subnet", f"10.{number}.0.0/24", name)
    found: dict[str, str] = {}
    try:
        for name, words in CONTAINERS.items():
            right("run", "-d", "--name", name, *options, *words.split())
        right("run", "-d", "--name", "far", *options, "--network", "right", "bb:1", "/bin/sleep", "1000")
        for name in dict.fromkeys(place for place, _ in INSIDE.values()):
            asked = {what: script for what, (place, script) in INSIDE.items() if place == name}
            said = call("exec", name, "/bin/sh", "-c", f"; echo {NEXT}; ".join(asked.values())).stdout
            found.update(zip(asked, said.split(f"{NEXT}\n"), strict=True))
        shared = ("run", "--rm", *options, "--network", "container:web", "bb:1", "/bin/sh", "-c", ADDRESSES)
        found["another's network"] = right(*shared)
        for address in ("127.0.0.1", rootless.ADDRESS):
            found[f"the port at {address}"] = user.net.inside(partial(status_of, address, 18080))
        right("network", "connect", "right", "other")
        found["connected"] = right("exec", "other", "/bin/sh", "-c", f"{ADDRESSES} | {BUSYBOX} wc -l")
        right("network", "disconnect", "right", "other")
        found["disconnected"] = right("exec", "other", "/bin/sh", "-c", f"{ADDRESSES} | {BUSYBOX} wc -l")
        for what, words in REFUSED.items():
            first, *rest = words.split()
            found[what] = str(call(first, *(options if first == "run" else ()), *rest).code)
        right("restart", "-t", "0", "web")
        found["an address after a restart"] = right("exec", "web", "/bin/sh", "-c", ADDRESSES)
    finally:
        call("kill", *CONTAINERS, "far")  # podman's rm would ask them to end, and wait
        call("rm", "-f", *CONTAINERS, "far")
        for name in ("left", "right", "closed"):
            call("network", "rm", name)
        call("rmi", "bb:1")
    return found


def status_of(address: str, port: int) -> str:
    """Return the status that a web server answers with."""
    with socket.create_connection((address, port), timeout=20) as client:
        client.sendall(b"GET /hosts HTTP/1.0\r\n\r\n")
        with client.makefile() as answer:
            return answer.readline().split(" ")[1]


def end_helpers(home: Path) -> None:
    """End what podman leaves running: its name server outlives the last network."""
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if words[0].endswith(b"/aardvark-dns") and any(word.startswith(bytes(home)) for word in words):
                os.kill(int(pid), signal.SIGKILL)
        except (FileNotFoundError, ProcessLookupError):
            continue


@pytest.mark.parametrize("who", ["root", "user"])
def test_networks_answer_as_podmans(who: str, user: User, work: Workspace) -> None:
    call = orlop_of(user, who)
    try:
        ours = answers(call, user, [], work.archive())
    finally:
        call("engine", "stop")
    assert {what: (PODMAN[what], ours[what]) for what in {*PODMAN, *ours} if PODMAN[what] == ours[what]}.keys() == (
        PODMAN.keys() - DIFFERENT.keys()
    ), ours


if os.environ.get("ORLOP_TEST_PODMAN"):

    @pytest.mark.parametrize("who", ["root", "user"])
    def test_podman_answers_so(who: str, user: User, work: Workspace, peer: Callable[[str], Path]) -> None:
        for name in ("aardvark-dns", "iptables", "slirp4netns"):
            peer(name)
        call, options = podman(user, who, peer)
        try:
            theirs = answers(call, user, options, work.archive())
            varying = "a name from its other network"  # which aardvark-dns 1.4 finds in one run and not in the next
            assert {**theirs, varying: ""} == {**PODMAN, varying: ""}
        finally:
            call("system", "migrate")  # which ends the process that holds a user's namespaces
            end_helpers(user.directory / f"podman-{who}")
