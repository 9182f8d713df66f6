"""Bake files as docker buildx reads them: the same files through `buildx bake --print` and ours, the same output."""

# ruff: noqa: E501  a table of expressions

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from orlop.build.bake.document import Document
from orlop.build.bake.targets import plan
from orlop.spec.errors import OrlopError
from support.engine import Environment

WHOLE = """
variable "TAG" { default = "latest" }
variable "DEBUG" { default = false }
variable "JOBS" { default = 2 }
variable "NOTHING" {}
variable "FULL" { default = "${REPO}:${TAG}" }
REPO = "example.org/app"
function "tag" {
  params = [name]
  variadic_params = more
  result = [for t in concat([TAG], more) : "${REPO}/${name}:${t}"]
}
target "_common" {
  args = { JOBS = JOBS, DEBUG = DEBUG ? "1" : null, EMPTY = "", N = NOTHING }
  platforms = ["linux/amd64"]
  cache-from = ["type=registry,ref=x"]
  secret = ["id=a,env=B"]
}
group "default" { targets = ["app", "tools"] }
group "tools" { targets = ["lint"] }
target "app" {
  inherits = ["_common"]
  dockerfile = "app.Dockerfile"
  tags = tag("app", "stable")
  args = { JOBS = "9" }
  cache-from = ["type=gha"]
  cache-to = ["type=inline"]
  secret = ["id=c,env=D"]
  target = "final"
}
target "lint" {
  context = "tools"
  contexts = { app = "target:app", base = "docker-image://debian" }
  dockerfile-inline = <<-EOT
    FROM scratch
      LABEL a=${TAG}
  EOT
  tags = [FULL]
  output = ["type=cacheonly"]
  no-cache = true
  pull = false
  no-cache-filter = ["x"]
  labels = { d = target.app.dockerfile, e = TAG == "latest" ? "yes" : "no" }
}
target "m" {
  name = "m-${item.n}-${replace(v, ".", "_")}"
  matrix = { item = [{ n = "a" }, { n = "b" }], v = ["1.0", "2"] }
  args = { V = v }
  inherits = [item.n == "a" ? "_common" : "app"]
}
"""
JSON = """{"variable": {"T": {"default": "1"}}, "group": {"default": {"targets": ["a", "b"]}},
"target": {"a": {"tags": ["x:${T}"], "args": {"K": "${upper(T)}"}, "pull": true},
"b": {"inherits": ["a"], "args": {"L": "$${T}"}, "platforms": ["linux/arm64", "linux/amd64"]}}}"""
LATER = 'variable "TAG" { default = "later" }\ntarget "app" {\n tags = ["own"]\n dockerfile = "later"\n args = { NEW = "1" }\n}\n'

NAMED_DEFAULT = """
target "default" {
  context = BAKE_CMD_CONTEXT
  tags = ["a", "b", "a"]
  platforms = ["linux/amd64", "linux/amd64"]
}
target "_base" {
  attest = ["type=provenance,mode=min", "type=sbom"]
}
target "x" {
  context = ""
  inherits = ["_base"]
  attest = ["type=provenance,mode=max"]
}
"""
JSON_LISTS = '{"target": [{"a": {"args": {"A": "1"}}}, {"b": [{"tags": ["t"]}, {"context": "x"}]}]}'

