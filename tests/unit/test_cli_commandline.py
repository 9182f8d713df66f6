"""`show-run`: a request said as a command line asks for the same container again."""

import shlex

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orlop.frontends.cli import commandline, request
from orlop.frontends.cli.containers.run import attached_streams
from orlop.frontends.cli.flags import parse
from orlop.spec.container import (
    BindRequest,
    ContainerRequest,
    DeviceRate,
    DeviceRequest,
    DeviceWeight,
    GrantRequest,
    TmpfsRequest,
    UlimitRequest,
)
from orlop.spec.health import Healthcheck
from orlop.spec.mount import BindOptions, ImageOptions, MountRequest, TmpfsOptions, VolumeOptions
from orlop.spec.network import EndpointRequest, PortRequest

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), min_size=1, max_size=12)
WORD = st.text("abcdefgh", min_size=1, max_size=6)
VALUE = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=12)
NUMBER = st.integers(1, 10**9)
PATH = WORD.map("/{}".format)
STREAMS = st.sampled_from([(), ("stderr", "stdout"), ("stdout",), ("stderr", "stdin", "stdout"), ("stdin",)])
RATES = st.lists(st.builds(DeviceRate, path=WORD.map("/dev/{}".format), rate=NUMBER), max_size=2).map(tuple)


def words(strategy: st.SearchStrategy[str] = WORD) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(strategy, max_size=3).map(tuple)


def table(values: st.SearchStrategy[str] = VALUE) -> st.SearchStrategy[dict[str, str]]:
    return st.dictionaries(WORD, values, max_size=2)


