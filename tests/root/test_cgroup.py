"""Cgroups of the real kernel: on whatever layout this machine has, and on a hybrid one also as if it had v1 alone.

The same file runs in the virtual machine of tests/vm, on pure v2.
"""

from __future__ import annotations

import errno
import os
import secrets
import select
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from orlop.linux.cgroup import Cgroup, Layout, Setting, detect
from orlop.linux.cgroup.directory import Directory
from orlop.runtime.resources import settings
from orlop.spec.runtime import Cpu, DeviceRule, HugepageLimit, Memory, Pids, Resources

if TYPE_CHECKING:
    from orlop.linux.cgroup.settings import Step

MIB = 1024 * 1024
SOURCES = Path(__file__).parents[2] / "src"
MACHINE = detect()

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture(params=["machine", "v1 alone"])
def layout(request: pytest.FixtureRequest) -> Layout:
    if request.param == "machine":
        return MACHINE
    if not MACHINE.v1:
        pytest.skip("needs: cgroup v1")
    return Layout("v1", MACHINE.v1)


@pytest.fixture
def cgroup(layout: Layout) -> Iterator[Cgroup]:
    """A created cgroup two levels deep, and at the end the proof that nothing of it is left."""
    parent = Cgroup(layout, f"/orlop-test-{secrets.token_hex(4)}")
    cgroup = Cgroup(layout, f"{parent.path}/task")
    cgroup.create()
    try:
        yield cgroup
    finally:
        cgroup.kill()
        cgroup.remove()
        assert parent.prune()
        assert not [mount for mount in layout.hierarchies() if os.path.lexists(mount + parent.path)]


@pytest.fixture
def start(cgroup: Cgroup) -> Iterator[Start]:
    """`start(code)` runs Python in the cgroup, or wherever `inside` says; it begins when it is there."""
    running: list[subprocess.Popen[str]] = []

    def run(code: str, inside: Cgroup | None = cgroup) -> subprocess.Popen[str]:
        words = [sys.executable, "-I", "-S", "-c", f"import os, sys\nsys.stdin.readline()\n{textwrap.dedent(code)}"]
        child = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        running.append(child)
        if inside:
            inside.add(child.pid)
        assert child.stdin
        child.stdin.write("go\n")
        child.stdin.flush()
        return child

    yield run
    for child in running:
        child.kill()
        child.wait()
        for stream in (child.stdin, child.stdout):
            assert stream
            stream.close()


def places(cgroup: Cgroup) -> dict[str, bool]:
    return {mount: os.path.isdir(mount + cgroup.path) for mount in cgroup.layout.hierarchies()}


def limited(layout: Layout, **fields: Any) -> tuple[Step, ...]:
    return settings(Resources(**fields), layout, devices=False)


def text_of(cgroup: Cgroup, controller: str, file: str) -> str:
    return Path(cgroup.layout.directory(controller) + cgroup.path, file).read_text().strip()


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait for something that is bound to come; pytest's own timeout is the bound."""
    while not holds():
        select.select([], [], [], 0.002)


# -- life -----------------------------------------------------------------------------------------------------------


def test_it_stands_in_every_hierarchy_and_goes_from_every_hierarchy(cgroup: Cgroup) -> None:
    assert places(cgroup)
    assert all(places(cgroup).values())
    cgroup.remove()
    assert not any(places(cgroup).values())
    cgroup.remove()


def test_a_leftover_cgroup_is_replaced_with_its_limits(cgroup: Cgroup) -> None:
    cgroup.apply(limited(cgroup.layout, pids=Pids(limit=7)))
    cgroup.create()
    assert text_of(cgroup, "pids", "pids.max") == "max"


def test_a_cgroup_with_a_process_is_not_taken_over(cgroup: Cgroup, start: Start) -> None:
    child = start("sys.stdin.read()")
    with pytest.raises(OSError) as caught:
        cgroup.create()
    assert caught.value.errno == errno.EBUSY
    assert cgroup.path in caught.value.filename
    assert child.pid in cgroup.procs()


