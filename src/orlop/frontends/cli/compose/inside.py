"""`orlop compose exec`, `run`, `cp`, `attach`, `stats`: commands in and at one container of a service."""

from __future__ import annotations

import os
import secrets

from ....spec.errors import Invalid
from ...compose import plan as plans
from ...compose import request
from ...compose.plan import Wishes
from ..flags import BOOL, INT, LIST, STRING, Flag
from ..mounts import parse_bind
from ..networking import PORT
from ..values import ENV, LABEL
from . import images
from .context import Compose, Progress, bring_up, command, containers_of, one_container

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ....spec.container import ContainerRequest
    from ...compose.project import Project, Service


def _exec(invocation: Compose) -> int:
    options = invocation.options
    name, *words = invocation.arguments
    project = invocation.project([name])
    with invocation.connect() as engine:
        found = one_container(engine, project, project.service(name), options["index"], running=True)
    flags = [f"--env={one}" for one in options["env"]]
    flags += [f"--{flag}={options[flag]}" for flag in ("user", "workdir") if options[flag]]
    flags += [f"--{flag}" for flag in ("detach", "privileged") if options[flag]]
    if not options["detach"]:
        flags += ["--interactive"] if options["interactive"] else []
        wants_terminal = options["tty"] and not (options["no-TTY"] or options["no-tty"])
        flags += ["--tty"] if wants_terminal and os.isatty(0) and os.isatty(1) else []
    return invocation.run(["exec", *flags, found.id, *words])


def _attach(invocation: Compose) -> int:
    options = invocation.options
    project = invocation.project()
    with invocation.connect() as engine:
        service = project.service(invocation.arguments[0])
        found = one_container(engine, project, service, options["index"], running=True)
    flags = ["--no-stdin"] if options["no-stdin"] else []
    flags += [f"--detach-keys={options['detach-keys']}"] if options["detach-keys"] else []
    return invocation.run(["attach", *flags, f"--sig-proxy={str(options['sig-proxy']).lower()}", found.id])


def _cp(invocation: Compose) -> int:
    options = invocation.options
    project = invocation.project()
    words = []
    with invocation.connect() as engine:
        for word in invocation.arguments:
            name, colon, path = word.partition(":")
            if colon and not word.startswith((".", "/")):
                found = one_container(engine, project, project.service(name), options["index"], running=False)
                word = f"{found.id}:{path}"
            words.append(word)
    flags = [f"--{flag}" for flag in ("archive", "follow-link") if options[flag]]
    return invocation.run(["cp", *flags, *words])


def _commit(invocation: Compose) -> int:
    options = invocation.options
    name, *image = invocation.arguments
    project = invocation.project([name])
    with invocation.connect() as engine:
        found = one_container(engine, project, project.service(name), options["index"], running=False)
    flags = [f"--{flag}={options[flag]}" for flag in ("author", "message") if options[flag]]
    flags += [f"--change={one}" for one in options["change"]]
    return invocation.run(["commit", *flags, f"--pause={str(options['pause']).lower()}", found.id, *image])


def _export(invocation: Compose) -> int:
    options = invocation.options
    (name,) = invocation.arguments
    project = invocation.project([name])
    with invocation.connect() as engine:
        found = one_container(engine, project, project.service(name), options["index"], running=False)
    return invocation.run(["export", *([f"--output={options['output']}"] if options["output"] else []), found.id])


def _stats(invocation: Compose) -> int:
    options = invocation.options
    project, name = invocation.project_or_name()
    with invocation.connect() as engine:
        found = containers_of(engine, project, name, invocation.arguments)
    flags = [f"--{flag}" for flag in ("all", "no-stream", "no-trunc") if options[flag]]
    flags += [f"--format={options['format']}"] if options["format"] else []
    ids = [one.id for one in found if one.runs or options["all"]]
    return invocation.run(["stats", *flags, *ids]) if ids else 0


