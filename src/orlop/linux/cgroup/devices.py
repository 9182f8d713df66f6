"""Device rules: one evaluation, two ways into the kernel (devices.deny/allow on v1, an eBPF program on v2).

A list of rules is read in order, as the v1 controller reads its files: a rule for all devices sets the default and
forgets what came before; any other is an exception, or takes one back. A rule that would punch a hole into a wider
exception is refused: v1 ignores it silently, and the device would stay open.

Source: Documentation/admin-guide/cgroup-v1/devices.rst; security/device_cgroup.c; runtime-spec config-linux.md.
"""

from __future__ import annotations

import errno
import os

from .settings import Setting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Protocol

    from .directory import Directory

    class Rule(Protocol):
        """None as major or minor means all, and so does -1; type is a, b, c or u; access a subset of "rwm"."""

        @property
        def allow(self) -> bool: ...
        @property
        def type(self) -> str: ...
        @property
        def major(self) -> int | None: ...
        @property
        def minor(self) -> int | None: ...
        @property
        def access(self) -> str: ...


EXCEPTIONS_MAX = 4096
NUMBER_MAX = 2**32 - 1

# include/uapi/linux/bpf.h: BPF_DEVCG_ACC_*, BPF_DEVCG_DEV_*
_BITS = {"m": 1, "r": 2, "w": 4}
_TYPES = {"b": 1, "c": 2}
_ALL_ACCESS = 7

Node = tuple[str, int | None, int | None]


class Policy:
    """What a list of rules amounts to: a default, and for each (type, major, minor) the access it does not cover."""

    __slots__ = ("allow", "exceptions")

    def __init__(self, allow: bool = False, exceptions: Mapping[Node, int] | None = None) -> None:
        self.allow = allow
        self.exceptions = dict(exceptions or {})

    def __eq__(self, other: object) -> bool:
        return type(other) is Policy and (self.allow, self.exceptions) == (other.allow, other.exceptions)

    def __hash__(self) -> int:
        return hash((self.allow, frozenset(self.exceptions.items())))

    def __repr__(self) -> str:
        return f"Policy({self.allow}, {self.words()!r})"

    def words(self) -> list[str]:
        """Return the exceptions as devices.allow has them: "c 1:3 rwm"."""
        return [f"{_node_words(node)} {_access_words(bits)}" for node, bits in sorted(self.exceptions.items(), key=str)]

    def settings(self) -> tuple[Setting, ...]:
        """Return the writes for cgroup v1."""
        default, exception = ("devices.allow", "devices.deny") if self.allow else ("devices.deny", "devices.allow")
        return (
            Setting("devices", default, "a"),
            *(Setting("devices", exception, words) for words in self.words()),
        )

    def program(self) -> bytes:
        """Return the eBPF program for cgroup v2: 1 lets the access pass.

        As on v1, an allowing exception must cover all of the access, and a denying one any part of it.
        """
        from . import ebpf

        # struct bpf_cgroup_dev_ctx: access_type (access << 16 | type), major, minor.
        code = [
            ebpf.load_word(ebpf.R2, ebpf.R1, 0),
            ebpf.move(ebpf.R3, ebpf.R2),
            ebpf.shift_right(ebpf.R3, 16),
            ebpf.and_immediate(ebpf.R2, 0xFFFF),
            ebpf.load_word(ebpf.R4, ebpf.R1, 4),
            ebpf.load_word(ebpf.R5, ebpf.R1, 8),
        ]
        for node, bits in sorted(self.exceptions.items(), key=str):
            code.append(self._block(node, bits))
        return b"".join([*code, ebpf.exit_with(int(self.allow))])

    def _block(self, node: Node, bits: int) -> bytes:
        """Return the instructions of one exception; whatever does not match skips to its end."""
        from . import ebpf

        kind, major, minor = node
        numbers = [(ebpf.R4, major)] * (major is not None) + [(ebpf.R5, minor)] * (minor is not None)
        left = 2 + len(numbers)
        if self.allow:
            access = ebpf.and_immediate(ebpf.R1, bits) + ebpf.jump_if_equal(ebpf.R1, 0, left)
        else:
            access = ebpf.and_immediate(ebpf.R1, ~bits) + ebpf.jump_if_not_equal(ebpf.R1, 0, left)
        code = [
            ebpf.jump_if_not_equal(ebpf.R2, _TYPES[kind], left + 3),
            ebpf.move(ebpf.R1, ebpf.R3),
            access,
        ]
        for index, (register, number) in enumerate(numbers):
            assert number is not None
            code.append(ebpf.jump_if_not_equal(register, number, left - 1 - index))
        return b"".join([*code, ebpf.exit_with(int(not self.allow))])


