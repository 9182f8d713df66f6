"""spec and features: documents that the runtime writes about itself."""

from __future__ import annotations

import os
import sys

from ... import __version__
from ...linux import capability, scheduling
from ...linux.seccomp import FLAGS, supported_actions, supported_flags
from ...spec.errors import Conflict
from ...spec.runtime import OCI_VERSION
from .. import host
from ..criu.options import CONFIG_ANNOTATION
from ..operations import mount_options
from ..seccomp import ARCHITECTURES
from .call import Call

_CAPABILITIES = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]
_MOUNTS = [
    ("/proc", "proc", "proc", []),
    ("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
    ("/dev/pts", "devpts", "devpts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
    ("/dev/shm", "tmpfs", "shm", ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
    ("/dev/mqueue", "mqueue", "mqueue", ["nosuid", "noexec", "nodev"]),
    ("/sys", "sysfs", "sysfs", ["nosuid", "noexec", "nodev", "ro"]),
    ("/sys/fs/cgroup", "cgroup", "cgroup", ["nosuid", "noexec", "nodev", "relatime", "ro"]),
]
_MASKED = [
    "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
    "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi",
]  # fmt: skip
_READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
_ACTION_NAMES = {
    "SECCOMP_RET_KILL_PROCESS": "SCMP_ACT_KILL_PROCESS", "SECCOMP_RET_KILL_THREAD": "SCMP_ACT_KILL_THREAD",
    "SECCOMP_RET_TRAP": "SCMP_ACT_TRAP", "SECCOMP_RET_ERRNO": "SCMP_ACT_ERRNO",
    "SECCOMP_RET_USER_NOTIF": "SCMP_ACT_NOTIFY", "SECCOMP_RET_TRACE": "SCMP_ACT_TRACE",
    "SECCOMP_RET_LOG": "SCMP_ACT_LOG", "SECCOMP_RET_ALLOW": "SCMP_ACT_ALLOW",
}  # fmt: skip
_NOT_FOR_PROFILES = {"SECCOMP_FILTER_FLAG_NEW_LISTENER"}  # a rule with SCMP_ACT_NOTIFY asks for it
_OCI_VERSION_MAX = "1.3.0"  # what is written says less: older readers refuse what is newer than they are
HOOKS = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"]


def spec(call: Call) -> int:
    """Write a config.json to begin with into the bundle."""
    path = os.path.join(call.bundle(), "config.json")
    if os.path.exists(path):
        raise Conflict("write", path, f"File {path} exists. Remove it first", hint=f"remove or rename {path}")
    with open(path, "x", encoding="utf-8") as file:
        file.write(_indented(_template(rootless=call.flags.on("rootless"))))
    return 0


def features(call: Call) -> int:
    """Print what this runtime can do on this machine (features.md, features-linux.md of the runtime specification)."""
    facts = host.facts()
    layout = facts.layout
    known = [f"CAP_{name}" for name in capability.NAMES[: facts.cap_last + 1]]
    document: dict[str, object] = {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": _OCI_VERSION_MAX,
        "hooks": HOOKS,
        "mountOptions": sorted(mount_options.NAMES),
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
            "capabilities": known,
            "cgroup": {
                "v1": layout.mode in ("v1", "hybrid"), "v2": layout.mode in ("unified", "hybrid"),
                "systemd": True, "systemdUser": True, "rdma": True,
            },
            "seccomp": {
                "enabled": True,
                "actions": sorted({"SCMP_ACT_KILL", *(_ACTION_NAMES[name] for name in supported_actions())}),
                "operators": [f"SCMP_CMP_{name}" for name in ("EQ", "GE", "GT", "LE", "LT", "MASKED_EQ", "NE")],
                "archs": sorted(ARCHITECTURES),
                "knownFlags": sorted(FLAGS.keys() - _NOT_FOR_PROFILES),
                "supportedFlags": sorted(set(supported_flags()) - _NOT_FOR_PROFILES),
            },
            "apparmor": {"enabled": "apparmor" in facts.lsms},
            "selinux": {"enabled": "selinux" in facts.lsms},
            "intelRdt": {"enabled": False, "schemata": False, "monitoring": False},
            "memoryPolicy": {"modes": sorted(scheduling.MEMORY_MODES), "flags": sorted(scheduling.MEMORY_FLAGS)},
            "mountExtensions": {"idmap": {"enabled": True}},
            "netDevices": {"enabled": True},
        },
        "annotations": {"org.orlop.version": __version__, "org.opencontainers.runc.checkpoint.enabled": "true"},
        "potentiallyUnsafeConfigAnnotations": [CONFIG_ANNOTATION],
    }  # fmt: skip
    sys.stdout.write(_indented(document))
    return 0


def _template(*, rootless: bool) -> dict[str, object]:
    namespaces = ["pid", "network", "ipc", "uts", "mount", "cgroup"]
    linux: dict[str, object] = {
        "resources": {"devices": [{"allow": False, "access": "rwm"}]},
        "namespaces": [{"type": kind} for kind in namespaces],
        "maskedPaths": _MASKED,
        "readonlyPaths": _READ_ONLY,
    }
    mounts: list[dict[str, object]] = [
        {"destination": where, "type": kind, "source": source, **({"options": options} if options else {})}
        for where, kind, source, options in _MOUNTS
    ]
    if rootless:
        linux.pop("resources")
        linux["namespaces"] = [{"type": kind} for kind in (*namespaces, "user") if kind != "network"]
        linux["uidMappings"] = [{"containerID": 0, "hostID": os.geteuid(), "size": 1}]
        linux["gidMappings"] = [{"containerID": 0, "hostID": os.getegid(), "size": 1}]
        mounts = _rootless_mounts(mounts)
    return {
        "ociVersion": OCI_VERSION,
        "process": {
            "terminal": True,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), _CAPABILITIES),
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "orlop",
        "mounts": mounts,
        "linux": linux,
    }


def _rootless_mounts(mounts: list[dict[str, object]]) -> list[dict[str, object]]:
    """sysfs can't be mounted without an own network namespace: the host's is bound instead; devpts has no group 5."""
    out = []
    for mount in mounts:
        if mount["destination"] == "/sys":
            mount = {**mount, "type": "none", "source": "/sys", "options": ["rbind", "nosuid", "noexec", "nodev", "ro"]}
        elif mount["destination"] == "/dev/pts":
            options = mount["options"]
            assert isinstance(options, list)
            mount = {**mount, "options": [option for option in options if option != "gid=5"]}
        if mount["destination"] != "/sys/fs/cgroup":
            out.append(mount)
    return out


def _indented(value: dict[str, object]) -> str:
    import json

    return json.dumps(value, indent="\t") + "\n"
