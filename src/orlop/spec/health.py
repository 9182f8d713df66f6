"""docker's HEALTHCHECK, as images, requests and containers have it."""

from .record import Record


class Healthcheck(Record):
    """docker's HEALTHCHECK. test[0] is NONE, CMD or CMD-SHELL; durations in nanoseconds, 0 means the default."""

    test: tuple[str, ...] = ()
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0
    json_names = {
        "test": "Test",
        "interval": "Interval",
        "timeout": "Timeout",
        "start_period": "StartPeriod",
        "start_interval": "StartInterval",
        "retries": "Retries",
    }
