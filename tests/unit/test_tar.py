"""The tar reader and writer: Python's and GNU's archives read alike, broken and hostile ones refused (SEC-42)."""

from __future__ import annotations

import gzip
import io
import itertools
import random
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orlop.spec import tar
from orlop.spec.errors import Invalid, OrlopError, Unsupported
from orlop.spec.tar import Limits, Member, Reader
from orlop.spec.tar.writer import END_OF_ARCHIVE, encode, padding
from support import archives
from support.archives import Archive, header, long_name, pax, record

SMALL = Limits(entries=50, name_bytes=300, extended_header_bytes=4096, sparse_extents=100, total_bytes=10_000_000)


def members(data: bytes, step: int = 7777, limits: Limits = SMALL) -> list[tuple[Member, bytes]]:
    reader = Reader(archives.source(data, step), "the archive", limits)
    return [(member, b"".join(reader.data())) for member in reader]


def one(data: bytes) -> Member:
    ((member, _),) = members(data)
    return member


# -- what other archivers write -------------------------------------------------------------------------------------

NAME = st.text(
    st.characters(codec="utf-8", exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1, max_size=60
)
PATH = st.lists(NAME, min_size=1, max_size=4).map("/".join)


@st.composite
def tar_infos(draw: st.DrawFn) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(draw(PATH))
    kinds = (tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE)
    info.type = draw(st.sampled_from(kinds))
    info.mode = draw(st.integers(0, 0o7777))
    info.uid, info.gid = draw(st.integers(0, tar.ID_MAX)), draw(st.integers(0, tar.ID_MAX))
    info.mtime = draw(st.integers(0, 2**33))
    if info.type in (tarfile.SYMTYPE, tarfile.LNKTYPE):
        info.linkname = draw(PATH)
    if info.type == tarfile.CHRTYPE:
        info.devmajor, info.devminor = draw(st.integers(0, 4095)), draw(st.integers(0, 2**20))
    data = draw(st.binary(max_size=1500)) if info.type == tarfile.REGTYPE else b""
    info.size = len(data)
    return info, data


@given(
    st.lists(tar_infos(), max_size=5), st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]), st.integers(1, 2000)
)
def test_reads_what_python_writes(infos: list[tuple[tarfile.TarInfo, bytes]], form: int, step: int) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for info, data in infos:
            archive.addfile(info, io.BytesIO(data))
    found = members(buffer.getvalue(), step, Limits())
    assert len(found) == len(infos)
    for (member, content), (info, data) in zip(found, infos, strict=True):
        is_directory = info.type == tarfile.DIRTYPE
        assert member.name.rstrip(b"/") == info.name.encode() if is_directory else member.name == info.name.encode()
        assert (member.kind, member.mode, member.uid, member.gid) == (info.type.decode(), info.mode, info.uid, info.gid)
        assert (member.mtime_ns, content) == (info.mtime * 10**9, data)
        if info.linkname:
            assert member.linkname == info.linkname.encode()
        assert (member.devmajor, member.devminor) == (info.devmajor, info.devminor)


