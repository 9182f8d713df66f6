"""From facts to findings: one function for each feature. Pure.

    full         as for root on a machine that has everything
    emulated     it works, by other means, with a difference that is said
    clamped      a part of it works
    impossible   it does not, and whoever asks for it by name gets an error

`fix` is what root may do about it: commands, each a list of words.
"""

from ...spec.record import Record
from ..rootless import subids
from ..userns import modes
from .facts import Facts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

FULL, EMULATED, CLAMPED, IMPOSSIBLE = "full", "emulated", "clamped", "impossible"
IDS = 65536
FIRST_ID = 100000
FREE_BYTES_MIN = 64 * 1024 * 1024  # less holds no image
KERNEL_OVERLAY, KERNEL_IDMAP, KERNEL_EXIT = (5, 11), (5, 12), (6, 15)
LIMITS = ("cpu", "memory", "pids", "io", "cpuset")
_SECCOMP = ("errno", "kill_process", "allow", "user_notif")
_DELEGATE = "/etc/systemd/system/user@.service.d/delegate.conf"
_RELAYED = "a process carries them, and clients on this machine's loopback show the bridge's address"


class Finding(Record):
    """One row. needed: without it nothing runs. next: the next step, "" where there is none to take."""

    feature: str
    state: str
    why: str
    next: str = ""
    needed: bool = False
    fix: tuple[tuple[str, ...], ...] = ()


def findings(facts: Facts) -> list[Finding]:
    """Return a finding for each feature."""
    return [check(facts) for check in _CHECKS]


def _setting(name: str, value: str) -> tuple[tuple[str, ...], ...]:
    """Return what gives the kernel a setting, now and after each reboot (sysctl.d(5))."""
    script = f"mkdir -p /etc/sysctl.d && echo '{name} = {value}' >/etc/sysctl.d/60-orlop-{name.rpartition('.')[2]}.conf"
    return ("sh", "-c", script), ("sysctl", "-q", "-w", f"{name}={value}")


def _line(text: str, directory: str) -> tuple[str, ...]:
    """Return what keeps one line over reboots, in a file of ours in a directory of /etc."""
    return "sh", "-c", f"mkdir -p /etc/{directory} && echo '{text}' >/etc/{directory}/orlop-{text.split()[0]}.conf"


def _run_directory(facts: Facts) -> Finding:
    name = "run directory"
    if facts.run_trouble:
        step = "log in through pam_systemd or loginctl, or set XDG_RUNTIME_DIR to a directory of yours, mode 0700"
        return Finding(feature=name, state=IMPOSSIBLE, why=facts.run_trouble, next=step, needed=True)
    if facts.run_directory.startswith("/tmp/"):
        why = f"sockets lie in {facts.run_directory}, for no session has made a place for you: it may be swept one day"
        step = "log in through pam_systemd or loginctl, or set ORLOP_RUN to a directory of yours"
        return Finding(feature=name, state=EMULATED, why=why, next=step)
    return Finding(feature=name, state=FULL, why=f"sockets lie in {facts.run_directory}")


def _data_directory(facts: Facts) -> Finding:
    name, path = "data directory", facts.data_directory
    if facts.data_trouble:
        step = "make it writable for you, or set ORLOP_ROOT to a directory of yours"
        return Finding(feature=name, state=IMPOSSIBLE, why=facts.data_trouble, next=step, needed=True)
    if facts.data_free_bytes < FREE_BYTES_MIN:
        why = f"{path} has {facts.data_free_bytes >> 20} MiB left"
        step = "orlop system df; orlop system prune; or set ORLOP_ROOT to a directory on another disk"
        return Finding(feature=name, state=CLAMPED, why=why, next=step)
    return Finding(feature=name, state=FULL, why=f"images and containers lie in {path}")


def _user_namespaces(facts: Facts) -> Finding:
    name, needed = "user namespaces", not facts.is_root
    for sysctl, refused, value in (
        ("user/max_user_namespaces", "0", "15000"),
        ("kernel/unprivileged_userns_clone", "0", "1"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "0"),
    ):
        if facts.sysctls.get(sysctl) == refused and (needed or sysctl.startswith("user")):
            dotted = sysctl.replace("/", ".")
            step, why = f"as root: sysctl {dotted}={value}", f"{dotted} is {refused}"
            fix = _setting(dotted, value)
            return Finding(feature=name, state=IMPOSSIBLE, why=why, next=step, needed=needed, fix=fix)
    return Finding(feature=name, state=FULL, why="the kernel lets you make them")


