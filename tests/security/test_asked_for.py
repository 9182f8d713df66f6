"""What is asked of the engine in words, numbers and options, and what must not come of it.

SEC-03, SEC-04, SEC-16, SEC-17, SEC-22, SEC-23, SEC-28, SEC-33, SEC-74: what of these rows no other file holds.
"""

from __future__ import annotations

import itertools
import json
import os
import stat
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from urllib.parse import quote

import pytest

from support import container, doors, launcher
from support.docker_http import Api
from support.engine import Environment
from support.pace import SLOW
from support.tasks import wait_until

NO_NETWORK = ("--network", "none")
SECRET = "what-is-in-no-log-4711"
SOON_S = 30.0 * SLOW
MEMORY_BYTES_MORE_MAX = 64 << 20


# -- SEC-03 ---------------------------------------------------------------------------------------------------------


# Whoever starts it has a descriptor of the machine's root at every number.
DESCRIPTORS = """
import os, resource, sys
sys.path[:0] = sys.argv[1].split(":")
from orlop.runtime import enter, host, launch, plan, rootfs
from orlop.spec import errors
from orlop.spec.runtime import Mount
from support import container
root, numbers, begun = sys.argv[2], map(int, sys.argv[3:]), []
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
facts = host.facts()
taken = set(map(int, os.listdir("/proc/self/fd")))
for number in set(range(3, 1024)) - taken:
    os.dup2(os.open("/", os.O_RDONLY | os.O_CLOEXEC), number)

def born(*args, **changes):
    fd = rootfs.open_rootfs([Mount(type="bind", source=root)])
    try:
        return launch.create(plan.compile(container.make_spec(*args, **changes), facts), fd, (0, 1, 2))
    finally:
        os.close(fd)

def end(made):
    os.kill(made.pid, 9)
    os.waitpid(made.pid, 0)

least = {"mounts": container.MOUNTS[:1], "masked_paths": (), "readonly_paths": ()}
assert least["mounts"][0].destination == "/proc"
spec = container.make_spec("sleep", "1000", **least)
long = born("sleep", "1000", **least)
long.start()
for number in numbers:
    cwd = f"/proc/self/fd/{number}"
    made = None
    try:
        made = born("pwd", cwd=cwd, **least)
        made.start()
        begun.append(("run", number))
    except errors.Invalid:
        pass
    finally:
        if made:
            end(made)
    try:
        process = spec.process.replace(cwd=cwd, args=("pwd",))
        entered = enter.create_exec(enter.compile_exec(process, spec, facts), long.pid, long.pidfd, (0, 1, 2))
        entered.start()
        os.waitpid(entered.pid, 0)
        begun.append(("exec", number))
    except errors.Invalid:
        pass
end(long)
print("begun", begun)
"""


@pytest.mark.parametrize("half", [0, 1])
def test_sec_03_none_of_a_thousand_descriptors_is_a_working_directory(tmp_path: Path, half: int) -> None:
    """CVE-2024-21626, for a start and an exec. All 1024 numbers are open; ORLOP_TEST_LONG=1 tries each one.

    red: without the guard, those are entered that whoever starts has for itself; the others are closed by then.
    """
    step = 1 if os.environ.get("ORLOP_TEST_LONG") else 16
    numbers = [*range(40), *range(40, 1023, step), 1023][half::2]
    root = container.make_root(tmp_path / "rootfs", ("sleep", "pwd"))
    words = [sys.executable, "-c", DESCRIPTORS, launcher.IMPORTS, root, *numbers]
    argv = [str(word) for word in words]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=len(numbers) * SLOW * 2, check=False)
    assert done.stdout == "begun []\n", done


def test_sec_03_a_working_directory_that_becomes_a_descriptor(orlop: Environment) -> None:
    """CVE-2024-21626: who is inside makes a link of it; a health check and an exec that enter there find nothing.

    red: without the guard, exec finds the container's root behind one of the numbers.
    """
    check = ("--health-cmd", "ls -a", "--health-interval", "100ms", "--health-retries", "100000")
    place = "mkdir -p /w; mv /w /was; ln -s /proc/self/fd/3 /w; exec sleep 1000"
    orlop("run", "-d", "--name", "c", *NO_NETWORK, "-w", "/w", *check, "host", "sh", "-c", place)
    wait_until(lambda: orlop("exec", "-w", "/", "c", "readlink", "/w", check=False).code == 0)
    for number in range(3, 20):
        orlop("exec", "-w", "/", "c", "ln", "-sfn", f"/proc/self/fd/{number}", "/w")
        entered = orlop("exec", "c", "ls", "-a", check=False)
        assert entered.code != 0 and entered.stdout == "", entered
        since = len(checks := health_of(orlop)) and checks[-1]["Start"]
        wait_until(lambda since=since: (found := health_of(orlop)) and found[-1]["Start"] != since)  # type: ignore[misc]
        last = health_of(orlop)[-1]
        assert last["ExitCode"] != 0 and ".." not in str(last["Output"]).split(), last


