"""The Dockerfile language as docker's classic builder and buildah understand it: words, refusals, what is ignored.

All words of a kind are in one instruction of one image, all files that .dockerignore may leave out in one context, so
that one build by each builder answers them all. Ours is compiled in this process: no engine is needed.
"""

from __future__ import annotations

import http.client
import io
import json
import os
import socket
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from bench.workspace import Workspace
from orlop.build.dockerfile.compile import compile
from orlop.build.dockerfile.options import Options
from orlop.build.dockerfile.parse import parse
from orlop.build.ignore import Matcher, parse_lines
from orlop.spec.errors import OrlopError
from orlop.spec.image import ContainerConfig
from orlop.spec.platform import Platform

Peer = Callable[[str], Path]

GIVEN = "ENV SET=set EMPTY= TWO='two words' PATHLIKE=/a/b/c.tar.gz DOLLAR='a$b' QUOTE='a\"b'"
WORDS = [
    "plain", "$SET", "${SET}", "$SET-x", "${SET}x", "a$SET", "$UNSET", "${UNSET}", "a${UNSET}b", "$SETx", "\\$SET",
    "\\${SET}", "'$SET'", '"$SET"', '"a ${SET} b"', "'a b'", '"a b"', "a\\ b", "a\\\\b", '"a\\\\b"', "'a\\\\b'",
    '"a\\"b"', "a\\\"b", "a'b'c", 'a"b"c', "'a'\"b\"c", "''", '""', "$TWO", '"$TWO"', "$EMPTY", "$DOLLAR", "$QUOTE",
    "${SET:-x}", "${UNSET:-x}", "${EMPTY:-x}", "${SET:+x}", "${UNSET:+x}", "${EMPTY:+x}", "${UNSET:-$SET}",
    "${UNSET:-${SET}}", "${UNSET:-a$SET-b}", "${UNSET:-'a b'}", '"${UNSET:-a b}"', "${SET:+$TWO}", "${UNSET:-}",
    "${SET:+}", "${UNSET:-\\}}", "${SET:-${UNSET:-x}}", "a=b", "a=$SET=b", "$", "a$", "$-", "$$", "$$SET", "$1", "$1x",
    "$@", "$?x", "$*", "a,b;c", "[a]", "{a}", "*", "?", "~", "a#b", "#a", "!a", "%a", "a:b", "a/b", "a|b", "(a)", "a&b",
    "<a>", "`a`", "\\n", "\"\\n\"", "a\\", "$(echo)", "${SET}${SET}", "$SET$SET", "${SET}:$EMPTY:${TWO}", "\u00e4",
    "$\u00e4", "${_X:-u}", "$_X", "a\\'b", "\\a", "\"\\a\"", "\"'a'\"", "'\"a\"'", "\"$\"", "'$'", "\"\\$SET\"",
]  # fmt: skip
# BuildKit's newer forms, which Debian's docker does not know.
NEWER = (
    "${PATHLIKE#*/}",
    "${PATHLIKE##*/}",
    "${PATHLIKE%.*}",
    "${PATHLIKE%%.*}",
    "${PATHLIKE/a/x}",
    "${PATHLIKE//a/x}",
)

