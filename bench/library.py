"""Containers through the runtime library, in one process: a line on standard input runs one, a line tells its end.

Each reads its bundle anew, as a command would; what stays is the interpreter with its modules and the host's facts.
"""

from __future__ import annotations

import os
import sys

from orlop.linux import process
from orlop.runtime import host, launch, plan, rootfs
from orlop.spec import jsonio
from orlop.spec.runtime import Spec


def main(bundle: str) -> None:
    """Serve until the end of the input."""
    facts = host.facts()
    null = os.open(os.devnull, os.O_RDWR)
    for _ in sys.stdin.buffer:
        run(bundle, facts, null)
        os.write(1, b".\n")


def run(bundle: str, facts: host.HostFacts, null: int) -> None:
    """Run the bundle's command to its end and remove what is left of it."""
    with open(f"{bundle}/config.json", "rb") as file:
        spec = Spec.from_json(jsonio.parse(file.read(), file.name))
    assert spec.root
    root = rootfs.open_bundle_root(spec.root, bundle)
    created = launch.create(plan.compile(spec, facts), root, (null, null, null))
    os.close(root)
    created.start()
    status = process.wait_pidfd(created.pidfd)
    os.close(created.pidfd)
    assert status == 0 and created.cgroup
    created.cgroup.remove()