MOUNTS = st.one_of(
    st.builds(MountRequest, type=st.just("volume"), source=WORD, target=TEXT, read_only=st.booleans()),
    st.builds(
        MountRequest,
        type=st.just("bind"),
        source=PATH,
        target=TEXT,
        map=st.sampled_from(["", "idmap", "1000", "1000:1001"]),
        bind=st.builds(BindOptions, propagation=st.sampled_from(["rprivate", "shared"]), non_recursive=st.just(True)),
    ),
    st.builds(
        MountRequest,
        type=st.just("volume"),
        target=PATH,
        volume=st.builds(
            VolumeOptions, no_copy=st.just(True), labels=table(), driver=WORD, driver_options=table(), subpath=TEXT
        ),
    ),
    st.builds(MountRequest, type=st.just("tmpfs"), target=PATH, tmpfs=st.builds(TmpfsOptions, size_bytes=NUMBER)),
    st.builds(
        MountRequest, type=st.just("image"), source=WORD, target=PATH, image=st.builds(ImageOptions, subpath=TEXT)
    ),
)
ENDPOINTS = st.builds(
    EndpointRequest,
    network=WORD,
    aliases=words(),
    ipv4=st.sampled_from(["", "10.0.0.9"]),
    link_local=st.sampled_from([(), ("169.254.7.7", "fe80::7")]),
    options=table(WORD),
)
PORTS = st.builds(
    lambda first, host, address, protocol, manner: PortRequest(
        host_ip=address,
        host_first=host,
        host_last=host,
        first=first,
        last=first,
        protocol=protocol,
        mode=manner[0],
        sources=manner[1],
    ),
    st.integers(1, 65535),
    st.sampled_from([0, 80, 65535]),
    st.sampled_from(["", "127.0.0.1", "::1"]),
    st.sampled_from(["tcp", "udp", "sctp"]),
    st.sampled_from([("", ()), ("nat", ("10.0.0.0/8", "fd00::/8")), ("host-input", ())]),
)
HEALTH = st.one_of(
    st.none(),
    st.just(Healthcheck(test=("NONE",))),
    st.builds(
        Healthcheck,
        test=st.one_of(st.tuples(st.just("CMD-SHELL"), TEXT), st.tuples(st.just("HTTP"), TEXT)),
        interval=NUMBER,
        retries=NUMBER,
    ),
)
PORT_NUMBERS, MODES = st.integers(0, 65535), st.sampled_from([0o400, 0o444, 0o640])
FIELDS = {
    "image": TEXT.filter(lambda text: not text.startswith("-")),
    "entrypoint": st.one_of(st.none(), st.tuples(VALUE)),
    "args": st.one_of(st.none(), st.lists(VALUE, min_size=1, max_size=3).map(tuple)),
    "env": words(st.tuples(WORD, VALUE).map("=".join)),
    "secrets": words(
        st.one_of(
            st.builds(GrantRequest, source=WORD, target=st.sampled_from(["", "/run/x"]), uid=PORT_NUMBERS, mode=MODES),
            st.builds(GrantRequest, source=WORD, env=WORD),
        )
    ),
    "user": VALUE,
    "group_add": words(VALUE),
    "working_dir": VALUE,
    "hostname": VALUE,
    "domainname": VALUE,
    "labels": table(),
    "annotations": table(),
    "terminal": st.booleans(),
    "open_stdin": st.booleans(),
    "auto_remove": st.booleans(),
    "init": st.booleans(),
    "attach": STREAMS,
    "binds": words(PATH).map(lambda all: tuple(BindRequest(source=p, target=p, options=("ro",)) for p in set(all))),
    "tmpfs": words(PATH).map(lambda all: tuple(TmpfsRequest(target=p, options=("size=1m", "ro")) for p in set(all))),
    "mounts": st.lists(MOUNTS, max_size=2).map(tuple),
    "volumes_from": words(VALUE),
    "volume_driver": VALUE,
    "storage_opt": table(),
    "read_only": st.booleans(),
    "privileged": st.booleans(),
    "memory_bytes": NUMBER,
    "memory_swap_bytes": st.one_of(st.just(-1), NUMBER),
    "memory_reservation_bytes": NUMBER,
    "memory_swappiness": st.one_of(st.none(), st.integers(0, 100)),
    "kernel_memory_bytes": NUMBER,
    "cpu_nanos": st.integers(1, 10**12),
    "pids_max": st.one_of(st.none(), st.integers(0, 999)),
    "cap_add": words(VALUE),
    "cap_drop": words(VALUE),
    "security_opt": words(st.sampled_from(["seccomp=unconfined", "no-new-privileges", 'seccomp={"a":"b c"}'])),
    "ports": st.lists(PORTS, max_size=2).map(tuple),
    "publish_all": st.booleans(),
    "dns": words(VALUE),
    "egress": VALUE,
    "egress_allow": words(VALUE),
    "host_access": words(VALUE),
    "dns_search": words(VALUE),
    "dns_options": words(VALUE),
    "extra_hosts": words(VALUE),
    "stop_signal": VALUE,
    "stop_timeout_s": st.one_of(st.none(), st.integers(-1, 99)),
    "depends_on": words(VALUE),
    "health": HEALTH,
    "health_on_failure": WORD,
    "log_driver": VALUE,
    "log_options": table(),
    "platform": VALUE,
    "runtime": VALUE,
    "isolation": st.sampled_from(["", "default"]),
    "exposed_ports": st.lists(st.sampled_from(["80/tcp", "53/udp"]), unique=True).map(tuple),
    "devices": st.lists(
        st.builds(DeviceRequest, source=PATH, target=PATH, permissions=st.sampled_from(["r", "rw"])), max_size=2
    ).map(tuple),
    "device_cgroup_rules": st.lists(st.just("c 42:* rmw"), max_size=1).map(tuple),
    "ipc": st.sampled_from(["", "none", "host", "container:x"]),
    "pid": st.sampled_from(["", "host", "container:x"]),
    "uts": st.sampled_from(["", "host"]),
    "userns": st.sampled_from(["", "host"]),
    "cgroup_namespace": st.sampled_from(["", "host", "private"]),
    "time": st.sampled_from(["", "host", "private,boottime=5,monotonic=-1", "ns:/x y"]),
    "cgroup_parent": VALUE,
    "shm_bytes": NUMBER,
    "sysctls": st.dictionaries(WORD.map("net.{}".format), VALUE, max_size=2),
    "ulimits": st.lists(st.just(UlimitRequest(name="core", soft=1, hard=-1)), max_size=1).map(tuple),
    "umask": st.one_of(st.none(), st.integers(0, 0o777)),
    "timeout_s": st.integers(0, 10**8),
    "oom_kill_disable": st.booleans(),
    "oom_score_adj": st.integers(-1000, 1000),
    "cpu_shares": NUMBER,
    "cpu_period_us": NUMBER,
    "cpu_quota_us": NUMBER,
    "cpu_realtime_period_us": NUMBER,
    "cpu_realtime_runtime_us": NUMBER,
    "cpuset_cpus": VALUE,
    "cpuset_mems": VALUE,
    "blkio_weight": st.integers(1, 65535),
    "blkio_weight_devices": st.lists(st.just(DeviceWeight(path="/dev/x", weight=10)), max_size=1).map(tuple),
    "device_read_bps": RATES,
    "device_write_bps": RATES,
    "device_read_iops": RATES,
    "device_write_iops": RATES,
}
# Said together with others, or of another kind of request: each has a case below.
ELSEWHERE = {"name", "rootfs", "stdin_once", "network", "endpoints", "links", "restart_policy", "restart_retries_max"}
ELSEWHERE |= {"remove_image"}
ELSEWHERE |= {"configs", "unplugged"}  # of compose, of a container that has left its networks: no flag says them


