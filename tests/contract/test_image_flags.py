"""The flags of docker's image commands: name, letter and type of each, mechanically.

docker_cli_28_images.json holds what `docker COMMAND --help` of the docker CLI 28 lists. Ours is compared with the file
on every machine; the file with the docker CLI that is here. `python tests/contract/test_image_flags.py` records it.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from support.engine import COMMAND

RECORDED = Path(__file__).with_name("docker_cli_28_images.json")
VERSION = "28."
COMMANDS = [
    "commit", "history", "image inspect", "image ls", "image prune", "image rm", "images", "import", "load", "login",
    "logout", "manifest annotate", "manifest create", "manifest inspect", "manifest push", "manifest rm", "pull",
    "push", "rmi", "save", "search", "system df", "system prune", "tag",
]  # fmt: skip
# What ours has beside docker's.
OURS = {
    "image ls": {"noheading"},
    "images": {"noheading"},
    "load": {"force"},
    "image prune": {"packed"},
    "pull": {"all-platforms", "lazy", "referrers"},
    "system df": {"verify"},
}
_FLAG = re.compile(r"^\s+(?:-(\w), )?\s*--([\w-]+)(?: ([a-z]\w*)\b)?", re.MULTILINE)


def flags_of(*command: str) -> dict[str, list[str]]:
    """Return name -> [letter, type] of what a command's help lists."""
    shown = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True).stdout
    return {name: [letter or "", kind or ""] for letter, name, kind in _FLAG.findall(shown)}


@pytest.mark.parametrize("name", COMMANDS)
def test_flags_are_dockers(name: str) -> None:
    recorded = json.loads(RECORDED.read_text())[name]
    ours = flags_of(str(COMMAND), *name.split())
    assert {flag: ours.get(flag) for flag in recorded} == recorded
    assert set(ours) - set(recorded) == OURS.get(name, set())


def test_the_record_is_what_docker_has() -> None:
    docker = shutil.which("docker")
    version = subprocess.run([docker, "--version"], capture_output=True, text=True).stdout if docker else ""
    if docker is None or f" {VERSION}" not in version:
        return  # another docker, or none: the record stands
    assert {name: flags_of(docker, *name.split()) for name in COMMANDS} == json.loads(RECORDED.read_text())


if __name__ == "__main__":
    found = {name: flags_of("docker", *name.split()) for name in COMMANDS}
    RECORDED.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
