"""Plugins of CNI that are broken or hostile: each is an error that names it, and ends."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from orlop.network.cni import client, result
from orlop.network.cni.client import Place
from orlop.network.cni.conflist import Conflist
from orlop.network.cni.plugin import Plugins
from orlop.spec.errors import OrlopError
from support import processes
from support.tasks import wait_until

BAD, LOUD, SLOW = (
    "its answer to ADD can't be understood",
    "it says more than 1048576 bytes",
    "it did not end within 1 s",
)
NONE = "no address, or not understood"
# what a plugin does when it is asked to ADD -> what is said of it; NONE: of what it returned
HOSTILE = [
    ("print('{')", BAD),
    ("print('[1]')", BAD),
    ("print('[' * 200000)", BAD),
    ("print('{\\x22a\\x22:' * 100000)", BAD),
    ("sys.stdout.buffer.write(bytes(range(256)))", BAD),
    ("print(json.dumps({'cniVersion': '9.9.9', 'ips': []}))", "its cniVersion ('9.9.9') is not spoken"),
    ("print(json.dumps({'cniVersion': ['1.0.0']}))", "is not spoken"),
    ("print(json.dumps({'cniVersion': 1}))", "is not spoken"),
    ("print('x' * (3 << 20))", LOUD),
    ("print('x' * (10 << 20))", LOUD),
    ("sys.stderr.write('y' * (3 << 20))", LOUD),
    ("while True: print('{}')", LOUD),
    ("while True: sys.stderr.write('why')", LOUD),
    ("time.sleep(1000)", SLOW),
    ("os.fork() or time.sleep(1000); time.sleep(1000)", SLOW),
    ("signal.signal(signal.SIGTERM, signal.SIG_IGN); os.close(1); os.close(2); time.sleep(1000)", SLOW),
    ("print(json.dumps({'code': 7, 'msg': 'no', 'details': 'way'})); sys.exit(1)", "status 1 (error 7): no: way"),
    ("print(json.dumps({'code': '7', 'msg': ['no']})); sys.exit(1)", "ADD ended with status 1: ['no']"),
    ("sys.stderr.write('oh no'); sys.exit(3)", "ADD ended with status 3: oh no"),
    ("os.kill(os.getpid(), 9)", "ADD was killed by signal 9: it says nothing"),
    ("print(json.dumps({'ips': 'many'}))", NONE),
    ("print(json.dumps({'ips': [1]}))", NONE),
    ("print(json.dumps({'ips': [{'address': 7}]}))", NONE),
    ("print(json.dumps({'ips': [{'address': '10.66.0.9'}]}))", NONE),
    ("print(json.dumps({'ips': [{'address': '10.66.0.9/24', 'gateway': 'x'}]}))", NONE),
    ("print(json.dumps({'ips': [{'address': '10.66.0.9/24'}] * 65}))", NONE),
    ("print(json.dumps({'ips': [{'address': '../../x/24'}]}))", NONE),
]


@pytest.mark.parametrize(("body", "cause"), HOSTILE)
def test_a_hostile_plugin_is_an_error(tmp_path: Path, body: str, cause: str) -> None:
    """Red: without `client._spoken`, an answer of a version that nobody knows is taken for one of ours."""
    program = tmp_path / "bad"
    script = f"import json, os, signal, sys, time\nif os.environ['CNI_COMMAND'] == 'ADD':\n    {body}\n"
    program.write_text(f"#!{sys.executable} -IS\n{script}")
    program.chmod(0o755)
    network = Conflist({"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "bad"}]}, "the network")
    # Who ends by itself is not hurried: on a busy machine a plugin may need a second to begin.
    plugins = Plugins((str(tmp_path),), 1.0 if cause == SLOW else 100.0)
    if cause == NONE:
        with pytest.raises(ValueError):
            result.addresses(client.add(plugins, network, Place("c", "eth0")))
    else:
        begin = time.monotonic()
        with pytest.raises(OrlopError) as refused:
            client.add(plugins, network, Place("c", "eth0"))
        told = str(refused.value)
        assert cause in told and "CNI plugin bad" in told and len(told) < 2000
        assert time.monotonic() - begin < 100
    wait_until(lambda: not [pid for pid in processes.pids() if str(program) in processes.title(pid)])


def test_what_is_odd_and_harmless_is_passed_over() -> None:
    for interfaces in (None, "eth0", [1], [{"name": "eth0"}], {"name": "eth0"}):
        assert result.mac_address({"interfaces": interfaces}, "eth0") == ""
    assert result.mac_address({"interfaces": [{"name": "eth0", "sandbox": "/n", "mac": "m" * 999}]}, "eth0") == "m" * 64
    assert result.addresses({}) == result.addresses({"ips": None}) == []
