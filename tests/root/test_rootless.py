"""An ordinary user with subordinate ids runs everything: the same engine, in namespaces of the user's own (I10)."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest

from orlop.linux import ffi, process
from orlop.linux.netlink import namespace
from support import boxes, rootless
from support.engine import COMMAND
from support.rootless import RANGE, UID, User

T = TypeVar("T")
FIRST = int(RANGE.partition(":")[0])


@pytest.fixture(scope="module")
def user() -> Iterator[User]:
    with rootless.user() as somebody:
        yield somebody


def lines(user: User, *words: str) -> list[str]:
    done = user.orlop(*words)
    assert done.code == 0, done
    return done.stdout.splitlines()


def keeper(user: User) -> dict[str, int]:
    found: dict[str, int] = json.loads((user.runtime / "orlop/keeper.json").read_text())
    return found


def test_the_user_is_root_inside_and_the_user_outside(user: User) -> None:
    inside = lines(user, "run", "--rm", "host", "sh", "-c", "id -u; cat /proc/self/uid_map")
    assert inside[0] == "0"
    assert [line.split() for line in inside[1:]] == [["0", str(UID), "1"], ["1", str(FIRST), "65536"]]
    lines(user, "run", "-d", "--name", "seen", "-u", "1000", "host", "sleep", "1000")
    pid = int(lines(user, "inspect", "-f", "{{.State.Pid}}", "seen")[0])
    assert os.stat(f"/proc/{pid}").st_uid == FIRST + 999
    lines(user, "rm", "-f", "seen")


def test_verbs_of_a_container_work_without_a_cgroup(user: User) -> None:
    lines(user, "run", "-d", "--name", "c", "host", "sh", "-c", "echo hello; exec sleep 1000")
    assert lines(user, "exec", "c", "id", "-u") == ["0"]
    assert "sleep 1000" in lines(user, "top", "c")[1]
    assert lines(user, "logs", "c") == ["hello"]
    lines(user, "exec", "c", "sh", "-c", "echo x >/tmp/f; chown 33:34 /tmp/f")
    assert "A /tmp/f" in lines(user, "diff", "c")
    lines(user, "commit", "c", "changed:1")
    assert lines(user, "run", "--rm", "changed:1", "stat", "-c", "%u %g", "/tmp/f") == ["33 34"]
    archive = user.home / "image.tar"
    lines(user, "save", "-o", str(archive), "changed:1")
    lines(user, "rmi", "changed:1")
    lines(user, "load", "-i", str(archive))
    assert lines(user, "run", "--rm", "changed:1", "stat", "-c", "%u %g", "/tmp/f") == ["33 34"]
    assert lines(user, "stop", "-t", "1", "c") == ["c"]
    lines(user, "rm", "c")
    lines(user, "rmi", "changed:1")


def test_what_an_upper_directory_hides_stays_hidden(user: User) -> None:
    script = "rm -r /etc/orlop-gone 2>/dev/null; rm -r /usr/bin; mkdir /usr/bin; ls -A /usr/bin | wc -l"
    done = user.orlop("run", "--name", "hides", "host", "sh", "-c", f"PATH=/bin; {script}")
    lines(user, "commit", "hides", "hidden:1")
    assert "tmp" not in done.stderr
    lines(user, "rm", "hides")
    done = user.orlop("run", "--rm", "hidden:1", "/usr/bin/env")
    assert done.code == 127, done
    lines(user, "rmi", "hidden:1")


@pytest.mark.parametrize("flag", [("-m", "64m"), ("--cpus", "1"), ("--pids-limit", "50"), ("--cpuset-cpus", "0")])
def test_a_limit_that_nobody_enforces_is_an_error(user: User, flag: tuple[str, str]) -> None:
    done = user.orlop("run", "--rm", *flag, "host", "true")
    assert done.code == 125, done
    assert "can't be enforced" in done.stderr
    paused = user.orlop("run", "-d", "--name", "p", "host", "sleep", "1000")
    assert paused.code == 0, paused
    done = user.orlop("pause", "p")
    assert done.code == 1, done
    assert "no cgroup to freeze it in" in done.stderr
    lines(user, "rm", "-f", "p")


def test_what_only_root_may_raise_is_clamped_with_a_warning(user: User) -> None:
    script = "cat /proc/self/oom_score_adj; ulimit -n"
    done = user.orlop(
        "run", "--rm", "--oom-score-adj", "-500", "--ulimit", "nofile=99999999", "host", "sh", "-c", script
    )
    assert done.code == 0, done
    assert int(done.stdout.split()[0]) >= 0
    assert int(done.stdout.split()[1]) < 99999999
    assert "only root may lower it to -500" in done.stderr


def test_a_user_that_is_not_mapped_is_an_error(user: User) -> None:
    done = user.orlop("run", "--rm", "-u", "70000", "host", "true")
    assert done.code == 125, done
    assert "70000 is not mapped" in done.stderr


def test_the_machines_namespaces_can_be_shared(user: User) -> None:
    assert rootless.LINK in "".join(lines(user, "run", "--rm", "--network", "host", "host", "cat", "/proc/net/dev"))
    found = lines(user, "run", "--rm", "--pid", "host", "host", "sh", "-c", "ls /proc")
    assert str(os.getpid()) in found
    assert lines(user, "run", "--rm", "--device", "/dev/zero:/dev/nil", "host", "stat", "-c", "%t:%T", "/dev/nil") == [
        "1:5"
    ]


def test_volumes_have_owners(user: User) -> None:
    lines(user, "run", "--rm", "-v", "vol:/v", "host", "sh", "-c", "echo x >/v/a; chown 7:8 /v/a")
    assert lines(user, "run", "--rm", "-v", "vol:/v", "host", "stat", "-c", "%u %g", "/v/a") == ["7 8"]
    lines(user, "volume", "rm", "vol")
    (user.home / "mine").write_text("x")
    os.chown(user.home / "mine", UID, UID)
    shown = lines(user, "run", "--rm", "-v", f"{user.home}:/h", "host", "sh", "-c", "stat -c %u /h/mine; echo >/h/made")
    assert shown == ["0"]
    assert (user.home / "made").stat().st_uid == UID


def test_containers_find_each_other_and_the_outside(user: User) -> None:
    server = user.net.inside(lambda: socket.create_server((rootless.FAR, 0)))
    port = server.getsockname()[1]
    lines(user, "network", "create", "n")
    lines(user, "run", "-d", "--name", "one", "--network", "n", "host", "sleep", "1000")
    assert lines(user, "run", "--rm", "--network", "n", "host", "getent", "hosts", "one")[0].endswith("one")
    script = f"exec 3<>/dev/tcp/{rootless.FAR}/{port}; echo there >&3"
    done = user.orlop("run", "--rm", "--network", "n", "host", "bash", "-c", script)
    assert done.code == 0, done
    assert "does not reach the outside" not in done.stderr
    taken, _ = server.accept()
    assert taken.recv(16) == b"there\n"
    taken.close()
    server.close()
    lines(user, "rm", "-f", "one")
    lines(user, "network", "rm", "n")


def relays(user: User) -> list[str]:
    return [line for line in user.processes().values() if "network import relay" in line or "orlop: ports" in line]


def test_what_goes_outward_keeps_its_order(user: User, peer: Callable[[str], Path]) -> None:
    # pasta drops what comes behind a gap, and what its own socket can't take at once: see network.links.
    def offload(name: str, number: int) -> bool:
        value = ffi.create_string_buffer(struct.pack("=II", number, 7))
        request = struct.pack("16sP16x", name.encode(), ffi.addressof(value))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            fcntl.ioctl(sock.fileno(), 0x8946, request)  # SIOCETHTOOL
        return bool(struct.unpack("=II", value.raw[:8])[1])

    def resends_us() -> int:
        with socket.create_connection((rootless.FAR, port)) as sock:
            return struct.unpack_from("=I", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 64), 8)[0]

    ETHTOOL_GTSO, ETHTOOL_GGRO = 0x1E, 0x2B
    server = user.net.inside(lambda: socket.create_server((rootless.FAR, 0)))
    port = server.getsockname()[1]
    lines(user, "network", "create", "-o", "com.docker.network.driver.mtu=1500", "small")
    lines(user, "run", "-d", "--name", "o", "--network", "small", "host", "sleep", "1000")
    for large in (False, True):
        if large:
            lines(user, "network", "connect", "bridge", "o")
            lines(user, "network", "disconnect", "small", "o")
        pid = lines(user, "inspect", "-f", "{{.State.Pid}}", "o")[0]
        own, outer = (os.open(f"/proc/{each}/ns/net", os.O_RDONLY) for each in (pid, keeper(user)["pid"]))
        try:
            name = "eth1" if large else "eth0"
            assert namespace.inside(own, partial(offload, name, ETHTOOL_GTSO)) is not large
            link = namespace.inside(outer, lambda: [found for _, found in socket.if_nameindex() if found[:2] == "ve"])
            assert len(link) == 1
            assert namespace.inside(outer, partial(offload, link[0], ETHTOOL_GGRO)) is large
            words = ("nsenter", f"--net=/proc/{pid}/ns/net", peer("ip"), "route", "show", "default")
            assert "rto_min lock 12ms" in subprocess.run(words, capture_output=True, text=True, check=True).stdout
            # The least of some: a busy machine's round trips may take long, but TCP's own least is 200 ms.
            assert min(namespace.inside(own, resends_us) for _ in range(20)) < 200_000
        finally:
            os.close(own)
            os.close(outer)
    server.close()
    lines(user, "rm", "-f", "o")
    lines(user, "network", "rm", "small")


def test_drops_of_the_uplink_slow_no_stream_down(user: User) -> None:
    # pasta drops where nothing is lost on the way: who takes that for a narrow path sends a trickle (BBR).
    name = "net.ipv4.tcp_congestion_control"
    ask = ("host", "cat", "/proc/sys/" + name.replace(".", "/"))
    of_machine = user.net.inside(lambda: Path(ask[-1]).read_text().strip())
    (found,) = lines(user, "run", "--rm", *ask)
    assert found in ("cubic", "reno") if of_machine.startswith("bbr") else found == of_machine
    for chosen in {"reno", of_machine} & {
        *Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control").read_text().split()
    }:
        assert lines(user, "run", "--rm", "--sysctl", f"{name}={chosen}", *ask) == [chosen]


def test_published_ports_lead_to_the_container(user: User, peer: Callable[[str], Path]) -> None:
    script = "while true; do echo 'hello from inside' | nc -l -p 80; done"
    busybox = peer("busybox")
    lines(
        user,
        *(
            "run",
            "-d",
            "--name",
            "web",
            "-p",
            "18099:80",
            "-p",
            f"18100:80,from={rootless.FAR}",
            "-v",
            f"{busybox}:/bin/busybox:ro",
            "host",
        ),
        *("sh", "-c", script.replace("nc ", "/bin/busybox nc ")),
    )

    def told(address: str = "127.0.0.1", port: int = 18099, source: str = "") -> bytes:
        def connect() -> socket.socket:
            return socket.create_connection((address, port), timeout=60, source_address=(source, 0) if source else None)

        try:
            with user.net.inside(connect) as client:
                return client.recv(64)
        except ConnectionError:
            return b""  # nc is between two clients

    rootless.wait_for("an answer", lambda: told() == b"hello from inside\n")
    rootless.wait_for("an answer on IPv6", lambda: told("::1") == b"hello from inside\n")
    far = ("192.0.2.2", 18100, rootless.FAR)
    rootless.wait_for("an answer to who may come", lambda: told(*far) == b"hello from inside\n")
    lines(user, "update", "--publish-add", "18111:80", "web")
    rootless.wait_for("an answer of a port that came later", lambda: told(port=18111) == b"hello from inside\n")
    refused = user.orlop("update", "--publish-add", "80:80", "web")
    assert refused.code == 1 and "ip_unprivileged_port_start" in refused.stderr, refused
    rootless.wait_for("an answer after a refusal", lambda: told(port=18111) == b"hello from inside\n")
    lines(
        user,
        "update",
        "--publish-rm",
        "80",
        "--publish-add",
        "18099:80",
        "web",
        "--publish-add",
        f"18100:80,from={rootless.FAR}",
    )
    assert told(port=18111) == b""
    rootless.wait_for("an answer", lambda: told() == b"hello from inside\n")
    explained = " ".join(lines(user, "net", "explain", "web"))
    assert "yes: at 127.0.0.1:18099" in explained
    assert "at 192.0.2.2:18099, if this machine's firewall lets them in" in explained
    taken = user.orlop("run", "--rm", "-p", "18099:81", "host", "true")
    assert taken.code == 125, taken
    assert "port is already allocated" in taken.stderr
    low = user.orlop("run", "--rm", "-p", "80:80", "host", "true")
    assert low.code == 125, low
    assert "permission denied" in low.stderr
    assert "ip_unprivileged_port_start" in low.stderr
    for words, cause in (
        ("18101:80/sctp", "0.0.0.0:18101/sctp would need a relay"),
        ("18101:80,mode=nat", "0.0.0.0:18101/tcp can't be published with mode=nat"),
    ):
        refused = user.orlop("run", "--rm", "-p", words, "host", "true")
        assert refused.code == 125, refused
        assert cause in refused.stderr
    lines(user, "restart", "-t", "1", "web")
    rootless.wait_for("an answer after a restart", lambda: told() == b"hello from inside\n")
    lines(user, "rm", "-f", "web")
    rootless.wait_for("the relay's end", lambda: not relays(user))
    for name in lines(user, "ps", "-aq", "--filter", "status=created"):
        lines(user, "rm", name)


def test_rules_are_as_before_when_a_network_has_gone(user: User, peer: Callable[[str], Path]) -> None:
    lines(user, "run", "--rm", "host", "true")

    def rules() -> str:
        words = ("nsenter", f"--net=/proc/{keeper(user)['pid']}/ns/net", peer("nft"), "list", "ruleset")
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout

    before = rules()
    lines(user, "network", "create", "short")
    for name in ("one", "two"):
        lines(user, "run", "-d", "--name", name, "--network", "short", "-p", "80", "host", "sleep", "1000")
    rootless.wait_for("the relays' rules", lambda: rules().count("orlop-relay") == 2)
    lines(user, "rm", "-f", "one")
    assert rules().count("orlop-relay") == 2
    lines(user, "rm", "-f", "two")
    lines(user, "network", "rm", "short")
    assert rules() == before


class Inside:
    """A container's network namespace, as a place for `boxes`."""

    def __init__(self, user: User, name: str) -> None:
        self.pid = int(lines(user, "inspect", "-f", "{{.State.Pid}}", name)[0])

    def inside(self, work: Callable[[], T]) -> T:
        fd = os.open(f"/proc/{self.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return namespace.inside(fd, work)
        finally:
            os.close(fd)


def test_a_container_sees_who_comes(user: User) -> None:
    # P10, and SEC-91: the address of who asks from outside, never the container's own loopback.
    ports = ("-p", "18080:80", "-p", "18053:53/udp")
    lines(user, "run", "-d", "--name", "web", *ports, "host", "sleep", "1000")
    web = Inside(user, "web")
    machine = "192.0.2.2"
    server = user.net.inside(lambda: socket.create_server((rootless.FAR, 0)))
    with boxes.serving(web, 80) as streams, boxes.serving(web, 53, kind=socket.SOCK_DGRAM) as datagrams:

        def ask(source: str, address: str = machine) -> str:
            def go() -> str:
                with socket.create_connection((address, 18080), timeout=60, source_address=(source, 0)) as client:
                    return client.recv(64).decode()

            return user.net.inside(go)

        def ask_udp(source: str) -> str:
            def go() -> str:
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                    client.settimeout(60)
                    client.bind((source, 0))
                    client.sendto(b"?", (machine, 18053))
                    return client.recv(64).decode()

            return user.net.inside(go)

        assert ask(rootless.FAR) == rootless.FAR
        assert ask(machine) == machine
        assert ask_udp(rootless.FAR) == rootless.FAR
        bridge = ask("127.0.0.1", "127.0.0.1")
        assert bridge == lines(user, "inspect", "-f", "{{.NetworkSettings.Gateway}}", "web")[0]
        # What the container begins itself goes out, to the same address too.
        port = server.getsockname()[1]
        web.inside(lambda: socket.create_connection((rootless.FAR, port), timeout=60).close())
        server.accept()[0].close()
        assert streams.peers == [rootless.FAR, machine, bridge]
        assert datagrams.peers == [rootless.FAR]
    server.close()
    lines(user, "rm", "-f", "web")


def test_the_next_engine_finds_the_namespaces_of_one_that_was_killed(user: User) -> None:
    lines(user, "run", "-d", "--name", "stays", "host", "sleep", "1000")
    before = keeper(user)
    pid = int(lines(user, "engine", "status")[0].split("pid ")[1].split(",")[0])
    pidfd = process.pidfd_open(pid)
    process.pidfd_send_signal(pidfd, signal.SIGKILL)
    rootless.wait_for("the engine's end", lambda: process.has_ended(pidfd))
    os.close(pidfd)
    assert lines(user, "exec", "stays", "id", "-u") == ["0"]
    assert keeper(user)["pid"] == before["pid"]
    lines(user, "rm", "-f", "stays")
    lines(user, "engine", "stop")
    rootless.wait_for("an end of everything", lambda: not user.processes())
    assert not (user.runtime / "orlop/keeper.json").exists()


def test_namespaces_end_with_what_runs_when_no_engine_is_left(user: User) -> None:
    lines(user, "run", "-d", "--name", "last", "host", "sleep", "2")
    lines(user, "engine", "stop")
    assert keeper(user)["uplink"]
    rootless.wait_for("an end of everything", lambda: not user.processes())
    assert not (user.runtime / "orlop/keeper.json").exists()
    lines(user, "rm", "last")


def test_nobody_else_reaches_the_socket(user: User) -> None:
    lines(user, "ps")
    place = user.runtime / "orlop"
    assert place.stat().st_mode & 0o777 == 0o700
    assert Path(place / "engine.sock").stat().st_mode & 0o777 == 0o600
    assert place.stat().st_uid == UID


def test_who_has_no_session_has_a_place_below_tmp(user: User) -> None:
    """su(1) sets no XDG_RUNTIME_DIR, and `su alice -c 'orlop run ...'` is how many a script begins.

    red: without the place below /tmp it is an error that the variable is not set.
    """
    place = Path(f"/tmp/orlop-{UID}")
    words = ("env", "-u", "XDG_RUNTIME_DIR", f"XDG_DATA_HOME={user.home}/bare", COMMAND)
    place.mkdir(0o700)  # root's: somebody was there first
    try:
        refused = user.run(*words, "ps")
        assert refused.code == 1 and f"cannot use {place}: Permission denied" in refused.stderr, refused
        place.rmdir()
        done = user.run(*words, "run", "--rm", "--network", "none", "host", "id", "-u")
        assert (done.code, done.stdout) == (0, "0\n"), done
        assert (place.stat().st_uid, place.stat().st_mode & 0o7777) == (UID, 0o700)
        told = {row["feature"]: row for row in json.loads(user.run(*words, "doctor", "--format", "json").stdout)}
        assert told["run directory"]["state"] == "emulated" and str(place) in told["run directory"]["why"]
    finally:
        user.run(*words, "engine", "stop")
        shutil.rmtree(place, ignore_errors=True)


def test_the_machine_shows_none_of_it(user: User) -> None:
    lines(user, "run", "-d", "--name", "hidden", "host", "sleep", "1000")
    mounts = user.run("cat", "/proc/self/mountinfo").stdout.splitlines()
    links = {link.name for link in user.net.route.links()}
    lines(user, "rm", "-f", "hidden")
    assert not [line for line in mounts if "overlay" in line and str(user.home) in line]
    assert not [name for name in links if name.startswith(("orlop", "ve", "br-", "og"))]
