"""Words of podman's that `orlop` has not: done by other verbs under the name `podman`, or refused with the reason.

Source: podman-untag(1), podman-healthcheck-run(1), podman-manifest-create(1),
podman-manifest-add(1), podman-manifest-push(1), podman-manifest-remove(1), podman-volume-import(1),
podman-container-runlabel(1), podman-unshare(1).
"""

from __future__ import annotations

import os
import shlex

from ....spec.errors import Invalid, NotFound, Unsupported
from .. import main
from ..command import Command, Invocation, for_output, write_line
from ..flags import BOOL, EXIT_USAGE, STRING, Flag, UsageError
from ..verbs.volume_data import import_archive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...native.client import Engine

EXIT_REFUSED = 125
_NO_NAME = "you must provide at least one name or id"
# podman's words -> those of ours that do the same with the same arguments.
SAME = {
    ("generate", "kube"): ("show-run", "--as", "kube"),
    ("kube", "generate"): ("show-run", "--as", "kube"),
    ("system", "check"): ("system", "fsck"),
    ("system", "service"): ("serve",),
}
_CHECKPOINT = (
    "a restored process has no monitor to keep its log and its end",
    "orlop-runtime checkpoint and restore do it for bundles",
)
_YAML = ("there are no pods", "use a compose file: compose up")
_ENGINE = ("state is checked and put right by: system fsck", "run it with --repair")
REFUSED = {
    ("artifact",): ("artifacts are files without an image", "put them into one: FROM scratch, COPY"),
    ("auto-update",): ("no timer looks for newer images", "upgrade --pull always CONTAINER does it once"),
    ("completion",): ("there is no script for shells", "COMMAND --help lists the flags"),
    ("container", "checkpoint"): _CHECKPOINT,
    ("container", "restore"): _CHECKPOINT,
    ("container", "cleanup"): ("its monitor has cleaned up when it ends", "rm removes it"),
    ("farm",): ("builds are made on this machine", "build --platform, with the kernel's emulation"),
    ("generate", "systemd"): ("units are written as quadlets", "show-run --as quadlet CONTAINER"),
    ("generate", "spec"): ("a specification is the API's document", "show-run --as run CONTAINER"),
    ("image", "scp"): ("images go through ssh as archives", "save IMAGE | ssh HOST podman load"),
    ("image", "sign"): ("simple signing's files are not written", "sign where it is pushed, with cosign or skopeo"),
    ("image", "trust"): ("policy.json is not read", "name images by digest"),
    ("kube",): _YAML,
    ("play",): _YAML,
    ("network", "reload"): ("rules are made anew when the engine starts", "engine stop, and any command"),
    ("network", "update"): ("its resolver asks those of run --dns", "give --dns to the containers"),
    ("quadlet",): ("quadlets are installed for systemd", "show-run --as quadlet CONTAINER writes one"),
    ("system", "connection"): ("the engine is this machine's", "ORLOP_RUN says which one"),
    ("system", "migrate"): _ENGINE,
    ("system", "renumber"): _ENGINE,
    ("system", "reset"): ("everything of an engine goes by kinds", "rm -af; system prune -af --volumes"),
    ("volume", "mount"): ("a volume is a folder already", "volume inspect -f '{{.Mountpoint}}' VOLUME"),
    ("volume", "unmount"): ("a volume is a folder already", "there is nothing to undo"),
    ("volume", "reload"): ("there are no drivers of volumes but local", "volume ls shows all"),
}


def run(words: Sequence[str]) -> int | None:
    """Carry a command line out and return its status; None where it is no word of this table."""
    for length in (2, 1):
        name = tuple(words[:length])
        rest = list(words[length:])
        if command := COMMANDS.get(name):
            return main.run_command(command, f"podman {' '.join(name)}", rest, debug=False)
        if name in SAME:
            return main.main([*SAME[name], *rest])
        if name in REFUSED:
            cause, hint = REFUSED[name]
            main.explain(Unsupported("run", f"podman {' '.join(name)}", cause, hint=hint))
            return EXIT_REFUSED
    return None


def _untag(invocation: Invocation) -> int:
    image, *names = invocation.arguments
    with invocation.connect() as engine:
        engine.call("images.untag", {"image": image, "names": names})
    return 0


def _check_health(invocation: Invocation) -> int:
    with invocation.connect() as engine:
        found = engine.call("containers.check_health", {"container": invocation.arguments[0]})
    status = str(found.get("Status")) if isinstance(found, dict) else ""
    if status == "healthy":
        return 0
    write_line(for_output(status))
    return 1


def _manifest_exists(invocation: Invocation) -> int:
    with invocation.connect() as engine:
        found = engine.call("images.list", {"filters": {"reference": [invocation.arguments[0]]}, "platforms": True})
    return 0 if found else EXIT_USAGE


def _secret_exists(invocation: Invocation) -> int:
    with invocation.connect() as engine:
        try:
            engine.call("secrets.inspect", {"name": invocation.arguments[0]})
        except NotFound:
            return EXIT_USAGE
    return 0


