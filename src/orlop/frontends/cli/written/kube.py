"""A container as a Kubernetes Pod, as `podman kube play` and kubectl take it.

Source of the fields: the Kubernetes API, v1 Pod. Named volumes become claims of their name, which podman takes for its
volumes.
"""

from __future__ import annotations

import re

from . import fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from ....spec.container import ContainerRequest
    from ....spec.health import Healthcheck
    from ....spec.network import PortRequest

NAME_CHARACTERS_MAX = 63
_SAID = frozenset(
    "image entrypoint args env user group_add working_dir hostname labels annotations terminal open_stdin binds mounts"
    " tmpfs read_only memory_bytes memory_reservation_bytes cpu_nanos cap_add cap_drop privileged security_opt network"
    " endpoints ports dns dns_search dns_options extra_hosts stop_timeout_s timeout_s restart_policy health ipc"
    " pid sysctls".split()
)
_RESTART = {"always": "Always", "unless-stopped": "Always", "on-failure": "OnFailure"}
_PROPAGATION = {"rslave": "HostToContainer", "rshared": "Bidirectional"}
_LABEL = re.compile(r"([A-Za-z0-9]([\w.-]{0,61}[A-Za-z0-9])?)?", re.ASCII)
_OWN_LABELS = "com.docker.compose."


def document(request: ContainerRequest, name: str) -> tuple[dict[str, Any], list[str]]:
    """Return the Pod, and the flags that it has no words for."""
    missing = fields.left_out(request, _SAID)
    called = _dns_label(name or request.image)
    volumes: list[dict[str, Any]] = []
    own: dict[str, Any] = {"name": called, "image": request.image}
    own |= _command(request, missing)
    if request.ports:
        own["ports"] = [one for port in request.ports for one in _ports(port, missing)]
    if resources := _resources(request):
        own["resources"] = resources
    if security := _security(request, missing):
        own["securityContext"] = security
    if mounts := [*_mounts(request, volumes, missing)]:
        own["volumeMounts"] = mounts
    if request.health is not None and (probe := _probe(request.health)):
        own["livenessProbe"] = probe
    spec = {**_pod(request, missing), "containers": [own]}
    spec |= {"volumes": volumes} if volumes else {}
    labels, annotations = {"app": called}, dict(request.annotations)
    for key, value in request.labels.items():
        if not key.startswith(_OWN_LABELS):
            (labels if _LABEL.fullmatch(value) else annotations)[key] = value
    metadata: dict[str, Any] = {"name": called, "labels": labels}
    metadata |= {"annotations": annotations} if annotations else {}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}, list(dict.fromkeys(missing))


def _dns_label(name: str) -> str:
    """Return a name as Kubernetes has them (RFC 1123): lower case, digits, hyphens."""
    last = name.rpartition("/")[2].partition(":")[0].partition("@")[0].lower()
    return re.sub(r"[^a-z0-9]+", "-", last).strip("-")[:NAME_CHARACTERS_MAX].rstrip("-") or "container"


def _command(request: ContainerRequest, missing: list[str]) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    if request.entrypoint is not None:
        shown["command"] = [_expanded(word) for word in request.entrypoint if word]
    if request.args is not None:
        shown["args"] = [_expanded(word) for word in request.args]
    env = [one.partition("=") for one in request.env]
    if any(not equals for _, equals, _ in env):
        missing.append("--env NAME, which takes a variable away")
    if any(equals for _, equals, _ in env):
        shown["env"] = [{"name": key, "value": _expanded(value)} for key, equals, value in env if equals]
    simple = {"workingDir": request.working_dir, "tty": request.terminal, "stdin": request.open_stdin}
    return shown | {key: value for key, value in simple.items() if value}


def _expanded(text: str) -> str:
    """Return a text with $(NAME) escaped: it would be a variable."""
    return text.replace("$(", "$$(")


