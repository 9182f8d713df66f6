"""libseccomp as the oracle of system call numbers and of what several rules for one call mean together."""

from __future__ import annotations

import errno

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orlop.linux import abi, bpf, bpf_machine, syscalls
from orlop.linux.bpf import Rule, Section, assemble, condition
from support.libseccomp import Library

ALLOW = bpf.SECCOMP_RET_ALLOW
EPERM = bpf.SECCOMP_RET_ERRNO | errno.EPERM
EIO = bpf.SECCOMP_RET_ERRNO | errno.EIO
SMALL = [0, 1, 2, 3, 7]
NEAR = [0, 1, 2, 3, 4, 6, 7, 8, 0xFFFFFFFF, 2**32, 2**32 + 1, 2**32 + 7]

# Debian patched names into 2.5.4, but not for every architecture.
NOT_THERE_YET = {("x32", "map_shadow_stack")}


@pytest.fixture(scope="module")
def library():
    return Library()


@pytest.mark.parametrize("architecture", syscalls.ARCHITECTURES)
def test_numbers(library, architecture):
    table = syscalls.numbers(architecture)
    compared = 0
    for name in {name for each in syscalls.ARCHITECTURES for name in syscalls.numbers(each)}:
        if architecture == "i386" and name in syscalls.MULTIPLEXED:
            continue  # it answers with a number that stands for both ways
        theirs = library.number(architecture, name)
        if theirs >= 0:
            assert (name, theirs) == (name, table.get(name))
            compared += 1
        elif theirs != -1:  # it knows the name, but not for this architecture
            assert name not in table or (architecture, name) in NOT_THERE_YET
    assert compared > 300


def test_multiplexed_calls(library):
    bases = {"socketcall": -100, "ipc": -200}  # of its pseudo numbers
    for name, (multiplexer, place) in syscalls.MULTIPLEXED.items():
        assert library.number("i386", name) == bases[multiplexer] - place


def agree(library, rules, architecture):
    """Hold our program for one call against libseccomp's, for every pair of interesting arguments."""
    if abi.MACHINE != "x86_64":
        pytest.skip("needs: x86-64")
    number = syscalls.numbers(architecture)["read"]
    theirs = library.program(EPERM, [("read", action, tests) for action, tests in rules if action != EPERM],
                             [architecture] if architecture != "x86_64" else [])  # fmt: skip
    try:
        ours = assemble([Section(architecture, [Rule([number], *rule) for rule in rules])], EPERM)
    except OSError as refused:
        assert theirs == -(refused.errno or 0)
        return
    if isinstance(theirs, int):
        # It also refuses what depends on the order of rules, of which one decides before the others in any case.
        assert theirs == -errno.EEXIST
        return
    near = [value & 0xFFFFFFFF for value in NEAR] if architecture == "i386" else NEAR
    for first in near:
        for second in near:
            args = [first, second, second]
            mine = bpf_machine.simulate(ours, architecture, number, args)
            assert mine == bpf_machine.simulate(theirs, architecture, number, args), args


def one_argument(operators, actions):
    tests = st.builds(
        condition, st.just(0), st.sampled_from(operators), st.sampled_from(SMALL), st.sampled_from(SMALL[1:])
    )
    return st.lists(st.tuples(st.sampled_from(actions), st.lists(tests, max_size=1)), min_size=1, max_size=5)


equalities = st.builds(condition, st.integers(0, 2), st.just(bpf.EQ), st.sampled_from(SMALL[:3]))
rules_of_equalities = st.lists(
    st.tuples(st.sampled_from([ALLOW, EIO, EPERM]), st.lists(equalities, max_size=2, unique_by=lambda test: test[0])),
    min_size=1,
    max_size=6,
)
shared = settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@shared
@given(rules_of_equalities, st.sampled_from(["x86_64", "i386"]))
def test_rules_of_equalities_mean_the_same(library, rules, architecture):
    agree(library, rules, architecture)


@shared
@given(one_argument(bpf.OPERATORS, [ALLOW]), st.sampled_from(["x86_64", "i386"]))
def test_rules_of_one_argument_and_one_action_mean_the_same(library, rules, architecture):
    agree(library, rules, architecture)


@pytest.mark.parametrize(
    ("rules", "argument", "right"),
    [
        ([(0, bpf.GT, 2**32), (0, bpf.LT, 1)], 2, EPERM),
        ([(0, bpf.LT, 2), (0, bpf.LT, 2**32 + 3), (0, bpf.LT, 3)], 2**32 - 2, ALLOW),
    ],
)
def test_where_libseccomp_is_wrong_we_are_not(library, rules, argument, right):
    """Written down so that a libseccomp without the defect is noticed; bpf.py tells of it."""
    if abi.MACHINE != "x86_64":
        pytest.skip("needs: x86-64")
    tests = [[condition(*test)] for test in rules]
    theirs = library.program(EPERM, [("read", ALLOW, test) for test in tests], [])
    ours = assemble([Section("x86_64", [Rule([0], ALLOW, test) for test in tests])], EPERM)
    assert bpf_machine.simulate(ours, "x86_64", 0, [argument]) == right
    assert bpf_machine.simulate(theirs, "x86_64", 0, [argument]) != right
