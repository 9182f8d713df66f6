"""The options of BuildKit's frontend dockerfile.v0 as a BuildRequest; the client's folders become folders of ours.

Source: moby/buildkit, frontend/dockerfile/builder and frontend/dockerui/config.go.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile

from ...build.cache import places
from ...build.garbage import SYNCED
from ...build.ignore import names_for, parse_lines
from ...build.output import wanted
from ...build.registries import HUB, LAYOUT_PREFIX, hosts, names_of
from ...build.request import BuildRequest, parse_epoch
from ...linux.path import read_in_root
from ...spec import jsonio, protobuf
from ...spec.container import UlimitRequest
from ...spec.errors import Invalid, NotFound, OrlopError, Unavailable, Unsupported
from . import filesync, grpc
from .content import layout_of
from .http2 import Broken

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ...build.cache.places import CachePlace
    from ...build.output.wanted import Attestation
    from ...engine.engine import Engine
    from ...spec.registry import Credentials
    from .session import Session

FRONTEND = "dockerfile.v0"
DOCKERFILE_BYTES_MAX = 16 << 20
_LOCAL = "local:"
_UPLOAD = "/moby.upload.v1.Upload/Pull"
_UPLOADED = "http://buildkit-session/"  # an archive that came on the client's standard input


def request_of(engine: Engine, session: Session, options: Mapping[str, str], asked: BuildRequest) -> BuildRequest:
    """Return what a client asks for, after its folders were read. asked: what it says elsewhere than in the options.

    Raises Invalid, Unavailable, Unsupported.
    """
    folders = _Folders(engine, session)
    name = options.get("filename", "Dockerfile")
    remote = options.get("context", "")
    is_upload = remote.startswith(_UPLOADED)
    text, ignore = _dockerfile(folders, options, name) if not remote else (None, None)
    main = ""
    if not remote:
        shared = folders.ignore_file(_main_name(options)) if ignore is None else ignore
        lines = parse_lines(shared.decode(errors="surrogateescape"))
        # What a Dockerfile that is excluded needs of itself came on its own.
        main = folders.read(_main_name(options), exclude=lines)
    request = asked.replace(
        context=main,
        archive=is_upload,
        remote="" if is_upload else remote,
        dockerfile=name,
        dockerfile_text=text,
        ignore_text=ignore.decode(errors="surrogateescape") if ignore is not None else None,
        contexts=_contexts(folders, options),
        build_args=_prefixed(options, "build-arg:"),
        labels=_prefixed(options, "label:"),
        target=options.get("target", ""),
        platforms=tuple(filter(None, options.get("platform", "").split(","))),
        no_cache=options.get("no-cache") == "",
        no_cache_stages=tuple(filter(None, options.get("no-cache", "").split(","))),
        pull=options.get("image-resolve-mode") == "pull",
        network={"host": "host", "none": "none"}.get(options.get("force-network-mode", ""), ""),
        extra_hosts=tuple(one.replace("=", ":", 1) for one in options.get("add-hosts", "").split(",") if one),
        shm_bytes=_number(options, "shm-size"),
        ulimits=_ulimits(options.get("ulimit", "")),
        cgroup_parent=options.get("cgroup-parent", ""),
        source_date_epoch_s=parse_epoch(options.get("build-arg:SOURCE_DATE_EPOCH", "")),
    )
    return request.replace(credentials=_credentials(session, request))


def cache_sources(
    engine: Engine, session: Session, options: Mapping[str, str], given: Sequence[Mapping[str, str]]
) -> tuple[CachePlace, ...]:
    """Return the caches that a build shall read: those of the options, and those that came beside them.

    Raises Invalid, Unsupported.
    """
    found = [{"type": places.REGISTRY, "ref": one} for one in options.get("cache-from", "").split(",") if one]
    told = jsonio.parse(options.get("cache-imports") or "[]", "cache-imports")
    for one in told if isinstance(told, list) else ():
        attributes = one.get("Attrs") if isinstance(one, dict) else None
        if isinstance(attributes, dict):
            found.append(
                {**{str(name): str(value) for name, value in attributes.items()}, "type": str(one.get("Type"))}
            )
    return tuple(dict.fromkeys(places.source(_of_client(engine, session, one)) for one in (*found, *given)))


def attestations_of(options: Mapping[str, str], *, leaves: bool) -> tuple[Attestation, ...]:
    """Return what a client wants to be attested. What it only wants beside images that leave (inline-only, buildx's
    default) is said of those, and not in folders. Raises Invalid, Unsupported.
    """
    found = []
    for kind, text in _prefixed(options, "attest:").items():
        attributes = {} if text in ("", "true") else dict(part.partition("=")[::2] for part in text.split(","))
        if attributes.get("inline-only") == "true" and not leaves:
            continue
        found.append(wanted.attestation({**attributes, "type": kind}))
    return tuple(one for one in found if one is not None)


def _of_client(engine: Engine, session: Session, attributes: Mapping[str, str]) -> Mapping[str, str]:
    """Return the attributes of a cache to read, a client's folder being one of ours then."""
    if attributes.get("type") != places.LOCAL:
        return attributes
    store, digest = f"local:{attributes.get('src', '')}", attributes.get("digest", "")
    try:
        folder = layout_of(engine, session, store, digest, places.TAG_DEFAULT)
    except OrlopError as wrong:
        folder = f"/nowhere ({wrong.cause})"  # what can't be read is told as a warning
    return {"type": places.LOCAL, "src": folder}


