"""Volumes and mounts beside a real dockerd (20.10): the same refusals, the same inspect objects, the same copies."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from bench.workspace import Workspace
from support.archives import Archive
from support.engine import Environment

IMAGE = "shipped"


@pytest.fixture(scope="module")
def workspace() -> Iterator[Workspace]:
    with Workspace() as place:
        yield place


@pytest.fixture(scope="module")
def archive() -> bytes:
    made = Archive().directory(b"data", uid=1000, gid=1001, mode=0o2750, mtime=1_000_000_000)
    plain = {"uid": 7, "gid": 8, "mode": 0o4755, "mtime": 1_100_000_000}
    made.file(b"data/f", b"text", **plain).hard(b"data/same", b"data/f", **plain)
    made.symlink(b"data/link", b"/etc/passwd", uid=5, gid=6, mtime=1_100_000_000)
    made.node(b"data/null", b"3", 1, 3, mode=0o666, mtime=1_100_000_000)
    made.node(b"data/pipe", b"6", mode=0o640, mtime=1_100_000_000)
    made.directory(b"data/deep", mode=0o700, mtime=1_200_000_000).file(b"data/deep/f", mtime=1_300_000_000)
    return bytes(made.file(b"afile"))


@pytest.fixture(scope="module")
def docker(workspace: Workspace, archive: bytes, peer: Callable[[str], Path]) -> Any:
    env = workspace.dockerd("d", "--storage-driver=vfs", program=peer("dockerd")).env

    def call(*words: str, input: bytes = b"") -> subprocess.CompletedProcess[str]:
        argv = [str(peer("docker")), *words]
        done = subprocess.run(argv, env=env, input=input, capture_output=True, timeout=120, check=False)
        return subprocess.CompletedProcess(argv, done.returncode, done.stdout.decode(), done.stderr.decode())

    made = call("import", "-c", 'VOLUME ["/data", "/vol2"]', "-c", 'CMD ["x"]', "-", IMAGE, input=archive)
    assert made.returncode == 0, made.stderr
    return call


@pytest.fixture(scope="module")
def ours(archive: bytes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    environment = Environment(tmp_path_factory.mktemp("ours") / "root")
    environment("import", "-c", 'VOLUME ["/data", "/vol2"]', "-c", 'CMD ["x"]', "-", IMAGE, input=archive)
    yield environment
    assert not environment.close()


REFUSED = [
    ["-v", "x/y:/b"], ["-v", "a b:/c"], ["-v", "va:/b:foo"], ["-v", "va:/b:ro,rw"], ["-v", "va:/b:ro,foo"],
    ["-v", "/h:/b:nocopy"], ["-v", "va:/b:rshared"], ["-v", "/tmp:/"], ["-v", "va:/b:z,Z"], ["-v", "va:/b:copy"],
    ["-v", "/tmp:/b", "-v", "/etc:/b"], ["-v", "/tmp:/b", "--tmpfs", "/b"], ["-v", "/tmp:/b:bind"],
    ["-v", "/tmp:/b", "--mount", "type=volume,dst=/b"], ["-v", "va:/b:delegated,cached"],
    ["--mount", "type=bind,dst=/b"], ["--mount", "type=bind,src=rel,dst=/b"],
    ["--mount", "type=bind,src=/nonexistent,dst=/b"], ["--mount", "type=bind,src=/tmp,dst=b"],
    ["--mount", "type=volume,dst=b"], ["--mount", "type=bind,src=/tmp,dst=/"],
    ["--mount", "type=bind,src=/tmp,dst=/b,bind-propagation=foo"], ["--mount", "type=tmpfs,dst=/t,src=/x"],
    ["--mount", "type=foo,src=a,dst=/b"], ["--mount", "type=npipe,src=a,dst=/b"],
    ["--mount", "type=volume,src=a/b,dst=/b"], ["--mount", "type=volume,src=/abs,dst=/b"],
    ["--mount", "type=volume,src=vx,dst=/b,volume-driver=local,volume-opt=foo=bar"],
    ["--mount", "type=volume,src=vx,dst=/b,volume-opt=type=tmpfs"], ["--tmpfs", "/"], ["--volumes-from", "nosuch"],
    ["--volumes-from", ""], ["--volumes-from", "a:foo"],
]  # fmt: skip
REFUSED_VOLUMES = [
    ["rm", "nosuch"], ["inspect", "nosuch"], ["create", "x"], ["create", "x/y"], ["create", "a b"], ["create", ".."],
    ["create", "-o", "foo=bar", "bar"], ["create", "-o", "type=tmpfs", "bar"], ["create", "-o", "device=x", "zz"],
    ["create", "-d", "foo", "bar"], ["create", "--", "-a"],
]  # fmt: skip


def told(stderr: str) -> str:
    for line in stderr.splitlines():
        if line.startswith("Error"):
            return line.removeprefix("Error response from daemon: ").removeprefix("Error: ")
    raise AssertionError(stderr)


@pytest.mark.parametrize("words", REFUSED, ids=" ".join)
def test_dockers_reasons_for_refusing_a_mount_are_ours(docker: Any, ours: Environment, words: list[str]) -> None:
    theirs = docker("create", *words, IMAGE)
    refused = ours("create", *words, IMAGE, check=False)
    assert theirs.returncode and refused.code
    assert told(theirs.stderr) in refused.stderr and "\nNext: " in refused.stderr


@pytest.mark.parametrize("words", REFUSED_VOLUMES, ids=" ".join)
def test_dockers_reasons_for_refusing_a_volume_are_ours(docker: Any, ours: Environment, words: list[str]) -> None:
    theirs = docker("volume", *words)
    refused = ours("volume", *words, check=False)
    assert theirs.returncode == refused.code == 1
    assert told(theirs.stderr).replace("Get ", "get ") in refused.stderr


FLAGS = [
    ["-v", "named:/n:ro,z", "-v", "{place}:/h", "-v", "/anon", "--tmpfs", "/t:size=1m"],
    ["--mount", "type=bind,src=/etc,dst=/m1,ro", "--mount", "type=volume,src=two,dst=/m2,volume-label=q=1"],
    ["--mount", "type=tmpfs,dst=/m3,tmpfs-size=1m", "--mount", "type=volume,dst=/m4"],
    ["-v", "{place}:/h:ro,rslave", "-v", "named:/data", "-v", "{place}/../x/:/slash/"],
    ["--mount", "type=bind,src={place},dst=/b,bind-propagation=rshared", "-v", "nn:/vol2:nocopy"],
    ["--volumes-from", "lender"],
    ["--volumes-from", "lender:ro", "-v", "other:/l1"],
]


def shape(call: Callable[..., str], flags: Sequence[str], root: str) -> dict[str, Any]:
    """Create a container and return what inspect says of its mounts, without what is drawn or differs by place."""
    identity = call("create", *flags, IMAGE).strip()
    found = json.loads(call("inspect", identity))[0]
    mounts = sorted(found["Mounts"], key=lambda mount: mount["Destination"])
    for mount in mounts:
        if len(mount.get("Name", "")) == 64:
            mount["Source"] = mount["Source"].replace(mount["Name"], "DRAWN")
            mount["Name"] = "DRAWN"
        mount["Source"] = mount["Source"].replace(root, "ROOT")
    host = found["HostConfig"]
    fields = {name: host.get(name) for name in ("Mounts", "Tmpfs", "VolumesFrom", "VolumeDriver")}
    fields["Binds"] = sorted(host["Binds"] or ())  # the docker CLI sends them in no order
    call("rm", "-v", identity)
    return {"Mounts": mounts, "Volumes": found["Config"]["Volumes"], **fields}


@pytest.mark.parametrize("flags", FLAGS, ids=" ".join)
def test_inspect_says_what_docker_says(docker: Any, ours: Environment, workspace: Workspace, flags: list[str]) -> None:
    place = workspace.directory / "shared-directory"
    place.mkdir(exist_ok=True)
    flags = [flag.format(place=place) for flag in flags]
    lender = ["create", "--name", "lender", "-v", "lent:/l1:ro", "-v", f"{place}:/l2", "-v", "/l3", IMAGE]

    def theirs(*words: str) -> str:
        done = docker(*words)
        assert done.returncode == 0, done.stderr
        return str(done.stdout)

    def own(*words: str) -> str:
        return ours(*words).stdout

    for call in (theirs, own):
        call(*lender)
    try:
        assert shape(own, flags, str(ours.root)) == shape(theirs, flags, str(workspace.directory / "d/data"))
    finally:
        for call in (theirs, own):
            call("rm", "-v", "lender")


def test_the_same_first_content(docker: Any, ours: Environment, workspace: Workspace) -> None:
    def listed(directory: Path) -> str:
        # 20.10 gives directories the time of the copy; ours keep their own.
        form = "%P %y %m %U:%G %n %l"
        argv = ["find", directory, "-type", "d", "-printf", f"{form}\\n", "-o", "-printf", f"{form} %Ts\\n"]
        done = subprocess.run(argv, capture_output=True, text=True, check=True)
        return "".join(sorted(done.stdout.splitlines(keepends=True)))

    assert docker("create", "-v", "filled:/data", IMAGE).returncode == 0
    ours("create", "-v", "filled:/data", IMAGE)
    theirs = workspace.directory / "d/data/volumes/filled/_data"
    own = ours.root / "volumes/filled/_data"
    assert listed(own) == listed(theirs)
    assert os.stat(own / "f").st_ino == os.stat(own / "same").st_ino


def test_volume_ls_and_inspect(docker: Any, ours: Environment) -> None:
    for words in (["create", "--label", "a=b", "shown"], ["create", "-o", "type=tmpfs", "-o", "device=tmpfs", "mem"]):
        assert docker("volume", *words).stdout == ours("volume", *words).stdout
    for words in (
        ["ls", "-f", "name=shown"], ["ls", "-q", "-f", "label=a"], ["ls", "-f", "dangling=true", "-f", "name=mem"],
        ["ls", "-f", "driver=local", "-f", "name=shown"], ["ls", "-f", "driver=loc"],
        ["ls", "-f", "name=shown", "--format", "{{.Name}} {{.Driver}} {{.Scope}} {{.Labels}} {{.Links}} {{.Size}}"],
        ["inspect", "-f", "{{.Name}} {{json .Labels}} {{json .Options}} {{.Scope}} {{.Driver}}", "shown", "mem"],
        ["rm", "shown", "mem"],
    ):  # fmt: skip
        theirs, own = docker("volume", *words), ours("volume", *words)
        assert (own.code, own.stdout) == (theirs.returncode, theirs.stdout), words
