"""Names and ids of containers: what is valid, what is drawn when the user gives none.

A name or an id becomes a file name, a cgroup and a process title, so its grammar is checked here and nowhere later
(SEC-23). The grammar is docker's, but that a name may be one character long, as podman's may.
"""

from __future__ import annotations

import os

from ...spec.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container

ID_HEX_DIGITS = 64
SHORT_ID_HEX_DIGITS = 12
NAME_LENGTH_MAX = 255
_DRAWS_PLAIN = 20  # then a number is appended, until the name is free

_HEX = frozenset("0123456789abcdef")
_FIRST = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
_REST = _FIRST | frozenset("_.-")

# fmt: off
_ADJECTIVES = (
    "able agile alert amber ample azure balmy brave breezy bright brisk bronze calm candid cheery civil clear clever "
    "coastal copper cosmic crisp curious daring deft eager early earnest fabled fair festive fleet fluent fond frank "
    "gallant gentle gifted gilded glad golden grand hardy hearty honest humble ideal jolly jovial keen kind level "
    "lively loyal lucid lunar mellow merry mighty modest navy neat nimble noble oaken patient placid plucky polite "
    "proud quick quiet ready regal robust rustic salty serene sharp silver sincere sleek snug solar solid spry stable "
    "stately steady stellar sturdy subtle sunny swift tidal tidy tranquil trusty upbeat valiant velvet vivid warm "
    "wise witty zesty"
).split()
_SURNAMES = (
    "abel adams agnesi amundsen apgar archimedes aryabhata avogadro babbage baird banks barents bassi becquerel "
    "bering bernoulli bohr bose boyle brahe brunel burnell byron cabot cannon carson cauchy cavendish celsius chandra "
    "cook copernicus curie daimler dalton darwin descartes diesel dirac drake eckert edison einstein euclid euler "
    "faraday fermat fermi feynman fleming fourier franklin fresnel fulton galilei gauss germain goethals goodall "
    "hamilton harrison haber hawking heisenberg herschel hertz hodgkin hooke hopper hubble humboldt hutton huygens "
    "jacobi jenner johnson joule kapitsa kepler khayyam kirch kowalevski lagrange lamarr laplace leavitt leibniz "
    "linnaeus lovelace lyell magellan marconi maury maxwell meitner mendel mercator mitchell morse nansen napier "
    "nelson newton nobel noether ohm ostrom pascal pasteur pauling pavlov planck poincare ptolemy ramanujan raman "
    "ride ritchie rubin rutherford sagan sammet scott shannon snow somerville swan tereshkova tesla thompson torvald "
    "tull turing vaughan vespucci villani volta watt wegener wiles wright wu yalow yonath zeppelin zuse"
).split()
# fmt: on


def new_id() -> str:
    """Return a random id: 64 hex digits whose first twelve are not all decimal.

    A short id becomes a host name, and one of digits alone reads as a number (docker draws again for the same reason).
    """
    while True:
        drawn = os.urandom(ID_HEX_DIGITS // 2).hex()
        if not drawn[:SHORT_ID_HEX_DIGITS].isdigit():
            return drawn


def short_id(container_id: str) -> str:
    """Return the twelve digits that are shown."""
    return container_id[:SHORT_ID_HEX_DIGITS]


def is_id(text: str) -> bool:
    """Tell whether text is a whole id."""
    return len(text) == ID_HEX_DIGITS and _HEX.issuperset(text)


def is_id_prefix(text: str) -> bool:
    """Tell whether text could be the beginning of an id."""
    return 0 < len(text) <= ID_HEX_DIGITS and _HEX.issuperset(text)


def check_name(text: str, noun: str = "container") -> str:
    """Return the name without the slash that docker's API puts in front. Raises Invalid for anything but a name.

    noun: of what it is the name, in the words of the error.
    """
    name = text.removeprefix("/")
    if not 0 < len(name) <= NAME_LENGTH_MAX or name[0] not in _FIRST or not _REST.issuperset(name):
        shown = text if len(text) <= 100 else text[:100] + "..."
        raise Invalid(
            "create",
            f"the {noun}",
            f"Invalid {noun} name ({shown}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed",
            hint="use letters, digits, and after the first character _ . -",
            code="E0103",
        )
    return name


def draw_name(taken: Container[str]) -> str:
    """Return a name of the form adjective_surname that is not taken."""
    for draw in range(10**6):
        name = f"{_ADJECTIVES[_random(len(_ADJECTIVES))]}_{_SURNAMES[_random(len(_SURNAMES))]}"
        if draw >= _DRAWS_PLAIN:
            name += str(_random(10 * draw))
        if name not in taken:
            return name
    raise AssertionError("a million drawn names were taken")


def _random(below: int) -> int:
    # The modules random and secrets cost an engine's start 12 ms; the bias of the remainder is below 1 in 2**40.
    return int.from_bytes(os.urandom(8), "big") % below