def _run(invocation: Compose) -> int:
    options = invocation.options
    name, *words = invocation.arguments
    project = invocation.project([name])
    service = project.service(name)
    needed = [one for one in project.chosen([name], with_dependencies=True) if one is not service]
    if not options["no-deps"] and needed:
        images.ensure(invocation, project, needed)
        bring_up(invocation, project, needed, Wishes(recreate=False), set())
    making = images.Making(build=options["build"], quiet=options["quiet-pull"])
    images.ensure(invocation, project, [service], making)
    with invocation.connect() as engine:
        # Its networks and volumes, without its containers.
        wishes = Wishes(scale={name: 0}, recreate=False, orphans=options["remove-orphans"])
        plan = plans.make(engine, project, [service], wishes, set())
        plan.services = {}
        steps = invocation.steps(project, Progress(invocation))
        steps.apply(plan)
        steps.keep_data([service])
        replicas = {} if options["no-deps"] else {one.name: one.scale for one in needed}
        wanted = _one_off(invocation, project, service, words, replicas)
        container = steps.create(engine, service, wanted)
    if options["detach"]:
        return invocation.run(["start", container])
    flags = ["--attach", *(["--interactive"] if wanted.open_stdin else [])]
    return _attached(invocation, container, flags, remove=options["rm"])


def _attached(invocation: Compose, container: str, flags: list[str], *, remove: bool) -> int:
    try:
        return invocation.run(["start", *flags, container])
    finally:
        if remove:
            with invocation.connect() as engine:
                engine.call("containers.remove", {"container": container, "force": True, "volumes": True})


def _one_off(
    invocation: Compose, project: Project, service: Service, words: list[str], replicas: dict[str, int]
) -> ContainerRequest:
    """Return the request of a container for one command: without ports, restarts and a fixed name."""
    options = invocation.options
    base = request.container(project, service, 1, replicas)
    is_terminal = not options["no-TTY"] and os.isatty(0) and os.isatty(1) and not options["detach"]
    labels = {**base.labels, request.ONEOFF: "True", **dict(options["label"])}
    labels.pop(request.NUMBER, None)
    own = [pair.partition("=")[0] for pair in options["env"]]
    kept = [pair for pair in base.env if pair.partition("=")[0] not in own]
    endpoints = tuple(
        one.replace(aliases=one.aliases[1:] if options["use-aliases"] else (), ipv4="", ipv6="", mac_address="")
        for one in base.endpoints
    )
    return base.replace(
        name=options["name"] or project.separator.join((project.name, service.name, "run", secrets.token_hex(6))),
        labels=labels,
        args=tuple(words) or base.args,
        entrypoint=_words(options["entrypoint"]) if "entrypoint" in options.given else base.entrypoint,
        env=(*kept, *options["env"]),
        user=options["user"] or base.user,
        working_dir=options["workdir"] or base.working_dir,
        binds=(*base.binds, *map(parse_bind, options["volume"])),
        ports=(*(base.ports if options["service-ports"] else ()), *options["publish"]),
        endpoints=endpoints,
        terminal=is_terminal,
        open_stdin=options["interactive"] and not options["detach"],
        stdin_once=options["interactive"] and not options["detach"],
        auto_remove=options["rm"] and options["detach"],
        restart_policy="no",
        restart_retries_max=0,
        cap_add=(*base.cap_add, *options["cap-add"]),
        cap_drop=(*base.cap_drop, *options["cap-drop"]),
    )


def _words(text: str) -> tuple[str, ...]:
    import shlex

    try:
        return tuple(shlex.split(text)) or ("",)
    except ValueError as wrong:
        raise Invalid("use", "--entrypoint", str(wrong).lower(), hint="close the quote") from None