def _subordinate_ids(facts: Facts) -> Finding:
    name = "ids"
    if facts.is_root:
        return Finding(feature=name, state=FULL, why="root has them all")
    missing = next((each for each in ("newuidmap", "newgidmap") if each not in facts.programs), "")
    wrong = facts.unprivileged_mappers[:1]
    if not facts.subuids or not facts.subgids:
        file = "/etc/subuid" if not facts.subuids else "/etc/subgid"
        why = f"{facts.user} has no line in {file}: one id, other owners are kept aside"
        given = f"{FIRST_ID}-{FIRST_ID + IDS - 1}"
        fix = (("usermod", "--add-subuids", given, "--add-subgids", given, facts.user),)
        step = f"as root: {' '.join(fix[0])}"
        return Finding(feature=name, state=EMULATED, why=why, next=step, fix=fix)
    if missing:
        why = f"{missing} is not installed: one id, other owners are kept aside"
        return Finding(feature=name, state=EMULATED, why=why, next="as root: apt-get install uidmap")
    if wrong:
        path = facts.programs[wrong[0]]
        step = f"as root: chmod u+s {path}"
        chmod = (("chmod", "u+s", path),)
        return Finding(feature=name, state=IMPOSSIBLE, why=f"{path} is not setuid", next=step, needed=True, fix=chmod)
    count = min(facts.subuids, facts.subgids) + 1
    if count < IDS:
        file = "/etc/subuid" if facts.subuids < facts.subgids else "/etc/subgid"
        why = f"{count} ids are yours to use, for {file} gives so few: files of owners from {count} on can't be made"
        # Which ids are nobody's is for the administrator to know: there are some already.
        step = f"as root: usermod --add-subuids FIRST-LAST --add-subgids FIRST-LAST {facts.user}, of {IDS} ids"
        return Finding(feature=name, state=CLAMPED, why=why, next=step)
    return Finding(feature=name, state=FULL, why=f"{count} ids are yours to use")


def _file_systems(facts: Facts) -> Finding:
    name = "root file systems"
    if "overlay" not in facts.filesystems:
        step, fix = "as root: modprobe overlay", (("modprobe", "overlay"), _line("overlay", "modules-load.d"))
        return Finding(
            feature=name, state=IMPOSSIBLE, why="this kernel has no overlayfs", next=step, needed=True, fix=fix
        )
    if not facts.is_root and facts.kernel < KERNEL_OVERLAY:
        why = "overlayfs in user namespaces came with Linux 5.11"
        return Finding(feature=name, state=IMPOSSIBLE, why=why, next="boot a newer kernel", needed=True)
    return Finding(feature=name, state=FULL, why="overlayfs")


def _limits(facts: Facts) -> Finding:
    name, layout = "limits", facts.usable
    if not layout.hierarchies():
        if facts.layout.mode == "none":
            return Finding(feature=name, state=IMPOSSIBLE, why="no cgroup hierarchy is mounted", next="mount cgroup2")
        if facts.layout.mode != "unified":
            why = f"cgroups are {facts.layout.mode} here, of which nothing can be delegated to a user"
            step = "boot with systemd.unified_cgroup_hierarchy=1, or run the engine as root"
            return Finding(feature=name, state=IMPOSSIBLE, why=why, next=step)
        why = "no cgroup is delegated to you"
        step = "start the engine below systemd: systemd-run --user -p Delegate=yes orlop serve"
        return Finding(feature=name, state=IMPOSSIBLE, why=why, next=step)
    missing = [each for each in LIMITS if not layout.version(each) and not (each == "io" and layout.version("blkio"))]
    if missing:
        words = " ".join(("cpu", "cpuset", "io", "memory", "pids"))
        script = f"mkdir -p {_DELEGATE.rpartition('/')[0]} && printf '[Service]\\nDelegate={words}\\n' >{_DELEGATE}"
        fix = (("sh", "-c", script), ("systemctl", "daemon-reload"))
        why = f"these controllers are not there: {', '.join(missing)}"
        step = f"as root: {script}" if not facts.is_root else "enable them in cgroup.subtree_control, or in the kernel"
        return Finding(feature=name, state=CLAMPED, why=why, next=step, fix=() if facts.is_root else fix)
    where = f", delegated to {facts.delegated_to}" if facts.delegated_to and not facts.is_root else ""
    return Finding(feature=name, state=FULL, why=f"cgroup {'v2' if layout.mode == 'unified' else layout.mode}{where}")


