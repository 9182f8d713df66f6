"""The commands of `orlop compose` that only look: ps, ls, images, port, top, volumes, events, version."""

from __future__ import annotations

import json
import re

from .... import __version__
from ....spec.errors import Invalid, NotFound
from ...compose import observed
from ...compose.request import PROJECT, SERVICE, VOLUME
from .. import listing
from ..command import for_output, write, write_line
from ..containers.ps import ports_text
from ..containers.top import address_of
from ..flags import BOOL, INT, LIST, STRING, Flag
from ..table import render
from ..units import ago, size
from ..values import FILTER
from .context import Compose, command, containers_of, one_container

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from ...compose.observed import Container

_PS_HEADERS: dict[str, object] = {
    name: name.upper() for name in ("Name", "Image", "Service", "Ports", "Status", "State", "Command", "Project", "ID")
}


def _ps(invocation: Compose) -> int:
    options = invocation.options
    project, name = invocation.project_or_name()
    with invocation.connect() as engine:
        found = containers_of(engine, project, name, invocation.arguments, oneoff=options["all"])
    _check_filters(options["filter"], ("status",))
    states = [*options["status"], *(value for key, value in options["filter"] if key == "status")]
    if states:
        found = [one for one in found if one.state in states]
    elif not options["all"]:
        found = [one for one in found if one.runs]
    if project is not None and not options["orphans"]:
        known = {*project.services, *project.others}
        found = [one for one in found if one.service in known]
    if options["services"]:
        write("".join(f"{service}\n" for service in dict.fromkeys(one.service for one in found)))
    elif options["quiet"]:
        write("".join(f"{one.id}\n" for one in found))
    else:
        _print_containers(found, options["format"], truncated=not options["no-trunc"])
    return 0


def _check_filters(given: Iterable[tuple[str, str]], known: Sequence[str]) -> None:
    """Raise Invalid for a filter that a list does not have."""
    for key, value in given:
        if key not in known:
            cause = f"invalid filter '{key[:60]}'"
            raise Invalid(
                "use", f"--filter {key[:60]}={value[:60]}", cause, hint=f"known are {', '.join(known)}", code="E0210"
            )


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as wrong:
        cause = f"it is no regular expression: {wrong}"
        raise Invalid("use", f"--filter name={text[:60]}", cause, hint="write a name, or a part of one") from None


def _print_containers(found: list[Container], form: str, *, truncated: bool) -> None:
    if form == "json":
        write("".join(f"{json.dumps(_fields(one), separators=(',', ':'))}\n" for one in found))
    elif form and form != "table":
        from ..template import Row

        listing.print_formatted(form, [Row("compose.ContainerSummary", _fields(one)) for one in found], _PS_HEADERS)
    else:
        header = ("NAME", "IMAGE", "COMMAND", "SERVICE", "CREATED", "STATUS", "PORTS")
        rows = [_row(one, truncated=truncated) for one in found]
        listing.print_table(header, rows)


def _row(one: Container, *, truncated: bool) -> tuple[str, ...]:
    command = str(one.summary["Command"])
    command = listing.ellipsis(command, 20) if truncated else command
    created, status = ago(one.summary["Created"]), str(one.summary["Status"])
    return (one.name, one.summary["Image"], f'"{command}"', one.service, created, status, ports_text(one.summary))


def _fields(one: Container) -> dict[str, Any]:
    labels = one.summary["Labels"]
    health = next((word for word in ("unhealthy", "healthy", "starting") if f"({word})" in one.summary["Status"]), "")
    publishers = [
        {
            "URL": port.get("IP", ""),
            "TargetPort": port.get("PrivatePort", 0),
            "PublishedPort": port.get("PublicPort", 0),
            "Protocol": port.get("Type", ""),
        }
        for port in one.summary["Ports"] or ()
    ]
    return {
        "ID": one.id[:12],
        "Name": one.name,
        "Image": one.summary["Image"],
        "Command": f'"{one.summary["Command"]}"',
        "Project": labels.get(PROJECT, ""),
        "Service": one.service,
        "State": one.state,
        "Status": one.summary["Status"],
        "Health": "starting" if "health: starting" in one.summary["Status"] else health,
        "ExitCode": _exit_code(one),
        "Publishers": publishers,
        "Ports": ports_text(one.summary),
        "Labels": ",".join(f"{key}={value}" for key, value in sorted(labels.items())),
    }


