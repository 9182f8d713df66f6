"""Volumes and mounts through the real command: what is kept, what goes, what a container sees and who owns it."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support.archives import Archive
from support.engine import COMMAND

NO_NETWORK = ("--network", "none")
IMAGE = "shipped"
CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")  # cap_net_bind_service=ep (vfs_cap_data)


def until(true, seconds=20):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.02)


def make_image(orlop, archive, name=IMAGE, changes=()):
    flags = [word for change in changes for word in ("-c", change)]
    orlop("import", *flags, "-", name, input=bytes(archive))


def data(orlop, name):
    return orlop.root / "volumes" / name / "_data"


def names(orlop, *filters):
    words = [word for text in filters for word in ("-f", text)]
    return orlop("volume", "ls", "-q", *words).stdout.split()


def shell(orlop, script, *flags, check=True):
    return orlop("run", *NO_NETWORK, "--rm", *flags, "host", "sh", "-c", script, check=check)


def inspect(orlop, name, what):
    return json.loads(orlop("inspect", "-f", "{{json " + what + "}}", name).stdout)


# -- the verbs ------------------------------------------------------------------------------------------------------


def test_what_one_container_writes_the_next_one_reads(orlop):
    assert orlop("volume", "create", "--label", "team=deck", "cargo").stdout == "cargo\n"
    shell(orlop, "echo rum > /hold/barrel", "-v", "cargo:/hold")
    assert shell(orlop, "cat /hold/barrel", "-v", "cargo:/hold:ro").stdout == "rum\n"
    refused = shell(orlop, "echo x > /hold/barrel", "-v", "cargo:/hold:ro", check=False)
    assert "Read-only file system" in refused.stderr
    shown = json.loads(orlop("volume", "inspect", "cargo").stdout)
    assert shown[0]["Mountpoint"] == str(data(orlop, "cargo")) and shown[0]["Labels"] == {"team": "deck"}
    assert json.loads(orlop("inspect", "--type", "volume", "cargo").stdout) == shown
    assert orlop("volume", "ls").stdout == "DRIVER    VOLUME NAME\nlocal     cargo\n"
    assert orlop("volume", "rm", "cargo").stdout == "cargo\n" and names(orlop) == []
    assert os.listdir(orlop.root / "volumes") == []


def test_names_are_given_taken_and_forgiven(orlop):
    drawn = orlop("volume", "create").stdout.strip()
    assert len(drawn) == 64 and orlop("volume", "create", drawn).stdout.strip() == drawn
    missing = orlop("volume", "rm", "nosuch", check=False)
    assert missing.code == 1 and "get nosuch: no such volume" in missing.stderr
    assert orlop("volume", "rm", "-f", "nosuch").stdout == "nosuch\n"
    for name in ("v10", "v9", "v1"):
        orlop("volume", "create", name)
    assert names(orlop, "name=v") == ["v1", "v9", "v10"]


def test_a_volume_in_use_stays_and_says_by_whom(orlop):
    container = orlop("create", "--name", "user", "-v", "kept:/k", "host").stdout.strip()
    refused = orlop("volume", "rm", "kept", check=False)
    assert refused.code == 1 and f"remove kept: volume is in use - [{container}]" in refused.stderr
    assert names(orlop, "dangling=true") == [] and names(orlop, "dangling=false") == ["kept"]
    for wanted, expected in (("kept", "user"), ("/k", "user"), ("other", "")):
        found = orlop("ps", "-a", "--filter", f"volume={wanted}", "--format", "{{.Names}}|{{.Mounts}}").stdout
        assert found == (f"{expected}|kept\n" if expected else "")
    orlop("rm", "-v", "user")
    assert names(orlop, "dangling=true") == ["kept"]


def test_prune_takes_what_nobody_named_and_with_all_what_nobody_uses(orlop):
    orlop("volume", "create", "--label", "keep", "named")
    orlop("volume", "create", "other")
    orlop("create", "--name", "user", "-v", "used:/u", "-v", "/nameless", "host")
    orlop("volume", "create")
    before = set(names(orlop))
    first = orlop("volume", "prune", "-f").stdout
    assert len(before - set(names(orlop))) == 1 and first.startswith("Deleted Volumes:\n")
    assert orlop("volume", "prune", "-f", "-a", "--filter", "label!=keep").stdout.splitlines()[1] == "other"
    orlop("rm", "user")
    assert len(names(orlop)) == 3  # a container that goes without -v leaves its nameless volume
    assert orlop("container", "prune", "-f").code == 0 and "used" in names(orlop)
    assert "Are you sure" in orlop("volume", "prune", input="n\n").stdout and len(names(orlop)) == 3
    orlop("volume", "prune", "-af")
    assert names(orlop) == [] and os.listdir(orlop.root / "volumes") == []


def test_nameless_volumes_go_with_rm_v_and_with_auto_remove(orlop):
    make_image(orlop, Archive().file(b"data/f"), changes=['VOLUME ["/data"]'])
    orlop("create", "--name", "c", "-v", "/other", "-v", "named:/n", IMAGE, "true")
    assert len(names(orlop)) == 3
    orlop("rm", "-v", "c")
    assert names(orlop) == ["named"]
    shell(orlop, "touch /x/y", "-v", "/x")
    until(lambda: names(orlop) == ["named"])


def test_an_image_with_many_volumes(orlop):
    """Each is made, whole and its maker's, and all go with their container. The lent one stays.

    Red: without the check of `used` under the lock the lent one goes, too.
    """
    places = [f"/v{number}" for number in range(40)]
    make_image(orlop, Archive().file(b"v7/f", b"seven"), changes=[f"VOLUME {json.dumps(places)}"])
    orlop("create", "--name", "c", IMAGE, "true")
    assert len(names(orlop)) == 40 and len(inspect(orlop, "c", ".Mounts")) == 40
    (seventh,) = [one["Name"] for one in inspect(orlop, "c", ".Mounts") if one["Destination"] == "/v7"]
    assert (data(orlop, seventh) / "f").read_bytes() == b"seven"
    orlop("create", "--name", "user", "-v", f"{seventh}:/k", "host")
    orlop("rm", "-v", "c")
    assert names(orlop) == [seventh]
    until(lambda: os.listdir(orlop.root / "volumes") == [seventh])


def test_events_tell_of_volumes(orlop):
    orlop("volume", "create", "told")
    shell(orlop, "true", "-v", "told:/t:ro")
    orlop("volume", "rm", "told")
    words = ["--since", "0", "--until", "0s", "--filter", "type=volume", "--format", "{{.Action}} {{json .Actor}}"]
    told = [line.split(" ", 1) for line in orlop("events", *words).stdout.splitlines()]
    assert [action for action, _ in told] == ["create", "mount", "unmount", "destroy"]
    mounted = json.loads(told[1][1])
    assert mounted["ID"] == "told" and mounted["Attributes"].pop("container") is not None
    expected = {"destination": "/t", "driver": "local", "propagation": "", "read/write": "false"}
    assert mounted["Attributes"] == expected


def test_an_image_that_is_mounted_is_not_removed(orlop):
    make_image(orlop, Archive().file(b"f"))
    orlop("create", "--name", "c", "--mount", f"type=image,src={IMAGE},dst=/i", "host")
    refused = orlop("rmi", IMAGE, check=False)
    assert refused.code == 1 and "is using its referenced image" in refused.stderr
    orlop("rm", "c")
    orlop("rmi", IMAGE)


# -- copy-up --------------------------------------------------------------------------------------------------------


def test_a_new_volume_begins_with_what_the_image_has(orlop):
    archive = Archive().directory(b"data", uid=1000, gid=1001, mode=0o2750, mtime=1_000_000_000)
    archive.file(b"data/f", b"text", uid=7, gid=8, mode=0o4755, mtime=1_100_000_000)
    archive.hard(b"data/same", b"data/f").symlink(b"data/link", b"/etc/passwd", uid=5, gid=6)
    archive.node(b"data/null", b"3", 1, 3, mode=0o666).node(b"data/pipe", b"6", mode=0o640)
    archive.file(
        b"data/xattrs", pax={b"SCHILY.xattr.user.colour": b"blue", b"SCHILY.xattr.security.capability": CAPABILITY}
    )
    archive.directory(b"data/deep/er", mode=0o500, mtime=1_200_000_000).file(b"data/deep/er/f")
    make_image(orlop, archive)
    orlop("create", "-v", "vol:/data", IMAGE, "true")
    found = data(orlop, "vol")
    root, file = found.stat(), (found / "f").stat()
    assert (root.st_uid, root.st_gid, stat.S_IMODE(root.st_mode)) == (1000, 1001, 0o2750)
    assert root.st_mtime == 1_000_000_000 and file.st_mtime == 1_100_000_000
    assert (file.st_uid, file.st_gid, stat.S_IMODE(file.st_mode), file.st_nlink) == (7, 8, 0o4755, 2)
    assert (found / "same").stat().st_ino == file.st_ino
    assert os.readlink(found / "link") == "/etc/passwd" and (found / "link").lstat().st_uid == 5
    null, pipe = (found / "null").stat(), (found / "pipe").stat()
    assert stat.S_ISCHR(null.st_mode) and null.st_rdev == os.makedev(1, 3) and stat.S_IMODE(null.st_mode) == 0o666
    assert stat.S_ISFIFO(pipe.st_mode) and stat.S_IMODE(pipe.st_mode) == 0o640
    assert os.getxattr(found / "xattrs", "user.colour") == b"blue"
    assert os.getxattr(found / "xattrs", "security.capability") == CAPABILITY
    deep = (found / "deep/er").stat()
    assert stat.S_IMODE(deep.st_mode) == 0o500 and deep.st_mtime == 1_200_000_000


def test_what_a_volume_has_is_never_touched(orlop):
    make_image(orlop, Archive().file(b"data/f", b"image"))
    for flag, expected in (("vol:/data", {"f"}), ("empty:/data:nocopy", set()), ("ro:/data:ro", {"f"})):
        orlop("create", "-v", flag, IMAGE, "true")
        assert set(os.listdir(data(orlop, flag.partition(":")[0]))) == expected
    (data(orlop, "vol") / "f").write_text("mine")
    (data(orlop, "vol") / "g").write_text("mine too")
    orlop("create", "-v", "vol:/data", IMAGE, "true")
    assert (data(orlop, "vol") / "f").read_text() == "mine" and (data(orlop, "vol") / "g").exists()
    orlop("create", "--mount", "type=volume,src=mm,dst=/data,volume-nocopy", IMAGE, "true")
    assert os.listdir(data(orlop, "mm")) == []


def test_layers_are_seen_as_one(orlop):
    orlop(
        "run",
        *NO_NETWORK,
        "--name",
        "c",
        "host",
        "sh",
        "-c",
        "mkdir /d; echo 1 > /d/gone; echo 1 > /d/kept; echo 1 > /d/changed",
    )
    orlop("commit", "c", "below")
    orlop("run", *NO_NETWORK, "--name", "d", "below", "sh", "-c", "rm /d/gone; echo 2 > /d/changed; echo 2 > /d/new")
    orlop("commit", "d", "above")
    script = "cd /i/d; cat changed kept new; ls"
    shown = shell(orlop, script, "--mount", "type=image,src=above,dst=/i").stdout.split()
    orlop("create", "-v", "vol:/d", "above", "true")
    orlop("run", *NO_NETWORK, "-d", "--name", "live", "host", "sleep", "1000")
    orlop("update", "--mount-add", "type=image,src=above,dst=/i", "live")
    for found in (shown, orlop("exec", "live", "sh", "-c", script).stdout.split()):
        assert found == ["2", "1", "2", "changed", "kept", "new"]
    assert {path.name: path.read_text() for path in data(orlop, "vol").iterdir()} == {
        "changed": "2\n",
        "kept": "1\n",
        "new": "2\n",
    }


def test_sparse_files_stay_sparse(orlop):
    orlop(
        "run",
        *NO_NETWORK,
        "--name",
        "c",
        "host",
        "sh",
        "-c",
        "mkdir /d; dd if=/dev/zero of=/d/f bs=1 count=1 seek=64M; sync",
    )
    orlop("commit", "c", "sparse")
    orlop("create", "-v", "vol:/d", "sparse", "true")
    found = (data(orlop, "vol") / "f").stat()
    assert found.st_size == (64 << 20) + 1 and found.st_blocks * 512 < 1 << 20


def test_a_file_where_the_volume_is_to_be_is_an_error(orlop):
    make_image(orlop, Archive().file(b"data", b"a file"))
    refused = orlop("create", "-v", "vol:/data", IMAGE, "true", check=False)
    assert refused.code == 1 and "cannot mount volume over existing file, file exists /data" in refused.stderr
    assert names(orlop) == [] and orlop.container_ids() == []  # all of it is undone


# -- what a container sees ------------------------------------------------------------------------------------------


def test_volumes_from_lends_all_mounts_and_is_overridden(orlop, tmp_path):
    (tmp_path / "f").write_text("bind")
    orlop("create", "--name", "lender", "-v", "aa:/a", "-v", f"{tmp_path}:/b", "-v", "/c", "host")
    script = "cat /b/f; echo x > /a/x && echo wrote; echo x > /c/x; grep -c ' /[abc] ' /proc/self/mountinfo"
    assert shell(orlop, script, "--volumes-from", "lender").stdout == "bindwrote\n3\n"
    refused = shell(orlop, "cat /a/x /c/x; echo y > /a/y", "--volumes-from", "lender:ro", check=False)
    assert refused.stdout == "x\nx\n" and "Read-only" in refused.stderr
    assert shell(orlop, "ls /a", "--volumes-from", "lender", "-v", "zz:/a").stdout == ""
    assert len(names(orlop)) == 3, "a borrower that goes takes nothing of the lender's along"


def test_every_kind_of_mount(orlop, tmp_path):
    (tmp_path / "f").write_text("x")
    make_image(orlop, Archive().file(b"lib/a", b"of the image"))
    script = (
        "cat /b/f /i/a; stat -f -c %T /t; stat -c %a /t; touch /b/f || touch /i/b || cat /s/a; grep ' /t ' /proc/mounts"
    )
    done = shell(
        orlop,
        script,
        *("--mount", f"type=bind,src={tmp_path},dst=/b,readonly"),
        *("--mount", "type=tmpfs,dst=/t,tmpfs-size=2m,tmpfs-mode=1770"),
        *("--mount", f"type=image,src={IMAGE},dst=/i,image-subpath=lib"),
        *("--mount", f"type=image,src={IMAGE},dst=/s,image-subpath=lib"),
    )
    assert done.stdout.startswith("xof the imagetmpfs\n1770\nof the image") and "size=2048k" in done.stdout
    assert done.stderr.count("Read-only file system") == 2
    until(lambda: os.listdir(orlop.root / "snapshots/active") == [])


@pytest.mark.parametrize(("form", "expected"), [("", "refused"), (",bind-recursive=writable", "written")])
def test_read_only_reaches_the_mounts_below(orlop, tmp_path, form, expected):
    below = tmp_path / "below"
    below.mkdir()
    # In a mount namespace of the engine's own, so that the host never sees the tmpfs.
    inner = f'mount -t tmpfs below {below} && exec {orlop("--version") and ""}sh -c "$0"'
    run = f"./orlop run --rm --mount type=bind,src={tmp_path},dst=/b,ro{form} host sh -c "
    run += "'(touch /b/x) 2>/dev/null && echo top; (touch /b/below/x) 2>/dev/null && echo written || echo refused'"
    run += f"; {COMMAND} engine stop >/dev/null"
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", inner, run], env=orlop.variables, capture_output=True, text=True, check=False
    )
    assert done.stdout == f"{expected}\n", done.stderr


@pytest.mark.parametrize(
    ("host", "asked", "expected"),
    [
        ("private", "rshared", "but it is not a shared mount"),
        ("private", "rslave", "but it is not a shared or slave mount"),
        ("shared", "rslave", "seen"),
        ("shared", "rshared", "seen"),
        ("shared", "rprivate", "hidden"),
    ],
)
def test_what_the_host_mounts_later_is_seen_as_asked(orlop, tmp_path, host, asked, expected):
    place = tmp_path / "a place"
    (place / "sub").mkdir(parents=True)
    script = f"""
    mount -t tmpfs outer '{place}' && mount --make-{host} '{place}' && mkdir '{place}/sub'
    {COMMAND} run --network none -d --name c -v '{place}:/p:{asked}' host sleep 1000 >/dev/null || exit
    mount -t tmpfs inner '{place}/sub'
    {COMMAND} exec c grep -q ' /p/sub ' /proc/self/mountinfo && echo seen || echo hidden
    {COMMAND} rm -f c >/dev/null
    {COMMAND} engine stop >/dev/null
    """
    argv = ["unshare", "-m", "sh", "-c", script]
    done = subprocess.run(argv, env=orlop.variables, capture_output=True, text=True, check=False)
    assert expected in done.stdout + done.stderr, done
    subprocess.run([str(COMMAND), "engine", "stop"], env=orlop.variables, capture_output=True, check=False)


def test_ids_change_places_in_a_mount(orlop, tmp_path):
    os.chown(tmp_path, 4321, 8765)
    script = "stat -c %u:%g /w; touch /w/f; stat -c %u:%g /w/f"
    found = shell(orlop, script, "-u", "1000:1000", "-v", f"{tmp_path}:/w:as=1000:1000").stdout
    assert found == "1000:1000\n1000:1000\n"
    made = (tmp_path / "f").stat()
    assert (made.st_uid, made.st_gid) == (4321, 8765)
    shell(orlop, "touch /w/g; chown 4321 /w/g", "-v", f"{tmp_path}:/w:as=1000")
    assert (tmp_path / "g").stat().st_uid == 1000 and (tmp_path / "f").stat().st_uid == 4321


def test_ids_change_places_in_a_mount_of_the_long_form(orlop, tmp_path):
    os.chown(tmp_path, 4321, 8765)
    script = "stat -c %u:%g /w; touch /w/f; stat -c %u:%g /w/f"
    place = f"type=bind,src={tmp_path},dst=/w"
    assert (
        shell(orlop, script, "-u", "1000", "--mount", f"{place},map=host-user<->1000").stdout == "1000:8765\n1000:0\n"
    )
    assert ((tmp_path / "f").stat().st_uid, (tmp_path / "f").stat().st_gid) == (4321, 0)
    assert shell(orlop, script, "-u", "5:6", "--mount", f"{place},map=5:6").stdout == "5:6\n4321:0\n".replace(
        "4321", "5"
    )
    shell(orlop, "touch /v/f; chown 7:8 /v/f", "-v", "vol:/v")
    kept = shell(orlop, "stat -c %u:%g /v /v/f", "--mount", "type=volume,src=vol,dst=/v,map=7:8").stdout
    assert kept == "7:8\n0:0\n"
    for words, said in (
        (f"{place},map=x", "invalid value for map: x"),
        (f"{place},map=5:6:7", "invalid value for map"),
        (f"{place},map=4294967295", "invalid mode: 4294967295"),
        ("type=tmpfs,dst=/w,map=5", "field Map must not be specified"),
        (f"type=bind,src={tmp_path}/none,dst=/w,map=5", "bind source path does not exist"),
    ):
        done = shell(orlop, "true", "--mount", words, check=False)
        assert done.code == 125 and said in done.stderr, (words, done)
    assert not (tmp_path / "none").exists()


def test_the_local_drivers_options(orlop, tmp_path):
    (tmp_path / "f").write_text("bound")
    orlop("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m,uid=33,mode=700", "memory")
    orlop("volume", "create", "-o", "type=none", "-o", f"device={tmp_path}", "-o", "o=bind", "bound")
    orlop("volume", "create", "-o", "type=nosuchfs", "-o", "device=x", "strange")
    script = "stat -c '%u %a' /t; df -k /t | tail -1 | tr -s ' ' | cut -d' ' -f2; cat /b/f; echo new > /b/g"
    assert shell(orlop, script, "-v", "memory:/t", "-v", "bound:/b").stdout == "33 700\n1024\nbound"
    assert (tmp_path / "g").read_text() == "new\n"
    refused = shell(orlop, "true", "-v", "strange:/s", check=False)
    assert refused.code == 125 and "no file system 'nosuchfs'" in refused.stderr
    assert not [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(orlop.root) in line]


def test_a_source_that_is_made_is_told_and_what_was_meant(orlop, tmp_path):
    (tmp_path / "settings/site").mkdir(parents=True)
    told = shell(orlop, "true", "-v", f"{tmp_path}/setings/site:/x", "-v", f"{tmp_path}/settings:/y")
    assert f"WARNING: {tmp_path}/setings/site does not exist: it becomes an empty directory." in told.stderr
    assert f"Did you mean {tmp_path}/settings/site?" in told.stderr and told.stderr.count("WARNING") == 1
    assert (tmp_path / "setings/site").is_dir()
    told = shell(orlop, "true", "-v", f"{tmp_path}/quite/else:/x")
    assert "quite/else does not exist" in told.stderr and "mean" not in told.stderr
    assert shell(orlop, "true", "-v", f"{tmp_path}/quite/else:/x").stderr == ""


def test_a_part_of_a_volume(orlop):
    shell(orlop, "mkdir -p /v/a/b; echo deep > /v/a/b/f; echo top > /v/f; ln -s b /v/a/in", "-v", "vol:/v")
    for part in ("a/b", "a/in", "a/../a/b"):
        assert shell(orlop, "cat /p/f", "--mount", f"src=vol,dst=/p,volume-subpath={part}").stdout == "deep\n"
    assert shell(orlop, "cat /p", "--mount", "src=vol,dst=/p,volume-subpath=f").stdout == "top\n"
    missing = shell(orlop, "true", "--mount", "src=vol,dst=/p,volume-subpath=none", check=False)
    assert missing.code == 125 and "cannot access path" in missing.stderr


def test_inspect_shows_what_docker_shows(orlop, tmp_path):
    flags = ["-v", "named:/n:ro,z", "-v", f"{tmp_path}:/h", "-v", "/anon", "--tmpfs", "/t:size=1m"]
    for text in (
        "type=bind,src=/etc,dst=/m1,ro",
        "type=volume,src=two,dst=/m2,volume-label=q=1",
        "type=tmpfs,dst=/m3,tmpfs-size=1m",
    ):
        flags += ["--mount", text]
    orlop("create", "--name", "c", *flags, "host")
    mounts = {mount["Destination"]: mount for mount in inspect(orlop, "c", ".Mounts")}
    nameless = mounts.pop("/anon")
    assert nameless == {
        "Type": "volume", "Name": nameless["Name"], "Source": str(data(orlop, nameless["Name"])),
        "Destination": "/anon", "Driver": "local", "Mode": "", "RW": True, "Propagation": "",
    }  # fmt: skip
    assert mounts == {
        "/n": {"Type": "volume", "Name": "named", "Source": str(data(orlop, "named")), "Destination": "/n",
               "Driver": "local", "Mode": "ro,z", "RW": False, "Propagation": ""},
        "/h": {"Type": "bind", "Source": str(tmp_path), "Destination": "/h", "Mode": "", "RW": True,
               "Propagation": "rprivate"},
        "/m1": {"Type": "bind", "Source": "/etc", "Destination": "/m1", "Mode": "", "RW": False,
                "Propagation": "rprivate"},
        "/m2": {"Type": "volume", "Name": "two", "Source": str(data(orlop, "two")), "Destination": "/m2",
                "Driver": "local", "Mode": "z", "RW": True, "Propagation": ""},
        "/m3": {"Type": "tmpfs", "Source": "", "Destination": "/m3", "Mode": "", "RW": True, "Propagation": ""},
    }  # fmt: skip
    config = inspect(orlop, "c", ".HostConfig")
    assert config["Binds"] == ["named:/n:ro,z", f"{tmp_path}:/h"] and config["Tmpfs"] == {"/t": "size=1m"}
    assert config["Mounts"][1] == {"Type": "volume", "Source": "two", "Target": "/m2",
                                   "VolumeOptions": {"Labels": {"q": "1"}, "DriverConfig": {}}}  # fmt: skip
    assert inspect(orlop, "c", ".Config.Volumes") == {"/anon": {}}


# -- many, and killed -----------------------------------------------------------------------------------------------


def test_twenty_containers_make_and_fill_one_volume_at_once(orlop):
    archive = Archive()
    for index in range(200):
        archive.file(b"data/%d" % index)
    make_image(orlop, archive)
    with ThreadPoolExecutor(20) as pool:
        done = list(pool.map(lambda _: orlop("create", "-v", "one:/data", IMAGE, "true"), range(20)))
    assert len({result.stdout for result in done}) == 20
    assert len(os.listdir(data(orlop, "one"))) == 200 and names(orlop) == ["one"]
    with ThreadPoolExecutor(20) as pool:
        removed = list(pool.map(lambda result: orlop("rm", "-v", result.stdout.strip()), done))
    assert all(result.code == 0 for result in removed) and names(orlop) == ["one"]


def wait_until_filling(orlop, creation):
    """Return where the engine is busy for long: the new volume is there, and its first content is on the way."""
    volumes = orlop.root / "volumes"

    def filling():
        return (volumes / "fresh").is_dir() and any((path / "_data/1").exists() for path in volumes.glob(".new-*"))

    until(lambda: filling() or creation.poll() is not None)


def test_an_engine_killed_in_a_creation_leaves_no_volume_behind(orlop):
    archive = Archive()
    for index in range(3000):
        archive.file(b"data/%d" % index)
    make_image(orlop, archive, changes=["VOLUME /data", "VOLUME /more"])
    orlop("volume", "create", "kept")
    for attempt in range(int(os.environ.get("ORLOP_TEST_KILLS", "4"))):
        words = ["create", "-v", "kept:/k", "-v", "fresh:/data", IMAGE, "true"]
        creation = orlop.popen(*words, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        wait_until_filling(orlop, creation)
        time.sleep(0.01 * (attempt // 2))
        pid = orlop.engine_pid()
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
            until(lambda dead=pid: orlop.engine_pid() != dead)
        creation.wait(30)
        found = orlop("ps", "-aq").stdout.split()  # the next engine has looked
        assert all(not name.startswith(".") for name in os.listdir(orlop.root / "volumes"))
        if not found:
            assert names(orlop) == ["kept"]
        else:
            assert len(os.listdir(data(orlop, "fresh"))) == 3000
            orlop("rm", "-v", *found)
            orlop("volume", "rm", "fresh")
        assert names(orlop) == ["kept"]


def test_a_removal_with_volumes_that_was_cut_short_is_finished(orlop):
    container = orlop("create", "-v", "/x", "host").stdout.strip()
    orlop("engine", "stop")
    directory = orlop.root / "containers" / container
    (directory / "takes-volumes").touch()
    directory.rename(directory.with_name(f"{container}.removed"))
    assert len(os.listdir(orlop.root / "volumes")) == 1
    assert orlop("ps", "-aq").stdout == "" and names(orlop) == []
    until(lambda: orlop.container_ids() == [])


# -- mounts of a running container ----------------------------------------------------------------------------------


def mounts_inside(orlop, name):
    lines = orlop("exec", name, "cat", "/proc/self/mountinfo").stdout.splitlines()
    return {line.split()[4]: line.split()[5].split(",") for line in lines}


def test_mounts_come_and_go_while_the_process_runs_on(orlop, tmp_path):
    (tmp_path / "f").write_text("here")
    make_image(orlop, Archive().file(b"lib/a", b"of the image"))
    orlop("run", *NO_NETWORK, "-d", "--name", "c", "host", "sleep", "1000")
    pid = inspect(orlop, "c", ".State.Pid")
    flags = (
        f"type=bind,src={tmp_path},dst=/new/place,readonly",
        f"type=bind,src={tmp_path}/f,dst=/etc/one-file",
        "type=tmpfs,dst=/mem,tmpfs-size=1m",
        "src=live,dst=/vol",
        f"type=image,src={IMAGE},dst=/img",
    )
    places = {"/new/place", "/etc/one-file", "/mem", "/vol", "/img"}
    orlop("update", *(word for text in flags for word in ("--mount-add", text)), "c")
    found = mounts_inside(orlop, "c")
    assert places <= set(found) and "ro" in found["/new/place"] and "ro" in found["/img"]
    shown = orlop("exec", "c", "sh", "-c", "cat /new/place/f /etc/one-file /img/lib/a; echo x > /vol/x").stdout
    assert shown == "here" + "here" + "of the image"
    assert (data(orlop, "live") / "x").read_text() == "x\n"
    assert {mount["Destination"] for mount in inspect(orlop, "c", ".Mounts")} == places
    assert orlop("volume", "rm", "live", check=False).code == 1
    orlop("update", *(word for place in ("/new/place", "/etc/one-file", "/img") for word in ("--mount-rm", place)), "c")
    assert set(mounts_inside(orlop, "c")) & places == {"/mem", "/vol"}
    assert inspect(orlop, "c", ".State.Pid") == pid
    orlop("kill", "c")
    until(lambda: not inspect(orlop, "c", ".State.Running"))
    orlop("update", "--mount-rm", "/mem", "c")
    orlop("start", "c")
    assert set(mounts_inside(orlop, "c")) & places == {"/vol"}


def test_what_can_not_be_mounted_changes_nothing(orlop, tmp_path):
    orlop("run", *NO_NETWORK, "-d", "--name", "c", "-v", "vv:/taken", "host", "sleep", "1000")
    before, bundle = mounts_inside(orlop, "c"), inspect(orlop, "c", ".Mounts")
    good = ["--mount-add", f"type=bind,src={tmp_path},dst=/good"]
    for wrong, expected in (
        ("type=tmpfs,dst=/taken", "Duplicate mount point: /taken"),
        ("type=bind,src=/nonexistent,dst=/x", "bind source path does not exist"),
        (f"type=bind,src={tmp_path},dst=/etc/passwd", "/etc/passwd"),
        (f"type=bind,src={tmp_path},dst=/proc/sys", "inside /proc"),
        ("type=tmpfs,dst=/x,tmpfs-mode=1777,tmpfs-size=1m,tmpfs-size=0x", None),
    ):
        refused = orlop("update", *good, "--mount-add", wrong, "c", check=False)
        assert refused.code in (1, 125)
        assert expected is None or expected in refused.stderr
    refused = orlop("update", *good, "--mount-rm", "/nothing", "c", check=False)
    assert "nothing of its own is mounted at /nothing" in refused.stderr
    assert mounts_inside(orlop, "c") == before and inspect(orlop, "c", ".Mounts") == bundle


def test_a_link_inside_leads_a_live_mount_nowhere_else(orlop, tmp_path):
    canary = tmp_path / "canary"
    canary.mkdir()
    script = f"ln -s {canary} /link; ln -s /../../../..{canary} /other; exec sleep 1000"
    orlop("run", *NO_NETWORK, "-d", "--name", "c", "host", "sh", "-c", script)
    before = Path("/proc/self/mountinfo").read_text()
    for place in ("/link/below", "/other/below"):
        orlop("update", "--mount-add", f"type=tmpfs,dst={place}", "c", check=False)
    assert Path("/proc/self/mountinfo").read_text().count(str(canary)) == before.count(str(canary)) == 0
    assert list(canary.iterdir()) == []


# -- what docker has no verbs for -----------------------------------------------------------------------------------


def test_a_volume_is_cloned_renamed_archived_and_restored(orlop, tmp_path):
    shell(orlop, "echo x > /v/a; ln /v/a /v/b; mkdir -m 700 /v/d; chown 5:6 /v/d; ln -s /etc /v/l", "-v", "one:/v")
    orlop("volume", "clone", "one", "two")
    orlop("volume", "export", "-o", str(tmp_path / "t.tar"), "two")
    subprocess.run(["gzip", "-k", tmp_path / "t.tar"], check=True)
    orlop("volume", "import", "three", str(tmp_path / "t.tar.gz"))
    orlop("volume", "import", "four", input=(tmp_path / "t.tar").read_bytes())
    orlop("volume", "mv", "four", "five")
    for name in ("two", "three", "five"):
        found = data(orlop, name)
        assert (found / "a").stat().st_ino == (found / "b").stat().st_ino and os.readlink(found / "l") == "/etc"
        assert ((found / "d").stat().st_uid, (found / "d").stat().st_gid) == (5, 6)
        assert stat.S_IMODE((found / "d").stat().st_mode) == 0o700
    assert names(orlop) == ["five", "one", "three", "two"]
    assert json.loads(orlop("volume", "inspect", "five").stdout)[0]["Name"] == "five"


def test_a_volume_is_renamed_under_those_who_use_it(orlop):
    flags = ("-v", "old:/v", "--mount", "type=volume,src=old,dst=/w/below,readonly")
    orlop("run", *NO_NETWORK, "-d", "--name", "c", *flags, "host", "sh", "-c", "echo 1 > /v/a; exec sleep 1000")
    orlop("create", *NO_NETWORK, "--name", "later", "-v", "old:/v", "host", "cat", "/v/a")
    pid = orlop("inspect", "-f", "{{.State.Pid}}", "c").stdout
    orlop("volume", "mv", "old", "new")
    assert names(orlop) == ["new"] and orlop("inspect", "-f", "{{.State.Pid}}", "c").stdout == pid
    assert orlop("inspect", "-f", "{{range .Mounts}}{{.Name}} {{end}}", "c").stdout.split() == ["new", "new"]
    orlop("exec", "c", "sh", "-c", "echo 2 > /v/a")
    assert (data(orlop, "new") / "a").read_text() == "2\n"
    assert orlop("start", "-a", "later").stdout == "2\n"
    orlop("restart", "-t", "0", "c")
    assert orlop("exec", "c", "cat", "/w/below/a").stdout == "1\n"
    assert (
        "old" not in orlop("show-run", "c").stdout and "is in use" in orlop("volume", "rm", "new", check=False).stderr
    )
    assert not [name for name in os.listdir(orlop.root / "volumes") if name.startswith(".")]


def test_the_next_engine_finishes_a_renaming(orlop):
    orlop("create", *NO_NETWORK, "--name", "c", "-v", "old:/v", "host", "cat", "/v/a")
    (data(orlop, "old") / "a").write_text("kept\n")
    orlop("engine", "stop")
    volumes = orlop.root / "volumes"
    (volumes / "old").rename(volumes / "new")  # where an engine died
    (volumes / ".move-1").write_text('{"old":"old","new":"new"}')
    (volumes / ".move-2").write_text('{"old":"../old","new"')
    assert names(orlop) == ["new"] and orlop("start", "-a", "c").stdout == "kept\n"
    assert "is not finished" in (orlop.root / "engine.log").read_text()
    assert orlop("inspect", "-f", "{{(index .Mounts 0).Name}}", "c").stdout == "new\n"


def test_snapshots_follow_a_volume_to_its_new_name(orlop):
    shell(orlop, "echo one > /v/a", "-v", "old:/v")
    orlop("volume", "snapshot", "old", "before")
    shell(orlop, "echo two > /v/a", "-v", "old:/v")
    orlop("volume", "mv", "old", "new")
    orlop("volume", "prune", "-f", "--all", "--filter", "label=io.orlop.snapshot-of")
    orlop("volume", "rollback", "new", "before")
    assert (data(orlop, "new") / "a").read_text() == "one\n"
    orlop("engine", "stop")
    volumes = orlop.root / "volumes"
    (volumes / "new").rename(volumes / "last")  # where an engine died
    (volumes / ".move-1").write_text('{"old":"new","new":"last"}')
    orlop("volume", "rollback", "last", "before")


def test_a_volume_goes_back_to_its_snapshot(orlop):
    shell(orlop, "echo one > /v/a; mkdir /v/d; echo x > /v/d/gone; chown 5:6 /v/d; ln -s /etc /v/l", "-v", "data:/v")
    assert orlop("volume", "snapshot", "data", "before").stdout == "before\n"
    drawn = orlop("volume", "snapshot", "data").stdout.strip()
    assert drawn.startswith("data-2") and names(orlop) == sorted(["before", "data", drawn])
    assert orlop("volume", "diff", "data", "before").stdout == ""
    shell(orlop, "echo two > /v/a; rm /v/d/gone /v/l; touch /v/new", "-v", "data:/v")
    assert orlop("volume", "diff", "data", "before").stdout == "C /a\nD /d/gone\nD /l\nA /new\n"
    orlop("run", *NO_NETWORK, "-d", "--name", "c", "-v", "data:/v", "host", "sleep", "1000")
    refused = orlop("volume", "rollback", "data", "before", check=False)
    assert refused.code == 1 and "running containers mount it" in refused.stderr
    orlop("stop", "-t", "0", "c")
    assert orlop("volume", "rollback", "data", "before").stdout == "data\n"
    assert orlop("volume", "diff", "data", "before").stdout == ""
    orlop("start", "c")
    assert orlop("exec", "c", "sh", "-c", "cat /v/a /v/d/gone; stat -c %u:%g /v/d; readlink /v/l").stdout == (
        "one\nx\n5:6\n/etc\n"
    )
    orlop("rm", "-f", "c")
    orlop("volume", "prune", "-a", "-f")
    assert names(orlop) == sorted(["before", drawn])  # theirs is gone now, so the next takes them
    orlop("volume", "prune", "-a", "-f")
    assert names(orlop) == [] and os.listdir(orlop.root / "volumes") == []


def test_what_is_no_snapshot_is_no_way_back(orlop):
    for name in ("data", "other"):
        orlop("volume", "create", name)
    orlop("volume", "snapshot", "other", "kept")
    for words, expected in (
        (["rollback", "data", "other"], "other is no snapshot of it"),
        (["rollback", "data", "kept"], "kept is no snapshot of it"),
        (["rollback", "data", "nosuch"], "no such volume"),
        (["rollback", "nosuch", "kept"], "no such volume"),
        (["snapshot", "nosuch"], "no such volume"),
        (["snapshot", "data", "kept"], "there is a volume of that name"),
        (["snapshot", "data", "a/b"], "includes invalid characters"),
        (["diff", "data", "nosuch"], "no such volume"),
    ):
        refused = orlop("volume", *words, check=False)
        assert refused.code == 1 and expected in refused.stderr, refused
    assert names(orlop) == ["data", "kept", "other"]


def test_what_is_used_or_taken_or_broken_changes_nothing(orlop, tmp_path):
    orlop("create", "--name", "c", "-v", "used:/u:ro", "host")
    orlop("volume", "create", "taken")
    (tmp_path / "broken.tar").write_bytes(bytes(Archive().file(b"x", b"y" * 5000))[:3000])
    for words, expected in (
        (["mv", "nosuch", "new"], "no such volume"),
        (["mv", "used", "taken"], "there is a volume taken"),
        (["mv", "taken", "used"], "there is a volume used"),
        (["mv", "taken", "a/b"], "includes invalid characters"),
        (["clone", "used", "taken"], "there is a volume of that name"),
        (["clone", "nosuch", "new"], "no such volume"),
        (["import", "taken", str(tmp_path / "broken.tar")], "there is a volume of that name"),
        (["import", "new", str(tmp_path / "broken.tar")], "truncated"),
        (["export", "nosuch"], "no such volume"),
    ):
        refused = orlop("volume", *words, check=False)
        assert refused.code == 1 and expected in refused.stderr, refused
    assert names(orlop) == ["taken", "used"]
    assert orlop("volume", "who").stdout.splitlines()[1].split()[2:] == ["c", "created", "/u", "ro"]
    assert [line.split()[:2] for line in orlop("volume", "du").stdout.splitlines()[1:]] == [
        ["taken", "0"],
        ["used", "1"],
    ]
    assert all(not name.startswith(".") for name in os.listdir(orlop.root / "volumes"))
