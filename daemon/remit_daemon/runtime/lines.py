"""JSON-RPC 2.0, one object a line, over an accepted Unix socket: the framing both RPC sockets share.

A line that is no request gets the error that JSON-RPC has for it; one that cannot be told from noise ends the
connection. Notifications (requests without an id) get no answer, as the specification says.

Who wrote a line is the kernel's word on each of its pieces (``peers.senders``), and each writer is admitted or ends the connection. A
line that two processes wrote together is nobody's, and ends it too.

A method takes its parameters and returns the result. One that must know who asks is given as ``ByCaller``. One that gives descriptors away
returns ``WithFds``: they leave with the first byte of the answer's line (SCM_RIGHTS) and are closed here, whatever becomes of the answer.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any, NamedTuple

from remit_daemon.broker.core import Refused
from remit_daemon.ledger.store import LedgerError
from remit_daemon.peers.process import Peer, PeerError
from remit_daemon.runtime.channel import Channel
from remit_daemon.runtime.store import StoreError
from remit_daemon.wire.rpc import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    MAX_LINE,
    METHOD_NOT_FOUND,
    PARSE_ERROR,
    REFUSED,
)

log = logging.getLogger("remitd.rpc")

MAX_UNSENT = 16 << 20  # bytes: a watcher that does not read so much is dropped

Params = dict[str, Any]
Admit = Callable[[Peer], None]  # raises PeerError, with the words for a writer who may not
Lane = Callable[[], AbstractAsyncContextManager[None]]


class ByCaller(NamedTuple):
    """A method that is told the process which wrote the request. The peer is lent until the method is done: ``os.dup`` a pidfd to keep."""

    call: Callable[[Params, Peer], Any | Awaitable[Any]]


Method = Callable[[Params], Any | Awaitable[Any]] | ByCaller


class WithFds(NamedTuple):
    """A result with descriptors, which are taken over."""

    result: Any
    fds: list[int]


class Problem(Exception):
    """A request that fails, with its JSON-RPC error code."""

    def __init__(self, code: int, text: str, data: Any = None) -> None:
        super().__init__(text)
        self.code = code
        self.data = data


def _problem(name: str, error: Exception) -> Problem:
    """Return what a peer is told of ``error``, which the method ``name`` raised; one that nobody foresaw is logged."""
    match error:
        case Problem():
            return error
        case Refused():
            return Problem(error.code, str(error))
        case LedgerError() | StoreError():
            return Problem(INTERNAL_ERROR, str(error))
        case _:
            log.error("internal error in %s", name, exc_info=error)
            return Problem(INTERNAL_ERROR, "internal error; see the daemon's log")


class Lines:
    """One connection: reads requests from those whom ``admit`` lets, calls ``methods``, writes answers and notifications."""

    def __init__(
        self,
        channel: Channel,
        methods: Mapping[str, Method],
        admit: Admit,
        lane: Lane = nullcontext,
        longest: int = MAX_LINE,
    ) -> None:
        """``longest`` is how many bytes of a line are kept for its rest. ``lane`` is what each request is taken in; a method that is a coroutine is awaited outside it, and takes turns of its own."""
        self._channel = channel
        self._methods = methods
        self._admit = admit
        self._lane = lane
        self._longest = longest

    async def serve(self) -> None:
        """Serve requests until the peer closes, ends, talks nonsense or is joined by one who may not."""
        rest, began = bytearray(), None  # of a line that has no end yet, and who wrote it
        try:
            while True:
                data, caller = await self._channel.receive()
                if not data:
                    break
                if began is not None and caller is not began:
                    raise PeerError(
                        f"process {caller.pid} went on with what another process began to write"
                    )
                self._admit(caller)
                *lines, last = data.split(b"\n")
                for line in lines:
                    whole = bytes(rest) + line
                    rest.clear()
                    if not await self._line(whole, caller):
                        return
                    await self._channel.drain()
                rest += last
                began = caller if rest else None
                if len(rest) > self._longest:
                    self._error(None, PARSE_ERROR, f"a line is longer than {self._longest} bytes")
                    return
            if began is not None:
                await self._line(bytes(rest), began)
        except PeerError as e:
            log.warning("refused: %s", e)
            self._error(None, REFUSED, str(e))
        except ConnectionError:
            pass

    async def _line(self, line: bytes, caller: Peer) -> bool:
        async with self._lane():
            try:
                request = json.loads(line)
            except (ValueError, RecursionError) as e:
                log.warning("closed: not JSON: %s", e)
                self._error(None, PARSE_ERROR, "not JSON")
                return False
            if not isinstance(request, dict) or not isinstance(request.get("method"), str):
                self._error(None, INVALID_REQUEST, "not a JSON-RPC 2.0 request")
                return False
            ident, params, name = request.get("id"), request.get("params", {}), request["method"]
            if not isinstance(params, dict):
                self._error(ident, INVALID_PARAMS, "params must be an object")
                return True
            result, problem = self._call(name, params, caller)
        if asyncio.iscoroutine(result):
            try:
                result = await result
            except Exception as e:
                problem = _problem(name, e)
        fds: list[int] = []
        if isinstance(result, WithFds):
            result, fds = result
        if "id" not in request:
            for fd in fds:
                os.close(fd)
        elif problem is not None:
            self._error(ident, problem.code, str(problem), problem.data)
        else:
            self.write({"jsonrpc": "2.0", "id": ident, "result": result}, fds)
        return True

    def _call(self, name: str, params: Params, caller: Peer) -> tuple[Any, Problem | None]:
        method = self._methods.get(name)
        if method is None:
            return None, Problem(METHOD_NOT_FOUND, f"no method {name!r}")
        try:
            return method.call(params, caller) if isinstance(method, ByCaller) else method(params), None
        except Exception as e:
            return None, _problem(name, e)

    def _error(self, ident: Any, code: int, text: str, data: Any = None) -> None:
        error: Params = {"code": code, "message": text}
        if data is not None:
            error["data"] = data
        self.write({"jsonrpc": "2.0", "id": ident, "error": error})

    def notify(self, method: str, params: Params) -> None:
        """Send a notification."""
        self.write({"jsonrpc": "2.0", "method": method, "params": params})

    def write(self, message: Params, fds: list[int] | None = None) -> None:
        """Queue ``message`` and ``fds``, which are taken over; a peer that does not read is dropped."""
        try:
            data = json.dumps(message, separators=(",", ":")).encode("ascii") + b"\n"
        except BaseException:
            for fd in fds or ():
                os.close(fd)
            raise
        self._channel.send(data, fds or ())
        if self._channel.unsent > MAX_UNSENT:
            log.warning("a watcher does not read; dropped")
            self._channel.abort()


def refuse(channel: Channel, text: str) -> None:
    """Tell the peer why it is not served."""
    Lines(channel, {}, lambda caller: None).write(
        {"jsonrpc": "2.0", "id": None, "error": {"code": REFUSED, "message": text}}
    )


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
