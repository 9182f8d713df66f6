"""Every endpoint of docker's Engine API 1.50, and where its requests go.

The list is of moby's api/swagger.yaml and of its routers, which have a few more. What answers a refusal on purpose is
routed like all others.
"""

from __future__ import annotations

import re

import pytest

from orlop.frontends.docker.door import Status
from orlop.frontends.docker.table import NOUNS, TABLE

CORE = """
GET /_ping
HEAD /_ping
POST /auth
GET /events
GET /info
GET /system/df
GET /version
OPTIONS /containers/json
GET /metrics
POST /containers/create
GET /containers/json
POST /containers/prune
DELETE /containers/ID
GET /containers/ID/archive
HEAD /containers/ID/archive
PUT /containers/ID/archive
POST /containers/ID/attach
GET /containers/ID/attach/ws
GET /containers/ID/changes
GET /containers/ID/export
GET /containers/ID/json
POST /containers/ID/kill
GET /containers/ID/logs
POST /containers/ID/pause
POST /containers/ID/rename
POST /containers/ID/resize
POST /containers/ID/restart
POST /containers/ID/start
GET /containers/ID/stats
POST /containers/ID/stop
GET /containers/ID/top
POST /containers/ID/unpause
POST /containers/ID/update
POST /containers/ID/wait
GET /containers/ID/checkpoints
POST /containers/ID/checkpoints
DELETE /containers/ID/checkpoints/C
POST /containers/ID/exec
GET /exec/ID/json
POST /exec/ID/resize
POST /exec/ID/start
POST /build
POST /commit
POST /images/create
GET /images/get
GET /images/json
POST /images/load
POST /images/prune
GET /images/search
DELETE /images/a/b:c
GET /images/a/b:c/get
GET /images/a/b:c/history
GET /images/a/b:c/json
POST /images/a/b:c/push
POST /images/a/b:c/tag
GET /distribution/a/b:c/json
POST /session
POST /grpc
POST /build/prune
POST /build/cancel
GET /networks
POST /networks/create
POST /networks/prune
GET /networks/ID
DELETE /networks/ID
POST /networks/ID/connect
POST /networks/ID/disconnect
GET /volumes
POST /volumes/create
POST /volumes/prune
GET /volumes/ID
PUT /volumes/ID
DELETE /volumes/ID
GET /plugins
POST /plugins/create
GET /plugins/privileges
POST /plugins/pull
DELETE /plugins/a/b
POST /plugins/a/b/disable
POST /plugins/a/b/enable
GET /plugins/a/b/json
POST /plugins/a/b/push
POST /plugins/a/b/set
POST /plugins/a/b/upgrade
GET /swarm
POST /swarm/init
POST /swarm/join
POST /swarm/leave
POST /swarm/unlock
GET /swarm/unlockkey
POST /swarm/update
GET /nodes
GET /nodes/ID
DELETE /nodes/ID
POST /nodes/ID/update
GET /services
POST /services/create
GET /services/ID
DELETE /services/ID
GET /services/ID/logs
POST /services/ID/update
GET /tasks
GET /tasks/ID
GET /tasks/ID/logs
GET /secrets
POST /secrets/create
GET /secrets/ID
DELETE /secrets/ID
POST /secrets/ID/update
GET /configs
POST /configs/create
GET /configs/ID
DELETE /configs/ID
POST /configs/ID/update
""".split("\n")[1:-1]


@pytest.mark.parametrize("endpoint", CORE)
def test_an_endpoint_is_routed(endpoint: str) -> None:
    method, _, path = endpoint.partition(" ")
    route, parts = TABLE.find(method, path)
    assert callable(route[2])
    # The route is this endpoint's own, none that happens to match: what varies in the path is what it names.
    assert sorted(part for part in parts.values()) == sorted(_varying(method, path)), (route, parts)


def test_every_route_is_an_endpoint_of_the_list() -> None:
    known = {one.replace("ID", "{}").replace("a/b:c", "{}").replace("a/b", "{}").replace("/C", "/{}") for one in CORE}
    ours = {f"{method} {re.sub(r'{[^}]*}', '{}', pattern)}" for noun in NOUNS for method, pattern, _ in noun.ROUTES}
    # The link of a container is removed by docker as `DELETE /containers/ID` with a slash in the name.
    assert ours - known == {"OPTIONS /{}", "DELETE /containers/{}/{}"}


def test_what_is_nowhere_is_not_found() -> None:
    for method, path in (("GET", "/nosuch"), ("PUT", "/containers/json"), ("GET", "/"), ("TRACE", "/info")):
        with pytest.raises(Status) as refused:
            TABLE.find(method, path)
        assert (refused.value.status, refused.value.message) == (404, "page not found")


def _varying(method: str, path: str) -> list[str]:
    if method == "OPTIONS":
        return [path[1:]]
    rest = path.replace("a/b:c", "N").replace("a/b", "N").split("/")
    names = {"N": "a/b:c" if "a/b:c" in path else "a/b", "ID": "ID", "C": "C"}
    return [names[part] for part in rest if part in names]
