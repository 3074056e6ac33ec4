"""JSON-RPC 2.0, one object a line, over an accepted Unix socket: the framing both RPC sockets share.

A line that is no request gets the error that JSON-RPC has for it; one that cannot be told from noise ends the
connection. Notifications (requests without an id) get no answer, as the specification says.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any

from remit_daemon.broker.core import Refused
from remit_daemon.ledger.store import LedgerError
from remit_daemon.runtime.store import StoreError
from remit_daemon.wire.rpc import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    MAX_LINE,
    METHOD_NOT_FOUND,
    PARSE_ERROR,
)

log = logging.getLogger("remitd.rpc")

MAX_UNSENT = 16 << 20  # bytes: a watcher that does not read so much is dropped

LINGER = 1.0  # seconds that a peer which was refused has to read why

Params = dict[str, Any]
Method = Callable[[Params], Any | Awaitable[Any]]


class Problem(Exception):
    """A request that fails, with its JSON-RPC error code."""

    def __init__(self, code: int, text: str, data: Any = None) -> None:
        super().__init__(text)
        self.code = code
        self.data = data


async def linger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say no more, and wait a moment for the peer to close: a socket closed with unread data throws away our last words."""
    try:
        await writer.drain()
        writer.write_eof()
        async with asyncio.timeout(LINGER):
            while await reader.read(1 << 16):
                pass
    except (OSError, RuntimeError, TimeoutError):
        pass


class Lines:
    """One connection: reads requests, calls ``methods``, writes answers and notifications."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        methods: Mapping[str, Method],
        alive: Callable[[], bool],
        called: Callable[[], None] = lambda: None,
        lane: Callable[[], AbstractAsyncContextManager[None]] = nullcontext,
    ) -> None:
        """``called`` is told of each request; ``lane`` is what each is served in."""
        self._reader = reader
        self._writer = writer
        self._methods = methods
        self._alive = alive
        self._called = called
        self._lane = lane

    async def serve(self) -> None:
        """Serve requests until the peer closes, ends or talks nonsense."""
        try:
            while line := await self._reader.readline():
                if not self._alive():
                    break  # whoever writes now is not whom we identified
                self._called()
                async with self._lane():
                    if not await self._line(line):
                        break
                await self._writer.drain()
        except (ValueError, asyncio.LimitOverrunError):
            self._error(None, PARSE_ERROR, f"a line is longer than {MAX_LINE} bytes")
        except ConnectionError:
            pass

    async def _line(self, line: bytes) -> bool:
        try:
            request = json.loads(line)
        except (ValueError, RecursionError) as e:
            log.warning("closed: not JSON: %s", e)
            self._error(None, PARSE_ERROR, "not JSON")
            return False
        if not isinstance(request, dict) or not isinstance(request.get("method"), str):
            self._error(None, INVALID_REQUEST, "not a JSON-RPC 2.0 request")
            return False
        ident, params = request.get("id"), request.get("params", {})
        if not isinstance(params, dict):
            self._error(ident, INVALID_PARAMS, "params must be an object")
            return True
        result, problem = await self._call(request["method"], params)
        if "id" not in request:
            return True
        if problem is not None:
            self._error(ident, problem.code, str(problem), problem.data)
        else:
            self.write({"jsonrpc": "2.0", "id": ident, "result": result})
        return True

    async def _call(self, name: str, params: Params) -> tuple[Any, Problem | None]:
        method = self._methods.get(name)
        if method is None:
            return None, Problem(METHOD_NOT_FOUND, f"no method {name!r}")
        try:
            result = method(params)
            if asyncio.iscoroutine(result):
                result = await result
            return result, None
        except Problem as e:
            return None, e
        except Refused as e:
            return None, Problem(e.code, str(e))
        except (LedgerError, StoreError) as e:
            return None, Problem(INTERNAL_ERROR, str(e))
        except Exception:
            log.exception("internal error in %s", name)
            return None, Problem(INTERNAL_ERROR, "internal error; see the daemon's log")

    def _error(self, ident: Any, code: int, text: str, data: Any = None) -> None:
        error: Params = {"code": code, "message": text}
        if data is not None:
            error["data"] = data
        self.write({"jsonrpc": "2.0", "id": ident, "error": error})

    def notify(self, method: str, params: Params) -> None:
        """Send a notification."""
        self.write({"jsonrpc": "2.0", "method": method, "params": params})

    def write(self, message: Params) -> None:
        """Queue ``message``; a peer that does not read is dropped."""
        if self._writer.is_closing():
            return
        self._writer.write(json.dumps(message, separators=(",", ":")).encode("ascii") + b"\n")
        if self._writer.transport.get_write_buffer_size() > MAX_UNSENT:
            log.warning("a watcher does not read; dropped")
            self._writer.transport.abort()


_NAMES: dict[type, str] = {
    str: "text",
    int: "a whole number",
    bool: "true or false",
    dict: "an object",
    list: "a list",
}


def want(params: Params, **fields: type | tuple[type, Any]) -> Params:
    """Return ``params`` when they are just ``fields``: name=type, or name=(type, default) for an optional one.

    Raises Problem naming the fault.
    """
    for name in params:
        if name not in fields:
            raise Problem(INVALID_PARAMS, f"no parameter {name!r}")
    out: Params = {}
    for name, kind in fields.items():
        wanted, default = kind if isinstance(kind, tuple) else (kind, ...)
        value = params.get(name, default)
        if value is ...:
            raise Problem(INVALID_PARAMS, f"{name} is missing")
        if name in params and type(value) is not wanted:
            raise Problem(INVALID_PARAMS, f"{name} must be {_NAMES.get(wanted, wanted.__name__)}")
        out[name] = value
    return out
