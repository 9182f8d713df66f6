"""Routes of networks."""

from __future__ import annotations

from ...engine.networks import lifecycle, listing
from ...spec.errors import Conflict
from ...spec.network import NetworkRequest, PoolRequest
from . import creation
from .door import Door, Status, told
from .words import named, prune_filters


def list_all(door: Door) -> None:
    door.answer_json(200, listing.summaries(door.engine, door.filters()))


def inspect(door: Door) -> None:
    found = listing.details(door.engine, door.parts["id"])
    if door.query.get("scope", "") not in ("", str(found["Scope"])):
        raise Status(404, f"network {door.parts['id'][:200]} not found")
    door.answer_json(200, found)


def create(door: Door) -> None:
    body = creation.Reader(door.json(), "the request")
    if body.boolean("Ingress") or body.text("Scope") not in ("", "local"):
        raise Status(403, "cannot create a swarm scoped network when swarm is not active")
    ipam = body.part("IPAM")
    pools = tuple(
        PoolRequest(
            subnet=one.text("Subnet"),
            gateway=one.text("Gateway"),
            ip_range=one.text("IPRange"),
            auxiliary=one.pairs("AuxiliaryAddresses") or one.pairs("AuxAddress"),
        )
        for one in ipam.parts("Config")
    )
    # docker takes an IPv6 subnet without the wish for IPv6, and does nothing with it: who gives one wants it.
    given = any(":" in pool.subnet for pool in pools)
    ipv6 = body.boolean("EnableIPv6") if "EnableIPv6" in body else given
    request = NetworkRequest(
        name=body.text("Name"),
        driver=body.text("Driver") or "bridge",
        pools=pools,
        ipv4=body.raw("EnableIPv4") is not False,
        ipv6=ipv6,
        internal=body.boolean("Internal"),
        attachable=body.boolean("Attachable"),
        labels=body.pairs("Labels"),
        options=body.pairs("Options"),
        ipam_driver=ipam.text("Driver") or "default",
        ipam_options=ipam.pairs("Options") if "Options" in ipam else None,
        config_only=body.boolean("ConfigOnly"),
        config_from=body.part("ConfigFrom").text("Network"),
    )
    network = lifecycle.create(door.engine, door.admit(request))
    door.answer_json(201, {"Id": network.id, "Warning": "\n".join(lifecycle.warnings(door.engine, network))})


def remove(door: Door) -> None:
    try:
        lifecycle.remove(door.engine, door.parts["id"])
    except Conflict as wrong:  # a network that is in use is what docker's daemon forbids
        raise Status(403, told(wrong)) from None
    door.answer(204)


def connect(door: Door) -> None:
    body = creation.Reader(door.json(), "the request")
    wish = creation.endpoint(door.parts["id"], body.raw("EndpointConfig"))
    container = door.container_named(named(body.text("Container")))
    try:
        lifecycle.connect(door.engine, door.parts["id"], container, door.admit(wish))
    except Conflict as wrong:  # as is a second place in it
        raise Status(403, told(wrong)) from None
    door.answer(200)


def disconnect(door: Door) -> None:
    body = creation.Reader(door.json(), "the request")
    container = door.container_named(named(body.text("Container")))
    lifecycle.disconnect(door.engine, door.parts["id"], container, body.boolean("Force"))
    door.answer(200)


def prune(door: Door) -> None:
    names = lifecycle.prune(door.engine, *prune_filters(door))
    door.answer_json(200, {"NetworksDeleted": names or None})


ROUTES = (
    ("GET", "/networks", list_all),
    ("POST", "/networks/create", create),
    ("POST", "/networks/prune", prune),
    ("POST", "/networks/{id}/connect", connect),
    ("POST", "/networks/{id}/disconnect", disconnect),
    ("GET", "/networks/{id}", inspect),
    ("DELETE", "/networks/{id}", remove),
)
