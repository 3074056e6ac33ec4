"""DNS messages (RFC 1035, 6891, 8914, 9460): read strictly, written by ourselves.

What comes from the agent is a query and nothing else: one question of class IN for a name made of letters, digits,
``-`` and ``_``. What goes to the nameserver is built anew from the name and the type, so nothing else of the agent's
(identifier, letter case, flags, EDNS options) leaves with it. What comes back is parsed whole and written anew.

A reader never follows a pointer forwards, follows at most MAX_JUMPS, and takes no name beyond 255 octets, no
record that runs past the message, nothing behind the last record. All faults are MessageError with the response code that
the sender deserves.
"""

from __future__ import annotations

import struct

A, NS, CNAME, SOA, PTR, MX, TXT, AAAA, SRV, DNAME, OPT, SVCB, HTTPS = (
    1,
    2,
    5,
    6,
    12,
    15,
    16,
    28,
    33,
    39,
    41,
    64,
    65,
)
IN = 1
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = 0, 1, 2, 3, 4, 5
_META = range(
    128, 256
)  # RFC 6895: query and meta types (TKEY, TSIG, IXFR, AXFR, ANY); none is a look-up of ours

QR, AA, TC, RD, RA = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080
MAX_LABEL = 63
MAX_NAME = 255  # octets on the wire, RFC 1035 2.3.4
MAX_JUMPS = 64  # pointers in one name; each goes backwards, real ones have one or two
MAX_RECORDS = 1024  # of one answer; 64 KiB of the shortest records would be 4,000
MAX_QUERY = (
    512 + 12
)  # octets: a name, a question and an OPT record are at most 300; padding (RFC 7830) fits
PLAIN_UDP = 512  # octets of a UDP answer without EDNS
OUR_UDP = 1232  # what we offer upstream and give at most: never fragmented (DNS flag day 2020)
BLOCKED = 15  # extended error "Blocked", RFC 8914 4.16

_HEAD = struct.Struct(">6H")
_FIXED = struct.Struct(">HHIH")
_LETTERS = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")
_SVC_DROPPED = (
    4,
    5,
    6,
)  # ipv4hint and ipv6hint (addresses that we did not look at) and ech, RFC 9460 14.3.2
_SVC_MANDATORY = 0


class MessageError(ValueError):
    """The bytes are no message that we take; ``rcode`` is the answer for whoever sent them, -1: none."""

    def __init__(self, text: str, rcode: int = FORMERR) -> None:
        super().__init__(text)
        self.rcode = rcode


class Query:
    """One question. ``name`` is lower case without a final dot ("" = the root); ``wire`` the question as it was sent."""

    __slots__ = ("edns", "id", "name", "room", "type", "wire")

    def __init__(self, id: int, name: str, type: int, wire: bytes, edns: bool, room: int) -> None:
        self.id = id
        self.name = name
        self.type = type
        self.wire = wire
        self.edns = edns
        self.room = room  # octets of a UDP answer that the sender takes


class Record:
    """One resource record of class IN. Names are lower-case text; ``data`` is on-the-wire form without compression."""

    __slots__ = ("data", "name", "ttl", "type")

    def __init__(self, name: str, type: int, ttl: int, data: bytes) -> None:
        self.name = name
        self.type = type
        self.ttl = ttl
        self.data = data

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Record) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[str, int, int, bytes]:
        return (self.name, self.type, self.ttl, self.data)


class Answer:
    """What a nameserver answered: ``truncated`` means ask again over TCP."""

    __slots__ = ("answers", "authority", "rcode", "truncated")

    def __init__(self, rcode: int, truncated: bool, answers: list[Record], authority: list[Record]) -> None:
        self.rcode = rcode
        self.truncated = truncated
        self.answers = answers
        self.authority = authority


# -- names -----------------------------------------------------------------------------------------


def _labels(raw: bytes, at: int) -> tuple[list[bytes], int]:
    """Return the labels of the name at ``at`` and the offset behind it. Raises MessageError."""
    labels: list[bytes] = []
    size, jumps, end, floor = 1, 0, -1, at
    while True:
        if at >= len(raw):
            raise MessageError("a name runs past the message")
        length = raw[at]
        if length >= 0xC0:
            if at + 2 > len(raw):
                raise MessageError("a pointer runs past the message")
            to = (length & 0x3F) << 8 | raw[at + 1]
            if end < 0:
                end = at + 2
            jumps += 1
            if to >= floor or jumps > MAX_JUMPS:
                raise MessageError("a name points forwards or round in a circle")
            at = floor = to
            continue
        if length > MAX_LABEL:
            raise MessageError("a label of a kind that nobody uses")
        if length == 0:
            return labels, (at + 1 if end < 0 else end)
        size += length + 1
        if size > MAX_NAME:
            raise MessageError("a name is longer than 255 octets")
        if at + 1 + length > len(raw):
            raise MessageError("a label runs past the message")
        labels.append(raw[at + 1 : at + 1 + length])
        at += 1 + length


