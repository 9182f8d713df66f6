"""Bake files: HCL's syntax and expressions, variables and functions, inheritance, matrices, groups, --set."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest

from orlop.build.bake.document import Document
from orlop.build.bake.evaluate import Scope, evaluate
from orlop.build.bake.functions import FUNCTIONS
from orlop.build.bake.syntax import parse
from orlop.build.bake.targets import listed, plan
from orlop.spec.errors import Invalid, NotFound, OrlopError


def document(*texts: str, env: dict[str, str] | None = None) -> Document:
    files = [(f"{at}.json" if text.lstrip().startswith("{") else f"{at}.hcl", text) for at, text in enumerate(texts)]
    return Document(files, env or {}, {"BAKE_LOCAL_PLATFORM": "linux/amd64"})


def baked(
    *texts: str, names: tuple[str, ...] = (), sets: tuple[str, ...] = (), env: dict[str, str] | None = None
) -> Any:
    return plan(document(*texts, env=env), names, sets).to_json()


def target(text: str, name: str = "default", **options: Any) -> dict[str, Any]:
    found = baked(text, names=(name,), **options)["target"][name]
    for key, value in (("context", "."), ("dockerfile", "Dockerfile")):
        if found.get(key) == value:
            del found[key]
    return dict(found)


def value(expression: str) -> Any:
    body = parse(f"x = {expression}", "test")

    def compute(name: str) -> Any:
        return {"a": 1, "s": "text", "l": [1, 2, 3], "o": {"k": "v", "n": {"m": [5]}}, "t": True}[name]

    return evaluate(body.attributes["x"], Scope(compute, FUNCTIONS))


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("1", 1),
        ("-1.5", -1.5),
        ("1e3", 1000),
        ("1 + 2 * 3 - 4 / 2 % 3", 5),
        ("(1 + 2) * 3", 9),
        ("1 < 2 && 2 <= 2 || false", True),
        ("!t", False),
        ("1 == 1.0", True),
        ('"1" == 1', False),
        ("null == null", True),
        ('t ? "yes" : "no"', "yes"),
        ("a > 1 ? 1 : a == 1 ? 2 : 3", 2),
        ('"a"', "a"),
        ('"${a}"', 1),
        ('"x${a}y${s}"', "x1ytext"),
        ('"$${a} %%{b}"', "${a} %{b}"),
        ('"\\n\\t\\"\\\\\\u00e9"', '\n\t"\\é'),
        ('"${"nested ${a}"}!"', "nested 1!"),
        ('"%{ if t }yes%{ else }no%{ endif }"', "yes"),
        ('"%{ if !t }yes%{ else }no%{ endif }"', "no"),
        ('"%{ for i in l }<${i}>%{ endfor }"', "<1><2><3>"),
        ('"a ${~ s ~} b"', "atextb"),
        ("<<EOF\nline ${a}\n  two\nEOF", "line 1\n  two\n"),
        ("<<-EOF\n    one\n      two\n    EOF", "one\n  two\n"),
        ("[1, 2,\n 3,]", [1, 2, 3]),
        ('{a = 1, "b" : 2\n (s) = 3}', {"a": 1, "b": 2, "text": 3}),
        ("l[0] + l[a]", 3),
        ("o.k", "v"),
        ('o["n"].m[0]', 5),
        ("o.n.m.0", 5),
        ("[for i in l : i * 2 if i > 1]", [4, 6]),
        ("[for k, v in o : k]", ["k", "n"]),
        ("{for i in l : i => i + 1}", {"1": 2, "2": 3, "3": 4}),
        ('{for i in l : (i > 1 ? "big" : "small") => i...}', {"small": [1], "big": [2, 3]}),
        ("l[*]", [1, 2, 3]),
        ("max(l...)", 3),
        ("upper(s) # comment", "TEXT"),
        ("/* c */ 1 // d", 1),
        ('format("%s-%05d-%q-%%", s, 7, "x")', 'text-00007-"x"-%'),
        ('formatlist("v%s", l)', ["v1", "v2", "v3"]),
        ('join(",", l)', "1,2,3"),
        ('split(",", "a,b")', ["a", "b"]),
        ('replace("a.b.c", ".", "-")', "a-b-c"),
        ('regex_replace("v1.2.3", "v([0-9]+).*", "$1")', "1"),
        ('regex("[a-z]+([0-9]+)", "ab12")', ["12"]),
        ('regexall("[0-9]", "1a2")', ["1", "2"]),
        ('substr("hello", 1, 3)', "ell"),
        ('trimprefix("v1", "v")', "1"),
        ('title("a b")', "A B"),
        ("concat(l, [4])", [1, 2, 3, 4]),
        ("distinct([1, 1, 2])", [1, 2]),
        ("flatten([[1], [2, [3]]])", [1, 2, 3]),
        ("setproduct([1, 2], [3])", [[1, 3], [2, 3]]),
        ("merge({a = 1}, {b = 2})", {"a": 1, "b": 2}),
        ('lookup(o, "none", 7)', 7),
        ("keys(o)", ["k", "n"]),
        ("length(l)", 3),
        ("contains(l, 2)", True),
        ("range(3)", [0, 1, 2]),
        ("range(1, 6, 2)", [1, 3, 5]),
        ("slice(l, 1, 3)", [2, 3]),
        ("element(l, 4)", 2),
        ("coalesce(null, 2)", 2),
        ("try(o.none, 3)", 3),
        ("can(o.none)", False),
        ("and(true, false)", False),
        ("equal(1, 1)", True),
        ("add(1, 2)", 3),
        ("divide(7, 2)", 3.5),
        ("modulo(7, 2)", 1),
        ("int(7.9)", 7),
        ("pow(2, 10)", 1024),
        ('sha256("")', "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        ('base64encode("a")', "YQ=="),
        ('base64decode("YQ==")', "a"),
        ("jsonencode({a = [1]})", '{"a":[1]}'),
        ('jsondecode("{\\"a\\":1}").a', 1),
        ('urlencode("a b/c")', "a+b%2Fc"),
        ('sanitize("a.b/c")', "a_b_c"),
        ('cidrsubnet("10.0.0.0/8", 8, 2)', "10.2.0.0/16"),
        ('cidrhost("10.0.0.0/8", 2)', "10.0.0.2"),
        ('formatdate("YYYY-MM-DD", "2024-05-06T07:08:09Z")', "2024-05-06"),
        ('timeadd("2024-05-06T07:08:09Z", "1h")', "2024-05-06T08:08:09Z"),
        ("unixtimestampparse(0).year", 1970),
        ('parseint("ff", 16)', 255),
        ('zipmap(["a"], [1])', {"a": 1}),
        ('basename("/a/b.c")', "b.c"),
        ('csvdecode("a,b\\n1,2")', [{"a": "1", "b": "2"}]),
        ('csvdecode("a,b\\n\\n\\"1\\n2\\",3")', [{"a": "1\n2", "b": "3"}]),
    ],
)
def test_expressions(expression: str, expected: object) -> None:
    found = value(expression)
    assert found == expected
    assert isinstance(found, bool) == isinstance(expected, bool)


@pytest.mark.parametrize(
    ("expression", "cause"),
    [
        ("unknown", 'there is no variable named "unknown"'),
        ("uper(s)", 'there is no function named "uper" (did you mean upper?)'),
        ("1 / 0", "division by zero"),
        ("s + 1", "a number is required"),
        ("o.x", 'this object does not have an attribute named "x"'),
        ("l[9]", "the list has no item 9"),
        ('csvdecode("a\\n\\"b")', "unexpected end of data"),
        ('"${l}x"', "a string is required, not tuple"),
        ('"${null}x"', "a null can't be part of a string"),
        ("l ? 1 : 2", "a bool is required, not tuple"),
        ("[for i in s : i]", "string can't be iterated over"),
        ("upper()", "invalid arguments for upper()"),
        ("substr(1)", "invalid arguments"),
        ('format("%s")', "not enough arguments"),
        ('format("%99999999s", 1)', "a width is too large"),
        ('regex("(a+)+b", "aaaa")', "a repetition inside a repeated group is not supported"),
        ('regex("[", "a")', "invalid pattern"),
        ("range(100000000)", "the range is too long"),
        ("pow(10, 100000)", "the exponent is too large"),
        ('base64decode("?")', "base64decode():"),
        ('bcrypt("x")', 'there is no function named "bcrypt"'),
        ("setproduct(range(1000), range(1000))", "the product is too large"),
    ],
)
def test_expressions_that_are_refused(expression: str, cause: str) -> None:
    with pytest.raises(ValueError, match=re.escape(cause)):
        value(expression)


@pytest.mark.parametrize(
    ("text", "cause", "line"),
    [
        ("x = ", "expected a value, found 'the end of the file'", 1),
        ("x = 1 2", "expected a new line, found '2'", 1),
        ("x = [1", "expected ']'", 1),
        ("x = {a}", "expected '=' or ':'", 1),
        ('x = "a', "a string or a %{...} in it is not closed", 1),
        ('x = "${a"', "a ${...} is not closed", 1),
        ('x = "%{ if a }b"', "a string or a %{...} in it is not closed", 1),
        ('x = "\\q"', "invalid escape \\q", 1),
        ("x = <<EOF\na", "no line is 'EOF'", 1),
        ("x = 1\nx = 2", "attribute 'x' is set twice", 2),
        ('target "a" {', "expected an attribute or a block, found 'the end of the file'", 1),
        ("}", "expected an attribute or a block", 1),
        ("x = @", "unexpected character '@'", 1),
        ('target "${a}" {}', "a name can't have ${...} in it", 1),
        ("x = " + "[" * 100, "it is nested too deeply", 1),
        ("x = " + "!" * 100 + "t", "it is nested too deeply", 1),
        ("x = 1" + " + 1" * 1000, "it is nested too deeply", 1),
        ("x = a" + "[0]" * 1000, "it is nested too deeply", 1),
        ("a {" * 100, "it is nested too deeply", 1),
        ('\n\nnonsense "x" {}', "unexpected block 'nonsense x'", 3),
        ("target {}", "unexpected block 'target'", 1),
        ('target "a" {\n  b = 1\n}', "a: b: there is no such attribute", 1),
        ('target "a" {\n  tags = "x"\n}', "a: tags: a list is required", 1),
        ('target "a b" {}', 'a b: invalid name "a b"', 1),
        ('target "a" {\n  args = []\n}', "a: args: an object is required", 1),
        ('target "a" {\n  x "y" {}\n}', "a: unexpected block 'x'", 1),
        ('function "f" {}', "f: the function has no result", 1),
        ('target "a" {\n  matrix = {x = ["1"]}\n}', "a: name must be specified", 1),
        ('target "a" {\n  matrix = {x = ["1", "2"]}\n  name = "b"\n}', "a: two targets of the matrix are called b", 1),
    ],
)
def test_files_that_are_refused(text: str, cause: str, line: int) -> None:
    with pytest.raises(Invalid) as caught:
        baked(text, names=("a",))
    assert caught.value.cause.startswith(cause)
    assert caught.value.subject == f"0.hcl:{line}"


HCL = """
variable "TAG" { default = "latest" }
variable "DEBUG" { default = false }
variable "JOBS" { default = 2 }
variable "PLATFORMS" { default = ["linux/amd64"] }
variable "FULL" { default = "${REPO}:${TAG}" }
REPO = "example.org/app"
function "tag" {
  params = [name]
  variadic_params = more
  result = [for t in concat([TAG], more) : "${REPO}/${name}:${t}"]
}
target "_common" {
  args = { JOBS = JOBS, DEBUG = DEBUG ? "1" : null, EMPTY = "" }
  platforms = PLATFORMS
  cache-from = ["type=registry,ref=x", { type = "local", src = "c,d" }]
}
group "default" { targets = ["app", "tools"] }
group "tools" { targets = ["lint"] }
target "app" {
  inherits = ["_common"]
  dockerfile = "app.Dockerfile"
  tags = tag("app", "stable")
  args = { JOBS = "9" }
  cache-from = ["type=gha"]
}
target "lint" {
  context = "tools"
  contexts = { app = "target:app", base = "docker-image://debian" }
  tags = [FULL]
  output = ["type=cacheonly"]
  no-cache = true
  labels = { d = target.app.dockerfile }
}
"""


def test_a_whole_file() -> None:
    found = baked(HCL)
    assert found["group"] == {"default": {"targets": ["app", "tools"]}, "tools": {"targets": ["lint"]}}
    assert found["target"] == {
        "app": {
            "context": ".",
            "dockerfile": "app.Dockerfile",
            "args": {"JOBS": "9", "EMPTY": ""},
            "platforms": ["linux/amd64"],
            "tags": ["example.org/app/app:latest", "example.org/app/app:stable"],
            "cache-from": ["type=registry,ref=x", 'type=local,"src=c,d"', "type=gha"],
        },
        "lint": {
            "context": "tools",
            "dockerfile": "Dockerfile",
            "contexts": {"app": "target:app", "base": "docker-image://debian"},
            "tags": ["example.org/app:latest"],
            "output": ["type=cacheonly"],
            "no-cache": True,
            "labels": {"d": "app.Dockerfile"},
        },
    }
    # What another target takes as a context is built before it.
    assert list(plan(document(HCL), ("lint",)).targets) == ["app", "lint"]
    assert listed(document(HCL)) == [
        ("_common", ""),
        ("app", ""),
        ("default", "app, tools"),
        ("lint", ""),
        ("tools", "lint"),
    ]


def test_variables_from_the_environment() -> None:
    env = {"TAG": "v1", "DEBUG": "true", "JOBS": "8", "PLATFORMS": "linux/arm64,linux/amd64", "REPO": "no"}
    found = baked(HCL, env=env)["target"]["app"]
    assert found["args"] == {"JOBS": "9", "DEBUG": "1", "EMPTY": ""}
    assert found["platforms"] == ["linux/arm64", "linux/amd64"]
    assert found["tags"][0] == "example.org/app/app:v1"
    with pytest.raises(Invalid, match="a number is required"):
        baked(HCL, env={"JOBS": "many"})


def test_typed_variables_and_validation() -> None:
    text = """
    variable "N" {
      type = number
      default = 3
      validation {
        condition = N > 1
        error_message = "N is too small: ${N}"
      }
    }
    variable "L" { type = list(string) }
    variable "S" {}
    target "default" { args = { N = N, L = L == null ? "none" : join("+", L), S = S } }
    """
    assert target(text)["args"] == {"N": "3", "L": "none", "S": ""}
    assert target(text, env={"N": "5", "L": "a,b", "S": "s"})["args"] == {"N": "5", "L": "a+b", "S": "s"}
    with pytest.raises(Invalid, match="N is too small: 1"):
        target(text, env={"N": "1"})
    assert target(text, env={"L": 'a,"b,c",'})["args"]["L"] == "a+b,c+"
    for broken in ('a,"b', '"a"b', "a\nb", "a\rb", '"' + "x" * 200_000 + '"'):
        with pytest.raises(Invalid, match=r"0\.hcl:12: default: args"):
            target(text, env={"L": broken})


def test_json() -> None:
    text = """{"//": "comment", "variable": {"T": {"default": "1"}},
      "group": {"default": {"targets": ["a"]}},
      "target": {"a": {"//": "c", "tags": ["x:${T}", "\\\\n"],
        "args": {"K": "${upper(T)}", "N": null}, "pull": true}}}"""
    assert target(text, "a", env={"T": "b"}) == {"tags": ["x:b", "\\n"], "args": {"K": "B"}, "pull": True}
    for wrong in ("[]", '{"target": []}', '{"target": {"a": 1}}', '{"target": {"a": {"tags": ["${"]}}}', "{"):
        with pytest.raises(OrlopError):
            baked(wrong, names=("a",))


def test_later_files_lie_over_earlier_ones() -> None:
    first = 'variable "V" { default = "1" }\n'
    first += 'target "default" {\n tags = ["a"]\n args = {A = V, B = "b"}\n secret = ["id=x"]\n}'
    second = (
        'variable "V" { default = "2" }\ntarget "default" {\n tags = ["b"]\n args = {B = "c"}\n secret = ["id=y"]\n}'
    )
    found = baked(first, second)["target"]["default"]
    assert (found["tags"], found["args"], found["secret"]) == (["b"], {"A": "2", "B": "c"}, ["id=x", "id=y"])


def test_a_matrix() -> None:
    text = """
    target "app" {
      name = "app-${item.name}-${sanitize(version)}"
      matrix = { item = [{name = "a"}, {name = "b"}], version = ["1.0", "2.0"] }
      args = { VERSION = version }
      target = item.name
    }
    target "other" { inherits = ["app-a-1_0"] }
    """
    found = baked(text, names=("app", "other"))
    names = ["app-a-1_0", "app-a-2_0", "app-b-1_0", "app-b-2_0"]
    assert found["group"] == {"app": {"targets": names}, "default": {"targets": ["app", "other"]}}
    assert sorted(found["target"]) == [*sorted(names), "other"]
    assert found["target"]["app-b-2_0"]["args"] == {"VERSION": "2.0"}
    assert found["target"]["other"]["target"] == "a"


def test_overrides() -> None:
    sets = (
        "*.platform=linux/arm64",
        "app.args.X=1",
        "app.tags=a,b",
        "app.tags=c",
        "app.cache-from+=type=x",
        "app.no-cache=true",
    )
    found = baked(HCL, names=("app",), sets=(*sets, "app.context=/x", "app.push=true"))["target"]["app"]
    assert found["platforms"] == ["linux/arm64"]
    assert found["args"]["X"] == "1"
    assert found["tags"] == ["a", "b", "c"]
    assert found["cache-from"][-2:] == ["type=gha", "type=x"]
    assert (found["no-cache"], found["context"], found["output"]) == (True, "/x", ["type=image,push=true"])
    for wrong in ("app", "app=1", "app.args=1", "app.args.=1", "app.tags.x=1", "app.nothing=1", "app.no-cache=maybe"):
        with pytest.raises(Invalid):
            baked(HCL, names=("app",), sets=(wrong,))


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ('target "a" {}', "failed to find target default"),
        ('target "default" { inherits = ["b"] }', "failed to find target b"),
        ('group "default" { targets = ["x"] }', "failed to find target x"),
        ('target "default" { inherits = ["b"] }\ntarget "b" { inherits = ["default"] }', "infinite loop from"),
        ('target "default" { contexts = { x = "target:default" } }', "it takes itself as a context"),
        ('a = b\nb = a\ntarget "default" { tags = [a] }', "variable cycle not allowed"),
        ('target "default" { tags = [target.default.tags[0]] }', "variable cycle not allowed"),
        (
            'function "f" {\n params = []\n result = f()\n}\ntarget "default" { tags = [f()] }',
            "functions call each other too deeply",
        ),
        (
            'function "f" {\n params = [a]\n result = a\n}\ntarget "default" { tags = [f()] }',
            "it takes 1 arguments, not 0",
        ),
        ('target "default" { tags = [for i in range(9000) : join("", range(9000))] }', "evaluation takes more than"),
        (
            'a = join("", range(10000))\ntarget "default" { tags = ["%{for i in range(9000)}${a}%{endfor}"] }',
            "more than",
        ),
    ],
)
def test_what_can_not_be_baked(text: str, cause: str) -> None:
    before = time.process_time()
    with pytest.raises(OrlopError) as caught:
        baked(text)
    assert cause in caught.value.cause
    assert time.process_time() - before < 30


def test_groups_may_name_each_other() -> None:
    text = 'group "default" { targets = ["x", "a"] }\ngroup "x" { targets = ["default"] }\ntarget "a" {}'
    assert list(plan(document(text)).targets) == ["a"]


def test_a_target_that_is_nearly_right() -> None:
    with pytest.raises(NotFound, match=r"failed to find target ap \(did you mean app\?\)"):
        baked(HCL, names=("ap",))
