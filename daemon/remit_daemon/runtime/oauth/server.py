"""HTTP for the authorization server: one request a connection, over a Unix socket or TCP within this machine.

Over TCP (``[oauth.toml] loopback``) anything on the machine can connect, and any page of a browser can try to:

- the socket at the other end must be this user's, by the kernel's word;
- Host must be the very address that is served, so a name that was made to point here (DNS rebinding) reads nothing;
- Origin, where there is one, must be ours: pages are no clients, and none may read an answer;
- a page of another site cannot embed or fetch what a person is to navigate to (Sec-Fetch-Dest).

Sizes and times are bounded. Where all places are taken, who has been there for longest gives way, so that slow ones keep nobody out.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import h11

from remit_daemon.peers import loopback
from remit_daemon.peers.process import PeerError, inside_session
from remit_daemon.runtime.oauth.endpoints import Caller, Door, Endpoints
from remit_daemon.runtime.oauth.messages import Request, Response, refused
from remit_daemon.runtime.who import of_peer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from remit_daemon.peers.process import Peer
    from remit_daemon.runtime.channel import Channel
    from remit_daemon.runtime.daemon import Daemon

log = logging.getLogger("remitd.oauth")

ADDRESS = "127.0.0.1"
MAX_HEAD = 16 << 10  # bytes; a link of authorization is some kilobytes at most
MAX_BODY = 64 << 10
READ_WITHIN = 10.0  # seconds for a whole request
WRITE_WITHIN = 2.0  # seconds that the peer has to take the answer, and to close
MAX_CONNECTIONS = 32  # over TCP, at once
_PIECE = 1 << 14


async def read(
    http: h11.Connection, receive: Callable[[], Awaitable[bytes]], send: Callable[[bytes], None]
) -> Request | None:
    """Return the request that comes, None when the peer ends before it began. Raises h11.RemoteProtocolError, ConnectionError."""
    head: h11.Request | None = None
    body = b""
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            if http.they_are_waiting_for_100_continue:
                send(http.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
            data = await receive()
            if not data and head is None and not http.trailing_data[0]:
                return None
            http.receive_data(data)
        elif isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > MAX_BODY:
                raise h11.RemoteProtocolError(
                    f"a body of more than {MAX_BODY} bytes", error_status_hint=413
                )
        elif isinstance(event, h11.EndOfMessage) and head is not None:
            return _request(head, body)
        else:
            raise h11.RemoteProtocolError("the request breaks off")


def _request(head: h11.Request, body: bytes) -> Request:
    target = head.target.decode("ascii", "replace")
    if not target.startswith("/") or "#" in target:
        raise h11.RemoteProtocolError("the target is no path")
    path, _, query = target.partition("?")
    headers: dict[str, str] = {}
    for raw, value in head.headers:
        name = raw.decode("ascii")
        text = value.decode("latin-1")
        headers[name] = f"{headers[name]}, {text}" if name in headers else text
    return Request(head.method.decode("ascii"), path, query, headers, body)


async def exchange(receive: Callable[[], Awaitable[bytes]], send: Callable[[bytes], None], respond: Callable[[Request], Awaitable[Response]]) -> None:  # fmt: skip
    """Read one request and answer it. Raises ConnectionError."""
    http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
    method = ""
    try:
        async with asyncio.timeout(READ_WITHIN):
            request = await read(http, receive, send)
        if request is None:
            return
        method = request.method
        response = await respond(request)
    except TimeoutError:
        response = refused(408, "the request does not come")
    except h11.RemoteProtocolError as e:
        response = refused(e.error_status_hint, str(e))
    if http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
        out = http.send(h11.Response(status_code=response.status, headers=response.headers())) or b""
        if response.body and method != "HEAD":
            out += http.send(h11.Data(data=response.body)) or b""
        send(out)


def admit(request: Request, door: Door) -> Response | None:
    """Return why a request over TCP is not served, None when it is."""
    if request.headers.get("host", "").lower() != door.issuer.partition("//")[2]:
        return refused(421, f"this is {door.issuer}, and nothing else")
    if request.headers.get("origin", door.issuer) != door.issuer:
        return refused(403, "pages of other sites are not served")
    if request.headers.get("sec-fetch-dest", "document") != "document" and request.method == "GET":
        return refused(403, "this is to be opened, not embedded or fetched by a page")
    return None


class Server:
    """The authorization server's two doors."""

    def __init__(self, daemon: Daemon, endpoints: Endpoints) -> None:
        self._daemon = daemon
        self._endpoints = endpoints
        self._open: dict[asyncio.Task[None], None] = {}  # oldest first
        self._listener: asyncio.Server | None = None
        self._looking = ThreadPoolExecutor(1, "oauth")  # what has sessions ended is not to wait for it

    # -- the Unix socket ---------------------------------------------------------------------------

    async def unix(self, issuer: str, peer: Peer, channel: Channel) -> None:
        """Serve one connection of ``peer``, a process outside sessions."""

        async def receive() -> bytes:
            data, writer = await channel.receive()
            if data and writer.identity != peer.identity:
                raise PeerError("another process writes on this connection")
            return data

        async def caller() -> Caller:
            who = of_peer(peer)
            return Caller(who.pid, who.exe, who.comm, who.identity, who.pidfd)

        async def respond(request: Request) -> Response:
            supervisors = self._daemon.supervisors()  # a session's connect would be its supervisor's
            if peer.pid in supervisors or inside_session(peer.pid, supervisors):
                return refused(403, "programs inside a session ask at agent.sock")
            return await self._endpoints.respond(request, Door(issuer, held=True), caller)

        try:
            await exchange(receive, channel.send, respond)
        except PeerError as e:
            log.warning("refused: %s", e)

    # -- TCP ---------------------------------------------------------------------------------------

    async def listen(self, port: int) -> str:
        """Serve TCP at ``port`` of this machine and return the issuer. Raises OSError."""
        sock = socket.socket(
            socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        )
        try:
            sock.setsockopt(
                socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
            )  # Linux: only past what is closed already
            sock.bind((ADDRESS, port))
            door = Door(f"http://{ADDRESS}:{sock.getsockname()[1]}", held=False)
            self._listener = await asyncio.start_server(partial(self._tcp, door), sock=sock, limit=MAX_HEAD)
        except OSError:
            sock.close()
            raise
        return door.issuer

    async def _tcp(self, door: Door, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        while len(self._open) >= MAX_CONNECTIONS:
            oldest = next(iter(self._open))
            del self._open[oldest]
            oldest.cancel()
        self._open[task] = None
        try:
            found = loopback.owner(writer.get_extra_info("peername"), writer.get_extra_info("sockname"))
            if found is None or found[0] != os.getuid():
                log.warning("oauth: a connection of another user's, or gone already, is refused")
                return
            inode = found[1]

            async def respond(request: Request) -> Response:
                refusal = admit(request, door)
                return refusal or await self._endpoints.respond(request, door, lambda: self._caller(inode))

            await exchange(lambda: reader.read(_PIECE), writer.write, respond)
            async with asyncio.timeout(WRITE_WITHIN):
                await writer.drain()
                if writer.can_write_eof():
                    writer.write_eof()
                while await reader.read(
                    _PIECE
                ):  # what is left unread would have the kernel take back our last words
                    pass
        except (OSError, TimeoutError) as e:
            log.debug("oauth: %s", e)
        except asyncio.CancelledError:
            pass  # it gave way, or all ends
        except Exception:
            log.exception("internal error")
        finally:
            self._open.pop(task, None)
            if writer.transport.get_write_buffer_size():
                writer.transport.abort()  # it does not take its answer
            else:
                writer.close()

    async def _caller(self, inode: int) -> Caller:
        """Return who holds the socket ``inode``: an agent's process before others."""
        pids = await asyncio.get_running_loop().run_in_executor(self._looking, loopback.holders, inode)
        for pid in pids:
            if (session := self._daemon.by_peer(pid)) is not None:
                return Caller(pid, *_shown(pid), session=session)
        return Caller(pids[0], *_shown(pids[0])) if pids else Caller()

    async def close(self) -> None:
        """Listen no more and end every connection."""
        if self._listener is not None:
            self._listener.close()
        for task in list(self._open):
            task.cancel()
        self._looking.shutdown(wait=False, cancel_futures=True)


def _shown(pid: int) -> tuple[str, str]:
    """Return the executable and the name of ``pid``, "" where that cannot be read."""
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="surrogateescape") as f:
            return os.readlink(f"/proc/{pid}/exe"), f.read().rstrip("\n")
    except OSError:
        return "", ""