def test_a_cgroup_with_a_child_is_not_taken_over(cgroup: Cgroup) -> None:
    Cgroup(cgroup.layout, f"{cgroup.path}/below").create()
    with pytest.raises(OSError) as caught:
        cgroup.create()
    assert caught.value.errno == errno.EBUSY


def test_a_process_is_added_to_every_hierarchy(cgroup: Cgroup, start: Start) -> None:
    child = start("sys.stdin.read()")
    lines = Path(f"/proc/{child.pid}/cgroup").read_text().splitlines()
    inside = [line for line in lines if line.endswith(f":{cgroup.path}")]
    assert len(inside) == len(cgroup.layout.hierarchies())
    assert cgroup.procs() == [child.pid]


def test_what_was_made_below_is_removed_with_it(cgroup: Cgroup) -> None:
    for below in ("a", "a/b", "a/b/c", "a/d", "e"):
        Cgroup(cgroup.layout, f"{cgroup.path}/{below}").create()
    cgroup.remove()
    assert not any(places(cgroup).values())


def test_a_deep_tree_is_removed_with_few_descriptors(cgroup: Cgroup) -> None:
    mount = cgroup.layout.hierarchies()[0]
    directory = Path(mount + cgroup.path)
    for _ in range(150):
        directory /= "d"
        directory.mkdir()
    before = len(os.listdir("/proc/self/fd"))
    cgroup.remove()
    assert not any(places(cgroup).values())
    assert len(os.listdir("/proc/self/fd")) == before


def test_removal_reports_a_living_process(cgroup: Cgroup, start: Start) -> None:
    start("sys.stdin.read()")
    with pytest.raises(OSError) as caught:
        cgroup.remove(timeout_s=0)
    assert caught.value.errno == errno.EBUSY


def test_a_shared_parent_is_pruned_only_when_empty(cgroup: Cgroup) -> None:
    parent = Cgroup(cgroup.layout, cgroup.path.rpartition("/")[0])
    assert not parent.prune()
    assert all(places(cgroup).values())
    cgroup.remove()
    assert parent.prune()
    assert not any(places(parent).values())
    cgroup.create()


def test_nothing_is_left_of_an_attempt_that_one_hierarchy_refuses(cgroup: Cgroup, start: Start) -> None:
    *others, last = cgroup.layout.hierarchies()
    child = start("sys.stdin.read()")
    for mount in others:
        Path(mount + cgroup.path).with_name("cgroup.procs").write_text(str(child.pid))
        os.rmdir(mount + cgroup.path)
    with pytest.raises(OSError) as caught:
        cgroup.create()
    assert caught.value.filename == last + cgroup.path
    assert places(cgroup) == {mount: mount == last for mount in [*others, last]}


# -- limits ---------------------------------------------------------------------------------------------------------


def test_the_oom_killer_is_counted(cgroup: Cgroup, start: Start) -> None:
    assert cgroup.events().oom_kills == 0
    cgroup.apply(limited(cgroup.layout, memory=Memory(limit=24 * MIB, swap=24 * MIB)))
    child = start("b'x' * (128 << 20)")
    assert child.wait() == -signal.SIGKILL
    assert cgroup.events().oom_kills == 1


def test_the_oom_killer_below_is_counted(cgroup: Cgroup, start: Start) -> None:
    cgroup.apply(limited(cgroup.layout, memory=Memory(limit=24 * MIB, swap=24 * MIB)))
    below = Cgroup(cgroup.layout, f"{cgroup.path}/below")
    below.create()
    assert start("b'x' * (128 << 20)", inside=below).wait() == -signal.SIGKILL
    assert cgroup.events().oom_kills == 1


def test_no_more_processes_than_allowed(cgroup: Cgroup, start: Start) -> None:
    cgroup.apply(limited(cgroup.layout, pids=Pids(limit=5)))
    child = start(
        """
        born = 0
        try:
            for _ in range(20):
                if os.fork() == 0:
                    sys.stdin.read()
                    os._exit(0)
                born += 1
        except BlockingIOError:
            pass
        print(born, flush=True)
        sys.stdin.read()
        """
    )
    assert child.stdout
    assert child.stdout.readline() == "4\n"
    assert cgroup.stats().pids == 5