def _ports(port: PortRequest, missing: list[str]) -> Iterator[dict[str, Any]]:
    if port.mode or port.sources:
        missing.append("--publish ...,mode=,from=")
    has_one_each = port.host_last - port.host_first == port.last - port.first
    if port.host_first and not has_one_each:
        missing.append("--publish with a range of host ports for one port")
    for number in range(port.first, port.last + 1):
        shown: dict[str, Any] = {"containerPort": number, "protocol": port.protocol.upper()}
        if port.host_first and has_one_each:
            shown["hostPort"] = port.host_first + number - port.first
        yield shown | ({"hostIP": port.host_ip} if port.host_ip else {})


def _resources(request: ContainerRequest) -> dict[str, Any]:
    limits, wished = {}, {}
    if request.memory_bytes:
        limits["memory"] = str(request.memory_bytes)
    if request.cpu_nanos:
        limits["cpu"] = f"{-(-request.cpu_nanos // 10**6)}m"
    if request.memory_reservation_bytes:
        wished["memory"] = str(request.memory_reservation_bytes)
    return ({"limits": limits} if limits else {}) | ({"requests": wished} if wished else {})


def _security(request: ContainerRequest, missing: list[str]) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    if request.privileged:
        shown["privileged"] = True
    if request.read_only:
        shown["readOnlyRootFilesystem"] = True
    caps = {"add": request.cap_add, "drop": request.cap_drop}
    if any(caps.values()):
        shown["capabilities"] = {
            key: [one.upper().removeprefix("CAP_") for one in names] for key, names in caps.items() if names
        }
    user, colon, group = request.user.partition(":")
    if user.isdecimal() and (group.isdecimal() or not colon):
        shown["runAsUser"] = int(user)
        shown |= {"runAsGroup": int(group)} if colon else {}
    elif request.user:
        missing.append("--user with a name")
    for option in request.security_opt:
        if option in ("no-new-privileges", "no-new-privileges=true", "no-new-privileges:true"):
            shown["allowPrivilegeEscalation"] = False
        elif option == "seccomp=unconfined":
            shown["seccompProfile"] = {"type": "Unconfined"}
        else:
            missing.append(f"--security-opt {option.partition('=')[0]}")
    return shown


