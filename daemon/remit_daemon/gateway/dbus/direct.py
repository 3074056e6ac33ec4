"""A connection of our own to a bus, for a call that is made for somebody: who owns which name, and the call itself.

It says no more than it is told to. What comes that answers nothing is dropped, calls are answered with a refusal (so that a program
which calls back does not wait for us), and descriptors are closed. Nothing larger than MAX_BODY and its header is taken.
"""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING

from remit_daemon.gateway.dbus import address as addresses
from remit_daemon.gateway.dbus import answers, sasl, wire
from remit_daemon.gateway.dbus.classify import BUS
from remit_daemon.gateway.dbus.frames import Frames, close_all
from remit_daemon.gateway.dbus.link import descriptors
from remit_daemon.gateway.dbus.names import MAX_NAMES, Names
from remit_daemon.gateway.dbus.values import MAX_BODY
from remit_daemon.gateway.dbus.wire import CALL, ERROR, NO_AUTO_START, NO_REPLY, RETURN, Malformed, Message

if TYPE_CHECKING:
    from types import TracebackType

ANSWER_WITHIN = 10.0  # seconds for the bus itself to answer us
MAX_UNASKED = 1000  # messages that may come before the reply: a program that floods us is not waited for
_AT_ONCE = 256  # names asked about together: some ten thousand bytes, which a socket takes
_CHUNK = 1 << 16
_FDS = socket.CMSG_SPACE(4 * wire.MAX_FDS)
_PATH = "/org/freedesktop/DBus"