def _exit_code(one: Container) -> int:
    code = str(one.summary["Status"]).partition("Exited (")[2].partition(")")[0]
    return int(code) if code.isdecimal() else 0


def _ls(invocation: Compose) -> int:
    options = invocation.options
    _check_filters(options["filter"], ("name",))
    wanted = [_pattern(value) for _, value in options["filter"]]
    with invocation.connect() as engine:
        found = observed.projects(engine)
    rows = []
    for name, containers in sorted(found.items()):
        if wanted and not any(one.search(name) for one in wanted):
            continue
        states = [one.state for one in containers]
        if "running" not in states and not options["all"]:
            continue
        status = ", ".join(f"{state}({states.count(state)})" for state in sorted(set(states)))
        files = containers[0].summary["Labels"].get(f"{PROJECT}.config_files", "")
        rows.append((name, status, files))
    if options["quiet"]:
        write("".join(f"{name}\n" for name, _, _ in rows))
    elif options["format"] == "json":
        named = [dict(zip(("Name", "Status", "ConfigFiles"), row, strict=True)) for row in rows]
        write_line(json.dumps(named, separators=(",", ":")))
    else:
        listing.print_table(("NAME", "STATUS", "CONFIG FILES"), rows)
    return 0


def _images(invocation: Compose) -> int:
    options = invocation.options
    project, name = invocation.project_or_name()
    rows, ids, described = [], [], []
    with invocation.connect() as engine:
        for one in containers_of(engine, project, name, invocation.arguments):
            try:
                image = engine.call("images.inspect", {"image": one.image_id})
            except NotFound:
                continue
            assert isinstance(image, dict)
            reference = str(one.summary["Image"])
            repository, _, tag = reference.rpartition(":") if ":" in reference else (reference, "", "latest")
            identifier = image["Id"].removeprefix("sha256:")
            ids.append(identifier)
            rows.append((one.name, repository, tag, identifier[:12], size(image["Size"], 3)))
            described.append(
                {
                    "ID": image["Id"],
                    "ContainerName": one.name,
                    "Repository": repository,
                    "Tag": tag,
                    "Size": image["Size"],
                }
            )
    if options["quiet"]:
        write("".join(f"{identifier}\n" for identifier in dict.fromkeys(ids)))
    elif options["format"] == "json":
        write_line(json.dumps(described, separators=(",", ":")))
    else:
        listing.print_table(("CONTAINER", "REPOSITORY", "TAG", "IMAGE ID", "SIZE"), rows)
    return 0


def _port(invocation: Compose) -> int:
    options = invocation.options
    name, wanted = invocation.arguments
    project = invocation.project([name])
    with invocation.connect() as engine:
        one = one_container(engine, project, project.service(name), options["index"], running=True)
        found = engine.call("containers.inspect", {"container": one.id})
    ports = found["NetworkSettings"]["Ports"] if isinstance(found, dict) else {}
    number, _, protocol = wanted.partition("/")
    key = f"{number}/{protocol or options['protocol']}"
    if not (ports or {}).get(key):
        cause = f"no port {key} for container {one.name}"
        raise NotFound("find", f"port {wanted}", cause, hint=f"list its ports with: orlop port {one.name}")
    write_line(address_of(ports[key][0]))
    return 0


def _top(invocation: Compose) -> int:
    project, name = invocation.project_or_name()
    with invocation.connect() as engine:
        for one in containers_of(engine, project, name, invocation.arguments):
            if not one.runs:
                continue
            found = engine.call("containers.top", {"container": one.id, "options": []})
            table = found if isinstance(found, dict) else {}
            rows = [["SERVICE", "#", *table["Titles"]]]
            rows += [[one.service, str(one.number), *row] for row in table["Processes"]]
            write(render([[for_output(" ".join(str(cell).split("\n"))) for cell in row] for row in rows]))
    return 0


def _volumes(invocation: Compose) -> int:
    options = invocation.options
    project, name = invocation.project_or_name()
    wanted = {
        mount.get("source")
        for service in (project.chosen(invocation.arguments) if project and invocation.arguments else ())
        for mount in service.get("volumes", ())
    }
    with invocation.connect() as engine:
        there = observed.volume_names(engine)
    rows = [
        ("local", volume)
        for volume, labels in sorted(there.items())
        if labels.get(PROJECT) == name and VOLUME in labels and (not wanted or labels[VOLUME] in wanted)
    ]
    if options["quiet"]:
        write("".join(f"{volume}\n" for _, volume in rows))
    else:
        listing.print_table(("DRIVER", "VOLUME NAME"), rows)
    return 0


