"""The checks of Dockerfiles: each rule where it speaks and where it does not; outline and targets."""

# ruff: noqa: E501  a table of sentences

from __future__ import annotations

from typing import Any

import pytest

from orlop.build.dockerfile.compile import compile
from orlop.build.dockerfile.lint import RULES, Request
from orlop.build.dockerfile.options import Options
from orlop.build.dockerfile.outline import Argument, Cache, Checked, Need, TargetEntry, check, outline, targets
from orlop.build.dockerfile.parse import parse
from orlop.build.ignore import Matcher
from orlop.spec.errors import NotFound, Unavailable
from orlop.spec.image import ContainerConfig
from orlop.spec.platform import Platform

AMD64 = Platform(os="linux", architecture="amd64")
EXPERIMENTAL = {"BUILDKIT_DOCKERFILE_CHECK_EXPERIMENTAL": "all"}


def resolve(reference: str, platform: Platform) -> ContainerConfig:
    if reference == "missing":
        raise NotFound("build", reference, "No such image: missing")
    if reference == "far":
        raise Unavailable("reach", "registry", "no such host")
    return ContainerConfig(env=("FROM_BASE=1",))


def checked(text: str, **options: Any) -> Checked:
    return check(parse(text), Options(**{"build_platform": AMD64, **options}), resolve)


def test_there_are_21_rules() -> None:
    assert len(RULES) == 21
    assert RULES["JSONArgsRecommended"].url == "https://docs.docker.com/go/dockerfile/rule/json-args-recommended/"
    assert RULES["SecretsUsedInArgOrEnv"].url.endswith("/secrets-used-in-arg-or-env/")