class Direct:
    """See the module's text. ``me`` is our unique name. Use ``async with await Direct.open(…)``."""

    def __init__(self, sock: socket.socket, shaken: sasl.Shaken) -> None:
        self.me = ""
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._frames = Frames(files=shaken.files)
        self._room = _FDS if shaken.files else 0
        self._came = shaken.from_bus
        self._serial = 0

    @classmethod
    async def open(cls, address: str) -> Direct:
        """Connect to the bus at ``address`` and say hello. Raises OSError, TimeoutError, Malformed."""
        sock = await addresses.connect(address, os.environ.get("XDG_RUNTIME_DIR", ""))
        try:
            found = cls(sock, await sasl.enter(sock))
            hello = await found._ask("Hello")
            found.me = wire.leading(hello, 1)[0] if hello.head.type == RETURN else ""
            if found.me[:1] != ":":
                raise Malformed("the bus gives us no name")
            return found
        except EOFError:
            sock.close()
            raise ConnectionResetError("the bus is gone") from None
        except BaseException:
            sock.close()
            raise

    async def __aenter__(self) -> Direct:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._frames.close()
        self._sock.close()

    # -- the bus itself ----------------------------------------------------------------------------

    def _next(self) -> int:
        self._serial += 1
        return self._serial

    def _question(self, member: str, *texts: str, body: bytes = b"", more: str = "") -> tuple[int, bytes]:
        serial = self._next()
        whole = wire.pack_strings(*texts) + body
        return serial, wire.build(
            CALL, serial, path=_PATH, interface=BUS, member=member, dest=BUS, signature="s" * len(texts) + more, body=whole
        )  # fmt: skip

    async def _ask(self, member: str, *texts: str) -> Message:
        serial, raw = self._question(member, *texts)
        async with asyncio.timeout(ANSWER_WITHIN):
            await self._loop.sock_sendall(self._sock, raw)
            return (await self._replies({serial}, BUS))[serial]

    async def names(self) -> Names:
        """Return who owns which name at this moment. Raises OSError, TimeoutError, Malformed."""
        listed = await self._ask("ListNames")
        if listed.head.type != RETURN:
            raise Malformed("the bus lists no names")
        known = [n for n in wire.strings(listed) if n[:1] != ":" and n != BUS]
        if len(known) > MAX_NAMES:
            raise Malformed("more names on the bus than can be followed")
        names = Names()
        for at in range(0, len(known), _AT_ONCE):
            await self._owners(known[at : at + _AT_ONCE], names)
        return names

    async def _owners(self, known: list[str], names: Names) -> None:
        """Take into ``names`` who owns each of ``known``."""
        asked: dict[int, str] = {}
        raw = bytearray()
        for name in known:
            serial, question = self._question("GetNameOwner", name)
            asked[serial] = name
            raw += question
        async with asyncio.timeout(ANSWER_WITHIN):
            await self._loop.sock_sendall(self._sock, raw)
            found = await self._replies(set(asked), BUS)
        for serial, reply in found.items():
            owner = wire.leading(reply, 1) if reply.head.type == RETURN else ()
            if owner:
                names.change(asked[serial], owner[0])

    async def start(self, name: str, within: float) -> tuple[str, str]:
        """Have the bus start the service ``name``; return the error's name and text, empty when it runs. Raises as ``names``."""
        serial, raw = self._question("StartServiceByName", name, body=_aligned(name), more="u")
        async with asyncio.timeout(within):
            await self._loop.sock_sendall(self._sock, raw)
            reply = (await self._replies({serial}, BUS))[serial]
        if reply.head.type == RETURN:
            return "", ""
        return reply.head.error, (wire.leading(reply, 1) or ("it cannot be started",))[0]

    # -- a call ------------------------------------------------------------------------------------

    def message(
        self,
        dest: str,
        path: str,
        interface: str,
        member: str,
        signature: str,
        body: bytes,
        flags: int = NO_AUTO_START,
    ) -> Message:
        """Return a call, to be classified and sent. Raises Malformed."""
        raw = wire.build(
            CALL, self._next(), path=path, interface=interface, member=member, dest=dest, signature=signature, body=body,
            flags=flags,
        )  # fmt: skip
        return wire.Parser().parse(raw)

    async def call(self, message: Message, within: float) -> tuple[Message, int]:
        """Send ``message`` and return its reply or error, and how many descriptors came with that, closed by now. Raises as ``names``."""
        async with asyncio.timeout(within):
            await self._loop.sock_sendall(self._sock, message.data)
            reply = (await self._replies({message.serial}, message.head.dest))[message.serial]
        return reply, reply.head.fds

    async def _replies(self, serials: set[int], sender: str) -> dict[int, Message]:
        """Return the replies to all of ``serials``: of ``sender``, or of the bus in its place."""
        found: dict[int, Message] = {}
        unasked = 0
        while len(found) < len(serials):
            await asyncio.sleep(
                0
            )  # a program that always has something to say leaves the others their turn
            messages = await self._receive()
            for message in messages:
                close_all(message.files)
            for message in messages:
                head = message.head
                if (
                    head.type in (RETURN, ERROR)
                    and message.reply in serials
                    and head.sender in (sender, BUS)
                ):
                    found[message.reply] = message
                    continue
                unasked += 1
                if unasked > MAX_UNASKED:
                    raise Malformed("a flood of messages in place of a reply")
                if head.type == CALL and not message.flags & NO_REPLY:
                    refusal = answers.to_caller(self._next(), message.serial, head.sender)
                    await self._loop.sock_sendall(self._sock, refusal)
        return found

    async def _receive(self) -> list[Message]:
        """Return the messages that are whole by what came next."""
        data = self._came
        files: list[int] = []
        self._came = b""
        if not data:
            data, files = await self._read()
        messages = self._frames.feed(data, files)
        if self._frames.buffered > MAX_BODY + _CHUNK:
            raise Malformed(f"a message of more than {MAX_BODY} bytes")
        return messages

    async def _read(self) -> tuple[bytes, list[int]]:
        while True:
            try:
                data, extra, flags, _ = self._sock.recvmsg(_CHUNK, self._room, socket.MSG_CMSG_CLOEXEC)
                break
            except (BlockingIOError, InterruptedError):
                await self._readable()
        files = descriptors(extra)
        if not data or flags & socket.MSG_CTRUNC:
            close_all(tuple(files))
            raise ConnectionResetError("the bus is gone" if not data else "descriptors were lost")
        return data, files

    async def _readable(self) -> None:
        ready: asyncio.Future[None] = self._loop.create_future()

        def come() -> None:
            if not ready.done():
                ready.set_result(None)

        self._loop.add_reader(self._sock.fileno(), come)
        try:
            await ready
        finally:
            self._loop.remove_reader(self._sock.fileno())


def _aligned(name: str) -> bytes:
    """Return the flags of StartServiceByName, none, as they stand behind ``name``."""
    return bytes(-(4 + len(name.encode()) + 1) % 4 + 4)
