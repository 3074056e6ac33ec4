"""What a connection of the agent's really asks for, and whether it may have it.

    first bytes -> TLS    server name must be one that led here   -> pass through, or end the TLS and look at requests
                -> HTTP   Host likewise, for every request        -> exchange
                -> other  every name that led here must be allowed -> pass through

What a lenient server would take for HTTP is HTTP here, and then read strictly. HTTP/2 without TLS is another protocol.

A connection comes with the names by which its address was looked up (the decided one first), or with none: then it is the bare
address that was decided. A name that only the client claims counts when policy allows that very name; it is then connected
to by that name, never to the address. No server name, or an encrypted hello, is a host unknown: the address itself must be
allowed. Nothing of the client's goes out before it has been looked at; a server that speaks first is heard.

Where a host has rules for requests, a secret, or is to get signed requests, only HTTP that we can read goes there.
"""

from __future__ import annotations

import asyncio
import errno
import json
import socket
import ssl
from functools import cache
from typing import TYPE_CHECKING, Any

from remit_daemon.gateway.accept import will_reset
from remit_daemon.gateway.authority import Refused
from remit_daemon.gateway.dial import peer
from remit_daemon.gateway.http import hello as tls
from remit_daemon.gateway.http import relay as relays
from remit_daemon.gateway.http import secrets, signatures
from remit_daemon.gateway.http.ca import Authority as Certificates
from remit_daemon.gateway.http.ca import ensure
from remit_daemon.gateway.http.exchange import Exchange, ends, explicitly_allowed, permitted
from remit_daemon.gateway.http.head import MAX_HEAD, PREFACE, TOKEN, Head
from remit_daemon.gateway.http.streams import CHUNK, Plain, Stream, Tls, linger
from remit_policy import hosts
from remit_policy.model import ALLOW

if TYPE_CHECKING:
    from collections.abc import Iterable

    from remit_daemon.gateway.authority import Origin, Permit
    from remit_daemon.gateway.context import Context

SILENT = 0.2  # seconds without a byte of the client after which the server may speak first
HELLO_WITHIN = 30.0  # seconds for a whole ClientHello or request line, once it has begun
HANDSHAKE_WITHIN = 30.0
EXPLAIN_WITHIN = 5.0  # seconds that a refused client has to say in which protocol it wants to hear why
TLS, HTTP, OTHER = "TLS", "HTTP", "other"
_RULE = "built-in: the host that is meant"


def kind_of(data: bytes) -> str:
    """Return which protocol ``data``, the client's first bytes, begins; "" while that is open."""
    if data[:1] == b"\x16":
        return TLS if len(data) > 1 and data[1] == 3 else OTHER if len(data) > 1 else ""
    if data.startswith(PREFACE):
        return OTHER
    line, newline, _ = data.lstrip(b" \t\r\n").partition(b"\n")
    if b"HTTP/" in line.upper() and (newline or not PREFACE.startswith(data)):
        return HTTP
    word = line.replace(b"\t", b" ").rstrip(b"\r").partition(b" ")[0]
    if newline or not set(word) <= TOKEN or b"\0" in line:  # git's own protocol is one such line
        return OTHER
    return HTTP if len(data) > MAX_HEAD else ""


class _First:
    """The client's first bytes, and what they say."""

    __slots__ = ("data", "hello", "kind")

    def __init__(self, data: bytes, kind: str, hello: tls.Hello | None) -> None:
        self.data = data
        self.kind = kind
        self.hello = hello


def _told(data: bytes) -> _First | None:
    """Return what ``data`` begins, None while that is open. Raises HelloError."""
    kind = kind_of(data)
    if kind in (HTTP, OTHER) and data:
        return _First(data, kind, None)
    if kind == TLS and (found := tls.parse(data)) is not None:
        return _First(data, TLS, found)
    return None


async def _readable(sock: socket.socket, seconds: float | None = None) -> bool:
    """Say whether ``sock`` has something to read within ``seconds`` (None: however long that takes).

    Nothing is read, so nothing is lost by who is cancelled here.
    """
    loop = asyncio.get_running_loop()
    found: asyncio.Future[bool] = loop.create_future()

    def end(result: bool) -> None:
        if not found.done():
            found.set_result(result)

    loop.add_reader(sock.fileno(), end, True)
    timer = None if seconds is None else loop.call_later(seconds, end, False)
    try:
        return await found
    finally:
        if timer is not None:
            timer.cancel()
        loop.remove_reader(sock.fileno())


