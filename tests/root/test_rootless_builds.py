"""Builds of an ordinary user, with subordinate ids and with one id: every mount, network, right, device and output."""

from __future__ import annotations

import json
import os
import socket
import tarfile
from collections.abc import Iterator

import pytest

from support import rootless
from support.engine import COMMAND, Finished
from support.rootless import UID, User

CDI = """
cdiVersion: 0.6.0
kind: vendor.example/device
devices:
- name: one
  containerEdits:
    env: [ONE=1]
    deviceNodes: [{path: /dev/one, hostPath: /dev/zero}]
    mounts: [{hostPath: /etc/passwd, containerPath: /vendor/passwd, options: [ro, rbind]}]
"""
MOUNTS = """FROM host AS other
RUN mkdir /tree && echo other >/tree/f && ln -s /tree/f /link
FROM host
RUN --mount=type=bind,source=folder,target=/b --mount=type=bind,from=other,source=/tree,target=/o,rw \
    cat /b/f /o/f >/out && echo more >/o/new && cat /o/new >>/out && ! touch /b/x 2>/tmp/e
RUN --mount=type=bind,from=other,source=/link,target=/linked cat /linked >>/out
RUN --mount=type=cache,target=/c,id=a,mode=0711,sharing=locked echo 1 >>/c/n && stat -c %a /c >>/out
RUN --mount=type=cache,target=/c,id=a,mode=0711,sharing=locked,ro wc -l </c/n >>/out && ! touch /c/x 2>/tmp/e
RUN --mount=type=cache,target=/c,id=b,from=other,source=/tree,sharing=private cat /c/f >>/out
RUN --mount=type=tmpfs,target=/t,size=1m stat -f -c %T /t >>/out && ! head -c 2000000 /dev/zero >/t/x 2>/tmp/e
RUN --mount=type=secret,id=s,mode=0440 --mount=type=secret,id=s,env=S,target=/own/s \
    cat /run/secrets/s /own/s | wc -c >>/out && stat -c %a /run/secrets/s >>/out && echo ${#S} >>/out
RUN --mount=type=ssh,id=agent [ -S "$SSH_AUTH_SOCK" ] && echo agent >>/out
RUN --network=none ls /sys/class/net >>/out
RUN <<EOF
#!/bin/sh
echo script >>/out
EOF
COPY --link --chmod=750 folder /linked/
"""
SAID = "of the folder,other,more,other,711,1,other,tmpfs,26,440,13,agent,lo,script".split(",")


WHOLE = os.environ.get("ORLOP_TEST_BUILDS") == "all"
IDS, ONE_ID = pytest.param(True, id="ids"), pytest.param(False, id="one id")


def by(*kinds: object) -> pytest.MarkDecorator:
    """Run a test as these users; as both in the long form."""
    return pytest.mark.parametrize("user", (IDS, ONE_ID) if WHOLE else kinds, indirect=True)


@pytest.fixture(scope="module")
def user(request: pytest.FixtureRequest) -> Iterator[User]:
    with rootless.user(ids=request.param) as somebody:
        (somebody.home / "cdi").mkdir(mode=0o755)
        (somebody.home / "cdi/one.yaml").write_text(CDI.lstrip())
        started = somebody.run("env", f"ORLOP_CDI_DIRS={somebody.home}/cdi", COMMAND, "run", "--rm", "host", "true")
        assert started.code == 0, started
        folder = somebody.home / "context/folder"
        folder.mkdir(parents=True)
        (folder / "f").write_text("of the folder\n")
        (somebody.home / "secret").write_text("sesame-sesame")
        for path in (somebody.home / "context", folder, *folder.iterdir(), somebody.home / "secret"):
            path.chmod(0o755)
        yield somebody


def build(user: User, text: str, *options: str, progress: str = "-q") -> Finished:
    context = user.home / "context"
    (context / "Dockerfile").write_text(text)
    (context / "Dockerfile").chmod(0o644)
    return user.orlop("build", progress, *options, str(context))


def shown(user: User, done: Finished, *command: str) -> str:
    assert done.code == 0, done
    told = user.orlop("run", "--rm", "--network=none", done.stdout.strip(), *command)
    assert told.code == 0, told
    return told.stdout


@by(ONE_ID)
def test_mounts_of_every_kind(user: User) -> None:
    place = user.home / "agent.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as agent:
        agent.bind(str(place))
        agent.listen()
        place.chmod(0o777)
        options = ("--secret", f"id=s,src={user.home}/secret", "--ssh", f"agent={place}")
        done = build(user, MOUNTS, *options)
        assert shown(user, done, "cat", "/out").split("\n")[:-1] == SAID
    place.unlink()
    assert shown(user, done, "stat", "-c", "%a %u", "/linked/f").split() == ["750", "0"]
    assert shown(user, done, "sh", "-c", "ls -d /b /o /c /t /own 2>/dev/null; true") == ""


