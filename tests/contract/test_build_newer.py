"""What of the Dockerfile language is newer than all builders that Debian has: the trees that docker's reference tells.

Each case is built by the three doors of ours, from one Dockerfile, and what it must leave is written down here.
"""

# ruff: noqa: E501  a table of sentences

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.workspace import Workspace
from support import builders
from support.builders import Peer
from support.builds import Image, base_archive
from support.engine import Environment

# name: (instructions, {d} is the case's own directory; what is in it: "mode owner path -> content", "." the directory)
CASES: dict[str, tuple[str, str]] = {
    "link": ("COPY --link a {d}/x/y", "755 . | 755 x | 644 x/y=a"),
    "link to a directory": ("COPY --link dir {d}/new/", "755 . | 755 new | 755 new/sub | 644 new/sub/y=y | 644 new/x=x"),
    "link with an owner": ("COPY --link --chown=7:8 a {d}/", "755 7:8 . | 644 7:8 a=a"),
    "link off": ("COPY --link=false a {d}/", "755 . | 644 a=a"),
    "added by link": ("ADD --link plain.tar {d}/", "755 . | 755 t | 640 11:12 t/f=in it"),
    "parents": (
        "COPY --parents dir/sub/y other/z {d}/",
        "755 . | 755 dir | 755 dir/sub | 644 dir/sub/y=y | 755 other | 644 other/z=z",
    ),
    "parents of a wildcard": ("COPY --parents */sub/y {d}/", "755 . | 755 dir | 755 dir/sub | 644 dir/sub/y=y"),
    "parents at any depth": ("COPY --parents **/y {d}/", "755 . | 755 dir | 755 dir/sub | 644 dir/sub/y=y"),
    "parents from a pivot": ("COPY --parents ./dir/./sub/y {d}/", "755 . | 755 sub | 644 sub/y=y"),
    "parents of a directory": (
        "COPY --parents dir {d}/",
        "755 . | 755 dir | 755 dir/sub | 644 dir/sub/y=y | 644 dir/x=x",
    ),
    "parents keep their modes": ("COPY --parents modes/deep/f {d}/", "755 . | 711 modes | 700 modes/deep | 644 modes/deep/f=f"),
    "parents of a stage": ("COPY --parents --from=made /made/./sub/deep {d}/", "755 . | 750 3:4 sub | 644 sub/deep=deep\n"),
    "excluded": ("COPY --exclude=sub dir {d}/new", "755 . | 755 new | 644 new/x=x"),
    "excluded at any depth": ("COPY --exclude=**/y dir {d}/new", "755 . | 755 new | 755 new/sub | 644 new/x=x"),
    "excluded twice": ("COPY --exclude=x --exclude=sub/y dir {d}/new", "755 . | 755 new | 755 new/sub"),
    "excluded but": ("COPY --exclude=sub/* --exclude=!sub/y dir {d}/new", "755 . | 755 new | 755 new/sub | 644 new/sub/y=y | 644 new/x=x"),
    "excluded of a wildcard": ("COPY --exclude=nb* n*1.txt {d}/", "755 . | 644 na1.txt=1 | 644 nc1.txt=3"),
    "excluded by a variable": ("ENV E=x\nCOPY --exclude=$E dir {d}/new", "755 . | 755 new | 755 new/sub | 644 new/sub/y=y"),
    "added but for": ("ADD --exclude=x dir {d}/new", "755 . | 755 new | 755 new/sub | 644 new/sub/y=y"),
    "excluded of a stage": ("COPY --from=made --exclude=sub /made {d}/new", "755 . | 755 new | 600 3:4 new/owned=o\n"),
    "mode in letters": ("COPY --chmod=u=rw,g=r,o= a {d}/", "755 . | 640 a=a"),
    "mode added to": ("COPY --chmod=a+x a {d}/", "755 . | 755 a=a"),
    "mode taken from": ("COPY --chmod=go-r a {d}/", "755 . | 600 a=a"),
    "mode of directories alone": ("COPY --chmod=a=rX dir {d}/new", "755 . | 755 new | 555 new/sub | 444 new/sub/y=y | 444 new/x=x"),
    "mode by variable": ("ARG MODE=0710\nCOPY --chmod=$MODE a {d}/", "710 . | 710 a=a"),
    "mode of a directory": ("COPY --chmod=0750 dir {d}/new", "750 . | 750 new | 750 new/sub | 750 new/sub/y=y | 750 new/x=x"),
    "mode in a directory that is there": ("WORKDIR {d}/w\nCOPY --chmod=0640 a ./\nCOPY --chmod=0640 a x/\nWORKDIR /", "755 . | 755 w | 640 w/a=a | 640 w/x | 640 w/x/a=a"),
    "mode with special bits": ("COPY --chmod=4755 a {d}/", "755 . | 4755 a=a"),
    "heredoc": ("COPY <<f {d}/\none\ntwo\nf\n", "755 . | 644 f=one\ntwo\n"),
    "heredoc under a name": ("COPY <<EOF {d}/name\none\nEOF\n", "755 . | 644 name=one\n"),
    "heredocs": ("COPY <<f <<g {d}/\none\nf\ntwo\ng\n", "755 . | 644 f=one\n | 644 g=two\n"),
    "heredoc with a variable": ("ENV V=v\nCOPY <<f {d}/\n$V ${{V}} \\$V\nf\n", "755 . | 644 f=v v $V\n"),
    "heredoc as it is": ("ENV V=v\nCOPY <<'f' {d}/\n$V \\\nf\n", "755 . | 644 f=$V \\\n"),
    "heredoc without tabs": ("COPY <<-f {d}/\n\tone\n\t\ttwo\n\tf\n", "755 . | 644 f=one\ntwo\n"),
    "heredoc with mode and owner": ("COPY --chmod=0711 --chown=1:2 <<f {d}/\n#!/x\nf\n", "711 1:2 . | 711 1:2 f=#!/x\n"),
    "heredoc added": ("ADD <<f {d}/\none\nf\n", "755 . | 644 f=one\n"),
    "heredoc beside a file": ("COPY a <<f {d}/\none\nf\n", "755 . | 644 a=a | 644 f=one\n"),
    "heredoc run": ("RUN <<E\nmkdir -p {d}\necho $0 > {d}/f\nE\n", "755 . | 644 f=/bin/sh\n"),
    "heredoc run by another": ("RUN <<'E' sh -s x\nmkdir -p {d}\necho $1 > {d}/f\nE\n", "755 . | 644 f=x\n"),
    "heredoc script": ("RUN <<E\n#!/bin/busybox sh\nmkdir -p {d}; echo s > {d}/f\nE\n", "755 . | 644 f=s\n"),
    "heredoc into a command": ("RUN mkdir -p {d}; cat <<A > {d}/a && cat <<B > {d}/b\none\nA\ntwo\nB\n", "755 . | 644 a=one\n | 644 b=two\n"),
    "archive as it is": ("ADD --unpack=false plain.tar {d}/", "755 . | 644 plain.tar=*"),
    "archive of a stage": ("ADD --unpack=true packed.tar.gz {d}/", "755 . | 755 t | 640 11:12 t/f=in it"),
    "beginning taken away": ("ENV P=/a/b.tar.gz\nRUN mkdir -p {d}\nWORKDIR {d}/${{P##*/}}\nWORKDIR /", "755 . | 755 b.tar.gz"),
    "end taken away": ("ENV P=b.tar.gz\nWORKDIR {d}/${{P%.*}}\nWORKDIR {d}/${{P%%.*}}\nWORKDIR /", "755 . | 755 b | 755 b.tar"),
    "replaced": ("ENV P=a-b-c\nWORKDIR {d}/${{P/-/_}}\nWORKDIR {d}/${{P//-/_}}\nWORKDIR /", "755 . | 755 a_b-c | 755 a_b_c"),
    "no network": ("RUN --network=none mkdir -p {d}; ls /sys/class/net > {d}/l", "755 . | 644 l=lo\n"),
    "a name without a network": ("RUN --network=none mkdir -p {d}; busybox grep -o buildkitsandbox /etc/hosts > {d}/l", "755 . | 644 l=buildkitsandbox\n"),
    "sandbox": ("RUN --security=sandbox mkdir -p {d}; echo x > {d}/l", "755 . | 644 l=x\n"),
    "no platform": ("ARG TARGETOS\nRUN mkdir -p {d}; echo $TARGETOS$TARGETVARIANT > {d}/l", "755 . | 644 l=linux\n"),
    "a trigger": ("COPY --from=triggered /by {d}/by", "755 . | 644 by=trigger\n"),
}  # fmt: skip