# name: (files, words of the command line, environment)
EMPTY = """
variable "V" { default = "" }
target "a" {
  tags = ["x", "", V != "" ? "x:${V}" : "", "x"]
  output = ["${V}"]
  cache-to = ["type=inline", "", "type=inline"]
  cache-from = ["", "y"]
  platforms = [V]
  secret = [""]
  no-cache-filter = ["", "s", "s"]
  contexts = { c = V, d = "docker-image://d" }
  annotations = ["", "a=b"]
}
target "b" {
  inherits = ["a"]
  tags = [""]
  attest = ["type=sbom"]
}
"""
CASES: dict[str, tuple[tuple[str, ...], tuple[str, ...], dict[str, str]]] = {
    "default": ((WHOLE,), (), {}),
    # Red: with Python's own JSON, which neither escapes what HTML is made of nor leaves letters alone.
    "letters": (('target "default" {\n  labels = { a = "<é> & \\u2028 \\"x\\" \\\\ \\t" }\n}\n',), (), {}),
    "what is empty": ((EMPTY,), ("a", "b"), {}),  # red: where lists keep what is empty, or what comes twice
    "one target": ((WHOLE,), ("app",), {}),
    "a group": ((WHOLE,), ("tools",), {}),
    "a target and a group": ((WHOLE,), ("tools", "m"), {}),
    "a matrix": ((WHOLE,), ("m",), {}),
    "one of a matrix": ((WHOLE,), ("m-a-1_0",), {}),
    "environment": ((WHOLE,), (), {"TAG": "v1", "DEBUG": "true", "JOBS": "8", "NOTHING": "x"}),
    "set": ((WHOLE,), ("app", "--set", "app.args.X=1", "--set", "*.platform=linux/arm64"), {}),
    "set lists": ((WHOLE,), ("app", "--set", "app.tags=a", "--set", "app.tags=b", "--set", "app.target=t"), {}),
    "set switches": ((WHOLE,), ("app", "--set", "app.no-cache=true", "--set", "app.context=/x"), {}),
    "json": ((JSON,), (), {}),
    "json with environment": ((JSON,), ("b",), {"T": "abc"}),
    "two files": ((WHOLE, LATER), (), {}),
    "a target called default": ((NAMED_DEFAULT,), (), {}),
    "and another one": ((NAMED_DEFAULT,), ("default", "x"), {}),
    "set from the environment": (
        (NAMED_DEFAULT,),
        ("x", "--set", "x.args.GIVEN", "--set", "x.args.NOT"),
        {"GIVEN": "1"},
    ),
    "set attestations": ((NAMED_DEFAULT,), ("x", "--set", "x.attest=type=sbom,disabled=false"), {}),
    "blocks in lists of json": ((JSON_LISTS,), ("a", "b"), {}),
}
EXPRESSIONS = [
    "1 + 2 * 3", "7 / 2", "7 % 3", "-(1 + 1)", "1 < 2 && 2 <= 2 || false", "!true", "1 == 1.0", '"1" == 1', "null == null",
    'true ? "a" : "b"', '"x${1}y${true}"', '"$${a} %%{b}"', '"\\n\\t\\"\\u00e9"', '"%{ if true }yes%{ else }no%{ endif }"',
    '"%{ for i in [1, 2] }<${i}>%{ endfor }"', '"a ${~ "b" ~} c"', "[1, 2,]", '{a = 1, "b" = 2, ("c") = 3}', "[1, 2][1]",
    '{a = {b = [5]}}.a.b[0]', "[for i in [1, 2, 3] : i * 2 if i > 1]", "[for k, v in {a = 1} : k]",
    "{for i in [1, 2] : i => i + 1}", '{for i in [1, 2, 3] : (i > 1 ? "big" : "small") => i...}',
    "[{a = 1}, {a = 2}][*].a", "max([1, 5, 2]...)", "min(1, 2)", 'upper("a")', 'lower("A")', 'title("a b")',
    'format("%s-%05d-%q-%%-%t", "a", 7, "x", true)', 'format("%v %5.2f", 1, 2.5)', 'formatlist("v%s", ["a", "b"])',
    'join(",", ["a", "b"])', 'split(",", "a,b")', 'replace("a.b", ".", "-")', 'regex_replace("v1.2", "v([0-9]+).*", "$1")',
    'regex("[a-z]+([0-9]+)", "ab12")', 'regex("(?P<x>a)", "ab")', 'regexall("[0-9]", "1a2")', 'substr("hello", 1, 3)',
    'substr("hello", -3, -1)', 'trimprefix("v1", "v")', 'trimsuffix("a.c", ".c")', 'trim("..a..", ".")',
    'trimspace(" a ")', "concat([1], [2])", 'distinct(["a", "a"])', 'setunion(["a"], ["b"])', "flatten([[1], [2, [3]]])",
    'setproduct(["a"], ["b", "c"])', "merge({a = 1}, {b = 2})", 'lookup({a = "x"}, "b", "y")', "keys({b = 1, a = 2})",
    "values({b = 1, a = 2})", "length([1, 2])", "contains([1, 2], 2)", "range(3)", "range(1, 6, 2)",
    "slice([1, 2, 3], 1, 3)", "element([1, 2, 3], 4)", "coalesce(null, 2)", 'coalescelist([], ["a"])',
    "and(true, false)", "or(true, false)", "not(true)", "equal(1, 1)", "notequal(1, 2)", "add(1, 2)", "divide(7, 2)",
    "modulo(7, 2)", "negate(3)", "int(7.9)", "ceil(1.2)", "floor(1.8)", "pow(2, 10)", "log(8, 2)", "signum(-3)",
    'parseint("ff", 16)', 'sha256("")', 'md5("a")', 'base64encode("a")', 'base64decode("YQ==")', "jsonencode([1, null])",
    'jsondecode("{\\"a\\":[1]}").a', 'urlencode("a b/c")', 'cidrsubnet("10.0.0.0/8", 8, 2)',
    'cidrhost("10.0.0.0/8", 2)', 'cidrnetmask("10.0.0.0/8")', 'formatdate("YYYY-MM-DD", "2024-05-06T07:08:09Z")',
    'timeadd("2024-05-06T07:08:09Z", "1h")', 'zipmap(["a"], [1])', 'indent(2, "a\\nb")', 'chomp("a\\n")',
    'strlen("abc")', 'reverse("abc")', "reverselist([1, 2])", 'chunklist(["a", "b", "c"], 2)', 'compact(["a", ""])',
    'index([1], 0)', 'csvdecode("a,b\\n1,2")', "greaterthan(2, 1)", 'sort(["b", "a"])', 'hasindex([1], 0)',
    "1e3", "0.1 + 0.2", "100000000000 * 10", "1.50", "5 / 5",
]  # fmt: skip


