"""Classic BPF programs for seccomp(2): the assembler. `orlop.linux.bpf_machine` checks, runs and reads programs.

Pure: bytes in, bytes out. A program is an array of struct sock_filter (linux/filter.h) in little endian, which is
what every architecture here runs. It looks at one struct seccomp_data and returns one SECCOMP_RET_* value.

Shape of a program of ours:

    ld arch; jeq AUDIT_ARCH_x -> its section, ...; ret foreign
    section: ld nr; binary search over ranges of numbers with one outcome each; conditional calls end in a chain of
    tests on 32-bit words of the arguments, the last of which falls to the default action.

Precedence, where several rules name one system call. Settled by experiment against libseccomp 2.5.4 and 2.6.1 and
runc 1.1.5 (tests/contract/test_seccomp_libseccomp.py, test_seccomp_runc.py), and the same here:
1. A rule whose action is the default action is dropped before anything else; it shadows nothing.
2. A rule without conditions beats every rule with conditions, whatever the order.
3. Of several rules without conditions the first wins.
4. Rules with conditions are tried in an order of their own, not that of the profile: the rule whose first argument has
   the higher index first; then EQ, NE and MASKED_EQ before LT and LE before GE and GT; then larger values first
   (smaller first for LT and LE); then the same for the next argument; then the profile's order. The first that
   holds, wins.
5. Rules that differ in the action alone are an error (EEXIST in libseccomp), unless another rule decides before them.
   libseccomp refuses some more, which depends on the order in which they come; here the rules above decide.
On an architecture of 32 bits conditions see the low half of arguments and values alone, as in libseccomp.

libseccomp keeps 4. for rules of EQ, and for rules about one argument with values of 32 bits and one action. Beyond that
its tree loses and invents matches (arg0 GT 2**32 and arg0 LT 1, both allowing, allow 2 as well): here 4. always holds.
And where it kills the thread that makes a call of a foreign architecture, we kill the process (seccomp(2) advises to).
"""

from __future__ import annotations

import errno

from .syscalls import X32_SYSCALL_BIT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

# linux/seccomp.h
SECCOMP_RET_KILL_PROCESS = 0x80000000
SECCOMP_RET_KILL_THREAD = 0x00000000
SECCOMP_RET_TRAP = 0x00030000
SECCOMP_RET_ERRNO = 0x00050000
SECCOMP_RET_USER_NOTIF = 0x7FC00000
SECCOMP_RET_TRACE = 0x7FF00000
SECCOMP_RET_LOG = 0x7FFC0000
SECCOMP_RET_ALLOW = 0x7FFF0000
SECCOMP_RET_ACTION_FULL = 0xFFFF0000
SECCOMP_RET_DATA = 0x0000FFFF

# linux/audit.h. x32 is told from x86_64 by a bit of the number.
AUDIT_ARCH = {
    "x86_64": 0xC000003E,
    "i386": 0x40000003,
    "x32": 0xC000003E,
    "aarch64": 0xC00000B7,
    "arm": 0x40000028,
    "riscv64": 0xC00000F3,
}
WORD_BITS = {"x86_64": 64, "i386": 32, "x32": 32, "aarch64": 64, "arm": 32, "riscv64": 64}

# linux/bpf_common.h, linux/filter.h: the part of the language that this module writes.
LD_W_ABS = 0x20
ALU_AND_K = 0x54
JMP_JA = 0x05
JMP_JEQ_K = 0x15
JMP_JGT_K = 0x25
JMP_JGE_K = 0x35
JMP_JSET_K = 0x45
RET_K = 0x06

BPF_MAXINSNS = 4096
INSTRUCTION_BYTES = 8
SECCOMP_DATA_BYTES = 64
ARGUMENTS = 6

NE, LT, LE, EQ, GE, GT, MASKED_EQ = "NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"
OPERATORS = (NE, LT, LE, EQ, GE, GT, MASKED_EQ)

_U32 = 0xFFFFFFFF
_U64 = 0xFFFFFFFFFFFFFFFF
_NR, _ARCH, _ARGS = 0, 4, 16  # offsets in struct seccomp_data
_ENOSYS = SECCOMP_RET_ERRNO | errno.ENOSYS
_REACH = 255  # instructions that a conditional jump can skip