def said_again(asked: ContainerRequest, name: str = "") -> ContainerRequest:
    """Return what the command line of a request asks for, after a shell has read it."""
    line = shlex.join(commandline.words(asked, name))
    command, *rest = shlex.split(line)
    assert command == "run"
    options, arguments = parse(rest, request.RUN_FLAGS, interspersed=False)
    return request.container_request(options, arguments, attached_streams(options))


def plain(asked: ContainerRequest) -> dict[str, object]:
    """Return a request with what has two spellings in the one that the command line reads."""
    stdin = asked.open_stdin and bool(asked.attach)  # docker's -i attaches it, too, unless nothing is
    attach = tuple(sorted({*asked.attach, "stdin"})) if stdin else asked.attach
    fixed = asked.replace(attach=attach, stdin_once=stdin, restart_policy=asked.restart_policy or "no")
    if asked.health is not None and asked.health.test == ("NONE",):
        fixed = fixed.replace(health_on_failure="none")  # nothing is checked, so nothing fails
    return dict(fixed.to_json())


@given(st.fixed_dictionaries({"image": FIELDS["image"]}, optional={k: v for k, v in FIELDS.items() if k != "image"}))
@settings(max_examples=150, deadline=None)
def test_a_command_line_asks_for_what_was_asked(fields):
    asked = ContainerRequest(**fields)
    assert plain(said_again(asked)) == plain(asked)


@pytest.mark.parametrize(
    "fields",
    [
        {"rootfs": "/srv/root", "args": ("-x", "--", "y")},
        {"image": "i", "restart_policy": "on-failure", "restart_retries_max": 3},
        {"image": "i", "restart_policy": "always"},
        {"image": "i", "network": "none"},
        {"image": "i", "network": "container:web"},
        {"image": "i", "network": "net", "endpoints": (EndpointRequest(network="net", aliases=("a", "b")),)},
        {"image": "i", "endpoints": (EndpointRequest(network="bridge", ipv4="10.0.0.2", aliases=("a",)),)},
        {"image": "i", "network": "net", "endpoints": (EndpointRequest(network="net", links=("c:d",)),)},
        {"image": "i", "links": ("c:d",)},
        {"image": "i", "env": ("UNSET_IN_THIS_ENVIRONMENT",)},
        {"image": "i", "health": Healthcheck(test=("TCP", ":80"), timeout=1)},
    ],
)
def test_what_is_said_in_several_words(fields):
    asked = ContainerRequest(**fields)
    assert plain(said_again(asked)) == plain(asked)


@given(ENDPOINTS, ENDPOINTS)
@settings(deadline=None)
def test_endpoints_come_back(first, second):
    if first.network == second.network or {first.network, second.network} & {"bridge", "default", "host", "none"}:
        return
    asked = ContainerRequest(image="i", network=first.network, endpoints=(first, second))
    assert plain(said_again(asked)) == plain(asked)


def test_the_name_is_the_one_that_is_given():
    assert said_again(ContainerRequest(image="i", name="old"), "new").name == "new"


def test_a_long_entrypoint_becomes_arguments():
    again = said_again(ContainerRequest(image="i", entrypoint=("/bin/sh", "-c"), args=("true",)))
    assert (again.entrypoint, again.args) == (("/bin/sh",), ("-c", "true"))


def test_no_field_is_forgotten():
    assert set(ContainerRequest()._fields) == set(FIELDS) | ELSEWHERE


def test_a_container_that_takes_its_image_along_is_said_again() -> None:
    """Red: without the row of commandline._SWITCHES; without `or` in request.py, --rmi alone leaves the container."""
    wanted = ContainerRequest(image="box:1", auto_remove=True, remove_image=True)
    again = said_again(wanted)
    assert again.auto_remove and again.remove_image
    options, _ = parse(["--rmi", "box:1"], request.RUN_FLAGS, interspersed=False)
    assert request.container_request(options, ["box:1"], ()).auto_remove
