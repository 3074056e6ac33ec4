"""What is to be written to one socket: in order, descriptors with the first byte of their message, without waiting."""

from __future__ import annotations

import array
import asyncio
import socket
from collections import deque
from typing import TYPE_CHECKING

from remit_daemon.gateway.dbus.frames import close_all

if TYPE_CHECKING:
    from collections.abc import Callable

BATCH = 64  # messages that go out with one call


class Outlet:
    """A non-blocking socket's way out. ``size`` is how many bytes wait. ``moved`` is called when some went later on."""

    def __init__(self, sock: socket.socket, moved: Callable[[], None], failed: Callable[[], None]) -> None:
        self._sock = sock
        self._moved = moved
        self._failed = failed
        self._loop = asyncio.get_running_loop()
        self._queue: deque[tuple[bytes | memoryview, tuple[int, ...]]] = deque()
        self._waiting = False
        self.size = 0

    def put(self, data: bytes, files: tuple[int, ...] = ()) -> None:
        """Have ``data`` written at the next flush; ``files`` are then closed."""
        self._queue.append((data, files))
        self.size += len(data)

    def flush(self) -> None:
        """Write what the socket takes; the rest follows by itself. Raises OSError."""
        if not self._waiting and self._queue and not self._write():
            self._waiting = True
            self._loop.add_writer(self._sock.fileno(), self._writable)

    def _write(self) -> bool:
        """Return whether all went out."""
        queue, sock = self._queue, self._sock
        try:
            while queue:
                data, files = queue[0]
                if files:
                    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))]
                    sent = sock.sendmsg([data], rights)
                    close_all(files)
                    queue[0] = (data, ())
                elif len(queue) == 1:
                    sent = sock.send(data)
                else:
                    sent = sock.sendmsg(self._batch())
                self.size -= sent
                while sent:
                    data, files = queue[0]
                    if sent < len(data):
                        queue[0] = (memoryview(data)[sent:], files)
                        break
                    sent -= len(data)
                    queue.popleft()
        except (BlockingIOError, InterruptedError):
            return False
        return True

    def _batch(self) -> list[bytes | memoryview]:
        out: list[bytes | memoryview] = []
        for data, files in self._queue:
            if files or len(out) == BATCH:
                break
            out.append(data)
        return out

    def _writable(self) -> None:
        try:
            done = self._write()
        except OSError:
            self._stop()
            self._failed()
            return
        if done:
            self._stop()
        self._moved()

    def _stop(self) -> None:
        if self._waiting:
            self._waiting = False
            self._loop.remove_writer(self._sock.fileno())

    def close(self) -> None:
        """Forget what was not written."""
        self._stop()
        for _, files in self._queue:
            close_all(files)
        self._queue.clear()
        self.size = 0