@pytest.mark.parametrize(
    ("text", "rule", "detail", "line"),
    [
        ("from a\nRUN b\nRUN c", "ConsistentInstructionCasing", "Command 'from' should match the case of the command majority (uppercase)", 1),
        ("from a\nrun b\nRUN c", "ConsistentInstructionCasing", "Command 'RUN' should match the case of the command majority (lowercase)", 3),
        ("FROM a\nRun b", "ConsistentInstructionCasing", "Command 'Run' should match the case of the command majority (uppercase)", 2),
        ("FROM a AS x\nFROM a AS x", "DuplicateStageName", 'Duplicate stage name "x", stage names should be unique', 2),
        ("FROM a\nEXPOSE 80:80", "ExposeInvalidFormat", "EXPOSE instruction should not define an IP address or host-port mapping, found '80:80'", 2),
        ("FROM a\nEXPOSE 80/TCP", "ExposeProtoCasing", "Defined protocol '80/TCP' in EXPOSE instruction should be lowercase", 2),
        ("FROM a as x", "FromAsCasing", "'as' and 'FROM' keywords' casing do not match", 1),
        ("FROM --platform=linux/arm64 a AS x", "FromPlatformFlagConstDisallowed", 'FROM --platform flag should not use constant value "linux/arm64"', 1),
        ("ARG T\nFROM a:${T}", "InvalidDefaultArgInFrom", "Default value for ARG a:${T} results in empty or invalid base image name", 2),
        ("FROM a\nCMD b", "JSONArgsRecommended", "JSON arguments recommended for CMD to prevent unintended behavior related to OS signals", 2),
        ("FROM a\nENTRYPOINT b", "JSONArgsRecommended", "JSON arguments recommended for ENTRYPOINT to prevent unintended behavior related to OS signals", 2),
        ("FROM a\nENV b c", "LegacyKeyValueFormat", '"ENV key=value" should be used instead of legacy "ENV key value" format', 2),
        ("FROM a\nLABEL b c", "LegacyKeyValueFormat", '"LABEL key=value" should be used instead of legacy "LABEL key value" format', 2),
        ("FROM a\nMAINTAINER b", "MaintainerDeprecated", "Maintainer instruction is deprecated in favor of using label", 2),
        ('FROM a\nCMD ["b"]\nCMD ["c"]', "MultipleInstructionsDisallowed", "Multiple CMD instructions should not be used in the same stage because only the last one will be used", 2),
        ("FROM a\nRUN b \\\n\n c", "NoEmptyContinuation", "Empty continuation line", 4),
        ("FROM a\ncmd b", "JSONArgsRecommended", "JSON arguments recommended for cmd to prevent unintended behavior related to OS signals", 2),
        ("FROM a\nENTRYPOINT", "JSONArgsRecommended", "JSON arguments recommended for ENTRYPOINT to prevent unintended behavior related to OS signals", 2),
        ("FROM a\nenv b c", "LegacyKeyValueFormat", '"env key=value" should be used instead of legacy "env key value" format', 2),
        ('FROM a\nCMD ["b"]\ncmd ["c"]', "MultipleInstructionsDisallowed", "Multiple cmd instructions should not be used in the same stage because only the last one will be used", 2),
        ("FROM a\nARG P='1 2/TCP'\nEXPOSE $P", "ExposeProtoCasing", "Defined protocol '2/TCP' in EXPOSE instruction should be lowercase", 3),
        ("FROM a\nARG P=1:2\nEXPOSE $P", "ExposeInvalidFormat", "EXPOSE instruction should not define an IP address or host-port mapping, found '1:2'", 3),
        ("FROM --platform=${TARGETPLATFORM:-x} a", "RedundantTargetPlatform", "Setting platform to predefined ${TARGETPLATFORM:-x} in FROM is redundant as this is the default behavior", 1),
        ("FROM a:1${X:-}", "UndefinedArgInFrom", "FROM argument 'X' is not declared", 1),
        ("FROM a\nENV A=${foo:-x}", "UndefinedVar", "Usage of undefined variable '$foo'", 2),
        ("FROM a\nENV A=${foo+x}", "UndefinedVar", "Usage of undefined variable '$foo'", 2),
        ("FROM a\nWORKDIR 'a\tb'", "WorkdirRelativePath", 'Relative workdir "a\\tb" can have unexpected results if the base image changes', 2),
        ("FROM --platform=$TARGETPLATFORM a", "RedundantTargetPlatform", "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior", 1),
        ("FROM a AS scratch", "ReservedStageName", 'Stage name should not use the same name as reserved stage "scratch"', 1),
        ("FROM a\nARG API_TOKEN", "SecretsUsedInArgOrEnv", 'Do not use ARG or ENV instructions for sensitive data (ARG "API_TOKEN")', 2),
        ("FROM a\nENV password=x", "SecretsUsedInArgOrEnv", 'Do not use ARG or ENV instructions for sensitive data (ENV "password")', 2),
        ("FROM a AS Base", "StageNameCasing", "Stage name 'Base' should be lowercase", 1),
        ("ARG VERSION=1\nFROM a:$VERSOIN", "UndefinedArgInFrom", "FROM argument 'VERSOIN' is not declared (did you mean VERSION?)", 2),
        ("FROM a\nENV MYVAR=1\nLABEL x=$MYVRA", "UndefinedVar", "Usage of undefined variable '$MYVRA' (did you mean $MYVAR?)", 3),
        ("FROM a\nCOPY $nothing /x", "UndefinedVar", "Usage of undefined variable '$nothing'", 2),
        ("FROM a\nWORKDIR b", "WorkdirRelativePath", 'Relative workdir "b" can have unexpected results if the base image changes', 2),
        ("FROM a\nCOPY secret.txt /", "CopyIgnoredFile", 'Attempting to Copy file "secret.txt" that is excluded by .dockerignore', 2),
        ("FROM a\nADD ./secret.txt /", "CopyIgnoredFile", 'Attempting to Add file "secret.txt" that is excluded by .dockerignore', 2),
        ("# wrong\nFROM a AS b", "InvalidDefinitionDescription", "Comment for FROM should follow the format: `# b <description>`", 2),
        ("# wrong\nARG a\nFROM b", "InvalidDefinitionDescription", "Comment for ARG should follow the format: `# a <description>`", 2),
    ],
)  # fmt: skip
def test_rules_that_are_broken(text: str, rule: str, detail: str, line: int) -> None:
    ignores = Matcher(["secret.txt"]).surely_excludes
    found = checked(text, ignores=ignores, build_args=EXPERIMENTAL).warnings
    assert (rule, detail, line) in [(one.rule_name, one.detail, one.lines[0]) for one in found]
    silenced = checked(f"# check=skip={rule}\n{text}", ignores=ignores, build_args=EXPERIMENTAL).warnings
    assert rule not in [one.rule_name for one in silenced]


@pytest.mark.parametrize(
    "text",
    [
        "from a as b\nrun c",
        "FROM a\nCOPY --exclude=$foo b c\nEXPOSE 80 $foo",
        "ARG TOKEN\nFROM a",
        'FROM a\nSHELL ["/bin/bash"]\nCMD b',
        "FROM a\nWORKDIR /a\nWORKDIR b",
        "FROM a\nENV X=$FROM_BASE$PATH",
        "FROM a\nARG X\nENV Y=$X",
        "FROM a\nRUN echo $UNSET",
        "FROM --platform=$BUILDPLATFORM a",
        "FROM --platform=linux/arm64 a AS build-arm64",
        "ARG T=1\nFROM a:${T}",
        'FROM a AS x\nCMD ["b"]\nFROM x\nCMD ["c"]',
        "FROM a\nARG PUBLIC_KEY\nENV TOKEN_FILE=/x\nARG KEYS\nENV MONKEY=1",
        "FROM a\nEXPOSE 80 53/udp $FROM_BASE",
        "# b does it\nFROM a AS b\n# c is that\nARG c",
        "# syntax=docker/dockerfile:1\n\n# anything\n\nFROM a AS b",
        "FROM a\nCOPY other.txt .",
        "FROM a\n# check=skip=JSONArgsRecommended\nCMD b",
        "FROM missing\nENV X=$DEFINED_THERE",
    ],
)
def test_rules_that_are_kept(text: str) -> None:
    found = checked(text, ignores=Matcher(["secret.txt"]).surely_excludes, build_args=EXPERIMENTAL)
    assert found == Checked()


