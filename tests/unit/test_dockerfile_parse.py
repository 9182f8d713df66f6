"""The Dockerfile language, read: directives, continued lines, here-documents, every instruction, every refusal."""

from __future__ import annotations

import time

import pytest

from orlop.build.dockerfile import instructions as kinds
from orlop.build.dockerfile.fields import command_and_flags, json_words
from orlop.build.dockerfile.lines import INSTRUCTIONS_MAX
from orlop.build.dockerfile.parse import STAGES_MAX, parse, parse_trigger
from orlop.build.dockerfile.source import DOCKERFILE_BYTES_MAX, DockerfileError, Source, suggestion
from orlop.spec.errors import Invalid
from orlop.spec.health import Healthcheck

SECOND = 10**9


def one(text: str) -> kinds.Instruction:
    """The only instruction after FROM."""
    (stage,) = parse("FROM scratch\n" + text).stages
    (instruction,) = stage.instructions
    return instruction


def fields(text: str, *names: str) -> tuple[object, ...]:
    instruction = one(text)
    return tuple(getattr(instruction, name) for name in names)


@pytest.mark.parametrize(
    ("text", "words", "is_json"),
    [
        ("RUN echo hi", ("echo hi",), False),
        ("run echo hi", ("echo hi",), False),
        ("  RUN\techo hi  ", ("echo hi",), False),
        ('RUN ["echo", "a b"]', ("echo", "a b"), True),
        ("RUN ['echo']", ("['echo']",), False),
        ('RUN [ "a"', ('[ "a"',), False),
        ('RUN ["\\u00e9"]', ("é",), True),
        ("RUN a \\\n  b \\\n  && c", ("a   b   && c",), False),
        ("RUN a \\\n# comment\n  b", ("a   b",), False),
        ("RUN a \\\n\n  b", ("a   b",), False),
        ("RUN a \\\n  # comment \\\n\n  b", ("a   b",), False),
        ("RUN a \\  \n b", ("a  b",), False),
        ("RUN a \\\\\nCMD b", None, None),
        ("RUN echo # no comment", ("echo # no comment",), False),
        ("RUN a \\", ("a",), False),
        ("RUN a \\\r\n b\r\n", ("a  b",), False),
        ('RUN ["a"] and more', ("a",), True),
        ("CMD", (), False),
        ("CMD []", (), True),
        ('CMD ["a"]', ("a",), True),
        ("CMD a  b", ("a  b",), False),
        ("ENTRYPOINT []", (), True),
        ("ENTRYPOINT top -b", ("top -b",), False),
        ('SHELL ["/bin/bash", "-c"]', ("/bin/bash", "-c"), True),
    ],
)
def test_commands(text: str, words: tuple[str, ...] | None, is_json: bool | None) -> None:
    if words is None:
        assert len(parse("FROM scratch\n" + text).stages[0].instructions) == 2  # an escaped escape continues nothing
        return
    assert fields(text, "words", "is_json") == (words, is_json)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ENV A=1 B='two words' C=\"x\"", ((("A", "1"), ("B", "'two words'"), ("C", '"x"')), False)),
        ("ENV A b c", ((("A", "b c"),), True)),
        ("ENV A=", ((("A", ""),), False)),
        ("ENV A=b\\ c D=$E", ((("A", "b\\ c"), ("D", "$E")), False)),
        ('LABEL "a b"=c', ((('"a b"', "c"),), False)),
        ("LABEL a=b\\\n  c=d", ((("a", "b"), ("c", "d")), False)),
    ],
)
def test_pairs(text: str, expected: tuple[object, ...]) -> None:
    assert fields(text, "pairs", "legacy") == expected


def test_from() -> None:
    base = parse("from --platform=linux/arm64 debian:12 as Base\nRUN x").stages[0].base
    assert (base.image, base.platform, base.stage, base.stage_as_written, base.keyword, base.word) == (
        "debian:12",
        "linux/arm64",
        "base",
        "Base",
        "as",
        "from",
    )
    dockerfile = parse("ARG A=1\nARG B C=2\nFROM a AS x\nFROM x\nUSER u\nFROM y AS z")
    assert [arg.arguments for arg in dockerfile.global_args] == [(("A", "1"),), (("B", None), ("C", "2"))]
    assert [stage.name for stage in dockerfile.stages] == ["x", "1", "z"]
    assert [stage.title for stage in dockerfile.stages] == ["x", "stage-1", "z"]