async def _listen(client: socket.socket, heard: bytearray) -> _First:
    """Read, to the end of ``heard``, until it is clear what the client speaks.

    Raises HelloError, OSError, EOFError when it says nothing at all.
    """
    while True:
        if (first := _told(bytes(heard))) is not None:
            return first
        await _readable(client)
        more = client.recv(CHUNK)
        if not more:
            if not heard:
                raise EOFError
            return _First(bytes(heard), OTHER, None)
        heard += more


class _Connection:
    """One connection on its way: ``names`` led here, or nothing did and ``ip`` is meant."""

    def __init__(
        self, ctx: Context, client: socket.socket, origin: Origin, ip: str, port: int, names: tuple[str, ...],
        upstream: socket.socket | None, permit: Permit | None,
    ) -> None:  # fmt: skip
        self.ctx = ctx
        self.client = client
        self.origin = origin
        self.ip = hosts.service(ip)
        self.port = port
        self.names = names
        self.upstream = upstream
        self.permit = permit
        self.allowed = {names[0] if names else self.ip}  # hosts that a permit was given for
        self.permits: list[Permit] = []
        self.first: _First | None = (
            None  # what was read and not gone further: a refusal can be said in its protocol
        )

    def refuse(self, reason: str, host: str = "", how: str = "") -> Refused:
        resource = hosts.join(host or (self.names[0] if self.names else self.ip), self.port)
        return self.ctx.authority.refuse("connect", resource, self.origin, reason, _RULE, how)

    async def mean(self, host: str, port: int, said: str) -> None:
        """Return when this connection may be to ``host``, as the client ``said``. Raises Refused."""
        host = hosts.service(host)
        if port != self.port:
            raise self.refuse(f"{said} names port {port} on a connection to port {self.port}", host)
        if host in self.allowed:
            return
        if self.names and host not in self.names:
            led = ", ".join(self.names)
            raise self.refuse(f"{said} names {host}, but the address was looked up as {led}", host)
        if not self.names and not explicitly_allowed(self.ctx, host, port):
            raise self.refuse(f"{said} names {host}, but the connection is to the address {self.ip}", host)
        await self._permit(hosts.join(host, port))
        self.allowed.add(host)
        if not self.names:
            self._drop()  # what is reached is that name's own address

    async def _permit(self, resource: str) -> None:
        """Return when the connection is permitted as one to ``resource``, too; it ends with that permission. Raises Refused."""
        permit = await permitted(self.ctx, "connect", resource, self.origin, self.client)
        self.permits.append(ends(permit, self.client))

    async def mean_address(self, why: str) -> None:
        """Return when the connection may go to the bare address, whatever host is meant there. Raises Refused."""
        for name in self.names:
            if name != self.ip and self.looked_into(name):
                raise self.refuse(f"{why}, so the host is unknown, and {name} has rules for requests", name)
        if not self.names or self.ip in self.allowed:
            return
        resource = hosts.join(self.ip, self.port)
        if self.ctx.authority.decide("connect", resource).verdict != ALLOW:
            how = f"a rule that allows connect to {resource} would let it"
            raise self.refuse(f"{why}, so the host is unknown", how=how)
        await self._permit(resource)

    async def mean_all(self) -> None:
        """Return when every name that led here is allowed. Raises Refused.

        The names of this machine stand in its hosts file, all for the same: one that is allowed is enough.
        """
        for name in self.names if self.ip != hosts.LOCAL else ():
            await self.mean(name, self.port, "the address")

    def looked_into(self, host: str) -> bool:
        """Tell whether only readable requests may go to ``host``."""
        vault = secrets.vault_of(self.ctx)
        authority = self.ctx.authority
        return (
            authority.engine.has_requests(host, self.port)
            or bool(vault.bound(host, self.port))
            or signatures.wanted(authority.snapshot, host, self.port)
        )

    def _drop(self) -> None:
        if self.upstream is not None:
            self.upstream.close()
            self.upstream = None

    async def reach(self, host: str) -> socket.socket:
        """Return a socket connected to ``host``, which may be meant. Raises Refused, OSError."""
        sock, self.upstream = self.upstream, None
        if sock is not None:
            return sock
        return await self.ctx.dial(host, self.port, self.origin)

    def close(self) -> None:
        self._drop()
        for permit in self.permits:
            permit.done()

    def count(self, amount: int) -> bool:
        """Spend ``amount`` bytes of the budget; False when there is no more."""
        return spend((self.permit, *self.permits), amount)

    def pay(self, data: bytes) -> None:
        """Count ``data``, which goes out next. Raises OSError when the budget has no room for it."""
        if not self.count(len(data)):
            raise OSError(errno.EDQUOT, "the budget is spent")

    # -- what follows the first bytes --------------------------------------------------------------

    async def pass_through(self, first: bytes, host: str) -> None:
        upstream = await self.reach(host)
        try:
            if first:
                self.pay(first)
                await asyncio.get_running_loop().sock_sendall(upstream, first)
            await relays.relay(self.client, upstream, self.count)
        finally:
            upstream.close()

    async def serve(self, data: bytes = b"") -> None:
        """Serve the connection. Raises Refused, OSError."""
        first = self.first = await self._first(data)
        if first is None:
            return
        if first.kind == HTTP:
            await self._requests(Plain(self.client, first.data), "http")
        elif first.kind == TLS:
            assert first.hello is not None
            await self._tls(first.data, first.hello)
        else:
            await self.mean_all()
            for host in self.names or (self.ip,):
                if self.looked_into(host):
                    raise self.refuse(f"{host} has rules for requests, and this is no HTTP/1", host)
            await self.pass_through(first.data, self.names[0] if self.names else self.ip)

    async def _first(self, data: bytes) -> _First | None:
        """Return what the client begins with; None when the server began and all has been served."""
        readable = any(self.looked_into(h) for h in self.names or (self.ip,))
        limit = SILENT if self.upstream and not readable else HELLO_WITHIN
        heard = bytearray(data)
        try:
            # Nearly all clients begin by themselves, and in one piece: no task is needed for those.
            if not heard and await _readable(self.client, limit):
                heard += self.client.recv(CHUNK)
                if not heard:
                    return None
            if heard and (first := _told(bytes(heard))) is not None:
                return first
        except tls.HelloError as e:
            raise self.refuse(f"a malformed TLS hello: {e}") from None
        listening = asyncio.ensure_future(_listen(self.client, heard))
        try:
            await asyncio.wait({listening}, timeout=limit if heard else 0)
            if not listening.done() and self.upstream is not None and not readable:
                if heard and self.ip == hosts.LOCAL:
                    return _First(
                        bytes(heard), OTHER, None
                    )  # one service only is there, whatever Host would say
                return await self._server_first(listening, heard)
            if not listening.done():
                raise self.refuse("the client says nothing")
            return listening.result()
        except tls.HelloError as e:
            raise self.refuse(f"a malformed TLS hello: {e}") from None
        except EOFError:
            return None
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    async def _server_first(self, listening: asyncio.Future[_First], heard: bytearray) -> _First | None:
        """Pass on what the server says while the client is silent; it is heard before anything of its own goes out.

        A client may be silent for as long as it likes, but not stop in a beginning (``heard``) that could be anyone's request.
        """
        loop = asyncio.get_running_loop()
        assert self.upstream is not None
        while not listening.done():
            begun = len(heard)
            hearing = asyncio.ensure_future(_readable(self.upstream, HELLO_WITHIN))
            both: set[asyncio.Future[Any]] = {listening, hearing}
            try:
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            finally:
                hearing.cancel()
                await asyncio.gather(hearing, return_exceptions=True)
            if hearing.cancelled():
                continue
            if hearing.result():
                said = self.upstream.recv(CHUNK)
                if not said:
                    await Plain(self.client).end()
                    break
                self.pay(said)
                await loop.sock_sendall(self.client, said)
            elif begun and len(heard) == begun:
                raise self.refuse("the client begins what could be a request, and does not go on")
        return await listening

    async def _tls(self, data: bytes, hello: tls.Hello) -> None:
        if hello.ech or not hello.sni:
            await self.mean_address(
                "the TLS hello is encrypted" if hello.ech else "TLS without a server name"
            )
            host = self.ip
            if hello.ech and self.looked_into(host):
                raise self.refuse(f"the TLS hello is encrypted, and {host} has rules for requests", host)
        else:
            try:
                host = hosts.canonical(hello.sni)
            except hosts.HostError as e:
                raise self.refuse(f"a server name that is none: {e}") from None
            await self.mean(host, self.port, "TLS")
        if not self.looked_into(host):
            await self.pass_through(data, host)
            return
        await self._end_tls(data, hello, host)

    async def _end_tls(self, data: bytes, hello: tls.Hello, host: str) -> None:
        if hello.alpn and b"http/1.1" not in hello.alpn:
            offered = ", ".join(p.decode("latin-1") for p in hello.alpn)
            raise self.refuse(
                f"{host} has rules for requests, which are read as HTTP/1.1; the client offers {offered} alone",
                host,
            )
        client = Tls(Plain(self.client, data), certificates(self.ctx).context(host), server_side=True)
        self.first = None
        try:
            async with asyncio.timeout(HANDSHAKE_WITHIN):
                await client.handshake()
        except (ssl.SSLError, OSError, TimeoutError) as e:
            said = getattr(e, "reason", None) or e
            raise self.refuse(
                f"the client does not take remit's certificate for {host} ({said}): it trusts certificates of its own (pinning)", host,
                "let it trust the bundle in SSL_CERT_FILE, or have no rules for requests and no secret for this host",
            ) from None  # fmt: skip
        await self._requests(client, "https", host)

    async def _requests(self, client: Stream, scheme: str, sni: str = "") -> None:
        async def allow(host: str, port: int) -> None:
            if sni and hosts.service(host) != sni:
                raise self.refuse(f"Host names {host}, but TLS named {sni}", host)
            await self.mean(host, port, "Host")

        async def connect(host: str, port: int) -> Stream:
            sock = await self.reach(host)
            return await secured(sock, host) if scheme == "https" else Plain(sock)

        fallback = sni or (self.names[0] if self.names else self.ip)
        await Exchange(
            self.ctx,
            client,
            self.origin,
            scheme,
            self.port,
            allow,
            connect,
            fallback=fallback,
            count=self.count,
        ).serve()