@contextlib.contextmanager
def upload(engine: Engine, session: Session, options: Mapping[str, str]) -> Iterator[int]:
    """Hold a descriptor of the archive that the client has read from its standard input, -1 when there is none.

    Raises Unavailable.
    """
    remote = options.get("context", "")
    if not remote.startswith(_UPLOADED):
        yield -1
        return
    directory = f"{engine.paths.root}/build"
    os.makedirs(directory, 0o700, exist_ok=True)
    with tempfile.TemporaryFile(dir=directory) as file:
        try:
            call = grpc.begin(session.connection, _UPLOAD, [("urlpath", f"/{remote.removeprefix(_UPLOADED)}")])
            call.end()
            for message in call.messages():
                file.write(protobuf.inner(protobuf.decode(message), 1))
            call.check()
        except grpc.Failed as error:
            raise Unavailable("read", "the archive on the client's standard input", error.text) from None
        except (Broken, ValueError) as error:
            raise Unavailable("read", "the archive on the client's standard input", str(error)) from None
        file.seek(0)
        yield file.fileno()


class _Folders:
    """The client's folders below the engine's data: one directory for each shared key and name."""

    def __init__(self, engine: Engine, session: Session) -> None:
        self._root = f"{engine.paths.root}/build/{SYNCED}"
        self._engine = engine
        self._session = session

    def read(self, name: str, *, exclude: Sequence[str] = (), follow: Sequence[str] = (), purpose: str = "") -> str:
        """Return the directory that is what the client's folder is now."""
        key = f"{self._session.shared_key or self._session.name}\0{name}\0{purpose}"
        directory = f"{self._root}/{hashlib.sha256(key.encode()).hexdigest()[:32]}"
        self._session.hold(directory)
        filesync.receive(self._session, name, directory, exclude=exclude, follow=follow)
        return directory

    def layout(self, name: str, source: str) -> str:
        """Return the named context that the client's layout is: STORE[:TAG]@DIGEST. Raises Invalid, Unavailable."""
        place, at, digest = source.partition("@")
        if not at:
            raise Invalid("build", f"context {name[:60]}", "a layout of a client's is named with its digest")
        store = f"oci:{place.partition(':')[0]}"
        return f"{LAYOUT_PREFIX}{layout_of(self._engine, self._session, store, digest, 'context')}:context"

    def file(self, name: str, paths: Sequence[str], purpose: str) -> dict[str, bytes]:
        """Return those of these files that the client's folder has; links lead nowhere out of it. Raises Invalid."""
        root = os.open(self.read(name, follow=paths, purpose=purpose), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        found = {}
        try:
            for path in paths:
                data = read_in_root(root, path, DOCKERFILE_BYTES_MAX)
                if data is not None:
                    found[path] = data
        except OSError as error:
            raise Invalid("read", path[:100], (error.strerror or str(error)).lower()) from None
        finally:
            os.close(root)
        return found

    def ignore_file(self, name: str) -> bytes:
        return self.file(name, [".dockerignore"], "ignore").get(".dockerignore", b"")


def _main_name(options: Mapping[str, str]) -> str:
    return options.get("contextkey", "context")


def _dockerfile(folders: _Folders, options: Mapping[str, str], name: str) -> tuple[str, bytes | None]:
    """Return the Dockerfile and the ignore file of its own, if it has one. Raises NotFound, Invalid."""
    own_ignore = names_for(name)[0]
    found = folders.file(options.get("dockerfilekey", "dockerfile"), [name, own_ignore], "dockerfile")
    if name not in found:
        cause = f"failed to read dockerfile: open {name}: no such file or directory"
        raise NotFound("build", name, cause, hint="name it with -f", code="E0407")
    return found[name].decode(errors="surrogateescape"), found.get(own_ignore)


def _contexts(folders: _Folders, options: Mapping[str, str]) -> dict[str, str]:
    """Return the named contexts; a folder of the client's is read first."""
    found = {}
    for name, source in _prefixed(options, "context:").items():
        if source.startswith(_LOCAL):
            found[name] = folders.read(source.removeprefix(_LOCAL))
        elif source.startswith(LAYOUT_PREFIX):
            found[name] = folders.layout(name, source.removeprefix(LAYOUT_PREFIX))
        elif source.startswith(("input:", "/")):
            raise Unsupported("build", f"context {name[:60]}", "a context of this kind is not served")
        else:
            found[name] = source
    return found


def _prefixed(options: Mapping[str, str], prefix: str) -> dict[str, str]:
    return {name.removeprefix(prefix): value for name, value in options.items() if name.startswith(prefix)}


def _number(options: Mapping[str, str], name: str) -> int:
    text = options.get(name, "") or "0"
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise Invalid("build", name, f"{text[:40]!r} is not a number")
    return int(text)


def _ulimits(text: str) -> tuple[UlimitRequest, ...]:
    from ..cli.flags import BadValue
    from ..cli.limits import parse_ulimit

    try:
        return tuple(parse_ulimit(one) for one in text.split(",") if one)
    except BadValue as error:
        raise Invalid("build", "ulimit", str(error)) from None


def _credentials(session: Session, request: BuildRequest) -> dict[str, Credentials]:
    """Return what the client knows for the registries that the build may ask."""
    found = {}
    for host in hosts(request.dockerfile_text or "", names_of(request)):
        credentials = session.credentials("https://index.docker.io/v1/" if host == HUB else host)
        if credentials is not None:
            found[host] = credentials
    return found
