"""`build.py` and Dockerfile, in pairs: the same graph, to the byte of its document (P36)."""

# ruff: noqa: E501  a table of texts

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from orlop.build import recipes
from orlop.build.dockerfile import canonical
from orlop.build.dockerfile.compile import compile as compile_graph
from orlop.build.dockerfile.options import Options
from orlop.build.dockerfile.parse import parse
from orlop.build.dockerfile.source import Source
from orlop.spec.errors import Invalid
from orlop.spec.image import ContainerConfig
from orlop.spec.platform import Platform

SOURCE = Path(__file__).parents[2] / "src"
ARGUMENTS = {"TARGETARCH": "arm64", "VERSION": "7"}
FILES = {"VERSION": "1.2.3\n", "none": None}
PAIRS = {
    "one stage": (
        "FROM debian:12\nRUN apt-get update && apt-get install -y gcc\nCMD make -j $N\n",
        "stage('debian:12').run('apt-get update && apt-get install -y gcc').cmd('make -j $N')",
    ),
    "two stages": (
        "FROM debian AS made\nWORKDIR /src\nCOPY . .\nRUN [\"make\", \"a b\"]\n"
        "FROM scratch\nCOPY --from=made --chown=1:2 --chmod=0755 /src/app /app\nENTRYPOINT [\"/app\"]\nUSER 1:2\n",
        "made = stage('debian', name='made').workdir('/src').copy('.', to='.').run(['make', 'a b'])\n"
        "end = stage('scratch').copy('/src/app', to='/app', source=made, chown='1:2', chmod='0755')\n"
        "end.entrypoint(['/app']).user('1:2')",
    ),
    "mounts": (
        "FROM a\nRUN --mount=type=cache,target=/c,id=x,sharing=locked --mount=type=bind,target=/s,source=src "
        "--mount=type=tmpfs,target=/t --mount=type=secret,id=k,env=K --mount=type=ssh --network=none make\n",
        "stage('a').run('make', network='none', mounts=[Cache('/c', id='x', sharing='locked'), "
        "Bind('/s', source='src'), Tmpfs('/t'), Secret('k', env='K'), Ssh()])",
    ),
    "texts": (
        'FROM a\nENV A=1 B="two words" C="\\$HOME" D="a\\"b\\\\c" E=\'#\' F=ü\nLABEL "a.b"="c d"\n'
        "ENV P=\"${A}:$B\"\nCOPY [\"a b\", \"c\\\\$d\", \"/e f/\"]\n",
        "one = stage('a').env(A='1', B='two words', C='$HOME', D='a\"b\\\\c', E='#', F='ü').label({'a.b': 'c d'})\n"
        "one.env(P=Expanded('${A}:$B')).copy('a b', 'c$d', to='/e f/')",
    ),
    "scripts": (
        "FROM a\nRUN <<EOF\nset -e\necho $X \\\\\n  EOF\nEOF\nCOPY <<\"EOF\" /f\nhi $X\n\nEOF\nCOPY <<EOF /g\nhi $A\nEOF\n",
        "stage('a').run('set -e\\necho $X \\\\\\\\\\n  EOF\\n').file('/f', 'hi $X\\n\\n').file('/g', Expanded('hi $A\\n'))",
    ),
    "configuration": (
        "FROM --platform=linux/arm64 a\nEXPOSE 80 53/udp\nVOLUME [\"/v\", \"/w x\"]\nSTOPSIGNAL SIGINT\n"
        "SHELL [\"/bin/bash\", \"-c\"]\nHEALTHCHECK --interval=5s --retries=2 CMD [\"/ok\"]\nONBUILD RUN true\nRUN x\n",
        "one = stage('a', platform='linux/arm64').expose(80, '53/udp').volume('/v', '/w x').stopsignal('SIGINT')\n"
        "one.shell(['/bin/bash', '-c']).healthcheck(['/ok'], interval='5s', retries=2).onbuild('RUN true').run('x')",
    ),
    "arguments": (
        "ARG BASE=a\nFROM $BASE\nARG VERSION=1\nRUN echo 7\n",
        "one = stage(arg('BASE', 'a'))\nversion = one.arg('VERSION', '1')\none.run(f'echo {version}')",
    ),
    "a loop and a condition": (
        "FROM a\nRUN make one\nRUN make two\nRUN arm\n",
        "one = stage('a')\nfor word in ('one', 'two'):\n    one.run(f'make {word}')\n"
        "if arg('TARGETARCH') == 'arm64':\n    one.run('arm')\nelse:\n    one.run('other')",
    ),
    "a file of the context": (
        "FROM a:1.2.3\nADD --checksum=sha256:" + "a" * 64 + " https://e.org/x.tar /x/\nADD --unpack=true b.tar /b\n",
        "one = stage('a:' + read('VERSION').strip())\n"
        "one.add('https://e.org/x.tar', to='/x/', checksum='sha256:' + 64 * 'a').add('b.tar', to='/b', unpack=True)",
    ),
    "stages on stages, in any order": (
        "FROM a AS base\nRUN one\nRUN two\nFROM base AS side\nRUN three\nFROM base\n"
        "RUN --mount=type=bind,target=/m,from=side four\nCOPY --link --parents --exclude=*.o --exclude=a*b /x/./y* /z/\n",
        "base = stage('a', name='base').run('one')\nside = stage(base, name='side')\nend = stage(base)\n"
        "end.run('four', mounts=[Bind('/m', tree=side)])\nbase.run('two')\nside.run('three')\n"
        "end.copy('/x/./y*', to='/z/', link=True, parents=True, exclude=['*.o', 'a*b'])",
    ),
}  # fmt: skip


