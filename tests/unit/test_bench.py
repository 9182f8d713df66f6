"""The benchmark's arithmetic and its manners: order, ratios, failures, the document it writes into."""

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bench import measure, report
from bench.measure import Series, Subject


def python(code: str, name: str = "it") -> Subject:
    return Subject(name, [sys.executable, "-I", "-S", "-c", code], {"PATH": os.defpath})


def series(name: str, times_ms: list[float], failure: str = "") -> Series:
    one = Series(Subject(name, [], {}))
    one.times_ms, one.failure = times_ms, failure
    return one


def test_every_round_runs_every_subject_and_the_order_rotates(tmp_path: Path) -> None:
    log = tmp_path / "log"
    subjects = [python(f"open({str(log)!r}, 'a').write({letter!r})", letter) for letter in "abc"]
    found = measure.in_turn(subjects, 3)
    assert [len(one.times_ms) for one in found] == [3, 3, 3]
    rounds = log.read_text()
    assert rounds[:3] != rounds[3:6]
    assert all(set(rounds[at : at + 3]) == set("abc") for at in range(0, 15, 3))
    assert len(rounds) == 3 * (3 + measure.WARM_UP_ROUNDS)


def test_a_command_that_fails_is_no_figure() -> None:
    failed, fine = measure.in_turn([python("import sys; sys.exit('no such cgroup')"), python("pass")], 2)
    assert (failed.times_ms, failed.failure) == ([], "no such cgroup")
    assert len(fine.times_ms) == 2


def test_what_comes_before_a_run_is_not_timed_and_a_thread_is_where_it_runs() -> None:
    told: list[str] = []
    with ThreadPoolExecutor(1, initializer=lambda: told.append(threading.current_thread().name)) as thread:
        subject = Subject("it", ["/bin/true"], {}, before=lambda: told.append("before"), thread=thread)
        assert measure.once(subject) > 0
    assert told[0] == "before"
    assert told[1] != threading.current_thread().name


def test_a_ratio_is_taken_within_the_rounds() -> None:
    # Both slow down tenfold in the middle: the quotient of the medians would be 1/10, each round's is 1/2 at most.
    ours, theirs = series("ours", [1.0, 10.0, 1.0]), series("theirs", [2.0, 20.0, 4.0])
    assert ours.ratio_to(theirs) == 0.5


def test_the_table_has_a_column_for_the_ratio_only_with_a_reference() -> None:
    ours, theirs, refused = series("ours", [1.0]), series("theirs", [4.0]), series("other", [], "it said no")
    lines = report.times([ours, theirs, refused], ours)
    assert [cell.strip() for cell in lines[3].split("|")[1:-1]] == ["theirs", "4.0", "4.0", "4.0", "0.25"]
    assert [cell.strip() for cell in lines[4].split("|")[1:4]] == ["other", "refused", "it said no"]
    assert "takes of it" not in report.times([theirs], None)[0]


def test_writing_replaces_what_was_written_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "P.md"
    path.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    report.write(path, r"new \1")
    assert path.read_text() == f"before\n{report.BEGIN}\nnew \\1\n{report.END}\nafter\n"


@pytest.mark.parametrize("figure", ["Pss", "Private_Clean"])
def test_memory_is_read_of_a_living_process(figure: str) -> None:
    assert figure in Path("/proc/self/smaps_rollup").read_text()
    row = report.memory({"us": {"this test": [os.getpid()], "nobody": []}})
    assert len(row) == 3
    assert float(row[2].split("|")[2]) > 1
