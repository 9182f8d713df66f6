"""What containers try to reach outside: what one with `--egress learn` has reached, what one with `deny` was denied.

The resolver writes it down (network.dns.attempts); here it is read, and told as an event while an engine is there.
"""

from __future__ import annotations

from ...network.dns import attempts as kept
from ...spec.errors import Invalid, OrlopError
from ...spec.network import Attempt
from .. import events
from . import cni, parents

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...spec.container import ContainerRequest
    from ...spec.network import Network
    from ..engine import Engine

DENY, LEARN = "deny", "learn"
WATCHED = (DENY, LEARN)
FILE_BYTES_MAX = 4 << 20
_ROUTED_PLUGINS = frozenset(("bridge", "ptp", "orlop-cni-bridge"))  # whose packets this machine forwards


def check(request: ContainerRequest, network: Network, subject: str) -> None:
    """Raise Invalid for a container that is to be watched in a network whose packets pass no rule of this machine."""
    if request.egress not in WATCHED:
        return
    kind = network.driver
    if kind == cni.DRIVER:
        kind = cni.first_plugin(network)
    if kind in parents.DRIVERS or (network.driver == cni.DRIVER and kind not in _ROUTED_PLUGINS):
        cause = f"--egress {request.egress} can't hold in network {network.name}: what {kind} sends passes no rule here"
        raise Invalid("connect", subject, cause, hint="use a network of the driver bridge")


def path(engine: Engine, container_id: str) -> str:
    """Return where a container's attempts are kept."""
    return f"{engine.records.path(container_id)}/{kept.FILE}"


def attempts(engine: Engine, reference: str) -> dict[str, object]:
    """Return what a container has reached and was denied, each with its --egress-allow. Raises NotFound."""
    record = engine.records.find(reference)
    try:
        with open(path(engine, record.id), "rb", buffering=0) as file:
            found = kept.read(file.read(FILE_BYTES_MAX))
    except FileNotFoundError:
        found = []
    return {
        "Learned": _unique([one for one in found if one.verdict == kept.LEARNED]),
        "Denied": _unique([one for one in found if one.verdict == kept.DENIED]),
    }


def told(engine: Engine, container_id: str, attempt: object) -> None:
    """Tell an attempt that was denied as an event."""
    try:
        one = Attempt.from_json(attempt, "an attempt")
        if one.verdict == kept.DENIED:
            record = engine.records.load(container_id)
            attributes = {"to": allowing(one), "name": one.name, "address": one.address}
            events.publish_container(engine, record, "egress_denied", {k: v for k, v in attributes.items() if v})
    except OrlopError:
        pass  # the container is gone, and with it who would want to know


def listen(engine: Engine) -> None:
    """Hear of what containers try that an earlier engine has started."""
    for container_id in engine.networks.attachments.all:
        try:
            if engine.records.load(container_id).request.egress in WATCHED:
                engine.networks.resolver.listen()
                return
        except OrlopError:
            continue


def allowing(one: Attempt) -> str:
    """Return the --egress-allow that lets an attempt through: by name where one is known."""
    host = one.name or (f"[{one.address}]" if ":" in one.address else one.address)
    port = f":{one.port}/{one.protocol}" if one.port else ""
    return f"{host}{port}"


def _unique(found: list[Attempt]) -> list[dict[str, object]]:
    by_entry = {allowing(one): one for one in reversed(found)}
    return [
        {"Allow": entry, "Name": one.name, "Address": one.address, "Port": one.port, "Protocol": one.protocol}
        for entry, one in sorted(by_entry.items())
    ]
