"""DNS messages: what is read is what was sent, and whatever else comes is an error with the code that it deserves."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit_daemon.gateway.dns.message import (
    AAAA,
    CNAME,
    FORMERR,
    HTTPS,
    MX,
    NOTIMP,
    OPT,
    REFUSED,
    SOA,
    TXT,
    A,
    MessageError,
    Query,
    Record,
    failure,
    plain_service,
    read_answer,
    read_query,
    wire_name,
    write_answer,
    write_query,
)  # fmt: skip

LABEL = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_", min_size=1, max_size=20)
NAME = st.lists(LABEL, min_size=1, max_size=6).map(".".join)


def query(name: str = "a.example", type: int = A, *, flags: int = 0x0100, more: bytes = b"", counts: tuple[int, ...] = (1, 0, 0, 0)) -> bytes:  # fmt: skip
    return struct.pack(">6H", 7, flags, *counts) + wire_name(name) + struct.pack(">HH", type, 1) + more


def answer(*records: bytes, name: str = "a.example", type: int = A, flags: int = 0x8180, id: int = 7, authority: int = 0) -> bytes:  # fmt: skip
    head = struct.pack(">6H", id, flags, 1, len(records) - authority, authority, 0)
    return head + wire_name(name) + struct.pack(">HH", type, 1) + b"".join(records)


def record(data: bytes, type: int = A, owner: bytes = b"\xc0\x0c", ttl: int = 60) -> bytes:
    return owner + struct.pack(">HHIH", type, 1, ttl, len(data)) + data


@given(NAME, st.sampled_from([A, AAAA, TXT, MX, HTTPS]))
def test_what_is_written_is_read(name: str, type: int) -> None:
    found = read_query(write_query(9, name, type))
    assert (found.id, found.name, found.type, found.edns) == (9, name, type, True)


def test_letter_case_is_no_difference() -> None:
    assert read_query(query("A.ExAmPle")).name == "a.example"


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"", -1),
        (query()[:11], -1),
        (query(flags=0x8100), -1),
        (query(flags=0x2800), NOTIMP),
        (query(counts=(2, 0, 0, 0)), FORMERR),
        (query(counts=(0, 0, 0, 0)), FORMERR),
        (query(counts=(1, 1, 0, 0)), FORMERR),
        (query(counts=(1, 0, 0, 2)), FORMERR),
        (query(counts=(1, 0, 0, 1)), FORMERR),
        (query(more=b"x"), FORMERR),
        (query()[:-1], FORMERR),
        (query(type=252), REFUSED),
        (query(type=255), REFUSED),
        (query(type=OPT), REFUSED),
        (query("a\\032b.example"), REFUSED),
        (query("a\\000.example"), REFUSED),
        (query("a\\046b.example"), REFUSED),
        (query(more=b"\0" * 600), FORMERR),
        (struct.pack(">6H", 7, 0x0100, 1, 0, 0, 0) + b"\xc0\x0c\0\1\0\1", FORMERR),
        (struct.pack(">6H", 7, 0x0100, 1, 0, 0, 0) + b"\1a\xc0\x0c\0\1\0\1", FORMERR),
        (struct.pack(">6H", 7, 0x0100, 1, 0, 0, 0) + b"\x41a\0\0\1\0\1", FORMERR),
        (struct.pack(">6H", 7, 0x0100, 1, 0, 0, 0) + b"\x3fa\0\0\1\0\1", FORMERR),
        (struct.pack(">6H", 7, 0x0100, 1, 0, 0, 0) + (b"\x3f" + b"a" * 63) * 5 + b"\0\0\1\0\1", FORMERR),
        (query()[:-1] + b"\3", REFUSED),  # class CHAOS
    ],
)
def test_what_is_no_query(raw: bytes, code: int) -> None:
    with pytest.raises(MessageError) as error:
        read_query(raw)
    assert error.value.rcode == code
    said = failure(raw, code)
    assert (said == b"") == (code < 0 or len(raw) < 12)
    if said:
        assert said[:2] == raw[:2]
        assert said[3] & 0xF == code


def test_records_are_written_out() -> None:
    chain = record(b"\1b\xc0\x0e", CNAME)  # b.example, by a pointer into the question
    found = read_answer(answer(chain, record(b"\1\2\3\4", owner=b"\1b\xc0\x0e")), 7, "a.example", A)
    assert found.answers == [
        Record("a.example", CNAME, 60, b"\1b\7example\0"),
        Record("b.example", A, 60, b"\1\2\3\4"),
    ]


def test_a_negative_time_to_live_is_none() -> None:
    found = read_answer(answer(record(b"\1\2\3\4", ttl=0x80000001)), 7, "a.example", A)
    assert found.answers[0].ttl == 0


@pytest.mark.parametrize(
    "raw",
    [
        answer(id=8),
        answer(flags=0x0180),
        answer(name="b.example"),
        answer(type=AAAA),
        answer()[:-1],
        answer(record(b"\1\2\3")),
        answer(record(b"\1\2\3\4")) + b"x",
        answer(record(b"\1\2\3\4")[:-1]),
        answer(record(b"\1\2\3\4", owner=b"\xff\xff")),
        answer(record(b"\1\2\3\4", owner=b"\xc0\x1f")),  # a pointer to itself
        answer(record(b"\1b\xc0\x40", CNAME)),  # forwards
        answer(record(b"\1b", CNAME)),
        answer(record(b"\1b\0x", CNAME)),
        answer(record(b"\0\0" + bytes(19), SOA)),
        answer(record(b"\0", MX)),
    ],
)
def test_what_is_no_answer_to_it(raw: bytes) -> None:
    with pytest.raises(MessageError):
        read_answer(raw, 7, "a.example", A)


def test_pointers_round_in_a_circle_end() -> None:
    raw = bytearray(answer(record(b"\1\2\3\4", owner=b"\1x\xc0\x0c")))
    raw[12:14] = b"\xc0\x1f"
    with pytest.raises(MessageError):
        read_answer(bytes(raw), 7, "a.example", A)


@given(st.binary(max_size=120), st.booleans())
def test_noise(raw: bytes, behind: bool) -> None:
    """Never another exception than the module's own."""
    whole = answer(raw) if behind else raw
    for read in (
        lambda: read_answer(whole, 7, "a.example", A),
        lambda: read_query(whole),
        lambda: plain_service(whole),
    ):
        try:
            read()
        except MessageError:
            pass