def _probe(health: Healthcheck) -> dict[str, Any]:
    kind, *rest = health.test or ("",)
    if kind == "CMD" and rest:
        shown: dict[str, Any] = {"exec": {"command": [_expanded(word) for word in rest]}}
    elif kind == "CMD-SHELL" and rest:
        shown = {"exec": {"command": ["/bin/sh", "-c", _expanded(rest[0])]}}
    elif kind == "HTTP" and rest:
        place, slash, path = rest[0].partition("/")
        shown = {"httpGet": {"port": int(place.rpartition(":")[2] or 80), "path": slash + path or "/"}}
    elif kind == "TCP" and rest:
        shown = {"tcpSocket": {"port": int(rest[0].rpartition(":")[2])}}
    else:
        return {}
    for key, nanos in (("periodSeconds", health.interval), ("timeoutSeconds", health.timeout)):
        shown |= {key: max(1, nanos // fields.NANO)} if nanos else {}
    shown |= {"initialDelaySeconds": health.start_period // fields.NANO} if health.start_period else {}
    return shown | ({"failureThreshold": health.retries} if health.retries else {})


def _pod(request: ContainerRequest, missing: list[str]) -> dict[str, Any]:
    shown: dict[str, Any] = {"restartPolicy": _RESTART.get(request.restart_policy, "Never")}
    if request.hostname:
        shown["hostname"] = request.hostname
    if request.network == "host":
        shown["hostNetwork"] = True
    elif request.network not in ("", "bridge", "default") or any(one.ipv4 or one.aliases for one in request.endpoints):
        missing.append("--network")
    for kind, key in (("pid", "hostPID"), ("ipc", "hostIPC")):
        value = getattr(request, kind)
        if value == "host":
            shown[key] = True
        elif value not in ("", "private"):
            missing.append(f"--{kind}")
    if request.timeout_s:
        shown["activeDeadlineSeconds"] = request.timeout_s
    if request.stop_timeout_s is not None:
        shown["terminationGracePeriodSeconds"] = max(request.stop_timeout_s, 0)
    context: dict[str, Any] = {}
    if request.sysctls:
        context["sysctls"] = [{"name": key, "value": value} for key, value in request.sysctls.items()]
    numbers = [int(one) for one in request.group_add if one.isdecimal()]
    if numbers:
        context["supplementalGroups"] = numbers
    if len(numbers) < len(request.group_add):
        missing.append("--group-add with a name")
    return shown | ({"securityContext": context} if context else {}) | _names(request)


def _names(request: ContainerRequest) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    options = [one.partition(":") for one in request.dns_options]
    dns = {
        "nameservers": list(request.dns),
        "searches": list(request.dns_search),
        "options": [{"name": key, **({"value": value} if value else {})} for key, _, value in options],
    }
    if any(dns.values()):
        shown["dnsPolicy"] = "None" if request.dns else "Default"
        shown["dnsConfig"] = {key: value for key, value in dns.items() if value}
    hosts: dict[str, list[str]] = {}
    for one in request.extra_hosts:
        host, _, address = one.partition(":")
        hosts.setdefault(address, []).append(host)
    if hosts:
        shown["hostAliases"] = [{"ip": address, "hostnames": names} for address, names in hosts.items()]
    return shown


# -- mounts ------------------------------------------------------------------------------------------------------------


def _mounts(request: ContainerRequest, volumes: list[dict[str, Any]], missing: list[str]) -> Iterator[dict[str, Any]]:
    for one in request.binds:
        known, others = fields.split(one.options, ("ro", "rw", *_PROPAGATION, "rprivate"))
        missing += [f"--volume ...:{option}" for option in others]
        kind = "bind" if one.source.startswith("/") else "volume"
        place = _volume(volumes, kind, one.source)
        modes = [_PROPAGATION[option] for option in known if option in _PROPAGATION]
        yield _mounted(place, one.target, is_read_only="ro" in known, propagation=modes[0] if modes else "")
    for mount in request.mounts:
        if mount.type == "image":
            missing.append("--mount type=image")
            continue
        size = mount.tmpfs.size_bytes if mount.tmpfs is not None else 0
        place = _volume(volumes, mount.type, mount.source, size)
        shown = _mounted(
            place,
            mount.target,
            is_read_only=mount.read_only,
            propagation=_PROPAGATION.get(mount.bind.propagation, "") if mount.bind is not None else "",
        )
        subpath = mount.volume.subpath if mount.volume is not None else ""
        yield shown | ({"subPath": subpath} if subpath else {})
    for tmpfs in request.tmpfs:
        sizes = [option.partition("=")[2] for option in tmpfs.options if option.startswith("size=")]
        missing += ["--tmpfs options other than size"] if len(sizes) < len(tmpfs.options) else []
        yield _mounted(_volume(volumes, "tmpfs", "", sizes[-1] if sizes else 0), tmpfs.target)


def _mounted(name: str, target: str, *, is_read_only: bool = False, propagation: str = "") -> dict[str, Any]:
    shown: dict[str, Any] = {"name": name, "mountPath": target}
    shown |= {"readOnly": True} if is_read_only else {}
    return shown | ({"mountPropagation": propagation} if propagation else {})


def _volume(volumes: list[dict[str, Any]], kind: str, source: str, size: int | str = 0) -> str:
    """Put a volume into the list; return its name there."""
    name = f"volume-{len(volumes)}"
    what: dict[str, Any]
    if kind == "bind":
        what = {"hostPath": {"path": source}}
    elif kind == "volume" and source:
        what = {"persistentVolumeClaim": {"claimName": source}}
    else:
        what = {"emptyDir": {"medium": "Memory"} if kind == "tmpfs" else {}}
        if size:
            what["emptyDir"]["sizeLimit"] = _quantity(str(size))
    volumes.append({"name": name, **what})
    return name


def _quantity(size: str) -> str:
    """Return a size of mount(8) as Kubernetes writes it: 64m is 64Mi there."""
    return f"{size[:-1]}{size[-1].upper()}i" if size[-1:].lower() in ("k", "m", "g") else size
