"""The same Dockerfiles through docker's classic builder, BuildKit, buildah and the doors of ours: equal images.

One Dockerfile has all the cases about files, each in a directory of its own, so that one build by each builder answers
them all. A difference that is meant stands in `DIFFERENT`, with its reason. BuildKit is the one in Debian's dockerd;
what is newer has its tree written down: test_build_newer.py.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.workspace import Workspace
from support import builders
from support.builders import Buildah, Buildx, Docker, Orlop, Peer
from support.builds import Image, base_archive
from support.engine import Environment

Doors = tuple[Orlop, Docker, Buildx]

# name: (instructions, {d} is the case's own directory; other places to compare; which of docker and buildah understand)
# (BuildKit understands all).
DOCKER, BUILDAH, BOTH, NEITHER = ("docker",), ("buildah",), ("docker", "buildah"), ()
_MADE = "--mount=type=bind,from=made"
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
    "owner by a group alone": ("COPY --chown=:8 a {d}/", (), NEITHER),
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
    "wildcard that fits nothing": ("COPY a no* {d}/", (), DOCKER),
    "wildcards that fit nothing": ("COPY a {d}/\nCOPY no* nor[et]* {d}/x/\nCOPY --from=made /none* {d}/y", (), NEITHER),
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
    "mode octal of a directory": ("COPY --chmod=0750 dir {d}/new", (), NEITHER),
    "mounted context": ("RUN --mount=target=/m mkdir -p {d}; cp -r /m/dir {d}/; ! touch /m/x", (), NEITHER),
    "mounted file": ("RUN --mount=source=a,target=/m/a mkdir -p {d} && cp /m/a {d}/a", (), NEITHER),
    "mounted directory": ("RUN --mount=source=dir/sub,target=/m mkdir -p {d} && ls /m > {d}/l", (), NEITHER),
    "mounted for writing": (
        "RUN --mount=target=/m,rw mkdir -p {d}; echo new > /m/a; cp /m/a {d}/\n"
        "RUN --mount=target=/m,readwrite=true cp /m/a {d}/after",
        (),
        NEITHER,
    ),
    "mounted stage": (f"RUN {_MADE},source=/made,target=/m mkdir -p {{d}}; cp -r /m {{d}}/m", (), NEITHER),
    "mounted stage through a link": (
        f"RUN {_MADE},source=/var/run,target=/m mkdir -p {{d}}; cp -r /m {{d}}/m",
        (),
        NEITHER,
    ),
    "mounted image": ("RUN --mount=from=base:1,source=/old,target=/m mkdir -p {d}; cp /m/* {d}/", (), NEITHER),
    "mounted below the working directory": (
        "WORKDIR {d}\nRUN --mount=type=tmpfs,target=rel touch rel/f; ls -A rel > l\nWORKDIR /",
        (),
        NEITHER,
    ),
    "cache": (
        "RUN --mount=type=cache,target=/c,id=k mkdir -p {d}; echo x > /c/x; ls /c > {d}/one\n"
        "RUN --mount=type=cache,id=k,target=/e ls /e > {d}/two\n"
        "RUN --mount=type=cache,id=k,target=/e,ro ! touch /e/y; ls /e > {d}/three\n"
        "RUN --mount=type=cache,id=other,target=/e ls -A /e > {d}/four",
        (),
        NEITHER,
    ),
    "cache named by its place": (
        "RUN --mount=type=cache,target=/c mkdir -p {d}; echo x > /c/x\nRUN --mount=type=cache,target=/c ls /c > {d}/l",
        (),
        NEITHER,
    ),
    "cache with an owner": (
        "RUN --mount=type=cache,target=/c,id=owned,mode=0711,uid=5,gid=6 mkdir -p {d}; stat -c '%a %u %g' /c > {d}/s",
        (),
        NEITHER,
    ),
    "cache of two owners": (
        "RUN --mount=type=cache,target=/c,id=two touch /c/x\n"
        "RUN --mount=type=cache,target=/c,id=two,uid=5 mkdir -p {d}; ls -A /c > {d}/l; stat -c '%a %u %g' /c >> {d}/l",
        (),
        NEITHER,
    ),
    "cache that begins as a stage's": (
        "RUN --mount=type=cache,target=/c,id=begun,from=made,source=/made mkdir -p {d}; ls -ln /c/sub/deep > {d}/l",
        (),
        NEITHER,
    ),
    "caches by turns and alone": (
        "RUN --mount=type=cache,target=/c,id=l,sharing=locked --mount=type=cache,target=/p,sharing=private"
        " mkdir -p {d}; touch /c/f /p/f; ls /c /p > {d}/l",
        (),
        NEITHER,
    ),
    "memory": ("RUN --mount=type=tmpfs,target={d}/t mkdir {d}/t/x; ls {d}/t > {d}/l", (), NEITHER),
    "memory over files": (
        "COPY dir {d}/dir\nRUN --mount=type=tmpfs,target={d}/dir ls -A {d}/dir > {d}/l; touch {d}/dir/no",
        (),
        NEITHER,
    ),
    "a secret that nobody has": (
        "RUN --mount=type=secret,id=none --mount=type=ssh mkdir -p {d}; ls -A /run/secrets > {d}/l 2>&1; true",
        (),
        NEITHER,
    ),
    "argument of a stage": ("ARG S=one\nRUN --mount=type=tmpfs,target=/t mkdir -p {d}; echo $S > {d}/s", (), NEITHER),
    "fifo": ("RUN mkdir -p {d} && busybox mkfifo {d}/p || true", (), DOCKER),
}
# What is meant to differ: (case, peer): why.
_SETUID = "the classic builder and buildah change the owner last and lose the set-user-ID bit; BuildKit keeps it"
_PARENTS = "made parents belong to --chown's owner for a directory as they do for a file, as BuildKit's"
_STUBS = "this BuildKit leaves the directories that it made to mount on; newer ones take them away again"
_MODE = "directories that are made have an octal mode, too, from docker 28.1 on; 0755 in older ones and in buildah"
DIFFERENT: dict[tuple[str, str], str] = {
    **{(peer, "mode octal"): _MODE for peer in ("buildkit", "buildah")},
    ("buildkit", "mode octal of a directory"): _MODE,
    ("buildkit", "mounted below the working directory"): _STUBS,
    ("buildkit", "memory"): _STUBS,
    ("buildkit", "run as a user"): "a user has its groups of /etc/group, as with newer BuildKit and everywhere else",
    ("docker", "owner of a directory"): _PARENTS,
    **{(peer, name): _SETUID for peer in BOTH for name in ("modes", "directory into one of the base", "from a stage")},
    **{(peer, "from a stage with an owner"): _SETUID for peer in BOTH},
}
# Every step of a peer's takes half a second: the cases of the short run need one COPY or ADD each.
WHOLE = os.environ.get("ORLOP_TEST_BUILDS") == "all"
SHORT = {name: case for name, case in FILES.items() if case[0].count("\n") == 0 and not case[0].startswith("RUN")}
SHORT = {name: case for name, case in SHORT.items() if "RUN" not in case[0]}
SHORT |= {name: FILES[name] for name in ("run makes files", "run removes a directory", "run as a user")}
SHORT |= {name: FILES[name] for name in ("mounted context", "mounted stage", "cache of two owners", "memory")}
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
# In BuildKit a later ARG wins over an ENV; docker's reference and the classic builder say the ENV.
DIFFERENT_CONFIGS = {("buildkit", "arguments")}
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
        if peer in ("ours", "buildkit") or name in cases(peer):
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
    return builders.classic(workspace, context, base, peer)


@pytest.fixture(scope="module")
def buildkit(docker: Docker, peer: Peer) -> Buildx:
    """The BuildKit that is in dockerd, through buildx."""
    plugins = Path(docker.env["DOCKER_CONFIG"]) / "cli-plugins"
    plugins.mkdir()
    (plugins / "docker-buildx").symlink_to(peer("docker-buildx"))
    made = Buildx(docker.context, docker.env | {"BUILDX_NO_DEFAULT_ATTESTATIONS": "1"}, lambda work: work())
    made.program = docker.program
    return made


@pytest.fixture(scope="module")
def engine(workspace: Workspace, base: Path) -> Iterator[Environment]:
    environment = builders.engine(workspace, base)
    yield environment
    left = environment.close()
    assert not left, left


@pytest.fixture(scope="module")
def doors(workspace: Workspace, engine: Environment, context: Path, peer: Peer) -> Doors:
    return builders.doors(workspace, engine, context, peer)


@pytest.fixture(scope="module")
def ours(doors: Doors) -> Docker:
    return doors[1]


@pytest.fixture(scope="module")
def buildah(workspace: Workspace, context: Path, base: Path, peer: Peer) -> Buildah:
    return builders.buildah(workspace, context, base, peer)


@pytest.fixture(scope="module")
def trees(ours: Docker) -> Image:
    ours.build(dockerfile("ours"), "files:1")
    return ours.image("files:1")


@pytest.fixture(scope="module")
def docker_trees(docker: Docker) -> Image:
    docker.build(dockerfile("docker"), "files:1")
    return docker.image("files:1")


@pytest.fixture(scope="module")
def buildkit_trees(buildkit: Buildx) -> Image:
    buildkit.build(dockerfile("buildkit"), "files:2")
    return buildkit.image("files:2")


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


def test_all_doors_of_ours_make_the_same_image(doors, trees):
    for number, door in enumerate((doors[0], doors[2])):
        # Nothing is taken from what another door has made.
        door.build(dockerfile("ours"), f"door:{number}", *door.default_options, "--no-cache")
        found = door.image(f"door:{number}")
        assert found.files == trees.files
        assert found.document == trees.document
        for name in FILES:
            assert part(found, name) == part(trees, name), name


@pytest.mark.parametrize("name", FILES)
def test_files_are_those_of_buildkit(name, trees, buildkit_trees):
    if ("buildkit", name) in DIFFERENT:
        assert part(trees, name) != part(buildkit_trees, name)
    else:
        assert part(trees, name) == part(buildkit_trees, name)


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
def test_configurations_are_those_of_docker(name, doors, docker, buildkit):
    text = f"FROM base:1\n{CONFIGS[name]}\n"
    tag = f"config-{name.replace(' ', '-')}:1"
    configs = []
    for builder in (*doors, docker, buildkit) if WHOLE else (doors[2], docker):
        if builder is not buildkit or ("buildkit", name) not in DIFFERENT_CONFIGS:
            builder.build(text, tag)
            config = builder.image(tag).config
            configs.append({field: config.get(field) or None for field in FIELDS})
    assert all(one == configs[0] for one in configs), configs
