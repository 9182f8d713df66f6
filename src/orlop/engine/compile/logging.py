"""--log-driver and --log-opt: docker's options, checked, with our defaults, as what a monitor needs to know. Pure.

Every log is capped unless the user says max-size=-1: docker's default fills the disk (moby 40207). A driver that sends
entries somewhere keeps a file as well, so that `orlop logs` works with every driver but "none" (docker's dual logging).
"""

from __future__ import annotations

import re

from ...spec.errors import Invalid
from ...spec.task import LOG_DRIVERS, LogOptions
from ...supervise.logformats import FACILITIES, SYSLOG_FORMATS
from ..containers.names import short_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...spec.container import ContainerRequest
    from ..containers.record import ContainerRecord

DRIVER_DEFAULT = "json-file"
BUDGET_BYTES_DEFAULT = 10 * 1024**3
CACHE_BYTES_DEFAULT = 20 * 1024**2  # docker's, of the cache of a remote driver and of "local"
CACHE_FILES_DEFAULT = 5
FILES_MAX = 1000
ATTRS_BYTES_MAX = 8 * 1024  # they stand in every entry

_SHOWN = frozenset("labels labels-regex env env-regex tag".split())
_FILE = frozenset("max-size max-file compress".split())
_CACHE = frozenset("cache-disabled cache-max-size cache-max-file cache-compress".split())
_ALL = frozenset("mode max-buffer-size".split())
_REMOTE = {
    "syslog": frozenset(
        "syslog-address syslog-facility syslog-format syslog-tls-ca-cert syslog-tls-cert syslog-tls-key"
        " syslog-tls-skip-verify".split()
    ),
    "journald": frozenset(),
    "fluentd": frozenset(
        "fluentd-address fluentd-async fluentd-async-connect fluentd-async-reconnect-interval fluentd-buffer-limit"
        " fluentd-max-retries fluentd-read-timeout fluentd-request-ack fluentd-retry-wait fluentd-sub-second-precision"
        " fluentd-write-timeout".split()
    ),
    "gelf": frozenset(
        "gelf-address gelf-compression-level gelf-compression-type gelf-tcp-max-reconnect"
        " gelf-tcp-reconnect-delay".split()
    ),
    "splunk": frozenset(
        "splunk-token splunk-url splunk-source splunk-sourcetype splunk-index splunk-capath splunk-caname"
        " splunk-insecureskipverify splunk-format splunk-verify-connection splunk-gzip splunk-gzip-level".split()
    ),
}
_OPTIONS: dict[str, frozenset[str]] = {
    "json-file": _FILE | _SHOWN,
    "local": _FILE | _SHOWN,
    "none": frozenset(),
    **{driver: own | _SHOWN | _CACHE for driver, own in _REMOTE.items()},
}
_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_PORTS = {"udp": "514", "tcp": "514", "tcp+tls": "514"}
_TAG_FIELDS = ("ID", "FullID", "Name", "ImageID", "ImageFullID", "ImageName", "DaemonName", "Command")
_FIELD = re.compile(r"\{\{\s*\.(\w+)\s*\}\}")


def check(request: ContainerRequest, subject: str) -> None:
    """Raise Invalid, in docker's words, for a driver or an option that does not exist or has a wrong value."""
    wanted = _Options(request, subject)
    wanted.settings()
    wanted.expand(wanted.text("tag"), dict.fromkeys(_TAG_FIELDS, ""))