def test_the_experimental_one_is_silent() -> None:
    assert checked("# wrong\nFROM a AS b").warnings == ()
    assert len(checked("# check=experimental=InvalidDefinitionDescription\n# wrong\nFROM a AS b").warnings) == 1


def test_requests() -> None:
    assert Request.parse("skip=A, B;error=true") == Request(skip=("A", "B"), error=True)
    assert Request.parse(" skip=all ").skip_all
    assert Request.parse("") == Request()
    for text in ("x", "x=y", "error=maybe", "skip=A;B"):
        with pytest.raises(ValueError, match="check option"):
            Request.parse(text)


def test_warnings_that_are_errors() -> None:
    text = "# check=error=true\nFROM a\nCMD b\nMAINTAINER c"
    failure = "lint violation found for rules: JSONArgsRecommended, MaintainerDeprecated"
    assert checked(text).failure == failure
    assert compile(parse(text), Options(build_platform=AMD64), resolve).failure == failure
    assert checked("# check=error=true\nFROM a").failure == ""
    given = {"BUILDKIT_DOCKERFILE_CHECK": "skip=all"}
    assert checked(text, build_args=given) == Checked()


def test_what_can_not_be_built() -> None:
    assert checked("FROM a\nEXPOSE x") == Checked(error="invalid containerPort: x", error_lines=(2, 2))
    found = checked("FROM a\nCMD b\nEXPOSE x")
    assert ([one.rule_name for one in found.warnings], found.error_lines) == (["JSONArgsRecommended"], (3, 3))
    assert checked("FROM a", target="b").error == 'target stage "b" could not be found'
    found = checked("FROM --platform=linux/$TARGTARCH a")
    assert found.error.endswith("(did you mean TARGETARCH?)")


def test_a_registry_that_is_not_reached_leaves_what_the_text_alone_says() -> None:
    found = checked("FROM a\nFROM far\nCMD b\nENV X=$Y")
    assert [one.rule_name for one in found.warnings] == ["JSONArgsRecommended"]
    assert (found.error, found.error_lines) == (
        "far: failed to resolve source metadata: cannot reach registry: no such host",
        (2, 2),
    )


def test_all_stages_are_checked_when_none_is_named() -> None:
    text = "FROM a AS one\nCMD b\nFROM a AS two\n"
    assert [one.lines for one in checked(text).warnings] == [(2, 2)]
    assert [one.lines for one in checked(text, target="one").warnings] == [(2, 2)]
    text = "FROM a AS one\nWORKDIR b\nFROM a AS two\n"
    assert checked(text, target="two").warnings == ()
    assert len(checked(text).warnings) == 1


def test_targets() -> None:
    text = "# base is where it begins\nFROM a AS base\nFROM --platform=$BUILDPLATFORM base\nFROM base AS Prod"
    assert targets(parse(text)) == (
        TargetEntry(name="base", description="is where it begins", base="a", lines=(2, 2)),
        TargetEntry(base="base", platform="$BUILDPLATFORM", lines=(3, 3)),
        TargetEntry(name="prod", base="base", default=True, lines=(4, 4)),
    )


def test_outline() -> None:
    text = """# VERSION of the base
ARG VERSION=1
ARG SUFFIX=-slim TAG=${VERSION}${SUFFIX}
ARG UNUSED=1
FROM a:$TAG AS base
# JOBS how many at once
ARG JOBS=4
ARG TARGETARCH VERSION
RUN --mount=type=cache,id=c,target=/c --mount=type=secret,id=s,required --mount=type=ssh make
FROM base AS unneeded
ARG NOT_THIS
# prod is shipped
FROM base AS prod
ARG OTHER
RUN --mount=type=secret,id=t x
"""
    found = outline(parse(text), Options(build_platform=AMD64, build_args={"JOBS": "8"}), resolve)
    assert (found.name, found.description) == ("prod", "is shipped")
    assert found.args == (
        Argument(name="VERSION", description="of the base", value="1", lines=(2, 2)),
        Argument(name="SUFFIX", value="-slim", lines=(3, 3)),
        Argument(name="TAG", value="1-slim", lines=(3, 3)),
        Argument(name="JOBS", description="how many at once", value="8", lines=(7, 7)),
        Argument(name="OTHER", lines=(14, 14)),
    )
    assert found.secrets == (Need(name="s", required=True, lines=(9, 9)), Need(name="t", lines=(15, 15)))
    assert found.ssh == (Need(name="default", lines=(9, 9)),)
    assert found.cache == (Cache(id="c"),)


def test_what_a_stage_takes_over_is_told_where_its_default_is() -> None:
    text = "ARG A=1 B=2\n# C is c\nARG C=$A\nFROM a AS y\nARG C\nARG D=1 E=2\nARG D=3\n"
    assert outline(parse(text), Options(build_platform=AMD64), resolve).args == (
        Argument(name="A", value="1", lines=(1, 1)),
        Argument(name="C", description="is c", value="1", lines=(3, 3)),
        Argument(name="E", value="2", lines=(6, 6)),
        Argument(name="D", value="3", lines=(7, 7)),
    )
