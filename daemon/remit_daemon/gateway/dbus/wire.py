"""D-Bus messages, as far as a filter needs them: the fixed part and the header fields, never a body as such.

    endian type flags version | body length | serial | length of fields | field* | padding to 8 | body
      1      1    1      1    |      4      |   4    |        4         |        |              |

Header fields are checked completely (each type, names' grammar, padding, no field twice): the bus must not read another
message in the same bytes than we do. Of a body only leading strings and object paths are read, for rules on arguments,
and the whole body of two driver methods' answers, which are lists of names.

What a message of one kind looks like repeats: ``Parser`` keeps the parsed headers by their bytes, so that a second such
message costs a look-up. All that a kept header holds is in those bytes; serial, flags, body length and the serial
that is replied to are read anew each time.

Source: D-Bus specification 0.42, "Message Protocol".
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

CALL, RETURN, ERROR, SIGNAL = 1, 2, 3, 4
NO_REPLY, NO_AUTO_START = 1, 2
MAX_MESSAGE = 1 << 27  # bytes of a whole message (specification)
MAX_ARRAY = 1 << 26  # bytes of an array (specification), the header fields' included
MAX_NAME = 255  # bytes of a name (specification)
MAX_FDS = 253  # descriptors with one message: what one sendmsg(2) carries (SCM_MAX_FD)
MAX_ARGUMENTS = 8  # leading strings that are read for rules
MAX_KNOWN = 1024  # parsed headers that a parser keeps
MAX_KEPT = 1024  # bytes of a header that is kept
FIXED = 16

_PATH, _INTERFACE, _MEMBER, _ERROR, _REPLY, _DEST, _SENDER, _SIGNATURE, _FDS = range(1, 10)
_FIELDS = {
    _PATH: b"o", _INTERFACE: b"s", _MEMBER: b"s", _ERROR: b"s", _REPLY: b"u", _DEST: b"s", _SENDER: b"s",
    _SIGNATURE: b"g", _FDS: b"u",
}  # fmt: skip
_NEEDED = {
    CALL: (_PATH, _MEMBER),
    RETURN: (_REPLY,),
    ERROR: (_REPLY, _ERROR),
    SIGNAL: (_PATH, _INTERFACE, _MEMBER),
}
_WITHOUT_REPLY = (CALL, SIGNAL)
_REPLY_MARK = b"\x05\x01u\x00"
_LOCAL_PATH = "/org/freedesktop/DBus/Local"  # reserved for a library's own messages, never sent
_LOCAL_INTERFACE = "org.freedesktop.DBus.Local"

_is_path = re.compile(r"/|(?:/[A-Za-z0-9_]+)+", re.ASCII).fullmatch
_is_interface = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)+", re.ASCII).fullmatch
_is_member = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII).fullmatch
_is_known = re.compile(r"[A-Za-z_-][A-Za-z0-9_-]*(?:\.[A-Za-z_-][A-Za-z0-9_-]*)+", re.ASCII).fullmatch
_is_unique = re.compile(r":[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)+", re.ASCII).fullmatch
_BASIC = frozenset("ybnqiuxtdhsogv")
_ALIGN = {
    "y": 1, "b": 4, "n": 2, "q": 2, "i": 4, "u": 4, "x": 8, "t": 8, "d": 8, "h": 4, "s": 4, "o": 4, "g": 1, "v": 1,
    "a": 4, "(": 8, "{": 8,
}  # fmt: skip


class Malformed(Exception):
    """These bytes are no D-Bus message: the connection must end."""


def is_bus_name(text: str) -> bool:
    """Say whether ``text`` is a bus name, unique or well-known."""
    return len(text) <= MAX_NAME and bool(_is_unique(text) if text[:1] == ":" else _is_known(text))


def is_well_known(text: str) -> bool:
    """Say whether ``text`` is a well-known bus name."""
    return len(text) <= MAX_NAME and bool(_is_known(text))


def is_object_path(text: str) -> bool:
    """Say whether ``text`` is an object path."""
    return bool(_is_path(text))


def is_interface(text: str) -> bool:
    """Say whether ``text`` is an interface's (or an error's) name."""
    return len(text) <= MAX_NAME and bool(_is_interface(text))


def is_member(text: str) -> bool:
    """Say whether ``text`` is a member's name."""
    return len(text) <= MAX_NAME and bool(_is_member(text))


