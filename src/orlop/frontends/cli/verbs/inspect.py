"""`orlop inspect`: everything that is known of containers and images, as JSON or through a template."""

from __future__ import annotations

from ....spec import jsonio
from ....spec.errors import Invalid, NotFound, OrlopError
from ..command import Command, Invocation, for_output, write
from ..flags import BOOL, EXIT_USAGE, STRING, Flag, UsageError
from ..main import explain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ...native.client import Engine

KINDS = {
    "container": "containers.inspect",
    "image": "images.inspect",
    "network": "networks.inspect",
    "volume": "volumes.inspect",
}
INDENT = "    "
EXIT_TEMPLATE = 64  # docker: a template that can't be parsed, here and only here


def _inspect(invocation: Invocation) -> int:
    kind: str = invocation.options["type"]
    if kind and kind not in KINDS:
        known = ", ".join(f'"{name}"' for name in KINDS)
        raise UsageError(
            f'unknown type: "{kind}": must be one of {known}', "leave --type away", EXIT_USAGE, shows_usage=False
        )
    return _inspect_kinds(invocation, (kind,) if kind else tuple(KINDS))


def _inspect_container(invocation: Invocation) -> int:
    return _inspect_kinds(invocation, ("container",))


def _inspect_image(invocation: Invocation) -> int:
    return _inspect_kinds(invocation, ("image",))


def _inspect_volume(invocation: Invocation) -> int:
    return _inspect_kinds(invocation, ("volume",))


def _inspect_network(invocation: Invocation) -> int:
    return _inspect_kinds(invocation, ("network",))


def _exists(kind: str, named: str) -> Command:
    """Return podman's `exists` of a kind: it prints nothing, and its status is 0 or 1."""

    def act(invocation: Invocation) -> int:
        with invocation.connect() as engine:
            try:
                _find(engine, invocation.arguments[0], (kind,))
            except NotFound:
                return EXIT_USAGE
        return 0

    summary = f"Tell by the exit status whether {named} exists"
    return Command(act, summary, kind.upper(), arguments=(1, 1), exit_failure=125)


def _inspect_kinds(invocation: Invocation, kinds: tuple[str, ...]) -> int:
    options = invocation.options
    sized = "size" in options.given and options["size"]
    platform = options["platform"] if kinds == ("image",) and "platform" in options.given else ""

    def find(engine: Engine, name: str) -> object:
        return _find(engine, name, kinds, sized=sized, platform=platform)

    return print_each(invocation, options["format"], find)


def print_each(invocation: Invocation, form: str, find: Callable[[Engine, str], object]) -> int:
    """Print what is found under each name, as JSON or through a template, and the errors; return the status."""
    template = None
    if form and form != "json":
        from ..template import Template

        try:
            template = Template(form)
        except Invalid as error:
            explain(error)
            return EXIT_TEMPLATE
    found: list[object] = []
    status = 0
    with invocation.connect() as engine:
        for name in invocation.arguments:
            try:
                found.append(find(engine, name))
            except OrlopError as error:
                explain(error)
                status = EXIT_USAGE
    if template:
        from ..template.typed import typed

        write("".join(for_output(template.render(typed(value))) + "\n" for value in found))
    elif form == "json":
        write(for_output(jsonio.dump(found).decode("utf-8", "replace") + "\n"))
    else:
        write(for_output(pretty(found) + "\n"))
    return status


def _find(engine: Engine, name: str, kinds: tuple[str, ...], *, sized: bool = False, platform: str = "") -> object:
    for kind in kinds:
        args: dict[str, object] = {kind: name, "size": True} if sized and kind == "container" else {kind: name}
        if platform:
            args["platform"] = platform
        try:
            return engine.call(KINDS[kind], args)
        except NotFound:
            if len(kinds) == 1:
                raise
    raise NotFound(
        "inspect", name, f"No such object: {name}", hint="look for it with: orlop ps -a, orlop images", code="E0101"
    )


def pretty(value: object, indent: str = "", step: str = INDENT) -> str:
    """Return JSON with one item in each line, a step deeper in each level."""
    inner = indent + step
    if isinstance(value, dict) and value:
        items = [f"{_scalar(str(key))}: {pretty(item, inner, step)}" for key, item in value.items()]
        return f"{{\n{inner}" + f",\n{inner}".join(items) + f"\n{indent}}}"
    if isinstance(value, list) and value:
        return f"[\n{inner}" + f",\n{inner}".join(pretty(item, inner, step) for item in value) + f"\n{indent}]"
    return _scalar(value)


def _scalar(value: object) -> str:
    return jsonio.dump(value).decode("utf-8", "replace")


FORMAT_FLAG = Flag(
    "format",
    "f",
    STRING,
    "Format output using a custom template:\n"
    "'json':             Print in JSON format\n"
    "'TEMPLATE':         Print output using the given Go template",
    default="",
)
_SIZE = Flag("size", "s", BOOL, "Display total file sizes if the type is container", default=False)

INSPECT = Command(
    _inspect,
    "Return low-level information on containers and images",
    "[OPTIONS] NAME|ID [NAME|ID...]",
    flags=(FORMAT_FLAG, _SIZE, Flag("type", "", STRING, "Only inspect objects of the given type", default="")),
    arguments=(1, None),
)
INSPECT_CONTAINER = Command(
    _inspect_container,
    "Display detailed information on one or more containers",
    "[OPTIONS] CONTAINER [CONTAINER...]",
    flags=(FORMAT_FLAG, _SIZE),
    arguments=(1, None),
)
INSPECT_IMAGE = Command(
    _inspect_image,
    "Display detailed information on one or more images",
    "[OPTIONS] IMAGE [IMAGE...]",
    flags=(
        FORMAT_FLAG,
        Flag("platform", "", STRING, "Inspect a specific platform of the multi-platform image", default=""),
    ),
    arguments=(1, None),
)
INSPECT_NETWORK = Command(
    _inspect_network,
    "Display detailed information on one or more networks",
    "[OPTIONS] NETWORK [NETWORK...]",
    flags=(FORMAT_FLAG, Flag("verbose", "v", BOOL, "Verbose output for diagnostics", default=False)),
    arguments=(1, None),
)
INSPECT_VOLUME = Command(
    _inspect_volume,
    "Display detailed information on one or more volumes",
    "[OPTIONS] VOLUME [VOLUME...]",
    flags=(FORMAT_FLAG,),
    arguments=(1, None),
)
EXISTS_CONTAINER = _exists("container", "a container")
EXISTS_IMAGE = _exists("image", "an image")
EXISTS_NETWORK = _exists("network", "a network")
EXISTS_VOLUME = _exists("volume", "a volume")
