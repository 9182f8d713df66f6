"""Questions and answers of the resolver, and bytes that are neither; who is called what in which network."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orlop.network.dns import message
from orlop.network.dns.zone import Member, Place, Zone

OPTIONS = b"\0\0\x29" + (1232).to_bytes(2, "big") + bytes(6)


def ask(name: str, kind: int = message.A, edns: bool = False) -> message.Query:
    raw = message.question(name, kind, 0x1234)
    if edns:
        raw = raw[:10] + b"\0\1" + raw[12:] + OPTIONS
    return message.Query(raw)


def test_a_question_is_read() -> None:
    query = ask("Web.Example.")
    assert (query.id, query.name, query.kind, query.udp_size, query.edns) == (
        0x1234,
        "web.example",
        message.A,
        512,
        False,
    )
    assert ask("x", edns=True).udp_size == 1232


def test_an_answer_has_the_question_and_its_records() -> None:
    query = ask("web", edns=True)
    raw = message.answer(query, message.NOERROR, [message.address("10.88.0.2"), message.address("10.88.0.3")])
    assert message.is_answer_to(raw, 0x1234, query.question)
    assert message.code_of(raw) == message.NOERROR
    assert int.from_bytes(raw[6:8], "big") == 2
    assert raw.endswith(bytes((10, 88, 0, 3)) + b"\0\0\x29\x10\0" + bytes(6))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\0" * 11,
        message.question("x", 1, 1)[:-1],
        message.question("x", 1, 1)[:2] + b"\x81\0" + message.question("x", 1, 1)[4:],  # an answer
        message.question("x", 1, 1)[:4] + b"\0\2" + message.question("x", 1, 1)[6:],  # two questions
        message.question("x", 1, 1)[:12] + b"\xc0\x0c" + b"\0\1\0\1",  # a name that points to itself
        message.question("x", 1, 1)[:12] + b"\x3f" + b"a" * 20,
        message.question("x", 1, 1)[:10] + b"\0\1" + message.question("x", 1, 1)[12:] + OPTIONS[:-1],  # red: answered
        message.question("x", 1, 1)[:10] + b"\0\1" + message.question("x", 1, 1)[12:] + OPTIONS[:-1] + b"\1",
        message.question("x", 1, 1)[:12] + (b"\x3f" + b"a" * 63) * 5 + b"\0\0\1\0\1",
    ],
)
def test_what_is_no_question_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        message.Query(raw)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_question_or_refused(raw: bytes) -> None:
    try:
        query = message.Query(raw)
    except ValueError:
        refused = message.refuse(raw)
        assert not refused or (refused[:2] == raw[:2] and len(refused) == 12)
    else:
        assert message.answer(query, message.BADVERS)[:2] == raw[:2]
        assert 0 <= query.edns_version < 256
        assert message.truncated(query)[2] & 0x02


def test_what_is_refused_says_how_it_was_asked() -> None:
    raw = message.question("x", 1, 7)
    for opcode in range(1, 16):
        refused = message.refuse(bytes((raw[0], raw[1], raw[2] | opcode << 3)) + raw[3:])
        assert (refused[2] >> 3 & 15, message.code_of(refused)) == (opcode, message.NOTIMP)
    assert message.code_of(message.refuse(raw[:4] + b"\0\2" + raw[6:])) == message.FORMERR


def test_who_failed_is_no_authority() -> None:
    said = {code: bool(message.answer(ask("x"), code)[2] & 4) for code in (0, message.NXDOMAIN, message.SERVFAIL)}
    assert said == {0: True, message.NXDOMAIN: True, message.SERVFAIL: False}  # red: all, unlike dockerd


def test_an_answer_has_the_option_record_of_its_question() -> None:
    # RFC 6891: a version that is not known is told by a code of twelve bits; RFC 3225: DO comes back.
    for flags, version, code, expected in (
        (b"\x80\0", 0, message.NOERROR, b"\0\0\x80\0"),
        (b"\0\0", 1, message.BADVERS, b"\1\0\0\0"),
        (b"\x80\0", 255, message.BADVERS, b"\1\0\x80\0"),
    ):
        raw = message.question("web", 1, 7)
        options = b"\0\0\x29\x04\xd0\0" + bytes((version,)) + flags + b"\0\0"
        query = message.Query(raw[:10] + b"\0\1" + raw[12:] + options)
        assert query.edns_version == version
        for answer in (message.answer(query, code), message.truncated(query) if not version else b""):
            assert not answer or answer.endswith(b"\0\0\x29\x10\0" + expected + b"\0\0")
        assert message.code_of(message.answer(query, code)) == 0
    assert message.answer(ask("web"), 0)[10:12] == b"\0\0"


def test_a_dot_in_a_label_is_none_between_labels() -> None:
    raw = message.question("x", 1, 7)
    for label, name in ((b"a.Test", "a\\.test"), (b"a\\", "a\\\\"), (b"\xc0A", "\xc0a")):
        assert message.Query(raw[:12] + bytes((len(label),)) + label + b"\0\0\1\0\1").name == name


def test_a_forged_answer_is_known() -> None:
    query = ask("web")
    good = message.answer(query, message.NOERROR)
    assert not message.is_answer_to(good, 0x4321, query.question)
    assert not message.is_answer_to(message.answer(ask("wen"), 0), 0x1234, query.question)
    assert not message.is_answer_to(query.raw, 0x1234, query.question)
    assert message.is_answer_to(good.replace(b"web", b"WeB"), 0x1234, query.question)


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("2.0.88.10.in-addr.arpa", "10.88.0.2"),
        ("x.0.88.10.in-addr.arpa", ""),
        ("0.88.10.in-addr.arpa", ""),
        ("1." + "0." * 30 + "f.ip6.arpa", "f000:" + "0000:" * 6 + "0001"),
        ("web", ""),
    ],
)
def test_reverse_names(name: str, address: str) -> None:
    assert message.reverse_address(name) == address


@pytest.mark.parametrize("name", ["a..b", "a" * 64, ".".join(["a" * 63] * 5), "ü"])
def test_what_is_no_name_is_not_asked_for(name: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        message.question(name, 1, 1)


# -- the zone -------------------------------------------------------------------------------------------------------


def place(network: str, address: str, *names: str, **links: str) -> Place:
    return Place(network=network, network_name=f"{network}-net", addresses=(address,), names=names, links=links)


@pytest.fixture
def zone() -> Zone:
    made = Zone()
    made.add(Member(id="1", places=(place("a", "10.0.0.1", "web", "www"), place("b", "10.1.0.1", "web"))))
    made.add(Member(id="2", places=(place("a", "10.0.0.2", "db", "www", alias="3", late="web"),)))
    made.add(Member(id="3", places=(place("a", "10.0.0.3", "Cache"), place("c", "10.2.0.3", "cache"))))
    made.add(Member(id="4", places=(place("c", "10.2.0.4", "far"),)))
    return made


def found(zone: Zone, member: str, name: str) -> list[str]:
    return [address for _, place in zone.find(zone.members[member], name) for address in place.addresses]


def test_names_are_those_of_ones_own_networks(zone: Zone) -> None:
    assert found(zone, "2", "web") == ["10.0.0.1"]
    assert found(zone, "2", "web.a-net") == ["10.0.0.1"]
    assert found(zone, "2", "web.b-net") == []
    assert found(zone, "2", "www") == ["10.0.0.1", "10.0.0.2"]
    assert found(zone, "2", "cache") == ["10.0.0.3"]
    assert found(zone, "4", "cache") == ["10.2.0.3"]
    assert found(zone, "4", "web") == []
    assert found(zone, "2", "alias") == ["10.0.0.3"]
    assert found(zone, "1", "alias") == found(zone, "1", "late") == []
    assert found(zone, "2", "late") == ["10.0.0.1"]
    zone.remove("1")
    assert found(zone, "2", "late") == []


def test_addresses_have_names(zone: Zone) -> None:
    assert zone.name_of(zone.members["2"], "10.0.0.1") == "web.a-net"
    assert zone.name_of(zone.members["4"], "10.0.0.1") == ""
    assert zone.name_of(zone.members["4"], "nonsense") == ""


def test_who_has_an_address_by_now_keeps_its_name(zone: Zone) -> None:
    # Red: what is told of the end of the one before takes the new one's.
    zone.add(Member(id="9", places=(place("a", "10.0.0.1", "new"),)))
    zone.remove("1")
    assert zone.name_of(zone.members["2"], "10.0.0.1") == "new.a-net"


def test_who_goes_leaves_nothing(zone: Zone) -> None:
    for member in "1234":
        zone.remove(member)
    zone.remove("5")
    assert (zone.members, zone._names, zone._addresses) == ({}, {}, {})


def test_who_comes_again_is_who_came_last(zone: Zone) -> None:
    zone.add(Member(id="1", places=(place("a", "10.0.0.9", "other"),)))
    assert found(zone, "2", "web") == []
    assert found(zone, "2", "other") == ["10.0.0.9"]
