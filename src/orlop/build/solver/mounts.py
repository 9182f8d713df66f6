"""What is mounted while a step runs: trees, caches, memory, secrets, agents, here-documents.

Invariants:
1. A source is a descriptor of this process before it is mounted (`/proc/<pid>/fd/<n>`): what was looked up is what is
   mounted, whoever renames meanwhile (SEC-60, SEC-63).
2. Secrets lie in the engine's own run directory, for this user alone and for as long as the step runs; they are in no
   layer and in no key.
3. What is written to a bind mount goes into a layer of its own that is thrown away.
"""

from __future__ import annotations

import os
import shutil
import stat

from orlop.engine.containers import names
from orlop.engine.steps.workspace import KEPT
from orlop.linux.path import open_in_root
from orlop.spec.errors import Invalid, NotFound
from orlop.spec.runtime import Mount

from .. import graph
from .tree import Tree, listing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contextlib import ExitStack

    from orlop.engine.steps.workspace import Workspace

    from .solve import Solver

COPY_BYTES = 16 * 1024 * 1024
_BIND = ("rbind", "rprivate")
_SECRET = (*_BIND, "ro", "nosuid", "nodev", "noexec")


class Mounted:
    """The mounts of one step. held: what is undone when the step is over."""

    def __init__(self, solver: Solver, step: graph.Run, held: ExitStack) -> None:
        self._solver = solver
        self._step = step
        self._held = held
        self._listed: dict[str, str] = {}

    def contents(self) -> dict[str, str]:
        """Return what each mount of content holds: target -> key. Raises NotFound for what is not there."""
        found = {}
        for mount in self._step.mounts:
            if isinstance(mount, graph.BindMount):
                tree = self._solver.solved[mount.source].tree
                found[mount.target] = f"{tree.key} {mount.path}" if tree.key else self._digest(tree, mount.path)
            elif isinstance(mount, graph.SecretMount | graph.SshMount) and mount.required:
                self._check_given(mount)
        return found

    def _check_given(self, mount: graph.SecretMount | graph.SshMount) -> None:
        settings = self._solver.settings
        if isinstance(mount, graph.SecretMount) and settings.secret(mount.id) is None:
            hint = f"give it with: --secret id={mount.id},src=FILE"
            raise NotFound("mount", f"secret {mount.id}", f"secret {mount.id}: not found", hint=hint)
        if isinstance(mount, graph.SshMount) and settings.agent(mount.id) is None:
            hint = f"give it with: --ssh {mount.id}"
            raise NotFound("mount", f"ssh {mount.id}", f"unset ssh forward key {mount.id}", hint=hint)

    def mounts(self, space: Workspace) -> tuple[tuple[Mount, ...], tuple[str, ...]]:
        """Return the mounts, and variables that secrets and agents become."""
        made: list[Mount] = []
        variables: list[str] = []
        for number, mount in enumerate(self._step.mounts):
            if isinstance(mount, graph.BindMount):
                made.append(self._bind(mount, space, number))
            elif isinstance(mount, graph.CacheMount):
                made.append(self._cache(mount))
            elif isinstance(mount, graph.TmpfsMount):
                size = (f"size={mount.size_bytes}",) if mount.size_bytes else ()
                made.append(Mount(destination=mount.target, type="tmpfs", source="tmpfs", options=("nosuid", *size)))
            elif isinstance(mount, graph.SecretMount):
                self._secret(mount, number, made, variables)
            elif isinstance(mount, graph.SshMount):
                self._agent(mount, number, made, variables)
            else:
                place = self._file(f"script{number}", mount.data, mount.mode)
                made.append(Mount(destination=mount.target, type="bind", source=place, options=(*_BIND, "ro")))
        return tuple(made), tuple(variables)

    def _digest(self, tree: Tree, path: str) -> str:
        with self._solver.opened(tree) as root:
            return listing(root, path, tree).digest(owners=False)

    # -- trees ------------------------------------------------------------------------------------------------------

    def _bind(self, mount: graph.BindMount, space: Workspace, number: int) -> Mount:
        tree = self._solver.solved[mount.source].tree
        layers = tree.layers if tree.key else self._solver.as_layers(mount.source)
        self._solver.bound[mount] = str(layers[-1].chain_id) if layers else ""
        # The tree of a step that failed may be entered several times at once.
        key = f"{names.new_id() if space.key.startswith(KEPT) else space.key}-{number:08x}"
        inner = self._solver.open_space(layers, key, inside=True)
        self._held.callback(inner.discard)
        root = self._held.enter_context(inner.opened())
        try:
            place = open_in_root(root, mount.path, os.O_PATH)
        except OSError:
            cause = f'failed to compute cache key: "{mount.path}": not found'
            raise NotFound(
                "mount", mount.path, cause, hint=f"look what {mount.target} should show", code="E1416"
            ) from None
        try:
            if not stat.S_ISDIR(os.fstat(place).st_mode):
                return self._copy_of_file(place, mount, number)
            # Where it really lies: a link on the way may begin with a slash, and means the tree's root. The root is a
            # mount of nobody else, so the place's name begins there.
            inside = os.readlink(f"/proc/self/fd/{place}").strip("/")
        finally:
            os.close(place)
        (whole,) = self._solver.engine.snapshots.mounts(key)
        if not layers:
            raise Invalid("mount", mount.target, "there is nothing in the empty image to mount")
        subdirectory = (f"X-mount.subdir={inside}",) if inside else ()
        options = (*whole.options, *subdirectory, *(("ro",) if mount.read_only else ()))
        return whole.replace(destination=mount.target, options=options)

    def _copy_of_file(self, place: int, mount: graph.BindMount, number: int) -> Mount:
        """Return the mount of a copy of one file: a part of a tree that is mounted alone has to be a directory."""
        path = f"{self._directory()}/file{number}"
        info = os.fstat(place)
        with open(f"/proc/self/fd/{place}", "rb", buffering=0) as source, open(path, "xb", buffering=0) as target:
            while os.sendfile(target.fileno(), source.fileno(), None, COPY_BYTES):
                pass
            os.fchown(target.fileno(), info.st_uid, info.st_gid)
            os.fchmod(target.fileno(), stat.S_IMODE(info.st_mode))
        options = (*_BIND, "ro") if mount.read_only else _BIND
        return Mount(destination=mount.target, type="bind", source=path, options=options)

    def _cache(self, mount: graph.CacheMount) -> Mount:
        from .cachemounts import held_cache

        path = self._held.enter_context(held_cache(self._solver, mount))
        options = (*_BIND, "ro") if mount.read_only else _BIND
        return Mount(destination=mount.target, type="bind", source=path, options=options)

    # -- secrets ----------------------------------------------------------------------------------------------------

    def _secret(self, mount: graph.SecretMount, number: int, made: list[Mount], variables: list[str]) -> None:
        data = self._solver.settings.secret(mount.id)
        if data is None:
            return
        if mount.env:
            variables.append(f"{mount.env}={data.decode(errors='surrogateescape')}")
        if mount.target:
            place = self._file(f"secret{number}", data, mount.mode, mount.uid, mount.gid)
            made.append(Mount(destination=mount.target, type="bind", source=place, options=_SECRET))

    def _agent(self, mount: graph.SshMount, number: int, made: list[Mount], variables: list[str]) -> None:
        path = self._solver.settings.agent(mount.id)
        if path is None:
            return
        from .agent import connected, forwarded

        target = mount.target or f"/run/buildkit/ssh_agent.{number}"
        socket = f"{self._directory()}/agent{number}"
        self._held.enter_context(forwarded(lambda: connected(path), socket, (mount.uid, mount.gid), mount.mode))
        made.append(Mount(destination=target, type="bind", source=socket, options=_BIND))
        variables.append(f"SSH_AUTH_SOCK={target}")

    def _file(self, name: str, data: bytes, mode: int, uid: int = 0, gid: int = 0) -> str:
        path = f"{self._directory()}/{name}"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as file:
            file.write(data)
            os.fchown(fd, uid, gid)
            os.fchmod(fd, mode)
        return path

    def _directory(self) -> str:
        if "" not in self._listed:
            directory = f"{self._solver.engine.paths.run}/build-{os.urandom(8).hex()}"
            os.mkdir(directory, 0o700)
            self._held.callback(shutil.rmtree, directory, ignore_errors=True)
            self._listed[""] = directory
        return self._listed[""]
