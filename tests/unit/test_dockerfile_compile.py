"""Dockerfiles become graphs: what each instruction does, which stages are needed, what variables are."""

from __future__ import annotations

import time
from typing import Any

import pytest

from orlop.build import graph
from orlop.build.dockerfile.compile import compile
from orlop.build.dockerfile.options import Compiled, Options
from orlop.build.dockerfile.parse import parse
from orlop.build.dockerfile.source import DockerfileError
from orlop.build.dockerfile.stage import PATH
from orlop.spec.errors import Invalid, NotFound
from orlop.spec.health import Healthcheck
from orlop.spec.image import ContainerConfig
from orlop.spec.platform import Platform

AMD64 = Platform(os="linux", architecture="amd64")
ARM64 = Platform(os="linux", architecture="arm64")
BASE = ContainerConfig(
    env=("PATH=/usr/bin", "LANG=C"),
    cmd=("bash",),
    working_dir="/srv",
    labels={"base": "yes"},
    exposed_ports={"22/tcp": {}},
)
TRIGGERS = ContainerConfig(on_build=("ARG VERSION=1", "COPY . /app", "RUN make $VERSION"))
IMAGES = {
    "base": BASE,
    "base:2": BASE,
    "onbuild": TRIGGERS,
    "from-stage": ContainerConfig(on_build=("COPY --from=a / /",)),
}


def resolve(reference: str, platform: Platform) -> ContainerConfig:
    if reference not in IMAGES:
        raise NotFound("build", reference, f"No such image: {reference}")
    return IMAGES[reference]


def compiled(text: str, **options: Any) -> Compiled:
    return compile(parse(text), Options(**{"build_platform": AMD64, **options}), resolve)


def target(text: str, **options: Any) -> graph.Target:
    (only,) = compiled(text, **options).targets
    return only


def config(text: str, **options: Any) -> ContainerConfig:
    return target(text, **options).config


def vertex(text: str, **options: Any) -> Any:
    return target(text, **options).vertex


def history(text: str, **options: Any) -> list[str]:
    return [step.created_by for step in target(text, **options).steps]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {"env": (f"PATH={PATH}",)}),
        ("CMD echo hi", {"cmd": ("/bin/sh", "-c", "echo hi")}),
        ('SHELL ["/bin/bash", "-c"]\nCMD a', {"cmd": ("/bin/bash", "-c", "a"), "shell": ("/bin/bash", "-c")}),
        ('CMD ["a", "$B"]', {"cmd": ("a", "$B")}),
        ('CMD ["a"]\nENTRYPOINT ["b"]', {"cmd": ("a",), "entrypoint": ("b",)}),
        ("ENTRYPOINT b $C", {"entrypoint": ("/bin/sh", "-c", "b $C")}),
        ("ENTRYPOINT []", {"entrypoint": ()}),
        ("USER a\nUSER b:c", {"user": "b:c"}),
        ("ENV U=x\nUSER $U", {"user": "x", "env": (f"PATH={PATH}", "U=x")}),
        ("WORKDIR /a\nWORKDIR b/../c", {"working_dir": "/a/c"}),
        ("WORKDIR a", {"working_dir": "/a"}),
        ("WORKDIR /../..", {"working_dir": "/"}),
        ("LABEL a=b c=\"d $E e\" 'f g'=h", {"labels": {"a": "b", "c": "d  e", "f g": "h"}}),
        ("EXPOSE 80 81/UDP 90-91", {"exposed_ports": {"80/tcp": {}, "81/udp": {}, "90/tcp": {}, "91/tcp": {}}}),
        (
            "ENV P='80 81'\nEXPOSE $P",
            {"exposed_ports": {"80/tcp": {}, "81/tcp": {}}, "env": (f"PATH={PATH}", "P=80 81")},
        ),
        ("VOLUME /b /a", {"volumes": {"/a": {}, "/b": {}}}),
        ('ARG v=x\nVOLUME ["/$v y"]', {"volumes": {"/x y": {}}}),
        ("STOPSIGNAL SIGQUIT", {"stop_signal": "SIGQUIT"}),
        ("HEALTHCHECK CMD a", {"healthcheck": Healthcheck(test=("CMD-SHELL", "a"))}),
        ("HEALTHCHECK NONE", {"healthcheck": Healthcheck(test=("NONE",))}),
        ("ONBUILD RUN $x", {"on_build": ("RUN $x",)}),
    ],
)
def test_configuration(text: str, expected: dict[str, object]) -> None:
    fields: dict[str, Any] = {"env": (f"PATH={PATH}",), "working_dir": "/", **expected}
    assert config("FROM scratch\n" + text) == ContainerConfig(**fields)


