"""podman's pods that share nothing, as podman-compose makes them: a name that containers have in common.

Such a pod is a label of its containers, so it is there as long as one of them is; `create` of one that shares a
namespace is refused. Source: podman-pod-create(1), podman-create(1) (--pod).
"""

from __future__ import annotations

from ....spec.errors import Invalid, Unsupported
from .. import main
from ..command import Command, Invocation, write_line
from ..containers.podman import POD_LABEL, parse_pod
from ..flags import BOOL, EXIT_USAGE, STRING, BadValue, Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# Verbs of a pod that are the verbs of its containers.
_OF_CONTAINERS = ("kill", "pause", "restart", "rm", "start", "stop", "unpause")


def run(words: Sequence[str]) -> int:
    """Run `podman pod WORDS`; return its status."""
    verb, *rest = [*words, ""][: len(words) or 1]
    if verb in _OF_CONTAINERS:
        names = [word for word in rest if not word.startswith("-")]
        flags = [word for word in rest if word.startswith("-")]
        return max((main.main([verb, *flags, "--filter", f"label={POD_LABEL}={name}"]) for name in names), default=0)
    command = {"create": _CREATE, "exists": _EXISTS}.get(verb)
    if command is None:
        known = ", ".join(sorted((*_OF_CONTAINERS, "create", "exists")))
        main.explain(Unsupported("run", f"pod {verb[:40]}", "Orlop has no such command", hint=f"known are {known}"))
        return EXIT_USAGE
    return main.run_command(command, f"podman pod {verb}", rest, debug=False)


def _create(invocation: Invocation) -> int:
    options = invocation.options
    name = options["name"] or "".join(invocation.arguments)
    try:
        parse_pod(name)
    except BadValue as wrong:
        raise Invalid("create", "a pod", str(wrong), hint=wrong.hint) from None
    if options["share"] or options["infra"]:
        cause = "its containers would share namespaces, and there are no pods that do"
        raise Unsupported("create", f"pod {name}", cause, hint="give --infra=false --share=, or leave the pod away")
    write_line(name)
    return 0


def _exists(invocation: Invocation) -> int:
    filters = {"label": [f"{POD_LABEL}={invocation.arguments[0]}"]}
    with invocation.connect() as engine:
        found = engine.call("containers.list", {"all": True, "filters": filters, "size": False})
    return 0 if found else EXIT_USAGE


_CREATE = Command(
    _create,
    "Make a pod that shares nothing: it is there when its first container is",
    "[OPTIONS] [NAME]",
    flags=(
        Flag("infra", "", BOOL, "Hold the namespaces that the containers share", default=True),
        Flag("name", "n", STRING, "Assign a name to the pod", default=""),
        Flag("share", "", STRING, "Namespaces that the containers share", default="ipc,net,uts"),
    ),
    arguments=(0, 1),
)
_EXISTS = Command(_exists, "Tell by the exit status whether a pod exists", "POD", arguments=(1, 1), exit_failure=125)