if TYPE_CHECKING:
    Condition = tuple[int, str, int, int]  # argument, operator, value, mask
    Instruction = tuple[int, int, int, int]  # code, jt, jf, k
    _Alternative = tuple[tuple[Condition, ...], int]  # conditions, action
    _Predicate = tuple[int, int, int, int]  # offset of the word, jump, k, mask


def condition(index: int, op: str, value: int, mask: int = _U64) -> Condition:
    """Return the test `argument[index] op value`, unsigned, 64 bits; for MASKED_EQ `argument & mask == value & mask`.

    Raises ValueError for an index, operator or number that the kernel's structure can't hold.
    """
    if not 0 <= index < ARGUMENTS or op not in OPERATORS or not 0 <= value <= _U64 or not 0 <= mask <= _U64:
        raise ValueError(f"no such condition: argument {index} {op} {value} mask {mask}")
    return index, op, value & mask if op == MASKED_EQ else value, mask if op == MASKED_EQ else _U64


class Rule:
    """These system calls get this action when all the conditions hold; no conditions: always.

    conditions are made by `condition`, at most one for an argument: two tests of one argument are two rules.
    """

    __slots__ = ("action", "conditions", "numbers")

    def __init__(self, numbers: Sequence[int], action: int, conditions: Iterable[Condition] = ()) -> None:
        self.conditions = tuple(sorted(conditions))
        self.numbers = numbers
        self.action = action
        if len({test[0] for test in self.conditions}) < len(self.conditions):
            raise ValueError("a rule has two conditions on one argument")


class Section:
    """What a program does to one architecture (a name of `orlop.linux.syscalls`).

    newest: calls above this number that no rule names get ENOSYS instead of the default action, so that a C library
        that probes for a call younger than the profile falls back to an older one (runc since 1.0-rc93); None: no.
    """

    __slots__ = ("architecture", "newest", "rules")

    def __init__(self, architecture: str, rules: Sequence[Rule], newest: int | None = None) -> None:
        self.architecture = architecture
        self.rules = rules
        self.newest = newest


def assemble(sections: Sequence[Section], default: int, foreign: int = SECCOMP_RET_KILL_PROCESS) -> bytes:
    """Return the program: default for calls that no rule names, foreign for calls of an architecture without a section.

    Raises OSError: E2BIG when the program would exceed BPF_MAXINSNS, EEXIST when two rules contradict each other
    (filename is then the number of the system call); ValueError for x32 without x86_64, or a section that comes twice.
    """
    by_name = {section.architecture: section for section in sections}
    if len(by_name) < len(sections) or not sections or ("x32" in by_name and "x86_64" not in by_name):
        raise ValueError("a program needs sections of different architectures, and x32 needs x86_64")
    writer = _Writer()
    entries = []
    for section in sections:
        if section.architecture != "x32":
            entries.append((AUDIT_ARCH[section.architecture], _section(writer, section, by_name, default, foreign)))
    target = writer.ret(foreign)
    for audit_arch, entry in reversed(entries):
        target = writer.branch(JMP_JEQ_K, audit_arch, entry, target)
    writer.emit(LD_W_ABS, 0, 0, _ARCH)
    return writer.program()


class _Label:
    """The place of an instruction, counted from the end of the program."""

    __slots__ = ("place",)

    def __init__(self, place: int) -> None:
        self.place = place


if TYPE_CHECKING:
    _Outcome = _Label | int  # the chain of tests that decides, or an action


def _section(writer: _Writer, section: Section, by_name: dict[str, Section], default: int, foreign: int) -> int:
    """Write one architecture's part; with that of x86_64 also x32's. Return its label."""
    ranges = _Ranges()
    outcomes = _outcomes(writer, section, default)
    if section.architecture != "x86_64":
        ranges.add(outcomes, 0, _U32 + 1, default, section.newest)
    else:
        ranges.add(outcomes, 0, X32_SYSCALL_BIT, default, section.newest)
        x32 = by_name.get("x32")
        if x32:
            ranges.add(_outcomes(writer, x32, default), X32_SYSCALL_BIT, _U32 + 1, default, x32.newest)
        else:
            # -1 is what a tracer leaves behind that has answered the call itself (seccomp(2), SECCOMP_RET_TRACE).
            ranges.put(X32_SYSCALL_BIT, foreign)
            ranges.put(_U32, default)
    writer.search(ranges, 0, len(ranges.starts))
    return writer.emit(LD_W_ABS, 0, 0, _NR)


