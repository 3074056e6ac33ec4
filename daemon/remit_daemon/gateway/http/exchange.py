"""HTTP/1 requests of one client connection, decided one by one and sent on.

    head (strictly read) -> the host is one that this connection may mean -> permit -> secrets -> upstream -> response

Framing is done by h11 on both sides, so what is sent on has one reading whatever was received. Bodies stream both ways, nothing is
kept; ``100 Continue`` is the server's own. A held request holds its connection alone; a client that goes away ends it. A
change of protocol is made for WebSocket only, as a permission of its own, and is opaque from then on.
"""

from __future__ import annotations

import asyncio
import errno
import json
from typing import TYPE_CHECKING

import h11

from remit_daemon.gateway.accept import HangUp, reset
from remit_daemon.gateway.authority import Refused
from remit_daemon.gateway.http import head as heads
from remit_daemon.gateway.http import secrets
from remit_daemon.gateway.http.head import Head, HeadError
from remit_daemon.gateway.http.streams import linger
from remit_daemon.peers import ports
from remit_policy import hosts
from remit_policy.model import ALLOW

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable

    from remit_daemon.gateway.authority import Origin, Permit
    from remit_daemon.gateway.context import Context
    from remit_daemon.gateway.http.streams import Stream

HEAD_WITHIN = (
    60.0  # seconds for one head, and between requests: a client that dawdles holds a connection and no more
)
MAX_BUFFER = heads.MAX_HEAD
_HOP = frozenset(
    (
        b"connection",
        b"proxy-connection",
        b"keep-alive",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"upgrade",
    )
)
# By which a server is asked for an answer that cannot be looked through: compressed, or in parts of one's choice.
_HIDING = frozenset((b"accept-encoding", b"range", b"if-range", b"sec-websocket-extensions"))
_DEFAULT = {"https": 443, "http": 80}
# By which some servers take another method or path than the request line's (Rails, Laravel, Express; IIS, Symfony).
_OVERRIDES = frozenset(
    (b"x-http-method-override", b"x-http-method", b"x-method-override", b"x-original-url", b"x-rewrite-url")
)


class Broken(Exception):
    """The exchange cannot go on; the client has been told, or is gone."""


