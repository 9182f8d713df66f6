"""Secrets and configs: named data that containers get as files which exist in memory only."""

from .record import Record

SECRET, CONFIG = "secret", "config"


class DataRequest(Record):
    """`orlop secret create`, `orlop config create`. data: base64."""

    strict = True
    name: str
    data: str
    labels: dict[str, str] = {}


class DataRecord(Record):
    """secret.json, config.json. The data lies beside it. id: 64 hexadecimal digits."""

    id: str
    name: str
    created_at: str
    labels: dict[str, str] = {}
