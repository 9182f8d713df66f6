"""The route of builds: podman's query -> BuildRequest, and docker's stream as podman's client reads it.

Its client sends the context as an archive, without what .containerignore names, and its Containerfile in it. It knows
three lines of the answer: a text, an error, and the text that is nothing but an id, the image's. Each word of the query
has its row here: honoured, ignored because it asks for nothing that an image could tell, or refused by its name.
Source: podman 5.4.2, pkg/bindings/images/build.go, pkg/api/handlers/compat/images_build.go; and what its client sends.
"""

from __future__ import annotations

import re

from ...build.cache import places
from ...build.request import BuildRequest, parse_epoch
from ...spec import jsonio
from ...spec.container import UlimitRequest
from ..docker import build as docker
from ..docker.door import Door, Status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from ...spec.registry import Credentials

_READ = frozenset(
    "dockerfile remote t output buildargs labels target platform nocache pullpolicy q layers networkmode"
    " nsoptions extrahosts shmsize memory memswap cpushares cpuperiod cpuquota cpusetcpus cpusetmems cgroupparent"
    " ulimits timestamp dnsservers dnsoptions dnssearch cachefrom additionalbuildcontexts seccomp outputformat"
    " idmappingoptions".split()
)
# How buildah works, what it tells of itself, and what is so here always.
_IGNORED = frozenset(
    "compatvolumes forcerm httpproxy identitylabel isolation jobs omithistory retry retry-delay rm rusage tlsVerify"
    " skipunusedstages inheritlabels inheritannotations createdannotation".split()
)
_NOTHING = ("", "0", "false", "null", "[]", "{}")
_WHY = {
    "secrets": (
        "its client puts secrets among the context's files, where COPY reaches them",
        "use orlop build --secret, or docker buildx build",
    ),
    "ssh": ("the agent is the client's, and no way leads there", "use orlop build --ssh, or docker buildx build"),
    "manifest": ("an image is put into a list once it is there", "build with -t, then: podman manifest add"),
    "squash": ("layers of the first image stay as they are", "use --squash: what a build makes becomes one layer"),
    "volume": ("a step mounts what its Dockerfile says", "write RUN --mount=type=bind or type=cache"),
    "from": ("the first stage's image is the Dockerfile's", "write ARG BASE and FROM $BASE, and give --build-arg"),
    "annotations": ("annotations are said where an image is written", "use orlop build --annotation"),
}
_PULLED = {"": False, "missing": False, "ifmissing": False, "always": True, "newer": True, "ifnewer": True}
_NETWORKS = {"0": "", "1": "none", "2": ""}  # buildah's NetworkDefault, NetworkDisabled, NetworkEnabled
_SECCOMP = ("", "/usr/share/containers/seccomp.json", "/etc/containers/seccomp.json")
_ID = re.compile(r"[0-9a-f]{64}")
_HEX = re.compile(r"(?=[0-9a-f]{12})")


def build(door: Door) -> None:
    request = build_request(door)
    with door.context.building("", door.connection):
        docker.run(door, request, _told)


def build_request(door: Door) -> BuildRequest:
    """Return what the query asks for. Raises Status, Invalid."""
    query = door.query
    _refuse_what_is_not_there(door)
    names = dict.fromkeys(name for name in (*door.every("t"), *door.every("output")) if name)
    return BuildRequest(
        archive=not query.get("remote", ""),
        remote=query.get("remote", ""),
        dockerfile=_dockerfile(query.get("dockerfile", "")),
        tags=tuple(names),
        build_args={name: str(value) for name, value in _object(query, "buildargs").items() if value is not None},
        labels=_labels(query),
        target=query.get("target", ""),
        platforms=tuple(one.lower() for text in door.every("platform") for one in text.split(",") if one),
        squash=not door.flag("layers"),  # it says so where there shall be several; --squash leaves it away
        cache_from=tuple(places.source({"type": places.REGISTRY, "ref": one}) for one in _texts(query, "cachefrom")),
        no_cache=door.flag("nocache"),
        pull=_PULLED[query.get("pullpolicy", "").lower()],
        network=_network(query),
        extra_hosts=_texts(query, "extrahosts"),
        dns=_texts(query, "dnsservers"),
        dns_options=_texts(query, "dnsoptions"),
        dns_search=_texts(query, "dnssearch"),
        contexts=_contexts(query),
        ulimits=tuple(map(_ulimit, _texts(query, "ulimits"))),
        source_date_epoch_s=parse_epoch(query.get("timestamp", "")),
        credentials=_credentials(door),
        **docker.limits(door),
    )


def _refuse_what_is_not_there(door: Door) -> None:
    for name, value in door.query.items():
        if name in _READ or name in _IGNORED or value in _NOTHING:
            continue
        cause, hint = _WHY.get(name, ("", "leave its option away"))
        raise Status(501, f"{name[:60]} of a build is not there{': ' if cause else ''}{cause}\nNext: {hint}")
    query = door.query
    if query.get("pullpolicy", "").lower() not in _PULLED:
        raise Status(501, f"a build has no pull policy {query['pullpolicy'][:60]!r}: known are missing, always, newer")
    if query.get("seccomp", "") not in _SECCOMP:
        raise Status(501, "a seccomp profile is not read from the server's files: leave --security-opt away")
    maps = _object(query, "idmappingoptions")
    if maps.get("UIDMap") or maps.get("GIDMap") or maps.get("AutoUserNs"):
        raise Status(501, "steps have the engine's ids: leave --userns, --userns-uid-map and their like away")