def test_copy_and_add_have_every_flag() -> None:
    copy = one("COPY --from=0 --chown=a:b --chmod=u+x --link --parents --exclude=*.md --exclude='a b' ./x/./y z/ /to/")
    assert isinstance(copy, kinds.Copy)
    assert (copy.source_stage, copy.chown, copy.chmod, copy.link, copy.parents) == ("0", "a:b", "u+x", True, True)
    assert (copy.exclude, copy.sources, copy.destination) == (("*.md", "a b"), ("./x/./y", "z/"), "/to/")
    add = one("ADD --checksum=sha256:12 --keep-git-dir=true --unpack=false --link=false https://x/y /z")
    assert isinstance(add, kinds.Add)
    assert (add.checksum, add.keep_git_dir, add.unpack, add.link) == ("sha256:12", True, False, False)
    assert fields('COPY ["a b", "c d"]', "sources", "destination") == (("a b",), "c d")
    assert fields("ADD a b", "keep_git_dir", "unpack") == (None, None)


def test_run_has_every_flag() -> None:
    run = one(
        "RUN --mount=type=cache,target=/c --mount=type=secret,id=s --network=none --security=insecure "
        "--device=vendor.com/gpu=all make"
    )
    assert isinstance(run, kinds.Run)
    assert run.mounts == ("type=cache,target=/c", "type=secret,id=s")
    assert (run.network, run.security, run.devices) == ("none", "insecure", ("vendor.com/gpu=all",))
    assert run.words == ("make",)
    assert fields("RUN -- --x", "words") == (("--x",),)
    assert fields("RUN --network=host -- x", "network", "words") == ("host", ("x",))


def test_heredocs() -> None:
    run = one("RUN <<EOF cat <<-'B' x\na $b\nEOF\n\tc\n\t\tB \n\t\tB\n")
    assert run.heredocs[0].content == "a $b\n"
    assert (run.heredocs[0].expand, run.heredocs[0].strip_tabs) == (True, False)
    assert (run.heredocs[1].content, run.heredocs[1].text) == ("\tc\n\t\tB \n", "c\nB \n")
    assert (run.heredocs[1].expand, run.heredocs[1].strip_tabs) == (False, True)


def test_heredocs_of_copy() -> None:
    text = 'COPY --chown=a <<A x <<"B" /to/\none \\\n# two\n\nA\nCOPY\nB\nUSER u'
    copy, user = parse("FROM scratch\n" + text).stages[0].instructions
    assert isinstance(copy, kinds.Copy)
    assert [heredoc.content for heredoc in copy.heredocs] == ["one \\\n# two\n\n", "COPY\n"]
    assert (copy.sources, copy.destination, copy.lines) == (("x",), "/to/", (2, 8))
    assert user.lines == (9, 9)


@pytest.mark.parametrize(
    "text",
    [
        "RUN cat <<<word",
        "RUN echo '<<EOF'",
        'RUN echo "<<EOF"',
        "RUN echo $((1<<2))",
        "RUN x << EOF",
        'RUN ["cat", "<<EOF"]',
        'RUN echo "<<EOF',
        "CMD cat <<EOF",
        "RUN cat <<",
    ],
)
def test_what_is_no_heredoc(text: str) -> None:
    assert one(text).heredocs == ()


