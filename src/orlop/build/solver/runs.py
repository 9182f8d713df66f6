"""The step RUN: what its mounts hold, what the cache knows of it, and the command in its container."""

from __future__ import annotations

from contextlib import ExitStack

from orlop.engine.steps import run as steps
from orlop.spec.container import DeviceRequest
from orlop.spec.errors import CommandFailed, Denied, Invalid, NotFound

from .. import graph
from . import foreign, keys
from .mounts import Mounted
from .solve import Solved, base_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from orlop.engine.steps.workspace import Workspace

    from ..journal import StepLog
    from .solve import Solver

SHOWN_LINES = 40
AGAIN_BYTES_MIN = 10 * 10**6  # of a layer, from which on it is told


def solve(solver: Solver, step: graph.Run, log: StepLog) -> Solved:
    """Make or find the layer of a RUN. Raises CommandFailed with the command's exit status, Denied, NotFound."""
    _check_entitlements(solver, step)
    devices = _devices(solver, step)
    base = solver.solved[step.base].tree
    with ExitStack() as held:
        mounted = Mounted(solver, step, held)
        contents = mounted.contents()
        key = keys.run_key(step, base_of(base), contents, solver.settings.platform, solver.settings.salt)
        key.add("times", str(solver.settings.mtime_max_ns))
        key.add("devices", " ".join(devices))
        if (found := solver.cached(step, key, base)) is not None:
            return found
        foreign.check(solver, step)
        solver.why(step, key, log)
        space = solver.open_space(base.layers)
        try:
            command = make_command(solver, step, mounted, space, devices)
            log.note({"container": space.key})
            code = steps.run(solver.engine, space, command, log.write, solver.cancelled, solver.later)
            if code:
                raise _failed(solver, step, log, code)
            layer = space.commit(solver.settings.mtime_max_ns, steps.targets(command), solver.check)
        except BaseException as failure:
            if isinstance(failure, CommandFailed) and solver.settings.request.keep_failed and not solver.kept:
                space.keep(solver.name)
                solver.kept = space.key
            else:
                space.discard()
            raise
    if space.again_bytes >= AGAIN_BYTES_MIN:
        _warn_of_size(solver, step, space.again_bytes)
    return solver.keep(step, key, base, layer)


def _warn_of_size(solver: Solver, step: graph.Run, again_bytes: int) -> None:
    detail = (
        f"{step.origin.text[:80]} stores {again_bytes / 10**6:.1f} MB once more, of which only owner, mode or "
        "attributes changed; give them where the files come in (COPY --chown, --chmod), or build with --squash"
    )
    warning = {"rule": "LayerStoresAgain", "detail": detail, "lines": list(step.origin.lines)}
    solver.journal.tell({"warning": warning})


def make_command(
    solver: Solver, step: graph.Run, mounted: Mounted, space: Workspace, devices: Sequence[str] = ()
) -> steps.Command:
    """Return what is executed: the step's command with its mounts and CDI devices, the build's limits and network."""
    command = steps.Command(step.argv, step.env, step.cwd, step.user)
    network = step.network if step.network != graph.DEFAULT else ""
    request = solver.settings.limits()
    command.request = request.replace(
        network=network or request.network,
        privileged=step.security == graph.INSECURE,
        devices=tuple(DeviceRequest(source=name) for name in devices),
    )
    command.mounts, variables = mounted.mounts(space)
    command.env = (*step.proxies, *step.env, *variables)
    return command


def _check_entitlements(solver: Solver, step: graph.Run) -> None:
    """Raise Denied for what a Dockerfile asks and the user did not allow (SEC-62)."""
    allowed = solver.settings.request.allow
    for wanted, entitlement in (
        (step.security == graph.INSECURE, "security.insecure"),
        (step.network == graph.HOST and solver.settings.request.network != graph.HOST, "network.host"),
    ):
        if wanted and entitlement not in allowed:
            hint = f"if you trust the Dockerfile: orlop build --allow {entitlement}"
            raise Denied("run", step.origin.text or "a step", f"{entitlement} is not allowed", hint=hint)


def _devices(solver: Solver, step: graph.Run) -> list[str]:
    """Return the names of the CDI devices of a step. Raises Denied, Invalid, NotFound."""
    if not step.devices:
        return []
    from orlop.engine.cdi import specs

    subject = step.origin.text or "a step"
    known, troubles = specs.known()
    allowed = set(solver.settings.request.allow)
    granted = {entry.partition("=")[2] for entry in allowed if entry.startswith("device=")}
    found: list[str] = []
    for wanted in step.devices:
        name = wanted.removesuffix("?")
        try:
            matching = specs.matching(name, known)
        except ValueError as wrong:
            raise Invalid("run", subject, str(wrong), hint="write --device=VENDOR/CLASS=NAME") from None
        if not matching and not wanted.endswith("?"):
            hint = "say required=false if the step can do without"
            hint += "".join(f"; {trouble}" for trouble in troubles)[:600]
            raise NotFound("run", subject, f'required device "{name}" is not registered', hint=hint)
        for one in matching:
            is_granted = "device" in allowed or {one, one.partition("=")[0], name} & granted
            if not is_granted and not known[one].is_allowed:
                hint = f"if you trust the Dockerfile: orlop build --allow device={one}"
                raise Denied("run", subject, f"device {one} is not allowed", hint=hint)
        found += matching
    return list(dict.fromkeys(found))


def _failed(solver: Solver, step: graph.Run, log: StepLog, code: int) -> CommandFailed:
    shown = " ".join(step.argv)
    cause = f'process "{shown}" did not complete successfully: exit code: {code}'
    solver.tail = log.tail(SHOWN_LINES)
    hint = f"its whole output: orlop build logs {solver.name}@{log.number}"
    if not log.log_bytes:
        hint = "it wrote nothing"
        if solver.settings.request.keep_failed:
            hint += f"; look at what it left: orlop build shell {solver.name}@{log.number}"
    return CommandFailed("build", step.origin.text or shown, cause, hint=hint, exit_code=code, code="E1415")
