"""The flags that describe a container, and what they ask the engine for: a `ContainerRequest`."""

from __future__ import annotations

from ...spec import jsonio
from ...spec.container import BindRequest, ContainerRequest, TmpfsRequest
from ...spec.errors import Invalid
from .containers.environment import environment, read_lines, reason
from .containers.podman import PODMAN_FLAGS
from .containers.podman import binds as podman_binds
from .containers.podman import environment as podman_environment
from .containers.podman import fields as podman_fields
from .containers.podman import labels as pod_labels
from .containers.podman import tmpfs as podman_tmpfs
from .flags import BOOL, INT, LIST, STRING, Flag, Options
from .health import HEALTH_FLAGS
from .health import fields as health_fields
from .limits import ISOLATION_FLAGS, RESOURCE_FLAGS
from .limits import fields as limit_fields
from .networking import NETWORK_FLAGS
from .networking import fields as network_fields
from .values import (
    BYTES,
    CPUS,
    DETACH_KEYS_FLAG,
    ENV,
    LABEL,
    MEMORY_SWAP,
    MOUNT,
    RESTART,
    ROOTFS,
    SECRET,
    STREAM,
    TMPFS,
    json_words,
    parse_label,
)  # fmt: skip

# fmt: off
NESTED_DATA = "/var/lib/orlop"  # ORLOP_ROOT of root, which an engine inside is

CONTAINER_FLAGS = (
    Flag("attach", "a", STREAM, "Attach to STDIN, STDOUT or STDERR"),
    Flag("cap-add", "", LIST, "Add Linux capabilities"),
    Flag("cap-drop", "", LIST, "Drop Linux capabilities"),
    Flag("cidfile", "", STRING, "Write the container ID to the file", default=""),
    Flag("cpus", "", CPUS, "Number of CPUs", default=0),
    Flag("depends-on", "", LIST, "Start this container first: CONTAINER[:started|healthy|completed]"),
    Flag("dry-run", "", BOOL, "Print each step of the start with its kernel call, and do none", default=False),
    Flag("entrypoint", "", STRING, "Overwrite the default ENTRYPOINT of the image", default=""),
    Flag("disable-content-trust", "", BOOL, "Skip image verification", default=True, hidden=True),
    Flag("env", "e", ENV, "Set environment variables"),
    Flag("env-file", "", LIST, "Read in a file of environment variables"),
    Flag("env-file-format", "", STRING, 'Read them as "docker", "compose" or "shell" does', default=""),
    Flag("group-add", "", LIST, "Add additional groups to join"),
    Flag("hostname", "h", STRING, "Container host name", default=""),
    Flag("init", "", BOOL, "Run an init inside the container that forwards signals and reaps processes", default=False),
    Flag("interactive", "i", BOOL, "Keep STDIN open even if not attached", default=False),
    Flag("label", "l", LABEL, "Set meta data on a container"),
    Flag("log-driver", "", STRING, "Logging driver for the container", default=""),
    Flag("log-opt", "", LABEL, "Log driver options"),
    Flag("memory", "m", BYTES, "Memory limit", default=0),
    Flag("memory-swap", "", MEMORY_SWAP, "Limit of memory plus swap: '-1' for unlimited swap", default=0),
    Flag("mount", "", MOUNT, "Attach a filesystem mount to the container"),
    Flag("name", "", STRING, "Assign a name to the container", default=""),
    Flag("pids-limit", "", INT, "Tune container pids limit (set -1 for unlimited)"),
    Flag("platform", "", STRING, "Set platform if server is multi-platform capable", default=""),
    Flag("privileged", "", BOOL, "Give extended privileges to this container", default=False),
    Flag("pull", "", STRING, 'Pull image before creating ("always", "missing", "never")', default="missing"),
    Flag("quiet", "q", BOOL, "Suppress the pull output", default=False),
    Flag("read-only", "", BOOL, "Mount the container's root filesystem as read only", default=False),
    Flag("restart", "", RESTART, "Restart policy to apply when a container exits", default=("no", 0)),
    Flag("rm", "", BOOL, "Remove the container when it exits", default=False),
    Flag("rootfs", "", ROOTFS, "Use a directory of the host, in place, instead of an image", default=""),
    Flag("secret", "", SECRET, "Secret to expose to the container as a file (NAME[,target=,uid=,gid=,mode=])"),
    Flag("security-opt", "", LIST, "Security Options"),
    Flag("stop-signal", "", STRING, "Signal to stop the container", default=""),
    Flag("stop-timeout", "", INT, "Timeout (in seconds) to stop a container"),
    Flag("storage-opt", "", LIST, "Storage driver options for the container"),
    Flag("disk", "", STRING, "Size of what the container may write; the same as --storage-opt size=", default=""),
    Flag("tmpfs", "", TMPFS, "Mount a tmpfs directory"),
    Flag("tty", "t", BOOL, "Allocate a pseudo-TTY", default=False),
    Flag("user", "u", STRING, "Username or UID (format: <name|uid>[:<group|gid>])", default=""),
    Flag("volume", "v", LIST, "Bind mount a volume"),
    Flag("volume-driver", "", STRING, "Optional volume driver for the container", default=""),
    Flag("volumes-from", "", LIST, "Mount volumes from the specified container(s)"),
    Flag("workdir", "w", STRING, "Working directory inside the container", default=""),
    *RESOURCE_FLAGS,
    *ISOLATION_FLAGS,
    *HEALTH_FLAGS,
    *NETWORK_FLAGS,
    *PODMAN_FLAGS,
)
RUN_FLAGS = (
    *CONTAINER_FLAGS,
    Flag("detach", "d", BOOL, "Run container in background and print container ID", default=False),
    DETACH_KEYS_FLAG,
    Flag("sig-proxy", "", BOOL, "Proxy received signals to the process", default=True),
)
# fmt: on


