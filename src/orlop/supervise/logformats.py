"""What log drivers send: one entry of output in the words of syslog, journald, fluentd, GELF and Splunk. Pure.

Source: RFC 3164, RFC 5424, RFC 6587 (framing); systemd.io, "Native Journal Protocol"; the Fluentd forward protocol v1
and msgpack.org's specification; docs.graylog.org, "GELF"; docs.splunk.com, "HTTP Event
Collector". Field names and defaults are those of docker's drivers.
"""

import os
import time

from ..spec import jsonio
from ..spec.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .logread import Entry

SEVERITY = {"stdout": 6, "stderr": 3}  # informational, error
FACILITIES = (
    "kern user mail daemon auth syslog lpr news uucp cron authpriv ftp - - - -"
    " local0 local1 local2 local3 local4 local5 local6 local7"
).split()
SYSLOG_FORMATS = ("", "rfc3164", "rfc5424", "rfc5424micro")
GELF_CHUNK_BYTES = 1420
GELF_CHUNKS_MAX = 128
_GELF_MAGIC = b"\x1e\x0f"
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_EVENT_TIME = b"\xd7\x00"  # fixext 8, type 0


def syslog(entry: "Entry", text: bytes, settings: "Mapping[str, str]") -> bytes:
    """Return one message with a newline at its end. settings: format, facility (a number), hostname, tag, pid."""
    priority = int(settings["facility"]) * 8 + SEVERITY[entry.stream]
    tag, pid, form = settings["tag"], settings["pid"], settings["format"]
    if form.startswith("rfc5424"):
        stamp = _rfc3339(entry.time_ns, 6 if form.endswith("micro") else 0)
        head = f"<{priority}>1 {stamp} {settings['hostname'] or '-'} {tag} {pid} {tag} - "
    elif form == "rfc3164":
        head = f"<{priority}>{_stamp(entry.time_ns)} {settings['hostname']} {tag}[{pid}]: "
    else:
        head = f"<{priority}>{_stamp(entry.time_ns)} {tag}[{pid}]: "
    return head.encode(errors="replace") + text + b"\n"


def with_length(message: bytes) -> bytes:
    """Return a message with its length in front: how syslog goes over TLS (RFC 5425)."""
    return b"%d %b" % (len(message), message)


def journal(entry: "Entry", text: bytes, settings: "Mapping[str, str]") -> bytes:
    """Return one message of the native protocol. settings: id, full_id, name, image, tag."""
    fields: dict[str, bytes] = {
        "PRIORITY": b"%d" % SEVERITY[entry.stream],
        "CONTAINER_ID": settings["id"].encode(),
        "CONTAINER_ID_FULL": settings["full_id"].encode(),
        "CONTAINER_NAME": settings["name"].encode(),
        "CONTAINER_TAG": settings["tag"].encode(),
        "IMAGE_NAME": settings["image"].encode(),
        "SYSLOG_IDENTIFIER": settings["tag"].encode(),
        "SYSLOG_TIMESTAMP": _rfc3339(entry.time_ns, 9).encode(),
    }
    for key, value in entry.attrs.items():
        if name := _journal_name(key):
            fields.setdefault(name, str(value).encode())
    return b"".join(_journal_field(name, value) for name, value in (("MESSAGE", text), *fields.items()))


def fluent(entry: "Entry", text: bytes, settings: "Mapping[str, str]", chunk: str = "") -> bytes:
    """Return one message [tag, time, record] or, with a chunk id to be acknowledged, [tag, time, record, option].

    settings: tag, full_id, name, precise ("1": time in nanoseconds).
    """
    record: dict[str, object] = {
        "container_id": settings["full_id"],
        "container_name": "/" + settings["name"],
        "source": entry.stream,
        "log": text,
        **entry.attrs,
    }
    seconds, nanoseconds = divmod(entry.time_ns, 10**9)
    when = msgpack(seconds)
    if settings["precise"]:
        when = _EVENT_TIME + seconds.to_bytes(4, "big") + nanoseconds.to_bytes(4, "big")
    parts = (msgpack(settings["tag"]), when, msgpack(record), *((msgpack({"chunk": chunk}),) if chunk else ()))
    return bytes((0x90 | len(parts),)) + b"".join(parts)


