"""Go's text/template, as far as docker's --format takes it: parse once, execute for each row or object.

Values are JSON values and `Row` objects (a table's line, whose fields are fixed and may be methods). What is not
here: define, template, block, and methods of Go's own types. Source of the language: https://pkg.go.dev/text/template;
of the functions: docker's formatting guide. Errors are Go's, so that what people find about them applies.
"""

from __future__ import annotations

from ....spec.errors import Invalid
from .grammar import Parser
from .tree import Jump, Scope
from .values import Row, TemplateError

__all__ = ["Row", "Template"]

TEMPLATE_BYTES_MAX = 64 * 1024


class Template:
    """A parsed template. Raises Invalid, which names the template, for one that is malformed or can't be executed."""

    def __init__(self, text: str) -> None:
        self._text = text
        try:
            if len(text) > TEMPLATE_BYTES_MAX:
                raise TemplateError(f"it is longer than {TEMPLATE_BYTES_MAX} characters")
            self._body = Parser(text).parse()
        except (TemplateError, RecursionError) as wrong:
            raise self._invalid(wrong) from None

    def render(self, value: object) -> str:
        out: list[str] = []
        scope = Scope(value, [("$", value)])
        try:
            for node in self._body:
                node.execute(scope, out)
        except (TemplateError, RecursionError) as wrong:
            raise self._invalid(wrong) from None
        except Jump:
            raise self._invalid(TemplateError("break or continue outside of range")) from None
        return "".join(out)

    def _invalid(self, wrong: Exception) -> Invalid:
        cause = str(wrong) if isinstance(wrong, TemplateError) else "it is nested too deeply"
        shown = self._text if len(self._text) <= 200 else self._text[:200] + "..."
        hint = "--format '{{json .}}' shows all that there is"
        return Invalid("use", f"the template {shown}", cause, hint=hint, code="E0217")
