"""The doors on loopback: accepted connections, matched with what the supervisor announced, handed to who serves them.

    dial   -> permission and upstream (``dial``) -> dialed -> the agent's socket is connected to us -> bound -> serve_transparent
    proxy  -> serve_proxy          resolver -> the DNS stub          bus -> a one-shot Unix listener -> serve_bus

A blocking connect waits for its answer as long as it takes. For a non-blocking one the answer comes within SOON; what is
undecided then goes on behind an accepted connection, and a later failure resets it, or, where the client speaks
a protocol that has words for it, says why.
"""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import select
import socket
import struct
from typing import TYPE_CHECKING

from remit_daemon.gateway import parts
from remit_daemon.gateway.announced import WAIT, Announced
from remit_daemon.gateway.authority import Origin, Refused
from remit_daemon.gateway.dns.stub import serve_tcp

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from remit_daemon.gateway.context import Context
    from remit_daemon.gateway.dial import Dialer, Opened
    from remit_daemon.gateway.dns.resolver import Resolver

SOON = (
    0.25  # seconds: event loops expect a non-blocking connect to a near host to settle at about this time
)
BOUND_WAIT = 15.0  # seconds that an opened upstream waits for the agent's socket
BACKLOG_BATCH = 64  # connections accepted in one go
MAX_DIALS = 4096  # connects that are decided or dialled at once; more are refused with EAGAIN
MAX_TCP_DNS = 128  # DNS connections at once
FDS_EACH = (
    6  # a relayed connection: client, upstream, and two for each direction's pipe once it carries much
)
FDS_KEPT = 256  # for everything else
MAX_CONNECTIONS = 12_000  # at once; memory for each is some 20 kB
BUS_WAIT = 10.0  # seconds that a bus listener waits for its one connection
EMFILE_PAUSE = 0.1  # seconds without accepting when descriptors have run out
_RESET = struct.pack("ii", 1, 0)  # struct linger: on, 0 s: close sends RST
_UCRED = struct.Struct("3i")


class Dial:
    """One agent's connect on its way."""

    __slots__ = ("gone", "id", "opening", "origin", "port", "soon", "timer", "told")

    def __init__(self, id: int, origin: Origin, port: int) -> None:
        self.id = id
        self.origin = origin
        self.port = port
        self.gone = asyncio.Event()
        self.opening: asyncio.Task[Opened] | None = None
        self.told = False  # the supervisor has its answer
        self.soon: asyncio.TimerHandle | None = None
        self.timer: asyncio.TimerHandle | None = None


