"""A registry's repositories: tags, manifests and the blobs they hold on to. `Repositories` is the door.

<root>/content/          the blobs, of manifests too, in an OCI image layout (orlop.content)
       repositories.db   who holds which blob (SQLite)
       lock              held by the one process that serves this root
"""

from .repositories import Manifest, Repositories
from .rules import Rules
from .sweep import Swept

__all__ = ["Manifest", "Repositories", "Rules", "Swept"]
