"""Hosts: one spelling for each, and which addresses are special.

A host is a name or an address, and both come in many spellings: any case, a trailing dot, Unicode, and for IPv4 every
form that inet_aton(3) reads (``0177.1``, ``0x7f000001``, ``2130706433``). A policy decides on the one canonical
form; what has none is no host. Imported by the supervisor: the standard library's ``ipaddress``, ``re`` and ``socket``
cost more than the session's whole start.
"""

from __future__ import annotations

MAX_NAME = 253  # characters of a name, RFC 1035 2.3.4
MAX_LABEL = 63
LOCAL = "localhost"
ANY = "*"  # of a listener: every address of this machine

_NAME = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_")
_NUMERIC = frozenset("0123456789abcdefx")
_DIGITS = {8: frozenset("01234567"), 10: frozenset("0123456789"), 16: frozenset("0123456789abcdef")}
_DEVIATIONS = frozenset("\u00df\u03c2\u200c\u200d")  # UTS 46 6: sharp s, final sigma, the joiners
_DOTS = frozenset(".\u3002\uff0e\uff61")  # RFC 3490 3.1


class HostError(ValueError):
    """What was given is no host; the text says why."""


def canonical(text: str) -> str:
    """Return the one spelling of host ``text``, an address without brackets. Raises HostError."""
    bare = text[1:-1] if text[:1] == "[" and text[-1:] == "]" else text
    if ":" in bare:
        return show(_ipv6(bare))
    if bare != text:
        raise HostError("brackets around what is no IPv6 address")
    if not text.isascii():
        text = _idna(text)
    name = text.lower().removesuffix(".")
    if not name or len(name) > MAX_NAME:
        raise HostError("an empty or over-long name")
    labels = name.split(".")
    last = labels[-1]
    if last and last[0] in "0123456789" and set(last) <= _NUMERIC:
        # As WHATWG URL 3.5: a name that ends in a number is an IPv4 address or nothing.
        return show(b"\0" * 10 + b"\xff\xff" + _ipv4(labels))
    for label in labels:
        if not label or len(label) > MAX_LABEL:
            raise HostError("an empty or over-long label")
        if not set(label) <= _NAME:
            raise HostError("a character that no host name has")
        if label[0] == "-" or label[-1] == "-":
            raise HostError("a label that begins or ends with '-'")
    return LOCAL if name == LOCAL or name.endswith("." + LOCAL) else name


def _idna(text: str) -> str:
    # Python has IDNA 2003; clients have UTS 46, which is the same but for these four and for dots made of other characters.
    if _DEVIATIONS & set(text.lower()):
        raise HostError("a name that is written in ASCII in two ways; xn-- says which is meant")
    try:
        found = text.encode("idna").decode("ascii")
    except UnicodeError:
        raise HostError("a name that cannot be written in ASCII") from None
    if found.count(".") != sum(c in _DOTS for c in text):
        raise HostError("a character that no host name has")
    return found


def is_address(host: str) -> bool:
    """Tell whether a canonical ``host`` is an address."""
    return ":" in host or (host[-1:].isdigit() and host.replace(".", "").isdigit())


def _ipv4(parts: list[str]) -> bytes:
    if len(parts) > 4:
        raise HostError("an address of too many parts")
    numbers = []
    for part in parts:
        base, digits = 10, part
        if part[:2] == "0x":
            base, digits = 16, part[2:] or "0"
        elif len(part) > 1 and part[0] == "0":
            base = 8
        if not digits or len(digits) > 12 or not set(digits) <= _DIGITS[base]:
            raise HostError("a number that is no part of an address")
        numbers.append(int(digits, base))
    last = numbers.pop()
    if any(n > 255 for n in numbers) or last >= 256 ** (4 - len(numbers)):
        raise HostError("an address out of range")
    return bytes(numbers) + last.to_bytes(4 - len(numbers), "big")


def _ipv6(text: str) -> bytes:
    address, percent, _ = text.partition("%")
    if percent:
        raise HostError("an address with a zone")
    head, gap, tail = address.partition("::")
    groups: list[bytes] = []

    def read(part: str) -> list[bytes]:
        out = []
        pieces = part.split(":") if part else []
        for at, piece in enumerate(pieces):
            if "." in piece and at == len(pieces) - 1:
                four = piece.split(".")
                if len(four) != 4 or not all(f.isascii() and f.isdigit() for f in four):
                    raise HostError("not an IPv6 address")
                if any(len(f) > 1 and f[0] == "0" for f in four):
                    raise HostError("not an IPv6 address")
                quad = _ipv4(four)
                out += [quad[:2], quad[2:]]
                continue
            if not 1 <= len(piece) <= 4 or not set(piece.lower()) <= set("0123456789abcdef"):
                raise HostError("not an IPv6 address")
            out.append(int(piece, 16).to_bytes(2, "big"))
        return out

    left, right = read(head), read(tail)
    missing = 8 - len(left) - len(right)
    if "::" in tail or (missing < 1 if gap else missing != 0):
        raise HostError("not an IPv6 address")
    groups = left + [b"\0\0"] * (missing if gap else 0) + right
    return b"".join(groups)