def theirs(buildx: Path, place: Path, files: tuple[str, ...], words: tuple[str, ...], env: dict[str, str]) -> str:
    named = []
    for at, text in enumerate(files):
        path = place / f"{at}{'.json' if text.startswith('{') else '.hcl'}"
        path.write_text(text)
        named += ["-f", str(path)]
    own = {"HOME": str(place), "DOCKER_CONFIG": str(place), "PATH": os.environ["PATH"], "BUILDX_CONFIG": str(place)}
    argv = [str(buildx), "bake", "--print", *named, *words]
    done = subprocess.run(argv, env=own | env, cwd=place, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def ours(files: tuple[str, ...], words: tuple[str, ...], env: dict[str, str]) -> str:
    sets = tuple(word for at, word in enumerate(words) if at and words[at - 1] == "--set")
    names = tuple(word for word in words if word not in sets and word != "--set")
    named = [(f"{at}{'.json' if text.startswith('{') else '.hcl'}", text) for at, text in enumerate(files)]
    built_in = {"BAKE_CMD_CONTEXT": "cwd://"}
    return plan(Document(named, env, built_in), names, sets).to_text()


@pytest.mark.parametrize("name", CASES)
def test_the_same_is_printed(name: str, tmp_path: Path, peer: Callable[[str], Path]) -> None:
    files, words, env = CASES[name]
    mine, printed = ours(files, words, env), theirs(peer("docker-buildx"), tmp_path, files, words, env)
    if "m" in words:
        assert _sorted(mine) == _sorted(printed)
    else:
        assert mine == printed


def _sorted(text: str) -> object:
    """Return what is printed with a matrix's group in order: docker goes over a Go map, another way each time."""
    printed = json.loads(text)
    printed["group"]["m"]["targets"].sort()
    return printed


def _expressions() -> str:
    lines = "".join(f"    E{at} = jsonencode({text})\n" for at, text in enumerate(EXPRESSIONS))
    return f'target "default" {{\n  args = {{\n{lines}  }}\n}}\n'


@pytest.fixture(scope="module")
def their_values(tmp_path_factory: pytest.TempPathFactory, peer: Callable[[str], Path]) -> dict[str, str]:
    place = tmp_path_factory.mktemp("values")
    printed = json.loads(theirs(peer("docker-buildx"), place, (_expressions(),), (), {}))
    values: dict[str, str] = printed["target"]["default"]["args"]
    return values


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_expressions_have_the_same_values(text: str, their_values: dict[str, str]) -> None:
    name = f"E{EXPRESSIONS.index(text)}"
    mine = json.loads(ours((_expressions(),), (), {}))["target"]["default"]["args"]
    assert mine[name] == their_values[name]


@pytest.mark.parametrize(
    "text",
    [
        'target "default" {',
        'target "default" { tags = "a" b }',
        'target "default" { tags = [unknown] }',
        'target "default" { tags = [nofunction()] }',
        'target "default" { inherits = ["none"] }',
        'target "a b" {}\ntarget "default" {}',
        'a = b\nb = a\ntarget "default" { tags = [a] }',
        'target "default" { matrix = { x = ["1", "2"] } }',
        'target "a" {}',
        '{"target": {"default": {"tags": ["${"]}}}',
    ],
)
def test_both_refuse(text: str, tmp_path: Path, peer: Callable[[str], Path]) -> None:
    with pytest.raises(OrlopError):
        ours((text,), (), {})
    with pytest.raises(AssertionError):
        theirs(peer("docker-buildx"), tmp_path, (text,), (), {})


def test_both_refuse_to_set_what_is_of_no_target(tmp_path: Path, peer: Callable[[str], Path]) -> None:
    words = ("x", "--set", "nobody.context=y")
    with pytest.raises(OrlopError, match="could not find any target matching 'nobody'"):
        ours((NAMED_DEFAULT,), words, {})
    with pytest.raises(AssertionError, match="could not find any target matching 'nobody'"):
        theirs(peer("docker-buildx"), tmp_path, (NAMED_DEFAULT,), words, {})


@pytest.mark.parametrize(
    "flags",
    [
        ("--push",),
        ("--load",),
        ("--sbom=true", "--provenance=mode=max"),
        ("--provenance=false", "--no-cache", "--pull"),
    ],
    ids=" ".join,
)
def test_shorthands_mean_the_same(
    flags: tuple[str, ...], tmp_path: Path, peer: Callable[[str], Path], orlop: Environment
) -> None:
    printed = theirs(peer("docker-buildx"), tmp_path, (NAMED_DEFAULT,), ("x", *flags), {})
    printed = printed.replace("push=true,push=true", "push=true")  # 0.13 says it twice where something was inherited
    assert json.loads(orlop("bake", "--print", "-f", tmp_path / "0.hcl", "x", *flags).stdout) == json.loads(printed)


@pytest.mark.parametrize(
    ("outputs", "flags", "wanted"),
    [
        ('"type=local,dest=x"', "--push", None),
        ('"type=cacheonly"', "--push", None),
        ('"./x"', "--push", None),
        ('"type=image,name=x","type=tar,dest=y"', "--push", None),
        ('"type=registry,ref=x"', "--push", None),
        ('"type=image"', "--set *.push=false", None),
        ("", "--load", None),
        # buildx 0.13 pushes nothing here, and forgets all but docker; later ones do as is documented now.
        ('"type=docker"', "--push", ["type=docker", "type=image,push=true"]),
        ('"type=registry"', "--load", ["type=registry", "type=docker"]),
        ('"type=docker"', "--load", ["type=docker"]),
        ('"type=docker,dest=x"', "--load", ["type=docker,dest=x", "type=docker"]),
        ('"type=local,dest=x"', "--load", ["type=local,dest=x"]),
        ("", "--push --load", ["type=image,push=true", "type=docker"]),
    ],
)
def test_outputs_that_a_file_asks_for_stay(
    outputs: str, flags: str, wanted: list[str] | None, tmp_path: Path, peer: Callable[[str], Path], orlop: Environment
) -> None:
    """Red: with --push as one output in the place of all, a folder that was asked for was not written."""
    text = f'target "x" {{\n  output = [{outputs}]\n}}\n'
    if wanted is None:
        printed = theirs(peer("docker-buildx"), tmp_path, (text,), ("x", *flags.split()), {})
        wanted = json.loads(printed)["target"]["x"]["output"]
    (tmp_path / "0.hcl").write_text(text)
    printed = orlop("bake", "--print", "-f", tmp_path / "0.hcl", "x", *flags.split()).stdout
    assert json.loads(printed)["target"]["x"]["output"] == wanted


COMPOSE = """
services:
  db:
    image: postgres
  web:
    image: me/web:${WEB:-1}
    build:
      context: ./web
      dockerfile: D
      args: {A: "$$1", B: "two words"}
      labels: ["l=m"]
      target: prod
      cache_from: ["type=registry,ref=x"]
      additional_contexts: {base: docker-image://debian}
      x-bake:
        tags: ["me/web:2"]
        output: ["type=cacheonly"]
        platforms: linux/arm64
        no-cache: true
  api.v1:
    build: ./api
  inline:
    build:
      dockerfile_inline: |
        FROM scratch
"""


def test_a_compose_file_is_a_bake_file(
    tmp_path: Path, peer: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("yaml", reason="needs: PyYAML")
    from orlop.frontends.cli.build.composefile import bake_text

    monkeypatch.chdir(tmp_path)
    for name in ("web", "api"):
        (tmp_path / name).mkdir()
    (tmp_path / "compose.yaml").write_text(COMPOSE)
    own = {"HOME": str(tmp_path), "DOCKER_CONFIG": str(tmp_path), "BUILDX_CONFIG": str(tmp_path)}
    argv = [str(peer("docker-buildx")), "bake", "--print", "-f", "compose.yaml"]
    env = own | {"PATH": os.environ["PATH"]}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    mine, printed = json.loads(ours((bake_text("compose.yaml", {}),), (), {})), json.loads(done.stdout)
    for one in (mine, printed):  # docker goes over the services in any order
        one["group"]["default"]["targets"].sort()
    assert mine == printed
