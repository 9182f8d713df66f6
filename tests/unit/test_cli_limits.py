"""The values of --device, --ulimit, --sysctl and their like: docker's grammar, docker's texts, any input."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orlop.frontends.cli import limits
from orlop.frontends.cli.flags import BadValue
from orlop.frontends.cli.limits import ISOLATION_FLAGS, RESOURCE_FLAGS
from orlop.spec.container import DeviceRate, DeviceRequest, UlimitRequest

KINDS = {flag.name: flag.kind for flag in (*RESOURCE_FLAGS, *ISOLATION_FLAGS)}


@pytest.mark.parametrize(
    ("flag", "text", "value"),
    [
        ("device", "/dev/fuse", DeviceRequest(source="/dev/fuse", target="/dev/fuse", permissions="rwm")),
        ("device", "/dev/fuse:r", DeviceRequest(source="/dev/fuse", target="/dev/fuse", permissions="r")),
        ("device", "/dev/a:/dev/b", DeviceRequest(source="/dev/a", target="/dev/b", permissions="rwm")),
        ("device", "/dev/a:/dev/b:rw", DeviceRequest(source="/dev/a", target="/dev/b", permissions="rw")),
        ("device-cgroup-rule", "c 42:* rmw", "c 42:* rmw"),
        ("device-read-bps", "/dev/sda:1mb", DeviceRate(path="/dev/sda", rate=1 << 20)),
        ("device-write-iops", "/dev/sda:0", DeviceRate(path="/dev/sda", rate=0)),
        ("ulimit", "nofile=1:2", UlimitRequest(name="nofile", soft=1, hard=2)),
        ("ulimit", "core=-1", UlimitRequest(name="core", soft=-1, hard=-1)),
        ("ulimit", "core=0:-1", UlimitRequest(name="core", soft=0, hard=-1)),
        ("sysctl", "net.core.somaxconn=1=2", ("net.core.somaxconn", "1=2")),
        ("expose", "80", ("80/tcp",)),
        ("expose", "8000-8002/UDP", ("8000/udp", "8001/udp", "8002/udp")),
        ("annotation", "a=b=c", ("a", "b=c")),
        ("annotation", "a", ("a", "")),
        ("memory-swappiness", "-1", -1),
        ("pid", "container:web", "container:web"),
        ("isolation", "Default", "default"),
    ],
)
def test_what_docker_takes_is_taken(flag, text, value):
    assert KINDS[flag].parse(text) == value


@pytest.mark.parametrize(
    ("flag", "text", "cause"),
    [
        ("device", "/dev/null:rwx:q", "bad mode specified: q"),
        ("device", "nope", "nope is not an absolute path"),
        ("device", "a:b:c:d", "bad format for path: a:b:c:d"),
        ("device", "", "bad format for path: "),
        ("device-cgroup-rule", "x", "invalid device cgroup format 'x'"),
        ("device-cgroup-rule", "c 1:2:3 r", "invalid device cgroup format 'c 1:2:3 r'"),
        ("device-read-bps", "/dev/null", "bad format: /dev/null"),
        ("device-read-bps", "/nodev:1mb", "bad format for device path: /nodev:1mb"),
        (
            "device-read-bps",
            "/dev/null:x",
            "invalid rate for device: /dev/null:x. The correct format is <device-path>:<number>[<unit>]. "
            "Number must be a positive integer. Unit is optional and can be kb, mb, or gb",
        ),
        (
            "device-read-iops",
            "/dev/null:-1",
            "invalid rate for device: /dev/null:-1. The correct format is <device-path>:<number>. "
            "Number must be a positive integer",
        ),
        ("blkio-weight-device", "/dev/null", "bad format: /dev/null"),
        ("blkio-weight-device", "/dev/null:5", "invalid weight for device: /dev/null:5"),
        ("blkio-weight", "x", 'strconv.ParseUint: parsing "x": invalid syntax'),
        ("blkio-weight", "70000", 'strconv.ParseUint: parsing "70000": value out of range'),
        ("sysctl", "kernel.foo=1", "sysctl 'kernel.foo=1' is not allowed"),
        ("sysctl", "net.core.x", "sysctl 'net.core.x' is not allowed"),
        ("sysctl", "net/../kernel/panic=1", "is not allowed"),
        ("sysctl", "net..kernel.panic=1", "is not allowed"),
        ("ulimit", "bogus=1", "invalid ulimit type: bogus"),
        ("ulimit", "nofile=2:1", "ulimit soft limit must be less than or equal to hard limit: 2 > 1"),
        ("ulimit", "nofile", "invalid ulimit argument: nofile"),
        ("ulimit", "nofile=x", 'strconv.ParseInt: parsing "x": invalid syntax'),
        ("ulimit", "nofile=1:2:3", "too many limit value arguments - 1:2:3, can only have up to two, `soft[:hard]`"),
        (
            "expose",
            "x",
            'invalid range format for --expose: x, error: strconv.ParseUint: parsing "x": invalid syntax',
        ),
        ("expose", "90-80", "invalid range format for --expose: 90-80, error: invalid range specified for port: 90-80"),
        ("expose", "80/foo", "invalid proto: foo"),
        ("memory-swappiness", "101", "invalid value: 101. Valid memory swappiness range is 0-100"),
        ("pid", "bogus", "--pid: invalid PID mode"),
        ("pid", "container:", "--pid: invalid PID mode"),
        ("uts", "bogus", "--uts: invalid UTS mode"),
        ("userns", "bogus", "--userns: invalid USER mode"),
        ("cgroupns", "bogus", "--cgroupns: invalid CGROUP mode"),
        ("isolation", "hyperv", "Invalid isolation: \"hyperv\" - linux only supports 'default'"),
        ("gpus", "all", "no driver for GPUs"),
        ("use-api-socket", "true", "the engine's socket"),
        ("cpu-count", "2", "only supported by containers of Windows"),
    ],
)
def test_what_docker_refuses_is_refused_in_its_words(flag, text, cause):
    with pytest.raises(BadValue) as caught:
        KINDS[flag].parse(text)
    assert cause in str(caught.value)
    assert caught.value.hint


PIECE = st.sampled_from(
    [*"/dev:=-,.*0179 rwmcb", "container", "host", "nofile", "net.", "\u00e9", "\ud800", "\0", "9" * 50]
)
TEXT = st.one_of(st.text(max_size=40), st.lists(PIECE, max_size=12).map("".join))


@given(st.sampled_from(sorted(KINDS)), TEXT)
def test_any_text_is_a_value_or_a_refusal(flag, text):
    try:
        KINDS[flag].parse(text)
    except BadValue as wrong:
        assert str(wrong)


def test_a_range_of_all_ports_is_bounded():
    assert len(limits.parse_expose("1-65535")) == limits.PORT_MAX
