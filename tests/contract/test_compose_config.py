"""`orlop compose config` beside docker compose 2: the same files, the same canonical project, or both refuse.

Written differently without meaning anything else (`_normal`): sizes as text or number, what is left at its default,
the order of lists that are sets.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.engine import COMMAND

# name: {file: its text}
SAME: dict[str, dict[str, str]] = yaml.safe_load(Path(__file__).with_name("compose_config.yaml").read_text())
# Where they differ, and why.
DIFFERENT = {
    "date": "go-yaml makes a time of it: a label then says 2001-01-01 00:00:00 +0000 UTC; ours says what was written",
}


@pytest.fixture(params=sorted(SAME))
def project(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    directory = tmp_path / "shop"
    for name, text in SAME[request.param].items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return request.param, directory


def test_both_read_the_same(project: tuple[str, Path], peer: Callable[[str], Path]) -> None:
    name, directory = project
    theirs = _config([str(peer("docker-compose"))], directory)
    ours = _config([str(COMMAND), "compose"], directory)
    if name in DIFFERENT:
        assert ours != theirs, f"they are the same now: {name}"
        return
    assert ours == theirs


def _config(program: list[str], directory: Path) -> dict[str, Any] | str:
    """Return the project in a form that both can be brought to, "refused" when it was."""
    env = {"PATH": os.environ["PATH"], "HOME": "/nowhere", "DOCKER_CONFIG": str(directory)}
    argv = [*program, "--profile", "tools", "config", "--format", "json"]
    done = subprocess.run(argv, cwd=directory, env=env, capture_output=True, text=True, check=False, timeout=100)
    if done.returncode:
        assert done.stderr.strip() and "Traceback" not in done.stderr, done.stderr
        return "refused"
    found: dict[str, Any] = _normal("", json.loads(done.stdout))
    return found


# With variables everywhere, and one name that is nowhere.
FLAGGED = {
    "compose.yaml": """
name: shop
services:
  web:
    image: ${IMG:-box:1}
    command: echo $$A ${B}
    ports: ["${PORT:-8080}:80", "127.0.0.1:81:81"]
    environment: ["A=${X}", "Q=$$x"]
    volumes: ["./d:/d", "data:${T-/data}"]
    mem_limit: ${M:-1g}
    depends_on: [db]
    env_file: [e.env]
    deploy: {replicas: "${R:-2}"}
    healthcheck: {test: "true ${X}", interval: "${I:-10s}"}
    secrets: [key]
  db: {image: "b:${V:?need}", build: {context: ./sub, args: {A: "${B}"}}}
volumes: {data: {}}
secrets: {key: {file: ./key}}
networks: {unused: {driver: "${D:-bridge}"}}
""",
    "compose.override.yaml": """
services:
  web: {ports: ["${PORT:-8080}:80", "82:82"], environment: {A: "${Y:+y}"}, labels: {l: "${L}"}}
  wild: {image: w, configs: [nosuch]}