@given(st.lists(tar_infos(), max_size=5))
def test_python_reads_what_we_write(infos: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    out = b""
    for index, (info, data) in enumerate(infos):
        member = Member(info.name.encode(), info.type.decode(), info.mode, len(data), info.linkname.encode())
        member.uid, member.gid, member.mtime_ns = info.uid, info.gid, int(info.mtime) * 10**9 + index
        member.devmajor, member.devminor = info.devmajor, info.devminor
        member.xattrs = {b"user.a": b"\0\xff=\n"} if index % 2 else {}
        assert encode(member) == encode(member)
        out += encode(member) + data + padding(len(data))
    out += END_OF_ARCHIVE
    with tarfile.open(fileobj=io.BytesIO(out)) as archive:
        read = list(archive)
        assert len(read) == len(infos)
        for index, (found, (info, data)) in enumerate(zip(read, infos, strict=True)):
            # tarfile takes a trailing slash off, and any name as a directory's that ends with one
            assert (found.name, found.mode, found.uid, found.gid) == (info.name, info.mode, info.uid, info.gid)
            assert found.linkname == info.linkname
            assert float(found.pax_headers.get("mtime", found.mtime)) == pytest.approx(info.mtime, abs=1)
            if info.type == tarfile.REGTYPE:
                extracted = archive.extractfile(found)
                assert extracted is not None
                assert extracted.read() == data
            assert ("SCHILY.xattr.user.a" in found.pax_headers) == bool(index % 2)
    again = members(out, limits=Limits())
    assert [member.name for member, _ in again] == [info.name.encode() for info, _ in infos]
    assert [member.xattrs for member, _ in again] == [
        {b"user.a": b"\0\xff=\n"} if i % 2 else {} for i in range(len(infos))
    ]


@pytest.mark.parametrize("form", ["v7", "oldgnu", "gnu", "ustar", "pax"])
def test_reads_what_gnu_tar_writes(tmp_path: Path, form: str) -> None:
    tree = tmp_path / "tree"
    (tree / "directory").mkdir(parents=True)
    (tree / "file").write_bytes(b"x" * 1000)
    (tree / "link").symlink_to("file")
    (tree / "hard").hardlink_to(tree / "file")
    name = "n" * 80
    (tree / "directory" / name).write_bytes(b"")
    archive = subprocess.run(
        ["tar", f"--format={form}", "-C", tree, "-c", "--sort=name", "."], check=True, capture_output=True
    ).stdout
    found = {member.name.rstrip(b"/"): (member, data) for member, data in members(archive)}
    assert set(found) == {b".", b"./directory", b"./directory/" + name.encode(), b"./file", b"./hard", b"./link"}
    assert found[b"./file"][1] == b"x" * 1000
    assert found[b"./hard"][0].kind == tar.LNKTYPE
    assert found[b"./link"][0].linkname == b"file"
    assert found[b"."][0].kind == tar.DIRTYPE


@pytest.mark.parametrize("form", ["gnu", "oldgnu", "pax0.0", "pax0.1", "pax1.0"])
@pytest.mark.parametrize("pieces", [0, 1, 3, 40])
def test_sparse_files_of_every_format(tmp_path: Path, form: str, pieces: int) -> None:
    path = tmp_path / "sparse"
    size = 64 * 4096 * 4
    with path.open("wb") as file:
        file.truncate(size)
        for index in range(pieces):
            file.seek(index * 6 * 4096)
            file.write(bytes([index + 1]) * 4096)
    version = form.removeprefix("pax")
    options = ["--format=pax", f"--sparse-version={version}"] if form.startswith("pax") else [f"--format={form}"]
    archive = subprocess.run(
        ["tar", *options, "--sparse", "-C", tmp_path, "-c", "sparse"], check=True, capture_output=True
    ).stdout
    ((member, data),) = members(archive)
    assert (member.name, member.size, member.kind) == (b"sparse", size, tar.REGTYPE)
    assert member.extents is not None
    expanded = bytearray(size)
    at = 0
    for offset, length in member.extents:
        expanded[offset : offset + length] = data[at : at + length]
        at += length
    assert at == len(data) == member.stored
    assert expanded == path.read_bytes()


# -- the corners of the format --------------------------------------------------------------------------------------


def test_the_source_is_read_to_its_end() -> None:
    data = bytes(Archive().file(b"a")) + b"what a digest must cover too" * 50_000
    stream = io.BytesIO(data)
    for _ in Reader(stream.read, "the archive"):
        pass
    assert stream.tell() == len(data)


def test_an_archive_may_end_without_its_zero_blocks() -> None:
    assert one(bytes(Archive().file(b"a"))[:-1024]).name == b"a"
    assert one(bytes(Archive().file(b"a"))[:-512]).name == b"a"


@pytest.mark.parametrize("cut", [1, 200, 509])
def test_an_archive_may_end_within_its_last_padding(cut: int) -> None:
    """As docker's client ends a context whose Dockerfile lies elsewhere."""
    (_, data), *others = members(NAMED[:-cut])
    assert data == b"abc" and not others


def test_an_archive_of_nothing_is_an_archive() -> None:
    assert members(bytes(10240)) == []


def test_extended_headers_outrank_the_plain_one_and_each_other_by_order() -> None:
    records = {b"path": b"p", b"linkpath": b"l", b"uid": b"7", b"gid": b"8", b"mtime": b"-1.25", b"comment": b"x"}
    member = one(bytes(Archive().raw(pax({b"path": b"lost"})).symlink(b"n", b"t", uid=1, pax=records)))
    assert (member.name, member.linkname, member.uid, member.gid) == (b"p", b"l", 7, 8)
    assert member.mtime_ns == -1_250_000_000


def test_gnu_long_names() -> None:
    name, target = b"n" * 200, b"t" * 250
    archive = Archive().raw(long_name(name), long_name(target, b"K")).symlink(b"short", b"short")
    member = one(bytes(archive))
    assert (member.name, member.linkname) == (name, target)


def test_the_size_of_an_extended_header_decides_what_is_skipped() -> None:
    """CVE-2025-62518: the plain header says 0, and what follows looks like a header."""
    inner = bytes(Archive().file(b"smuggled"))
    outer = Archive().raw(pax({b"size": b"%d" % len(inner)}), header(b"outer", size=0), inner).file(b"last")
    found = members(bytes(outer))
    assert [member.name for member, _ in found] == [b"outer", b"last"]
    assert found[0][1] == inner


def test_a_size_that_lies_on_something_without_data_is_ignored_as_by_go() -> None:
    archive = Archive().directory(b"d", size=1000).symlink(b"l", b"t", size=512).hard(b"h", b"d/x", size=512).file(b"f")
    assert [member.name for member, _ in members(bytes(archive))] == [b"d", b"l", b"h", b"f"]


def test_a_global_header_changes_nothing() -> None:
    archive = Archive().raw(pax({b"path": b"everything"}, b"g")).file(b"a").file(b"b")
    assert [member.name for member, _ in members(bytes(archive))] == [b"a", b"b"]


def test_prefixes_are_those_of_their_format() -> None:
    assert one(bytes(Archive().file(b"name", prefix=b"pre/fix"))).name == b"pre/fix/name"
    assert one(bytes(Archive().file(b"name", prefix=b"\1\2\3", magic=b"ustar  \0"))).name == b"name"
    star = b"pre".ljust(131, b"\0") + b"0" * 11 + b" " + b"0" * 11 + b" " + b"tar\0"
    assert one(header(b"name", tail=star.ljust(167, b"\0")[:163] + b"tar\0")).name == b"pre/name"


def test_old_directories_end_with_a_slash() -> None:
    assert one(bytes(Archive().raw(header(b"d/", b"\0", magic=b"")))).kind == tar.DIRTYPE
    assert one(bytes(Archive().raw(header(b"d/", b"0")))).kind == tar.DIRTYPE
    assert one(bytes(Archive().raw(header(b"f", b"7")))).kind == tar.REGTYPE


def test_numbers_in_base_256() -> None:
    member = one(bytes(Archive().file(b"a", uid=2**31, gid=tar.ID_MAX, mtime=-5)))
    assert (member.uid, member.gid, member.mtime_ns) == (2**31, tar.ID_MAX, -5 * 10**9)


def test_a_signed_checksum_of_an_old_tar() -> None:
    block = header(b"\xe9" * 5)
    signed = sum(block) - sum(block[148:156]) + 256 - 5 * 256
    assert one(header(b"\xe9" * 5, checksum=b"%06o\0 " % signed)).name == b"\xe9" * 5


def test_a_date_that_nothing_can_store_becomes_1970() -> None:
    assert one(bytes(Archive().file(b"a", mtime=2**62))).mtime_ns == 0
    assert one(bytes(Archive().file(b"a", pax={b"mtime": b"9" * 18}))).mtime_ns == 0


def test_names_are_bytes() -> None:
    assert one(bytes(Archive().file(b"\xff\xfe", pax={b"SCHILY.xattr.user.\xff": b"\0"}))).xattrs == {
        b"user.\xff": b"\0"
    }


# -- what is refused ------------------------------------------------------------------------------------------------

GNU_MORE = b"\0" * 482  # a sparse header's own four entries, empty
NAMED = header(b"file", size=3) + archives.padded(b"abc")


def sparse_gnu(entries: list[tuple[int, int]], size: int, stored: int, more: bytes = b"\0") -> bytes:
    pieces = b"".join(archives.number(value, 12) for entry in entries for value in entry)
    tail = bytes(386 - 345) + pieces.ljust(96, b"\0") + more + archives.number(size, 12)
    return header(b"sparse", b"S", size=stored, magic=b"ustar  \0", tail=tail) + bytes(-(-stored // 512) * 512)


def sparse_pax(records: dict[bytes, bytes], data: bytes = b"") -> bytes:
    return pax(records) + header(b"sparse", size=len(data)) + archives.padded(data)


BROKEN: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "it is empty"),
    "half a block": (NAMED[:200], "truncated after 200 bytes"),
    "text": (b"hello, world\n" * 100, "it is not a tar archive"),
    "zip": (b"PK\3\4" + bytes(600), "it is not a tar archive"),
    "data cut": (NAMED[:514], "truncated after 514 bytes"),
    "second header damaged": (NAMED + b"x" + NAMED[1:], "no header stands at byte 1024"),
    "checksum wrong": (header(b"a", checksum=b"000000\0 "), "it is not a tar archive"),
    "checksum no number": (header(b"a", checksum=b"checksum"), "it is not a tar archive"),
    "lone zero block": (NAMED + bytes(512) + NAMED, "a lone zero block"),
    "size no number": (header(b"a", size=b"12345678x\0"), "is not an octal number"),
    "size with underscore": (header(b"a", size=b"1_0\0"), "is not an octal number"),
    "size with prefix": (header(b"a", size=b"0o17\0"), "is not an octal number"),
    "size negative": (header(b"a", size=-512), "negative size"),
    "size of 2**62": (header(b"a", size=2**62), "files of more than"),
    "uid no number": (header(b"a", uid=b"root"), "is not an octal number"),
    "uid -1": (header(b"a", uid=2**32 - 1), "the owner 4294967295:0"),
    "gid -1 in pax": (bytes(Archive().file(b"a", pax={b"gid": b"4294967295"})), "the owner"),
    "uid negative": (header(b"a", uid=-1), "the owner -1:0"),
    "no name": (header(b""), "a member has no name"),
    "name with NUL": (bytes(Archive().file(b"a", pax={b"path": b"a\0b"})), "holds a NUL"),
    "link with NUL": (bytes(Archive().symlink(b"a", b"b", pax={b"linkpath": b"a\0b"})), "holds a NUL"),
    "name too long": (bytes(Archive().file(b"n" * 301)), "a name of more than 300 bytes"),
    "long name too long": (long_name(b"n" * 301) + NAMED, "a name of more than 300 bytes"),
    "link too long": (bytes(Archive().symlink(b"a", b"t" * 301)), "a name of more than 300 bytes"),
    "pax too long": (header(b"x", b"x", size=4097), "an extended header of 4097 bytes"),
    "pax of a gigabyte": (header(b"x", b"x", size=2**30), "an extended header of 1073741824 bytes"),
    "long name of a gigabyte": (header(b"x", b"L", size=2**30), "an extended header of 1073741824 bytes"),
    "pax negative": (header(b"x", b"x", size=-1), "negative size"),
    "pax size no number": (header(b"x", b"x", size=b"x"), "is not an octal number"),
    "pax at the end": (pax({b"path": b"a"}), "it ends behind an extended header"),
    "pax then zeros": (pax({b"path": b"a"}) + bytes(1024), "it ends behind an extended header"),
    "long name at the end": (long_name(b"a") + bytes(1024), "it ends behind an extended header"),
    "pax without length": (pax(b"path=a\n") + NAMED, "no length"),
    "pax length letters": (pax(b"xx path=a\n") + NAMED, "no length"),
    "pax length huge": (pax(b"99999999999 path=a\n") + NAMED, "cut or has no end"),
    "pax length beyond": (pax(b"99 path=a\n") + NAMED, "cut or has no end"),
    "pax length short": (pax(b"5 path=a\n") + NAMED, "cut or has no end"),
    "pax length zero": (pax(b"0 path=a\n") + NAMED, "cut or has no end"),
    "pax length tiny": (pax(b"2 path=a\n") + NAMED, "cut or has no end"),
    "pax no newline": (pax(b"9 path=ab") + NAMED, "cut or has no end"),
    "pax no equals": (pax(b"9 pathab\n") + NAMED, "cut or has no end"),
    "pax no key": (pax(b"6 =ab\n") + NAMED, "cut or has no end"),
    "pax negative size": (pax({b"size": b"-1"}) + NAMED, "is not a number"),
    "pax size of 63 bits": (pax({b"size": b"9223372036854775808"}) + NAMED, "is not a number"),
    "pax size of many digits": (pax({b"size": b"9" * 1000}) + NAMED, "is not a number"),
    "pax size in other digits": (pax({b"size": "\u0661".encode()}) + NAMED, "is not a number"),
    "pax mtime word": (pax({b"mtime": b"now"}) + NAMED, "is not a number"),
    "pax mtime exponent": (pax({b"mtime": b"1.5e9"}) + NAMED, "is not a time"),
    "pax xattr without name": (pax({b"SCHILY.xattr.": b"x"}) + NAMED, "no proper name"),
    "pax xattr with NUL": (pax({b"SCHILY.xattr.user.a\0b": b"x"}) + NAMED, "no proper name"),
    "too many members": (bytes(Archive().raw(*[NAMED] * 51)), "more than 50 members"),
    "too many headers": (bytes(Archive().raw(*[pax({b"path": b"a"})] * 51)), "more than 50 headers"),
    "too many bytes": (header(b"a", size=10_000_001), "files of more than 10000000 bytes"),
    "sparse of too many bytes": (sparse_gnu([(0, 0)], 10_000_001, 0), "files of more than"),
    "sparse pieces overlap": (sparse_gnu([(0, 512), (100, 512)], 4096, 1024), "overlap or lie outside"),
    "sparse pieces disordered": (sparse_gnu([(1024, 512), (0, 512)], 4096, 1024), "overlap or lie outside"),
    "sparse piece beyond": (sparse_gnu([(4000, 512)], 4096, 512), "overlap or lie outside"),
    "sparse piece negative": (sparse_gnu([(-512, 512)], 4096, 512), "overlap or lie outside"),
    "sparse length negative": (sparse_gnu([(512, -512)], 4096, 0), "overlap or lie outside"),
    "sparse data short": (sparse_gnu([(0, 512)], 4096, 1024), "differ in length"),
    "sparse data long": (sparse_gnu([(0, 1024)], 4096, 512), "differ in length"),
    "sparse number bad": (
        header(b"s", b"S", magic=b"ustar  \0", tail=bytes(41) + b"x" * 12 + b"y" * 12),
        "a sparse file's map",
    ),
    "sparse map goes on": (
        sparse_gnu([(0, 0)], 512, 0, b"\1") + bytes(504) + b"\1" + bytes(7) + NAMED,
        "goes on without saying anything",
    ),
    "sparse map cut": (sparse_gnu([(0, 0)], 512, 0, b"\1"), "truncated"),
    "sparse map endless": (
        sparse_gnu([(0, 0)], 512, 0, b"\1") + (archives.number(0, 12) * 42 + b"\1" + bytes(7)) * 20,
        "more than 100 pieces",
    ),
    "pax sparse offsets alone": (
        sparse_pax({b"GNU.sparse.size": b"5", b"GNU.sparse.numblocks": b"1", b"GNU.sparse.offset": b"0"}),
        "offsets without lengths",
    ),
    "pax sparse odd map": (sparse_pax({b"GNU.sparse.size": b"5", b"GNU.sparse.map": b"1,2,3"}), "without a length"),
    "pax sparse bad map": (sparse_pax({b"GNU.sparse.size": b"5", b"GNU.sparse.map": b"0,x"}), "is not a number"),
    "pax sparse long map": (
        sparse_pax({b"GNU.sparse.size": b"5", b"GNU.sparse.map": b",".join([b"0,0"] * 101)}),
        "more than 100 pieces",
    ),
    "pax sparse no size": (sparse_pax({b"GNU.sparse.map": b"0,0"}), "is not a number"),
    "pax sparse 1.0 no map": (
        sparse_pax({b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0", b"GNU.sparse.realsize": b"9"}, b"x" * 512),
        "no number where one must stand",
    ),
    "pax sparse 1.0 endless": (
        sparse_pax({b"GNU.sparse.major": b"1", b"GNU.sparse.realsize": b"9"}, (b"99999999\n" + b"0\n" * 254)[:512]),
        "more than 100 pieces",
    ),
    "pax sparse 1.0 map cut": (
        sparse_pax({b"GNU.sparse.major": b"1", b"GNU.sparse.realsize": b"9"}, (b"90\n" + b"0\n" * 254)[:512]),
        "longer than its data|no number",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
@pytest.mark.parametrize("step", [1_000_000, 311])
def test_broken_archives_are_refused_with_their_cause(case: str, step: int) -> None:
    data, cause = BROKEN[case]
    with pytest.raises(Invalid, match=cause) as refused:
        members(data, step)
    assert "the archive" in str(refused.value)
    assert len(str(refused.value)) < 600


def test_an_end_that_never_stops_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Red: an import of /dev/zero, or whoever sends zeros behind an archive, went on for ever."""
    told = "1073741824 bytes follow its end"
    with open("/dev/zero", "rb", buffering=0) as endless, pytest.raises(Invalid, match=told):
        list(tar.Reader(endless.read, "the archive"))
    monkeypatch.setattr(tar, "PADDING_BYTES_MAX", 20_000)
    assert list(tar.Reader(io.BytesIO(bytes(20_000)).read, "the archive")) == []


@pytest.mark.parametrize("kind", [b"M", b"V", b"D", b"N", b"A", b"\xff", b"8"])
def test_members_that_no_file_system_has(kind: bytes) -> None:
    with pytest.raises(Unsupported, match="none that a root file system has"):
        members(header(b"a", kind))


@settings(max_examples=300)
@given(st.randoms(use_true_random=False), st.integers(0, 12), st.integers(1, 1500))
def test_damage_never_breaks_anything_but_the_reading(rng: random.Random, damage: int, step: int) -> None:
    archive = bytearray(
        bytes(
            Archive()
            .directory(b"d", pax={b"SCHILY.xattr.user.a": b"b"})
            .file(b"d/f", b"x" * 600, pax={b"path": b"d/" + b"f" * 120, b"mtime": b"1.5"})
            .raw(long_name(b"y" * 120))
            .symlink(b"l", b"t")
            .raw(sparse_gnu([(0, 512), (1024, 512)], 4096, 1024))
        )
    )
    for _ in range(damage):
        archive[rng.randrange(len(archive))] = rng.randrange(256)
    cut = rng.randrange(len(archive)) if damage % 2 else len(archive)
    try:
        found = members(bytes(archive[:cut]), step)
    except OrlopError:
        return
    for member, data in found:
        assert len(data) == member.stored
        assert member.name
        assert b"\0" not in member.name


def test_the_default_limits_bound_an_archive_of_headers() -> None:
    """Ten million entries: counted, not collected."""
    block = header(b"a")
    blocks = itertools.chain([block * 512] * 20, itertools.repeat(b""))
    count = sum(1 for _ in Reader(lambda _: next(blocks), "the archive"))
    assert count == 20 * 512
    endless: Callable[[int], bytes] = lambda _: block * 512  # noqa: E731
    with pytest.raises(Invalid, match="more than 5000 members"):
        for _ in Reader(endless, "the archive", Limits(entries=5000)):
            pass


def test_records_spell_their_own_length() -> None:
    for size in range(80, 130):
        value = b"v" * size
        assert record(b"k", value).startswith(b"%d k=" % len(record(b"k", value)))
        member = Member(b"a")
        member.xattrs = {b"user.k": value}
        assert one(encode(member) + END_OF_ARCHIVE).xattrs == {b"user.k": value}


def test_a_gzip_is_no_tar() -> None:
    with pytest.raises(Invalid, match="not a tar archive"):
        members(gzip.compress(bytes(Archive().file(b"a"))) + bytes(512))