def test_onbuild_keeps_its_heredoc() -> None:
    onbuild = one("ONBUILD RUN <<EOF\necho hi\nEOF\n")
    assert isinstance(onbuild, kinds.OnBuild)
    assert onbuild.trigger == "RUN <<EOF\necho hi\nEOF"
    trigger = parse_trigger(onbuild.trigger, Source("image x", ""))
    assert trigger.heredocs[0].content == "echo hi\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("HEALTHCHECK NONE", Healthcheck(test=("NONE",))),
        ("HEALTHCHECK CMD curl -f x", Healthcheck(test=("CMD-SHELL", "curl -f x"))),
        ('HEALTHCHECK CMD ["a", "b"]', Healthcheck(test=("CMD", "a", "b"))),
        (
            "HEALTHCHECK --interval=1m --timeout=2s --start-period=3s --start-interval=4s --retries=5 cmd a",
            Healthcheck(
                test=("CMD-SHELL", "a"),
                interval=60 * SECOND,
                timeout=2 * SECOND,
                start_period=3 * SECOND,
                start_interval=4 * SECOND,
                retries=5,
            ),
        ),
    ],
)
def test_healthcheck(text: str, expected: Healthcheck) -> None:
    assert fields(text, "health") == (expected,)


def test_the_simple_ones() -> None:
    assert fields("ARG A B=c", "arguments") == ((("A", None), ("B", "c")),)
    assert fields("ARG A='b c' D=\"e f\"", "arguments") == ((("A", "'b c'"), ("D", '"e f"')),)
    assert fields("EXPOSE 80 81/udp $P", "ports") == (("80", "81/udp", "$P"),)
    assert fields('VOLUME ["/a b"]', "paths") == (("/a b",),)
    assert fields("VOLUME /a /b", "paths") == (("/a", "/b"),)
    assert fields("USER a b", "user") == ("a b",)
    assert fields("WORKDIR /a b", "path") == ("/a b",)
    assert fields("STOPSIGNAL 9", "signal") == ("9",)
    assert fields("MAINTAINER A <a@b>", "maintainer") == ("A <a@b>",)