@pytest.mark.parametrize(
    "limits",
    [
        [(64, 128), (256, 512)],
        [(256, 512), (64, 128)],
        [(64, 64), (128, 128), (64, 64)],
        [(64, 128), (-1, -1), (64, 64)],
        [(64, 128), (-1, None), (64, 96)],
    ],
)
def test_memory_limits_are_raised_and_lowered(cgroup: Cgroup, limits: list[tuple[int, int | None]]) -> None:
    version = cgroup.layout.version("memory")
    for limit, swap in limits:
        bytes_limit, bytes_swap = (None if n is None else n if n < 0 else n * MIB for n in (limit, swap))
        cgroup.apply(limited(cgroup.layout, memory=Memory(limit=bytes_limit, swap=bytes_swap)))
        if version == 1 and limit > 0:
            assert text_of(cgroup, "memory", "memory.limit_in_bytes") == str(bytes_limit)
            assert text_of(cgroup, "memory", "memory.memsw.limit_in_bytes") == str(bytes_swap)
        if version == 2:
            assert text_of(cgroup, "memory", "memory.max") == ("max" if limit < 0 else str(bytes_limit))


def test_cpu_bandwidth_is_raised_and_lowered(cgroup: Cgroup) -> None:
    for quota, period, burst in ((50_000, 100_000, 0), (200_000, 100_000, 150_000), (5_000, 10_000, 1_000)):
        cgroup.apply(limited(cgroup.layout, cpu=Cpu(quota=quota, period=period, burst=burst)))
        if cgroup.layout.version("cpu") == 1:
            files = ("cpu.cfs_quota_us", "cpu.cfs_period_us", "cpu.cfs_burst_us")
            assert [text_of(cgroup, "cpu", file) for file in files] == [str(quota), str(period), str(burst)]
        else:
            assert text_of(cgroup, "cpu", "cpu.max") == f"{quota} {period}"
            assert text_of(cgroup, "cpu", "cpu.max.burst") == str(burst)


def test_a_controller_on_v2_is_handed_down_when_a_limit_needs_it(cgroup: Cgroup) -> None:
    """On a hybrid machine too: there huge pages are v2's."""
    if cgroup.layout.version("hugetlb") != 2:
        return  # v1 alone: nothing to hand down
    top = Path(cgroup.layout.v2, "cgroup.subtree_control")
    before = top.read_text().split()
    try:
        cgroup.apply(limited(cgroup.layout, hugepage_limits=(HugepageLimit(page_size="2MB", limit=4 * MIB),)))
        assert text_of(cgroup, "hugetlb", "hugetlb.2MB.max") == str(4 * MIB)
        assert text_of(cgroup, "hugetlb", "hugetlb.2MB.rsvd.max") == str(4 * MIB)
    finally:
        cgroup.remove()
        if "hugetlb" not in before:
            Cgroup(cgroup.layout, cgroup.path.rpartition("/")[0]).prune()
            top.write_text("-hugetlb")


def test_a_cpuset_confines(cgroup: Cgroup, start: Start) -> None:
    first = min(os.sched_getaffinity(0))
    cgroup.apply(limited(cgroup.layout, cpu=Cpu(cpus=str(first))))
    child = start("print(os.sched_getaffinity(0))")
    assert child.stdout
    assert child.stdout.readline() == f"{{{first}}}\n"


def test_a_refused_value_is_named_with_its_file(cgroup: Cgroup) -> None:
    with pytest.raises(OSError) as caught:
        cgroup.apply(limited(cgroup.layout, cpu=Cpu(cpus="4096-5000")))
    assert "4096-5000" in str(caught.value)
    assert caught.value.filename.endswith(f"{cgroup.path}/cpuset.cpus")


