"""`--change`: Dockerfile instructions with docker's meaning and docker's words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orlop.image.changes import apply_changes
from orlop.image.expand import expand, split
from orlop.spec.errors import Invalid
from orlop.spec.image import ContainerConfig, Healthcheck

SECOND = 10**9


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("CMD echo hi", {"cmd": ("/bin/sh", "-c", "echo hi")}),
        ('CMD ["echo", "hi"]', {"cmd": ("echo", "hi")}),
        ('cmd ["echo"]', {"cmd": ("echo",)}),
        ("CMD []", {"cmd": ()}),
        ("CMD [ not json", {"cmd": ("/bin/sh", "-c", "[ not json")}),
        ("CMD ['a']", {"cmd": ("/bin/sh", "-c", "['a']")}),
        ("CMD [1]", {"cmd": ("/bin/sh", "-c", "[1]")}),
        ('CMD echo "$HOME"', {"cmd": ("/bin/sh", "-c", 'echo "$HOME"')}),
        ('ENTRYPOINT ["/init"]', {"entrypoint": ("/init",)}),
        ("ENTRYPOINT exec top", {"entrypoint": ("/bin/sh", "-c", "exec top")}),
        ("ENTRYPOINT []", {"entrypoint": ()}),
        ("ENV A=1", {"env": ("A=1",)}),
        ("ENV A=1 B='two words' C=\"three $A\" D=a\\ b", {"env": ("A=1", "B=two words", "C=three ", "D=a b")}),
        ("ENV A some words  here", {"env": ("A=some words  here",)}),
        ("ENV A=1\nENV B=$A C=${A}2 D=\\$A E='$A' A=9", {"env": ("A=9", "B=1", "C=12", "D=$A", "E=$A")}),
        ("ENV A=${B:-x} C=${B:+y} D=${B-z} E=${B}", {"env": ("A=x", "C=", "D=z", "E=")}),
        ("ENV PATH=/a:$PATH", {"env": ("PATH=/a:",)}),
        ("EXPOSE 80", {"exposed_ports": {"80/tcp": {}}}),
        ("EXPOSE 80 443/tcp 53/UDP", {"exposed_ports": {"80/tcp": {}, "443/tcp": {}, "53/udp": {}}}),
        ("EXPOSE 8000-8002/sctp", {"exposed_ports": {f"{port}/sctp": {} for port in (8000, 8001, 8002)}}),
        ("ENV P=80\nEXPOSE $P ${Q:-81}", {"env": ("P=80",), "exposed_ports": {"80/tcp": {}, "81/tcp": {}}}),
        ("LABEL a=b c.d='e f'", {"labels": {"a": "b", "c.d": "e f"}}),
        ("LABEL a b c", {"labels": {"a": "b c"}}),
        ('LABEL "with space"=x', {"labels": {"with space": "x"}}),
        ("LABEL a=b\\\n c=d", {"labels": {"a": "b", "c": "d"}}),
        ("USER nobody:nogroup", {"user": "nobody:nogroup"}),
        ("VOLUME /a /b", {"volumes": {"/a": {}, "/b": {}}}),
        ('VOLUME ["/a b", "/c"]', {"volumes": {"/a b": {}, "/c": {}}}),
        ("WORKDIR /a/b/../c/", {"working_dir": "/a/c"}),
        ("WORKDIR /a\nWORKDIR b", {"working_dir": "/a/b"}),
        ("WORKDIR b", {"working_dir": "/b"}),
        ("WORKDIR //x", {"working_dir": "/x"}),
        ("STOPSIGNAL SIGQUIT", {"stop_signal": "SIGQUIT"}),
        ("STOPSIGNAL 9", {"stop_signal": "9"}),
        ("STOPSIGNAL rtmin+3", {"stop_signal": "rtmin+3"}),
        ("ONBUILD RUN make $X", {"on_build": ("RUN make $X",)}),
        ("HEALTHCHECK NONE", {"healthcheck": Healthcheck(test=("NONE",))}),
        ("HEALTHCHECK CMD curl -f x", {"healthcheck": Healthcheck(test=("CMD-SHELL", "curl -f x"))}),
        (
            "HEALTHCHECK --interval=1m30s --timeout=1.5s --start-period=2h \\\n"
            '  --start-interval=500ms --retries=3 CMD ["a"]',
            {
                "healthcheck": Healthcheck(
                    test=("CMD", "a"),
                    interval=90 * SECOND,
                    timeout=3 * SECOND // 2,
                    start_period=7200 * SECOND,
                    start_interval=SECOND // 2,
                    retries=3,
                )
            },
        ),
        ("HEALTHCHECK --interval=0 CMD x", {"healthcheck": Healthcheck(test=("CMD-SHELL", "x"))}),
        ("# a comment\n\n  CMD x  ", {"cmd": ("/bin/sh", "-c", "x")}),
    ],
)
def test_instructions(change: str, expected: dict[str, object]) -> None:
    assert apply_changes([change]) == ContainerConfig(**expected)


def test_changes_build_on_each_other_and_on_the_image() -> None:
    before = ContainerConfig(env=("A=1",), cmd=("old",), labels={"x": "y"}, working_dir="/w")
    after = apply_changes(["ENV B=${A}2", "LABEL z=$B", "WORKDIR sub"], before)
    assert after == before.replace(env=("A=1", "B=12"), labels={"x": "y", "z": "12"}, working_dir="/w/sub")


def test_an_entrypoint_drops_an_inherited_command_only() -> None:
    before = ContainerConfig(cmd=("old",))
    assert apply_changes(["ENTRYPOINT /e"], before).cmd == ()
    assert apply_changes(["CMD new", "ENTRYPOINT /e"], before).cmd == ("/bin/sh", "-c", "new")


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ("FROM debian", "FROM is not a valid change command"),
        ("run x", "run is not a valid change command"),
        ("ADD a b", "ADD is not a valid change command"),
        ("SHELL ['x']", "SHELL is not a valid change command"),
        ("gibberish", "gibberish is not a valid change command"),
        ("CMD", "CMD requires at least one argument"),
        ("ENTRYPOINT ", "ENTRYPOINT requires at least one argument"),
        ("CMD --flag", "unknown flag: --flag"),
        ("ENV", "ENV requires at least one argument"),
        ("ENV A", "ENV must have two arguments"),
        ("ENV A=1 B", 'Syntax error - can\'t find = in "B". Must be of the form: name=value'),
        ("ENV =x", "ENV names can not be blank"),
        ("ENV A='x", "unexpected end of statement while looking for matching single-quote"),
        ('ENV A="x', "unexpected end of statement while looking for matching double-quote"),
        ("ENV A=${B", "syntax error: missing '}'"),
        ("ENV A=${}", "syntax error: bad substitution"),
        ("ENV A=${B:=x}", "unsupported modifier (:=) in substitution"),
        ('ENV A="${B:?no B here}"', "B: no B here"),
        ("LABEL", "LABEL requires at least one argument"),
        ("LABEL a", "LABEL must have two arguments"),
        ("LABEL =b", "LABEL names can not be blank"),
        ("EXPOSE", "EXPOSE requires at least one argument"),
        ("EXPOSE http", "invalid containerPort: http"),
        ("EXPOSE 65536", "invalid containerPort: 65536"),
        ("EXPOSE -1", "invalid containerPort: -1"),
        ("EXPOSE 9-5", "invalid containerPort: 9-5"),
        ("EXPOSE 80/icmp", "invalid proto: icmp"),
        ("USER", "USER requires exactly one argument"),
        ("WORKDIR", "WORKDIR requires exactly one argument"),
        ("STOPSIGNAL", "STOPSIGNAL requires exactly one argument"),
        ("STOPSIGNAL SIGNOPE", "invalid signal: SIGNOPE"),
        ("STOPSIGNAL 65", "invalid signal: 65"),
        ("VOLUME", "VOLUME requires at least one argument"),
        ('VOLUME [""]', "VOLUME specified can not be an empty string"),
        ("ONBUILD", "ONBUILD requires at least one argument"),
        ("ONBUILD ONBUILD RUN x", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
        ("ONBUILD from x", "FROM isn't allowed as an ONBUILD trigger"),
        ("HEALTHCHECK", "HEALTHCHECK requires at least one argument"),
        ("HEALTHCHECK NONE x", "HEALTHCHECK NONE takes no arguments"),
        ("HEALTHCHECK TCP x", 'Unknown type "TCP" in HEALTHCHECK (try CMD)'),
        ("HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD"),
        ("HEALTHCHECK CMD []", "Missing command after HEALTHCHECK CMD"),
        ("HEALTHCHECK --interval=5 CMD x", 'time: missing unit in duration "5"'),
        ("HEALTHCHECK --interval=5y CMD x", 'time: missing unit in duration "5y"'),
        ("HEALTHCHECK --interval=5sm CMD x", 'time: unknown unit in duration "5sm"'),
        ("HEALTHCHECK --interval=x CMD x", 'time: invalid duration "x"'),
        ("HEALTHCHECK --interval=1us CMD x", 'Interval "interval" cannot be less than 1ms'),
        ("HEALTHCHECK --interval=9999999999h CMD x", 'time: invalid duration "9999999999h"'),
        ("HEALTHCHECK --retries=-1 CMD x", "--retries cannot be negative (-1)"),
        ("HEALTHCHECK --retries=many CMD x", 'parsing "many": invalid syntax'),
        ("HEALTHCHECK --retries=1 --retries=2 CMD x", "duplicate flag specified: retries"),
        ("HEALTHCHECK --interval CMD x", "missing a value on flag: interval"),
        ("HEALTHCHECK --what=1 CMD x", "unknown flag: --what"),
    ],
)
def test_mistakes_in_dockers_words(change: str, cause: str) -> None:
    with pytest.raises(Invalid) as wrong:
        apply_changes(["ENV FINE=1", change])
    assert cause in wrong.value.cause
    assert wrong.value.subject == f"change {change.strip()!r}"


def test_bounds() -> None:
    with pytest.raises(Invalid, match="more than"):
        apply_changes(["ENV A=" + "x" * 300_000])
    with pytest.raises(Invalid, match="expands to more than"):
        apply_changes(["ENV A=" + "x" * 1000] + [f"ENV A={'$A' * 10}" for _ in range(4)])
    with pytest.raises(Invalid, match="nested too deeply"):
        apply_changes(["ENV A=" + "${B:-" * 1000 + "}" * 1000])


def test_words() -> None:
    assert split("a 'b c' d\\ e \"f g\"h") == ["a", "'b c'", "d\\ e", '"f g"h']
    assert expand('"a\\"b\\c"\'d"e\'\\f$', {}) == 'a"b\\cd"ef$'
    assert expand("$A-${A}x$B_$", {"A": "1"}) == "1-1x$"


COMMANDS = ("", "CMD ", "ENV ", "EXPOSE ", "HEALTHCHECK ", "LABEL ", "VOLUME ")


@given(st.text(alphabet="ABC=$ {}:-+?'\"\\\n\t[],/0#é", max_size=60), st.sampled_from(COMMANDS))
def test_no_text_breaks_anything_but_itself(text: str, command: str) -> None:
    try:
        apply_changes([command + text])
    except Invalid as wrong:
        assert wrong.cause
