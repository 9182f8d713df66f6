"""Files of CDI devices: their YAML beside PyYAML's reading, which devices they name, what is put into a spec."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orlop.engine.cdi import blocks, edits, specs
from orlop.spec.errors import Invalid, NotFound
from orlop.spec.runtime import Device, Linux, Process, Resources, Spec

WHOLE = """
---
cdiVersion: "0.6.0"   # a comment
kind: 'vendor.example/gpu'
annotations:
  org.mobyproject.buildkit.device.class: fast
containerEdits:
    env:
    - NVIDIA=void
    - "TWO=a, b # no comment"
    additionalGids: [44, 4242]
devices:
- name: "0"
  containerEdits:
    deviceNodes:
    - path: /dev/gpu0
      hostPath: /dev/null
      permissions: rw
      fileMode: 0o660
    -
      path: /dev/gpuctl
      hostPath: /dev/zero
    mounts:
      - hostPath: /usr/lib/it's
        containerPath: "/usr/lib/\\tx"
        options: [ro, "nosuid", 'nodev']
    hooks:
    - {hookName: createContainer, path: /usr/bin/hook, args: [hook, "-a=b"], timeout: 3}
- name: all
  annotations: {org.mobyproject.buildkit.device.autoallow: "true"}
  containerEdits: {}
