"""`--userns keep-id` and `nomap` of an ordinary user: who started it has the same id inside, or none.

The kernel maps no mounts for such a user, so an image's layers are unpacked once more with other owners: that this
shows nowhere but on disk is what is looked at.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support import rootless
from support.rootless import UID, User

COUNT = 65537  # the user and its subordinate ids


@pytest.fixture(scope="module")
def user() -> Iterator[User]:
    with rootless.user() as somebody:
        yield somebody


def lines(user: User, *words: str | Path) -> list[str]:
    done = user.orlop(*words)
    assert done.code == 0, done
    return done.stdout.splitlines()


def uid_map(shown: list[str]) -> list[list[int]]:
    return [[int(word) for word in line.split()] for line in shown]


def owners(data: bytes) -> dict[str, tuple[int, int]]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {each.name.removeprefix("./"): (each.uid, each.gid) for each in archive}


def test_who_started_it_is_the_same_inside_and_owns_what_is_mounted(user: User) -> None:
    script = "id -u; id -g; touch /w/made /v/made; stat -c %u:%g /w/made /v/made / /etc/hosts /etc/passwd"
    seen = ("-v", f"{user.home}:/w", "-v", "kept:/v", "host")
    own = f"{UID}:{UID}"
    shown = lines(user, "run", "--rm", "--userns", "keep-id", *seen, "sh", "-c", script)
    assert shown == [str(UID), str(UID), own, own, "0:0", "0:0", "0:0"]
    assert (user.home / "made").stat().st_uid == UID
    shown = lines(user, "run", "--rm", "--userns", "keep-id:uid=1000,gid=1001", *seen, "sh", "-c", script)
    assert shown == ["1000", "1001", "1000:1001", "1000:1001", "0:0", "0:0", "0:0"]
    assert lines(user, "run", "--rm", "--userns", "keep-id", "-u", "0", "host", "id", "-u") == ["0"]
    lines(user, "volume", "rm", "kept")


def test_the_maps_are_podmans(user: User) -> None:
    read = ("host", "cat", "/proc/self/uid_map")
    shown = uid_map(lines(user, "run", "--rm", "--userns", "keep-id:uid=1000", *read))
    assert shown == [[0, 1, 1000], [1000, 0, 1], [1001, 1001, COUNT - 1001]]
    shown = uid_map(lines(user, "run", "--rm", "--userns", "keep-id:uid=100,size=5000", *read))
    assert shown == [[0, 1, 100], [100, 0, 1], [101, 101, 4899]]
    assert uid_map(lines(user, "run", "--rm", "--userns", "nomap", *read)) == [[0, 1, COUNT - 1]]


CRUN = """#!/bin/sh
while [ $# -gt 0 ] && [ "$1" != --bundle ]; do shift; done
[ $# -gt 0 ] && cp "$2/config.json" "$HOME/config.json"
exit 1
"""


def test_podman_asks_its_runtime_for_the_same_maps(user: User, peer: Callable[[str], Path]) -> None:
    # What runs there is not looked at, only what podman wants of its runtime.
    podman, tree, crun = peer("podman"), user.home / "tree", user.directory / "crun"
    tree.mkdir()
    os.chown(tree, UID, UID)
    crun.write_text(CRUN)
    crun.chmod(0o755)
    for mode in ("keep-id", "keep-id:uid=1000,gid=1001", "nomap"):
        words = ("--cgroups=disabled", "--network=none", "--userns", mode, "--rootfs", tree, "/none")
        user.run(podman, "--runtime", crun, "run", "--rm", *words)
        wanted = json.loads((user.home / "config.json").read_bytes())["linux"]
        (user.home / "config.json").unlink()
        theirs = [[each["containerID"], each["hostID"], each["size"]] for each in wanted["uidMappings"]]
        theirs += [[each["containerID"], each["hostID"], each["size"]] for each in wanted["gidMappings"]]
        read = ("cat", "/proc/self/uid_map", "/proc/self/gid_map")
        assert uid_map(lines(user, "run", "--rm", "--userns", mode, "host", *read)) == theirs, mode
    user.run(podman, "system", "migrate")  # ends the process that holds its namespaces
    Path(f"/dev/shm/libpod_rootless_lock_{UID}").unlink(missing_ok=True)


def test_without_ones_own_id_nothing_of_ones_own_is_reached(user: User) -> None:
    (user.home / "private").write_text("x")
    (user.home / "private").chmod(0o600)
    os.chown(user.home / "private", UID, UID)
    done = user.orlop("run", "--rm", "--userns", "nomap", "-v", f"{user.home}/private:/p", "host", "cat", "/p")
    assert done.code == 1 and "Permission denied" in done.stderr, done


def test_what_is_made_shows_the_containers_owners_everywhere(user: User) -> None:
    made = {"one": (7, 8), "own": (1000, 0)}
    script = "touch /one /own; chown 7:8 /one; chown 1000 /own; mkfifo /tmp/up; exec sleep 1000"
    lines(user, "secret", "create", "-l", "a=b", "s", "/etc/hostname")
    words = ("--userns", "keep-id:uid=1000", "-u", "0", "--secret", "s", "host", "sh", "-c", script)
    lines(user, "run", "-d", "--name", "k", *words)
    rootless.wait_for("its files", lambda: "A /tmp/up" in lines(user, "diff", "k"))
    assert lines(user, "exec", "k", "stat", "-c", "%u:%g", "/run/secrets/s") == ["0:0"]
    for state in ("running", "exited"):
        assert lines(user, "inspect", "-f", "{{.State.Status}}", "k") == [state]
        for name, owner in made.items():
            assert owners(user.orlop("cp", f"k:/{name}", "-").raw_stdout) == {name: owner}, state
        exported = owners(user.orlop("export", "k").raw_stdout)
        assert exported["etc/passwd"] == (0, 0) and {name: exported[name] for name in made} == made, state
        lines(user, "stop", "-t", "0", "k")
    lines(user, "commit", "k", "kept:1")
    stat = ("stat", "-c", "%u:%g", "/one", "/own", "/etc/passwd")
    for mode in ("host", "keep-id:uid=1000", "nomap"):
        assert lines(user, "run", "--rm", "--userns", mode, "kept:1", *stat) == ["7:8", "1000:0", "0:0"], mode
    lines(user, "start", "k")
    joins = ("--userns", "container:k", "host", "cat", "/proc/self/uid_map")
    assert uid_map(lines(user, "run", "--rm", *joins))[1] == [1000, 0, 1]
    lines(user, "rm", "-f", "k")
    lines(user, "secret", "rm", "s")


def test_trees_with_other_owners_are_kept_as_long_as_their_image_and_no_longer(user: User) -> None:
    layers = user.home / ".local/share/orlop/snapshots/layers"
    run = ("run", "--rm", "--userns", "keep-id:uid=1234", "host", "true")
    lines(user, *run)
    known = set(os.listdir(layers))
    lines(user, *run)
    assert set(os.listdir(layers)) == known
    assert lines(user, "system", "fsck") == ["Everything is in order."]
    assert not [line for line in lines(user, "system", "df", "--verify") if "no image needs" in line]
    lines(user, "system", "prune", "-f")
    assert set(os.listdir(layers)) == known
    for name in lines(user, "images", "-q", "--no-trunc"):
        lines(user, "rmi", "-f", name)
    assert os.listdir(layers) == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--userns", "keep-id:uid=x"), "invalid USER mode: keep-id:uid=x"),
        (("--userns", "keep-id:"), "invalid USER mode: keep-id:"),
        (("--userns", "keep-id:uid=4294967295"), "invalid USER mode"),
        (("--userns", "nomap:uid=1"), "invalid USER mode: nomap:uid=1"),
        (("--userns", "keep-id", "--privileged"), "privileged mode is incompatible with user namespaces"),
        (("--userns", "auto"), "whose root can't map mounts of the machine's file systems"),
    ],
)
def test_what_can_not_be_is_an_error(user: User, words: tuple[str, ...], told: str) -> None:
    done = user.orlop("run", "--rm", *words, "host", "true")
    assert done.code == 125, done
    assert told in done.stderr and "Next: " in done.stderr
