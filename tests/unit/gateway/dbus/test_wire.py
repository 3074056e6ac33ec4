"""Headers: what is taken, in both byte orders, and that everything else ends the connection."""

from __future__ import annotations

import random
import struct

import pytest

from remit_daemon.gateway.dbus import wire
from remit_daemon.gateway.dbus.wire import CALL, ERROR, RETURN, SIGNAL, Malformed, Parser

CALLED = {"path": "/a/b", "interface": "a.b", "member": "C", "dest": "org.x.Y"}


def field(code: int, kind: bytes, value: bytes, before: int = 0, order: str = "<") -> bytes:
    out = bytes(-before % 8) + bytes((code, 1)) + kind + b"\0"
    if kind in (b"s", b"o"):
        return out + struct.pack(order + "I", len(value)) + value + b"\0"
    if kind == b"g":
        return out + bytes((len(value),)) + value + b"\0"
    return out + value


def raw(*fields: tuple[int, bytes, bytes], kind: int = CALL, body: bytes = b"", **fixed: int) -> bytes:
    """Return a message of any header fields, well-formed or not."""
    inner = b""
    for code, type_, value in fields:
        inner += field(code, type_, value, len(inner))
    head = struct.pack(
        "<BBBBIII", fixed.get("order", 108), kind, 0, fixed.get("version", 1), fixed.get("size", len(body)),
        fixed.get("serial", 1), fixed.get("fields", len(inner)),
    )  # fmt: skip
    return head + inner + bytes(-len(inner) % 8) + body


PATH, MEMBER, DEST = (1, b"o", b"/a"), (3, b"s", b"M"), (6, b"s", b"a.b")


def parse(data: bytes) -> wire.Message:
    assert wire.length(data, 0, len(data)) == len(data)
    return Parser().parse(data)


@pytest.mark.parametrize("big", [False, True])
def test_all_fields(big: bool) -> None:
    body = wire.pack_strings("one", "/two", "three", big=big)
    data = wire.build(
        CALL, 7, **CALLED, sender=":1.5", signature="sosu", body=body + bytes(-len(body) % 4) + b"\0\0\0\1", fds=3, flags=1, big=big
    )  # fmt: skip
    message = parse(data)
    head = message.head
    assert (head.path, head.interface, head.member, head.dest, head.sender) == (
        "/a/b",
        "a.b",
        "C",
        "org.x.Y",
        ":1.5",
    )
    assert (head.type, head.signature, head.fds, message.serial, message.flags) == (CALL, "sosu", 3, 7, 1)
    assert wire.leading(message) == ("one", "/two", "three")
    assert wire.leading(message, 2) == ("one", "/two")
    reply = parse(wire.build(ERROR, 1, error="a.b.C", reply=0x01020304, dest=":1.2", big=big))
    assert (reply.reply, reply.head.error) == (0x01020304, "a.b.C")


@pytest.mark.parametrize("kind", [RETURN, ERROR])
@pytest.mark.parametrize("big", [False, True])
def test_a_remembered_reply_is_read_as_a_new_one(kind: int, big: bool) -> None:
    parser = Parser()
    for serial in (1, 0x05017500, 0x00750105, 0xFFFFFFFF, 2):
        data = wire.build(
            kind,
            serial,
            error="a.b" if kind == ERROR else "",
            reply=serial,
            dest=":1.9",
            sender="a.b",
            big=big,
        )
        message = parser.parse(data)
        assert (message.reply, message.serial, message.head.sender) == (serial, serial, "a.b")
    other = parser.parse(
        wire.build(
            kind, 9, error="a.b" if kind == ERROR else "", reply=3, dest=":1.8", sender="a.b", big=big
        )
    )
    assert other.head.dest == ":1.8"


def test_a_remembered_header_is_not_another_kinds() -> None:
    parser = Parser()
    fields = {"path": "/a", "interface": "a.b", "member": "M", "dest": ":1.2"}
    for big in (False, True, False):
        for kind in (CALL, SIGNAL, CALL):
            assert parser.parse(wire.build(kind, 1, **fields, big=big)).head.type == kind
    call = parser.parse(wire.build(CALL, 1, **fields))
    assert parser.parse(wire.build(CALL, 2, **fields, flags=1)).head is call.head


def parse_any(data: bytes) -> None:
    wire.length(data, 0, len(data))
    Parser().parse(data)


