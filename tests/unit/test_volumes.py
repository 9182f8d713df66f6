"""The pure parts of volumes: grammars that any text may meet, and arithmetic of ids."""

from __future__ import annotations

import itertools
import posixpath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from orlop.engine.compile import mounts
from orlop.engine.volumes import local, mountpoints, preparation, quota, store
from orlop.frontends.cli import flags
from orlop.frontends.cli import mounts as words
from orlop.spec.container import BindRequest, ContainerRequest
from orlop.spec.errors import Invalid, OrlopError, Unsupported
from orlop.spec.mount import BindOptions, ImageOptions, MountRequest, TmpfsOptions, VolumeOptions

_path = st.text(alphabet="/.ab:\n\u00e4", max_size=12)
_word = st.sampled_from("ro rw z Z nocopy rshared private as=1 as=1:2 as=-1 as=1:2:3 cached x".split()) | st.text(
    max_size=5
)

_argument = st.text(max_size=30).map(lambda text: text.replace("\0", ""))  # as execve passes one


# -- ids ------------------------------------------------------------------------------------------------------------

_id = st.integers(0, 2**32 - 2) | st.sampled_from([0, 1, 1000, 2**32 - 2])


@given(_id, _id, _id)
@example(0, 0, 5)
@example(0, 2**32 - 2, 7)
def test_two_ids_change_places_and_all_others_stay(first, second, other):
    shown = {}
    mappings = mounts.exchange(first, second)
    assert sum(mapping.size for mapping in mappings) == 2**32 - 1 and len(mappings) <= 5
    for identity in (first, second, other):
        for mapping in mappings:
            if mapping.container_id <= identity < mapping.container_id + mapping.size:
                shown[identity] = mapping.host_id + identity - mapping.container_id
    expected = {first: second, second: first}
    assert all(shown[identity] == expected.get(identity, identity) for identity in (first, second, other))
    for name in ("container_id", "host_id"):
        ranges = sorted((getattr(mapping, name), mapping.size) for mapping in mappings)
        assert all(start + size == after for (start, size), (after, _) in itertools.pairwise(ranges))


# -- the command line -----------------------------------------------------------------------------------------------


@given(st.lists(st.text(alphabet='ab,"\n =\u00e4', max_size=6), min_size=1, max_size=5))
def test_fields_in_quotes_come_back_as_they_were(fields):
    text = ",".join('"' + field.replace('"', '""') + '"' for field in fields)
    assert words.read_record(text) == fields


@given(st.text(alphabet='typebindsrcvolumedst=/,"-\n\r ', max_size=40) | _argument)
def test_any_text_is_a_mount_or_refused(text):
    try:
        found = words.parse_mount(text)
    except flags.BadValue as wrong:
        assert wrong.hint
    else:
        assert MountRequest.from_json(found.to_json()) == found


@given(st.text(alphabet="ab/.:,=", max_size=12) | _argument)
def test_any_text_is_a_bind_or_refused(text):
    try:
        found = words.parse_bind(text)
    except flags.UsageError as wrong:
        assert wrong.hint and wrong.code == 125
    else:
        assert found.target and BindRequest.from_json(found.to_json()) == found


# -- mount points ---------------------------------------------------------------------------------------------------

_mount = st.builds(
    MountRequest,
    type=st.sampled_from(["bind", "volume", "tmpfs", "image", "npipe", ""]),
    source=_path,
    target=_path,
    read_only=st.booleans(),
    bind=st.none() | st.builds(BindOptions, propagation=_word, non_recursive=st.booleans()),
    volume=st.none() | st.builds(VolumeOptions, subpath=_path, no_copy=st.booleans()),
    tmpfs=st.none() | st.builds(TmpfsOptions, size_bytes=st.integers(-5, 2**64 - 1), mode=st.integers(-5, 2**33)),
    image=st.none() | st.builds(ImageOptions, subpath=_path),
)
_bind = st.builds(BindRequest, source=_path, target=_path, options=st.lists(_word, max_size=3).map(tuple))


@given(st.lists(_mount, max_size=2), st.lists(_bind, max_size=2), st.lists(_path, max_size=3))
def test_whatever_is_asked_there_are_clean_mount_points_or_an_error_of_ours(asked, binds, declared):
    request = ContainerRequest(image="x", mounts=tuple(asked), binds=tuple(binds))
    try:
        points = mountpoints.of_request(request, "container c")
        points += mountpoints.of_image(declared, "", {point.destination for point in points}, "container c")
    except OrlopError as wrong:
        assert isinstance(wrong, Invalid | Unsupported) and wrong.hint and len(str(wrong)) < 1500
        return
    places = [point.destination for point in points]
    assert len(set(places)) == len(places)
    for point in points:
        assert point.destination == posixpath.normpath(point.destination) != "/" and point.destination[0] == "/"
        assert not point.destination.startswith("/proc/") or point.destination in mountpoints._PROC_FILES
        assert point.type != "bind" or point.source.startswith("/")
        assert ".." not in point.subpath.split("/") or not posixpath.normpath(point.subpath).startswith("..")
        made = mounts.of_point(point.replace(owner=(0, 0)), {})
        assert (
            made.destination == point.destination and ("ro" in made.options or "rro" in made.options) == point.read_only
        )