def health_of(orlop: Environment) -> list[dict[str, object]]:
    """Return the last health checks of the container c."""
    told: list[dict[str, object]] = json.loads(orlop("inspect", "-f", "{{json .State.Health.Log}}", "c").stdout)
    return told


# -- SEC-04 ---------------------------------------------------------------------------------------------------------


LIBRARY = """
import os, sys
sys.path[:0] = sys.argv[1].split(":")
import orlop
os.dup2(os.open("/", os.O_RDONLY), 9)
assert os.get_inheritable(9)
with orlop.connect() as engine:
    print(engine.run("host", "sh", "-c", "ls /proc/self/fd; ls /proc/1/fd", network="none").stdout.decode())
    with engine.running("host", "sleep", "60", network="none") as held:
        print(held.exec("sh", "-c", "ls /proc/self/fd; ls /proc/1/fd").stdout.decode())
"""


def test_sec_04_what_a_program_that_uses_the_library_leaves_open_stays_outside(orlop: Environment) -> None:
    """The library starts the engine, which starts what starts containers: none has a descriptor of the host's root."""
    words = [sys.executable, "-c", LIBRARY, launcher.IMPORTS]
    done = orlop.inside(
        lambda: subprocess.run(
            words, env=orlop.variables, capture_output=True, text=True, timeout=100 * SLOW, check=False
        )
    )
    assert done.returncode == 0, done.stderr
    numbers = done.stdout.split()
    assert len(numbers) >= 12 and set(numbers) <= {"0", "1", "2", "3"}, done.stdout  # 3: ls itself
    # The API's way: whoever serves it has none of the caller's either.
    api = Api(orlop.run / "docker.sock")
    look = {"Image": "host", "Cmd": ["sh", "-c", "ls /proc/self/fd /proc/1/fd"], "HostConfig": {"NetworkMode": "none"}}
    made = api("POST", "/containers/create?name=c", look)
    assert made.status == 201, made
    assert api("POST", "/containers/c/start").status == 204
    assert api("POST", "/containers/c/wait").json["StatusCode"] == 0
    shown = orlop("logs", "c").stdout
    assert {word for word in shown.split() if word.isdecimal()} <= {"0", "1", "2", "3"}, shown


# -- SEC-16, SEC-17 -------------------------------------------------------------------------------------------------


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    return container.make_root(tmp_path / "rootfs", ("sh", "cat", "ls", "true", "id"))


def test_sec_16_what_we_bring_along_follows_no_link_of_an_image(
    orlop: Environment, rootfs: Path, tmp_path: Path
) -> None:
    """CVE-2025-24965: the init program, secrets, and all names that any engine ever wrote in a root."""
    canary, place = tmp_path / "canary", tmp_path / "place"
    canary.write_text("host")
    place.mkdir()
    names = "etc/passwd etc/group etc/hosts etc/hostname etc/resolv.conf etc/mtab .dockerenv run/.containerenv"
    names += " sbin/docker-init dev/init orlop-init"
    for name in names.split():
        where = rootfs / name
        where.parent.mkdir(parents=True, exist_ok=True)
        where.unlink(missing_ok=True)
        where.symlink_to(canary)
    (rootfs / "run").mkdir(exist_ok=True)
    (rootfs / "run/secrets").symlink_to(place)
    orlop("secret", "create", "s", "-", input=SECRET)
    codes = []
    for more in ((), ("--init",), ("--secret", "s"), ("-u", "1000:1000"), ("--read-only",), ("--tz", "local")):
        words = ("run", "--rm", *NO_NETWORK, *more, "--rootfs", rootfs, "sh", "-c", "true; ls /run/secrets/; echo ran")
        done = orlop(*words, check=False)
        codes.append(done.code)
        assert "defect" not in done.stderr, done
        assert canary.read_text() == "host" and not list(place.iterdir()), (more, done)
    assert 0 in codes or all(code == 125 for code in codes)


