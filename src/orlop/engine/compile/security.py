"""Capabilities, security options and the paths that hide the kernel: docker's defaults, or safer ones. Pure.

Where this differs from docker: no_new_privs is set unless `--security-opt no-new-privileges=false` or `--privileged` (a
setuid program inside gives nobody anything then); a security option that can't be honoured is an error, never ignored.
"""

from ...linux import capability
from ...runtime import landlock
from ...spec import jsonio
from ...spec.container import ContainerRequest
from ...spec.errors import Invalid, Unsupported
from ...spec.record import Record
from ...spec.runtime import Capabilities
from .. import apparmor
from ..host import Host

CAPABILITIES_DEFAULT = tuple(
    f"CAP_{name}"
    for name in (
        "AUDIT_WRITE CHOWN DAC_OVERRIDE FOWNER FSETID KILL MKNOD NET_BIND_SERVICE NET_RAW SETFCAP SETGID SETPCAP "
        "SETUID SYS_CHROOT"
    ).split()
)
# Of a container: engine.strict, which goes over the request before anything reads it.
PROFILE, DEFAULT, STRICT = "profile", "default", "strict"
PROFILES = (DEFAULT, STRICT)
WRITABLE = "read-only=false"
_KNOWN = frozenset(f"CAP_{name}" for name in capability.NAMES)
ALL = "CAP_ALL"

# What of the host shows through /proc and /sys and is nobody's business inside. Each was an advisory once: keys, timers
# and scheduler are not namespaced; powercap GHSA-jq35-85cj-fj4p; interrupts and thermal_throttle GHSA-6fw5-f8r9-fgfm.
MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


class Security(Record):
    """What the security options say.

    seccomp: "default", "unconfined", or the JSON text of a profile. system_paths: hide the kernel's paths.
    writable_cgroups: the container may make cgroups below its own. nesting: it may run containers of its own.
    apparmor: the profile's name, "" for none. landlock: rules as runtime.landlock has them, None for none.
    """

    no_new_privileges: bool = True
    seccomp: str = "default"
    system_paths: bool = True
    writable_cgroups: bool = False
    nesting: bool = False
    apparmor: str = ""
    landlock: str | None = None


def options(request: ContainerRequest, host: Host, subject: str) -> Security:
    """Return what `--security-opt` and `--privileged` ask for. Raises Invalid for an option that docker does not know
    either, Unsupported for one that this machine can't honour."""
    privileged = request.privileged
    found = Security(
        no_new_privileges=not privileged,
        seccomp="unconfined" if privileged else "default",
        system_paths=not privileged,
        apparmor=apparmor.PROFILE if host.loads_profiles and not privileged else "",
    )
    for option in request.security_opt:
        found = _apply(found, option, host, subject)
    if found.landlock is not None and not found.no_new_privileges and not privileged:
        cause = "conflicting options: no-new-privileges=false and Landlock, which takes it"
        raise Invalid("create", subject, cause, hint="leave one of the two away", code="E0207")
    if found.nesting and found.apparmor == apparmor.PROFILE:
        return found.replace(apparmor=apparmor.NESTING_PROFILE)
    return found


def profile(request: ContainerRequest, host: Host, subject: str) -> str:
    """Return the name of a container's AppArmor profile, "" for none. Raises as `options` does."""
    return options(request, host, subject).apparmor if "apparmor" in host.security_modules else ""


def capabilities(request: ContainerRequest, host: Host, subject: str) -> Capabilities:
    """Return the capability sets. Nothing is inheritable or ambient (CVE-2022-24769).

    Raises Invalid with docker's text for an unknown name, Unsupported for one that this engine does not have itself.
    """
    add = _normalize(request.cap_add, "CapAdd", host, subject)
    drop = _normalize(request.cap_drop, "CapDrop", host, subject)
    if request.privileged:
        kept = set(host.capabilities)
    elif ALL in add:
        kept = set(host.capabilities) - drop
    elif ALL in drop:
        kept = add
    else:
        kept = (set(CAPABILITIES_DEFAULT) & set(host.capabilities)) - drop | add
    names = tuple(name for name in host.capabilities if name in kept)
    return Capabilities(bounding=names, effective=names, permitted=names)


def missing_capabilities(host: Host) -> tuple[str, ...]:
    """Return the default capabilities that this engine does not have and so can't give."""
    return tuple(name for name in CAPABILITIES_DEFAULT if name not in host.capabilities)