def test_the_base_image_is_gone_on_with() -> None:
    assert config("FROM base\nENV LANG=de A=$LANG\nWORKDIR x\nLABEL a=b\nEXPOSE 80") == BASE.replace(
        env=("PATH=/usr/bin", "LANG=de", "A=C"),
        working_dir="/srv/x",
        labels={"base": "yes", "a": "b"},
        exposed_ports={"22/tcp": {}, "80/tcp": {}},
    )
    assert config('FROM base\nENTRYPOINT ["x"]').cmd == ()
    assert config('FROM base\nCMD ["a"]\nENTRYPOINT ["x"]').cmd == ("a",)
    assert config("FROM base", labels={"base": "no", "c": "d"}).labels == {"base": "no", "c": "d"}


@pytest.mark.parametrize(
    ("text", "build_args", "expected"),
    [
        ("ARG A=1\nENV X=$A", {}, "1"),
        ("ARG A=1\nENV X=$A", {"A": "2"}, "2"),
        ("ARG A\nENV X=${A:-d}", {}, "d"),
        ("ARG A\nENV X=$A", {"A": "2"}, "2"),
        ("ENV X=${A}", {"A": "2"}, ""),
        ("ENV A=env\nARG A=arg\nENV X=$A", {"A": "given"}, "env"),
        ("ARG A=arg\nENV A=env\nENV X=$A", {"A": "given"}, "env"),
        ("ARG A=1 B=$A\nENV X=$B", {}, "1"),
        ("ENV A=1\nENV A=2 X=$A", {}, "1"),
        ("ARG G\nENV X=$G", {}, "global"),
        ("ARG G=own\nENV X=$G", {}, "own"),
        ("ENV X=$G", {}, ""),
        ("ARG TARGETARCH\nENV X=$TARGETARCH", {}, "amd64"),
        ("ARG TARGETPLATFORM BUILDPLATFORM\nENV X=$TARGETPLATFORM,$BUILDPLATFORM", {}, "linux/amd64,linux/amd64"),
        ("ENV X=$TARGETARCH", {}, ""),
        ("ARG HTTP_PROXY\nENV X=$HTTP_PROXY", {"HTTP_PROXY": "p"}, "p"),
        ("ENV X=$HTTP_PROXY", {"HTTP_PROXY": "p"}, ""),
        ("ENV A=a.b.c\nENV X=${A%.*}${A##*.}${A/b/x}${A//[.]/-}", {}, "a.bca.x.ca.b.c"),
        ("ENV X=a\\ b", {}, "a b"),
        ("ENV X='$A' ", {}, "$A"),
        ("ENV X=\\$A", {}, "$A"),
        ('ENV X "a"  b', {}, "a  b"),
        ("ENV X=${A:+yes}${PATH:+no}", {}, "no"),
    ],
)
def test_variables(text: str, build_args: dict[str, str], expected: str) -> None:
    env = config("ARG G=global\nFROM scratch\n" + text, build_args=build_args).env
    assert dict(entry.partition("=")[::2] for entry in env)["X"] == expected


def test_from_sees_only_what_precedes_it() -> None:
    text = "ARG TAG=1\nARG IMAGE=base:${TAG}\nFROM $IMAGE"
    assert vertex(text, build_args={"TAG": "2"}).reference == "base:2"
    with pytest.raises(NotFound):
        target(text)
    with pytest.raises(DockerfileError, match=r"base name \(\$X\) should not be blank"):
        target("FROM scratch\nENV X=base\nFROM $X")
    assert vertex("FROM ${X:-base}").reference == "base"
    with pytest.raises(DockerfileError, match="X: give"):
        target("FROM ${X:?give}")


