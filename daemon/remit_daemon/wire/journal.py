"""A session's journal: the file through which a supervisor's acts reach the ledger.

The supervisor appends a record *before* an act's effect, with one ``write``; remitd reads the file
from where it stopped and stores the rows and its new offset in one transaction. So a record outlives
the death of either process, and none is stored twice.

A record is ``<II`` (length of the payload, its CRC-32) and the payload: fields of UTF-8
(surrogateescape) joined by NUL, which no path, argument or number contains.

    act    seq time_ns op verdict outcome pid proc exe sha256 path path2 rule prompt note argv…
    done   seq time_ns outcome [object]
    count  seq time_ns op n

``act``: ``op`` is a policy operation or ``rename``, ``link``, ``symlink``, ``start``, ``end``. ``verdict`` is
allow, ask or deny. ``outcome`` is ``pending`` (a ``done`` follows), ``passed`` (the kernel does it and reports to
the program alone), ``refused``, ``held``, or an errno's name. ``proc`` is the pidfd inode, ``rule`` the
rule's ``file:line``, ``argv`` the arguments of an exec. ``done`` closes the ``pending`` act of the same seq with ``ok`` or an errno's
name, or a ``held`` one with ``allowed``, ``denied``, ``expired`` or ``gone``; ``object`` names the very file that was written, made or
linked (``kernel.objects``), where its file system can. ``count``: ``n`` uses since the last count.
``seq`` grows by one with each record of a session, ``done`` excepted (it repeats its act's).
"""

from __future__ import annotations

import struct
from binascii import crc32

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_HEAD = struct.Struct("<II")
MAX_RECORD = 1 << 20  # argv is cut to this by the writer; a longer length is damage

ACT_FIELDS = (
    "kind", "seq", "time_ns", "op", "verdict", "outcome", "pid", "proc", "exe", "sha256",
    "path", "path2", "rule", "prompt", "note",
)  # fmt: skip


def pack(fields: list[str]) -> bytes:
    """Return one record of ``fields``. Raises ValueError when a field holds a NUL."""
    payload = "\0".join(fields).encode("utf-8", "surrogateescape")
    if payload.count(b"\0") != len(fields) - 1:
        raise ValueError("a journal field holds a NUL")
    return seal(payload)


def seal(payload: bytes) -> bytes:
    """Return the record of ``payload``, fields that were joined already."""
    return _HEAD.pack(len(payload), crc32(payload)) + payload


def unpack(raw: bytes) -> Iterator[tuple[list[str], int]]:
    """Yield each whole record of ``raw`` as its fields and the offset behind it.

    Ends quietly at an unfinished last record. Raises ValueError at a damaged one.
    """
    at = 0
    while at + _HEAD.size <= len(raw):
        size, crc = _HEAD.unpack_from(raw, at)
        if size > MAX_RECORD:
            raise ValueError(f"record at {at} claims {size} bytes")
        end = at + _HEAD.size + size
        if end > len(raw):
            return
        payload = raw[at + _HEAD.size : end]
        if crc32(payload) != crc:
            raise ValueError(f"record at {at} fails its checksum")
        yield payload.decode("utf-8", "surrogateescape").split("\0"), end
        at = end
