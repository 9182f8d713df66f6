"""Every command of the command line, as an ordinary user with subordinate ids and as one without any.

What an ordinary user can't have is an error with a next step (I3); everything else works, and ends with 0.
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orlop.frontends.cli import commands
from support import builds, processes, rootless
from support.rootless import User

# Those of a terminal, of a machine without end, or of another host; each is seen elsewhere.
ELSEWHERE = {
    "adopt": "it asks another engine, and is a create here: test_adopt",
    "attach": "test_terminal_story",
    "bake": "test_bake_command",
    "bootstrap": "it is import and push: test_bootstrap",
    "builder shell": "test_build: it needs a terminal",
    "builder logs": "it needs a build's id: test_build",
    "buildah unshare": "it needs ids of the user's own, which one of the two users here has not",
    "builder pin": "it needs a cache mount: test_build",
    "builder unpin": "the same",
    "container clone": "test_podman_words",
    "dashboard": "test_dashboard",
    "image copy": "it is push and pull: test_image_copy",
    "image sync": "test_image_copy",
    "image rebase": "it needs two bases: test_build",
    "login": "test_registry_server, as it reaches no container",
    "machine": "vm/test_machine: it boots one",
    "logout": "the same",
    "search": "the same",
    "manifest annotate": "test_image_flags",
    "network cni": "test_rootless_cni",
    "network dns": "a group of its own: test_networks",
    "network egress": "--egress: test_rootless_ways",
    "skopeo": "test_skopeo_words, it reaches no container",
    "registry serve": "the test's own",
    "registry user": "a file, no container",
    "serve": "it is what the first command starts",
}
FIRST = """
version
info
doctor
import base.tar small
run -d --name c -p 18093:80 --label a=b -v vol:/v small sh -c 'echo said; exec sleep 1000'
exec c sh -c 'echo x >/made; echo y >/v/kept'
ps
logs c
top c
port c
stats --no-stream c
inspect c
container inspect c
audit c = 1
explain c
show-run c
nsenter -t c -a true
unshare -rm true
diff c
cp c:/made got
cp got c:/put
export -o c.tar c
commit c changed
history changed
update --restart on-failure c
rename c d
container exists d
upgrade --force -t 0 --settle 0 d
kill -s URG d
restart -t 0 d
wait x = 1
create --name e small true
start -a e
wait e
why e
network create n
network connect n d
network ls
network inspect n
network exists n
network explain d
network disconnect n d
network rm n
network prune -f
volume ls
volume inspect vol
volume exists vol
volume du
volume who
volume clone vol twin
volume snapshot twin snap
volume diff twin snap
volume rollback twin snap
volume mv twin moved
volume export -o vol.tar vol
volume import back vol.tar
volume create --label x=y plain
volume rm plain
secret create s secret
secret ls
secret inspect s
secret rekey
run --rm --secret s small cat /run/secrets/s
secret rm s
config create f secret
config ls
config inspect f
config rm f
config set security=default
config get
socket create door --allow containers:list
socket ls
socket audit door
socket rm door
pause d = 1 no cgroup to freeze it in
unpause d = 1
run --rm -m 64m small true = 125 delegated
tag changed again
images
image exists again
image inspect again
image tree again
image diff small again
save -o again.tar again
rmi again
load -i again.tar
build -t built context
builder ls
builder du
builder cache export ./mounts
builder cache import --replace ./mounts
buildah from --name w built
buildah config --env A=B w
buildah run --isolation chroot w -- sh -c 'echo $A >/a'
buildah copy w got /got
buildah add w got /added
buildah commit w by-hand
buildah containers
buildah mount w = 1 only root may mount here
buildah mount
buildah umount w = 1
buildah rename w v
buildah inspect v
buildah rm v
buildah info
buildah version
run --rm by-hand cat /a /got /added
tag built 127.0.0.1:PORT/built:1
push 127.0.0.1:PORT/built:1
rmi 127.0.0.1:PORT/built:1
rmi built
pull 127.0.0.1:PORT/built:1
manifest create 127.0.0.1:PORT/list:1 127.0.0.1:PORT/built:1
buildah manifest inspect 127.0.0.1:PORT/list:1
manifest inspect 127.0.0.1:PORT/list:1
manifest push 127.0.0.1:PORT/list:1
manifest rm 127.0.0.1:PORT/list:1
image mount small mnt = 1 only root may mount here
image unmount mnt = 1
compose -f compose.yaml up -d
compose -f compose.yaml down
rootfs from-binaries --with sh tree
run --rm --rootfs tree sh -c 'echo inside'
stop -t 0 d
events --since 1h --until 0s
builder prune -f
container prune -f
image prune -f
volume prune -f
system df
system fsck
rm -f d e
system prune -f
engine status
engine stop
"""


@pytest.fixture(scope="module", params=[True, False], ids=["ids", "one id"])
def user(request: pytest.FixtureRequest, peer: Callable[[str], Path]) -> Iterator[User]:
    with rootless.user(ids=request.param) as somebody:
        home = somebody.home
        builds.base_archive(home / "base.tar", peer("busybox"))
        (home / "secret").write_text("hidden")
        (home / "context").mkdir()
        (home / "mnt").mkdir()
        (home / "context/Dockerfile").write_text(
            "FROM small\nRUN --mount=type=cache,target=/c echo built >/built && chmod 600 /built && touch /c/x\n"
        )
        (home / "compose.yaml").write_text("services: {one: {image: small, command: sleep 1000}}\n")
        for path in (home, *home.rglob("*")):
            os.chown(path, rootless.UID, rootless.UID)
        yield somebody


def test_every_command_works_or_says_what_is_missing(user: User) -> None:
    with user.net.inside(lambda: socket.create_server(("127.0.0.1", 0))) as free:
        port = str(free.getsockname()[1])
    words = ("env", "-C", str(user.home), str(rootless.COMMAND), "registry", "serve", "--root", "registry")
    served = subprocess.Popen(user.argv(*words, "--address", f"127.0.0.1:{port}"), stderr=subprocess.DEVNULL)
    try:
        wrong = [trouble for line in FIRST.strip().splitlines() if (trouble := _said(user, line.replace("PORT", port)))]
    finally:
        for pid, line in user.processes().items():
            if "registry serve" in line:
                processes.kill(pid, processes.start_time(pid))
        served.wait(timeout=60)
    assert not wrong, "\n".join(wrong)


def _said(user: User, line: str) -> str:
    """Run one line; return what is wrong, "" for nothing."""
    command, _, expected = line.partition(" = ")
    code, _, text = expected.partition(" ")
    done = user.run("sh", "-c", f"cd {user.home} && exec {rootless.COMMAND} {command}")
    steps = "Next: " in done.stderr
    right = done.code == int(code or 0) and text in done.stderr and (done.code == 0 or steps or command == "audit c")
    return "" if right else f"{line}: {done}"


def test_no_command_is_left_out() -> None:
    known = {*commands.COMMON.items(), *commands.COMMANDS.items()}
    known |= {(f"{group} {word}", row) for group, (_, rows) in commands.GROUPS.items() for word, row in rows.items()}
    seen = set()
    for line in FIRST.strip().splitlines():
        first, *rest = line.split()
        group = commands.GROUP_ALIASES.get(first, first)
        row = commands.find(group, rest[0]) if group in commands.GROUPS else commands.find("", first)
        assert row is not None, line
        seen.add(row)
    seen |= {row for name, row in known if name in ELSEWHERE or name.partition(" ")[0] in ELSEWHERE}
    assert sorted(name for name, row in known if row not in seen) == []
    assert ELSEWHERE.keys() <= {name for name, _ in known} | commands.GROUPS.keys()
