"""Health checks without a kernel: what counts, what passes to a monitor, and which requests are refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orlop.engine.compile import health as compiled
from orlop.spec.container import ContainerRequest
from orlop.spec.errors import Invalid
from orlop.spec.health import Healthcheck
from orlop.spec.image import ContainerConfig
from orlop.spec.task import HealthCheck
from orlop.supervise import health
from orlop.supervise.health import HEALTHY, STARTING, UNHEALTHY, Rules, judged

SECONDS = st.integers(0, 10**12)


@given(
    st.builds(
        HealthCheck,
        interval_ns=SECONDS,
        timeout_ns=SECONDS,
        start_period_ns=SECONDS,
        start_interval_ns=SECONDS,
        retries=st.integers(0, 1000),
        on_failure=st.sampled_from(health.ACTIONS),
        stop_signal=st.integers(1, 64),
        stop_timeout_s=st.integers(0, 10**6),
    )
)
def test_rules_pass_to_a_monitor_as_they_are(check):
    rules = Rules(check)
    again = Rules.decode(rules.encode())
    assert all(getattr(again, name) == getattr(rules, name) for name in Rules.__slots__)
    assert rules.interval_s > 0 and rules.start_interval_s > 0 and rules.retries > 0


@given(st.lists(st.booleans(), max_size=30), st.integers(1, 5))
def test_as_many_failures_as_wanted_and_no_fewer_are_unhealthy(checks, retries):
    status, streak, failures = STARTING, 0, 0
    for is_well in checks:
        status, streak = judged(status, streak, retries, is_well)
        failures = 0 if is_well else failures + 1
        assert streak == failures
        assert (status == UNHEALTHY) == (failures >= retries)
        assert status != HEALTHY or failures < retries


def test_failures_that_do_not_count_yet_change_nothing():
    assert judged(STARTING, -1, 1, False) == (STARTING, 0)
    assert judged(STARTING, -1, 1, True) == (HEALTHY, 0)


def merged(image=None, on_failure="none", **fields):
    request = ContainerRequest(
        image="x", health=Healthcheck(**fields) if fields else None, health_on_failure=on_failure
    )
    return compiled.merge(request, ContainerConfig(healthcheck=image), "container c")


def test_what_the_request_leaves_open_is_the_images():
    image = Healthcheck(test=("CMD", "true"), interval=5 * 10**9, retries=7)
    assert merged(image) == image
    assert merged(image, interval=10**9) == image.replace(interval=10**9)
    assert merged(image, test=("CMD-SHELL", "false")).test == ("CMD-SHELL", "false")
    assert merged(image, test=("NONE",)) == Healthcheck(test=("NONE",))
    assert merged() is None


@pytest.mark.parametrize(
    "fields",
    [
        {"test": ("MAGIC", "x")}, {"test": ("CMD",)}, {"test": ("HTTP",)}, {"test": ("HTTP", "80")},
        {"test": ("HTTP", ":0/x")}, {"test": ("HTTP", ":65536/x")}, {"test": ("HTTP", ":80/a\r\nHost: b")},
        {"test": ("HTTP", "example.org:80/")}, {"test": ("TCP", ":80/x")}, {"test": ("TCP", ":" + "9" * 4000)},
        {"test": ("TCP", "::1:x")}, {"test": ("HTTP", ":80/a b")},
        {"test": ("CMD", "x"), "interval": 5}, {"test": ("CMD", "x"), "retries": -1},
        {"test": ("CMD", "x"), "start_period": -(10**9)},
    ],
)  # fmt: skip
def test_a_check_that_is_none_is_refused(fields):
    with pytest.raises(Invalid):
        merged(**fields)


def test_an_action_without_a_check_is_refused():
    with pytest.raises(Invalid, match="needs a health check"):
        merged(on_failure="kill")
    with pytest.raises(Invalid, match="there is no action"):
        merged(on_failure="explode", test=("CMD", "x"))


@given(st.text(max_size=60))
def test_any_place_is_read_or_refused(text):
    try:
        host, port, path = compiled._place(("HTTP", text), "container c")
    except Invalid:
        return
    assert 0 < port < 65536 and path.startswith("/") and "\r" not in path and "\n" not in path and " " not in path
    assert not set(host) - set("0123456789abcdefABCDEF.:")
