"""`orlop show-run`: the command line that made a container, as a shell takes it, or another tool."""

from __future__ import annotations

from ....spec.container import ContainerRequest
from ....spec.errors import Invalid
from ..command import Command, Invocation, for_output, warn, write, write_line
from ..flags import BOOL, STRING, Flag
from .run import id_of

FORMS = ("run", "compose", "kube", "quadlet")


def _show_run(invocation: Invocation) -> int:
    (container,) = invocation.arguments
    with invocation.connect() as engine:
        found = engine.call("containers.request", {"container": container})
    facts = found if isinstance(found, dict) else {}
    request = ContainerRequest.from_json(facts.get("again"), f"the request of container {container}")
    options = invocation.options
    name = options["name"] if "name" in options.given else str(facts.get("name", ""))
    form = options["as"]
    if form not in FORMS:
        hint = f"use one of {', '.join(FORMS)}"
        raise Invalid("show", f"container {container}", f"there is no form {form[:40]!r}", hint=hint)
    text, missing = _written(request, name, form)
    if missing:
        warn(f"{form} has no words for {', '.join(missing)}: left out")
    write(text)
    return 0


def _written(request: ContainerRequest, name: str, form: str) -> tuple[str, list[str]]:
    """Return the request in one of the forms, and what that can't say."""
    if form == "run":
        import shlex

        from ..commandline import flag_of, words

        missing = [flag_of("configs")] if request.configs else []
        # One line: a word may hold line breaks of its own, which quotes keep.
        return for_output(shlex.join(["orlop", *words(request, name)])) + "\n", missing
    if form == "quadlet":
        from ..written import quadlet

        return quadlet.text(request, name)
    from ...compose.document import library
    from ..written import compose, kube

    found, missing = (compose if form == "compose" else kube).document(request, name)
    text: str = library().safe_dump(found, sort_keys=False, allow_unicode=True, default_flow_style=False)
    return text, missing


def _clone(invocation: Invocation) -> int:
    """podman's: a container with the configuration of another, and its own writable layer."""
    source, *more = invocation.arguments
    options = invocation.options
    with invocation.connect() as engine:
        found = engine.call("containers.request", {"container": source})
        facts = found if isinstance(found, dict) else {}
        request = ContainerRequest.from_json(facts.get("again"), f"the request of container {source}")
        name = options["name"] or (more[0] if more else f"{facts.get('name', source)}-clone")
        request = request.replace(name=name, image=more[1] if len(more) > 1 else request.image)
        if options["destroy"]:
            args = {"container": source, "force": options["force"], "volumes": False}
            engine.call("containers.remove", args)
        container = id_of(engine.call("containers.create", {"request": request.to_json()}))
        if options["run"]:
            engine.call("containers.start", {"container": container, "attached": False, "console_size": None})
    write_line(container)
    return 0


CLONE = Command(
    _clone,
    "Create a container with the configuration of another",
    "[OPTIONS] CONTAINER [NAME [IMAGE]]",
    flags=(
        Flag("destroy", "", BOOL, "Remove the other one", default=False),
        Flag("force", "f", BOOL, "Remove the other one although it runs", default=False),
        Flag("name", "", STRING, "Name of the new container", default=""),
        Flag("run", "", BOOL, "Start the new container", default=False),
    ),
    arguments=(1, 3),
    exit_failure=125,
)
SHOW_RUN = Command(
    _show_run,
    "Print the command line that made a container",
    "[OPTIONS] CONTAINER",
    flags=(
        Flag("as", "", STRING, 'The form ("run", "compose", "kube", "quadlet")', default="run"),
        Flag("name", "", STRING, 'Give a copy this name ("" has one drawn)', default=""),
    ),
    arguments=(1, 1),
    aliases=("container show-run", "show-run"),
)