def fill(place: Path) -> None:
    import io
    import tarfile

    for path, data in {
        "a": "a", "dir/x": "x", "dir/sub/y": "y", "other/z": "z", "na1.txt": "1", "nb1.txt": "2", "nc1.txt": "3",
        "modes/deep/f": "f",
    }.items():  # fmt: skip
        target = place / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(data)
    (place / "modes/deep").chmod(0o700)
    (place / "modes").chmod(0o711)
    for name, mode in {"plain.tar": "w", "packed.tar.gz": "w:gz"}.items():
        with tarfile.open(place / name, mode) as made:
            member = tarfile.TarInfo("t/f")
            member.mode, member.uid, member.gid, member.size = 0o640, 11, 12, 5
            made.addfile(member, io.BytesIO(b"in it"))


def dockerfile() -> str:
    lines = [
        "FROM base:1 AS made",
        "RUN mkdir -p /made/sub && echo deep > /made/sub/deep && echo o > /made/owned && chown 3:4 /made/owned /made/sub"
        " && chmod 600 /made/owned && chmod 750 /made/sub",
        "FROM base:1 AS trigger\nONBUILD RUN echo trigger > /by",
        "FROM trigger AS triggered",
        "FROM base:1",
    ]
    return "\n".join([*lines, *(text.format(d=directory(name)) for name, (text, _) in CASES.items()), ""])


