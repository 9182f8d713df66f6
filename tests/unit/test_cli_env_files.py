"""--env-file-format: one file, as docker, Compose and a shell read it; the shell itself is the judge of its form."""

import os
import subprocess

import pytest

from orlop.frontends.cli.containers.environment import read_env_file
from orlop.spec.errors import Invalid

READABLE = r"""# a comment
PLAIN=value
SINGLE='as $IS \n'
export DOUBLE="quoted \"x\" $PLAIN ${PLAIN}s \$no \q" SAME_LINE=1
JOINED=a\ b'c d'"e f"
EMPTY=
OTHER=$SINGLE-${EMPTY}$NOBODY.; AFTER=semicolon # and a comment
HASH=a#b
SPLIT=one\
two
SEVERAL="lines
of text"
COST=5$
export FROM_OUTSIDE
"""


@pytest.fixture
def place(tmp_path):
    def write(text):
        path = tmp_path / "variables"
        path.write_text(text)
        return str(path)

    return write


def test_a_shells_form_is_read_as_a_shell_does(place, monkeypatch):
    monkeypatch.setenv("FROM_OUTSIDE", "outside")
    monkeypatch.delenv("NOBODY", raising=False)
    path = place(READABLE)
    found = dict(line.split("=", 1) for line in read_env_file(path, "shell"))
    said = subprocess.run(
        ["sh", "-c", f"set -a; . {path}; exec env -0"],
        env={"FROM_OUTSIDE": "outside", "PATH": os.environ["PATH"]},
        capture_output=True,
        check=True,
    ).stdout.decode()
    theirs = dict(line.split("=", 1) for line in said.split("\0") if line)
    assert found == {name: value for name, value in theirs.items() if name not in ("PATH", "PWD", "OLDPWD", "_")}
    assert len(found) == 13


@pytest.mark.parametrize(
    "text",
    ["A=$(id)", "A=`id`", 'A="$(id)"', 'A="`id`"', "A=$((1+1))", "A=${B:-c}", "ls", "A=x; ls -l", "A=a&b", "A=a|b",
     "A=<file", "A='open", 'A="open', "a b=c", "A=(1 2)", "1A=x", ". file", "A=$1", "unset A"],
)  # fmt: skip
def test_what_a_shell_would_run_is_refused(place, text):
    with pytest.raises(Invalid) as refused:
        read_env_file(place("GOOD=1\n" + text), "shell")
    assert "line 2" in refused.value.cause


def test_the_form_decides_what_quotes_mean(place):
    path = place("A='x y'\nB=y # c\nC=plain\n")
    assert read_env_file(path, "docker") == ["A='x y'", "B=y # c", "C=plain"]
    assert read_env_file(path, "compose") == ["A=x y", "B=y", "C=plain"]
    assert read_env_file(path, "shell") == ["A=x y", "B=y", "C=plain"]


def test_who_says_nothing_gets_dockers_and_is_warned_where_compose_differs(place, capfd):
    assert read_env_file(place("A='x'\nB=y # c\nC=plain\n")) == ["A='x'", "B=y # c", "C=plain"]
    told = capfd.readouterr().err
    assert "Compose would read A, B otherwise" in told and "--env-file-format=docker" in told
    assert read_env_file(place('A="open\nB=1\n')) == ['A="open', "B=1"]
    assert "Compose would not take it" in capfd.readouterr().err


@pytest.mark.parametrize("text", ["A=x\n", "# it's\nA=1\n", "A=a#b\n\nB=\n", "A=two words\n"])
def test_nobody_is_warned_where_all_agree(place, capfd, text):
    read_env_file(place(text))
    assert capfd.readouterr().err == ""


def test_who_says_it_is_not_warned(place, capfd):
    for form in ("docker", "compose", "shell"):
        read_env_file(place("A='x'\n"), form)
    assert capfd.readouterr().err == ""


def test_an_unknown_form_is_refused(place):
    with pytest.raises(Invalid, match="no format 'json'"):
        read_env_file(place("A=1\n"), "json")


@pytest.mark.parametrize("form", ["compose", "shell"])
def test_other_bytes_than_utf_8_are_refused(tmp_path, form):
    path = tmp_path / "latin"
    path.write_bytes(b"A=\xe9\n")
    with pytest.raises(Invalid, match="not UTF-8"):
        read_env_file(str(path), form)