def _own_ids(facts: Facts) -> Finding:
    name = "containers' own ids"
    if not facts.is_root:
        if facts.subuids and facts.subgids:
            return Finding(feature=name, state=EMULATED, why="--userns keep-id and nomap, by a copy of each layer")
        why = "--userns keep-id and nomap take subordinate ids"
        return Finding(feature=name, state=IMPOSSIBLE, why=why, next="see the ids above")
    if facts.pool_ids < IDS:
        files = (subids.SUBUID, subids.SUBGID)
        fix = tuple(("sh", "-c", f"echo {modes.POOL_USERS[0]}:{modes.POOL} >>{file}") for file in files)
        why = f"{files[0]} gives none to {' or '.join(modes.POOL_USERS)}: --userns auto has none to give"
        step = f"as root: {modes.give_pool(files)}"
        return Finding(feature=name, state=CLAMPED, why=why, next=step, fix=fix)
    why = f"--userns auto: {facts.pool_ids} ids, for {facts.pool_ids // IDS} containers with {IDS} each"
    return Finding(feature=name, state=FULL, why=why)


def _networks(facts: Facts) -> Finding:
    name = "networks"
    if facts.is_root:
        return Finding(feature=name, state=FULL, why="bridges and nftables of the machine")
    program = next((each for each in ("pasta", "slirp4netns") if each in facts.programs), "")
    if not program:
        why = "neither pasta nor slirp4netns is installed: containers reach each other, and nothing outside"
        return Finding(feature=name, state=CLAMPED, why=why, next="as root: apt-get install passt")
    if not facts.has_tun:
        why = "/dev/net/tun can't be opened by you: containers reach each other, and nothing outside"
        step = "as root: chmod 0666 /dev/net/tun"
        fix = (("chmod", "0666", "/dev/net/tun"), _line("z /dev/net/tun 0666", "tmpfiles.d"))
        return Finding(feature=name, state=CLAMPED, why=why, next=step, fix=fix)
    return Finding(feature=name, state=FULL, why=f"bridges of your own, and {program} to the outside")


def _ports(facts: Facts) -> Finding:
    name = "published ports"
    if facts.is_root:
        return Finding(feature=name, state=FULL, why="all of them")
    lowest = facts.sysctls.get("net/ipv4/ip_unprivileged_port_start", "1024")
    if lowest != "0":
        sysctl = "net.ipv4.ip_unprivileged_port_start=80"
        why = f"from {lowest} on; {_RELAYED}"
        # Nothing to put right: who may listen there is for the administrator to choose.
        return Finding(feature=name, state=CLAMPED, why=why, next=f"as root: sysctl {sysctl}")
    return Finding(feature=name, state=EMULATED, why=f"all; {_RELAYED}")


def _ping(facts: Facts) -> Finding:
    name = "ping"
    if facts.is_root:
        return Finding(feature=name, state=FULL, why="raw sockets and ping sockets")
    told = facts.sysctls.get("net/ipv4/ping_group_range", "1 0")
    lowest, highest = (int(word) for word in told.split())
    if any(lowest <= group <= highest for group in facts.group_ids):
        return Finding(feature=name, state=FULL, why="among containers, and to the outside")
    value = "net.ipv4.ping_group_range=0 2147483647"
    why = f"among containers; to the outside it is not for you: net.ipv4.ping_group_range is {' '.join(told.split())}"
    return Finding(
        feature=name, state=CLAMPED, why=why, next=f"as root: sysctl '{value}'", fix=_setting(*value.split("=", 1))
    )