def _normalize(asked: tuple[str, ...], field: str, host: Host, subject: str) -> set[str]:
    names = set()
    for text in asked:
        upper = text.strip().upper()
        name = upper if upper.startswith("CAP_") else f"CAP_{upper}"
        if name != ALL and name not in _KNOWN and name not in host.capabilities:
            hint = "capabilities(7) lists the names; they are written with or without CAP_"
            raise Invalid(
                "create", subject, f'invalid {field}: unknown capability: "{text[:40]}"', hint=hint, code="E0206"
            )
        if field == "CapAdd" and name != ALL and name not in host.capabilities:
            cause = "capability not supported by your kernel or not available in the current environment"
            hint = "leave it out, or run the engine with that capability"
            raise Unsupported("create", subject, f'invalid CapAdd: {cause}: "{name}"', hint=hint)
        names.add(name)
    return names


def _apply(found: Security, option: str, host: Host, subject: str) -> Security:
    # docker's client once wrote key:value, and its daemon still takes it.
    key, separator, value = option.partition("=" if "=" in option else ":")
    if key == "no-new-privileges":
        return found.replace(no_new_privileges=_boolean(value, option, subject) if separator else True)
    if key == "nesting" and not separator:
        # A procfs may be mounted in there only while the one that is there hides nothing (fs/namespace.c,
        # mount_too_revealing); what of it is the machine's belongs to ids that nobody in there has.
        return found.replace(nesting=True, system_paths=False)
    if key == "systempaths" and value == "unconfined":
        return found.replace(system_paths=False)
    if (key == PROFILE and value in PROFILES) or option == WRITABLE:
        return found  # engine.strict has seen to it
    if key == "writable-cgroups":
        return found.replace(writable_cgroups=_boolean(value, option, subject) if separator else True)
    if key == "seccomp" and value:
        return found.replace(seccomp=_seccomp(value, subject))
    if key == "apparmor" and value:
        return found.replace(apparmor=_apparmor(value, host, subject))
    if key == "landlock":
        rules = value if found.landlock is None else f"{found.landlock},{value}"
        return found.replace(landlock=_landlock(rules, host))
    if key == "label" and value:
        _refuse_module("selinux", "unconfined" if value == "disable" else value, host, subject)
        return found
    hint = (
        "known are seccomp=, no-new-privileges, systempaths=unconfined, writable-cgroups=, apparmor=, landlock=, "
        "label=, profile="
    )
    raise Invalid("create", subject, f'invalid --security-opt: "{option[:100]}"', hint=hint, code="E0207")


def _boolean(value: str, option: str, subject: str) -> bool:
    if value.lower() in ("true", "1", "t"):
        return True
    if value.lower() in ("false", "0", "f"):
        return False
    raise Invalid(
        "create", subject, f'invalid --security-opt: "{option[:100]}"', hint="write =true or =false", code="E0207"
    )


def _seccomp(value: str, subject: str) -> str:
    if value in ("unconfined", "default", "builtin"):
        return "default" if value == "builtin" else value
    try:
        jsonio.parse_object(value, "the profile")
    except Invalid as wrong:
        cause = f"Decoding seccomp profile failed: {wrong.cause}"
        raise Invalid("create", subject, cause, hint="give a profile in docker's JSON format", code="E0208") from None
    return value


def _landlock(rules: str, host: Host) -> str:
    landlock.check(landlock.parse(rules), host.runtime.landlock)
    return rules


def _apparmor(value: str, host: Host, subject: str) -> str:
    """Return the profile that an option names, "" for none."""
    if value == apparmor.UNCONFINED or "apparmor" not in host.security_modules:
        _refuse_module("apparmor", value, host, subject)
        return ""
    # An ordinary user can't see which profiles there are; who is unconfined may take one on, and a name that the kernel
    # does not have is an error of the start (security/apparmor/lsm.c, apparmor_setprocattr).
    return value


def _refuse_module(module: str, value: str, host: Host, subject: str) -> None:
    """Let pass what asks for no confinement by a module that is not active; everything else is an error (I3)."""
    present = module in host.security_modules
    if value == "unconfined" and (module == "apparmor" or not present):
        return
    cause = (
        f"{module} is active on this machine, and this version of orlop can't set its labels"
        if present
        else f"{module} is not active on this machine, so {value[:60]!r} can't be applied"
    )
    raise Unsupported("create", subject, cause, hint="leave the option out; seccomp and capabilities still confine")
