"""Mounts: every option, attached below a root that may be hostile."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orlop.runtime import host
from orlop.spec.runtime import Device, Hook, Hooks, IdMapping, Mount, Namespace
from support import container, launcher
from support.container import MOUNTS, make_root, make_spec
from support.launcher import output, refusal


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root file system to copy from."""
    return make_root(tmp_path_factory.mktemp("mounts") / "root")


@pytest.fixture
def root(tree: Path, tmp_path: Path) -> Iterator[list[Mount]]:
    """An overlay over it that a test may write to and whose upper directory it may fill."""
    for name in ("upper", "work"):
        (tmp_path / name).mkdir()
    options = (f"lowerdir={tree}", f"upperdir={tmp_path / 'upper'}", f"workdir={tmp_path / 'work'}")
    yield [Mount(type="overlay", options=options)]


@pytest.fixture
def upper(root: list[Mount], tmp_path: Path) -> Path:
    return tmp_path / "upper"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A host directory with one file."""
    directory = tmp_path / "source"
    directory.mkdir()
    (directory / "file").write_text("host\n")
    return directory


# A tmpfs has id-mapped mounts since Linux 6.3, ext4 since 5.12.
TMPFS_MAPS = host.kernel_version(os.uname().release) >= (6, 3)


@pytest.fixture
def mappable(source: Path, tmp_path: Path) -> Iterator[str]:
    """`source` lies where ids can be mapped; the words that mount one more such file system, but for its place."""
    if TMPFS_MAPS:
        yield "-t tmpfs -o mode=755 below"
        return
    images = [tmp_path / "source.ext4", tmp_path / "below.ext4"]
    for image in images:
        subprocess.run(["mkfs.ext4", "-q", str(image), "8M"], check=True)
    subprocess.run(["mount", "-o", "loop", str(images[0]), str(source)], check=True)
    try:
        (source / "file").write_text("host\n")
        yield f"-o loop {images[1]}"
    finally:
        subprocess.run(["umount", str(source)], check=True)


def run(root: list[Mount], script: str, *mounts: Mount, **changes: object) -> launcher.Outcome:
    changes.setdefault("mounts", (*MOUNTS, *mounts))
    return launcher.run(make_spec("sh", "-c", script, **changes), root)


def bind(source: Path, destination: str, *options: str) -> Mount:
    return Mount(destination=destination, source=str(source), type="bind", options=("bind", *options))


# -- bind mounts ----------------------------------------------------------------------------------------------------


def test_bind_writes_through(root: list[Mount], source: Path) -> None:
    assert output(run(root, "cat /mnt/a/file; echo new > /mnt/a/made", bind(source, "/mnt/a"))) == "host\n"
    assert (source / "made").read_text() == "new\n"


def test_bind_read_only(root: list[Mount], source: Path) -> None:
    outcome = run(root, "touch /mnt/file || echo refused; cat /mnt/file", bind(source, "/mnt", "ro"))
    assert output(outcome) == "refused\nhost\n"
    assert "Read-only file system" in outcome.stderr


def test_bind_of_a_file_makes_its_target(root: list[Mount], source: Path, upper: Path) -> None:
    mount = bind(source / "file", "/new/dir/target", "ro")
    assert output(run(root, "cat /new/dir/target; stat -c %F /new/dir/target", mount)) == "host\nregular file\n"
    assert (upper / "new/dir/target").read_bytes() == b""


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("nosuid", "nodev", "noexec"), {"nosuid", "nodev", "noexec"}),
        (("noatime",), {"noatime"}),
        (("nodiratime", "relatime"), {"nodiratime", "relatime"}),
        (("ro", "rw"), {"rw"}),
        (("rw", "ro"), {"ro"}),
        (("nosymfollow",), {"nosymfollow"}),
        (("noexec", "exec"), {"rw"}),
        (("strictatime",), {"rw"}),
        (("noatime", "atime"), {"relatime"}),
    ],
)
def test_bind_attributes(root: list[Mount], source: Path, options: tuple[str, ...], expected: set[str]) -> None:
    found = (
        output(run(root, "grep ' /mnt ' /proc/self/mountinfo", bind(source, "/mnt", *options))).split()[5].split(",")
    )
    assert expected <= set(found)
    assert ("ro" in found) == ("ro" in expected) and ("noexec" in found) == ("noexec" in expected)
    if "strictatime" in options:
        assert not {"relatime", "noatime"} & set(found)


def below(source: Path, words: str = "-t tmpfs -o mode=755 below") -> tuple[str, ...]:
    """A Python that runs in a mount namespace where a tmpfs lies below the source, or what these words mount."""
    (source / "sub").mkdir()
    script = f'mount {words} "$0"/sub && echo deep > "$0"/sub/file && exec "$@"'
    return ("unshare", "--mount", "sh", "-c", script, str(source), sys.executable)


def test_rbind_shows_what_is_mounted_below_and_bind_does_not(root: list[Mount], source: Path) -> None:
    python = below(source)
    for option, expected in (("rbind", "deep\n"), ("bind", "")):
        spec = make_spec("sh", "-c", "cat /mnt/sub/file || true", mounts=(*MOUNTS, bind(source, "/mnt", option)))
        assert output(launcher.run(spec, root, python=python)) == expected


def test_recursive_read_only_reaches_the_mounts_below(root: list[Mount], source: Path) -> None:
    python = below(source)
    script = "touch /mnt/a 2> /dev/null || echo top; touch /mnt/sub/a 2> /dev/null || echo below"
    for option, expected in (("ro", "top\n"), ("rro", "top\nbelow\n")):
        spec = make_spec("sh", "-c", script, mounts=(*MOUNTS, bind(source, "/mnt", "rbind", option)))
        outcome = launcher.run(spec, root, python=python)
        assert outcome.stdout == expected, repr(outcome)


@pytest.mark.parametrize(("option", "seen"), [("rslave", True), ("", True), ("rprivate", False)])
def test_later_mounts_of_the_host(root: list[Mount], source: Path, tmp_path: Path, option: str, seen: bool) -> None:
    script = tmp_path / "hook"
    script.write_text(f"#!/bin/sh\nmount -t tmpfs late {source}/sub && touch {source}/done\n")
    script.chmod(0o755)
    (source / "sub").mkdir()
    setup = 'mount --bind "$0" "$0" && mount --make-shared "$0" && exec "$@"'
    options = [option] if option else []
    spec = make_spec(
        "sh",
        "-c",
        "while ! test -e /mnt/done; do sleep 0.01; done; grep -c ' /mnt/sub ' /proc/self/mountinfo",
        mounts=(*MOUNTS, bind(source, "/mnt", "rbind", *options)),
        hooks=Hooks(poststart=(Hook(path=str(script), env=("PATH=/usr/bin:/bin",)),)),
    )
    outcome = launcher.run(spec, root, python=("unshare", "-m", "sh", "-c", setup, str(source), sys.executable))
    assert outcome.stdout == ("1\n" if seen else "0\n"), repr(outcome)


@pytest.mark.parametrize(("option", "seen"), [("rshared", True), ("rslave", False), ("rprivate", False), ("", False)])
def test_later_mounts_of_the_container(
    root: list[Mount], source: Path, tmp_path: Path, option: str, seen: bool
) -> None:
    (source / "sub").mkdir()
    report = tmp_path / "mountinfo"
    setup = (
        'mount --bind "$0" "$0" && mount --make-shared "$0" && r=$1 && shift && "$@"; code=$?; '
        'grep "$0/sub " /proc/self/mountinfo > "$r"; exit $code'
    )
    admin = (*container.CAPABILITIES, "CAP_SYS_ADMIN")
    capabilities = make_spec().process.capabilities.replace(bounding=admin, effective=admin, permitted=admin)
    options = [option] if option else []
    spec = make_spec(
        "sh", "-c", "mount -t tmpfs inner /mnt/sub", mounts=(*MOUNTS, bind(source, "/mnt", "rbind", *options)),
        capabilities=capabilities,
    )  # fmt: skip
    python = ("unshare", "-m", "sh", "-c", setup, str(source), str(report), sys.executable)
    output(launcher.run(spec, root, python=python))
    assert ("inner" in report.read_text()) == seen


def test_a_missing_source_is_told_in_dockers_words(root: list[Mount], tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    assert (
        refusal(run(root, "true", bind(missing, "/mnt")), "not-found") == f"bind source path does not exist: {missing}"
    )


def test_a_file_does_not_fit_on_a_directory_nor_the_other_way(root: list[Mount], source: Path) -> None:
    assert "the image has a directory there" in refusal(run(root, "true", bind(source / "file", "/etc")), "invalid")
    assert "not a directory" in refusal(run(root, "true", bind(source, "/etc/passwd")), "invalid")


@pytest.mark.usefixtures("mappable")
def test_ids_of_a_bind_mount_are_mapped(root: list[Mount], source: Path) -> None:
    for number, name in ((0, "root"), (7, "seven"), (70000, "far")):
        (source / name).touch()
        os.chown(source / name, number, number)
    maps = (IdMapping(container_id=0, host_id=1000, size=8),)
    mount = bind(source, "/mnt").replace(uid_mappings=maps, gid_mappings=maps)
    script = "stat -c %u:%g /mnt/root /mnt/seven /mnt/far; touch /mnt/new; stat -c %u /mnt/new"
    outcome = run(root, script, mount)
    assert outcome.stdout.split()[:3] == ["1000:1000", "1007:1007", "65534:65534"], repr(outcome)
    # The container's root is 0 here, which the map does not have: it can't own anything in this mount.
    assert "Value too large" in outcome.stderr and not (source / "new").exists()


@pytest.mark.parametrize("recursive", [True, False])
def test_ids_follow_the_user_namespace(
    root: list[Mount], upper: Path, source: Path, mappable: str, recursive: bool
) -> None:
    python = below(source, mappable)
    (upper / "mnt").mkdir()  # the image belongs to the host's root, so the container's can't make it
    maps = (IdMapping(container_id=0, host_id=100000, size=65536),)
    mount = bind(source, "/mnt", "rbind", "ridmap" if recursive else "idmap")
    spaces = tuple(Namespace(type=kind) for kind in (*container.NAMESPACES, "user"))
    script = "stat -c %u /mnt/file /mnt/sub; touch /mnt/made"
    spec = make_spec(
        "sh", "-c", script, mounts=(*MOUNTS, mount), namespaces=spaces, uid_mappings=maps, gid_mappings=maps
    )
    outcome = launcher.run(spec, root, python=python)
    assert outcome.stdout.split() == ["0", "0" if recursive else "65534"], repr(outcome)
    # What the container's root made belongs to the host's: the volume was not shifted.
    assert (source / "made").stat().st_uid == 0


def test_id_maps_that_can_not_be(root: list[Mount], source: Path) -> None:
    maps = (IdMapping(container_id=0, host_id=1, size=0),)
    wrong = bind(source, "/mnt").replace(uid_mappings=maps, gid_mappings=maps)
    assert "mounts[7].uidMappings" in refusal(run(root, "true", wrong), "invalid")
    assert "mounts[7].uidMappings" in refusal(run(root, "true", bind(source, "/mnt", "idmap")), "invalid")
    good = (IdMapping(container_id=0, host_id=1, size=1),)
    new = Mount(destination="/t", type="tmpfs", uid_mappings=good, gid_mappings=good)
    assert "only bind mounts" in refusal(run(root, "true", new), "unsupported")
    proc = Mount(destination="/t", type="bind", source="/proc", options=("bind",), uid_mappings=good, gid_mappings=good)
    assert "/proc" in refusal(run(root, "true", proc), "unsupported")


# -- targets --------------------------------------------------------------------------------------------------------


def test_links_on_the_way_stay_inside(root: list[Mount], source: Path, upper: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (upper / "absolute").symlink_to(outside)
    (upper / "relative").symlink_to("../../../../../../.." + str(outside))
    script = f"cat /absolute/a/file /relative/b/file {outside}/a/file"
    result = output(run(root, script, bind(source, "/absolute/a"), bind(source, "/relative/b")))
    assert result == "host\n" * 3
    assert list(outside.iterdir()) == []
    assert (upper / str(outside).lstrip("/") / "a").is_dir()


def test_destinations_are_cleaned(root: list[Mount], source: Path) -> None:
    mounts = bind(source, "relative"), bind(source, "//double/../other/./x/")
    assert output(run(root, "cat /relative/file /other/x/file", *mounts)) == "host\n" * 2
    assert "over the root itself" in refusal(run(root, "true", bind(source, "/x/..")), "invalid")
    assert "it is empty" in refusal(run(root, "true", bind(source, "")), "invalid")


@pytest.mark.parametrize("place", ["/proc", "/sys", "/dev"])
@pytest.mark.parametrize("target", ["/tmp/x", "../../../x", "/", "self", "/nowhere"])
def test_a_link_at_a_kernel_place_is_refused(
    root: list[Mount], tree: Path, upper: Path, tmp_path: Path, place: str, target: str
) -> None:
    # An overlay can't replace a directory by a link: a root of its own, with the programs of the other one.
    own = tmp_path / "own"
    own.mkdir()
    for entry in tree.iterdir():
        if f"/{entry.name}" == place:
            (own / entry.name).symlink_to(target)
        else:
            (own / entry.name).mkdir()
    before = sorted(str(path) for path in own.rglob("*"))
    outcome = launcher.run(make_spec("true"), own)
    assert outcome.error is not None and outcome.error.kind == "invalid", repr(outcome)
    assert place in str(outcome.error) and "link" in outcome.error.cause + outcome.error.hint
    assert sorted(str(path) for path in own.rglob("*")) == before or place == "/dev"


def test_a_file_or_fifo_at_dev_is_refused(tree: Path, tmp_path: Path) -> None:
    for make in (lambda path: path.write_text(""), lambda path: os.mkfifo(path)):
        own = tmp_path / make.__code__.co_names[0]
        own.mkdir()
        for name in ("proc", "sys"):
            (own / name).mkdir()
        make(own / "dev")
        outcome = launcher.run(make_spec("true"), own)
        assert "not a directory" in refusal(outcome, "invalid")


@pytest.mark.parametrize("destination", ["/proc/self", "/proc/sys/kernel", "/proc/1/attr", "/link/sys"])
def test_nothing_is_mounted_inside_proc(root: list[Mount], upper: Path, source: Path, destination: str) -> None:
    (upper / "link").symlink_to("/proc")
    for mount in (bind(source, destination), Mount(destination=destination, type="tmpfs")):
        assert "inside /proc" in refusal(run(root, "true", mount), "invalid")


def test_lxcfs_files_may_be_mounted(root: list[Mount], source: Path) -> None:
    assert output(run(root, "cat /proc/uptime", bind(source / "file", "/proc/uptime"))) == "host\n"


def test_only_procfs_at_proc(root: list[Mount], source: Path) -> None:
    rest = MOUNTS[1:]
    assert "procfs" in refusal(run(root, "true", mounts=(bind(source, "/proc"), *rest)), "invalid")
    assert "procfs" in refusal(run(root, "true", mounts=(Mount(destination="/proc", type="tmpfs"), *rest)), "invalid")
    spec_mounts = (Mount(destination="/proc", type="bind", source="/proc", options=("rbind", "ro")), *rest)
    assert output(run(root, "test -d /proc/1 && echo host", mounts=spec_mounts)) == "host\n"


# -- new file systems -----------------------------------------------------------------------------------------------


def tmpfs(destination: str, *options: str) -> Mount:
    return Mount(destination=destination, type="tmpfs", source="tmpfs", options=options)


def test_tmpfs_takes_the_mode_of_what_it_covers(root: list[Mount]) -> None:
    script = "stat -c %a /tmp /etc /new /odd"
    mounts = tmpfs("/tmp"), tmpfs("/etc"), tmpfs("/new"), tmpfs("/odd", "mode=0711", "uid=1000", "size=1m")
    assert output(run(root, script, *mounts)).split() == ["1777", "755", "755", "711"]


def test_tmpfs_limits_hold(root: list[Mount]) -> None:
    script = "head -c 2000000 /dev/zero > /t/big; stat -c %s /t/big; stat -f -c %b /t"
    outcome = run(root, script, tmpfs("/t", "size=1m", "nr_inodes=5"))
    assert outcome.stdout.split() == [str(1 << 20), "256"] and "No space left" in outcome.stderr


def test_tmpcopyup(root: list[Mount], upper: Path) -> None:
    deep = upper / "data/deep"
    deep.mkdir(parents=True)
    (deep / "file").write_text("copied")
    (deep / "file").chmod(0o640)
    os.chown(deep / "file", 1000, 1000)
    (upper / "data/link").symlink_to("/etc/passwd")
    os.mkfifo(upper / "data/fifo")
    (upper / "data").chmod(0o1770)
    script = (
        "cat /data/deep/file; stat -c '%n %a %u %F' /data /data/deep/file /data/link /data/fifo; readlink /data/link;"
        " touch /data/x || echo refused"
    )
    expected = [
        "copied/data 1770 0 directory", "/data/deep/file 640 1000 regular file", "/data/link 777 0 symbolic link",
        "/data/fifo 644 0 fifo", "/etc/passwd",
    ]  # fmt: skip
    assert output(run(root, script, tmpfs("/data", "tmpcopyup"))).splitlines() == expected
    outcome = run(root, script, tmpfs("/data", "tmpcopyup", "ro"))
    assert output(outcome).splitlines() == [*expected, "refused"]
    assert not (upper / "data/x").exists()


def test_tmpcopyup_keeps_what_a_file_is_more_than_bytes(root: list[Mount], upper: Path) -> None:
    """Names of one file and holes, as in a volume. red: with a copy of bytes, owners and modes alone."""
    data = upper / "data"
    data.mkdir()
    (data / "first").write_text("same")
    os.link(data / "first", data / "second")
    with open(data / "holes", "wb") as holes:
        holes.truncate(64 << 20)
    script = "stat -c '%h' /data/first; test /data/first -ef /data/second && echo one; stat -c '%s %b' /data/holes"
    assert output(run(root, script, tmpfs("/data", "tmpcopyup"))).split() == ["2", "one", str(64 << 20), "0"]


def test_what_the_kernel_refuses_is_named(root: list[Mount]) -> None:
    text = refusal(run(root, "true", tmpfs("/t", "size=lots")), "invalid")
    assert "/t" in text and "size=lots" in text
    text = refusal(run(root, "true", tmpfs("/t", "nosuchoption")), "invalid")
    assert "nosuchoption" in text
    text = refusal(run(root, "true", Mount(destination="/t", type="nosuchfs")), "unavailable")
    assert "nosuchfs" in text and "/t" in text


@pytest.mark.parametrize(
    ("mount", "kind", "text"),
    [
        (Mount(destination="/t", source="/etc"), "invalid", "mounts[7].type"),
        (Mount(destination="/t", type="bind"), "invalid", "mounts[7].source"),
        (Mount(destination="/t", type="bind", source="/etc", options=("size=1",)), "invalid", "size"),
        (Mount(destination="/t", type="bind", source="/etc", options=("tmpcopyup",)), "invalid", "tmpcopyup"),
        (Mount(destination="/t", type="proc", options=("tmpcopyup",)), "invalid", "tmpcopyup"),
        (Mount(destination="/t", type="tmpfs", options=("=x",)), "invalid", "no name"),
    ],
)
def test_contradictions(root: list[Mount], mount: Mount, kind: str, text: str) -> None:
    assert text in refusal(run(root, "true", mount), kind)


def test_remount_changes_an_earlier_mount(root: list[Mount], source: Path) -> None:
    again = Mount(destination="/mnt", options=("remount", "bind", "ro", "nodev"))
    options = output(run(root, "grep ' /mnt ' /proc/self/mountinfo", bind(source, "/mnt"), again)).split()[5]
    assert {"ro", "nodev"} <= set(options.split(","))


# -- the root -------------------------------------------------------------------------------------------------------


def test_a_read_only_root(root: list[Mount], tmp_path: Path) -> None:
    spec = make_spec("sh", "-c", "touch /x || echo refused; touch /dev/shm/y && echo made", cwd="/made/here")
    outcome = launcher.run(spec.replace(root=spec.root.replace(readonly=True)), root)
    assert outcome.stdout == "refused\nmade\n", repr(outcome)
    assert (tmp_path / "upper/made/here").is_dir()


def test_the_old_root_is_gone(root: list[Mount]) -> None:
    lines = output(run(root, "cat /proc/self/mountinfo; cd /..; pwd")).splitlines()
    assert lines.pop() == "/"
    host = {line.split()[2] for line in Path("/proc/self/mountinfo").read_text().splitlines() if " / / " in line}
    assert host and not host & {line.split()[2] for line in lines}


@pytest.mark.parametrize(
    ("propagation", "tag"),
    [("", ""), ("rprivate", ""), ("rslave", ""), ("shared", "shared:"), ("unbindable", "unbindable")],
)
def test_root_propagation(root: list[Mount], propagation: str, tag: str) -> None:
    fields = output(run(root, "grep ' / / ' /proc/self/mountinfo", rootfs_propagation=propagation)).split()
    assert fields[6].startswith(tag or "-")
    assert "linux.rootfsPropagation" in refusal(run(root, "true", rootfs_propagation="odd"), "invalid")


# -- devices and masks ----------------------------------------------------------------------------------------------


def test_devices_of_the_spec(root: list[Mount], upper: Path) -> None:
    devices = (
        Device(type="c", path="/dev/one/null", major=1, minor=3, file_mode=0o640, uid=1000, gid=5),
        Device(type="b", path="/dev/loop9", major=7, minor=9),
        Device(type="p", path="/dev/pipe", file_mode=0o600),
        Device(type="u", path="/opt/zero", major=1, minor=5, file_mode=0o20666),
    )
    script = "stat -c '%n %F %t:%T %a %u:%g' /dev/one/null /dev/loop9 /dev/pipe /opt/zero"
    assert output(run(root, script, devices=devices)).splitlines() == [
        "/dev/one/null character special file 1:3 640 1000:5",
        "/dev/loop9 block special file 7:9 666 0:0",
        "/dev/pipe fifo 0:0 600 0:0",
        "/opt/zero character special file 1:5 666 0:0",
    ]


@pytest.mark.parametrize(
    "device",
    [
        Device(type="x", path="/dev/x"),
        Device(type="c", path="dev/x"),
        Device(type="c", path="/dev/../x"),
        Device(type="c", path="/"),
        Device(type="c", path="/dev/x", major=-1),
        Device(type="c", path="/dev/x", minor=1 << 20),
    ],
)
def test_malformed_devices(root: list[Mount], device: Device) -> None:
    assert "linux.devices[0]" in refusal(run(root, "true", devices=(device,)), "invalid")


def test_a_file_in_the_place_of_a_device(root: list[Mount], upper: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("whole")
    (upper / "opt").mkdir()
    (upper / "opt/null").symlink_to(victim)
    device = Device(type="c", path="/opt/null", major=1, minor=3)
    assert "/opt/null" in refusal(run(root, "true", devices=(device,)), "conflict")
    assert victim.read_text() == "whole"


def test_a_bound_dev_gets_no_nodes(root: list[Mount], source: Path) -> None:
    mounts = tuple(mount for mount in MOUNTS if not mount.destination.startswith("/dev"))
    output(run(root, "true", mounts=(*mounts, bind(source, "/dev"))))
    assert [path.name for path in source.iterdir()] == ["file"]


def test_masks_do_not_use_what_the_image_calls_dev_null(root: list[Mount], upper: Path, source: Path) -> None:
    # CVE-2025-31133: the container's /dev/null is a link to a file of the host's.
    shared = source
    (shared / "null").symlink_to("/proc/sysrq-trigger")
    mounts = tuple(
        mount for mount in MOUNTS if mount.destination != "/dev" and not mount.destination.startswith("/dev/")
    )
    script = "cat /proc/keys | wc -c; grep ' /proc/keys ' /proc/self/mountinfo"
    lines = output(run(root, script, mounts=(*mounts, bind(shared, "/dev")))).splitlines()
    assert lines[0] == "0" and "/null /proc/keys" in lines[1] and "devtmpfs" in lines[1]


def test_masked_directories_are_empty_and_read_only(root: list[Mount], upper: Path) -> None:
    for name in ("a", "b"):
        (upper / name).mkdir()
        (upper / name / "secret").write_text("x")
    (upper / "c").write_text("secret")
    outcome = run(
        root,
        "ls /a /b; cat /c; touch /a/x /b/x; echo x > /c; rm -r /b/..; true",
        masked_paths=("/a", "/b", "/c", "/missing", "/c/below"),
    )
    assert outcome.stdout == "/a:\n\n/b:\n", repr(outcome)
    assert outcome.stderr.count("Read-only file system") >= 2
    assert (upper / "a/secret").exists() and (upper / "c").read_text() == "secret"


def test_paths_must_be_absolute(root: list[Mount]) -> None:
    assert "linux.maskedPaths" in refusal(run(root, "true", masked_paths=("proc/keys",)), "invalid")
    assert "linux.readonlyPaths" in refusal(run(root, "true", readonly_paths=("x",)), "invalid")