def container_request(options: Options, arguments: list[str], attached: frozenset[str]) -> ContainerRequest:
    """Return what the flags and arguments ask for. attached: which of stdin, stdout and stderr a client will hold."""
    rootfs: str = options["rootfs"]
    command = arguments if rootfs else arguments[1:]
    pids: int | None = options["pids-limit"]
    return ContainerRequest(
        image="" if rootfs else _image(arguments[0]),
        rootfs=rootfs,
        name=options["name"],
        entrypoint=(json_words(options["entrypoint"]) or (options["entrypoint"],))
        if "entrypoint" in options.given
        else None,
        args=tuple(command) or None,
        env=(*podman_environment(options), *environment(options)),
        user=options["user"],
        group_add=options["group-add"],
        working_dir=options["workdir"],
        hostname=options["hostname"],
        labels=_labels(options),
        log_driver=options["log-driver"],
        log_options=dict(options["log-opt"]),
        terminal=options["tty"],
        open_stdin=options["interactive"],
        stdin_once=options["interactive"] and "stdin" in attached,
        auto_remove=options["rm"] or options["rmi"],
        remove_image=options["rmi"],
        binds=(*_binds(options), *podman_binds(options)),
        tmpfs=(
            *(TmpfsRequest(target=t, options=o) for t, o in dict(options["tmpfs"]).items()),
            *podman_tmpfs(options),
        ),
        mounts=options["mount"],
        secrets=options["secret"],
        volumes_from=options["volumes-from"],
        volume_driver=options["volume-driver"],
        storage_opt=_storage_opt(options),
        read_only=options["read-only"],
        memory_bytes=options["memory"],
        memory_swap_bytes=options["memory-swap"],
        cpu_nanos=options["cpus"],
        pids_max=max(pids, 0) if pids is not None else None,
        cap_add=options["cap-add"],
        cap_drop=options["cap-drop"],
        privileged=options["privileged"],
        security_opt=(
            *map(security_option, options["security-opt"]),
            *_confinement(options),
            *(("read-only=false",) if "read-only" in options.given and not options["read-only"] else ()),
        ),
        **network_fields(options),
        stop_signal=options["stop-signal"],
        stop_timeout_s=options["stop-timeout"],
        restart_policy=options["restart"][0],
        restart_retries_max=options["restart"][1],
        **podman_fields(options),
        **health_fields(options),
        init=options["init"],
        attach=tuple(sorted(attached)),
        platform=options["platform"],
        **limit_fields(options),
    )


def _labels(options: Options) -> dict[str, str]:
    """Return the labels of --label-file, then those of -l, which are stronger."""
    lines = (line for path in options["label-file"] for line in read_lines("label file", path))
    return dict([*(parse_label(line) for line in lines), *options["label"]]) | pod_labels(options)


def _image(reference: str) -> str:
    if not reference or reference.startswith("-"):
        raise Invalid(
            "use",
            f"image {reference!r}",
            "invalid reference format",
            hint="name an image: NAME, NAME:TAG or an ID",
            code="E0105",
        )
    return reference


def _binds(options: Options) -> tuple[BindRequest, ...]:
    words = [*options["volume"], *_data_of_nested(options)]
    if not words:
        return ()
    from .mounts import parse_bind

    # docker's client keeps these in a map: the same text twice asks for one mount.
    return tuple(parse_bind(text) for text in dict.fromkeys(words))


def _storage_opt(options: Options) -> dict[str, str]:
    size = {"size": options["disk"]} if options["disk"] else {}
    if not options["storage-opt"]:
        return size
    from .mounts import parse_storage_opts

    return {**parse_storage_opts(options["storage-opt"]), **size}


def _data_of_nested(options: Options) -> list[str]:
    """Return the volume that an engine inside keeps its layers in: an overlay's own can't lie on an overlay."""
    is_given = any(NESTED_DATA in text.split(":") for text in options["volume"])
    return [NESTED_DATA] if _nests(options) and not is_given else []


def _nests(options: Options) -> bool:
    return bool(options["nesting"] or options["nested"])


def _confinement(options: Options) -> tuple[str, ...]:
    return (*(("nesting",) if _nests(options) else ()), *(f"landlock={rules}" for rules in options["landlock"]))


def security_option(text: str) -> str:
    """Return one --security-opt in its right form, with a seccomp profile's text: the file is the caller's.

    Raises Invalid.
    """
    key, separator, value = text.partition("=")
    if not separator:
        key, separator, value = text.partition(":")
    if (separator and not value and key != "seccomp") or (
        not separator and text not in ("no-new-privileges", "nesting")
    ):
        raise Invalid(
            "use", f"--security-opt {text}", "it is not KEY=VALUE", hint="write seccomp=unconfined, for instance"
        )
    if key != "seccomp" or value in ("unconfined", "builtin"):
        return f"{key}={value}" if separator else key
    data = value.encode("utf-8", "surrogateescape") if value.startswith("{") else _read_profile(value)
    value = value[:100]
    try:
        profile = jsonio.parse_object(data, f"seccomp profile {value}")
    except Invalid as wrong:
        raise Invalid(wrong.verb, wrong.subject, wrong.cause, hint="correct it, or write seccomp=unconfined") from None
    return f"seccomp={jsonio.dump(profile).decode()}"


def _read_profile(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(jsonio.DOCUMENT_BYTES_MAX + 1)
    except OSError as wrong:
        hint = "name a JSON file, or write seccomp=unconfined"
        raise Invalid("read", f"seccomp profile {path}", reason(wrong), hint=hint) from None
