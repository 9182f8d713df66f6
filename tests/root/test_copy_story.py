"""cp, diff, export and commit through the real command and kernel: what is kept, what is seen, what is refused."""

import bz2
import gzip
import io
import json
import lzma
import os
import signal
import socket
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

from orlop.linux.path import open_in_root
from support import processes

KILLS = int(os.environ.get("ORLOP_TEST_KILLS", "3"))
MAKE = """
mkdir -p /d/sub; echo a > /d/a; ln /d/a /d/b; ln -s a /d/l; mkfifo /d/p; chown 5:6 /d/a; chmod 4750 /d/a
truncate -s 8M /d/holes; echo end >> /d/holes; mkdir /v 2>/dev/null; echo ready > /tmp/ready; exec sleep 1000
"""


def until(true, seconds=20):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.02)


def running(orlop, *options, script=MAKE):
    orlop("run", "-d", "--name", "web", *options, "host", "sh", "-c", script)
    if script == MAKE:
        until(lambda: orlop("exec", "web", "test", "-e", "/tmp/ready", check=False).code == 0)
    return "web"


def members(data):
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {member.name.rstrip("/"): member for member in archive}


# -- cp -------------------------------------------------------------------------------------------------------------


def test_owners_modes_links_and_holes_survive_both_ways(orlop, tmp_path):
    running(orlop)
    orlop("cp", "-a", "web:/d", tmp_path / "out")
    out = tmp_path / "out"
    info = (out / "a").stat()
    assert (info.st_uid, info.st_gid, info.st_mode & 0o7777, info.st_nlink) == (5, 6, 0o4750, 2)
    assert os.path.samestat(info, (out / "b").stat()) and os.readlink(out / "l") == "a"
    assert (out / "holes").stat().st_size == 8 * 1024**2 + 4 and (out / "holes").stat().st_blocks < 100
    os.setxattr(out / "a", "user.note", b"kept")
    orlop("cp", out, "web:/back")
    orlop("cp", "-a", "web:/back", tmp_path / "again")
    again = tmp_path / "again"
    assert os.getxattr(again / "a", "user.note") == b"kept"
    assert (again / "a").stat().st_uid == 5 and (again / "holes").stat().st_blocks < 100
    orlop("cp", "web:/d", tmp_path / "mine")
    assert (tmp_path / "mine/a").stat().st_uid == os.getuid(), "without -a what comes here is ours"


@pytest.mark.parametrize("state", ["running", "paused", "stopped"])
def test_what_is_copied_gets_the_owner_and_the_mode_that_are_asked_for(orlop, tmp_path, state):
    """red: without `owner` or `mode` of Rules, and with names that are looked up here instead of in the container."""
    running(orlop, "-v", "data:/data", script="echo guest:x:4711:4712::/:/bin/sh >> /etc/passwd; exec sleep 1000")
    until(lambda: "guest" in orlop("exec", "web", "cat", "/etc/passwd").stdout)
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "file").write_text("a")
    (source / "link").symlink_to("file")
    (source / "dangling").symlink_to("/no/such")
    if state != "running":
        orlop({"paused": "pause", "stopped": "stop"}[state], "web")
    flags = ("--chown", "guest", "--chmod", "0750")
    for place in ("/tmp/in", "/data/in"):
        orlop("cp", *flags, source, f"web:{place}")
        found = members(orlop("cp", f"web:{place}", "-").raw_stdout)
        assert len(found) == 5 and {(one.uid, one.gid) for one in found.values()} == {(4711, 4712)}, found
        assert {one.mode for one in found.values() if not one.issym()} == {0o750}
        assert found["in/dangling"].linkname == "/no/such"
    orlop("cp", "--chown", "7:8", source / "file", "web:/tmp/one")
    one = members(orlop("cp", "web:/tmp/one", "-").raw_stdout)["one"]
    assert (one.uid, one.gid, one.mode & 0o777) == (7, 8, (source / "file").stat().st_mode & 0o777)
    orlop("cp", "--chown", "9:10", "--chmod", "600", "web:/tmp/one", tmp_path / "here")
    info = (tmp_path / "here").stat()
    assert (info.st_uid, info.st_gid, info.st_mode & 0o7777) == (9, 10, 0o600)
    for wrong in (("--chown", "nobody-knows"), ("--chmod", "rwx"), ("--chmod", "17777"), ("--chown", "1:2:3")):
        assert orlop("cp", *wrong, source, "web:/tmp/refused", check=False).code in (1, 125), wrong
    refused = orlop("cp", "--chown", "guest", "web:/tmp/one", tmp_path / "there", check=False)
    assert refused.code == 1 and "UID[:GID]" in refused.stderr and not (tmp_path / "there").exists()


