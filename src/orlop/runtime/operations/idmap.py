"""User namespaces that exist only to hold the id maps of a mount (mount_setattr(2), "ID-mapped mounts")."""

import os

from ...linux import process
from ...linux.signals import SIGKILL
from ...spec.record import Record
from ...spec.runtime import IdMapping
from .namespaces import map_ids


class IdMap(Record):
    """How ids on disk appear in the mount: container_id is on disk, host_id is what the caller's namespace sees."""

    uids: tuple[IdMapping, ...]
    gids: tuple[IdMapping, ...]
    recursive: bool = False

    def open_user_namespace(self) -> int:
        """Return a descriptor of a new user namespace with these maps. Needs a caller with one thread.

        A namespace needs a process that makes it; this one does nothing, and is gone when this returns.
        """
        pid, pidfd = process.clone3(process.CLONE_NEWUSER)
        if pid == 0:
            try:
                process.pause()
            finally:
                os._exit(0)
        try:
            map_ids(pid, self.uids, self.gids)
            return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            process.pidfd_send_signal(pidfd, SIGKILL)
            process.wait_pidfd(pidfd)
            os.close(pidfd)
