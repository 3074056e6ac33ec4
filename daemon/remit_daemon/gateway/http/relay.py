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
SMALL = (
    1 << 14
)  # bytes that are read here at first: most connections never say more at once, and need no pipe
_F_SETPIPE_SZ = 1031  # <linux/fcntl.h>
_GONE = (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.ETIMEDOUT)


class _Direction:
    """One way. Until a read fills SMALL, bytes are read and sent; from then on they are spliced."""

    def __init__(
        self,
        source: socket.socket,
        sink: socket.socket,
        ended: Callable[[BaseException | None], None],
        count: Callable[[int], bool],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._source_socket = source
        self._source = source.fileno()
        self._sink_socket = sink
        self._sink = sink.fileno()
        self._ended = ended
        self._count = count
        self._rest = b""  # read and not yet sent
        self._held = 0  # bytes in the pipe
        self._over = False
        self._writing = False
        self._read = self._write = -1
        self._loop.add_reader(self._source, self._fill)

    def close(self) -> None:
        if not self._over and not self._writing:
            self._loop.remove_reader(self._source)
        if self._writing:
            self._loop.remove_writer(self._sink)
        self._over, self._writing = True, False
        if self._read >= 0:
            os.close(self._read)
            os.close(self._write)
            self._read = -1

    def _pipe(self) -> None:
        try:
            self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return  # no descriptors left: it goes on as it began
        try:
            fcntl.fcntl(self._write, _F_SETPIPE_SZ, PIPE)
        except OSError:
            pass  # this user's pipes are many already: the usual size will do

    def _fill(self) -> None:
        try:
            if self._read >= 0:
                got = os.splice(self._source, self._write, PIPE)
                self._held += got
            else:
                self._rest = self._source_socket.recv(SMALL)
                got = len(self._rest)
                if got == SMALL:
                    self._pipe()
        except (BlockingIOError, InterruptedError):
            return
        except OSError as e:
            self._ended(e)
            return
        if not got:
            self._over = True
            self._loop.remove_reader(self._source)
            self._end()
            return
        if not self._count(got):
            self._ended(OSError(errno.EDQUOT, "the budget is spent"))
            return
        self._drain()

    def _drain(self) -> None:
        try:
            while self._rest:
                self._rest = self._rest[self._sink_socket.send(self._rest) :]
            while self._held:
                self._held -= os.splice(self._read, self._sink, self._held)
        except (BlockingIOError, InterruptedError):
            if not self._writing:
                self._writing = True
                self._loop.add_writer(self._sink, self._drain)
                self._loop.remove_reader(self._source)
            return
        except OSError as e:
            self._ended(e)
            return
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._sink)
            self._loop.add_reader(self._source, self._fill)

    def _end(self) -> None:
        try:
            self._sink_socket.shutdown(socket.SHUT_WR)
        except OSError as e:
            if e.errno not in _GONE:
                self._ended(e)
                return
        self._ended(None)


async def relay(
    one: socket.socket, other: socket.socket, count: Callable[[int], bool] = lambda n: True
) -> None:
    """Relay until both directions have ended. Raises OSError when one fails, or ``count`` says that it is enough."""
    loop = asyncio.get_running_loop()
    for sock in (one, other):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    over: asyncio.Future[None] = loop.create_future()
    left = 2

    def ended(error: BaseException | None) -> None:
        nonlocal left
        left -= 1
        if not over.done() and (error is not None or not left):
            if error is not None:
                over.set_exception(error)
            else:
                over.set_result(None)

    directions = [_Direction(one, other, ended, count), _Direction(other, one, ended, count)]
    try:
        await over
    finally:
        for direction in directions:
            direction.close()