def options(record: ContainerRecord, hostname: str, budget_bytes: int = BUDGET_BYTES_DEFAULT) -> LogOptions:
    """Return what the monitor of a container does with its output. hostname: the machine's. Raises Invalid."""
    wanted = _Options(record.request, record.subject)
    fields = _fields(record)
    attrs = wanted.attrs(record)
    tag = wanted.expand(wanted.text("tag"), fields)
    remote: dict[str, str] = {}
    if wanted.driver in _REMOTE:
        tag = tag or fields["ID"]
        remote = {
            **wanted.settings(),
            "driver": wanted.driver,
            "tag": tag,
            "hostname": hostname,
            "id": fields["ID"],
            "full_id": record.id,
            "name": record.name,
            "image": fields["ImageName"],
            "image_id": record.image_id,
            "command": fields["Command"],
            "created": record.created_at,
        }
    elif tag:
        attrs["tag"] = tag
    if sum(len(key) + len(value) for key, value in attrs.items()) > ATTRS_BYTES_MAX:
        raise wanted.wrong(f"the labels and variables of each entry have more than {ATTRS_BYTES_MAX} bytes")
    size, files, compress = wanted.limits()
    return LogOptions(
        driver=wanted.driver,
        max_size_bytes=size,
        max_files=files,
        compress=compress,
        budget_bytes=budget_bytes,
        attrs=attrs,
        remote=remote,
    )