def test_archives_go_in_and_out_as_streams(orlop):
    running(orlop)
    data = orlop("cp", "web:/d", "-").raw_stdout
    found = members(data)
    assert list(found) == ["d", "d/a", "d/b", "d/holes", "d/l", "d/p", "d/sub"], "sorted"
    assert found["d/b"].islnk() and found["d/holes"].size == 8 * 1024**2 + 4 and found["d/p"].isfifo()
    orlop("cp", "-", "web:/tmp", input=data)
    assert orlop("exec", "web", "cat", "/tmp/d/b").stdout == "a\n"
    refused = orlop("cp", "-", "web:/d/a", input=data, check=False)
    assert refused.code == 1 and 'destination "web:/d/a" must be a directory' in refused.stderr
    broken = orlop("cp", "-", "web:/tmp", input=b"no archive" * 100, check=False)
    assert broken.code == 1 and "not a tar archive" in broken.stderr


def test_volumes_are_seen_whether_it_runs_or_not(orlop, tmp_path):
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "file").write_text("of the volume")
    running(orlop, "-v", f"{volume}:/v")
    for state in ("running", "stopped"):
        if state == "stopped":
            orlop("kill", "web")
            orlop("wait", "web")
        orlop("cp", "web:/v/file", tmp_path / state)
        assert (tmp_path / state).read_text() == "of the volume"
        orlop("cp", tmp_path / state, "web:/v/")
        assert (volume / state).read_text() == "of the volume"
    mounts = Path("/proc/self/mountinfo").read_text()
    assert str(orlop.root) not in mounts and str(orlop.run) not in mounts, "I4"


def test_what_is_read_only_stays_so(orlop, tmp_path):
    (tmp_path / "f").write_text("x")
    volume = tmp_path / "volume"
    volume.mkdir()
    running(orlop, "--read-only", "-v", f"{volume}:/v:ro", "--tmpfs", "/tmp", script="exec sleep 1000")
    for state in ("running", "stopped"):
        if state == "stopped":
            orlop("kill", "web")
            orlop("wait", "web")
        refused = orlop("cp", tmp_path / "f", "web:/etc/", check=False)
        assert refused.code == 1 and "container rootfs is marked read-only" in refused.stderr, state
        refused = orlop("cp", tmp_path / "f", "web:/v/", check=False)
        assert refused.code == 1 and "mounted volume is marked read-only" in refused.stderr, state
    assert list(volume.iterdir()) == []


def test_a_path_through_an_absolute_link_stays_inside(orlop, tmp_path):
    running(orlop, script="ln -s /run /var/run; mkdir -p /run; exec sleep 1000")
    (tmp_path / "f").write_text("x")
    until(lambda: orlop("exec", "web", "test", "-L", "/var/run", check=False).code == 0)
    orlop("cp", tmp_path / "f", "web:/var/run/")
    assert orlop("exec", "web", "cat", "/run/f").stdout == "x"