class Header:
    """What the header fields of a message say; the same object stands for all messages with the same fields.

    Absent texts are "". ``reply_at`` is the offset in the message of the serial that is replied to, 0 = none.
    """

    __slots__ = (
        "dest", "error", "fds", "interface", "member", "order", "path", "reply_at", "sender", "signature", "size", "type",
    )  # fmt: skip

    def __init__(self, order: int = 108) -> None:
        self.order = order  # the first byte: l or B
        self.type = 0
        self.path = self.interface = self.member = self.error = self.dest = self.sender = self.signature = (
            ""
        )
        self.reply_at = 0
        self.fds = 0
        self.size = 0  # bytes before the body, padding included

    def __repr__(self) -> str:
        said = " ".join(f"{n}={getattr(self, n)!r}" for n in self.__slots__ if getattr(self, n))
        return f"<Header {said}>"


class Message:
    """One whole message: ``data`` its bytes, ``files`` its descriptors, owned until it is sent or closed."""

    __slots__ = ("data", "files", "flags", "head", "little", "reply", "serial")

    def __init__(
        self,
        head: Header,
        little: bool,
        flags: int,
        serial: int,
        reply: int,
        data: bytes,
        files: tuple[int, ...] = (),
    ) -> None:
        self.head = head
        self.little = little
        self.flags = flags
        self.serial = serial
        self.reply = reply
        self.data = data
        self.files = files

    @property
    def body(self) -> memoryview:
        return memoryview(self.data)[self.head.size :]


_FIX = {108: struct.Struct("<BBBBIII").unpack_from, 66: struct.Struct(">BBBBIII").unpack_from}
_U32 = {108: struct.Struct("<I").unpack_from, 66: struct.Struct(">I").unpack_from}


def length(data: bytes | bytearray, at: int, end: int) -> int:
    """Return how many bytes the message at ``at`` has, 0 when fewer than 16 are there. Raises Malformed."""
    if end - at < FIXED:
        return 0
    unpack = _FIX.get(data[at])
    if unpack is None:
        raise Malformed(f"byte order {data[at]:#04x}")
    _, kind, _, version, body, serial, fields = unpack(data, at)
    if version != 1:
        raise Malformed(f"protocol version {version}")
    if not 1 <= kind <= 4:
        raise Malformed(f"message type {kind}")
    if not serial:
        raise Malformed("serial 0")
    if fields > MAX_ARRAY:
        raise Malformed("header fields longer than 64 MiB")
    total: int = FIXED + ((fields + 7) & ~7) + body
    if total > MAX_MESSAGE:
        raise Malformed("longer than 128 MiB")
    return total


