"""Byte streams for the parts that look into traffic: plain sockets, and TLS over them on either side."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl

CHUNK = 1 << 16
_TLS_CHUNK = 1 << 14
LINGER = 2.0  # seconds for a refused client to read why, while a large body is on its way


class Plain:
    """A non-blocking socket; ``early`` are bytes that were read from it before."""

    def __init__(self, sock: socket.socket, early: bytes = b"") -> None:
        self.sock = sock
        self._early = early
        self._loop = asyncio.get_running_loop()

    async def recv(self) -> bytes:
        """Return the next bytes, b"" at the end. Raises OSError."""
        if self._early:
            early, self._early = self._early, b""
            return early
        return await self._loop.sock_recv(self.sock, CHUNK)

    async def send(self, data: bytes) -> None:
        """Send all of ``data``. Raises OSError."""
        await self._loop.sock_sendall(self.sock, data)

    def ended(self) -> bool:
        """Tell whether a kept connection is over: a server that is asked nothing says nothing but its end."""
        try:
            return bool(self._early) or self.sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) is not None
        except BlockingIOError:
            return False
        except OSError:
            return True

    async def end(self) -> None:
        """Say that nothing more will be sent."""
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass


class Tls:
    """TLS over a plain stream; ``handshake`` comes first. Certificates are the context's business."""

    def __init__(self, below: Plain, context: ssl.SSLContext, *, server_side: bool, name: str = "") -> None:
        self._below = below
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._in, self._out, server_side=server_side, server_hostname=None if server_side else name
        )
        self._sending = asyncio.Lock()
        self.sock = below.sock

    async def _flush(self) -> None:
        async with self._sending:
            while data := self._out.read():
                await self._below.send(data)

    async def _feed(self) -> None:
        data = await self._below.recv()
        if data:
            self._in.write(data)
        else:
            self._in.write_eof()

    async def handshake(self) -> None:
        """Shake hands. Raises ssl.SSLError, OSError."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._feed()
                continue
            except ssl.SSLError:
                await self._flush()  # the alert
                raise
            await self._flush()
            return

    def protocol(self) -> str | None:
        """Return the protocol that ALPN settled on."""
        return self._tls.selected_alpn_protocol()

    async def recv(self) -> bytes:
        """Return the next bytes, b"" at the end. Raises OSError."""
        while True:
            try:
                return self._tls.read(_TLS_CHUNK)
            except ssl.SSLWantReadError:
                # Whoever is sending takes along what TLS itself has to say: to wait for that while the peer, too, waits
                # to be read from would be for ever.
                if not self._sending.locked():
                    await self._flush()
                await self._feed()
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""
            except ssl.SSLError as e:
                raise OSError(errno.EPROTO, f"TLS: {e.reason or e}") from None

    async def send(self, data: bytes) -> None:
        """Send all of ``data``. Raises OSError."""
        view = memoryview(data)
        while view:
            try:
                sent = self._tls.write(view[:_TLS_CHUNK])
            except ssl.SSLWantReadError:
                await self._flush()
                await self._feed()
                continue
            except ssl.SSLError as e:
                raise OSError(errno.EPIPE, f"TLS: {e.reason or e}") from None
            view = view[sent:]
            await self._flush()

    def ended(self) -> bool:
        """Tell whether a kept connection is over, as ``Plain.ended``."""
        try:
            self._tls.read(1)
        except ssl.SSLWantReadError:
            return self._below.ended()
        except ssl.SSLError:
            pass
        return True

    async def end(self) -> None:
        """Say that nothing more will be sent."""
        try:
            self._tls.unwrap()
        except (ssl.SSLError, OSError, ValueError):
            pass
        try:
            await self._flush()
        except OSError:
            pass
        await self._below.end()


Stream = Plain | Tls


async def linger(sock: socket.socket) -> None:
    """Read until the peer ends or LINGER is over: a close on unread bytes is a reset, which overtakes what was said last.

    RFC 9112 9.6 asks for it.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(LINGER):
            while await loop.sock_recv(sock, CHUNK):
                pass
    except (OSError, TimeoutError):
        pass
