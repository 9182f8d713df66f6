"""Builds whose Dockerfile, context or server wants more than a build may have (SEC-50, SEC-60 to SEC-67).

Everything that a step must not reach is a canary of the test's on the host: a directory with a file that keeps its
content, and stays the only one in it.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from support.engine import Environment, Finished

SECRET = "what no build may see"


class Canary:
    """A directory on the host that nobody may change or read."""

    def __init__(self, place: Path) -> None:
        self.place = place
        (place / "keep/deep").mkdir(parents=True)
        (place / "keep/deep/file").write_text(SECRET)
        (place / "secret").write_text(SECRET)

    def check(self) -> None:
        found = sorted(str(path.relative_to(self.place)) for path in self.place.rglob("*"))
        assert found == ["keep", "keep/deep", "keep/deep/file", "secret"]
        assert (self.place / "secret").read_text() == SECRET


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Canary]:
    found = Canary(tmp_path / "canary")
    yield found
    found.check()


@pytest.fixture
def context(tmp_path: Path) -> Path:
    place = tmp_path / "context"
    place.mkdir()
    return place


def build(orlop: Environment, context: Path, text: str, *options: str | Path, **more: object) -> Finished:
    (context / "Dockerfile").unlink(missing_ok=True)
    (context / "Dockerfile").write_text(text)
    return orlop("build", *options, context, check=False, **more)


def said(finished: Finished) -> str:
    return finished.stdout + finished.stderr


def test_the_id_of_a_cache_leads_nowhere(orlop: Environment, context: Path, canary: Canary) -> None:
    before = set(os.listdir("/etc"))
    text = "FROM host\n"
    for number, name in enumerate(("../../../../canary/keep", "/etc", "..", "a/../../b", "%2e%2e/x", "-x", "x" * 300)):
        text += f"RUN --mount=type=cache,id={name},target=/c ls /c/left || echo {number} > /c/left\n"
        text += f"RUN --mount=type=cache,id={name},target=/d grep -x {number} /d/left\n"
    found = build(orlop, context, text)
    assert found.code == 0, said(found)
    assert set(os.listdir("/etc")) == before


def test_a_cache_s_subdirectory_that_became_a_link(orlop: Environment, context: Path, canary: Canary) -> None:
    text = (
        "FROM host AS base\nRUN mkdir -p /tree/sub\n"
        f"FROM host\nRUN --mount=type=cache,id=c,target=/c ln -sfn {canary.place} /c/sub\n"
        "RUN --mount=type=cache,id=c,from=base,source=/tree/sub,target=/d ls -la /d/; echo x > /d/left; true\n"
        "RUN --mount=type=cache,id=c,target=/c ls -la /c/sub/ && exit 1 || true\n"
    )
    found = build(orlop, context, text)
    assert SECRET not in said(found)


def test_a_cache_s_part_that_a_step_beside_swaps(orlop: Environment, context: Path, canary: Canary) -> None:
    """CVE-2024-23651: two steps at once on one cache, of which one exchanges a directory and a link all the time."""
    swap = "mv /c/sub /c/d; mv /c/link /c/sub; mv /c/sub /c/link; mv /c/d /c/sub"
    swap = f"i=0; while [ $i -lt 200 ]; do i=$((i+1)); {swap}; done"
    text = (
        f"FROM host AS base\nRUN --mount=type=cache,id=c,target=/c mkdir -p /c/sub; ln -s {canary.place} /c/link\n"
        f"FROM base AS evil\nRUN --mount=type=cache,id=c,target=/c {swap}; touch /done\n"
    )
    for number in range(4):
        look = f"cat /d/secret /d/keep/deep/file; echo x > /d/left; touch /done{number}"
        text += f"FROM base AS v{number}\nRUN --mount=type=cache,id=c,source=/sub,target=/d {look}\n"
    text += "FROM host\nCOPY --from=evil /done /\n"
    text += "".join(f"COPY --from=v{number} /done{number} /\n" for number in range(4))
    found = build(orlop, context, text, "--progress=plain")
    assert SECRET not in said(found) and "defect" not in said(found)


def test_what_stands_where_a_mount_was_is_not_removed_on_the_host(
    orlop: Environment, context: Path, canary: Canary
) -> None:
    text = (
        f"FROM host\nRUN --mount=type=tmpfs,target=/m/keep/deep mkdir -p /n && mv /m /n/m; rm -rf /m; "
        f"ln -s {canary.place} /m; true\n"
        f"RUN --mount=type=bind,target=/x/keep/deep/file,source=Dockerfile mv /x /n/x; ln -s {canary.place} /x; true\n"
        "RUN true\n"
    )
    build(orlop, context, text)
    canary.check()


def test_a_bind_from_a_stage_stays_in_the_stage(orlop: Environment, context: Path, canary: Canary) -> None:
    evil = f"RUN ln -s / /link; ln -s ../../../../../../../.. /up; mkdir -p {canary.place.parent}"
    for source in ("/link", "/link/..", "/up", "/link/etc"):
        text = (
            f"FROM host AS evil\n{evil}\nFROM host\nRUN --mount=type=bind,from=evil,source={source},target=/h,rw "
            f"cat /h{canary.place}/secret; echo x > /h{canary.place}/left; ls /h{canary.place}; true\n"
        )
        assert SECRET not in said(build(orlop, context, text)), source


def test_a_link_in_the_context_leads_nowhere(orlop: Environment, context: Path, canary: Canary) -> None:
    (context / "dir").mkdir()
    (context / "link").symlink_to(canary.place / "secret")
    (context / "dir/link").symlink_to(canary.place / "secret")
    (context / "up").symlink_to("../canary/secret")
    for instruction in ("COPY link /x", "COPY dir/link /x", "ADD link /x", "COPY up /x", "COPY dir /x"):
        text = f"FROM host\n{instruction}\nRUN cat /x /x/link; true\n"
        assert SECRET not in said(build(orlop, context, text)), instruction


def test_a_copy_from_a_stage_stays_in_the_stage(orlop: Environment, context: Path, canary: Canary) -> None:
    for source in ("/link/secret", "/up/secret", "/../../canary/secret"):
        text = (
            f"FROM host AS evil\nRUN ln -s {canary.place} /link; ln -s ../../../../../../../..{canary.place} /up\n"
            f"FROM host\nCOPY --from=evil {source} /x\nRUN cat /x\n"
        )
        found = build(orlop, context, text)
        assert SECRET not in said(found)
        assert found.code != 0


def test_a_destination_that_is_a_link_stays_in_the_image(orlop: Environment, context: Path, canary: Canary) -> None:
    (context / "a").write_text("a")
    text = f"FROM host\nRUN ln -s {canary.place} /out; ln -s ../../../../../../..{canary.place} /up\n"
    text += "COPY a /out/left\nCOPY a /up/left\nADD a /out/deep/left\nWORKDIR /out/made\nRUN pwd\n"
    build(orlop, context, text)


def _archive(entries: dict[str, tuple[bytes, str | bytes]]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as made:
        for name, (kind, content) in entries.items():
            member = tarfile.TarInfo(name)
            member.type = kind
            if isinstance(content, str):
                member.linkname = content
                made.addfile(member)
            else:
                member.size = len(content)
                made.addfile(member, io.BytesIO(content))
    return out.getvalue()


def _archives(canary: Canary) -> Iterator[dict[str, tuple[bytes, str | bytes]]]:
    """Contexts as archives: links in place of what a build reads, ways through links, names that lead out."""
    secret = str(canary.place / "secret")
    text = b"FROM host\nCOPY . /c\nRUN cat /c/hard /c/sub/left /c/link; ls -laR /c; true\n"
    dockerfile: dict[str, tuple[bytes, str | bytes]] = {"Dockerfile": (tarfile.REGTYPE, text)}
    yield {"Dockerfile": (tarfile.SYMTYPE, secret)}
    yield dockerfile | {".dockerignore": (tarfile.SYMTYPE, secret)}
    yield dockerfile | {"sub": (tarfile.SYMTYPE, str(canary.place)), "sub/left": (tarfile.REGTYPE, b"x")}
    yield dockerfile | {"hard": (tarfile.LNKTYPE, secret)}
    yield dockerfile | {"../../../../../../../.." + str(canary.place / "left"): (tarfile.REGTYPE, b"x")}
    yield dockerfile | {str(canary.place / "left"): (tarfile.REGTYPE, b"x")}


def test_an_archive_as_context_leads_nowhere(orlop: Environment, canary: Canary) -> None:
    for entries in _archives(canary):
        found = orlop("build", "-", input=_archive(entries), check=False)
        assert SECRET not in said(found), entries
        canary.check()


def test_a_command_sees_only_declared_variables(orlop: Environment, context: Path) -> None:
    text = "FROM host\nARG DECLARED=1\nENV KEPT=2\nRUN env | sort\nRUN cat /proc/self/environ | tr '\\0' '\\n'\n"
    own = {"LEAKED_BY_HOST": SECRET, "AWS_SECRET_ACCESS_KEY": SECRET}
    shown = said(build(orlop, context, text, "--build-arg", "UNDECLARED=x", "--no-cache", "--progress=plain", env=own))
    assert SECRET not in shown and "LEAKED" not in shown
    assert "UNDECLARED=" not in shown
    assert "DECLARED=1" in shown and "KEPT=2" in shown


class _Redirecting(BaseHTTPRequestHandler):
    """Sends whoever asks to the place that the path names."""

    def do_GET(self) -> None:
        if self.path == "/file":
            self.send_response(200)
            self.send_header("Content-Length", "4")
            self.end_headers()
            self.wfile.write(b"good")
            return
        self.send_response(302)
        self.send_header("Location", TARGETS[self.path.strip("/")])
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


TARGETS = {
    "local": "file:///etc/hostname",
    "metadata": "http://169.254.169.254/latest/meta-data/",
    "socket": "unix:///var/run/docker.sock",
    "ftp": "ftp://127.0.0.1/x",
    "loop": "/loop",
    "own": "/file",  # this machine's own services are nobody's to be sent to
}


@pytest.fixture
def server(orlop: Environment) -> Iterator[str]:
    found = orlop.inside(lambda: ThreadingHTTPServer(("127.0.0.1", 0), _Redirecting))
    assert isinstance(found, ThreadingHTTPServer)
    thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{found.server_address[1]}"
    found.shutdown()
    thread.join()
    found.server_close()


def test_a_url_leads_to_no_file_socket_or_metadata(orlop: Environment, context: Path, server: str) -> None:
    for name in TARGETS:
        found = build(orlop, context, f"FROM host\nADD {server}/{name} /x\nRUN cat /x\n")
        assert found.code != 0, name
        assert Path("/etc/hostname").read_text().strip() not in found.stdout, name


def test_a_checksum_is_enforced(orlop: Environment, context: Path, server: str) -> None:
    right = "770e607624d689265ca6c44884d0807d9b054d23c473c106c72be9de08b7376c"
    text = "FROM scratch\nADD --checksum=sha256:{digest} {server}/file /x\n"
    wrong = build(orlop, context, text.format(digest="0" * 64, server=server))
    assert wrong.code != 0 and "digest" in said(wrong)
    assert build(orlop, context, text.format(digest=right, server=server)).code == 0


def test_an_image_s_triggers_are_bounded_by_the_dockerfile(orlop: Environment, context: Path, canary: Canary) -> None:
    text = f"FROM scratch\nONBUILD ADD file://{canary.place}/secret /x\nONBUILD COPY {canary.place}/secret /x\n"
    assert build(orlop, context, text, "-t", "evil:1").code == 0
    found = build(orlop, context, "FROM evil:1\n", "-t", "victim:1")
    assert found.code != 0
    assert SECRET not in said(found)
    text = "FROM host\nONBUILD RUN --security=insecure true\nONBUILD RUN --network=host true\n"
    assert build(orlop, context, text, "-t", "evil:2").code == 0
    found = build(orlop, context, "FROM evil:2\n")
    assert found.code != 0 and "security.insecure" in said(found)


def test_a_mount_s_options_are_docker_s_only(orlop: Environment, context: Path) -> None:
    for option in ("bind-propagation=shared", "propagation=rshared", "exec", "z", "U=true", "type=bind,relabel=shared"):
        found = build(orlop, context, f"FROM host\nRUN --mount=type=bind,target=/x,{option} true\n")
        assert found.code != 0, option
        assert json.dumps(found.stderr)  # told as text, not as a defect
        assert "defect" not in found.stderr


# -- images that lie -------------------------------------------------------------------------------------------------


def test_all_that_a_step_sees_is_in_its_key(orlop: Environment, context: Path) -> None:
    """SEC-50: another environment, user, directory, shell or label of the base, another argument: made anew."""
    step = 'RUN echo "$(id -u) $PWD $A $0 $-" > /made\n'
    changes = ["", "ENV A=1\n", "ENV A=2\n", "USER 7\n", "WORKDIR /w\n", 'SHELL ["/bin/sh", "-xc"]\n', "ARG A=3\n"]
    (context / "f").write_text("f")
    made = set()
    for change in changes:
        text = f"FROM host AS base\nRUN chmod 777 / && mkdir -m 777 /w\nFROM base\n{change}{step}"
        told = build(orlop, context, text, "--progress=plain", "-t", "one:1")
        assert told.code == 0, said(told)
        made.add(orlop("run", "--rm", "--network=none", "one:1", "cat", "/made").stdout)
    assert len(made) == len(changes)
