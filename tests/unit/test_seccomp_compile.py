"""OCI seccomp profiles: every field in the program, every wrong field named."""

from __future__ import annotations

import errno
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orlop.linux import bpf, bpf_machine, syscalls
from orlop.linux import seccomp as kernel
from orlop.runtime import seccomp, seccomp_words
from orlop.runtime.seccomp_flags import load_flags
from orlop.spec.errors import Invalid, OrlopError, Unsupported
from orlop.spec.runtime import Seccomp

ALLOW = bpf.SECCOMP_RET_ALLOW
EPERM = bpf.SECCOMP_RET_ERRNO | errno.EPERM
ENOSYS = bpf.SECCOMP_RET_ERRNO | errno.ENOSYS
KILL = bpf.SECCOMP_RET_KILL_PROCESS


def profile(*rules, default="SCMP_ACT_ERRNO", **fields):
    return Seccomp.from_json({"defaultAction": default, "syscalls": list(rules), **fields})


def rule(names, action="SCMP_ACT_ALLOW", *args, **fields):
    return {"names": names.split(), "action": action, "args": list(args), **fields}


def arg(index, op, value, value_two=0):
    return {"index": index, "op": f"SCMP_CMP_{op}", "value": value, "valueTwo": value_two}


def outcome(found, name, *args, architecture="x86_64", machine="x86_64"):
    return result(found, syscalls.numbers(architecture)[name], *args, architecture=architecture, machine=machine)


def result(found, number, *args, architecture="x86_64", machine="x86_64"):
    return bpf_machine.simulate(seccomp.compile(found, machine), architecture, number, args)


@pytest.mark.parametrize(
    ("action", "errno_ret", "value"),
    [
        ("SCMP_ACT_KILL", None, 0),
        ("SCMP_ACT_KILL_THREAD", None, 0),
        ("SCMP_ACT_KILL_PROCESS", None, KILL),
        ("SCMP_ACT_TRAP", None, bpf.SECCOMP_RET_TRAP),
        ("SCMP_ACT_ERRNO", None, EPERM),
        ("SCMP_ACT_ERRNO", 0, bpf.SECCOMP_RET_ERRNO),
        ("SCMP_ACT_ERRNO", 4095, bpf.SECCOMP_RET_ERRNO | 4095),
        ("SCMP_ACT_TRACE", None, bpf.SECCOMP_RET_TRACE | errno.EPERM),
        ("SCMP_ACT_TRACE", 0xFFFF, bpf.SECCOMP_RET_TRACE | 0xFFFF),
        ("SCMP_ACT_LOG", None, bpf.SECCOMP_RET_LOG),
        ("SCMP_ACT_NOTIFY", None, bpf.SECCOMP_RET_USER_NOTIF),
        ("SCMP_ACT_ALLOW", None, ALLOW),
    ],
)
def test_every_action(action, errno_ret, value):
    fields = {} if errno_ret is None else {"errnoRet": errno_ret}
    assert outcome(profile(rule("mkdir", action, **fields), default="SCMP_ACT_TRAP"), "mkdir") == value
    if action != "SCMP_ACT_NOTIFY":
        fields = {} if errno_ret is None else {"defaultErrnoRet": errno_ret}
        found = profile(rule("rmdir", "SCMP_ACT_LOG"), default=action, **fields)
        assert outcome(found, "mkdir") == value


@pytest.mark.parametrize(
    ("op", "values"),
    [("NE", {4, 6}), ("LT", {4}), ("LE", {4, 5}), ("EQ", {5}), ("GE", {5, 6}), ("GT", {6}), ("MASKED_EQ", {5, 4})],
)
def test_every_operator(op, values):
    # MASKED_EQ: value is the mask.
    found = profile(rule("dup", "SCMP_ACT_ALLOW", arg(0, op, 0x1E, 4) if op == "MASKED_EQ" else arg(0, op, 5)))
    assert {value for value in (4, 5, 6) if outcome(found, "dup", value) == ALLOW} == values


def test_conditions_on_different_arguments_must_all_hold():
    found = profile(rule("dup3", "SCMP_ACT_ALLOW", arg(0, "EQ", 1), arg(2, "EQ", 3)))
    assert [outcome(found, "dup3", *args) for args in ((1, 0, 3), (1, 0, 4), (2, 0, 3))] == [ALLOW, EPERM, EPERM]


