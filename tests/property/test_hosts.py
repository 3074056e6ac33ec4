"""One spelling for each host, held against the machine's own readers of addresses; requests against a naive matcher."""

from __future__ import annotations

import ipaddress
import re
import socket

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from remit_policy import hosts
from remit_policy.engine import Engine
from remit_policy.hosts import (
    HostError,
    canonical,
    embedded,
    is_address,
    is_local,
    is_special,
    packed,
    show,
)
from remit_policy.model import ALLOW, USER, Rule, Snapshot

V4 = st.integers(0, 2**32 - 1).map(lambda n: n.to_bytes(4, "big"))
V6 = st.one_of(
    st.integers(0, 2**128 - 1).map(lambda n: n.to_bytes(16, "big")),
    st.lists(
        st.sampled_from([b"\0\0", b"\0\1", b"\xff\xff", b"\x20\1", b"\xfe\x80", b"\x7f\0"]),
        min_size=8,
        max_size=8,
    ).map(b"".join),
)
LABEL = st.text("abcxyz019-_", min_size=1, max_size=12)
NAME = st.lists(LABEL, min_size=1, max_size=4).map(".".join)
ODD = st.text("0123456789abcdefxX.:[]%_-+ /\\@\0\n\tGaö\uff11\u3002", max_size=24)


def machine(text: str) -> str | None:
    """Return the address that this machine's inet_aton(3) reads in all of ``text``, None when it reads none."""
    try:
        return socket.inet_ntoa(socket.inet_aton(text)) if not set(text) & set(" \t\n\v\f\r\0") else None
    except (OSError, ValueError):
        return None


def spelled(raw: bytes, draw: st.DrawFn) -> str:
    """Spell an IPv4 address in one of the ways of inet_aton."""
    parts = draw(st.integers(1, 4))
    numbers = [*raw[: parts - 1], int.from_bytes(raw[parts - 1 :], "big")]
    forms = [
        draw(st.sampled_from(["{}", "0{:o}", "0x{:x}", "0X{:X}", "0x0{:x}"])).format(n) for n in numbers
    ]
    return ".".join(forms)


@st.composite
def spellings(draw: st.DrawFn) -> tuple[bytes, str]:
    raw = draw(V4)
    return raw, spelled(raw, draw)


@given(spellings(), st.booleans())
@example((b"\x7f\0\0\1", "0x7f.1"), False)
@example((b"\x7f\0\0\1", "017700000001"), True)
def test_every_spelling_of_an_address_is_that_address(given_: tuple[bytes, str], dot: bool) -> None:
    raw, text = given_
    assert machine(text) == socket.inet_ntoa(raw), "the test spells as the machine reads"
    assert canonical(text + "." * dot) == socket.inet_ntoa(raw)


@settings(max_examples=400)
@given(ODD)
@example("1_0.0.0.1")
@example("+1.0.0.1")
@example("0x.0.0.1")
@example("1.2.3.4_")
@example("0x1_0")
def test_what_is_read_as_an_address_is_none_other(text: str) -> None:
    """What this machine takes for an address is that one here, or nothing; and what is one here is one for the machine."""
    try:
        found = canonical(text)
    except HostError:
        return
    read = machine(text.removesuffix("."))
    if read is not None:
        assert found == read
    if is_address(found) and ":" not in text and text.isascii() and "0x." not in text.lower() + ".":
        assert read == found


@given(V6)
def test_ipv6_as_the_machine_reads_it(raw: bytes) -> None:
    text = socket.inet_ntop(socket.AF_INET6, raw)
    mapped = ipaddress.IPv6Address(raw).ipv4_mapped
    expected = str(mapped or ipaddress.IPv6Address(raw))
    for spelling in (text, text.upper(), f"[{text}]", ipaddress.IPv6Address(raw).exploded):
        assert canonical(spelling) == expected
    assert packed(canonical(text)) == raw
    assert show(raw) == expected


@settings(max_examples=300)
@given(st.text("0123456789abcdf:.%[]g", max_size=30))
@example("::1.2.3.4")
@example("1:2:3:4:5:6:7::")
@example("::ffff:01.2.3.4")
@example(":::")
@example("1::2::3")
def test_ipv6_and_nothing_else(text: str) -> None:
    try:
        found = canonical(text)
    except HostError:
        return
    if ":" in text:
        bare = text[1:-1] if text[:1] == "[" else text
        raw = socket.inet_pton(socket.AF_INET6, bare)  # or the test fails: the machine reads no such thing
        assert packed(found) == raw


@given(st.one_of(NAME, ODD, spellings().map(lambda p: p[1])))
def test_one_spelling(text: str) -> None:
    try:
        found = canonical(text)
    except HostError:
        return
    assert canonical(found) == found
    assert found == found.lower()
    assert len(found) <= hosts.MAX_NAME
    assert set(found) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_.:")
    if text.isascii() and ":" not in text:
        assert canonical(text.swapcase()) == found
        assert canonical(text.removesuffix(".") + ".") == found
    assert hosts.split(hosts.join(found, 443)) == (found, 443)


@pytest.mark.parametrize(
    ("text", "found"),
    [("\uff11\uff12\uff17.0.0.1", "127.0.0.1"), ("bücher.example", "xn--bcher-kva.example"), ("PyPI\u3002org", "pypi.org"), ("\u24dbocalhost", "localhost"), ("a.LOCALHOST", "localhost")],
)  # fmt: skip
def test_unicode(text: str, found: str) -> None:
    assert canonical(text) == found


