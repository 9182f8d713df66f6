"""What podman prints as JSON: the fields that programs read, in podman's names and types.

Source: podman-ps(1), `--format json`.
"""

from __future__ import annotations

from ....spec import jsonio

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


def containers(summaries: Sequence[dict[str, Any]]) -> str:
    """Return the array of `ps --format json`; summaries: docker's."""
    return jsonio.dump([_container(one) for one in summaries]).decode() + "\n"


def _container(one: dict[str, Any]) -> dict[str, object]:
    exited = one["State"] == "exited"
    return {
        "Id": one["Id"],
        "Names": [str(name).removeprefix("/") for name in one["Names"]],
        "Image": one["Image"],
        "ImageID": str(one["ImageID"]).removeprefix("sha256:"),
        "Command": one["Command"].split(),
        "Created": one["Created"],
        "State": one["State"],
        "Status": one["Status"],
        "Exited": exited,
        "ExitCode": int(one["Status"].partition("(")[2].partition(")")[0]) if exited else 0,
        "Labels": one["Labels"] or None,
        "Mounts": [mount["Destination"] for mount in one["Mounts"]],
        "Networks": [*one["NetworkSettings"]["Networks"]],
        "Ports": [
            {
                "host_ip": port.get("IP", ""),
                "container_port": port["PrivatePort"],
                "host_port": port["PublicPort"],
                "range": 1,
                "protocol": port["Type"],
            }
            for port in one["Ports"]
            if "PublicPort" in port
        ]
        or None,
    }
