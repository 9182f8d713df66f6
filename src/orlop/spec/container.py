"""What a client asks for: the requests of the engine's verbs, as they cross the engine's socket.

Units are in the names. A request is strict: an unknown field is an error, not a silent nothing.
"""

from .record import Record


class BindRequest(Record):
    """`-v source:target[:options]`. source is absolute; options as docker's (ro, rw, rprivate, z ...)."""

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