def asked(tmp_path: Path, text: str, files: dict[str, str | None] = FILES) -> dict[str, Any]:
    """Execute a recipe as the engine's container does, without the container; return its answer."""
    (tmp_path / "build.py").write_text(f"# syntax=orlop/python\nfrom orlop.recipe import *\n{text}\n")
    (tmp_path / "given").write_text(json.dumps({"arguments": ARGUMENTS, "files": files}))
    run = f"import orlop.recipe; orlop.recipe.main({str(tmp_path / 'build.py')!r}, {str(tmp_path / 'given')!r})"
    words = [sys.executable, "-P", "-s", "-S", "-B", "-X", "utf8", "-c", run]
    env = {"PYTHONPATH": str(SOURCE), "PYTHONHASHSEED": "0"}
    done = subprocess.run(words, env=env, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def document(text: str) -> dict[str, object]:
    """Return the graph's document of a Dockerfile."""
    machine = Platform.parse("linux/arm64")
    options = Options(build_platform=machine, build_args={"VERSION": "7"})
    compiled = compile_graph(parse(Source("Dockerfile", text).text), options, lambda *_: ContainerConfig())
    return canonical.document(compiled.targets)


@pytest.mark.parametrize("name", PAIRS)
def test_a_recipe_and_a_dockerfile_are_the_same_graph(name: str, tmp_path: Path) -> None:
    """Red: with a `$` or a quotation mark that `_word` does not escape, "texts" differs; and so on, verb by verb."""
    dockerfile, recipe = PAIRS[name]
    lines = asked(tmp_path, recipe)["lines"]
    assert document("\n".join(line for line, _ in lines)) == document(dockerfile)


def test_the_document_says_what_differs_and_nothing_of_places() -> None:
    first = document("FROM a\nRUN b\n")
    assert first == document("# a comment\n\nFROM a\n\nRUN   b\n")
    assert first["digest"] != document("FROM a\nRUN c\n")["digest"] != document("FROM b\nRUN c\n")["digest"]


def test_lines_have_their_places_and_an_answer_is_always_the_same(tmp_path: Path) -> None:
    text = (
        "def tools(one, *names):\n    for name in names:\n        one.run(name)\n\ntools(stage('a'), *{'x', 'y', 'z'})"
    )
    first = asked(tmp_path, text)["lines"]
    assert [line for _, line in first] == [7, 5, 5, 5]
    assert all(asked(tmp_path, text)["lines"] == first for _ in range(2))


@pytest.mark.parametrize(
    ("text", "told", "line"),
    [
        ("import time", "time is not there", 3),
        ("x = 1\nimport os.path", "os.path is not there", 4),
        ("from random import random", "random is not there", 3),
        ("open('/etc/passwd')", "a recipe opens no files", 3),
        ("stage('a').run('x\\ry')", "a line break has no place", 3),
        ("stage('a').run('[\"x\"]')", "would be read as something else", 3),
        ("stage('a').env()", "ENV needs something", 3),
        ("stage(stage('a'))", "needs a name", 3),
        ("read('none')", "there is no file none", 3),
        ("f(", "was never closed", 3),
        ("def f():\n    1 / 0\nf()", "division by zero", 4),
        ("raise SystemExit(3)", "SystemExit: 3", 3),
    ],
)
def test_what_is_wrong_is_told_by_its_line(text: str, told: str, line: int, tmp_path: Path) -> None:
    answer = asked(tmp_path, text)
    assert told in answer["wrong"] and answer["line"] == line


def test_a_file_is_asked_for_and_nothing_after_it_is_done(tmp_path: Path) -> None:
    assert asked(tmp_path, "print('noise')\ntry:\n    read('x')\nexcept BaseException:\n    stage('a')", {}) == {
        "wanted": "x"
    }


def test_a_recipe_wants_no_file_twice_and_not_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Red: without the bound, a recipe that always wants another file is executed for ever."""
    source = Source("build.py", "# syntax=orlop/python")
    solver: Any = None
    for name in ("always the same", None):
        asked_for = (name or str(number) for number in range(recipes.FILES_MAX + 2))
        monkeypatch.setattr(recipes, "_executed", lambda *_, asked_for=asked_for: {"wanted": next(asked_for)})
        with pytest.raises(Invalid, match="files"):
            recipes.composed(solver, source, lambda name: b"", {})