def _dockerfile(text: str) -> str:
    names = _list(text, "dockerfile") if text.startswith("[") else [text]
    if len(names) > 1:
        raise Status(501, "several Containerfiles are not made one: give -f once")
    return names[0] if names else ""


def _network(query: dict[str, str]) -> str:
    mode = query.get("networkmode", "0") or "0"
    if mode not in _NETWORKS:
        raise Status(400, f"networkmode {mode[:60]!r} is none of 0, 1, 2")
    found = _NETWORKS[mode]
    for one in _parse(query, "nsoptions", list):
        if not isinstance(one, dict):
            raise Status(400, "nsoptions is no list of objects")
        name, path = str(one.get("Name", "")), str(one.get("Path", ""))
        if name == "network" and one.get("Host"):
            found = "host"
        elif path and not (name == "network" and path == "none"):
            raise Status(501, f"steps join no {name[:30]} namespace by its path: leave its option away")
        elif path:
            found = "none"
        elif name not in ("network", "user") and one.get("Host"):
            raise Status(501, f"steps have a {name[:30]} namespace of their own: leave its option away")
    return found


def _contexts(query: dict[str, str]) -> dict[str, str]:
    """Return --build-context: an image or a URL; a folder of the client's is on no way here."""
    found = {}
    for name, one in _object(query, "additionalbuildcontexts").items():
        value = str(one.get("Value", "")) if isinstance(one, dict) else ""
        if isinstance(one, dict) and one.get("IsImage") and value:
            found[name] = "docker-image://" + value.removeprefix("docker://").removeprefix("docker-image://")
        elif isinstance(one, dict) and one.get("IsURL") and value:
            found[name] = value
        else:
            raise Status(501, f"the build context {name[:60]!r} is a folder of its client's: use orlop build")
    return found


def _labels(query: dict[str, str]) -> dict[str, str]:
    return dict(one.partition("=")[::2] for one in _texts(query, "labels"))


def _ulimit(text: str) -> UlimitRequest:
    name, _, numbers = text.partition("=")
    soft, _, hard = numbers.partition(":")
    try:
        return UlimitRequest(name=name, soft=int(soft), hard=int(hard or soft))
    except ValueError:
        raise Status(400, f"invalid ulimit {text[:60]!r}: write nofile=1024:2048") from None


def _credentials(door: Door) -> dict[str, Credentials]:
    """Return the accounts of X-Registry-Config, or of X-Registry-Auth where that has them by registry too."""
    return docker.credentials(door) or docker.credentials(door, "X-Registry-Auth")


# -- the query's JSON -------------------------------------------------------------------------------------------------


def _parse(query: dict[str, str], name: str, kind: type) -> Any:
    text = query.get(name, "")
    found = jsonio.without_nul(jsonio.parse(text.encode(), name), name) if text else None
    if found is None:
        return kind()
    if not isinstance(found, kind):
        raise Status(400, f"{name} is no JSON {'list' if kind is list else 'object'}")
    return found


def _object(query: dict[str, str], name: str) -> dict[str, Any]:
    return dict(_parse(query, name, dict))


def _texts(query: dict[str, str], name: str) -> tuple[str, ...]:
    return tuple(_strings(_parse(query, name, list), name))


def _list(text: str, name: str) -> list[str]:
    return _strings(_parse({name: text}, name, list), name)


def _strings(found: list[object], name: str) -> list[str]:
    if not all(isinstance(one, str) for one in found):
        raise Status(400, f"{name} is no list of texts")
    return [str(one) for one in found]


# -- the stream -------------------------------------------------------------------------------------------------------


def _told(lines: Iterator[bytes]) -> Iterator[bytes]:
    """Yield podman's stream of docker's: the last text is the image's id alone, and no other text begins as one."""
    made = ""
    for line in lines:
        one: dict[str, Any] = jsonio.parse_object(line, "a message")
        if "error" in one:
            yield line
            return
        text = docker.plain(str(one.get("stream", "")))
        if isinstance(one.get("aux"), dict):
            made = str(one["aux"].get("ID", ""))
        elif text and _ID.fullmatch(text.strip().removeprefix("sha256:")):
            made = text.strip()  # of a quiet build
        elif text:
            yield _text(_HEX.sub(" ", text, count=1) if _HEX.match(text) else text)
        elif one.get("status") and not one.get("progressDetail"):
            yield _text(" ".join(str(one[key]) for key in ("id", "status") if one.get(key)) + "\n")
    yield _text(made.removeprefix("sha256:") + "\n")


def _text(text: str) -> bytes:
    return jsonio.dump({"stream": text}) + b"\n"


ROUTES = (("POST", "/libpod/build", build),)
