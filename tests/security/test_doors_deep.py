"""The attacks from inside, from the third container of three that lie in one another.

Apart from test_doors.py: two doors of an ordinary user that stand open at once are one user, and each, when it is shut,
ends what runs as the user.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import doors


@pytest.fixture(scope="module")
def reached() -> Iterator[dict[str, list[str]]]:
    """What the attacker reached."""
    place = Path(tempfile.mkdtemp(prefix="orlop-doors-", dir="/tmp"))
    place.chmod(0o755)
    doors.archive(doors.tree(place / "tree"), place / "attacker.tar")
    with doors.opened("deep", place) as door:
        brought = door.bring(place / "attacker.tar", doors.IMAGE)
        assert brought.code == 0, brought
        yield doors.reached(door.ask(doors.attacks()).output)
    shutil.rmtree(place)


@pytest.mark.parametrize("attack", doors.INSIDE)
def test_from_three_levels_down_nothing_is_reached(reached: dict[str, list[str]], attack: str) -> None:
    assert reached[attack] == []