def test_two_conditions_on_one_argument_are_alternatives():
    found = profile(rule("dup3", "SCMP_ACT_ALLOW", arg(0, "EQ", 1), arg(0, "EQ", 9), arg(2, "EQ", 3)))
    results = [outcome(found, "dup3", *args) for args in ((1, 0, 0), (9, 0, 0), (0, 0, 3), (0, 0, 0))]
    assert results == [ALLOW, ALLOW, ALLOW, EPERM]


@pytest.mark.parametrize(
    ("machine", "architectures", "covered"),
    [
        ("x86_64", [], {"x86_64"}),
        ("x86_64", ["SCMP_ARCH_X86"], {"x86_64", "i386"}),
        ("x86_64", ["SCMP_ARCH_X32", "SCMP_ARCH_AARCH64", "SCMP_ARCH_S390X"], {"x86_64", "x32"}),
        ("x86_64", ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"], {"x86_64", "i386", "x32"}),
        ("aarch64", ["SCMP_ARCH_ARM"], {"aarch64", "arm"}),
        ("arm64", [], {"aarch64"}),
        ("riscv64", ["SCMP_ARCH_X86_64"], {"riscv64"}),
        ("armv7l", [], {"arm"}),
        ("i686", ["SCMP_ARCH_X86"], {"i386"}),
    ],
)
def test_architectures(machine, architectures, covered):
    program = seccomp.compile(profile(rule("read write"), architectures=architectures), machine)
    for architecture in syscalls.ARCHITECTURES:
        number = syscalls.numbers(architecture)["read"]
        assert bpf_machine.simulate(program, architecture, number) == (ALLOW if architecture in covered else KILL)


def test_names_resolve_in_each_architecture():
    found = profile(rule("open socketcall execve"), architectures=["SCMP_ARCH_X86", "SCMP_ARCH_X32"])
    assert outcome(found, "open", architecture="i386") == ALLOW
    assert outcome(found, "socketcall", architecture="i386") == ALLOW
    assert outcome(found, "execve", architecture="x32") == ALLOW
    assert result(found, 102) != ALLOW  # getuid on x86-64


def test_names_that_no_architecture_has_are_skipped_and_told():
    found = profile(rule("read swapcontext s390_pci_mmio_read no_such_call recv"))
    assert outcome(found, "read") == ALLOW
    skipped = ("no_such_call", "recv", "s390_pci_mmio_read", "swapcontext")
    assert seccomp.unknown_names(found, "x86_64") == skipped
    with_i386 = found.replace(architectures=("SCMP_ARCH_X86",))
    assert seccomp.unknown_names(with_i386, "x86_64") == tuple(name for name in skipped if name != "recv")


class TestCallsYoungerThanTheProfile:
    """runc since 1.0-rc93 (opencontainers/runc#2750)."""

    @pytest.mark.parametrize("default", ["SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_TRAP"])
    def test_they_are_missing_when_the_default_refuses(self, default):
        found = profile(rule("read statx"), default=default)
        newest = syscalls.numbers("x86_64")["statx"]
        assert result(found, newest - 1) not in (ENOSYS, ALLOW)
        assert [result(found, newest + step) for step in (0, 1, 2, 1000)] == [ALLOW, ENOSYS, ENOSYS, ENOSYS]

    @pytest.mark.parametrize("default", ["SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE"])
    def test_they_get_the_default_when_that_lets_them_pass(self, default):
        found = profile(rule("mkdir", "SCMP_ACT_KILL"), default=default)
        assert result(found, 5000) == result(found, 0) != ENOSYS

    def test_each_architecture_has_its_own_newest(self):
        found = profile(rule("read futex_time64"), architectures=["SCMP_ARCH_X86"])
        assert result(found, 1) == ENOSYS  # x86-64 knows only read of these
        assert result(found, 200, architecture="i386") == EPERM
        assert result(found, 423, architecture="i386") == ENOSYS

    def test_a_rule_with_the_default_action_counts(self):
        found = profile(rule("read"), rule("statx", "SCMP_ACT_ERRNO"))
        assert [result(found, number) for number in (331, 332, 333)] == [EPERM, EPERM, ENOSYS]

    def test_private_calls_of_arm_do_not(self):
        found = profile(rule("read set_tls"))
        assert result(found, 5, architecture="arm", machine="armv7l") == ENOSYS
        assert outcome(found, "set_tls", architecture="arm", machine="armv7l") == ALLOW

    def test_a_profile_without_a_known_name_has_no_newest(self):
        assert result(profile(rule("no_such_call")), 5000) == EPERM


class TestMultiplexedCalls:
    """i386 makes socket and System V calls directly, and through socketcall and ipc."""

    def call(self, found, name, *args, default="SCMP_ACT_ERRNO"):
        return outcome(found.replace(architectures=("SCMP_ARCH_X86",)), name, *args, architecture="i386")

    def test_a_rule_covers_both_ways(self):
        found = profile(rule("socket shmget"), rule("connect", "SCMP_ACT_KILL_PROCESS"))
        assert self.call(found, "socket") == self.call(found, "socketcall", 1) == ALLOW
        assert self.call(found, "shmget") == self.call(found, "ipc", 23) == ALLOW
        assert self.call(found, "connect") == self.call(found, "socketcall", 3) == KILL
        assert self.call(found, "socketcall", 2) == self.call(found, "ipc", 1) == EPERM

    def test_a_refusal_by_argument_refuses_the_hidden_call_whole(self):
        found = profile(rule("socket", "SCMP_ACT_ERRNO", arg(0, "EQ", 38), errnoRet=97), default="SCMP_ACT_ALLOW")
        assert self.call(found, "socket", 2) == ALLOW
        assert self.call(found, "socketcall", 1) == bpf.SECCOMP_RET_ERRNO | 97
        assert self.call(found, "socketcall", 2) == ALLOW

    def test_a_permission_by_the_first_argument_permits_it_whole_as_in_runc(self):
        assert self.call(profile(rule("socket", "SCMP_ACT_ALLOW", arg(0, "EQ", 2))), "socketcall", 1) == ALLOW

    def test_a_permission_by_another_argument_does_not_count(self):
        assert self.call(profile(rule("socket", "SCMP_ACT_ALLOW", arg(1, "EQ", 2))), "socketcall", 1) == EPERM

    def test_where_both_meet_the_refusal_wins(self):
        refuse = rule("socket", "SCMP_ACT_KILL_PROCESS", arg(0, "EQ", 38))
        allow = rule("socket", "SCMP_ACT_ALLOW", arg(0, "EQ", 2))
        assert self.call(profile(allow, refuse), "socketcall", 1) == KILL
        assert self.call(profile(refuse, allow), "socketcall", 1) == KILL

    def test_a_rule_for_the_multiplexer_itself_beats_all(self):
        found = profile(rule("socket", "SCMP_ACT_KILL_PROCESS"), rule("socketcall"))
        assert self.call(found, "socketcall", 1) == ALLOW


@pytest.mark.parametrize(
    ("fields", "flags"),
    [
        ({}, 0),
        ({"flags": []}, 0),
        ({"flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"]}, 0b110),
        ({"flags": ["SECCOMP_FILTER_FLAG_TSYNC"]}, 0b1),
    ],
)
def test_flags(fields, flags):
    assert load_flags(profile(rule("read"), **fields)) == flags