def msgpack(value: object) -> bytes:
    """Return the MessagePack form of a string, bytes (as a string), an integer from 0 to 2^64-1, or a map of these."""
    if isinstance(value, str):
        value = value.encode(errors="replace")
    if isinstance(value, bytes):
        return _sized(len(value), 0xA0, 31, ((0xD9, 1), (0xDA, 2), (0xDB, 4))) + value
    if isinstance(value, int):
        return _sized(value, 0x00, 0x7F, ((0xCC, 1), (0xCD, 2), (0xCE, 4), (0xCF, 8)))
    if isinstance(value, dict):
        head = _sized(len(value), 0x80, 15, ((0xDE, 2), (0xDF, 4)))
        return head + b"".join(msgpack(part) for pair in value.items() for part in pair)
    raise TypeError(f"{type(value).__name__} has no place in a log entry")


def gelf(entry: "Entry", text: bytes, settings: "Mapping[str, str]") -> bytes:
    """Return one message as JSON. settings: hostname, full_id, name, image_id, image, command, tag, created."""
    message: dict[str, object] = {
        "version": "1.1",
        "host": settings["hostname"],
        "short_message": text.decode(errors="replace"),
        "timestamp": round(entry.time_ns / 1e9, 3),
        "level": SEVERITY[entry.stream],
        "_command": settings["command"],
        "_container_id": settings["full_id"],
        "_container_name": settings["name"],
        "_created": settings["created"],
        "_image_id": settings["image_id"],
        "_image_name": settings["image"],
        "_tag": settings["tag"],
    }
    for key, value in entry.attrs.items():
        message.setdefault("_" + key, value)
    return jsonio.dump(message)


def splunk(entry: "Entry", text: bytes, settings: "Mapping[str, str]") -> bytes:
    """Return one event as JSON, of docker's three formats; nothing for what the collector takes no event of.

    settings: hostname, tag, format (inline, json or raw), source, sourcetype, index (these three may be empty).
    """
    line: object = text.decode(errors="replace")
    if settings["format"] == "raw":
        words = [settings["tag"], *(f"{key}={value}" for key, value in entry.attrs.items()), str(line)]
        event: object = " ".join(word for word in words if word)
        if not text.strip():
            return b""
    else:
        if settings["format"] == "json":
            try:
                line = jsonio.parse(text, "a line")
            except Invalid:
                pass  # then it is text
        event = {"line": line, "source": entry.stream, "tag": settings["tag"]}
        if entry.attrs:
            event["attrs"] = dict(entry.attrs)
    message = {"event": event, "time": f"{entry.time_ns / 1e9:.6f}", "host": settings["hostname"]}
    message |= {key: settings[key] for key in ("source", "sourcetype", "index") if settings[key]}
    return jsonio.dump(message)


def chunks(message: bytes) -> "Iterator[bytes]":
    """Yield the datagrams of a GELF message. Raises ValueError for one that is too large for the protocol."""
    if len(message) <= GELF_CHUNK_BYTES:
        yield message
        return
    size = GELF_CHUNK_BYTES - 12
    count = -(-len(message) // size)
    if count > GELF_CHUNKS_MAX:
        raise ValueError(f"a message of {len(message)} bytes does not fit into {GELF_CHUNKS_MAX} datagrams")
    identity = os.urandom(8)
    for index in range(count):
        yield _GELF_MAGIC + identity + bytes((index, count)) + message[index * size : (index + 1) * size]


def _rfc3339(time_ns: int, digits: int) -> str:
    seconds, nanoseconds = divmod(time_ns, 10**9)
    fraction = f".{nanoseconds:09d}"[: digits + 1] if digits else ""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + fraction + "Z"


def _stamp(time_ns: int) -> str:
    """Return local time as RFC 3164 has it: "Jan  2 15:04:05", in English whatever the locale."""
    local = time.localtime(time_ns // 10**9)
    return f"{_MONTHS[local.tm_mon - 1]} {local.tm_mday:2d} {local.tm_hour:02d}:{local.tm_min:02d}:{local.tm_sec:02d}"


def _journal_name(key: str) -> str:
    """Return a key as a journal field: capitals, digits and underscores, the first a letter; "" for none."""
    name = "".join(c if c.isascii() and c.isalnum() else "_" for c in key).upper().lstrip("_0123456789")
    return name[:64]


def _journal_field(name: str, value: bytes) -> bytes:
    if b"\n" in value:
        return b"%b\n%b%b\n" % (name.encode(), len(value).to_bytes(8, "little"), value)
    return b"%b=%b\n" % (name.encode(), value)


def _sized(number: int, base: int, base_max: int, forms: tuple[tuple[int, int], ...]) -> bytes:
    """Return a number in the smallest MessagePack form that holds it."""
    if number <= base_max:
        return bytes((base | number,))
    for code, width in forms:
        if number < 1 << 8 * width:
            return bytes((code,)) + number.to_bytes(width, "big")
    raise ValueError(f"{number} does not fit")
