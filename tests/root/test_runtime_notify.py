"""SCMP_ACT_NOTIFY: the listener reaches its agent with the state that the specification wants, or nothing starts."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from support.bundles import RUNTIME, Config, Runtime, base, busybox_root
from support.seccomp_agent import Agent

TRY = "mkdir /tmp/x; echo status $?"
REFUSED = "Name not unique on network"  # ENOTUNIQ: what nobody but the agent says


@pytest.fixture(scope="module")
def rootfs(tmp_path_factory: pytest.TempPathFactory, peer: Callable[[str], Path]) -> Path:
    return busybox_root(tmp_path_factory.mktemp("root"), peer("busybox"))


def config(rootfs: Path, agent: Path | str, *calls: str, **more: object) -> Config:
    value = base(rootfs)
    value["process"]["args"] = ["/bin/sh", "-c", TRY]  # type: ignore[index]
    value["annotations"] = {"a": "b"}
    rule = {"names": ["mkdir", "mkdirat", *calls], "action": "SCMP_ACT_NOTIFY"}
    listener = {"listenerPath": str(agent), "listenerMetadata": "about this one"} if agent else {}
    value["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule], **listener, **more}  # type: ignore[index]
    return value


@pytest.mark.parametrize("who", ["runc", "orlop"])
@pytest.mark.parametrize("new_privileges", [False, True])
def test_the_agent_answers(
    who: str, new_privileges: bool, rootfs: Path, tmp_path: Path, peer: Callable[[str], Path]
) -> None:
    value = config(rootfs, tmp_path / "agent")
    value["process"]["noNewPrivileges"] = not new_privileges  # type: ignore[index]
    program = RUNTIME if who == "orlop" else peer(who)
    with Agent(tmp_path / "agent") as agent:
        told = Runtime(program, tmp_path / "state").run(tmp_path / "bundle", value, "asks")
    assert REFUSED in told.stderr and "status 1" in told.stdout, told
    state = agent.state
    assert state["fds"] == ["seccompFd"]
    assert state["metadata"] == "about this one"
    assert isinstance(state["ociVersion"], str) and isinstance(state["pid"], int)
    inner = state["state"]
    assert isinstance(inner, dict)
    assert {name: inner[name] for name in ("id", "status", "bundle", "annotations")} == {
        "id": "asks",
        "status": "creating",
        "bundle": str(tmp_path / "bundle"),
        "annotations": {"a": "b"},
    }
    assert inner["pid"] == state["pid"]


def test_create_and_start_and_exec(rootfs: Path, tmp_path: Path) -> None:
    value = config(rootfs, tmp_path / "agent", flags=["SECCOMP_FILTER_FLAG_LOG"])
    value["process"]["args"] = ["/bin/sh", "-c", f"exec >/tmp/out 2>&1 </dev/null; {TRY}; exec sleep 1000"]  # type: ignore[index]
    bundle, runtime = tmp_path / "bundle", Runtime(RUNTIME, tmp_path / "state")
    bundle.mkdir()
    (bundle / "config.json").write_text(json.dumps(value))
    try:
        assert os.spawnv(os.P_WAIT, RUNTIME, [*runtime.argv, "create", "-b", str(bundle), "two"]) == 0
        agent = Agent(tmp_path / "agent")
        with agent:
            told = runtime("start", "two")
            assert told.returncode == 0, told
            agent_path = tmp_path / "agent"
            agent_path.unlink()
            with Agent(agent_path) as second:
                told = runtime("exec", "two", "/bin/sh", "-c", f"cat /tmp/out; {TRY}")
            assert told.stderr.count(REFUSED) == 1 and told.stdout.count(REFUSED) == 1, told
            runtime("delete", "--force", "two")
        assert agent.state["state"]["status"] == "created"  # type: ignore[index]
        assert second.state["state"]["status"] == "running"  # type: ignore[index]
        assert second.state["state"]["id"] == "two"  # type: ignore[index]
        assert second.state["state"]["pid"] == agent.state["pid"] != second.state["pid"]  # type: ignore[index]
    finally:
        runtime("delete", "--force", "two")


def test_calls_of_our_own_between_filter_and_execve_are_answered(rootfs: Path, tmp_path: Path) -> None:
    """read and capset are used with the filter on: an agent that refuses them ends the start, and hangs nobody."""
    value = config(rootfs, tmp_path / "agent", "read")
    with Agent(tmp_path / "agent") as agent:
        told = Runtime(RUNTIME, tmp_path / "state").run(tmp_path / "bundle", value, "reads")
    assert told.returncode == 1
    assert agent.calls and REFUSED in told.stderr, told


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("", "listenerPath is not set"),
        ("agent", "is no absolute path"),
        ("/no/such/agent", "cannot send a descriptor to /no/such/agent: No such file or directory"),
    ],
)
def test_no_agent_no_container(path: str, words: str, rootfs: Path, tmp_path: Path) -> None:
    runtime = Runtime(RUNTIME, tmp_path / "state")
    told = runtime.run(tmp_path / "bundle", config(rootfs, path), "alone")
    assert told.returncode == 1 and words in told.stderr, told
    assert "status" not in told.stdout
    assert runtime("list", "-q").stdout == ""


def test_start_without_agent_kills(rootfs: Path, tmp_path: Path) -> None:
    bundle, runtime = tmp_path / "bundle", Runtime(RUNTIME, tmp_path / "state")
    bundle.mkdir()
    (bundle / "config.json").write_text(json.dumps(config(rootfs, "/no/such/agent", "read", "close")))
    try:
        assert os.spawnv(os.P_WAIT, RUNTIME, [*runtime.argv, "create", "-b", str(bundle), "alone"]) == 0
        told = runtime("start", "alone")
        assert told.returncode == 1 and "/no/such/agent" in told.stderr
        assert json.loads(runtime("state", "alone").stdout)["status"] == "stopped"
    finally:
        runtime("delete", "--force", "alone")


def test_a_listener_path_without_such_a_rule_is_not_used(rootfs: Path, tmp_path: Path) -> None:
    value = config(rootfs, "/no/such/agent")
    value["linux"]["seccomp"]["syscalls"][0]["action"] = "SCMP_ACT_LOG"  # type: ignore[index]
    assert Runtime(RUNTIME, tmp_path / "state").run(tmp_path / "bundle", value, "logs").returncode == 0