def _outcomes(writer: _Writer, section: Section, default: int) -> dict[int, _Outcome]:
    """Write the chains of the conditional calls. Return number -> outcome for every call that a rule names."""
    wide = WORD_BITS[section.architecture] == 64
    bits = _U64 if wide else _U32
    actions: dict[int, int] = {}
    conditional: dict[int, list[_Alternative]] = {}
    alternatives = 0
    for rule in section.rules:
        if rule.action == default:
            continue
        # A mask of nothing holds for every argument: it is no condition.
        conditions = tuple(test for test in rule.conditions if test[3] & bits)
        if not conditions:
            actions = dict.fromkeys(rule.numbers, rule.action) | actions  # the first rule wins
            continue
        alternatives += len(rule.numbers)
        if alternatives > BPF_MAXINSNS:
            raise _too_big(alternatives)
        for number in rule.numbers:
            conditional.setdefault(number, []).append((conditions, rule.action))
    outcomes: dict[int, _Outcome] = {**actions}
    for number, tried in conditional.items():
        if number not in actions:
            outcomes[number] = writer.chain(number, tuple(tried), wide, default)
    return outcomes


def _ordered(number: int, alternatives: Sequence[_Alternative], bits: int) -> list[_Alternative]:
    """Return the rules that can decide, in the order in which they are tried (4. of the module's text).

    Raises OSError for a contradiction (5.).
    """
    everything = {conditions for conditions, _ in alternatives}
    deciding: dict[tuple[Condition, ...], int] = {}
    for conditions, action in alternatives:
        if any(fewer in everything for fewer in _parts(conditions)):
            continue  # it comes later in the order than a rule that holds wherever it holds
        if deciding.setdefault(conditions, action) != action:
            raise OSError(errno.EEXIST, "two rules have the same conditions and different actions", str(number))
    return sorted(deciding.items(), key=lambda alternative: [_rank(test, bits) for test in alternative[0]])


def _parts(conditions: tuple[Condition, ...]) -> Iterator[tuple[Condition, ...]]:
    """Yield every choice of some, but not all, of the conditions."""
    for chosen in range(1, (1 << len(conditions)) - 1):
        yield tuple(test for place, test in enumerate(conditions) if chosen >> place & 1)


def _rank(test: Condition, bits: int) -> tuple[int, int, int]:
    index, op, value, _ = test
    if op in (LT, LE):
        return -index, 1, value & bits
    return -index, 2 if op in (GE, GT) else 0, -(value & bits)


class _Test:
    """One conditional jump on one word of seccomp_data; yes and no are tests or actions.

    warm: the label to enter at with the word in the accumulator, cold: the label where it is loaded first; needs_warm
    and needs_cold tell which of them somebody enters at.
    """

    __slots__ = ("cold", "needs_cold", "needs_warm", "no", "predicate", "warm", "yes")

    def __init__(self, predicate: _Predicate, yes: _Target, no: _Target) -> None:
        self.predicate = predicate
        self.yes = yes
        self.no = no
        self.needs_warm = self.needs_cold = False
        self.warm = self.cold = -1

    def leaves_loaded(self, target: _Test) -> bool:
        """Tell whether the accumulator holds the target's word after this test."""
        return self.predicate[3] == _U32 and self.predicate[0] == target.predicate[0]


if TYPE_CHECKING:
    _Target = _Test | int  # a test, or an action


