"""Two sockets, an agent's and ours to the bus: reading whole messages, writing without waiting, bounded both ways.

Whoever does not read is not read from. What the messages mean is the subclass's: ``Link`` calls

    _repeat, _return    with the bytes of one read, to have them done in short; else, message by message,
    _sent, _got         with what the agent sent, and with what the bus sent
    _malformed, _lied   when one of them sent what is no message; _fault when we failed
    _may_read           whether the agent's messages can be taken now
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import TYPE_CHECKING

from remit_daemon.gateway.dbus import wire
from remit_daemon.gateway.dbus.frames import Frames, close_all
from remit_daemon.gateway.dbus.outlet import Outlet
from remit_daemon.gateway.dbus.wire import Malformed, Message

if TYPE_CHECKING:
    from collections.abc import Callable

CHUNK = 1 << 16  # bytes read at once
HIGH = 1 << 20  # bytes that may wait for a reader before no more are taken for it
MAX_BUFFERED = 1 << 28  # bytes of messages that are not whole, of all connections of the session
LINGER = 2.0  # seconds in which what was taken from a side that left still goes out
_FDS = socket.CMSG_SPACE(4 * wire.MAX_FDS)
_CLOEXEC, _CUT = int(socket.MSG_CMSG_CLOEXEC), int(socket.MSG_CTRUNC)  # a flag's object costs a microsecond


class Shared:
    """What the connections of one session share."""

    def __init__(self) -> None:
        self.buffered = 0
        self.connections = 0


class Link:
    """The sockets of one connection. ``files`` says whether descriptors were agreed on."""

    def __init__(self, client: socket.socket, bus: socket.socket, files: bool, shared: Shared) -> None:
        self._client, self._bus = client, bus
        self._room = _FDS if files else 0  # for descriptors with one read
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._to_client = Outlet(client, self._regulate, self._end)
        self._to_bus = Outlet(bus, self._regulate, self._end)
        self._from_client, self._from_bus = Frames(files=files), Frames(files=files)
        self._reading_client = self._reading_bus = False
        self._shared = shared
        self._buffered = 0

    def _repeat(self, data: bytes) -> bool:
        raise NotImplementedError

    def _return(self, data: bytes) -> bool:
        raise NotImplementedError

    def _sent(self, message: Message) -> None:
        raise NotImplementedError

    def _got(self, message: Message) -> None:
        raise NotImplementedError

    def _malformed(self, reason: str) -> None:
        raise NotImplementedError

    def _lied(self, reason: str) -> None:
        raise NotImplementedError

    def _fault(self, e: Exception) -> None:
        raise NotImplementedError

    def _may_read(self) -> bool:
        raise NotImplementedError

    def _end(self) -> None:
        if not self._over.done():
            self._over.set_result(None)

    async def _drain(self) -> None:
        """Let out what was taken from the side that left."""
        self._stop_reading()
        try:
            self._to_bus.flush()
            self._to_client.flush()
        except OSError:
            return
        until = self._loop.time() + LINGER
        while (self._to_bus.size or self._to_client.size) and self._loop.time() < until:
            await asyncio.sleep(0.01)

    def _close_link(self) -> None:
        """Let go of all that waits; the sockets stay the caller's."""
        self._stop_reading()
        for outlet in (self._to_bus, self._to_client):
            outlet.close()
        for frames in (self._from_client, self._from_bus):
            frames.close()
        self._shared.buffered -= self._buffered
        self._buffered = 0

    # -- reading -----------------------------------------------------------------------------------

    def _regulate(self) -> None:
        """Read from a side as long as what it sends has somewhere to go."""
        open_ = not self._over.done()
        room = self._to_client.size < HIGH
        client = open_ and room and self._to_bus.size < HIGH and self._may_read()
        if client != self._reading_client:
            self._reading_client = client
            if client:
                self._loop.add_reader(self._client.fileno(), self._read_client)
            else:
                self._loop.remove_reader(self._client.fileno())
        bus = open_ and room
        if bus != self._reading_bus:
            self._reading_bus = bus
            if bus:
                self._loop.add_reader(self._bus.fileno(), self._read_bus)
            else:
                self._loop.remove_reader(self._bus.fileno())

    def _stop_reading(self) -> None:
        for sock, reading in ((self._client, self._reading_client), (self._bus, self._reading_bus)):
            if reading:
                self._loop.remove_reader(sock.fileno())
        self._reading_client = self._reading_bus = False

    def _read_client(self) -> None:
        try:
            data, extra, flags, _ = self._client.recvmsg(CHUNK, self._room, _CLOEXEC)
        except OSError as e:
            self._unread(e)
            return
        if extra or flags & _CUT or not data:
            self._take_client(*self._taken(data, extra, flags))
        elif not self._repeat(data):
            self._take_client(data, [])

    def _read_bus(self) -> None:
        try:
            data, extra, flags, _ = self._bus.recvmsg(CHUNK, self._room, _CLOEXEC)
        except OSError as e:
            self._unread(e)
            return
        if extra or flags & _CUT or not data:
            self._take_bus(*self._taken(data, extra, flags))
        elif not self._return(data):
            self._take_bus(data, [])

    def _unread(self, e: OSError) -> None:
        if not isinstance(e, BlockingIOError | InterruptedError):
            self._end()

    def _taken(
        self, data: bytes, extra: list[tuple[int, int, bytes]], flags: int
    ) -> tuple[bytes, list[int]]:
        """Return bytes and descriptors. At the connection's end, or when descriptors were lost, there are none of either."""
        files = descriptors(extra)
        if data and not flags & _CUT:
            return data, files
        close_all(tuple(files))
        self._end()
        return b"", []

    def _take_client(self, data: bytes, files: list[int]) -> None:
        if not data:
            return
        try:
            messages = self._from_client.feed(data, files)
            if len(messages) == 1:
                self._sent(messages[0])
            else:
                each(messages, self._sent)
            self._flush()
        except Malformed as e:
            self._malformed(f"malformed: {e}")
        except OSError:
            self._end()
        except Exception as e:
            self._fault(e)

    def _take_bus(self, data: bytes, files: list[int]) -> None:
        if not data:
            return
        try:
            messages = self._from_bus.feed(data, files)
            if len(messages) == 1:
                self._got(messages[0])
            else:
                each(messages, self._got)
            self._flush()
        except (Malformed, OverflowError) as e:
            self._lied(f"malformed, from the bus: {e}")
        except OSError:
            self._end()
        except Exception as e:
            self._fault(e)

    # -- writing -----------------------------------------------------------------------------------

    def _send(self, sock: socket.socket, outlet: Outlet, data: bytes) -> None:
        """Write ``data``, before which nothing waits."""
        try:
            sent = sock.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self._end()
            return
        if sent < len(data):
            outlet.put(data[sent:])
            try:
                self._flush()
            except OSError:
                self._end()

    def _flush(self) -> None:
        if self._to_bus.size:
            self._to_bus.flush()
        if self._to_client.size:
            self._to_client.flush()
        buffered = self._from_client.buffered + self._from_bus.buffered
        if buffered != self._buffered:  # nearly always 0
            self._shared.buffered += buffered - self._buffered
            self._buffered = buffered
            if self._shared.buffered > MAX_BUFFERED:
                self._malformed("more of unfinished messages than the session may have")
        if self._to_bus.size or self._to_client.size or not self._reading_client:
            self._regulate()


def each(messages: list[Message], handle: Callable[[Message], None]) -> None:
    """Handle one after the other. When one raises, the others' descriptors are closed."""
    at = 0
    try:
        for message in messages:
            at += 1
            handle(message)
    except BaseException:
        for message in messages[at:]:
            close_all(message.files)
        raise


def descriptors(extra: list[tuple[int, int, bytes]]) -> list[int]:
    """Return the descriptors that came with a read."""
    out: list[int] = []
    for level, kind, data in extra:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            out += struct.unpack(f"{len(data) // 4}i", data[: len(data) // 4 * 4])
    return out