def test_what_does_not_fit_a_datagram_is_cut() -> None:
    asked = read_query(query())
    many = [Record("a.example", A, 1, bytes(4))] * 60
    raw = write_answer(asked, 0, many, udp=True)
    assert len(raw) <= 512
    assert raw[2] & 0x02
    assert not write_answer(asked, 0, many, udp=False)[2] & 0x02


def test_why_it_is_blocked_is_said_to_those_who_can_read_it() -> None:
    assert b"because" in write_answer(
        read_query(write_query(1, "a.example", A)), 3, udp=True, blocked="because"
    )
    assert b"because" not in write_answer(read_query(query()), 3, udp=True, blocked="because")


def parameters(*pairs: tuple[int, bytes]) -> bytes:
    return b"\0\1\0" + b"".join(struct.pack(">HH", k, len(v)) + v for k, v in pairs)


def test_services_lose_what_would_lead_past_us() -> None:
    """Encrypted hellos and addresses that nobody looked at go; what they were mandatory for stays."""
    given_ = parameters(
        (0, b"\0\1\0\4\0\5"), (1, b"\2h2"), (4, b"\x0a\0\0\1"), (5, b"key"), (6, bytes(16)), (7, b"/q")
    )
    assert plain_service(given_) == parameters((0, b"\0\1"), (1, b"\2h2"), (7, b"/q"))
    for raw in (
        b"",
        b"\0\1",
        parameters((1, b"x"), (1, b"x")),
        parameters((2, b""), (1, b"")),
        parameters((1, b"x"))[:-1],
    ):
        assert plain_service(raw) is None


def test_a_query_of_ours_has_nothing_of_the_agents() -> None:
    asked = Query(0xABCD, "a.example", A, wire_name("A.eXample") + b"\0\1\0\1", True, 4096)
    sent = write_query(1, asked.name, asked.type)
    assert sent == struct.pack(">6H", 1, 0x0100, 1, 0, 0, 1) + wire_name("a.example") + b"\0\1\0\1" + b"\0" + struct.pack(">HHIH", OPT, 1232, 0, 0)  # fmt: skip
