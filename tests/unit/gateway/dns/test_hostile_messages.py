"""Messages: what a client may ask, what a nameserver may answer, and that nothing else has any effect."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.zone import Read, address, alias, query, reply
from remit_daemon.gateway.dns import message
from remit_daemon.gateway.dns.message import (
    AAAA,
    MX,
    SOA,
    TXT,
    A,
    MessageError,
    Record,
    read_answer,
    read_query,
)

NAMES = st.lists(st.text("abcxyz019-_", min_size=1, max_size=63), min_size=1, max_size=4).map(".".join)


@given(
    NAMES, st.sampled_from([1, 2, 5, 15, 16, 28, 33, 64, 65, 99, 257]), st.integers(0, 65535), st.booleans()
)
def test_a_query_is_read_as_it_was_asked(name: str, type: int, id: int, edns: bool) -> None:
    found = read_query(query(name, type, id=id, edns=edns))
    assert (found.name, found.type, found.id, found.edns) == (name, type, id, edns)


def test_letter_case_is_given_back_and_not_meant() -> None:
    raw = query("pypi.org").replace(b"pypi", b"PyPi")
    found = read_query(raw)
    assert found.name == "pypi.org"
    assert b"PyPi" in message.write_answer(found, 0, udp=True)


WHOLE = query("a.example", edns=False)
HEAD = b"\0\7\1\0\0\1\0\0\0\0\0\0"


@pytest.mark.parametrize(
    ("raw", "rcode"),
    [
        (b"", -1),
        (WHOLE[:11], -1),
        (WHOLE[:2] + b"\x81" + WHOLE[3:], -1),  # an answer
        (WHOLE[:2] + b"\x09" + WHOLE[3:], message.NOTIMP),  # STATUS
        (WHOLE[:2] + b"\x29" + WHOLE[3:], message.NOTIMP),  # UPDATE
        (WHOLE[:5] + b"\0" + WHOLE[6:], message.FORMERR),  # no question
        (WHOLE[:5] + b"\2" + WHOLE[6:] + WHOLE[12:], message.FORMERR),  # two
        (WHOLE[:7] + b"\1" + WHOLE[8:], message.FORMERR),
        (WHOLE + b"x", message.FORMERR),
        (WHOLE[:-1], message.FORMERR),
        (HEAD + b"\xc0\x0c\0\1\0\1", message.FORMERR),  # a name that points to itself
        (HEAD + b"\1a\xc0\x0c\0\1\0\1", message.FORMERR),
        (HEAD + b"\x41" + b"a" * 65 + b"\0\0\1\0\1", message.FORMERR),
        (HEAD + (b"\x3f" + b"a" * 63) * 4 + b"\0\0\1\0\1", message.FORMERR),
        (HEAD + b"\3a.b\0\0\1\0\1", message.REFUSED),  # a dot inside a label
        (HEAD + b"\3a\0b\0\0\1\0\1", message.REFUSED),
        (HEAD + b"\2\xc3\xa4\0\0\1\0\1", message.REFUSED),
        (HEAD + b"\1a\0\0\1\0\3", message.REFUSED),  # class CH
        (query("a.example", 252), message.REFUSED),  # AXFR
        (query("a.example", 255), message.REFUSED),  # ANY
        (query("a.example", 41), message.REFUSED),
        (WHOLE[:11] + b"\1" + WHOLE[12:] + b"\0\0\1\0\1" + bytes(6), message.FORMERR),  # no OPT
        (query("a.example") + b"\0", message.FORMERR),
        (WHOLE[:11] + b"\1" + WHOLE[12:] + b"\0\0\x29\x10\0\0\0\0\0\2\0" + bytes(600), message.FORMERR),
    ],
)  # fmt: skip
def test_what_is_no_question(raw: bytes, rcode: int) -> None:
    with pytest.raises(MessageError) as error:
        read_query(raw)
    assert error.value.rcode == rcode
    said = message.failure(raw, error.value.rcode)
    assert (said == b"") == (rcode < 0)
    assert not said or (said[:2] == raw[:2] and said[3] & 0xF == rcode)


ANSWER = reply(
    query("a.example"), alias("a.example", "b.example"), address("b.example", "192.0.2.1"), Record("b.example", TXT, 5, b"\2hi"),
    Record("b.example", SOA, 5, message.wire_name("m.example") + message.wire_name("h.example") + bytes(20)),
)  # fmt: skip


@given(st.data())
def test_damage_is_an_error_or_a_message(data: st.DataObject) -> None:
    for whole, read in (
        (query("a-long-name.example.org"), lambda r: message.write_answer(read_query(r), 0, udp=True)),
        (ANSWER, lambda r: [message.wire_name(x.name) for x in read_answer(r, 7, "a.example", A).answers]),
    ):
        raw = bytearray(whole)
        for _ in range(data.draw(st.integers(1, 5))):
            at = data.draw(st.integers(0, len(raw) - 1))
            how = data.draw(st.sampled_from(["set", "cut", "double", "point"]))
            if how == "set":
                raw[at] = data.draw(st.integers(0, 255))
            elif how == "point":
                raw[at : at + 2] = bytes([0xC0, data.draw(st.integers(0, len(raw) - 1))])
            elif how == "cut" and len(raw) > 20:
                del raw[at : at + data.draw(st.integers(1, 10))]
            else:
                raw[at:at] = raw[at : at + data.draw(st.integers(1, 20))]
        try:
            read(bytes(raw))
        except MessageError:
            pass


@given(st.binary(max_size=300))
def test_noise(raw: bytes) -> None:
    for read in (
        read_query,
        lambda r: read_answer(r, 7, "a.example", A),
        message.plain_service,
        message.read_name,
    ):
        for start in (b"", HEAD, ANSWER[:40]):
            try:
                read(start + raw)  # type: ignore[operator]
            except MessageError:
                pass


def test_pointers_without_end_take_no_time() -> None:
    """A thousand records, each with as many pointers as there may be: refused, not followed."""
    chain = b"".join(struct.pack(">H", 0xC000 | (26 + 2 * i)) for i in range(200))
    raw = struct.pack(">6H", 7, 0x8180, 1, 1000, 0, 0) + b"\1a\7example\0"[:11] + b"\0\1\0\1" + chain
    with pytest.raises(MessageError):
        read_answer(
            raw + (b"\xc1\x90" + struct.pack(">HHIH", 1, 1, 0, 4) + bytes(4)) * 1000, 7, "a.example", A
        )


@pytest.mark.parametrize(
    "raw",
    [
        reply(query("a.example"), id=8),
        reply(query("a.example"), name="b.example"),
        reply(query("a.example", AAAA)),
        query("a.example"),
        reply(query("a.example"), address("a.example", "192.0.2.1"))[:-1],
        reply(query("a.example"), address("a.example", "192.0.2.1")) + b"x",
        reply(query("a.example"), Record("a.example", A, 1, b"\1\2\3")),
        reply(query("a.example"), Record("a.example", AAAA, 1, b"\1\2\3\4")),
        reply(query("a.example"), Record("a.example", MX, 1, b"\0\1\1a")),
        reply(query("a.example"), *[address("a.example", "192.0.2.1")] * 1025),
    ],
)
def test_what_is_no_answer(raw: bytes) -> None:
    with pytest.raises(MessageError):
        read_answer(raw, 7, "a.example", A)


def test_what_does_not_fit_is_cut_off_over_udp_alone() -> None:
    many = [address("a.example", f"192.0.2.{n}") for n in range(100)]
    for edns, room in ((False, 512), (True, message.OUR_UDP)):
        raw = query("a.example", edns=edns)
        short = message.write_answer(read_query(raw), 0, many, udp=True)
        assert len(short) <= room
        assert Read(short, raw).truncated
        assert len(Read(message.write_answer(read_query(raw), 0, many, udp=False), raw).records) == 100


def test_service_bindings_lose_ech_and_hints() -> None:
    def params(*pairs: tuple[int, bytes]) -> bytes:
        return b"\0\1\0" + b"".join(struct.pack(">HH", k, len(v)) + v for k, v in pairs)

    whole = params((0, b"\0\4\0\1"), (1, b"\2h2"), (4, bytes(4)), (5, b"ech"), (6, bytes(16)))
    assert message.plain_service(whole) == params((0, b"\0\1"), (1, b"\2h2"))
    for broken in (
        b"",
        b"\0\1",
        params((1, b""))[:-1] + b"\0\1",
        params((3, b""), (1, b"")),
        params((0, b"\0")),
        b"\0\1\xc0\0",
    ):
        assert message.plain_service(broken) is None
