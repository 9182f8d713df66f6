"""A container's part in networks, through its states, beside Debian 13's dockerd with bridges of its own.

The same requests go to both; after each, what `GET /containers/NAME/json` says of networks is compared field by field.
ACCEPTED holds what differs and why; an entry that no comparison needs any more fails the test.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from bench.workspace import Workspace
from support import netns
from support.docker_http import Api, box_engine

VERSION = "v1.45"
NETWORK = 'POST /networks/create {"Name":"%s","IPAM":{"Config":[{"Subnet":"10.%d.0.0/24"}]}}'
MADE = (
    'POST /containers/create?name=own {"Image":"box:1","Hostname":"hh","ExposedPorts":{"80/tcp":{},"81/udp":{}},'
    '"HostConfig":{"NetworkMode":"na","PortBindings":{"80/tcp":[{"HostIp":"127.0.0.1","HostPort":"18080"}]},'
    '"Links":["other:lk"],"ExtraHosts":["a:1.2.3.4"],"Dns":["8.8.8.8"],"DnsOptions":["ndots:2"],"DnsSearch":["x.y"]},'
    '"NetworkingConfig":{"EndpointsConfig":{"na":{"Aliases":["al"],"IPAMConfig":{"IPv4Address":"10.78.0.9"}}}}}'
)
SECOND = (
    'POST /networks/nb/connect {"Container":"own","EndpointConfig":{"IPAMConfig":{"IPv4Address":"10.79.0.10"},'
    '"Aliases":["more"],"Links":["other:lq"]}}'
)
SCRIPTS = {
    "created, running, in two, paused, restarted, stopped, out of each, in one again": [
        NETWORK % ("na", 78),
        NETWORK % ("nb", 79),
        'POST /containers/create?name=other {"Image":"box:1","HostConfig":{"NetworkMode":"na"}}',
        "POST /containers/other/start",
        MADE,
        "GET own",
        "POST /containers/own/start",
        "GET own",
        SECOND,
        "GET own",
        "POST /containers/own/pause",
        "GET own",
        "POST /containers/own/unpause",
        "POST /containers/own/restart?t=0",
        "GET own",
        "POST /containers/own/stop?t=0",
        "GET own",
        "POST /containers/own/start",
        'POST /networks/na/disconnect {"Container":"own"}',
        "GET own",
        'POST /networks/nb/disconnect {"Container":"own"}',
        "GET own",
        'POST /networks/na/disconnect {"Container":"own","Force":true}',
        "POST /containers/own/restart?t=0",
        "GET own",
        "POST /containers/own/stop?t=0",
        'POST /networks/nb/connect {"Container":"own","EndpointConfig":{"Aliases":["late"]}}',
        "GET own",
        "POST /containers/own/start",
        "POST /containers/own/stop?t=0",
        "DELETE /networks/nb",
        "GET own",
        "POST /containers/own/start",
        "GET own",
    ],
    "on the default bridge, and away": [
        NETWORK % ("na", 78),
        'POST /containers/create?name=first {"Image":"box:1"}',
        "GET first",
        "POST /containers/first/start",
        'POST /containers/create?name=linked {"Image":"box:1","HostConfig":{"Links":["first:alias"]}}',
        "POST /containers/linked/start",
        "GET linked",
        'POST /networks/na/connect {"Container":"linked","EndpointConfig":{"IPAMConfig":{"IPv4Address":"10.78.0.7"}}}',
        "GET linked",
        'POST /networks/bridge/disconnect {"Container":"linked"}',
        "GET linked",
        "POST /containers/linked/stop?t=0",
        "GET linked",
    ],
    "none, and into a network; host": [
        NETWORK % ("na", 78),
        'POST /containers/create?name=bare {"Image":"box:1","HostConfig":{"NetworkMode":"none"}}',
        "GET bare",
        'POST /networks/na/connect {"Container":"bare"}',
        "POST /containers/bare/start",
        'POST /networks/none/disconnect {"Container":"bare"}',
        'POST /networks/none/disconnect {"Container":"bare"}',
        "GET bare",
        'POST /networks/na/connect {"Container":"bare","EndpointConfig":{"IPAMConfig":{"IPv4Address":"10.78.0.8"}}}',
        "GET bare",
        "POST /containers/bare/restart?t=0",
        "GET bare",
        'POST /containers/create?name=flat {"Image":"box:1","HostConfig":{"NetworkMode":"host"}}',
        "POST /containers/flat/start",
        "GET flat",
        'POST /networks/na/connect {"Container":"flat"}',
    ],
    "namespaces of a container that is renamed": [
        'POST /containers/create?name=lender {"Image":"box:1",'
        '"HostConfig":{"NetworkMode":"none","IpcMode":"shareable"}}',
        "POST /containers/lender/start",
        'POST /containers/create?name=guest {"Image":"box:1","HostConfig":{"NetworkMode":"container:lender",'
        '"PidMode":"container:lender","IpcMode":"container:lender"}}',
        "GET guest",
        "POST /containers/lender/rename?name=another",
        'POST /containers/create?name=lender {"Image":"box:1","HostConfig":{"NetworkMode":"none"}}',
        "POST /containers/guest/start",
        "GET guest",
    ],
}
ACCEPTED = {
    r"NetworkSettings\.Sandbox(ID|Key)": "a namespace has no file",
    r"NetworkSettings\.Networks\.\w+\.GwPriority": "API 1.48",
    r"NetworkSettings\.Networks\.\w+\.NetworkID": "known from the creation on, and of no network that is gone",
    r"NetworkSettings\.Networks\.(none|host)\.EndpointID": "a place in it has none",
    r"NetworkSettings\.(Networks\.bridge\.)?(Gateway|IPAddress|MacAddress)": "another subnet",
    r"status 409 for 500": "docker 28: a state that forbids it is a conflict",
}
HOST = "NetworkMode IpcMode PidMode PortBindings PublishAllPorts Dns DnsOptions DnsSearch ExtraHosts Links".split()
CONFIG = ("Hostname", "Domainname", "ExposedPorts", "NetworkDisabled")
_ID = re.compile(r"\b([0-9a-f]{64}|[0-9a-f]{12})\b")


@pytest.fixture(scope="module")
def both(peer: Callable[[str], Path]) -> Iterator[tuple[Api, Api]]:
    with netns.network() as network, Workspace() as work, box_engine() as engine:
        # Its bridge, rules and proxies are in a network of their own.
        daemon = network.inside(lambda: work.dockerd("d", networks=True, program=peer("dockerd-26")))
        apis = Api(engine.run / "docker.sock", VERSION), Api(daemon.socket, VERSION)
        archive, changes = work.archive().read_bytes(), quote('CMD ["sleep","1000"]')
        for api in apis:
            answer = api("POST", f"/images/create?fromSrc=-&repo=box&tag=1&changes={changes}", archive)
            assert answer.status == 200, answer
        yield apis


@pytest.mark.timeout(300)
def test_a_containers_part_in_networks_is_told_as_dockerd_tells_it(both: tuple[Api, Api]) -> None:
    used: set[str] = set()
    found = [f"{name}: {one}" for name, script in SCRIPTS.items() for one in played(both, script, used)]
    assert not found, "\n" + "\n".join(found)
    assert used == set(ACCEPTED), f"no longer different: {set(ACCEPTED) - used}"


def played(both: tuple[Api, Api], script: list[str], used: set[str]) -> Iterator[str]:
    """Play a script with both, yield what differs, and remove what it made."""
    for number, line in enumerate(script):
        method, path, body = (*line.split(" ", 2), "")[:3]
        if method == "GET":
            answers = [api("GET", f"/containers/{path}/json") for api in both]
        else:
            kind = {"Content_Type": "application/json"} if body else {}
            answers = [api(method, path, body.encode() or None, **kind) for api in both]
        ours, theirs = answers
        told = [(f"status {ours.status} for {theirs.status}", f"{ours!r}, theirs {theirs!r}")]
        if ours.status == theirs.status:
            told = [*differences("", *map(seen, answers))] if method == "GET" else []
        for where, what in told:
            reason = next((one for one in ACCEPTED if re.fullmatch(one, where)), None)
            if reason is None:
                yield f"{number} {line}: {where}: {what}"
            else:
                used.add(reason)
    made = [re.match(r"POST /(\w+)/create(?:\?name=(\w+))?(?: \{\"Name\":\"(\w+))?", line) for line in script]
    for kind in ("containers", "networks"):
        for one in filter(None, made):
            if one[1] == kind:
                for api in both:
                    api("DELETE", f"/{kind}/{one[2] or one[3]}?force=1")


def seen(answer: Any) -> dict[str, Any]:
    """Return what a container's object says of networks, without ids; nothing said is nothing, however it is."""
    found = json.loads(_ID.sub("<ID>", answer.body.decode()))
    # 26.1 lists [] in the place of null only where a request had it.
    part = {name: found["HostConfig"].get(name) or None for name in HOST}
    return {
        "State": found["State"]["Status"],
        "HostConfig": part,
        "Config": {name: found["Config"].get(name) or None for name in CONFIG},
        "NetworkSettings": found["NetworkSettings"],
    }


def differences(where: str, ours: Any, theirs: Any) -> Iterator[tuple[str, str]]:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in sorted(ours.keys() | theirs.keys()):
            missing = "not there"
            yield from differences(f"{where}.{key}".lstrip("."), ours.get(key, missing), theirs.get(key, missing))
    elif ours != theirs or type(ours) is not type(theirs):
        yield where, f"{ours!r}, theirs {theirs!r}"


def test_host_gateway_is_an_address_where_no_gateway_is_the_machine() -> None:
    with box_engine() as engine:
        engine("network", "create", "--internal", "inward")
        told = {}
        for network in ("none", "host", "inward"):
            words = ("--add-host", "h:host-gateway", "--network", network, "box:1", "cat", "/etc/hosts")
            lines = engine("run", "--rm", *words).stdout.splitlines()
            told[network] = [line.split()[0] for line in lines if line.endswith("\th")]
        bridge = engine("network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", "bridge").stdout.strip()
        assert told == {"none": [bridge], "host": ["127.0.0.1"], "inward": [bridge]}