class Doors:
    """The listeners and what comes through them. ``reply`` sends a frame to the supervisor."""

    def __init__(
        self,
        ctx: Context,
        dialer: Dialer,
        resolver: Resolver,
        reply: Callable[[dict[str, Any]], None],
    ) -> None:
        self._ctx = ctx
        self._dialer = dialer
        self._resolver = resolver
        self._reply = reply
        self._loop = asyncio.get_running_loop()
        self._dials: dict[int, Dial] = {}
        self._buses: dict[int, asyncio.Event] = {}
        self._bound: Announced[Dial] = Announced()
        self._proxied: Announced[Origin] = Announced()
        self._dns: Announced[Origin] = Announced()
        self._dns_udp: Announced[Origin] = Announced(lasting=True)
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = 0
        self._open_dns = 0
        self._limit = _connections()
        self.ports: dict[str, int] = {}

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._ctx.log.error("fault", exc_info=error)
            self._ctx.authority.fault("gateway", f"internal fault: {type(error).__name__}: {error}")

    # -- what the supervisor says ------------------------------------------------------------------

    def dial(self, frame: dict[str, Any]) -> None:
        """An agent connects: answer with ``dialed``."""
        if len(self._dials) >= MAX_DIALS or frame["id"] in self._dials:
            self._dialed(frame["id"], errno.EAGAIN, why="too many connects at once")
            return
        dial = Dial(frame["id"], Origin.of(frame), frame["port"])
        self._dials[dial.id] = dial
        ip = frame["ip"]
        dial.opening = self._loop.create_task(self._dialer.open(ip, dial.port, dial.origin, dial.gone))
        dial.opening.add_done_callback(lambda _: self._decided(dial, ip))
        if not frame["blocking"]:
            dial.soon = self._loop.call_later(SOON, self._decided, dial, ip)

    def _decided(self, dial: Dial, ip: str) -> None:
        """Answer a dial, once: it is opened or refused, or it must not wait longer."""
        assert dial.opening is not None
        if dial.told:
            return
        dial.told = True
        if dial.soon is not None:
            dial.soon.cancel()
        code, why = _outcome(dial.opening) if dial.opening.done() else (0, "")
        if code:
            self._dials.pop(dial.id, None)
            self._dialed(dial.id, code, why=why)
            return
        dial.timer = self._loop.call_later(BOUND_WAIT, self._abandon, dial)
        # A mapped address of an IPv6 socket is connected to the mapped form of our IPv4 listener.
        v6 = ":" in ip and "." not in ip and "tcp6" in self.ports
        self._dialed(dial.id, 0, port=self.ports["tcp6" if v6 else "tcp"], v6=v6)

    def _dialed(self, id: int, code: int, *, port: int = 0, v6: bool = False, why: str = "") -> None:
        self._reply({"type": "dialed", "id": id, "errno": code, "port": port, "v6": v6, "why": why})

    def _abandon(self, dial: Dial) -> None:
        """Nobody comes for this connection any more."""
        if self._dials.pop(dial.id, None) is None:
            return
        dial.gone.set()
        if dial.timer is not None:
            dial.timer.cancel()
        if dial.opening is not None:
            dial.opening.add_done_callback(_close_opened)
            dial.opening.cancel()

    def bound(self, frame: dict[str, Any]) -> None:
        """The agent's socket of a dial is connected from this port."""
        dial = self._dials.get(frame["id"])
        if dial is not None:
            self._bound.tell(frame["v6"], frame["port"], dial)

    def gone(self, frame: dict[str, Any]) -> None:
        """The target of a dial or bus gave up."""
        dial = self._dials.get(frame["id"])
        if dial is not None:
            self._abandon(dial)
        waiting = self._buses.get(frame["id"])
        if waiting is not None:
            waiting.set()

    def proxy(self, frame: dict[str, Any]) -> None:
        """The agent connected to the explicit proxy from this port."""
        self._proxied.tell(frame["v6"], frame["port"], Origin.of(frame))

    def resolver(self, frame: dict[str, Any]) -> None:
        """The agent's DNS socket is connected from this port."""
        (self._dns if frame["tcp"] else self._dns_udp).tell(False, frame["port"], Origin.of(frame))

    def dns(self, frame: dict[str, Any]) -> None:
        """A query that would go past us: say whether it may."""
        self._start(self._judge_query(frame["id"], frame["query"], Origin.of(frame)))

    async def _judge_query(self, id: int, raw: bytes, origin: Origin) -> None:
        allowed = False
        try:
            allowed = await self._resolver.may_pass(raw, origin)
        finally:
            self._reply({"type": "dnsed", "id": id, "verdict": "allow" if allowed else "deny"})

    def bus(self, frame: dict[str, Any]) -> None:
        """An agent connects to a bus: answer with ``bused``."""
        self._start(self._bus(frame["id"], frame["which"], Origin.of(frame)))

    async def _bus(self, id: int, which: str, origin: Origin) -> None:
        def say(code: int, path: str = "", why: str = "") -> None:
            self._reply({"type": "bused", "id": id, "errno": code, "path": path, "why": why})

        ctx = self._ctx
        address = {"session": ctx.session_bus, "system": ctx.system_bus}.get(which, "")
        if not address:
            say(errno.ECONNREFUSED, why=f"there is no {which} bus")
            return
        path = f"{ctx.private}/bus-{id}"
        gone = self._buses[id] = asyncio.Event()
        listener = None
        try:
            serve = parts.of("serve_bus")
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            listener.bind(path)
            listener.listen(1)
            say(0, path)
            client = await self._one_client(listener, gone)
        except (OSError, ImportError) as e:
            say(errno.EACCES, why=str(e))
            return
        finally:
            del self._buses[id]
            if listener is not None:
                listener.close()
                try:
                    os.unlink(path)
                except OSError:
                    pass
        if client is not None:
            with client:
                await serve(ctx, client, origin, which, address)

    async def _one_client(self, listener: socket.socket, gone: asyncio.Event) -> socket.socket | None:
        """Return the supervisor's connection, None when it does not come. Its credentials are the supervisor's."""
        accepting = asyncio.ensure_future(self._loop.sock_accept(listener))
        leaving = asyncio.ensure_future(gone.wait())
        try:
            await asyncio.wait({accepting, leaving}, timeout=BUS_WAIT, return_when=asyncio.FIRST_COMPLETED)
            if not accepting.done():
                return None
            client, _ = accepting.result()
            pid, uid, _ = _UCRED.unpack(
                client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
            )
            if pid != os.getppid() or uid != os.getuid():
                client.close()
                return None
            return client
        finally:
            accepting.cancel()
            leaving.cancel()

    # -- what comes in -----------------------------------------------------------------------------

    def listen(self, kind: str, listener: socket.socket) -> None:
        """Accept from ``listener``: ``kind`` is tcp, tcp6, proxy or dns_tcp."""
        listener.setblocking(False)
        self.ports[kind] = listener.getsockname()[1]
        self._loop.add_reader(listener.fileno(), self._accept, kind, listener)

    async def who_asks(self, port: int) -> Origin | None:
        """Return who sends DNS queries from this UDP port."""
        return await self._dns_udp.of(False, port)

    def _accept(self, kind: str, listener: socket.socket) -> None:
        for _ in range(BACKLOG_BATCH):
            try:
                client, peer = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:  # EMFILE, ENFILE, ENOMEM: later, or the loop would spin
                self._loop.remove_reader(listener.fileno())
                self._loop.call_later(
                    EMFILE_PAUSE, self._loop.add_reader, listener.fileno(), self._accept, kind, listener
                )
                return
            client.setblocking(False)
            full = self._open_dns >= MAX_TCP_DNS if kind == "dns_tcp" else self._open >= self._limit
            if full:
                reset(client)
                continue
            self._count(kind, 1)
            self._start(self._serve(kind, client, peer[1], client.family == socket.AF_INET6))

    async def _serve(self, kind: str, client: socket.socket, port: int, v6: bool) -> None:
        try:
            if kind == "dns_tcp":
                origin = await self._dns.of(v6, port)
                if origin is not None:
                    await serve_tcp(self._resolver, client, origin)
            elif kind == "proxy":
                origin = await self._proxied.of(v6, port)
                if origin is not None:
                    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    await parts.of("serve_proxy")(self._ctx, client, origin)
            else:
                dial = await self._bound.of(v6, port, WAIT)
                if dial is not None:
                    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    await self._transparent(client, dial)
        except (OSError, Refused):
            pass
        finally:
            client.close()
            self._count(kind, -1)

    def _count(self, kind: str, more: int) -> None:
        if kind == "dns_tcp":
            self._open_dns += more
        else:
            self._open += more

    async def _transparent(self, client: socket.socket, dial: Dial) -> None:
        """Serve the agent's connection when its upstream is there; until then watch that the agent waits."""
        self._dials.pop(dial.id, None)
        if dial.timer is not None:
            dial.timer.cancel()
        opening = dial.opening
        assert opening is not None
        try:
            if not opening.done():
                with HangUp(client, dial.gone):
                    await asyncio.wait({opening})
            opened = opening.result()
        except asyncio.CancelledError:
            opening.add_done_callback(_close_opened)
            opening.cancel()
            raise
        except Refused as e:
            if not dial.gone.is_set():
                await self._explain(client, dial.origin, e)
            return
        except OSError:
            reset(client)
            return
        serving = asyncio.current_task()
        assert serving is not None
        permit = opened.permit
        if permit.revoked:  # while it was dialled; cancelling would come only where the service first waits
            opened.abandon("revoked")
            reset(client)
            return
        permit.on_revoked = lambda: revoke(serving, client, opened.upstream)
        try:
            await parts.of("serve_transparent")(
                self._ctx,
                client,
                dial.origin,
                opened.ip,
                opened.port,
                opened.names,
                opened.upstream,
                permit,
            )
            permit.done()
        except OSError as e:
            permit.done(errno.errorcode.get(e.errno or 0, "EIO"), note=e.strerror or "")
        except Refused:
            permit.done("refused")
        finally:
            opened.abandon("gone")

    async def _explain(self, client: socket.socket, origin: Origin, refused: Refused) -> None:
        """Let a client that was let in early read why it is refused; reset it when its protocol has no words."""
        try:
            await parts.of("serve_refused")(self._ctx, client, origin, refused)
        except (ImportError, OSError):
            reset(client)

    def close(self) -> None:
        """End everything: the supervisor is gone."""
        for task in self._tasks:
            task.cancel()
        for dial in list(self._dials.values()):
            self._abandon(dial)