MALFORMED = {
    "byte order": raw(PATH, MEMBER, order=76),
    "version": raw(PATH, MEMBER, version=2),
    "type 0": raw(PATH, MEMBER, kind=0),
    "type 5": raw(PATH, MEMBER, kind=5),
    "serial 0": raw(PATH, MEMBER, serial=0),
    "fields too long": raw(PATH, MEMBER, fields=wire.MAX_ARRAY + 1),
    "message too long": raw(PATH, MEMBER, size=wire.MAX_MESSAGE),
    "no path": raw(MEMBER),
    "no member": raw(PATH),
    "signal without interface": raw(PATH, MEMBER, kind=SIGNAL),
    "reply without serial": raw(DEST, kind=RETURN),
    "error without name": raw((5, b"u", b"\1\0\0\0"), kind=ERROR),
    "reply to 0": raw((5, b"u", b"\0\0\0\0"), kind=RETURN),
    "field twice": raw(PATH, MEMBER, MEMBER),
    "destination twice": raw(PATH, MEMBER, DEST, (6, b"s", b"c.d")),
    "field 0": raw(PATH, MEMBER, (0, b"s", b"x")),
    "wrong type of field": raw((1, b"s", b"/a"), MEMBER),
    "relative path": raw((1, b"o", b"a"), MEMBER),
    "path with end slash": raw((1, b"o", b"/a/"), MEMBER),
    "path with double slash": raw((1, b"o", b"//a"), MEMBER),
    "path with newline": raw((1, b"o", b"/a\n"), MEMBER),
    "local path": raw((1, b"o", b"/org/freedesktop/DBus/Local"), MEMBER),
    "local interface": raw(PATH, MEMBER, (2, b"s", b"org.freedesktop.DBus.Local")),
    "member with dot": raw(PATH, (3, b"s", b"A.B")),
    "member with newline": raw(PATH, (3, b"s", b"A\n")),
    "member too long": raw(PATH, (3, b"s", b"A" * 256)),
    "interface of one element": raw(PATH, MEMBER, (2, b"s", b"a")),
    "interface with blank": raw(PATH, MEMBER, (2, b"s", b"a.b c")),
    "bus name of one element": raw(PATH, MEMBER, (6, b"s", b"a")),
    "bus name that begins with a digit": raw(PATH, MEMBER, (6, b"s", b"a.1b")),
    "bus name too long": raw(PATH, MEMBER, (6, b"s", b"a." + b"b" * 254)),
    "NUL in a name": raw(PATH, MEMBER, (6, b"s", b"a.b\0c.d")),
    "no UTF-8": raw(PATH, MEMBER, (6, b"s", b"a.\xff")),
    "surrogate": raw(PATH, MEMBER, (99, b"s", b"x"), (6, b"s", b"a.\xed\xa0\x80")),
    "too many descriptors": raw(PATH, MEMBER, (9, b"u", struct.pack("<I", 254))),
    "body without signature": raw(PATH, MEMBER, body=b"1234"),
    "signature without body": raw(PATH, MEMBER, (8, b"g", b"s")),
    "incomplete signature": raw(PATH, MEMBER, (8, b"g", b"a"), body=b"1234"),
    "empty structure": raw(PATH, MEMBER, (8, b"g", b"()"), body=b"1234"),
    "dictionary outside an array": raw(PATH, MEMBER, (8, b"g", b"{ss}"), body=b"1234"),
    "deep signature": raw(PATH, MEMBER, (8, b"g", b"a" * 40 + b"s"), body=b"1234"),
    "deep structures": raw(PATH, MEMBER, (8, b"g", b"(" * 40 + b"s" + b")" * 40), body=b"1234"),
    "unknown field with a container": raw(PATH, MEMBER, (99, b"a", b"\0\0\0\0")),
    "string beyond the fields": raw(PATH, MEMBER)[:-12] + struct.pack("<I", 1 << 30) + b"M\0" + bytes(6),
    "padding that is not zero": raw(PATH, MEMBER)[:-1] + b"x",
}  # fmt: skip


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED)
def test_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        parse_any(data)


def test_unknown_fields_pass() -> None:
    assert parse(raw(PATH, (99, b"s", b"x"), (98, b"u", b"1234"), MEMBER)).head.member == "M"


@pytest.mark.parametrize("cut", range(1, 60))
def test_truncated_headers(cut: int) -> None:
    """The fixed part promises more fields than there are: whatever is missing, nothing is read beyond."""
    whole = wire.build(CALL, 1, **CALLED)
    fields = len(whole) - 16 - cut
    if fields <= 0:
        return
    data = whole[:12] + struct.pack("<I", fields) + whole[16 : 16 + fields]
    data += bytes(-len(data) % 8)
    try:
        message = parse(data)
    except Malformed:
        return
    assert message.head.dest == ""  # cut exactly before the last field, which may be absent


def test_random_damage_is_malformed_or_a_message() -> None:
    chance = random.Random(7)
    good = [
        wire.build(CALL, 1, **CALLED, signature="sos", body=wire.pack_strings("a", "/b", "c" * 30)),
        wire.build(
            RETURN, 2, reply=1, dest=":1.2", sender=":1.3", signature="as", body=wire.pack_list(["a", "b"])
        ),
        wire.build(SIGNAL, 3, path="/a", interface="a.b", member="C", big=True),
    ]
    parser = Parser()
    for _ in range(20_000):
        data = bytearray(chance.choice(good))
        for _ in range(chance.randint(1, 3)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        try:
            if wire.length(data, 0, len(data)) == len(data):
                message = parser.parse(bytes(data))
                wire.leading(message)
                wire.strings(message)
        except Malformed:
            pass


@pytest.mark.parametrize(
    "body",
    [
        b"\xff\xff\xff\xff",
        b"\x05\0\0\0abc\0",
        b"\x03\0\0\0abcd",
        b"\x03\0\0\0a\0c\0",
        b"\x01\0\0\0\xff\0",
        b"\x01\0",
    ],
)
def test_strings_that_are_none(body: bytes) -> None:
    message = parse(wire.build(CALL, 1, **CALLED, signature="s", body=body))
    with pytest.raises(Malformed):
        wire.leading(message)


def test_lists_of_names() -> None:
    names = ["a.b", ":1.2", ""]
    message = parse(wire.build(RETURN, 1, reply=1, signature="as", body=wire.pack_list(names)))
    assert wire.strings(message) == names
    assert (
        wire.strings(parse(wire.build(RETURN, 1, reply=1, signature="as", body=wire.pack_list([])))) == []
    )
    with pytest.raises(Malformed):
        wire.strings(
            parse(wire.build(RETURN, 1, reply=1, signature="as", body=wire.pack_list(names) + b"\0"))
        )