def test_a_notification_asks_for_a_listener():
    found = profile(rule("mkdir", "SCMP_ACT_NOTIFY"), flags=["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"])
    listener, killable = kernel.SECCOMP_FILTER_FLAG_NEW_LISTENER, kernel.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
    assert load_flags(found) == listener | killable


@pytest.mark.parametrize(
    ("found", "cause"),
    [
        (profile(default=""), "defaultAction: '' is no action"),
        (profile(default="SCMP_ACT_DENY"), "defaultAction: 'SCMP_ACT_DENY' is no action"),
        (profile(default="SCMP_ACT_NOTIFY"), "defaultAction: SCMP_ACT_NOTIFY can't be the default"),
        (profile(defaultErrnoRet=4096), "defaultErrnoRet: 4096 is not in 0 to 4095"),
        (profile(defaultErrnoRet=-1), "defaultErrnoRet: -1 is not in 0 to 4095"),
        (profile(default="SCMP_ACT_ALLOW", defaultErrnoRet=1), "defaultErrnoRet: SCMP_ACT_ALLOW returns no errno"),
        (profile(architectures=["SCMP_ARCH_PDP11"]), "architectures[0]: 'SCMP_ARCH_PDP11' is no architecture"),
        (profile(architectures=["SCMP_ARCH_X86", "x86"]), "architectures[1]: 'x86' is no architecture"),
        (profile(rule("")), "syscalls[0].names: a name is missing"),
        (profile(rule("read"), {"names": ["read", ""], "action": "SCMP_ACT_ALLOW"}), "syscalls[1].names: a name"),
        (profile(rule("read", "ALLOW")), "syscalls[0].action: 'ALLOW' is no action"),
        (profile(rule("read", errnoRet=1)), "syscalls[0].errnoRet: SCMP_ACT_ALLOW returns no errno"),
        (profile(rule("read", "SCMP_ACT_ERRNO", errnoRet=70000)), "syscalls[0].errnoRet: 70000 is not in 0 to 4095"),
        (profile(rule("read", "SCMP_ACT_TRACE", errnoRet=65536)), "syscalls[0].errnoRet: 65536 is not in 0 to 65535"),
        (profile(rule("read write", "SCMP_ACT_NOTIFY")), "syscalls[0].names: SCMP_ACT_NOTIFY can't be used for write"),
        (profile(rule("dup", "SCMP_ACT_ALLOW", arg(9, "EQ", 0))), "syscalls[0].args[0].index: 9 is not in 0 to 5"),
        (profile(rule("dup", "SCMP_ACT_ALLOW", arg(-1, "EQ", 0))), "syscalls[0].args[0].index: -1 is not in 0 to 5"),
        (profile(rule("dup", "SCMP_ACT_ALLOW", arg(0, "EQUAL", 0))), "args[0].op: 'SCMP_CMP_EQUAL' is no operator"),
        (
            profile(rule("dup", "SCMP_ACT_ALLOW", arg(0, "EQ", -1))),
            "args[0].value: -1 is no unsigned number of 64 bits",
        ),
        (profile(rule("dup", "SCMP_ACT_ALLOW", arg(0, "EQ", 1, -5))), "args[0].valueTwo: -5 is no unsigned number"),
    ],
)
def test_wrong_fields_are_named(found, cause):
    with pytest.raises(Invalid) as caught:
        seccomp.compile(found, "x86_64")
    assert cause in caught.value.cause
    assert caught.value.hint.startswith("correct ")


