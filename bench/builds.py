"""Builds: the same Dockerfiles by ours, docker's classic builder, its BuildKit, and buildah (all with runc)."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
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
STAGE_S = 2


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


def stages(work: Workspace, platforms: Sequence[Platform]) -> list[Subject]:
    """Two stages that need nothing of each other, each of which waits for STAGE_S."""
    context = _context(work, "stages", [f"RUN sleep {STAGE_S}", f"FROM bench AS other\nRUN sleep {STAGE_S}"])
    with (context / "Dockerfile").open("a") as file:
        file.write("FROM bench\nCOPY --from=0 /bin/sh /one\nCOPY --from=other /bin/sh /other\n")
    return [
        *_subjects(work, platforms, context, ["--no-cache"]),
        *_buildah(work, context, ["--layers", "--no-cache", "--jobs=2"]),
    ]


def big(work: Workspace, platforms: Sequence[Platform]) -> list[Subject]:
    """A step of one file of a context of 1 GiB, in which that file alone has changed since the last build."""
    context = _context(work, "big", ["COPY data/f0 /"])
    _gibibyte(context)

    def change() -> None:
        with (context / "data/f0").open("r+b") as file:
            file.write(os.urandom(8))

    return _subjects(work, platforms, context, [], ahead=True, before=change)


def sent(work: Workspace, platforms: Sequence[Platform]) -> list[Subject]:
    """A context of 1 GiB that nobody has seen before: read, hashed, copied into a layer."""
    context = _context(work, "sent", ["COPY data /data"])
    _gibibyte(context)

    def touch() -> None:
        for file in (context / "data").iterdir():
            os.utime(file)  # its change time too: what is known of it does not count any more

    return [
        *_subjects(work, platforms, context, ["--no-cache"], before=touch),
        *_buildah(work, context, ["--layers", "--no-cache"]),
    ]


def _gibibyte(context: Path) -> None:
    (context / "data").mkdir()
    for number in range(64):
        with (context / f"data/f{number}").open("wb") as file:
            for block in range(16):
                file.write(bytes([number, block]) * (BIG_BYTES // 64 // 16 // 2))


def _context(work: Workspace, name: str, lines: Sequence[str]) -> Path:
    place = work.path(f"build-{name}")
    (place / "Dockerfile").write_text("\n".join(["FROM bench", *lines, ""]))
    (place / ".dockerignore").write_text("Dockerfile\n.dockerignore\n")
    return place


def _nothing() -> None:
    pass


def _subjects(
    work: Workspace,
    platforms: Sequence[Platform],
    context: Path,
    options: Sequence[str],
    *,
    ahead: bool = False,
    before: Callable[[], None] = _nothing,
) -> list[Subject]:
    """Return our command and docker's, each by every way it has to a builder."""
    found = []
    named = {one.name: one for one in platforms}
    words = ["-q", "--network=none", *options, str(context)]
    docker = named["docker"].run.argv[0] if "docker" in named else ""
    if "orlop" in named:
        run = named["orlop"].run
        work.run([run.argv[0], "import", work.archive(), "bench:latest"], run.env)
        found.append(Subject("orlop build", [run.argv[0], "build", *words], run.env, before=before))
        if docker:
            env = {**run.env, "DOCKER_HOST": f"unix://{run.env['ORLOP_RUN']}/docker.sock", **_plugins(work)}
            found.append(Subject("docker buildx, with orlop", [docker, "buildx", "build", *words], env, before=before))
            env = {**env, "DOCKER_BUILDKIT": "0"}
            found.append(
                Subject("docker build (classic API), with orlop", [docker, "build", *words], env, before=before)
            )
    if docker:
        env = {**named["docker"].run.env, "DOCKER_BUILDKIT": "0"}
        found.append(Subject("docker build (classic)", [docker, "build", *words], env, before=before))
        env = {**named["docker"].run.env, **_plugins(work)}
        found.append(Subject("docker buildx (its BuildKit)", [docker, "buildx", "build", *words], env, before=before))
    for one in found if ahead else ():
        work.run(one.argv, one.env)
    return found


def _plugins(work: Workspace) -> dict[str, str]:
    """Return what docker's command needs to find buildx. Raises Failure."""
    program = peers.find("docker-buildx")
    if program is None:
        raise Failure("docker-buildx is missing")
    place = work.directory / "docker-config/cli-plugins"
    if not place.exists():
        place.mkdir(parents=True)
        (place / "docker-buildx").symlink_to(program)
    return {"DOCKER_CONFIG": str(place.parent), "BUILDX_NO_DEFAULT_ATTESTATIONS": "1"}


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
