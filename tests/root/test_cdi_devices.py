"""CDI devices in containers and in steps of builds, by our command and by docker's, with links in the way."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from support.engine import Environment

FILE = """
cdiVersion: 0.6.0
kind: vendor.example/device
containerEdits:
  env: [COMMON=1]
devices:
- name: one
  containerEdits:
    env: [ONE=1]
    deviceNodes:
    - {{path: /dev/one, hostPath: /dev/zero, permissions: rw}}
    mounts:
    - {{hostPath: {place}/library, containerPath: /vendor/library, options: [ro, nosuid, nodev, rbind]}}
    additionalGids: [4242]
    hooks:
    - hookName: createContainer
      path: /bin/sh
      args: [sh, -c, "cat > {place}/hook"]
- name: free
  annotations: {{org.mobyproject.buildkit.device.autoallow: "true"}}
  containerEdits: {{env: [FREE=1]}}
"""
LOOK = "echo $ONE$COMMON; head -c 3 /dev/one | wc -c; cat /vendor/library; id -G"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of device files, in place of the machine's."""
    directory = tmp_path / "cdi"
    directory.mkdir()
    (directory / "library").write_text("of the vendor\n")
    (directory / "vendor.yaml").write_text(FILE.format(place=directory).lstrip())
    monkeypatch.setenv("ORLOP_CDI_DIRS", str(directory))
    return directory


def seen(text: str) -> list[str]:
    return text.split("\n")[:4]


def test_a_container_gets_what_the_file_says(
    orlop: Environment, place: Path, peer: Callable[[str], Path], tmp_path: Path
) -> None:
    words = ("--network=none", "--device=vendor.example/device=one", "host", "sh", "-c", LOOK)
    ours = orlop("run", "--name=c", *words)
    assert seen(ours.stdout) == ["11", "3", "of the vendor", "0 4242"]
    assert json.loads((place / "hook").read_text())["status"] in ("creating", "created")
    host = json.loads(orlop("container", "inspect", "c").stdout)[0]["HostConfig"]
    assert host["DeviceRequests"][0]["DeviceIDs"] == ["vendor.example/device=one"] and not host["Devices"]
    env = {**os.environ, "DOCKER_HOST": f"unix://{orlop.run}/docker.sock", "DOCKER_CONFIG": str(tmp_path)}
    argv = [str(peer("docker")), "run", "--rm", *words]
    theirs = orlop.inside(lambda: subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60))
    assert seen(theirs.stdout) == seen(ours.stdout), theirs.stderr
    gone = orlop("run", "--rm", *(word.replace("=one", "=gone") for word in words), check=False)
    assert gone.code == 125 and "unresolvable CDI devices vendor.example/device=gone" in gone.stderr
    assert "vendor.example/device=one" in gone.stderr, "it says which there are"


def test_a_step_gets_it_where_it_is_allowed(orlop: Environment, place: Path, tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    dockerfile = context / "Dockerfile"

    def built(line: str, *options: str) -> str:
        dockerfile.write_text(f"FROM host\n{line}\n")
        done = orlop("build", "--network=none", "--progress=plain", *options, context, check=False)
        return done.stdout + done.stderr if done.code else done.stderr + "\nbuilt"

    line = f"RUN --device=vendor.example/device=one ({LOOK}) 2>&1"
    assert "device vendor.example/device=one is not allowed" in built(line)
    assert "device vendor.example/device=one is not allowed" in built(line, "--allow=device=vendor.example/device=free")
    for allow in ("device", "device=vendor.example/device", "device=vendor.example/device=one"):
        told = built(f"{line} # {allow}", f"--allow={allow}")
        assert told.endswith("built") and "of the vendor" in told and "0 4242" in told
    assert "FREE" in built("RUN --device=vendor.example/device=free env")
    assert "\nbuilt" in built("RUN --device=vendor.example/other true"), "it may do without"
    told = built("RUN --device=vendor.example/other,required true", "--allow=device")
    assert 'required device "vendor.example/other" is not registered' in told
    assert 'invalid device "nothing"' in built("RUN --device=nothing true", "--allow=device")


def test_what_a_device_brings_follows_no_link_of_the_image(orlop: Environment, place: Path, tmp_path: Path) -> None:
    """SEC-18: a mount and a node below links of the image to the machine's directories."""
    context = tmp_path / "context"
    context.mkdir()
    canary = tmp_path / "canary"
    canary.mkdir()
    text = f"FROM host\nRUN ln -s {canary} /vendor; ln -s ../../../..{canary} /dev/one || true\n"
    (context / "Dockerfile").write_text(text)
    image = orlop("build", "-q", "--network=none", context).stdout.strip()
    for _ in range(2):
        orlop("run", "--rm", "--network=none", "--device=vendor.example/device=one", image, "true", check=False)
    assert not list(canary.iterdir())
