"""Networks of CNI plugins of an ordinary user: in the user's own network, with leases where the user may write."""

from __future__ import annotations

import json
from pathlib import Path

from devtools import peers
from devtools.environment import ROOT
from support import boxes, rootless
from support.engine import COMMAND

from .test_rootless import Inside, lines


def test_a_user_has_networks_of_plugins() -> None:
    """Red: with the machine's directory for the cache of results, the log says that it can't be written."""
    with rootless.user() as user:
        leases = user.home / "leases"
        ipam = {"type": "orlop-cni-host-local", "dataDir": str(leases), "ranges": [[{"subnet": "10.77.0.0/24"}]]}
        plugin = {
            "type": "orlop-cni-bridge",
            "bridge": "cni-u0",
            "isDefaultGateway": True,
            "ipMasq": True,
            "ipam": ipam,
        }
        ports = {"type": "orlop-cni-portmap", "capabilities": {"portMappings": True}}
        path = user.directory / "u.conflist"
        path.write_text(json.dumps({"cniVersion": "1.1.0", "name": "u", "plugins": [plugin, ports]}))
        reference = peers.find("host-local")
        places = [ROOT / "cni", *([reference.parent] if reference else [])]
        done = user.run(
            *("env", f"CNI_PATH={':'.join(map(str, places))}"),
            *(COMMAND, "network", "create", "-d", "cni", "-o", f"conflist={path}", "u"),
        )
        assert done.code == 0, done
        lines(user, "run", "-d", "--name", "one", "--network", "u", "host", "sleep", "1000")
        lines(user, "run", "-d", "--name", "two", "--network", "u", "host", "sleep", "1000")
        one, two = Inside(user, "one"), Inside(user, "two")
        with boxes.serving(one, 80):
            assert boxes.ask(two, "10.77.0.2", 80) == "10.77.0.3"
        for word in ("status", "check", "gc"):
            assert lines(user, "network", "cni", word, "u") == [f"u: {word} found nothing wrong"]
        cached = user.home / ".local/share/orlop/cni/results"
        assert len(list(cached.iterdir())) == 2
        assert Path("/var/lib/cni/results").exists() is False or not list(Path("/var/lib/cni/results").glob("u-*"))
        lines(user, "rm", "-f", "one", "two")
        assert not [one.name for one in (leases / "u").iterdir() if one.name[0].isdigit()]
        assert list(cached.iterdir()) == []
        lines(user, "network", "rm", "u")
