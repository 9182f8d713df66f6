"""Any exception as the error that it tells of."""

from ..runtime.init import trace_of
from ..spec.errors import Internal, OrlopError, Unavailable


def told(verb: str, subject: str, failure: BaseException) -> OrlopError:
    """Return the error itself, Unavailable for what the kernel refused, Internal for a defect of ours."""
    if isinstance(failure, OrlopError):
        return failure
    if isinstance(failure, OSError):
        where = f" ({failure.filename})" if failure.filename else ""
        return Unavailable(verb, subject, f"{failure.strerror or failure}{where}")
    return Internal(verb, subject, f"{failure!r} at {trace_of(failure)}", hint="please report this defect")
