"""Secrets: a file in memory inside the container, and nowhere else."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import shutil
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.workspace import Workspace
from support.docker_http import Api
from support.engine import Environment

VALUE = "correct horse battery staple"


@pytest.fixture(scope="module")
def archive() -> Iterator[Path]:
    with Workspace() as work:
        yield work.archive()


@pytest.fixture
def box(orlop: Environment, archive: Path) -> Iterator[Environment]:
    orlop("import", str(archive), "box:1")
    orlop("secret", "create", "pass", "-", input=VALUE)
    yield orlop
    for container in orlop("ps", "-aq").stdout.split():
        orlop("rm", "-f", container)
    assert not places(orlop)


def places(orlop: Environment) -> list[Path]:
    """Return where files of secrets may lie that are there: ORLOP_RUN of tests is on no tmpfs, or is one."""
    mark = hashlib.sha256(str(orlop.run).encode()).hexdigest()[:16]
    return [place for place in (orlop.run / "granted", Path(f"/dev/shm/orlop-0-{mark}")) if place.exists()]


def run(box: Environment, *words: str, check: bool = True) -> str:
    done = box("run", "--rm", "--network", "none", *words, check=check)
    return done.stdout if check else done.stderr


def test_a_secret_is_made_shown_and_removed(orlop: Environment, tmp_path: Path) -> None:
    (tmp_path / "file").write_text(VALUE)
    made = orlop("secret", "create", "-l", "a=b", "pass", str(tmp_path / "file")).stdout.strip()
    assert len(made) == 64
    (found,) = json.loads(orlop("secret", "inspect", "pass").stdout)
    assert (found["ID"], found["Spec"]) == (made, {"Name": "pass", "Labels": {"a": "b"}})
    assert orlop("secret", "ls", "--format", "{{.Name}} {{.Labels}}").stdout == "pass a=b\n"
    assert "exists already" in orlop("secret", "create", "pass", input="x", check=False).stderr
    for name, data in (("a/b", "x"), ("", "x"), ("big", "x" * 600_000), ("none", "")):
        assert orlop("secret", "create", name, input=data, check=False).code != 0
    assert orlop("secret", "rm", made[:12]).stdout == f"{made[:12]}\n"
    assert "no such secret" in orlop("secret", "rm", "pass", check=False).stderr
    assert orlop("secret", "ls", "-q").stdout == ""
    assert list((orlop.root / "secrets").iterdir()) == []


def test_it_is_a_file_in_memory(box: Environment) -> None:
    look = "cat /run/secrets/pass; echo; while read a b c d e f; do echo $e $f; done </proc/self/mountinfo"
    lines = run(box, "--secret", "pass", "box:1", "sh", "-c", look).splitlines()
    assert lines[0] == VALUE
    (mounted,) = [line for line in lines if line.startswith("/run/secrets/pass ")]
    assert "ro" in mounted and " - tmpfs " in mounted, mounted


def test_target_owner_and_mode(box: Environment) -> None:
    flags = ["--secret", "source=pass,target=/etc/key,uid=5,gid=6,mode=0400", "--secret", "pass,target=more"]
    assert run(box, *flags, "-u", "5", "box:1", "sh", "-c", "cat /etc/key; cat /run/secrets/more") == VALUE * 2
    refused = run(box, *flags, "-u", "7", "box:1", "cat", "/etc/key", check=False)
    assert "ermission denied" in refused
    written = run(box, *flags, "box:1", "sh", "-c", "echo x >/etc/key", check=False)
    assert "ead-only" in written


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("nosuch", "no such secret: nosuch"),
        ("pass,type=nosuch", "invalid secret type 'nosuch'"),
        ("pass,type=env,uid=5", "invalid field 'uid'"),
        ("pass,type=env,target=A=B", "no name of a variable"),
        ("pass,nosuch=1", "invalid field 'nosuch'"),
        ("pass,uid=x", "no number"),
        ("pass,uid=-5", "out of range"),
        ("pass,mode=7777", "out of range"),
        ("pass,target=../../etc/passwd", "no place for a secret"),
        ("uid=5", "source is required"),
    ],
)
def test_what_can_not_be_granted(box: Environment, flag: str, words: str) -> None:
    assert words in run(box, "--secret", flag, "box:1", "true", check=False)
    assert box("ps", "-aq").stdout == ""


def test_the_value_is_nowhere_else(box: Environment) -> None:
    """Not in what describes a container, not in what is made of it, not on the disk but where it is kept."""
    box("run", "-d", "--name", "c", "--network", "none", "--secret", "pass", "box:1", "sleep", "1000")
    api = Api(box.run / "docker.sock")
    events = f"/events?since=1&until={int(time.time())}"
    for path in ("/containers/c/json", "/containers/json", "/containers/c/top", events):
        assert VALUE.encode() not in api("GET", path).body
    exported = api("GET", "/containers/c/export").body
    box("commit", "c", "made:1")
    saved = api("GET", "/images/made:1/get").body
    for data in (exported, saved):
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            assert tar.getmembers()
        assert VALUE.encode() not in data
    holders = [path for path in box.root.rglob("*") if path.is_file() and VALUE.encode() in path.read_bytes()]
    assert holders == [], "on the disk it is sealed"
    for kept in (box.root / "secrets/pass/data", box.root / "secrets.key"):
        assert kept.stat().st_mode & 0o777 == 0o600
    assert "in use by: c" in box("secret", "rm", "pass", check=False).stderr
    (copies,) = (box.root / "containers").glob("*/granted")
    place = copies.resolve()
    assert (place / "0").read_text() == VALUE
    box("rm", "-f", "c")
    assert not place.exists()
    box("secret", "rm", "pass")


def test_a_new_version_is_what_later_starts_get(box: Environment) -> None:
    """red: with a record of the new version that is written before its data."""
    made = box("secret", "inspect", "--format", "{{.ID}} {{.Version.Index}}", "pass").stdout.split()
    box("run", "-d", "--name", "c", "--network", "none", "--secret", "pass", "box:1", "sleep", "1000")
    assert box("secret", "create", "--replace", "pass", "-", input="second").stdout.strip() == made[0]
    assert box("secret", "inspect", "--format", "{{.ID}} {{.Version.Index}}", "pass").stdout.split() == [made[0], "2"]
    assert [one.name for one in sorted((box.root / "secrets/pass").iterdir())] == ["data.2", "record.json"]
    assert box("exec", "c", "cat", "/run/secrets/pass").stdout == VALUE, "who runs keeps what it was given"
    box("restart", "-t", "0", "c")
    assert box("exec", "c", "cat", "/run/secrets/pass").stdout == "second"
    assert box("secret", "create", "--replace", "fresh", "-", input="x").code == 0
    box("config", "create", "--replace", "note", "-", input="one")
    box("config", "create", "--replace", "note", "-", input="two")
    assert json.loads(box("config", "inspect", "note").stdout)[0]["Version"]["Index"] == 2


def test_the_key_is_renewed_and_a_renewal_that_was_cut_short_goes_on(box: Environment) -> None:
    key, data = box.root / "secrets.key", box.root / "secrets/pass/data"
    kept, sealed = key.read_bytes(), data.read_bytes()
    assert box("secret", "rekey").stdout == "sealed anew: 1\n"
    assert key.read_bytes() != kept and data.read_bytes() != sealed
    assert run(box, "--secret", "pass", "box:1", "cat", "/run/secrets/pass") == VALUE
    # As an engine leaves it that dies when the new key is there and nothing is sealed with it.
    box("engine", "stop")
    (box.root / "secrets.key.next").write_bytes(bytes(range(32)))
    (box.root / "secrets.key.next").chmod(0o600)
    assert run(box, "--secret", "pass", "box:1", "cat", "/run/secrets/pass") == VALUE
    assert key.read_bytes() == bytes(range(32)) and not (box.root / "secrets.key.next").exists()


def test_without_its_key_a_secret_opens_for_nobody(box: Environment) -> None:
    """A lost key is told, and no other one is made in its place; what is damaged or another's is no secret.

    red: without the name of the key in a sealed file, without the tag, with a tag that does not cover whose it is.
    """
    box("secret", "create", "other", "-", input="of another")
    flags = ("--network", "none", "--secret", "pass", "box:1", "cat", "/run/secrets/pass")
    key, data, other = box.root / "secrets.key", box.root / "secrets/pass/data", box.root / "secrets/other/data"
    kept, sealed = key.read_bytes(), data.read_bytes()

    def refused() -> str:
        done = box("run", "--rm", *flags, check=False)
        assert done.code == 125 and "Next: " in done.stderr and VALUE not in done.stdout, done
        return done.stderr

    key.unlink()
    assert "secrets.key can't be read: no such file" in refused()
    assert "can't be read" in box("secret", "create", "more", "-", input="x", check=False).stderr
    assert not key.exists() and box("secret", "ls", "-q").stdout.count("\n") == 2
    key.write_bytes(bytes(32))
    key.chmod(0o600)
    assert "sealed with another key" in refused()
    key.write_bytes(kept)
    key.chmod(0o644)
    assert "others may read" in refused()
    key.chmod(0o600)
    for wrong in (b"", sealed[:40], sealed[:-1] + bytes([sealed[-1] ^ 1]), other.read_bytes(), VALUE.encode()):
        data.write_bytes(wrong)
        assert "damaged" in refused()
    data.write_bytes(sealed)
    assert run(box, "--secret", "pass", "box:1", "cat", "/run/secrets/pass") == VALUE


def test_what_was_kept_before_secrets_were_sealed_is_sealed(box: Environment) -> None:
    box("engine", "stop")
    (box.root / "secrets.key").unlink()
    (box.root / "secrets/pass/data").write_text(VALUE)
    (box.root / "secrets/pass/data.2").write_text("of a version that was not finished")
    assert run(box, "--secret", "pass", "box:1", "cat", "/run/secrets/pass") == VALUE
    assert VALUE.encode() not in (box.root / "secrets/pass/data").read_bytes()
    assert not (box.root / "secrets/pass/data.2").exists()
    assert box("system", "fsck").code == 0


def test_a_restart_and_a_start_find_it(box: Environment) -> None:
    flags = ["--restart", "on-failure:1", "--secret", "pass", "--network", "none", "--name", "c"]
    box("run", "-d", *flags, "box:1", "sh", "-c", "cat /run/secrets/pass; echo; exit 3")
    wait_for_lines(box, 2)  # the second run is its monitor's
    box("wait", "c")  # a start of what still ends is none
    box("start", "c")
    wait_for_lines(box, 3)


def wait_for_lines(box: Environment, number: int) -> None:
    deadline = time.monotonic() + 60
    while len(lines := box("logs", "c").stdout.splitlines()) < number:
        assert time.monotonic() < deadline, lines
    assert set(lines) == {VALUE}


def test_what_a_lost_container_leaves_is_swept(box: Environment) -> None:
    box("create", "--name", "c", "--network", "none", "--secret", "pass", "box:1", "true")
    box("start", "c")
    box("wait", "c")
    (place,) = places(box)
    assert list(place.iterdir())
    box("engine", "stop")
    (container,) = (box.root / "containers").iterdir()
    shutil.rmtree(container)
    box("info")
    assert not places(box)


def test_a_config_is_made_shown_and_removed(orlop: Environment) -> None:
    made = orlop("config", "create", "-l", "a=b", "note", input="answer = 42\n").stdout.strip()
    (found,) = json.loads(orlop("config", "inspect", "note").stdout)
    assert (found["ID"], base64.b64decode(found["Spec"]["Data"])) == (made, b"answer = 42\n")
    assert orlop("config", "ls", "--format", "{{.Name}} {{.Labels}}").stdout == "note a=b\n"
    assert orlop("config", "ls").stdout.splitlines()[0].split() == ["ID", "NAME", "CREATED", "UPDATED"]
    assert orlop("secret", "ls", "-q").stdout == "", "not one of those"
    assert orlop("config", "rm", "note").stdout == "note\n"
    assert "no such config" in orlop("config", "inspect", "note", check=False).stderr
    assert list((orlop.root / "configs").iterdir()) == []


def test_configs_are_the_same_for_programs(box: Environment) -> None:
    """Compose and programs grant them, over the engine's own socket."""
    from orlop.frontends.native.client import connect
    from orlop.spec.paths import Paths

    with connect(Paths(str(box.root), str(box.run)), start=False) as engine:
        data = base64.b64encode(b"answer = 42\n").decode()
        engine.call("configs.create", {"request": {"name": "settings", "data": data}})
        found = engine.call("configs.inspect", {"name": "settings"})
        assert isinstance(found, dict) and found["Spec"]["Data"] == data
        wish = {"image": "box:1", "name": "c", "args": ["cat", "/settings", "/etc/s"], "network": "none"}
        grants = [{"source": "settings"}, {"source": "settings", "target": "/etc/s", "mode": 0o400}]
        engine.call("containers.run", {"request": {**wish, "configs": grants}, "attached": False})
        engine.call("containers.wait", {"container": "c", "condition": "exited"})
        assert box("logs", "c").stdout == "answer = 42\n" * 2


