"""Seccomp programs: for every rule set the program and the plain meaning of the rules agree, for every call."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orlop.linux import bpf, bpf_machine
from orlop.linux.bpf import EQ, GE, GT, LE, LT, MASKED_EQ, NE, Rule, Section, assemble, condition
from orlop.linux.bpf_machine import simulate

ALLOW = bpf.SECCOMP_RET_ALLOW
EPERM = bpf.SECCOMP_RET_ERRNO | errno.EPERM
ENOSYS = bpf.SECCOMP_RET_ERRNO | errno.ENOSYS
KILL = bpf.SECCOMP_RET_KILL_PROCESS
U64 = 2**64 - 1
X32 = 0x40000000
ARCHITECTURES = sorted(bpf.AUDIT_ARCH)

# Values around every border of a comparison in two halves.
EDGES = [0, 1, 2, 7, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF, 2**32, 2**32 + 1, 2**32 + 7, 2 * 2**32, 2**63, U64 - 1, U64]
words = st.sampled_from(EDGES) | st.integers(0, U64)
actions = st.sampled_from([ALLOW, EPERM, bpf.SECCOMP_RET_ERRNO | errno.EIO, bpf.SECCOMP_RET_TRAP, KILL, 0])
conditions = st.builds(condition, st.integers(0, 5), st.sampled_from(bpf.OPERATORS), words, words)
condition_lists = st.lists(conditions, max_size=3, unique_by=lambda test: test[0])


def holds(test, args, bits):
    """Say whether a condition holds, straight from its definition."""
    index, op, value, mask = test
    argument, value = args[index] & bits, value & bits
    return {
        NE: argument != value,
        LT: argument < value,
        LE: argument <= value,
        EQ: argument == value,
        GE: argument >= value,
        GT: argument > value,
        MASKED_EQ: argument & mask == value & mask,
    }[op]


def meaning(rules, default, number, args, bits=U64):
    """Say what the rules mean to one call, straight from the five sentences in the text of orlop.linux.bpf."""
    named = [rule for rule in rules if number in rule.numbers and rule.action != default]
    effective = [([test for test in rule.conditions if test[3] & bits], rule.action) for rule in named]
    for tests, action in effective:
        if not tests:
            return action
    rank = {NE: 0, EQ: 0, MASKED_EQ: 0, LT: 1, LE: 1, GE: 2, GT: 2}

    def order(entry):
        return [
            (-index, rank[op], value & bits if op in (LT, LE) else -(value & bits)) for index, op, value, _ in entry[0]
        ]

    for tests, action in sorted(effective, key=order):
        if all(holds(test, args, bits) for test in tests):
            return action
    return default


@st.composite
def rule_sets(draw):
    numbers = st.lists(st.integers(0, 30), min_size=1, max_size=8)
    return draw(st.lists(st.builds(Rule, numbers, actions, condition_lists), max_size=12))


@given(
    rule_sets(), actions, st.sampled_from(ARCHITECTURES), st.lists(st.lists(words, min_size=6, max_size=6), min_size=1)
)
def test_a_program_means_what_its_rules_mean(rules, default, architecture, arguments):
    bits = U64 if bpf.WORD_BITS[architecture] == 64 else 0xFFFFFFFF
    base = X32 if architecture == "x32" else 0
    rules = [Rule([number + base for number in rule.numbers], rule.action, rule.conditions) for rule in rules]
    sections = [Section(architecture, rules)] if not base else [Section("x86_64", []), Section("x32", rules)]
    try:
        program = assemble(sections, default)
    except OSError as wrong:
        assert wrong.errno == errno.EEXIST
        return
    instructions = bpf_machine.check(program)
    assert simulate(program, architecture, base) == meaning(rules, default, base, [0] * 6, bits)
    for number in range(base, base + 32):
        for args in arguments:
            data = b"".join(
                value.to_bytes(size, "little")
                for value, size in ((number, 4), (bpf.AUDIT_ARCH[architecture], 4), (0, 8), *((arg, 8) for arg in args))
            )
            assert bpf_machine.run(instructions, data) == meaning(rules, default, number, args, bits)


@pytest.mark.parametrize("op", bpf.OPERATORS)
@pytest.mark.parametrize("architecture", ["x86_64", "i386", "aarch64"])
def test_every_comparison_at_every_edge(op, architecture):
    bits = U64 if bpf.WORD_BITS[architecture] == 64 else 0xFFFFFFFF
    masks = [U64, 0xFF, 0x100000001, 1, 2**63, 0x7E020000] if op == MASKED_EQ else [U64]
    for value in EDGES:
        for mask in masks:
            test = condition(3, op, value, mask)
            program = assemble([Section(architecture, [Rule([9], ALLOW, [test])])], EPERM)
            for argument in EDGES:
                args = [0, 0, 0, argument & bits, 0, 0]
                wanted = ALLOW if holds(test, args, bits) else EPERM
                assert simulate(program, architecture, 9, args) == wanted, (value, mask, argument)


@pytest.mark.parametrize("default", [ALLOW, EPERM, KILL])
def test_every_number_of_a_small_program(default):
    allowed = {0, 1, 2, 60, 231, 400}
    program = assemble([Section("x86_64", [Rule(sorted(allowed), ALLOW)], newest=450)], default)
    for number in range(600):
        wanted = ALLOW if number in allowed else default if number <= 450 else ENOSYS
        assert simulate(program, "x86_64", number) == wanted


def test_calls_younger_than_the_newest_get_enosys_up_to_the_last_number():
    program = assemble([Section("aarch64", [Rule([63], ALLOW)], newest=63)], EPERM)
    results = {number: simulate(program, "aarch64", number) for number in (62, 63, 64, 2**31, 2**32 - 1)}
    assert results == {62: EPERM, 63: ALLOW, 64: ENOSYS, 2**31: ENOSYS, 2**32 - 1: ENOSYS}


def test_a_rule_for_a_number_above_the_newest_still_counts():
    program = assemble([Section("arm", [Rule([4], ALLOW), Rule([0xF0005], ALLOW)], newest=4)], EPERM)
    assert [simulate(program, "arm", number) for number in (4, 5, 0xF0004, 0xF0005, 0xF0006)] == [
        ALLOW, ENOSYS, ENOSYS, ALLOW, ENOSYS,
    ]  # fmt: skip


def test_architectures_do_not_see_each_others_rules():
    program = assemble(
        [
            Section("x86_64", [Rule([1], ALLOW)], newest=5),
            Section("i386", [Rule([2], ALLOW)], newest=6),
            Section("x32", [Rule([X32 | 3], ALLOW)], newest=X32 | 7),
        ],
        EPERM,
    )
    calls = [("x86_64", 1), ("x86_64", 2), ("x86_64", 6), ("i386", 1), ("i386", 2), ("i386", 7)]
    assert [simulate(program, *call) for call in calls] == [ALLOW, EPERM, ENOSYS, EPERM, ALLOW, ENOSYS]
    calls = [("x32", X32 | 3), ("x32", X32 | 1), ("x32", X32 | 8), ("x32", 0xFFFFFFFF)]
    assert [simulate(program, *call) for call in calls] == [ALLOW, EPERM, ENOSYS, ENOSYS]


@pytest.mark.parametrize("foreign", ["i386", "aarch64", "arm", "riscv64"])
def test_a_foreign_architecture_is_killed(foreign):
    program = assemble([Section("x86_64", [Rule([1], ALLOW)])], ALLOW)
    assert simulate(program, foreign, 1) == KILL


def test_x32_without_a_section_is_foreign_but_minus_one_is_not():
    program = assemble([Section("x86_64", [Rule([1], ALLOW)], newest=9)], EPERM)
    calls = (X32 - 1, X32, X32 | 1, 0xFFFFFFFE, 0xFFFFFFFF)
    assert [simulate(program, "x86_64", number) for number in calls] == [ENOSYS, KILL, KILL, KILL, EPERM]


def test_a_rule_with_the_default_action_shadows_nothing():
    program = assemble([Section("x86_64", [Rule([308], EPERM), Rule([308], ALLOW)])], EPERM)
    assert simulate(program, "x86_64", 308) == ALLOW


def test_the_first_rule_without_conditions_wins():
    rules = [Rule([1], EPERM, [condition(0, EQ, 1)]), Rule([1], ALLOW), Rule([1], KILL)]
    program = assemble([Section("x86_64", rules)], ENOSYS)
    assert simulate(program, "x86_64", 1, [1]) == ALLOW


@pytest.mark.parametrize("architecture", ["x86_64", "i386"])
def test_a_mask_of_nothing_is_no_condition(architecture):
    rules = [Rule([1], EPERM, [condition(2, EQ, 1)]), Rule([1], ALLOW, [condition(0, MASKED_EQ, 5, 0)])]
    program = assemble([Section(architecture, rules)], ENOSYS)
    assert simulate(program, architecture, 1, [0, 0, 1]) == ALLOW


@pytest.mark.parametrize("backwards", [False, True])
def test_arguments_and_operators_have_an_order(backwards):
    tests = [(0, GE, 1), (0, LT, 100), (0, EQ, 5), (1, EQ, 9)]  # from the last to be tried to the first
    rules = [Rule([1], bpf.SECCOMP_RET_ERRNO | 100 + place, [condition(*test)]) for place, test in enumerate(tests)]
    program = assemble([Section("x86_64", rules[::-1] if backwards else rules)], EPERM)
    calls = ((200, 0), (4, 0), (5, 0), (5, 9))
    assert [simulate(program, "x86_64", 1, args) & 0xFFFF for args in calls] == [100, 101, 102, 103]


@pytest.mark.parametrize("backwards", [False, True])
def test_overlapping_ranges_are_tried_from_the_narrowest(backwards):
    tests = [(LT, 5), (LT, 10), (LE, 20), (GT, 50), (GE, 40), (GT, 30)]
    rules = [Rule([1], bpf.SECCOMP_RET_ERRNO | 100 + place, [condition(0, *test)]) for place, test in enumerate(tests)]
    program = assemble([Section("x86_64", rules[::-1] if backwards else rules)], EPERM)
    found = [simulate(program, "x86_64", 1, [value]) & 0xFFFF for value in (4, 9, 20, 51, 50, 39, 30)]
    assert found == [100, 101, 102, 103, 104, 105, errno.EPERM]


def test_rules_that_contradict_each_other_are_refused():
    rules = [Rule([7], ALLOW, [condition(0, EQ, 1)]), Rule([7], KILL, [condition(0, EQ, 1)])]
    with pytest.raises(OSError, match="different actions") as caught:
        assemble([Section("x86_64", rules)], EPERM)
    assert (caught.value.errno, caught.value.filename) == (errno.EEXIST, "7")


@pytest.mark.parametrize("index", [0, 1])
def test_a_rule_with_fewer_conditions_decides_before_one_with_more(index):
    few = Rule([7], KILL, [condition(index, EQ, 1)])
    many = [Rule([7], action, [condition(0, EQ, 1), condition(1, EQ, 1)]) for action in (ALLOW, ENOSYS)]
    for rules in ([few, *many], [*many, few]):
        assert simulate(assemble([Section("x86_64", rules)], EPERM), "x86_64", 7, [1, 1]) == KILL


@pytest.mark.parametrize("count", [300, 600])
def test_long_programs_jump_farther_than_a_conditional_jump_can(count):
    rules = [Rule([number], ALLOW, [condition(number % 6, EQ, number * 2**30)]) for number in range(0, count, 2)]
    program = assemble([Section("x86_64", rules), Section("i386", rules)], EPERM)
    assert len(bpf_machine.check(program)) > 4 * 255
    for number in range(0, count, 37):
        for value in (number * 2**30, number * 2**30 + 1):
            args = [0] * 6
            args[number % 6] = value
            assert simulate(program, "x86_64", number, args) == meaning(rules, EPERM, number, args)


def test_one_call_with_a_thousand_conditions():
    rules = [Rule([5], ALLOW, [condition(0, EQ, 3 * value)]) for value in range(1000)]
    program = assemble([Section("x86_64", rules)], EPERM)
    for value in (0, 1, 2997, 2998, 2999, 3000, 2**32):
        assert simulate(program, "x86_64", 5, [value]) == (ALLOW if value % 3 == 0 and value < 3000 else EPERM)


@pytest.mark.parametrize("count", [4000, 5000])
def test_a_program_longer_than_the_kernel_takes_is_refused(count):
    rules = [Rule([5], ALLOW, [condition(0, EQ, value * 2**31), condition(1, NE, value)]) for value in range(count)]
    with pytest.raises(OSError, match="the kernel takes 4096") as caught:
        assemble([Section("x86_64", rules)], EPERM)
    assert caught.value.errno == errno.E2BIG


def test_more_rules_than_a_program_has_instructions_are_not_looked_at():
    rules = [Rule([5], ALLOW, [condition(0, EQ, 1)])] * 4097
    with pytest.raises(OSError, match="the kernel takes 4096"):
        assemble([Section("x86_64", rules)], EPERM)


def test_small_values_share_the_test_of_their_high_half():
    rules = [Rule([41], ALLOW, [condition(0, EQ, value)]) for value in range(20, 40)]
    # 8 for dispatch and range search, 3 to load and test the high half and load the low, 1 each, 2 returns.
    assert len(assemble([Section("x86_64", rules)], EPERM)) // 8 <= 8 + 3 + 20 + 2


@pytest.mark.parametrize("masks", [(0xF0, 0x0F), (0x0F, 0xF0), (1, 2), (1 << 31, 6), (6, 1)])
@pytest.mark.parametrize("architecture", ["x86_64", "i386"])
def test_masks_of_one_word_do_not_see_each_other(masks, architecture):
    tests = [condition(1, MASKED_EQ, value & mask, mask) for mask in masks for value in (0x80000055, 0xFFFFFFFF)]
    rules = [Rule([16], bpf.SECCOMP_RET_ERRNO | 100 + test[2] % 97 + test[3] % 89, [test]) for test in set(tests)]
    program = assemble([Section(architecture, rules)], EPERM)
    for value in (0, 1, 2, 3, 4, 6, 0x05, 0x50, 0x55, 0x35, 0x53, 0x80000000, 0x80000006, 0xFFFFFFFF):
        wanted = meaning(rules, EPERM, 16, [0, value, 0, 0, 0, 0])
        assert simulate(program, architecture, 16, [0, value]) == wanted, hex(value)


def test_calls_with_the_same_rules_share_their_tests():
    rules = [Rule([41, 56], ALLOW, [condition(0, EQ, 5)])]
    program = assemble([Section("i386", rules), Section("arm", rules)], EPERM)
    assert sum("ld args[0]" in line for line in bpf_machine.disassemble(program)) == 1
    for architecture in ("i386", "arm"):
        for number in (41, 56):
            assert [simulate(program, architecture, number, [value]) for value in (5, 6)] == [ALLOW, EPERM]


def test_bits_of_one_word_are_tested_with_one_jump():
    rules = [Rule([16], ALLOW, [condition(1, MASKED_EQ, 1 << bit, 1 << bit)]) for bit in range(32)]
    lines = bpf_machine.disassemble(assemble([Section("x86_64", rules)], EPERM))
    assert sum("jset #0xffffffff" in line for line in lines) == 1
    assert sum("args[1]" in line for line in lines) == 1


@pytest.mark.parametrize(
    "arguments", [(6, EQ, 0), (-1, EQ, 0), (0, "==", 0), (0, EQ, -1), (0, EQ, 2**64), (0, MASKED_EQ, 0, 2**64)]
)
def test_conditions_that_the_kernel_could_not_hold(arguments):
    with pytest.raises(ValueError, match="no such condition"):
        condition(*arguments)


def test_two_conditions_on_one_argument_are_two_rules():
    with pytest.raises(ValueError, match="two conditions on one argument"):
        Rule([1], ALLOW, [condition(0, GE, 1), condition(0, LE, 3)])


@pytest.mark.parametrize(
    "sections",
    [
        [],
        [Section("x32", [])],
        [Section("i386", []), Section("i386", [])],
        [Section("x86_64", [Rule([X32 | 1], ALLOW)])],
        [Section("x86_64", []), Section("x32", [Rule([1], ALLOW)])],
    ],
)
def test_sections_that_make_no_program(sections):
    with pytest.raises(ValueError, match=r"sections|system call numbers"):
        assemble(sections, EPERM)


def instruction(code, jt=0, jf=0, k=0):
    return (code | jt << 16 | jf << 24 | k << 32).to_bytes(8, "little")


RETURN = instruction(bpf.RET_K)


@pytest.mark.parametrize(
    "program",
    [
        b"",
        RETURN[:7],
        RETURN + b"\0",
        RETURN * 4097,
        instruction(bpf.LD_W_ABS),
        instruction(bpf.LD_W_ABS, k=2) + RETURN,
        instruction(bpf.LD_W_ABS, k=64) + RETURN,
        instruction(bpf.JMP_JA, k=1) + RETURN,
        instruction(bpf.JMP_JA, k=0xFFFFFFFF) + RETURN,
        instruction(bpf.JMP_JEQ_K, jt=1) + RETURN,
        instruction(bpf.JMP_JEQ_K, jf=255) + RETURN,
        instruction(0x28) + RETURN,
        instruction(0xFFFF) + RETURN,
    ],
)
def test_programs_that_the_kernel_refuses(program):
    with pytest.raises(OSError, match="seccomp filter") as caught:
        bpf_machine.check(program)
    assert caught.value.errno == errno.EINVAL


@given(st.binary(max_size=200))
def test_any_bytes_are_a_program_that_ends_or_an_error(data):
    try:
        instructions = bpf_machine.check(data)
    except OSError:
        return
    assert 0 <= bpf_machine.run(instructions, bytes(64)) < 2**32


def test_a_program_can_be_read():
    rules = [Rule([1], ALLOW), Rule([2], KILL, [condition(1, MASKED_EQ, 5, 0xFF), condition(0, GT, 2**32)])]
    text = "\n".join(bpf_machine.disassemble(assemble([Section("x86_64", rules)], EPERM)))
    for part in (
        "ld arch",
        "ld nr",
        "ld args[0].high",
        "and #0xff",
        "ret ALLOW",
        "ret ERRNO(EPERM)",
        "ret KILL_PROCESS",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("action", "name"),
    [
        (EPERM, "ERRNO(EPERM)"),
        (0x7FF00007, "TRACE(7)"),
        (0, "KILL_THREAD"),
        (ALLOW, "ALLOW"),
        (0x00050FFF, "ERRNO(4095)"),
    ],
)
def test_names_of_actions(action, name):
    assert bpf_machine.action_name(action) == name
