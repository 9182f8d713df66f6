"""The kernel layer: detached mounts, capabilities, clones. What forks runs in a process of its own, with one thread."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orlop.linux import abi, capability, mount, path, process
from support import launcher


def alone(script: str, *args: str) -> str:
    """Run a script in a new process; return what it prints."""
    head = "import errno, os, sys; sys.path.insert(0, sys.argv.pop(1)); from orlop.linux import *\n"
    head += "from orlop.linux import abi, capability, mount, path, process, scheduling, tty\n"
    command = [sys.executable, "-c", head + textwrap.dedent(script), str(launcher.SOURCES), *args]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def closing(fd: int) -> Iterator[int]:
    try:
        yield fd
    finally:
        os.close(fd)


def listed(fd: int) -> list[str]:
    with closing(os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)) as directory:
        return sorted(os.listdir(directory))


# -- system calls ---------------------------------------------------------------------------------------------------


def test_an_error_names_the_call_and_its_object() -> None:
    with pytest.raises(FileNotFoundError) as caught:
        path.openat2(mount.AT_FDCWD, "/no/such/file", os.O_PATH)
    assert caught.value.strerror == "openat2: No such file or directory" and caught.value.filename == "/no/such/file"
    with pytest.raises(OSError) as refused:
        mount.new_filesystem("nosuchfs")
    assert refused.value.errno == errno.ENODEV and refused.value.filename == "nosuchfs"


def test_arguments_have_64_bits() -> None:
    with closing(os.memfd_create("big")) as fd:
        os.ftruncate(fd, 1 << 40)
        assert os.fstat(fd).st_size == 1 << 40
    # AT_FDCWD is negative: it must arrive sign-extended.
    os.close(mount.open_tree(mount.AT_FDCWD, "/", 0))
    assert abi.strerror(errno.ENOENT) == "no such file or directory"


# -- mounts ---------------------------------------------------------------------------------------------------------


def test_a_detached_mount_is_in_no_table_and_usable() -> None:
    with closing(mount.new_filesystem("tmpfs", (("size", "1m"), ("mode", "711")), mount.MOUNT_ATTR_NOEXEC)) as tmpfs:
        os.mkdir("dir", dir_fd=tmpfs)
        assert listed(tmpfs) == ["dir"] and os.fstat(tmpfs).st_mode & 0o777 == 0o711
        assert mount.filesystem_magic(tmpfs) == mount.TMPFS_MAGIC
        found = os.fstat(tmpfs).st_dev
        assert f"{os.major(found)}:{os.minor(found)} " not in Path("/proc/self/mountinfo").read_text()


@pytest.mark.parametrize(
    ("options", "subject", "words"),
    [
        ((("size", "lots"),), "tmpfs size=lots", "Bad value"),
        ((("nosuch", None),), "tmpfs nosuch", "Unknown parameter"),
        ((("size", "x" * 300),), "tmpfs size=", ""),
    ],
)
def test_the_kernels_own_words_are_told(options: tuple[tuple[str, str | None], ...], subject: str, words: str) -> None:
    with pytest.raises(OSError) as caught:
        mount.new_filesystem("tmpfs", options)
    assert caught.value.errno == errno.EINVAL
    assert str(caught.value.filename).startswith(subject) and words in str(caught.value.strerror)


def test_a_clone_of_a_file_and_of_a_tree(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with closing(os.open(tmp_path / "file", os.O_PATH)) as fd, closing(mount.clone_tree(fd)) as clone:
        mount.mount_setattr(clone, set_=mount.MOUNT_ATTR_RDONLY)
        assert os.fstat(clone).st_ino == (tmp_path / "file").stat().st_ino
        with pytest.raises(OSError) as caught:
            os.open(f"/proc/self/fd/{clone}", os.O_WRONLY)
        assert caught.value.errno == errno.EROFS
    (tmp_path / "link").symlink_to("file")
    with closing(mount.clone_tree(mount.AT_FDCWD, str(tmp_path / "link"))) as clone:
        assert os.readlink("", dir_fd=clone) == "file"  # a link is not followed


@pytest.mark.parametrize("name", ["plain", "with:colon", "with\\backslash", "long" * 60, "ünï cödé, comma"])
def test_overlay_of_directories_with_any_name(tmp_path: Path, name: str) -> None:
    layers = []
    for number in range(3):
        layer = tmp_path / f"{name}{number}"
        layer.mkdir()
        (layer / f"file{number}").touch()
        (layer / "top").write_text(str(number))
        layers.append(str(layer))
    for extra in ("upper", "work"):
        (tmp_path / (name + extra)).mkdir()
    with closing(mount.overlay(layers)) as lower:
        assert listed(lower) == ["file0", "file1", "file2", "top"]
        assert path.read_in_root(lower, "top", 10) == b"0"
        with pytest.raises(OSError, match="Read-only"):
            os.mkdir("x", dir_fd=lower)
    upper, work = str(tmp_path / f"{name}upper"), str(tmp_path / f"{name}work")
    with closing(mount.overlay(layers, upper, work)) as both:
        os.mkdir("made", dir_fd=both)
    assert os.listdir(upper) == ["made"]


def test_overlay_of_many_layers(tmp_path: Path) -> None:
    layers = []
    for number in range(300):
        (tmp_path / f"layer{number}").mkdir()
        (tmp_path / f"layer{number}" / f"file{number}").touch()
        layers.append(str(tmp_path / f"layer{number}"))
    with closing(mount.overlay(layers)) as overlay:
        assert len(listed(overlay)) == 300


def test_a_failed_mount_leaves_no_descriptor(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    for call in (
        lambda: mount.overlay([str(tmp_path / "missing")]),
        lambda: mount.overlay([str(tmp_path)], str(tmp_path / "missing"), str(tmp_path / "w")),
        lambda: mount.new_filesystem("tmpfs", (("size", "x"),)),
        lambda: mount.clone_tree(mount.AT_FDCWD, str(tmp_path / "missing")),
    ):
        with pytest.raises(OSError):
            call()
    assert os.listdir("/proc/self/fd") == before


def test_attach_and_pivot(tmp_path: Path) -> None:
    script = """
        import select
        pid, pidfd = process.clone3(process.CLONE_NEWNS | process.CLONE_NEWPID)
        if pid == 0:
            root = mount.new_filesystem("tmpfs")
            slash = os.open("/", os.O_PATH)
            mount.mount_setattr(slash, propagation=mount.MS_PRIVATE, recursive=True)
            mount.move_mount(root, slash)
            os.mkdir("proc", dir_fd=root)
            target = path.open_in_root(root, "proc")
            mount.move_mount(mount.new_filesystem("proc"), target)
            os.fchdir(root)
            mount.pivot_root(".", ".")
            mount.umount2(".", mount.MNT_DETACH)
            os.chdir("/")
            print(os.listdir("/"), os.getpid(), sorted(name for name in os.listdir("/proc") if name.isdigit()))
            print(open("/proc/self/mountinfo").read().count("\\n"), flush=True)
            os._exit(7)
        print(os.waitstatus_to_exitcode(process.wait_pidfd(pidfd)))
    """
    assert alone(script) == "['proc'] 1 ['1']\n2\n7\n"


# -- processes ------------------------------------------------------------------------------------------------------


def test_clone3_makes_what_the_flags_say() -> None:
    script = """
        flags = process.CLONE_NEWPID | process.CLONE_NEWUTS | process.CLONE_NEWIPC | process.CLONE_NEWNET
        for _ in range(20):
            pid, pidfd = process.clone3(flags)
            if pid == 0:
                same = [n for n in ("pid", "uts", "ipc", "net", "mnt") if os.readlink(f"/proc/self/ns/{n}") == own[n]]
                os._exit(0 if os.getpid() == 1 and same == ["mnt"] else 1)
            assert process.wait_pidfd(pidfd) == 0
            os.close(pidfd)
        print("done")
    """
    own = "own = {n: os.readlink(f'/proc/self/ns/{n}') for n in ('pid', 'uts', 'ipc', 'net', 'mnt')}\n"
    assert alone(own + textwrap.dedent(script)) == "done\n"
    with pytest.raises(OSError, match="clone3"):
        process.clone3(1 << 60)


def test_a_pidfd_tells_how_its_process_ended() -> None:
    script = """
        for code, signum in ((3, 0), (0, 9)):
            pid, pidfd = process.clone3(0)
            if pid == 0:
                process.pause() if signum else os._exit(code)
            start = process.start_time(pid)
            assert process.pidfd_of(pid, start) > 0
            if signum:
                assert not process.has_ended(pidfd) and process.pidfd_exit_status(pidfd) is None
                process.pidfd_send_signal(pidfd, signum)
            status = process.wait_pidfd(pidfd)
            assert process.has_ended(pidfd)
            print(os.waitstatus_to_exitcode(status), process.pidfd_exit_status(pidfd) in (status, None))
            for call in (lambda: process.pidfd_of(pid, start), lambda: process.start_time(pid)):
                try:
                    call()
                    print("alive")
                except ProcessLookupError:
                    pass
            try:
                process.pidfd_send_signal(pidfd, 0)
            except ProcessLookupError:
                pass
    """
    assert alone(script) == "3 True\n-9 True\n"


def test_another_process_with_the_same_number_is_not_it() -> None:
    with pytest.raises(ProcessLookupError, match="another one now"):
        process.pidfd_of(os.getpid(), process.start_time("self") + 1)
    assert len(process.boot_id()) == 36


def test_all_descriptors_but_those_kept_are_closed() -> None:
    script = """
        fds = [os.open("/", os.O_PATH) for _ in range(10)]
        kept = {fds[0], fds[4], fds[5], fds[9], 1, 2}
        process.close_all_except(kept)
        print(sorted(fd for fd in range(64) if os.path.exists(f"/proc/self/fd/{fd}")) == sorted({0, 1, 2} | kept))
    """
    assert alone(script) == "True\n"


def test_what_ps_shows() -> None:
    script = """
        process.set_title("orlop: a title")
        process.set_name("a name longer than fifteen")
        print(open("/proc/self/cmdline", "rb").read().rstrip(b"\\0").decode())
        print(open("/proc/self/comm").read().strip())
        process.wipe_environment()
        print(set(open("/proc/self/environ", "rb").read()) <= {0}, bool(os.environ))
    """
    assert alone(script) == "orlop: a title\na name longer t\nTrue True\n"


def test_keyring_names_and_personality() -> None:
    script = """
        process.unshare(process.CLONE_NEWUTS)
        process.set_domain_name("example.test")
        process.join_session_keyring()
        process.set_personality(process.PERSONALITIES["LINUX32"])
        print(open("/proc/sys/kernel/domainname").read().strip(), os.uname().machine)
        scheduling.set_scheduler(3, flags=0, nice=7, priority=0, times_ns=(0, 0, 0))
        scheduling.set_io_priority(2, 6)
        scheduling.set_memory_policy(scheduling.MEMORY_MODES["MPOL_INTERLEAVE"], (0,))
        print(os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0))
        print([line.split()[1] for line in open("/proc/self/numa_maps") if "[heap]" in line or "heap" in line][:1])
    """
    lines = alone(script).splitlines()
    assert lines[0].split()[0] == "example.test" and lines[1] == "3 7"
    assert lines[2] in ("['interleave:0']", "[]")


# -- capabilities ---------------------------------------------------------------------------------------------------


def test_names_and_masks() -> None:
    assert capability.mask(["CAP_CHOWN", "CAP_CHECKPOINT_RESTORE"]) == 1 | 1 << 40
    assert capability.names_of(1 << 21 | 1 << 60) == ["CAP_SYS_ADMIN", "CAP_60"]
    assert capability.mask(f"CAP_{name}" for name in capability.NAMES) == 2 ** len(capability.NAMES) - 1
    with pytest.raises(KeyError):
        capability.mask(["chown"])


def test_the_sets_of_a_process() -> None:
    script = """
        import re
        def status():
            text = open("/proc/self/status").read()
            return [int(word, 16) for word in re.findall("Cap(?:Inh|Prm|Eff|Bnd|Amb):\\t(\\\\w+)", text)]
        last = capability.last()
        assert capability.bounding_set(last) == status()[3]
        own = capability.get_sets()
        assert [own[2], own[1], own[0]] == status()[:3]
        keep = capability.mask(["CAP_CHOWN", "CAP_SYS_ADMIN", "CAP_SETPCAP", "CAP_CHECKPOINT_RESTORE"]) & own[0]
        capability.drop_bounding(capability.bounding_set(last) & ~keep)
        capability.set_sets(keep, keep, 1)
        capability.set_ambient(1)
        print(status() == [1, keep, keep, keep, 1])
        capability.set_ambient(0)
        capability.set_sets(0, 0, 0)
        print(status() == [0, 0, 0, keep, 0])
        for call in (lambda: capability.set_sets(1, 1, 0), lambda: capability.drop_bounding(1)):
            try:
                call()
            except PermissionError:
                print("refused")
    """
    assert alone(script) == "True\nTrue\nrefused\nrefused\n"


# -- terminals ------------------------------------------------------------------------------------------------------


def test_a_pair_of_a_private_devpts() -> None:
    script = """
        devpts = mount.new_filesystem("devpts", (("newinstance", None), ("ptmxmode", "0666"), ("mode", "0620")))
        master = os.open("ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC, dir_fd=devpts)
        terminal, number, same = tty.open_pty(master)
        assert same == master and os.isatty(terminal)
        tty.set_size(master, 40, 100)
        before = tty.set_raw(terminal)
        os.write(terminal, b"a\\n")
        print(number, tty.get_size(terminal), os.read(master, 10))
        tty.restore(terminal, before)
        os.write(terminal, b"a\\n")
        print(os.read(master, 10), os.get_inheritable(terminal))
        os.setsid()
        tty.make_controlling(terminal)
        print(os.tcgetpgrp(terminal) == os.getpid())
    """
    assert alone(script) == "0 (40, 100) b'a\\n'\nb'a\\r\\n' False\nTrue\n"