def test_a_refused_memory_limit_is_named_although_it_was_tried_twice(cgroup: Cgroup) -> None:
    file = "memory.limit_in_bytes" if cgroup.layout.version("memory") == 1 else "memory.max"
    with pytest.raises(OSError) as caught:
        cgroup.apply([Setting("memory", file, "12 apples")])
    assert caught.value.errno == errno.EINVAL
    assert "12 apples" in str(caught.value)


def test_a_controller_that_is_nowhere_is_named(cgroup: Cgroup) -> None:
    with pytest.raises(OSError, match="nonesuch") as caught:
        cgroup.apply([Setting("nonesuch", "nonesuch.max", "1")])
    assert caught.value.errno == errno.ENODEV


def test_a_file_that_the_kernel_lacks_is_not_made(cgroup: Cgroup) -> None:
    with pytest.raises(FileNotFoundError):
        cgroup.apply([Setting("pids", "pids.nonesuch", "1")])


# -- devices --------------------------------------------------------------------------------------------------------

PROBE = """
import stat
def probe(path, flags):
    try:
        os.close(os.open(path, flags))
        return 'ok'
    except OSError as error:
        return str(error.errno)
print(*[probe(path, flags) for path in sys.argv[1:] or PATHS for flags in (os.O_RDONLY, os.O_WRONLY)], flush=True)
"""


def probed(start: Start, *paths: str) -> list[str]:
    """Return for each path "ok" or the errno of opening it to read, then to write."""
    child = start(f"PATHS = {paths!r}\n{PROBE}")
    assert child.stdout
    return child.stdout.readline().split()


def test_devices_are_denied_but_for_the_default_ones(cgroup: Cgroup, start: Start, tmp_path: Path) -> None:
    full, kmsg = tmp_path / "full", tmp_path / "kmsg"
    os.mknod(full, 0o20666, os.makedev(1, 7))
    os.mknod(kmsg, 0o20666, os.makedev(1, 11))
    cgroup.apply(settings(Resources(devices=(DeviceRule(allow=False),)), cgroup.layout))
    assert probed(start, "/dev/null", str(full), str(kmsg)) == ["ok"] * 4 + ["1", "1"]


def test_a_device_is_allowed_for_reading_alone(cgroup: Cgroup, start: Start, tmp_path: Path) -> None:
    kmsg = tmp_path / "kmsg"
    os.mknod(kmsg, 0o20666, os.makedev(1, 11))
    rule = DeviceRule(allow=True, type="c", major=1, minor=11, access="r")
    cgroup.apply(settings(Resources(devices=(DeviceRule(allow=False), rule)), cgroup.layout))
    assert probed(start, str(kmsg)) == ["ok", "1"]


def test_one_device_is_denied_among_all(cgroup: Cgroup, start: Start, tmp_path: Path) -> None:
    kmsg = tmp_path / "kmsg"
    os.mknod(kmsg, 0o20666, os.makedev(1, 11))
    rule = DeviceRule(allow=False, type="c", major=1, minor=11, access="w")
    cgroup.apply(settings(Resources(devices=(DeviceRule(allow=True), rule)), cgroup.layout))
    assert probed(start, str(kmsg), "/dev/null") == ["ok", "1", "ok", "ok"]


def test_reading_and_writing_is_refused_where_writing_is(cgroup: Cgroup, start: Start, tmp_path: Path) -> None:
    kmsg = tmp_path / "kmsg"
    os.mknod(kmsg, 0o20666, os.makedev(1, 11))
    rule = DeviceRule(allow=False, type="c", major=1, minor=11, access="w")
    cgroup.apply(settings(Resources(devices=(DeviceRule(allow=True), rule)), cgroup.layout))
    child = start(f"try: os.open({str(kmsg)!r}, os.O_RDWR)\nexcept OSError as error: print(error.errno, flush=True)")
    assert child.stdout
    assert child.stdout.readline() == "1\n"