def test_a_mounted_tmpfs_takes_the_options_of_a_tmpfs():
    """Red: the kernel says it at the start, and a container that never starts stays behind."""
    for option in ("a", "lowerdir=/etc", "size", ""):
        mount = MountRequest(type="tmpfs", target="/t", tmpfs=TmpfsOptions(options=("noexec", option)))
        with pytest.raises(Invalid, match="invalid option"):
            mountpoints.of_request(ContainerRequest(image="i", mounts=(mount,)), "container c")
    mount = MountRequest(type="tmpfs", target="/t", tmpfs=TmpfsOptions(options=("exec", "size=1m")))
    (point,) = mountpoints.of_request(ContainerRequest(image="i", mounts=(mount,)), "container c")
    assert point.options[-2:] == ("exec", "size=1m")


@given(st.text(alphabet="./ab", max_size=12))
def test_a_subpath_is_local_when_no_part_of_it_leaves_the_root(path):
    depth, lowest = 0, 0
    for part in path.split("/"):
        depth += (part not in ("", ".", "..")) - (part == "..")
        lowest = min(lowest, depth)
    assert mountpoints._is_local_path(path) == (not path.startswith("/") and lowest == 0)


@pytest.mark.parametrize(
    ("text", "expected"), [("c", ("c", "")), ("c:ro", ("c", "ro")), ("c:rw,z", ("c", "rw")), ("c:z", ("c", ""))]
)
def test_volumes_from(text, expected):
    assert mountpoints.lender(text, "s") == expected


@pytest.mark.parametrize("text", ["", "c:ro,rw", "c:foo", "c:ro:x", "c:nocopy"])
def test_volumes_from_refused(text):
    with pytest.raises(Invalid):
        mountpoints.lender(text, "s")


# -- names, options, sizes ------------------------------------------------------------------------------------------


@given(st.text(max_size=300) | st.text(alphabet="ab.-_/", max_size=5))
@example("a" * 255)
@example("a" * 256)
def test_what_is_a_name_is_one_visible_part_of_a_path(name):
    try:
        store.check_name(name)
    except Invalid as wrong:
        assert wrong.hint and len(str(wrong)) < 1000
    else:
        assert posixpath.basename(name) == name and name[0] not in ".-_" and 2 <= len(name.encode()) <= 255


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"type": "none", "device": "/x", "o": "bind,ro"}, ("bind", "/x", ("bind", "ro"))),
        ({"type": "tmpfs", "device": "tmpfs", "o": "size=1m,,uid=3"}, ("tmpfs", "tmpfs", ("size=1m", "uid=3"))),
        ({"type": "bind", "device": "/x"}, ("bind", "/x", ("bind",))),
    ],
)
def test_the_local_drivers_device(options, expected):
    local.check("v", options)
    found = local.device("v", options)
    assert found is not None and (found.type, found.device, found.options) == expected


def test_a_volume_without_options_has_no_device():
    assert local.device("v", {}) is None and local.device("v", {"size": "1m"}) is None


@pytest.mark.parametrize(
    ("text", "expected"), [("1", 1), ("1b", 1), ("64k", 65536), ("1.5m", 1572864), ("2G", 2 << 30), ("3gib", 3 << 30)]
)
def test_sizes(text, expected):
    assert quota.parse_size(text, "s") == expected


@given(st.text(max_size=10) | st.text(alphabet="0123456789.kmgtpib", max_size=8))
@example("1e5")
@example(".1")
@example("9" * 400)
@example("0")
def test_any_text_is_a_size_or_refused(text):
    try:
        assert 0 < quota.parse_size(text, "s") < 2**63
    except Invalid as wrong:
        assert wrong.hint


@pytest.mark.parametrize("links", [0, 1, 2, 5])
def test_an_open_file_is_found_behind_links(tmp_path, links):
    source = "/proc/self/fd/0"
    for number in range(links):
        path = tmp_path / f"link{number}"
        path.symlink_to(source if number == 0 else f"link{number - 1}")
        source = str(path)
    assert preparation._is_open_file(source)


def test_what_is_no_open_file_is_none(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "link").symlink_to("file")
    for name in ("file", "loop", "link", "nothing", "nothing/below"):
        assert not preparation._is_open_file(f"{tmp_path}/{name}")