_INDEX = Flag("index", "", INT, "Index of the container if service has multiple replicas", default=0)
# fmt: off
EXEC = command(
    _exec, "Execute a command in a running container", "[OPTIONS] SERVICE COMMAND [ARGS...]",
    flags=(
        Flag("detach", "d", BOOL, "Detached mode: Run command in the background", default=False),
        Flag("env", "e", ENV, "Set environment variables"),
        _INDEX,
        Flag("interactive", "i", BOOL, "Keep STDIN open even if not attached", default=True, hidden=True),
        Flag("no-TTY", "T", BOOL, "Disable pseudo-TTY allocation", default=False),
        Flag("no-tty", "", BOOL, "Disable pseudo-TTY allocation", default=False, hidden=True),
        Flag("privileged", "", BOOL, "Give extended privileges to the process", default=False),
        Flag("tty", "t", BOOL, "Allocate a pseudo-TTY", default=True, hidden=True),
        Flag("user", "u", STRING, "Run the command as this user", default=""),
        Flag("workdir", "w", STRING, "Path to workdir directory for this command", default=""),
    ),
    arguments=(2, None), interspersed=False, passes_command_status=True,
)
RUN = command(
    _run, "Run a one-off command on a service", "[OPTIONS] SERVICE [COMMAND] [ARGS...]",
    flags=(
        Flag("build", "", BOOL, "Build image before starting container", default=False),
        Flag("cap-add", "", LIST, "Add Linux capabilities"),
        Flag("cap-drop", "", LIST, "Drop Linux capabilities"),
        Flag("detach", "d", BOOL, "Run container in background and print container ID", default=False),
        Flag("entrypoint", "", STRING, "Override the entrypoint of the image", default=""),
        Flag("env", "e", ENV, "Set environment variables"),
        Flag("interactive", "i", BOOL, "Keep STDIN open even if not attached", default=True),
        Flag("label", "l", LABEL, "Add or override a label"),
        Flag("name", "", STRING, "Assign a name to the container", default=""),
        Flag("no-TTY", "T", BOOL, "Disable pseudo-TTY allocation", default=False),
        Flag("no-deps", "", BOOL, "Don't start linked services", default=False),
        Flag("publish", "p", PORT, "Publish a container's port(s) to the host"),
        Flag("quiet-pull", "", BOOL, "Pull without printing progress information", default=False),
        Flag("remove-orphans", "", BOOL, "Remove containers for services not defined in the files", default=False),
        Flag("rm", "", BOOL, "Automatically remove the container when it exits", default=False),
        Flag("service-ports", "P", BOOL, "Run command with all service's ports enabled", default=False),
        Flag("use-aliases", "", BOOL, "Use the service's network aliases in the networks", default=False),
        Flag("user", "u", STRING, "Run as specified username or uid", default=""),
        Flag("volume", "v", LIST, "Bind mount a volume"),
        Flag("workdir", "w", STRING, "Working directory inside the container", default=""),
    ),
    arguments=(1, None), interspersed=False, exit_failure=125, passes_command_status=True,
)
CP = command(
    _cp, "Copy files/folders between a service container and the local filesystem",
    "[OPTIONS] SERVICE:SRC_PATH DEST_PATH|-\n\torlop compose cp [OPTIONS] SRC_PATH|- SERVICE:DEST_PATH",
    flags=(
        Flag("archive", "a", BOOL, "Archive mode (copy all uid/gid information)", default=False),
        Flag("follow-link", "L", BOOL, "Always follow symbol link in SRC_PATH", default=False),
        _INDEX,
    ),
    arguments=(2, 2),
)
ATTACH = command(
    _attach, "Attach local standard input, output, and error streams to a container", "[OPTIONS] SERVICE",
    flags=(
        Flag("detach-keys", "", STRING, "Override the key sequence for detaching from a container", default=""),
        _INDEX,
        Flag("no-stdin", "", BOOL, "Do not attach STDIN", default=False),
        Flag("sig-proxy", "", BOOL, "Proxy all received signals to the process", default=True),
    ),
    arguments=(1, 1),
)
COMMIT = command(
    _commit, "Create a new image from a service container's changes", "[OPTIONS] SERVICE [REPOSITORY[:TAG]]",
    flags=(
        Flag("author", "a", STRING, 'Author (e.g., "A. Hacker <hacker@example.com>")', default=""),
        Flag("change", "c", LIST, "Apply Dockerfile instruction to the created image"),
        _INDEX,
        Flag("message", "m", STRING, "Commit message", default=""),
        Flag("pause", "p", BOOL, "Pause container during commit", default=True),
    ),
    arguments=(1, 2),
)
EXPORT = command(
    _export, "Export a service container's filesystem as a tar archive", "[OPTIONS] SERVICE",
    flags=(_INDEX, Flag("output", "o", STRING, "Write to a file, instead of STDOUT", default="")),
    arguments=(1, 1),
)
STATS = command(
    _stats, "Display a live stream of container(s) resource usage statistics", "[OPTIONS] [SERVICE]",
    flags=(
        Flag("all", "a", BOOL, "Show all containers (default shows just running)", default=False),
        Flag("format", "", STRING, "Format output using a custom template", default=""),
        Flag("no-stream", "", BOOL, "Disable streaming stats and only pull the first result", default=False),
        Flag("no-trunc", "", BOOL, "Do not truncate output", default=False),
    ),
    arguments=(0, None),
)
# fmt: on
