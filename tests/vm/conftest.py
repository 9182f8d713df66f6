"""Every test here boots a machine: it needs qemu, an x86-64 host, and more time than a test elsewhere."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from pathlib import Path

import pytest

BOOTED_TEST_S_MAX = 1000  # two minutes on a quiet machine; beside all others on a slow one nearly ten
# Minutes of a machine for a few lines: the long form.
collect_ignore = [] if os.environ.get("ORLOP_TEST_SYSTEMD_V2") else ["test_runtime_systemd_on_v2.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.timeout(BOOTED_TEST_S_MAX))


@pytest.fixture(autouse=True, scope="session")
def machine(peer: Callable[[str], Path]) -> Path:
    """The emulator, or a skip."""
    if platform.machine() != "x86_64":
        pytest.skip("needs: x86-64")
    return peer("qemu-system-x86_64")
