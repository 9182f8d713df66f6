"""The order to a monitor: what it wants, its one line, and docker's pauses."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orlop.supervise import restart
from orlop.supervise.restart import ALWAYS, NO, ON_FAILURE, POLICIES, UNLESS_STOPPED, Order, Series

orders = st.builds(Order, st.sampled_from(POLICIES), st.integers(0, 1 << 31), st.booleans())


def fields(order):
    return order.policy, order.retries_max, order.stopped


@given(orders)
def test_an_order_is_read_as_it_was_written(order):
    assert fields(restart.decode(order.encode())) == fields(order)


@given(orders, st.integers(0, 255), st.integers(0, 1000), st.booleans())
def test_nothing_restarts_what_somebody_stopped(order, code, restarts, forced):
    stopped = Order(order.policy, order.retries_max, stopped=True)
    assert not stopped.wants(code, restarts, forced)


@pytest.mark.parametrize(
    ("order", "code", "restarts", "wanted"),
    [
        (Order(NO), 1, 0, False),
        (Order(ALWAYS), 0, 10**6, True),
        (Order(UNLESS_STOPPED), 0, 0, True),
        (Order(ON_FAILURE), 0, 0, False),
        (Order(ON_FAILURE), 1, 10**6, True),
        (Order(ON_FAILURE, 2), 1, 1, True),
        (Order(ON_FAILURE, 2), 1, 2, False),
    ],
)
def test_a_policy_decides(order, code, restarts, wanted):
    assert order.wants(code, restarts) is wanted


@pytest.mark.parametrize("order", [Order(NO), Order(ON_FAILURE, 1)])
def test_a_health_check_may_force_a_restart(order):
    assert order.wants(0, 5, forced=True)


@pytest.mark.parametrize(
    "line",
    [b"", b"always", b"always 0", b"always x run", b"always -1 run", b"sometimes 0 run", b"always 0 jump",
     b"always 0 run run", b"\xff\xfe 0 run", b"\0" * 64, b"always " + b"9" * 60],
)  # fmt: skip
def test_what_is_no_order_orders_nothing(line):
    assert fields(restart.decode(line)) == (NO, 0, False)


def test_a_missing_or_strange_file_orders_nothing(tmp_path):
    directory = os.open(tmp_path, os.O_RDONLY)
    try:
        assert restart.read(directory).policy == NO
        (tmp_path / restart.RESTART_FILE).symlink_to("/dev/zero")
        assert restart.read(directory).policy == NO
        (tmp_path / restart.RESTART_FILE).unlink()
        (tmp_path / restart.RESTART_FILE).write_bytes(b"always 0 run\n" * 1000)
        assert restart.read(directory).policy == NO
    finally:
        os.close(directory)


def test_the_pauses_double_up_to_a_minute_and_begin_again_after_a_steady_run():
    series = Series(0)
    pauses = [series.pause_after(0.0) for _ in range(12)]
    assert pauses[:4] == [0.1, 0.2, 0.4, 0.8]
    assert pauses[-2:] == [60.0, 60.0]
    assert series.pause_after(restart.STEADY_S) == 0.1
