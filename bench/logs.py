"""What containers say: how fast a log is written, and how fast it is read, of two gigabytes too."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

from .measure import Subject
from .platforms import Platform
from .workspace import Workspace

LARGE_BYTES = 2 * 1024**3
WHOLE_BYTES = 256 * 1024**2
WRITTEN_BYTES = 128 * 1024**2
ROUNDS_MAX = 5
NAME = "talker"
_LINES = 10_000  # of one batch, which share their time as those of one write do
_TEXT = "a line of a program that has something to say, and says how far it is: {}"


def tails(work: Workspace, platforms: Sequence[Platform]) -> list[Subject]:
    """Return readings of the last ten lines of a log."""
    return _readings(work, platforms, LARGE_BYTES, ["--tail", "10"], "tail")


def wholes(work: Workspace, platforms: Sequence[Platform]) -> list[Subject]:
    """Return readings of a whole log."""
    return _readings(work, platforms, WHOLE_BYTES, [], "whole")


def writings(work: Workspace, platforms: Sequence[Platform]) -> list[Subject]:
    """Return containers that write and end: the time from the start to the end of the container."""
    subjects = []
    for platform in _with_json_files(platforms):
        command = [*_command(platform), "run", "-d", "--rm", "--network", "none"]
        image, program = platform.create[-2:]
        shell = program.replace("true", "sh")
        script = f"yes '{_TEXT.format('on')}' | head -c {WRITTEN_BYTES}"
        started = shlex.join([*command, image, shell, "-c", script])
        waited = f"{shlex.join([*_command(platform), 'wait'])} $({started})"
        subjects.append(Subject(f"{platform.name}, output to its log", ["/bin/sh", "-c", waited], platform.run.env))
    return subjects


def _readings(
    work: Workspace, platforms: Sequence[Platform], size: int, words: Sequence[str], name: str
) -> list[Subject]:
    """Return `logs` of containers whose logs are copies of one file in docker's format, which both write."""
    source = _log(work, size)
    subjects = []
    for platform in _with_json_files(platforms):
        command, env = _command(platform), platform.run.env
        made = [*platform.create[:-2], "--name", f"{NAME}-{name}", "--log-opt", "max-size=-1", *platform.create[-2:]]
        if platform.name == "docker":
            made.remove("--log-opt")
            made.remove("max-size=-1")
        work.run(made, env)
        work.at_end([*command, "rm", "-f", f"{NAME}-{name}"], env)
        work.run([*command, "start", f"{NAME}-{name}"], env)
        work.run([*command, "wait", f"{NAME}-{name}"], env)
        (found,) = json.loads(work.run([*command, "inspect", f"{NAME}-{name}"], env))
        path = Path(found["LogPath"])
        shutil.copyfile(source, path)
        argv = [*command, "logs", *words, f"{NAME}-{name}"]
        subjects.append(Subject(" ".join([platform.name, "logs", *words]), argv, env))
    return subjects


def _with_json_files(platforms: Sequence[Platform]) -> list[Platform]:
    return [one for one in platforms if one.name in ("orlop", "docker")]


def _command(platform: Platform) -> list[str]:
    return platform.create[: platform.create.index("create")]


def _log(work: Workspace, size: int) -> Path:
    """Return a log in docker's json-file format of about this size, made once."""
    path = work.directory / f"log-{size}"
    if path.exists():
        return path
    with path.open("wb") as file:
        second = 0
        while file.tell() < size:
            time = f"2026-01-02T{second // 3600 % 24:02d}:{second // 60 % 60:02d}:{second % 60:02d}.123456789Z"
            second += 1
            line = json.dumps({"log": _TEXT.format(second) + "\n", "stream": "stdout", "time": time}) + "\n"
            file.write(line.replace('": "', '":"').replace('", "', '","').encode() * _LINES)
    return path