BROKEN = {
    "unknown instruction": "FROM scratch\nFOO bar",
    "no from": "RUN x",
    "from alone": "FROM",
    "from with too much": "FROM a b",
    "stage name": "FROM scratch AS 1a",
    "unknown flag": "FROM scratch\nCOPY --foo=x a b",
    "flag of another": "FROM scratch\nENV --chown=x a=b",
    "flag without value": "FROM scratch\nCOPY --chown a b",
    "flag twice": "FROM scratch\nCOPY --chown=a --chown=b a b",
    "copy one": "FROM scratch\nCOPY a",
    "add one": "FROM scratch\nADD a",
    "env alone": "FROM scratch\nENV",
    "env without value": "FROM scratch\nENV a",
    "env half": "FROM scratch\nENV a=b c",
    "env blank": "FROM scratch\nENV =b",
    "label half": "FROM scratch\nLABEL a=b c",
    "label alone": "FROM scratch\nLABEL",
    "user alone": "FROM scratch\nUSER",
    "workdir alone": "FROM scratch\nWORKDIR",
    "volume alone": "FROM scratch\nVOLUME",
    "volume empty": 'FROM scratch\nVOLUME [""]',
    "expose alone": "FROM scratch\nEXPOSE",
    "expose letters": "FROM scratch\nEXPOSE a",
    "expose protocol": "FROM scratch\nEXPOSE 80/foo",
    "expose backwards": "FROM scratch\nEXPOSE 9-8",
    "arg alone": "FROM scratch\nARG",
    "arg blank": "FROM scratch\nARG =x",
    "shell words": "FROM scratch\nSHELL a b",
    "shell empty": "FROM scratch\nSHELL []",
    "json numbers": "FROM scratch\nCMD [1]",
    "stop signal": "FROM scratch\nSTOPSIGNAL FOO",
    "health alone": "FROM scratch\nHEALTHCHECK",
    "health kind": "FROM scratch\nHEALTHCHECK curl",
    "health none with more": "FROM scratch\nHEALTHCHECK NONE x",
    "health without command": "FROM scratch\nHEALTHCHECK CMD",
    "health interval": "FROM scratch\nHEALTHCHECK --interval=1us CMD x",
    "health unit": "FROM scratch\nHEALTHCHECK --interval=5 CMD x",
    "health retries": "FROM scratch\nHEALTHCHECK --retries=-1 CMD x",
    "onbuild alone": "FROM scratch\nONBUILD",
    "onbuild onbuild": "FROM scratch\nONBUILD ONBUILD RUN x",
    "onbuild from": "FROM scratch\nONBUILD FROM x",
    "onbuild maintainer": "FROM scratch\nONBUILD MAINTAINER x",
    "brace": "FROM scratch\nENV a=${b",
    "modifier": "FROM scratch\nENV a=${b^x}",
    "substitution": "FROM scratch\nENV a=${}",
    "single quote": "FROM scratch\nENV a='b",
    "double quote": 'FROM scratch\nENV a="b',
    "escape directive": "# escape=x\nFROM scratch",
    "escape twice": "# escape=`\n# escape=`\nFROM scratch",
    "stage index": "FROM scratch\nCOPY --from=7 a b",
    "copy of a url": "FROM scratch\nCOPY http://x/y z",
}
# What both refuse, in other words: why.
_OLDER = "BuildKit's words, which are newer than those of Debian's docker"
OTHER_WORDS = dict.fromkeys(
    ("health retries", "brace", "modifier", "stage index", "unknown flag", "flag of another"), _OLDER
)
# What buildah makes of it differently: why.
BUILDAH_OTHERS = dict.fromkeys(("$$", "$$SET", "$-", "$*", "$?x", "$@"), "its lexer knows no special parameters")
# The classic command line does not look into an excluded directory for an exception with a leading "**", BuildKit does.
PRUNED = "exception of all"
# Each build costs the daemon half a second.
WHOLE = os.environ.get("ORLOP_TEST_BUILDS") == "all"

IGNORED = {
    "name": "a", "slash": "/a", "trailing": "a/", "star": "*.md", "star below": "*/*.md", "two stars": "**/*.md",
    "all below": "d/**", "between": "d/**/z", "glued": "d**", "glued between": "d**z", "question": "?",
    "class": "[ab]", "inverted class": "[^ab]", "range": "[a-b]x", "escaped": "\\*", "dots": "./d/../a",
    "exception": "d\n!d/e", "exception below": "*\n!d/e/f", "exception of all": "*\n!**/z", "order": "!a\na",
    "comment": "# a\n  a  \n\n", "back again": "d\n!d/e\nd/e/f", "hidden": ".*", "deep name": "**/a", "dot": ".",
    "plain of exception": "d/*\n!d/e",
}  # fmt: skip
BROKEN = BROKEN if WHOLE else {name: BROKEN[name] for name in list(BROKEN)[::3]}
IGNORED = IGNORED if WHOLE else {name: IGNORED[name] for name in (*list(IGNORED)[::4], PRUNED)}
TREE = (
    "a b c ax bx * .h x.md d/a d/x.md d/e/f d/e/z d/e/g/z d/z dz d/ez dd/x z d/.h/y '!a' [ab] d/*/y e/a e/d/z".split()
)
HOST = Platform.of_machine(os.uname().machine)


def ours(text: str) -> ContainerConfig:
    compiled = compile(parse(text), Options(build_platform=HOST), lambda reference, platform: ContainerConfig())
    return compiled.targets[0].config


def env_of(config: Mapping[str, object] | ContainerConfig) -> dict[str, str]:
    entries = config.env if isinstance(config, ContainerConfig) else config["Env"]
    return dict(str(entry).partition("=")[::2] for entry in entries)  # type: ignore[attr-defined]


def words(kind: str) -> str:
    pairs = " \\\n  ".join(f"W{at}={word}" for at, word in enumerate(WORDS) if not word.endswith("\\"))
    return f"FROM scratch\n{GIVEN}\n{kind} {pairs} END=end\n"


class Docker:
    """A daemon of its own, and docker's command line with the classic builder."""

    def __init__(self, program: Path, env: dict[str, str]) -> None:
        self._program = program
        self._env = env

    def __call__(self, *argv: str | Path, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [self._program, *argv], env=self._env, input=data, capture_output=True, timeout=300, check=False
        )

    def ask(self, dockerfile: str) -> str:
        """Return why the daemon refuses a Dockerfile, asked directly: its command line takes ten times as long."""
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as made:
            member = tarfile.TarInfo("Dockerfile")
            member.size = len(dockerfile.encode())
            made.addfile(member, io.BytesIO(dockerfile.encode()))
        connection = http.client.HTTPConnection("docker")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(120)
        connection.sock.connect(self._env["DOCKER_HOST"].removeprefix("unix://"))
        connection.request("POST", "/build?networkmode=none", archive.getvalue(), {"Content-Type": "application/x-tar"})
        answer = connection.getresponse().read().decode()
        connection.close()
        messages = [json.loads(line) for line in answer.splitlines() if line]
        return "".join(str(message.get("error", message.get("message", ""))) for message in messages)

    def build(self, context: Path) -> tuple[str, str]:
        """Return the image's ID and what was said; the ID is "" when it was refused."""
        done = self("build", "--network=none", "-q", context)
        return done.stdout.decode().strip(), done.stderr.decode()


