"""Attacks on the engine itself: by other users, by images that lie about their making, by what it is given to read."""

from __future__ import annotations

import hashlib
import io
import json
import os
import secrets
import stat
import subprocess
import tarfile
import threading
import time
from pathlib import Path

import pytest

from orlop.linux.netlink import rtnetlink
from support import doors
from support.archives import Archive
from support.docker_http import Api
from support.engine import Environment
from support.pace import SLOW

NOBODY = 65534
SECRET = f"what-nobody-else-may-read-{secrets.token_hex(8)}"  # others may run this test meanwhile
SOON_S = 30.0 * SLOW
AS_NOBODY = ("setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups")

READ_ALL = """
import os, sys
secret, found = sys.argv[1].encode(), []
for pid in filter(str.isdecimal, os.listdir("/proc")):
    for name in ("environ", "cmdline", "maps", "mem", "stat", "fd/0", "fd/3"):
        try:
            with open(f"/proc/{pid}/{name}", "rb", buffering=0) as file:
                if secret in file.read(1 << 20) and pid != str(os.getpid()):
                    found.append(f"{pid} {name}")
        except OSError:
            continue
print(found)
"""
CONNECT = """
import os, socket, sys
stream = socket.socket(socket.AF_UNIX)
stream.settimeout(20)
try:
    stream.connect(sys.argv[1])
    stream.sendall(bytes.fromhex(sys.argv[2]))
    print(len(stream.recv(4096)))
except OSError:
    print(0)
"""


def as_nobody(program: str, *words: str | Path) -> str:
    """Return what a Python program says that an ordinary user runs, one who has nothing here."""
    done = subprocess.run(
        [*AS_NOBODY, "/usr/bin/python3", "-I", "-S", "-c", program, *map(str, words)],
        capture_output=True, text=True, timeout=60 * SLOW, check=True, cwd="/",
    )  # fmt: skip
    return done.stdout.strip()


def test_sec_35_no_other_user_reads_a_variable_or_a_file(orlop: Environment) -> None:
    orlop("run", "-d", "--name", "c", "-e", f"PASSWORD={SECRET}", "host", "sleep", "1000")
    orlop("exec", "-e", f"TOKEN={SECRET}", "c", "true")
    assert as_nobody(READ_ALL, SECRET) == "[]"
    for place in (orlop.root, orlop.run):
        with_mode = stat.S_IMODE(place.stat().st_mode)
        assert with_mode == 0o700, (place, oct(with_mode))


def test_sec_33_a_socket_that_others_reach_is_deaf_to_them(orlop: Environment) -> None:
    """SO_PEERCRED decides, not the modes of a directory that somebody opened."""
    orlop("ps")
    for place in (orlop.run, *orlop.root.parents, orlop.socket, orlop.run / "docker.sock"):
        if place.is_relative_to("/tmp") and place != Path("/tmp"):
            place.chmod(0o777)
    request = b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n"
    own = json.dumps({"verb": "engine.version", "args": {}}).encode()
    assert as_nobody(CONNECT, orlop.run / "docker.sock", request.hex()) == "0"
    assert as_nobody(CONNECT, orlop.socket, (len(own).to_bytes(4, "big") + own).hex()) == "0"
    assert Api(orlop.run / "docker.sock")("GET", "/version").status == 200


def test_sec_36_a_container_that_sees_the_machines_processes_enters_none(orlop: Environment, tmp_path: Path) -> None:
    """With --pid host: no root, no memory, no descriptor of a process that is not in there."""
    archive = doors.archive(doors.tree(tmp_path / "tree"), tmp_path / "attacker.tar")
    orlop("import", archive, doors.IMAGE)
    program = (
        "import os\n"
        "found = []\n"
        "for pid in filter(str.isdecimal, os.listdir('/proc')):\n"
        "    if os.path.exists(f'/proc/{pid}/root/attacker.py'): continue\n"
        "    for name in ('root', 'cwd', 'exe', 'fd/0', 'fd/3'):\n"
        "        if os.path.exists(f'/proc/{pid}/{name}'): found.append(f'{pid} {name}')\n"
        "    try:\n"
        "        open(f'/proc/{pid}/mem', 'rb', buffering=0).close(); found.append(f'{pid} mem')\n"
        "    except OSError: pass\n"
        "print(len(os.listdir('/proc')) > 100 or 'few', [x for x in found])\n"
    )
    said = orlop("run", "--rm", "--pid", "host", doors.IMAGE, "python3", "-I", "-S", "-c", program).stdout
    own = {str(pid) for pid in orlop.processes()}
    reached = [word for word in said.partition("[")[2].strip("]\n").replace("'", "").split(", ") if word]
    assert not [word for word in reached if word.split()[0] in {*own, str(os.getpid()), "1"}], said


