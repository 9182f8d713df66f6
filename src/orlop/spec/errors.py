"""The error tree: every failure that a user can see is one of these classes.

    OrlopError
      NotFound       the named object does not exist
      Conflict       the object exists, but its state or its name forbids the verb
      Invalid        the caller's input is malformed or contradicts itself
      Denied         the caller may not do this
      Unavailable    something outside the request is missing, busy or gone: try again or repair it
      Unsupported    this kernel, machine or version can't do what was asked for by name
      CommandFailed  the container's own command could not be started (exit codes 126 and 127)
      Internal       a defect of ours

An error says three things, each once: the object and the verb, the cause, the next step. It is raised where
the cause is known, passes through the layers unchanged and is rendered at the door, and only there.
It crosses process borders as the dict of `to_json`.
"""

from __future__ import annotations

_TEXT_CHARACTERS_MAX = 1500  # four of them, of six bytes each at worst


class OrlopError(Exception):
    """A failure told in three parts.

    verb: what was being done, in the infinitive ("start", "remove", "read").
    subject: the object it was done to, as the user names it ("container web", "/srv/rootfs").
    cause: why it failed, one clause, no trailing stop.
    hint: the next step, one sentence the user can act on; "" when there is none.
    exit_code: what a command line exits with (docker's: 125 for a failure of ours).
    code: its row of the table of errors (spec.catalog) where whoever tells it knows that, else "".
    """

    kind = "error"
    exit_code = 125

    def __init__(self, verb: str, subject: str, cause: str, *, hint: str = "", code: str = "") -> None:
        super().__init__(verb, subject, cause)
        self.code = code
        self.verb = verb
        self.subject = subject
        self.cause = cause
        self.hint = hint

    def __str__(self) -> str:
        return f"cannot {self.verb} {self.subject}: {self.cause}"

    def to_json(self) -> dict[str, object]:
        """Return the error as a JSON object that `from_json` turns back into the same class."""
        return {
            "kind": self.kind,
            "verb": self.verb,
            "subject": self.subject,
            "cause": self.cause,
            "hint": self.hint,
            "exitCode": self.exit_code,
            **({"code": self.code} if self.code else {}),
        }

    def to_packet(self) -> dict[str, object]:
        """Return the same for a message of a bounded size: a path that is named may be as long as a request."""
        half = _TEXT_CHARACTERS_MAX // 2
        return {
            name: f"{one[:half]}...{one[-half:]}" if isinstance(one, str) and len(one) > 2 * half else one
            for name, one in self.to_json().items()
        }


class NotFound(OrlopError):
    kind = "not-found"

    def __str__(self) -> str:
        return self.cause


class Conflict(OrlopError):
    kind = "conflict"


class Invalid(OrlopError):
    kind = "invalid"


class Denied(OrlopError):
    kind = "denied"


class Unavailable(OrlopError):
    kind = "unavailable"


class Unsupported(OrlopError):
    kind = "unsupported"


class CommandFailed(OrlopError):
    """The container was made, but its command can't be executed: 127 not found, 126 not executable."""

    kind = "command"
    exit_code = 126

    def __init__(
        self, verb: str, subject: str, cause: str, *, hint: str = "", exit_code: int = 126, code: str = ""
    ) -> None:
        super().__init__(verb, subject, cause, hint=hint, code=code)
        self.exit_code = exit_code


class Internal(OrlopError):
    kind = "internal"


_CLASSES: dict[str, type[OrlopError]] = {
    cls.kind: cls for cls in (NotFound, Conflict, Invalid, Denied, Unavailable, Unsupported, CommandFailed, Internal)
}


def from_json(value: object) -> OrlopError:
    """Return the error that `to_json` described; an unknown kind or shape becomes `Internal`."""
    if not isinstance(value, dict):
        return Internal("read", "an error message", "it is not a JSON object", code="E0211")
    text = {key: str(value.get(key, "")) for key in ("verb", "subject", "cause", "hint", "code")}
    cls = _CLASSES.get(str(value.get("kind")), Internal)
    error = cls(text["verb"], text["subject"], text["cause"], hint=text["hint"], code=text["code"])
    code = value.get("exitCode")
    if isinstance(code, int):
        error.exit_code = code
    return error
