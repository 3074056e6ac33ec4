"""HTTP/1 requests of one client connection, decided one by one and sent on.

    head (strictly read) -> the host is one that this connection may mean -> permit -> secrets -> upstream -> response

Framing is done by h11 on both sides, so what is sent on has one reading whatever was received. Bodies stream both ways, nothing is
kept; ``100 Continue`` is the server's own. A held request holds its connection alone; a client that goes away ends it, and so
does a permission that is taken back. Once a response has begun nothing else is said on the connection: a fault resets it.
A change of protocol is made for WebSocket only, as a permission of its own, and is opaque from then on.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import time
from typing import TYPE_CHECKING
from urllib.parse import unquote_plus

import h11

from remit_daemon.gateway.accept import HangUp, revoke, will_reset
from remit_daemon.gateway.authority import Refused
from remit_daemon.gateway.http import head as heads
from remit_daemon.gateway.http import secrets, signatures
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
EARLY = 1.0  # seconds for the response of a server that does not take the whole request
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
SETTLED = (
    0.05  # seconds without more after which what ends as a secret begins is no part of one: a whole message
)
# Of a request with a secret: what would have the answer come back in a form that is not looked through.
_HIDING = frozenset((b"accept-encoding", b"range", b"if-range", b"sec-websocket-extensions"))
_DEFAULT = {"https": 443, "http": 80}
# By which some servers take another method or path than the request line's (Rails, Laravel, Express; IIS, Symfony).
_OVERRIDES = frozenset(
    (b"x-http-method-override", b"x-http-method", b"x-method-override", b"x-original-url", b"x-rewrite-url")
)
_METHOD_IN_QUERY = frozenset(("_method",))  # likewise (Rails, Symfony, Express)


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
        allow: Callable[[str, int], Awaitable[None]],
        connect: Callable[[str, int], Awaitable[Stream]],
        *,
        fallback: str = "",
        proxied: bool = False,
        count: Callable[[int], bool] = lambda amount: True,
    ) -> None:
        """``allow`` raises Refused for a host that this connection may not mean; ``fallback`` is the host of a request without.

        ``count`` is told of the bytes of bodies; the exchange ends when it answers False.
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
        self._count = count
        self._vault = secrets.vault_of(ctx)
        self._buffer = b""
        self._upstream: Stream | None = None
        self._where: tuple[str, int] = ("", 0)
        self._permit: Permit | None = None  # of the request that is carried out
        self._begun = False  # its response has begun
        self._gone = asyncio.Event()  # the client has ended its side
        self._left: asyncio.Task[bool] | None = None  # waits for that

    async def serve(self, connect_method: Callable[[Head, bytes], Awaitable[None]] | None = None) -> None:
        """Serve requests until the client or a fault ends it. ``connect_method`` takes over a CONNECT."""
        try:
            with HangUp(self._client.sock, self._gone):
                head = await self._all()
            if head is not None:
                if connect_method is None:
                    raise HeadError("CONNECT to what is no proxy")
                await connect_method(head, self._buffer)
        except HeadError as e:
            resource = self._fallback or "proxy"
            refused = self._authority.refuse("request", resource, self._origin, str(e), "built-in: HTTP")
            await self._say(400, refused)
        except Refused as e:
            await self._say(403, e)
        except TimeoutError:
            pass
        except Broken:
            will_reset(self._client.sock)
        finally:
            if self._left is not None:
                self._left.cancel()
            if self._upstream is not None:
                self._upstream.sock.close()

    async def _all(self) -> Head | None:
        """Carry out all requests; returns the head of a CONNECT that ends them."""
        while (raw := await self._head()) is not None:
            head = heads.parse(raw, scheme=self._scheme, port=self._port, proxied=self._proxied)
            if head.method == "CONNECT":
                return head
            if not await self._one(head):
                return None
            self._begun = False
        return None

    async def _head(self) -> bytes | None:
        """Return the next head, None when the client has ended."""
        clock = asyncio.get_running_loop().time
        end = clock() + HEAD_WITHIN
        while not (size := heads.find(self._buffer)):
            async with asyncio.timeout(end - clock()):
                data = await self._client.recv()
            if not data:
                if self._buffer:
                    raise HeadError("the connection ended inside a head")
                return None
            self._buffer += data
            if self._buffer.startswith(heads.PREFACE):
                raise HeadError("HTTP/2 where HTTP/1 is spoken")
        raw, self._buffer = self._buffer[:size], self._buffer[size:]
        return raw

    async def _say(self, status: int, refused: Refused, *, more: dict[str, str] | None = None) -> None:
        if self._begun:
            will_reset(self._client.sock)
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
            await linger(self._client.sock)
        except OSError:
            pass

    async def _one(self, head: Head) -> bool:
        """Carry out one request; returns whether another may follow."""
        host, port = head.host or self._fallback, head.port or self._port
        if not host:
            raise HeadError("nothing says which host is meant")
        await self._allow(host, port)
        permit = self._permit = await self._permitted(head, host, port)
        try:
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

    async def _permitted(self, head: Head, host: str, port: int) -> Permit | None:
        websocket = head.upgrade == "websocket"
        if (websocket or head.method == "WEBSOCKET") and (
            head.method != "GET" or head.version == b"HTTP/1.0" or _has_body(head)
        ):
            raise HeadError("a change to WebSocket that is no GET of HTTP/1.1 without a body")
        if not self._authority.engine.has_requests(host, port):
            return None
        if head.method == "POST" and _METHOD_IN_QUERY & set(_names(head.query)):
            raise HeadError("_method would have the server read another request than the one decided on")
        for name, _ in head.fields:
            if name.lower() in _OVERRIDES:
                raise HeadError(
                    f"{name.decode()} would have the server read another request than the one decided on"
                )
        where = hosts.join(hosts.service(host), port)
        if port == _DEFAULT[self._scheme]:
            where = where.rpartition(":")[0]
        method = "WEBSOCKET" if websocket else head.method
        read_as = [f"{method} {self._scheme}://{where}{path}" for path in heads.readings(head.path)]
        # The strictest of them: whichever the server takes, it is allowed.
        resource = max(read_as, key=lambda one: self._authority.decide("request", one).verdict)
        permit = await permitted(self._ctx, "request", resource, self._origin, self._client.sock)
        return ends(permit, self._client.sock)

    def _spend(self, amount: int) -> None:
        """Count bytes, of heads too, that go out next. Raises Refused when a budget is spent."""
        within = self._count(amount)
        if self._permit is not None and not self._permit.spend(amount):
            within = False
        if not within:
            resource = self._permit.resource if self._permit is not None else hosts.join(*self._where)
            op = "request" if self._permit is not None else "connect"
            raise self._authority.refuse(
                op,
                resource,
                self._origin,
                "the budget is spent",
                "built-in: budgets",
                "try again: the person is asked",
            )

    # -- one request -------------------------------------------------------------------------------

    async def _fields(
        self, head: Head, host: str, port: int
    ) -> tuple[list[tuple[bytes, bytes]], str, secrets.Scrub]:
        """Return the fields and the target to send, with secrets in their places, and what is to be scrubbed. Raises Refused."""
        dropped = _HOP | head.options
        fields = [
            (n, v) for n, v in head.fields if n.lower() not in dropped and (v or n.lower() != b"host")
        ]
        query = head.query
        bound = self._vault.bound(hosts.service(host), port)
        scrub = secrets.Scrub(bound)
        for entry in bound:
            if self._scheme != "https" and hosts.service(host) != hosts.LOCAL:
                continue
            if entry.value is None:
                seen = (
                    any(entry.placeholder in v for _, v in fields)
                    or entry.placeholder.decode("latin-1") in query
                )
                if seen:
                    reason = f"the value of secret {entry.secret.name} cannot be had: {entry.fault}"
                    raise self._authority.refuse(
                        "use", f"secret:{entry.secret.name}", self._origin, reason, entry.secret.source,
                        "the person makes it available; a new session then has it",
                    )  # fmt: skip
                continue
            fresh, text, found = secrets.put(entry, fields, query)
            if found:
                use = f"secret:{entry.secret.name}"
                if hosts.service(host) == hosts.LOCAL and ports.in_a_session(ports.listening(port)):
                    raise self._authority.refuse(
                        "use", use, self._origin, f"an agent's own program listens at port {port}",
                        entry.secret.source,
                    )  # fmt: skip
                permit = await permitted(self._ctx, "use", use, self._origin, self._client.sock)
                permit.done(note=f"to {host}")
                fields, query = fresh, text
                scrub.sent(found)
        target = head.target.partition("?")[0] + ("?" + query if "?" in head.target else "")
        # What was put in is no placeholder any more, so whatever is still found stands in a wrong place.
        self._no_placeholder(
            target.encode("latin-1") + b"\n" + b"\n".join(n + b":" + v for n, v in fields),
            hosts.join(host, port),
            "the address or a header field",
        )
        if not any(n.lower() == b"host" for n, _ in fields):
            fields.insert(0, (b"Host", hosts.join(host, port).encode()))
        if bound:
            fields = [(n, v) for n, v in fields if n.lower() not in _HIDING]
            fields.append((b"Accept-Encoding", b"identity"))  # what comes back is looked through
        snapshot = self._authority.snapshot
        if signatures.wanted(snapshot, hosts.service(host), port):
            signer = signatures.signer_of(self._ctx)
            nonce = os.urandom(signatures.NONCE)
            fields = signer.sign(
                head.method, target, self._scheme, fields, snapshot.signs_as, int(time.time()), nonce
            )
        if head.upgrade == "websocket":
            fields += [(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")]
        return fields, target, scrub

    def _no_placeholder(self, data: bytes, where: str, place: str) -> None:
        entry = self._vault.found_in(data)
        if entry is not None:
            name = entry.secret.name
            raise self._authority.refuse(
                "use", f"secret:{name}", self._origin,
                f"the placeholder of secret {name} was sent to {where} in {place}, in a place that is not its own",
                entry.secret.source, f"secret {name} goes to {', '.join(entry.secret.hosts)} as {entry.secret.position}",
            )  # fmt: skip

    async def _carry(self, head: Head, host: str, port: int) -> bool:
        fields, target, scrub = await self._fields(head, host, port)
        fresh = self._upstream is None or self._where != (host, port) or self._upstream.ended()
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
            raise HeadError("cannot be sent on") from None  # its text could hold a secret that was put in
        upstream = self._upstream
        assert upstream is not None
        self._spend(len(raw))
        try:
            await upstream.send(raw)
        except OSError:
            # The server closed a kept connection meanwhile; nothing of this request went before.
            if fresh:
                raise
            upstream = await self._open(host, port)
            await upstream.send(raw)
        up = asyncio.ensure_future(self._upload(server, client, upstream, hosts.join(host, port)))
        down = asyncio.ensure_future(self._download(head, server, client, upstream, scrub))
        try:
            await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
            if up.done() and (fault := up.exception()) is not None:
                if isinstance(fault, OSError):  # a server that refuses a body answers and closes
                    await asyncio.wait({down}, timeout=EARLY)
                if not isinstance(fault, OSError) or not down.done() or down.exception() is not None:
                    raise fault
            # Who wants no other request may well end his side once he has said this one.
            staying = head.version != b"HTTP/1.0" and {b"close", b"upgrade"}.isdisjoint(head.options)
            waited: set[asyncio.Future[bool]] = {down}
            if staying:
                self._left = self._left or asyncio.ensure_future(self._gone.wait())
                waited.add(self._left)
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            if not down.done():
                raise Broken
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
        where: str,
    ) -> None:
        """Send the request's body on; trailers are not, since servers differ in what they take from them."""
        window = b""
        looking = bool(self._vault.entries)
        while True:
            try:
                event = server.next_event()
            except h11.RemoteProtocolError as e:
                raise HeadError(f"a malformed body: {e}") from None
            if event is h11.NEED_DATA:
                data, self._buffer = self._buffer or await self._client.recv(), b""
                if not data:
                    raise Broken
                server.receive_data(data)
                continue
            if isinstance(event, h11.Data):
                body = bytes(event.data)
                if looking:
                    self._no_placeholder(window + body, where, "the body")
                    window = (window + body)[-self._vault.tail() :]
                await self._send(client, upstream, h11.Data(data=body))
            elif isinstance(event, h11.EndOfMessage):
                self._no_placeholder(b"\n".join(v for _, v in event.headers), where, "a trailer")
                await self._send(client, upstream, h11.EndOfMessage())
                return
            elif event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
                return

    async def _send(self, connection: h11.Connection, stream: Stream, event: h11.Event) -> None:
        try:
            raw = connection.send(event)
        except h11.LocalProtocolError:
            raise OSError(errno.EPROTO, "a message that cannot be sent on") from None
        if raw:
            self._spend(len(raw))
            await stream.send(raw)

    async def _download(
        self,
        head: Head,
        server: h11.Connection,
        client: h11.Connection,
        upstream: Stream,
        scrub: secrets.Scrub,
    ) -> bool:
        """Send the response on; returns whether another request may follow on this connection."""
        while True:
            try:
                event = client.next_event()
            except h11.RemoteProtocolError as e:
                why = scrub.whole(str(e).encode("utf-8", "replace")).decode("utf-8", "replace")
                raise OSError(errno.EPROTO, f"a malformed response: {why}") from None
            if event is h11.NEED_DATA:
                client.receive_data(await upstream.recv())
                continue
            if isinstance(event, h11.InformationalResponse):
                if event.status_code == 101:
                    self._begun = True
                    await self._send(server, self._client, _response(event, scrub, switching=True))
                    await self._switched(client, server, upstream, scrub)
                    return False
                if server.their_http_version == b"1.1":
                    await self._send(server, self._client, _response(event, scrub))
            elif isinstance(event, h11.Response):
                self._look(head, event, scrub)
                self._begun = True
                await self._send(server, self._client, _response(event, scrub))
            elif isinstance(event, h11.Data):
                if data := scrub.feed(bytes(event.data)):
                    await self._send(server, self._client, h11.Data(data=data))
            elif isinstance(event, h11.EndOfMessage):
                if rest := scrub.feed(b"", last=True):
                    await self._send(server, self._client, h11.Data(data=rest))
                old = server.their_http_version == b"1.0"
                trailers = [] if old else [(n, scrub.whole(v)) for n, v in event.headers]
                await self._send(server, self._client, h11.EndOfMessage(headers=trailers))
                if self._permit is not None:
                    self._permit.on_revoked = None  # it is carried out
                return await self._next(server, client)
            elif isinstance(event, h11.ConnectionClosed):
                raise OSError(errno.ECONNRESET, "the server ended before its response")

    def _look(self, head: Head, event: h11.Response, scrub: secrets.Scrub) -> None:
        """Raises Refused for a response that must not go to the client, OSError for one that cannot be looked through."""
        permit = self._permit
        if permit is not None and head.upgrade == "websocket" and event.status_code < 300:
            raise self._authority.refuse(
                "request", permit.resource, self._origin, "the server did not change to WebSocket, and its answer would be a GET's",
                "built-in: WebSocket", "a rule that allows the GET, and a request without Upgrade",
            )  # fmt: skip
        coding = [v.lower() for n, v in event.headers if n == b"content-encoding"]
        if scrub.used and any(c not in (b"", b"identity") for c in coding):
            raise OSError(errno.EPROTO, "it answers in an encoding in which a secret would not be seen")

    async def _next(self, server: h11.Connection, client: h11.Connection) -> bool:
        if (
            client.our_state is h11.SEND_BODY
            or server.our_state is not h11.DONE
            or server.their_state is not h11.DONE
        ):
            await self._client.end()  # the server answered before it had heard all
            await linger(self._client.sock)
            return False
        if (
            client.our_state is not h11.DONE
            or client.their_state is not h11.DONE
            or client.trailing_data[0]
        ):
            assert self._upstream is not None
            self._upstream.sock.close()
            self._upstream, self._where = None, ("", 0)
        self._buffer = server.trailing_data[0] + self._buffer
        return True

    async def _switched(
        self, client: h11.Connection, server: h11.Connection, upstream: Stream, scrub: secrets.Scrub
    ) -> None:
        """Relay what is no longer HTTP, until both directions have ended or one fails."""
        if early := scrub.feed(client.trailing_data[0]):
            self._spend(len(early))
            await self._client.send(early)
        if early := server.trailing_data[0] + self._buffer:
            self._spend(len(early))
            await upstream.send(early)
        tasks = [
            asyncio.ensure_future(_pump(self._client, upstream, self._spend, secrets.Scrub(()))),
            asyncio.ensure_future(_pump(upstream, self._client, self._spend, scrub)),
        ]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()


async def _pump(source: Stream, sink: Stream, spend: Callable[[int], None], scrub: secrets.Scrub) -> None:
    """Send on what ``source`` says, without secrets, until it ends; ``spend`` raises to end it before."""
    coming = asyncio.ensure_future(source.recv())
    try:
        over = False
        while not over:
            await asyncio.wait({coming}, timeout=SETTLED if scrub.holds else None)
            data = b""
            if coming.done():
                data = coming.result()
                over = not data
                spend(len(data))
                if not over:
                    coming = asyncio.ensure_future(source.recv())
            if data := scrub.feed(data, last=not data):
                await sink.send(data)
        await sink.end()
    finally:
        coming.cancel()


def _response(
    event: h11.Response | h11.InformationalResponse, scrub: secrets.Scrub, *, switching: bool = False
) -> h11.Response | h11.InformationalResponse:
    """Return ``event`` for the client: without what was between the server and us, and without secrets."""
    fields = []
    for name, value in event.headers.raw_items():
        low = name.lower()
        if low in (b"alt-svc", b"proxy-connection", b"keep-alive") or (
            low == b"connection" and not switching
        ):
            continue  # no other protocol or port is offered, and our connections are our own
        fields.append((scrub.whole(name), scrub.whole(value)))
    kind = type(event)
    return kind(status_code=event.status_code, headers=fields, reason=scrub.whole(event.reason))


def _has_body(head: Head) -> bool:
    return bool(head.get(b"transfer-encoding")) or any(v.strip(b"0") for v in head.get(b"content-length"))


def _names(query: str) -> list[str]:
    """Return the names of a query's parameters, plain and lower case."""
    return [unquote_plus(p.partition("=")[0]).lower() for p in query.split("&")]


async def permitted(ctx: Context, op: str, resource: str, origin: Origin, client: socket.socket) -> Permit:
    """Return a permit; what is asked is asked for as long as ``client`` is there. Raises Refused."""
    permit = ctx.authority.permit_now(op, resource, origin)
    if permit is not None:
        return permit
    gone = asyncio.Event()
    with HangUp(client, gone):
        return await ctx.authority.permit(op, resource, origin, gone=gone)


def ends(permit: Permit, client: socket.socket) -> Permit:
    """Have what is served here end, and ``client`` see a reset, when ``permit`` is revoked."""
    serving = asyncio.current_task()
    assert serving is not None
    permit.on_revoked = lambda: revoke(serving, client)
    return permit


def explicitly_allowed(ctx: Context, host: str, port: int) -> bool:
    """Tell whether the policy in force simply allows to connect to ``host``."""
    return ctx.authority.decide("connect", hosts.join(host, port)).verdict == ALLOW
