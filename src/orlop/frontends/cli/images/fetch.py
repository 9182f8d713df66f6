"""An archive that `orlop import` finds at a URL. It is fetched whole before the engine sees it: half of one is none."""

from __future__ import annotations

import os
import tempfile

from ....spec.errors import Invalid, Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from http.client import HTTPResponse

SILENCE_S_MAX = 60.0
FETCH_BYTES_MAX = 64 * 1024**3
READ_BYTES = 1024 * 1024


def fetched(url: str) -> int:
    """Return a descriptor of a file without a name that has what the URL has. Raises Invalid, Unavailable."""
    import http.client
    import urllib.request

    if not url.startswith(("http://", "https://")):
        hint = "write a URL that begins with http:// or https://, or name a file"
        raise Invalid("import", url, f"{url.partition(':')[0]} is no scheme that archives are fetched by", hint=hint)
    hint = "fetch the archive yourself, then import the file"
    try:
        with urllib.request.urlopen(url, timeout=SILENCE_S_MAX) as response:
            return kept(url, response)
    except (OSError, http.client.HTTPException, ValueError) as wrong:
        reason = getattr(wrong, "reason", None) or wrong
        raise Unavailable("import", url, str(reason), hint=hint) from None


def kept(url: str, response: HTTPResponse) -> int:
    """Return a descriptor of a file without a name that has what an answer has. url names it in errors."""
    announced = response.length
    with tempfile.TemporaryFile() as file:
        while data := response.read(READ_BYTES):
            if file.tell() + len(data) > FETCH_BYTES_MAX:
                raise Invalid("import", url, f"it has more than {FETCH_BYTES_MAX} bytes", code="E0212")
            file.write(data)
        if announced is not None and file.tell() != announced:
            cause = f"it ended after {file.tell()} of {announced} bytes"
            raise Unavailable("import", url, cause, hint="try again")
        file.flush()
        os.lseek(file.fileno(), 0, os.SEEK_SET)
        return os.dup(file.fileno())