def _devices(facts: Facts) -> Finding:
    name = "devices"
    if facts.is_root:
        return Finding(feature=name, state=FULL, why="nodes are made")
    return Finding(feature=name, state=EMULATED, why="the machine's own are shown, with the rights that you have")


def _scores(facts: Facts) -> Finding:
    name = "OOM scores and rlimits"
    if facts.raises_limits:
        return Finding(feature=name, state=FULL, why="up and down")
    why = "a score goes up only, a limit down only: more needs CAP_SYS_RESOURCE"
    return Finding(feature=name, state=CLAMPED, why=why)


def _seccomp(facts: Facts) -> Finding:
    name = "seccomp"
    missing = [action for action in _SECCOMP if action not in facts.seccomp_actions]
    if missing:
        why = f"this kernel's seccomp lacks {', '.join(missing)}"
        return Finding(feature=name, state=IMPOSSIBLE, why=why, next="boot a kernel with CONFIG_SECCOMP_FILTER")
    return Finding(feature=name, state=FULL, why="filters and notification")


def _labels(facts: Facts) -> Finding:
    name = "AppArmor and SELinux"
    if not facts.lsms:
        why = "neither is active: seccomp, capabilities and namespaces confine"
        return Finding(feature=name, state=IMPOSSIBLE, why=why)
    if "apparmor" not in facts.lsms:
        return Finding(feature=name, state=IMPOSSIBLE, why="SELinux is active, and this version sets no labels")
    if not facts.is_root:
        why = "AppArmor is active, and lets root alone load profiles: seccomp, capabilities and namespaces confine"
        return Finding(feature=name, state=IMPOSSIBLE, why=why)
    if "apparmor_parser" not in facts.programs:
        why = "AppArmor is active, and apparmor_parser is not installed: containers have no profile"
        fix = (("apt-get", "install", "-y", "apparmor"),)
        return Finding(feature=name, state=CLAMPED, why=why, next="as root: apt-get install apparmor", fix=fix)
    return Finding(feature=name, state=FULL, why="AppArmor: containers have the profile orlop-default")


def _idmap(facts: Facts) -> Finding:
    name = "idmapped mounts"
    if facts.kernel < KERNEL_IDMAP:
        why = "they came with Linux 5.12"
        return Finding(feature=name, state=IMPOSSIBLE, why=why, next="boot a newer kernel")
    if not facts.is_root:
        why = "the kernel maps mounts of the machine's file systems for root alone"
        return Finding(feature=name, state=IMPOSSIBLE, why=why)
    return Finding(feature=name, state=FULL, why="where the file system has them")


def _exits(facts: Facts) -> Finding:
    name = "exit codes of killed monitors"
    if facts.kernel < KERNEL_EXIT:
        return Finding(feature=name, state=CLAMPED, why="255: the kernel keeps them for others since 6.15")
    return Finding(feature=name, state=FULL, why="the kernel keeps them (6.15)")


def _linger(facts: Facts) -> Finding:
    name = "running after logout"
    if facts.is_root or not facts.has_systemd or facts.lingers:
        return Finding(feature=name, state=FULL, why="nobody ends what runs")
    step = f"as root: loginctl enable-linger {facts.user}"
    fix = (("loginctl", "enable-linger", facts.user),)
    return Finding(feature=name, state=CLAMPED, why="systemd ends what runs with your last session", next=step, fix=fix)


def _checkpoints(facts: Facts) -> Finding:
    name = "checkpoints"
    if "criu" not in facts.programs:
        return Finding(feature=name, state=IMPOSSIBLE, why="criu is not installed", next="install criu")
    if not facts.is_root:
        return Finding(feature=name, state=IMPOSSIBLE, why="criu needs root")
    return Finding(feature=name, state=FULL, why=facts.programs["criu"])


_CHECKS: "tuple[Callable[[Facts], Finding], ...]" = (
    _run_directory,
    _data_directory,
    _user_namespaces,
    _subordinate_ids,
    _own_ids,
    _file_systems,
    _limits,
    _networks,
    _ports,
    _ping,
    _devices,
    _scores,
    _seccomp,
    _labels,
    _idmap,
    _exits,
    _linger,
    _checkpoints,
)