class _Chain:
    """The tests of one system call, in the order of their making: a test comes after both its targets."""

    __slots__ = ("tests", "wide")

    def __init__(self, wide: bool) -> None:
        self.tests: list[_Test] = []
        self.wide = wide

    def write(self, writer: _Writer, alternatives: Sequence[_Alternative], default: int) -> _Outcome:
        """Write the alternatives, the first that holds wins. Return where they begin, or the action if all is known."""
        entry: _Target = default
        for conditions, action in reversed(alternatives):
            otherwise, entry = entry, action
            for test in reversed(conditions):
                entry = self._condition(test, entry, otherwise)
        if isinstance(entry, int):
            return entry
        entry.needs_cold = True
        for source in reversed(self.tests):
            if source.needs_warm or source.needs_cold:
                self._mark(source)
        for source in self.tests:
            if source.needs_warm or source.needs_cold:
                self._emit(writer, source)
        return _Label(entry.cold)

    def _condition(self, test: Condition, yes: _Target, no: _Target) -> _Target:
        """Return where to go on with yes when the condition holds, with no when it doesn't.

        A 64-bit value is compared in two halves. Testing the high half for equality first, whatever the operator, gives
        all rules about small values one common test, which is then made only once.
        """
        index, op, value, mask = test
        low, high = _ARGS + 8 * index, _ARGS + 8 * index + 4
        if op in (NE, LT, LE):  # the opposites of EQ, GE, GT
            yes, no = no, yes
        if op in (LT, LE, GE, GT):
            low_test = (low, JMP_JGT_K if op in (GT, LE) else JMP_JGE_K, value & _U32, _U32)
            high_test = (high, JMP_JEQ_K, value >> 32, _U32)
            above = yes
            if self.wide and value >> 32:
                above = self._test((high, JMP_JGT_K, value >> 32, _U32), yes, no)
        else:
            low_test = (low, JMP_JEQ_K, value & _U32, mask & _U32)
            high_test = (high, JMP_JEQ_K, value >> 32, mask >> 32)
            above = no
        if not self.wide:
            return self._test(low_test, yes, no)
        below = self._test(low_test, _known(yes, high_test, True), _known(no, high_test, True))
        return self._test(high_test, below, above)

    def _test(self, predicate: _Predicate, yes: _Target, no: _Target) -> _Target:
        word, jump, k, mask = predicate
        if not mask or (jump == JMP_JGE_K and not k):
            return yes  # always true
        yes, no = _known(yes, predicate, True), _known(no, predicate, False)
        if mask != _U32 and k in (0, mask) and (not k or not mask & (mask - 1)):
            # No bit of the mask, or the only bit of the mask: a jump that leaves the accumulator as it is.
            predicate = (word, JMP_JSET_K, mask, _U32)
            if not k:
                yes, no = no, yes
        if yes is no or (type(yes) is int and yes == no):
            return yes
        if (
            predicate[1] == JMP_JSET_K
            and isinstance(no, _Test)
            and no.yes is yes
            and (no.predicate[:2], no.predicate[3]) == (predicate[:2], _U32)
        ):
            # "This bit or that bit": one jump for both.
            predicate, no = (predicate[0], JMP_JSET_K, predicate[2] | no.predicate[2], _U32), no.no
        made = _Test(predicate, yes, no)
        self.tests.append(made)
        return made

    @staticmethod
    def _mark(source: _Test) -> None:
        for target in (source.yes, source.no):
            if isinstance(target, _Test):
                if source.leaves_loaded(target):
                    target.needs_warm = True
                else:
                    target.needs_cold = True

    @staticmethod
    def _emit(writer: _Writer, source: _Test) -> None:
        def label(target: _Target) -> int:
            if isinstance(target, int):
                return writer.ret(target)
            return target.warm if source.leaves_loaded(target) else target.cold

        word, jump, k, mask = source.predicate
        source.warm = writer.branch(jump, k, label(source.yes), label(source.no))
        if mask != _U32:
            source.warm = writer.emit(ALU_AND_K, 0, 0, mask)
        if source.needs_cold:
            source.cold = writer.emit(LD_W_ABS, 0, 0, word)


def _known(target: _Target, predicate: _Predicate, holds: bool) -> _Target:
    """Skip tests whose outcome is known already, because the way here went through the same test."""
    while isinstance(target, _Test) and target.predicate == predicate:
        target = target.yes if holds else target.no
    return target


