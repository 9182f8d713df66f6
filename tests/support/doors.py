"""The ways by which somebody's program gets into a container, behind one interface: each attack is tried at each door.

`root` and `rootless` are the command line of two users, `api` is docker's socket, `build` a RUN of a Dockerfile, and
`nested` the command line inside a container of `--nesting`, of an ordinary user's engine (`deep`: one more level down,
for the attacks from inside alone). A door has one engine for all its tests, ordered by `Ask`; what it can't be asked
(docker's Dockerfile has no sysctl) is not in its `takes`, and tests/security/rows.txt says why.
"""

from __future__ import annotations

import _ctypes
import io
import json
import os
import shlex
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from . import container, rootless
from .docker_http import Api
from .engine import CHECKOUT, COMMAND, Environment, Finished

ATTACKER = CHECKOUT / "tests/security/attacker.py"
IMAGE = "attacker:1"
PROGRAMS = ("sh", "cat", "id", "true", "sleep", "pwd", "ls", "env", "python3")
# The attacks of the attacker, by its own names for them.
INSIDE = (
    "sec_01_programs sec_02_descriptors sec_04_environment sec_09_kernel_file_systems sec_11_masks sec_13_settings "
    "sec_13_sysfs sec_14_devices sec_27_identity sec_28_capabilities sec_30_cgroups sec_31_calls sec_31_families "
    "sec_31_terminals sec_31_namespaces sec_32_side_channels sec_33_sockets sec_34_shared_memory sec_36_processes "
    "sec_36_tracing mounts_are_private mounts_stay_as_they_are chroot_leads_nowhere handles_open_nothing"
).split()
CANARY = "ORLOP_CANARY"  # whoever opens a door has this variable: nothing behind it may


class Ask(NamedTuple):
    """What a container is asked for. Empty is the default."""

    args: tuple[str, ...]
    image: str = IMAGE
    workdir: str = ""
    user: str = ""
    hostname: str = ""
    sysctl: tuple[str, str] = ("", "")
    env: tuple[str, str] = ("", "")
    host: str = ""  # a line NAME:ADDRESS of /etc/hosts
    name: str = ""
    bind: str = ""  # SOURCE:TARGET:MODE

    def asked(self) -> set[str]:
        """Return the names of the fields that are not the default's."""
        return {name for name in Ask._fields[2:] if getattr(self, name) != Ask._field_defaults[name]}


class Said(NamedTuple):
    """code: 0 when the program ran and ended well. output: both streams, and what the door says of a failure."""

    code: int
    output: str


def tree(directory: Path) -> Path:
    """Fill a directory with a root file system that has a Python and the attacker; return it."""
    root = container.make_root(directory, PROGRAMS)
    for library in container.libraries(_ctypes.__file__):
        container.copy(library, root / str(library).lstrip("/"))
    (root / "attacker.py").write_bytes(ATTACKER.read_bytes())
    return root


