"""Devices of the machine in a container: the nodes that are made there, and who may use them. Pure.

What lies behind a path is looked up by `host.devices` before; here it becomes nodes and rules.
"""

from __future__ import annotations

from ...spec.container import ContainerRequest
from ...spec.errors import Invalid
from ...spec.runtime import BlockIo, Device, DeviceRule, ThrottleDevice, WeightDevice

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...spec.container import DeviceRate
    from ..host import Devices

# Nodes may be made (mknod alone gives no access), and only these may be opened: null, zero, full, random, urandom, tty,
# console, ptmx and the terminals of the container's own devpts.
RULES = (
    DeviceRule(allow=False),
    DeviceRule(allow=True, type="c", access="m"),
    DeviceRule(allow=True, type="b", access="m"),
    *(DeviceRule(allow=True, type="c", major=1, minor=minor) for minor in (3, 5, 7, 8, 9)),
    *(DeviceRule(allow=True, type="c", major=5, minor=minor) for minor in (0, 1, 2)),
    DeviceRule(allow=True, type="c", major=136),
)
RULES_PRIVILEGED = (DeviceRule(allow=True),)
WEIGHT_MIN, WEIGHT_MAX = 10, 1000


def nodes(request: ContainerRequest, devices: Devices, subject: str) -> tuple[Device, ...]:
    """Return the nodes to make: those of --device, and with --privileged all that the machine has.

    Raises Invalid with docker's text for a path behind which no device is.
    """
    asked = [
        device
        for entry in request.devices
        if not entry.is_named
        for device in _behind(entry.source, entry.target, devices, subject)
    ]
    taken = {device.path for device in asked}
    return (*(device for device in devices.everything if device.path not in taken), *asked)


def rules(request: ContainerRequest, devices: Devices, subject: str) -> tuple[DeviceRule, ...]:
    """Return who may use what, the last fitting rule deciding."""
    if request.privileged:
        return RULES_PRIVILEGED
    asked = [
        DeviceRule(allow=True, type=device.type, major=device.major, minor=device.minor, access=entry.permissions)
        for entry in request.devices
        if not entry.is_named
        for device in _behind(entry.source, entry.target, devices, subject)
    ]
    return (*RULES, *asked, *(_rule(text, subject) for text in request.device_cgroup_rules))


def block_io(request: ContainerRequest, devices: Devices, subject: str) -> BlockIo | None:
    """Return the limits of disks. Raises Invalid."""
    if request.blkio_weight and not WEIGHT_MIN <= request.blkio_weight <= WEIGHT_MAX:
        cause = f"Range of blkio weight is from {WEIGHT_MIN} to {WEIGHT_MAX}"
        raise Invalid("create", subject, cause, hint="choose a weight in that range, or 0 for none", code="E0505")
    found = BlockIo(
        weight=request.blkio_weight or None,
        weight_device=tuple(
            WeightDevice(major=device.major, minor=device.minor, weight=entry.weight)
            for entry in request.blkio_weight_devices
            for device in (_one(entry.path, devices, subject),)
        ),
        throttle_read_bps_device=_rates(request.device_read_bps, devices, subject),
        throttle_write_bps_device=_rates(request.device_write_bps, devices, subject),
        throttle_read_iops_device=_rates(request.device_read_iops, devices, subject),
        throttle_write_iops_device=_rates(request.device_write_iops, devices, subject),
    )
    return found if found != BlockIo() else None


def _rates(entries: tuple[DeviceRate, ...], devices: Devices, subject: str) -> tuple[ThrottleDevice, ...]:
    found = ((_one(entry.path, devices, subject), entry.rate) for entry in entries)
    return tuple(ThrottleDevice(major=device.major, minor=device.minor, rate=rate) for device, rate in found)


def _behind(source: str, target: str, devices: Devices, subject: str) -> tuple[Device, ...]:
    """Return the devices behind a path of the machine (a directory may have many), at their places inside."""
    found = devices.named.get(source, ())
    if not found:
        why = "not a device node" if source in devices.named else "no such file or directory"
        cause = f'error gathering device information while adding custom device "{source}": {why}'
        raise Invalid("create", subject, cause, hint=f"see what there is: ls -l {source}", code="E0214")
    return tuple(device.replace(path=target + device.path.removeprefix(source)) for device in found)


def _one(path: str, devices: Devices, subject: str) -> Device:
    found = devices.named.get(path, ())
    if len(found) != 1:
        cause = f"{path} is no device of this machine, so it has no rate or weight"
        raise Invalid("create", subject, cause, hint="name a disk: ls -l /dev", code="E0214")
    return found[0]


def _rule(text: str, subject: str) -> DeviceRule:
    """Return the rule that docker writes as the kernel's devices.allow does: "c 42:* rmw"."""
    words = text.split()
    numbers = words[1].split(":") if len(words) == 3 else []
    if len(numbers) != 2 or words[0] not in "abc" or set(words[2]) - set("rwm"):
        cause = f"invalid device cgroup format '{text[:100]}'"
        raise Invalid("create", subject, cause, hint="write c 42:* rmw, for instance")
    try:
        major, minor = (None if number == "*" else int(number) for number in numbers)
    except ValueError:
        cause = f"invalid device cgroup format '{text[:100]}'"
        raise Invalid("create", subject, cause, hint="write numbers, or * for all") from None
    return DeviceRule(allow=True, type=words[0], major=major, minor=minor, access=words[2])
