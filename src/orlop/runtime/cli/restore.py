"""restore: a directory of images becomes a running container again, through CRIU."""

from __future__ import annotations

import os

from ...linux.cgroup import Cgroup
from ...spec.errors import Unsupported
from ...spec.runtime import OCI_VERSION, Spec, State
from .. import channel, hooks, host, plan, rootfs
from ..criu import masks, options
from ..criu.restore import Ground, RestoreOptions, kill
from ..criu.restore import restore as make_again
from ..criu.service import Criu
from . import create, foreground
from .call import Call, write_pid_file
from .checkpoint import shared
from .store import check_id, read_spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..criu.restore import Restored

_POINT = "criu-root"


def restore(call: Call) -> int:
    """Restore a container from a checkpoint; without --detach wait for its end and return its exit status."""
    container = check_id(call.container())
    if call.flags.on("no-pivot"):
        cause = "--no-pivot is not supported: CRIU makes the root as it was"
        raise Unsupported("restore", f"container {container}", cause, hint="leave --no-pivot out", code="E1301")
    spec = create.placed(call, create.checked(read_spec(os.path.join(call.bundle(), create.SPEC_FILE)), container))
    wanted = RestoreOptions(
        common=shared(call),
        lsm_profile=call.flags.text("lsm-profile"),
        lsm_mount_context=call.flags.text("lsm-mount-context"),
    )
    criu = Criu(call.criu)
    directory = call.store.reserve(container)
    restored = None
    try:
        foreground.become_reaper(not call.flags.on("detach") and not call.flags.on("no-subreaper"))
        state = State(
            oci_version=OCI_VERSION, id=container, status="creating", bundle=call.bundle(), annotations=spec.annotations
        )
        restored = _restored(call, criu, spec, directory, wanted, state)
        if restored.console is not None and call.flags.text("console-socket"):
            channel.send_descriptor(call.flags.text("console-socket"), restored.console, b"/dev/ptmx")
        write_pid_file(call.flags.text("pid-file"), restored.pid)
    except BaseException:
        if restored:
            kill(restored)
        call.store.forget(container)
        raise
    if call.flags.on("detach"):
        return 0
    terminal = foreground.terminal_of(restored, call.flags)
    foreground.pass_signals_on(restored.pidfd, terminal)
    code = foreground.wait(restored, terminal)
    create.destroy(call, call.store.load(container))
    return code


def _restored(call: Call, criu: Criu, spec: Spec, directory: str, wanted: RestoreOptions, state: State) -> Restored:
    assert spec.root
    facts = host.facts()
    compiled = plan.compile(spec, facts)
    cgroup = Cgroup(facts.layout, compiled.cgroup.path) if compiled.cgroup else None

    def notified(script: str, pid: int) -> None:
        now = state.replace(pid=pid)
        if script == "setup-namespaces":
            hooks.run(compiled.hooks.prestart, "prestart", now)
            hooks.run(compiled.hooks.create_runtime, "createRuntime", now)
        elif script == "post-restore":  # everything is there, nothing runs yet
            masks.protect(spec, pid)
            call.store.save(create.entry_of(now, spec, cgroup), spec)

    root = rootfs.open_bundle_root(spec.root, state.bundle)
    try:
        point = os.path.join(directory, _POINT)
        ground = Ground(root=root, point=point, layout=facts.layout, cgroup=compiled.cgroup)
        path = compiled.cgroup.path if compiled.cgroup else ""
        container = options.Container(id=state.id, spec=spec, bundle=state.bundle, cgroup=path)
        return make_again(criu, container, ground, wanted, notified)
    finally:
        os.close(root)
