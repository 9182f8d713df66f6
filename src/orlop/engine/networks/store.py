"""The networks on disk: $ORLOP_ROOT/networks/<id>/network.json. Writer: the engine.

bridge, host and none are always there; they can't be removed.

A record that can't be read hides no other network. Until it is repaired, or its directory removed, no network is made
and no rule is written: its name, its subnet and its bridge are not known.
"""

from __future__ import annotations

import os
import secrets
import shutil

from ...linux.path import read_file
from ...network import pools
from ...spec import jsonio
from ...spec.errors import Conflict, Internal, Invalid, NotFound, OrlopError
from ...spec.network import Network, Pool
from ..containers import names
from ..containers.record import timestamp, write_durably

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FILE = "network.json"
POOLS_FILE = "pools.json"
FILE_BYTES_MAX = 1 << 20
PREDEFINED = {"bridge": "bridge", "host": "host", "none": "null"}
DEFAULT = "bridge"


class Store:
    """All networks, by id. Reading takes no lock: the dict is replaced, never changed."""

    def __init__(self, directory: str) -> None:
        """directory: $ORLOP_ROOT/networks; it exists."""
        self.directory = directory
        self._all: dict[str, Network] | None = None
        self._damaged: OrlopError | None = None

    def all(self) -> dict[str, Network]:
        """Return every network by its id, as it is now; one whose record can't be read is left out."""
        if self._all is None or self._damaged:
            self._damaged = None
            self._all = {network.id: network for network in self._read()}
            present = {network.name for network in self._all.values()}
            for name, driver in PREDEFINED.items():
                if name not in present and not self._damaged:  # it may be that one
                    self.save(_predefined(name, driver))
        return self._all

    def check(self) -> None:
        """Raise Internal, which names the file, while there is a record that can't be read."""
        self.all()
        if self._damaged:
            raise self._damaged

    def get(self, network_id: str) -> Network | None:
        """Return a network of a whole id, None when it is gone."""
        return self.all().get(network_id)

    def find(self, reference: str) -> Network:
        """Return the network that a user means by an id, a name, or the beginning of exactly one id.

        Raises NotFound with docker's text; Invalid when several ids begin so; what `check` raises for what may be that.
        """
        every = self.all()
        if reference.startswith("cni:"):  # of that driver, so that no other one of this name is meant
            reference = next((one.id for one in every.values() if f"cni:{one.name}" == reference), reference)
        if reference in every:
            return every[reference]
        for network in every.values():
            if network.name == reference:
                return network
        found = [network for network in every.values() if reference and network.id.startswith(reference)]
        if len(found) > 1:
            cause = f"network {reference} is ambiguous ({len(found)} matches found on ID prefix)"
            raise Invalid("find", f"network {reference}", cause, hint="give more digits of the id, or the name")
        if not found:
            self.check()
            shown = reference[:100]
            hint = "list the networks with: orlop network ls"
            raise NotFound("find", f"network {shown}", f"network {shown} not found", hint=hint, code="E0701")
        return found[0]

    def check_name(self, name: str) -> None:
        """Raise Invalid for what is no name, Conflict with docker's text for one that is taken, and as `check`."""
        if not name.strip():
            raise Invalid("create", "a network", "invalid name: name is empty", hint="give a name: network create NAME")
        names.check_name(name, "network")
        if any(network.name == name for network in self.all().values()):
            cause = f"network with name {name} already exists"
            raise Conflict("create", f"network {name}", cause, hint=f"use it, or remove it: orlop network rm {name}")
        self.check()

    def pools(self) -> Sequence[tuple[str, int]]:
        """Return where subnets are cut from: what the administrator has written, else those that there always are.

        Raises Invalid for a file that can't be meant.
        """
        path = f"{self.directory}/{POOLS_FILE}"
        try:
            data = read_file(path, FILE_BYTES_MAX)
        except FileNotFoundError:
            return pools.POOLS
        except OSError as wrong:
            raise Invalid("read", path, wrong.strerror or str(wrong), hint="write it anew, or remove it") from None
        return pools.read(jsonio.parse(data, path, bytes_max=FILE_BYTES_MAX), path)

    def save(self, network: Network) -> None:
        """Write a network durably."""
        directory = f"{self.directory}/{network.id}"
        os.makedirs(directory, 0o700, exist_ok=True)
        write_durably(f"{directory}/{FILE}", jsonio.dump(network.to_json()))
        self._all = {**(self._all or {}), network.id: network}

    def remove(self, network: Network) -> None:
        """Forget a network."""
        os.unlink(f"{self.directory}/{network.id}/{FILE}")
        shutil.rmtree(f"{self.directory}/{network.id}", ignore_errors=True)
        self._all = {known: other for known, other in self.all().items() if known != network.id}

    def sweep(self) -> None:
        """Remove what is left of networks whose creation or removal never came to its end. For an engine that opens."""
        for name in os.listdir(self.directory):
            path = f"{self.directory}/{name}"
            if os.path.isdir(path) and not os.path.islink(path) and not os.path.lexists(f"{path}/{FILE}"):
                shutil.rmtree(path, ignore_errors=True)

    def _read(self) -> Iterator[Network]:
        for name in os.listdir(self.directory):
            path = f"{self.directory}/{name}/{FILE}"
            hint = f"repair {path} or remove its directory"
            try:
                data = read_file(path, FILE_BYTES_MAX)
                network = Network.from_json(jsonio.parse(data, path, bytes_max=FILE_BYTES_MAX), path)
            except (FileNotFoundError, NotADirectoryError):
                continue  # a creation that never came to its end
            except OSError as wrong:
                self._damaged = Internal("read", path, wrong.strerror or str(wrong), hint=hint)
            except OrlopError as wrong:
                self._damaged = Internal("read", path, wrong.cause, hint=hint)
            else:
                if network.id == name:
                    yield network


def new_id() -> str:
    """Return an id for a network or an endpoint: 64 hex digits, the first 12 not all digits, as docker's."""
    while (drawn := secrets.token_hex(32))[:12].isdecimal():
        pass
    return drawn


def _predefined(name: str, driver: str) -> Network:
    pools = (Pool(subnet="", auto=True),) if name == DEFAULT else ()
    return Network(id=new_id(), name=name, driver=driver, created_at=timestamp(), pools=pools)