def spend(permits: Iterable[Permit | None], amount: int) -> bool:
    """Count bytes against the budgets of ``permits``, once for each rule, and against the agent's limits; False when one
    is spent."""
    rules = {permit.rule.source if permit.rule else "": permit for permit in permits if permit is not None}
    within = [permit.spend(amount) for permit in rules.values()]
    within += [permit.flow(amount) for permit in [*rules.values()][:1]]
    return all(within)


@cache
def _trusting() -> ssl.SSLContext:
    """Return the context of connections to servers; reading the machine's certificates takes longer than a handshake."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


async def secured(sock: socket.socket, host: str) -> Tls:
    """Return TLS to ``host`` over ``sock``, its certificate verified. Raises OSError."""
    upstream = Tls(Plain(sock), _trusting(), server_side=False, name=host)
    try:
        async with asyncio.timeout(HANDSHAKE_WITHIN):
            await upstream.handshake()
    except ssl.SSLCertVerificationError as e:
        sock.close()
        raise OSError(errno.EPROTO, f"its certificate is not valid: {e.verify_message}") from None
    except (ssl.SSLError, TimeoutError) as e:
        sock.close()
        raise OSError(errno.EPROTO, f"TLS fails: {getattr(e, 'reason', None) or 'no answer'}") from None
    except BaseException:
        sock.close()
        raise
    return upstream


def certificates(ctx: Context) -> Certificates:
    """Return the authority by which this gateway ends TLS. Raises OSError."""
    found = ctx.parts.get("certificates")
    if not isinstance(found, Certificates):
        found = ctx.parts["certificates"] = ensure(ctx.state)
    return found


async def prepare_secrets(ctx: Context) -> None:
    """Read the session's secrets and give out their placeholders, before the agent begins."""
    ctx.parts["vault"] = await secrets.prepare(ctx)


