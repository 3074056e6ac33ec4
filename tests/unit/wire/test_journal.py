from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit_daemon.wire import journal

fields = st.binary(max_size=30).map(lambda raw: raw.replace(b"\0", b"").decode("utf-8", "surrogateescape"))
records = st.lists(fields, min_size=1, max_size=6)


@given(st.lists(records, max_size=5))
def test_records_come_back(sent: list[list[str]]) -> None:
    raw = b"".join(map(journal.pack, sent))
    got = list(journal.unpack(raw))
    assert [record for record, _ in got] == sent
    if got:
        assert got[-1][1] == len(raw)


@given(st.lists(records, min_size=1, max_size=5), st.data())
def test_a_cut_anywhere_leaves_the_whole_records_and_goes_on_later(
    sent: list[list[str]], data: st.DataObject
) -> None:
    raw = b"".join(map(journal.pack, sent))
    cut = data.draw(st.integers(0, len(raw)))
    first = list(journal.unpack(raw[:cut]))
    offset = first[-1][1] if first else 0
    assert offset <= cut
    rest = list(journal.unpack(raw[offset:]))
    assert [record for record, _ in first + rest] == sent


@given(st.lists(records, min_size=1, max_size=4), st.data())
def test_a_flip_in_a_payload_is_damage(sent: list[list[str]], data: st.DataObject) -> None:
    packed = [bytearray(journal.pack(record)) for record in sent]
    which = data.draw(st.integers(0, len(packed) - 1))
    if len(packed[which]) == 8:  # one empty field: no payload to flip
        return
    at = data.draw(st.integers(4, len(packed[which]) - 1))  # the checksum or the payload
    packed[which][at] ^= data.draw(st.integers(1, 255))
    seen: list[list[str]] = []

    def read() -> None:
        for record, _ in journal.unpack(b"".join(packed)):
            seen.append(record)

    with pytest.raises(ValueError, match="checksum"):
        read()
    assert seen == sent[:which]


def test_a_length_beyond_the_limit_is_damage_not_a_wait() -> None:
    with pytest.raises(ValueError, match="claims"):
        list(journal.unpack(struct.pack("<II", journal.MAX_RECORD + 1, 0)))


def test_a_nul_in_a_field_is_refused() -> None:
    with pytest.raises(ValueError, match="NUL"):
        journal.pack(["act", "a\0b"])
