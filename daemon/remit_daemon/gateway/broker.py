"""The link to remitd: asks go up; answers and snapshots come down (``wire.control``, the gateway's part).

When remitd goes away the gateway works on under its snapshot, connects again until it is back, and says again what is
held. What remitd says that is not in the table ends the connection, which is then made anew.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from typing import TYPE_CHECKING

from remit_daemon.wire import control, frames
from remit_policy import model

if TYPE_CHECKING:
    import logging
    from typing import Any

    from remit_daemon.gateway.authority import Authority

RETRY = 0.2  # seconds between attempts to reach a remitd that went away
WELCOME_WITHIN = 20.0  # seconds for its first answer: it may be reading a large ledger
FAREWELL = 1.0  # seconds at the session's end; nobody waits for it
READ = 1 << 16
MAX_UNSENT = 4 << 20  # bytes: some thousand asks; a remitd that takes no more is connected to anew
_UCRED = struct.Struct("3i")  # struct ucred of unix(7): pid, uid, gid


class Lost(Exception):
    """The connection is no more, or what came over it is nothing that remitd says."""


class Broker:
    """The connection and what keeps it."""

    def __init__(
        self, path: str, session: str, tag: int, authority: Authority, log: logging.Logger
    ) -> None:
        self._path = path
        self._first = {"type": "gateway", "version": control.VERSION, "session": session, "tag": tag}
        self._authority = authority
        self._log = log
        self._writer: asyncio.StreamWriter | None = None
        self._poked = False
        self._closed = asyncio.Event()  # remitd has ended a connection
        authority.say = self.say
        authority.journal.poke = self.poke

    def say(self, frame: dict[str, Any]) -> None:
        """Send ``frame``; lost while remitd is away: what is held is said again."""
        writer = self._writer
        if writer is None or writer.is_closing():
            return
        writer.write(frames.encode(frame))
        if writer.transport.get_write_buffer_size() > MAX_UNSENT:
            writer.transport.abort()

    async def farewell(self) -> None:
        """Say what is left of the leases, and wait for remitd to have heard it, a moment at most."""
        writer = self._writer
        self._authority.leases.end()
        if writer is None or self._authority.leases.purse is None:
            return
        try:
            writer.write_eof()
            async with asyncio.timeout(FAREWELL):
                await self._closed.wait()
        except (OSError, TimeoutError):
            pass

    def poke(self) -> None:
        """Tell remitd that the journal has grown."""
        self.say({"type": "poke"})

    async def run(self) -> None:
        """Keep the connection for ever."""
        quiet = False
        while True:
            try:
                await self._connection()
            except (OSError, Lost, frames.FrameError, TimeoutError, asyncio.IncompleteReadError) as e:
                if not quiet:
                    self._log.warning("remitd: %s", e or type(e).__name__)
                quiet = True
            else:
                quiet = False
            self._drop()
            await asyncio.sleep(RETRY)

    def _drop(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer = None

    async def _connection(self) -> None:
        reader, writer = await asyncio.open_unix_connection(self._path)
        try:
            sock: socket.socket = writer.get_extra_info("socket")
            uid = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))[1]
            if uid != os.getuid():
                raise Lost(f"{self._path} is served by user {uid}")
            writer.write(frames.encode(self._first))
            cutter = frames.Reader()
            async with asyncio.timeout(WELCOME_WITHIN):  # wait_for of Python 3.11 can lose a cancellation
                heard = await self._welcome(reader, cutter)
            self._snapshot(heard[0])
            self._writer = writer
            self._closed.clear()
            if self._authority.leases.purse is not None:
                self._authority.leases.purse.settle()
            for frame in self._authority.questions.frames():
                self.say(frame)
            self.poke()
            for frame in heard[1:]:
                self._frame(frame)
            while data := await reader.read(READ):
                for frame in cutter.feed(data):
                    self._frame(frame)
        finally:
            self._closed.set()
            self._writer = None
            writer.close()

    async def _welcome(self, reader: asyncio.StreamReader, cutter: frames.Reader) -> list[Any]:
        """Return the welcome and what came with it. Raises Lost."""
        while data := await reader.read(READ):
            heard = cutter.feed(data)
            if heard:
                first = heard[0]
                kind = first.get("type") if isinstance(first, dict) else None
                if kind == "refused":
                    raise Lost(f"refused: {first.get('error')}")
                if kind != "welcome":
                    raise Lost(f"{kind!r} in place of welcome")
                return heard
        raise Lost("closed the connection")

    def _frame(self, frame: Any) -> None:
        try:
            kind = frame["type"]
            if kind == "asked":
                self._authority.questions.asked(int(frame["seq"]), str(frame["prompt"]))
            elif kind == "answer":
                self._authority.questions.answered(
                    int(frame["seq"]), frame["verdict"], str(frame["message"]), str(frame["prompt"])
                )
            elif kind == "snapshot":
                self._snapshot(frame)
            elif kind == "lease":
                self._authority.leases.given(
                    str(frame["limit"]), int(frame["given"]), bool(frame["recall"])
                )
            elif kind not in control.DAEMON_THEN:
                raise Lost(f"said {kind!r}")
        except (KeyError, TypeError, ValueError) as e:
            raise Lost(f"malformed frame: {e}") from None

    def _snapshot(self, frame: dict[str, Any]) -> None:
        """Put a snapshot in force; one that is not understood changes nothing and is recorded."""
        try:
            self._authority.adopt(model.loads(frame["snapshot"]), int(frame["revision"]))
        except Exception as e:
            self._log.error("snapshot not understood: %s", e)
            self._authority.fault("reload", f"snapshot not understood: {e}")