def test_platforms() -> None:
    text = "FROM --platform=$BUILDPLATFORM base AS build\nARG TARGETARCH\nRUN make $TARGETARCH\n"
    text += "FROM base\nCOPY --from=build /x /"
    both = compiled(text, platforms=(AMD64, ARM64)).targets
    assert [one.platform for one in both] == [AMD64, ARM64]
    for one in both:
        (source,) = one.vertex.sources  # type: ignore[attr-defined]
        assert source.tree.base.platform == AMD64
        assert f"TARGETARCH={one.platform.architecture}" in source.tree.env
        assert one.vertex.base.platform == one.platform  # type: ignore[attr-defined]
    assert vertex("FROM --platform=arm64 base").platform == ARM64
    assert target("FROM --platform=linux/arm64 base").platform == ARM64
    for text, cause in (
        ("FROM --platform=$X base", "empty platform value from expression"),
        ("FROM --platform=a/b/c/d base", "failed to parse platform"),
    ):
        with pytest.raises(DockerfileError, match=cause):
            target(text)


def test_run() -> None:
    step = vertex("FROM base\nARG A=1\nUSER u\nENV B=2\nRUN --network=none --security=insecure make $A")
    assert step.argv == ("/bin/sh", "-c", "make $A")
    assert step.env == ("PATH=/usr/bin", "LANG=C", "A=1", "B=2")
    assert (step.cwd, step.user, step.network, step.security) == ("/srv", "u", "none", "insecure")
    assert step.created_by == "RUN |1 A=1 /bin/sh -c make $A # buildkit"
    assert step.origin.text == "RUN --network=none --security=insecure make 1"
    assert (step.origin.step, step.origin.steps, step.origin.lines) == (2, 2, (5, 5))
    assert vertex('FROM scratch\nRUN ["a", "b c"]').argv == ("a", "b c")
    assert vertex("FROM scratch\nRUN x").cwd == "/"
    step = vertex("FROM scratch\nRUN x", build_args={"http_proxy": "p"})
    assert step.proxies == ("HTTP_PROXY=p", "http_proxy=p")
    assert step.env == (f"PATH={PATH}",)


def test_run_with_heredocs() -> None:
    assert vertex("FROM scratch\nRUN <<EOF\na\nb $C\nEOF").argv == ("/bin/sh", "-c", "a\nb $C\n")
    assert vertex("FROM scratch\nRUN <<-EOF\n\ta\n\tEOF").argv == ("/bin/sh", "-c", "a\n")
    assert vertex("FROM scratch\nRUN cat <<A <<'B'\na\nA\nb\nB").argv[2] == "cat <<A <<'B'\na\nA\nb\nB"
    step = vertex("FROM scratch\nRUN <<EOF\n#!/usr/bin/python3\nprint()\nEOF")
    assert step.argv == ("/bin/sh", "-c", "/dev/pipes/EOF")
    assert step.mounts[0].data == b"#!/usr/bin/python3\nprint()\n"
    assert step.origin.text == "RUN <<EOF (#!/usr/bin/python3...)"
    with pytest.raises(DockerfileError, match="can't be called"):
        target("FROM scratch\nRUN <<../x\n#!/bin/sh\n../x")


def mounts(flag: str, text: str = "FROM base\nARG V=v") -> Any:
    (mount,) = vertex(f"{text}\nRUN --mount={flag} x").mounts
    return mount


def test_mounts() -> None:
    bind = mounts("target=sub")
    assert isinstance(bind.source, graph.Context)
    assert (bind.target, bind.path, bind.read_only) == ("/srv/sub", "/", True)
    bind = mounts("type=bind,from=base:2,source=/a/../../b,target=/x,rw")
    assert (bind.source.reference, bind.path, bind.target, bind.read_only) == ("base:2", "/b", "/x", False)
    assert isinstance(mounts("from=s,target=/x", "FROM scratch AS s\nFROM base").source, graph.Scratch)
    cache = mounts("type=cache,target=/c/$V,sharing=locked,mode=0700,uid=1,gid=2")
    assert (cache.target, cache.id, cache.sharing) == ("/c/v", "/c/v", "locked")
    assert cache.cache == "/c/v,mode=0700,uid=1,gid=2"
    assert (cache.mode, cache.uid, cache.gid, cache.source, cache.read_only) == (0o700, 1, 2, None, False)
    assert mounts("type=cache,id=x,target=/c,from=base,source=s,ro").path == "/s"
    assert mounts("type=tmpfs,target=/t,size=1m").size_bytes == 2**20
    secret = mounts("type=secret,id=s")
    assert (secret.id, secret.target, secret.env, secret.required) == ("s", "/run/secrets/s", "", False)
    secret = mounts("type=secret,id=s,env=S,required,mode=0440")
    assert (secret.target, secret.env, secret.required, secret.mode) == ("", "S", True, 0o440)
    assert mounts("type=secret,target=/a/b").id == "b"
    ssh = mounts("type=ssh")
    assert (ssh.id, ssh.target, ssh.mode) == ("default", "/run/buildkit/ssh_agent.0", 0o600)
    run = vertex("FROM scratch\nRUN --device=a.com/b=c --device=name=d.com/e=f,required x")
    assert run.devices == ("a.com/b=c?", "d.com/e=f")


