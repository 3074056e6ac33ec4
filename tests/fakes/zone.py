"""A nameserver in this process: ``zone`` says what names have; every question that reaches it is kept."""

from __future__ import annotations

import ipaddress
import struct

from remit_daemon.gateway.dns import message
from remit_daemon.gateway.dns.message import AAAA, CNAME, Answer, Query, Record
from remit_daemon.gateway.dns.upstream import NoAnswer


def query(name: str, type: int = message.A, *, id: int = 7, edns: bool = True) -> bytes:
    """Return a client's query."""
    whole = message.write_query(id, name, type)
    return whole if edns else whole[:11] + b"\0" + whole[12:-11]


def address(name: str, text: str, ttl: int = 300) -> Record:
    found = ipaddress.ip_address(text)
    return Record(name, message.A if found.version == 4 else AAAA, ttl, found.packed)


def alias(name: str, target: str, ttl: int = 300) -> Record:
    return Record(name, CNAME, ttl, message.wire_name(target))


class Upstream:
    """In place of ``dns.upstream``. What has no entry in ``zone`` does not exist; an entry of None does not answer."""

    def __init__(self, **zone: list[Record] | None) -> None:
        self.zone: dict[str, list[Record] | None] = dict(zone)
        self.asked: list[tuple[str, int]] = []

    async def ask(self, name: str, type: int) -> Answer:
        self.asked.append((name, type))
        found = self.zone.get(name, [])
        if found is None:
            raise NoAnswer(name)
        return Answer(message.NOERROR if found else message.NXDOMAIN, False, list(found), [])


class Read:
    """An answer as a client reads it."""

    def __init__(self, raw: bytes, asked: bytes) -> None:
        question: Query = message.read_query(asked)
        found = message.read_answer(raw, question.id, question.name, question.type)
        self.rcode, self.truncated, self.records, self.authority = (
            found.rcode,
            found.truncated,
            found.answers,
            found.authority,
        )
        self.raw = raw

    @property
    def addresses(self) -> list[str]:
        return [str(ipaddress.ip_address(r.data)) for r in self.records if r.type in (message.A, AAAA)]


def reply(
    asked: bytes, *records: Record, rcode: int = 0, flags: int = 0, id: int | None = None, name: str = ""
) -> bytes:
    """Return what a nameserver says to ``asked``, one of our own queries; or something false."""
    labels, at = message._labels(asked, 12)
    own = message._text(labels)
    question = message.wire_name(name or own) + asked[at : at + 4]
    body = b"".join(
        message.wire_name(r.name) + struct.pack(">HHIH", r.type, 1, r.ttl, len(r.data)) + r.data
        for r in records
    )
    number = int.from_bytes(asked[:2], "big") if id is None else id
    return struct.pack(">6H", number, 0x8180 | flags | rcode, 1, len(records), 0, 0) + question + body
