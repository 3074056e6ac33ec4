"""The TLS ClientHello (RFC 8446 4.1.2), as far as it names the host.

Own parser, incremental and strict: a hello may come a byte at a time, over several records; whatever is
malformed is an error, never a guess. What is read: server_name (RFC 6066 3), ALPN (RFC 7301), and whether there is an
encrypted ClientHello (RFC 9849), behind which another host may hide.
"""

from __future__ import annotations

MAX_HELLO = 1 << 16  # bytes of the handshake message; post-quantum key shares need some 2 kB
MAX_RECORD = 1 << 14  # RFC 8446 5.1
MAX_RECORDS = 64  # that one hello may be cut into
_HANDSHAKE, _CLIENT_HELLO = 22, 1
_SNI, _ALPN, _ECH = 0, 16, 0xFE0D


class HelloError(ValueError):
    """What the client sends is no ClientHello; the text says why."""


class Hello:
    """``sni`` is the host name as sent, "" when there is none; ``alpn`` the protocols offered; ``ech``: one is encrypted inside."""

    __slots__ = ("alpn", "ech", "sni")

    def __init__(self, sni: str, alpn: tuple[bytes, ...], ech: bool) -> None:
        self.sni = sni
        self.alpn = alpn
        self.ech = ech


class _Cursor:
    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.at = 0

    def take(self, size: int) -> bytes:
        if size > len(self.raw) - self.at:
            raise HelloError("a length runs past its end")
        self.at += size
        return self.raw[self.at - size : self.at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def vector(self, size: int) -> _Cursor:
        return _Cursor(self.take(self.number(size)))

    @property
    def left(self) -> int:
        return len(self.raw) - self.at


def parse(data: bytes) -> Hello | None:
    """Return the hello at the start of ``data``, None when more is needed. Raises HelloError."""
    message = b""
    at = records = 0
    while True:
        wanted = 4 + int.from_bytes(message[1:4], "big") if len(message) >= 4 else 0
        if wanted:
            if message[0] != _CLIENT_HELLO:
                raise HelloError("not a ClientHello")
            if wanted > MAX_HELLO:
                raise HelloError("the ClientHello is too long")
            if len(message) >= wanted:
                if len(message) > wanted:
                    raise HelloError("something follows the ClientHello in its record")
                return _hello(_Cursor(message[4:wanted]))
        head = data[at : at + 5]
        if head[:1] not in (b"", bytes([_HANDSHAKE])) or head[1:2] not in (b"", b"\3"):
            raise HelloError("not a TLS handshake record")
        if len(head) < 5:
            return None
        size = int.from_bytes(head[3:5], "big")
        records += 1
        if not 0 < size <= MAX_RECORD or records > MAX_RECORDS:
            raise HelloError("a record of a length that none has")
        body = data[at + 5 : at + 5 + size]
        if len(body) < size:
            if message[:1] not in (b"", b"\1") or (not message and body[:1] not in (b"", b"\1")):
                raise HelloError("not a ClientHello")
            return None
        message += body
        at += 5 + size


def _hello(body: _Cursor) -> Hello:
    if body.take(2)[:1] != b"\3":
        raise HelloError("an unknown version")
    body.take(32)
    body.vector(1)
    if not body.vector(2).left or not body.vector(1).left:
        raise HelloError("no cipher suite or no compression method")
    sni, ech = "", False
    alpn: tuple[bytes, ...] = ()
    seen: set[int] = set()
    extensions = body.vector(2) if body.left else _Cursor(b"")
    if body.left:
        raise HelloError("something follows the extensions")
    while extensions.left:
        kind = extensions.number(2)
        value = extensions.vector(2)
        if kind in seen:
            raise HelloError("an extension stands twice")
        seen.add(kind)
        if kind == _SNI:
            sni = _server_name(value)
        elif kind == _ALPN:
            alpn = _protocols(value)
        elif kind == _ECH:
            ech = True
    return Hello(sni, alpn, ech)


def _server_name(value: _Cursor) -> str:
    names = value.vector(2)
    if value.left or not names.left:
        raise HelloError("a malformed server name")
    if names.number(1) != 0:
        raise HelloError("a server name of an unknown kind")
    raw = names.vector(2).raw
    if names.left:
        raise HelloError("several server names")
    if not raw or not all(0x21 <= b < 0x7F for b in raw):
        raise HelloError("a server name that is none")
    return raw.decode("ascii")


def _protocols(value: _Cursor) -> tuple[bytes, ...]:
    found = []
    names = value.vector(2)
    while names.left:
        found.append(names.vector(1).raw)
    if value.left or not all(found):
        raise HelloError("a malformed list of protocols")
    return tuple(found)