def budget_bytes(environ: Mapping[str, str]) -> int:
    """Return what all logs together may take: ORLOP_LOG_BUDGET in bytes, 0 for no limit, or our default."""
    text = environ.get("ORLOP_LOG_BUDGET", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else BUDGET_BYTES_DEFAULT


def is_readable(request: ContainerRequest) -> bool:
    """Tell whether `orlop logs` has something to read."""
    return request.log_driver != "none" and request.log_options.get("cache-disabled", "") not in ("true", "1")


class _Options:
    """The options of one container. Every method raises Invalid for a value that is none."""

    def __init__(self, request: ContainerRequest, subject: str) -> None:
        self.subject = subject
        self.driver = request.log_driver or DRIVER_DEFAULT
        self._given = request.log_options
        if self.driver not in LOG_DRIVERS:
            cause = f"logger: no log driver named '{self.driver[:60]}' is registered"
            raise Invalid("create", subject, cause, hint=f"use one of {', '.join(LOG_DRIVERS)}")
        for key in self._given:
            if key not in _OPTIONS[self.driver] | _ALL:
                raise self.wrong(f"unknown log opt '{key[:60]}' for {self.driver} log driver")
        mode = self.text("mode", "blocking")
        if mode not in ("blocking", "non-blocking"):
            raise self.wrong(f"logger: logging mode {mode[:60]!r} not supported")
        if self.text("max-buffer-size"):
            if mode != "non-blocking":
                raise self.wrong('logger: max-buffer-size option is only supported with "mode=non-blocking"')
            self.size("max-buffer-size", 0)  # ours is the file: nothing blocks, and nothing else needs a bound

    def wrong(self, cause: str) -> Invalid:
        known = ", ".join(sorted(_OPTIONS.get(self.driver, frozenset()) | _ALL))
        return Invalid("create", self.subject, cause, hint=f"{self.driver} has the options {known}", code="E0247")

    def text(self, key: str, default: str = "") -> str:
        return self._given.get(key) or default

    def flag(self, key: str, default: bool = False) -> bool:
        value = self.text(key)
        if not value:
            return default
        if value.lower() in ("1", "t", "true"):
            return True
        if value.lower() in ("0", "f", "false"):
            return False
        raise self.wrong(f"invalid value for {key}: {value[:60]!r} is not true or false")

    def number(self, key: str, default: int, low: int, high: int) -> int:
        value = self.text(key)
        if not value:
            return default
        digits = value.removeprefix("-")
        if not (digits.isascii() and digits.isdigit() and len(value) <= 18 and low <= int(value) <= high):
            raise self.wrong(f"invalid value for {key}: {value[:60]!r} is not a number from {low} to {high}")
        return int(value)

    def size(self, key: str, default: int) -> int:
        """Bytes with one of docker's units; -1 is no limit, returned as 0."""
        value = self.text(key).lower()
        if not value:
            return default
        if value == "-1":
            return 0
        found = re.fullmatch(r"(\d{1,19}(?:\.\d+)?)\s?([bkmgt]?)(?:i?b)?", value, re.ASCII)
        if found is None or not (size := int(float(found[1]) * _UNITS[found[2]])):
            raise self.wrong(f"invalid value for {key}: invalid size: '{value[:60]}'")
        return min(size, 2**62)

    def limits(self) -> tuple[int, int, bool]:
        """Return (max_size_bytes, max_files, compress) of the file that is kept."""
        if self.driver == "json-file":
            size = self.size("max-size", LogOptions().max_size_bytes)
            files = self.number(
                "max-file", LogOptions().max_files if "max-size" not in self._given else 1, 1, FILES_MAX
            )
            compress = self.flag("compress")
            if compress and files == 1:
                raise self.wrong("compress cannot be true when max-file is less than 2 or unspecified")
            if not size and files > 1 and "max-file" in self._given:
                raise self.wrong("max-size is unlimited: max-file has no meaning without it")
            return size, files, compress
        prefix = "cache-" if self.driver in _REMOTE else ""
        size = self.size(f"{prefix}max-size", CACHE_BYTES_DEFAULT)
        files = self.number(f"{prefix}max-file", CACHE_FILES_DEFAULT, 1, FILES_MAX)
        return size, files, self.flag(f"{prefix}compress", True) and files > 1 and bool(size)

    def attrs(self, record: ContainerRecord) -> dict[str, str]:
        """Return the labels and variables that every entry shows."""
        environment = dict(entry.partition("=")[::2] for entry in record.config.env)
        return self._chosen("labels", record.config.labels) | self._chosen("env", environment)

    def _chosen(self, key: str, values: Mapping[str, str]) -> dict[str, str]:
        names = [name.strip() for name in self.text(key).split(",")]
        chosen = {name: values[name] for name in names if name in values}
        if pattern := self.text(f"{key}-regex"):
            try:
                wanted = re.compile(pattern)
            except re.error as error:
                raise self.wrong(f"invalid value for {key}-regex: {error}") from None
            chosen |= {name: value for name, value in values.items() if wanted.search(name)}
        return chosen

    def expand(self, template: str, fields: Mapping[str, str]) -> str:
        """Return a tag with its {{.Field}} replaced."""

        def field(found: re.Match[str]) -> str:
            if found[1] not in fields:
                raise self.wrong(f"the tag has no field .{found[1]}: it has {', '.join(fields)}")
            return fields[found[1]]

        text = _FIELD.sub(field, template)
        if "{{" in text:
            raise self.wrong(f"the tag {template[:100]!r} holds more than fields such as {{{{.Name}}}}")
        return text

    def settings(self) -> dict[str, str]:
        """Return what a remote driver needs to know beside the container; empty for the others."""
        self.limits()
        if self.driver == "syslog":
            return self._syslog()
        if self.driver == "journald":
            return {"address": "unixgram:///run/systemd/journal/socket"}
        if self.driver == "fluentd":
            return {
                "address": self._address("fluentd-address", "tcp://127.0.0.1:24224", ("tcp", "unix", "tls"), "24224"),
                "precise": "1" if self.flag("fluentd-sub-second-precision") else "",
                "ack": "1" if self.flag("fluentd-request-ack") else "",
            }
        if self.driver == "gelf":
            return self._gelf()
        if self.driver == "splunk":
            return self._splunk()
        return {}

    def _syslog(self) -> dict[str, str]:
        facility = self.text("syslog-facility", "daemon")
        number = facility if facility.isascii() and facility.isdigit() and int(facility[:4]) < len(FACILITIES) else ""
        if not number and (facility not in FACILITIES or facility == "-"):
            raise self.wrong(f"invalid syslog facility {facility[:60]!r}")
        form = self.text("syslog-format")
        if form not in SYSLOG_FORMATS:
            raise self.wrong("Invalid syslog format")
        schemes = ("tcp", "udp", "tcp+tls", "unix", "unixgram")
        return {
            "address": self._address("syslog-address", "", schemes, "514"),
            "facility": number or str(FACILITIES.index(facility)),
            "format": form,
            "ca": self.text("syslog-tls-ca-cert"),
            "cert": self.text("syslog-tls-cert"),
            "key": self.text("syslog-tls-key"),
            "skip_verify": self.text("syslog-tls-skip-verify"),
        }

    def _gelf(self) -> dict[str, str]:
        if not self.text("gelf-address"):
            raise self.wrong("gelf-address is a required parameter")
        kind = self.text("gelf-compression-type", "gzip")
        if kind not in ("gzip", "zlib", "none"):
            raise self.wrong(f"invalid value for gelf-compression-type: {kind[:60]!r}")
        address = self._address("gelf-address", "", ("udp", "tcp"), "")
        return {
            "address": address,
            "compression": kind,
            "level": str(self.number("gelf-compression-level", 1, -1, 9)),
        }

    def _splunk(self) -> dict[str, str]:
        """Of docker's options, splunk-verify-connection changes nothing: lines wait for their collector in the file."""
        for key in ("splunk-url", "splunk-token"):
            if not self.text(key):
                raise self.wrong(f"splunk: {key} is expected")
        token = self.text("splunk-token")
        if not (token.isascii() and token.isprintable()):
            raise self.wrong("splunk: splunk-token has characters that no header may have")
        scheme, _, place = self.text("splunk-url").partition("://")
        place = place.removesuffix("/")
        if scheme not in ("http", "https") or not place or any(letter in place for letter in "/?#@ "):
            raise self.wrong("splunk: expected format scheme://dns_name_or_ip:port for splunk-url")
        form = self.text("splunk-format", "inline")
        if form not in ("inline", "json", "raw"):
            raise self.wrong(f"Unknown format specified {form[:60]}, supported formats are inline, json and raw")
        self.flag("splunk-verify-connection")
        kind, port = ("tcp+tls", "443") if scheme == "https" else ("tcp", "80")
        return {
            "address": self._place("splunk-url", f"{kind}://{place}", (kind,), port),
            "token": token,
            "format": form,
            **{key: self.text(f"splunk-{key}") for key in ("source", "sourcetype", "index")},
            "ca": self.text("splunk-capath"),
            "server_name": self.text("splunk-caname"),
            "skip_verify": "1" if self.flag("splunk-insecureskipverify") else "",
            "gzip": "1" if self.flag("splunk-gzip") else "",
            "level": str(self.number("splunk-gzip-level", -1, -1, 9)),
        }

    def _address(self, key: str, default: str, schemes: tuple[str, ...], port: str) -> str:
        """Return what an option says, as `_place` does."""
        return self._place(key, self.text(key, default), schemes, port)

    def _place(self, key: str, value: str, schemes: tuple[str, ...], port: str) -> str:
        """Return scheme://host:port or scheme:///path."""
        if not value:
            return ""
        scheme, colon, place = value.partition("://")
        if not colon:
            scheme, place = schemes[0], value
        if scheme not in schemes:
            raise self.wrong(f"unsupported scheme in {key}: {scheme[:60]!r}")
        if scheme.startswith("unix"):
            if not place.startswith("/"):
                raise self.wrong(f"{key}: {value[:100]!r} names no absolute path")
            return f"{scheme}://{place}"
        host, _, number = place.rpartition(":") if re.search(r":[0-9]+$", place) else (place, "", port)
        if not host or not number or int(number[:6]) > 65535 or "/" in place:
            raise self.wrong(f"{key}: {value[:100]!r} is not HOST:PORT")
        return f"{scheme}://{host}:{number}"


def _fields(record: ContainerRecord) -> dict[str, str]:
    """Return what a tag may name: docker's loggerutils."""
    image_id = record.image_id.removeprefix("sha256:")
    values = (
        short_id(record.id),
        record.id,
        record.name,
        image_id[:12],
        record.image_id,
        record.request.image,
        "docker",
        " ".join(record.config.args),
    )
    return dict(zip(_TAG_FIELDS, values, strict=True))