@pytest.mark.parametrize(
    ("text", "cause", "line"),
    [
        ("", "file with no instructions", 1),
        ("# comment\n\n", "file with no instructions", 1),
        ("ARG A", "no build stage in current context", 1),
        ("RUN x\nFROM y", "no build stage in current context", 1),
        ("FROM x\nFORM y", "unknown instruction: FORM (did you mean FROM?)", 2),
        ("FROM x\nRUNN y", "unknown instruction: RUNN (did you mean RUN?)", 2),
        ("FROM x\nENTRYPONIT y", "unknown instruction: ENTRYPONIT (did you mean ENTRYPOINT?)", 2),
        ("FROM x\nABCDEFG y", "unknown instruction: ABCDEFG", 2),
        ("FROM", "FROM requires either one or three arguments", 1),
        ("FROM a b", "FROM requires either one or three arguments", 1),
        ("FROM a AS 1x", 'invalid name for build stage: "1x"', 1),
        ("FROM a AS a/b", 'invalid name for build stage: "a/b"', 1),
        ("FROM --platfrom=x a", "unknown flag: --platfrom (did you mean platform?)", 1),
        ("FROM x\nCOPY a", "COPY requires at least two arguments, but only one was provided", 2),
        ("FROM x\nCOPY --chwon=a b c", "unknown flag: --chwon (did you mean chown?)", 2),
        ("FROM x\nCOPY --chown b c", "missing a value on flag: chown", 2),
        ("FROM x\nCOPY --chown=a --chown=b b c", "duplicate flag specified: chown", 2),
        ("FROM x\nCOPY --link=maybe b c", "expecting boolean value for flag link, not: maybe", 2),
        ("FROM x\nCOPY --checksum=x b c", "unknown flag: --checksum", 2),
        ("FROM x\nADD --from=x b c", "unknown flag: --from", 2),
        ("FROM x\nCOPY [1] ", "when using JSON array syntax, arrays must be comprised of strings only", 2),
        ("FROM x\nCOPY a <<EOF\nEOF", "COPY cannot accept a heredoc as a destination", 2),
        ("FROM x\nRUN <<EOF\nabc\n", "unterminated heredoc", 2),
        ("FROM x\nRUN cat <<A <<B\nabc\nA\n", "unterminated heredoc: no line is 'B'", 2),
        ("FROM x\nRUN", "RUN requires at least one argument", 2),
        ("FROM x\nRUN --mount a", "missing a value on flag: mount", 2),
        ("FROM x\nRUN --network=bridge a", 'invalid network mode: "bridge"', 2),
        ("FROM x\nRUN --security=none a", 'security "none" is not valid', 2),
        ("FROM x\nSHELL bash -c", "SHELL requires the arguments to be in JSON form", 2),
        ("FROM x\nSHELL []", "SHELL requires at least one argument", 2),
        ("FROM x\nENV", "ENV requires at least one argument", 2),
        ("FROM x\nENV a", "ENV must have two arguments", 2),
        ("FROM x\nENV a=b c", 'Syntax error - can\'t find = in "c". Must be of the form: name=value', 2),
        ("FROM x\nENV =b", "ENV names can not be blank", 2),
        ("FROM x\nENV --a=b c=d", "unknown flag: --a", 2),
        ("FROM x\nARG", "ARG requires at least one argument", 2),
        ("FROM x\nARG =b", "ARG names can not be blank", 2),
        ("FROM x\nUSER", "USER requires exactly one argument", 2),
        ("FROM x\nWORKDIR", "WORKDIR requires exactly one argument", 2),
        ("FROM x\nVOLUME", "VOLUME requires at least one argument", 2),
        ('FROM x\nVOLUME [""]', "VOLUME specified can not be an empty string", 2),
        ("FROM x\nEXPOSE", "EXPOSE requires at least one argument", 2),
        ("FROM x\nONBUILD", "ONBUILD requires at least one argument", 2),
        ("FROM x\nONBUILD ONBUILD RUN x", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed", 2),
        ("FROM x\nONBUILD from x", "FROM isn't allowed as an ONBUILD trigger", 2),
        ("FROM x\nHEALTHCHECK", "HEALTHCHECK requires at least one argument", 2),
        ("FROM x\nHEALTHCHECK NONE x", "HEALTHCHECK NONE takes no arguments", 2),
        ("FROM x\nHEALTHCHECK curl", 'Unknown type "CURL" in HEALTHCHECK (try CMD)', 2),
        ("FROM x\nHEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD", 2),
        ("FROM x\nHEALTHCHECK --interval=1 CMD x", 'time: missing unit in duration "1"', 2),
        ("FROM x\nHEALTHCHECK --interval=1us CMD x", 'Interval "interval" cannot be less than 1ms', 2),
        ("FROM x\nHEALTHCHECK --retries=-1 CMD x", "--retries cannot be negative (-1)", 2),
        ("# escape=x\nFROM x", "invalid escape token 'x' does not match ` or \\", 1),
        ("# syntax=a\n# syntax=b\nFROM x", "only one syntax parser directive can be used", 2),
        ("# escape=`\n# syntax=example.com/a/b:1\nFROM x", "frontend example.com/a/b:1 is an image", 2),
        ("# syntax=dockerfile\nFROM x", "frontend dockerfile is an image", 1),
        ("# syntax=docker/dockerfile/x\nFROM x", "frontend docker/dockerfile/x is an image", 1),
        ("# syntax=:::\nFROM x", "frontend ::: is an image", 1),
    ],
)
def test_refusals(text: str, cause: str, line: int) -> None:
    with pytest.raises(DockerfileError) as caught:
        parse(text, "dir/Dockerfile")
    assert caught.value.cause.startswith(cause)
    assert caught.value.subject == f"dir/Dockerfile:{line}"
    assert caught.value.docker_text.startswith(f"dockerfile parse error on line {line}: ")


def test_an_error_shows_the_place() -> None:
    with pytest.raises(DockerfileError) as caught:
        parse("FROM a\n\nRUN b\nRUNN c \\\n  d\nRUN e\nRUN f\nRUN g\n")
    assert caught.value.excerpt == (
        "Dockerfile:4\n--------------------\n"
        "   2 |     \n   3 |     RUN b\n   4 | >>> RUNN c \\\n   5 | >>>   d\n   6 |     RUN e\n   7 |     RUN f\n"
        "--------------------"
    )
    assert str(caught.value) == "Dockerfile:4: unknown instruction: RUNN (did you mean RUN?)"


def test_directives() -> None:
    directives = parse("# syntax=docker/dockerfile:1\n#escape = `\n# CHECK=skip=all\nFROM x\nRUN a `\n b").directives
    assert (directives.syntax, directives.escape, directives.checks) == ("docker/dockerfile:1", "`", "skip=all")
    assert directives.checks_line == 3
    for image in (
        "docker/dockerfile",
        "docker.io/docker/dockerfile:1.7-labs",
        "my.mirror:5000/docker/dockerfile-upstream:master",
    ):
        assert parse(f"# syntax={image} --and=words\nFROM x").directives.syntax == f"{image} --and=words"
    for text in (
        "# comment\n# escape=`\nFROM x",
        "\n# escape=`\nFROM x",
        "FROM x\n# escape=`\n",
        "# x=y\n# escape=`\nFROM x",
    ):
        assert parse(text).directives.escape == "\\"
    stage = parse("# escape=`\nFROM x\nRUN dir C:\\\nCOPY a C:\\b `\n").stages[0]
    assert [type(instruction) for instruction in stage.instructions] == [kinds.Run, kinds.Copy]


def test_comments_belong_to_what_follows_them() -> None:
    stage = parse("# x\n\n# base is y\n# more\nFROM a\n#\n# z\nARG z\nRUN y").stages[0]
    assert stage.base.comments == ("base is y", "more")
    assert [instruction.comments for instruction in stage.instructions] == [("z",), ()]


def test_text_that_is_no_dockerfile() -> None:
    assert parse(b"\xef\xbb\xbfFROM x\n").stages[0].base.lines == (1, 1)
    for data, cause in (
        (b"FROM x\nRUN \xff", "it is not UTF-8"),
        (b"FROM x\nRUN a\0b", "it has a NUL character"),
        (b"\xff\xfeF\0R\0", "it is not UTF-8"),
        (b"#" * (DOCKERFILE_BYTES_MAX + 1), "the limit is"),
        ("FROM \udcff", "it is not UTF-8"),
    ):
        with pytest.raises(Invalid) as caught:
            parse(data)
        assert cause in caught.value.cause


@pytest.mark.parametrize(
    "text",
    [
        "FROM x\n" + "RUN y\n" * (INSTRUCTIONS_MAX + 1),
        "FROM x\n" * (STAGES_MAX + 1),
        "FROM x\nRUN cat" + " <<A" * 200 + "\nA" * 200,
        "FROM x\nRUN a \\\n" + "b \\\n" * 300_000,
        "FROM x\nRUN <<EOF\n" + "y\n" * 400_000,
        "FROM x\nENV " + "a=b " * 200_000,
        "FROM x\nCMD " + "[" * 500_000,
        "FROM x\nRUN " + "\\ " * 500_000,
        "FROM x\nLABEL " + "'" * 500_001,
        "FROM x\nRUN " + "--mount=a " * 100_000 + "x",
        "FROM x\nRUN cat <<" + "'" * 500_000,
        "#\n" * 500_000,
        "\\\n" * 500_000,
    ],
)
def test_hostile_texts_take_no_longer_than_their_length(text: str) -> None:
    before = time.process_time()
    try:
        parse(text)
    except Invalid:
        pass
    assert time.process_time() - before < 20


def test_flags_and_json() -> None:
    assert command_and_flags("RUN --a=b\\ c --d='e f' --g x --h") == ("RUN", ["--a=b c", "--d=e f", "--g"], "x --h")
    assert command_and_flags("RUN") == ("RUN", [], "")
    assert json_words('["a"') is None
    assert json_words("a") is None
    with pytest.raises(ValueError, match="strings only"):
        json_words('["a", 1]')
    with pytest.raises(ValueError, match="can't be passed on"):
        json_words('["a\\u0000"]')
    with pytest.raises(ValueError, match="can't be passed on"):
        json_words('["\\ud800"]')


def test_suggestions() -> None:
    assert suggestion("form", ["from", "run"]) == " (did you mean from?)"
    assert suggestion("xyz", ["from", "run"]) == ""
    assert suggestion("from", ["from"]) == ""
