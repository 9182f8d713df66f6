"""Builds: the same Dockerfiles by ours, docker's classic builder and buildah (runc, as everywhere here)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from devtools import peers
from devtools.failure import Failure

from .measure import Subject
from .platforms import Platform
from .workspace import Workspace

SMALL_STEPS = 10
CACHED_STEPS = 30
FILES = 50_000
BIG_BYTES = 1 << 30
ROUNDS_MAX = 3


def steps(work: Workspace, platforms: Sequence[Platform]) -> list[Subject]:
    """Ten small RUN steps without the cache."""
    context = _context(work, "steps", [f"RUN echo {number} > /f{number}" for number in range(SMALL_STEPS)])
    return [
        *_subjects(work, platforms, context, ["--no-cache"]),
        *_buildah(work, context, ["--layers", "--no-cache"]),
    ]


def cached(work: Workspace, platforms: Sequence[Platform]) -> list[Subject]:
    """Thirty steps, all of them cached."""
    context = _context(work, "cached", [f"RUN echo {number} > /f{number}" for number in range(CACHED_STEPS)])
    return [*_subjects(work, platforms, context, [], ahead=True), *_buildah(work, context, ["--layers"], ahead=True)]


def copy(work: Workspace, platforms: Sequence[Platform]) -> list[Subject]:
    """COPY of 50,000 files without the cache."""
    context = _context(work, "copy", ["COPY . /files"])
    for number in range(FILES):
        path = context / f"d{number // 500}" / f"f{number}"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"file {number}\n" * 20)
    return [
        *_subjects(work, platforms, context, ["--no-cache"]),
        *_buildah(work, context, ["--layers", "--no-cache"]),
    ]


def big(work: Workspace, platforms: Sequence[Platform]) -> list[Subject]:
    """A context of 1 GiB of which nothing has changed: what a second build costs."""
    context = _context(work, "big", ["COPY data/f0 /"])
    (context / "data").mkdir()
    for number in range(64):
        with (context / f"data/f{number}").open("wb") as file:
            for block in range(16):
                file.write(bytes([number, block]) * (BIG_BYTES // 64 // 16 // 2))
    return _subjects(work, platforms, context, [], ahead=True)


def _context(work: Workspace, name: str, lines: Sequence[str]) -> Path:
    place = work.path(f"build-{name}")
    (place / "Dockerfile").write_text("\n".join(["FROM bench", *lines, ""]))
    (place / ".dockerignore").write_text("Dockerfile\n.dockerignore\n")
    return place


def _subjects(
    work: Workspace, platforms: Sequence[Platform], context: Path, options: Sequence[str], *, ahead: bool = False
) -> list[Subject]:
    found = []
    for one in platforms:
        if one.name not in ("orlop", "docker"):
            continue
        command = one.run.argv[: one.run.argv.index("run")]
        env = {**one.run.env, "DOCKER_BUILDKIT": "0"}
        if one.name == "orlop":
            work.run([*command, "import", work.archive(), "bench:latest"], env)
        argv = [*command, "build", "-q", "--network=none", *options, str(context)]
        if ahead:
            work.run(argv, env)
        found.append(Subject(f"{one.name} build", argv, env))
    return found


def _buildah(work: Workspace, context: Path, options: Sequence[str], *, ahead: bool = False) -> list[Subject]:
    program = peers.find("buildah")
    if program is None:
        raise Failure("buildah is missing")
    home = work.directory / "buildah"
    env = work.environment()
    storage = [f"--root={home / 'root'}", f"--runroot={home / 'run'}", "--storage-driver=overlay"]
    command = [str(program), *storage]
    if not home.exists():
        home.mkdir()
        name = work.run([*command, "from", "scratch"], env)
        work.run([*command, "add", "-q", name, work.archive(), "/"], env)
        work.run([*command, "commit", "-q", name, "bench:latest"], env)
    argv = [*command, "bud", "-q", "--isolation=chroot", "--network=host", *options, str(context)]
    if ahead:
        work.run(argv, env)
    return [Subject("buildah bud (chroot isolation)", argv, env)]
