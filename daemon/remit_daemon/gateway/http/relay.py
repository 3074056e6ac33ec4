"""Bytes both ways between two sockets, untouched: splice(2) through a pipe, so they never come here.

Each direction ends by itself (half-close); an error resets both. ``count`` is told of the bytes that went, and ends the
relay when it answers False. Cancelling the relay closes nothing: whoever made the sockets does.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

PIPE = (
    1 << 18
)  # bytes in flight of one direction: the bandwidth of a fast loopback, 64 pages of pipe memory
_F_SETPIPE_SZ = 1031  # <linux/fcntl.h>
_GONE = (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.ETIMEDOUT)


class _Direction:
    def __init__(
        self,
        source: socket.socket,
        sink: socket.socket,
        done: asyncio.Future[None],
        count: Callable[[int], bool],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._source = source.fileno()
        self._sink_socket = sink
        self._sink = sink.fileno()
        self._done = done
        self._count = count
        self._held = 0
        self._over = False
        self._writing = False
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.fcntl(self._write, _F_SETPIPE_SZ, PIPE)
        except OSError:
            pass  # this user's pipes are many already: the usual size will do
        self._loop.add_reader(self._source, self._fill)

    def close(self) -> None:
        if not self._over:
            self._loop.remove_reader(self._source)
        if self._writing:
            self._loop.remove_writer(self._sink)
        self._over, self._writing = True, False
        if self._read >= 0:
            os.close(self._read)
            os.close(self._write)
            self._read = -1

    def _fail(self, error: BaseException) -> None:
        if not self._done.done():
            self._done.set_exception(error)

    def _fill(self) -> None:
        try:
            got = os.splice(self._source, self._write, PIPE)
        except (BlockingIOError, InterruptedError):
            if self._held:
                self._drain()
            return
        except OSError as e:
            self._fail(e)
            return
        if not got:
            self._over = True
            self._loop.remove_reader(self._source)
            if not self._held:
                self._end()
            return
        self._held += got
        if not self._count(got):
            self._fail(OSError(errno.EDQUOT, "the budget is spent"))
            return
        self._drain()

    def _drain(self) -> None:
        try:
            while self._held:
                self._held -= os.splice(self._read, self._sink, self._held)
        except (BlockingIOError, InterruptedError):
            if not self._writing:
                self._writing = True
                self._loop.add_writer(self._sink, self._drain)
                if not self._over:
                    self._loop.remove_reader(self._source)
            return
        except OSError as e:
            self._fail(e)
            return
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._sink)
            if not self._over:
                self._loop.add_reader(self._source, self._fill)
        if self._over:
            self._end()

    def _end(self) -> None:
        try:
            self._sink_socket.shutdown(socket.SHUT_WR)
        except OSError as e:
            if e.errno not in _GONE:
                self._fail(e)
                return
        if not self._done.done():
            self._done.set_result(None)


async def relay(
    one: socket.socket, other: socket.socket, count: Callable[[int], bool] = lambda n: True
) -> None:
    """Relay until both directions have ended. Raises OSError when one fails, or ``count`` says that it is enough."""
    loop = asyncio.get_running_loop()
    for sock in (one, other):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    ends: list[asyncio.Future[None]] = [loop.create_future(), loop.create_future()]
    directions = [_Direction(one, other, ends[0], count), _Direction(other, one, ends[1], count)]
    try:
        await asyncio.gather(*ends)
    finally:
        for direction in directions:
            direction.close()
        for end in ends:
            end.cancel()
