"""`orlop show-run`: the command line that made a container, as a shell takes it."""

from __future__ import annotations

from ....spec.container import ContainerRequest
from ..command import Command, Invocation, for_output, write
from ..flags import STRING, Flag


def _show_run(invocation: Invocation) -> int:
    import shlex

    from ..commandline import words

    (container,) = invocation.arguments
    with invocation.connect() as engine:
        found = engine.call("containers.request", {"container": container})
    facts = found if isinstance(found, dict) else {}
    request = ContainerRequest.from_json(facts.get("request"), f"the request of container {container}")
    options = invocation.options
    name = options["name"] if "name" in options.given else str(facts.get("name", ""))
    # One line: a word may hold line breaks of its own, which quotes keep.
    write(for_output(shlex.join(["orlop", *words(request, name)])) + "\n")
    return 0


SHOW_RUN = Command(
    _show_run,
    "Print the command line that made a container",
    "[OPTIONS] CONTAINER",
    flags=(Flag("name", "", STRING, 'Give a copy this name ("" has one drawn)', default=""),),
    arguments=(1, 1),
    aliases=("container show-run", "show-run"),
)
