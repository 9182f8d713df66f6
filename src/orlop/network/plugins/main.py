"""A plugin's one life: environment and standard input in, a result or an error out."""

from __future__ import annotations

import os
import sys
from importlib import import_module

from ...spec import jsonio
from .request import CONFIG_BYTES_MAX, INVALID, IO, VERSIONS, Call, PluginError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import BinaryIO

PREFIX = "orlop-cni-"
KINDS = {name.replace("-", ""): name for name in ("bridge", "host-local", "portmap", "firewall", "loopback")}


def entry() -> None:
    """Be the plugin that this program is called as: sys.argv[1] from a clone, its own name once it is installed."""
    name = sys.argv[1] if len(sys.argv) > 1 else os.path.basename(sys.argv[0])
    sys.exit(run(name, os.environ, sys.stdin.buffer, sys.stdout.buffer))


def run(name: str, environment: Mapping[str, str], given: BinaryIO, told: BinaryIO) -> int:
    """Do what is asked for; return the exit status. name: of the program."""
    version = VERSIONS[-1]
    kind = name.removeprefix(PREFIX).replace("-", "")
    try:
        if kind not in KINDS:
            names = ", ".join(PREFIX + one for one in KINDS.values())
            raise PluginError(IO, f"there is no plugin {name[:40]!r}", f"call it as one of {names}")
        if environment.get("CNI_COMMAND") == "VERSION":
            said: Mapping[str, object] | None = {"cniVersion": version, "supportedVersions": list(VERSIONS)}
        else:
            call = Call(environment, given.read(CONFIG_BYTES_MAX + 1))
            version = call.version
            said = import_module(f"{__package__}.{kind}").VERBS[call.command](call)
            said = call.result(said) if said is not None else None
    except PluginError as wrong:
        said = {"cniVersion": version, "code": wrong.code, "msg": str(wrong), "details": wrong.details}
    except ValueError as wrong:  # an address, a gateway or a MAC that is none
        said = {"cniVersion": version, "code": INVALID, "msg": str(wrong)}
    except OSError as failure:
        where = f" ({failure.filename})" if failure.filename else ""
        said = {"cniVersion": version, "code": IO, "msg": f"{failure.strerror or failure}{where}"}
    if said is not None:
        told.write(jsonio.dump(dict(said)) + b"\n")
        told.flush()
    return 1 if said is not None and "code" in said else 0
