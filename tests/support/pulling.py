"""Pulls without an engine: a store, snapshots, and the way to a registry of a test."""

from __future__ import annotations

from pathlib import Path

from orlop.content import Store
from orlop.image import Images
from orlop.image.download import Downloads
from orlop.image.pull import Pull
from orlop.image.registry import Endpoint, Remote, Repository, Transport
from orlop.image.registry.tls import DEFAULT_TLS
from orlop.snapshot import Snapshots
from orlop.spec.platform import Platform
from orlop.spec.reference import Reference
from orlop.spec.registry import Credentials

from .registries import Registry

PASSWORD = Credentials(username="u", password="secret-of-the-test")


class Puller:
    """A store, snapshots, and pulls into them."""

    def __init__(self, root: Path) -> None:
        self.store = Store(str(root / "content"))
        self.images = Images(self.store)
        self.snapshots = Snapshots(str(root / "snapshots"))
        self.downloads = Downloads(self.store)
        self.transport = Transport()

    def repository(self, host: str, credentials: Credentials = PASSWORD) -> Repository:
        endpoint = Endpoint(host, "lib/x", scheme="http", tls=DEFAULT_TLS)
        return Repository(Remote(self.transport, endpoint, credentials), f"{host}/lib/x")

    def pull(self, registry: Registry, tag: str = "1") -> list[dict[str, object]]:
        reference = Reference.parse(f"{registry.name}/lib/x{'@' if ':' in tag else ':'}{tag}")
        places = [self.repository(registry.name)]
        one = Pull(self.store, self.downloads, places, reference, Platform.parse("linux/amd64"))
        with self.store.leases.hold() as lease:
            return list(one.run(lease, self.snapshots.unpack))

    def blobs(self) -> set[str]:
        return {str(found) for found in self.store.digests()}

    def close(self) -> None:
        self.transport.close()
        self.snapshots.close()
