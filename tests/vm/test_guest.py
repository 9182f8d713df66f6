"""The guest is what its users take it for: pure v2, a root that overlays and pivots, an honest end."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support import processes
from vm import guest, initramfs, kernel

FACTS = """
import json, os, subprocess, sys
sys.path.insert(0, 'src')
from orlop.linux.cgroup import detect

PIVOT = '''
import ctypes, os
os.chdir('/tmp/o/m')
os.mkdir('old')
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall(155, b'.', b'old') and exit(os.strerror(ctypes.get_errno()))
'''

def tried(*words):
    return subprocess.run(words, capture_output=True, text=True).stderr

for name in ('lower', 'upper', 'work', 'm'):
    os.makedirs('/tmp/o/' + name)
options = 'lowerdir=/tmp/o/lower,upperdir=/tmp/o/upper,workdir=/tmp/o/work'
layout = detect()
json.dump({
    'mode': layout.mode,
    'controllers': sorted(layout.v2_controllers),
    'given': open('/given').read(),
    'variable': os.environ['GIVEN'],
    'cgroup': open('/proc/self/cgroup').read(),
    'overlay': tried('mount', '-t', 'overlay', 'o', '-o', options, '/tmp/o/m'),
    'pivot': tried('unshare', '-m', 'python3', '-c', PIVOT),
    'veth': tried('ip', 'link', 'add', 'veth1', 'type', 'veth', 'peer', 'name', 'veth2'),
    'bridge': tried('ip', 'link', 'add', 'bridge1', 'type', 'bridge'),
}, sys.stdout)
print('told', file=sys.stderr)
sys.exit(7)
"""


def test_it_is_a_machine_for_containers_on_pure_v2() -> None:
    done = guest.run(["python3", "-c", FACTS], timeout_s=120, files={"/given": b"a file"}, env={"GIVEN": "a variable"})
    facts = json.loads(done.stdout)
    assert facts.pop("controllers") == ["cpu", "cpuset", "hugetlb", "io", "memory", "misc", "pids", "rdma"]
    assert facts == {
        "mode": "unified",
        "given": "a file",
        "variable": "a variable",
        "cgroup": "0::/session\n",
        "overlay": "",
        "pivot": "",
        "veth": "",
        "bridge": "",
    }
    assert (done.returncode, done.stderr) == (7, "told\n")


def test_a_signal_is_a_negative_status() -> None:
    assert guest.run(["sh", "-c", "kill -9 $$"], timeout_s=120).returncode == -signal.SIGKILL


def test_a_panic_is_told_with_the_console() -> None:
    with pytest.raises(guest.GuestError, match="sysrq_handle_crash"):
        guest.run(["sh", "-c", "echo c > /proc/sysrq-trigger"], timeout_s=120)


def test_the_time_is_bounded_and_the_machine_is_gone() -> None:
    started = time.monotonic()
    mark = secrets.token_hex(8)
    os.environ["ORLOP_VM_MARK"] = mark
    try:
        with pytest.raises(TimeoutError):
            guest.run(["sleep", "1000"], timeout_s=0.5)
        assert [pid for pid in processes.with_environment("ORLOP_VM_MARK", mark) if pid != os.getpid()] == []
    finally:
        del os.environ["ORLOP_VM_MARK"]
    assert time.monotonic() - started < 900  # not the thousand seconds of the job; a first time fetches a kernel


def test_the_machine_ends_with_a_killed_caller(tmp_path: Path) -> None:
    mark = secrets.token_hex(8)
    code = f"import sys; sys.path[:0] = {sys.path!r}\nfrom vm import guest\nguest.run(['sleep', '1000'], timeout_s=600)"
    environment = os.environ | {"ORLOP_VM_MARK": mark, "TMPDIR": str(tmp_path)}
    caller = subprocess.Popen([sys.executable, "-c", code], env=environment)
    try:
        while not _emulators(mark):
            assert caller.poll() is None
            time.sleep(0.05)
    finally:
        caller.kill()
        caller.wait()
    while _emulators(mark):
        time.sleep(0.05)


def test_a_broken_job_is_an_error_and_no_status() -> None:
    with pytest.raises(guest.GuestError, match="no_such_module"):
        guest.run(["true"], timeout_s=120, modules=["no_such_module"])


def test_an_unchanged_base_is_not_built_again() -> None:
    linux = kernel.prepare()
    first = initramfs.base(linux)
    built = first.stat().st_mtime_ns
    assert initramfs.base(linux) == first
    assert first.stat().st_mtime_ns == built


def _emulators(mark: str) -> list[int]:
    marked = processes.with_environment("ORLOP_VM_MARK", mark)
    return [pid for pid in marked if processes.read(pid, "comm").startswith(b"qemu")]
