"""An ordinary user without subordinate ids: one id, and foreign owners that are kept aside and shown again."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator

import pytest

from support import rootless
from support.rootless import UID, User

OWNERS = {"one": (1000, 1001, 0o4755), "nobody": (65534, 65534, 0o644), "far": (445605, 445605, 0o600)}


@pytest.fixture(scope="module")
def user() -> Iterator[User]:
    with rootless.user(ids=False) as somebody:
        yield somebody


def lines(user: User, *words: str) -> list[str]:
    done = user.orlop(*words)
    assert done.code == 0, done
    return done.stdout.splitlines()


def foreign(user: User) -> str:
    path = user.home / "foreign.tar"
    with tarfile.open(path, "w") as archive:
        for name, (uid, gid, mode) in OWNERS.items():
            member = tarfile.TarInfo(name)
            member.uid, member.gid, member.mode, member.size = uid, gid, mode, 1
            # What an archive says of our own notes is dropped: it would make a file root's.
            member.pax_headers = {"SCHILY.xattr.user.orlop.owner": "0:0"}
            archive.addfile(member, io.BytesIO(b"x"))
    path.chmod(0o644)
    return str(path)


def owners(data: bytes) -> dict[str, tuple[int, int, int]]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {each.name: (each.uid, each.gid, each.mode) for each in archive if each.name in OWNERS}


def test_there_is_one_id_and_it_is_root_inside(user: User) -> None:
    assert lines(user, "run", "--rm", "host", "sh", "-c", "cat /proc/self/uid_map; id -u")[0].split() == [
        "0",
        str(UID),
        "1",
    ]


def test_foreign_owners_are_kept_and_shown_again(user: User) -> None:
    lines(user, "import", foreign(user), "foreign:1")
    lines(user, "create", "--name", "f", "foreign:1", "x")
    assert owners(user.orlop("export", "f").raw_stdout) == OWNERS
    lines(user, "commit", "f", "again:1")
    saved = user.orlop("save", "foreign:1").raw_stdout
    with tarfile.open(fileobj=io.BytesIO(saved)) as image:
        manifest = json.load(image.extractfile("manifest.json"))  # type: ignore[arg-type]
        layer = image.extractfile(manifest[0]["Layers"][0])
        assert layer is not None
        assert owners(layer.read()) == OWNERS
    lines(user, "rm", "f")
    for name in ("again:1", "foreign:1"):
        lines(user, "rmi", name)


def test_an_id_that_is_not_there_is_an_error_with_the_next_step(user: User) -> None:
    done = user.orlop("run", "--rm", "-u", "1000", "host", "true")
    assert done.code == 125, done
    assert "1000 is not mapped" in done.stderr
    assert "/etc/subuid" in done.stderr


def test_a_container_has_a_terminal_networks_and_execs(user: User) -> None:
    lines(user, "run", "-d", "-t", "--name", "c", "host", "sleep", "1000")
    assert lines(user, "exec", "c", "id", "-u") == ["0"]
    assert "default via" in "".join(lines(user, "exec", "c", "ip", "route"))
    lines(user, "rm", "-f", "c")


def test_there_is_no_other_id_to_be(user: User) -> None:
    for mode in ("keep-id", "nomap"):
        done = user.orlop("run", "--rm", "--userns", mode, "host", "true")
        assert done.code == 125, done
        assert "it takes subordinate uids, and this engine has one id" in done.stderr
        assert "`orlop doctor` says how to get some" in done.stderr
