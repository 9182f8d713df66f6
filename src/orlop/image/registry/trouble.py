"""What a registry says when it refuses, as our errors.

Source: OCI distribution-spec, "Error Codes"; docker's texts for what its users know.
"""

from __future__ import annotations

from orlop.spec.errors import Conflict, Denied, Invalid, NotFound, OrlopError, Unavailable
from orlop.spec.jsonio import parse

from .transport import ERROR_BYTES_MAX, Broken

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .transport import Response

MESSAGE_CHARACTERS_MAX = 300
RETRIED = frozenset((408, 429, 500, 502, 503, 504))


class Troubled(Broken):
    """An answer of RETRIED to a request that is not simply sent again. error: what it says."""

    def __init__(self, error: OrlopError) -> None:
        super().__init__(error.cause)
        self.error = error


def told(data: bytes) -> str:
    """Return what an error document says, "" when it says nothing we understand."""
    try:
        document = parse(data, "the registry's error", bytes_max=ERROR_BYTES_MAX)
    except Invalid:
        return ""
    if not isinstance(document, dict):
        return ""
    errors = document.get("errors")
    first = errors[0] if isinstance(errors, list) and errors else document
    if not isinstance(first, dict):
        return ""
    code, message, detail = first.get("code"), first.get("message") or first.get("details"), first.get("detail")
    words = [text for text in (code, message, detail) if isinstance(text, str) and text]
    if words and isinstance(code, str):
        words[0] = words[0].lower().replace("_", " ")
    return ": ".join(words)[:MESSAGE_CHARACTERS_MAX]


def refusal(response: Response, verb: str, subject: str, *, repository: str = "") -> OrlopError:
    """Return the error that an answer other than success is. Reads what is left of it.

    repository: the name as its user writes it, for docker's text of a refused pull.
    """
    try:
        said = told(response.document(ERROR_BYTES_MAX))
    except (Broken, Invalid):
        said = ""
    status = response.status
    cause = said or f"the registry answers with status {status}"
    if status in (401, 403):
        if verb == "pull":
            text = f"pull access denied for {repository}, repository does not exist or may require 'docker login'"
            return NotFound(verb, subject, f"{text}: {cause}", hint="check the name, or log in with: orlop login")
        return Denied(verb, subject, cause, hint="log in with: orlop login")
    if status == 404:
        return NotFound(verb, subject, f"{subject} not found: {cause}", hint="check the name")
    if status == 429:
        wait = response.header("Retry-After")
        hint = f"try again in {wait} s" if wait.isdigit() else "try again later, or log in: that often raises the limit"
        return Unavailable(verb, subject, cause, hint=hint)
    if status in (400, 413, 416):
        return Invalid(verb, subject, cause)
    if status == 409:
        return Conflict(verb, subject, cause)
    return Unavailable(verb, subject, cause, hint="try again later")
