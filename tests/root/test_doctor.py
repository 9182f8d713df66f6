"""`orlop doctor` on machines that are broken in one way each: what it says of the feature is pinned, word by word."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from devtools import peers
from support import rootless
from support.engine import Finished
from support.rootless import NAME, User

Rows = dict[str, dict[str, object]]


def masked(name: str, text: str) -> str:
    """Return shell that lets a file of the kernel say something else."""
    path = f"/tmp/orlop-masked-{name.replace('/', '-')}"
    return f"printf '{text}\\n' >{path}; mount --bind {path} /{name}; rm -f {path} || true"


def not_setuid(user: User) -> str:
    directory = user.directory / "bin"
    directory.mkdir()
    for name in ("newuidmap", "newgidmap"):
        found = peers.find(name)
        assert found is not None
        shutil.copyfile(found, directory / name)
        (directory / name).chmod(0o755)
    return f"{directory}:{user.path}"


def no_group_ids(user: User) -> str:
    (user.directory / "etc/subgid").write_text("")
    return ""


def no_tun(user: User) -> str:
    (user.directory / "etc/tun").chmod(0o600)
    return ""


def foreign_run_directory(user: User) -> str:
    os.chown(user.runtime, 0, 0)
    return ""


def few_ids(user: User) -> str:
    for name in ("subuid", "subgid"):
        (user.directory / "etc" / name).write_text(f"{NAME}:1200000000:1000\n")
    return ""


def full_disk(user: User) -> str:
    return on_a_disk_of_its_own(user, "size=64k")


def read_only_disk(user: User) -> str:
    return on_a_disk_of_its_own(user, "ro")


def no_inodes(user: User) -> str:
    return on_a_disk_of_its_own(user, "nr_inodes=1")


def on_a_disk_of_its_own(user: User, options: str) -> str:
    place = user.home / ".local/share/orlop"
    place.mkdir(parents=True)
    mode = f"mode=0700,uid={rootless.UID},{options}"
    done = user.as_root("mount", "-t", "tmpfs", "-o", mode, "none", place, path=user.path)
    assert done.code == 0, done
    return ""


def foreign_data_directory(user: User) -> str:
    (user.home / ".local/share/orlop").mkdir(parents=True)
    return ""


def nothing(user: User) -> str:
    return ""


def empty_path(user: User) -> str:
    return "/nowhere"


GIVE = f"as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {NAME}"

# name: (has ids, shell for the machine, what is done then, returning a PATH or ""), feature, state, why, next, needed
BROKEN: dict[str, tuple[bool, str, Callable[[User], str], str, str, str, str, bool]] = {
    "no subuid line": (
        *(False, "", nothing, "ids", "emulated"),
        *(f"{NAME} has no line in /etc/subuid: one id, other owners are kept aside", GIVE, False),
    ),
    "no subgid line": (
        *(True, "", no_group_ids, "ids", "emulated"),
        *(f"{NAME} has no line in /etc/subgid: one id, other owners are kept aside", GIVE, False),
    ),
    "newuidmap missing": (
        *(True, "", empty_path, "ids", "emulated"),
        *("newuidmap is not installed: one id, other owners are kept aside", "as root: apt-get install uidmap", False),
    ),
    "newuidmap not setuid": (
        *(True, "", not_setuid, "ids", "impossible"),
        *("DIR/bin/newuidmap is not setuid", "as root: chmod u+s DIR/bin/newuidmap", True),
    ),
    "no user namespaces": (
        *(True, masked("proc/sys/user/max_user_namespaces", "0"), nothing, "user namespaces", "impossible"),
        *("user.max_user_namespaces is 0", "as root: sysctl user.max_user_namespaces=15000", True),
    ),
    "no overlayfs": (
        *(True, masked("proc/filesystems", "nodev tmpfs"), nothing, "root file systems", "impossible"),
        *("this kernel has no overlayfs", "as root: modprobe overlay", True),
    ),
    "no cgroups": (
        *(True, "mount -t tmpfs none /sys/fs/cgroup", nothing, "limits", "impossible"),
        *("no cgroup hierarchy is mounted", "mount cgroup2", False),
    ),
    "no pasta": (
        *(True, "", empty_path, "networks", "clamped"),
        "neither pasta nor slirp4netns is installed: containers reach each other, and nothing outside",
        *("as root: apt-get install passt", False),
    ),
    "no tun": (
        *(True, "", no_tun, "networks", "clamped"),
        "/dev/net/tun can't be opened by you: containers reach each other, and nothing outside",
        *("as root: chmod 0666 /dev/net/tun", False),
    ),
    "foreign run directory": (
        *(True, "", foreign_run_directory, "run directory", "impossible", "DIR/run belongs to uid 0"),
        "log in through pam_systemd or loginctl, or set XDG_RUNTIME_DIR to a directory of yours, mode 0700",
        True,
    ),
    "few ids": (
        *(True, "", few_ids, "ids", "clamped"),
        "1001 ids are yours to use, for /etc/subgid gives so few: files of owners from 1001 on can't be made",
        f"as root: usermod --add-subuids FIRST-LAST --add-subgids FIRST-LAST {NAME}, of 65536 ids",
        False,
    ),
    "no lingering": (
        *(True, "mount -t tmpfs none /run; mkdir -p /run/systemd/system", nothing, "running after logout", "clamped"),
        "systemd ends what runs with your last session",
        f"as root: loginctl enable-linger {NAME}",
        False,
    ),
    "no pings": (
        *(True, masked("proc/sys/net/ipv4/ping_group_range", "1 0"), nothing, "ping", "clamped"),
        "among containers; to the outside it is not for you: net.ipv4.ping_group_range is 1 0",
        "as root: sysctl 'net.ipv4.ping_group_range=0 2147483647'",
        False,
    ),
    "full disk": (
        *(True, "", full_disk, "data directory", "clamped", "DIR/home/.local/share/orlop has 0 MiB left"),
        "orlop system df; orlop system prune; or set ORLOP_ROOT to a directory on another disk",
        False,
    ),
    "no inodes": (
        *(True, "", no_inodes, "data directory", "impossible"),
        "the disk of DIR/home/.local/share/orlop has no inode left",
        *("make it writable for you, or set ORLOP_ROOT to a directory of yours", True),
    ),
    "read-only disk": (
        *(True, "", read_only_disk, "data directory", "impossible"),
        "DIR/home/.local/share/orlop lies on a file system that is mounted read-only",
        *("make it writable for you, or set ORLOP_ROOT to a directory of yours", True),
    ),
    "foreign data directory": (
        *(True, "", foreign_data_directory, "data directory", "impossible"),
        "DIR/home/.local/share/orlop belongs to uid 0",
        *("make it writable for you, or set ORLOP_ROOT to a directory of yours", True),
    ),
    "old seccomp": (
        *(True, masked("proc/sys/kernel/seccomp/actions_avail", "allow errno kill_process"), nothing, "seccomp"),
        *("impossible", "this kernel's seccomp lacks user_notif", "boot a kernel with CONFIG_SECCOMP_FILTER", False),
    ),
    "all ports": (
        *(True, masked("proc/sys/net/ipv4/ip_unprivileged_port_start", "0"), nothing, "published ports", "emulated"),
        *("all; a process carries them, and clients on this machine's loopback show the bridge's address", "", False),
    ),
}


def rows(done: Finished) -> Rows:
    return {each["feature"]: each for each in json.loads(done.stdout)}


@pytest.mark.parametrize("name", BROKEN)
def test_what_a_broken_machine_is_told(name: str) -> None:
    has_ids, setup, then, feature, state, why, step, needed = BROKEN[name]
    with rootless.user(ids=has_ids, setup=setup) as user:
        path = then(user)
        done = user.orlop("doctor", "--format", "json", path=path)
        text = user.orlop("doctor", path=path).stdout
        place = str(user.directory)
    found = rows(done)[feature]
    assert found["state"] == state
    assert str(found["why"]).replace(place, "DIR") == why
    assert str(found.get("next", "")).replace(place, "DIR") == step
    assert found.get("needed", False) is needed
    assert done.code == (1 if needed else 0)
    assert any(line.startswith(feature) and state in line for line in text.splitlines())


def test_a_whole_machine_lacks_nothing_that_is_needed() -> None:
    with rootless.user() as user:
        done = user.orlop("doctor", "--format", "json")
        assert done.code == 0, done
        assert rows(done)["ids"]["why"] == "65537 ids are yours to use"
        assert user.orlop("doctor", "--format", "yaml").code == 1
        proposed = user.orlop("doctor", "--fix")
    assert proposed.code in (0, 1)


def test_who_does_not_linger_is_warned_of_the_end_of_the_session() -> None:
    told = f"WARNING: It may end with your last session. As root: loginctl enable-linger {NAME}\n"
    setup = "mount -t tmpfs none /run; mkdir -p /run/systemd/system; mount -t tmpfs none /var/lib"
    with rootless.user(setup=setup) as user:
        words = ("run", "-d", "--network", "none", "host", "true")
        done = user.orlop(*words)
        assert done.code == 0 and told in done.stderr, done
        place = "/var/lib/systemd/linger"
        made = user.as_root("sh", "-c", f"mkdir -p {place} && touch {place}/{NAME}", path=user.path)
        assert made.code == 0, made
        assert told not in user.orlop(*words).stderr


def test_root_fixes_for_a_user_what_can_be_fixed() -> None:
    with rootless.user(ids=False) as user:
        told = user.orlop("doctor", "--fix")
        assert told.code == 1
        assert "usermod --add-subuids" in told.stdout
        assert f"sudo orlop doctor --fix --user {NAME}" in told.stderr
        # The real usermod writes below /etc, which is the machine's: this one says what it was asked.
        tools = user.directory / "bin"
        tools.mkdir()
        usermod = tools / "usermod"
        etc = user.directory / "etc"
        script = [f'echo "{NAME}:100000:65536" >{etc}/subuid', f"cp {etc}/subuid {etc}/subgid"]
        usermod.write_text("\n".join(["#!/bin/sh", *script, ""]))
        usermod.chmod(0o755)
        done = user.as_root(str(Path(rootless.COMMAND)), "doctor", "--fix", "--user", NAME, path=f"{tools}:{user.path}")
        assert done.code == 0, done
        after = user.orlop("doctor", "--format", "json")
    assert rows(after)["ids"]["state"] == "full"


def test_what_root_fixes_lasts_over_a_reboot() -> None:
    setup = masked("proc/sys/net/ipv4/ping_group_range", "1 0") + "\nmount -t tmpfs none /etc/sysctl.d"
    with rootless.user(setup=setup) as user:
        tools = user.directory / "bin"
        tools.mkdir()
        (tools / "sysctl").write_text(f'#!/bin/sh\necho "$@" >{user.directory}/set\n')
        (tools / "sysctl").chmod(0o755)
        command, path = str(Path(rootless.COMMAND)), f"{tools}:{user.path}"
        user.as_root(command, "doctor", "--fix", "--user", NAME, path=path)
        assert (user.directory / "set").read_text() == "-q -w net.ipv4.ping_group_range=0 2147483647\n"
        kept = user.as_root("cat", "/etc/sysctl.d/60-orlop-ping_group_range.conf", path=path)
        assert kept.stdout == "net.ipv4.ping_group_range = 0 2147483647\n", kept


def test_root_has_ids_for_its_containers_when_the_doctor_has_given_some() -> None:
    with rootless.user(ids=False) as user:
        command = str(Path(rootless.COMMAND))
        before = rows(user.as_root(command, "doctor", "--format", "json", path=user.path))["containers' own ids"]
        assert before["state"] == "clamped"
        assert before["why"] == "/etc/subuid gives none to orlop or containers: --userns auto has none to give"
        assert before["next"] == "as root: echo orlop:1879048192:268435456 | tee -a /etc/subuid /etc/subgid"
        for script in (words[2] for words in before["fix"]):  # type: ignore[attr-defined]
            assert user.as_root("sh", "-c", script, path=user.path).code == 0
        after = rows(user.as_root(command, "doctor", "--format", "json", path=user.path))["containers' own ids"]
        assert (after["state"], after["why"]) == (
            "full",
            "--userns auto: 268435456 ids, for 4096 containers with 65536 each",
        )
