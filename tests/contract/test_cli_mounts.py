"""`--mount`, `-v`, `--tmpfs`, `--volumes-from` against docker's client: the same words are the same request, or the
same refusal, letter for letter.

docker_cli_28_mounts.json holds what the docker CLI 28 did. `python tests/contract/test_cli_mounts.py` records it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from orlop.engine.volumes import objects
from orlop.frontends.cli.containers import run
from orlop.frontends.cli.main import main
from orlop.frontends.cli.request import container_request
from support.fake_docker import FakeDocker

RECORDED = Path(__file__).with_name("docker_cli_28_mounts.json")
BIND, TMPFS = "type=bind,src=/a,dst=/b", "type=tmpfs,dst=/t"
MOUNTS = [
    BIND, "src=/a,dst=/b,type=bind,ro", "TYPE=BIND,SOURCE=/a,TARGET=/b", "type=bind,source=/a,destination=/b",
    "type=volume,src=v,target=/x,readonly=true", "type=volume,dst=/x", "dst=/x,volume-nocopy", "dst=/x,volume-nocopy=0",
    'dst=/x,volume-opt=type=tmpfs,volume-opt=device=tmpfs,"volume-opt=o=size=1m,uid=3"',
    "dst=/x,volume-label=a=b,volume-driver=local,volume-label=c", f"{TMPFS},tmpfs-size=1m,tmpfs-mode=1777",
    f"{TMPFS},tmpfs-size=x", f"{TMPFS},tmpfs-mode=9", "type=bind,src=.,dst=/x", "type=bind,src=..,dst=/x",
    "type=bind,src=.git,dst=/x", "type=bind,src=a/b,dst=/x", "", "  ", "type", "foo=1", "type=bind,foo",
    "type=bind, src=/a", "type=bind,src= /a,dst=/b", "type=bind,src=,dst=/b", f"{BIND},bind-propagation=rslave",
    f"{BIND},bind-propagation=RSLAVE", f"{BIND},bind-propagation=foo", f"{BIND},bind-nonrecursive",
    f"{BIND},bind-nonrecursive=true", f"{BIND},bind-nonrecursive=x", f"{BIND},bind-recursive",
    f"{BIND},bind-recursive=disabled", f"{BIND},bind-recursive=enabled", f"{BIND},bind-recursive=writable",
    f"{BIND},bind-recursive=writable,ro", f"{BIND},bind-recursive=readonly", f"{BIND},bind-recursive=readonly,ro",
    f"{BIND},bind-recursive=readonly,ro,bind-propagation=rprivate", f"{BIND},bind-recursive=foo",
    f"{BIND},volume-nocopy", f"{BIND},tmpfs-size=1", f"{TMPFS},bind-propagation=x", "dst=/b,image-subpath=x",
    "type=image,dst=/b,src=x,volume-subpath=y", "type=image,src=busybox,dst=/i,image-subpath=bin",
    "type=volume,src=v,dst=/b,volume-subpath=y/z", "type=foo,src=a,dst=/b", "type=bind,src=/a", "type=bind,dst=/a",
    f"{BIND},ro=false", f"{BIND},ro=maybe", f"{BIND},readonly=", f"{BIND},consistency=cached", f"{BIND},consistency=X",
    'type=bind,"src=/a,b",dst=/b', 'type=bind,"src=/a"x,dst=/b', 'type=bind,"src=/a', 'type=bind,src=/a"b,dst=/b',
    f"{BIND}\nx", "type=,src=/a", f"{TMPFS},src=/x", "dst=/x,volume-opt=novalue", "dst=/x,volume-opt==v",
    "dst=/x,volume-driver=foo", "type=npipe,src=a,dst=b", f"{BIND},bind-create-src=true", "src=a,src=b,dst=/x",
    f"{BIND},", f"{TMPFS},tmpfs-mode=0o17", f"{TMPFS},tmpfs-mode=37777777777", f"{TMPFS},tmpfs-mode=777777777777",
    f"{TMPFS},tmpfs-size=-1", f"{TMPFS},tmpfs-options=noexec", f'{BIND},"""x"""', f'{BIND},"a""',
    f"{TMPFS},tmpfs-size=0", "type=volume,dst=/b,volume-subpath=", "dst=/x,ro,ro=false", "dst=/x,volume-nocopy=x",
    f"{BIND}\r", "dst=/x\n\ndst=/y", "\ndst=/x", "\n", "#dst=/x", "type=bind\tx,dst=/q", '"dst=/x\n/y"', '"dst=/x\n"y',
    'a\n"dst', '"dst=/x"\n', '""', '"dst=/\u00e4"x', 'dst=/\u00e4"',
]  # fmt: skip
VOLUMES = [
    "/a", "vol:/b", "/a:/b", "/a:/b:ro", "vol:/b:ro,z", ":/b", "vol:", "vol:/b:", "", "./a:/b", "..:/b", "a/b:/c",
    ".:/x:ro", "/", "/a:/b:ro,foo", "~/a:/b", "/x:/y:nocopy", "v1:/x:volume-nocopy", "/x:", "a b:/c",
    "vol:/x:cached,rshared", "vol:/b:rw:x", "/a::", "/a::ro",
]  # fmt: skip
OTHERS = [
    ["--tmpfs", "/x"], ["--tmpfs", "/x:size=1m,uid=3"], ["--tmpfs", "/x:"], ["--volumes-from", "a"],
    ["--tmpfs", "/x:size=1m", "--tmpfs", "/x:size=2m"], ["--volumes-from", "a:ro", "--volumes-from", "b"],
    ["--volumes-from", ""], ["--volume-driver", "foo", "-v", "vv:/x"], ["--storage-opt", "size=1"],
    ["--storage-opt", "size"], ["--storage-opt", ""], ["-v", "/x", "-v", "/x"], ["-v", "aa:/x", "-v", "aa:/x"],
]  # fmt: skip
WORDS = [*(["--mount", text] for text in MOUNTS), *(["-v", text] for text in VOLUMES), *OTHERS]


@pytest.fixture(scope="module")
def recorded() -> Any:
    return json.loads(RECORDED.read_text())


def dockers(docker: FakeDocker, words: Sequence[str]) -> list[object]:
    """Return what docker's client does: its request in the terms of `ours`, or its refusal."""
    docker.created.clear()
    done = docker("create", *words, "x")
    if not docker.created:
        return [done.returncode, done.stderr.splitlines()[0].replace("docker", "orlop")]
    body = docker.created[-1][1]
    host = body["HostConfig"]
    found: dict[str, object] = {
        name: host[name]
        for name in ("Binds", "Mounts", "Tmpfs", "VolumesFrom", "VolumeDriver", "StorageOpt")
        if host.get(name)
    }
    if body["Volumes"]:
        found["Volumes"] = body["Volumes"]
    return [without_place(found)]


