"""What a result looks like in each version of CNI: read in any, given in the one that was asked for.

    0.1.0, 0.2.0           `ip4` and `ip6`, each with its routes; no interfaces
    0.3.0, 0.3.1, 0.4.0    `ips`, each with its `version`; interfaces; routes beside them
    1.0.0                  without the `version`
    1.1.0                  routes and interfaces may say more

Untrusted, like any reply: what is none is left as it is, for who reads it to refuse.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
OLDEST = VERSIONS[0]  # of whoever names none
_FAMILIES = (("ip4", "4"), ("ip6", "6"))
_SINCE_1_1 = {"interfaces": ("mtu", "socketPath", "pciID"), "routes": ("mtu", "advmss", "priority", "table", "scope")}


def at_least(version: str, other: str) -> bool:
    """Tell whether a version has what another one brought. Both are of VERSIONS."""
    return VERSIONS.index(version) >= VERSIONS.index(other)


def latest(result: Mapping[str, object]) -> dict[str, object]:
    """Return a result of whatever version in the form of the latest."""
    made = {key: value for key, value in result.items() if key not in ("ip4", "ip6")}
    if "ip4" in result or "ip6" in result:
        ips: list[object] = []
        routes: list[object] = []
        for key, _ in _FAMILIES:
            found = result.get(key)
            if isinstance(found, dict):
                listed = found.get("routes") or []
                routes += listed if isinstance(listed, list) else [listed]
                gateway = {"gateway": found["gateway"]} if found.get("gateway") else {}
                ips.append({"address": found.get("ip"), **gateway})
        made |= {"ips": ips, "routes": routes} if routes else {"ips": ips}
    elif isinstance(result.get("ips"), list):
        made["ips"] = [_without(one, ("version",)) for one in _listed(result, "ips")]
    return {**made, "cniVersion": VERSIONS[-1]}


def told(result: Mapping[str, object], version: str) -> dict[str, object]:
    """Return a result of whatever version in the form of this one. Raises ValueError when it can't have it."""
    made = {**latest(result), "cniVersion": version}
    if at_least(version, "1.1.0"):
        return made
    for key, names in _SINCE_1_1.items():
        if isinstance(made.get(key), list):
            made[key] = [_without(one, names) for one in _listed(made, key)]
    if at_least(version, "1.0.0"):
        return made
    ips = [{"version": _family(one), **one} if isinstance(one, dict) else one for one in _listed(made, "ips")]
    if at_least(version, "0.3.0"):
        return {**made, "ips": ips} if "ips" in made else made
    return _by_family(made, ips)


def _by_family(result: Mapping[str, object], ips: list[object]) -> dict[str, object]:
    """Return the oldest form: one address of each family, with the routes of its own."""
    made: dict[str, object] = {"cniVersion": result["cniVersion"]}
    for key, number in _FAMILIES:
        first = next((one for one in ips if isinstance(one, dict) and one["version"] == number), None)
        if first is not None:
            listed = [one for one in _listed(result, "routes") if isinstance(one, dict)]
            routes = [one for one in listed if _family(one, "dst") == number]
            gateway = {"gateway": first["gateway"]} if first.get("gateway") else {}
            made[key] = {"ip": first.get("address"), **gateway, **({"routes": routes} if routes else {})}
    if len(made) == 1:
        raise ValueError(f"a result of version {made['cniVersion']} needs an address")
    return {**made, "dns": result.get("dns") or {}}


def _listed(found: Mapping[str, object], key: str) -> list[object]:
    listed = found.get(key)
    return listed if isinstance(listed, list) else []


def _family(one: Mapping[str, object], key: str = "address") -> str:
    return "6" if ":" in str(one.get(key)) else "4"


def _without(one: object, keys: tuple[str, ...]) -> object:
    return {key: value for key, value in one.items() if key not in keys} if isinstance(one, dict) else one
