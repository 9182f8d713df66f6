"""What only process 1 of a machine does: load modules of the kernel, switch it off."""

from __future__ import annotations

from . import abi

_MAGIC1, _MAGIC2, _POWER_OFF = 0xFEE1DEAD, 672274793, 0x4321FEDC  # linux/reboot.h


def load_module(fd: int, parameters: str = "") -> None:
    """Load a module from a file; one that is there already stays. finit_module(2)."""
    try:
        abi.syscall("finit_module", fd, parameters.encode() + b"\0", 0)
    except FileExistsError:
        pass


def power_off() -> None:
    """Switch the machine off at once: nothing is written back first. reboot(2)."""
    abi.syscall("reboot", _MAGIC1, _MAGIC2, _POWER_OFF, None)