def _manifest_create(invocation: Invocation) -> int:
    """Make a list, empty or of images, and print its name: what `manifest add` and `push` are given."""
    name, *images = invocation.arguments
    amend = bool(invocation.options["amend"])
    with invocation.connect() as engine:
        _put_into_list(engine, name, images, amend=amend)
    write_line(for_output(name))
    return 0


def _put_into_list(engine: Engine, name: str, images: list[str], *, amend: bool) -> None:
    from ..images.manifest import account

    plain = [image.removeprefix("docker://") for image in images]
    args: dict[str, object] = {"name": name, "images": plain, "amend": amend}
    engine.call("manifests.create", {**args, "credentials": account(engine, name)})


def _manifest_add(invocation: Invocation) -> int:
    name, *images = invocation.arguments
    images = [image.removeprefix("docker://") for image in images]
    options = invocation.options
    changes = {"os": options["os"], "architecture": options["arch"], "variant": options["variant"]}
    changes = {field: value for field, value in changes.items() if value}
    with invocation.connect() as engine:
        engine.call("manifests.inspect", {"name": name})
        _put_into_list(engine, name, images, amend=True)
        for image in images if changes else ():
            engine.call("manifests.annotate", {"name": name, "image": image, "changes": changes})
    write_line(for_output(name))
    return 0


def _manifest_push(invocation: Invocation) -> int:
    """Push a list with all its images, to where its name says or the second argument does; print its digest."""
    from ..images.manifest import account

    name, *places = invocation.arguments
    to = places[0].removeprefix("docker://") if places else ""
    with invocation.connect() as engine:
        args: dict[str, object] = {
            "name": name,
            "to": to,
            "purge": invocation.options["rm"] or invocation.options["purge"],
        }
        result = engine.call("manifests.push", {**args, "credentials": account(engine, to or name)})
    if not invocation.options["quiet"]:
        write_line(str(result.get("digest", "")) if isinstance(result, dict) else "")
    return 0


def _manifest_remove(invocation: Invocation) -> int:
    name, *digests = invocation.arguments
    with invocation.connect() as engine:
        engine.call("manifests.drop", {"name": name, "digests": digests})
    write_line(for_output(name))
    return 0


def _init(invocation: Invocation) -> int:
    """Make containers' processes, whose commands wait for `start`."""
    with invocation.connect() as engine:
        names = _every(engine) if invocation.options["all"] else invocation.arguments
        if not names and not invocation.options["all"]:
            raise UsageError(_NO_NAME, "name a container, or give --all", EXIT_REFUSED)
        for name in names:
            engine.call("containers.init", {"container": name})
            write_line(for_output(name))
    return 0


def _mount(invocation: Invocation) -> int:
    """Mount containers' roots and print where; without a name, print what is mounted."""
    with invocation.connect() as engine:
        names = _every(engine) if invocation.options["all"] else invocation.arguments
        if not names:
            found = engine.call("containers.mounted", {})
            for container, place in found.items() if isinstance(found, dict) else ():
                write_line(for_output(f"{container[:12]} {place}"))
        for name in names:
            place = engine.call("containers.mount", {"container": name})
            write_line(for_output(str(place) if len(names) == 1 else f"{name} {place}"))
    return 0


def _unmount(invocation: Invocation) -> int:
    with invocation.connect() as engine:
        found = engine.call("containers.mounted", {})
        every = list(found) if isinstance(found, dict) else []
        names = every if invocation.options["all"] else invocation.arguments
        if not names and not invocation.options["all"]:
            raise UsageError(_NO_NAME, "name a container, or give --all", EXIT_REFUSED)
        for name in names:
            engine.call("containers.unmount", {"container": name, "force": invocation.options["force"]})
            write_line(for_output(name))
    return 0


def _every(engine: Engine) -> list[str]:
    found = engine.call("containers.list", {"all": True})
    return [str(one["Id"]) for one in found] if isinstance(found, list) else []


def _run_label(invocation: Invocation) -> int:
    """Run what a label of an image says: a command line of podman's, in which IMAGE and NAME stand for the two."""
    label, image, *more = invocation.arguments
    with invocation.connect() as engine:
        found = engine.call("images.inspect", {"image": image})
    config = found.get("Config") if isinstance(found, dict) else None
    labels = (config.get("Labels") if isinstance(config, dict) else None) or {}
    text = str(labels.get(label, "")) if isinstance(labels, dict) else ""
    if not text:
        raise NotFound("find", f"label {label[:60]} of {image[:100]}", "the image has no such label", hint="inspect it")
    try:
        words = shlex.split(text)
    except ValueError as wrong:
        raise Invalid("read", f"label {label[:60]} of {image[:100]}", str(wrong), hint="inspect it") from None
    name = invocation.options["name"] or image.rpartition("/")[2].partition(":")[0]
    marks = {"IMAGE": image, "NAME": name, "${IMAGE}": image, "${NAME}": name, "$IMAGE": image, "$NAME": name}
    words = [marks.get(word, word) for word in words]
    if os.path.basename(words[0]) not in ("podman", "docker"):
        cause = f"it runs {words[0][:60]!r} on this machine, and an image is nobody to ask for that"
        raise Unsupported("run", f"label {label[:60]} of {image[:100]}", cause, hint="run it yourself, if you trust it")
    if invocation.options["display"]:
        write_line(for_output(shlex.join(["podman", *words[1:], *more])))
        return 0
    from .main import translated

    return main.main(translated([*words[1:], *more]))