def test_new_rules_take_the_place_of_the_old_ones(cgroup: Cgroup, start: Start) -> None:
    nothing = (DeviceRule(allow=False),)
    for rules, expected in ((nothing, ["1", "1"]), ((DeviceRule(allow=True),), ["ok", "ok"]), (nothing, ["1", "1"])):
        cgroup.apply(settings(Resources(devices=rules), cgroup.layout))
        assert probed(start, "/dev/kmsg") == expected


# -- freeze and kill ------------------------------------------------------------------------------------------------

FAMILY = """
for _ in range({size}):
    if os.fork() == 0:
        break
print('born', flush=True)
while True:
    pass
"""


def start_family(start: Start, size: int) -> subprocess.Popen[str]:
    child = start(FAMILY.format(size=size))
    assert child.stdout
    for _ in range(size + 1):
        assert child.stdout.readline() == "born\n"
    return child


def test_frozen_processes_use_no_cpu_and_go_on_when_thawed(cgroup: Cgroup, start: Start) -> None:
    start_family(start, 2)
    cgroup.freeze()
    assert cgroup.events().frozen
    wait_until(lambda: not uses_cpu(cgroup))  # the last slice before the stop is booked a moment later
    cgroup.thaw()
    assert not cgroup.events().frozen
    wait_until(lambda: uses_cpu(cgroup))


def uses_cpu(cgroup: Cgroup) -> bool:
    before = cgroup.stats().cpu_ns
    select.select([], [], [], 0.05)
    return cgroup.stats().cpu_ns != before


def test_everything_is_killed_at_once(cgroup: Cgroup, start: Start) -> None:
    child = start_family(start, 9)
    assert len(cgroup.procs()) == 10
    cgroup.kill()
    assert child.wait() == -signal.SIGKILL
    cgroup.remove()


def test_what_is_frozen_is_killed_too(cgroup: Cgroup, start: Start) -> None:
    child = start_family(start, 3)
    cgroup.freeze()
    cgroup.kill()
    assert child.wait() == -signal.SIGKILL
    wait_until(lambda: not cgroup.events().populated)


def test_what_is_frozen_below_is_killed_too(cgroup: Cgroup, start: Start) -> None:
    below = Cgroup(cgroup.layout, f"{cgroup.path}/below")
    below.create()
    child = start("sys.stdin.read()", inside=below)
    below.freeze()
    cgroup.kill()
    assert child.wait() == -signal.SIGKILL


def test_what_runs_below_is_killed_too(cgroup: Cgroup, start: Start) -> None:
    below = Cgroup(cgroup.layout, f"{cgroup.path}/below")
    below.create()
    child = start("sys.stdin.read()", inside=below)
    assert cgroup.procs() == [child.pid]
    cgroup.kill()
    assert child.wait() == -signal.SIGKILL


def test_a_fork_bomb_is_killed(cgroup: Cgroup, start: Start) -> None:
    cgroup.apply(limited(cgroup.layout, pids=Pids(limit=40)))
    child = start(
        """
        import signal
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        print('born', flush=True)
        while True:
            try:
                if os.fork():
                    os._exit(0) if os.getpid() % 2 else None
            except BlockingIOError:
                pass
        """
    )
    assert child.stdout
    assert child.stdout.readline() == "born\n"
    cgroup.kill()
    cgroup.remove()


def test_everything_is_killed_without_cgroup_kill(cgroup: Cgroup, start: Start) -> None:
    """As on v2 before Linux 5.14."""
    child = start_family(start, 9)
    cgroup._kill_each()
    assert child.wait() == -signal.SIGKILL
    cgroup.remove()


def test_nobody_outside_is_killed(cgroup: Cgroup, start: Start) -> None:
    outside = start("print('here', flush=True); sys.stdin.read()", inside=None)
    inside = start("sys.stdin.read()")
    cgroup.kill()
    assert inside.wait() == -signal.SIGKILL
    assert outside.stdout
    assert outside.stdout.readline() == "here\n"
    assert outside.poll() is None