def _text(labels: list[bytes]) -> str:
    """Return host-like labels as text. Raises MessageError (REFUSED) for any other character."""
    for label in labels:
        if not _LETTERS.issuperset(label):
            raise MessageError("a name holds more than letters, digits, - and _", REFUSED)
    return b".".join(labels).decode("ascii").lower()


def _shown(labels: list[bytes]) -> str:
    """Return labels of an answer as text that ``_wire`` turns back: other characters as ``\\DDD`` (RFC 1035 5.1)."""
    parts = []
    for label in labels:
        parts.append("".join(chr(b) if b in _LETTERS else f"\\{b:03d}" for b in label))
    return ".".join(parts).lower()


def wire_name(name: str) -> bytes:
    """Return ``name`` on the wire, uncompressed. Raises MessageError when it is none."""
    out = bytearray()
    for part in name.split(".") if name else ():
        label = bytearray()
        rest = part
        while rest:
            if rest[0] == "\\":
                digits = rest[1:4]
                if len(digits) != 3 or not digits.isdecimal() or int(digits) > 255:
                    raise MessageError("an escape that is none")
                label.append(int(digits))
                rest = rest[4:]
                continue
            if ord(rest[0]) > 0x7E:
                raise MessageError("a name that is not ASCII")
            label.append(ord(rest[0]))
            rest = rest[1:]
        if not 0 < len(label) <= MAX_LABEL:
            raise MessageError("an empty label, or one longer than 63 octets")
        out.append(len(label))
        out += label
    out.append(0)
    if len(out) > MAX_NAME:
        raise MessageError("a name is longer than 255 octets")
    return bytes(out)


def read_name(data: bytes) -> str:
    """Return the uncompressed name that ``data`` begins with (a CNAME's data). Raises MessageError."""
    return _shown(_labels(data, 0)[0])


# -- queries ---------------------------------------------------------------------------------------


def read_query(raw: bytes) -> Query:
    """Read what a client sent. Raises MessageError; ``failure`` makes the answer for it."""
    if len(raw) < _HEAD.size:
        raise MessageError("shorter than a header", -1)
    id, flags, questions, answers, authorities, additional = _HEAD.unpack_from(raw)
    if flags & QR:
        raise MessageError("an answer, not a query", -1)
    if flags >> 11 & 0xF:
        raise MessageError("an operation other than a query", NOTIMP)
    if len(raw) > MAX_QUERY:
        raise MessageError("a query of a size that no question needs")
    if questions != 1 or answers or authorities or additional > 1:
        raise MessageError("a query has one question and at most one OPT record")
    labels, at = _labels(raw, _HEAD.size)
    if at + 4 > len(raw):
        raise MessageError("a question runs past the message")
    type, class_ = struct.unpack_from(">HH", raw, at)
    wire = raw[_HEAD.size : at + 4]
    if at - _HEAD.size != sum([len(x) + 1 for x in labels]) + 1:
        raise MessageError("a question's name is compressed")
    at += 4
    edns, room = False, PLAIN_UDP
    if additional:
        if raw[at : at + 1] != b"\0" or at + 11 > len(raw):
            raise MessageError("an additional record that is no OPT")
        kind, size, _ttl, length = _FIXED.unpack_from(raw, at + 1)
        if kind != OPT:
            raise MessageError("an additional record that is no OPT")
        at += 11 + length
        edns, room = True, max(PLAIN_UDP, min(size, OUR_UDP))
    if at != len(raw):
        raise MessageError("something follows the query, or it is cut off")
    if class_ != IN or type in _META or type in (0, OPT):
        raise MessageError("a class or type that is not looked up", REFUSED)
    return Query(id, _text(labels), type, wire, edns, room)


def failure(raw: bytes, rcode: int) -> bytes:
    """Return the answer to a query that could not be read, b"" when it is to get none."""
    if rcode < 0 or len(raw) < _HEAD.size:
        return b""
    id, flags = struct.unpack_from(">HH", raw)
    return _HEAD.pack(id, QR | flags & (0x7800 | RD) | RA | rcode, 0, 0, 0, 0)


def write_query(id: int, name: str, type: int) -> bytes:
    """Return a recursive query of ours, with EDNS. Raises MessageError when ``name`` is none."""
    question = wire_name(name) + struct.pack(">HH", type, IN)
    return _HEAD.pack(id, RD, 1, 0, 0, 1) + question + b"\0" + _FIXED.pack(OPT, OUR_UDP, 0, 0)


# -- answers ---------------------------------------------------------------------------------------


