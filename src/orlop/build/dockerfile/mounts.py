"""RUN --mount: its comma-separated form, with the words of BuildKit's refusals."""

from orlop.spec.record import Record

from .. import attributes
from .fields import boolean, integer
from .source import suggestion

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

BIND, CACHE, TMPFS, SECRET, SSH = TYPES = ("bind", "cache", "tmpfs", "secret", "ssh")
_SHARING = ("shared", "private", "locked")
_SIZE_UNITS = {"": 1, "b": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_NAMES = {
    "src": "source",
    "dst": "target",
    "destination": "target",
    "ro": "readonly",
    "rw": "readwrite",
}
_KEYS = (
    *("type", "from", "source", "target", "readonly", "readwrite", "id", "sharing", "required", "size"),
    *("mode", "uid", "gid", "env"),
)


class MountFlag(Record):
    """What one --mount says. None: it does not say. size: bytes."""

    type: str = BIND
    source_stage: str = ""
    source: str = ""
    target: str = ""
    read_only: bool | None = None
    id: str = ""
    sharing: str = ""
    required: bool = False
    size: int = 0
    env: str = ""
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None


def source_stage(text: str) -> str:
    """Return what `from=` of a --mount names, "" when it names nothing: known before variables are."""
    for field in _fields(text):
        key, _, value = field.partition("=")
        if key.lower() == "from":
            return value
    return ""


def parse_mount(text: str, expand: "Callable[[str], str]") -> MountFlag:
    """Return what a --mount says, with variables replaced. Raises ValueError."""
    given: dict[str, str | None] = {}
    for field in _fields(text):
        key, equals, value = field.partition("=")
        name = _NAMES.get(key.lower(), key.lower())
        if name not in _KEYS:
            known = [*_KEYS, *_NAMES]
            raise ValueError(f"unexpected key '{key.lower()}' in '{field}'{suggestion(key, known)}")
        if not equals and name not in ("readonly", "readwrite", "required"):
            raise ValueError(f"invalid field '{field}' must be a key=value pair")
        if name == "from" and "$" in value[:-1]:
            raise ValueError("'from' doesn't support variable expansion, define alias stage instead")
        given[name] = expand(value) if equals else None
    mount = _mount(given)
    _check(mount, given)
    return mount


def _fields(text: str) -> list[str]:
    try:
        return attributes.fields(text)
    except ValueError as wrong:
        raise ValueError(f"failed to parse csv mounts: {wrong}") from None


def _mount(given: dict[str, str | None]) -> MountFlag:
    kind = (given.get("type") or BIND).lower()
    if kind not in TYPES:
        raise ValueError(f'unsupported mount type "{kind}"{suggestion(kind, TYPES)}')
    sharing = (given.get("sharing") or "").lower()
    if sharing and sharing not in _SHARING:
        raise ValueError(f'unsupported sharing value "{sharing}"{suggestion(sharing, _SHARING)}')
    read_only = _switch(given, "readonly")
    writable = _switch(given, "readwrite")
    return MountFlag(
        type=kind,
        source_stage=given.get("from") or "",
        source=given.get("source") or "",
        target=given.get("target") or "",
        read_only=read_only if writable is None else not writable,
        id=given.get("id") or "",
        sharing=sharing,
        required=bool(_switch(given, "required")),
        size=_size(given.get("size")),
        env=given.get("env") or "",
        mode=_number(given, "mode", 8),
        uid=_number(given, "uid", 10),
        gid=_number(given, "gid", 10),
    )


def _switch(given: dict[str, str | None], name: str) -> bool | None:
    if name not in given:
        return None
    text = given[name]
    value = True if text is None else boolean(text)
    if value is None:
        raise ValueError(f"invalid value for {name}: {text}")
    return value


def _number(given: dict[str, str | None], name: str, base: int) -> int | None:
    text = given.get(name)
    return None if text is None else integer(text, base, f"invalid value {text} for {name}")


def _size(text: str | None) -> int:
    if text is None:
        return 0
    digits = text.rstrip("bBkKmMgGtTiI")
    unit = text[len(digits) :].lower()
    unit = unit if len(unit) < 2 else unit.removesuffix("b").removesuffix("i")
    if unit not in _SIZE_UNITS:
        raise ValueError(f"invalid value {text} for size")
    return integer(digits, 10, f"invalid value {text} for size", maximum=2**62) * _SIZE_UNITS[unit]


def _check(mount: MountFlag, given: dict[str, str | None]) -> None:
    """Refuse what does not belong to the mount's type."""
    owned = mount.type in (SECRET, SSH, CACHE)
    for name in ("mode", "uid", "gid"):
        if name in given and not owned:
            raise ValueError(f'{name} not allowed for "{mount.type}" type mounts')
    if "required" in given and mount.type not in (SECRET, SSH):
        raise ValueError(f"unexpected key 'required' for mount type '{mount.type}'")
    if "env" in given and mount.type != SECRET:
        raise ValueError(f"unexpected key 'env' for mount type '{mount.type}'")
    if "size" in given and mount.type != TMPFS:
        raise ValueError(f"unexpected key 'size' for mount type '{mount.type}'")
    if mount.sharing and mount.type != CACHE:
        raise ValueError(f"invalid cache sharing set for {mount.type} mount")
    if mount.type == SECRET:
        if mount.source_stage:
            raise ValueError("secret mount should not have a from")
        if not (mount.source or mount.target or mount.id):
            raise ValueError("invalid secret mount. one of source, target required")
        if mount.source and mount.id:
            raise ValueError("both source and id can't be set")
    if mount.type == CACHE and "\0" in mount.id:
        raise ValueError("the id of a cache can't hold a NUL character")
