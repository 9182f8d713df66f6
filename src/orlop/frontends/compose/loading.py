"""From the files of a project to one merged document: override files, `include`, `extends`, `.env`.

Each file is read, its variables replaced, its values converted (fields) and its `extends` followed before it is merged
over what came before; an included file is a project of its own, with its own directory and variables.
"""

from __future__ import annotations

import os
import sys

from ...spec.errors import Invalid, NotFound
from . import document, dotenv
from .document import Map, Place, wrong
from .fields import REMOTE_HINT, Fields, is_remote
from .interpolation import as_written, interpolate
from .merging import merge

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

FILES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
KINDS = ("services", "networks", "volumes", "secrets", "configs", "models")


class Sources:
    """What to load. files: as the user named them, "-" is standard input; none are searched for, upwards.

    env_files: instead of the project directory's .env. warn: told of what is no error. interpolates: replace
    variables; absolute: make relative paths absolute.
    """

    def __init__(
        self,
        files: Sequence[str] = (),
        directory: str = "",
        env_files: Sequence[str] = (),
        environ: Mapping[str, str] = os.environ,
        warn: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.interpolates = self.absolute = True
        self.files = list(files)
        self.directory = directory
        self.env_files = list(env_files)
        self.environ = environ
        self.warn = warn


class Loaded:
    """A merged document. directory: the project's; files: absolute; variables: the environment and the .env files."""

    def __init__(self, document: Map, directory: str, files: list[str], variables: dict[str, str]) -> None:
        self.document = document
        self.directory = directory
        self.files = files
        self.variables = variables


def load(sources: Sources) -> Loaded:
    """Read everything. Raises Invalid with the place of what is wrong, NotFound without a file."""
    environ = dict(sources.environ)
    files, found_in = _files(sources, environ)
    directory = os.path.abspath(sources.directory) if sources.directory else found_in
    variables = _variables(sources, directory, environ)
    if not sources.files and "COMPOSE_FILE" not in environ and "COMPOSE_FILE" in variables:
        files, _ = _files(sources, variables)
    loader = _Loader(variables, sources)
    return Loaded(loader.files(files, directory, ()), directory, files, variables)


def _files(sources: Sources, environ: Mapping[str, str]) -> tuple[list[str], str]:
    """Return the files and the directory of the first."""
    named = sources.files
    if not named and environ.get("COMPOSE_FILE"):
        named = environ["COMPOSE_FILE"].split(environ.get("COMPOSE_PATH_SEPARATOR", ":"))
    if remote := next((name for name in named if is_remote(name)), None):
        raise Invalid("read", remote, "compose files are not fetched from elsewhere", hint=REMOTE_HINT)
    if named:
        files = [name if name == "-" else os.path.abspath(name) for name in named]
        return files, os.getcwd() if files[0] == "-" else os.path.dirname(files[0])
    start = directory = os.path.abspath(sources.directory) if sources.directory else os.getcwd()
    while True:
        for name in FILES:
            path = os.path.join(directory, name)
            if os.path.isfile(path):
                return [path, *_overrides(directory, name)], directory
        above = os.path.dirname(directory)
        if above == directory:
            hint = f"write {FILES[0]}, or name a file with -f"
            raise NotFound("find", f"a compose file in {start}", "no configuration file provided: not found", hint=hint)
        directory = above


def _overrides(directory: str, name: str) -> list[str]:
    stem = name.rpartition(".")[0]
    paths = (os.path.join(directory, f"{stem}.override.{end}") for end in ("yml", "yaml"))
    return [path for path in paths if os.path.isfile(path)][:1]


def _variables(sources: Sources, directory: str, environ: dict[str, str]) -> dict[str, str]:
    """Return the environment over what the .env files say."""
    named = sources.env_files or [path for path in environ.get("COMPOSE_ENV_FILES", "").split(",") if path]
    default = os.path.join(directory, ".env")
    paths = [os.path.abspath(path) for path in named] or ([default] if os.path.isfile(default) else [])
    return _with_env_files(environ, paths)


def _with_env_files(environ: Mapping[str, str], paths: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in paths:
        values = dotenv.read(path, {**found, **environ})
        found.update({name: value for name, value in values.items() if value is not None})
    return {**found, **environ}


class _Loader:
    """Loads files that share variables."""

    def __init__(self, variables: dict[str, str], sources: Sources) -> None:
        self.variables = variables
        self.sources = sources
        self._missing: set[str] = set()

    def files(self, paths: Sequence[str], directory: str, above: tuple[str, ...]) -> Map:
        """Return the files merged. above: the files that include these."""
        merged = Map(Place(paths[0], 1, 1))
        for path in paths:
            if path in above:
                cause = f"include cycle detected: {' includes '.join((*above, path))}"
                raise Invalid("read", path, cause, hint="leave one include away")
            for found in self._read(path, directory):
                included = self._included(found, (*above, path))
                found = merge(merged, self._extended(found, merged, path, directory))
                merged = _with_included(found, included)
        return merged

    def _read(self, path: str, directory: str) -> list[Map]:
        """Return the documents of one file, canonical."""
        documents = document.parse(_bytes(path), _shown(path))
        if not documents:
            raise Invalid("read", _shown(path), "empty compose file", hint="begin with `services:`")
        fields = Fields(directory, absolute=self.sources.absolute)
        made = []
        for one in documents:
            is_replaced = self.sources.interpolates
            replaced = interpolate(one, self.variables, self._told) if is_replaced else as_written(one)
            made.append(fields.document(replaced, "", replaced.place))
        return made

    def _told(self, name: str) -> None:
        if name not in self._missing:
            self._missing.add(name)
            self.sources.warn(f'The "{name}" variable is not set. Defaulting to a blank string.')

    # -- include -----------------------------------------------------------------------------------------------------

    def _included(self, found: Map, above: tuple[str, ...]) -> list[Map]:
        included = []
        for wish in found.pop("include", ()):
            paths = wish["path"]
            directory = wish.get("project_directory") or os.path.dirname(paths[0])
            default = os.path.join(directory, ".env")
            env_files = wish.get("env_file") or ([default] if os.path.isfile(default) else [])
            inner = _Loader(_with_env_files(self.variables, env_files), self.sources)
            included.append(inner.files(paths, directory, above))
        return included

    # -- extends -----------------------------------------------------------------------------------------------------

    def _extended(self, found: Map, merged: Map, path: str, directory: str) -> Map:
        """Return the document with the services that its services extend merged under them."""
        services = found.get("services")
        if not services:
            return found
        known = {**merged.get("services", {}), **services}
        made = {
            name: self._with_base(name, service, known, path, directory, ()) if "extends" in service else service
            for name, service in services.items()
        }
        return found.like({**found, "services": services.like(made)})

    def _with_base(
        self, name: str, service: Map, known: Mapping[str, Map], path: str, directory: str, above: tuple[str, ...]
    ) -> Map:
        here = f"{path}:{name}"
        if here in above:
            raise wrong(service.place, f"services.{name}.extends", "circular reference", "leave one extends away")
        if "extends" not in service:
            return service
        wish = service["extends"]
        file = wish.get("file") or path
        if file != path:
            known, directory = self._services_of(file), os.path.dirname(file)
        base_name = wish["service"]
        base = known.get(base_name)
        if base is None:
            cause = (
                f'cannot extend service "{name}" in {_shown(path)}: service "{base_name}" not found in {_shown(file)}'
            )
            raise wrong(wish.place, f"services.{name}.extends", cause, "name a service of that file")
        base = self._with_base(base_name, base, known, file, directory, (*above, here))
        return merge(base, service.like({key: value for key, value in service.items() if key != "extends"}))

    def _services_of(self, file: str) -> dict[str, Map]:
        found: dict[str, Map] = {}
        for one in self._read(file, os.path.dirname(file)):
            found.update(one.get("services", {}))
        return found


def _with_included(found: Map, included: Sequence[Map]) -> Map:
    """Add what included files define; the same name with another meaning is a conflict, never an override."""
    made = found.like(dict(found))
    for other in included:
        for kind in KINDS:
            if kind not in other:
                continue
            own = made.get(kind, Map(other.place))
            for name, value in other[kind].items():
                if name in own and own[name] != value:
                    cause = f"{kind}.{name} conflicts with imported resource"
                    raise wrong(own.places.get(name), "", cause, "rename one of them, or override it with -f")
            made.put(kind, merge(own, other[kind]), other.place)
    return made


def _bytes(path: str) -> bytes:
    try:
        if path == "-":
            return sys.stdin.buffer.read(document.BYTES_MAX + 1)
        with open(path, "rb") as file:
            return file.read(document.BYTES_MAX + 1)
    except OSError as error:
        raise Invalid("read", path, (error.strerror or str(error)).lower(), hint="name a compose file") from None


def _shown(path: str) -> str:
    """Return a path as errors show it: relative where that is shorter."""
    return path if path == "-" else min(os.path.relpath(path), path, key=len)