@pytest.mark.parametrize(
    "text",
    [
        "faß.example",
        "βόλος.example",
        "a\u200db.example",
        "a\u200cb.example",
        "ä" * 300,
        "a\u2024b",
        "\ud800.example",
    ],
)
def test_what_two_standards_write_in_two_ways_is_no_host(text: str) -> None:
    """IDNA 2003, which Python has, and 2008, which clients use, make different names of these."""
    with pytest.raises(HostError):
        canonical(text)


# -- which are special -----------------------------------------------------------------------------

_DOCUMENTATION = [
    ipaddress.ip_network(n)
    for n in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32", "3fff::/20")
]


@settings(max_examples=400)
@given(st.one_of(V4, V6, st.sampled_from(["10.0.0.1", "127.0.0.1", "169.254.169.254", "100.64.0.1", "fe80::1", "fc00::1", "::", "::1", "ff02::1"]).map(
    lambda t: ipaddress.ip_address(t).packed)))  # fmt: skip
def test_what_is_not_of_the_internet_is_special(raw: bytes) -> None:
    found = ipaddress.ip_address(raw)
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped:
        found = found.ipv4_mapped
    inner = any(found in n for n in _DOCUMENTATION if n.version == found.version)
    if not inner and (
        found.is_private
        or found.is_loopback
        or found.is_link_local
        or found.is_multicast
        or found.is_unspecified
    ):
        assert is_special(show(raw))


@given(V4)
@example(b"\x7f\0\0\1")
@example(b"\xa9\xfe\xa9\xfe")
@example(b"\0\0\0\0")
def test_what_is_translated_is_what_is_inside(raw: bytes) -> None:
    why = is_special(show(raw))
    wraps = [
        b"\0" * 10 + b"\xff\xff" + raw,
        b"\0\x64\xff\x9b" + b"\0" * 8 + raw,
        b"\x20\x02" + raw + b"\0" * 10,
    ]
    if raw > b"\0\0\0\1":
        wraps.append(b"\0" * 12 + raw)
    for wrapped in wraps:
        assert embedded(wrapped) == raw
        assert is_special(show(wrapped)) == why
        assert is_local(wrapped) == is_local(raw)


# -- requests --------------------------------------------------------------------------------------

HOSTS = [
    "a.example",
    "b.a.example",
    "example",
    "c.b.a.example",
    "localhost",
    "10.0.0.1",
    "[2001:db8::1]",
    "xa.example",
]
HOST_PATTERNS = [*HOSTS, "*.a.example", "*.example", "*", "10.0.0.0/8", "?.example", "*.localhost"]
PIECES = st.sampled_from(["a", "b", "ab", "*", "**", "?", "a*", "*b"])


def host_fits(pattern: str, host: str) -> bool:
    """The host part of a request's pattern, naively."""
    address = host[0] == "[" or host[0].isdigit()
    if "/" in pattern:
        return address and ":" not in host and ipaddress.ip_address(host) in ipaddress.ip_network(pattern)
    if pattern == "*.localhost":
        return host == "localhost"
    if pattern == "*":
        return not address and host != "localhost"
    if pattern.startswith("*."):
        return not address and host.endswith(pattern[1:])
    if "?" in pattern:
        return re.fullmatch(pattern.replace(".", r"\.").replace("?", "[^.]"), host) is not None
    return pattern == host


def path_fits(pattern: list[str], path: list[str]) -> bool:
    if not pattern:
        return not path
    if pattern[0] == "**":
        return any(path_fits(pattern[1:], path[n:]) for n in range(len(path) + 1))
    glob = re.escape(pattern[0]).replace(r"\*", "[^/]*").replace(r"\?", "[^/]")
    return bool(path) and re.fullmatch(glob, path[0]) is not None and path_fits(pattern[1:], path[1:])


@settings(max_examples=600, deadline=None)
@given(
    st.sampled_from(["GET", "POST", "*"]), st.sampled_from(HOST_PATTERNS), st.sampled_from(["", ":443", ":80", ":8080", ":*"]),
    st.lists(PIECES, max_size=4), st.sampled_from(["GET", "POST", "DELETE"]), st.sampled_from(HOSTS), st.sampled_from(["", ":80", ":443", ":8080"]),
    st.sampled_from(["http", "https"]), st.lists(st.sampled_from(["a", "b", "ab", "abb", "x"]), max_size=4),
)  # fmt: skip
def test_requests_against_a_naive_matcher(
    method: str,
    host: str,
    port: str,
    path: list[str],
    asked: str,
    to: str,
    at: str,
    scheme: str,
    where: list[str],
) -> None:
    if "/" in host and port:
        port = ""
    pattern = f"{method} {host}{port}/{'/'.join(path)}"
    resource = f"{asked} {scheme}://{to}{at}/{'/'.join(where)}"
    if "/" in host:
        pattern = f"{method} 10.0.0.1{port}/{'/'.join(path)}"  # a network is for connect alone
        host = "10.0.0.1"
    engine = Engine(Snapshot("x", (Rule(USER, ALLOW, "request", pattern),)))
    number = at or (":443" if scheme == "https" else ":80")
    fits = (
        method in ("*", asked)
        and host_fits(host, to)
        and port in ("", ":*", number)
        and path_fits(path, where)
    )
    assert (engine.decide("request", resource).verdict == ALLOW) == fits
    plain = hosts.canonical(to)
    assert engine.has_requests(plain, int(number[1:])) == (
        host_fits(host, to) and port in ("", ":*", number)
    )
