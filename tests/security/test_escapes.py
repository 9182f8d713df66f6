"""Escapes that others suffered, through the real command. Each has a canary on the host that must stay untouched."""

import hashlib
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from support.engine import CHECKOUT
from support.pace import SLOW


@pytest.fixture
def rootfs(orlop, tmp_path):
    """A small root file system that a test may spoil before it runs."""
    root = tmp_path / "rootfs"
    programs = ["sh", "ls", "cat", "id", "readlink", "mkdir", "touch", "sleep", "true", "stat", "head", "dd", "grep"]
    orlop("rootfs", "from-binaries", *(word for name in programs for word in ("--with", name)), str(root))
    return root


def snapshot(directory: Path) -> dict[str, tuple[int, int, int, str]]:
    """Return every file below a directory with mode, size, mtime and content."""
    seen = {}
    for path in sorted([directory, *directory.rglob("*")]):
        info = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(info.st_mode) else b""
        seen[str(path)] = (info.st_mode, info.st_size, info.st_mtime_ns, hashlib.sha256(content).hexdigest())
    return seen


def own_files() -> str:
    """Return one hash over our code and the interpreter that runs it."""
    total = hashlib.sha256(Path(os.path.realpath(sys.executable)).read_bytes())
    total.update(Path("/usr/bin/python3").resolve().read_bytes())
    for path in sorted((CHECKOUT / "src").rglob("*.py")):
        total.update(path.read_bytes())
    return total.hexdigest()


def test_sec_01_no_process_inside_leads_to_a_host_binary(orlop):
    """CVE-2019-5736: /proc/self/exe of a process that enters the container."""
    before = own_files()
    watcher = """
    while [ ! -e /stop ]; do
        for p in /proc/[0-9]*; do
            exe=$(readlink $p/exe 2>/dev/null) && case $exe in *python*) echo LEAK $exe;; esac
            ( : >> $p/exe ) 2>/dev/null && echo WRITABLE $p
        done
    done
    echo watched
    """
    orlop("run", "-d", "--name", "c", "host", "sh", "-c", watcher)
    for _ in range(20):
        orlop("exec", "c", "true")
        orlop("exec", "c", "/proc/self/exe", check=False)
    orlop("exec", "c", "touch", "/stop")
    orlop("wait", "c")
    told = orlop("logs", "c").stdout
    assert told.splitlines()[-1] == "watched"
    assert "LEAK" not in told, told
    assert own_files() == before


@pytest.mark.parametrize("number", [0, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 15, 20, 64, 1023])
def test_sec_03_a_descriptor_as_working_directory(orlop, number):
    """CVE-2024-21626: the cwd through a leaked descriptor of the runtime."""
    done = orlop("run", "--rm", "-w", f"/proc/self/fd/{number}", "host", "sh", "-c", "ls; pwd", check=False)
    assert done.code == 125, done
    assert f"/proc/self/fd/{number}" in done.stderr
    orlop("run", "-d", "--name", "c", "host", "sleep", "1000")
    done = orlop("exec", "-w", f"/proc/self/fd/{number}", "c", "ls", check=False)
    assert done.code != 0 and done.stdout == "", done


def test_sec_04_the_callers_descriptors_stay_outside(orlop):
    """Only 0, 1 and 2 inside, whatever the caller left open, in run and in exec."""
    leak = os.open("/", os.O_RDONLY)
    os.set_inheritable(leak, True)
    try:
        look = ["sh", "-c", "ls -l /proc/self/fd"]
        for argv in (["run", "--rm", "host", *look], ["run", "--rm", "-i", "host", *look]):
            done = subprocess.run(
                [CHECKOUT / "orlop", *argv], env=orlop.variables, close_fds=False, capture_output=True, check=True
            )
            names = [line.split()[8] for line in done.stdout.decode().splitlines() if "->" in line]
            assert sorted(set(names) - {"3"}) == ["0", "1", "2"], done  # 3 is the directory that ls reads
    finally:
        os.close(leak)
    orlop("run", "-d", "--name", "c", "host", "sleep", "1000")
    listed = orlop("exec", "c", "sh", "-c", "ls -l /proc/self/fd; ls -l /proc/1/fd").stdout
    links = [line.split("-> ")[1] for line in listed.splitlines() if "-> " in line]
    assert not [link for link in links if link.startswith("/") and not link.startswith(("/proc/", "/dev/null"))], listed


def link_of(path):
    """Return where a descriptor leads, "" for one that was closed meanwhile."""
    try:
        return os.readlink(path)
    except FileNotFoundError:
        return ""


def test_sec_04_a_started_engine_keeps_none_of_its_starters_descriptors(orlop):
    """A script's pipe that the engine kept open would keep the script's reader waiting for ever."""
    reader, writer = os.pipe()
    try:
        subprocess.run(
            [CHECKOUT / "orlop", "ps"], env=orlop.variables, pass_fds=[writer], check=True, capture_output=True
        )
        pid = orlop.engine_pid()
        links = [link for fd in os.listdir(f"/proc/{pid}/fd") if (link := link_of(f"/proc/{pid}/fd/{fd}"))]
        assert os.readlink(f"/proc/self/fd/{writer}") not in links
    finally:
        os.close(reader)
        os.close(writer)


