"""The handshake before the messages, on both sides at once.

    client  \\0 AUTH EXTERNAL uid -> OK guid     NEGOTIATE_UNIX_FD -> AGREE_UNIX_FD | ERROR     BEGIN
    bus     \\0 AUTH EXTERNAL ours   <- OK guid  NEGOTIATE_UNIX_FD (if the client does)        BEGIN

The gateway is itself to the bus, and takes none but this user's processes, whose identity the supervisor has seen: what
the client says of itself decides nothing. No mechanism but EXTERNAL, no line longer than MAX_LINE, no more than MAX_LINES,
nothing later than WITHIN: else the connection ends.

Source: D-Bus specification, "Authentication Protocol".
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from remit_daemon.gateway.dbus.wire import Malformed

if TYPE_CHECKING:
    import socket

MAX_LINE = 16_384  # bytes, as libdbus has it
MAX_LINES = 64  # that a client may need; libraries need four
WITHIN = 30.0  # seconds for all of it
_CHUNK = 4096
# What the client may say in which phase.
WAITING, DATA, READY = "waiting", "data", "ready"


class Lines:
    """Reads lines that end with CR LF; ``rest`` is what came behind the last one taken."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.rest = b""

    async def take(self, size: int) -> bytes:
        """Return the next ``size`` bytes. Raises EOFError, OSError."""
        while len(self.rest) < size:
            await self._more()
        out, self.rest = self.rest[:size], self.rest[size:]
        return out

    async def line(self) -> bytes:
        """Return the next line without its end. Raises EOFError, OSError, Malformed."""
        while (at := self.rest.find(b"\r\n")) < 0:
            if len(self.rest) > MAX_LINE:
                raise Malformed("an endless line in the handshake")
            await self._more()
        if at > MAX_LINE:
            raise Malformed("an endless line in the handshake")
        out, self.rest = self.rest[:at], self.rest[at + 2 :]
        if not all(32 <= c < 127 for c in out):
            raise Malformed("a line of the handshake that is no ASCII text")
        return out

    async def _more(self) -> None:
        more = await asyncio.get_running_loop().sock_recv(self._sock, _CHUNK)
        if not more:
            raise EOFError
        self.rest += more


class Shaken:
    """How a handshake ended: are descriptors agreed on, and what came behind it from either side."""

    __slots__ = ("files", "from_bus", "from_client")

    def __init__(self, files: bool, from_client: bytes, from_bus: bytes) -> None:
        self.files = files
        self.from_client = from_client
        self.from_bus = from_bus


async def enter(bus: socket.socket) -> Shaken:
    """Authenticate ourselves alone to ``bus``. Raises Malformed, EOFError, OSError, TimeoutError."""
    loop, theirs = asyncio.get_running_loop(), Lines(bus)
    async with asyncio.timeout(WITHIN):
        await loop.sock_sendall(
            bus, b"\0AUTH EXTERNAL " + str(os.getuid()).encode().hex().encode() + b"\r\n"
        )
        if not (await theirs.line()).startswith(b"OK "):
            raise Malformed("the bus does not take us")
        await loop.sock_sendall(bus, b"NEGOTIATE_UNIX_FD\r\n")
        files = await theirs.line() == b"AGREE_UNIX_FD"
        await loop.sock_sendall(bus, b"BEGIN\r\n")
    return Shaken(files, b"", theirs.rest)


async def shake(client: socket.socket, bus: socket.socket) -> Shaken:
    """Let ``client`` authenticate and authenticate ourselves to ``bus``. Raises Malformed, EOFError, OSError, TimeoutError."""
    async with asyncio.timeout(WITHIN):
        return await _shake(client, bus)


async def _shake(client: socket.socket, bus: socket.socket) -> Shaken:
    loop = asyncio.get_running_loop()
    ours, theirs = Lines(client), Lines(bus)
    uid = str(os.getuid()).encode().hex().encode()
    await loop.sock_sendall(bus, b"\0AUTH EXTERNAL " + uid + b"\r\n")
    ok = await theirs.line()
    if not ok.startswith(b"OK "):
        raise Malformed("the bus does not take us")
    if await ours.take(1) != b"\0":
        raise Malformed("no NUL before the handshake")
    phase, files = WAITING, False
    for _ in range(MAX_LINES):
        word, _, rest = (await ours.line()).partition(b" ")
        answer = b"ERROR"
        if phase == WAITING and word == b"AUTH":
            mechanism, _, initial = rest.partition(b" ")
            answer = b"REJECTED EXTERNAL"
            if mechanism == b"EXTERNAL" and not initial:
                phase, answer = DATA, b"DATA"
            elif mechanism == b"EXTERNAL" and initial == uid:
                phase, answer = READY, ok
        elif phase == DATA and word == b"DATA":
            phase, answer = (READY, ok) if rest in (b"", uid) else (WAITING, b"REJECTED EXTERNAL")
        elif word in (b"CANCEL", b"ERROR") and phase != READY:
            phase, answer = WAITING, b"REJECTED EXTERNAL"
        elif phase == READY and word == b"NEGOTIATE_UNIX_FD" and not rest:
            if not files:
                await loop.sock_sendall(bus, b"NEGOTIATE_UNIX_FD\r\n")
                files = await theirs.line() == b"AGREE_UNIX_FD"
            answer = b"AGREE_UNIX_FD" if files else b"ERROR"
        elif phase == READY and word == b"BEGIN":
            await loop.sock_sendall(bus, b"BEGIN\r\n")
            return Shaken(files, ours.rest, theirs.rest)
        elif word == b"BEGIN":
            raise Malformed("BEGIN before the authentication")
        await loop.sock_sendall(client, answer + b"\r\n")
    raise Malformed("a handshake without end")