class Parser:
    """Parses one direction's messages, and remembers their kinds."""

    def __init__(self) -> None:
        self._known: dict[bytes, Header] = {}
        self._replies: dict[bytes, Header] = {}

    def parse(self, data: bytes) -> Message:
        """Return the message that ``data`` is, whole as ``length`` said; without descriptors. Raises Malformed."""
        found = self.whole(data)
        if found is None:
            raise Malformed("no message")
        return found

    def whole(self, data: bytes) -> Message | None:
        """Return the message that ``data`` is, None when it is none or more than one. Raises Malformed."""
        unpack = _FIX.get(data[0])
        if unpack is None or len(data) < FIXED:
            return None
        order, kind, flags, version, body, serial, fields = unpack(data)
        if (
            FIXED + (fields + 7 & ~7) + body != len(data)
            or version != 1
            or not serial
            or not 1 <= kind <= 4
            or fields > MAX_ARRAY
        ):
            return None
        end = FIXED + fields
        key = data[FIXED:end]
        if kind in _WITHOUT_REPLY:
            at, known = 0, self._known
        else:
            # All but the serial replied to. That the mark found is the field is what a full parse said of the same bytes.
            at, known = key.find(_REPLY_MARK) + 4, self._replies
            key = key[:at] + key[at + 4 :]
            at += FIXED
        head = known.get(key)
        if head is None or head.type != kind or head.order != order or (at and head.reply_at != at):
            head = self._parse(data, order, kind, end)
            if len(key) <= MAX_KEPT and (not at or head.reply_at == at):
                if len(known) >= MAX_KNOWN:
                    known.clear()
                known[key] = head
        if len(data) - head.size != body:
            raise Malformed("the body's length")
        if (body != 0) is not (head.signature != ""):
            raise Malformed("a body without signature" if body else "a signature without body")
        reply = 0
        if head.reply_at:
            reply = int.from_bytes(
                data[head.reply_at : head.reply_at + 4], "little" if order == 108 else "big"
            )
            if not reply:
                raise Malformed("a reply to serial 0")
        return Message(head, order == 108, flags, serial, reply, data)

    @staticmethod
    def _parse(data: bytes, order: int, kind: int, end: int) -> Header:
        head = Header(order)
        head.type = kind
        u32 = _U32[order]
        seen = 0
        at = FIXED
        try:
            while at < end:
                start = (at + 7) & ~7
                if any(data[at:start]):
                    raise Malformed("padding that is not zero")
                code = data[start]
                at = start + 1
                size = data[at]
                signature = data[at + 1 : at + 1 + size]
                if data[at + 1 + size] or not size:
                    raise Malformed("a header field's signature")
                at += size + 2
                wanted = _FIELDS.get(code)
                if wanted is None:
                    if not code:
                        raise Malformed("header field 0")
                    at = _skip_value(data, at, signature.decode("ascii"), u32)
                    continue
                if signature != wanted:
                    raise Malformed(f"header field {code} of type {signature!r}")
                if seen >> code & 1:
                    raise Malformed(f"header field {code} twice")
                seen |= 1 << code
                if wanted == b"g":
                    size = data[at]
                    text = data[at + 1 : at + 1 + size].decode("ascii")
                    at += size + 2
                    if data[at - 1] or len(text) != size:
                        raise Malformed("a signature")
                else:
                    start = (at + 3) & ~3
                    if any(data[at:start]):
                        raise Malformed("padding that is not zero")
                    value = u32(data, start)[0]
                    at = start + 4
                    if wanted == b"u":
                        if code == _REPLY:
                            head.reply_at = start
                        elif value > MAX_FDS:
                            raise Malformed(f"{value} descriptors")
                        else:
                            head.fds = value
                        continue
                    if value > end - at:
                        raise Malformed("a string beyond its array")
                    text = data[at : at + value].decode()
                    at += value + 1
                    if data[at - 1] or "\0" in text:
                        raise Malformed("a string without its end")
                _take(head, code, text)
        except (IndexError, struct.error, UnicodeDecodeError) as e:
            raise Malformed(f"header fields: {e}") from None
        if at != end:
            raise Malformed("header fields beyond their array")
        head.size = (end + 7) & ~7
        if len(data) < head.size or any(data[end : head.size]):
            raise Malformed("padding that is not zero")
        for code in _NEEDED[kind]:
            if not seen >> code & 1:
                raise Malformed(f"no header field {code}")
        return head


def _take(head: Header, code: int, text: str) -> None:
    """Put ``text`` into the field ``code``, when its grammar allows it."""
    if code == _PATH:
        if not _is_path(text) or text == _LOCAL_PATH:
            raise Malformed("an object path")
        head.path = text
    elif code == _INTERFACE:
        if not is_interface(text) or text == _LOCAL_INTERFACE:
            raise Malformed("an interface")
        head.interface = text
    elif code == _MEMBER:
        if not is_member(text):
            raise Malformed("a member")
        head.member = text
    elif code == _ERROR:
        if not is_interface(text):
            raise Malformed("an error's name")
        head.error = text
    elif code == _SIGNATURE:
        if text and not _complete(text):
            raise Malformed("a signature")
        head.signature = text
    else:
        if not is_bus_name(text):
            raise Malformed("a bus name")
        if code == _DEST:
            head.dest = text
        else:
            head.sender = text


def _complete(signature: str) -> bool:
    """Say whether ``signature`` is a sequence of complete types."""
    at = 0
    while at < len(signature):
        at = one_type(signature, at, 0, 0)
        if at < 0:
            return False
    return True


def one_type(text: str, at: int, arrays: int, structs: int) -> int:
    """Return the offset behind the complete type at ``at``, -1 when there is none."""
    if at >= len(text) or arrays > 32 or structs > 32:
        return -1
    kind = text[at]
    if kind in _BASIC:
        return at + 1
    if kind == "a":
        if text[at + 1 : at + 2] != "{":
            return one_type(text, at + 1, arrays + 1, structs)
        if text[at + 2 : at + 3] not in _BASIC or text[at + 2] == "v":
            return -1
        at = one_type(text, at + 3, arrays + 1, structs + 1)
        return at + 1 if at >= 0 and text[at : at + 1] == "}" else -1
    if kind == "(":
        at += 1
        if text[at : at + 1] == ")":
            return -1
        while at >= 0 and text[at : at + 1] not in (")", ""):
            at = one_type(text, at, arrays, structs + 1)
        return at + 1 if at >= 0 and text[at : at + 1] == ")" else -1
    return -1