@by(ONE_ID)
def test_networks_rights_and_devices(user: User) -> None:
    looks = "FROM host\nRUN %s ls /sys/class/net | tr '\\n' ' ' >/out\n"
    alone = shown(user, build(user, looks % "--network=none"), "cat", "/out").split()
    linked = shown(user, build(user, looks % "--network=default"), "cat", "/out").split()
    assert alone == ["lo"] and set(linked) > {"lo"}
    assert "network.host is not allowed" in build(user, looks % "--network=host").stderr
    assert build(user, looks % "--network=host", "--allow=network.host").code == 0
    insecure = "FROM host\nRUN --security=insecure mount -t tmpfs none /mnt && grep CapEff /proc/self/status >/out\n"
    assert "security.insecure is not allowed" in build(user, insecure).stderr
    caps = shown(user, build(user, insecure, "--allow=security.insecure"), "cat", "/out").split()[1]
    assert int(caps, 16) >> 21 & 1, "CAP_SYS_ADMIN"
    looks = "echo $ONE >/out; head -c 3 /dev/one | wc -c >>/out; grep -c root: /vendor/passwd >>/out"
    device = f"FROM host\nRUN --device=vendor.example/device=one {looks}\n"
    assert "device=one is not allowed" in build(user, device).stderr
    told = shown(user, build(user, device, "--allow=device"), "cat", "/out").split()
    assert told[:2] == ["1", "3"] and int(told[2]) >= 1


@by(IDS)
def test_outputs_and_caches(user: User) -> None:
    text = (
        "FROM host\nRUN echo made >/made\nCOPY folder /folder\nFROM scratch AS small\nCOPY --from=0 /made /folder /\n"
    )
    home = user.home
    small = ("--target", "small")
    for output in (f"oci,dest={home}/o.tar,compression=zstd", f"docker,dest={home}/d.tar", f"tar,dest={home}/t.tar"):
        assert (done := build(user, text, *small, "-o", f"type={output}")).code == 0, done
    done = build(user, text, *small, "-o", f"type=local,dest={home}/files", "--attest=type=sbom", "--provenance=true")
    assert done.code == 0, done
    written = {path.name: path for path in (home / "files").iterdir()}
    assert written.keys() == {"made", "f", "sbom.spdx.json", "provenance.json"}
    assert written["made"].read_text() == "made\n" and written["made"].stat().st_uid == UID
    with tarfile.open(home / "t.tar") as archive:
        assert sorted(name.lstrip("./") for name in archive.getnames() if name.strip("./")) == ["f", "made"]
    with tarfile.open(home / "o.tar") as archive:
        file = archive.extractfile("index.json")
        assert file is not None and json.load(file)["manifests"]
    loaded = user.orlop("load", "-q", "-i", str(home / "d.tar"))
    assert loaded.code == 0, loaded
    place = f"type=local,dest={home}/cache,mode=max"
    assert (done := build(user, text, "--squash", "--cache-to", place)).code == 0, done
    assert user.orlop("builder", "prune", "-af").code == 0
    done = build(user, text, "--cache-from", f"type=local,src={home}/cache", progress="--progress=plain")
    assert done.code == 0 and "CACHED" in done.stderr, done
    for name in ("files", "cache"):
        removed = user.run("rm", "-r", str(home / name))
        assert removed.code == 0, removed


@by(IDS)
def test_a_failing_step_is_entered_and_a_base_is_changed(user: User) -> None:
    failed = build(user, "FROM host\nRUN echo before >/before\nRUN echo kept >/kept; false\n")
    assert failed.code == 1
    name = user.orlop("builder", "ls").stdout.splitlines()[1].split()[0]
    entered = user.orlop("builder", "shell", name, "cat", "/kept", "/before")
    assert entered.stdout == "kept\nbefore\n", entered
    for tag, line in (("old:1", "RUN echo old >/base"), ("new:1", "RUN echo new >/base")):
        assert build(user, f"FROM host\n{line}\n", "-t", tag).code == 0
    assert build(user, "FROM old:1\nRUN echo own >/own\n", "-t", "app:1").code == 0
    done = user.orlop("rebase", "app:1", "--from", "old:1", "--to", "new:1", "-t", "app:2")
    assert done.code == 0, done
    told = user.orlop("run", "--rm", "--network=none", "app:2", "cat", "/base", "/own")
    assert told.stdout == "new\nown\n", told


@by(IDS, ONE_ID)
def test_owners_are_those_that_there_are(user: User, request: pytest.FixtureRequest) -> None:
    one_id = "one id" in request.node.name
    text = "FROM host\nCOPY --chown=7:8 folder /folder\nRUN stat -c %u:%g /folder/f >/out; chown 9 /out\n"
    done = build(user, text)
    if one_id and done.code:
        assert "id" in done.stderr, done
        return
    assert shown(user, done, "cat", "/out") == "7:8\n"
