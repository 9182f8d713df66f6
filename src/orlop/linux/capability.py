"""Capabilities: names, masks and the five sets of a process. capabilities(7)."""

from __future__ import annotations

from . import abi, ffi

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

NAMES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
    "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN "
    "SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE "
    "MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
).split()
NUMBERS = {f"CAP_{name}": number for number, name in enumerate(NAMES)}

_PR_CAPBSET_READ = 23
_PR_CAPBSET_DROP = 24
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_VERSION_3 = 0x20080522


class _Header(ffi.Structure):
    _fields_ = [("version", ffi.c_uint32), ("pid", ffi.c_int)]


class _Data(ffi.Structure):
    _fields_ = [(name, ffi.c_uint32) for name in ("effective", "permitted", "inheritable")]


def mask(names: Iterable[str]) -> int:
    """Return the bits of names such as "CAP_CHOWN". Raises KeyError with a name the kernel's list does not have."""
    bits = 0
    for name in names:
        bits |= 1 << NUMBERS[name]
    return bits


def names_of(bits: int) -> list[str]:
    """Return the names of the bits, in the kernel's order; a bit without a name as CAP_<number>."""
    return [
        f"CAP_{NAMES[number]}" if number < len(NAMES) else f"CAP_{number}"
        for number in range(bits.bit_length())
        if bits >> number & 1
    ]


def last() -> int:
    """Return the highest capability number of the running kernel."""
    with open("/proc/sys/kernel/cap_last_cap", encoding="utf-8") as file:
        return int(file.read())


def bounding_set(last_number: int) -> int:
    """Return the mask of the caller's bounding set; last_number as `last()` returned it."""
    bits = 0
    for number in range(last_number + 1):
        if abi.syscall("prctl", _PR_CAPBSET_READ, number, 0, 0, 0):
            bits |= 1 << number
    return bits


def drop_bounding(bits: int) -> None:
    """Drop these capabilities from the bounding set. Needs CAP_SETPCAP; EINVAL for an unknown number."""
    for number in range(bits.bit_length()):
        if bits >> number & 1:
            abi.syscall("prctl", _PR_CAPBSET_DROP, number, 0, 0, 0, subject=number)


def set_sets(effective: int, permitted: int, inheritable: int) -> None:
    """Set three masks of the calling thread. capset(2)."""
    header = _Header(_VERSION_3, 0)
    data = (_Data * 2)(
        *(_Data(*(bits >> shift & 0xFFFFFFFF for bits in (effective, permitted, inheritable))) for shift in (0, 32))
    )
    abi.syscall("capset", ffi.byref(header), ffi.byref(data))


def get_sets() -> tuple[int, int, int]:
    """Return (effective, permitted, inheritable) of the calling thread. capget(2)."""
    header = _Header(_VERSION_3, 0)
    data = (_Data * 2)()
    abi.syscall("capget", ffi.byref(header), ffi.byref(data))
    low, high = data
    return (
        low.effective | high.effective << 32,
        low.permitted | high.permitted << 32,
        low.inheritable | high.inheritable << 32,
    )


def set_ambient(bits: int) -> None:
    """Make the ambient set exactly this mask; each bit must be permitted and inheritable."""
    abi.syscall("prctl", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    for number in range(bits.bit_length()):
        if bits >> number & 1:
            abi.syscall("prctl", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, number, 0, 0, subject=names_of(1 << number)[0])