def _unshare(invocation: Invocation) -> int:
    """Run a program as the root of the user's own ids, as a user's engine has them."""
    if os.geteuid() == 0:
        raise Invalid("run", "podman unshare", "root has every id already", hint="run the program itself")
    program = invocation.arguments or [os.environ.get("SHELL", "/bin/sh")]
    return main.main(["unshare", "--map-root-user", "--map-auto", "--mount", *program])


_PLATFORM = (
    Flag("arch", "", STRING, "Architecture that the list says of the image", default=""),
    Flag("os", "", STRING, "Operating system that the list says of the image", default=""),
    Flag("variant", "", STRING, "Variant that the list says of the image", default=""),
)
_ALL = Flag("all", "a", BOOL, "All containers", default=False)
_INIT = Command(
    _init,
    "Make containers, whose commands wait for start",
    "[OPTIONS] CONTAINER...",
    flags=(_ALL,),
    arguments=(0, None),
    exit_failure=EXIT_REFUSED,
)
_MOUNT = Command(
    _mount,
    "Mount containers' roots, or list what is mounted",
    "[OPTIONS] [CONTAINER...]",
    flags=(_ALL,),
    arguments=(0, None),
    exit_failure=EXIT_REFUSED,
)
_UNMOUNT = Command(
    _unmount,
    "Unmount containers' roots",
    "[OPTIONS] [CONTAINER...]",
    flags=(_ALL, Flag("force", "f", BOOL, "Also while something uses it", default=False)),
    arguments=(0, None),
    exit_failure=EXIT_REFUSED,
)
_UNTAG = Command(_untag, "Take names away from an image, or all of them", "IMAGE [NAME...]", arguments=(1, None))
COMMANDS = {
    ("init",): _INIT,
    ("container", "init"): _INIT,
    ("mount",): _MOUNT,
    ("container", "mount"): _MOUNT,
    ("umount",): _UNMOUNT,
    ("unmount",): _UNMOUNT,
    ("container", "umount"): _UNMOUNT,
    ("container", "unmount"): _UNMOUNT,
    ("untag",): _UNTAG,
    ("image", "untag"): _UNTAG,
    ("healthcheck", "run"): Command(
        _check_health, "Make a container's health check once", "CONTAINER", arguments=(1, 1), exit_failure=EXIT_REFUSED
    ),
    ("manifest", "exists"): Command(
        _manifest_exists, "Tell by the status whether a list exists", "NAME", arguments=(1, 1)
    ),
    ("manifest", "create"): Command(
        _manifest_create,
        "Make a list of images, or an empty one",
        "[OPTIONS] LIST [IMAGE...]",
        flags=(Flag("amend", "a", BOOL, "Add to a list that is there", default=False),),
        arguments=(1, None),
    ),
    ("manifest", "add"): Command(
        _manifest_add, "Add images to a list", "[OPTIONS] LIST IMAGE...", flags=_PLATFORM, arguments=(2, None)
    ),
    ("manifest", "push"): Command(
        _manifest_push,
        "Push a list and its images",
        "[OPTIONS] LIST [DESTINATION]",
        flags=(
            Flag("all", "", BOOL, "Push the images too, as is always done", default=True),
            Flag("purge", "p", BOOL, "Remove the list here after the push", default=False),
            Flag("rm", "", BOOL, "The same", default=False),
            Flag("quiet", "q", BOOL, "Do not print the digest", default=False),
        ),
        arguments=(1, 2),
    ),
    ("manifest", "remove"): Command(
        _manifest_remove, "Take images out of a list", "LIST DIGEST...", arguments=(2, None)
    ),
    ("secret", "exists"): Command(
        _secret_exists, "Tell by the status whether a secret exists", "SECRET", arguments=(1, 1)
    ),
    ("volume", "import"): Command(
        lambda invocation: import_archive(invocation, into=True),
        "Put an archive's files into a volume that is there",
        "VOLUME [file|-]",
        arguments=(1, 2),
    ),
    ("container", "runlabel"): Command(
        _run_label,
        "Run the command of podman's that a label of an image says",
        "[OPTIONS] LABEL IMAGE [ARG...]",
        flags=(
            Flag("display", "", BOOL, "Print the command, and run nothing", default=False),
            Flag("name", "n", STRING, "What stands for NAME", default=""),
        ),
        arguments=(2, None),
    ),
    ("unshare",): Command(
        _unshare,
        "Run a program as root among your own ids",
        "[PROGRAM [ARG...]]",
        arguments=(0, None),
        interspersed=False,
    ),
}