"""


@pytest.mark.parametrize(
    "text",
    [
        WHOLE.lstrip(),
        "a: 1\nb: -7\nc: true\nd: ~\ne:\nf: ''\ng: \"x\\ny\"\nh: 1.5\ni: a:b\nj: a#b\nk: -x\n",
        "- a\n- - b\n  - c\n-\n  d: e\n- f: g\n  h: i\n",
        "a:\n- b\n- c\nd:\n  - e\n",
        "[a, [b, {c: d}], 'e,f', \"g]\"]",
        "a: [ ]\nb: { }\nc: 'it''s'\n",
        "'a b': c\n\"d: e\": f\n",
    ],
)
def test_files_are_read_as_yaml(text: str) -> None:
    yaml = pytest.importorskip("yaml")
    theirs = yaml.safe_load(text)
    if isinstance(theirs, dict) and theirs.get("h") == 1.5:
        theirs["h"] = "1.5"  # no field of a device file has a fraction: it stays a text
    if isinstance(theirs, dict) and "devices" in theirs:
        theirs["devices"][0]["containerEdits"]["deviceNodes"][0]["fileMode"] = 0o660  # YAML 1.1 has no 0o
    assert blocks.parse(text) == theirs


@pytest.mark.parametrize(
    "text",
    [
        "a: &x 1\n", "a: *x\n", "a: |\n  text\n", "a: >\n  text\n", "a: !!str 1\n", "a: [b\n", "a: {b: c\n", 'a: "b\n',
        "a: 'b\n", "a: 1\na: 2\n", "a: 1\n  b: 2\n", "a: b: c\n", "\ta: 1\n", "a:\n  b: 1\n c: 2\n", "%YAML 1.2\n",
        "a: [b] c\n", 'a: "\\q"\n', "a: " + "[" * 100, "- " * 100 + "a", "a: 1\nb\n", "a: 1\n---\nb: 2\n",
        "? a\n: b\n",
    ],
)  # fmt: skip
def test_what_is_not_read_is_an_error_with_its_line(text: str) -> None:
    with pytest.raises(ValueError, match=r"^line \d+: "):
        blocks.parse(text)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "whole.yaml").write_text(WHOLE.lstrip())
    return tmp_path


def resolved(place: Path, *names: str) -> Spec:
    found = specs.resolve(names, "container x", (str(place),))
    named = {path: (_behind(path),) for path in edits.paths(found)}
    spec = Spec(
        oci_version="1.2.0",
        process=Process(cwd="/", env=("NVIDIA=own", "KEPT=1")),
        linux=Linux(resources=Resources()),
    )
    return edits.applied(spec, found, named, "container x", shown=False)


def _behind(path: str) -> Device:
    info = os.stat(path)
    return Device(type="c", path=path, major=os.major(info.st_rdev), minor=os.minor(info.st_rdev))


def test_a_device_is_put_into_a_spec(place: Path) -> None:
    spec = resolved(place, "vendor.example/gpu=0", "vendor.example/gpu=all", "vendor.example/gpu=0")
    assert spec.process is not None and spec.linux.resources is not None and spec.hooks is not None
    assert spec.process.env == ("KEPT=1", "NVIDIA=void", "TWO=a, b # no comment")
    assert spec.process.user.additional_gids == (44, 4242)
    (gpu, control) = spec.linux.devices
    assert (gpu.path, gpu.major, gpu.minor, gpu.file_mode) == ("/dev/gpu0", 1, 3, 0o660)
    assert (control.path, control.major, control.minor, control.file_mode) == ("/dev/gpuctl", 1, 5, 0o666)
    assert [rule.access for rule in spec.linux.resources.devices] == ["rw", "rwm"]
    (mount,) = spec.mounts
    assert (mount.destination, mount.source, mount.type) == ("/usr/lib/\tx", "/usr/lib/it's", "bind")
    assert mount.options == ("rbind", "ro", "nosuid", "nodev")
    (hook,) = spec.hooks.create_container
    assert (hook.path, hook.args, hook.timeout) == ("/usr/bin/hook", ("hook", "-a=b"), 3)


def test_names_of_a_dockerfile(place: Path) -> None:
    known, troubles = specs.known((str(place),))
    assert not troubles
    both = ["vendor.example/gpu=0", "vendor.example/gpu=all"]
    assert specs.matching("vendor.example/gpu", known) == both[:1]
    assert specs.matching("vendor.example/gpu=*", known) == both
    assert specs.matching("vendor.example/gpu=fast", known) == both
    assert specs.matching("vendor.example/gpu=all", known) == both[1:]
    assert specs.matching("vendor.example/gpu=no", known) == []
    assert [known[name].is_allowed for name in both] == [False, True]
    for wrong in ("gpu", "vendor.example/gp u=0", "../x=0", "/a/b=0", ""):
        with pytest.raises(ValueError, match="invalid device"):
            specs.matching(wrong, known)


def test_later_directories_win_and_doubles_are_of_nobody(tmp_path: Path) -> None:
    text = '{"cdiVersion":"0.6.0","kind":"v.example/x","devices":[{"name":"%s","containerEdits":{"env":["A=%s"]}}]}'
    for folder, file, name, value in (
        *(("etc", "a.json", "one", "etc"), ("run", "b.json", "one", "run")),
        *(("run", "c.json", "two", "1"), ("run", "d.json", "two", "2")),
    ):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / file).write_text(text % (name, value))
    places = (str(tmp_path / "etc"), str(tmp_path / "run"), str(tmp_path / "none"))
    (one,) = specs.resolve(["v.example/x=one"], "x", places)
    assert one.env == ("A=run",)
    with pytest.raises(NotFound, match=r"unresolvable CDI devices v\.example/x=two") as told:
        specs.resolve(["v.example/x=two"], "x", places)
    assert "is in two files" in told.value.hint


@pytest.mark.parametrize(
    "change",
    [
        ("0.6.0", "9.9.9"), ("vendor.example/gpu", "gpu"), ("NVIDIA=void", "NVIDIA"), ("/dev/gpu0", "dev/gpu0"),
        ("permissions: rw", "permissions: rwx"), ('name: "0"', "name: ../0"), ('name: "0"', "name: all"),
        ("/usr/bin/hook", "hook"), ("[44, 4242]", "[x]"), ("devices:", "others:"), ("/usr/lib/it's", "lib"),
    ],
)  # fmt: skip
def test_a_broken_file_names_no_device_and_is_told(tmp_path: Path, change: tuple[str, str]) -> None:
    assert change[0] in WHOLE
    (tmp_path / "broken.yml").write_text(WHOLE.lstrip().replace(*change))
    with pytest.raises(NotFound) as told:
        specs.resolve(["vendor.example/gpu=0"], "x", (str(tmp_path),))
    assert f"{tmp_path}/broken.yml: " in told.value.hint


def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.json")
    (tmp_path / "b.json").symlink_to("/dev/zero")
    (tmp_path / "c.json").write_bytes(b"\xff" * 100)
    (tmp_path / "d.yaml").write_bytes(b"\xff: " * 100)
    (tmp_path / "e.json").write_text("[" * 100_000)
    with (tmp_path / "f.yaml").open("wb") as file:
        file.truncate(1 << 40)
    known, troubles = specs.known((str(tmp_path),))
    assert not known and len(troubles) == 6


def test_a_device_that_the_machine_lacks_and_a_hook_of_no_time(place: Path) -> None:
    (place / "x.yaml").write_text(
        "cdiVersion: 0.6.0\nkind: v.example/x\ndevices:\n- name: gone\n  containerEdits:\n    deviceNodes:\n"
        "    - path: /dev/nosuch-device\n- name: late\n  containerEdits:\n    hooks:\n"
        "    - {hookName: never, path: /x}\n"
    )
    for name, told in (("gone", "failed to stat CDI host device"), ("late", "no time of a container's life")):
        found = specs.resolve([f"v.example/x={name}"], "x", (str(place),))
        with pytest.raises(Invalid, match=told):
            edits.applied(Spec(oci_version="1.2.0"), found, {}, "x", shown=False)
