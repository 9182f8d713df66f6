"""The same verb for several objects, one after the other: what fails is told, the others are done all the same."""

from __future__ import annotations

from ....spec.errors import OrlopError
from ..command import Invocation, for_output, write_line
from ..flags import EXIT_USAGE
from ..main import explain


def remove(invocation: Invocation, verb: str, key: str, **args: object) -> int:
    """Call the verb with each argument as its `key`, and print the names of those that went; return the status."""
    status = 0
    with invocation.connect() as engine:
        for name in invocation.arguments:
            try:
                engine.call(verb, {key: name, **args})
            except OrlopError as error:
                explain(error)
                status = EXIT_USAGE
            else:
                write_line(for_output(name))
    return status