@pytest.mark.parametrize(
    ("flag", "cause"),
    [
        ("type=bnid,target=/x", 'unsupported mount type "bnid" (did you mean bind?)'),
        ("type=cache", 'invalid mount target "/srv"'),
        ("type=cache,target=/", 'invalid mount target "/"'),
        ("type=cache,target=/..", 'invalid mount target "/.."'),
        ("targte=/x", "unexpected key 'targte' in 'targte=/x' (did you mean target?)"),
        ("target", "invalid field 'target' must be a key=value pair"),
        ("type=bind,target=/x,mode=0700", 'mode not allowed for "bind" type mounts'),
        ("type=bind,target=/x,sharing=locked", "invalid cache sharing set for bind mount"),
        ("type=cache,target=/x,sharing=none", 'unsupported sharing value "none"'),
        ("type=cache,target=/x,mode=9", "invalid value 9 for mode"),
        ("type=cache,target=/x,uid=-1", "invalid value -1 for uid"),
        ("type=bind,target=/x,required", "unexpected key 'required' for mount type 'bind'"),
        ("type=secret", "invalid secret mount. one of source, target required"),
        ("type=secret,id=a,source=b", "both source and id can't be set"),
        ("type=secret,id=a,from=b", "secret mount should not have a from"),
        ("from=$V,target=/x", "'from' doesn't support variable expansion, define alias stage instead"),
        ("from=A/B,target=/x", 'failed to parse stage name "A/B"'),
        ('"type=bind', "failed to parse csv mounts"),
        ("type=tmpfs,target=/t,size=1x", "invalid value 1x for size"),
    ],
)
def test_mounts_that_are_refused(flag: str, cause: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        mounts(f"'{flag}'" if '"' in flag else flag)
    assert caught.value.cause.startswith(cause)
    assert caught.value.lines == (3, 3)


def test_copy() -> None:
    step = vertex("FROM base\nARG d=to\nCOPY --chown=u:g --chmod=755 --link --exclude=*.$d a* ../b/ $d/")
    assert [(source.path, source.literal, source.pivot) for source in step.sources] == [
        ("/a*", False, ""),
        ("/b", False, ""),
    ]
    assert all(isinstance(source.tree, graph.Context) for source in step.sources)
    assert (step.destination, step.owner, step.mode, step.link) == ("/srv/to/", "u:g", "755", True)
    assert (step.exclude, step.unpack, step.parents) == (("*.to",), False, False)
    assert step.created_by == "COPY --chown=u:g --chmod=755 a* ../b/ to/ # buildkit"
    step = vertex("FROM scratch\nCOPY --parents a/./b/*.c d /x/")
    assert [(source.path, source.pivot) for source in step.sources] == [("/a/b/*.c", "/a"), ("/d", "")]


@pytest.mark.parametrize(
    ("destination", "expected"),
    [
        (".", "/srv/"),
        ("./", "/srv/"),
        ("x", "/srv/x"),
        ("/x/", "/x/"),
        ("/", "/"),
        ("../../..", "/"),
        ("x/.", "/srv/x/"),
    ],
)
def test_destinations(destination: str, expected: str) -> None:
    assert vertex(f"FROM base\nCOPY a {destination}").destination == expected


def test_copy_with_heredocs() -> None:
    step = vertex("FROM scratch\nENV V=v\nCOPY <<a <<'b' c /x/\n$V \"q\" \\$V\na\n$V\nb")
    (c, a, b) = step.sources
    assert c.path == "/c"
    assert (a.tree.filename, a.tree.data, a.path, a.literal) == ("a", b'v "q" $V\n', "/a", True)
    assert b.tree.data == b"$V\n"
    assert step.created_by == "COPY c <<a <<b /x/ # buildkit"


def test_add() -> None:
    step = vertex("FROM scratch\nADD --checksum=sha256:" + "a" * 64 + " https://h/p/a%20b.tgz?x=y /x")
    (source,) = step.sources
    assert (source.tree.url, source.tree.filename, source.path) == ("https://h/p/a%20b.tgz?x=y", "a b.tgz", "/a b.tgz")
    assert source.tree.checksum == "sha256:" + "a" * 64
    assert step.unpack is None
    assert vertex("FROM scratch\nADD --unpack=false a.tar /x").unpack is False
    assert vertex("FROM scratch\nADD http://h /x").sources[0].tree.filename == "__unnamed__"
    git = vertex("FROM scratch\nADD --keep-git-dir=true https://h/r.git#v1:sub/dir /x").sources[0].tree
    assert (git.url, git.reference, git.subdirectory, git.keep_git_dir) == ("https://h/r.git", "v1", "sub/dir", True)
    git = vertex("FROM scratch\nADD git@h:r.git?tag=v1&submodules=false&checksum=abcdef1 /x").sources[0].tree
    assert (git.reference, git.submodules, git.checksum) == ("refs/tags/v1", False, "abcdef1")


def test_stages() -> None:
    text = (
        "FROM base AS a\nRUN a\nFROM base AS b\nRUN b\nFROM a AS c\nCOPY --from=B /x /\nFROM scratch\nCOPY --from=2 / /"
    )
    step = vertex(text)
    (source,) = step.sources
    assert source.tree.base.argv == ("/bin/sh", "-c", "a")
    assert source.tree.sources[0].tree.argv == ("/bin/sh", "-c", "b")
    assert vertex(text, target="B").argv == ("/bin/sh", "-c", "b")
    assert vertex(text, target="0").argv == ("/bin/sh", "-c", "a")
    assert vertex(text).origin.stage == "stage-3"
    assert target(text, target="a").name == "a"
    # What one stage declares or exposes, those that stand on it have too.
    assert config("FROM base AS a\nARG X=1\nEXPOSE 80\nFROM a\nENV Y=$X").env[-1] == "Y=1"
    assert history("FROM base AS a\nENV X=1\nFROM a\nENV Y=1") == ["ENV X=1", "ENV Y=1"]


def test_stages_that_nobody_needs_are_not_compiled() -> None:
    asked = []

    def note(reference: str, platform: Platform) -> ContainerConfig:
        asked.append(reference)
        return ContainerConfig()

    dockerfile = parse(
        "FROM unused AS u\nRUN ${\nFROM one AS a\nFROM two AS b\nRUN --mount=from=a,target=/a x\nFROM last"
    )
    compile(dockerfile, Options(build_platform=AMD64, target="b"), note)
    assert asked == ["one", "two"]
    compile(dockerfile, Options(build_platform=AMD64), note)
    assert asked == ["one", "two", "last"]
    # A stage that is called like an image hides it from what follows, not from itself.
    compile(parse("FROM alpine AS alpine\nFROM alpine\nRUN x"), Options(build_platform=AMD64), note)
    assert asked == ["one", "two", "last", "alpine"]


def test_named_contexts() -> None:
    folder = graph.Context(name="src")
    image = graph.ImageSource(reference="base:2", platform=AMD64)
    given = {"src": folder, "alpine": image, "base": image, "stage": folder, "scratch": folder}
    step = vertex("FROM alpine:latest\nCOPY --from=src a b\nRUN --mount=from=src,target=/x y", contexts=given)
    assert step.mounts[0].source is folder
    assert step.base.sources[0].tree is folder
    assert step.base.base is image
    assert config("FROM docker.io/library/base\nRUN x", contexts=given).labels == {"base": "yes"}
    # One that is called like a stage replaces it.
    assert (
        vertex("FROM nothing AS stage\nRUN x\nFROM scratch\nCOPY --from=stage / /", contexts=given).sources[0].tree
        is folder
    )
    assert isinstance(vertex("FROM scratch", contexts=given), graph.Scratch)


def test_onbuild() -> None:
    step = vertex("FROM onbuild\nUSER u", build_args={"VERSION": "3"})
    assert (step.argv[2], step.user) == ("make $VERSION", "")
    assert step.base.destination == "/app"
    assert step.origin.text == "ONBUILD RUN make 3"
    assert (step.origin.steps, step.origin.lines) == (3, (1, 1))
    assert config("FROM onbuild").on_build == ()
    # Stages run the triggers of the stage that they stand on.
    step = vertex("FROM base AS a\nONBUILD RUN x\nFROM a")
    assert step.argv[2] == "x"
    # A trigger may need a stage that nothing else names.
    assert vertex("FROM base AS a\nRUN a\nFROM from-stage").sources[0].tree.argv[2] == "a"


def test_history() -> None:
    text = """FROM scratch
ARG A=1 B
ENV X="a b" Y=c
LABEL l="x y"
WORKDIR /w
USER u
EXPOSE 9 80 81/udp
VOLUME ["/v", "/w"]
STOPSIGNAL 9
SHELL ["/bin/bash", "-c"]
HEALTHCHECK --interval=90s --timeout=1500ms --retries=3 CMD curl x
ENTRYPOINT ["a", "b\\"c"]
CMD d e
MAINTAINER me
ONBUILD RUN z
RUN f
"""
    assert history(text) == [
        "ARG A=1 B",
        "ENV X=a b Y=c",
        "LABEL l=x y",
        "WORKDIR /w",
        "USER u",
        "EXPOSE [80/tcp 81/udp 9/tcp]",
        "VOLUME [/v /w]",
        "STOPSIGNAL 9",
        "SHELL [/bin/bash -c]",
        'HEALTHCHECK &{["CMD-SHELL" "curl x"] "1m30s" "1.5s" "0s" "0s" \'\\x03\'}',
        'ENTRYPOINT ["a" "b\\"c"]',
        'CMD ["/bin/bash" "-c" "d e"]',
        "MAINTAINER me",
        "RUN |2 A=1 B= /bin/bash -c f # buildkit",
    ]
    assert target(text).author == "me"
    steps = target(text).steps
    assert [step.vertex is not None for step in steps] == [name.endswith(("buildkit", "/w")) for name in history(text)]
    assert steps[-1].vertex is target(text).vertex or steps[-1].vertex.created_by == steps[-1].created_by  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("text", "cause", "line"),
    [
        ("FROM scratch\nCOPY --from=5 a b", "invalid stage index 5", 2),
        ("FROM scratch\nCOPY --from=0 a b", "invalid stage index 0", 2),
        ("FROM scratch AS a\nCOPY --from=a x y", "circular dependency detected on stage: a", 2),
        (
            "FROM scratch AS a\nCOPY --from=b x y\nFROM a AS b",
            'cannot copy from stage "b", it needs to be defined before',
            2,
        ),
        ("FROM scratch\nCOPY --from=$a x y", "variable expansion is not supported for --from", 2),
        ("FROM scratch\nCOPY --from=A:: x y", 'failed to parse stage name "A::"', 2),
        ("FROM UPPER", 'failed to parse stage name "UPPER"', 1),
        ("FROM scratch\nCOPY http://x y", "source can't be a URL for COPY", 2),
        ("FROM scratch\nCOPY https://x/y.git z", "source can't be a git ref for COPY", 2),
        ("FROM scratch\nADD --checksum=sha256:1 x y", "checksum requires HTTP(S) or Git sources", 2),
        ("FROM scratch\nADD --checksum=sha256:1 http://x y", "invalid checksum 'sha256:1'", 2),
        ("FROM scratch\nADD --checksum=sha256:1 http://x z y", "checksum can't be specified for multiple sources", 2),
        ("FROM scratch\nADD https://x/y.git#-u z", "invalid git reference '-u'", 2),
        ("FROM scratch\nADD https://x/y.git#--upload-pack=x:y z", "invalid git reference", 2),
        ("FROM scratch\nADD https://x/y.git#main:../.. z", "the subdirectory '../..' leads out of the repository", 2),
        ("FROM scratch\nADD https://x/y.git?ref=a&tag=b z", "ref and tag can't be given together", 2),
        ("FROM scratch\nCOPY --chmod=888 a b", "invalid chmod parameter: '888'", 2),
        ("FROM scratch\nCOPY --chmod=10000 a b", "invalid chmod parameter: '10000'", 2),
        ("FROM scratch\nCOPY --chmod=u+z a b", "invalid chmod parameter: 'u+z'", 2),
        ("FROM scratch\nCOPY <<a/b /x\na/b", "a file can't be called 'a/b'", 2),
        ("FROM scratch\nEXPOSE a", "invalid containerPort: a", 2),
        ("FROM scratch\nEXPOSE 70000", "invalid containerPort: 70000", 2),
        ("FROM scratch\nEXPOSE 80/foo", "invalid proto: foo", 2),
        ("FROM scratch\nSTOPSIGNAL SIGFOO", "invalid signal: SIGFOO", 2),
        ("FROM scratch\nENV A=${B", 'failed to process "${B": syntax error: missing', 2),
        ("FROM scratch\nENV A=${B^^}", 'failed to process "${B^^}": unsupported modifier (^) in substitution', 2),
        ("FROM scratch\nENV A=${}", 'failed to process "${}": syntax error: bad substitution', 2),
        (
            "FROM scratch\nENV A='b",
            'failed to process "\'b": unexpected end of statement while looking for matching single',
            2,
        ),
        ("FROM scratch\nENV $A=b", "ENV names can not be blank", 2),
        ("FROM scratch\nWORKDIR ${A:?must be set}", 'failed to process "${A:?must be set}": A: must be set', 2),
        ("FROM scratch\nVOLUME $A", "VOLUME specified can not be an empty string", 2),
        ("FROM scratch\nRUN --device=required=true x", "device 'required=true' has no name", 2),
        ("# check=foo\nFROM scratch", 'failed to parse check options: invalid check option "foo"', 1),
        ("FROM base AS build\nFROM biuld", "No such image: biuld (did you mean build?)", 2),
    ],
)
def test_refusals(text: str, cause: str, line: int) -> None:
    with pytest.raises(DockerfileError) as caught:
        target(text)
    assert caught.value.cause.startswith(cause)
    assert caught.value.lines[0] == line