def forged(saved: bytes, before: str, after: str) -> bytes:
    """Return a saved image whose configuration says of its making what another one's would."""
    out = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(saved)) as old, tarfile.open(fileobj=out, mode="w") as new:
        manifest = json.load(old.extractfile("manifest.json"))  # type: ignore[arg-type]
        config = old.extractfile(manifest[0]["Config"]).read()  # type: ignore[union-attr]
        lie = config.replace(before.encode(), after.encode())
        assert lie != config
        name = f"{hashlib.sha256(lie).hexdigest()}.json"
        members = {layer: old.extractfile(layer).read() for layer in manifest[0]["Layers"]}  # type: ignore[union-attr]
        members[name] = lie
        members["manifest.json"] = json.dumps([manifest[0] | {"Config": name}]).encode()
        for path, data in members.items():
            member = tarfile.TarInfo(path)
            member.size = len(data)
            new.addfile(member, io.BytesIO(data))
    return out.getvalue()


def test_sec_50_what_an_image_says_of_its_making_is_no_cache(orlop: Environment, tmp_path: Path) -> None:
    """CVE-2024-24557: an image with the history of a build that was never made, and another content."""
    context = tmp_path / "context"
    context.mkdir()
    orlop("import", "-", "base:1", input=bytes(Archive().directory(b"etc").file(b"etc/x")))
    dockerfile = "FROM host\nRUN echo {} >/made\nLABEL a=b\n"
    (context / "Dockerfile").write_text(dockerfile.format("evil"))
    orlop("build", "-t", "evil:1", context)
    orlop("save", "-o", tmp_path / "evil.tar", "evil:1")
    (tmp_path / "forged.tar").write_bytes(forged((tmp_path / "evil.tar").read_bytes(), "echo evil", "echo good"))
    orlop("rmi", "evil:1")
    orlop("builder", "prune", "-af")
    orlop("load", "-i", tmp_path / "forged.tar")
    (context / "Dockerfile").write_text(dockerfile.format("good"))
    shown = orlop("build", "--progress=plain", "-t", "good:1", "--cache-from", "evil:1", context, check=False)
    if shown.code:  # caches in images are refused
        shown = orlop("build", "--progress=plain", "-t", "good:1", context)
    assert "CACHED" not in shown.stderr + shown.stdout
    assert orlop("run", "--rm", "good:1", "cat", "/made").stdout == "good\n"


def test_sec_66_a_hostile_image_blocks_nobody(orlop: Environment, tmp_path: Path) -> None:
    """CVE-2021-20291: the same broken layer is taken in by several at once; whoever comes after is served."""
    orlop("import", "-", "good:1", input=bytes(Archive().directory(b"bin").file(b"bin/tool", mode=0o755)))
    orlop("save", "-o", tmp_path / "good.tar", "good:1")
    broken = tmp_path / "broken.tar"
    broken.write_bytes((tmp_path / "good.tar").read_bytes().replace(b"bin/tool", b"../../ool"))
    layer = tmp_path / "layer.tar"
    layer.write_bytes(bytes(Archive().directory(b"bin").file(b"../../ool", mode=0o755)))
    orlop("import", layer, "broken:1")
    codes: list[int] = []

    def bring(*words: str | Path) -> None:
        codes.append(orlop(*words, check=False).code)

    # One is refused before, the other while its layer is unpacked, for which the others wait.
    wanted = [("load", "-i", broken)] * 2 + [("create", "broken:1", "true")] * 3
    threads = [threading.Thread(target=bring, args=words, daemon=True) for words in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SOON_S)
    assert len(codes) == len(wanted) and 0 not in codes, codes
    started = time.monotonic()
    assert "good" in orlop("images").stdout
    orlop("rmi", "good:1")
    orlop("load", "-i", tmp_path / "good.tar")
    assert time.monotonic() - started < SOON_S


