"""Broken command lines: an exit status, a message with the object and the cause, a next step; and nothing was asked.

What docker refuses in the same words stands in tests/contract/test_cli_grammar.py; here is the rest.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orlop.frontends.cli import flags, main

# words: (exit status, what the first line says, what the next step says)
BROKEN: dict[tuple[str, ...], tuple[int, str, str]] = {
    ("runn", "x"): (1, "orlop: unknown command: orlop runn", "did you mean run?"),
    ("container", "lss"): (1, "orlop: unknown command: orlop container lss", "did you mean ls?"),
    ("engine", "halt"): (1, "orlop: unknown command: orlop engine halt", ""),
    ("swarm", "init"): (1, "orlop: unsupported command: orlop swarm", "does not have it yet"),
    ("container", "prune", "--filter", "colour=red"): (1, "invalid filter 'colour'", "known are label, label!, until"),
    ("-H", "unix:///x", "ps"): (125, "unsupported flag: -H", "does not have it yet"),
    ("run", "--rmm", "x"): (125, "unknown flag: --rmm", "did you mean --rm?"),
    ("network", "create", "--ingress", "x"): (125, "unsupported flag: --ingress", "docker has this flag"),
    ("run", "-p", "99999:1", "x"): (125, "invalid hostPort: 99999", "write [HOST_IP:]HOST_PORT"),
    ("run", "-p", "x:y", "x"): (125, "invalid containerPort: y", "write [HOST_IP:]HOST_PORT"),
    ("run", "--mount", "type=bind", "x"): (125, '"--mount" flag: target is required', "write type=bind"),
    ("run", "-m", "lots", "x"): (
        125,
        'invalid argument "lots" for "-m, --memory" flag: invalid size: \'lots\'',
        "write a number of bytes or one with a unit: 64k, 512m, 1.5g",
    ),
    ("run", "-m", "9" * 400, "x"): (125, '"-m, --memory" flag: invalid size', "fits into 63 bits"),
    ("run", "-m", "1e30", "x"): (125, '"-m, --memory" flag: invalid size', "fits into 63 bits"),
    ("run", "--cpus", "-1", "x"): (125, 'invalid argument "-1" for "--cpus" flag', "such as 1.5"),
    ("run", "--cpus", "1e999999999", "x"): (125, "failed to parse 1e999999999 as a rational number", "such as 1.5"),
    ("run", "--cpus", "9" * 5000, "x"): (125, "as a rational number", "such as 1.5"),
    ("run", "--pids-limit", "many", "x"): (125, 'parsing "many": invalid syntax', "write a whole number"),
    ("run", "--pids-limit", "9" * 5000, "x"): (125, "invalid syntax", "write a whole number"),
    ("run", "-v", "/a:/b:ro:x", "x"): (125, "invalid spec: /a:/b:ro:x: too many colons", "SOURCE:TARGET:ro"),
    ("run", "-v", "::", "x"): (125, "invalid spec: ::: empty section", "SOURCE:TARGET"),
    ("run", "--tmpfs", "t", "x"): (125, "invalid mount path: 't' mount path must be absolute", "--tmpfs /PATH"),
    ("run", "--restart", "on-failure:x", "x"): (125, "maximum retry count must be an integer", "on-failure:3"),
    ("run", "--detach-keys", "foo", "x"): (125, "Unknown character: 'foo'", "ctrl-p,ctrl-q"),
    ("run", "--detach-keys", "ctrl-\u00e4", "x"): (125, "Unknown character: 'ctrl-\u00e4'", "ctrl-p,ctrl-q"),
    ("run", "--rootfs", "", "x"): (125, "the directory is empty", "--rootfs DIRECTORY"),
    ("run", "", "true"): (125, "invalid reference format", "name an image"),
    ("run", "--env-file", "missing", "x"): (125, "env file missing: no such file or directory", "NAME=value"),
    ("run", "--env-file", "spaces", "x"): (125, "variable 'a b' contains whitespaces", "correct line 2"),
    ("run", "--env-file", "noname", "x"): (125, "no variable name on line '=x'", "correct line 1"),
    ("run", "--env-file", "latin1", "x"): (125, "line 1 is not UTF-8", "UTF-8"),
    ("run", "--env-file", "/dev/zero", "x"): (125, "env file /dev/zero: it is larger than", ""),
    ("run", "--security-opt", "magic", "x"): (125, "--security-opt magic: it is not KEY=VALUE", "seccomp=unconfined"),
    ("run", "--security-opt", "seccomp=missing", "x"): (125, "seccomp profile missing: no such file", "seccomp="),
    ("run", "--security-opt", "seccomp=noname", "x"): (125, "seccomp profile noname: it is not valid JSON", ""),
    ("run", "--security-opt", "seccomp=list", "x"): (125, "seccomp profile list: it is not a JSON object", ""),
    ("run", "--cidfile", "noname", "x"): (125, "container ID file found", "delete noname"),
    ("run", "--cidfile", "no/dir", "x"): (125, "container ID file no/dir: No such file or directory", ""),
    ("run", "x", "\udcff"): (125, 'argument "\\xff" is not UTF-8', "UTF-8"),
    ("run", "-e", "BYTES", "x"): (125, "the value of BYTES is not UTF-8", "-e BYTES="),
    ("exec", "--detach-keys", "", "c", "\udcff"): (125, 'argument "\\xff" is not UTF-8', "UTF-8"),
    ("logs", "--tail", "few", "c"): (1, "cannot read --tail few: it is not a number of lines", "--tail 100"),
    ("logs", "--since", "soon", "c"): (1, "--since soon: it is neither a time nor a duration", "write 10m"),
    ("logs", "--until", "2026-13-01", "c"): (1, "--until 2026-13-01: it is neither a time", "write 10m"),
    ("logs", "--since", "1.\u00b2", "c"): (1, "--since 1.\u00b2: it is neither a time", "write 10m"),
    ("cp", "c:/x", "y", "--chown", "9" * 5000): (1, "is not UID[:GID]", "write numbers"),
    ("cp", "c:/x", "y", "--chown", "1:\u00b2"): (1, "is not UID[:GID]", "write numbers"),
    ("image", "copy", "--compression-level", "\u00b2", "a", "b"): (1, "is no number", "leave the level away"),
    ("registry", "serve", "--address", "127.0.0.1:" + "9" * 5000): (
        1,
        "it is not of the form HOST:PORT",
        "127.0.0.1:5000",
    ),
    ("network", "create", "--subnet", "300.0.0.0/8", "x"): (1, "invalid IP address: 300.0.0.0", "write --subnet"),
    ("network", "create", "--subnet", "10.0.0.0/33", "x"): (1, "10.0.0.0/33", "write --subnet"),
    ("build", "--label", "=x", "."): (1, "invalid label '=x': empty name", "write KEY=value"),
    ("build", "--timestamp", "9" * 15, "x"): (1, "invalid SOURCE_DATE_EPOCH", "seconds since 1970"),
    ("build", "--build-arg", "SOURCE_DATE_EPOCH=soon", "x"): (1, "invalid SOURCE_DATE_EPOCH", "seconds since 1970"),
    ("start", "-a", "c", "d"): (1, "you cannot start and attach multiple containers at once", "name one container"),
    ("inspect", "-f", "{{.ID", "c"): (64, "the template {{.ID: template: :1: unclosed action", "json ."),
    ("import", "missing.tar"): (1, "cannot import missing.tar: no such file or directory", "tar archive"),
    ("import", "scheme://x/y.tar"): (
        1,
        "scheme is no scheme that archives are fetched by",
        "begins with http:// or https://",
    ),
    ("rootfs", "from-binaries", "dir"): (1, "no program is named", "--with sh"),
    ("serve", "--idle-timeout", "soon"): (125, 'time: invalid duration "soon"', "write a number with a unit"),
    ("serve", "--idle-timeout", "5"): (125, 'time: missing unit in duration "5"', "write a number with a unit"),
    ("serve", "--idle-timeout", "5y"): (125, 'time: unknown unit "y" in duration "5y"', "write a number with a unit"),
    ("engine", "status"): (1, "cannot reach the engine: none runs in", "start one with: orlop serve"),
}


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ORLOP_RUN", str(tmp_path / "run"))
    monkeypatch.setenv("ORLOP_ROOT", str(tmp_path / "root"))
    monkeypatch.setitem(os.environb, b"BYTES", b"\xff")
    (tmp_path / "spaces").write_text("A=1\na b=2\n")
    (tmp_path / "noname").write_text("=x\n")
    (tmp_path / "latin1").write_bytes(b"A=\xe4\n")
    (tmp_path / "list").write_text("[]")
    return tmp_path


@pytest.mark.parametrize("words", BROKEN, ids=lambda words: " ".join(words)[:60].encode("ascii", "replace").decode())
def test_a_broken_line_is_told_whole(
    words: tuple[str, ...], workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, first, step = BROKEN[words]
    assert main.main(list(words)) == code
    out, err = capsys.readouterr()
    told = err.splitlines()
    assert out == ""
    assert first in told[0]
    steps = [line for line in told if line.startswith(("Next: ", "Run 'orlop"))]
    assert step in steps[0]
    assert "Traceback" not in err and len(err) < 20_000
    assert not (workplace / "run").exists(), "an engine was asked for"


def test_a_defect_of_ours_says_so(
    workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flags, "quote", lambda _: 1 / 0)
    assert main.main(["run", "-m", "lots", "x"]) == 125
    assert "this is a defect of Orlop" in capsys.readouterr().err
    with pytest.raises(ZeroDivisionError):
        main.main(["-D", "run", "-m", "lots", "x"])


def test_a_broken_environment_is_told(
    workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORLOP_RUN", "relative")
    assert main.main(["ps"]) == 1
    assert capsys.readouterr().err == (
        "orlop: cannot use ORLOP_RUN=relative: it is not an absolute path\n"
        "Next: set ORLOP_RUN to a path that begins with / (E0236)\n"
    )
