"""`--check`, `--call=outline`, `targets` and `graph`: what a Dockerfile says of itself, without building anything.

Each answer has docker's JSON (`json`), docker's text (`text`) and the status that a command ends with (`status`).
Source: moby/buildkit, frontend/subrequests, for the names in the JSON and the tables of the text.
"""

from __future__ import annotations

from base64 import b64encode

from orlop.spec.errors import Invalid

from .build import prepared
from .dockerfile import canonical
from .dockerfile import outline as asked
from .dockerfile.compile import compile as compile_graph
from .dockerfile.source import DockerfileError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from orlop.engine.engine import Engine

    from .build import Written
    from .dockerfile.source import Source
    from .request import BuildRequest

    Answer = dict[str, object]

CHECK, OUTLINE, TARGETS, GRAPH = "check", "outline", "targets", "graph"
DEFAULT_TARGET = "(default)"
_GAP = 3


def check(engine: Engine, request: BuildRequest, archive: int, call: str = CHECK) -> Answer:
    """Return {json, text, status}: what one of `CALLS` answers. Raises as a build does before its first step."""
    answer = CALLS.get(call)
    if answer is None:
        raise Invalid(
            "build", f"--call={call[:60]}", "there is no such question", hint=f"ask one of {', '.join(CALLS)}"
        )
    try:
        with prepared(engine, request, archive) as written:
            return answer(written)
    except DockerfileError as wrong:
        if call != CHECK:
            raise
        return _checked(wrong.source, asked.Checked(error=wrong.docker_text, error_lines=wrong.lines), wrong.hint)


def _check(written: Written) -> Answer:
    return _checked(written[0].source, asked.check(*written))


def _checked(source: Source, found: asked.Checked, hint: str = "") -> Answer:
    count = len(found.warnings)
    head = f"Check complete, {count} warning{'s have' if count > 1 else ' has'} been found!"
    text = [head if count else "Check complete, no warnings found."] if count or not found.error else []
    for warning in found.warnings:
        text.append(f"\nWARNING: {warning.rule_name} - {warning.url}\n{warning.detail}")
        text.append(source.excerpt(*warning.lines))
    document: Answer = {
        "warnings": [
            {
                "ruleName": warning.rule_name,
                "description": warning.description,
                "url": warning.url,
                "detail": warning.detail,
                "location": _location(warning.lines),
            }
            for warning in found.warnings
        ],
        "sources": [{"filename": source.name, "language": "Dockerfile", "data": _encoded(source)}],
    }
    if found.error:
        document["buildError"] = {"message": found.error, "location": _location(found.error_lines)}
        text += [""] * bool(text) + [f"ERROR: {found.error}"]
        text += [source.excerpt(*found.error_lines)] * bool(found.error_lines[0])
        text += [f"Next: {hint}"] * bool(hint)
    elif found.failure:
        document["buildError"] = {"message": found.failure, "location": {}}
        text.append(f"\nERROR: {found.failure}")
    return {"json": document, "text": _lines(text), "status": int(bool(count or found.error))}


def _outline(written: Written) -> Answer:
    found = asked.outline(*written)
    document = _given(
        name=found.name,
        description=found.description,
        sources=[_encoded(written[0].source)],
        args=[
            _given(name=arg.name, description=arg.description, value=arg.value, location=_location(arg.lines))
            for arg in found.args
        ],
        secrets=[_need(need) for need in found.secrets],
        ssh=[_need(need) for need in found.ssh],
        cache=[{"ID": cache.id} for cache in found.cache],
    )
    text = []
    if found.name or found.description:
        rows = [("TARGET:", found.name or DEFAULT_TARGET)]
        text.append(_table([*rows, ("DESCRIPTION:", found.description)] if found.description else rows))
    if found.args:
        rows3 = [(arg.name, arg.value, arg.description) for arg in found.args]
        text.append(_table([("BUILD ARG", "VALUE", "DESCRIPTION"), *rows3]))
    for title, needs in (("SECRET", found.secrets), ("SSH", found.ssh)):
        if needs:
            text.append(_table([(title, "REQUIRED"), *((need.name, "true" * need.required) for need in needs)]))
    if found.cache:
        text.append(_table([("CACHE",), *((cache.id,) for cache in found.cache)]))
    return {"json": document, "text": "\n".join(text), "status": 0}


def _targets(written: Written) -> Answer:
    found = asked.targets(written[0])
    document: Answer = {
        "targets": [
            _given(
                name=target.name,
                default=target.default,
                description=target.description,
                base=target.base,
                platform=target.platform,
                location=_location(target.lines),
            )
            for target in found
        ],
        "sources": [_encoded(written[0].source)],
    }
    named = [(f"{one.name} {DEFAULT_TARGET}".strip() if one.default else one.name, one.description) for one in found]
    return {
        "json": document,
        "text": _table([("TARGET", "DESCRIPTION"), *(row for row in named if row[0])]),
        "status": 0,
    }


def _graph(written: Written) -> Answer:
    compiled = compile_graph(*written)
    if compiled.failure:
        raise Invalid("build", written[0].source.name, compiled.failure, hint="see them with: orlop build --check")
    found = canonical.document(compiled.targets)
    return {"json": found, "text": f"{found['digest']}\n", "status": 0}


def _need(need: asked.Need) -> Answer:
    return _given(name=need.name, required=need.required, location=_location(need.lines))


def _given(**fields: object) -> Answer:
    """Return the fields that say something: docker's answers leave the others away."""
    return {name: value for name, value in fields.items() if value}


def _location(lines: tuple[int, int]) -> Answer:
    """Return docker's words for lines: a range for each of them; none for a place that is not known."""
    numbers = range(lines[0], lines[1] + 1) if lines[0] else ()
    return {"ranges": [{"start": {"line": line}, "end": {"line": line}} for line in numbers]}


def _encoded(source: Source) -> str:
    return b64encode(source.text.encode()).decode()


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(row[column]) for row in rows) + _GAP for column in range(len(rows[0]))]
    return _lines(
        ["".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    )


def _lines(texts: list[str]) -> str:
    return "".join(f"{text}\n" for text in texts)


CALLS: dict[str, Callable[[Written], Answer]] = {
    CHECK: _check,
    OUTLINE: _outline,
    TARGETS: _targets,
    GRAPH: _graph,
}