@pytest.mark.parametrize(
    ("flags", "cause"),
    [
        (["SECCOMP_FILTER_FLAG_NEW"], "flags[0]: 'SECCOMP_FILTER_FLAG_NEW' is no seccomp flag"),
        (["SECCOMP_FILTER_FLAG_NEW_LISTENER"], "flags[0]: 'SECCOMP_FILTER_FLAG_NEW_LISTENER' is no seccomp flag"),
        (["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"], "flags: SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV needs a rule"),
    ],
)
def test_wrong_flags_are_named(flags, cause):
    with pytest.raises(Invalid) as caught:
        load_flags(profile(flags=flags))
    assert cause in caught.value.cause


def test_rules_that_contradict_each_other_name_their_call():
    found = profile(
        rule("dup", "SCMP_ACT_ALLOW", arg(0, "EQ", 1)), rule("dup", "SCMP_ACT_KILL_PROCESS", arg(0, "EQ", 1))
    )
    with pytest.raises(Invalid, match="two rules for dup have the same conditions and different actions"):
        seccomp.compile(found, "x86_64")


def test_a_machine_without_a_table_is_unsupported():
    with pytest.raises(Unsupported, match="no table of system calls for machine 's390x'"):
        seccomp.compile(profile(), "s390x")


def test_a_profile_too_long_for_the_kernel_is_unsupported():
    rules = [rule("dup", "SCMP_ACT_ALLOW", arg(0, "EQ", 7 * value)) for value in range(5000)]
    with pytest.raises(Unsupported, match="the kernel takes 4096"):
        seccomp.compile(profile(*rules), "x86_64")


def test_a_huge_profile_is_bounded():
    names = " ".join(syscalls.numbers("x86_64"))
    rules = [rule(names, "SCMP_ACT_ALLOW", arg(5, "NE", value)) for value in range(2000)]
    with pytest.raises(Unsupported, match="the kernel takes 4096"):
        seccomp.compile(profile(*rules), "x86_64")


def test_many_names_and_many_equal_rules_are_no_problem():
    found = profile(*[rule("read " + " ".join(f"call{number}" for number in range(2000)))] * 50)
    assert len(seccomp.compile(found, "x86_64")) // 8 < 20


