"""What a client asks for: the requests of the engine's verbs, as they cross the engine's socket.

Units are in the names. A request is strict: an unknown field is an error, not a silent nothing.
"""

from .mount import MountRequest
from .record import Record


class BindRequest(Record):
    """`-v [source:]target[:options]`. options as docker's (ro, rw, rprivate, z, nocopy ...), and as=UID[:GID].

    source: an absolute path, a volume's name, or "" for a volume without a name.
    """

    strict = True
    source: str
    target: str
    options: tuple[str, ...] = ()


class TmpfsRequest(Record):
    """`--tmpfs target[:options]`. options as for mount(8)."""

    strict = True
    target: str
    options: tuple[str, ...] = ()


class ContainerRequest(Record):
    """`orlop run` and `create`. Exactly one of image and rootfs is set.

    image: a reference; rootfs: an absolute host directory used in place as the root file system (podman's --rootfs).
    entrypoint, args: None means the image's; entrypoint ("",) clears it.
    env: "NAME=value", or "NAME" to unset the image's.
    user, working_dir, hostname: "" means the image's or the default.
    memory_bytes, cpu_nanos (1e9 is one processor), pids_max: 0 means no limit; pids_max None is the engine's default.
    memory_swap_bytes: memory plus swap as in docker; 0 twice the memory, -1 unlimited.
    cap_add, cap_drop: names with or without CAP_, or ALL.
    security_opt: docker's strings ("seccomp=unconfined", "no-new-privileges", "systempaths=unconfined").
    network: "none" or "host".
    restart_policy: "no" ("" too), "on-failure", "always" or "unless-stopped"; retries_max 0 is no limit.
    volumes_from: "container" or "container:ro". volume_driver: of the volumes that binds makes. storage_opt: "size".
    """

    strict = True
    image: str = ""
    rootfs: str = ""
    name: str = ""
    entrypoint: tuple[str, ...] | None = None
    args: tuple[str, ...] | None = None
    env: tuple[str, ...] = ()
    user: str = ""
    group_add: tuple[str, ...] = ()
    working_dir: str = ""
    hostname: str = ""
    labels: dict[str, str] = {}
    terminal: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    auto_remove: bool = False
    binds: tuple[BindRequest, ...] = ()
    tmpfs: tuple[TmpfsRequest, ...] = ()
    mounts: tuple[MountRequest, ...] = ()
    volumes_from: tuple[str, ...] = ()
    volume_driver: str = ""
    storage_opt: dict[str, str] = {}
    read_only: bool = False
    memory_bytes: int = 0
    memory_swap_bytes: int = 0
    cpu_nanos: int = 0
    pids_max: int | None = None
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    privileged: bool = False
    security_opt: tuple[str, ...] = ()
    network: str = ""
    stop_signal: str = ""
    stop_timeout_s: int | None = None
    restart_policy: str = ""
    restart_retries_max: int = 0


class ExecRequest(Record):
    """`orlop exec`. args is the command; "" as user or working_dir means the container's."""

    strict = True
    args: tuple[str, ...]
    env: tuple[str, ...] = ()
    user: str = ""
    working_dir: str = ""
    terminal: bool = False
    open_stdin: bool = False
    privileged: bool = False


class CommitRequest(Record):
    """`orlop commit`. name: "" makes an image without one. changes: Dockerfile instructions.

    pause: freeze the container while its layer is read.
    """

    strict = True
    container: str
    name: str = ""
    author: str = ""
    message: str = ""
    changes: tuple[str, ...] = ()
    pause: bool = True