@pytest.mark.parametrize("target", ["/tmp", "/", "../../../../tmp", "self", "/etc/passwd"])
@pytest.mark.parametrize("name", ["proc", "sys", "dev"])
def test_sec_09_and_14_a_link_in_place_of_a_kernel_directory(orlop, rootfs, tmp_path, name, target):
    """CVE-2019-19921, CVE-2026-41579: nothing is mounted or made where an image's link leads."""
    canary = tmp_path / "canary"
    canary.mkdir()
    (rootfs / name).exists() and (rootfs / name).rmdir()
    (rootfs / name).symlink_to(target)
    (rootfs / "tmp").mkdir(exist_ok=True)
    before = (snapshot(canary), where_devices_would_be())
    done = orlop("run", "--rm", "--rootfs", str(rootfs), "sh", "-c", "echo ran", check=False)
    assert done.code == 125, done
    assert f"/{name}" in done.stderr
    assert (snapshot(canary), where_devices_would_be()) == before


def where_devices_would_be() -> list[str]:
    """Return what stands in the host's directories under the names of what a container's /dev gets."""
    names = "null zero full random urandom tty console ptmx pts shm mqueue fd stdin stdout stderr core".split()
    places = ("/tmp", "/", "/etc")
    return [f"{place}/{name}" for place in places for name in names if os.path.lexists(f"{place}/{name}")]


def test_sec_11_masks_come_from_our_own_null_device(orlop, rootfs):
    """CVE-2025-31133: an image's /dev/null that is a link must not become the mask."""
    (rootfs / "dev").mkdir(exist_ok=True)
    (rootfs / "dev/null").symlink_to("/proc/sys/kernel/core_pattern")
    pattern = Path("/proc/sys/kernel/core_pattern").read_text()
    script = "stat -c '%t:%T' /proc/keys; echo x > /proc/sys/kernel/core_pattern; stat -c '%t:%T %F' /dev/null"
    done = orlop("run", "--rm", "--rootfs", str(rootfs), "sh", "-c", script, check=False)
    assert done.stdout.splitlines() == ["1:3", "1:3 character special file"], done
    assert "Read-only file system" in done.stderr
    assert Path("/proc/sys/kernel/core_pattern").read_text() == pattern


def test_sec_16_our_own_files_do_not_follow_the_images_links(orlop, rootfs, tmp_path):
    canary = tmp_path / "canary"
    canary.write_text("host")
    (rootfs / "etc").mkdir(exist_ok=True)
    for name in ("hosts", "resolv.conf", "hostname", "mtab"):
        (rootfs / "etc" / name).unlink(missing_ok=True)
        (rootfs / "etc" / name).symlink_to(canary)
    orlop("run", "--rm", "--rootfs", str(rootfs), "true", check=False)
    assert canary.read_text() == "host"


def test_sec_17_a_passwd_that_never_ends(orlop, rootfs):
    """CVE-2024-9676: a FIFO, a device or a huge file where passwd should be."""
    passwd = rootfs / "etc/passwd"
    passwd.parent.mkdir(exist_ok=True)

    def huge() -> None:
        passwd.touch()
        os.truncate(passwd, 8 << 30)

    for make in (lambda: os.mkfifo(passwd), lambda: os.symlink("/dev/zero", passwd), huge):
        passwd.unlink(missing_ok=True)
        make()
        done = orlop("run", "--rm", "-u", "app", "--rootfs", str(rootfs), "true", check=False, timeout=20 * SLOW)
        assert done.code == 125 and "passwd" in done.stderr, done


def test_sec_27_a_user_id_never_wraps_to_root(orlop):
    for user in ("2147483648", "4294967295", "4294967296", "18446744073709551616", "-1", " 0", "0x0", "1000:", "1e3"):
        done = orlop("run", "--rm", f"--user={user}", "host", "id", "-u", check=False)
        assert done.code == 125 or done.stdout.strip() not in ("0", ""), (user, done)


def test_sec_30_cgroups_are_read_only_inside(orlop):
    script = """
    find /sys/fs/cgroup -name 'release_agent' -o -name notify_on_release -o -name cgroup.procs | while read f; do
        ( echo 1 > $f ) 2>/dev/null && echo WROTE $f
    done
    mkdir /tmp/m; mount -t cgroup -o memory cgroup /tmp/m 2>/dev/null && echo MOUNTED
    mkdir /sys/fs/cgroup/memory/x 2>/dev/null && echo MADE
    echo done
    """
    assert orlop("run", "--rm", "host", "sh", "-c", script).stdout == "done\n"


def test_masked_and_read_only_paths(orlop):
    script = """
    for f in /proc/keys /proc/timer_list /proc/kcore; do [ -e $f ] && head -c 1 $f | wc -c; done
    for d in /proc/acpi /proc/scsi /sys/firmware; do [ -d $d ] && ls $d | wc -l; done
    for f in /proc/sys/kernel/hostname /proc/sysrq-trigger /proc/irq/default_smp_affinity; do
        ( echo x > $f ) 2>/dev/null && echo WROTE $f
    done
    echo done
    """
    lines = orlop("run", "--rm", "host", "sh", "-c", script).stdout.split()
    assert lines[-1] == "done" and set(lines[:-1]) <= {"0"}, lines


def test_sec_34_state_is_closed_to_other_users(orlop):
    orlop("run", "-d", "--name", "c", "host", "sleep", "1000")
    for place in (orlop.root, orlop.run):
        assert stat.S_IMODE(place.stat().st_mode) == 0o700, place
    assert stat.S_IMODE(orlop.socket.stat().st_mode) & 0o077 == 0


def test_sec_33_no_abstract_socket_of_ours(orlop):
    """CVE-2020-15257. The network that the private engine lives in is nobody else's: there must be none at all."""
    orlop("run", "-d", "--name", "c", "host", "sleep", "1000")
    lines = orlop.inside(lambda: Path("/proc/thread-self/net/unix").read_text()).splitlines()[1:]
    names = [line.split()[7] for line in lines if len(line.split()) > 7]
    assert names and not [name for name in names if name.startswith("@")], names
