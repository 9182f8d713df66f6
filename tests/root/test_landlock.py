"""`run --landlock`: what the kernel denies inside, though the process is root; and what no rule can be made of."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orlop.linux import landlock as kernel
from orlop.runtime import landlock
from orlop.spec.errors import Invalid, Unsupported
from support.engine import Environment

FILES = kernel.version() >= kernel.VERSION_TRUNCATE
SCOPES = kernel.version() >= kernel.VERSION_SCOPE
DENIED = """
for one in 'echo x >/etc/new' ': >/etc/passwd' 'rm /etc/passwd' 'mkdir /new' 'ln /etc/passwd /tmp/linked' \
    'mv /etc/passwd /tmp' 'echo 0 >/proc/self/oom_score_adj' 'mknod /tmp/../new p' 'truncate -s 0 /etc/passwd'
do sh -c "$one" 2>/dev/null && echo "allowed: $one"; done
for one in 'echo x >/tmp/a' 'mv /tmp/a /tmp/b' 'rm /tmp/b' 'mkdir /tmp/d' 'cat /etc/passwd' 'ls /' 'echo >/dev/null' \
    'head -c 1 /dev/zero'
do sh -c "$one" >/dev/null 2>&1 || echo "denied: $one"; done
sh -c 'echo x >/etc/new'
"""


def test_what_no_rule_allows_is_denied_to_root_and_to_an_exec(orlop: Environment) -> None:
    done = orlop("run", "--rm", "--network=none", "--landlock", "ro:/,rw:/tmp", "host", "sh", "-c", DENIED, check=False)
    if not FILES:
        assert (done.code, "Landlock" in done.stderr) == (125, True)
        return
    assert (done.code, done.stdout) == (2, "")
    assert done.stderr == "sh: 1: cannot create /etc/new: Permission denied\n"
    orlop("run", "-d", "--name=c", "--network=none", "--landlock", "ro:/,rw:/tmp", "--init", "host", "sleep", "1000")
    later = orlop("exec", "c", "sh", "-c", DENIED, check=False)
    assert (later.code, later.stdout, later.stderr) == (2, "", done.stderr)
    assert "landlock_restrict_self" in orlop("explain", "c").stdout
    again = orlop("show-run", "c").stdout
    assert "--security-opt=landlock=ro:/,rw:/tmp" in again


def test_ports_and_signals(orlop: Environment) -> None:
    words = ["run", "--rm", "--network=none", "--landlock", "scope:signal", "--landlock=connect:none"]
    done = orlop(*words, "host", "bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/80", check=False)
    if not SCOPES:
        assert (done.code, "Landlock" in done.stderr) == (125, True)
        return
    assert "Permission denied" in done.stderr  # and not "Connection refused": nobody listens there
    orlop("run", "-d", "--name=c", "--network=none", "--landlock", "scope:signal", "host", "sleep", "1000")
    sent = orlop("exec", "c", "sh", "-c", "echo x >/tmp/here; kill -0 1", check=False)
    assert (sent.code, "not permitted" in sent.stderr) == (1, True)


WRONG = [
    (["--landlock", "ro:/no/such"], "/no/such of a rule of Landlock is not in the container"),
    (["--landlock", "ro:relative"], "'ro:relative' is no rule of Landlock"),
    (["--landlock", ""], "'' is no rule of Landlock"),
    (["--landlock", "ro:/,"], "'' is no rule of Landlock"),
    (["--landlock", "bind:65536"], "'bind:65536' is no rule of Landlock"),
    (["--landlock", ",".join(["ro:/"] * 257)], "more than 256 rules"),
    (["--landlock", "ro:/", "--security-opt", "no-new-privileges=false"], "which takes it"),
]


def test_what_is_no_rule_starts_nothing(orlop: Environment) -> None:
    for flags, said in WRONG:
        done = orlop("run", "--rm", "--network=none", *flags, "host", "true", check=False)
        told = (said if FILES else "Landlock") in done.stderr
        assert (done.code, told, "Traceback" in done.stderr) == (125, True, False), done


def test_a_link_in_the_image_leads_to_nothing_outside(orlop: Environment, tmp_path: Path) -> None:
    """A rule's path is resolved inside the container's root: what the image links to is the image's."""
    orlop("rootfs", "from-binaries", "--with", "sh", "--with", "cat", "--with", "ls", str(tmp_path / "tree"))
    (tmp_path / "tree/data").symlink_to("../../../../../../etc")
    (tmp_path / "tree/etc").mkdir(exist_ok=True)
    (tmp_path / "tree/etc/mine").write_text("mine\n")
    rules = "ro:/bin,ro:/usr,ro:/lib,ro:/lib64,ro:/data"
    present = ",".join(rule for rule in rules.split(",") if (tmp_path / "tree" / rule[4:]).is_symlink()
                       or (tmp_path / "tree" / rule[4:]).exists())  # fmt: skip
    words = ["run", "--rm", "--network=none", "--landlock", present, "--rootfs", str(tmp_path / "tree")]
    done = orlop(*words, "sh", "-c", "cat /etc/mine; ls /", check=False)
    if FILES:
        assert (done.stdout, "Permission denied" in done.stderr) == ("mine\n", True), done


def test_the_rules_as_a_record() -> None:
    rules = landlock.parse("ro:/,rw:/tmp,bind:80,connect:none,scope:signal")
    assert [path for path, _ in rules.paths] == ["/", "/tmp"]
    assert rules.ports == ((80, kernel.ACCESS_NET_BIND_TCP),)
    assert rules.access_net == kernel.ACCESS_NET_BIND_TCP | kernel.ACCESS_NET_CONNECT_TCP
    assert (rules.scoped, rules.needs) == (kernel.SCOPE_SIGNAL, kernel.VERSION_SCOPE)
    assert (landlock.parse("bind:1").access_fs, landlock.parse("bind:1").needs) == (0, kernel.VERSION_TCP)
    for version, text in ((0, "ro:/"), (2, "ro:/"), (3, "bind:1"), (5, "scope:signal")):
        with pytest.raises(Unsupported, match="Landlock"):
            landlock.check(landlock.parse(text), version)
    for wrong in ("x:/", "ro", "ro:", "scope:all", "bind:-1", "bind:٣", "ro:/a\0b", "ro:/\n,"):
        with pytest.raises(Invalid, match="no rule"):
            landlock.parse(wrong)


def test_the_record_says_it(orlop: Environment) -> None:
    if FILES:
        orlop("create", "--name", "c", "--landlock", "ro:/", "host", "true")
        (found,) = json.loads(orlop("inspect", "c").stdout)
        assert found["HostConfig"]["SecurityOpt"] == ["landlock=ro:/"]
