"""The cgroup tests of tests/root on pure v2: eBPF device rules, CLONE_INTO_CGROUP, cgroup.kill, memory.events."""

from __future__ import annotations

from vm import guest


def test_cgroups_hold_on_pure_v2() -> None:
    done = guest.run_tests("tests/root/test_cgroup.py", timeout_s=300)
    assert done.returncode == 0, done
    assert " passed" in done.stdout
