"""Device rules: what a list amounts to, and that both ways into the kernel say the same.

A few lines of interpreter run the eBPF programs here; in tests/root the kernel verifies and runs them.
"""

from __future__ import annotations

import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orlop.linux.cgroup.devices import EXCEPTIONS_MAX, DeviceFilter, Policy, evaluate
from orlop.spec.runtime import DeviceRule

NONE = DeviceRule(allow=False)
ALL = DeviceRule(allow=True)
READ, WRITE, MKNOD = 2, 4, 1
BLOCK, CHAR = 1, 2


def rule(allow: bool, kind: str, major: int | None, minor: int | None, access: str = "rwm") -> DeviceRule:
    return DeviceRule(allow=allow, type=kind, major=major, minor=minor, access=access)


def execute(program: bytes, access: int, kind: int, major: int, minor: int) -> int:
    """Run an eBPF program on a bpf_cgroup_dev_ctx."""
    context = struct.pack("<III", access << 16 | kind, major, minor)
    registers = {1: 0}
    at = 0
    while True:
        opcode, operands, offset, immediate = struct.unpack_from("<BBhI", program, at * 8)
        dst, src = operands & 15, operands >> 4
        at += 1
        match opcode:
            case 0x61:
                (registers[dst],) = struct.unpack_from("<I", context, offset)
            case 0xBC:
                registers[dst] = registers[src]
            case 0xB4:
                registers[dst] = immediate
            case 0x54:
                registers[dst] &= immediate
            case 0x74:
                registers[dst] >>= immediate
            case 0x16:
                at += offset if registers[dst] == immediate else 0
            case 0x56:
                at += offset if registers[dst] != immediate else 0
            case 0x95:
                return registers[0]
            case _:
                raise AssertionError(f"no such instruction: {opcode:#x}")


def passes(policy: Policy, access: int, kind: int, major: int, minor: int) -> bool:
    """What the v1 controller decides (security/device_cgroup.c)."""
    for (letter, of_major, of_minor), bits in policy.exceptions.items():
        same = (BLOCK if letter == "b" else CHAR) == kind and of_major in (None, major) and of_minor in (None, minor)
        if same and (bits & access if policy.allow else access & ~bits == 0):
            return not policy.allow
    return policy.allow


@pytest.mark.parametrize(
    ("rules", "policy"),
    [
        ([], Policy()),
        ([NONE], Policy()),
        ([ALL], Policy(True)),
        ([rule(True, "c", 1, 3)], Policy(False, {("c", 1, 3): 7})),
        ([rule(True, "c", 1, 3, "r"), rule(True, "c", 1, 3, "w")], Policy(False, {("c", 1, 3): READ | WRITE})),
        ([rule(True, "c", 1, 3), rule(False, "c", 1, 3, "w")], Policy(False, {("c", 1, 3): READ | MKNOD})),
        ([rule(True, "c", 1, 3), rule(False, "c", 1, 3)], Policy()),
        ([rule(False, "c", 1, 3)], Policy()),
        ([rule(True, "c", 1, 3), NONE, rule(True, "b", 7, None)], Policy(False, {("b", 7, None): 7})),
        ([ALL, rule(False, "c", 1, 3, "w")], Policy(True, {("c", 1, 3): WRITE})),
        ([ALL, rule(False, "c", 1, 3), rule(True, "c", 1, 3)], Policy(True)),
        ([ALL, rule(True, "c", 1, 3)], Policy(True)),
        ([rule(True, "u", 1, 3)], Policy(False, {("c", 1, 3): 7})),
        ([rule(True, "c", -1, -1, "m")], Policy(False, {("c", None, None): MKNOD})),
        # "a" with numbers: v1 would open everything.
        ([rule(True, "a", 1, 3)], Policy(False, {("b", 1, 3): 7, ("c", 1, 3): 7})),
        ([rule(True, "a", None, None, "r")], Policy(False, {("b", None, None): READ, ("c", None, None): READ})),
        ([ALL, rule(False, "a", 1, 3)], Policy()),
    ],
)
def test_what_a_list_of_rules_amounts_to(rules: list[DeviceRule], policy: Policy) -> None:
    assert evaluate(rules) == policy


