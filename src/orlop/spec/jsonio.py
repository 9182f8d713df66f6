"""JSON at the border: bounded reading of untrusted documents, one way of writing ours."""

from __future__ import annotations

import json

from .errors import Invalid

DOCUMENT_BYTES_MAX = 4 * 1024 * 1024  # the limit that registries set for manifests


def parse(data: bytes | str, subject: str, *, bytes_max: int = DOCUMENT_BYTES_MAX) -> object:
    """Return the value of one JSON document.

    subject names the document in errors. Raises Invalid for a document that is too large or too deep, is not
    UTF-8 or not JSON, repeats a name in an object (SEC-45: two readers would see two documents), or holds
    NaN or Infinity.
    """
    if len(data) > bytes_max:
        raise Invalid("read", subject, f"it has {len(data)} bytes, the limit is {bytes_max}")
    try:
        text = data.decode("utf-8") if isinstance(data, bytes) else data
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse)
    except RecursionError:
        raise Invalid("read", subject, "it is nested too deeply") from None
    except ValueError as wrong:
        raise Invalid("read", subject, f"it is not valid JSON: {wrong}") from None


def parse_object(data: bytes | str, subject: str, *, bytes_max: int = DOCUMENT_BYTES_MAX) -> dict[str, object]:
    """Like `parse`, and the document must be a JSON object."""
    value = parse(data, subject, bytes_max=bytes_max)
    if not isinstance(value, dict):
        raise Invalid("read", subject, "it is not a JSON object")
    return value


def dump(value: object) -> bytes:
    """Return the compact UTF-8 form: no spaces, keys in the order given."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    out = dict(pairs)
    if len(out) != len(pairs):
        seen: set[str] = set()
        repeated = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the name {repeated!r} stands twice in one object")
    return out


def _refuse(text: str) -> object:
    raise ValueError(f"{text} is not a JSON number")
