"""USER, looked up below a root: docker's rules, and the inputs that once made somebody root."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orlop.runtime import users
from orlop.spec.errors import Invalid, NotFound
from orlop.spec.runtime import Process

PASSWD = """\
# the first match counts
root:x:0:0:root:/root:/bin/sh

ann:x:1000:1000:Ann:/home/ann:/bin/sh
ann:x:0:0:second:/evil:/bin/sh
1000:x:0:0:named like a number:/root:/bin/sh
4242:x:0:0::/root:/bin/sh
bob:x:1001:100::relative:/bin/sh
big:x:4294967296:0::/:/bin/sh
broken:x:abc:0::/:/bin/sh
short:x
"""
GROUP = """\
root:x:0:
wheel:x:10:root,ann
ann:x:1000:
users:x:100:
audio:x:29:bob,ann
29:x:0:
broken:x:abc:ann
"""

Resolve = Callable[..., users.Identity]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text(PASSWD)
    (tmp_path / "etc/group").write_text(GROUP)
    return tmp_path


@pytest.fixture
def resolve(tree: Path) -> Iterator[Resolve]:
    fd = os.open(tree, os.O_PATH)
    yield lambda user, *groups: users.resolve(fd, user, groups)
    os.close(fd)


def told(identity: users.Identity) -> tuple[int, int, tuple[int, ...], str]:
    return identity.uid, identity.gid, identity.additional_gids, identity.home


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", (0, 0, (0, 10), "/root")),
        ("root", (0, 0, (0, 10), "/root")),
        ("0", (0, 0, (0, 10), "/root")),
        ("ann", (1000, 1000, (1000, 10, 29), "/home/ann")),
        ("ann:users", (1000, 100, (100,), "/home/ann")),
        ("ann:7", (1000, 7, (7,), "/home/ann")),
        ("1001", (1001, 100, (100, 29), "/")),
        ("5000", (5000, 0, (0,), "/")),
        ("5000:29", (5000, 29, (29,), "/")),
        ("2147483647:2147483647", (2147483647, 2147483647, (2147483647,), "/")),
    ],
)
def test_names_and_numbers(resolve: Resolve, user: str, expected: object) -> None:
    assert told(resolve(user)) == expected


def test_a_number_is_never_a_name(resolve: Resolve) -> None:
    assert told(resolve("1000")) == (1000, 1000, (1000, 10, 29), "/home/ann")
    assert told(resolve("4242")) == (4242, 0, (0,), "/")
    assert resolve("4242").uid != 0
    assert resolve("ann:29").gid == 29


def test_more_groups(resolve: Resolve) -> None:
    assert resolve("ann:users", "audio", "77", "wheel", "audio").additional_gids == (100, 29, 77, 10)
    with pytest.raises(NotFound, match="unable to find group nosuch: no matching entries in group file"):
        resolve("ann", "nosuch")


@pytest.mark.parametrize("user", ["nosuch", "-1", " 0", "0 ", "0x0", "+0", "1e3", "root ", "٣", "broken", "short"])
def test_who_is_not_there(resolve: Resolve, user: str) -> None:
    with pytest.raises(NotFound) as caught:
        resolve(user)
    assert str(caught.value) == f"unable to find user {user}: no matching entries in passwd file"


@pytest.mark.parametrize(
    "user", ["2147483648", "4294967295", "4294967296", "18446744073709551616", "0:4294967296", "big"]
)
def test_ids_out_of_range(resolve: Resolve, user: str) -> None:
    with pytest.raises(Invalid, match="uids and gids must be in range 0-2147483647"):
        resolve(user)


@pytest.mark.parametrize("user", ["1000:", ":1000", ":", "a:b:c", "root:", "9" * 21 + ":0"])
def test_malformed_users(resolve: Resolve, user: str) -> None:
    with pytest.raises((Invalid, NotFound)):
        resolve(user)


def test_without_files_numbers_work_and_names_do_not(tree: Path, resolve: Resolve) -> None:
    (tree / "etc/passwd").unlink()
    (tree / "etc/group").unlink()
    assert told(resolve("")) == (0, 0, (0,), "/")
    assert told(resolve("7:8", "9")) == (7, 8, (8, 9), "/")
    with pytest.raises(NotFound):
        resolve("root")


def _link_to_zero(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 8 << 30)


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


def _directory(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("make", [_fifo, _sparse, _loop, _directory])
@pytest.mark.parametrize("name", ["passwd", "group"])
def test_hostile_files_are_an_error_at_once(
    tree: Path, resolve: Resolve, name: str, make: Callable[[Path], None]
) -> None:
    (tree / "etc" / name).unlink()
    make(tree / "etc" / name)
    before = time.monotonic()
    with pytest.raises(Invalid, match=f"/etc/{name} of the image"):
        resolve("ann")
    assert time.monotonic() - before < 2


def test_a_link_out_of_the_root_leads_nowhere(tree: Path, resolve: Resolve) -> None:
    (tree / "etc/passwd").unlink()
    _link_to_zero(tree / "etc/passwd")  # below this root there is no /dev/zero
    assert resolve("0").uid == 0
    (tree / "etc/passwd").unlink()
    (tree / "etc/passwd").symlink_to("../../../../../../etc/passwd")
    with pytest.raises(Invalid, match="/etc/passwd of the image"):
        resolve("root")


def test_a_million_groups_cost_little_memory(tree: Path, resolve: Resolve) -> None:
    line = b"g:x:7:\n"
    (tree / "etc/group").write_bytes(line * (users.FILE_BYTES_MAX // len(line)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert resolve("ann:g").gid == 7
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024


def test_home_is_added_only_where_it_is_missing() -> None:
    identity = users.Identity(5, 6, (6, 7), "/home/x")
    process = users.apply(Process(cwd="/", env=("A=1",)), identity)
    assert process.env == ("A=1", "HOME=/home/x")
    assert (process.user.uid, process.user.gid, process.user.additional_gids) == (5, 6, (6, 7))
    assert users.apply(Process(cwd="/", env=("HOME=/h",)), identity).env == ("HOME=/h",)
