"""Messages come out whole and in order however the stream was cut; descriptors go with their messages."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit_daemon.gateway.dbus import wire
from remit_daemon.gateway.dbus.frames import MAX_POOL, Frames, close_all
from remit_daemon.gateway.dbus.wire import CALL, Malformed

MESSAGE = {"path": "/a", "interface": "a.b", "member": "C", "dest": "org.x.Y"}

messages = st.lists(
    st.builds(
        lambda serial, text, big, reply: (
            wire.build(wire.RETURN, serial, reply=reply, dest=":1.1", big=big)
            if reply
            else wire.build(CALL, serial, **MESSAGE, signature="s", body=wire.pack_strings(text, big=big), big=big)
        ),
        st.integers(1, 0xFFFFFFFF), st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=40), st.booleans(),
        st.integers(0, 0xFFFFFFFF),
    ),
    min_size=1,
    max_size=6,
)  # fmt: skip


@given(messages, st.data())
def test_any_cut(parts: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    frames = Frames(files=False)
    out: list[bytes] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        if start < end:
            out += [m.data for m in frames.feed(stream[start:end])]
    assert out == parts
    assert frames.buffered == 0


def test_one_byte_at_a_time() -> None:
    raw = wire.build(CALL, 1, **MESSAGE, signature="s", body=wire.pack_strings("x" * 50)) * 3
    frames = Frames(files=False)
    assert sum(len(frames.feed(raw[i : i + 1])) for i in range(len(raw))) == 3


def test_an_early_end_is_seen_before_the_message_is_whole() -> None:
    with pytest.raises(Malformed):
        Frames(files=False).feed(b"GET / HTTP/1.1\r\n")
    with pytest.raises(Malformed):
        Frames(files=False).feed(
            b"l\1\0\1" + (wire.MAX_MESSAGE).to_bytes(4, "little") + b"\1\0\0\0\x10\0\0\0"
        )


def files(count: int) -> list[int]:
    return [os.open("/dev/null", os.O_RDONLY) for _ in range(count)]


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_descriptors_go_with_their_messages() -> None:
    frames = Frames(files=True)
    fds = files(3)
    first, second = wire.build(CALL, 1, **MESSAGE, fds=1), wire.build(CALL, 2, **MESSAGE, fds=2)
    assert frames.feed(first[:20], fds[:1]) == []
    out = frames.feed(first[20:] + second[:30], fds[1:])
    out += frames.feed(second[30:])
    assert [m.files for m in out] == [(fds[0],), (fds[1], fds[2])]
    for message in out:
        close_all(message.files)


@pytest.mark.parametrize("said", [0, 1, 3])
def test_descriptors_of_no_message(said: int) -> None:
    frames = Frames(files=True)
    fds = files(2)
    with pytest.raises(Malformed):
        frames.feed(wire.build(CALL, 1, **MESSAGE, fds=said), fds)
    frames.close()
    assert not any(map(is_open, fds))


def test_descriptors_that_were_not_agreed_on() -> None:
    frames = Frames(files=False)
    fds = files(1)
    with pytest.raises(Malformed):
        frames.feed(wire.build(CALL, 1, **MESSAGE, fds=1), fds)
    frames.close()
    assert not is_open(fds[0])


def test_too_many_descriptors() -> None:
    frames = Frames(files=True)
    part = wire.build(CALL, 1, **MESSAGE, fds=200)
    fds = files(MAX_POOL + 1)
    with pytest.raises(Malformed):
        frames.feed(part[:20], fds)
    frames.close()
    assert not any(map(is_open, fds))
