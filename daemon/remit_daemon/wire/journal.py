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

import os
import struct
import time
from binascii import crc32

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_HEAD = struct.Struct("<II")
POKE_EVERY = 0.05  # seconds; remitd looks again by itself for a while after each
MAX_RECORD = 1 << 20  # argv is cut to this by the writer; a longer length is damage

ACT_FIELDS = (
    "kind", "seq", "time_ns", "op", "verdict", "outcome", "pid", "proc", "exe", "sha256",
    "path", "path2", "rule", "prompt", "note",
)  # fmt: skip


def fitting(argv: Iterable[str], room: int) -> list[str]:
    """Return as many of the arguments ``argv`` as ``room`` characters hold, and an ellipsis for the rest."""
    out: list[str] = []
    for argument in argv:
        room -= len(argument) + 1
        if room < 0:
            return [*out, "…"]
        out.append(argument)
    return out


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


class JournalFailed(OSError):
    """The journal did not take a record: the act must not happen."""


class Appending:
    """A journal that is open at ``fd`` for appending, by the one process that writes it. ``poke`` tells remitd that it has grown."""

    def __init__(self, fd: int, poke: Callable[[], None]) -> None:
        self._fd = fd
        self.poke = poke
        self._poked = 0.0
        self._size = os.fstat(fd).st_size
        self._torn = False

    def _put(self, raw: bytes) -> None:
        """Append whole records. Raises JournalFailed; none of them is then read."""
        try:
            if self._torn:
                raise OSError(5, "it ends in half a record")
            if os.write(self._fd, raw) != len(raw):
                self._tear()
                raise OSError(5, "short write")
            self._size += len(raw)
        except OSError as e:
            raise JournalFailed(e.errno or 5, f"the ledger's journal cannot be written: {e}") from None
        now = time.monotonic()
        if now - self._poked > POKE_EVERY:
            self._poked = now
            self.poke()

    def _tear(self) -> None:
        """Take half a record back: with one in its middle a journal cannot be read on. Else nothing more is written."""
        try:
            os.ftruncate(self._fd, self._size)
        except OSError:
            self._torn = True

    def sync(self) -> None:
        """Return when all that was written is on the disk."""
        os.fdatasync(self._fd)

    def close(self) -> None:
        """Let the file go; nothing more is written."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
