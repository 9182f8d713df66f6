"""`orlop config security=strict`: what new containers get then, who says otherwise, and who is told why."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import rootless
from support.docker_http import Api
from support.engine import Finished
from support.rootless import User

POOL = (1100000000, 200000)
NET_BIND_SERVICE = f"{1 << 10:016x}"
LOOK = """
awk '{print $2}' /proc/self/uid_map; awk '/^(CapEff|CapBnd|NoNewPrivs)/{print $2}' /proc/self/status
touch /made 2>/dev/null && echo writable; touch /tmp/a /run/a /var/tmp/a && echo temporary
"""


class Machine:
    """A machine whose /etc/subuid gives ids to `orlop`, and an engine of its root under the profile."""

    def __init__(self, user: User) -> None:
        self.user, self.run = user, user.directory / "r"
        self.run.mkdir(mode=0o700)
        self.grant(f"orlop:{POOL[0]}:{POOL[1]}\n")

    def grant(self, line: str) -> None:
        for name in ("subuid", "subgid"):
            (self.user.directory / "etc" / name).write_text(line)

    def orlop(self, *words: str) -> Finished:
        env = ("env", f"ORLOP_ROOT={self.user.directory}/data", f"ORLOP_RUN={self.run}")
        return self.user.as_root(*env, str(rootless.COMMAND), *words, path=self.user.path)

    def lines(self, *words: str) -> list[str]:
        done = self.orlop(*words)
        assert done.code == 0, done
        return done.stdout.splitlines()


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    with rootless.user() as user:
        found = Machine(user)
        try:
            assert found.lines("config", "get") == ["security=default"]
            assert found.lines("config", "security=strict") == []
            assert found.lines("config", "get", "security") == ["strict"]
            yield found
        finally:
            for line in found.orlop("ps", "-aq").stdout.split():
                found.orlop("rm", "-f", line)
            found.orlop("engine", "stop")


def look(machine: Machine, *words: str) -> list[str]:
    return machine.lines("run", "--rm", "--network", "none", *words, "host", "sh", "-c", LOOK)


def test_what_is_left_open_is_strict(machine: Machine) -> None:
    outside, *rest = look(machine)
    assert POOL[0] <= int(outside) < sum(POOL)
    assert rest == [NET_BIND_SERVICE, NET_BIND_SERVICE, "1", "temporary"]
    options = json.loads(machine.lines("info", "--format", "{{json .SecurityOptions}}")[0])
    assert {"name=userns", "name=orlop,profile=strict"} <= set(options)


def test_what_is_said_by_name_stays(machine: Machine) -> None:
    assert look(machine, "--userns", "host", "--read-only=false")[0::4] == ["0", "writable"]
    kept = look(machine, "--cap-add", "cap_setuid", "--security-opt", "no-new-privileges=false")
    assert kept[1:] == [f"{1 << 10 | 1 << 7:016x}"] * 2 + ["0", "temporary"]
    assert look(machine, "--cap-drop", "net_bind_service")[1] == "0" * 16
    default = look(machine, "--security-opt", "profile=default")
    assert default[0] == "0" and default[1] != NET_BIND_SERVICE and "writable" in default
    machine.lines("run", "--rm", "--network", "none", "--privileged", "host", "sh", "-c", "mount -t tmpfs t /mnt")


def test_one_container_can_be_strict_alone(machine: Machine) -> None:
    machine.lines("config", "set", "security=default")
    try:
        assert look(machine)[0] == "0"
        assert look(machine, "--security-opt", "profile=strict")[1] == NET_BIND_SERVICE
        options = machine.lines("info", "--format", "{{json .SecurityOptions}}")[0]
        assert "profile=strict" not in options and "name=userns" not in options
    finally:
        machine.lines("config", "set", "security=strict")


def test_one_that_is_there_stays_as_it_was_made(machine: Machine) -> None:
    machine.lines("create", "--name", "there", "--network", "none", "host", "sh", "-c", LOOK)
    machine.lines("config", "security=default")
    try:
        assert machine.lines("start", "-a", "there")[1] == NET_BIND_SERVICE
        shown = machine.lines("show-run", "there")[0]
        assert "--cap-drop" in shown and "profile=strict" in shown and "--userns" in shown
    finally:
        machine.lines("config", "security=strict")
    # An engine that opens later reads the same setting.
    machine.lines("engine", "stop")
    assert machine.lines("config", "get", "security") == ["strict"]


def test_one_that_was_made_without_is_upgraded_and_shown_without(machine: Machine) -> None:
    machine.lines("config", "security=default")
    try:
        machine.lines("run", "-d", "--name", "open", "--network", "none", "host", "sleep", "1000")
    finally:
        machine.lines("config", "security=strict")
    assert "--security-opt profile=default" in machine.lines("show-run", "open")[0].replace("=profile", " profile")
    machine.lines("upgrade", "--force", "-t", "0", "--settle", "0", "open")
    assert machine.lines("exec", "open", "awk", "{print $2}", "/proc/self/uid_map") == ["0"]
    machine.lines("exec", "open", "touch", "/made")
    assert machine.orlop("rm", "-f", "open").code == 0


def test_who_joins_a_container_joins_its_ids(machine: Machine) -> None:
    machine.lines("run", "-d", "--name", "lender", "--network", "none", "--ipc", "shareable", "host", "sleep", "1000")
    words = ("--pid", "container:lender", "--ipc", "container:lender")
    assert look(machine, *words)[0] == machine.lines("exec", "lender", "awk", "{print $2}", "/proc/self/uid_map")[0]
    assert machine.orlop("rm", "-f", "lender").code == 0


def test_through_dockers_api_too(machine: Machine) -> None:
    machine.lines("info")
    api = Api(machine.run / "docker.sock")
    asked = {"Image": "host", "Cmd": ["true"], "HostConfig": {"NetworkMode": "none"}}
    made = api("POST", "/containers/create?name=asked", asked)
    assert made.status == 201, made
    held = api("GET", "/containers/asked/json").json["HostConfig"]
    assert (held["UsernsMode"], held["CapDrop"], held["ReadonlyRootfs"]) == ("auto", ["ALL"], True)
    assert "profile=strict" in held["SecurityOpt"]
    asked["HostConfig"] = {"NetworkMode": "none", "SecurityOpt": ["profile=default"]}
    assert api("POST", "/containers/create?name=open", asked).status == 201
    held = api("GET", "/containers/open/json").json["HostConfig"]
    assert (held["UsernsMode"], held["CapDrop"], held["ReadonlyRootfs"]) == ("", None, False)


def test_errors_say_what_the_reason_is(machine: Machine) -> None:
    machine.grant("")
    try:
        done = machine.orlop("run", "--rm", "host", "true")
        assert done.code == 125 and "gives no ids to orlop or containers" in done.stderr
        assert "security profile strict: a user namespace of its own, few capabilities" in done.stderr
        assert "--security-opt profile=default makes one without" in done.stderr
        for words in (("--userns", "auto", "--security-opt", "profile=default"), ("none",)):
            other = machine.orlop("run", "--rm", *words, "host", "true")
            assert other.code != 0 and "profile strict" not in other.stderr, other
    finally:
        machine.grant(f"orlop:{POOL[0]}:{POOL[1]}\n")
    machine.orlop("run", "--name", "failed", "--network", "none", "host", "sh", "-c", "touch /made || exit 3")
    why = machine.lines("why", "failed")
    assert (
        "it has the security profile strict: a user namespace of its own, few capabilities, a root file system that "
        "can't be written" in "\n".join(why)
    )


def test_what_is_no_setting_is_refused(machine: Machine) -> None:
    for words, said in (
        (("config", "security=lax"), "there is no security profile 'lax'"),
        (("config", "colour=red"), "no such setting: colour"),
        (("config", "set", "security"), "it has no value"),
        (("run", "--rm", "--security-opt", "profile=lax", "host", "true"), 'invalid --security-opt: "profile=lax"'),
    ):
        done = machine.orlop(*words)
        assert done.code != 0 and said in done.stderr, (words, done)
    settings = Path(machine.user.directory, "data", "settings.json")
    kept = settings.read_bytes()
    for damage in (b"", b"{", b'{"security": 5}', b"[" * 5000, b"{}" + b" " * 9000):
        settings.write_bytes(damage)
        # Fails closed: nobody is given less than was once asked for.
        done = machine.orlop("run", "--rm", "--network", "none", "host", "true")
        assert done.code == 125 and "settings.json" in done.stderr and "Traceback" not in done.stderr, (damage, done)
    settings.write_bytes(kept)


def test_a_users_engine_has_it_too() -> None:
    with rootless.user() as user:
        try:
            assert user.orlop("config", "security=strict").code == 0
            done = user.orlop("run", "--rm", "--network", "none", "host", "sh", "-c", LOOK)
            assert done.stdout.splitlines()[-4:] == [NET_BIND_SERVICE, NET_BIND_SERVICE, "1", "temporary"], done
        finally:
            user.orlop("engine", "stop")