def without_place(found: object) -> object:
    here = os.getcwd()
    return json.loads(json.dumps(found).replace(here, "$HERE").replace(os.path.dirname(here), "$ABOVE"))


def ours(words: Sequence[str]) -> list[object]:
    options, arguments = run.CREATE.parse([*words, "x"])
    asked = container_request(options, arguments, frozenset())
    found = {name: value for name, value in objects.host_config(asked).items() if value}
    nameless = {bind.target: {} for bind in asked.binds if not bind.source}
    if nameless:
        found["Volumes"] = nameless
    return [without_place(found)]


@pytest.mark.parametrize("words", WORDS, ids=lambda words: " ".join(words).encode("unicode_escape").decode())
def test_the_same_words_are_the_same_mounts(
    recorded: Any, words: list[str], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    expected = recorded[json.dumps(words)]
    if len(expected) == 1:
        assert ours(words) == expected
        return
    monkeypatch.setattr("os.isatty", lambda _: False)
    code = main(["create", *words, "x"])
    told = capfd.readouterr().err.splitlines()
    assert [code, told[0]] == expected
    assert told[1].startswith("Next: ")


def test_what_is_recorded_is_what_the_real_client_does(
    recorded: Any, peer: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    program = peer("docker")
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    same = "version 28." in version
    # 20.10, of Debian 12, has fewer options of --mount; what it has is the same.
    with FakeDocker(program) as docker:
        for words in WORDS if same else [["-v", "/a:/b:ro"], ["--mount", BIND]]:
            assert dockers(docker, words) == recorded[json.dumps(words)], words


def record(program: Path) -> None:
    with tempfile.TemporaryDirectory() as name, FakeDocker(program) as docker:
        os.makedirs(f"{name}/a/b")
        os.chdir(f"{name}/a/b")
        found = {json.dumps(words): dockers(docker, words) for words in WORDS}
    lines = (f" {json.dumps(key)}: {json.dumps(value)}" for key, value in found.items())
    RECORDED.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    record(Path(shutil.which("docker") or "docker"))
