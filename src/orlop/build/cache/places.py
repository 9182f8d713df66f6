"""Where a cache comes from and goes to: --cache-from and --cache-to as buildx writes them, every attribute known.

Source: docker's documentation of cache backends (registry, inline, local); BuildKit, cache/remotecache.
"""

from orlop.spec.errors import Invalid, Unsupported
from orlop.spec.record import Record
from orlop.spec.reference import Reference
from orlop.spec.registry import ESTARGZ

from .. import attributes
from ..output import wanted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

LOCAL, REGISTRY, INLINE = "local", "registry", "inline"
MIN, MAX = "min", "max"
TAG_DEFAULT = "latest"
_ELSEWHERE = ("gha", "s3", "azblob")
_PACKED = ("compression", "compression-level", "force-compression")
_FROM = {LOCAL: ("src", "tag", "digest"), REGISTRY: ("ref",)}
_TO = {
    LOCAL: ("dest", "tag", "mode", "ignore-error", "oci-mediatypes", "image-manifest", *_PACKED),
    REGISTRY: ("ref", "mode", "ignore-error", "oci-mediatypes", "image-manifest", *_PACKED),
    INLINE: (),
}


class CachePlace(Record):
    """One place of a cache. path: the folder of LOCAL; tag: what it is called there; digest: which one of several.

    reference: of REGISTRY. mode: MIN carries the layers of the image's own steps, MAX those of all steps; what is
    known of a step is carried either way. ignore_error: a cache that can't be written is no failure of the build.
    form: how its layers are compressed.
    """

    strict = True
    type: str
    path: str = ""
    tag: str = TAG_DEFAULT
    digest: str = ""
    reference: str = ""
    mode: str = MIN
    ignore_error: bool = False
    form: wanted.Form = wanted.Form()

    def __str__(self) -> str:
        return self.path or self.reference or self.type


def source(attributes: "Mapping[str, str]") -> CachePlace:
    """Return the place of a --cache-from. Raises Invalid, Unsupported."""
    kind = _kind(attributes, _FROM, "--cache-from")
    given = {name: value for name, value in attributes.items() if name != "type"}
    _known(kind, given, _FROM[kind], "--cache-from")
    if kind == LOCAL:
        path = _needed(given, "src", "--cache-from type=local")
        return CachePlace(type=kind, path=path, tag=given.get("tag", TAG_DEFAULT), digest=given.get("digest", ""))
    return CachePlace(type=kind, reference=_reference(given, "--cache-from"))


def destination(attributes: "Mapping[str, str]") -> CachePlace:
    """Return the place of a --cache-to. Raises Invalid, Unsupported."""
    kind = _kind(attributes, _TO, "--cache-to")
    given = {name: value for name, value in attributes.items() if name != "type"}
    _known(kind, given, _TO[kind], "--cache-to")
    mode = given.get("mode", MIN)
    if mode not in (MIN, MAX):
        raise Invalid("build", f"--cache-to mode={mode[:40]}", "there is no such mode", hint="mode=min or mode=max")
    for name in ("oci-mediatypes", "image-manifest"):
        if not _flag(given, name, default=True):
            hint = f"leave {name} away"
            cause = "a cache is written as an image manifest of the OCI, which every registry takes"
            raise Unsupported("build", f"--cache-to {name}=false", cause, hint=hint)
    if kind == INLINE:
        return CachePlace(type=kind)
    form = wanted.form_of({name: given[name] for name in _PACKED if name in given})
    if form.compression == ESTARGZ:
        cause = "a layer of a cache is known by what it holds, and estargz adds a table to that"
        raise Unsupported("build", "cache compression=estargz", cause, hint="use zstd or gzip")
    ignore = _flag(given, "ignore-error", default=False)
    if kind == LOCAL:
        path, tag = _needed(given, "dest", "--cache-to type=local"), given.get("tag", TAG_DEFAULT)
        return CachePlace(type=kind, path=path, tag=tag, mode=mode, ignore_error=ignore, form=form)
    reference = _reference(given, "--cache-to")
    return CachePlace(type=kind, reference=reference, mode=mode, ignore_error=ignore, form=form)


def fields_of(text: str) -> dict[str, str]:
    """Return the attributes of one flag; a word alone is a reference, as buildx has it. Raises Invalid."""
    if "=" not in text:
        return {"type": REGISTRY, "ref": text}
    given = attributes.pairs(text, f"cache {text[:100]}", "write type=registry,ref=")
    return {name.lower(): value for name, value in given}


def _kind(attributes: "Mapping[str, str]", known: "Mapping[str, object]", flag: str) -> str:
    kind = attributes.get("type", "")
    if kind in _ELSEWHERE:
        cause = f"caches of type {kind} lie with a provider of clouds whose interface is not spoken here"
        raise Unsupported("build", f"{flag} type={kind}", cause, hint="use type=registry or type=local")
    if kind not in known:
        raise Invalid("build", f"{flag} type={kind[:40]}", "there is no such type", hint=f"one of {', '.join(known)}")
    return kind


def _known(kind: str, given: "Mapping[str, str]", names: tuple[str, ...], flag: str) -> None:
    unknown = sorted(given.keys() - set(names))
    if "registry.insecure" in unknown:
        wanted.refuse_insecure(flag)
    if unknown:
        hint = f"it has: {', '.join(names) or 'none'}"
        raise Invalid("build", f"{flag} type={kind}", f"it has no attribute {unknown[0][:60]!r}", hint=hint)


def _needed(given: "Mapping[str, str]", name: str, flag: str) -> str:
    if not given.get(name):
        raise Invalid("build", flag, f"it needs {name}", hint=f"write {flag},{name}=FOLDER")
    return given[name]


def _reference(given: "Mapping[str, str]", flag: str) -> str:
    return str(Reference.parse(_needed(given, "ref", f"{flag} type=registry")).tagged())


def _flag(given: "Mapping[str, str]", name: str, *, default: bool) -> bool:
    text = given.get(name, "")
    if text in ("true", "1", ""):
        return default if name not in given else True
    if text in ("false", "0"):
        return False
    raise Invalid("build", f"{name}={text[:40]}", "it is neither true nor false")
