"""The same Dockerfiles through docker's classic builder, buildah and ours: equal trees, equal configurations.

One Dockerfile has all the cases about files, each in a directory of its own, so that one build by each builder answers
them all. A difference that is meant stands in `DIFFERENT`, with its reason.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.workspace import Workspace
from support.builds import Image, base_archive
from support.engine import Environment

Peer = Callable[[str], Path]

# name: (instructions, {d} is the case's own directory; other places to compare; which peers understand them)
DOCKER, BUILDAH, BOTH = ("docker",), ("buildah",), ("docker", "buildah")
FILES: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "file to directory": ("COPY a {d}/", (), BOTH),
    "file to name": ("COPY a {d}/name", (), BOTH),
    "file to deep name": ("COPY a {d}/x/y/z/name", (), BOTH),
    "two files": ("COPY a b {d}/", (), BOTH),
    "file by JSON": ('COPY ["a", "with space", "{d}/"]', (), BOTH),
    "directory to new directory": ("COPY dir {d}/new", (), BOTH),
    "directory to new directory with slash": ("COPY dir {d}/new/", (), BOTH),
    "directory with slash": ("COPY dir/ {d}/new/", (), BOTH),
    "directory with dot": ("COPY dir/. {d}/new/", (), BOTH),
    "directory twice": ("COPY dir {d}/new\nCOPY dir {d}/new", (), BOTH),
    "two directories": ("COPY dir other {d}/", (), BOTH),
    "file and directory": ("COPY a dir {d}/", (), BOTH),
    "nested file": ("COPY dir/sub/y {d}/", (), BOTH),
    "nested directory": ("COPY dir/sub {d}/sub", (), BOTH),
    "empty directory": ("COPY empty {d}/empty", (), BOTH),
    "star": ("COPY *.txt {d}/", (), BOTH),
    "star in the middle": ("COPY n*1.txt {d}/", (), BOTH),
    "question mark": ("COPY n?1.txt {d}/", (), BOTH),
    "class": ("COPY n[a-b]1.txt {d}/", (), BOTH),
    "star of directories": ("COPY d*r {d}/", (), BOTH),
    "star below": ("COPY dir/*/y {d}/", (), BOTH),
    "escaped star": ("COPY sta\\*r {d}/", (), DOCKER),
    "owner by number": ("COPY --chown=7:8 a {d}/", (), BOTH),
    "owner by one number": ("COPY --chown=7 a {d}/", (), BOTH),
    "owner by name": ("COPY --chown=bob a {d}/", (), BOTH),
    "owner by names": ("COPY --chown=bob:staff a {d}/", (), BOTH),
    "owner of a directory": ("COPY --chown=7:8 dir {d}/new", (), BOTH),
    "owner of made directories": ("COPY --chown=7:8 a {d}/x/y/", (), DOCKER),
    "modes": ("COPY modes {d}/modes", (), BOTH),
    "mode of one file": ("COPY modes/private {d}/", (), BOTH),
    "mode octal": ("COPY --chmod=0711 a {d}/", (), BUILDAH),
    "links in a directory": ("COPY links {d}/links", (), BOTH),
    "link to a file": ("COPY links/tofile {d}/name", (), DOCKER),
    "link to a file to directory": ("COPY links/tofile {d}/", (), DOCKER),
    "link to a directory": ("COPY links/todir {d}/new", (), DOCKER),
    "hard links": ("COPY hard {d}/hard", (), BOTH),
    "names": ("COPY names {d}/names", (), BOTH),
    "hidden files": ("COPY hidden {d}/hidden", (), BOTH),
    "holes": ("COPY holes {d}/", (), BOTH),
    "replace a file": ("COPY a {d}/name\nCOPY b {d}/name", (), BOTH),
    "through a link of the base": ("COPY a /var/run/through", ("run/through", "var/run"), BOTH),
    "over a file of the base": ("COPY a /file", ("file",), BOTH),
    "into a directory of the base": ("COPY a /old/", ("old",), BOTH),
    "directory into one of the base": ("COPY modes /older/", ("older",), BOTH),
    "relative": ("WORKDIR {d}\nCOPY a rel/\nCOPY b .\nWORKDIR /", (), BOTH),
    "working directory": ("WORKDIR {d}/w\nWORKDIR deeper\nWORKDIR /", (), BOTH),
    "working directory by variable": ("ENV W={d}/w\nWORKDIR $W/v\nWORKDIR /", (), BOTH),
    "added file": ("ADD a {d}/", (), BOTH),
    "added directory": ("ADD dir {d}/new", (), BOTH),
    "added archive": ("ADD plain.tar {d}/", (), BOTH),
    "added gzip": ("ADD packed.tar.gz {d}/", (), BOTH),
    "added xz": ("ADD packed.tar.xz {d}/", (), BOTH),
    "added bzip2": ("ADD packed.tar.bz2 {d}/", (), BOTH),
    "added what is no archive": ("ADD notar.tar {d}/", (), BOTH),
    "added gzip of a file": ("ADD single.gz {d}/", (), BOTH),
    "copied archive": ("COPY packed.tar.gz {d}/", (), BOTH),
    "archive into a new directory": ("ADD plain.tar {d}/x/y", (), BOTH),
    "variable": ("ENV N=a\nCOPY $N {d}/${{N}}-b", (), BOTH),
    "argument": ("ARG M=b\nCOPY ${{M:-a}} {d}/", (), BOTH),
    "from a stage": ("COPY --from=made /made {d}/made", (), BOTH),
    "file from a stage": ("COPY --from=made /made/owned {d}/", (), BOTH),
    "from a stage by number": ("COPY --from=0 /made/sub/deep {d}/", (), BOTH),
    "from a stage by wildcard": ("COPY --from=made /made/w* {d}/", (), BOTH),
    "from a stage with an owner": ("COPY --from=made --chown=9:9 /made {d}/made", (), BOTH),
    "from a stage through a link": ("COPY --from=made /var/run/inrun {d}/", (), BOTH),
    "from an image": ("COPY --from=base:1 /old {d}/old", (), BOTH),
    "run makes files": ("RUN mkdir -p {d}/s && echo hi > {d}/s/f && chmod 750 {d}/s && chown 5:6 {d}/s/f", (), BOTH),
    "run makes links": ("RUN mkdir -p {d} && cd {d} && echo x > f && ln f g && ln -s f l && ln -s /no n", (), BOTH),
    "run removes a file": ("COPY dir {d}/dir\nRUN rm {d}/dir/x", (), BOTH),
    "run removes a directory": ("COPY dir {d}/dir\nRUN rm -r {d}/dir/sub", (), BOTH),
    "run replaces a directory": ("COPY dir {d}/dir\nRUN rm -r {d}/dir && mkdir {d}/dir && touch {d}/dir/n", (), BOTH),
    "run changes a mode": ("COPY a {d}/a\nRUN chmod 4711 {d}/a", (), BOTH),
    "run as a user": (
        "RUN mkdir -p {d} && chmod 777 {d}\nUSER bob\nRUN id > {d}/id; echo $HOME >> {d}/id\nUSER root",
        (),
        BOTH,
    ),
    "run in exec form": ('RUN ["mkdir", "-p", "{d}/exec form"]', (), BOTH),
    "run with a variable": ("ENV V=v\nRUN mkdir -p {d} && echo $V > {d}/v", (), BOTH),
    "run with an argument": ("ARG Q=q\nRUN mkdir -p {d} && echo $Q > {d}/q", (), BOTH),
    "shell": ('SHELL ["/bin/sh", "-ec"]\nRUN mkdir -p {d}; echo $0 > {d}/f\nSHELL ["/bin/sh", "-c"]', (), BOTH),
    "umask": ("RUN mkdir -p {d} && umask 077 && touch {d}/f && mkdir {d}/g", (), BOTH),
    "fifo": ("RUN mkdir -p {d} && busybox mkfifo {d}/p || true", (), DOCKER),
}
# What is meant to differ: (case, peer): why.
_SETUID = "the classic builder and buildah change the owner last and lose the set-user-ID bit; BuildKit keeps it"
_PARENTS = "made parents belong to --chown's owner for a directory as they do for a file, as BuildKit's"
DIFFERENT: dict[tuple[str, str], str] = {
    ("docker", "owner of a directory"): _PARENTS,
    **{(peer, name): _SETUID for peer in BOTH for name in ("modes", "directory into one of the base", "from a stage")},
    **{(peer, "from a stage with an owner"): _SETUID for peer in BOTH},
}
# Every step of a peer's takes half a second: the cases of the short run need one COPY or ADD each.
WHOLE = os.environ.get("ORLOP_TEST_BUILDS") == "all"
SHORT = {name: case for name, case in FILES.items() if case[0].count("\n") == 0 and not case[0].startswith("RUN")}
SHORT |= {name: FILES[name] for name in ("run makes files", "run removes a directory", "run as a user")}
FILES = FILES if WHOLE else SHORT
BUILDAH_CASES = 20  # of the short run

CONFIGS = {
    "a label alone": "LABEL a=1",
    "env": "ENV A=1 B='two words' C=\"$A\"\nENV D four",
    "env over env": "ENV A=1\nENV A=2 B=$A\nENV C=${B:-x}${Z:+y}${Z:-z}",
    "labels": "LABEL a=1 \"b c\"='d e'\nLABEL a=2",
    "cmd": 'CMD ["a", "b"]',
    "cmd shell": "CMD echo $HOME 'x y'",
    "entrypoint": 'CMD ["x"]\nENTRYPOINT ["e"]',
    "entrypoint shell": "ENTRYPOINT exec top",
    "entrypoint then cmd": 'ENTRYPOINT ["e"]\nCMD ["c"]',
    "expose": "EXPOSE 80 443/tcp 53/udp\nEXPOSE 8000-8002",
    "volumes": 'VOLUME /a /b\nVOLUME ["/c d"]',
    "user": "USER bob:staff",
    "workdir": "WORKDIR /a\nWORKDIR b\nWORKDIR ../c",
    "stop signal": "STOPSIGNAL SIGUSR1",
    "stop signal by number": "STOPSIGNAL 9",
    "shell": 'SHELL ["/bin/busybox", "sh", "-c"]\nCMD hello',
    "health": "HEALTHCHECK --interval=5s --timeout=3s --start-period=1m --retries=2 CMD true || false",
    "health exec": 'HEALTHCHECK CMD ["true"]',
    "no health": "HEALTHCHECK NONE",
    "onbuild": "ONBUILD RUN echo hi\nONBUILD COPY . /app",
    "arguments": "ARG A=1\nENV B=$A\nARG B=3\nENV C=$B",
    "escapes": 'ENV A=a\\ b B=\\$A C=\'$A\' D="\\"q\\""',
    "continued": "ENV A=1 \\\n  # a comment\n  B=2 \\\n\n  C=3",
    "case": 'env a=1\nLaBel x=y\ncmd ["z"]',
    "cmd of the base": 'ENTRYPOINT ["new"]',
    "maintainer": "MAINTAINER somebody",
}
FIELDS = (
    "Env", "Cmd", "Entrypoint", "WorkingDir", "User", "Labels", "ExposedPorts", "Volumes", "OnBuild", "Shell",
    "StopSignal", "Healthcheck",
)  # fmt: skip
# buildah: which fields it writes otherwise, in which cases, and why.
BUILDAH_FIELDS: dict[tuple[str, str], str] = {}


def directory(name: str) -> str:
    return "cases/" + name.replace(" ", "-")


def dockerfile(peer: str) -> str:
    lines = [
        "FROM base:1 AS made",
        "COPY modes /made/modes",
        "RUN mkdir -p /made/sub && echo deep > /made/sub/deep && echo o > /made/owned && chown 3:4 /made/owned"
        " && touch /made/w1 /made/w2 && echo r > /run/inrun && chmod 1770 /made/sub",
        "FROM base:1",
    ]
    for name, (instructions, _, _) in FILES.items():
        if peer == "ours" or name in cases(peer):
            lines.append(instructions.format(d=f"/{directory(name)}"))
    return "\n".join(lines) + "\n"


def fill(place: Path) -> None:
    """Make the context."""
    for path, data in {
        "a": "file a\n", "b": "file b\n", "with space": "s", "dir/x": "x", "dir/sub/y": "y", "other/z": "z",
        "na1.txt": "1", "nb1.txt": "2", "nc1.txt": "3", "sta*r": "star", "notar.tar": "no archive\n",
        "hidden/.a": "h", "hidden/.d/b": "h", "names/\u00e4\u00f6": "u", "names/'q\"": "q", "names/a b": "s",
    }.items():  # fmt: skip
        target = place / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(data)
    (place / "empty").mkdir()
    for name, mode in {"private": 0o600, "program": 0o755, "setuid": 0o4755, "none": 0, "all": 0o777}.items():
        (place / "modes").mkdir(exist_ok=True)
        (place / "modes" / name).write_text(name)
        (place / "modes" / name).chmod(mode)
    (place / "modes/dir").mkdir(mode=0o700)
    (place / "modes").chmod(0o711)
    (place / "links").mkdir()
    for name, target in {"tofile": "../a", "todir": "../dir", "nowhere": "/none", "self": "self"}.items():
        (place / "links" / name).symlink_to(target)
    (place / "hard").mkdir()
    (place / "hard/one").write_text("one")
    os.link(place / "hard/one", place / "hard/two")
    with (place / "holes").open("wb") as file:
        file.truncate(1 << 20)
        file.seek(1 << 20)
        file.write(b"end")
    archive(place)


def archive(place: Path) -> None:
    import gzip
    import io
    import tarfile

    for name, mode in {
        "plain.tar": "w",
        "packed.tar.gz": "w:gz",
        "packed.tar.xz": "w:xz",
        "packed.tar.bz2": "w:bz2",
    }.items():
        with tarfile.open(place / name, mode) as made:
            for path, kind, data in (("t", b"5", b""), ("t/f", b"0", b"in it"), ("l", b"2", b"")):
                member = tarfile.TarInfo(path)
                member.type, member.mode, member.uid, member.gid = kind, 0o755 if kind == b"5" else 0o640, 11, 12
                member.linkname = "t/f" if kind == b"2" else ""
                member.size = len(data)
                made.addfile(member, io.BytesIO(data))
    (place / "single.gz").write_bytes(gzip.compress(b"one file", mtime=0))


# -- the builders -----------------------------------------------------------------------------------------------------


class Builder:
    """build(dockerfile, tag) and image(tag). run: how a program is started so that it reaches its daemon."""

    def __init__(self, context: Path, env: dict[str, str], run: Callable[..., object]) -> None:
        self.context = context
        self.env = env
        self._run = run

    def __call__(self, *argv: str | Path, check: bool = True) -> subprocess.CompletedProcess[bytes]:
        done = self._run(lambda: subprocess.run(argv, env=self.env, capture_output=True, timeout=300, check=False))
        assert isinstance(done, subprocess.CompletedProcess)
        assert not check or done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
        return done

    def file(self, text: str) -> Path:
        path = self.context.parent / f"Dockerfile-{len(os.listdir(self.context.parent))}"
        path.write_text(text)
        return path


class Docker(Builder):
    program = Path("docker")

    def build(self, text: str, tag: str) -> None:
        # Of the context: the classic builder's daemon reads nothing else.
        name = f"Dockerfile.{tag.replace(':', '-')}"
        (self.context / name).write_text(text)
        self(self.program, "build", "--network=none", "-f", self.context / name, "-t", tag, self.context)
        (self.context / name).unlink()

    def image(self, tag: str) -> Image:
        return Image(self(self.program, "save", tag).stdout)


class Buildah(Builder):
    program = Path("buildah")

    def build(self, text: str, tag: str) -> None:
        # --layers: without them it leaves out what only a later step sees.
        options = ["--isolation=chroot", "--network=host", "--format=docker", "--layers=false"]
        self(*self.words, "bud", *options, "-f", self.file(text), "-t", tag, self.context)

    @property
    def words(self) -> list[str | Path]:
        home = self.env["HOME"]
        return [self.program, "--root", f"{home}/bd", "--runroot", f"{home}/br", "--storage-driver=vfs"]

    def image(self, tag: str) -> Image:
        place = Path(self.env["HOME"]) / f"{tag.replace(':', '-')}.tar"
        policy = Path(self.env["HOME"]) / ".config/containers/policy.json"
        self(
            *self.words,
            "push",
            "-q",
            f"--signature-policy={policy}",
            f"localhost/{tag}",
            f"docker-archive:{place}:{tag}",
        )
        return Image(place.read_bytes())


@pytest.fixture(scope="module")
def workspace() -> Iterator[Workspace]:
    with Workspace() as work:
        yield work


@pytest.fixture(scope="module")
def context(workspace: Workspace) -> Path:
    place = workspace.path("context/c")
    fill(place)
    return place


@pytest.fixture(scope="module")
def base(workspace: Workspace, peer: Peer) -> Path:
    path = workspace.directory / "base.tar"
    base_archive(path, peer("busybox"))
    return path


@pytest.fixture(scope="module")
def docker(workspace: Workspace, context: Path, base: Path, peer: Peer) -> Docker:
    home = workspace.path("d")
    state = [f"--data-root={home / 'data'}", f"--exec-root={home / 'exec'}", f"--pidfile={home / 'pid'}"]
    no_network = ["--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false"]
    daemon = [peer("dockerd"), f"--host=unix://{home / 's'}", *state, *no_network, "--log-level=error"]
    workspace.daemon(list(map(str, daemon)), workspace.environment(), home / "s")
    env = os.environ | {"DOCKER_HOST": f"unix://{home / 's'}", "DOCKER_CONFIG": str(home), "DOCKER_BUILDKIT": "0"}
    made = Docker(context, env, lambda work: work())
    made.program = peer("docker")
    made(made.program, "import", "--change", 'CMD ["base"]', base, "base:1")
    return made


@pytest.fixture(scope="module")
def ours(workspace: Workspace, context: Path, base: Path, peer: Peer) -> Iterator[Docker]:
    environment = Environment(workspace.path("o") / "root")
    environment("import", "--change", 'CMD ["base"]', base, "base:1")
    socket = environment.run / "docker.sock"
    env = os.environ | {
        "DOCKER_HOST": f"unix://{socket}",
        "DOCKER_CONFIG": str(workspace.path("oc")),
        "DOCKER_BUILDKIT": "0",
    }
    made = Docker(context, env, environment.inside)
    made.program = peer("docker")
    yield made
    left = environment.close()
    assert not left, left


@pytest.fixture(scope="module")
def buildah(workspace: Workspace, context: Path, base: Path, peer: Peer) -> Buildah:
    made = Buildah(context, workspace.environment(), lambda work: work())
    made.program = peer("buildah")
    name = made(*made.words, "from", "scratch").stdout.decode().strip()
    made(*made.words, "add", "-q", name, base, "/")
    made(*made.words, "config", "--cmd", '["base"]', name)
    made(*made.words, "commit", "-q", name, "base:1")
    return made


@pytest.fixture(scope="module")
def trees(ours: Docker) -> Image:
    ours.build(dockerfile("ours"), "files:1")
    return ours.image("files:1")


@pytest.fixture(scope="module")
def docker_trees(docker: Docker) -> Image:
    docker.build(dockerfile("docker"), "files:1")
    return docker.image("files:1")


@pytest.fixture(scope="module")
def buildah_trees(buildah: Buildah) -> Image:
    buildah.build(dockerfile("buildah"), "files:1")
    return buildah.image("files:1")


# -- the cases --------------------------------------------------------------------------------------------------------


def part(image: Image, name: str) -> dict[str, object]:
    places = (directory(name), *FILES[name][1])
    return {
        path: what
        for path, what in image.files.items()
        if any(path == at or path.startswith(f"{at}/") for at in places)
    }


def cases(peer: str) -> list[str]:
    names = [name for name, (_, _, peers) in FILES.items() if peer in peers]
    return names if WHOLE or peer != "buildah" else names[:: max(1, len(names) // BUILDAH_CASES)]


@pytest.mark.parametrize("name", cases("docker"))
def test_files_are_those_of_the_classic_builder(name, trees, docker_trees):
    if ("docker", name) in DIFFERENT:
        assert part(trees, name) != part(docker_trees, name)
    else:
        assert part(trees, name) == part(docker_trees, name)
        assert part(trees, name), "the case made nothing"


@pytest.mark.parametrize("name", cases("buildah"))
def test_files_are_those_of_buildah(name, trees, buildah_trees):
    if ("buildah", name) in DIFFERENT:
        assert part(trees, name) != part(buildah_trees, name)
    else:
        assert part(trees, name) == part(buildah_trees, name)


@pytest.mark.parametrize("name", CONFIGS if WHOLE else list(CONFIGS)[::3])
def test_configurations_are_those_of_the_classic_builder(name, ours, docker):
    text = f"FROM base:1\n{CONFIGS[name]}\n"
    tag = f"config-{name.replace(' ', '-')}:1"
    configs = []
    for builder in (ours, docker):
        builder.build(text, tag)
        config = builder.image(tag).config
        configs.append({field: config.get(field) or None for field in FIELDS})
    assert configs[0] == configs[1]
