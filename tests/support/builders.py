"""Builders that are given the same Dockerfiles: docker's classic one, buildah, and the doors of ours."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.workspace import Workspace

from .builds import Image
from .engine import COMMAND, Environment

Peer = Callable[[str], Path]
Words = Sequence[str | Path]
BUILD_S_MAX = 900


class Builder:
    """build(dockerfile, tag) and image(tag). run: how a program is started so that it reaches its daemon.

    options: of each build, beside the builder's own: --network, --build-arg.
    """

    default_options: Words = ("--network=none",)

    def __init__(self, context: Path, env: dict[str, str], run: Callable[..., object]) -> None:
        self.context = context
        self.env = env
        self._run = run

    def __call__(self, *argv: str | Path, check: bool = True) -> subprocess.CompletedProcess[bytes]:
        done = self._run(
            lambda: subprocess.run(argv, env=self.env, capture_output=True, timeout=BUILD_S_MAX, check=False)
        )
        assert isinstance(done, subprocess.CompletedProcess)
        assert not check or done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
        return done

    def file(self, text: str) -> Path:
        path = self.context.parent / f"Dockerfile-{len(os.listdir(self.context.parent))}"
        path.write_text(text)
        return path


class Docker(Builder):
    """docker's command with the classic builder: dockerd's, or ours behind the same API."""

    program = Path("docker")

    def build(self, text: str, tag: str, *options: str | Path) -> None:
        # Of the context: the classic builder's daemon reads nothing else.
        name = f"Dockerfile.{tag.replace(':', '-')}"
        (self.context / name).write_text(text)
        try:
            words = [*(options or self.default_options), "-f", self.context / name, "-t", tag, self.context]
            self(self.program, "build", *words)
        finally:
            (self.context / name).unlink()

    def image(self, tag: str) -> Image:
        return Image(self(self.program, "save", tag).stdout)


class Buildx(Docker):
    """docker's command with the plugin buildx, which speaks BuildKit's API."""

    def build(self, text: str, tag: str, *options: str | Path) -> None:
        words = [*(options or self.default_options), "-f", self.file(text), "-t", tag, self.context]
        self(self.program, "buildx", "build", "--progress=plain", *words)


class Orlop(Builder):
    """Our own command."""

    def build(self, text: str, tag: str, *options: str | Path) -> None:
        words = [*(options or self.default_options), "-f", self.file(text), "-t", tag, self.context]
        self(COMMAND, "build", "--progress=plain", *words)

    def image(self, tag: str) -> Image:
        return Image(self(COMMAND, "save", tag).stdout)


class Buildah(Builder):
    """buildah with chroot isolation: no runtime, no daemon."""

    program = Path("buildah")
    default_options = ("--network=host",)

    def build(self, text: str, tag: str, *options: str | Path) -> None:
        # --layers: without them it leaves out what only a later step sees.
        own = ["--isolation=chroot", "--format=docker", "--layers=false"]
        words = [*(options or self.default_options), "-f", self.file(text), "-t", tag, self.context]
        self(*self.words, "bud", *own, *words)

    @property
    def words(self) -> list[str | Path]:
        home = self.env["HOME"]
        return [self.program, "--root", f"{home}/bd", "--runroot", f"{home}/br", "--storage-driver=vfs"]

    def image(self, tag: str) -> Image:
        place = Path(self.env["HOME"]) / f"{tag.replace(':', '-')}.tar"
        policy = f"--signature-policy={Path(self.env['HOME']) / '.config/containers/policy.json'}"
        self(*self.words, "push", "-q", policy, f"localhost/{tag}", f"docker-archive:{place}:{tag}")
        found = Image(place.read_bytes())
        place.unlink()
        return found


def classic(workspace: Workspace, context: Path, base: Path, peer: Peer) -> Docker:
    """Return a dockerd of its own, which ends with the workspace; it has `base` as base:1."""
    daemon = workspace.dockerd("d", program=peer("dockerd"))
    made = Docker(context, os.environ | daemon.env | {"DOCKER_BUILDKIT": "0"}, lambda work: work())
    made.program = peer("docker")
    made(made.program, "import", "--change", 'CMD ["base"]', base, "base:1")
    return made


def engine(workspace: Workspace, base: Path) -> Environment:
    """Return an engine of ours that has `base` as base:1; the caller closes it."""
    environment = Environment(workspace.path("o") / "root")
    environment("import", "--change", 'CMD ["base"]', base, "base:1")
    return environment


def doors(workspace: Workspace, environment: Environment, context: Path, peer: Peer) -> tuple[Orlop, Docker, Buildx]:
    """Return the ways to build with an engine of ours: our command, docker's classic one, buildx."""
    home = workspace.path("oc")
    (home / "cli-plugins").mkdir()
    (home / "cli-plugins/docker-buildx").symlink_to(peer("docker-buildx"))
    own = {"DOCKER_HOST": f"unix://{environment.run / 'docker.sock'}", "DOCKER_CONFIG": str(home)}
    plain = {name: value for name, value in os.environ.items() if name != "BUILDX_BUILDER"} | own
    docker = Docker(context, plain | {"DOCKER_BUILDKIT": "0"}, environment.inside)
    buildx = Buildx(context, plain | {"BUILDX_NO_DEFAULT_ATTESTATIONS": "1"}, environment.inside)
    docker.program = buildx.program = peer("docker")
    return Orlop(context, dict(environment.variables), environment.inside), docker, buildx


def buildah(workspace: Workspace, context: Path, base: Path, peer: Peer) -> Buildah:
    """Return a buildah with a store of its own that has `base` as base:1."""
    made = Buildah(context, workspace.environment(), lambda work: work())
    made.program = peer("buildah")
    name = made(*made.words, "from", "scratch").stdout.decode().strip()
    made(*made.words, "add", "-q", name, base, "/")
    made(*made.words, "config", "--cmd", '["base"]', name)
    made(*made.words, "commit", "-q", name, "base:1")
    made(*made.words, "rm", name)
    return made