async def serve_transparent(
    ctx: Context, client: socket.socket, origin: Origin, ip: str, port: int, names: tuple[str, ...],
    upstream: socket.socket | None, permit: Permit | None,
) -> None:  # fmt: skip
    """Serve a connection that the agent made itself. Raises Refused, OSError."""
    connection = _Connection(ctx, client, origin, ip, port, names, upstream, permit)
    try:
        await connection.serve()
    except Refused as e:
        await _explain_or_reset(ctx, client, e, connection.first)
        raise
    finally:
        connection.close()


async def serve_refused(ctx: Context, client: socket.socket, origin: Origin, refused: Refused) -> None:
    """Tell a client of which nothing was read yet why it is refused. Raises OSError."""
    try:
        async with asyncio.timeout(EXPLAIN_WITHIN):
            first = await _listen(client, bytearray())
    except (TimeoutError, EOFError, tls.HelloError) as e:
        raise OSError(errno.ECONNRESET, str(e)) from None
    await explain(ctx, client, refused, first)


async def explain(ctx: Context, client: socket.socket, refused: Refused, first: _First | None) -> None:
    """Say why in the protocol that ``first``, the client's first bytes, begins; one without words for it is reset.

    Raises OSError.
    """
    if first is None:
        raise OSError(errno.ECONNRESET, "too far on for a refusal in words")
    stream: Stream = Plain(client)
    try:
        if first.kind == TLS and first.hello is not None and first.hello.sni:
            host = hosts.canonical(first.hello.sni)
            stream = Tls(Plain(client, first.data), certificates(ctx).context(host), server_side=True)
            async with asyncio.timeout(EXPLAIN_WITHIN):
                await stream.handshake()
                await stream.recv()
        elif first.kind != HTTP:
            raise OSError(errno.ECONNRESET, "no words for a refusal")
    except (TimeoutError, EOFError, hosts.HostError, ssl.SSLError) as e:
        raise OSError(errno.ECONNRESET, str(e)) from None
    await stream.send(refusal(403, "Forbidden", refused))
    await stream.end()
    await linger(client)