def read_answer(raw: bytes, id: int, name: str, type: int) -> Answer:
    """Read a nameserver's answer to ``write_query(id, name, type)``.

    Raises MessageError when it is no well-formed answer to just that question.
    """
    if len(raw) < _HEAD.size:
        raise MessageError("shorter than a header")
    got, flags, questions, answers, authorities, additional = _HEAD.unpack_from(raw)
    if got != id or not flags & QR or flags >> 11 & 0xF:
        raise MessageError("not an answer to our query")
    rcode = flags & 0xF
    if questions != 1:
        raise MessageError("an answer without the question")
    labels, at = _labels(raw, _HEAD.size)
    if at + 4 > len(raw) or _shown(labels) != name or struct.unpack_from(">HH", raw, at) != (type, IN):
        raise MessageError("an answer to another question")
    at += 4
    if flags & TC:
        return Answer(rcode, True, [], [])
    if answers + authorities + additional > MAX_RECORDS:
        raise MessageError("more records than we look at")
    sections: list[list[Record]] = []
    for count in (answers, authorities, additional):
        section: list[Record] = []
        for _ in range(count):
            record, at = _record(raw, at)
            if record is not None:
                section.append(record)
        sections.append(section)
    if at != len(raw):
        raise MessageError("something follows the last record")
    return Answer(rcode, False, sections[0], sections[1])


def _record(raw: bytes, at: int) -> tuple[Record | None, int]:
    """Return the record at ``at`` (None: of another class) and the offset behind it."""
    labels, at = _labels(raw, at)
    if at + _FIXED.size > len(raw):
        raise MessageError("a record runs past the message")
    type, class_, ttl, length = _FIXED.unpack_from(raw, at)
    at += _FIXED.size
    end = at + length
    if end > len(raw):
        raise MessageError("a record's data runs past the message")
    if type == OPT or class_ != IN:
        return None, end
    # RFC 2181 8: a TTL with the highest bit set is zero.
    return Record(_shown(labels), type, 0 if ttl >> 31 else ttl, _data(raw, at, end, type)), end


def _data(raw: bytes, at: int, end: int, type: int) -> bytes:
    """Return a record's data with the names in it written out."""
    before = {MX: 2, SRV: 6}.get(type, 0)
    names = {NS: 1, CNAME: 1, PTR: 1, DNAME: 1, MX: 1, SRV: 1, SOA: 2}.get(type, 0)
    if not names:
        if type in (A, AAAA) and end - at != (4 if type == A else 16):
            raise MessageError("an address of a wrong length")
        return raw[at:end]
    out = raw[at : at + before]
    at += before
    for _ in range(names):
        if at >= end:
            raise MessageError("a record ends before its name")
        labels, at = _labels(raw, at)
        out += b"".join(bytes([len(x)]) + x for x in labels) + b"\0"
    if at > end or end - at != (20 if type == SOA else 0):
        raise MessageError("a record's data has a wrong length")
    return out + raw[at:end]


def write_answer(
    query: Query,
    rcode: int,
    answers: list[Record] | tuple[Record, ...] = (),
    authority: list[Record] | tuple[Record, ...] = (),
    *,
    udp: bool,
    blocked: str = "",
) -> bytes:
    """Return the answer to ``query``; over UDP what does not fit is left out and TC is set.

    ``blocked`` is the text of an extended error "Blocked", for clients that speak EDNS.
    """
    opt = b""
    if query.edns:
        reason = blocked.encode("utf-8", "replace")[:200]
        option = struct.pack(">HHH", 15, len(reason) + 2, BLOCKED) + reason if blocked else b""
        opt = b"\0" + _FIXED.pack(OPT, OUR_UDP, 0, len(option)) + option
    body = b"".join([_packed(r, query) for r in (*answers, *authority)])
    flags = QR | RD | RA | rcode
    counts = (1, len(answers), len(authority), 1 if opt else 0)
    whole = _HEAD.pack(query.id, flags, *counts) + query.wire + body + opt
    if len(whole) > (query.room if udp else 0xFFFF):
        flags = flags | TC if udp else flags & ~0xF | SERVFAIL
        whole = _HEAD.pack(query.id, flags, 1, 0, 0, 1 if opt else 0) + query.wire + opt
    return whole


def _packed(record: Record, query: Query) -> bytes:
    name = b"\xc0\x0c" if record.name == query.name else wire_name(record.name)
    return name + _FIXED.pack(record.type, IN, record.ttl, len(record.data)) + record.data


# -- service bindings ------------------------------------------------------------------------------


def plain_service(data: bytes) -> bytes | None:
    """Return the data of an SVCB or HTTPS record without ``ech`` and address hints; None when it is malformed.

    RFC 9460 2.2: priority, target name, then parameters (key, length, value) in ascending order of their keys.
    """
    if len(data) < 3:
        return None
    try:
        labels, at = _labels(data, 2)
    except MessageError:
        return None
    if at - 2 != sum([len(x) + 1 for x in labels]) + 1:
        return None  # compressed, which it must not be
    out, last = data[:at], -1
    while at < len(data):
        if at + 4 > len(data):
            return None
        key, length = struct.unpack_from(">HH", data, at)
        value = data[at + 4 : at + 4 + length]
        if key <= last or len(value) != length:
            return None
        at, last = at + 4 + length, key
        if key in _SVC_DROPPED:
            continue
        if key == _SVC_MANDATORY:
            if length % 2 or not length:
                return None
            keys = [k for (k,) in struct.iter_unpack(">H", value) if k not in _SVC_DROPPED]
            if not keys:
                continue
            value = struct.pack(f">{len(keys)}H", *keys)
        out += struct.pack(">HH", key, len(value)) + value
    return out
