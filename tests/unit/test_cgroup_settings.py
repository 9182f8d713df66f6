"""Steps as values, and the order in which interdependent ones are written. A plain directory stands for the cgroup."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from orlop.linux.cgroup import Setting
from orlop.linux.cgroup.directory import Directory, open_directory
from orlop.linux.cgroup.settings import IfPresent, OneOf, UsageBelow, write_all


class Bounded(Directory):
    """A cgroup whose kernel demands low <= high, as with memory and memory+swap."""

    def __init__(self, low: int, high: int) -> None:
        super().__init__(-1, "/bounded")
        self.values = {"low": low, "high": high}
        self.written: list[str] = []

    def write(self, name: str, value: str) -> None:
        changed = {**self.values, name: int(value)}
        if changed["low"] > changed["high"]:
            raise OSError(errno.EINVAL, "Invalid argument", name)
        self.values = changed
        self.written.append(name)


def pair(controller: str, low: int, high: int) -> list[Setting]:
    return [Setting(controller, "low", str(low)), Setting(controller, "high", str(high))]


@pytest.mark.parametrize(
    ("low", "high", "order"),
    [(50, 60, ["low", "high"]), (300, 400, ["high", "low"]), (100, 100, ["low", "high"])],
)
def test_a_pair_is_written_in_the_order_that_the_kernel_allows(low: int, high: int, order: list[str]) -> None:
    directory = Bounded(100, 200)
    write_all(pair("memory", low, high), directory)
    assert directory.values == {"low": low, "high": high}
    assert directory.written == order


def test_what_no_order_allows_is_refused() -> None:
    directory = Bounded(100, 200)
    with pytest.raises(OSError) as caught:
        write_all(pair("memory", 300, 250), directory)
    assert caught.value.errno == errno.EINVAL


def test_other_controllers_are_not_tried_twice() -> None:
    directory = Bounded(100, 200)
    with pytest.raises(OSError):
        write_all(pair("devices", 300, 400), directory)
    assert directory.written == []


@pytest.fixture
def directory(tmp_path: Path) -> Directory:
    (tmp_path / "there").write_text("")
    (tmp_path / "used").write_text("1000\n")
    return open_directory(str(tmp_path))


def test_one_of_several_files_is_written(directory: Directory) -> None:
    with directory:
        OneOf(Setting("io", "absent", "1"), Setting("io", "there", "2")).act(directory)
        assert directory.read("there") == "2"
        with pytest.raises(FileNotFoundError, match="no absent and no missing"):
            OneOf(Setting("io", "absent", "1"), Setting("io", "missing", "2")).act(directory)


def test_a_file_may_be_absent(directory: Directory) -> None:
    with directory:
        IfPresent(Setting("memory", "absent", "1")).act(directory)
        IfPresent(Setting("memory", "there", "3")).act(directory)
        assert directory.read("there") == "3"


def test_more_in_use_than_the_new_limit_is_refused(directory: Directory) -> None:
    with directory:
        UsageBelow("memory", "used", 1000).act(directory)
        with pytest.raises(OSError, match="1000 bytes are in use, more than 999") as caught:
            UsageBelow("memory", "used", 999).act(directory)
    assert caught.value.errno == errno.EBUSY


def test_an_error_names_the_file_and_the_value(directory: Directory) -> None:
    with directory, pytest.raises(FileNotFoundError, match="writing '12'") as caught:
        Setting("pids", "pids.max", "12").act(directory)
    assert caught.value.filename == f"{directory.path}/pids.max"


@pytest.mark.parametrize(
    ("step", "words", "call"),
    [
        (
            Setting("memory", "memory.limit_in_bytes", "20971520"),
            "memory at most 20 MiB",
            "write 20971520 to memory.limit_in_bytes",
        ),
        (Setting("memory", "memory.max", "1000"), "memory at most 1000 bytes", "write 1000 to memory.max"),
        (Setting("memory", "memory.max", "max"), "memory without limit", "write max to memory.max"),
        (Setting("pids", "pids.max", "max"), "any number of processes and threads", "write max to pids.max"),
        (Setting("pids", "pids.max", "7"), "at most 7 processes and threads", "write 7 to pids.max"),
        (Setting("memory", "memory.high", "5"), "memory.high: 5", "write 5 to memory.high"),
        (
            OneOf(Setting("io", "io.bfq.weight", "10"), Setting("io", "io.weight", "1")),
            "io.bfq.weight: 10",
            "write 10 to io.bfq.weight, or write 1 to io.weight",
        ),
        (
            IfPresent(Setting("memory", "memory.swap.max", "0")),
            "swap at most 0 bytes",
            "write 0 to memory.swap.max, if there is such a file",
        ),
        (
            UsageBelow("memory", "memory.current", 1024),
            "go on only if no more than 1 KiB is in use",
            "read memory.current: at most 1024",
        ),
    ],
    ids=repr,
)
def test_a_step_is_told_in_words_and_as_a_call(step: Setting, words: str, call: str) -> None:
    assert step.describe() == words
    assert step.call() == call


def test_steps_are_values() -> None:
    one, other = Setting("pids", "pids.max", "7"), Setting("pids", "pids.max", "7")
    assert one == other != Setting("pids", "pids.max", "8")
    assert len({one, other, OneOf(one), OneOf(other), IfPresent(one), IfPresent(other)}) == 3
    assert UsageBelow("memory", "a", 1) == UsageBelow("memory", "a", 1) != UsageBelow("memory", "a", 2)
