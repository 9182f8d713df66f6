"""Where there is no pasta, slirp4netns connects an ordinary user's containers with the outside."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support import rootless
from support.rootless import User

PROGRAMS = ("newuidmap", "newgidmap", "slirp4netns")


@pytest.fixture
def user(peer: Callable[[str], Path]) -> Iterator[User]:
    found = {name: peer(name) for name in PROGRAMS}
    pasta = shutil.which("pasta", path=rootless.PLAIN_PATH)
    with rootless.user(setup=f"mount --bind /dev/null {pasta}" if pasta else "") as somebody:
        tools = somebody.directory / "tools"
        tools.mkdir()
        for name, path in found.items():
            (tools / name).symlink_to(path)
        somebody.path = f"{tools}:{rootless.PLAIN_PATH}"
        yield somebody


def test_slirp4netns_leads_outside_where_there_is_no_pasta(user: User) -> None:
    doctor = user.orlop("doctor")
    assert "bridges of your own, and slirp4netns to the outside" in doctor.stdout
    server = user.net.inside(lambda: socket.create_server((rootless.FAR, 0)))
    port = server.getsockname()[1]
    script = f"exec 3<>/dev/tcp/{rootless.FAR}/{port}; echo there >&3; cat <&3"
    words = ("run", "-d", "--name", "c", "host", "bash", "-c", script)
    done = user.orlop(*words)
    assert done.code == 0, done
    assert "does not reach the outside" not in done.stderr
    server.settimeout(60)
    taken, _ = server.accept()
    assert taken.recv(16) == b"there\n"
    taken.sendall(b"and back\n")
    taken.close()
    server.close()
    assert user.orlop("wait", "c").stdout == "0\n"
    assert user.orlop("logs", "c").stdout == "and back\n"
    assert [line for line in user.processes().values() if line.startswith("slirp4netns ")]
    assert user.orlop("rm", "-f", "c").code == 0