async def _explain_or_reset(
    ctx: Context, client: socket.socket, refused: Refused, first: _First | None
) -> None:
    try:
        await explain(ctx, client, refused, first)
    except OSError:
        will_reset(client)


def refusal(status: int, reason: str, refused: Refused, fault: str = "refused by remit") -> bytes:
    """Return a whole response that says why."""
    body = json.dumps(refused.as_dict() | {"error": fault}).encode() + b"\n"
    head = (
        f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode() + body


async def serve_proxy(ctx: Context, client: socket.socket, origin: Origin) -> None:
    """Serve a client that speaks to us as its proxy: CONNECT and absolute-form requests. Raises Refused, OSError."""
    current: list[Permit] = []  # of the host that is spoken to: another host is another connection

    async def allow(host: str, port: int) -> None:
        resource = hosts.join(hosts.service(host), port)
        if not current or current[0].resource != resource:
            leave()
            current.append(ends(await permitted(ctx, "connect", resource, origin, client), client))

    def leave() -> None:
        while current:
            current.pop().done()

    async def connect(host: str, port: int) -> Stream:
        return Plain(await ctx.dial(host, port, origin))

    async def tunnel(head: Head, rest: bytes) -> None:
        host, port = head.host, head.port
        await allow(host, port)
        permit = current[0]
        try:
            upstream = await ctx.dial(host, port, origin)
            ip = host if hosts.is_address(host) else peer(upstream)
        except OSError as e:
            fault = Refused(
                f"{host} cannot be reached: {e.strerror or e}",
                op="connect",
                resource=hosts.join(host, port),
            )
            permit.done(errno.errorcode.get(e.errno or 0, "EIO"), note=e.strerror or "")
            await Plain(client).send(refusal(502, "Bad Gateway", fault, "bad gateway"))
            return
        names = () if ip == host else (host,)
        connection = _Connection(ctx, client, origin, ip, port, names, upstream, permit)
        try:
            await Plain(client).send(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await connection.serve(rest)
        except Refused as e:
            await _explain_or_reset(ctx, client, e, connection.first)
        finally:
            connection.close()

    try:
        await Exchange(
            ctx,
            Plain(client),
            origin,
            "http",
            80,
            allow,
            connect,
            proxied=True,
            count=lambda n: spend(current, n),
        ).serve(tunnel)
    finally:
        leave()