def archive(root: Path, place: Path, changes: Mapping[str, tarfile.TarInfo | None] = {}) -> Path:
    """Write a tree as an archive. changes: path -> what stands there instead, None for nothing."""

    def kept(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        name = member.name.removeprefix("./")
        return None if any(name == path or name.startswith(f"{path}/") for path in changes) else member

    with tarfile.open(place, "w") as made:
        made.add(root, ".", filter=kept)
        for member in changes.values():
            if member is not None:
                made.addfile(member, io.BytesIO(b"\0" * member.size) if member.isreg() else None)
    place.chmod(0o644)
    return place


class Door:
    """name: in the tests' ids. takes: the fields of Ask that it can be asked."""

    name = ""
    takes = frozenset(Ask._fields[2:])

    def bring(self, place: Path, name: str, *changes: str) -> Said:
        """Make an image of an archive, with instructions of a Dockerfile for its configuration."""
        words = [word for change in changes for word in ("-c", change)]
        return said(self.command("import", *words, str(place), name))

    def ask(self, ask: Ask) -> Said:
        """Run a container to its end."""
        words = ["-w", ask.workdir] if ask.workdir else []
        words += [f"--user={ask.user}"] if ask.user else []
        words += ["--hostname", ask.hostname] if ask.hostname else []
        words += ["--sysctl", "=".join(ask.sysctl)] if ask.sysctl[0] else []
        words += ["-e", "=".join(ask.env)] if ask.env[0] else []
        words += ["--add-host", ask.host] if ask.host else []
        words += [f"--name={ask.name}"] if ask.name else []
        words += ["-v", ask.bind] if ask.bind else []
        return said(self.command("run", "--rm", *words, ask.image, *ask.args))

    def command(self, *words: str) -> Finished:
        """Run our command line."""
        raise NotImplementedError

    def write(self, path: str, text: str) -> None:
        """Write a file where the door's engine lives: a canary."""
        Path(path).write_text(text)

    def read(self, path: str) -> str:
        return Path(path).read_text()

    def exists(self, path: str) -> bool:
        return os.path.lexists(path)


def said(finished: Finished) -> Said:
    return Said(finished.code, finished.stdout + finished.stderr)


class Root(Door):
    name = "root"

    def __init__(self, environment: Environment) -> None:
        self.environment = environment

    def command(self, *words: str) -> Finished:
        return self.environment(*words, check=False, env={CANARY: "leaked"})


class Rootless(Door):
    name = "rootless"

    def __init__(self, user: rootless.User) -> None:
        self.user = user

    def command(self, *words: str) -> Finished:
        return self.user.run("env", f"{CANARY}=leaked", COMMAND, *words)


class Docker(Root):
    """docker's API on root's engine."""

    name = "api"

    def ask(self, ask: Ask) -> Said:
        api = Api(self.environment.run / "docker.sock")
        body: dict[str, object] = {
            "Image": ask.image, "Cmd": list(ask.args), "WorkingDir": ask.workdir, "User": ask.user,
            "Hostname": ask.hostname, "Env": ["=".join(ask.env)] if ask.env[0] else [],
            "HostConfig": {
                "Sysctls": dict([ask.sysctl]) if ask.sysctl[0] else {},
                "ExtraHosts": [ask.host] if ask.host else [],
                "Binds": [ask.bind] if ask.bind else [],
            },
        }  # fmt: skip
        made = api(
            "POST", f"/containers/create?name={quote(ask.name, safe='')}" if ask.name else "/containers/create", body
        )
        if made.status != 201:
            return Said(125, made.body.decode())
        path = f"/containers/{made.json['Id']}"
        try:
            started = api("POST", f"{path}/start")
            if started.status != 204:
                return Said(125, started.body.decode())
            code = api("POST", f"{path}/wait").json["StatusCode"]
            return Said(code, _without_frames(api("GET", f"{path}/logs?stdout=1&stderr=1").body))
        finally:
            api("DELETE", f"{path}?force=1")


def _without_frames(log: bytes) -> str:
    """docker's log: 8 bytes before each piece, of which the last four are its length."""
    pieces, at = [], 0
    while at < len(log):
        end = at + 8 + int.from_bytes(log[at + 4 : at + 8], "big")
        pieces.append(log[at + 8 : end])
        at = end
    return b"".join(pieces).decode(errors="replace")


class Build(Root):
    """A RUN of a Dockerfile. What is a matter of a container's creation alone can't be said in one."""

    name = "build"
    takes = frozenset({"workdir", "user", "env"})

    def ask(self, ask: Ask) -> Said:
        lines = [f"FROM {ask.image}"]
        lines += [f"ENV {ask.env[0]}={json.dumps(ask.env[1])}"] if ask.env[0] else []
        lines += [f"WORKDIR {ask.workdir}"] if ask.workdir else []
        lines += [f"USER {ask.user}"] if ask.user else []
        lines.append(f"RUN {shlex.join(ask.args)}")
        with tempfile.TemporaryDirectory(prefix="orlop-door-") as context:
            Path(context, "Dockerfile").write_text("\n".join(lines) + "\n")
            return said(self.command("build", "--no-cache", "--progress=plain", context))


class Nested(Door):
    """Our command line in a container that may run containers, of an ordinary user's engine."""

    name = "nested"

    def __init__(self, user: rootless.User, shared: Path) -> None:
        self.user = user
        seen = ("-v", "/usr:/usr:ro", "-v", f"{CHECKOUT}:{CHECKOUT}:ro", "-v", f"{shared}:{shared}:ro")
        made = user.orlop("run", "-d", "--name", "outer", "--nesting", *seen, "host", "sleep", "100000")
        assert made.code == 0, made

    def command(self, *words: str) -> Finished:
        return self.user.orlop("exec", "-e", f"{CANARY}=leaked", "outer", str(COMMAND), *words)

    def write(self, path: str, text: str) -> None:
        done = self.user.orlop("exec", "outer", "sh", "-c", f"printf %s {shlex.quote(text)} >{shlex.quote(path)}")
        assert done.code == 0, done

    def read(self, path: str) -> str:
        return self.user.orlop("exec", "outer", "cat", path).stdout

    def exists(self, path: str) -> bool:
        return self.user.orlop("exec", "outer", "ls", "-d", path).code == 0


class Deep(Nested):
    """One level further down: what it runs is the third container, one in another."""

    name = "deep"

    def __init__(self, user: rootless.User, shared: Path) -> None:
        super().__init__(user, shared)
        seen = ("-v", "/usr:/usr:ro", "-v", f"{CHECKOUT}:{CHECKOUT}:ro", "-v", f"{shared}:{shared}:ro")
        made = super().command("run", "-d", "--name", "inner", "--nesting", *seen, "host", "sleep", "100000")
        assert made.code == 0, made

    def command(self, *words: str) -> Finished:
        return super().command("exec", "-e", f"{CANARY}=leaked", "inner", str(COMMAND), *words)


DOORS = ("root", "rootless", "api", "build", "nested")


@contextmanager
def opened(name: str, shared: Path) -> Iterator[Door]:
    """Yield a door; all that was made behind it is proven gone afterwards. shared: where archives lie, for all.

    name: one of DOORS, or "deep".
    """
    if name in ("rootless", "nested", "deep"):
        with rootless.user() as user:
            yield Rootless(user) if name == "rootless" else {"nested": Nested, "deep": Deep}[name](user, shared)
        return
    environment = Environment(Path(tempfile.mkdtemp(prefix="orlop-doors-", dir=shared)) / "root")
    try:
        yield {"root": Root, "api": Docker, "build": Build}[name](environment)
    finally:
        left = environment.close()
    assert not left, left


def attacks(words: Sequence[str] = ("python3", "-I", "-S", "/attacker.py")) -> Ask:
    """Return what starts the attacker."""
    return Ask(tuple(words))


def reached(output: str) -> dict[str, list[str]]:
    """Return what the attacker reached, by attack. Raises AssertionError when it did not run to its end."""
    lines = [line.partition("ATTACKS ")[2] for line in output.splitlines() if "ATTACKS {" in line]
    assert lines, output
    found: dict[str, list[str]] = json.loads(lines[-1])
    return found