@pytest.mark.parametrize(
    "rules",
    [
        [rule(True, "c", 10, None), rule(False, "c", 10, 229, "w")],
        [rule(True, "c", None, 3), rule(False, "c", 1, 3)],
        [rule(True, "c", None, None, "m"), rule(False, "c", 1, 3, "m")],
        [ALL, rule(False, "c", 10, None, "w"), rule(True, "c", 10, 229, "w")],
    ],
)
def test_a_hole_in_a_rule_is_refused(rules: list[DeviceRule]) -> None:
    with pytest.raises(OSError, match="hole") as caught:
        evaluate(rules)
    assert caught.value.errno == errno.EINVAL
    assert caught.value.filename.startswith("device rule ")


@pytest.mark.parametrize(
    "wrong",
    [
        rule(True, "p", 1, 3),
        rule(True, "", 1, 3),
        rule(True, "cc", 1, 3),
        rule(True, "c", 1, 3, ""),
        rule(True, "c", 1, 3, "rx"),
        rule(True, "c", 1, 3, "r\nc 8:0 rwm"),
        rule(True, "c", -2, 3),
        rule(True, "c", 1, 2**32),
    ],
    ids=repr,
)
def test_a_malformed_rule_is_refused(wrong: DeviceRule) -> None:
    with pytest.raises(OSError) as caught:
        evaluate([wrong])
    assert caught.value.errno == errno.EINVAL


def test_the_number_of_rules_is_bounded() -> None:
    evaluate(rule(True, "c", 1, minor) for minor in range(EXCEPTIONS_MAX))
    with pytest.raises(OSError) as caught:
        evaluate(rule(True, "c", 1, minor) for minor in range(EXCEPTIONS_MAX + 1))
    assert caught.value.errno == errno.E2BIG


def test_the_writes_for_v1() -> None:
    policy = evaluate([NONE, rule(True, "c", 1, 3), rule(True, "b", None, None, "m"), rule(True, "c", 136, None, "rw")])
    assert [setting.call() for setting in policy.settings()] == [
        "write a to devices.deny",
        "write b *:* m to devices.allow",
        "write c 1:3 rwm to devices.allow",
        "write c 136:* rw to devices.allow",
    ]
    assert [setting.call() for setting in evaluate([ALL, rule(False, "c", 1, 3, "w")]).settings()] == [
        "write a to devices.allow",
        "write c 1:3 w to devices.deny",
    ]


def test_a_filter_is_told_in_words() -> None:
    filter_ = DeviceFilter(evaluate([rule(True, "c", 1, 3, "rw")]))
    assert filter_.describe() == "deny all devices, allow c 1:3 rw"
    assert filter_.call().startswith("bpf(BPF_PROG_ATTACH")
    assert filter_ == DeviceFilter(evaluate([rule(True, "c", 1, 3, "rw")])) != DeviceFilter(Policy())


NUMBERS = st.sampled_from([0, 1, 3, 136, 2**31, 2**32 - 1])
OPTIONAL_NUMBERS = st.one_of(st.none(), NUMBERS)
POLICIES = st.builds(
    Policy,
    st.booleans(),
    st.dictionaries(
        st.tuples(st.sampled_from("bc"), OPTIONAL_NUMBERS, OPTIONAL_NUMBERS), st.integers(1, 7), max_size=6
    ),
)


@given(POLICIES, st.integers(0, 7), st.sampled_from([BLOCK, CHAR]), NUMBERS, NUMBERS)
def test_the_program_decides_as_the_v1_controller(
    policy: Policy, access: int, kind: int, major: int, minor: int
) -> None:
    expected = passes(policy, access, kind, major, minor)
    assert execute(policy.program(), access, kind, major, minor) == int(expected)
