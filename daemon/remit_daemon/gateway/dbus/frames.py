"""From a stream's bytes and descriptors to whole messages.

Descriptors come with some byte of their message (unix(7), SCM_RIGHTS), in the order of the messages: each message takes as
many as its UNIX_FDS field says. Descriptors that no message takes end the connection, as does a message that lacks some.
"""

from __future__ import annotations

import os

from remit_daemon.gateway.dbus.wire import MAX_FDS, Malformed, Message, Parser, length

MAX_POOL = 2 * MAX_FDS  # descriptors that came and whose message is not whole yet


class Frames:
    """One direction of a connection. ``buffered`` is how many bytes wait for the rest of their message."""

    def __init__(self, *, files: bool) -> None:
        """``files`` says whether descriptors were agreed on."""
        self._parser = Parser()
        self._rest = bytearray()
        self.buffered = 0
        self._wanted = 0  # bytes of the message that is not whole, 0 = not known yet
        self._pool: list[int] = []
        self.files = files

    def alone(self, data: bytes) -> Message | None:
        """Return the message that ``data`` is, if nothing waits before it and it has no descriptors. Raises Malformed."""
        if self.buffered or self._pool:
            return None
        found = self._parser.whole(data)
        return found if found is not None and not found.head.fds else None

    def feed(self, data: bytes, files: list[int] | None = None) -> list[Message]:
        """Take what was read; return the messages that are whole now. Raises Malformed."""
        if not files:
            one = self.alone(data)
            if one is not None:
                return [one]
        if files:
            self._pool += files
            if not self.files or len(self._pool) > MAX_POOL:
                raise Malformed(
                    "descriptors that were not agreed on" if not self.files else "too many descriptors"
                )
        out: list[Message] = []
        try:
            self._cut(data, out)
            self.buffered = len(self._rest)
        except Malformed:
            for message in out:
                close_all(message.files)
            raise
        return out

    def _cut(self, data: bytes, out: list[Message]) -> None:
        source: bytes | bytearray = data
        if self._rest:
            self._rest += data
            if len(self._rest) < self._wanted:
                return
            source = self._rest
        at, end = 0, len(source)
        self._wanted = 0
        while True:
            size = length(source, at, end)
            if not size or at + size > end:
                self._wanted = size
                break
            whole = data if source is data and size == end else bytes(memoryview(source)[at : at + size])
            message = self._parser.parse(whole)
            wanted = message.head.fds
            if wanted:
                if wanted > len(self._pool):
                    raise Malformed(f"{wanted} descriptors, and {len(self._pool)} came")
                message.files = tuple(self._pool[:wanted])
                del self._pool[:wanted]
            out.append(message)
            at += size
        if source is data:
            if at < end:
                self._rest += memoryview(data)[at:]
        elif at:
            del self._rest[:at]
        if self._pool and not self._rest:
            raise Malformed("descriptors of no message")

    def close(self) -> None:
        """Close the descriptors that no message took."""
        for fd in self._pool:
            os.close(fd)
        self._pool.clear()


def close_all(files: tuple[int, ...]) -> None:
    """Close the descriptors of a message that is not passed on."""
    for fd in files:
        os.close(fd)
