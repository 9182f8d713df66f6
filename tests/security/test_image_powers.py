"""What an image may not do by being an image: give orders by labels (SEC-51), take the names of others (SEC-49)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.archives import Archive
from support.engine import Environment

pytestmark = pytest.mark.root
TREE = bytes(Archive().directory(b"bin").file(b"bin/tool", mode=0o755))


def test_labels_that_only_we_give_are_left_out_and_told(orlop: Environment) -> None:
    """An owner that has ended long ago would have the container removed by the next engine."""
    change = "LABEL io.orlop.owner=1.1 org.orlop.init=true io.orlopx=stays kept=too"
    orlop("import", "-c", change, "-", "orders:1", input=TREE)
    made = orlop("create", "--name", "c", "--label", "mine=1", "orders:1", "/bin/tool")
    assert "labels that only orlop itself gives, which were left out: io.orlop.owner, org.orlop.init" in made.stderr
    labels = json.loads(orlop("inspect", "-f", "{{json .Config.Labels}}", "c").stdout)
    assert labels == {"io.orlopx": "stays", "kept": "too", "mine": "1"}
    orlop("engine", "stop")
    assert orlop("ps", "-aq").stdout.strip()


def test_an_image_of_another_machine_is_told(orlop: Environment) -> None:
    orlop("import", "--platform", "linux/s390x", "-", "other:1", input=TREE)
    told = "The requested image's platform (linux/s390x) does not match the detected host platform"
    assert told in orlop("create", "other:1", "/bin/tool").stderr
    assert orlop("create", "--platform", "linux/s390x", "other:1", "/bin/tool").stderr == ""


def test_an_archive_takes_no_name_from_another_image_unasked(orlop: Environment, tmp_path: Path) -> None:
    there = set(orlop("images", "-q", "--no-trunc").stdout.split())  # `host`, where it is made once for all tests
    first = orlop("import", "-", "taken:1", input=TREE).stdout.strip()
    orlop("tag", "taken:1", "other:1")
    orlop("save", "-o", tmp_path / "saved.tar", "taken:1", "other:1")
    orlop("load", "-i", tmp_path / "saved.tar")  # the same image again takes nothing from anybody
    orlop("rmi", "taken:1", "other:1")
    second = orlop("import", "-", "taken:1", input=bytes(Archive().file(b"mine"))).stdout.strip()
    refused = orlop("load", "-i", tmp_path / "saved.tar", check=False)
    assert refused.code == 1
    assert "the archive calls an image taken:1, and another one has that name here" in refused.stderr
    assert "--force" in refused.stderr
    assert set(orlop("images", "-q", "--no-trunc").stdout.split()) - there == {second}
    forced = orlop("load", "--force", "-i", tmp_path / "saved.tar").stdout
    assert f"already exists, renaming the old one with ID {second} to empty string" in forced
    assert set(orlop("images", "-q", "--no-trunc").stdout.split()) - there == {first, second}
