"""containerEdits of device files, as SPEC.md has them."""

from ...spec.record import Record
from ...spec.runtime import Hook, IntelRdt


class DeviceNode(Record):
    """A device of the machine in a container. host_path "" is path."""

    path: str
    host_path: str = ""
    type: str = ""
    major: int = 0
    minor: int = 0
    file_mode: int | None = None
    permissions: str = ""
    uid: int | None = None
    gid: int | None = None


class CdiMount(Record):
    host_path: str
    container_path: str
    type: str = ""
    options: tuple[str, ...] = ()


class CdiHook(Record):
    hook_name: str
    path: str
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    timeout: int | None = None

    @property
    def hook(self) -> Hook:
        return Hook(path=self.path, args=self.args, env=self.env, timeout=self.timeout)


class NetInterface(Record):
    host_interface_name: str
    name: str


class Edits(Record):
    """containerEdits of a file: what one device needs, or every device of the file."""

    env: tuple[str, ...] = ()
    device_nodes: tuple[DeviceNode, ...] = ()
    net_devices: tuple[NetInterface, ...] = ()
    hooks: tuple[CdiHook, ...] = ()
    mounts: tuple[CdiMount, ...] = ()
    additional_gids: tuple[int, ...] = ()
    intel_rdt: IntelRdt | None = None
