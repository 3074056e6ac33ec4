"""The head of an HTTP/1 request, strictly (RFC 9112): what two programs could read in two ways is refused.

That is: a line that does not end in CRLF, a bare CR, NUL or other control, white space before a colon or at the start of a
line, a field name that is no token, two Host fields, Content-Length beside Transfer-Encoding, more than one of either, or
one that is not plain; a target that is neither origin-form nor, where a proxy is spoken to, absolute or authority-form.
"""

from __future__ import annotations

from remit_policy import hosts

MAX_HEAD = 1 << 16  # bytes; cookies of 16 kB are seen
MAX_FIELDS = 256
TOKEN = frozenset(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_UNRESERVED = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~")
_SLASH = "%2F"
_HEX = frozenset("0123456789abcdefABCDEF")
_FRAMING = frozenset((b"host", b"content-length", b"transfer-encoding"))
PREFACE = b"PRI * HTTP/2.0\r\n"


class HeadError(ValueError):
    """The request is malformed, or could be read in two ways; the text says how."""


class Head:
    """One request's head. ``host`` and ``port`` are what Host (or an absolute target) names, canonical; "" when nothing does."""

    __slots__ = ("fields", "host", "method", "path", "port", "query", "raw", "scheme", "target", "version")

    def __init__(
        self, raw: bytes, method: str, target: str, version: bytes, fields: list[tuple[bytes, bytes]]
    ) -> None:
        self.raw = raw
        self.method = method
        self.target = target
        self.version = version
        self.fields = fields
        self.scheme = self.host = self.path = self.query = ""
        self.port = 0

    def get(self, name: bytes) -> list[bytes]:
        """Return the values of the field ``name`` (lower case)."""
        return [v for n, v in self.fields if n.lower() == name]

    @property
    def upgrade(self) -> str:
        """The protocol that the client wants to change to, lower case; "" for none."""
        wanted = b", ".join(self.get(b"upgrade"))
        return wanted.decode("latin-1").lower() if b"upgrade" in self.options else ""

    @property
    def options(self) -> set[bytes]:
        """What Connection names, lower case."""
        return {n.strip().lower() for v in self.get(b"connection") for n in v.split(b",")} - {b""}


def find(data: bytes) -> int:
    """Return the size of the head at the start of ``data``, 0 when it is not whole yet. Raises HeadError."""
    end = data.find(b"\r\n\r\n")
    head = data[: end + 4] if end >= 0 else data
    if len(head) > MAX_HEAD:
        raise HeadError("the head is too long")
    if head.count(b"\n") > MAX_FIELDS + 2:
        raise HeadError("too many fields")  # before they are walked through for each byte that comes
    at = head.find(b"\n")
    while at >= 0:
        if at == 0 or head[at - 1] != 13:
            raise HeadError("a line that does not end in CRLF")
        at = head.find(b"\n", at + 1)
    return end + 4 if end >= 0 else 0


def parse(raw: bytes, *, scheme: str, port: int, proxied: bool = False) -> Head:
    """Return the head ``raw`` (as ``find`` measured it) of a request over ``scheme`` to ``port``. Raises HeadError.

    ``proxied``: the client speaks to a proxy, and the target is absolute (or, for CONNECT, an authority).
    """
    lines = raw[:-4].split(b"\r\n")
    words = lines[0].split(b" ")
    if len(words) != 3 or words[2] not in (b"HTTP/1.1", b"HTTP/1.0"):
        raise HeadError("not a request line of HTTP/1")
    if not words[0] or not set(words[0]) <= TOKEN or len(words[0]) > 32:
        raise HeadError("a method that is no token")
    if words[0] != words[0].upper():
        raise HeadError("a method in small letters, which some servers take for the one in capitals")
    if not words[1] or not all(0x21 <= b < 0x7F for b in words[1]):
        raise HeadError("a target with a character that none has")
    if len(lines) - 1 > MAX_FIELDS:
        raise HeadError("too many fields")
    head = Head(raw, words[0].decode(), words[1].decode(), words[2], [_field(line) for line in lines[1:]])
    _check_framing(head)
    _locate(head, scheme, port, proxied)
    return head


def _field(line: bytes) -> tuple[bytes, bytes]:
    name, colon, value = line.partition(b":")
    if not colon or not name or not set(name) <= TOKEN:
        raise HeadError("a field name that is no token")
    value = value.strip(b" \t")
    if any((b < 0x20 and b != 9) or b == 0x7F for b in value):
        raise HeadError("a control character in a field")
    return name, value


def _check_framing(head: Head) -> None:
    length, coding = head.get(b"content-length"), head.get(b"transfer-encoding")
    if length and coding:
        raise HeadError("Content-Length beside Transfer-Encoding")
    if len(length) > 1 or (length and not (length[0].isdigit() and len(length[0]) < 19)):
        raise HeadError("a Content-Length that is not one number")
    if len(coding) > 1 or (coding and coding[0].lower() != b"chunked"):
        raise HeadError("a Transfer-Encoding other than chunked")
    if not _FRAMING.isdisjoint(head.options):
        raise HeadError("Connection names a field that is not its own")
    if coding and head.version == b"HTTP/1.0":
        raise HeadError("Transfer-Encoding in HTTP/1.0")


def _locate(head: Head, scheme: str, port: int, proxied: bool) -> None:
    named = head.get(b"host")
    if len(named) > 1:
        raise HeadError("several Host fields")
    if not named and head.version == b"HTTP/1.1":
        raise HeadError("no Host field")
    target, authority = head.target, named[0].decode("latin-1") if named else ""
    head.scheme = scheme
    if proxied:
        if head.method == "CONNECT":
            head.host, head.port = _authority(target, 0)
            return
        start, colon, rest = target.partition("://")
        if start.lower() != "http" or not colon:
            raise HeadError("a target that is no http:// address: others go through CONNECT or not at all")
        size = min((at for at in map(rest.find, "/?#") if at >= 0), default=len(rest))
        given, target = rest[:size], rest[size:]
        if target[:1] != "/":
            target = "/" + target
        head.host, head.port = _authority(given, 80)
        if authority and _authority(authority, 80) != (head.host, head.port):
            raise HeadError("the target and Host name different hosts")
    elif authority:
        head.host, head.port = _authority(authority, 443 if scheme == "https" else 80)
    if not head.port:
        head.port = port
    if target == "*" and head.method == "OPTIONS":
        target = "/"
    if target[:1] != "/":
        raise HeadError("a target that is no path")
    path, _, head.query = target.partition("?")
    if "#" in target:
        raise HeadError("a fragment in a target")
    head.target, head.path = target, canonical_path(path)


def _authority(text: str, default: int) -> tuple[str, int]:
    """Return host and port of ``host[:port]``; without a port ``default``, which 0 forbids. Raises HeadError."""
    if "@" in text:
        raise HeadError("a user name before a host")
    if not text.isascii():
        raise HeadError("a host that is not written in ASCII")
    try:
        if text[:1] == hosts.ANY:
            raise hosts.HostError("every address")
        if ":" in text.rpartition("]")[2]:
            return hosts.split(text)
        if not default:
            raise hosts.HostError("no port")
        return hosts.canonical(text), default
    except hosts.HostError as e:
        raise HeadError(f"no host: {e}") from None


def canonical_path(path: str) -> str:
    """Return the one spelling of a request path by which it is decided. Raises HeadError where servers would disagree.

    Unreserved characters are decoded, other escapes kept in capitals (RFC 3986 6.2.2). Dot segments, empty segments, an escaped
    backslash or NUL, and a malformed escape are refused: servers differ in what they make of them. They differ in an escaped
    slash, too, but registries and forges need it: it is kept, and ``readings`` has both that it may have.
    """
    out, at = [], 0
    while at < len(path):
        c = path[at]
        if c == "%":
            code = path[at + 1 : at + 3]
            if len(code) != 2 or not set(code) <= _HEX:
                raise HeadError("a malformed escape in a path")
            plain = chr(int(code, 16))
            if plain in "\\\0":
                raise HeadError("an escaped backslash or NUL in a path")
            out.append(plain if plain in _UNRESERVED else "%" + code.upper())
            at += 3
            continue
        if c == "\\":
            raise HeadError("a backslash in a path")
        out.append(c)
        at += 1
    found = "".join(out)
    for reading in readings(found):
        segments = reading.split("/")[1:]
        if any(s.replace("%3B", ";").split(";")[0] in (".", "..") for s in segments) or "" in segments[:-1]:
            raise HeadError("dot or empty segments in a path")
    return found


def readings(path: str) -> tuple[str, ...]:
    """Return what servers may take the canonical ``path`` for: as it is, and with escaped slashes as slashes."""
    return (path, path.replace(_SLASH, "/")) if _SLASH in path else (path,)
