"""DNS messages: what is read, what is written, and that no bytes raise anything but MessageError."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.nameserver import address, alias, query, reply
from remit_daemon.gateway.dns import message
from remit_daemon.gateway.dns.message import MessageError, Record

LABEL = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_", min_size=1, max_size=63)
NAME = st.lists(LABEL, min_size=1, max_size=5).map(".".join).filter(lambda n: len(n) < 254)
GOOD = reply(
    message.write_query(7, "a.example.com", message.A),
    [alias("a.example.com", "b.example.com"), address("b.example.com", "192.0.2.1")],
)


@given(st.binary(max_size=600))
@settings(max_examples=300, deadline=None)
def test_no_bytes_raise_anything_else(raw: bytes) -> None:
    for read in (
        message.read_query,
        message.read_name,
        lambda b: message.read_answer(b, 7, "a.example.com", message.A),
        lambda b: message.plain_service(b) or b"",
    ):
        try:
            read(raw)
        except MessageError as e:
            message.failure(raw, e.rcode)


@given(st.data())
@settings(max_examples=400, deadline=None)
def test_nor_does_a_message_with_bytes_changed_or_cut(data: st.DataObject) -> None:
    for good in (GOOD, query("a.example.com")):
        raw = bytearray(good)
        for _ in range(data.draw(st.integers(1, 4))):
            raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
        cut = bytes(raw[: data.draw(st.integers(0, len(raw)))])
        for read in (message.read_query, lambda b: message.read_answer(b, 7, "a.example.com", message.A)):
            try:
                read(cut)
            except MessageError:
                pass


@given(NAME, st.sampled_from([1, 28, 65, 16, 15, 33]), st.booleans(), st.integers(0, 65535))
@settings(max_examples=100, deadline=None)
def test_a_query_reads_as_it_was_sent(name: str, type: int, edns: bool, size: int) -> None:
    got = message.read_query(query(name.upper(), type, edns=edns, size=size))
    assert (got.name, got.type, got.id, got.edns) == (name, type, 7, edns)
    assert got.room == (max(512, min(size, 1232)) if edns else 512)


@given(NAME)
@settings(max_examples=100, deadline=None)
def test_nothing_of_the_clients_leaves_with_our_query(name: str) -> None:
    ours = message.write_query(3, message.read_query(query(name.upper())).name, message.A)
    assert ours == message.write_query(3, name, message.A)
    assert message.read_query(ours).name == name


@given(st.lists(st.binary(min_size=1, max_size=63), min_size=1, max_size=3))
@settings(max_examples=200, deadline=None)
def test_any_label_of_an_answer_is_written_as_it_was_read(labels: list[bytes]) -> None:
    wire = b"".join(bytes([len(x)]) + x for x in labels) + b"\0"
    assert message.wire_name(message.read_name(wire)) == wire.lower()


def head(**kw: int) -> bytes:
    got = {"id": 7, "flags": 0x100, "qd": 1, "an": 0, "ns": 0, "ar": 0} | kw
    return struct.pack(">6H", *got.values())


QUESTION = b"\1a\3com\0\0\1\0\1"


@pytest.mark.parametrize(
    ("raw", "rcode"),
    [
        (b"", -1),
        (head()[:-1], -1),
        (head(flags=0x8100) + QUESTION, -1),
        (head(flags=0x2900) + QUESTION, message.NOTIMP),
        (head(qd=0), message.FORMERR),
        (head(qd=2) + QUESTION * 2, message.FORMERR),
        (head(an=1) + QUESTION, message.FORMERR),
        (head(ar=2) + QUESTION, message.FORMERR),
        (head(ar=1) + QUESTION, message.FORMERR),
        (head(ar=1) + QUESTION + b"\0\0\1\0\1\0\0\0\0\0\0", message.FORMERR),  # a record that is no OPT
        (head() + QUESTION + b"x", message.FORMERR),
        (head() + QUESTION[:-1], message.FORMERR),
        (head() + b"\xc0\x0c\0\1\0\1", message.FORMERR),  # a pointer at itself
        (head() + b"\xc0\x00\0\1\0\1", message.FORMERR),  # into the header
        (head() + b"\x40a\0\0\1\0\1", message.FORMERR),
        (head() + b"\1a\0\0\1\0\3", message.REFUSED),  # class CHAOS
        (head() + b"\1a\0\0\xff\0\1", message.REFUSED),  # ANY
        (head() + b"\1a\0\0\xfc\0\1", message.REFUSED),  # AXFR
        (head() + b"\1a\0\0\x29\0\1", message.REFUSED),
        (head() + b"\3a.b\0\0\1\0\1", message.REFUSED),
        (head() + b"\3a\0b\0\0\1\0\1", message.REFUSED),
        (head() + b"\2a \0\0\1\0\1", message.REFUSED),
        (head() + (b"\x3f" + b"a" * 63) * 4 + b"\0\0\1\0\1", message.FORMERR),
        (head() + QUESTION + b"\0" * 600, message.FORMERR),
    ],
)
def test_what_is_no_query_is_answered_as_it_deserves(raw: bytes, rcode: int) -> None:
    with pytest.raises(MessageError) as caught:
        message.read_query(raw)
    assert caught.value.rcode == rcode
    answer = message.failure(raw, rcode)
    assert answer == b"" if rcode < 0 else answer[3] & 0xF == rcode


@pytest.mark.parametrize(
    ("where", "what"),
    [
        (slice(0, 2), b"\0\x08"),  # another identifier
        (slice(2, 4), b"\1\x80"),  # a query
        (slice(12, 14), b"\1b"),  # another name
        (slice(27, 29), b"\0\x1c"),  # another type
        (slice(4, 6), b"\0\0"),  # no question
        (slice(6, 8), b"\0\3"),  # a record that is not there
        (slice(6, 8), b"\0\1"),  # one that is not counted
        (slice(6, 8), b"\xff\xff"),
    ],
)
def test_what_answers_something_else_is_no_answer(where: slice, what: bytes) -> None:
    assert message.read_answer(GOOD, 7, "a.example.com", message.A).answers[1].data == bytes([192, 0, 2, 1])
    raw = bytearray(GOOD)
    assert raw[where] != what
    raw[where] = what
    with pytest.raises(MessageError):
        message.read_answer(bytes(raw), 7, "a.example.com", message.A)


def test_names_in_data_are_written_out_and_pointers_end() -> None:
    raw = message.write_query(7, "a.com", message.MX)
    head_, question = raw[:12], raw[12:-11]
    head_ = struct.pack(">6H", 7, 0x8180, 1, 1, 0, 0)
    data = b"\0\x0a\4mail\xc0\x0e"  # 10 mail.<com>
    record = b"\xc0\x0c" + struct.pack(">HHIH", message.MX, 1, 0xFFFFFFFF, len(data)) + data
    found = message.read_answer(head_ + question + record, 7, "a.com", message.MX).answers
    assert found == [Record("a.com", message.MX, 0, b"\0\x0a" + message.wire_name("mail.com"))]
    forwards = b"\xc0\xff" + record[2:]
    with pytest.raises(MessageError):
        message.read_answer(head_ + question + forwards, 7, "a.com", message.MX)


@pytest.mark.parametrize("type", [message.A, message.AAAA])
def test_an_address_has_its_length(type: int) -> None:
    raw = message.write_query(7, "a.com", type)
    with pytest.raises(MessageError):
        message.read_answer(reply(raw, [Record("a.com", type, 1, b"12345")]), 7, "a.com", type)


def test_what_does_not_fit_is_cut_off_and_said() -> None:
    asked = message.read_query(query("a.com", message.TXT, edns=False))
    records = [Record("a.com", message.TXT, 60, b"\xc8" + b"x" * 200)] * 4
    over_udp = message.write_answer(asked, 0, records, udp=True)
    assert len(over_udp) <= 512
    assert struct.unpack_from(">H", over_udp, 2)[0] & message.TC
    over_tcp = message.write_answer(asked, 0, records, udp=False)
    assert message.read_answer(over_tcp, 7, "a.com", message.TXT).answers == records
    too_long = message.write_answer(asked, 0, records * 100, udp=False)
    assert too_long[3] & 0xF == message.SERVFAIL


def test_a_service_loses_its_keys_and_addresses() -> None:
    def param(key: int, value: bytes) -> bytes:
        return struct.pack(">HH", key, len(value)) + value

    kept = param(1, b"\2h2") + param(3, b"\1\xbb")
    whole = b"\0\1\0" + param(0, b"\0\4\0\1") + param(1, b"\2h2") + param(3, b"\1\xbb") + param(4, b"1234")
    whole += param(5, b"keys") + param(6, b"x" * 16)
    assert message.plain_service(whole) == b"\0\1\0" + param(0, b"\0\1") + kept
    assert message.plain_service(b"\0\1\0" + param(3, b"") + param(1, b"")) is None  # out of order
    assert message.plain_service(whole[:-1]) is None
    assert message.plain_service(b"\0\1\xc0\0") is None
