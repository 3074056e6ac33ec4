"""One accepted Unix socket on the event loop, with what asyncio's streams leave out: who wrote each piece, and descriptors that go out.

Reading happens only while somebody waits in ``receive``, so a peer that writes faster than it is served is held up by its own socket.
What goes out is queued in order; descriptors travel with the first byte of the message that they belong to and are closed here once they
have left, or when they never will.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections import deque
from collections.abc import Sequence

from remit_daemon.peers.process import Peer, PeerError
from remit_daemon.peers.senders import Senders

log = logging.getLogger("remitd.channel")

READ = 1 << 16
MAX_WAITING = (
    1 << 16
)  # bytes that may wait to go out while the next request is read, as asyncio's own streams have it
MAX_FDS = 4  # descriptors that may: remitd has some thousand for everybody, and a peer that does not read would keep them
LINGER = 1.0  # seconds that a peer which was refused has to read why
FLUSH_WITHIN = 30.0  # seconds that a peer has to take an answer which is larger than its socket's buffer, once we close
_GONE = (BrokenPipeError, ConnectionResetError)


class Channel:
    """See the module's text. Takes ``sock`` over; ``connector`` stays its caller's. For use inside a running loop."""

    def __init__(self, sock: socket.socket, connector: Peer) -> None:
        sock.setblocking(False)
        self.end = sock.getpeername()
        """The name of the peer's end, "" where it has none."""
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._senders = Senders(sock, connector)
        self._out: deque[tuple[memoryview, tuple[int, ...]]] = deque()
        self._unsent = 0
        self._fds = 0  # that wait to go out
        self._writing = False
        self._changed = asyncio.Event()  # less waits to go out than before
        self._dead = False  # nothing more can go out

    async def receive(self) -> tuple[bytes, Peer]:
        """Return what one process wrote next, and which; empty at the end. Raises PeerError, ConnectionError (see ``Senders.receive``)."""
        await asyncio.sleep(0)  # a peer that always has something to say leaves the others their turn
        while True:
            if self._sock.fileno() < 0:
                raise ConnectionResetError("closed")
            try:
                return self._senders.receive(READ)
            except BlockingIOError:
                await self._readable()

    async def _readable(self) -> None:
        ready: asyncio.Future[None] = self._loop.create_future()

        def come() -> None:
            if not ready.done():
                ready.set_result(None)

        fd = self._sock.fileno()
        self._loop.add_reader(fd, come)
        try:
            await ready
        finally:
            if self._sock.fileno() == fd:
                self._loop.remove_reader(fd)

    def send(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """Queue ``data``; with its first byte go ``fds``, which are taken over. A peer that is gone gets nothing, and nothing is raised."""
        if self._dead or not data:
            _close_all(fds)
            return
        self._out.append((memoryview(data), tuple(fds)))
        self._fds += len(fds)
        self._unsent += len(data)
        if not self._writing:
            self._flush()

    @property
    def unsent(self) -> int:
        """The bytes that wait to go out."""
        return self._unsent

    def _flush(self) -> None:
        try:
            while self._out:
                data, fds = self._out[0]
                rights = [
                    (socket.SOL_SOCKET, socket.SCM_RIGHTS, b"".join(fd.to_bytes(4, "little") for fd in fds))
                ]
                sent = self._sock.sendmsg([data], rights if fds else [])
                _close_all(fds)
                self._fds -= len(fds)
                self._unsent -= sent
                self._out.popleft()
                if sent < len(data):
                    self._out.appendleft((data[sent:], ()))
        except BlockingIOError:
            if not self._writing:
                self._writing = True
                self._loop.add_writer(self._sock.fileno(), self._flush)
        except OSError as e:
            if not isinstance(e, _GONE):
                log.warning("cannot write: %s", e)
            self._drop()
        else:
            self._stop_writing()
        self._changed.set()

    def _stop_writing(self) -> None:
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._sock.fileno())

    def _drop(self) -> None:
        self._dead = True
        self._stop_writing()
        for _, fds in self._out:
            _close_all(fds)
        self._out.clear()
        self._unsent = self._fds = 0
        self._changed.set()

    async def drain(self, most: int = MAX_WAITING) -> None:
        """Wait until no more than ``most`` bytes and MAX_FDS descriptors wait to go out, or nothing will."""
        while self._unsent > most or self._fds > MAX_FDS:
            self._changed.clear()
            await self._changed.wait()

    async def linger(self) -> None:
        """Say no more, and wait a moment for the peer to close: a socket closed with unread data throws away our last words."""
        try:
            async with asyncio.timeout(FLUSH_WITHIN):
                await self.drain(0)
            self._sock.shutdown(socket.SHUT_WR)
            async with asyncio.timeout(LINGER):
                while True:
                    try:
                        if not (await self.receive())[0]:
                            break
                    except PeerError:
                        pass  # who it is no longer matters
        except (OSError, TimeoutError):
            pass

    def abort(self) -> None:
        """End the connection at once: whoever waits in ``receive`` gets its end."""
        self._drop()
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def close(self) -> None:
        """Let go of the socket and of what was to go out."""
        self._drop()
        self._senders.close()
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock.fileno())
        self._sock.close()


def _close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)