@pytest.fixture(scope="module")
def workspace() -> Iterator[Workspace]:
    with Workspace() as work:
        yield work


@pytest.fixture(scope="module")
def docker(workspace: Workspace, peer: Peer) -> Docker:
    daemon = workspace.dockerd("d", program=peer("dockerd"))
    return Docker(peer("docker"), os.environ | daemon.env | {"DOCKER_BUILDKIT": "0"})


@pytest.fixture(scope="module")
def docker_words(docker: Docker, workspace: Workspace) -> dict[str, dict[str, str]]:
    """What the classic builder makes of the words, as values of ENV and of LABEL."""
    found = {}
    for kind, field in (("ENV", "Env"), ("LABEL", "Labels")):
        context = workspace.path(f"words/{kind}/c")
        (context / "Dockerfile").write_text(words(kind))
        image, said = docker.build(context)
        assert image, said
        config = json.loads(docker("image", "inspect", image).stdout)[0]["Config"]
        found[kind] = env_of(config) if field == "Env" else config[field]
    return found


@pytest.mark.parametrize("kind", ["ENV", "LABEL"])
@pytest.mark.parametrize("word", [word for word in WORDS if not word.endswith("\\")])
def test_words_are_those_of_the_classic_builder(word, kind, docker_words):
    config = ours(words(kind))
    name = f"W{WORDS.index(word)}"
    found = env_of(config) if kind == "ENV" else config.labels
    assert found[name] == docker_words[kind][name]


@pytest.fixture(scope="module")
def docker_refusals(docker: Docker) -> dict[str, str]:
    return {name: docker.ask(text) for name, text in BROKEN.items()}


@pytest.mark.parametrize("name", BROKEN)
def test_refusals_are_those_of_the_classic_builder(name, docker_refusals):
    said = docker_refusals[name].lower()
    assert said, "docker takes it"
    with pytest.raises(OrlopError) as caught:
        ours(BROKEN[name])
    cause = caught.value.cause.lower().partition(" (did you mean")[0]
    assert (cause.rstrip(".") in said) == (name not in OTHER_WORDS), (caught.value.cause, said)


@pytest.fixture(scope="module")
def docker_contexts(docker: Docker, workspace: Workspace, peer: Peer) -> dict[str, set[str]]:
    """Return what the builder sees of a context under each .dockerignore: its command line does the choosing."""
    context = workspace.path("ignored/c")
    for name in TREE:
        (context / name).parent.mkdir(parents=True, exist_ok=True)
        (context / name).write_text("")
    (context / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    found = {}
    for name, patterns in IGNORED.items():
        (context / ".dockerignore").write_text(patterns)
        image, said = docker.build(context)
        if not image:
            assert "no source files" in said or "COPY failed" in said or "empty" in said, said
            found[name] = set()
            continue
        found[name] = _files(docker("save", image).stdout)
    return found


def _files(saved: bytes) -> set[str]:
    with tarfile.open(fileobj=io.BytesIO(saved)) as archive:
        (layer,) = [member for member in archive if member.name.endswith(("layer.tar", ".tar")) and member.isfile()]
        data = archive.extractfile(layer)
        assert data is not None
        with tarfile.open(fileobj=io.BytesIO(data.read())) as files:
            return {member.name.strip("/") for member in files if member.isfile()}


@pytest.mark.parametrize("name", IGNORED)
def test_what_is_ignored_is_what_docker_ignores(name, docker_contexts):
    matcher = Matcher(parse_lines(IGNORED[name]))
    kept = {path for path in TREE if not matcher.excludes(path)}
    if name == PRUNED:
        assert docker_contexts[name] - {"Dockerfile", ".dockerignore"} < kept
    else:
        assert kept == docker_contexts[name] - {"Dockerfile", ".dockerignore"}


def test_buildah_s_words(workspace, peer):
    """buildah has docker's lexer too; one build of all words that both understand."""
    home = workspace.path("b")
    (home / "Dockerfile").write_text(words("ENV"))
    program = [str(peer("buildah")), "--root", f"{home}/d", "--runroot", f"{home}/r", "--storage-driver=vfs"]
    build = [*program, "bud", "-q", "--isolation=chroot", "--format=docker", "-t", "words:1", str(home)]
    env = workspace.environment()
    done = subprocess.run(build, env=env, capture_output=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    shown = subprocess.run(
        [*program, "inspect", "--type=image", "words:1"], env=env, capture_output=True, timeout=300, check=True
    )
    theirs = env_of(json.loads(shown.stdout)["Docker"]["config"])
    mine = env_of(ours(words("ENV")))
    different = {word for at, word in enumerate(WORDS) if mine.get(f"W{at}") != theirs.get(f"W{at}")}
    assert different == set(BUILDAH_OTHERS)