def test_killing_nothing_is_no_error(cgroup: Cgroup) -> None:
    cgroup.kill()
    cgroup.remove()
    cgroup.kill()


def test_a_cgroup_without_processes_says_so(cgroup: Cgroup, start: Start) -> None:
    assert not cgroup.events().populated
    child = start("sys.stdin.read()")
    assert cgroup.events().populated
    child.kill()
    child.wait()
    wait_until(lambda: not cgroup.events().populated)


def test_what_is_gone_is_an_error(cgroup: Cgroup) -> None:
    cgroup.remove()
    for look in (cgroup.events, cgroup.stats, cgroup.procs, cgroup.freeze):
        with pytest.raises(FileNotFoundError):
            look()


def test_what_goes_meanwhile_is_gone(cgroup: Cgroup) -> None:
    """Red: ENODEV, as if there were no freezer: a file of it is open when the last process has ended."""

    class Going(Directory):
        def _openat(self, name: str, flags: int) -> int:
            fd = super()._openat(name, flags)
            cgroup.remove()
            return fd

    class Seen(Cgroup):
        def _open(self, mount: str) -> Directory:
            found = super()._open(mount)
            return Going(found.fd, found.path)

    for verb in (Seen(cgroup.layout, cgroup.path).freeze, Seen(cgroup.layout, cgroup.path).thaw):
        with pytest.raises(FileNotFoundError):
            verb()
        cgroup.create()


def test_use_is_measured(cgroup: Cgroup, start: Start) -> None:
    child = start("x = b'x' * (32 << 20)\nprint('full', flush=True)\nsys.stdin.read()")
    assert child.stdout
    assert child.stdout.readline() == "full\n"
    stats = cgroup.stats()
    assert stats.pids == 1
    assert (stats.memory_bytes or 0) > 32 * MIB
    assert (stats.cpu_ns or 0) > 0
    assert stats.memory_peak_bytes is None or stats.memory_peak_bytes >= 32 * MIB


# -- births ---------------------------------------------------------------------------------------------------------

BIRTH = """
import os, sys
sys.path.insert(0, {sources!r})
from orlop.linux.cgroup import Cgroup, Layout, detect
from orlop.linux.process import clone3
layout = detect()
if {v1_alone}:
    layout = Layout('v1', layout.v1)
before = open('/proc/self/cgroup').read()
with Cgroup(layout, {path!r}).entered() as cgroup_fd:
    pid, pidfd = clone3(0, cgroup_fd)
    if pid == 0:
        sys.stdout.write(open('/proc/self/cgroup').read())
        sys.stdout.flush()
        os._exit(0)
os.waitpid(pid, 0)
assert open('/proc/self/cgroup').read() == before
"""


def test_a_child_is_born_inside_and_its_parent_is_back_outside(cgroup: Cgroup) -> None:
    v1_alone = cgroup.layout is not MACHINE
    code = BIRTH.format(sources=str(SOURCES), v1_alone=v1_alone, path=cgroup.path)
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    inside = [line for line in done.stdout.splitlines() if line.endswith(f":{cgroup.path}")]
    assert len(inside) == len(cgroup.layout.hierarchies())


def test_nobody_is_born_in_a_frozen_v1_cgroup(cgroup: Cgroup) -> None:
    if not cgroup.layout.v1:
        pytest.skip("needs: cgroup v1")
    cgroup = Cgroup(Layout("v1", cgroup.layout.v1), cgroup.path)
    cgroup.freeze()
    with pytest.raises(OSError) as caught, cgroup.entered():
        pass
    assert caught.value.errno == errno.EBUSY


def test_the_descriptor_for_clone3_is_there_on_pure_v2_alone(cgroup: Cgroup) -> None:
    fd = cgroup.fd()
    if cgroup.layout.mode == "unified":
        assert fd is not None
        assert os.readlink(f"/proc/self/fd/{fd}") == cgroup.layout.v2 + cgroup.path
        assert not os.get_inheritable(fd)
        os.close(fd)
    else:
        assert fd is None
