"""Routes of what Orlop is not: a node of a swarm, a host of plugins, a daemon with experiments.

They answer as a docker daemon outside a swarm, without plugins and without experiments does, so that clients which ask
find out, and say so in docker's words.
"""

from __future__ import annotations

from .door import Door, Status

NO_MANAGER = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and'
    " try again."
)
_NO_SWARM = "Orlop serves one machine: it has no swarm to begin or to join"
_NO_EXPERIMENTS = (
    "This experimental feature is disabled by default. Start the Docker daemon in experimental mode in order to enable"
    " it."
)
_NO_PLUGINS = "Orlop has no plugins: volumes, networks and logs have the drivers that `info` names"


def not_a_manager(door: Door) -> None:
    raise Status(503, NO_MANAGER)


def begin(door: Door) -> None:
    raise Status(501, _NO_SWARM)


def leave(door: Door) -> None:
    raise Status(503, "This node is not part of a swarm")


def not_of_a_cluster(door: Door) -> None:
    raise Status(503, "volume update only valid for cluster volumes, but swarm is unavailable")


def no_plugins(door: Door) -> None:
    for name in sorted(door.filters().keys() - {"enabled", "capability"}):
        raise Status(400, f"invalid filter '{name[:60]}'")
    door.answer_json(200, [])


def no_such_plugin(door: Door) -> None:
    raise Status(404, f'plugin "{door.parts["name"][:200]}" not found')


def new_plugin(door: Door) -> None:
    raise Status(501, _NO_PLUGINS)


def checkpoint(door: Door) -> None:
    raise Status(501, _NO_EXPERIMENTS)


_OF_MANAGERS = (
    ("GET", "/swarm"),
    ("POST", "/swarm/unlock"),
    ("GET", "/swarm/unlockkey"),
    ("POST", "/swarm/update"),
    ("GET", "/nodes"),
    ("GET", "/nodes/{id}"),
    ("DELETE", "/nodes/{id}"),
    ("POST", "/nodes/{id}/update"),
    ("GET", "/services/{id}/logs"),
    ("GET", "/tasks"),
    ("GET", "/tasks/{id}"),
    ("GET", "/tasks/{id}/logs"),
    *(
        (method, f"/{noun}{rest}")
        for noun in ("services", "secrets", "configs")
        for method, rest in (
            ("GET", ""),
            ("POST", "/create"),
            ("GET", "/{id}"),
            ("DELETE", "/{id}"),
            ("POST", "/{id}/update"),
        )
    ),
)

ROUTES = (
    *((method, pattern, not_a_manager) for method, pattern in _OF_MANAGERS),
    ("PUT", "/volumes/{name}", not_of_a_cluster),
    ("POST", "/swarm/init", begin),
    ("POST", "/swarm/join", begin),
    ("POST", "/swarm/leave", leave),
    ("GET", "/plugins", no_plugins),
    ("GET", "/plugins/privileges", new_plugin),
    ("POST", "/plugins/pull", new_plugin),
    ("POST", "/plugins/create", new_plugin),
    ("GET", "/plugins/{name*}/json", no_such_plugin),
    *(
        ("POST", f"/plugins/{{name*}}/{verb}", no_such_plugin)
        for verb in ("enable", "disable", "push", "set", "upgrade")
    ),
    ("DELETE", "/plugins/{name*}", no_such_plugin),
    ("GET", "/containers/{id}/checkpoints", checkpoint),
    ("POST", "/containers/{id}/checkpoints", checkpoint),
    ("DELETE", "/containers/{id}/checkpoints/{checkpoint}", checkpoint),
)
