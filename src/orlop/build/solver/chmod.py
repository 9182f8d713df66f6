"""Modes as --chmod has them: octal, or symbolic as chmod(1) has it ("u=rwX,go=rX").

Source: chmod(1), "MODE"; the umask does not count, as in BuildKit.
"""

from __future__ import annotations

import re
import stat

from orlop.spec.errors import Invalid

OCTAL = re.compile(r"[0-7]{1,4}")
_CLAUSE = re.compile(r"([ugoa]*)((?:[-+=][rwxXst]*|[-+=][ugo])+)")
_ACTION = re.compile(r"([-+=])([ugo]|[rwxXst]*)")
_SHIFTS = {"u": 6, "g": 3, "o": 0}
_BITS = {"r": 4, "w": 2, "x": 1}
_SPECIAL = {"u": stat.S_ISUID, "g": stat.S_ISGID, "o": 0}


def check_mode(text: str) -> None:
    """Raise Invalid for what is no mode."""
    if OCTAL.fullmatch(text) or not text:
        return
    if not all(_CLAUSE.fullmatch(clause) for clause in text.split(",")):
        cause = f"invalid chmod parameter: '{text[:60]}'. it should be octal string and between 0 and 07777"
        raise Invalid("parse", "--chmod", cause, hint="write 0644, or u=rwX,go=rX", code="E1410")


def changed_mode(text: str, mode: int) -> int:
    """Return the permission bits after the change. mode: st_mode, which says what X means. text "" changes nothing."""
    bits = stat.S_IMODE(mode)
    if not text:
        return bits
    if OCTAL.fullmatch(text):
        return int(text, 8)
    for clause in text.split(","):
        found = _CLAUSE.fullmatch(clause)
        if found is None:
            check_mode(text)
            continue
        for operator, what in _ACTION.findall(found.group(2)):
            bits = _acted(bits, (found.group(1), operator, what), is_directory=stat.S_ISDIR(mode))
    return bits


def _acted(bits: int, action: tuple[str, str, str], *, is_directory: bool) -> int:
    who, operator, what = action
    classes = "ugo" if not who or "a" in who else who
    for one in classes:
        shift = _SHIFTS[one]
        if what in _SHIFTS:
            wanted = (bits >> _SHIFTS[what] & 7) << shift
        else:
            wanted = _wanted(what, one, executable=is_directory or bool(bits & 0o111))
        own = 7 << shift | _SPECIAL[one]
        if operator == "=":
            keep = _SPECIAL[one] if is_directory else 0  # as chmod(1): a directory's set-group-ID stays
            bits = bits & ~(own & ~keep) | wanted
        elif operator == "+":
            bits |= wanted
        else:
            bits &= ~wanted
    if "t" in what:
        bits = bits & ~stat.S_ISVTX if operator == "-" else bits | stat.S_ISVTX
    return bits


def _wanted(what: str, one: str, *, executable: bool) -> int:
    found = 0
    for letter in what:
        if letter in _BITS:
            found |= _BITS[letter] << _SHIFTS[one]
        elif letter == "X" and executable:
            found |= 1 << _SHIFTS[one]
        elif letter == "s":
            found |= _SPECIAL[one]
    return found