class _Ranges:
    """The space of system call numbers as ranges of one outcome: parallel lists of first numbers and outcomes."""

    __slots__ = ("outcomes", "starts")

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.outcomes: list[_Outcome] = []

    def put(self, start: int, outcome: _Outcome) -> None:
        """From start on, this is the outcome. Starts ascend."""
        if not self.outcomes or self.outcomes[-1] != outcome:
            self.starts.append(start)
            self.outcomes.append(outcome)

    def add(self, outcomes: dict[int, _Outcome], start: int, end: int, default: int, newest: int | None) -> None:
        """Lay the outcomes of one architecture over the numbers from start up to, but not including, end."""
        known_end = end if newest is None else min(max(newest + 1, start), end)
        numbers = sorted(outcomes)
        if numbers and not start <= numbers[0] <= numbers[-1] < end:
            raise ValueError(f"{numbers[0]} to {numbers[-1]} are no system call numbers of this architecture")
        for number in numbers:
            if number != start:
                self._gap(start, number, known_end, default)
            self.put(number, outcomes[number])
            start = number + 1
        self._gap(start, end, known_end, default)

    def _gap(self, start: int, end: int, known_end: int, default: int) -> None:
        if start < min(end, known_end):
            self.put(start, default)
        if max(start, known_end) < end:
            self.put(max(start, known_end), _ENOSYS)


class _Writer:
    """Writes a program from its last instruction to its first, so that every jump's target is there already.

    A label is a place counted from the end. A target out of a conditional jump's reach gets a return or an
    unconditional jump of its own nearby.
    """

    __slots__ = ("_chains", "_instructions", "_returns")

    def __init__(self) -> None:
        self._instructions: list[Instruction] = []
        self._returns: dict[int, int] = {}
        self._chains: dict[object, _Outcome] = {}

    def emit(self, code: int, jt: int, jf: int, k: int) -> int:
        if len(self._instructions) >= BPF_MAXINSNS:
            raise _too_big(len(self._instructions) + 1)
        self._instructions.append((code, jt, jf, k))
        return len(self._instructions) - 1

    def ret(self, action: int) -> int:
        """Return the label of a return of this action that a jump written next can reach."""
        label = self._returns.get(action)
        if label is None or len(self._instructions) - label > _REACH - 8:
            label = self._returns[action] = self.emit(RET_K, 0, 0, action)
        return label

    def chain(self, number: int, alternatives: tuple[_Alternative, ...], wide: bool, default: int) -> _Outcome:
        """Write the tests of a call, or find those of a call with the same rules: of another architecture mostly."""
        key = (alternatives, wide)
        if key not in self._chains:
            ordered = _ordered(number, alternatives, _U64 if wide else _U32)
            self._chains[key] = _Chain(wide).write(self, ordered, default)
        return self._chains[key]

    def branch(self, jump: int, k: int, yes: int, no: int) -> int:
        """Write a conditional jump to two labels."""
        here = len(self._instructions)
        # One less than the reach: the second detour may move the first target away by one.
        if here - yes >= _REACH:
            yes = self.emit(JMP_JA, 0, 0, here - yes - 1)
            here += 1
        if here - no >= _REACH:
            no = self.emit(JMP_JA, 0, 0, here - no - 1)
            here += 1
        return self.emit(jump, here - yes - 1, here - no - 1, k)

    def search(self, ranges: _Ranges, first: int, end: int) -> int:
        """Write the binary search for that of the ranges from first up to, but not including, end which A lies in."""
        if end - first == 1:
            only = ranges.outcomes[first]
            return only.place if isinstance(only, _Label) else self.ret(only)
        middle = (first + end) // 2
        above = self.search(ranges, middle, end)
        below = self.search(ranges, first, middle)
        return self.branch(JMP_JGE_K, ranges.starts[middle], above, below)

    def program(self) -> bytes:
        return b"".join(
            (code | jt << 16 | jf << 24 | k << 32).to_bytes(INSTRUCTION_BYTES, "little")
            for code, jt, jf, k in reversed(self._instructions)
        )


def _too_big(instructions: int) -> OSError:
    return OSError(
        errno.E2BIG, f"the filter needs {instructions} instructions or more, the kernel takes {BPF_MAXINSNS}"
    )
