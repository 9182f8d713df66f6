"""What of a container may change after it was made: its name, and its limits, also while it runs."""

from __future__ import annotations

from contextlib import ExitStack

from ...runtime import resources as settings
from ...spec import jsonio
from ...spec.errors import Conflict, Invalid, NotFound, OrlopError, Unavailable
from ...spec.runtime import Pids, Resources
from ...spec.task import SPEC_FILE
from .. import events, host
from ..compile import resources
from ..networks import links
from ..networks import names as resolver_names
from ..supervision import orders
from . import files, names
from .record import disk_trouble_told, write_durably

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...linux.cgroup import Cgroup
    from ...spec.container import ContainerRequest, UpdateRequest
    from ..engine import Engine
    from .record import ContainerRecord

_PARTS = ("memory", "cpu", "pids", "block_io")


def rename(engine: Engine, reference: str, name: str) -> None:
    """Give a container another name. Raises NotFound, Invalid for what is no name, Conflict for one that is taken."""
    record = engine.records.find(reference)
    if not name:
        cause = "Neither old nor new names may be empty"
        raise Invalid("rename", record.subject, cause, hint="write: orlop rename OLD NEW", code="E0106")
    with engine.locks.hold(record.id):
        record = engine.records.load(record.id)
        if names.check_name(name) == record.name:
            cause = "Renaming a container with the same name as its current name"
            raise Invalid("rename", record.subject, cause, hint="choose another name", code="E0106")
        try:
            with engine.records.reserved(name, record.id) as new, disk_trouble_told("rename", record.subject):
                engine.records.save(record.replace(name=new))
        except Conflict as wrong:
            raise Conflict("rename", record.subject, wrong.cause, hint=wrong.hint) from None
        resolver_names.rename(engine, record.replace(name=new), record.name)
    events.publish_container(engine, record.replace(name=new), "rename", {"oldName": f"/{record.name}"})


def unlink(engine: Engine, reference: str, alias: str) -> None:
    """Take a link of the default bridge away; a container that runs loses the name at once, not its variables.

    alias: "" is the container's own name, which is no link. Raises NotFound, Conflict.
    """
    record = engine.records.find(reference)
    if not alias:
        cause = "Conflict, cannot remove the default link name of the container"
        raise Conflict("unlink", record.subject, cause, hint="name a link: CONTAINER/ALIAS")
    with engine.locks.hold(record.id):
        record = engine.records.load(record.id)
        kept = tuple(link for link in record.request.links if links.split(link)[1] != alias)
        if kept == record.request.links:
            name = f"{record.name}/{alias[:100]}"
            raise NotFound("find", f"link {name}", f"No such container: {name}")
        before, record = record, record.replace(request=record.request.replace(links=kept))
        with disk_trouble_told("unlink", record.subject):
            engine.records.save(record)
            attachment = engine.networks.attachments.get(record.id)
            if attachment is not None and engine.observe(record.id).is_up:
                files.update(engine, record, attachment, (before, attachment))


def update(engine: Engine, reference: str, wanted: UpdateRequest) -> tuple[str, ...]:
    """Change the limits and the restart policy of a container, at once where it runs; return the warnings.

    All of it or nothing: what the kernel refuses leaves the limits of before.
    Raises NotFound, Invalid with docker's texts, Unsupported, Unavailable for what the kernel refuses.
    """
    record = engine.records.find(reference)
    with engine.locks.hold(record.id):
        record = engine.records.load(record.id)
        request = _changed(record.request, wanted)
        before, after, warnings = _limits(engine, record, request)
        with ExitStack() as undo:
            task = engine.observe(record.id)
            if task.lives and task.status is not None:
                cgroup = engine.cgroup(record.id, task.status)
                undo.callback(_put_back, engine, cgroup, _difference(after, before))
                _apply(engine, record, cgroup, _difference(before, after))
            _write(engine, record, request, after)
            undo.pop_all()
    events.publish_container(engine, record, "update")
    return warnings


def _changed(request: ContainerRequest, wanted: UpdateRequest) -> ContainerRequest:
    """Return the request with what is given; docker's 0 and "" leave a limit as it is."""
    given = {name: value for name, value in vars(wanted).items() if value or (name == "pids_max" and value is not None)}
    if wanted.restart_policy:
        given["restart_retries_max"] = wanted.restart_retries_max or 0
    if "pids_max" in given:
        given["pids_max"] = max(given["pids_max"], 0)
    return request.replace(**given)


def _limits(
    engine: Engine, record: ContainerRecord, request: ContainerRequest
) -> tuple[Resources, Resources, tuple[str, ...]]:
    """Return the limits before and after, and what is to be said about those after."""
    devices = host.devices(request, record.subject)
    try:
        orders.check(request, record.subject)
        after, warnings = resources.resources(request, engine.host, devices, record.subject)
    except OrlopError as wrong:
        wrong.verb = "update"
        raise
    before = engine.records.spec(record.id).linux.resources or Resources()
    return before, after.replace(devices=before.devices), warnings


def _difference(before: Resources, after: Resources) -> Resources:
    """Return the parts of the limits that differ. A limit that is gone is one of -1: without limit."""
    parts = {name: getattr(after, name) for name in _PARTS if getattr(after, name) != getattr(before, name)}
    if "pids" in parts and parts["pids"] is None:
        parts["pids"] = Pids(limit=-1)
    return Resources().replace(**parts)


def _apply(engine: Engine, record: ContainerRecord, cgroup: Cgroup, changed: Resources) -> None:
    try:
        cgroup.apply(settings.settings(changed, engine.host.runtime.layout, devices=False))
    except OSError as wrong:
        is_gone = isinstance(wrong, FileNotFoundError) and str(wrong.filename).endswith(cgroup.path)
        if is_gone or (isinstance(wrong, FileNotFoundError) and not engine.observe(record.id).lives):
            return  # it has ended, which its monitor says a moment later: the next start has the new limits
        cause = f"the kernel refuses {wrong.filename}: {wrong.strerror}"
        hint = "nothing was changed; a memory limit must be above what is in use: orlop stats --no-stream"
        raise Unavailable("update", record.subject, cause, hint=hint, code="E0507") from None


def _put_back(engine: Engine, cgroup: Cgroup, changed: Resources) -> None:
    try:
        cgroup.apply(settings.settings(changed, engine.host.runtime.layout, devices=False))
    except (OSError, OrlopError) as wrong:
        engine.log.write(f"limits of {cgroup.path} can't be put back: {wrong}")


def _write(engine: Engine, record: ContainerRecord, request: ContainerRequest, limits: Resources) -> None:
    spec = engine.records.spec(record.id)
    after = spec.replace(linux=spec.linux.replace(resources=limits))
    with disk_trouble_told("update", record.subject):
        path = f"{engine.records.path(record.id)}/{SPEC_FILE}"
        write_durably(path, jsonio.dump(after.to_json()), last=False)
        engine.records.save(record.replace(request=request))
        if request.restart_policy != record.request.restart_policy or request.restart_retries_max:
            orders.renew(engine, record.replace(request=request))
