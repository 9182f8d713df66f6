"""Checks of parsers: without one of them the inputs of tests/fuzz, as many as a parser gets in CI, find it."""

from __future__ import annotations

from .model import Guard

TAKES_OR_REFUSES = "::test_a_parser_takes_or_refuses"


def _found(target: str, file: str, old: str, new: str, *, by: str = "fuzz/test_fuzz.py") -> Guard:
    return Guard(f"fuzz: {target}", (), (f"{by}{TAKES_OR_REFUSES}[{target}]",), ((file, old, new),), runs=False)


_WIRE, _BUILD = "fuzz/test_fuzz_wire.py", "fuzz/test_fuzz_build.py"

GUARDS = (
    _found(
        "runtime-spec",
        "spec/record.py",
        '        if type(value) is not list:\n            raise _Mismatch("", f"expected a list',
        '        if value is None:\n            raise _Mismatch("", f"expected a list',
    ),
    _found(
        "tar",
        "spec/tar/__init__.py",
        "        if space < 0 or not digits.isdigit():\n",
        "        if space < 0:\n",
    ),
    _found(
        "image-manifest",
        "spec/jsonio.py",
        "    if not isinstance(value, dict):\n"
        '        raise Invalid("read", subject, "it is not a JSON object", code="E0211")\n'
        "    return value\n",
        "    return value  # type: ignore[return-value]\n",
    ),
    _found(
        "reference",
        "spec/reference.py",
        "        return path if _split_domain(path) == (self.domain, self.path) else self.name\n",
        "        return path\n",
    ),
    _found(
        "dockerfile",
        "build/dockerfile/parse.py",
        '    if len(given) != 1:\n        raise ValueError("FROM requires either one or three arguments")\n',
        "",
        by=_BUILD,
    ),
    _found(
        "http-request",
        "frontends/http/exchange.py",
        "            if size > bytes_max:\n",
        "            if False:\n",
        by=_WIRE,
    ),
    _found(
        "netlink",
        "linux/netlink/wire.py",
        '        if len(found.payload) < 4 + HEADER.size:\n            raise _malformed(f"an error of',
        '        if len(found.payload) > 1 << 20:\n            raise _malformed(f"an error of',
        by=_WIRE,
    ),
    _found(
        "seccomp-profile",
        "runtime/seccomp.py",
        "    if action is None:\n",
        "    if action == 0:\n",
        by=_WIRE,
    ),
)