def test_a_frozen_container_is_read_and_delays_nobody(orlop, tmp_path):
    running(orlop)
    orlop("run", "-d", "--name", "other", "host", "sleep", "1000")
    orlop("pause", "web")
    orlop("cp", "web:/d/a", tmp_path / "a")
    assert "C /tmp" in orlop("diff", "web").stdout
    stuck = orlop.popen("cp", "-", "web:/tmp", stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert orlop("exec", "other", "echo", "on").stdout == "on\n"
        assert "web" in orlop("ps").stdout
    finally:
        stuck.kill()
        stuck.communicate()
    orlop("unpause", "web")


def test_a_client_that_dies_ends_its_copy(orlop):
    running(orlop)
    orlop("kill", "web")
    orlop("wait", "web")
    stuck = orlop.popen("cp", "-", "web:/tmp", stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    time.sleep(0.3)
    stuck.kill()
    stuck.communicate()
    orlop("start", "web", timeout=30)  # the copy had the container's lock


def test_copies_that_cannot_be(orlop, tmp_path):
    running(orlop)
    for words, text in (
        (("web:/nope", "x"), "Could not find the file /nope in container web"),
        (("gone:/x", "x"), "No such container: gone"),
        (("a:/x", "b:/y"), "copying between containers is not supported"),
        (("x", "y"), "must specify at least one container source"),
        (("", "web:/x"), "source can not be empty"),
        (("web:/x", ""), "destination can not be empty"),
        (("web:/d", str(tmp_path / "f")), "cannot copy directory"),
        (("web:/d/a", str(tmp_path / "new/")), "no such directory"),
    ):
        (tmp_path / "f").write_text("")
        if words[-1].endswith("/new"):
            words = (words[0], words[1] + "/")
        refused = orlop("cp", *words, check=False)
        assert refused.code == 1 and text in refused.stderr, (words, refused)


# -- diff, export, commit -------------------------------------------------------------------------------------------


def test_the_difference_is_dockers(orlop):
    script = (
        "echo n > /etc/new; rm /etc/group; echo x >> /etc/passwd; mkdir -p /a/b; rm -r /var/tmp; mkdir -m 700 /var/tmp"
    )
    running(orlop, script=f"{script}; touch /a/ready; exec sleep 1000")
    until(lambda: orlop("exec", "web", "test", "-e", "/a/ready", check=False).code == 0)
    lines = orlop("diff", "web").stdout.splitlines()
    assert lines == [
        "A /a", "A /a/b", "A /a/ready", "C /etc", "D /etc/group", "A /etc/new", "C /etc/passwd", "C /var", "C /var/tmp",
    ]  # fmt: skip


def test_an_untouched_container_has_no_difference(orlop):
    running(orlop, script="exec sleep 1000")
    assert orlop("diff", "web").stdout == "", "what the runtime makes to mount on does not count"
    orlop("commit", "web", "same:1")
    inside = json.loads(orlop("image", "inspect", "same:1").stdout)[0]
    assert len(inside["RootFS"]["Layers"]) == 2


def test_an_export_is_the_same_each_time_and_whole(orlop, tmp_path):
    running(orlop)
    orlop("kill", "web")
    orlop("wait", "web")
    orlop("export", "-o", tmp_path / "one.tar", "web")
    assert orlop("export", "web").raw_stdout == (tmp_path / "one.tar").read_bytes()
    found = members((tmp_path / "one.tar").read_bytes())
    assert {"d/a", "etc/passwd", "proc"} <= set(found) and found["d/a"].uid == 5
    orlop("import", tmp_path / "one.tar", "again:1")
    assert orlop("run", "--rm", "again:1", "cat", "/d/b").stdout == "a\n"


def test_a_commit_is_an_image_with_what_changed_and_what_was_said(orlop, tmp_path):
    running(orlop, "-e", "E=1", script="rm -r /var/tmp; mkdir /var/tmp; rm /etc/group; echo x > /f; exec sleep 1000")
    until(lambda: orlop("exec", "web", "test", "-e", "/f", check=False).code == 0)
    done = orlop(
        "commit", "-a", "me", "-m", "why", "-c", "CMD ls /var/tmp /etc/group /f", "-c", "LABEL l=v", "web", "my:1"
    )
    identity = done.stdout.strip()
    assert orlop("ps", "--format", "{{.Status}}").stdout.startswith("Up"), "it runs on"
    image = json.loads(orlop("image", "inspect", "my:1").stdout)[0]
    assert image["Id"] == identity and image["Author"] == "me" and image["Comment"] == "why"
    assert image["Config"]["Labels"] == {"l": "v"} and "E=1" in image["Config"]["Env"]
    shown = orlop("run", "--rm", "my:1", check=False)
    assert "/f" in shown.stdout and "group" not in shown.stdout and "No such file" in shown.stderr
    again = orlop("commit", "web").stdout.strip()
    assert again.startswith("sha256:") and again != identity
    assert orlop("commit", "web", "Not/A/Name", check=False).code == 1
    assert orlop("commit", "-c", "RUN x", "web", check=False).code == 1


def _await_growth(client, place, size):
    """Return when a file in a directory has that size, or the client has ended."""

    def grown():
        if client.poll() is not None:
            return True
        sizes = []
        for path in place.iterdir():
            try:
                sizes.append(path.stat().st_size if path.is_file() else 0)
            except FileNotFoundError:
                pass
        return any(one >= size for one in sizes)

    until(grown)


@pytest.mark.parametrize("verb", ["commit", "cp"])
def test_an_engine_killed_in_the_middle_leaves_nothing_half(orlop, tmp_path, verb):
    running(orlop, script="head -c 30000000 /dev/urandom > /big; echo > /ready; exec sleep 1000")
    until(lambda: orlop("exec", "web", "test", "-e", "/ready", check=False).code == 0, 60)
    words = ("commit", "web", "half:1") if verb == "commit" else ("cp", "web:/big", str(tmp_path / "big"))
    cut = 0
    for attempt in range(KILLS):
        if verb == "commit":
            orlop("rmi", "half:1", check=False)
        (tmp_path / "big").unlink(missing_ok=True)
        client = orlop.popen(*words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        where = orlop.root / "content/ingest" if verb == "commit" else tmp_path
        _await_growth(client, where, 1 + attempt * 5_000_000)
        pid = orlop.engine_pid()
        if pid is not None:
            processes.kill(pid, processes.start_time(pid), signal.SIGKILL)
            until(lambda pid=pid: not os.path.exists(f"/proc/{pid}"))
        client.communicate(timeout=60)
        cut += client.returncode != 0
        status = orlop("ps", "--format", "{{.Status}}").stdout
        assert status.startswith("Up") and "Paused" not in status, "the next engine thaws it"
        if verb == "commit":
            named = orlop("images", "--format", "{{.Repository}}").stdout.split()
            if "half" in named:
                assert orlop("run", "--rm", "half:1", "wc", "-c", "/big").stdout.split()[0] == "30000000"
    assert cut, "no kill hit the verb: it is killed while what it writes grows"
    orlop("exec", "web", "true")


def test_nothing_of_an_image_is_executed(orlop, tmp_path):
    """SEC-05: what cp, diff, export and commit need is ours; a container's own programs stay files."""
    trap = "#!/bin/sh\\necho trapped >> /trap\\n"
    names = "tar xz zstd gzip unpigz cp python3 ps nsenter bzip2"
    script = f"for n in {names}; do printf '{trap}' > /usr/bin/$n; chmod 755 /usr/bin/$n; done"
    # What a library or an interpreter that enters would load: of the name service, of character sets, of Python.
    modules = "encodings/__init__.py sitecustomize.py usercustomize.py os.py"
    places = "/usr/lib/python3/dist-packages /usr/lib/python3.11 /usr/lib/x86_64-linux-gnu/gconv /lib/x86_64-linux-gnu"
    program = "open('/trap', 'w')"
    script += f'; for d in {places}; do mkdir -p $d/encodings; for m in {modules}; do echo "{program}" > $d/$m; done'
    script += (
        "; for l in libnss_files.so.2 libnss_dns.so.2 libnss_compat.so.2 gconv-modules; do echo no > $d/$l; done; done"
    )
    running(orlop, script=f"{script}; echo > /ready; exec sleep 1000")
    until(lambda: orlop("exec", "web", "test", "-e", "/ready", check=False).code == 0)
    orlop("cp", "web:/etc", tmp_path / "etc")
    orlop("cp", tmp_path / "etc", "web:/etc2")
    for number, pack in enumerate((gzip.compress, bz2.compress, lzma.compress)):
        packed = pack(bytes(10240))
        (tmp_path / f"packed{number}").write_bytes(packed)
        orlop("cp", tmp_path / f"packed{number}", "web:/tmp")
        orlop("cp", f"web:/tmp/packed{number}", "-")
    assert "sleep 1000" in orlop("top", "web").stdout
    orlop("stats", "--no-stream", "web")
    orlop("diff", "web")
    orlop("export", "-o", tmp_path / "e.tar", "web")
    orlop("commit", "web", "x:1")
    assert orlop("exec", "web", "test", "-e", "/trap", check=False).code == 1
    assert not os.path.exists("/trap")


def test_sockets_are_left_out(orlop, tmp_path):
    volume = tmp_path / "v"
    volume.mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(volume / "s"))
        running(orlop, "-v", f"{volume}:/v", script="exec sleep 1000")
        assert "v/s" not in members(orlop("cp", "web:/v", "-").raw_stdout)


def test_paths_are_resolved_in_the_root_by_the_kernel(tmp_path):
    """The call that all of cp stands on: RESOLVE_IN_ROOT, where an absolute link means the root's own."""
    (tmp_path / "root/in").mkdir(parents=True)
    (tmp_path / "root/link").symlink_to("/in")
    root = os.open(tmp_path / "root", os.O_PATH | os.O_DIRECTORY)
    try:
        fd = open_in_root(root, "link", os.O_PATH)
        assert os.path.samestat(os.fstat(fd), (tmp_path / "root/in").stat())
        os.close(fd)
    finally:
        os.close(root)