def _events(invocation: Compose) -> int:
    from ..units import moment_ns
    from ..verbs.events import received

    options = invocation.options
    _, name = invocation.project_or_name()
    args: dict[str, object] = {
        "since_ns": moment_ns("--since", options["since"]),
        "until_ns": moment_ns("--until", options["until"]),
        "filters": {"label": [f"{PROJECT}={name}"], "type": ["container"]},
    }
    with invocation.connect() as engine:
        engine.call("engine.events", args)
        for event in received(engine.stream):
            attributes = event["Actor"]["Attributes"]
            service = attributes.get(SERVICE, "")
            if invocation.arguments and service not in invocation.arguments:
                continue
            write_line(for_output(_event(event, service, attributes, as_json=options["json"])))
    return 0


def _event(event: dict[str, Any], service: str, attributes: dict[str, str], *, as_json: bool) -> str:
    import datetime

    own = {key: value for key, value in attributes.items() if not key.startswith("com.docker.compose.")}
    moment = datetime.datetime.fromtimestamp(event["timeNano"] / 1e9, datetime.UTC).isoformat()
    identifier = event["Actor"]["ID"]
    if as_json:
        told = {"time": moment, "type": "container", "action": event["Action"], "id": identifier, "service": service}
        return json.dumps({**told, "attributes": own})
    shown = ", ".join(f"{key}={value}" for key, value in sorted(own.items()))
    return f"{moment} container {event['Action']} {identifier} ({shown})"


def _version(invocation: Compose) -> int:
    options = invocation.options
    if options["short"]:
        write_line(__version__)
    elif options["format"] == "json":
        write_line(json.dumps({"version": __version__}))
    else:
        write_line(f"Orlop Compose version {__version__}")
    return 0


_SERVICES = "[OPTIONS] [SERVICE...]"
_FORMAT = Flag("format", "", STRING, 'Format the output: "table", "json" or a Go template', default="")
_QUIET = Flag("quiet", "q", BOOL, "Only display IDs", default=False)
# fmt: off
PS = command(
    _ps, "List containers", _SERVICES,
    flags=(
        Flag("all", "a", BOOL, "Show all stopped containers", default=False),
        Flag("filter", "", FILTER, "Filter services by a property (supported filters: status)"),
        _FORMAT,
        Flag("no-trunc", "", BOOL, "Don't truncate output", default=False),
        Flag("orphans", "", BOOL, "Include orphaned services (not declared by project)", default=True),
        _QUIET,
        Flag("services", "", BOOL, "Display services", default=False),
        Flag("status", "", LIST, "Filter services by status"),
    ),
    arguments=(0, None),
)
LS = command(
    _ls, "List running compose projects", "[OPTIONS]",
    flags=(
        Flag("all", "a", BOOL, "Show all stopped Compose projects", default=False),
        Flag("filter", "", FILTER, "Filter output based on conditions provided"),
        _FORMAT, _QUIET,
    ),
)
IMAGES = command(_images, "List images used by the created containers", _SERVICES, flags=(_FORMAT, _QUIET),
                 arguments=(0, None))
PORT = command(
    _port, "Print the public port for a port binding", "[OPTIONS] SERVICE PRIVATE_PORT",
    flags=(
        Flag("index", "", INT, "Index of the container if service has multiple replicas", default=0),
        Flag("protocol", "", STRING, "tcp or udp", default="tcp"),
    ),
    arguments=(2, 2),
)
TOP = command(_top, "Display the running processes", "[SERVICES...]", arguments=(0, None))
VOLUMES = command(_volumes, "List volumes", _SERVICES, flags=(_QUIET,), arguments=(0, None))
EVENTS = command(
    _events, "Receive real time events from containers", _SERVICES,
    flags=(
        Flag("json", "", BOOL, "Output events as a stream of json objects", default=False),
        Flag("since", "", STRING, "Show all events created since timestamp", default=""),
        Flag("until", "", STRING, "Stream events until this timestamp", default=""),
    ),
    arguments=(0, None),
)
VERSION = command(
    _version, "Show the version of this implementation of Compose", "[OPTIONS]",
    flags=(
        Flag("format", "f", STRING, "Format the output: pretty or json", default=""),
        Flag("short", "", BOOL, "Shows only Compose's version number", default=False),
    ),
)
# fmt: on