class Exchange:
    """One client connection. ``connect`` opens a stream to a host and port that this connection may mean."""

    def __init__(
        self,
        ctx: Context,
        client: Stream,
        origin: Origin,
        scheme: str,
        port: int,
        allow: Callable[[str, int], Awaitable[Permit | None]],
        connect: Callable[[str, int], Awaitable[Stream]],
        *,
        fallback: str = "",
        proxied: bool = False,
    ) -> None:
        """``allow`` raises Refused for a host that this connection may not mean, and returns the permit that is spent by what goes.

        ``fallback`` is the host of a request that names none.
        """
        self._ctx = ctx
        self._authority = ctx.authority
        self._client = client
        self._origin = origin
        self._scheme = scheme
        self._port = port
        self._allow = allow
        self._connect = connect
        self._fallback = fallback
        self._proxied = proxied
        self._vault = secrets.vault_of(ctx)
        self._buffer = b""
        self._upstream: Stream | None = None
        self._where: tuple[str, int] = ("", 0)
        self._spending: list[Permit] = []
        self._begun = False  # the client has the beginning of a response

    async def serve(self, connect_method: Callable[[Head, bytes], Awaitable[None]] | None = None) -> None:
        """Serve requests until the client or a fault ends it. ``connect_method`` takes over a CONNECT."""
        try:
            while (raw := await self._head()) is not None:
                head = heads.parse(raw, scheme=self._scheme, port=self._port, proxied=self._proxied)
                if head.method == "CONNECT":
                    if connect_method is None:
                        raise HeadError("CONNECT to what is no proxy")
                    await connect_method(head, self._buffer)
                    return
                if not await self._one(head):
                    return
        except HeadError as e:
            resource = self._fallback or "proxy"
            refused = self._authority.refuse("request", resource, self._origin, str(e), "built-in: HTTP")
            await self._say(400, refused)
        except h11.ProtocolError as e:
            reason = f"the message cannot be sent on: {e}"
            await self._say(
                400,
                self._authority.refuse(
                    "request", self._fallback or "proxy", self._origin, reason, "built-in: HTTP"
                ),
            )
        except Refused as e:
            await self._say(403, e)
        except (TimeoutError, Broken):
            pass
        finally:
            if self._upstream is not None:
                self._upstream.sock.close()

    async def _head(self) -> bytes | None:
        """Return the next head, None when the client has ended."""
        clock = asyncio.get_running_loop().time
        end = clock() + HEAD_WITHIN
        while not (size := heads.find(self._buffer)):
            data = await asyncio.wait_for(self._client.recv(), end - clock())
            if not data:
                if self._buffer:
                    raise HeadError("the connection ended inside a head")
                return None
            self._buffer += data
            if self._buffer.startswith(heads.PREFACE):
                raise HeadError("HTTP/2 where HTTP/1 is spoken")
        raw, self._buffer = self._buffer[:size], self._buffer[size:]
        return raw

    def _spend(self, amount: int) -> None:
        """Count bytes that go either way. Raises OSError when a budget has no more."""
        if not all(permit.spend(amount) for permit in self._spending):
            raise OSError(errno.EDQUOT, "the budget is spent")

    async def _say(self, status: int, refused: Refused, *, more: dict[str, str] | None = None) -> None:
        if self._begun:
            reset(self._client.sock)  # what is said now would be read as part of that response
            return
        body = json.dumps(refused.as_dict() | (more or {}), ensure_ascii=True).encode() + b"\n"
        reason = {400: "Bad Request", 403: "Forbidden", 502: "Bad Gateway"}[status]
        head = (
            f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            "Connection: close\r\nX-Remit: refused\r\n\r\n"
        )
        try:
            await self._client.send(head.encode() + body)
            await self._client.end()
        except OSError:
            pass
        await linger(self._client.sock)

    async def _one(self, head: Head) -> bool:
        """Carry out one request; returns whether another may follow."""
        host, port = head.host or self._fallback, head.port or self._port
        if not host:
            raise HeadError("nothing says which host is meant")
        spent = await self._allow(host, port)
        permit = await self._permit(head, host, port)
        self._spending = [p for p in (spent, permit) if p is not None]
        if permit is not None:
            permit.on_revoked = ender(self._client.sock)
        try:
            self._spend(len(head.raw))
            more = await self._carry(head, host, port)
        except Refused:
            self._done(permit, "refused")
            raise
        except OSError as e:
            self._done(permit, errno.errorcode.get(e.errno or 0, "EIO"))
            refused = Refused(
                f"{host} cannot be reached: {e.strerror or e}",
                op="request",
                resource=hosts.join(host, port),
            )
            await self._say(502, refused, more={"error": "bad gateway"})
            return False
        except BaseException:
            self._done(permit, "gone")
            raise
        self._done(permit, "ok")
        return more

    @staticmethod
    def _done(permit: Permit | None, outcome: str) -> None:
        if permit is not None:
            permit.done(outcome)

    async def _permit(self, head: Head, host: str, port: int) -> Permit | None:
        if not self._authority.engine.has_requests(host, port):
            return None
        for name, _ in head.fields:
            if name.lower() in _OVERRIDES:
                raise HeadError(
                    f"{name.decode()} would have the server read another request than the one decided on"
                )
        where = (
            hosts.join(host, port)
            if port != _DEFAULT[self._scheme]
            else hosts.join(host, port).rpartition(":")[0]
        )
        method = "WEBSOCKET" if head.upgrade == "websocket" else head.method
        resource = f"{method} {self._scheme}://{where}{head.path}"
        gone = asyncio.Event()
        with HangUp(self._client.sock, gone):
            return await self._authority.permit("request", resource, self._origin, gone=gone)

    # -- one request -------------------------------------------------------------------------------

    async def _fields(
        self, head: Head, host: str, port: int
    ) -> tuple[list[tuple[bytes, bytes]], str, list[secrets.Entry]]:
        """Return the fields and the target to send, with secrets in their places. Raises Refused."""
        websocket = head.upgrade == "websocket"
        fields = [
            (n, v) for n, v in head.fields if n.lower() not in _HOP and n.lower() not in head.connection
        ]
        query, used = head.query, []
        bound = self._vault.bound(host, port)
        for entry in bound:
            if self._scheme != "https" and host != hosts.LOCAL:
                continue
            if entry.value is None:
                seen = (
                    any(entry.placeholder in v for _, v in fields)
                    or entry.placeholder.decode("latin-1") in query
                )
                if seen:
                    reason = f"the value of secret {entry.secret.name} cannot be had: {entry.fault}"
                    raise self._authority.refuse(
                        "use", f"secret:{entry.secret.name}", self._origin, reason, entry.secret.source
                    )
                continue
            fresh, text, found = secrets.put(entry, fields, query)
            if found:
                if host == hosts.LOCAL and ports.in_a_session(ports.listening(port)):
                    raise self._authority.refuse(
                        "use", f"secret:{entry.secret.name}", self._origin, f"an agent's own program listens at port {port}",
                        entry.secret.source,
                    )  # fmt: skip
                permit = await self._authority.permit("use", f"secret:{entry.secret.name}", self._origin)
                permit.done(note=f"to {host}")
                fields, query = fresh, text
                used.append(entry)
        target = head.target.partition("?")[0] + ("?" + query if "?" in head.target else "")
        # What was put in is no placeholder any more, so whatever is still found stands in a wrong place.
        self._no_placeholder(
            target.encode("latin-1") + b"\n" + b"\n".join(n + b":" + v for n, v in fields), host
        )
        if not any(n.lower() == b"host" for n, _ in fields):
            fields.insert(0, (b"Host", hosts.join(host, port).encode()))
        if bound:
            fields = [(n, v) for n, v in fields if n.lower() not in _HIDING]
            fields.append((b"Accept-Encoding", b"identity"))  # what comes back is looked through
        if websocket:
            fields += [(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")]
        return fields, target, bound

    def _no_placeholder(self, data: bytes, host: str) -> None:
        entry = self._vault.found_in(data)
        if entry is not None:
            name = entry.secret.name
            raise self._authority.refuse(
                "use", f"secret:{name}", self._origin, f"the placeholder of secret {name} was sent to {host}, in a place that is not its own",
                entry.secret.source, f"secret {name} goes to {', '.join(entry.secret.hosts)} as {entry.secret.position}",
            )  # fmt: skip

    async def _carry(self, head: Head, host: str, port: int) -> bool:
        fields, target, bound = await self._fields(head, host, port)
        fresh = self._upstream is None or self._where != (host, port)
        if fresh:
            await self._open(host, port)
        server = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_BUFFER)
        client = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_BUFFER)
        try:
            server.receive_data(head.raw)
            event = server.next_event()
            assert isinstance(event, h11.Request)
            request = h11.Request(method=head.method, target=target, headers=fields)
            raw = client.send(request)
        except h11.RemoteProtocolError as e:
            raise HeadError(str(e)) from None
        except h11.LocalProtocolError:
            # Not in h11's words: they repeat the field, which may hold a secret by now.
            raise HeadError("a field or target that cannot be sent on") from None
        upstream = self._upstream
        assert upstream is not None
        try:
            await upstream.send(raw)
        except OSError:
            # The server closed a kept connection meanwhile; nothing of this request went before.
            if fresh:
                raise
            upstream = await self._open(host, port)
            await upstream.send(raw)
        gone = asyncio.Event()
        up = asyncio.ensure_future(self._upload(server, client, upstream, host, gone))
        down = asyncio.ensure_future(self._download(server, client, upstream, bound))
        try:
            await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
            if up.done() and up.exception() is not None:
                raise up.exception() or Broken
            return await down
        finally:
            for task in (up, down):
                if not task.done():
                    task.cancel()
            await asyncio.gather(up, down, return_exceptions=True)

    async def _open(self, host: str, port: int) -> Stream:
        if self._upstream is not None:
            self._upstream.sock.close()
            self._upstream = None
        self._upstream = await self._connect(host, port)
        self._where = host, port
        return self._upstream

    async def _upload(
        self,
        server: h11.Connection,
        client: h11.Connection,
        upstream: Stream,
        host: str,
        gone: asyncio.Event,
    ) -> None:
        """Send the request's body on."""
        window = b""
        looking = bool(self._vault.entries)
        while True:
            event = server.next_event()
            if event is h11.NEED_DATA:
                data, self._buffer = self._buffer, b""
                server.receive_data(data or await self._client.recv())
                continue
            if isinstance(event, h11.Data):
                body = bytes(event.data)
                if looking:
                    self._no_placeholder(window + body, host)
                    window = (window + body)[-self._vault.tail() :]
                self._spend(len(body))
                await self._send(client, upstream, h11.Data(data=body))
            elif isinstance(event, h11.EndOfMessage):
                await self._send(client, upstream, h11.EndOfMessage(headers=list(event.headers)))
                return
            elif event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
                return

    @staticmethod
    async def _send(connection: h11.Connection, stream: Stream, event: h11.Event) -> None:
        raw = connection.send(event)
        if raw:
            await stream.send(raw)

    async def _download(
        self, server: h11.Connection, client: h11.Connection, upstream: Stream, bound: list[secrets.Entry]
    ) -> bool:
        """Send the response on; returns whether another request may follow on this connection."""
        scrubber = secrets.Scrubber(bound)
        self._begun = False
        while True:
            try:
                event = client.next_event()
            except h11.RemoteProtocolError as e:
                why = scrubber.whole(str(e).encode("utf-8", "replace")).decode("utf-8", "replace")
                raise OSError(errno.EPROTO, f"a malformed response: {why}") from None
            if event is h11.NEED_DATA:
                data = await upstream.recv()
                self._spend(len(data))
                client.receive_data(data)
                continue
            if isinstance(event, h11.InformationalResponse):
                if event.status_code == 101:
                    await self._send(server, self._client, _response(event, scrubber, switching=True))
                    await self._switched(client, server, upstream, scrubber)
                    return False
                if server.their_http_version == b"1.1":
                    await self._send(server, self._client, _response(event, scrubber))
            elif isinstance(event, h11.Response):
                if scrubber and not _plain(event):
                    raise OSError(errno.EPROTO, "a compressed response, in which a secret could come back")
                self._begun = True
                await self._send(server, self._client, _response(event, scrubber))
            elif isinstance(event, h11.Data):
                if data := scrubber.feed(bytes(event.data)):
                    await self._send(server, self._client, h11.Data(data=data))
            elif isinstance(event, h11.EndOfMessage):
                if rest := scrubber.feed(b"", last=True):
                    await self._send(server, self._client, h11.Data(data=rest))
                trailers = [(n, scrubber.whole(v)) for n, v in event.headers]
                await self._send(server, self._client, h11.EndOfMessage(headers=trailers))
                self._begun = False
                return await self._next(server, client)
            elif isinstance(event, h11.ConnectionClosed):
                raise OSError(errno.ECONNRESET, "the server ended before its response")

    async def _next(self, server: h11.Connection, client: h11.Connection) -> bool:
        if (
            client.our_state is h11.SEND_BODY
            or server.our_state is not h11.DONE
            or server.their_state is not h11.DONE
        ):
            await self._client.end()  # the server answered before it had heard all
            return False
        if client.our_state is not h11.DONE or client.their_state is not h11.DONE:
            assert self._upstream is not None
            self._upstream.sock.close()
            self._upstream, self._where = None, ("", 0)
        self._buffer = server.trailing_data[0] + self._buffer
        return True

    async def _switched(
        self, client: h11.Connection, server: h11.Connection, upstream: Stream, scrubber: secrets.Scrubber
    ) -> None:
        """Relay what is no longer HTTP until both directions have ended, or one fails."""
        self._begun = True

        async def pump(data: bytes, source: Stream, sink: Stream, change: Callable[[bytes], bytes]) -> None:
            while data := data or await source.recv():
                self._spend(len(data))
                await sink.send(change(data))
                data = b""
            await sink.end()

        up, down = server.trailing_data[0] + self._buffer, client.trailing_data[0]
        tasks = [
            asyncio.ensure_future(pump(up, self._client, upstream, bytes)),
            asyncio.ensure_future(pump(down, upstream, self._client, scrubber.whole)),
        ]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()


