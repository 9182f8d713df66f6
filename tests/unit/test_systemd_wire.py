"""D-Bus as systemd speaks it: values survive the way, broken bytes are refused; units and properties are as runc's."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orlop.linux.cgroup import Layout
from orlop.runtime.systemd import annotations, unit, wire
from orlop.runtime.systemd.wire import Variant
from orlop.spec.errors import Invalid, OrlopError, Unavailable
from orlop.spec.runtime import Resources

V1 = Layout("hybrid", {name: f"/cg/{name}" for name in ("cpu", "memory", "pids", "devices", "blkio")}, "/cg/unified")
V2 = Layout("unified", {}, "/cg", frozenset(("cpu", "memory", "pids", "io")))

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
VALUES = {
    "y": st.integers(0, 255), "n": st.integers(-(2**15), 2**15 - 1), "q": st.integers(0, 2**16 - 1),
    "i": st.integers(-(2**31), 2**31 - 1), "u": st.integers(0, 2**32 - 1), "x": st.integers(-(2**63), 2**63 - 1),
    "t": st.integers(0, 2**64 - 1), "b": st.booleans(), "s": TEXT, "d": st.floats(allow_nan=False),
}  # fmt: skip


def values_of(signature: str) -> st.SearchStrategy[object]:
    if signature in VALUES:
        return VALUES[signature]
    if signature[0] == "a":
        return st.lists(values_of(signature[1:]), max_size=4)
    if signature == "v":
        return signatures().flatmap(lambda inner: values_of(inner).map(lambda value: Variant(inner, value)))
    return st.tuples(*(values_of(part) for part in wire.split(signature[1:-1])))


def signatures() -> st.SearchStrategy[str]:
    leaves = st.sampled_from([*VALUES, "as"])
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            inner.map("a{}".format), st.lists(inner, min_size=1, max_size=3).map("".join).map("({})".format)
        ),
        max_leaves=6,
    )


@given(st.lists(st.one_of(signatures(), st.just("v")), max_size=4).flatmap(
    lambda parts: st.tuples(st.just("".join(parts)), st.tuples(*(values_of(part) for part in parts)))
))  # fmt: skip
def test_values_come_back(case: tuple[str, tuple[object, ...]]) -> None:
    signature, values = case
    assert wire.decode(signature, wire.encode(signature, values)) == list(values)


@given(st.sampled_from(["s", "as", "a(sv)", "v", "uoss", "ay", "(ss)", "a{sv}", "aas"]), st.binary(max_size=64))
def test_any_bytes_are_values_or_refused(signature: str, data: bytes) -> None:
    for order in "<>":
        try:
            wire.decode(signature, data, order)
        except Unavailable:
            pass


def call() -> bytes:
    fields: dict[int, object] = {wire.PATH: "/a", wire.MEMBER: "M", wire.SIGNATURE: "sa(sv)"}
    return wire.Message(wire.METHOD_CALL, 7, fields, ("x", [("A", Variant("t", 1))])).encode()


def test_a_message_comes_back() -> None:
    data = call()
    assert wire.size_of(data[: wire.FIXED_BYTES]) == len(data)
    message = wire.parse(data)
    assert (message.kind, message.serial, message.text(wire.MEMBER)) == (wire.METHOD_CALL, 7, "M")
    assert message.body == ["x", [("A", Variant("t", 1))]]


def test_a_message_of_the_other_order() -> None:
    fields = struct.pack(">BBBBI", wire.REPLY_SERIAL, 1, ord("u"), 0, 9)
    body = struct.pack(">I", 3) + b"abc\0"
    signature = b"\x08\x01g\0\x01s\0"
    head = struct.pack(">cBBBIII", b"B", wire.METHOD_RETURN, 0, 1, len(body), 5, len(fields) + len(signature))
    data = head + fields + signature
    data += bytes(-len(data) % 8) + body
    assert wire.size_of(data[:16]) == len(data)
    message = wire.parse(data)
    assert message.fields[wire.REPLY_SERIAL] == 9 and message.body == ["abc"]


@given(st.data())
def test_a_damaged_message_is_read_or_refused(data: st.DataObject) -> None:
    damaged = bytearray(call())
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    for cut in (len(damaged), data.draw(st.integers(wire.FIXED_BYTES, len(damaged)))):
        try:
            wire.size_of(bytes(damaged[: wire.FIXED_BYTES]))
            wire.parse(bytes(damaged[:cut]))
        except Unavailable:
            pass


@pytest.mark.parametrize(
    ("fixed", "words"),
    [
        (b"l\1\0\1" + struct.pack("<III", 2**31, 1, 0), "the limit is"),
        (b"l\1\0\1" + struct.pack("<III", 0, 1, 2**32 - 1), "the limit is"),
        (b"l\1\0\2" + bytes(12), "version 2"),
        (b"x\1\0\1" + bytes(12), "does not begin as a message"),
        (b"l\1", "does not begin as a message"),
    ],
)
def test_a_frame_that_can_not_be(fixed: bytes, words: str) -> None:
    with pytest.raises(Unavailable, match=words):
        wire.size_of(fixed)


@pytest.mark.parametrize("signature", ["a", "(", "()", "(s", "{", "z", "a" * 40 + "s", "(" * 40 + "s" + ")" * 40])
def test_a_signature_that_is_none(signature: str) -> None:
    with pytest.raises(Unavailable):
        wire.decode(signature, bytes(64))
    with pytest.raises(ValueError):
        wire.split(signature)


def test_nested_variants_are_bounded() -> None:
    data = b"\1v\0" * 2000
    with pytest.raises(Unavailable, match="too deep"):
        wire.decode("v", data)


@pytest.mark.parametrize(
    ("signature", "value"), [("y", 256), ("u", -1), ("s", "a\0b"), ("as", "abc"), ("(ss)", ("a",)), ("t", "x")]
)
def test_a_value_of_another_type_is_the_programmers_error(signature: str, value: object) -> None:
    with pytest.raises(ValueError):
        wire.encode(signature, (value,))


# -- units ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "name", "cgroup"),
    [
        ("system.slice:orlop:web", "orlop-web.scope", "/system.slice/orlop-web.scope"),
        (":orlop:web", "orlop-web.scope", "/system.slice/orlop-web.scope"),
        ("a-b.slice::web", "web.scope", "/a.slice/a-b.slice/web.scope"),
        ("-.slice:x:y", "x-y.scope", "/x-y.scope"),
        ("kubepods.slice:cri:pod.slice", "pod.slice", "/pod.slice"),
    ],
)
def test_a_path_is_a_unit(path: str, name: str, cgroup: str) -> None:
    found = unit.unit_of(path)
    assert (found.name, found.path) == (name, cgroup)


@pytest.mark.parametrize(
    "path",
    ["a:b", "a:b:c:d", "a:b:c", "a.slice:b:c/d", "a.slice:b:..\0", "../a.slice:b:c", "a--b.slice:x:y", ".slice:x:y",
     "a.slice:b:" + "c" * 300, "a.slice:b:ü", "a.slice:b:c d"],
)  # fmt: skip
def test_a_path_that_is_no_unit(path: str) -> None:
    with pytest.raises(Invalid):
        unit.unit_of(path)


@pytest.mark.parametrize(
    ("quota", "period", "told"),
    [(50000, 100000, 500000), (25123, 100000, 260000), (-1, 100000, 2**64 - 1), (0, 50000, 2**64 - 1), (10, 0, 10000)],
)
def test_a_quota_is_in_steps_and_never_less(quota: int, period: int, told: int) -> None:
    assert unit.quota_per_second(quota, period) == told


def test_limits_are_properties_of_the_version_at_hand() -> None:
    wanted = Resources.from_json({
        "memory": {"limit": 1 << 20, "swap": 3 << 20, "reservation": 1 << 19},
        "cpu": {"shares": 1024, "quota": 20000, "period": 100000},
        "pids": {"limit": -1},
        "blockIO": {"weight": 500},
    })  # fmt: skip
    v2 = {name: value.value for name, value in unit.limits_of(wanted, V2)}
    assert v2 == {
        "MemoryMax": 1 << 20, "MemoryLow": 1 << 19, "MemorySwapMax": 2 << 20, "CPUWeight": 100,
        "CPUQuotaPerSecUSec": 200000, "CPUQuotaPeriodUSec": 100000, "TasksMax": 2**64 - 1, "IOWeight": 4950,
    }  # fmt: skip
    v1 = {name for name, _ in unit.limits_of(wanted, V1)}
    assert {"MemoryLimit", "CPUShares", "BlockIOWeight"} <= v1 and "MemoryMax" not in v1


def test_device_rules_are_said_by_number_or_left_to_our_own_filter() -> None:
    narrow = Resources.from_json(
        {"devices": [{"allow": False}, {"allow": True, "type": "c", "major": 10, "minor": 229}]}
    )
    told = dict(unit.device_rules(narrow))
    assert told["DevicePolicy"].value == "strict"
    allowed = told["DeviceAllow"].value
    assert isinstance(allowed, list) and ("/dev/char/10:229", "rwm") in allowed and ("char-pts", "rwm") in allowed
    for wide in ({"allow": True}, {"allow": True, "type": "b", "major": 7}, {"allow": False, "type": "c", "major": 1}):
        told = dict(unit.device_rules(Resources.from_json({"devices": [wide]})))
        assert told["DevicePolicy"].value == "auto"


def test_nothing_here_raises_anything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    from orlop.runtime.systemd import bus

    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr(bus, "_addresses", lambda: [("/no/such/socket", False)])
    with pytest.raises(OrlopError, match="/no/such/socket: No such file"):
        bus.connect()


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("true", "b", True), ("boolean false", "b", False), ("5", "i", 5), ("-5", "i", -5), ("0x10", "i", 16),
        ("3000000000", "x", 3000000000), ("uint64 18446744073709551615", "t", 2**64 - 1), ("byte 0xff", "y", 255),
        ("int16 -3", "n", -3), ("1.5", "d", 1.5), ("1e3", "d", 1000.0), ("double 2", "d", 2.0), ("'a b'", "s", "a b"),
        ('"its"', "s", "its"), (r"'it\'s'", "s", "it's"), (r"'\u00e4\n'", "s", "\u00e4\n"),
        ("objectpath '/a/b'", "o", "/a/b"),
        ("['a', 'b']", "as", ["a", "b"]), ("[uint32 1,uint32 2]", "au", [1, 2]), (" [ true ] ", "ab", [True]),
    ],
)  # fmt: skip
def test_a_value_as_gvariant_writes_it(text: str, kind: str, value: object) -> None:
    found = annotations.parse(text, "x")
    assert (found.signature, found.value) == (kind, value)
    assert wire.decode(kind, wire.encode(kind, [found.value])) == [value]


@pytest.mark.parametrize(
    "text",
    ["", "x", "'", "'a", "[", "[]", "[1", "[1,]", "[1 2]", "[1, 'a']", "[[1]]", "(1, 2)", "{'a': 1}", "<1>", "@as []",
     "nothing", "1 2", "uint64 -1", "byte 256", "int32 1.5", "uint32", "string 5", "boolean 1", "0x", "1_0", "٣",
     "double nan", "double inf", "1e999", "9" * 400, "'\0'", r"'\ud800'", r"'\uzzzz'", r"'\U00110000'", "x" * 5000,
     "[" * 4000, "boolean " * 500],
)  # fmt: skip
def test_a_value_that_is_none_or_not_read(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        annotations.parse(text, "org.systemd.property.X")
    assert "org.systemd.property.X" in str(caught.value) and len(str(caught.value)) < 400


def test_annotations_become_properties_and_seconds_microseconds() -> None:
    prefix = annotations.PREFIX
    found = annotations.properties({
        "a": "b", prefix + "TimeoutStopSec": "uint64 3", prefix + "CollectMode": "'inactive-or-failed'",
        prefix + "FooBarSec": "1.5", prefix + "FOOSec": "7", prefix: "1", "org.systemd.propertyX": "1",
    })  # fmt: skip
    assert {name: (value.signature, value.value) for name, value in found} == {
        "TimeoutStopUSec": ("t", 3_000_000), "CollectMode": ("s", "inactive-or-failed"), "FooBarUSec": ("t", 1_500_000),
        "FOOSec": ("i", 7),
    }  # fmt: skip
    for name in ("ab", "A.B", "A_B", "Ä" * 5, "a/b"):
        with pytest.raises(Invalid, match="is no name of a property"):
            annotations.properties({prefix + name: "1"})
    for text in ("'x'", "true", "-1", "1e30"):
        with pytest.raises(Invalid):
            annotations.properties({prefix + "TimeoutStopSec": text})