class DeviceFilter:
    """Attach a policy to a v2 cgroup, in place of the one that is attached there."""

    __slots__ = ("policy",)
    controller = "devices"

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    def __eq__(self, other: object) -> bool:
        return type(other) is DeviceFilter and self.policy == other.policy

    def __hash__(self) -> int:
        return hash(self.policy)

    def __repr__(self) -> str:
        return f"DeviceFilter({self.policy!r})"

    def describe(self) -> str:
        default, exception = ("allow", "deny") if self.policy.allow else ("deny", "allow")
        words = self.policy.words()
        return f"{default} all devices" + (f", {exception} {', '.join(words)}" if words else "")

    def call(self) -> str:
        return f"bpf(BPF_PROG_ATTACH, BPF_CGROUP_DEVICE), {len(self.policy.program()) // 8} instructions"

    def act(self, directory: Directory) -> None:
        """Raises OSError of bpf(2): EPERM without CAP_BPF (or CAP_SYS_ADMIN) in the first user namespace."""
        from . import ebpf

        try:
            program = ebpf.load(self.policy.program(), ebpf.PROG_TYPE_CGROUP_DEVICE, "orlop_devices")
            try:
                ebpf.replace(directory.fd, program, ebpf.CGROUP_DEVICE)
            finally:
                os.close(program)
        except OSError as error:
            raise OSError(error.errno, f"the device filter: {error.strerror}", directory.path) from None


def evaluate(rules: Iterable[Rule]) -> Policy:
    """Return what the rules amount to, beginning with nothing allowed.

    A rule of type "a" that allows only some numbers or access counts for block and character devices each: v1 would
    take it for "everything". Raises OSError EINVAL for a rule that is malformed or punches a hole, E2BIG beyond
    EXCEPTIONS_MAX.
    """
    policy = Policy()
    for rule in rules:
        bits = _access_bits(rule)
        major, minor = _number(rule, rule.major), _number(rule, rule.minor)
        if rule.type == "a" and (not rule.allow or (major is minor is None and bits == _ALL_ACCESS)):
            policy = Policy(rule.allow)
            continue
        if rule.type not in ("a", "b", "c", "u"):
            raise _refusal(rule, "its type is not a, b, c or u")
        for kind in ("b", "c") if rule.type == "a" else ("c" if rule.type == "u" else rule.type,):
            node = (kind, major, minor)
            if rule.allow == policy.allow:
                _take_back(policy, node, bits, rule)
            else:
                policy.exceptions[node] = policy.exceptions.get(node, 0) | bits
        if len(policy.exceptions) > EXCEPTIONS_MAX:
            raise OSError(errno.E2BIG, f"there are more than {EXCEPTIONS_MAX} device rules", "devices")
    return policy


def _take_back(policy: Policy, node: Node, bits: int, rule: Rule) -> None:
    kind, major, minor = node
    for wider in ((kind, None, minor), (kind, major, None), (kind, None, None)):
        if wider != node and policy.exceptions.get(wider, 0) & bits:
            raise _refusal(rule, f"it would punch a hole into the rule {_node_words(wider)}, which no kernel can hold")
    left = policy.exceptions.get(node, 0) & ~bits
    if left:
        policy.exceptions[node] = left
    else:
        policy.exceptions.pop(node, None)


def _access_bits(rule: Rule) -> int:
    if not rule.access or not set(rule.access) <= _BITS.keys():
        raise _refusal(rule, f"its access {rule.access!r} is not made of r, w and m")
    return sum(bit for letter, bit in _BITS.items() if letter in rule.access)


def _number(rule: Rule, number: int | None) -> int | None:
    if number is None or number == -1:
        return None
    if not 0 <= number <= NUMBER_MAX:
        raise _refusal(rule, f"{number} is not a device number")
    return number


def _refusal(rule: Rule, cause: str) -> OSError:
    verb = "allow" if rule.allow else "deny"
    major, minor = ("*" if number in (None, -1) else number for number in (rule.major, rule.minor))
    return OSError(errno.EINVAL, cause, f"device rule {verb} {rule.type} {major}:{minor} {rule.access}")


def _node_words(node: Node) -> str:
    kind, major, minor = node
    return f"{kind} {'*' if major is None else major}:{'*' if minor is None else minor}"


def _access_words(bits: int) -> str:
    return "".join(letter for letter in "rwm" if _BITS[letter] & bits)
