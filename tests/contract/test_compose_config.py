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
