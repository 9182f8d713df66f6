"""`orlop bake` and `orlop build --call` by the real command: what is built from what, what is granted, what is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.engine import Environment

BAKE = """
variable "TAG" { default = "one" }
group "default" { targets = ["app", "alone"] }
target "base" {
  dockerfile-inline = <<-EOT
    FROM scratch
    COPY <<E /base.txt
    from base
    E
  EOT
}
target "app" {
  context = "app"
  contexts = { b = "target:base" }
  dockerfile = "D"
  tags = ["app:${TAG}", "app:second"]
  args = { A = "an argument" }
  labels = { "x.y" = "z" }
}
target "alone" {
  name = "alone-${v}"
  matrix = { v = ["1", "2"] }
  dockerfile-inline = "FROM scratch\\nENV V=${v}\\nCOPY <<E /e\\nE\\n"
  tags = ["alone:${v}"]
}
target "wants" {
  dockerfile-inline = "FROM scratch"
  entitlements = ["security.insecure"]
}
"""
DOCKERFILE = """\
# VERSION of what it is
ARG VERSION=1
# base is where it begins
FROM scratch AS base
ARG API_TOKEN
RUN --mount=type=secret,id=s,required --mount=type=cache,id=c,target=/c x
FROM base
CMD x $UNDEFINED
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "app").mkdir()
    (tmp_path / "app/D").write_text("FROM b\nARG A\nLABEL a=$A\nCOPY --from=b /base.txt /again\nCOPY D /\n")
    (tmp_path / "docker-bake.hcl").write_text(BAKE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_targets_are_built_after_what_they_take(orlop: Environment, place: Path) -> None:
    orlop("bake", "--var", "TAG=two")
    found = json.loads(orlop("image", "inspect", "app:two").stdout)[0]
    assert found["Config"]["Labels"] == {"a": "an argument", "x.y": "z"}
    assert len(found["RootFS"]["Layers"]) == 3
    names = orlop("images", "--format", "{{.Repository}}:{{.Tag}}").stdout.split()
    assert sorted(names) == ["alone:1", "alone:2", "app:second", "app:two"]  # no name is left of what was linked
    env = json.loads(orlop("image", "inspect", "alone:2").stdout)[0]["Config"]["Env"]
    assert "V=2" in env


def test_what_a_file_wants_must_be_granted(orlop: Environment, place: Path) -> None:
    refused = orlop("bake", "wants", check=False)
    assert refused.code != 0
    assert "additional privileges requested: security.insecure" in refused.stderr
    assert "--allow security.insecure" in refused.stderr


def test_lists_and_prints(orlop: Environment, place: Path) -> None:
    assert orlop("bake", "--list=variables").stdout == "VARIABLE  VALUE\nTAG       one\n"
    assert orlop("bake", "--list=targets").stdout.splitlines()[0] == "TARGET   DESCRIPTION"
    printed = json.loads(orlop("buildx", "bake", "--print", "app", "--set", "app.args.A=b").stdout)
    assert printed["target"]["app"]["args"] == {"A": "b"}
    nothing = orlop("bake", "nothing", check=False)
    assert "failed to find target nothing" in nothing.stderr
    (place / "docker-bake.hcl").unlink()
    assert "couldn't find a bake definition" in orlop("bake", check=False).stderr


def test_a_dockerfile_says_what_it_takes(orlop: Environment, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    checked = orlop("build", "--check", tmp_path, check=False)
    assert checked.code == 1
    assert checked.stdout.startswith("Check complete, 2 warnings have been found!\n")
    assert ">>> ARG API_TOKEN" in checked.stdout
    found = json.loads(orlop("build", "--call=check,format=json", tmp_path, check=False).stdout)
    assert [one["ruleName"] for one in found["warnings"]] == ["SecretsUsedInArgOrEnv", "JSONArgsRecommended"]
    outline = orlop("build", "--call=outline", tmp_path).stdout
    assert "API_TOKEN" in outline
    assert "SECRET   REQUIRED\ns        true\n" in outline
    assert orlop("build", "--call=targets", tmp_path).stdout.splitlines() == [
        "TARGET      DESCRIPTION",
        "base        is where it begins",
        "(default)",
    ]
    (tmp_path / "Dockerfile").write_text("# check=error=true\nFROM scratch\nCMD x\n")
    refused = orlop("build", tmp_path, check=False)
    assert "lint violation found for rules: JSONArgsRecommended" in refused.stderr


def test_targets_that_need_nothing_of_each_other_are_built_together(orlop: Environment, place: Path) -> None:
    # Each of the two waits until it sees that the other has begun: one after the other, neither would end.
    script = "touch /meet/$ME; for i in $(seq 300); do test -e /meet/$OTHER && exit 0; sleep 0.1; done; exit 1"
    steps = f"FROM host\\nARG ME\\nARG OTHER\\nRUN --mount=type=cache,target=/meet,id=meet {script}\\n"
    (place / "docker-bake.hcl").write_text(
        'group "default" { targets = ["one", "two"] }\n'
        f'target "one" {{ \n dockerfile-inline = "{steps}" \n args = {{ ME = "a", OTHER = "b" }} \n'
        ' annotations = ["manifest:of=one"] \n tags = ["one"] \n }\n'
        f'target "two" {{ \n dockerfile-inline = "{steps}" \n args = {{ ME = "b", OTHER = "a" }} \n }}\n'
    )
    told = orlop("bake", "--metadata-file", place / "told.json").stderr
    assert "[one] #" in told and "[two] #" in told
    metadata = json.loads((place / "told.json").read_text())
    assert sorted(metadata) == ["one", "two"] and metadata["one"]["image.name"] == "one:latest"
    orlop("image", "copy", "one", f"dir:{place}/image")
    assert json.loads((place / "image/manifest.json").read_text())["annotations"] == {"of": "one"}


def test_a_target_that_fails_fails_the_bake(orlop: Environment, place: Path) -> None:
    (place / "docker-bake.hcl").write_text(
        'group "default" { targets = ["good", "bad", "never"] }\n'
        'target "good" { \n dockerfile-inline = "FROM scratch\\nENV A=b" \n tags = ["good"] \n }\n'
        'target "bad" { dockerfile-inline = "FROM host\\nRUN exit 3" }\n'
        'target "never" { \n dockerfile-inline = "FROM bad" \n contexts = { bad = "target:bad" }\n'
        ' tags = ["never"] \n }\n'
    )
    done = orlop("bake", check=False)
    assert done.code == 1 and "exit code: 3" in done.stderr
    assert "never" not in orlop("images", "--format", "{{.Repository}}").stdout
