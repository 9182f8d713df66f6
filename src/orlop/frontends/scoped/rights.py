"""Which right each route of docker's API needs. FREE: nothing is told by it. A route that is not here is closed."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

FREE = "free"
_C, _E, _I, _N, _V = "/containers/{id}", "/exec/{id}", "/images/{name*}", "/networks/{id}", "/volumes/{name}"

NEEDED: Mapping[tuple[str, str], str] = {
    ("GET", "/_ping"): FREE,
    ("HEAD", "/_ping"): FREE,
    ("OPTIONS", "/{any*}"): FREE,
    ("GET", "/plugins"): FREE,
    ("GET", "/version"): FREE,  # every client asks which version it may speak
    ("GET", "/info"): "system:info",
    ("GET", "/events"): "containers:events",
    ("GET", "/system/df"): "system:df",
    ("GET", "/metrics"): "system:metrics",
    ("POST", "/auth"): "system:auth",
    ("GET", "/containers/json"): "containers:list",
    ("POST", "/containers/create"): "containers:create",
    ("POST", "/containers/prune"): "containers:prune",
    ("GET", f"{_C}/json"): "containers:inspect",
    ("POST", f"{_C}/start"): "containers:start",
    ("POST", f"{_C}/stop"): "containers:stop",
    ("POST", f"{_C}/restart"): "containers:restart",
    ("POST", f"{_C}/kill"): "containers:kill",
    ("POST", f"{_C}/pause"): "containers:pause",
    ("POST", f"{_C}/unpause"): "containers:pause",
    ("POST", f"{_C}/rename"): "containers:rename",
    ("POST", f"{_C}/update"): "containers:update",
    ("POST", f"{_C}/resize"): "containers:resize",
    ("POST", f"{_C}/wait"): "containers:wait",
    ("POST", f"{_C}/attach"): "containers:attach",
    ("GET", f"{_C}/attach/ws"): "containers:attach",
    ("GET", f"{_C}/logs"): "containers:logs",
    ("GET", f"{_C}/top"): "containers:top",
    ("GET", f"{_C}/stats"): "containers:stats",
    ("GET", f"{_C}/changes"): "containers:changes",
    ("GET", f"{_C}/export"): "containers:export",
    ("HEAD", f"{_C}/archive"): "containers:copy-from",
    ("GET", f"{_C}/archive"): "containers:copy-from",
    ("PUT", f"{_C}/archive"): "containers:copy-to",
    ("DELETE", _C): "containers:remove",
    ("DELETE", f"{_C}/{{alias}}"): "containers:update",
    ("POST", f"{_C}/exec"): "containers:exec",
    ("POST", f"{_E}/start"): "containers:exec",
    ("POST", f"{_E}/resize"): "containers:exec",
    ("GET", f"{_E}/json"): "containers:exec",
    ("GET", "/images/json"): "images:list",
    ("POST", "/images/create"): "images:pull",
    ("POST", "/images/prune"): "images:prune",
    ("POST", "/images/load"): "images:load",
    ("GET", "/images/get"): "images:save",
    ("GET", "/images/search"): "images:search",
    ("GET", f"{_I}/get"): "images:save",
    ("GET", f"{_I}/json"): "images:inspect",
    ("GET", f"{_I}/history"): "images:history",
    ("POST", f"{_I}/push"): "images:push",
    ("POST", f"{_I}/tag"): "images:tag",
    ("DELETE", _I): "images:remove",
    ("GET", "/distribution/{name*}/json"): "images:search",
    ("POST", "/commit"): "images:commit",
    ("GET", "/volumes"): "volumes:list",
    ("POST", "/volumes/create"): "volumes:create",
    ("POST", "/volumes/prune"): "volumes:prune",
    ("GET", _V): "volumes:inspect",
    ("DELETE", _V): "volumes:remove",
    ("GET", "/networks"): "networks:list",
    ("POST", "/networks/create"): "networks:create",
    ("POST", "/networks/prune"): "networks:prune",
    ("POST", f"{_N}/connect"): "networks:connect",
    ("POST", f"{_N}/disconnect"): "networks:disconnect",
    ("GET", _N): "networks:inspect",
    ("DELETE", _N): "networks:remove",
}
# Of these the answer is about everything that there is: closed where a socket sees only some labels.
ABOUT_EVERYTHING = frozenset({"system:df", "system:metrics", "images:prune"})
# No socket opens what stands nowhere above: builds run what they are told, on the machine's network, with its caches.
