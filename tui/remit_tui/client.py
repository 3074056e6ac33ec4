"""remitd's approver socket from the person's side: JSON-RPC over a line, connected again whenever it is lost.

remitd may be restarted under us. ``Client.run`` connects, subscribes, reads everything once and hands it over as
``Loaded`` and ``Stood``; then hands over each notification; and when the connection ends, ``Lost`` with the reason, and tries
again. A call that was under way when the connection ended raises GoneError: whether it was done is not known.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, TypeVar

from remit_daemon.wire.rpc import MAX_LINE
from remit_tui.events import Changed, Done, Event, Loaded, Lost, Ran, Stood
from remit_tui.fields import RecordError
from remit_tui.records import Prompt, Session
from remit_tui.standing import Standing

CALL_TIMEOUT = 10.0  # s; remitd answers from memory, so a silence this long means that it is stuck
SETTLE = 0.05  # s from news about what stands to its reading
RETRY_FIRST, RETRY_MAX = 0.1, 2.0  # s between attempts, doubling: a restart is over in less than a second


_R = TypeVar("_R")


class GoneError(Exception):
    """There is no connection to remitd, or it ended before the reply."""


class RpcError(Exception):
    """remitd refused a call. ``code`` as in ``wire.rpc``; the message is remitd's own."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Client:
    """One connection at a time to the socket at ``path``; events go to ``emit``, in order."""

    def __init__(self, path: str, emit: Callable[[Event], None]) -> None:
        self._path = path
        self._emit = emit
        self._writer: asyncio.StreamWriter | None = None
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._number = 0
        self._again: asyncio.Task[None] | None = None  # reads the status again
        self._early: list[dict[str, Any]] | None = None  # notifications that came before the first reading

    async def run(self) -> None:
        """Keep a connection until cancelled."""
        delay = RETRY_FIRST
        while True:
            try:
                reader, writer = await asyncio.open_unix_connection(self._path, limit=MAX_LINE)
            except OSError as e:
                self._emit(Lost(_absent(e)))
            else:
                why, settled = await self._connection(reader, writer)
                self._emit(Lost(why))
                if settled:
                    delay = RETRY_FIRST
            await asyncio.sleep(delay)
            delay = min(delay * 2, RETRY_MAX)

    async def _connection(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> tuple[str, bool]:
        """Serve one connection to its end; return why it ended and whether it had ever been of use."""
        self._writer, self._early = writer, []
        opening = asyncio.create_task(self._open())
        reading = asyncio.create_task(self._read(reader))
        settled = False
        try:
            await asyncio.wait({opening, reading}, return_when=asyncio.FIRST_COMPLETED)
            if opening.done() and opening.exception() is None:
                settled = True
                return await reading, settled
            if opening.done() and isinstance(opening.exception(), (RpcError, RecordError)):
                return f"remitd does not serve this terminal: {opening.exception()}", settled
            if reading.done():
                return reading.result(), settled
            return "remitd does not answer", settled
        finally:
            self._writer = None
            for future in self._calls.values():
                if not future.done():
                    future.set_exception(GoneError("remitd went away"))
            self._calls.clear()
            tasks = [t for t in (opening, reading, self._again) if t is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            writer.close()

    async def _open(self) -> None:
        await self.call("watch")
        prompts = await self.call("prompts")
        sessions = await self.call("sessions")
        standing = Standing.of(await self.call("status"))
        loaded = Loaded(each(Prompt.of, prompts), each(Session.of, sessions))
        early, self._early = self._early or [], None
        self._emit(loaded)
        self._emit(Stood(standing))
        # Those that the reading already knew change nothing; a newer one has the last word.
        for message in early:
            self._notified(message)

    async def _read(self, reader: asyncio.StreamReader) -> str:
        """Read until the end; return why it ended."""
        try:
            while line := await reader.readline():
                message = json.loads(line)
                if not isinstance(message, dict):
                    return "remitd said something that is no message"
                if "method" not in message:
                    self._replied(message)
                elif self._early is None:
                    self._notified(message)
                else:
                    self._early.append(message)
        except RecordError as e:
            return f"remitd said something unexpected: {e}"
        except (ValueError, TypeError):
            return "remitd said something that is no message"
        except OSError as e:
            return f"the connection to remitd broke: {e.strerror}"
        return "remitd has ended"

    def _replied(self, message: dict[str, Any]) -> None:
        future = self._calls.pop(message.get("id", -1), None)
        if future is None or future.done():
            return
        error = message.get("error")
        if isinstance(error, dict):
            future.set_exception(RpcError(int(error.get("code", 0)), str(error.get("message", ""))))
        else:
            future.set_result(message.get("result"))

    def _notified(self, message: dict[str, Any]) -> None:
        params = message.get("params")
        match message.get("method"):
            case "prompt":
                self._emit(Changed(Prompt.of(params)))
            case "prompt.done" if isinstance(params, dict):
                self._emit(Done(str(params.get("id", "")), str(params.get("state", ""))))
            case "session":
                self._emit(Ran(Session.of(params)))
            case "quiet" | "review" | "grant":
                self.restand()

    def restand(self) -> None:
        """Read again what stands for all sessions, which has changed, unless that is being done."""
        if self._again is None or self._again.done():
            self._again = asyncio.get_running_loop().create_task(self._stand())

    async def _stand(self) -> None:
        await asyncio.sleep(SETTLE)  # what comes in a burst is read once, after it
        try:
            self._emit(Stood(Standing.of(await self.call("status"))))
        except (RpcError, GoneError, RecordError):
            pass  # it is read anew with the next connection

    async def call(self, method: str, **params: Any) -> Any:
        """Call ``method`` and return its result.

        Raises RpcError when remitd refuses, GoneError when there is no connection or it ends, and when no reply
        comes in CALL_TIMEOUT.
        """
        writer = self._writer
        if writer is None:
            raise GoneError("remitd is not there")
        self._number += 1
        number = self._number
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._calls[number] = future
        request = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        # ASCII only: a path that is no UTF-8 holds lone surrogates, which travel as \udcXX.
        writer.write(json.dumps(request).encode() + b"\n")
        try:
            async with asyncio.timeout(CALL_TIMEOUT):
                return await future
        except TimeoutError:
            raise GoneError("remitd does not answer") from None
        finally:
            self._calls.pop(number, None)


def each(read: Callable[[object], _R], records: object) -> tuple[_R, ...]:
    """Return each of a list of records, read; raises RecordError when it is no list, or one of them is not what it should be."""
    if not isinstance(records, list):
        raise RecordError("not a list")
    return tuple(read(r) for r in records)


def _absent(error: OSError) -> str:
    if isinstance(error, FileNotFoundError | ConnectionRefusedError):
        return "remitd is not running"
    return f"remitd cannot be reached: {error.strerror or error}"
