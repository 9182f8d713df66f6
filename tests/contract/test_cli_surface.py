"""docker's whole command line against ours, by machine: every command, flag and field is there, or listed with why.

docker_cli_28_surface.json holds what the docker CLI 28 says of itself. Ours is compared with the file on every machine;
the file is compared with the docker CLI that is here. `python tests/contract/test_cli_surface.py` records it.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orlop.frontends.cli import commands
from support.engine import Environment
from support.fake_docker import FakeDocker

RECORDED = Path(__file__).with_name("docker_cli_28_surface.json")
VERSION = "28."

# Not compared here: the builder, compose, Swarm and what came with it have tests of their own, or are none of ours.
GROUPS = ("", "container", "image", "manifest", "network", "system", "volume")
CLUSTER = "a volume of a Swarm cluster (CSI)"
# What docker has and we have not: "command", or "command --flag". Nothing may stand here that is there by now.
MISSING = {
    "container rm --link": "legacy links are of the container that was made with them, and go with it",
    "network create --ingress": "Swarm",
    "volume create --availability": CLUSTER,
    "volume create --group": CLUSTER,
    "volume create --limit-bytes": CLUSTER,
    "volume create --required-bytes": CLUSTER,
    "volume create --scope": CLUSTER,
    "volume create --secret": CLUSTER,
    "volume create --sharing": CLUSTER,
    "volume create --topology-preferred": CLUSTER,
    "volume create --topology-required": CLUSTER,
    "volume create --type": CLUSTER,
    "volume ls --cluster": CLUSTER,
    "volume update": CLUSTER,
}
# Fields of `--format` that docker has and we have not.
# docker's words at the top that are a group's too, as it lists them.
TWINS = {
    "images": "image ls", "ps": "container ls", "rmi": "image rm", "events": "system events", "info": "system info",
    **{word: f"container {word}" for word in (
        "attach commit cp create diff exec export kill logs pause port rename restart rm run start stats stop top "
        "unpause update wait").split()},
    **{word: f"image {word}" for word in "build history import load pull push save tag".split()},
}  # fmt: skip
FILTERS = {
    "ps -a": {
        "id": "f", "name": "x", "label": "a=b", "exited": "3", "status": "running", "ancestor": "host", "before": "web",
        "since": "web", "volume": "v", "network": "n", "publish": "80", "expose": "80/tcp", "health": "healthy",
        "isolation": "default", "is-task": "false",
    },
    "volume ls": {"dangling": "true", "driver": "local", "label": "a", "name": "v"},
    "events --since 1s --until 0s": dict.fromkeys(
        "config container daemon event image label network node plugin scope secret service type volume".split(), "x"
    ),
    "container prune -f": {"until": "1h", "label": "a", "label!": "b"},
    "volume prune -f": {"all": "1", "label": "a", "label!": "b"},
    "system prune -f": {"until": "1h", "label": "a", "label!": "b"},
    "network ls": {"dangling": "true", "driver": "bridge", "id": "f", "label": "a", "name": "n", "scope": "local",
                   "type": "custom"},
    "images": {"dangling": "true", "label": "a", "before": "host", "since": "host", "reference": "h*", "until": "1h"},
}  # fmt: skip
LISTS = {
    "ps": ["ps", "-a"], "volume ls": ["volume", "ls"], "network ls": ["network", "ls"], "images": ["images"],
    "history": ["history", "host"], "system df": ["system", "df"], "stats": ["stats", "--no-stream", "web"],
    "info": ["info"], "version": ["version"],
}  # fmt: skip
_ID = "f" * 64
ANSWERS = {
    "/containers/json": [{
        "Id": _ID, "Names": ["/web"], "Image": "i", "ImageID": f"sha256:{_ID}", "Command": "c", "Created": 1,
        "Ports": [], "Labels": {}, "State": "running", "Status": "Up", "HostConfig": {"NetworkMode": "none"},
        "Mounts": [], "NetworkSettings": {"Networks": {}},
    }],
    "/volumes": {"Volumes": [{"Name": "v", "Driver": "local", "Mountpoint": "/m", "Labels": {}, "Scope": "local",
                              "Options": None, "CreatedAt": "2026-01-01T00:00:00Z"}], "Warnings": None},
    "/networks": [{"Name": "n", "Id": _ID, "Created": "2026-01-01T00:00:00Z", "Scope": "local", "Driver": "bridge",
                   "IPAM": {"Driver": "default", "Options": None, "Config": []}, "Options": {}, "Labels": {}}],
    "/images/json": [{"Id": f"sha256:{_ID}", "ParentId": "", "RepoTags": ["host:latest"], "RepoDigests": [],
                      "Created": 1, "Size": 1, "SharedSize": -1, "Labels": {}, "Containers": -1}],
    "/images/host/history": [{"Id": f"sha256:{_ID}", "Created": 1, "CreatedBy": "c", "Tags": [], "Size": 1,
                              "Comment": ""}],
    "/system/df": {"LayersSize": 1, "Images": [], "Containers": [], "Volumes": [], "BuildCache": []},
    "/containers/web/stats": {"id": _ID, "name": "/web", "read": "2026-01-01T00:00:00Z", "cpu_stats": {},
                              "precpu_stats": {}, "memory_stats": {}, "pids_stats": {}},
    "/info": {"ID": "x", "Name": "n"},
    "/version": {"Version": "28", "ApiVersion": "1.50", "Components": []},
}  # fmt: skip


def listed_commands(docker: FakeDocker, *group: str) -> list[str]:
    """Return the words that `docker group --help` lists as commands."""
    words, listing = [], False
    for line in docker(*group, "--help").stdout.splitlines():
        listing = bool(line.strip()) and (listing or line.endswith("Commands:"))
        if listing and (found := re.match(r"  ([a-z-]+)\*? +\S", line)):
            words.append(found[1])
    return words


def listed_flags(docker: FakeDocker, *words: str) -> dict[str, list[str]]:
    """Return flag -> [letter, type] as `docker words --help` lists them."""
    flags = {}
    for line in docker(*words, "--help").stdout.splitlines():
        if found := re.match(r"  (?:-(\w), |    )--([a-z0-9-]+)(?: (\S+))?(?:  |$)", line):
            flags[found[2]] = [found[1] or "", found[3] or ""]
    return flags


def surface(docker: FakeDocker) -> dict[str, Any]:
    """Return every command with its flags, and the fields of every list, as the docker CLI tells them."""
    flags = {}
    for word in listed_commands(docker):
        inner = listed_commands(docker, word)
        if not inner:
            flags[word] = listed_flags(docker, word)
        for name in inner:
            flags[f"{word} {name}"] = listed_flags(docker, word, name)
    fields = {}
    for name, words in LISTS.items():
        done = docker(*words, "--format", "json")
        fields[name] = sorted(json.loads(done.stdout.splitlines()[0]))
    return {"flags": flags, "fields": fields}


@pytest.fixture(scope="module")
def recorded() -> Any:
    return json.loads(RECORDED.read_text())


@pytest.fixture(scope="module")
def docker(peer: Any) -> Iterator[FakeDocker]:
    with FakeDocker(peer("docker"), ANSWERS) as fake:
        yield fake


def test_every_command_and_flag_is_there_or_listed_with_why(recorded: Any) -> None:
    missing, differing = set(), []
    for name, listed in recorded["flags"].items():
        name = TWINS.get(name, name)
        group, _, word = name.rpartition(" ")
        if group not in GROUPS or word == "build":
            continue
        row = commands.find(group, word)
        if row is None:
            missing.add(name)
            continue
        command = commands.load(row)
        ours = {flag.name: [flag.short, flag.kind.name] for flag in command.flags}
        missing |= {f"{name} --{flag}" for flag in listed if flag not in ours}
        differing += [
            (name, flag, ours[flag], found) for flag, found in listed.items() if ours.get(flag, found) != found
        ]
        unsaid = set(listed) - set(ours) - set(command.refused)
        assert not unsaid, f"{name}: {unsaid} must be refused by name"
    # `run` has the flags of `create`.
    missing = {one.replace("container run ", "container create ") for one in missing}
    assert sorted(missing - set(MISSING)) == [] and sorted(set(MISSING) - missing) == []
    assert differing == []


def test_every_field_of_every_list_is_there(orlop: Environment, recorded: Any) -> None:
    orlop("run", "-d", "--network", "none", "--name", "web", "-v", "vol:/v", "host", "sleep", "1000")
    for name, words in LISTS.items():
        printed = json.loads(orlop(*words, "--format", "json").stdout.splitlines()[0])
        assert set(recorded["fields"][name]) <= set(printed), name
        if words[0] not in ("info", "version"):
            form = "\t".join(f"{{{{.{field}}}}}" for field in sorted(printed))
            assert orlop(*words, "--format", form).stdout.splitlines()[0].count("\t") == len(printed) - 1, name
    for line, filters in FILTERS.items():
        for key, value in filters.items():
            done = orlop(*line.split(), "--filter", f"{key}={value}", check=False)
            assert done.code == 0, (line, key, done.stderr)
        refused = orlop(*line.split(), "--filter", "no-such-filter=1", check=False)
        assert refused.code == 1 and "no-such-filter" in refused.stderr, line


def test_what_is_recorded_is_what_the_real_cli_says(docker: FakeDocker, recorded: Any) -> None:
    if f"version {VERSION}" in docker("--version").stdout:
        assert surface(docker) == recorded


def record(program: Path) -> None:
    with FakeDocker(program, ANSWERS) as docker:
        found = surface(docker)
    rows = (
        f" {json.dumps(key)}: {{\n"
        + ",\n".join(f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in table.items())
        + "\n }"
        for key, table in found.items()
    )
    RECORDED.write_text("{\n" + ",\n".join(rows) + "\n}\n")


if __name__ == "__main__":
    record(Path(shutil.which("docker") or "docker"))