def _skip_value(data: bytes, at: int, signature: str, u32: Callable[..., tuple[int, ...]]) -> int:
    """Return the offset behind the value of a header field that we do not know; only basic types are taken."""
    if len(signature) != 1 or signature not in _BASIC or signature == "v":
        raise Malformed(f"an unknown header field of type {signature!r}")
    align = _ALIGN[signature]
    start = (at + align - 1) & -align
    if any(data[at:start]):
        raise Malformed("padding that is not zero")
    if signature in "so":
        size = u32(data, start)[0]
        return int(start + 4 + size + 1)
    if signature == "g":
        return start + 1 + data[start] + 1
    return start + max(align, 1)


def leading(message: Message, most: int = MAX_ARGUMENTS) -> tuple[str, ...]:
    """Return the body's leading strings and object paths, at most ``most``. Raises Malformed."""
    out: list[str] = []
    data, order = message.data, 108 if message.little else 66
    at = message.head.size
    u32 = _U32[order]
    try:
        for kind in message.head.signature[:most]:
            if kind not in "so":
                break
            at = (at + 3) & ~3
            size = u32(data, at)[0]
            at += 4
            if size > len(data) - at:
                raise Malformed("a string beyond its body")
            text = bytes(data[at : at + size]).decode()
            at += size + 1
            if data[at - 1] or "\0" in text:
                raise Malformed("a string without its end")
            out.append(text)
    except (IndexError, struct.error, UnicodeDecodeError) as e:
        raise Malformed(f"arguments: {e}") from None
    return tuple(out)


def strings(message: Message) -> list[str]:
    """Return the body of a message of signature ``as``. Raises Malformed."""
    if message.head.signature != "as":
        raise Malformed("not a list of names")
    data, u32 = message.data, _U32[108 if message.little else 66]
    at = message.head.size
    out: list[str] = []
    try:
        end = at + 4 + u32(data, at)[0]
        if end != len(data):
            raise Malformed("a list beyond its body")
        at += 4
        while at < end:
            at = (at + 3) & ~3
            size = u32(data, at)[0]
            at += 4 + size + 1
            if at > end or data[at - 1]:
                raise Malformed("a name beyond its list")
            out.append(bytes(data[at - 1 - size : at - 1]).decode())
    except (IndexError, struct.error, UnicodeDecodeError) as e:
        raise Malformed(f"a list: {e}") from None
    return out


# -- what we say ourselves -------------------------------------------------------------------------


def build(
    kind: int,
    serial: int,
    *,
    path: str = "",
    interface: str = "",
    member: str = "",
    error: str = "",
    reply: int = 0,
    dest: str = "",
    sender: str = "",
    signature: str = "",
    body: bytes = b"",
    flags: int = 0,
    fds: int = 0,
    big: bool = False,
) -> bytes:
    """Return a message, little-endian unless ``big``. ``body`` is in that order already."""
    order = ">" if big else "<"
    out = bytearray()
    for code, text in (
        (_PATH, path), (_INTERFACE, interface), (_MEMBER, member), (_ERROR, error), (_DEST, dest), (_SENDER, sender),
    ):  # fmt: skip
        if text:
            raw = text.encode()
            out += bytes(-len(out) % 8)
            out += (
                bytes((code, 1)) + _FIELDS[code] + b"\0" + struct.pack(order + "I", len(raw)) + raw + b"\0"
            )
    if signature:
        out += bytes(-len(out) % 8)
        out += bytes((_SIGNATURE, 1)) + b"g\0" + bytes((len(signature),)) + signature.encode() + b"\0"
    for code, number in ((_REPLY, reply), (_FDS, fds)):
        if number:
            out += bytes(-len(out) % 8)
            out += bytes((code, 1)) + b"u\0" + struct.pack(order + "I", number)
    head = struct.pack(order + "BBBBIII", 66 if big else 108, kind, flags, 1, len(body), serial, len(out))
    return head + bytes(out) + bytes(-len(out) % 8) + body


def pack_strings(*texts: str, big: bool = False) -> bytes:
    """Return a body of string arguments."""
    out = bytearray()
    for text in texts:
        raw = text.encode()
        out += bytes(-len(out) % 4) + struct.pack(">I" if big else "<I", len(raw)) + raw + b"\0"
    return bytes(out)


def pack_list(texts: list[str]) -> bytes:
    """Return a body of signature ``as``."""
    inner = pack_strings(*texts)
    return struct.pack("<I", len(inner)) + inner


def pack_number(number: int) -> bytes:
    """Return a body of signature ``u`` or ``b``."""
    return struct.pack("<I", number)