def ender(client: socket.socket) -> Callable[[], None]:
    """Return what ends the task that calls this, and resets its ``client``: its permit is revoked."""
    task = asyncio.current_task()
    assert task is not None

    def end() -> None:
        task.cancel()
        reset(client)

    return end


def _plain(event: h11.Response) -> bool:
    codings = b",".join(v for n, v in event.headers if n == b"content-encoding")
    return not codings or codings.strip().lower() == b"identity"


def _response(
    event: h11.Response | h11.InformationalResponse, scrubber: secrets.Scrubber, *, switching: bool = False
) -> h11.Response | h11.InformationalResponse:
    """Return ``event`` for the client: without what was between the server and us, and without secrets."""
    fields = []
    for name, value in event.headers.raw_items():
        low = name.lower()
        if low in (b"alt-svc", b"proxy-connection", b"keep-alive") or (
            low == b"connection" and not switching
        ):
            continue  # no other protocol or port is offered, and our connections are our own
        fields.append((scrubber.whole(name), scrubber.whole(value)))
    kind = type(event)
    return kind(status_code=event.status_code, headers=fields, reason=scrubber.whole(event.reason))


def explicitly_allowed(ctx: Context, host: str, port: int) -> bool:
    """Tell whether the policy in force simply allows to connect to ``host``."""
    return ctx.authority.decide("connect", hosts.join(host, port)).verdict == ALLOW