def packed(host: str) -> bytes:
    """Return the 16 bytes of the canonical address ``host``, IPv4 as mapped. Raises HostError."""
    if ":" in host:
        return _ipv6(host)
    return b"\0" * 10 + b"\xff\xff" + _ipv4(host.split("."))


def show(raw: bytes) -> str:
    """Return the canonical text of an address of 4 or 16 bytes (RFC 5952; mapped IPv4 as IPv4)."""
    if len(raw) == 16 and raw[:12] == b"\0" * 10 + b"\xff\xff":
        raw = raw[12:]
    if len(raw) == 4:
        return ".".join(map(str, raw))
    groups = [raw[i] << 8 | raw[i + 1] for i in range(0, 16, 2)]
    best, best_size, at = -1, 1, 0
    while at < 8:
        size = 0
        while at + size < 8 and not groups[at + size]:
            size += 1
        if size > best_size:
            best, best_size = at, size
        at += size or 1
    words = [f"{g:x}" for g in groups]
    if best < 0:
        return ":".join(words)
    return ":".join(words[:best]) + "::" + ":".join(words[best + best_size :])


def is_local(raw: bytes) -> bool:
    """Tell whether an address of 4 or 16 bytes is this machine's loopback, or the unspecified one, which means it."""
    v4 = embedded(raw)
    if v4 is not None:
        return v4[0] == 127 or v4 == b"\0\0\0\0"
    return raw[:15] == b"\0" * 15 and raw[15] <= 1


def service(host: str) -> str:
    """Return ``localhost`` for a canonical address of this machine, any other host as it is: as resources name them."""
    return LOCAL if is_address(host) and is_local(packed(host)) else host


def embedded(raw: bytes) -> bytes | None:
    """Return the IPv4 address that ``raw`` is, or is mapped to, or is translated to (NAT64, 6to4); else None."""
    if len(raw) == 4:
        return raw
    if raw[:12] == b"\0" * 10 + b"\xff\xff" or raw[:12] == b"\0\x64\xff\x9b" + b"\0" * 8:
        return raw[12:]
    if raw[:2] == b"\x20\x02":
        return raw[2:6]
    if raw[:12] == b"\0" * 12 and raw[12:] > b"\0\0\0\x01":  # IPv4-compatible, deprecated
        return raw[12:]
    return None


# IANA special-purpose address registries (RFC 6890 and its updates), and the clouds' metadata services. Documentation
# addresses are left out: nothing of the person's or of the machine's is there.
_METADATA = ("169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16", "fd00:ec2::254")
_V4 = (
    (0, 8, "unspecified"), (10 << 24, 8, "private"), (0x64400000, 10, "shared"), (127 << 24, 8, "loopback"),
    (0xA9FE0000, 16, "link-local"), (0xAC100000, 12, "private"), (0xC0000000, 24, "reserved"),
    (0xC0586300, 24, "reserved"), (0xC0A80000, 16, "private"),
    (0xC6120000, 15, "benchmarking"), (224 << 24, 4, "multicast"), (240 << 24, 4, "reserved"),
)  # fmt: skip
_V6 = (
    (b"\0" * 16, 127, "loopback"), (b"\x00\x64\xff\x9b\x00\x01", 48, "translated"), (b"\x01\x00", 64, "discard"),
    (b"\x20\x01\x00", 23, "reserved"),
    (b"\x5f\x00", 16, "reserved"), (b"\xfc", 7, "private"), (b"\xfe\x80", 10, "link-local"), (b"\xfe\xc0", 10, "private"),
    (b"\xff", 8, "multicast"),
)  # fmt: skip


def is_special(host: str) -> str:
    """Return why the canonical address ``host`` is no address of the public internet, "" when it is one."""
    if host in _METADATA:
        return "metadata"
    raw = packed(host)
    v4 = embedded(raw)
    if v4 is not None:
        if show(v4) in _METADATA:
            return "metadata"
        number = int.from_bytes(v4, "big")
        for start, bits, why in _V4:
            if number >> (32 - bits) == start >> (32 - bits):
                return why
        return ""
    number = int.from_bytes(raw, "big")
    for head, bits, why in _V6:
        if number >> (128 - bits) == int.from_bytes(head.ljust(16, b"\0"), "big") >> (128 - bits):
            return why
    return "" if raw[0] >> 5 == 1 else "reserved"  # what is given out is all in 2000::/3 (RFC 4291 2.4)


def split(text: str) -> tuple[str, int]:
    """Return the canonical host and the port of ``host:port`` or ``[address]:port``. Raises HostError."""
    host, colon, port = text.rpartition(":")
    if not colon or not 1 <= len(port) <= 5 or not (port.isascii() and port.isdigit()):
        raise HostError("no port")
    if not 0 < int(port) < 65536:
        raise HostError("a port out of range")
    if host[:1] != "[" and ":" in host:
        raise HostError("an IPv6 address without brackets")
    if host == ANY:
        return ANY, int(port)
    return canonical(host), int(port)


def join(host: str, port: int) -> str:
    """Return ``host:port`` of a canonical host."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def of_address(raw: bytes, port: int) -> str:
    """Return the resource of an address of 4 or 16 bytes: loopback by its name."""
    return join(LOCAL if is_local(raw) else show(raw), port)