def peak_of(pid: int) -> int:
    """Return the most memory that a process has had, in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def hole(path: Path) -> None:
    path.touch()
    os.truncate(path, 8 << 30)


def million(path: Path) -> None:
    with path.open("w") as file:
        for start in range(0, 1_000_000, 10_000):
            file.write("".join(f"g{number}:x:{number}:app\n" for number in range(start, start + 10_000)))
        file.write("app:x:7:7::/:/bin/sh\n")


@pytest.mark.parametrize("name", ["passwd", "group"])
@pytest.mark.parametrize("make", [os.mkfifo, hole, million])
def test_sec_17_files_of_users_that_never_end_cost_the_engine_nothing(
    orlop: Environment, rootfs: Path, name: str, make: object
) -> None:
    """CVE-2024-9676, CVE-2026-47262: an error, soon, and the engine stays as small as it was."""
    orlop("run", "--rm", *NO_NETWORK, "--rootfs", rootfs, "true")
    pid = orlop.engine_pid()
    assert pid is not None
    before = peak_of(pid)
    (rootfs / "etc").mkdir(exist_ok=True)
    for each in ("passwd", "group"):
        (rootfs / "etc" / each).unlink(missing_ok=True)
    (rootfs / "etc/passwd").write_text("app:x:7:7::/:/bin/sh\n")
    (rootfs / "etc" / name).unlink(missing_ok=True)
    make(rootfs / "etc" / name)  # type: ignore[operator]
    started = time.monotonic()
    done = orlop("run", "--rm", *NO_NETWORK, "-u", "app", "--rootfs", rootfs, "id", "-u", check=False)
    assert time.monotonic() - started < SOON_S
    assert done.code == 125 and f"/etc/{name}" in done.stderr and "defect" not in done.stderr, done
    assert peak_of(pid) < before + MEMORY_BYTES_MORE_MAX


# -- SEC-22 ---------------------------------------------------------------------------------------------------------


def owners_and_labels(place: Path) -> list[tuple[object, ...]]:
    """What a relabelling or a chown would change: of a directory and of some of what is in it."""
    found: list[tuple[object, ...]] = []
    for path in filter(os.path.lexists, (place, *(place / name for name in "a b passwd shadow bin usr root".split()))):
        info = path.lstat()
        names = sorted(os.listxattr(path, follow_symlinks=False))
        labels = [(name, os.getxattr(path, name, follow_symlinks=False)) for name in names]
        found.append((str(path), info.st_uid, info.st_gid, info.st_mode, labels))
    return found


def test_sec_22_nothing_of_the_machine_is_relabelled_or_given_away(orlop: Environment, tmp_path: Path) -> None:
    """CVE-2021-43816: what is mounted keeps its owner and its label, whatever is asked for.

    The machine's own directories are refused in docker's words (red: without _LABELLED), by the API as well.
    """
    own = tmp_path / "own"
    own.mkdir()
    for name in ("a", "b"):
        (own / name).write_text(name)
        os.chown(own / name, 12, 13)
    for place, option in itertools.product((own, Path("/etc"), Path("/"), Path("/home")), ("z", "Z", "U", "z,U")):
        before = owners_and_labels(place)
        done = orlop("run", "--rm", *NO_NETWORK, "-v", f"{place}:/h:{option}", "host", "true", check=False)
        if "U" in option:
            assert done.code == 125 and f"invalid mode: {option}" in done.stderr, done
        elif place != own:
            assert done.code == 125 and f"SELinux relabeling of {place} is not allowed" in done.stderr, done
        else:
            assert "relabelling was not done" in done.stderr, done
        assert owners_and_labels(place) == before
    api = Api(orlop.run / "docker.sock")
    for place in ("/", "//", "/etc/", "/usr/../home"):
        wish = {"Image": "host", "Cmd": ["true"], "HostConfig": {"Binds": [f"{place}:/h:z"], "NetworkMode": "none"}}
        made = api("POST", "/containers/create", wish)
        assert made.status == 400 and "SELinux relabeling of /" in made.message, (place, made)


@pytest.mark.parametrize("kind", ["device", "pipe", "link to a device"])
def test_no_archive_takes_the_place_of_a_device_or_a_pipe(orlop: Environment, tmp_path: Path, kind: str) -> None:
    """What is moved to its name when it is whole would be the machine's /dev/null from then on."""
    place, context = tmp_path / "place", tmp_path / "context"
    if kind == "pipe":
        os.mkfifo(place)
    else:
        os.mknod(tmp_path / "node", 0o020666, os.makedev(1, 3))
        place.symlink_to("node") if kind == "link to a device" else os.rename(tmp_path / "node", place)
    before = place.lstat()
    context.mkdir()
    (context / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    orlop("create", "--name", "c", *NO_NETWORK, "host", "true")
    orlop("volume", "create", "vol")
    for words in (
        ("export", "-o", place, "c"),
        ("save", "-o", place, "host"),
        ("volume", "export", "-o", place, "vol"),
        ("build", "-o", f"type=tar,dest={place}", context),
        ("build", "-o", f"type=oci,dest={place}", context),
    ):
        refused = orlop(*words, check=False)
        assert refused.code != 0 and "must be a directory or a regular file: got a" in refused.stderr, refused
        assert (place.lstat().st_mode, place.lstat().st_ino) == (before.st_mode, before.st_ino)
    assert not [path for path in tmp_path.iterdir() if path.name not in ("place", "node", "context", "root")]


def test_a_link_to_a_file_stays_one_where_an_archive_goes(orlop: Environment, tmp_path: Path) -> None:
    """/dev/stdout is such a link: it would be a file from then on."""
    place, link, context = tmp_path / "place", tmp_path / "link", tmp_path / "context"
    link.symlink_to("place")
    context.mkdir()
    (context / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    orlop("create", "--name", "c", *NO_NETWORK, "host", "true")
    for words in (
        ("export", "-o", link, "c"),
        ("save", "-o", link, "host"),
        ("build", "-o", f"type=tar,dest={link}", context),
    ):
        place.write_bytes(b"")
        orlop(*words)
        assert link.is_symlink() and tarfile.is_tarfile(place), words


# -- SEC-23 ---------------------------------------------------------------------------------------------------------


NAMES = ["../x", "a/b", "//x", "a\0b", "x" * 4096, "a\u2024b", "..", "-x", " ", "a\nb", "%2e%2e"]
PARENTS = ["../x", "/../x", "/a/../../b", "a\0b", "/" + "x" * 300, "/a\nb", "/a\u2024b", "/."]


def test_sec_23_no_name_is_a_path(orlop: Environment) -> None:
    orlop("ps")
    api = Api(orlop.run / "docker.sock")
    for name in NAMES:
        shown = quote(name, safe="")
        made = api("POST", f"/containers/create?name={shown}", {"Image": "host", "Cmd": ["true"]})
        assert made.status == 400, (name, made)
        for path in ("json", "start", "rename?name=y"):
            found = api("GET" if path == "json" else "POST", f"/containers/{shown}/{path}")
            assert found.status in (400, 404), (name, path, found)
    assert orlop.container_ids() == []


def test_sec_23_no_parent_of_a_cgroup_leaves_its_place(orlop: Environment) -> None:
    orlop("ps")
    api = Api(orlop.run / "docker.sock")
    for parent in PARENTS:
        wish = {"Image": "host", "Cmd": ["true"], "HostConfig": {"CgroupParent": parent, "NetworkMode": "none"}}
        made = api("POST", "/containers/create", wish)
        told = "NUL character" if "\0" in parent else "cgroup"
        assert made.status == 400 and told in made.message, (parent, made)
    assert orlop.container_ids() == []


# -- SEC-28 ---------------------------------------------------------------------------------------------------------


def test_sec_28_nothing_is_inheritable_by_which_way_one_enters(orlop: Environment) -> None:
    """CVE-2022-24769: the program, a health check, exec, exec --privileged, and privileged containers."""
    look = "cat /proc/self/status"
    check = ("--health-cmd", look, "--health-interval", "1s", "--health-retries", "1000")
    orlop("run", "-d", "--name", "c", *NO_NETWORK, *check, "host", "sh", "-c", f"{look}; exec sleep 1000")
    shown = {
        "program": orlop("logs", "c").stdout,
        "exec": orlop("exec", "c", "sh", "-c", look).stdout,
        "exec --privileged": orlop("exec", "--privileged", "c", "sh", "-c", look).stdout,
        "exec of a user": orlop("exec", "-u", "1000:1000", "c", "sh", "-c", look).stdout,
        "run --privileged": orlop("run", "--rm", "--privileged", *NO_NETWORK, "host", "sh", "-c", look).stdout,
        "run of a user": orlop("run", "--rm", "-u", "1000", *NO_NETWORK, "host", "sh", "-c", look).stdout,
    }

    def checked() -> str:
        told = json.loads(orlop("inspect", "-f", "{{json .State.Health.Log}}", "c").stdout)
        return str(told[0]["Output"]) if told else ""

    wait_until(lambda: "CapAmb" in checked())
    shown["health check"] = checked()
    for way, text in shown.items():
        sets = dict(line.split(":\t") for line in text.splitlines() if line.startswith("Cap"))
        assert int(sets["CapInh"], 16) == int(sets["CapAmb"], 16) == 0, (way, text)


# -- SEC-33 ---------------------------------------------------------------------------------------------------------


CONNECT_TO_ALL = """
import socket
seen, reached = 0, []
for line in open("/proc/net/unix").read().splitlines()[1:]:
    words = line.split()
    if len(words) < 8:
        continue
    seen += 1
    for name in (words[7], "\\0" + words[7], "\\0" + words[7].lstrip("@")):
        for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET, socket.SOCK_DGRAM):
            with socket.socket(socket.AF_UNIX, kind) as stream:
                try:
                    stream.connect(name)
                    reached.append(name)
                except OSError:
                    pass
print(seen, reached)
"""


def test_sec_33_a_container_on_the_machines_network_connects_to_no_socket_of_ours(
    orlop: Environment, tmp_path: Path
) -> None:
    """CVE-2020-15257: with the machine's network come its abstract sockets; none of ours is one."""
    orlop("import", doors.archive(doors.tree(tmp_path / "tree"), tmp_path / "attacker.tar"), doors.IMAGE)
    orlop("run", "-d", "--name", "other", "host", "sleep", "1000")
    said = orlop("run", "--rm", "--network", "host", doors.IMAGE, "python3", "-I", "-S", "-c", CONNECT_TO_ALL).stdout
    seen, _, reached = said.partition(" ")
    assert int(seen) > 0 and reached == "[]\n", said


# -- SEC-35 ---------------------------------------------------------------------------------------------------------


def test_sec_35_files_of_the_store_are_their_owners_alone(orlop: Environment) -> None:
    """What has a variable, a password or a log in it: mode 0600 or less, below directories of mode 0700."""
    orlop("secret", "create", "s", "-", input=SECRET)
    orlop("run", "-d", "--name", "c", *NO_NETWORK, "-e", f"PASSWORD={SECRET}", "--secret", "s", "host", "sleep", "1000")
    holders = []
    for where, _, names in os.walk(orlop.root):
        for path in (Path(where, name) for name in names):
            if "snapshots" in path.parts or path.is_symlink() or not path.is_file():
                continue
            try:
                data, mode = path.read_bytes(), stat.S_IMODE(path.stat().st_mode)
            except FileNotFoundError:
                continue  # it got its name meanwhile
            if SECRET.encode() in data:
                holders.append((str(path.relative_to(orlop.root)), oct(mode)))
    orlop("rm", "-f", "c")  # and with it what it was given in memory
    assert holders and not [one for one in holders if int(one[1], 8) & 0o077], holders


# -- SEC-74 ---------------------------------------------------------------------------------------------------------


def test_sec_74_no_secret_is_in_what_is_logged_or_shown(orlop: Environment, tmp_path: Path) -> None:
    """GHSA-99qr-h2rp-65rc: with --debug, a login that fails, a secret of the engine's and one of a build."""
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text(
        "FROM host\nRUN --mount=type=secret,id=s cat /run/secrets/s >/dev/null\n"
        'RUN --mount=type=secret,id=s,env=S test -n "$S" && false\n'
    )
    registry = ("--password-stdin", "-u", "me", "127.0.0.1:9")
    shown = [
        orlop("--debug", "login", *registry, input=SECRET, check=False),
        orlop("--debug", "secret", "create", "s", secret),
        orlop("--debug", "secret", "create", "s", secret, check=False),
        orlop("--debug", "secret", "inspect", "s"),
        orlop("--debug", "build", "--progress=plain", "--secret", f"id=s,src={secret}", context, check=False),
        orlop("--debug", "run", "--rm", *NO_NETWORK, "--secret", "s", "host", "true"),
        orlop("--debug", "events", "--since", "1970-01-01", "--until", "0s"),
    ]
    assert not [done for done in shown if SECRET in done.stdout + done.stderr]
    orlop("engine", "stop")
    logs = [path for place in (orlop.root, orlop.run) for path in place.rglob("*log*") if path.is_file()]
    assert logs and not [path for path in logs if SECRET.encode() in path.read_bytes()]