def directory(name: str) -> str:
    return "/cases/" + name.replace(" ", "-")


@pytest.fixture(scope="module")
def images(peer: Peer) -> Iterator[list[Image]]:
    with Workspace() as workspace:
        context = workspace.path("context/c")
        fill(context)
        base_archive(workspace.directory / "base.tar", peer("busybox"))
        environment: Environment = builders.engine(workspace, workspace.directory / "base.tar")
        try:
            found = []
            for door in builders.doors(workspace, environment, context, peer):
                door.build(dockerfile(), "newer:1", *door.default_options, "--no-cache")
                found.append(door.image("newer:1"))
            yield found
        finally:
            left = environment.close()
        assert not left, left


@pytest.mark.parametrize("name", CASES)
def test_a_tree_is_what_the_reference_says(name: str, images: list[Image]) -> None:
    top = directory(name).strip("/")
    wanted = {}
    for line in CASES[name][1].split(" | "):
        entry, equals, content = line.partition("=") if "=" in line else (line, "", "")
        mode, *owner, path = entry.split(" ")
        sha = "" if not equals else "*" if content == "*" else hashlib.sha256(content.encode()).hexdigest()[:16]
        wanted["" if path == "." else path] = (mode, *(owner or ["0:0"]), sha)
    for image in images:
        found = {}
        for path, (_, mode, uid, gid, _, sha, _) in image.files.items():
            if path == top or path.startswith(f"{top}/"):
                below = path.removeprefix(top).strip("/")
                star = wanted.get(below, ("", "", ""))[-1] == "*"
                found[below] = (str(mode).removeprefix("0o"), f"{uid}:{gid}", "*" if star else sha)
        assert found == wanted


def test_the_doors_agree(images: list[Image]) -> None:
    assert all(one.document == images[0].document for one in images)


def test_a_linked_layer_is_the_same_on_another_base(orlop: Environment, tmp_path: Path) -> None:
    """COPY --link is not made again, and its layer's digest stays, when what is below it changes."""
    (tmp_path / "a").write_text("a")
    digests = []
    for number in range(2):
        text = f"FROM host\nRUN echo {number} > /below\nCOPY --link a /x/y\n"
        (tmp_path / "Dockerfile").write_text(text)
        orlop("build", "-q", "-t", "linked:1", tmp_path)
        digests.append(orlop("image", "inspect", "-f", "{{json .RootFS.Layers}}", "linked:1").stdout.split(","))
    assert digests[0][-1] == digests[1][-1] and digests[0][-2] != digests[1][-2]
    assert "CACHED" in orlop("build", "--progress=plain", tmp_path).stderr