def test_a_target_that_is_not_there() -> None:
    with pytest.raises(NotFound, match=r'target stage "prdo" could not be found \(did you mean prod\?\)'):
        target("FROM scratch AS prod\nFROM scratch", target="prdo")


def test_arguments_that_nobody_asked_for() -> None:
    given = {"A": "1", "B": "2", "HTTP_PROXY": "p", "BUILDKIT_INLINE_CACHE": "1", "TARGETARCH": "x", "G": "g"}
    assert compiled("ARG G\nFROM scratch\nARG A", build_args=given).unconsumed == ("B",)
    assert compiled("ARG G\nFROM scratch\nARG A B\nFROM scratch", build_args=given).unconsumed == ()


def test_a_trigger_that_can_not_be_read() -> None:
    for trigger in ("FROM x", "NONSENSE", "COPY a", "RUN <<EOF", "", "RUN a\nRUN b", "ONBUILD RUN x"):
        with pytest.raises(DockerfileError) as caught:
            compile(
                parse("FROM hostile"),
                Options(build_platform=AMD64),
                lambda _, __, trigger=trigger: ContainerConfig(on_build=(trigger,)),  # type: ignore[misc]
            )
        assert caught.value.subject == "Dockerfile:1"


@pytest.mark.parametrize(
    "text",
    [
        "FROM scratch AS s0\n" + "".join(f"FROM s{n} AS s{n + 1}\nRUN x\n" for n in range(1900)),
        "FROM scratch AS s0\n" + "".join(f"FROM scratch AS s{n + 1}\nCOPY --from=s{n} / /\n" for n in range(1900)),
        "FROM scratch\n" + "RUN x\n" * 10_000,
        "FROM scratch\nENV " + "a=$PATH$PATH " * 10_000,
        "FROM scratch\nENV A=" + "x" * 1000 + "\n" + "ENV A=$A$A$A$A\n" * 20,
        "FROM scratch\nENV A=" + "a" * 100_000 + "\nENV B=${A//a*a*a*a*a*b/x}",
        "FROM scratch\nENV A=" + "a" * 20_000 + "\nENV B=${A//aaa/x}",
        "FROM scratch\nENV A=" + "${A:-" * 5000 + "}" * 5000,
        "FROM scratch\n" + "".join(f"ENV A{n}={n}\n" for n in range(5000)),
        "FROM scratch\nCOPY <<E /x\n" + "$A " * 300_000 + "\nE",
        "FROM scratch\nEXPOSE " + "1-65535 " * 20,
        "FROM scratch\nENV A=" + "x" * 250_000 + "\nENV A=$A$A$A$A\n" + "ENV B=$A\nRUN x\nCOPY <<E /x\n$A\nE\n" * 5000,
    ],
)
def test_hostile_dockerfiles_end_in_time(text: str) -> None:
    before = time.process_time()
    try:
        compiled(text)
    except Invalid:
        pass
    assert time.process_time() - before < 20
