"""A nameserver's side of DNS: its answers in bytes, and an upstream that counts what it is asked."""

from __future__ import annotations

import ipaddress
import struct

from remit_daemon.gateway.dns import message
from remit_daemon.gateway.dns.message import Answer, Record
from remit_daemon.gateway.dns.upstream import NoAnswer


def query(name: str, type: int = message.A, *, id: int = 7, edns: bool = True, size: int = 1232) -> bytes:
    """Return a query as clients send it."""
    opt = b"\0" + struct.pack(">HHIH", message.OPT, size, 0, 0) if edns else b""
    head = struct.pack(">6H", id, 0x0100, 1, 0, 0, 1 if edns else 0)
    return head + message.wire_name(name) + struct.pack(">HH", type, 1) + opt


def reply(raw: bytes, records: list[Record], rcode: int = 0, *, truncated: bool = False) -> bytes:
    """Return the answer to the query ``raw``."""
    id, _, _, _, _, extra = struct.unpack_from(">6H", raw)
    question = raw[12 : len(raw) - (11 if extra else 0)]
    body = b"".join(
        message.wire_name(r.name) + struct.pack(">HHIH", r.type, 1, r.ttl, len(r.data)) + r.data
        for r in records
    )
    return (
        struct.pack(">6H", id, 0x8180 | (0x200 if truncated else 0) | rcode, 1, len(records), 0, 0)
        + question
        + body
    )


def address(name: str, text: str, ttl: int = 300) -> Record:
    found = ipaddress.ip_address(text)
    return Record(name, message.A if found.version == 4 else message.AAAA, ttl, found.packed)


def alias(name: str, target: str, ttl: int = 300) -> Record:
    return Record(name, message.CNAME, ttl, message.wire_name(target))


class FakeUpstream:
    """``zone`` has the records that each (name, type) is answered with; ``asked`` every question that left."""

    def __init__(self) -> None:
        self.zone: dict[tuple[str, int], list[Record]] = {}
        self.authority: list[Record] = []
        self.asked: list[tuple[str, int]] = []
        self.silent = False

    def has(self, name: str, *records: Record) -> None:
        for type in {r.type for r in records} - {message.CNAME} or {message.CNAME}:
            self.zone[name, type] = [r for r in records if r.type in (type, message.CNAME)]

    async def ask(self, name: str, type: int) -> Answer:
        self.asked.append((name, type))
        if self.silent:
            raise NoAnswer(name)
        found = self.zone.get((name, type))
        known = any(n == name for n, _ in self.zone)
        return Answer(
            message.NOERROR if known else message.NXDOMAIN, False, list(found or ()), self.authority
        )