names_in_json = st.sampled_from(["read", "socket", "ioctl", "clone", "nosuch", "", "shmget"])
values_in_json = st.one_of(
    st.none(),
    st.booleans(),
    st.text(max_size=4),
    st.integers(-2, 2**65),
    st.floats(),
    st.lists(st.integers(), max_size=2),
)
args_in_json = st.fixed_dictionaries(
    {},
    optional={
        "index": st.integers(-1, 9) | values_in_json,
        "op": st.sampled_from([f"SCMP_CMP_{op}" for op in bpf.OPERATORS]) | values_in_json,
        "value": st.integers(0, 2**64) | values_in_json,
        "valueTwo": st.integers(0, 2**64) | values_in_json,
    },
)
rules_in_json = st.fixed_dictionaries(
    {},
    optional={
        "names": st.lists(names_in_json, max_size=3) | values_in_json,
        "action": st.sampled_from(["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_TRAP", "x"]) | values_in_json,
        "errnoRet": values_in_json,
        "args": st.lists(args_in_json, max_size=3) | values_in_json,
    },
)
profiles_in_json = st.fixed_dictionaries(
    {},
    optional={
        "defaultAction": st.sampled_from(["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_NOTIFY"]) | values_in_json,
        "architectures": st.lists(st.sampled_from(["SCMP_ARCH_X86", "SCMP_ARCH_X32", "x"]), max_size=3)
        | values_in_json,
        "flags": st.lists(st.text(max_size=3), max_size=2) | values_in_json,
        "syscalls": st.lists(rules_in_json, max_size=4) | values_in_json,
    },
)


@given(profiles_in_json)
def test_any_json_is_a_program_that_the_kernel_takes_or_an_error_of_ours(document):
    try:
        found = Seccomp.from_json(document)
        program = seccomp.compile(found, "x86_64")
    except OrlopError as wrong:
        assert json.dumps(wrong.to_json())
        return
    assert bpf_machine.check(program)
    assert seccomp_words.describe(found, "x86_64")


class TestWords:
    def lines(self, *rules, **fields):
        return seccomp_words.describe(profile(*rules, **fields), "x86_64")

    def test_a_small_profile(self):
        found = self.lines(
            rule("read write", "SCMP_ACT_ALLOW"),
            rule("dup", "SCMP_ACT_ALLOW", arg(0, "LT", 12)),
            rule("dup", "SCMP_ACT_ALLOW", arg(0, "EQ", 16)),
            rule("dup", "SCMP_ACT_ALLOW", arg(0, "EQ", 0x10000)),
            rule("clone3 nosuch", "SCMP_ACT_ERRNO", errnoRet=38),
        )
        assert found == [
            "system calls that no rule names are refused with EPERM",
            "allowed: read, write, whatever their arguments",
            "refused with ENOSYS: clone3, nosuch, whatever their arguments",
            "dup is allowed if argument 0 is less than 12 or is 16 or 0x10000",
            "calls younger than clone3 (numbers above 435) are refused with ENOSYS",
            "all of this for x86_64; calls of another architecture are deadly for the process",
            "skipped, because none of these architectures has them: nosuch",
        ]

    def test_conditions_on_several_arguments(self):
        found = self.lines(
            rule("dup3", "SCMP_ACT_TRAP", arg(0, "NE", 1), arg(2, "MASKED_EQ", 0xF0, 0x10)),
            rule("dup3", "SCMP_ACT_TRAP", arg(1, "GE", 7)),
        )
        assert (
            "dup3 is answered with SIGSYS if argument 0 is not 1 and argument 2 has the bits 0x10 under the mask 0xf0,"
            " or if argument 1 is at least 7"
        ) in found

    def test_what_is_overruled_is_not_told(self):
        found = self.lines(rule("dup", "SCMP_ACT_TRAP", arg(0, "EQ", 1)), rule("dup"), rule("dup", "SCMP_ACT_KILL"))
        assert [line for line in found if "dup" in line] == [
            "allowed: dup, whatever their arguments",
            "calls younger than dup (numbers above 32) are refused with ENOSYS",
        ]

    def test_a_rule_with_the_default_action_is_not_told(self):
        found = self.lines(rule("dup", "SCMP_ACT_ERRNO"), rule("dup3", "SCMP_ACT_ERRNO", arg(0, "EQ", 1)))
        assert [line for line in found if "dup" in line] == [
            "calls younger than dup3 (numbers above 292) are refused with ENOSYS"
        ]

    def test_a_permissive_profile_says_nothing_of_younger_calls(self):
        assert not any("younger" in line for line in self.lines(rule("dup", "SCMP_ACT_KILL"), default="SCMP_ACT_LOG"))
