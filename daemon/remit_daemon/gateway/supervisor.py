"""The link to the supervisor: a socketpair on which it says what its agent does (``wire.gateway``).

What it may say is a table with the fields and their types; anything else, as well as the end of the connection, ends
the gateway: without its supervisor it has nobody to serve.
"""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING

from remit_daemon.wire import frames

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

READ = 1 << 16
MAX_UNSENT = 8 << 20  # bytes of answers; a supervisor that takes no more has stopped

_WHO = {"pid": int, "proc": str, "exe": str, "comm": str}
HELLO: dict[str, type] = {
    "version": int, "session": str, "agent": str, "tag": int, "snapshot": str, "revision": int, "spool": str,
    "journal": str, "control": str, "private": str, "nameservers": list, "env": dict, "session_bus": str,
    "system_bus": str, "hold": int, "home": str,
}  # fmt: skip
FIELDS: dict[str, dict[str, type]] = {
    "hello": HELLO,
    "dial": {"id": int, "ip": str, "port": int, "blocking": bool, **_WHO, "argv": list},
    "bound": {"id": int, "port": int, "v6": bool},
    "proxy": {"port": int, "v6": bool, **_WHO},
    "dns": {"id": int, "query": bytes, **_WHO},
    "resolver": {"port": int, "tcp": bool, **_WHO},
    "bus": {"id": int, "which": str, **_WHO},
    "gone": {"id": int},
}


class Malformed(Exception):
    """The supervisor said something that is not in the table."""


def check(frame: Any, first: bool) -> dict[str, Any]:
    """Return ``frame`` when it is one of FIELDS with all its fields, the hello first and only then. Raises Malformed."""
    if not isinstance(frame, dict) or not isinstance(frame.get("type"), str):
        raise Malformed("a frame without a type")
    kind = frame["type"]
    fields = FIELDS.get(kind)
    if fields is None or (kind == "hello") != first:
        raise Malformed(f"{kind!r} is not expected here")
    for name, wanted in fields.items():
        value = frame.get(name)
        if type(value) is not wanted:
            raise Malformed(f"{kind}: {name} must be {wanted.__name__}")
        if isinstance(value, list) and not all(isinstance(item, str) for item in value):
            raise Malformed(f"{kind}: {name} must hold text only")
    if not 0 <= frame.get("port", 0) <= 0xFFFF:
        raise Malformed(f"{kind}: port {frame['port']} is none")
    return frame


class Supervisor:
    """Our end of the socketpair. ``fd`` is taken over."""

    def __init__(self, fd: int) -> None:
        self._sock = socket.socket(fileno=fd)
        self._sock.setblocking(False)
        os.set_inheritable(fd, False)
        self._cutter = frames.Reader()
        self._first = True
        self._heard: list[Any] = []
        self._out = bytearray()
        self._loop = asyncio.get_running_loop()

    async def hello(self) -> dict[str, Any]:
        """Return the first frame. Raises Malformed, FrameError, OSError, EOFError."""
        while not self._heard:
            await self._read()
        self._first = False
        return check(self._heard.pop(0), True)

    async def serve(self, handlers: dict[str, Callable[[dict[str, Any]], None]]) -> None:
        """Hand every frame to the handler of its type until the supervisor is gone (EOFError) or wrong (Malformed)."""
        over: asyncio.Future[None] = self._loop.create_future()

        def ready() -> None:
            try:
                self._take(handlers, self._sock.recv(READ))
            except (BlockingIOError, InterruptedError):
                return
            except BaseException as e:
                if not over.done():
                    over.set_exception(e)

        try:
            self._handle(handlers)
            self._loop.add_reader(self._sock.fileno(), ready)
            await over
        finally:
            self._loop.remove_reader(self._sock.fileno())

    def _take(self, handlers: dict[str, Callable[[dict[str, Any]], None]], data: bytes) -> None:
        if not data:
            raise EOFError("the supervisor is gone")
        self._heard += self._cutter.feed(data)
        self._handle(handlers)

    def _handle(self, handlers: dict[str, Callable[[dict[str, Any]], None]]) -> None:
        heard, self._heard = self._heard, []
        for frame in heard:
            checked = check(frame, False)
            handlers[checked["type"]](checked)

    async def _read(self) -> None:
        data = await self._loop.sock_recv(self._sock, READ)
        if not data:
            raise EOFError("the supervisor is gone")
        self._heard += self._cutter.feed(data)

    def say(self, frame: dict[str, Any]) -> None:
        """Send ``frame``, in order, without waiting."""
        idle = not self._out
        self._out += frames.encode(frame)
        if len(self._out) > MAX_UNSENT:
            self.close()
            return
        if idle:
            self._push()

    def _push(self) -> None:
        try:
            while self._out:
                del self._out[: self._sock.send(self._out)]
        except (BlockingIOError, InterruptedError):
            self._loop.add_writer(self._sock.fileno(), self._push)
            return
        except OSError:
            self._out.clear()  # gone: reading will say so
        if self._sock.fileno() >= 0:
            self._loop.remove_writer(self._sock.fileno())

    def close(self) -> None:
        """End the connection: `serve` then raises EOFError."""
        self._out.clear()
        if self._sock.fileno() >= 0:
            self._loop.remove_writer(self._sock.fileno())
            try:
                self._sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