class HangUp:
    """Sets ``gone`` when the peer of ``client`` closes its side, whatever lies unread before that."""

    def __init__(self, client: socket.socket, gone: asyncio.Event) -> None:
        self._client = client
        self._gone = gone

    def __enter__(self) -> None:
        # A poll set of its own: reading would take the bytes, and peeking sees the end only behind them.
        self._poll = select.epoll()
        self._poll.register(self._client.fileno(), select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR)
        asyncio.get_running_loop().add_reader(self._poll.fileno(), self._over)

    def _over(self) -> None:
        asyncio.get_running_loop().remove_reader(self._poll.fileno())
        self._gone.set()

    def __exit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self._poll.fileno())
        self._poll.close()


def reset(client: socket.socket) -> None:
    """Close ``client`` so that its peer sees a reset, not an orderly end."""
    will_reset(client)
    client.close()


def will_reset(*socks: socket.socket) -> None:
    """Have the peers of ``socks`` see a reset when these are closed: what they got is not whole."""
    for sock in socks:
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        except OSError:
            pass


def revoke(serving: asyncio.Task[Any], *socks: socket.socket) -> None:
    """End ``serving``, whose permission is no more, and reset what it serves."""
    will_reset(*socks)
    serving.cancel()


def _close_opened(opening: asyncio.Future[Opened]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().abandon("gone")


def _outcome(opening: asyncio.Task[Opened]) -> tuple[int, str]:
    """Return the errno (0: opened) and the reason of a dial that is decided."""
    if opening.cancelled():
        return errno.ECONNABORTED, "the program gave up"
    error = opening.exception()
    if error is None:
        return 0, ""
    if isinstance(error, Refused):
        return errno.EACCES, error.reason
    if isinstance(error, OSError) and error.errno:
        return error.errno, error.strerror or ""
    return errno.EACCES, f"internal fault: {type(error).__name__}"


def _connections() -> int:
    """Raise the limit of open files as far as it goes; return how many connections fit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
        except (OSError, ValueError):
            pass
    return max(16, min(MAX_CONNECTIONS, (soft - FDS_KEPT) // FDS_EACH))
