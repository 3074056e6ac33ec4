from __future__ import annotations

import struct
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit_daemon.wire import frames

# Any text that UTF-8 with surrogateescape can carry.
texts = st.binary(max_size=40).map(lambda raw: raw.decode("utf-8", "surrogateescape"))
scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | texts | st.binary(max_size=40)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
).filter(lambda value: _depth(value) < frames.MAX_DEPTH)


def _depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, inner), default=0)


@given(st.lists(values, max_size=4), st.lists(st.integers(0, 400)))
def test_frames_come_back_however_the_stream_is_cut(sent: list[Any], cuts: list[int]) -> None:
    stream = b"".join(map(frames.encode, sent))
    places = sorted({0, len(stream), *(c for c in cuts if c < len(stream))})
    reader = frames.Reader()
    got = [value for a, b in pairwise(places) for value in reader.feed(stream[a:b])]
    assert got == sent
    assert [type(value) for value in got] == [type(value) for value in sent]


@given(values)
def test_byte_by_byte(value: Any) -> None:
    reader = frames.Reader()
    assert [v for byte in frames.encode(value) for v in reader.feed(bytes([byte]))] == [value]


@given(st.binary(max_size=80))
def test_garbage_is_a_value_or_a_frame_error(raw: bytes) -> None:
    try:
        value = frames.decode(raw)
    except frames.FrameError:
        return
    frames.encode(value)


@given(values, st.integers(0, 10_000), st.integers(1, 255))
def test_a_flipped_byte_never_escapes_as_another_error(value: Any, at: int, flip: int) -> None:
    body = bytearray(frames.encode(value)[4:])
    body[at % len(body)] ^= flip
    try:
        frames.decode(bytes(body))
    except frames.FrameError:
        pass


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"x",
        b"i1",
        b"s3:ab",
        b"s-1:",
        b"l",
        b"li1e",
        b"di1ei2ee",
        b"ds1:ai1es1:ai2ee",
        b"nn",
        b"i1e ",
        b"l" * 20,
    ],
)
def test_what_is_no_value_is_refused(body: bytes) -> None:
    with pytest.raises(frames.FrameError):
        frames.decode(body)


def test_a_frame_over_the_limit_is_refused_before_it_arrives() -> None:
    with pytest.raises(frames.FrameError):
        frames.Reader().feed(struct.pack("<I", frames.MAX_FRAME + 1))
    with pytest.raises(frames.FrameError):
        frames.encode(b"x" * (frames.MAX_FRAME + 1))
