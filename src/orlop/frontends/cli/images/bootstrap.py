"""`orlop bootstrap`: images that stand for docker.io's in a registry of one's own, and docker.io asked for there.

For a machine without a network, or a course: what begins with `docker run hello-world` goes on as it does elsewhere.
"""

from __future__ import annotations

import os
import tempfile

from ....image import standins
from ....spec.errors import Conflict, Invalid, NotFound, Unavailable
from ....spec.reference import DEFAULT_DOMAIN, Reference
from ....spec.registry import PushRequest
from ..command import Command, Invocation, for_output, write_line
from ..flags import BOOL, STRING, Flag
from .copy import is_near

TYPE_CHECKING = False
if TYPE_CHECKING:
    import io

    from ...native.client import Engine

REGISTRY = "127.0.0.1:5000"
UBUNTU = ("24.04", "latest")
HOST = "host"  # the image of this machine's programs


def _bootstrap(invocation: Invocation) -> int:
    options = invocation.options
    registry = (*invocation.arguments, REGISTRY)[0]
    Reference.parse(f"{registry}/library/x:1")  # first: a mistake in it must not cost making images
    made = {
        "hello-world": (standins.hello_world(os.uname().machine), 'CMD ["/hello"]'),
        "busybox": (standins.busybox(options["busybox"] or _busybox()), 'CMD ["sh"]'),
    }
    with invocation.connect() as engine:
        directory = f"{invocation.paths.root}/certs.d/{DEFAULT_DOMAIN}"
        if not options["no-mirror"]:
            _check_where(directory, registry)
        for name, (archive, change) in made.items():
            _give(engine, registry, name, archive, change)
        if options["ubuntu"]:
            with _opened(options["ubuntu"]) as file:
                _push(engine, registry, "ubuntu", UBUNTU, _imported(engine, file.fileno(), 'CMD ["/bin/bash"]'))
        else:
            engine.call("images.inspect", {"image": HOST})  # it is made when it is asked for
            _push(engine, registry, "ubuntu", UBUNTU, HOST)
    if not options["no-mirror"]:
        _say_where(directory, registry)  # last: nobody is sent to a registry that took nothing
    return 0


def _give(engine: Engine, registry: str, name: str, archive: bytes, change: str) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(archive)
        file.flush()
        os.lseek(file.fileno(), 0, os.SEEK_SET)
        _push(engine, registry, name, ("latest",), _imported(engine, file.fileno(), change))


def _imported(engine: Engine, fd: int, change: str) -> str:
    made = engine.call("images.import", {"name": "", "changes": [change], "message": "orlop bootstrap"}, [fd])
    return str(made.get("id", "")) if isinstance(made, dict) else ""


def _push(engine: Engine, registry: str, name: str, tags: tuple[str, ...], image: str) -> None:
    """Push an image of ours under these tags; nothing but the image itself stays of that here."""
    from ....engine.credentials import for_registry

    for tag in tags:
        target = f"{registry}/library/{name}:{tag}"
        engine.call("images.tag", {"image": image, "name": target})
        reference = Reference.parse(target)
        request = PushRequest(image=target, credentials=for_registry(reference.domain, reference.path))
        for _ in engine.messages("images.push", {"request": request.to_json()}):
            pass
        engine.call("images.remove", {"image": target, "force": False, "prune": True})
        write_line(for_output(f"{Reference.parse(f'{name}:{tag}').familiar} is {target}"))


def _hosts(registry: str) -> bytes:
    """Return the hosts.toml by which docker.io is asked for at the registry."""
    scheme = "http" if is_near(registry) else "https"
    text = f'server = "{scheme}://{registry}"\n\n[host."{scheme}://{registry}"]\n  capabilities = ["pull", "resolve"]\n'
    return text.encode()


def _check_where(directory: str, registry: str) -> None:
    """Raise Conflict where docker.io is asked for elsewhere already."""
    path = f"{directory}/hosts.toml"
    try:
        with open(path, "rb") as file:
            found = file.read(65536)
    except FileNotFoundError:
        return
    except OSError as wrong:
        raise Unavailable("read", path, wrong.strerror or str(wrong)) from None
    if found != _hosts(registry):
        hint = "remove it, or use --no-mirror and change it yourself"
        raise Conflict("write", path, "it says another place for docker.io already", hint=hint)


def _say_where(directory: str, registry: str) -> None:
    """Have docker.io asked for at the registry, whole or not at all. Raises Conflict where it is asked elsewhere."""
    path, new = f"{directory}/hosts.toml", f"{directory}/.hosts.toml-{os.getpid()}"
    try:
        os.makedirs(directory, 0o700, exist_ok=True)
        with open(new, "wb") as file:
            file.write(_hosts(registry))
        try:
            os.link(new, path)
        finally:
            os.unlink(new)
    except FileExistsError:
        _check_where(directory, registry)
    except OSError as wrong:
        raise Unavailable("write", path, wrong.strerror or str(wrong)) from None


def _busybox() -> str:
    import shutil

    found = shutil.which("busybox")
    if found is None:
        hint = "install busybox-static, or name one with --busybox"
        raise NotFound("find", "busybox", "busybox is not on this machine's PATH", hint=hint)
    return found


def _opened(path: str) -> io.FileIO:
    try:
        return open(path, "rb", buffering=0)
    except OSError as wrong:
        reason = (wrong.strerror or str(wrong)).lower()
        raise Invalid("import", path, reason, hint="name a tar archive of a root file system") from None


BOOTSTRAP = Command(
    _bootstrap,
    "Fill a registry with images that stand for docker.io's, for a machine without a network",
    "[OPTIONS] [REGISTRY]",
    flags=(
        Flag("busybox", "", STRING, "Make busybox of this program, which needs no library", default=""),
        Flag("no-mirror", "", BOOL, "Don't have docker.io asked for there", default=False),
        Flag("ubuntu", "", STRING, "Make ubuntu of this archive, not of this machine's programs", default=""),
    ),
    arguments=(0, 1),
)