@pytest.mark.parametrize("kind", ["veth", "bridge"])
def test_a_network_that_is_called_like_a_link_of_the_machine_removes_nothing(orlop: Environment, kind: str) -> None:
    """Whoever may make networks could end the machine's own, by the name of its link."""
    net = orlop.net
    assert net is not None
    net.route.add_link("own0", rtnetlink.veth("own1") if kind == "veth" else rtnetlink.bridge())
    orlop("network", "create", "-o", "com.docker.network.bridge.name=own0", "taken")
    refused = orlop("network", "create", "-o", "com.docker.network.bridge.name=lo", "loopback", check=False)
    assert refused.code == 1 and "invalid name of a link: 'lo'" in refused.stderr
    orlop("run", "--rm", "--network", "taken", "host", "true", check=False)
    orlop("network", "rm", "taken")
    found = net.route.link("own0")
    assert found is not None and found.kind == kind
    net.route.delete_link(found.index)


@pytest.mark.parametrize(
    "wish",
    [
        {"Domainname": "x\nevil"},
        {"HostConfig": {"Links": ["other:x\n1.2.3.4 evil"]}},
        {"HostConfig": {"DnsSearch": ["a\nnameserver 192.0.2.66"]}},
        {"HostConfig": {"DnsOptions": ["a\nnameserver 192.0.2.66"]}},
        {"HostConfig": {"ExtraHosts": ["a\nevil:1.2.3.4"]}},
        {"Hostname": "a\nevil"},
    ],
)
def test_sec_25_no_wish_becomes_a_second_line(orlop: Environment, wish: dict[str, object]) -> None:
    """CVE-2022-4318: whatever way a word comes into /etc/hosts or /etc/resolv.conf."""
    orlop("run", "-d", "--name", "other", "host", "sleep", "1000")
    api = Api(orlop.run / "docker.sock")
    made = api("POST", "/containers/create", {"Image": "host", "Cmd": ["true"], **wish})
    assert made.status == 400, made


def test_sec_25_no_option_of_a_build_becomes_a_second_line(orlop: Environment, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM host\nRUN cat /etc/hosts /etc/resolv.conf >/seen; cat /seen\n")
    for option in (("--add-host", "a\nevil:1.2.3.4"), ("--add-host", "a:1.2.3.4\n6.6.6.6 evil")):
        done = orlop("build", "--no-cache", "--progress=plain", *option, tmp_path, check=False)
        assert done.code != 0 and "defect" not in done.stderr, done


def test_a_link_of_procfs_is_copied_as_nothing(orlop: Environment) -> None:
    orlop("run", "-d", "--name", "c", "host", "sleep", "1000")
    for path in ("/dev/stdin", "/proc/1/fd/0", "/proc/1/root/etc/shadow", "/proc/self/root/etc/shadow"):
        done = orlop("cp", f"c:{path}", "-", check=False)
        assert "defect" not in done.stderr and b"root:" not in done.raw_stdout, done


@pytest.mark.parametrize(
    "text",
    [
        "include: ['oci://registry.example/../../../../tmp/x:1']\n",
        "include: ['https://example.org/compose.yaml']\n",
        "include: ['git://example.org/x#main:../../etc']\n",
        "services: {a: {extends: {file: 'oci://x/../..', service: b}}}\n",
    ],
)
def test_sec_76_nothing_remote_is_a_part_of_a_project(orlop: Environment, tmp_path: Path, text: str) -> None:
    """CVE-2025-62725."""
    place = tmp_path / "project"
    place.mkdir()
    (place / "compose.yaml").write_text(text + "name: x\n")
    done = orlop("compose", "-f", place / "compose.yaml", "config", check=False)
    assert done.code != 0 and "defect" not in done.stderr, done
    assert sorted(path.name for path in place.iterdir()) == ["compose.yaml"]


def test_sec_74_a_canary_in_no_log(orlop: Environment) -> None:
    orlop("run", "--rm", "-e", f"PASSWORD={SECRET}", "host", "true")
    logs = [path for path in orlop.root.glob("*.log*") if path.is_file()]
    assert not [path for path in logs if SECRET.encode() in path.read_bytes()]
