"""Restart policies in the monitor: no engine anywhere, a spawner that may be gone, and what lies on disk."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orlop.linux import process
from orlop.spec import attach as wire
from orlop.spec.runtime import Memory, Resources
from orlop.supervise import restart
from orlop.supervise.restart import Order
from support import container, processes
from support.container import make_spec
from support.tasks import Task, Tasks, tasks, wait_until

OWN_KIB_MAX = 2048  # 1.0 MiB for one that has never restarted, 1.7 seen after it
PROGRAMS = "sh cat true false sleep echo kill rm dd readlink".split()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = container.make_root(tmp_path_factory.mktemp("root"), PROGRAMS)
    directory.chmod(0o755)
    return directory


@pytest.fixture
def box(tmp_path: Path, root: Path) -> Iterator[Tasks]:
    with tasks(tmp_path, root) as made:
        yield made


def start(box: Tasks, order: Order, script: str, network: int | None = None, **changes: Any) -> Task:
    container_id, directory, runtime = box.bundle(make_spec("sh", "-c", script))
    (directory / restart.RESTART_FILE).write_bytes(order.encode())
    return box.request(box.message(container_id, directory, runtime, **changes), network)


def write(task: Task, order: Order) -> None:
    """What the engine does: replace the order, wake the monitor."""
    temporary = task.directory / "restart.tmp"
    temporary.write_bytes(order.encode())
    temporary.rename(task.directory / restart.RESTART_FILE)
    os.kill(task.monitor, signal.SIGUSR1)


def ended(task: Task) -> dict[str, Any]:
    try:
        return dict(json.loads((task.directory / "exit.json").read_text()))
    except FileNotFoundError:
        return {}


def lines(task: Task) -> list[bytes]:
    return task.log().splitlines()


def test_on_failure_tries_so_often_and_keeps_the_last_status(box: Tasks) -> None:
    task = start(box, Order(restart.ON_FAILURE, 3), "echo run; exit 7")
    box.spawner.close()  # nobody but the monitor is left
    last = task.exit()
    assert (last["exitCode"], task.status["restarts"], lines(task)) == (7, 3, [b"run"] * 4)
    assert "restartAt" not in last and last["startedAt"] == task.status["startedAt"]


def test_on_failure_ends_with_the_first_success(box: Tasks, tmp_path: Path) -> None:
    task = start(box, Order(restart.ON_FAILURE), "echo run; [ $(cat /proc/sys/kernel/hostname) ] && exit 0")
    assert (task.exit()["exitCode"], task.status.get("restarts", 0), lines(task)) == (0, 0, [b"run"])


def test_without_an_order_nothing_is_restarted(box: Tasks) -> None:
    task = start(box, Order(), "exit 1")
    assert task.exit()["exitCode"] == 1 and task.status.get("restarts", 0) == 0


def test_always_goes_on_until_it_is_stopped(box: Tasks) -> None:
    task = start(box, Order(restart.ALWAYS), "echo run; exit 0")
    wait_until(lambda: task.status.get("restarts", 0) >= 3)
    write(task, Order(restart.ALWAYS, stopped=True))
    last = task.exit()
    assert len(lines(task)) == task.status["restarts"] + 1 >= 4
    stamps = [line.partition(b'"time":"')[2] for line in (task.directory / "log.json").read_bytes().splitlines()]
    assert stamps == sorted(stamps)
    assert last["startedAt"] == task.status["startedAt"]
    assert os.listdir(task.runtime) == []


def test_a_pause_is_cut_short_by_a_stop(box: Tasks) -> None:
    task = start(box, Order(restart.ALWAYS), "exit 4")
    wait_until(lambda: task.status.get("restarts", 0) >= 4 and ended(task).get("restartAt"))
    runs = task.status["restarts"]
    write(task, Order(restart.ALWAYS, stopped=True))
    assert task.exit()["exitCode"] == 4
    assert task.status["restarts"] == runs


def test_an_order_that_changes_counts_at_the_next_end(box: Tasks) -> None:
    task = start(box, Order(), "echo up; cat; exit 1", open_stdin=True)
    wait_until(lambda: lines(task) == [b"up"])
    write(task, Order(restart.ON_FAILURE, 1))
    task.kill()
    wait_until(lambda: task.status.get("restarts", 0) == 1 and lines(task).count(b"up") == 2)
    processes.kill(task.status["pid"], task.status["pidStartTime"])
    assert task.exit()["exitCode"] == 137, ended(task)


def test_clients_of_one_run_hear_of_its_end_and_are_not_those_of_the_next(box: Tasks) -> None:
    task = start(box, Order(restart.ON_FAILURE, 1), "echo run; exit 9", attached=True)
    assert task.client and task.client.read() == b"run\n"
    assert task.client.ended and task.client.ended["exitCode"] == 9 and task.client.ended["restartAt"]
    assert task.exit()["exitCode"] == 9


def test_a_slow_reader_of_one_run_does_not_delay_the_next(box: Tasks) -> None:
    script = "dd if=/dev/zero bs=64k count=12; exit 1"
    task = start(box, Order(restart.ON_FAILURE, 1), script, attached=True)
    assert task.client
    assert task.exit()["exitCode"] == 1 and task.status["restarts"] == 1
    task.client.read()
    assert task.client.ended and len(task.client.output[wire.STDOUT]) == 12 * 65536


def test_a_restart_that_fails_is_tried_again(box: Tasks) -> None:
    task = start(box, Order(restart.ON_FAILURE, 4), "echo run; exit 3")
    spec = json.loads((task.directory / "config.json").read_text())
    broken = spec | {"process": spec["process"] | {"args": ["no-such-program"]}}
    (task.directory / "config.json").write_text(json.dumps(broken))
    wait_until(lambda: ended(task).get("exitCode") == 127)
    assert task.status["pid"] == 0 and "no-such-program" in ended(task)["error"]
    (task.directory / "config.json").write_text(json.dumps(spec))
    assert task.exit()["exitCode"] == 3
    assert task.status["restarts"] == 4


def test_the_limits_hold_in_each_run(box: Tasks) -> None:
    limit = 16 * 1024 * 1024
    container_id, directory, runtime = box.bundle(
        make_spec(
            "sh", "-c", "echo run; exec dd if=/dev/zero of=/dev/null bs=64M count=1",
            resources=Resources(memory=Memory(limit=limit, swap=limit)),
        )
    )  # fmt: skip
    (directory / restart.RESTART_FILE).write_bytes(Order(restart.ON_FAILURE, 1).encode())
    task = box.request(box.message(container_id, directory, runtime))
    assert task.exit()["oomKilled"] and lines(task) == [b"run", b"run"]


def test_the_network_namespace_stays_over_restarts(box: Tasks) -> None:
    netns = make_network()
    wanted = f"net:[{os.fstat(netns).st_ino}]".encode()
    task = start(
        box, Order(restart.ON_FAILURE, 1), "readlink /proc/self/ns/net; exit 1", has_network=True, network=netns
    )
    os.close(netns)
    assert task.exit()["exitCode"] == 1
    assert lines(task) == [wanted, wanted]


def make_network() -> int:
    """Return a new network namespace, made by a thread of its own."""
    made: list[int] = []

    def make() -> None:
        process.unshare(process.CLONE_NEWNET)
        made.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    return made[0]


def test_a_monitor_stays_small_over_its_restarts(box: Tasks) -> None:
    task = start(box, Order(restart.ALWAYS), "exit 1")
    wait_until(lambda: task.status.get("restarts", 0) >= 4 and ended(task).get("restartAt"))
    rollup = dict(line.split(":", 1) for line in processes.read(task.monitor, "smaps_rollup").decode().splitlines()[1:])
    own_kib = int(rollup["Private_Dirty"].split()[0]) + int(rollup["Private_Clean"].split()[0])
    write(task, Order(stopped=True))
    task.exit()
    assert own_kib <= OWN_KIB_MAX, rollup