""",
    "e.env": "E=1\n",
}
VARIABLES = {"V": "7", "X": "x y", "B": "b", "Y": "1", "L": "l"}


@pytest.fixture
def flagged(tmp_path: Path) -> Path:
    for name, text in FLAGGED.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def _said(program: list[str], directory: Path, *words: str, given: str = "", **env: str) -> str:
    """Return what `config` says; given: instead of the project's files."""
    argv = [*program, *(["-f", "-"] if given else []), "config", *words]
    env |= {"PATH": os.environ["PATH"], "HOME": "/nowhere", "DOCKER_CONFIG": str(directory)}
    done = subprocess.run(argv, cwd=directory, env=env, input=given, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _both(peer: Callable[[str], Path]) -> tuple[list[str], list[str]]:
    return [str(COMMAND), "compose"], [str(peer("docker-compose"))]


@pytest.mark.parametrize("flag", ["--no-consistency", "--no-normalize", "--no-path-resolution"])
def test_what_is_not_done_to_the_files(flagged: Path, peer: Callable[[str], Path], flag: str) -> None:
    flags = {"--no-consistency", flag}
    ours, theirs = (
        _normal("", json.loads(_said(program, flagged, *flags, "--format", "json", **VARIABLES)))
        for program in _both(peer)
    )
    if "--no-normalize" in flags:  # docker compose leaves its default away, which is what it then means
        assert ours["services"]["db"]["build"].pop("dockerfile") == "Dockerfile"
    assert ours == theirs


@pytest.mark.parametrize("flags", [(), ("--no-path-resolution",), ("--no-normalize",)])
def test_files_with_their_variables_still_in_them(
    flagged: Path, peer: Callable[[str], Path], flags: tuple[str, ...]
) -> None:
    """Each reader makes the same project of what either has written, once the variables have values."""
    own, other = _both(peer)
    texts = [_said(program, flagged, "--no-interpolate", *flags) for program in (own, other)]
    assert all("${PORT:-8080}" in text and "${V:?need}" in text and "${M:-1g}" in text for text in texts)
    wanted = _normal("", json.loads(_said(other, flagged, "--no-consistency", "--format", "json", **VARIABLES)))
    for reader in (own, other):
        for text in texts:
            said = _said(reader, flagged, "--no-consistency", "--format", "json", given=text, **VARIABLES)
            assert _normal("", json.loads(said)) == wanted


def test_the_variables_that_files_ask_for(flagged: Path, peer: Callable[[str], Path]) -> None:
    own, other = (
        {tuple(row.split()) for row in _said(one, flagged, "--variables").splitlines()} for one in _both(peer)
    )
    assert own == other | {("T", "false", "/data")}, "docker compose 2.26 misses ${NAME-word} in a short mount"
    assert json.loads(_said(_both(peer)[0], flagged, "--variables", "--format", "json"))["V"]["Required"] is True


def test_short_forms_with_a_colon_in_a_variable(tmp_path: Path) -> None:
    """docker compose 2.26 cuts these at the colon of the default."""
    body = "{image: i, devices: ['${DEV:-/dev/null}:/dev/x'], volumes: ['${S:-./s}:/s'], build: '${C:-.}'}"
    (tmp_path / "compose.yaml").write_text(f"name: shop\nservices: {{web: {body}}}\n")
    own = [str(COMMAND), "compose"]
    written = _said(own, tmp_path, "--no-interpolate")
    assert all(text in written for text in ("${DEV:-/dev/null}:/dev/x", "${S:-./s}:/s", "${C:-.}"))
    for env in ({}, {"DEV": "/dev/zero", "S": "/other", "C": "sub"}):
        read = (json.loads(_said(own, tmp_path, "--format", "json", given=one, **env)) for one in (written, ""))
        assert _normal("", next(read)) == _normal("", next(read))


_SETS = frozenset("volumes ports expose secrets configs env_file watch".split())


def _normal(key: str, value: Any) -> Any:
    if isinstance(value, dict):
        if value.keys() == {"soft", "hard"} and value["soft"] == value["hard"]:
            return str(value["soft"])
        if key in ("device_read_bps", "device_write_bps"):  # its JSON has the names of Go's fields
            value = {name.lower(): one for name, one in value.items()}
        made = {name: _normal(name, one) for name, one in value.items()}
        return {name: one for name, one in made.items() if not _is_default(name, one)}
    if isinstance(value, list):
        items = [_normal(key, one) for one in value]
        return sorted(items, key=lambda one: json.dumps(one, sort_keys=True)) if key in _SETS else items
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:g}" if isinstance(value, float) else str(value)
    return value


def _is_default(key: str, value: Any) -> bool:
    return value in (None, {}, [], "") or (key, value) in _DEFAULTS


_DEFAULTS = (
    ("mode", "ingress"),
    ("protocol", "tcp"),
    ("required", True),
    ("restart", False),
    ("create_host_path", True),
    ("external", False),
)
