"""subuid(5) and what is chosen from it: broken, overlapping, huge and hostile files."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orlop.engine.rootless.subids import ID_MAX, RANGES_MAX, Range, mappings, parse
from orlop.engine.userns import kept, modes
from orlop.engine.userns.ranges import free_range, unnamed
from orlop.snapshot.owners import NOBODY, Shift
from orlop.spec.errors import OrlopError
from orlop.spec.runtime import IdMapping


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("me:100:50\n", [(100, 50)]),
        ("1000:100:50\n", [(100, 50)]),
        ("you:1:9\nme:100:50\nme:200:1", [(100, 50), (200, 1)]),
        ("me:100:50\nme:120:100\n", [(100, 50), (150, 70)]),
        ("me:100:50\nme:100:50\n", [(100, 50)]),
        ("me:120:10\nme:100:50\n", [(120, 10), (100, 20), (130, 20)]),
        ("me:0:10\nme:5:0\nme:-1:4\nme:x:1\nme:1\n::\n:1:1\nme:99999999999:1\nme:1:99999999999\n", []),
        (f"me:{ID_MAX}:2\n", []),
        ("me:990:20\n", []),  # it holds the user's own id
        ("me :100:50\n#me:1:1\n\0me:2:2\n", []),
    ],
)
def test_the_lines_of_a_user(text: str, found: list[tuple[int, int]]) -> None:
    assert [(each.first, each.count) for each in parse(text, "me", 1000)] == found


def test_a_map_has_no_more_lines_than_the_kernel_takes() -> None:
    text = "".join(f"me:{10_000 + 10 * number}:5\n" for number in range(2000))
    found = parse(text, "me", 1000)
    assert len(found) == RANGES_MAX
    lines = mappings(1000, found)
    assert len(lines) == RANGES_MAX + 1
    assert (lines[0].container_id, lines[0].host_id, lines[0].size) == (0, 1000, 1)
    assert all(after.container_id == before.container_id + before.size for before, after in itertools.pairwise(lines))


RANGES = st.lists(st.builds(Range, st.integers(1, 300), st.integers(1, 60)), max_size=8)


@given(RANGES, RANGES, st.integers(1, 80))
def test_what_is_chosen_is_in_the_pool_and_free(pool: list[Range], used: list[Range], size: int) -> None:
    taken = {number for each in used for number in range(each.first, each.first + each.count)}
    free = [
        first
        for part in pool
        for first in range(part.first, part.first + part.count - size + 1)
        if taken.isdisjoint(range(first, first + size))
    ]
    assert free_range(pool, used, size) == (free[0] if free else None)


@given(st.integers(0, 70000), st.integers(0, 70000))
def test_owners_come_back_as_they_went(uid: int, gid: int) -> None:
    shift = Shift([(0, 100000, 65536)], [(0, 200000, 65536)])
    seen = shift.seen(uid, gid)
    assert seen == (uid + 100000 if uid < 65536 else NOBODY, gid + 200000 if gid < 65536 else NOBODY)
    if uid < 65536 and gid < 65536:
        assert shift.inside(*seen) == (uid, gid)
    assert shift.seen(-1, -1) == (-1, -1)


@given(st.integers(0, 70), st.integers(1, 60))
def test_keep_id_gives_each_of_our_ids_one_place_and_us_the_one_we_want(inside: int, count: int) -> None:
    lines = kept.around(inside, count)
    places = {each.container_id + at: each.host_id + at for each in lines for at in range(each.size)}
    assert sorted(places.values()) == list(range(count))
    assert places[inside] == 0
    assert len(places) == sum(each.size for each in lines) == count


@given(st.integers(1, 60), st.lists(st.tuples(st.integers(0, 70), st.integers(1, 9)), max_size=6))
def test_what_no_mapping_names(size: int, named: list[tuple[int, int]]) -> None:
    taken = {number for first, count in named for number in range(first, first + count)}
    gaps = unnamed(size, [IdMapping(container_id=first, host_id=0, size=count) for first, count in named])
    found = [number for first, count in gaps for number in range(first, first + count)]
    assert found == [number for number in range(size) if number not in taken]


@given(
    st.one_of(
        st.text(max_size=40),
        st.from_regex(r"(auto|keep-id|nomap|remap)[:=](([ugs]id|size|[ug]idmapping)=[0-9:@,-]{0,30},?){0,4}"),
    )
)
def test_a_mode_is_understood_or_an_error(text: str) -> None:
    try:
        mode = modes.parse(text, "a container")
    except OrlopError:
        return
    for lines in (mode.uids, mode.gids):
        for field in ("container_id", "host_id"):
            taken = sorted((getattr(each, field), each.size) for each in lines)
            assert all(first + size <= after for (first, size), (after, _) in itertools.pairwise(taken))
            assert all(size and first + size - 1 <= modes.ID_MAX for first, size in taken)