@pytest.mark.parametrize("kind", ["secret", "config"])
def test_lists_are_filtered_and_objects_shown_as_docker_shows_them(orlop: Environment, kind: str) -> None:
    ids = {
        name: orlop(kind, "create", *labels, name, "-", input=f"{VALUE} of {name}").stdout.strip()
        for name, labels in {"web": ("-l", "a=1", "-l", "b"), "web2": ("-l", "a=2"), "db": ()}.items()
    }

    def names(*filters: str) -> list[str]:
        words = [word for one in filters for word in ("--filter", one)]
        return orlop(kind, "ls", "--format", "{{.Name}}", *words).stdout.split()

    assert names() == ["db", "web", "web2"]
    assert names("name=web") == names("label=a") == ["web", "web2"]
    assert names("label=a=2") == names("name=web2") == ["web2"]
    assert names("label=a", "label=b") == ["web"] and names("name=web2", "name=db") == ["db", "web2"]
    assert names(f"id={ids['db'][:10]}") == ["db"] and names("label=a=3") == names("id=zz") == []
    refused = orlop(kind, "ls", "-f", "driver=x", check=False)
    assert refused.code == 1 and "invalid filter 'driver'" in refused.stderr and "Next: " in refused.stderr
    assert orlop(kind, "inspect", "--format", "{{.Spec.Name}} {{.ID}}", "web", "db").stdout == (
        f"web {ids['web']}\ndb {ids['db']}\n"
    )
    shown = orlop(kind, "inspect", "--pretty", "web").stdout
    assert shown.startswith(f"ID:\t\t\t{ids['web']}\nName:\t\t\tweb\nLabels:\n - a=1\n - b\nCreated at:")
    assert (f"Data:\n{VALUE} of web\n" in shown) is (kind == "config")
    assert orlop(kind, "inspect", "--pretty", "-f", "x", "web", check=False).code == 1
    missing = orlop(kind, "inspect", "--format", "{{.ID}}", "nosuch", "web", check=False)
    assert missing.code == 1 and missing.stdout == f"{ids['web']}\n" and "nosuch" in missing.stderr
